// Plans: decisions, arena, threads, batches. Built for OpenMP, std::thread and serial, and for lesser ISAs.
#include <atomic>
#include <cstdlib>
#include <new>

namespace {
std::atomic<long> allocations{0};
std::atomic<bool> refuse{false};
}  // namespace
#if defined(__has_feature)  // Clang's way to say what GCC defines
#  if __has_feature(address_sanitizer)
#    define __SANITIZE_ADDRESS__ 1
#  endif
#  if __has_feature(thread_sanitizer)
#    define __SANITIZE_THREAD__ 1
#  endif
#endif
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
// The program's own malloc: what the standard library, libgomp or a C function allocates counts too.
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* malloc(std::size_t bytes) noexcept { return ++allocations, refuse ? nullptr : __libc_malloc(bytes); }
void* calloc(std::size_t count, std::size_t bytes) noexcept { return ++allocations, __libc_calloc(count, bytes); }
void* realloc(void* p, std::size_t bytes) noexcept { return ++allocations, __libc_realloc(p, bytes); }
}
#else
static void* counted_malloc(std::size_t bytes) {
  ++allocations;
  return refuse ? nullptr : std::malloc(bytes);
}
#  define FACENET_MALLOC(bytes) counted_malloc(bytes)
#  define FACENET_FREE(pointer) std::free(pointer)
#  undef FACENET_TEST_TILES  // compiled with another malloc, and so by other names
void* operator new(std::size_t bytes) {
  ++allocations;
  if (void* p = std::malloc(bytes)) return p;
  std::abort();
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
#endif

#include <doctest/doctest.h>

#include <cfenv>
#include <cstring>
#include <functional>
#include <iterator>
#include <set>
#include <string>
#include <thread>

#ifdef FACENET_TEST_TILES
#  include FACENET_TEST_TILES
#endif
#include "facenet/models/inception_resnet_v1.hpp"
#include "facenet/models/mtcnn.hpp"
#include "small_network.hpp"
#include "support.hpp"

using namespace support;

namespace {

std::vector<float> pixels(Shape s, unsigned seed) {
  std::vector<float> v(z(s.size()));
  Random(seed).fill(v);
  return v;
}

std::vector<float> run(const Plan& p, int threads, int batch, const std::vector<std::vector<float>>& pictures) {
  auto w = p.workspace(batch, threads);
  REQUIRE(w.ok());
  std::vector<float> out(pictures.size() * z(p.output_size()));
  for (std::size_t i = 0; i < pictures.size(); i += z(batch)) {
    const std::size_t n = std::min(z(batch), pictures.size() - i);
    std::vector<PlanInput> in(n);
    for (std::size_t k = 0; k < n; ++k) in[k].nhwc = pictures[i + k].data();
    REQUIRE(p.run(*w, in.data(), static_cast<int>(n),
                  Span<float>(out).subspan(i * z(p.output_size()), n * z(p.output_size())))
                .ok());
  }
  return out;
}

constexpr Network inception = models::inception_resnet_v1();

constexpr ConvAlgorithm every_algorithm[] = {ConvAlgorithm::automatic,
                                             ConvAlgorithm::direct,
                                             ConvAlgorithm::winograd_4x4_3x3,
                                             ConvAlgorithm::winograd_4_1x7,
                                             ConvAlgorithm::winograd_4_7x1,
                                             ConvAlgorithm::winograd_6x6_3x3,
                                             ConvAlgorithm::winograd_3x3_stride_2};

/// The operator alone, after one that makes a residual's trunk.
Network alone(const Network& from, const Op& op) {
  Network n("alone", from[op.inputs[0]].out);
  const Ref x = n.input();
  if (op.skip >= 0)
    n.residual("layer", x, n.conv_bias("trunk", x, op.out.c, k(1)), op.scale, op.act);
  else if (op.kind == OpKind::linear)
    n.linear_bn("layer", x, op.out.c);
  else if (op.act == Act::relu)
    n.conv("layer", x, op.out.c, op.window);
  else if (op.act == Act::prelu)
    n.conv_prelu("layer", x, op.out.c, op.window);
  else
    n.conv_bias("layer", x, op.out.c, op.window);
  return n;
}

/// Runs the last operator of `n` on random values and compares it with reference.hpp: every pixel, and of each
/// 8 channels (the next 8 of the next pixel), or all of them where the output is small. Returns the algorithm.
ConvAlgorithm check_last_layer(const Network& n, const Parameters& parameters, PlanOptions options) {
  auto plan = parameters.compile(n, options);
  REQUIRE(plan.ok());
  auto w = plan->workspace(1, 2);
  REQUIRE(w.ok());
  const int index = n.size() - 1, steps = static_cast<int>(plan->steps().size());
  const Step& step = plan->steps()[z(steps - 1)];
  REQUIRE(step.op == index);
  const Op& op = n[index];
  Random random(11);
  const auto fill = [&](int which) {
    const TensorView to = plan->view(*w, which);
    std::vector<float> values(z(to.shape.size()));
    random.fill(values);
    for (int y = 0; y < to.shape.h; ++y)
      for (int x = 0; x < to.shape.w; ++x)
        std::copy_n(values.data() + (std::int64_t{y} * to.shape.w + x) * to.shape.c, to.shape.c, to.pixel(0, y, x));
    return values;
  };
  const auto input = fill(op.inputs[0]), trunk = op.skip >= 0 ? fill(op.skip) : std::vector<float>();
  plan->run_step(*w, steps - 1);

  // The weights as they are kept. Winograd rounds them to half only after its transform.
  const bool winograd = is_winograd(step.algorithm), half = options.half_weights;
  std::vector<float> weight = parameters.weight[z(index)], bias = parameters.bias[z(index)];
  for (float& x : weight) {
    x *= op.scale;
    if (half && !winograd) x = simd::half_to_float(simd::float_to_half(x));
  }
  for (int c = 0; c < op.out.c; ++c) bias[z(c)] *= op.scale;

  const Shape from = n[op.inputs[0]].out;
  const auto in = dense_view<const float>(input.data(), from);
  const double growth = algorithm_growth(step.algorithm);
  // Terms: the products, the bias, the residual. Rounding to half is wrong by 2^-11 of a term at the most.
  const std::int64_t terms = weight_count(n, op) / op.out.c + 2;
  const double rounded = half && winograd ? 0x1p-11 : 0;
  const int each = op.out.size() <= 4096 ? op.out.c : std::min(op.out.c, 8);
  double share = 0, off2 = 0, magnitude2 = 0;
  for (std::int64_t pixel = 0; pixel < op.out.pixels(); ++pixel)
    for (int i = 0; i < each; ++i) {
      const int y = static_cast<int>(pixel / op.out.w), x = static_cast<int>(pixel % op.out.w);
      const int c = static_cast<int>((pixel * each + i) % op.out.c);
      const auto sum = reference::conv_at(in, 0, weight.data(), bias.data(), window_of(n, op), y, x, c);
      double want = sum.value, magnitude = sum.magnitude;
      if (op.skip >= 0) {
        const double before = static_cast<double>(trunk[z(pixel * op.out.c + c)]);
        want += before;
        magnitude += std::fabs(before);
      }
      if (op.act == Act::relu) want = std::fmax(want, 0.0);
      if (op.act == Act::prelu && want < 0) want *= static_cast<double>(bias[z(op.out.c + c)]);
      const double off = std::fabs(static_cast<double>(plan->view(*w, index).pixel(0, y, x)[c]) - want);
      share = std::fmax(share, off / (growth * (sum_tolerance(terms, magnitude) + rounded * magnitude)));
      off2 += off * off;
      magnitude2 += magnitude * magnitude;
    }
  CHECK(share <= 1);
  // The bound for each output is far from what happens; the one for their root mean square is nearer.
  const double root = std::sqrt(static_cast<double>(terms + 2));
  const double typical = rounding_factor(step.algorithm) * root * 0x1p-24 + growth * rounded;
  CHECK(std::sqrt(off2) <= typical * std::sqrt(magnitude2));
  return step.algorithm;
}

/// int8 weights and scales for every weighted operator of a network, and what they stand for.
struct Int8Parameters {
  std::vector<std::vector<std::int8_t>> weight;
  std::vector<std::vector<float>> scale, bias;
  Int8Parameters(const Network& n, unsigned seed) : weight(z(n.size())), scale(z(n.size())), bias(z(n.size())) {
    Random random(seed);
    for (int i = 0; i < n.size(); ++i) {
      if (!has_weights(n[i])) continue;
      weight[z(i)].resize(z(weight_count(n, n[i])));
      for (std::int8_t& q : weight[z(i)]) q = static_cast<std::int8_t>(random.integer(-128, 127));
      scale[z(i)].resize(z(n[i].out.c));
      // About the size that keeps activations near 1, a different odd number for each channel.
      const float size = 2.0f / (128.0f * std::sqrt(static_cast<float>(weight_count(n, n[i]) / n[i].out.c)));
      random.fill(scale[z(i)], 0.2f * size, size);
      bias[z(i)].resize(bias_count(n[i]));
      random.fill(bias[z(i)], -0.1f, 0.1f);
    }
  }
  Result<Plan> kept(const Network& n, PlanOptions options) const {
    return compile_int8_with(n, options,
                             [&](int op, const std::int8_t*& w, Span<const float>& s, Span<const float>& b) {
                               w = weight[z(op)].data();
                               s = {scale[z(op)].data(), scale[z(op)].size()};
                               b = {bias[z(op)].data(), bias[z(op)].size()};
                             });
  }
  Result<Plan> expanded(const Network& n, PlanOptions options) const {
    return compile_with(n, options, [&](int op, Span<float> w, Span<float> b) {
      const std::size_t row = w.size() / scale[z(op)].size();
      for (std::size_t i = 0; i < w.size(); ++i) w[i] = static_cast<float>(weight[z(op)][i]) * scale[z(op)][i / row];
      std::copy(bias[z(op)].begin(), bias[z(op)].end(), b.begin());
    });
  }
};

/// The last operator of `n` gives the same bits from weights that stay int8 as from their floats.
void check_int8_layer(const Network& n, PlanOptions options) {
  const Int8Parameters parameters(n, 17);
  const Result<Plan> plans[] = {parameters.kept(n, options), parameters.expanded(n, options)};
  std::vector<float> out[2];
  const int index = n.size() - 1;
  const Op& op = n[index];
  for (int which = 0; which < 2; ++which) {
    const Result<Plan>& plan = plans[which];
    REQUIRE(plan.ok());
    auto w = plan->workspace(1, which == 0 ? 3 : 1);
    REQUIRE(w.ok());
    Random random(12);
    for (int from : {op.inputs[0], op.skip}) {
      if (from < 0) continue;
      const TensorView to = plan->view(*w, from);
      for (int y = 0; y < to.shape.h; ++y)
        for (int x = 0; x < to.shape.w; ++x)
          for (int c = 0; c < to.shape.c; ++c) to.pixel(0, y, x)[c] = random();
    }
    plan->run_step(*w, static_cast<int>(plan->steps().size()) - 1);
    const TensorView got = plan->view(*w, index);
    for (int y = 0; y < op.out.h; ++y)
      for (int x = 0; x < op.out.w; ++x)
        out[which].insert(out[which].end(), got.pixel(0, y, x), got.pixel(0, y, x) + op.out.c);
  }
  CHECK(std::memcmp(out[0].data(), out[1].data(), out[0].size() * sizeof(float)) == 0);
  CHECK(*std::max_element(out[0].begin(), out[0].end()) > 0);
}

// Where a picture takes a second: scalar code, code with sanitizers inside, and an emulator (tools/test.sh says so).
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool instrumented = true;
#else
constexpr bool instrumented = false;
#endif
const bool slow = instrumented || simd::width == 1 || std::getenv("FACENET_TEST_SLOW") != nullptr;
// SSE2 takes 60 ms a picture: fewer threads and batches there, or this one test takes half a minute.
constexpr bool modest = simd::width < 8;

}  // namespace

TEST_CASE("a plan computes what the naive executor computes, with every algorithm") {
  const Network n = small_network();
  REQUIRE(n.ok());
  const Parameters parameters(n, 5);
  for (auto algorithm : every_algorithm) {
    PlanOptions options;
    options.conv = algorithm;
    auto plan = parameters.compile(n, options);
    REQUIRE(plan.ok());
    for (int threads : {1, 3}) {
      const auto picture = pixels(n[0].out, 9);
      const auto want = execute(n, parameters, picture);
      const auto got = run(*plan, threads, 1, {picture});
      double error = 0;
      for (std::size_t i = 0; i < got.size(); ++i)
        error = std::fmax(error, std::fabs(static_cast<double>(got[i]) - static_cast<double>(want.back()[i])));
      CAPTURE(std::string(name(algorithm)));
      CHECK(error < 2e-6);  // unit vector of 20; a wrong slice or halo is off by 0.1 and more
    }
  }
}

TEST_CASE("each step, fed the executor's values, gives the executor's values") {
  const Network n = small_network();
  const Parameters parameters(n, 6);
  auto plan = parameters.compile(n);
  REQUIRE(plan.ok());
  auto w = plan->workspace(1, 2);
  REQUIRE(w.ok());
  const auto picture = pixels(n[0].out, 10);
  const auto want = execute(n, parameters, picture);
  const auto copy = [&](int op, bool write) {
    const TensorView v = plan->view(*w, op);
    double error = 0;
    for (int y = 0; y < v.shape.h; ++y)
      for (int x = 0; x < v.shape.w; ++x)
        for (int c = 0; c < v.shape.c; ++c) {
          const float value = want[z(op)][z((std::int64_t{y} * v.shape.w + x) * v.shape.c + c)];
          if (write) v.pixel(0, y, x)[c] = value;
          error = std::fmax(error, std::fabs(static_cast<double>(v.pixel(0, y, x)[c]) - static_cast<double>(value)));
        }
    return error;
  };
  PlanInput in;
  in.nhwc = picture.data();
  for (int s = 0; s < static_cast<int>(plan->steps().size()); ++s) {
    const Step& step = plan->steps()[z(s)];
    const Op& op = n[step.op];
    for (int i = 0; i < op.input_count; ++i) copy(op.inputs[i], true);
    if (op.skip >= 0) copy(op.skip, true);
    plan->run_step(*w, s, &in);
    CAPTURE(op.name.text);
    CHECK(copy(step.op, false) < 1e-5);
    for (int i = 0; i < step.segment_count; ++i) CHECK(copy(step.segment_ops[i], false) < 1e-5);
  }
}

TEST_CASE("no step writes over what a later step reads, and run() is the sequence of its steps") {
  const auto check = [](const Network& n, PlanOptions options) {
    const Parameters parameters(n, 3);
    auto plan = parameters.compile(n, options);
    REQUIRE(plan.ok());
    auto w = plan->workspace(1, 2);
    REQUIRE(w.ok());
    const auto read = [&](int op) {
      const TensorView v = plan->view(*w, op);
      std::vector<float> values;
      for (int y = 0; y < v.shape.h; ++y)
        for (int x = 0; x < v.shape.w; ++x) values.insert(values.end(), v.pixel(0, y, x), v.pixel(0, y, x) + v.shape.c);
      return values;
    };
    const auto picture = pixels(n[0].out, 4);
    PlanInput in;
    in.nhwc = picture.data();
    std::vector<std::vector<float>> made(z(n.size()));
    // A concatenation is what its inputs were when they were made, side by side.
    const std::function<std::vector<float>(int)> remembered = [&](int op) {
      if (n[op].kind != OpKind::concat) return made[z(op)];
      std::vector<float> whole(z(n[op].out.size()));
      std::int64_t channel = 0;
      for (int k = 0; k < n[op].input_count; ++k) {
        const auto part = remembered(n[op].inputs[k]);
        const std::int64_t c = n[n[op].inputs[k]].out.c;
        for (std::int64_t p = 0; p < n[op].out.pixels(); ++p)
          std::copy_n(part.data() + p * c, c, whole.data() + p * n[op].out.c + channel);
        channel += c;
      }
      return whole;
    };
    for (int s = 0; s < static_cast<int>(plan->steps().size()); ++s) {
      const Step& step = plan->steps()[z(s)];
      const Op& op = n[step.op];
      CAPTURE(op.name.text);
      for (int i = 0; i < op.input_count; ++i) CHECK(read(op.inputs[i]) == remembered(op.inputs[i]));
      if (op.skip >= 0) CHECK(read(op.skip) == remembered(op.skip));
      plan->run_step(*w, s, &in);
      made[z(step.op)] = read(step.op);
      for (int i = 0; i < step.segment_count; ++i) made[z(step.segment_ops[i])] = read(step.segment_ops[i]);
    }
    const auto out = run(*plan, 1, 1, {picture});
    CHECK(out == remembered(n.size() - 1));
    CHECK(run(*plan, 1, 3, {picture, picture, picture}) == [&] {
      auto three = out;
      three.insert(three.end(), out.begin(), out.end());
      three.insert(three.end(), out.begin(), out.end());
      return three;
    }());
  };
  PlanOptions direct;  // with halos, which Winograd does without
  direct.conv = ConvAlgorithm::direct;
  check(small_network(), {});
  check(small_network(), direct);
  check(models::mtcnn_onet(), direct);
  if (slow) return;
  check(inception, {});
  check(inception, direct);
}

TEST_CASE("every algorithm computes every convolution of every network, as the reference does") {
  std::set<std::string> seen;
  bool used[static_cast<std::size_t>(ConvAlgorithm::winograd_3x3_stride_2) + 1] = {};  // the last one
  for (const Network& net : {inception, models::inception_resnet_v1(128), models::mtcnn_pnet(30, 41),
                             models::mtcnn_rnet(), models::mtcnn_onet()})
    for (int i = 0; i < net.size(); ++i) {
      const Op& op = net[i];
      if (!has_weights(op)) continue;
      const Network n = alone(net, op);
      REQUIRE(n.ok());
      const Op& layer = n[n.size() - 1];
      REQUIRE(layer.out == op.out);
      const Shape in = n[0].out;
      const Window& w = op.window;
      char shape[160];
      std::snprintf(shape, sizeof shape,
                    "%dx%dx%d -> %dx%dx%d by %dx%d/%d, padding %d %d, kind %d, act %d, residual %d", in.h, in.w, in.c,
                    op.out.h, op.out.w, op.out.c, w.kh, w.kw, w.stride(), w.pad_h, w.pad_w, static_cast<int>(op.kind),
                    static_cast<int>(op.act), op.skip >= 0);
      if (!seen.insert(shape).second) continue;
      CAPTURE(op.name.text);
      CAPTURE(shape);
      const Parameters parameters(n, 13);
      for (bool half : {false, true}) {
        if (half && !simd::half_in_memory) continue;
        std::set<ConvAlgorithm> done;
        for (auto algorithm : every_algorithm) {
          CAPTURE(half);
          CAPTURE(std::string(name(algorithm)));
          const ConvAlgorithm chosen =
              choose_conv({in, op.out, w, op.skip < 0 && op.act != Act::none, op.act == Act::prelu}, algorithm);
          if (!done.insert(chosen).second) continue;  // forced where it cannot run: the direct one again
          PlanOptions options;
          options.conv = algorithm;
          options.half_weights = half;
          CHECK(check_last_layer(n, parameters, options) == chosen);
          if (!half) check_int8_layer(n, options);
          used[static_cast<std::size_t>(chosen)] = true;
        }
      }
    }
  CHECK(seen.size() == 47);
  for (auto a : every_algorithm) CHECK(used[static_cast<std::size_t>(a)] == (a != ConvAlgorithm::automatic));
}

TEST_CASE("the same bits for any number of threads, any batch and any place in it; nothing allocated while running") {
  const Parameters parameters(inception, 1);
  for (bool half : {false, true}) {
    if (half && !simd::half_in_memory) break;  // the plan would take float weights again
    PlanOptions options;
    options.half_weights = half;
    auto plan = parameters.compile(inception, options);
    REQUIRE(plan.ok());
    std::vector<std::vector<float>> pictures;
    const int count = slow ? 3 : 9;
    for (int i = 0; i < count; ++i) pictures.push_back(pixels(inception[0].out, static_cast<unsigned>(i)));
    pictures.back() = pictures.front();
    const auto want = run(*plan, 1, 1, pictures);
    CHECK(std::memcmp(want.data(), want.data() + (pictures.size() - 1) * 512, 512 * sizeof(float)) == 0);
    CHECK(std::memcmp(want.data(), want.data() + 512, 512 * sizeof(float)) != 0);
    if (slow) break;
    for (int threads : {1, 2, 3, 8})
      for (int batch : {1, 2, 7, 32}) {
        if ((modest || half) && threads != 3 && batch != 7) continue;
        CAPTURE(threads);
        CAPTURE(batch);
        const auto got = run(*plan, threads, batch, pictures);
        CHECK(std::memcmp(want.data(), got.data(), want.size() * sizeof(float)) == 0);
      }
    std::vector<std::vector<float>> many;
    for (std::size_t i = 0; i < 32; ++i) many.push_back(pictures[(i * i + 3) % 8]);  // each in several places, unevenly
    const auto all = run(*plan, 2, 32, many);
    for (std::size_t i = 0; i < 32; ++i) {
      CAPTURE(i);
      CHECK(std::memcmp(all.data() + i * 512, want.data() + (i * i + 3) % 8 * 512, 512 * sizeof(float)) == 0);
    }
    auto w = plan->workspace(2, 2);
    REQUIRE(w.ok());
    std::vector<PlanInput> in(2);
    in[0].nhwc = in[1].nhwc = pictures[0].data();
    std::vector<float> out(1024);
    REQUIRE(plan->run(*w, in.data(), 2, out).ok());
    const long before = allocations;
    for (int i = 0; i < 3; ++i) REQUIRE(plan->run(*w, in.data(), 2, out).ok());
    CHECK(allocations == before);
    CHECK(plan->run(*w, in.data(), 3, out).code() == Errc::invalid_argument);
  }
}

TEST_CASE("int8 weights that stay int8 give the bits of their floats, for any number of threads and any batch") {
  for (const Network& n : {small_network(), inception}) {
    const bool whole = n.size() == inception.size();
    const Int8Parameters parameters(n, 21);
    std::vector<std::vector<float>> pictures;
    for (unsigned i = 0; i < (whole && slow ? 1 : 3); ++i) pictures.push_back(pixels(n[0].out, i));
    for (auto algorithm : {ConvAlgorithm::automatic, ConvAlgorithm::direct}) {
      if (whole && algorithm == ConvAlgorithm::direct) continue;  // the layers alone are in the test above
      PlanOptions options;
      options.conv = algorithm;
      const auto kept = parameters.kept(n, options), expanded = parameters.expanded(n, options);
      REQUIRE(kept.ok());
      REQUIRE(expanded.ok());
      CHECK(kept->weight_bytes() == 0);  // they are the caller's
      for (std::size_t i = 0; i < kept->steps().size(); ++i)
        CHECK(kept->executed_macs(kept->steps()[i]) == expanded->executed_macs(expanded->steps()[i]));
      const auto want = run(*expanded, 1, 1, pictures);
      for (const auto& run_as : {std::pair{1, 1}, std::pair{3, 2}, std::pair{8, 3}}) {
        const int threads = run_as.first, batch = run_as.second;
        if (whole && slow && threads > 1) continue;
        CAPTURE(threads);
        const auto got = run(*kept, threads, batch, pictures);
        CHECK(std::memcmp(want.data(), got.data(), want.size() * sizeof(float)) == 0);
      }
      auto w = kept->workspace(1, 1);
      REQUIRE(w.ok());
      PlanInput in;
      in.nhwc = pictures[0].data();
      std::vector<float> out(z(kept->output_size()));
      const long before = allocations;
      CHECK(kept->run(*w, &in, 1, out).ok());
      CHECK(allocations == before);
    }
  }
  PlanOptions both;
  both.half_weights = both.int8_weights = true;
  const Network n = small_network();
  CHECK(Int8Parameters(n, 1).kept(n, both).status().code() == Errc::invalid_argument);
}

TEST_CASE("a batch keeps every picture's output where no layer is worth merging, and where some are") {
  const Network light = small_network();
  CHECK(choose_merge(light) > 0);
  Network none("none", {9, 9, 16});  // every operator runs image by image, the last one too
  none.max_pool("pool", none.conv("a", none.input(), 16, k(3)), k(3));
  REQUIRE(choose_merge(none) == none.size());
  for (const Network* n : {&light, static_cast<const Network*>(&none)}) {
    const Parameters parameters(*n, 4);
    auto plan = parameters.compile(*n);
    REQUIRE(plan.ok());
    std::vector<std::vector<float>> pictures;
    for (unsigned i = 0; i < 5; ++i) pictures.push_back(pixels((*n)[0].out, 20 + i));
    const auto want = run(*plan, 1, 1, pictures);
    for (int threads : {1, 3})
      for (int batch : {2, 3, 5}) CHECK(run(*plan, threads, batch, pictures) == want);
  }
}

TEST_CASE("one plan serves several threads, each with a workspace") {
  const Network n = small_network();
  const Parameters parameters(n, 2);
  auto plan = parameters.compile(n);
  REQUIRE(plan.ok());
  const auto picture = pixels(n[0].out, 3);
  const auto want = run(*plan, 1, 1, {picture});
  std::vector<std::vector<float>> got(4);
#if defined(FACENET_PARALLEL_SERIAL)
  for (auto& g : got) g = run(*plan, 1, 1, {picture});
#else
  std::vector<std::thread> users;
  for (auto& g : got)
    users.emplace_back([&] {
      for (int i = 0; i < 10; ++i) g = run(*plan, 2, 1, {picture});
    });
  for (auto& u : users) u.join();
#endif
  for (const auto& g : got) CHECK(g == want);
}

TEST_CASE("a team smaller than asked for computes the same: OpenMP grants a nested region one thread") {
  const Network n = small_network();
  const Parameters parameters(n, 2);
  auto plan = parameters.compile(n);
  REQUIRE(plan.ok());
  const auto picture = pixels(n[0].out, 3);
  const auto want = run(*plan, 1, 1, {picture});
  std::vector<float> got[2];
  Team outer;
  REQUIRE(outer.start(2).ok());
  int came = 0;
  outer.run([&](int member, int members) {
    got[member] = run(*plan, 3, 1, {picture});
    if (member == 0) came = members;
  });
  for (int i = 0; i < came; ++i) CHECK(got[i] == want);
  CHECK(came >= 1);
}

TEST_CASE("bytes become the pixels they stand for: padded rows, swapped channels, a table of values") {
  const Network n = small_network();
  const Parameters parameters(n, 2);
  auto plan = parameters.compile(n);
  REQUIRE(plan.ok());
  auto w = plan->workspace(2, 1);
  REQUIRE(w.ok());
  const Shape s = n[0].out;
  const std::ptrdiff_t stride = 3 * s.w + 5;
  Random random(8);
  std::vector<std::uint8_t> bytes(z(2 * s.h * stride));
  for (auto& b : bytes) b = static_cast<std::uint8_t>(random.integer(0, 255));
  float table[3][256];
  for (auto& channel : table)
    for (float& v : channel) v = random();
  for (bool swap : {false, true})
    for (bool with_table : {false, true}) {
      std::vector<float> want(z(2 * n[n.size() - 1].out.c)), got(want.size());
      PlanInput raw[2], ready[2];
      std::vector<float> floats[2];
      for (int i = 0; i < 2; ++i) {
        raw[i].rgb = bytes.data() + i * s.h * stride;
        raw[i].stride = stride;
        raw[i].swap = swap;
        raw[i].value = with_table ? table : nullptr;
        for (int y = 0; y < s.h; ++y)
          for (int x = 0; x < s.w; ++x)
            for (int c = 0; c < 3; ++c) {
              const std::uint8_t b = raw[i].rgb[y * stride + 3 * x + (swap ? 2 - c : c)];
              floats[i].push_back(with_table ? table[c][b] : (static_cast<float>(b) - 127.5f) / 128.0f);  // exact
            }
        ready[i].nhwc = floats[i].data();
      }
      REQUIRE(plan->run(*w, raw, 2, got).ok());
      REQUIRE(plan->run(*w, ready, 2, want).ok());
      CAPTURE(swap);
      CAPTURE(with_table);
      CHECK(got == want);
    }
}

#if defined(__SSE2__) || defined(__aarch64__)
TEST_CASE("denormal pixels, weights, products and sums count as zero in a run, on every thread") {
  Network n("tiny", {64, 64, 4});
  n.conv_bias("c", n.input(), 8, k(1));
  const struct {
    bool half;
    float pixel, weight, bias, out;
  } cases[] = {{false, 0x1p-130f, 0x1p20f, 0, 0},  // 2^-108 otherwise
               {false, 0x1p20f, 0x1p-130f, 0, 0},
               {false, 0x1p-70f, 0x1p-70f, 0, 0},       // normal factors, and 2^-138 otherwise
               {false, 1, 0x1p-126f, -0x1.cp-125f, 0},  // normal terms, and 2^-127 otherwise
               {true, 0x1p20f, 0x1p-20f, 0, 4}};        // a subnormal half is a normal float
  for (const auto& c : cases) {
    PlanOptions options;
    options.half_weights = c.half;
    const auto plan = compile_with(n, options, [&](int, Span<float> w, Span<float> b) {
      for (float& x : w) x = c.weight;
      for (float& x : b) x = c.bias;
    });
    REQUIRE(plan.ok());
    CAPTURE(c.pixel);
    const std::vector<float> picture(z(n[0].out.size()), c.pixel), want(64 * 64 * 8, c.out);
    for (int threads : {1, 3}) CHECK(run(*plan, threads, 1, {picture}) == want);
  }
  volatile float x = 0x1p-130f;
  CHECK(x * 0x1p20f == 0x1p-110f);  // the caller's mode is back
}

TEST_CASE("a caller's rounding mode changes no bit, and is kept") {
  const Network n = small_network();
  const Parameters parameters(n, 2);
  auto plan = parameters.compile(n);
  REQUIRE(plan.ok());
  const auto picture = pixels(n[0].out, 3);
  const auto want = run(*plan, 1, 1, {picture});
  for (int threads : {1, 3}) {
    std::fesetround(FE_UPWARD);
    const auto got = run(*plan, threads, 1, {picture});
    const int kept = std::fegetround();
    std::fesetround(FE_TONEAREST);
    CHECK(got == want);
    CHECK(kept == FE_UPWARD);
  }
}
#endif

TEST_CASE("executed multiply-adds: once a pixel, or once a Winograd tile and point") {
  const Network n = small_network();
  const Parameters parameters(n, 2);
  const auto executed = [&](const char* layer, PlanOptions options) {
    const auto plan = parameters.compile(n, options);
    REQUIRE(plan.ok());
    for (const Step& s : plan->steps())
      if (n[s.op].name == layer) return plan->executed_macs(s);
    return std::int64_t{-1};
  };
  PlanOptions direct, winograd, half;
  direct.conv = ConvAlgorithm::direct;
  winograd.conv = ConvAlgorithm::winograd_4x4_3x3;
  half = winograd;
  half.half_weights = true;
  CHECK(executed("b1", direct) == 8 * 7 * 9 * 32 * 32);
  CHECK(executed("b1", winograd) == 4 * 36 * 32 * 32);  // 2 x 2 tiles
  CHECK(executed("b1", half) == 4 * 36 * 32 * 32);
  CHECK(executed("odd", direct) == 6 * 5 * 9 * 32 * kernels::panels(5, simd::width) * simd::width);  // zeros included
  CHECK(executed("pool", direct) == 0);
}

TEST_CASE("describe() names every layer") {
  const Network n = small_network();
  const Parameters parameters(n, 2);
  auto plan = parameters.compile(n);
  REQUIRE(plan.ok());
  std::string text;
  plan->describe([&](const char* line) { text += std::string(line) + "\n"; });
  for (const Step& s : plan->steps()) CHECK(text.find(n[s.op].name.text) != std::string::npos);
}

TEST_CASE("no memory is an error, and the next call works") {
  const Network n = small_network();
  const Parameters parameters(n, 2);
  refuse = true;
  auto none = parameters.compile(n);
  refuse = false;
  CHECK(none.status().code() == Errc::out_of_memory);
  auto plan = parameters.compile(n);
  REQUIRE(plan.ok());
  refuse = true;
  const auto workspace = plan->workspace(1, 1);
  refuse = false;
  CHECK(workspace.status().code() == Errc::out_of_memory);
  CHECK(plan->workspace(0, 1).status().code() == Errc::invalid_argument);
  CHECK(plan->workspace(1, 0).status().code() == Errc::invalid_argument);
  CHECK(plan->workspace(1, 1).ok());
}
