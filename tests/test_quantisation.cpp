// Activation scales -> Quantisation, and whole networks in integers against an oracle that computes every operator
// naively: the same bits for any threads, batch and ISA.
#include "facenet/plan/quantisation.hpp"

#include <doctest/doctest.h>

#include <cstring>
#include <string>
#include <vector>

#include "facenet/models/dlib_resnet.hpp"
#include "facenet/models/inception_resnet_v1.hpp"
#include "facenet/plan/from_values.hpp"
#include "support.hpp"

using namespace support;

namespace {

/// int8 weights with a scale a channel, and an input scale a convolution, measured on a picture.
struct Quantised {
  std::vector<std::vector<std::int8_t>> weight;
  std::vector<std::vector<float>> scale, bias, floats;
  std::vector<std::vector<float>> input;  // empty: the layer is float
};

std::vector<std::uint8_t> picture(Shape s, unsigned seed) {
  Random random(seed);
  std::vector<std::uint8_t> bytes(z(s.size()));
  for (auto& b : bytes) b = static_cast<std::uint8_t>(random.integer(0, 255));
  return bytes;
}
std::vector<float> standardised(const std::vector<std::uint8_t>& bytes, const InputBytes& in) {
  std::vector<float> x(bytes.size());
  for (std::size_t i = 0; i < x.size(); ++i)
    x[i] = static_cast<float>((bytes[i] - in.mean[i % 3]) * static_cast<double>(in.factor));
  return x;
}

/// Which layers stay float is `is_float(op)`; `channels`: a scale for each input channel.
template <class F>
Quantised quantised(const Network& n, const InputBytes& in, bool channels, F&& is_float) {
  const Parameters p(n, 7);
  Quantised q;
  for (auto* v : {&q.scale, &q.bias, &q.floats, &q.input}) v->resize(z(n.size()));
  q.weight.resize(z(n.size()));
  q.bias = p.bias;
  q.floats = p.weight;
  const auto values = execute(n, p, standardised(picture(n[0].out, 1), in));
  for (int i = 0; i < n.size(); ++i) {
    const Op& op = n[i];
    if (op.kind != OpKind::conv || is_float(i)) continue;
    // A pool of bytes alone passes its scale on.
    int source = op.inputs[0];
    while (n[source].kind == OpKind::max_pool && source != 0) {
      bool only_here = true;
      for (int j = 0; j < n.size(); ++j) only_here = only_here && (n[j].kind != OpKind::concat || j < source);
      source = only_here ? n[source].inputs[0] : source;
      if (!only_here) break;
    }
    const int cin = n[op.inputs[0]].out.c;
    std::vector<float> largest(z(cin), 0.0f);
    const auto& x = values[z(op.inputs[0])];
    for (std::size_t k = 0; k < x.size(); ++k) largest[k % z(cin)] = std::fmax(largest[k % z(cin)], x[k]);
    float all = 1e-3f;
    for (float l : largest) all = std::fmax(all, l);
    if (op.inputs[0] == 0)
      q.input[z(i)] = {in.factor};
    else if (channels)
      for (float l : largest) q.input[z(i)].push_back(std::fmax(l, 0.25f * all) / 250);
    else
      q.input[z(i)] = {all / 250};
    const std::size_t taps = z(op.window.taps()), row = z(cin) * taps;
    for (int o = 0; o < op.out.c; ++o) {
      const auto folded = [&](std::size_t k) {
        return p.weight[z(i)][z(o) * row + k] * (q.input[z(i)].size() > 1 ? q.input[z(i)][k / taps] : 1.0f);
      };
      float most = 0;
      for (std::size_t k = 0; k < row; ++k) most = std::fmax(most, std::fabs(folded(k)));
      const float step = most / (i % 2 == 0 ? 127 : 64);  // of every second layer all pairs fit 16 bits
      q.scale[z(i)].push_back(step);
      for (std::size_t k = 0; k < row; ++k)
        q.weight[z(i)].push_back(static_cast<std::int8_t>(std::lrint(folded(k) / step)));
    }
  }
  return q;
}

auto scales_of(const Quantised& q) {
  return [&q](int op, Span<float> room, std::size_t& count) -> Status {
    count = q.input[z(op)].size();
    std::copy(q.input[z(op)].begin(), q.input[z(op)].end(), room.begin());
    return {};
  };
}
Result<Plan> compile(const Network& n, const InputBytes& in, const Quantised& q, int threads = 1,
                     bool matrix_unit = true) {
  PlanOptions options;
  options.threads = threads;
  options.matrix_unit = matrix_unit;
  return compile_integer_with(
      n, options, in, scales_of(q),
      [&](int op, const std::int8_t*& weights, Span<const float>& scales, Span<const float>& biases) {
        weights = q.weight[z(op)].data();
        scales = {q.scale[z(op)].data(), q.scale[z(op)].size()};
        biases = {q.bias[z(op)].data(), q.bias[z(op)].size()};
      },
      [&](int op, Span<float> w, Span<float> b) {
        std::copy(q.floats[z(op)].begin(), q.floats[z(op)].end(), w.begin());
        std::copy(q.bias[z(op)].begin(), q.bias[z(op)].end(), b.begin());
      });
}

float nearest(double exact) { return reference::to_nearest(exact); }
double wide(float x) { return static_cast<double>(x); }

/// Every operator's floats, and its bytes where an integer convolution reads them: kernels/integer_gemm.hpp's rules,
/// one rounding after the other. All convolutions are integer.
std::vector<float> oracle(const Network& n, const InputBytes& in, const Quantised& q,
                          const std::vector<std::uint8_t>& pixels) {
  const auto plan = quantise(n, in, scales_of(q), {});
  REQUIRE(plan.ok());
  std::vector<std::vector<float>> f(z(n.size()));
  std::vector<std::vector<std::uint8_t>> b(z(n.size()));
  for (int i = 0; i < n.size(); ++i) {
    const Op& op = n[i];
    f[z(i)].assign(z(op.out.size()), 0.0f);
    b[z(i)].assign(z(op.out.size()), 0);
    if (op.kind == OpKind::input) {
      b[z(i)] = pixels;
      continue;
    }
    const int input = op.inputs[0];
    const Shape from = n[input].out;
    for (std::int64_t at = 0; at < op.out.size(); ++at) {
      const int c = static_cast<int>(at % op.out.c), x = static_cast<int>(at / op.out.c % op.out.w),
                y = static_cast<int>(at / op.out.c / op.out.w);
      float v = 0;
      switch (op.kind) {
        case OpKind::conv: {
          const Shape part = computed(n, op);
          if (y >= part.h || x >= part.w) {
            v = f[z(op.skip)][z(at)];
            break;
          }
          const std::int64_t sum = reference::integer_conv_at<std::uint8_t>(
              dense_view<const std::uint8_t>(b[z(input)].data(), from), 0, q.weight[z(i)].data(), op.window, y, x, c,
              [](std::uint8_t e) { return e; });
          const float scale = nearest(
              wide(nearest(wide(q.scale[z(i)][z(c)]) * (q.input[z(i)].size() > 1 ? 1 : wide(q.input[z(i)][0])))) *
              wide(op.scale));
          double bias = wide(q.bias[z(i)][z(c)]);
          for (int k = 0; input == 0 && k < from.c; ++k) {
            int weights = 0;
            for (int t = 0; t < op.window.taps(); ++t)
              weights += q.weight[z(i)][z((std::int64_t{c} * from.c + k) * op.window.taps() + t)];
            const volatile double product = in.mean[k] * wide(in.factor) * wide(q.scale[z(i)][z(c)]) * weights;
            bias -= product;
          }
          v = reference::dequantised(sum, scale, nearest(wide(nearest(bias)) * wide(op.scale)));
          if (op.skip >= 0) v = nearest(wide(f[z(op.skip)][z(at)]) + wide(v));
          if (op.act == Act::relu && !(v > 0)) v = 0;
          break;
        }
        case OpKind::linear: {
          for (std::int64_t k = 0; k < from.size(); ++k)
            v = nearest(wide(v) +
                        wide(nearest(wide(f[z(input)][z(k)]) * wide(q.floats[z(i)][z(c * from.size() + k)]))));
          v = nearest(wide(v) + wide(q.bias[z(i)][z(c)]));
          break;
        }
        case OpKind::max_pool: {
          for (int ky = 0; ky < op.window.kh; ++ky)
            for (int kx = 0; kx < op.window.kw; ++kx) {
              const int yy = y * op.window.stride() + ky, xx = x * op.window.stride() + kx;
              const std::int64_t k = (std::int64_t{yy} * from.w + xx) * from.c + c;
              v = std::fmax(v, f[z(input)][z(k)]);
            }
          break;
        }
        case OpKind::avg_pool: {
          int count = 0;
          for (int ky = 0; c < from.c && ky < op.window.kh; ++ky)
            for (int kx = 0; kx < op.window.kw; ++kx, ++count)
              v = nearest(
                  wide(v) +
                  wide(f[z(input)]
                        [z((std::int64_t{y * op.window.stride() + ky} * from.w + x * op.window.stride() + kx) * from.c +
                           c)]));
          v = count == 0 ? 0 : nearest(wide(v) * wide(1.0f / static_cast<float>(count)));
          break;
        }
        case OpKind::global_avg_pool: {
          for (std::int64_t k = c; k < from.size(); k += from.c) v = nearest(wide(v) + wide(f[z(input)][z(k)]));
          v = nearest(wide(v) * wide(1.0f / static_cast<float>(from.pixels())));
          break;
        }
        case OpKind::concat: {
          int k = 0, channel = c;
          while (channel >= n[op.inputs[k]].out.c) channel -= n[op.inputs[k++]].out.c;
          v = f[z(op.inputs[k])][z((std::int64_t{y} * op.out.w + x) * n[op.inputs[k]].out.c + channel)];
          break;
        }
        default: {
          std::vector<float> unit(z(op.out.c));
          double sum = 0;
          for (float e : f[z(input)]) sum += wide(e) * wide(e);
          v = nearest(wide(f[z(input)][z(at)]) * (1.0 / std::fmax(std::sqrt(sum), 1e-12)));
          break;
        }
      }
      f[z(i)][z(at)] = v;
      if (plan->bytes(i)) b[z(i)][z(at)] = static_cast<std::uint8_t>(reference::quantised(v, 1.0f / plan->scale(i, c)));
    }
  }
  return f.back();
}

std::vector<float> run(const Plan& plan, int threads, int batch,
                       const std::vector<std::vector<std::uint8_t>>& pictures) {
  auto w = plan.workspace(batch, threads);
  REQUIRE(w.ok());
  const Shape s = plan.input_shape();
  std::vector<float> out(pictures.size() * z(plan.output_size()));
  for (std::size_t i = 0; i < pictures.size(); i += z(batch)) {
    const std::size_t count = std::min(z(batch), pictures.size() - i);
    std::vector<PlanInput> in(count);
    for (std::size_t k = 0; k < count; ++k) {
      in[k].rgb = pictures[i + k].data();
      in[k].stride = std::ptrdiff_t{3} * s.w;
    }
    REQUIRE(plan.run(*w, in.data(), static_cast<int>(count),
                     Span<float>(out).subspan(i * z(plan.output_size()), count * z(plan.output_size())))
                .ok());
  }
  return out;
}
int differences(const std::vector<float>& a, const std::vector<float>& b) {
  int count = a.size() != b.size();
  for (std::size_t i = 0; i < a.size() && i < b.size(); ++i) count += std::memcmp(&a[i], &b[i], sizeof(float)) != 0;
  return count;
}

void check_network(const Network& n, Scaling scaling, bool channels) {
  REQUIRE(n.ok());
  const simd::FlushDenormals mode;
  const InputBytes in = input_bytes(scaling, ChannelOrder::rgb);
  const Quantised q = quantised(n, in, channels, [](int) { return false; });
  auto plan = compile(n, in, q, 2);
  REQUIRE(plan.ok());
  CHECK(plan->takes_bytes());
  std::vector<std::vector<std::uint8_t>> pictures;
  for (unsigned seed = 1; seed <= 5; ++seed) pictures.push_back(picture(n[0].out, seed));
  const auto got = run(*plan, 1, 1, pictures);
  const std::vector<float> first(got.begin(), got.begin() + plan->output_size());
  CHECK(differences(first, oracle(n, in, q, pictures[0])) == 0);
  constexpr struct { int threads, batch; } runs[] = {{2, 1}, {3, 2}, {2, 3}, {1, 5}, {3, 5}};
  for (const auto& r : runs) CHECK(differences(got, run(*plan, r.threads, r.batch, pictures)) == 0);
  auto without = compile(n, in, q, 1, false);
  REQUIRE(without.ok());
  CHECK(differences(got, run(*without, 3, 3, pictures)) == 0);
  // Far from the float network, a scale would be on the wrong side of a layer.
  const Parameters p(n, 7);
  const auto want = execute(n, p, standardised(pictures[0], in)).back();
  double dot = 0, a = 0, b = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    dot += wide(want[i]) * wide(first[i]);
    a += wide(want[i]) * wide(want[i]);
    b += wide(first[i]) * wide(first[i]);
  }
  CHECK(dot / std::sqrt(a * b) > 0.995);
}

}  // namespace

TEST_CASE("Inception-ResNet-v1 in integers gives the oracle's bits, for any threads and batch") {
  check_network(models::inception_resnet_v1(136, true, 1.0 / 16), Scaling::fixed, false);
}
TEST_CASE("with a scale for each channel") {
  check_network(models::inception_resnet_v1(32, true, 1.0 / 16), Scaling::fixed, true);
}
TEST_CASE("dlib's network: averages, channels of zeros and parts of a trunk, which are quantised beside it") {
  check_network(models::dlib_resnet(16, false, 1.0 / 4), Scaling::mean_255, false);
}

#if defined(FACENET_AMX)
TEST_CASE("a matrix unit gives the bits of vectors, where layers are deep enough for it") {
  if (!simd::integer::amx::granted()) {
    MESSAGE("there is none");
    return;
  }
  const Network n = models::inception_resnet_v1(64, true, 1.0 / 2);
  const simd::FlushDenormals mode;
  const InputBytes in = input_bytes(Scaling::fixed, ChannelOrder::rgb);
  const Quantised q = quantised(n, in, false, [](int) { return false; });
  std::vector<std::vector<std::uint8_t>> pictures;
  for (unsigned seed = 1; seed <= 3; ++seed) pictures.push_back(picture(n[0].out, seed));
  auto with = compile(n, in, q, 2), without = compile(n, in, q, 2, false);
  REQUIRE((with.ok() && without.ok()));
  const auto want = run(*without, 1, 1, pictures);
  constexpr struct { int threads, batch; } runs[] = {{1, 1}, {2, 1}, {2, 2}, {2, 3}, {1, 3}, {3, 3}};
  for (const auto& r : runs) CHECK(differences(want, run(*with, r.threads, r.batch, pictures)) == 0);
}

#endif

TEST_CASE("a run whose threads have an image each is cancelled as a whole, and the next one is right") {
  const Network n = models::inception_resnet_v1(32, true, 1.0 / 16);
  const simd::FlushDenormals mode;
  const InputBytes in = input_bytes(Scaling::fixed, ChannelOrder::rgb);
  const Quantised q = quantised(n, in, false, [](int) { return false; });
  auto plan = compile(n, in, q);
  REQUIRE(plan.ok());
  std::vector<std::vector<std::uint8_t>> pictures;
  std::vector<PlanInput> inputs(5);
  for (unsigned seed = 1; seed <= 5; ++seed) pictures.push_back(picture(n[0].out, seed));
  for (std::size_t i = 0; i < 5; ++i) {
    inputs[i].rgb = pictures[i].data();
    inputs[i].stride = std::ptrdiff_t{3} * n[0].out.w;
  }
  const auto want = run(*plan, 1, 1, pictures);
  auto w = plan->workspace(5, 3);
  REQUIRE(w.ok());
  std::atomic<bool> cancel{false};
  w->cancel_when(&cancel);
  std::vector<float> out(want.size());
  for (const int after : {0, 3, 40, 1000}) {  // steps of the calling thread
    int steps = 0;
    cancel = after == 0;
    const Status status = plan->run(*w, inputs.data(), 5, out, [&](int) {
      if (++steps == after) cancel = true;
    });
    CHECK(status.code() == (steps < after ? Errc::ok : Errc::cancelled));
    cancel = false;
    REQUIRE(plan->run(*w, inputs.data(), 5, out).ok());
    CHECK(differences(want, out) == 0);
  }
}
