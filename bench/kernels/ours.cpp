// This engine's layers, as a plan runs them: its steps with their algorithms, packed weights, epilogues, arena (halos,
// slices of concatenations) and chunks on a team. `ours list` prints the distinct convolutions, a line of JSON each.
//
// The step under test stands in the list of steps once for each copy of the weights. So the copies lie one after the
// other as layers of a plan do, and a run is what Plan::run does: one step after the other with a barrier between.
#include "worker.hpp"

#include "../../tests/support.hpp"
#include "../peak.hpp"
#include "facenet/models/inception_resnet_v1.hpp"

namespace {

using namespace kernels_bench;
using namespace facenet;
using kernels::Activation;

constexpr Network network = models::inception_resnet_v1();

template <class T>
T need(Result<T> result) {
  if (result) return std::move(*result);
  char text[512];
  fail(result.status().print(text, sizeof text));
}
void need(const Status& status) {
  char text[512];
  if (!status.ok()) fail(status.print(text, sizeof text));
}

/// All convolutions in integers, with one scale for all activations and no mean.
Quantisation quantisation(bool integer) {
  if (!integer) return {};
  return need(quantise(network, {{0, 0, 0}, byte_scale},
                       [](int, Span<float> room, std::size_t& count) {
                         room[0] = byte_scale;
                         count = 1;
                         return Status();
                       },
                       {}));
}

/// What compare_kernels.py sends back, and what tells two layers apart.
Layer layer_of(const Quantisation& q, const Steps& steps, int index) {
  const Step& s = steps[index];
  const Op& op = network[s.op];
  const Window w = window_of(network, op);
  Layer l;
  l.integer = s.is_integer();
  l.step = index;
  l.in = network[op.inputs[0]].out;
  l.out = {op.out.h, op.out.w, s.channels};
  l.kh = w.kh, l.kw = w.kw, l.stride = w.stride(), l.pad_h = w.pad_h, l.pad_w = w.pad_w;
  l.residual = op.skip >= 0;
  l.relu = op.act == relu;
  l.bytes = q.bytes(s.op);
  return l;
}

void list(bool integer) {
  const Quantisation q = quantisation(integer);
  const Steps steps = need(make_steps(network, q, {}, {}));
  std::vector<std::pair<Layer, int>> found;
  for (int i = 0; i < steps.size(); ++i) {
    if (!steps[i].is_conv() || network[steps[i].op].kind != OpKind::conv) continue;
    const Layer l = layer_of(q, steps, i);
    const auto same = [&](const std::pair<Layer, int>& f) {
      const Layer& o = f.first;
      return o.in == l.in && o.out == l.out && o.kh == l.kh && o.kw == l.kw && o.stride == l.stride &&
             o.pad_h == l.pad_h && o.pad_w == l.pad_w && o.residual == l.residual && o.relu == l.relu &&
             o.bytes == l.bytes && steps[o.step].segment_count == steps[i].segment_count;
    };
    const auto at = std::find_if(found.begin(), found.end(), same);
    if (at == found.end())
      found.emplace_back(l, 1);
    else
      ++at->second;
  }
  for (const auto& [l, times] : found) {
    const Step& s = steps[l.step];
    std::string label = network[s.op].name.text;
    if (s.segment_count > 1) label += " +" + std::to_string(s.segment_count - 1);
    std::printf(
        "{\"name\": \"%s\", \"times\": %d, \"how\": \"%s\", \"panel\": %d, \"tile\": %d, \"integer\": %d, \"step\": "
        "%d, "
        "\"in\": [%d, %d, %d], \"out\": [%d, %d, %d], \"window\": [%d, %d], \"stride\": %d, \"pad\": [%d, %d], "
        "\"residual\": %d, \"relu\": %d, \"bytes\": %d}\n",
        label.c_str(), times, name(s.algorithm), s.panel, s.is_integer() ? simd::integer::panel : simd::panel,
        l.integer, l.step, l.in.h, l.in.w, l.in.c, l.out.h, l.out.w, l.out.c, l.kh, l.kw, l.stride, l.pad_h, l.pad_w,
        l.residual, l.relu, l.bytes);
  }
}

struct Ours : Worker {
  int threads, index = 0;
  OwnedTeam team;
  Quantisation q;
  Steps steps;
  ArenaLayout layout;
  PackedWeights weights;
  Buffer<float> arena, scratch;

  explicit Ours(int count) : threads(count), team(need(OwnedTeam::make(count))) {}
  static std::string version() { return std::string(facenet::version) + " " + isa_name + " " + parallel_name; }

  void load(const Layer& l, const Numbers& n) {
    const simd::FlushDenormals mode;
    q = quantisation(l.integer != 0);
    const Steps whole = need(make_steps(network, q, {}, {}));
    index = l.step;
    need(detail::allocate(steps.list, z(whole.size() + l.copies - 1)));
    for (int i = 0; i < steps.size(); ++i) steps.list[i] = whole[i <= index ? i : std::max(index, i - l.copies + 1)];
    layout = need(lay_out(network, q, steps, {}));
    pack(l, n);
    need(detail::allocate_bulk(arena, z(layout.size(1, 1)), true, {}));
    layout.clear_bytes({arena.data()});
    need(detail::allocate_bulk(scratch, z(weights.scratch * threads), true, {}));
    const Step& s = steps[index];
    how = name(s.algorithm);
    rounding = {};
    if (is_winograd(s.algorithm))
      rounding = {support::algorithm_growth(s.algorithm), rounding_factor(s.algorithm), 3 * winograd_points(s), 0};
    fill(l, n);
  }

  template <class Tick>
  void run(int first, int times, int copies, Tick&& tick) {
    team->queue.reset(threads);
    team->run([&](int member, int members) {
      for (int i = 0, copy = first; i < times; ++i, copy = copy + 1 == copies ? 0 : copy + 1) {
        const detail::StepRun r{
            network,      q, steps, layout, weights, {arena.data()}, scratch.data() + member * weights.scratch, nullptr,
            index + copy, 0, 1,     members};
        const detail::Operator& op = detail::operator_of(r.step(), r.op());
        team->queue.work(member, static_cast<unsigned>(i), op.chunks(r), [&](int chunk) { op.run(r, chunk); });
        team->barrier();
        if (member == 0) tick();
      }
    });
  }

  void output(float* to) {
    const Step& s = steps[index];
    int all = s.channels;
    for (int k = 0; k < s.segment_count; to += network[s.segment_ops[k++]].out.c) {
      const int op = s.segment_ops[k];
      const Shape shape = network[op].out;
      for (int pixel = 0; pixel < shape.pixels(); ++pixel)
        for (int c = 0; c < shape.c; ++c) {
          float& y = to[std::int64_t{pixel} * all + c];
          if (q.bytes(op))
            y = static_cast<float>(int{bytes(op).pixel(0, pixel / shape.w, pixel % shape.w)[c]} +
                                   simd::integer::zero_point);
          else
            y = floats(op).pixel(0, pixel / shape.w, pixel % shape.w)[c] / (s.is_integer() ? byte_scale : 1);
        }
    }
  }

  /// "peak": operations a second of fused multiply-adds and of dot products of bytes, and bytes read a second.
  std::string measure(const char* line) {
    if (std::strncmp(line, "peak", 4) != 0) return {};
    char text[160];
    std::snprintf(text, sizeof text, "{\"floats\": %.4g, \"bytes\": %.4g, \"read\": %.4g}", bench::peak_gflops(threads),
                  bench::peak_integer_gops(threads), read_gbs());
    return text;
  }

 private:
  TensorView floats(int op) { return layout.view(network, {arena.data()}, op, 0, 1); }
  kernels::ActivationView bytes(int op) { return layout.bytes(network, {arena.data()}, op, 0, 1); }

  double read_gbs() {
    constexpr std::size_t count = std::size_t{64} << 20;
    static const Buffer<float> memory = need(Buffer<float>::make(count, true));
    return bench::read_bandwidth(memory.data(), count, threads) * 1e-9;
  }

  void pack(const Layer& l, const Numbers& n) {
    const PlanOptions options;
    detail::WeightPacker packer(network, q, steps, options);
    need(packer.reserve(false, {}));
    detail::PackingTeam alone;
    const Step& s = steps[index];
    for (int k = 0, channel = 0; k < s.segment_count; ++k) {
      const int op = s.segment_ops[k], channels = network[op].out.c;
      const float scale = network[op].scale;  // which the packer multiplies with
      const std::size_t first = z(channel), end = z(channel + channels), depth = z(l.depth());
      if (s.is_integer()) {
        std::vector<float> scales, biases;
        for (std::size_t c = first; c < end; ++c) {
          scales.push_back(n.multiplier[c] / scale);
          biases.push_back(n.multiplier[c] * static_cast<float>(n.qbias[c]) * byte_scale / scale);
        }
        need(packer.pack_integer_layer(op, n.qw.data() + first * depth, {scales.data(), scales.size()},
                                       {biases.data(), biases.size()}, alone));
      } else {
        std::vector<float> w(n.w.data() + first * depth, n.w.data() + end * depth);
        std::vector<float> b(n.bias.data() + first, n.bias.data() + end);
        for (float& x : w) x /= scale;
        for (float& x : b) x /= scale;
        packer.pack_layer(op, w.data(), b.data(), alone);
      }
      channel += channels;
    }
    weights = packer.take();
    const PackedStep& one = weights[index];
    const std::size_t biases = z(weights[index + 1].bias - one.bias);
    for (int i = index + 1; i < index + l.copies; ++i) {
      std::memcpy(weights.values.data() + weights[i].weights, weights.values.data() + one.weights, z(one.bytes));
      std::memcpy(weights.biases.data() + weights[i].bias, weights.biases.data() + one.bias, biases * sizeof(float));
    }
  }

  void fill(const Layer& l, const Numbers& n) {
    const Op& op = network[steps[index].op];
    const auto each = [](Shape s, auto f) {
      for (int y = 0, i = 0; y < s.h; ++y)
        for (int x = 0; x < s.w; ++x)
          for (int c = 0; c < s.c; ++c, ++i) f(y, x, c, z(i));
    };
    if (l.integer != 0)
      each(l.in, [&, to = bytes(op.inputs[0])](int y, int x, int c, std::size_t i) {
        to.pixel(0, y, x)[c] = simd::integer::stored(n.qx[i]);
      });
    else
      each(l.in, [&, to = floats(op.inputs[0])](int y, int x, int c, std::size_t i) { to.pixel(0, y, x)[c] = n.x[i]; });
    if (l.residual == 0) return;
    each(l.out, [&, to = floats(op.skip)](int y, int x, int c, std::size_t i) {
      to.pixel(0, y, x)[c] = l.integer != 0 ? static_cast<float>(n.qtrunk[i]) * byte_scale : n.trunk[i];
    });
  }
};

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && std::strcmp(argv[1], "list") == 0) return list(false), list(true), 0;
  Ours library(argc > 1 ? std::atoi(argv[1]) : 1);
  return serve(library);
}
