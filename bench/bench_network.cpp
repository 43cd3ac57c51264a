// The whole network with random weights: threads, batch, precision of the weights.
#include <memory>
#include <vector>

#include "bench.hpp"
#include "step_cost.hpp"

namespace {

using namespace facenet;

constexpr Network network = models::inception_resnet_v1();

// Compiled once, since packing 94 MB takes longer than a benchmark; half-precision weights are another plan.
const Plan& plan(bool half) {
  static std::unique_ptr<const Plan> plans[2];
  auto& p = plans[half];
  if (p == nullptr) {
    PlanOptions options;
    options.half_weights = half;
    p = std::make_unique<const Plan>(
        bench::need(compile_with(network, options, [](int op, Span<float> weight, Span<float> bias) {
          bench::fill_weights(weight, network[op].out.c);
          bench::fill(bias.data(), bias.size(), -0.1f, 0.1f);
        })));
  }
  return *p;
}

bench::Work work(const Plan& p, int batch) {
  bench::Work w;
  for (const Step& s : p.steps()) {
    const bench::StepCost c = bench::step_cost(p, s);
    w.direct += c.direct * batch;
    w.executed += c.executed * batch;
    w.weight_bytes += static_cast<double>(p.weight_bytes(s));
  }
  return w;
}

void run(benchmark::State& state, int threads, int batch, bool half) {
  const Plan& p = plan(half);
  auto workspace = bench::need(p.workspace(batch, threads));
  const auto pixels = bench::random_floats(network[0].out.size() * batch, -1, 1);
  std::vector<PlanInput> inputs(bench::z(batch));
  for (int i = 0; i < batch; ++i) inputs[bench::z(i)].nhwc = pixels.data() + i * network[0].out.size();
  std::vector<float> out(bench::z(batch) * bench::z(p.output_size()));
  if (!p.run(workspace, inputs.data(), batch, out).ok()) return state.SkipWithError("the plan does not run");
  for (auto _ : state) {
    benchmark::DoNotOptimize(p.run(workspace, inputs.data(), batch, out).ok());
    benchmark::ClobberMemory();
  }
  bench::count(state, work(p, batch), threads);
  using benchmark::Counter;
  state.counters["ms_per_image"] = Counter(batch * 1e-3, Counter::kIsIterationInvariantRate | Counter::kInvert);
}

}  // namespace

int main(int argc, char** argv) {
  for (int threads = 1; threads <= bench::most_threads(); ++threads)
    for (int batch : {1, 8})
      for (bool half : {false, true}) {
        if (half && !simd::half_in_memory) continue;  // it would be expanded on load: the same plan again
        const std::string name = "network/threads:" + std::to_string(threads) + "/batch:" + std::to_string(batch) +
                                 "/" + (half ? "half" : "f32");
        benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) { run(state, threads, batch, half); })
            ->UseRealTime()
            ->Unit(benchmark::kMillisecond);
      }
  return bench::run(argc, argv);
}
