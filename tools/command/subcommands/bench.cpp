#include <algorithm>
#include <cstdio>

#include "../../bench/peak.hpp"
#include "../../bench/step_cost.hpp"
#include "json.hpp"
#include "model.hpp"
#include "output.hpp"

namespace command {

namespace {

using facenet::bench::Clock;
using facenet::bench::seconds_since;

constexpr int fewest_runs = 3;

double median(std::vector<double>& v) {
  const auto middle = v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2);
  std::nth_element(v.begin(), middle, v.end());
  return *middle;
}

/// Numbers in -1 ... 1, always the same: time must not depend on a picture that somebody has to have.
std::vector<float> made_up_input(facenet::Shape shape, int images) {
  std::vector<float> v(static_cast<std::size_t>(shape.size() * images));
  std::uint32_t x = 2463534242u;
  for (float& f : v) {
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    f = static_cast<float>(x >> 8) * 0x1p-23f - 1.0f;
  }
  return v;
}

struct StepTime {
  std::string name;
  const char* algorithm;
  facenet::bench::StepCost cost;  // of the whole batch
  double min_s, median_s;
};

/// Times each step within whole runs, so that each finds the caches, the threads and the memory as it does in use.
std::vector<StepTime> time_steps(facenet::Embedder& embedder, const std::vector<float>& input, const BenchOptions& options) {
  const facenet::Plan& plan = embedder.plan();
  const auto steps = plan.steps();
  const int batch = options.batch;
  std::vector<facenet::PlanInput> in(static_cast<std::size_t>(batch));
  for (int i = 0; i < batch; ++i) in[static_cast<std::size_t>(i)].nhwc = input.data() + i * plan.input_shape().size();
  std::vector<float> output(static_cast<std::size_t>(batch * plan.output_size()));
  std::vector<std::vector<double>> times(steps.size());
  std::vector<double> sum(steps.size());
  const auto began = Clock::now();
  for (int run = -1; run < fewest_runs || seconds_since(began) < options.seconds; ++run) {  // run -1 warms up
    std::fill(sum.begin(), sum.end(), 0.0);
    auto last = Clock::now();
    const auto after = [&](int step) {  // a step that runs image by image comes once for each
      const auto now = Clock::now();
      sum[static_cast<std::size_t>(step)] += std::chrono::duration<double>(now - last).count();
      last = now;
    };
    if (!plan.run(embedder.workspace(), in.data(), batch, output.data(), after).ok()) break;
    if (run >= 0)
      for (std::size_t i = 0; i < steps.size(); ++i) times[i].push_back(sum[i]);
  }
  std::vector<StepTime> table;
  for (std::size_t i = 0; i < steps.size(); ++i) {
    std::string name = plan.network()[steps[i].op].name.text;
    if (steps[i].segment_count > 1) name += " +" + std::to_string(steps[i].segment_count - 1);
    facenet::bench::StepCost cost = facenet::bench::step_cost(plan, steps[i]);
    const double weights = static_cast<double>(steps[i].weight_bytes);  // read once a batch where images are merged
    cost.bytes = (cost.bytes - weights) * batch + weights * (steps[i].merged ? 1 : batch);
    cost.direct *= batch;
    cost.executed *= batch;
    table.push_back({name, facenet::Plan::step_name(steps[i]), cost,
                     *std::min_element(times[i].begin(), times[i].end()), median(times[i])});
  }
  return table;
}

struct Report {
  const BenchOptions& options;
  const facenet::ModelInfo& info;
  std::string tile;
  int threads;
  std::size_t runs;
  double min_ms, median_ms, gflops, peak;
  std::vector<StepTime> steps;
};

bool print_json(Output& out, const Report& r) {
  const auto number = [](double x) { return static_cast<float>(x); };
  Json j;
  j["threads"] = r.threads;
  j["batch"] = r.options.batch;
  j["runs"] = r.runs;
  j["min_ms"] = number(r.min_ms);
  j["median_ms"] = number(r.median_ms);
  j["gflops"] = number(r.gflops);
  j["peak_gflops"] = number(r.peak);
  j["isa"] = facenet::isa_name;
  j["parallel"] = facenet::parallel_name;
  j["tile"] = r.tile;
  j["half_weights"] = r.options.model.half_weights;
  j["model"] = r.info.digest;
  for (const StepTime& s : r.steps) {
    Json step;
    step["name"] = s.name;
    step["algorithm"] = s.algorithm;
    step["min_ms"] = number(s.min_s * 1e3);
    step["median_ms"] = number(s.median_s * 1e3);
    step["gflops"] = number(s.cost.direct / s.median_s * 1e-9);
    step["gflops_executed"] = number(s.cost.executed / s.median_s * 1e-9);
    step["peak_percent"] = number(s.cost.executed / s.median_s * 1e-7 / r.peak);
    step["flop_per_byte"] = number(s.cost.executed / s.cost.bytes);
    j["layers"].push_back(std::move(step));
  }
  return out.line(line(j));
}

bool print_text(Output& out, const Report& r) {
  char text[256];
  const auto put = [&](const char* format, auto... values) {
    std::snprintf(text, sizeof text, format, values...);
    return out.line(text);
  };
  bool ok = put("engine   facenet %s, %s, tile %s, %s, %s weights", facenet::version, facenet::isa_name, r.tile.c_str(),
                facenet::parallel_name, r.options.model.int8_weights ? "int8" : r.options.model.half_weights ? "half" : "float");
  ok = ok && put("run      %d thread%s, batch %d, %zu runs", r.threads, r.threads == 1 ? "" : "s", r.options.batch, r.runs);
  ok = ok && put("minimum  %8.3f ms an image", r.min_ms);
  ok = ok && put("median   %8.3f ms an image: %.1f GFLOP/s, %.0f %% of the FMA peak (%.1f on %d thread%s)", r.median_ms,
                 r.gflops, 100 * r.gflops / r.peak, r.peak, r.threads, r.threads == 1 ? "" : "s");
  if (r.steps.empty()) return ok;
  double total = 0;
  for (const StepTime& s : r.steps) total += s.median_s;
  ok = ok && out.line("") &&
       out.line("Each step within the run, whole batch. GFLOP/s: direct-equivalent, and as executed (Winograd's products);") &&
       put("peak: executed over %.1f GFLOP/s; flop/byte: executed over weights and activations", r.peak) &&
       put("%-30s %-13s %9s %9s %6s %9s %9s %5s %9s", "step", "algorithm", "min ms", "median", "share", "direct", "executed",
           "peak", "flop/byte");
  for (const StepTime& s : r.steps) {
    const double giga = 1e-9 / s.median_s;
    ok = ok && put("%-30s %-13s %9.4f %9.4f %5.1f%% %9.1f %9.1f %4.0f%% %9.2f", s.name.c_str(), s.algorithm, s.min_s * 1e3,
                   s.median_s * 1e3, 100 * s.median_s / total, s.cost.direct * giga, s.cost.executed * giga,
                   100 * s.cost.executed * giga / r.peak, s.cost.executed / s.cost.bytes);
  }
  return ok && put("%-30s %-13s %9s %9.4f", "all steps", "", "", total * 1e3);
}

}  // namespace

int bench(const BenchOptions& options) {
  auto embedder = load(options.model, options.batch);
  if (!embedder) return failed;
  const facenet::Plan& plan = embedder->plan();
  const int threads = embedder->workspace().threads(), batch = options.batch;
  const std::vector<float> input = made_up_input(plan.input_shape(), batch);
  std::vector<float> output(static_cast<std::size_t>(embedder->dim()) * static_cast<std::size_t>(batch));

  const double peak = facenet::bench::peak_gflops(threads);
  std::vector<double> times;
  const auto began = Clock::now();
  for (int run = -1; run < fewest_runs || seconds_since(began) < options.seconds; ++run) {  // run -1 warms up
    const auto start = Clock::now();
    const facenet::Status status = embedder->embed_nhwc(input.data(), batch, output.data());
    if (run >= 0) times.push_back(seconds_since(start) / batch);
    if (status.ok()) continue;
    say(status, weights_file(options.model.weights), Subject::weights);
    return failed;
  }
  const double best = *std::min_element(times.begin(), times.end()), middle = median(times);
  const double flops = 2.0 * static_cast<double>(facenet::macs(plan.network()));
  const Report report{options,
                      embedder->info(),
                      std::to_string(facenet::simd::tile_rows) + "x" + std::to_string(facenet::simd::panel),
                      threads,
                      times.size(),
                      best * 1e3,
                      middle * 1e3,
                      flops / middle * 1e-9,
                      peak,
                      options.layers ? time_steps(*embedder, input, options) : std::vector<StepTime>()};
  Output out;
  const bool printed = options.json ? print_json(out, report) : print_text(out, report);
  return printed && out.finish() ? done : failed;
}

}  // namespace command
