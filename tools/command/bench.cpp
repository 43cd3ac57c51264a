#include <algorithm>
#include <cstdio>

#include "../../bench/peak.hpp"
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

/// Work and traffic of one step for one image.
struct StepCost {
  double flops = 0;  // direct-equivalent: what a plain convolution would do, whatever the algorithm
  double bytes = 0;  // weights, input, output, and the trunk that a residual reads
};

StepCost cost(const facenet::Plan& plan, const facenet::Step& s) {
  const facenet::Network& n = plan.network();
  StepCost c;
  double floats = 0;
  const facenet::Op& first = n[s.op];
  for (int k = 0; k < first.input_count; ++k) floats += static_cast<double>(n[first.inputs[k]].out.size());
  if (s.segment_count == 0) floats += static_cast<double>(first.out.size());
  for (int k = 0; k < s.segment_count; ++k) {
    const facenet::Op& op = n[s.segment_ops[k]];
    c.flops += 2.0 * static_cast<double>(facenet::macs(n, op));
    floats += static_cast<double>(op.out.size()) * (op.skip >= 0 ? 2 : 1);
  }
  c.bytes = static_cast<double>(s.weight_bytes) + 4.0 * floats;
  return c;
}

struct StepTime {
  std::string name;
  const char* algorithm;
  StepCost cost;
  double min_s, median_s;
};

/// Times each step on one thread, in whole passes over the network so that each finds the caches as it does in a run.
std::vector<StepTime> time_steps(facenet::Embedder& embedder, const std::vector<float>& input, double seconds) {
  const facenet::Plan& plan = embedder.plan();
  const auto steps = plan.steps();
  facenet::PlanInput in;
  in.nhwc = input.data();
  std::vector<std::vector<double>> times(steps.size());
  const auto began = Clock::now();
  for (int pass = -1; pass < fewest_runs || seconds_since(began) < seconds; ++pass) {  // pass -1 warms up
    for (std::size_t i = 0; i < steps.size(); ++i) {
      const auto start = Clock::now();
      plan.run_step(embedder.workspace(), static_cast<int>(i), &in);
      if (pass >= 0) times[i].push_back(seconds_since(start));
    }
  }
  std::vector<StepTime> table;
  for (std::size_t i = 0; i < steps.size(); ++i) {
    std::string name = plan.network()[steps[i].op].name.text;
    if (steps[i].segment_count > 1) name += " +" + std::to_string(steps[i].segment_count - 1);
    table.push_back({name, facenet::Plan::step_name(steps[i]), cost(plan, steps[i]),
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
  double min_ms, median_ms, gflops, peak, peak_one;
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
    step["gflops"] = number(s.cost.flops / s.median_s * 1e-9);
    step["peak_percent"] = number(s.cost.flops / s.median_s * 1e-7 / r.peak_one);
    step["flop_per_byte"] = number(s.cost.flops / s.cost.bytes);
    j["layers"].push_back(std::move(step));
  }
  return out.line(line(j));
}

bool print_text(Output& out, const Report& r) {
  char text[256];
  const auto put = [&](auto... values) {
    std::snprintf(text, sizeof text, values...);
    return out.line(text);
  };
  bool ok = put("engine   facenet %s, %s, tile %s, %s, %s weights", facenet::version, facenet::isa_name, r.tile.c_str(),
                facenet::parallel_name, r.options.model.half_weights ? "half" : "float");
  ok = ok && put("run      %d thread%s, batch %d, %zu runs", r.threads, r.threads == 1 ? "" : "s", r.options.batch, r.runs);
  ok = ok && put("minimum  %8.3f ms an image", r.min_ms);
  ok = ok && put("median   %8.3f ms an image: %.1f GFLOP/s, %.0f %% of the FMA peak (%.1f on %d thread%s)", r.median_ms,
                 r.gflops, 100 * r.gflops / r.peak, r.peak, r.threads, r.threads == 1 ? "" : "s");
  if (r.steps.empty()) return ok;
  double total = 0;
  for (const StepTime& s : r.steps) total += s.median_s;
  ok = ok && out.line("") &&
       put("Each step alone, 1 thread, batch 1; GFLOP/s are direct-equivalent, peak %.1f", r.peak_one) &&
       put("%-30s %-13s %9s %9s %6s %9s %6s %9s", "step", "algorithm", "min ms", "median", "share", "GFLOP/s", "peak",
           "flop/byte");
  for (const StepTime& s : r.steps) {
    const double gflops = s.cost.flops / s.median_s * 1e-9;
    ok = ok && put("%-30s %-13s %9.4f %9.4f %5.1f%% %9.1f %5.0f%% %9.2f", s.name.c_str(), s.algorithm, s.min_s * 1e3,
                   s.median_s * 1e3, 100 * s.median_s / total, gflops, 100 * gflops / r.peak_one,
                   s.cost.flops / s.cost.bytes);
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

  const double peak_one = facenet::bench::peak_gflops(1);
  const double peak = threads == 1 ? peak_one : facenet::bench::peak_gflops(threads);
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
                      peak_one,
                      options.layers ? time_steps(*embedder, input, options.seconds) : std::vector<StepTime>()};
  Output out;
  const bool printed = options.json ? print_json(out, report) : print_text(out, report);
  return printed && out.finish() ? done : failed;
}

}  // namespace command
