// What the bench_* programs share: the machine's limits, random memory, the counters, and one convolution on its own.
#pragma once

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <utility>

#include "facenet/models/inception_resnet_v1.hpp"
#include "facenet/plan/from_values.hpp"
#include "peak.hpp"

FACENET_BEGIN

namespace bench {

/// The buffer, or the end of the program with a sentence: a benchmark has nothing else to do without memory.
template <class T>
T need(Result<T> result) {
  if (result) return std::move(*result);
  char text[512];
  std::fprintf(stderr, "bench: %s\n", result.status().print(text, sizeof text));
  std::exit(2);
}

constexpr std::size_t z(std::int64_t n) noexcept { return static_cast<std::size_t>(n); }

// ---- Memory that is not in a cache ----------------------------------------------------------------------------------

/// Twice the largest cache and at least 64 MB: whoever walks round so much memory finds none of it in a cache.
inline std::size_t cold_bytes() {
  std::size_t most = std::size_t{32} << 20;
  for (const auto& cache : benchmark::CPUInfo::Get().caches)
    most = std::max(most, static_cast<std::size_t>(cache.size));
  return 2 * most;
}

/// Small random numbers from a generator that costs less than the memory it fills: weights, or (at 0 and above) the
/// activations after a ReLU.
inline void fill(float* p, std::size_t n, float low, float high) {
  std::uint32_t x = 0x9e3779b9u;
  for (std::size_t i = 0; i < n; ++i) {
    x ^= x << 13, x ^= x >> 17, x ^= x << 5;
    p[i] = low + (high - low) * static_cast<float>(x >> 8) / 16777216.0f;
  }
}
inline Buffer<float> random_floats(std::int64_t n, float low, float high) {
  auto b = need(Buffer<float>::make(z(n), false));
  fill(b.data(), b.size(), low, high);
  return b;
}

/// Uniform within +-sqrt(6 / inputs) keeps a rectified layer's variance: no value grows or dies on the way.
inline void fill_weights(Span<float> weight, int outputs) {
  const float most = std::sqrt(6 * static_cast<float>(outputs) / static_cast<float>(weight.size()));
  fill(weight.data(), weight.size(), -most, most);
}

/// The weights of all benchmarks: cold_bytes(), and after them room for the largest layer's (mixed_7a's 256 -> 256 at
/// 36 points is 9.4 MB). What a weight is does not change the time, so nobody packs 64 MB of them.
inline const float* weight_pool() {
  static const Buffer<float> pool =
      random_floats(static_cast<std::int64_t>((cold_bytes() + (std::size_t{32} << 20)) / sizeof(float)), -0.05f, 0.05f);
  return pool.data();
}

// ---- The machine ----------------------------------------------------------------------------------------------------

struct Limits {
  double gflops = 0, bytes_per_s = 0;
};

/// Threads that are timed at the most: the second core shows how a step is shared out, a third would show the same.
inline int most_threads() { return std::min(2, default_threads()); }

/// The FMA peak and the read bandwidth of `threads` threads, measured once.
inline const Limits& limits(int threads) {
  static Limits measured[3];
  Limits& l = measured[threads];
  if (l.gflops <= 0) l = {peak_gflops(threads), read_bandwidth(weight_pool(), cold_bytes() / sizeof(float), threads)};
  return l;
}

/// Measures the machine, writes that into the context of the report (bench/roofline.py reads it there), and runs.
inline int run(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  char text[64];
  const auto say = [&](const char* key, int threads, double value) {
    std::snprintf(text, sizeof text, "%.6g", value);
    benchmark::AddCustomContext(key + std::to_string(threads), text);
  };
  benchmark::AddCustomContext("facenet", std::string(version) + " " + isa_name + " " + parallel_name);
  for (int threads = 1; threads <= most_threads(); ++threads) {
    say("peak_gflops_", threads, limits(threads).gflops);
    say("read_bytes_per_s_", threads, limits(threads).bytes_per_s);
  }
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}

// ---- Counters -------------------------------------------------------------------------------------------------------

/// What one iteration does. `direct` flops are those of the plain sum of products; `executed` ones those of the
/// register tiles, which are fewer with Winograd and more where the last panel is padded.
struct Work {
  double direct = 0, executed = 0, weight_bytes = 0;
};

inline void count(benchmark::State& state, const Work& w, int threads = 1) {
  using benchmark::Counter;
  const auto rate = [](double x) { return Counter(x, Counter::kIsIterationInvariantRate); };
  state.counters["gflops"] = rate(w.direct * 1e-9);
  state.counters["gflops_executed"] = rate(w.executed * 1e-9);
  state.counters["percent_of_peak"] = rate(w.executed * 1e-7 / limits(threads).gflops);
  state.counters["weight_bytes_per_s"] = rate(w.weight_bytes);
  state.counters["flop_per_byte"] = w.executed / w.weight_bytes;
  state.counters["threads"] = threads;
}

/// "17x17x32".
inline std::string text(Shape s) { return std::to_string(s.h) + "x" + std::to_string(s.w) + "x" + std::to_string(s.c); }
/// The name of an algorithm without what a --benchmark_filter would take for an operator.
inline const char* slug(ConvAlgorithm a) noexcept {
  constexpr const char* names[] = {"automatic", "direct", "F4x4_3x3", "F4_1x7", "F4_7x1", "F6x6_3x3", "F3x3_stride_2"};
  return names[static_cast<std::size_t>(a)];
}

// ---- One convolution ------------------------------------------------------------------------------------------------

/// A convolution over random numbers, on one thread, cut into chunks as the plan cuts it.
class Layer {
 public:
  Layer(Shape in, Shape out, Window window, kernels::EpilogueKind epilogue, ConvAlgorithm algorithm)
      : algorithm_(algorithm), out_(out), panel_(choose_panel(out.c, algorithm, residual(epilogue), false)) {
    const Shape padded{in.h + 2 * window.pad_h, in.w + 2 * window.pad_w, in.c};
    input_ = random_floats(padded.size(), 0, 1);
    output_ = random_floats(out.size(), 0, 1);
    bias_ = random_floats(panels() * simd::panel, -0.1f, 0.1f);
    offsets_ = need(Buffer<std::int32_t>::make(z(window.kh)));
    const ConstTensorView whole = dense_view<const float>(input_.data(), padded);
    for (int y = 0; y < window.kh; ++y) offsets_[z(y)] = static_cast<std::int32_t>(y * whole.row_stride);
    std::int64_t depth = std::int64_t{window.kh} * window.kw * in.c;
    work_.direct = 2.0 * static_cast<double>(depth * out.size());

    if (is_winograd(algorithm)) {
      with_transform(algorithm, [&](auto t) {
        using T = decltype(t);
        depth = std::int64_t{T::points} * in.c;
        units_ = kernels::winograd_tiles<T>(out);
        block_ = kernels::winograd_block(T::points, in.c);
        scratch_ = need(Buffer<float>::make(z(kernels::winograd_scratch(T::points, in.c))));
      });
      winograd_.in = whole;  // the halo is left out: winograd_chunk pads by itself
      winograd_.in.data += window.pad_h * whole.row_stride + window.pad_w * whole.pixel_stride;
      winograd_.in.shape = in;
      winograd_.pad_h = window.pad_h;
      winograd_.pad_w = window.pad_w;
      winograd_.out = dense_view(output_.data(), out);
      winograd_.bias = bias_.data();
    } else {
      units_ = static_cast<int>(out.pixels());
      block_ = kernels::conv_block;
      direct_.in = whole;
      direct_.stride = window.stride();
      direct_.out = out;
      direct_.runs = {offsets_.data(), window.kh, window.kw * in.c};
      direct_.panel = panel_;
      direct_.bias = bias_.data();
      direct_.bias_stride = simd::panel;
      direct_.segments[0] = {dense_view(output_.data(), out), 0, epilogue};
    }
    weights_ = depth * panels() * panel_;
    work_.executed = 2.0 * static_cast<double>(weights_) * units_;
    work_.weight_bytes = static_cast<double>(weights_) * sizeof(float);
  }

  const Work& work() const noexcept { return work_; }

  /// Sets of weights that are used in turns: enough to fill cold_bytes(), or one.
  std::int64_t copies(bool cold) const {
    const auto floats = static_cast<std::int64_t>(cold_bytes() / sizeof(float));
    return cold ? (floats + weights_ - 1) / weights_ : 1;
  }

  void run(std::int64_t copy) noexcept {
    const float* weights = weight_pool() + copy * weights_;
    winograd_.weights = direct_.weights = weights;
    // The blocks of detail::run_conv on one thread: whole register tiles where there are many.
    const int blocks = choose_chunks(units_, block_, panels(), 1).blocks;
    const int grain = units_ >= 8 * blocks * simd::tile_rows ? simd::tile_rows : 1,
              grains = (units_ + grain - 1) / grain;
    for (int b = 0; b < blocks; ++b) {
      const int first = grains * b / blocks * grain, end = std::min(grains * (b + 1) / blocks * grain, units_);
      if (is_winograd(algorithm_))
        with_transform(algorithm_, [&](auto t) {
          kernels::winograd_chunk<decltype(t)>(winograd_, first, end, 0, panels(), scratch_.data());
        });
      else
        kernels::conv_chunk(direct_, first, end, 0, panels());
    }
  }

 private:
  static bool residual(kernels::EpilogueKind f) noexcept {
    return f == kernels::EpilogueKind::bias_residual || f == kernels::EpilogueKind::bias_residual_relu;
  }
  int panels() const noexcept { return kernels::panels(out_.c, panel_); }

  ConvAlgorithm algorithm_;
  Shape out_;
  int panel_, units_ = 0, block_ = 0;
  std::int64_t weights_ = 0;
  Work work_;
  Buffer<float> input_, output_, bias_, scratch_;
  Buffer<std::int32_t> offsets_;
  kernels::ConvArgs direct_;
  kernels::WinogradArgs winograd_;
};

/// Times a layer. Cold: each iteration reads another copy of the weights, as an inference does, in which 94 MB of
/// them pass between two uses of one; activations stay in the caches, as they do there.
inline void time_layer(benchmark::State& state, Layer layer, bool cold) {
  const simd::FlushDenormals mode;
  const std::int64_t copies = layer.copies(cold);
  std::int64_t copy = 0;
  layer.run(0);
  for (auto _ : state) {
    layer.run(copy);
    benchmark::ClobberMemory();
    if (++copy == copies) copy = 0;
  }
  count(state, layer.work());
}

}  // namespace bench

FACENET_END
