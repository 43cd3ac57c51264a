// The network's steps and the register tile, timed inside a WebAssembly module: bench/web/steps.mjs prints them.
// Google Benchmark has no WebAssembly build, so the clock is JavaScript's and the statistics are minima.
#include "facenet/models/inception_resnet_v1.hpp"
#include "facenet/plan/from_values.hpp"
#include "../step_cost.hpp"

#define EXPORT(name) extern "C" __attribute__((export_name(#name)))
extern "C" __attribute__((import_module("env"), import_name("now"))) double now();  // milliseconds

namespace {

using namespace facenet;

constexpr Network network = models::inception_resnet_v1();

struct Row {
  char name[64];
  const char* algorithm;
  double ms, direct, executed, bytes;
};
constexpr int max_rows = Network::max_ops + 8;
Row rows[max_rows];

void fill(float* x, std::size_t n, float from, float to) noexcept {
  std::uint32_t state = 1;
  for (std::size_t i = 0; i < n; ++i) {
    state = state * 1664525u + 1013904223u;
    x[i] = from + (to - from) * static_cast<float>(state >> 8) * 0x1p-24f;
  }
}

/// The tile of full height over `depth` inputs from the L1 cache, `calls` times.
template <std::size_t MR>
double tile_ms(int depth, int calls) noexcept {
  static float a[simd::tile_rows * 1024], b[1024 * simd::panel], c[simd::tile_rows * simd::panel];
  fill(a, sizeof a / sizeof *a, -1, 1);
  fill(b, sizeof b / sizeof *b, -1, 1);
  const float* from[simd::tile_rows];
  float* to[simd::tile_rows];
  for (int i = 0; i < simd::tile_rows; ++i) {
    from[i] = a + i * 1024;
    to[i] = c + i * simd::panel;
  }
  const std::int32_t offset = 0;
  double best = 1e9;
  for (int round = 0; round < 20; ++round) {
    const double start = now();
    for (int i = 0; i < calls; ++i)
      kernels::tile<kernels::BiasRelu, MR, std::size_t{simd::tile_vectors}, float>(from, {&offset, 1, depth}, b, b, to,
                                                                                   simd::panel);
    const double ms = (now() - start) / calls;
    best = ms < best ? ms : best;
  }
  return best;
}

// The plan with random weights; of integers none is above 64, as the converter makes nearly all.
Result<Plan> network_plan(bool int8) noexcept {
  const auto floats = [](int, Span<float> weight, Span<float> bias) {
    fill(weight.data(), weight.size(), -0.05f, 0.05f);
    fill(bias.data(), bias.size(), -0.1f, 0.1f);
  };
  if (!int8) return compile_with(network, {}, floats);
  static std::int8_t weights[1 << 21];  // more than any integer layer has
  static float scales[2048], biases[2048];
  std::uint32_t state = 1;
  for (std::int8_t& w : weights) {
    state = state * 1664525u + 1013904223u;
    w = static_cast<std::int8_t>(static_cast<int>(state >> 24) / 2 - 64);
  }
  fill(scales, std::size(scales), 1e-4f, 1e-3f);
  fill(biases, std::size(biases), -0.1f, 0.1f);
  return compile_integer_with(
      network, {}, {},
      [](int op, Span<float> room, std::size_t& count) -> Status {
        room[0] = network[op].inputs[0] == 0 ? InputBytes{}.factor : 0.02f;
        count = 1;
        return {};
      },
      [](int op, const std::int8_t*& at, Span<const float>& s, Span<const float>& b) {
        at = weights;
        s = {scales, static_cast<std::size_t>(network[op].out.c)};
        b = {biases, static_cast<std::size_t>(network[op].out.c)};
      },
      floats);
}

}  // namespace

/// Runs the whole network `runs` times with random weights; the number of rows, or -1.
EXPORT(measure) int measure(int runs, int threads, int int8) {
  int count = 0;
  for (const int depth : {128, 512}) {
    Row& r = rows[count++];
    std::snprintf(r.name, sizeof r.name, "tile %dx%d, K = %d", simd::tile_rows, simd::panel, depth);
    r.algorithm = isa_name;
    r.ms = tile_ms<simd::tile_rows>(depth, 2000);
    r.direct = r.executed = 2.0 * simd::tile_rows * simd::panel * depth;
    r.bytes = 4.0 * (simd::tile_rows * (depth + simd::panel) + simd::panel * depth);
  }
  const int first = count;
  auto plan = network_plan(int8 != 0);
  if (!plan) return -1;
  auto workspace = plan->workspace(1, threads);
  const std::size_t size = static_cast<std::size_t>(network[0].out.size());
  auto pixels = Buffer<float>::make(size);
  auto bytes = Buffer<std::uint8_t>::make(size);
  if (!workspace || !pixels || !bytes) return -1;
  fill(pixels->data(), size, 0, 255);
  for (std::size_t i = 0; i < size; ++i) bytes->data()[i] = static_cast<std::uint8_t>((*pixels)[i]);
  PlanInput input;
  input.rgb = bytes->data();
  input.stride = 3 * network[0].out.w;
  for (const Step& s : plan->steps()) {
    const bench::StepCost cost = bench::step_cost(*plan, s);
    Row& r = rows[count++];
    std::snprintf(r.name, sizeof r.name, "%s", plan->network()[s.op].name.text);
    r.algorithm = plan->step_name(s);
    r.ms = 1e9;
    r.direct = cost.direct;
    r.executed = cost.executed;
    r.bytes = cost.bytes;
  }
  float out[512];
  for (int run = 0; run < runs; ++run) {
    double last = now();
    const auto after = [&](int step) {
      const double t = now();
      Row& r = rows[first + step];
      r.ms = t - last < r.ms ? t - last : r.ms;
      last = t;
    };
    if (!plan->run(*workspace, &input, 1, out, after).ok()) return -1;
  }
  return count;
}
EXPORT(row_name) const char* row_name(int i) { return rows[i].name; }
EXPORT(row_algorithm) const char* row_algorithm(int i) { return rows[i].algorithm; }
EXPORT(row_value) double row_value(int i, int which) {
  const double values[] = {rows[i].ms, rows[i].direct, rows[i].executed, rows[i].bytes};
  return values[which];
}
