// AVX-512 (F, DQ, BW, VL): 16 floats, masks for partial vectors, F16C.
#pragma once

#include <immintrin.h>

#include <xsimd/xsimd.hpp>

#include "facenet/base/simd/plain.hpp"

FACENET_BEGIN

namespace simd {

using vf = xsimd::batch<float, xsimd::avx512bw>;
constexpr int width = 16, register_count = 32, tile_rows = 12, tile_vectors = 2;
constexpr bool fused = true;
constexpr bool half_in_memory = true, slow_arithmetic = false;

FACENET_INLINE vf load(const float* p) noexcept { return vf::load_unaligned(p); }
FACENET_INLINE void store(float* p, vf v) noexcept { v.store_unaligned(p); }
FACENET_INLINE vf set1(float x) noexcept { return vf(x); }
FACENET_INLINE vf fma(vf a, vf b, vf c) noexcept { return xsimd::fma(a, b, c); }
FACENET_INLINE vf fnma(vf a, vf b, vf c) noexcept { return xsimd::fnma(a, b, c); }
// The unmasked forms, here and below, warn of an uninitialised variable inside GCC 12's own header.
FACENET_INLINE vf(max)(vf a, vf b) noexcept { return vf(_mm512_maskz_max_ps(0xffff, a, b)); }
FACENET_INLINE vf(min)(vf a, vf b) noexcept { return vf(_mm512_maskz_min_ps(0xffff, a, b)); }
FACENET_INLINE std::uint32_t at_least(vf a, vf b) noexcept { return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ); }

// Masked: float by float, MTCNN's layers of 10 and 28 channels spent a fifth of their time here.
FACENET_INLINE vf load_partial(const float* p, int n) noexcept {
  return vf(_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), p));
}
FACENET_INLINE void store_partial(float* p, vf v, int n) noexcept {
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1), v);
}

FACENET_INLINE vf load(const Half* p) noexcept {
  return vf(_mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
}
FACENET_INLINE vf load(const std::uint8_t* p) noexcept {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return vf(_mm512_maskz_cvtepi32_ps(0xffff, _mm512_maskz_cvtepu8_epi32(0xffff, bytes)));
}
FACENET_INLINE vf load(const std::int8_t* p) noexcept {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return vf(_mm512_maskz_cvtepi32_ps(0xffff, _mm512_maskz_cvtepi8_epi32(0xffff, bytes)));
}

FACENET_INLINE vf pair_max(const float* p) noexcept {
  const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
  const __m512i odd = _mm512_set_epi32(31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
  const __m512 a = _mm512_loadu_ps(p), b = _mm512_loadu_ps(p + width);
  return (max)(vf(_mm512_permutex2var_ps(a, even, b)), vf(_mm512_permutex2var_ps(a, odd, b)));
}
// Pairs of rows, then of pairs, then the 4 x 4 pieces of 128 bits: 64 shuffles. xsimd's goes through memory.
FACENET_INLINE void transpose(vf* v) noexcept {
  constexpr __mmask16 all = 0xffff;
  __m512 t[16], u[16];
  FACENET_UNROLL
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_maskz_unpacklo_ps(all, v[i], v[i + 1]);
    t[i + 1] = _mm512_maskz_unpackhi_ps(all, v[i], v[i + 1]);
  }
  FACENET_UNROLL
  for (int i = 0; i < 16; i += 4) {
    FACENET_UNROLL
    for (int k = 0; k < 2; ++k) {
      const __m512d a = _mm512_castps_pd(t[i + k]), b = _mm512_castps_pd(t[i + k + 2]);
      u[i + 2 * k] = _mm512_castpd_ps(_mm512_maskz_unpacklo_pd(0xff, a, b));
      u[i + 2 * k + 1] = _mm512_castpd_ps(_mm512_maskz_unpackhi_pd(0xff, a, b));
    }
  }
  FACENET_UNROLL
  for (int k = 0; k < 4; ++k) {
    const __m512 a = _mm512_maskz_shuffle_f32x4(all, u[k], u[4 + k], 0x88);
    const __m512 b = _mm512_maskz_shuffle_f32x4(all, u[k], u[4 + k], 0xDD);
    const __m512 c = _mm512_maskz_shuffle_f32x4(all, u[8 + k], u[12 + k], 0x88);
    const __m512 d = _mm512_maskz_shuffle_f32x4(all, u[8 + k], u[12 + k], 0xDD);
    v[k] = vf(_mm512_maskz_shuffle_f32x4(all, a, c, 0x88));
    v[4 + k] = vf(_mm512_maskz_shuffle_f32x4(all, b, d, 0x88));
    v[8 + k] = vf(_mm512_maskz_shuffle_f32x4(all, a, c, 0xDD));
    v[12 + k] = vf(_mm512_maskz_shuffle_f32x4(all, b, d, 0xDD));
  }
}

FACENET_INLINE void prefetch_l2(const void* p) noexcept { plain::prefetch_l2(p); }
FACENET_INLINE bool may_prefetch(const void*, std::int64_t) noexcept { return true; }
FACENET_INLINE void pause() noexcept { _mm_pause(); }

}  // namespace simd

FACENET_END
