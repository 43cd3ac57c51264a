// SSE2, and SSE4.1: 16-bit products of pmaddwd. pmaddubsw would saturate at 8 bits.
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
using Activation = std::uint16_t;
constexpr int zero_point = 0, group = 2, tile_rows = 6, tile_vectors = 2, tile_extra = 2;

template <class T>
FACENET_INLINE std::int32_t bits_at(const T* p) noexcept {
  std::int32_t bits;
  std::memcpy(&bits, p, sizeof bits);
  return bits;
}

FACENET_INLINE vi zero() noexcept { return _mm_setzero_si128(); }
FACENET_INLINE va broadcast(const Activation* p) noexcept { return _mm_set1_epi32(bits_at(p)); }
FACENET_INLINE vw load_weights(const std::int8_t* p) noexcept {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
#if defined(__SSE4_1__)
  return _mm_cvtepi8_epi16(bytes);
#else
  return _mm_srai_epi16(_mm_unpacklo_epi8(bytes, bytes), 8);
#endif
}
#if defined(__SSE4_1__)
constexpr const char* name = "sse4";
#else
constexpr const char* name = "sse2";
#endif
FACENET_INLINE vi dot(vi sum, va a, vw w) noexcept { return _mm_add_epi32(sum, _mm_madd_epi16(a, w)); }
constexpr int place(int channel, int k) noexcept { return channel * group + k; }

FACENET_INLINE vi with_offset(vi sum, const float*) noexcept { return sum; }
FACENET_INLINE __m128 to_float(vi x) noexcept { return _mm_cvtepi32_ps(x); }
FACENET_INLINE __m128 rounded(__m128 x) noexcept { return x; }  // there is nothing to fuse it into
FACENET_INLINE void store_rounded(Activation* p, __m128 x) noexcept {
  const __m128i q = _mm_cvtps_epi32(x);
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi32(q, q));
}
FACENET_INLINE void store_rounded(Activation* p, __m128 first, __m128 second) noexcept {
  const __m128i words = _mm_packs_epi32(_mm_cvtps_epi32(first), _mm_cvtps_epi32(second));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm_max_epi16(words, _mm_setzero_si128()));
}
FACENET_INLINE __m128 load_activations(const Activation* p) noexcept {
  const __m128i words = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  return to_float(_mm_unpacklo_epi16(words, _mm_setzero_si128()));
}

}  // namespace integer
}  // namespace simd

FACENET_END
