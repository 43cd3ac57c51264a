// What the machine can do at most, measured: fused multiply-adds and dot products of bytes a second, for the "% of
// peak" of every benchmark, and bytes read a second.
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

#if !defined(FACENET_NO_INTEGER)
/// The same with dot products of bytes, as the integer tile multiplies them.
FACENET_NOINLINE inline float run_dot_chains(const float* factors, long turns) noexcept {
  using namespace simd::integer;
  const auto* const bytes = reinterpret_cast<const std::int8_t*>(factors);
  const va a = broadcast(reinterpret_cast<const Activation*>(bytes));
  const vw b = load_weights(bytes + 64);
  vi chain[fma_chains];
  FACENET_UNROLL
  for (int i = 0; i < fma_chains; ++i) chain[i] = zero();
  for (long t = 0; t < turns; ++t) {
    FACENET_UNROLL
    for (int i = 0; i < fma_chains; ++i) chain[i] = dot(chain[i], a, b);
  }
  float lanes[simd::width], sum = 0;
  FACENET_UNROLL
  for (int i = 0; i < fma_chains; ++i) {
    simd::store(lanes, to_float(chain[i]));
    sum += lanes[0];
  }
  return sum;
}
#endif

/// Calls of chains(factors, turns) on `threads` threads together: turns a second, the best of 15 slices of 3 ms. Slices
/// so short fall between the moments in which a shared machine takes a core away. 0 when the threads could not be
/// started.
template <class Chains>
double turns_per_second(int threads, Chains chains) noexcept {
  constexpr int slices = 15;
  constexpr double slice_seconds = 3e-3;
  alignas(64) float factors[2 * simd::width + 64];
  for (float& f : factors) f = 1e-3f;
  volatile float sink = 0;  // the result is used, as far as the compiler knows
  long turns = 1000;
  for (;; turns *= 2) {  // finds out what fills a slice, and brings the clock up
    const auto start = Clock::now();
    sink = chains(factors, turns);
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
      const float r = chains(factors, turns);
      team.barrier();
      if (member == 0) {
        seconds = seconds_since(start);
        sink = r;
      }
    });
    best = std::min(best, seconds);
  }
  (void)sink;
  return static_cast<double>(turns) * team.size() / best;
}

/// GFLOP/s (a multiply and an add are two) of `threads` threads together.
inline double peak_gflops(int threads) noexcept {
  return 2e-9 * fma_chains * simd::width * turns_per_second(threads, run_fma_chains);
}
#if !defined(FACENET_NO_INTEGER)
/// The same of products of bytes.
inline double peak_integer_gops(int threads) noexcept {
  return 2e-9 * fma_chains * simd::width * simd::integer::group * turns_per_second(threads, run_dot_chains);
}
#endif

FACENET_NOINLINE inline float read_all(const float* p, std::size_t count) noexcept {
  constexpr int streams = 8;  // independent sums, so that the loads and not the additions are the limit
  simd::vf sum[streams];
  FACENET_UNROLL
  for (int i = 0; i < streams; ++i) sum[i] = simd::zero();
  for (std::size_t k = 0; k < count; k += streams * simd::width) {
    FACENET_UNROLL
    for (int i = 0; i < streams; ++i) sum[i] = simd::add(sum[i], simd::load(p + k + i * simd::width));
  }
  FACENET_UNROLL
  for (int i = 1; i < streams; ++i) sum[0] = simd::add(sum[0], sum[i]);
  float lanes[simd::width];
  simd::store(lanes, sum[0]);
  return lanes[0];
}

/// Bytes a second that `threads` threads read of `count` floats together: the best of 5 passes.
inline double read_bandwidth(const float* p, std::size_t count, int threads) noexcept {
  constexpr std::size_t step = 8 * simd::width;
  const std::size_t each = count / static_cast<std::size_t>(threads) / step * step;
  Team team;
  if (!team.start(threads).ok()) return 0;
  double best = 1e30;
  volatile float sink = 0;  // the sums are used, as far as the compiler knows
  for (int pass = 0; pass < 5; ++pass) {
    Clock::time_point start;
    team.run([&](int member, int) {
      team.barrier();
      if (member == 0) start = Clock::now();
      const float sum = read_all(p + static_cast<std::size_t>(member) * each, each);
      team.barrier();
      if (member != 0) return;
      best = std::min(best, seconds_since(start));
      sink = sum;
    });
  }
  (void)sink;
  return static_cast<double>(each * sizeof(float)) * team.size() / best;
}

}  // namespace bench

FACENET_END
