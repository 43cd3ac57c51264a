// AVX2: vpdpbusd at 256 bits where there is VNNI, else vpmaddubsw, or vpmaddwd for weights that it would saturate.
#pragma once

#include <immintrin.h>

#include <cstring>

#include "facenet/base/simd/plain.hpp"

FACENET_BEGIN

namespace simd {
namespace integer {

using vi = __m256i;
using va = __m256i;
using vw = __m256i;

using Activation = std::uint8_t;
constexpr int zero_point = 0, group = 4, tile_vectors = 2;

FACENET_INLINE vi zero() noexcept { return _mm256_setzero_si256(); }
FACENET_INLINE va broadcast(const Activation* p) noexcept {
  std::int32_t bits;
  std::memcpy(&bits, p, sizeof bits);
  return _mm256_set1_epi32(bits);
}
FACENET_INLINE vw load_weights(const std::int8_t* p) noexcept {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}

#if defined(FACENET_VNNI)
constexpr const char* name = "avxvnni";
constexpr int tile_rows = 6, tile_extra = 1, largest_pair = any_pair;
namespace exact = integer;
/// As assembly, for the reason in integer_avx512.hpp.
FACENET_INLINE vi dot(vi sum, va a, vw w) noexcept {
#  if defined(__GNUC__)
  __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(a), "x"(w));
  return sum;
#  else
  return _mm256_dpbusd_avx_epi32(sum, a, w);
#  endif
}
#else
constexpr const char* name = "avx2";
// Zen 3, GOP/s: float 6x16 90; 4x16 141, 5x16 150, 6x16 with weights from memory 138; for any weights 3x16 102, and
// 4x16, which GCC 12 spills, 106; activations of 16 bits with vpmaddwd, 6x16, 85.
constexpr int tile_rows = 5, tile_extra = 3, largest_pair = 128;
// vpmaddubsw adds a pair of products in 16 bits: 255 * 128 fits.
FACENET_INLINE vi dot(vi sum, va a, vw w) noexcept {
  return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(a, w), _mm256_set1_epi16(1)));
}

/// For weights of any size: even and odd bytes as words.
namespace exact {

struct va {
  __m256i even, odd;
};
using vw = va;
constexpr int tile_rows = 3, tile_extra = 6;
FACENET_INLINE va broadcast(const Activation* p) noexcept {
  const __m256i bytes = integer::broadcast(p);
  return {_mm256_and_si256(bytes, _mm256_set1_epi16(255)), _mm256_srli_epi16(bytes, 8)};
}
FACENET_INLINE vw load_weights(const std::int8_t* p) noexcept {
  const __m256i bytes = integer::load_weights(p);
  return {_mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 8), _mm256_srai_epi16(bytes, 8)};
}
FACENET_INLINE vi dot(vi sum, va a, vw w) noexcept {
  return _mm256_add_epi32(_mm256_add_epi32(sum, _mm256_madd_epi16(a.even, w.even)), _mm256_madd_epi16(a.odd, w.odd));
}

}  // namespace exact
#endif
constexpr int place(int channel, int k) noexcept { return channel * group + k; }

FACENET_INLINE vi with_offset(vi sum, const float*) noexcept { return sum; }
FACENET_INLINE __m256 to_float(vi x) noexcept { return _mm256_cvtepi32_ps(x); }
FACENET_INLINE __m256 rounded(__m256 x) noexcept {
  __m256 v = x;
#if defined(__GNUC__)
  __asm__("" : "+x"(v));
#endif
  return v;
}
FACENET_INLINE void store_rounded(Activation* p, __m256 x) noexcept {
  const __m256i q = _mm256_cvtps_epi32(x);
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packus_epi16(words, words));
}
// Packing works within 128 bits, so a permutation follows.
FACENET_INLINE void store_rounded(Activation* p, __m256 first, __m256 second) noexcept {
  const __m256i words = _mm256_packs_epi32(_mm256_cvtps_epi32(first), _mm256_cvtps_epi32(second));
  const __m256i bytes = _mm256_packus_epi16(words, words), order = _mm256_setr_epi32(0, 4, 1, 5, 0, 0, 0, 0);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(_mm256_permutevar8x32_epi32(bytes, order)));
}
FACENET_INLINE __m256 load_activations(const Activation* p) noexcept {
  return to_float(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}

}  // namespace integer
}  // namespace simd

FACENET_END
