// What the workers of bench/compare_kernels.py share: a layer, its numbers, the oracle, and the lines they speak.
//
// A worker is a process with one library in it. It reads a line and answers with one of JSON:
//   "hello"                 {"version": ...}
//   "layer NUMBERS"         makes the layer ready, runs it once and compares with the oracle: {"error": ..., "how":
//   ...},
//                           the error as a part of its tolerance
//   "time cold MS", "time warm MS"    {"seconds": of one run, the median}
// Cold: each run reads another of `copies` sets of weights, which together are what the network has of them. So a layer
// meets its weights as in an inference, where all others' pass between two uses. Warm: always the same set.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "../../tests/reference.hpp"

namespace kernels_bench {

using facenet::Shape;
using Clock = std::chrono::steady_clock;

inline std::size_t z(std::int64_t n) { return static_cast<std::size_t>(n); }

[[noreturn]] inline void fail(const std::string& why) { throw std::runtime_error(why); }

/// A step of the plan. `step` is its number there; integer: bytes times int8; bytes: the output is kept as bytes.
struct Layer {
  int integer = 0, step = 0;
  Shape in, out;
  int kh = 1, kw = 1, stride = 1, pad_h = 0, pad_w = 0, residual = 0, relu = 0, bytes = 0, copies = 2;

  std::int64_t depth() const { return std::int64_t{in.c} * kh * kw; }
  /// Padding after the last row and column that the window reaches.
  int pad_below() const { return std::max(0, (out.h - 1) * stride + kh - in.h - pad_h); }
  int pad_right() const { return std::max(0, (out.w - 1) * stride + kw - in.w - pad_w); }
  facenet::Window window() const { return facenet::k(kh, kw).stride(stride).pad(pad_h, pad_w); }
};

/// Scale of all activations that are bytes. A power of two: what is said in bytes is exact in floats.
constexpr float byte_scale = 1.0f / 32;

/// Small random numbers, the same in every worker.
struct Random {
  std::uint32_t x = 0x9e3779b9u;
  std::uint32_t operator()() { return x ^= x << 13, x ^= x >> 17, x ^= x << 5; }
  float between(float low, float high) { return low + (high - low) * static_cast<float>((*this)() >> 8) / 16777216.0f; }
  int integer(int low, int high) { return low + static_cast<int>((*this)() % static_cast<unsigned>(high - low + 1)); }
};

/// A layer's numbers: NHWC, OIHW. Floats:   y = relu(trunk + w * x + bias).
/// Bytes: y = clamp(trunk + multiplier[o] * (qw * qx + qbias)), in units of byte_scale; a float y is not clamped.
struct Numbers {
  std::vector<float> x, w, bias, trunk, multiplier;
  std::vector<std::uint8_t> qx, qtrunk;
  std::vector<std::int8_t> qw;
  std::vector<std::int32_t> qbias;

  explicit Numbers(const Layer& l) {
    Random random;
    const std::size_t inputs = z(l.in.size()), outputs = z(l.out.size()), channels = z(l.out.c),
                      weights = z(l.depth()) * channels;
    if (l.integer != 0) {
      for (std::size_t i = 0; i < inputs; ++i) qx.push_back(static_cast<std::uint8_t>(random.integer(0, 255)));
      // Pairs of weights fit 16 bits, as the converter makes them: x86 without VNNI is exact then, theirs and ours.
      for (std::size_t i = 0; i < weights; ++i) qw.push_back(static_cast<std::int8_t>(random.integer(-64, 64)));
      // The root mean square of a sum is sqrt(depth) * 147 * 37: some 60 bytes of output.
      const float typical = std::sqrt(static_cast<float>(l.depth())) * 5439;
      for (std::size_t c = 0; c < channels; ++c) {
        multiplier.push_back(60 / typical * random.between(0.5f, 1.5f));
        qbias.push_back(random.integer(0, static_cast<int>(typical)));
      }
      for (std::size_t i = 0; i < outputs; ++i) qtrunk.push_back(static_cast<std::uint8_t>(random.integer(0, 255)));
    } else {
      const float most = std::sqrt(6 / static_cast<float>(l.depth()));
      for (std::size_t i = 0; i < inputs; ++i) x.push_back(random.between(0, 1));
      for (std::size_t i = 0; i < weights; ++i) w.push_back(random.between(-most, most));
      for (std::size_t c = 0; c < channels; ++c) bias.push_back(random.between(-0.1f, 0.1f));
      for (std::size_t i = 0; i < outputs; ++i) trunk.push_back(random.between(0, 1));
    }
  }
};

/// What a library adds to the tolerance.
struct Rounding {
  double growth = 1;   // of a float sum's largest error, by a Winograd form
  double typical = 1;  // of its root mean square
  int terms = 0;       // of its transforms
  double bytes = 0;    // of an intermediate that is rounded to bytes
};

/// The largest error of `got`, dense NHWC, as a part of its tolerance. Every pixel is looked at, and every channel at
/// some of them.
/// Floats: k terms in any order are within k * u / (1 - k * u) * sum |terms| (tests/support.hpp), and their root mean
/// square, as roundings have either sign, within sqrt(k) * u times that of sum |terms|. Bytes: half a byte for the
/// rounding, and eight roundings of float for scales, bias and residual.
inline double error(const Layer& l, const Numbers& n, const std::vector<float>& got, const Rounding& rounding) {
  using namespace facenet;
  const int each = static_cast<int>(std::max<std::int64_t>(1, 8192 / l.out.pixels()));
  double worst = 0, off2 = 0, magnitude2 = 0;
  for (std::int64_t pixel = 0; pixel < l.out.pixels(); ++pixel)
    for (int i = 0; i < std::min(each, l.out.c); ++i) {
      const int y = static_cast<int>(pixel / l.out.w), x = static_cast<int>(pixel % l.out.w);
      const int c = static_cast<int>((pixel * 13 + std::int64_t{i} * l.out.c / each) % l.out.c);
      const std::size_t at = z(pixel * l.out.c + c);
      double want = 0, tolerance = 0;
      if (l.integer != 0) {
        const auto in = dense_view<const std::uint8_t>(n.qx.data(), l.in);
        const auto sum = static_cast<double>(
            reference::integer_conv_at(in, 0, n.qw.data(), l.window(), y, x, c, [](std::uint8_t q) { return int{q}; }));
        const auto factor = static_cast<double>(n.multiplier[z(c)]), bias = static_cast<double>(n.qbias[z(c)]);
        const double before = l.residual != 0 ? static_cast<double>(n.qtrunk[at]) : 0;
        want = factor * (sum + bias) + before;
        tolerance = 8 * 0x1p-24 * (factor * (std::fabs(sum) + std::fabs(bias)) + before + 255) + rounding.bytes;
        if (l.relu != 0 || l.bytes != 0) want = std::fmax(want, 0);
        if (l.bytes != 0) want = std::fmin(want, 255), tolerance += 0.5;
      } else {
        const auto in = dense_view<const float>(n.x.data(), l.in);
        auto [value, magnitude] = reference::conv_at(in, 0, n.w.data(), n.bias.data(), l.window(), y, x, c);
        if (l.residual != 0) value += static_cast<double>(n.trunk[at]), magnitude += static_cast<double>(n.trunk[at]);
        want = l.relu != 0 ? std::fmax(value, 0) : value;
        const double ku = static_cast<double>(l.depth() + rounding.terms + 4) * 0x1p-24;
        tolerance = rounding.growth * ku / (1 - ku) * (magnitude + (rounding.terms > 0 ? l.in.c : 0));
        magnitude2 += magnitude * magnitude;
      }
      const double off = std::fabs(static_cast<double>(got[at]) - want);
      if (!(off <= worst * tolerance)) worst = off / tolerance;  // NaN too
      off2 += off * off;
    }
  if (l.integer != 0) return worst;
  return std::max(worst,
                  std::sqrt(off2 / magnitude2 / static_cast<double>(l.depth() + 4)) / (rounding.typical * 0x1p-24));
}

/// Runs `times` times and returns the median of the seconds: a core that is taken away for a while tells on few runs.
template <class Library>
double seconds_of(Library& library, int first, int times, int copies) {
  std::vector<Clock::time_point> at;
  at.reserve(z(times) + 1);
  at.push_back(Clock::now());
  library.run(first, times, copies, [&at] { at.push_back(Clock::now()); });
  std::vector<double> seconds;
  for (std::size_t i = 1; i < at.size(); ++i)
    seconds.push_back(std::chrono::duration<double>(at[i] - at[i - 1]).count());
  const auto middle = seconds.begin() + static_cast<std::ptrdiff_t>(seconds.size() / 2);
  std::nth_element(seconds.begin(), middle, seconds.end());
  return *middle;
}

template <class Library>
void answer(Library& library, Layer& l, int& next, const char* line) {
  int milliseconds = 0;
  char mode[8] = "";
  const int read = std::sscanf(line, "layer %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d", &l.integer, &l.step,
                               &l.in.h, &l.in.w, &l.in.c, &l.out.h, &l.out.w, &l.out.c, &l.kh, &l.kw, &l.stride,
                               &l.pad_h, &l.pad_w, &l.residual, &l.relu, &l.bytes, &l.copies);
  if (read == 17) {
    next = 0;
    const Numbers numbers(l);
    library.load(l, numbers);
    library.run(0, 1, l.copies, [] {});
    std::vector<float> got(z(l.out.size()));
    library.output(got.data());
    const double off = error(l, numbers, got, library.rounding);
    if (!(off <= 1)) fail("wrong result: " + std::to_string(off) + " times the tolerance");
    std::printf("{\"error\": %.3g, \"how\": \"%s\"}\n", off, library.how.c_str());
  } else if (std::sscanf(line, "time %7s %d", mode, &milliseconds) == 2) {
    const int copies = std::strcmp(mode, "cold") == 0 ? l.copies : 1;
    const auto run = [&](int times) {
      const double seconds = seconds_of(library, next % copies, times, copies);
      next = (next + times) % copies;
      return seconds;
    };
    run(1);  // wakes the threads; not counted
    const double wanted = 1e-3 * milliseconds / run(1);
    std::printf("{\"seconds\": %.9g}\n", run(wanted < 1 ? 1 : wanted > 1e5 ? 100000 : static_cast<int>(wanted)));
  } else if (const std::string more = library.measure(line); !more.empty()) {
    std::puts(more.c_str());
  } else {
    std::printf("{\"version\": \"%s\"}\n", library.version().c_str());
  }
}

template <class Library>
int serve(Library& library) {
  Layer layer;
  int next = 0;
  char line[512];
  while (std::fgets(line, sizeof line, stdin) != nullptr) {
    try {
      answer(library, layer, next, line + (line[0] == '"'));
    } catch (const std::exception& e) {
      std::printf("{\"failed\": \"%s\"}\n", e.what());
    }
    std::fflush(stdout);
  }
  return 0;
}

/// What a library need not have: other things that it can measure.
struct Worker {
  Rounding rounding;
  std::string how;  // the algorithm, in words
  std::string measure(const char*) { return {}; }
};

}  // namespace kernels_bench
