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

}  // namespace

/// Runs the whole network `runs` times with random weights; the number of rows, or -1.
EXPORT(measure) int measure(int runs, int threads) {
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
  auto plan = compile_with(network, {}, [](int, Span<float> weight, Span<float> bias) {
    fill(weight.data(), weight.size(), -0.05f, 0.05f);
    fill(bias.data(), bias.size(), -0.1f, 0.1f);
  });
  if (!plan) return -1;
  auto workspace = plan->workspace(1, threads);
  auto pixels = Buffer<float>::make(static_cast<std::size_t>(network[0].out.size()));
  if (!workspace || !pixels) return -1;
  fill(pixels->data(), pixels->size(), -1, 1);
  PlanInput input;
  input.nhwc = pixels->data();
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
