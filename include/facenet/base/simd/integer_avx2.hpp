// AVX2: vpdpbusd at 256 bits where there is VNNI, else 16-bit products of vpmaddwd.
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
constexpr int tile_rows = 6, tile_vectors = 2;

template <class T>
FACENET_INLINE std::int32_t bits_at(const T* p) noexcept {
  std::int32_t bits;
  std::memcpy(&bits, p, sizeof bits);
  return bits;
}

FACENET_INLINE vi zero() noexcept { return _mm256_setzero_si256(); }
template <class T>
FACENET_INLINE va broadcast(const T* p) noexcept {
  return _mm256_set1_epi32(bits_at(p));
}

#if defined(FACENET_VNNI)
using Activation = std::uint8_t;
constexpr int zero_point = 0, group = 4, tile_extra = 1;
FACENET_INLINE vw load_weights(const std::int8_t* p) noexcept {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
constexpr const char* name = "avxvnni";
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
// vpmaddubsw would add pairs of 255 * 127 in 16 bits, and saturate; 16-bit products are exact, two a lane.
constexpr const char* name = "avx2";
using Activation = std::uint16_t;
constexpr int zero_point = 0, group = 2, tile_extra = 2;
FACENET_INLINE vw load_weights(const std::int8_t* p) noexcept {
  return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
FACENET_INLINE vi dot(vi sum, va a, vw w) noexcept { return _mm256_add_epi32(sum, _mm256_madd_epi16(a, w)); }
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
FACENET_INLINE __m128i rounded_words(__m256 x) noexcept {
  const __m256i q = _mm256_cvtps_epi32(x);
  return _mm_packs_epi32(_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1));
}
FACENET_INLINE void store_rounded(std::uint8_t* p, __m256 x) noexcept {
  const __m128i words = rounded_words(x);
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packus_epi16(words, words));
}
FACENET_INLINE void store_rounded(std::uint16_t* p, __m256 x) noexcept {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), rounded_words(x));
}
// Packing works within 128 bits, so a permutation follows.
FACENET_INLINE void store_rounded(std::uint8_t* p, __m256 first, __m256 second) noexcept {
  const __m256i words = _mm256_packs_epi32(_mm256_cvtps_epi32(first), _mm256_cvtps_epi32(second));
  const __m256i bytes = _mm256_packus_epi16(words, words), order = _mm256_setr_epi32(0, 4, 1, 5, 0, 0, 0, 0);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(_mm256_permutevar8x32_epi32(bytes, order)));
}
FACENET_INLINE void store_rounded(std::uint16_t* p, __m256 first, __m256 second) noexcept {
  const __m256i words = _mm256_packus_epi32(_mm256_cvtps_epi32(first), _mm256_cvtps_epi32(second));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(words, 0xd8));
}
FACENET_INLINE __m256 load_activations(const std::uint8_t* p) noexcept {
  return to_float(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}
FACENET_INLINE __m256 load_activations(const std::uint16_t* p) noexcept {
  return to_float(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}

}  // namespace integer
}  // namespace simd

FACENET_END
