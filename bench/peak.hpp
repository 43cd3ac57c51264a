// What the machine can do at most, measured: fused multiply-adds a second, for the "% of peak" of every benchmark.
#pragma once

#include <algorithm>
#include <chrono>

#include "facenet/base/parallel.hpp"

FACENET_BEGIN

namespace bench {

using Clock = std::chrono::steady_clock;

inline double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Independent chains: an FMA of 4 cycles on two ports needs 8, and they and the two factors must fit the registers.
constexpr int fma_chains = simd::register_count >= 32 ? 24 : 12;
static_assert(fma_chains + 2 <= simd::register_count, "the chains would spill");

/// chain[i] = a * b + chain[i], `turns` times, in registers. The factors come from memory, so nothing is folded away.
FACENET_NOINLINE inline float run_fma_chains(const float* factors, long turns) noexcept {
  const simd::vf a = simd::load(factors), b = simd::load(factors + simd::width);
  simd::vf chain[fma_chains];
  FACENET_UNROLL
  for (int i = 0; i < fma_chains; ++i) chain[i] = simd::set1(static_cast<float>(i));
  for (long t = 0; t < turns; ++t) {
    FACENET_UNROLL
    for (int i = 0; i < fma_chains; ++i) chain[i] = simd::fma(a, b, chain[i]);
  }
  FACENET_UNROLL
  for (int i = 1; i < fma_chains; ++i) chain[0] = simd::add(chain[0], chain[i]);
  float lanes[simd::width];
  simd::store(lanes, chain[0]);
  return lanes[0];
}

/// GFLOP/s (a multiply and an add are two) of `threads` threads together: the best of 15 slices of 3 ms. Slices so
/// short fall between the moments in which a shared machine takes a core away. 0 when the threads could not be started.
inline double peak_gflops(int threads) noexcept {
  constexpr int slices = 15;
  constexpr double slice_seconds = 3e-3;
  float factors[2 * simd::width];
  for (float& f : factors) f = 1e-3f;
  volatile float sink = 0;  // the result is used, as far as the compiler knows
  long turns = 1000;
  for (;; turns *= 2) {  // finds out what fills a slice, and brings the clock up
    const auto start = Clock::now();
    sink = run_fma_chains(factors, turns);
    const double seconds = seconds_since(start);
    if (seconds < slice_seconds / 2) continue;
    turns = static_cast<long>(static_cast<double>(turns) * slice_seconds / seconds) + 1;
    break;
  }
  Team team;
  if (!team.start(threads).ok()) return 0;
  double best = 1e30;
  for (int s = 0; s < slices; ++s) {
    Clock::time_point start;
    double seconds = 0;
    team.run([&](int member, int) {
      team.barrier();  // a member that is still waking up must not count
      if (member == 0) start = Clock::now();
      const float r = run_fma_chains(factors, turns);
      team.barrier();
      if (member == 0) {
        seconds = seconds_since(start);
        sink = r;
      }
    });
    best = std::min(best, seconds);
  }
  (void)sink;
  return 2.0 * fma_chains * simd::width * static_cast<double>(turns) * team.size() / best * 1e-9;
}

}  // namespace bench

FACENET_END
