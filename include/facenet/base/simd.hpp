// The only door to SIMD: one float vector `vf` and what the kernels need of it. simd/<isa>.hpp has an ISA's facts, all
// on one page; xsimd does most of the work there.
#pragma once

#include "facenet/base/fp_mode.hpp"
#include "facenet/base/half.hpp"
#include "facenet/base/memory.hpp"

#if defined(FACENET_SCALAR)
#  include "facenet/base/simd/scalar.hpp"
#elif defined(FACENET_ISA_AVX512)
#  include "facenet/base/simd/avx512.hpp"
#elif defined(FACENET_ISA_AVX2)
#  include "facenet/base/simd/avx2.hpp"
#elif defined(FACENET_ISA_NEON64)
#  include "facenet/base/simd/neon64.hpp"
#elif defined(FACENET_ISA_WASM)
#  include "facenet/base/simd/wasm.hpp"
#else
#  include "facenet/base/simd/sse.hpp"
#endif

#if !defined(FACENET_NO_INTEGER)
#  if defined(FACENET_SCALAR)
#    include "facenet/base/simd/integer_scalar.hpp"
#  elif defined(FACENET_ISA_AVX512)
#    include "facenet/base/simd/integer_avx512.hpp"
#  elif defined(FACENET_ISA_AVX2)
#    include "facenet/base/simd/integer_avx2.hpp"
#  elif defined(FACENET_ISA_NEON64)
#    include "facenet/base/simd/integer_neon64.hpp"
#  elif defined(FACENET_RELAXED_DOT)
#    include "facenet/base/simd/integer_relaxed_wasm.hpp"
#  elif defined(FACENET_ISA_WASM)
#    include "facenet/base/simd/integer_wasm.hpp"
#  else
#    include "facenet/base/simd/integer_sse.hpp"
#  endif
#  include "facenet/base/simd/integer_amx.hpp"
#endif

FACENET_BEGIN

namespace simd {

// What a page defines:
//   vf, width                       the vector, and its floats
//   register_count                  of vector registers
//   tile_rows, tile_vectors         register tiles: pixels by vectors of output channels. The accumulators,
//                                   tile_vectors vectors of weights and one broadcast pixel must fit the registers
//                                   (asserted in kernels/gemm.hpp), and rows * vectors >= 9 hides an FMA of 4 cycles
//                                   on two ports
//   load(const T*), store           `width` floats, Halves, bytes or signed bytes from any address, as floats; and back
//   load_partial, store_partial     the first n (0 < n < width) floats at p, then zeros; and the way back
//   set1, max, min                  (max and min stand in brackets wherever they are called: windows.h has macros of
//                                   these names)
//   fma(a, b, c), fnma(a, b, c)     a * b + c and c - a * b, rounded once where the ISA has FMA and twice where not
//   fused                           whether fma rounds once, and is as fast as a product
//   pair_max(p)                     p holds 2 * width floats: max(p[2 i], p[2 i + 1]) in lane i
//   transpose(v)                    of `width` vectors: lane j of v[i] becomes lane i of v[j]
//   at_least(a, b)                  bit i is set where a[i] >= b[i]
//   prefetch_l2(p)                  prefetches the cache line at p into L2; may_prefetch(p, bytes): whether that is
//                                   allowed
//   prefetch_l1(p)                  a hint for the cache line at p, which may be anywhere
//   pause()                         one turn of a spinning wait
//   half_in_memory                  whether half-precision weights are worth keeping in memory, or are expanded on load
//   slow_arithmetic                 whether fewer products pay even at the price of more weights

using plain::prefetch_l1;

/// Output channels in one packed panel of weights.
constexpr int panel = tile_vectors * width;

FACENET_INLINE vf add(vf a, vf b) noexcept { return a + b; }
FACENET_INLINE vf sub(vf a, vf b) noexcept { return a - b; }
FACENET_INLINE vf mul(vf a, vf b) noexcept { return a * b; }
FACENET_INLINE vf zero() noexcept { return set1(0.0f); }

/// Bit i is set where p[i] >= bound, for a panel of floats.
FACENET_INLINE std::uint32_t at_least_mask(const float* p, float bound) noexcept {
  std::uint32_t bits = 0;
  for (int v = 0; v < tile_vectors; ++v) bits |= at_least(load(p + v * width), set1(bound)) << (v * width);
  return bits;
}

/// The place of the lowest bit that is set in a word that is not 0.
FACENET_INLINE std::size_t lowest_bit(std::uint64_t word) noexcept {
#if defined(__GNUC__)
  return static_cast<std::size_t>(__builtin_ctzll(word));
#else
  std::size_t bit = 0;
  for (; (word & 1) == 0; word >>= 1) ++bit;
  return bit;
#endif
}

#if !defined(FACENET_NO_INTEGER)

namespace integer {

// Dot products of unsigned activations and signed weights, summed in 32 bits. Every page simd/integer_<isa>.hpp gives
// the same sums and the same activations to the bit. It defines, in the ISA's own vector types:
//   name                            of the instructions, for tests and benchmarks
//   Activation, zero_point          memory holds q - zero_point of an activation q in 0…255: bytes where the ISA
//                                   multiplies bytes, 16 bits where it multiplies those (its exact way for 8 bits: a
//                                   broadcast is then one load)
//   vi, va, vw                      `width` sums of 32 bits, a broadcast of `group` activations, the weights of `width`
//                                   channels
//   group                           products that one dot sums in a lane: 4, or 2
//   tile_rows, tile_vectors         as in simd.hpp; tile_extra: the registers beside the sums and the weights
//   place(channel, k)               where a vector's `width * group` packed weights have channel's k-th of a group
//   load_weights, broadcast         from any address
//   dot(sum, a, w)                  sum[channel] + sum over k of a[k] * w[channel][k], exact while no sum leaves 32
//                                   bits and the magnitudes of no two weights that lie at k = 2 i and 2 i + 1 of a
//                                   channel sum to more than largest_pair
//   largest_pair                    any_pair, or what fits 16 bits: 255 * 128
//   exact::                         tile_rows, tile_extra, va, vw, load_weights, broadcast and dot for any weights, of
//                                   the same memory. Where there is nothing else, these are the page's own
//   with_offset(sum, p)             adds zero_point * the channels' sums of weights, 32-bit integers at p; where it is
//                                   0, nothing
//   to_float(vi)                    to nearest, ties to even
//   rounded(floats)                 the same value, which no compiler fuses into a sum
//   store_rounded(p, floats)        values of 0…255 as activations, to nearest, ties to even
//   store_rounded(p, first, second) two vectors of values of at most 255, what is below 0 as 0: packing saturates
//   load_activations(p)             `width` activations as floats

constexpr int panel = tile_vectors * width;
static_assert(4 % group == 0, "packed depth is a multiple of 4");
static_assert(tile_rows * tile_vectors + tile_vectors + tile_extra <= register_count, "the integer tile would spill");
static_assert(exact::tile_rows * tile_vectors + tile_vectors + exact::tile_extra <= register_count,
              "the exact integer tile would spill");
// exact may be this namespace itself. NOLINTNEXTLINE(misc-redundant-expression)
static_assert(exact::tile_rows <= tile_rows, "room for rows is made by the taller tile");

/// The stored form of an activation 0…255.
FACENET_INLINE Activation stored(int q) noexcept { return static_cast<Activation>(q - zero_point); }
FACENET_INLINE int activation_of(Activation a) noexcept { return int{a} + zero_point; }

/// What a tile adds of a channel's sum of weights; and whether dot() is exact where pairs fit. With relaxed WebAssembly
/// SIMD the host decides.
#  if defined(FACENET_RELAXED_DOT)
inline int weight_offset() noexcept { return host() == Bytes::negative ? 128 : 0; }
inline bool host_takes_bytes() noexcept { return host() == Bytes::as_they_are; }
#  else
constexpr int weight_offset() noexcept { return zero_point; }
constexpr bool host_takes_bytes() noexcept { return true; }
#  endif

}  // namespace integer

#else

namespace integer {  // what plan/ asks for where nothing is an integer

using Activation = std::uint8_t;
constexpr int zero_point = 0, tile_rows = 1, panel = 1;

}  // namespace integer

#endif

}  // namespace simd

FACENET_END
