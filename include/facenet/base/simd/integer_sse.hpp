// SSE4.1: pmaddubsw, or pmaddwd for weights that it would saturate, as in integer_avx2.hpp. SSE2: pmaddwd of words.
#pragma once

#include <emmintrin.h>
#if defined(__SSE4_1__)
#  include <smmintrin.h>
#endif

#include <cstring>

#include "facenet/base/simd/plain.hpp"

FACENET_BEGIN

namespace simd {
namespace integer {

using vi = __m128i;
using va = __m128i;
using vw = __m128i;
constexpr int zero_point = 0, tile_vectors = 2;

FACENET_INLINE vi zero() noexcept { return _mm_setzero_si128(); }
template <class T>
FACENET_INLINE va broadcast(const T* p) noexcept {
  std::int32_t bits;
  std::memcpy(&bits, p, sizeof bits);
  return _mm_set1_epi32(bits);
}

#if defined(__SSE4_1__)
constexpr const char* name = "sse4";
using Activation = std::uint8_t;
constexpr int group = 4, tile_rows = 5, tile_extra = 3, largest_pair = 128;
FACENET_INLINE vw load_weights(const std::int8_t* p) noexcept {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}
FACENET_INLINE vi dot(vi sum, va a, vw w) noexcept {
  return _mm_add_epi32(sum, _mm_madd_epi16(_mm_maddubs_epi16(a, w), _mm_set1_epi16(1)));
}

namespace exact {

struct va {
  __m128i even, odd;
};
using vw = va;
constexpr int tile_rows = 3, tile_extra = 6;
FACENET_INLINE va broadcast(const Activation* p) noexcept {
  const __m128i bytes = integer::broadcast(p);
  return {_mm_and_si128(bytes, _mm_set1_epi16(255)), _mm_srli_epi16(bytes, 8)};
}
FACENET_INLINE vw load_weights(const std::int8_t* p) noexcept {
  const __m128i bytes = integer::load_weights(p);
  return {_mm_srai_epi16(_mm_slli_epi16(bytes, 8), 8), _mm_srai_epi16(bytes, 8)};
}
FACENET_INLINE vi dot(vi sum, va a, vw w) noexcept {
  return _mm_add_epi32(_mm_add_epi32(sum, _mm_madd_epi16(a.even, w.even)), _mm_madd_epi16(a.odd, w.odd));
}

}  // namespace exact
#else
constexpr const char* name = "sse2";
using Activation = std::uint16_t;
constexpr int group = 2, tile_rows = 6, tile_extra = 2, largest_pair = any_pair;
namespace exact = integer;
FACENET_INLINE vw load_weights(const std::int8_t* p) noexcept {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  return _mm_srai_epi16(_mm_unpacklo_epi8(bytes, bytes), 8);
}
FACENET_INLINE vi dot(vi sum, va a, vw w) noexcept { return _mm_add_epi32(sum, _mm_madd_epi16(a, w)); }
#endif
constexpr int place(int channel, int k) noexcept { return channel * group + k; }

FACENET_INLINE vi with_offset(vi sum, const float*) noexcept { return sum; }
FACENET_INLINE __m128 to_float(vi x) noexcept { return _mm_cvtepi32_ps(x); }
FACENET_INLINE __m128 rounded(__m128 x) noexcept { return x; }  // there is nothing to fuse it into
FACENET_INLINE void store_rounded(Activation* p, __m128 x) noexcept {
  const __m128i q = _mm_cvtps_epi32(x), words = _mm_packs_epi32(q, q);
  if constexpr (sizeof(Activation) == 2) {
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), words);
  } else {
    const std::int32_t bytes = _mm_cvtsi128_si32(_mm_packus_epi16(words, words));
    std::memcpy(p, &bytes, sizeof bytes);
  }
}
FACENET_INLINE void store_rounded(Activation* p, __m128 first, __m128 second) noexcept {
  const __m128i words = _mm_packs_epi32(_mm_cvtps_epi32(first), _mm_cvtps_epi32(second));
  if constexpr (sizeof(Activation) == 2)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm_max_epi16(words, _mm_setzero_si128()));
  else
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packus_epi16(words, words));
}
FACENET_INLINE __m128 load_activations(const Activation* p) noexcept {
  const __m128i none = _mm_setzero_si128();
  if constexpr (sizeof(Activation) == 2) {
    return to_float(_mm_unpacklo_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)), none));
  } else {
    std::int32_t bytes;
    std::memcpy(&bytes, p, sizeof bytes);
    return to_float(_mm_unpacklo_epi16(_mm_unpacklo_epi8(_mm_cvtsi32_si128(bytes), none), none));
  }
}

}  // namespace integer
}  // namespace simd

FACENET_END
