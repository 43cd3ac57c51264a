#include <algorithm>
#include <cstdio>
#include <memory>

#include "../../../bench/peak.hpp"
#include "../../../bench/step_cost.hpp"
#include "command/cli/sub_command.hpp"
#include "command/io/json.hpp"
#include "command/engine/model.hpp"
#include "command/engine/picture_times.hpp"
#include "command/io/output.hpp"

namespace command {

namespace {

struct Options {
  ModelOptions model;
  FaceOptions faces;
  std::string picture;  // "": a made-up face crop is embedded
  int batch = 1;
  double seconds = 3;
  bool layers = false, json = false;
};

using facenet::bench::Clock;
using facenet::bench::seconds_since;

constexpr int fewest_runs = 3;

double median(std::vector<double>& v) {
  const auto middle = v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2);
  std::nth_element(v.begin(), middle, v.end());
  return *middle;
}

/// Pictures of the model's size, always the same: the time must not depend on a picture.
std::vector<std::uint8_t> made_up_pictures(facenet::Shape shape, int images) {
  std::vector<std::uint8_t> v(static_cast<std::size_t>(shape.size() * images));
  std::uint32_t x = 2463534242u;
  for (std::uint8_t& byte : v) {
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    byte = static_cast<std::uint8_t>(x >> 24);
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
std::vector<StepTime> time_steps(facenet::Embedder& embedder, const std::vector<std::uint8_t>& pictures,
                                 const Options& options) {
  const facenet::Plan& plan = embedder.plan();
  const auto steps = plan.steps();
  const int batch = options.batch;
  std::vector<facenet::PlanInput> in(static_cast<std::size_t>(batch));
  for (int i = 0; i < batch; ++i) {
    in[static_cast<std::size_t>(i)].rgb = pictures.data() + i * plan.input_shape().size();
    in[static_cast<std::size_t>(i)].stride = std::ptrdiff_t{3} * plan.input_shape().w;
  }
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
    if (!plan.run(embedder.workspace(), in.data(), batch, output, after).ok()) break;
    if (run >= 0)
      for (std::size_t i = 0; i < steps.size(); ++i) times[i].push_back(sum[i]);
  }
  std::vector<StepTime> table;
  for (std::size_t i = 0; i < steps.size(); ++i) {
    std::string name = plan.network()[steps[i].op].name.text;
    if (steps[i].segment_count > 1) name += " +" + std::to_string(steps[i].segment_count - 1);
    facenet::bench::StepCost cost = facenet::bench::step_cost(plan, steps[i]);
    const double weights =
        static_cast<double>(plan.weight_bytes(steps[i]));  // read once a batch where images are merged
    cost.bytes = (cost.bytes - weights) * batch + weights * (steps[i].per_batch ? 1 : batch);
    cost.direct *= batch;
    cost.executed *= batch;
    table.push_back(
        {name, plan.step_name(steps[i]), cost, *std::min_element(times[i].begin(), times[i].end()), median(times[i])});
  }
  return table;
}

struct Report {
  const Options& options;
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
  j["arithmetic"] = r.options.model.arithmetic;
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
    return out.row({text});
  };
  bool ok = put("engine   facenet %s, %s, tile %s, %s, %s weights", facenet::version, facenet::isa_name, r.tile.c_str(),
                facenet::parallel_name,
                r.options.model.arithmetic == "int8" ? "bytes and int8"
                : r.options.model.int8_weights       ? "int8"
                : r.options.model.half_weights       ? "half"
                                                     : "float");
  ok = ok &&
       put("run      %d thread%s, batch %d, %zu runs", r.threads, r.threads == 1 ? "" : "s", r.options.batch, r.runs);
  ok = ok && put("minimum  %8.3f ms an image", r.min_ms);
  ok = ok && put("median   %8.3f ms an image: %.1f GFLOP/s, %.0f %% of the FMA peak (%.1f on %d thread%s)", r.median_ms,
                 r.gflops, 100 * r.gflops / r.peak, r.peak, r.threads, r.threads == 1 ? "" : "s");
  if (r.steps.empty()) return ok;
  double total = 0;
  for (const StepTime& s : r.steps) total += s.median_s;
  ok = ok && out.row({""}) &&
       out.row({"Each step within the run, whole batch. GFLOP/s: direct-equivalent, and as executed (Winograd's "
                "products);"}) &&
       put("peak: executed over %.1f GFLOP/s; flop/byte: executed over weights and activations", r.peak) &&
       put("%-30s %-13s %9s %9s %6s %9s %9s %5s %9s", "step", "algorithm", "min ms", "median", "share", "direct",
           "executed", "peak", "flop/byte");
  for (const StepTime& s : r.steps) {
    const double giga = 1e-9 / s.median_s;
    ok = ok && put("%-30s %-13s %9.4f %9.4f %5.1f%% %9.1f %9.1f %4.0f%% %9.2f", s.name.c_str(), s.algorithm,
                   s.min_s * 1e3, s.median_s * 1e3, 100 * s.median_s / total, s.cost.direct * giga,
                   s.cost.executed * giga, 100 * s.cost.executed * giga / r.peak, s.cost.executed / s.cost.bytes);
  }
  return ok && put("%-30s %-13s %9s %9.4f", "all steps", "", "", total * 1e3);
}

// ---- A picture's whole way ------------------------------------------------------------------------------------------

/// The median over the runs of what f takes from one.
template <class F>
double median_of(const PictureTimes& times, F&& f) {
  std::vector<double> values;
  for (const PictureTime& run : times.runs) values.push_back(f(run));
  return median(values);
}

struct Medians {
  double wall_ms, cpu_ms, system_ms, page_faults;
  struct Part {
    double wall_ms, cpu_ms, allocated;
  } parts[picture_part_count];

  explicit Medians(const PictureTimes& times) {
    wall_ms = 1e3 * median_of(times, [](const PictureTime& t) { return t.wall; });
    cpu_ms = 1e3 * median_of(times, [](const PictureTime& t) { return t.cpu; });
    system_ms = 1e3 * median_of(times, [](const PictureTime& t) { return t.system; });
    page_faults = median_of(times, [](const PictureTime& t) { return static_cast<double>(t.page_faults); });
    for (std::size_t i = 0; i < picture_part_count; ++i)
      parts[i] = {1e3 * median_of(times, [i](const PictureTime& t) { return t.parts[i].wall; }),
                  1e3 * median_of(times, [i](const PictureTime& t) { return t.parts[i].cpu; }),
                  median_of(times, [i](const PictureTime& t) { return static_cast<double>(t.parts[i].allocated); })};
  }
};

bool print_picture_json(Output& out, const Options& options, int threads, const facenet::ModelInfo& info,
                        const PictureTimes& times) {
  const Medians m(times);
  const auto number = [](double x) { return static_cast<float>(x); };
  Json j;
  j["image"] = options.picture;
  j["width"] = times.width;
  j["height"] = times.height;
  j["faces"] = times.faces;
  j["threads"] = threads;
  j["runs"] = times.runs.size();
  j["median_ms"] = number(m.wall_ms);
  j["cpu_ms"] = number(m.cpu_ms);
  j["system_ms"] = number(m.system_ms);
  j["page_faults"] = static_cast<std::int64_t>(m.page_faults);
  j["peak_bytes"] = times.peak_bytes;
  for (std::size_t i = 0; i < picture_part_count; ++i) {
    Json part;
    part["name"] = picture_parts[i];
    part["median_ms"] = number(m.parts[i].wall_ms);
    part["cpu_ms"] = number(m.parts[i].cpu_ms);
    part["allocated_bytes"] = static_cast<std::int64_t>(m.parts[i].allocated);
    j["parts"].push_back(std::move(part));
  }
  j["isa"] = facenet::isa_name;
  j["arithmetic"] = options.model.arithmetic;
  j["model"] = info.digest;
  j["detector"] = times.detector;
  return out.line(line(j));
}

bool print_picture_text(Output& out, const Options& options, int threads, const PictureTimes& times) {
  const Medians m(times);
  char text[256];
  const auto put = [&](const char* format, auto... values) {
    std::snprintf(text, sizeof text, format, values...);
    return out.row({text});
  };
  double parts_cpu = 0;
  for (const Medians::Part& part : m.parts) parts_cpu += part.cpu_ms;
  bool ok = out.row({"picture  " + options.picture}) &&
            put("         %d x %d pixels, %d face%s; %d thread%s, %zu runs, medians", times.width, times.height,
                times.faces, times.faces == 1 ? "" : "s", threads, threads == 1 ? "" : "s", times.runs.size()) &&
            put("%-9s %10s %10s %6s %12s", "part", "wall ms", "CPU ms", "share", "allocated MB");
  for (std::size_t i = 0; i < picture_part_count; ++i)
    ok = ok && put("%-9s %10.2f %10.2f %5.1f%% %12.2f", picture_parts[i], m.parts[i].wall_ms, m.parts[i].cpu_ms,
                   parts_cpu > 0 ? 100 * m.parts[i].cpu_ms / parts_cpu : 0.0, m.parts[i].allocated * 1e-6);
  return ok && put("%-9s %10.2f %10.2f", "all", m.wall_ms, m.cpu_ms) &&
         put("kernel   %10.2f ms, %.0f page faults a picture; peak memory %.0f MB", m.system_ms, m.page_faults,
             static_cast<double>(times.peak_bytes) * 1e-6);
}

int bench_picture(const Options& options) {
  if (options.layers || options.batch != 1) {
    say("--picture times one picture's way to its embeddings: leave --layers and --batch out.");
    return failed;
  }
  auto embedder = load(options.model);
  if (!embedder) return failed;
  PictureTimes times;
  if (!time_picture(options.picture, options.seconds, options.faces, options.model, *embedder, times)) return failed;
  const int threads = embedder->workspace().threads();
  Output out;
  const bool printed = options.json ? print_picture_json(out, options, threads, embedder->info(), times)
                                    : print_picture_text(out, options, threads, times);
  return printed && out.finish() ? done : failed;
}

int bench(const Options& options) {
  if (!options.picture.empty()) return bench_picture(options);
  auto embedder = load(options.model, options.batch);
  if (!embedder) return failed;
  const facenet::Plan& plan = embedder->plan();
  const int threads = embedder->workspace().threads(), batch = options.batch;
  const facenet::Shape shape = plan.input_shape();
  const std::vector<std::uint8_t> pictures = made_up_pictures(shape, batch);
  std::vector<facenet::ImageView> faces;
  for (int i = 0; i < batch; ++i)
    faces.push_back({pictures.data() + i * shape.size(), shape.w, shape.h, std::ptrdiff_t{3} * shape.w,
                     embedder->info().channel_order});
  std::vector<float> output(static_cast<std::size_t>(embedder->dim()) * static_cast<std::size_t>(batch));

  const double peak = facenet::bench::peak_gflops(threads);
  std::vector<double> times;
  const auto began = Clock::now();
  for (int run = -1; run < fewest_runs || seconds_since(began) < options.seconds; ++run) {  // run -1 warms up
    const auto start = Clock::now();
    const facenet::Status status = embedder->embed(faces, output);
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
                      options.layers ? time_steps(*embedder, pictures, options) : std::vector<StepTime>()};
  Output out;
  const bool printed = options.json ? print_json(out, report) : print_text(out, report);
  return printed && out.finish() ? done : failed;
}

}  // namespace

SubCommand bench_command() {
  const auto o = std::make_shared<Options>();
  return {
      "bench", "Measure how long an embedding takes, or a picture's whole way",
      "Times are for one image of the batch; gflops is 2 x multiply-adds of the network over the median.\n"
      "With --picture: wall and CPU time and allocated bytes of decoding, of the detector's pyramid and its three\n"
      "networks, of cutting out and of embedding, in memory that is used again from run to run.\n\n"
      "Examples:\n"
      "  facenet bench\n"
      "  facenet bench --threads 1 --batch 8 --seconds 10 --json\n"
      "  facenet bench --layers                 where the time goes\n"
      "  facenet bench --picture photo.jpg --min-face 5%\n\n",
      [o](OptionSet& options) {
        options.option("-b,--batch", "N", o->batch, "Images that are embedded together, 1 to 4096 (default 1)")
            .whole_number(1, 4096);
        options.option("-s,--seconds", "S", o->seconds, "How long to measure (default 3)").number(0, 3600, "0 to 3600");
        options.flag("--layers", o->layers, "Also time each step of the network within the run");
        options.option("--picture", "FILE", o->picture, "Time the parts of this photograph's way to its embeddings");
        options.faces(o->faces);
        options.model(o->model);
      },
      [o](bool json) {
        o->json = json;
        return bench(*o);
      }};
}

}  // namespace command
