// AVX-512: vpdpbusd where there is VNNI, else 16-bit products of vpmaddwd.
#pragma once

#include <immintrin.h>

#include <cstring>

#include "facenet/base/simd/plain.hpp"

FACENET_BEGIN

namespace simd {
namespace integer {

using vi = __m512i;
using va = __m512i;
using vw = __m512i;
// GOP/s on Zen 4 at K = 96 / 896, whose peak is 470: 10x32 404 / 469, 12x32 392 / 435, 14x32 447 / 469, 8x48 458 / 470,
// 6x64 457 / 471. The whole network takes the same time with 10, 12 and 14 rows; 48 and 64 channels leave tails in
// N = 128, 192 or 32.
constexpr int tile_rows = 10, tile_vectors = 2;

template <class T>
FACENET_INLINE std::int32_t bits_at(const T* p) noexcept {
  std::int32_t bits;
  std::memcpy(&bits, p, sizeof bits);
  return bits;
}

FACENET_INLINE vi zero() noexcept { return _mm512_setzero_si512(); }
template <class T>
FACENET_INLINE va broadcast(const T* p) noexcept {
  return _mm512_set1_epi32(bits_at(p));
}

#if defined(FACENET_VNNI)
constexpr const char* name = "avx512vnni";
using Activation = std::uint8_t;
constexpr int zero_point = 0, group = 4, tile_extra = 1;
FACENET_INLINE vw load_weights(const std::int8_t* p) noexcept { return _mm512_loadu_si512(p); }
/// As assembly: of the intrinsic GCC 12 copies the sums from register to register, and keeps half of them on the stack
/// (335 GOP/s on Zen 4 instead of 469, its peak).
FACENET_INLINE vi dot(vi sum, va a, vw w) noexcept {
#  if defined(__GNUC__)
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(w));
  return sum;
#  else
  return _mm512_dpbusd_epi32(sum, a, w);
#  endif
}
#else
// vpmaddubsw would add pairs of 255 * 127 in 16 bits, and saturate; 16-bit products are exact, two a lane.
constexpr const char* name = "avx512bw";
using Activation = std::uint16_t;
constexpr int zero_point = 0, group = 2, tile_extra = 2;
FACENET_INLINE vw load_weights(const std::int8_t* p) noexcept {
  return _mm512_maskz_cvtepi8_epi16(0xffffffffu, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
FACENET_INLINE vi dot(vi sum, va a, vw w) noexcept { return _mm512_add_epi32(sum, _mm512_madd_epi16(a, w)); }
#endif
constexpr int largest_pair = any_pair;
namespace exact = integer;
constexpr int place(int channel, int k) noexcept { return channel * group + k; }

FACENET_INLINE vi with_offset(vi sum, const float*) noexcept { return sum; }
FACENET_INLINE __m512 to_float(vi x) noexcept { return _mm512_maskz_cvtepi32_ps(0xffff, x); }
FACENET_INLINE __m512 rounded(__m512 x) noexcept {
  __m512 v = x;
#if defined(__GNUC__)
  __asm__("" : "+v"(v));
#endif
  return v;
}
FACENET_INLINE void store_rounded(std::uint8_t* p, __m512 x) noexcept {
  const __m512i q = _mm512_maskz_cvtps_epi32(0xffff, x);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_maskz_cvtepi32_epi8(0xffff, q));
}
FACENET_INLINE void store_rounded(std::uint16_t* p, __m512 x) noexcept {
  const __m512i q = _mm512_maskz_cvtps_epi32(0xffff, x);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_maskz_cvtepi32_epi16(0xffff, q));
}
/// The lower half. GCC 12 warns of an undefined operand inside the intrinsic.
FACENET_INLINE __m256i lower(__m512i v) noexcept {
#if defined(__GNUC__) && (defined(__clang__) || __GNUC__ >= 12)
  using Eight = long long __attribute__((vector_size(64)));
  return reinterpret_cast<__m256i>(
      __builtin_shufflevector(reinterpret_cast<Eight>(v), reinterpret_cast<Eight>(v), 0, 1, 2, 3));
#else
  return _mm512_castsi512_si256(v);
#endif
}
// Packing works within 128 bits, so a permutation follows. It takes 3 instructions of the two ports that multiply; two
// vpmovdb, after two vmaxps, would take 6.
FACENET_INLINE void store_rounded(std::uint8_t* p, __m512 first, __m512 second) noexcept {
  const __m512i a = _mm512_maskz_cvtps_epi32(0xffff, first), b = _mm512_maskz_cvtps_epi32(0xffff, second);
  const __m512i words = _mm512_packs_epi32(a, b), bytes = _mm512_packus_epi16(words, words);
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 0, 0, 0, 0, 0, 0, 0, 0);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), lower(_mm512_maskz_permutexvar_epi32(0xff, order, bytes)));
}
FACENET_INLINE void store_rounded(std::uint16_t* p, __m512 first, __m512 second) noexcept {
  const __m512i a = _mm512_maskz_cvtps_epi32(0xffff, first), b = _mm512_maskz_cvtps_epi32(0xffff, second);
  const __m512i order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
  _mm512_storeu_si512(p, _mm512_maskz_permutexvar_epi64(0xff, order, _mm512_packus_epi32(a, b)));
}
FACENET_INLINE __m512 load_activations(const std::uint8_t* p) noexcept {
  return to_float(_mm512_maskz_cvtepu8_epi32(0xffff, _mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
FACENET_INLINE __m512 load_activations(const std::uint16_t* p) noexcept {
  const __m256i q = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return to_float(_mm512_maskz_cvtepu16_epi32(0xffff, q));
}

}  // namespace integer
}  // namespace simd

FACENET_END
