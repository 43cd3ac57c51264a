// AVX2 with FMA: 8 floats; half precision in memory where F16C is there too.
#pragma once

#include <immintrin.h>

#include <xsimd/xsimd.hpp>

#include "facenet/base/simd/plain.hpp"

FACENET_BEGIN

namespace simd {

using vf = xsimd::batch<float, xsimd::fma3<xsimd::avx2>>;  // xsimd::avx2 alone has no FMA
constexpr int width = 8, register_count = 16, tile_rows = 6, tile_vectors = 2;
constexpr bool fused = true;
constexpr bool slow_arithmetic = false;

FACENET_INLINE vf load(const float* p) noexcept { return vf::load_unaligned(p); }
FACENET_INLINE void store(float* p, vf v) noexcept { v.store_unaligned(p); }
FACENET_INLINE vf set1(float x) noexcept { return vf(x); }
FACENET_INLINE vf fma(vf a, vf b, vf c) noexcept { return xsimd::fma(a, b, c); }
FACENET_INLINE vf fnma(vf a, vf b, vf c) noexcept { return xsimd::fnma(a, b, c); }
FACENET_INLINE vf(max)(vf a, vf b) noexcept { return (xsimd::max)(a, b); }
FACENET_INLINE vf(min)(vf a, vf b) noexcept { return (xsimd::min)(a, b); }
FACENET_INLINE std::uint32_t at_least(vf a, vf b) noexcept { return static_cast<std::uint32_t>((a >= b).mask()); }

// Masked: float by float, MTCNN's layers of 10 and 28 channels spent a fifth of their time here.
FACENET_INLINE __m256i first_lanes(int n) noexcept {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
FACENET_INLINE vf load_partial(const float* p, int n) noexcept { return vf(_mm256_maskload_ps(p, first_lanes(n))); }
FACENET_INLINE void store_partial(float* p, vf v, int n) noexcept { _mm256_maskstore_ps(p, first_lanes(n), v); }

#if defined(__F16C__)
constexpr bool half_in_memory = true;
FACENET_INLINE vf load(const Half* p) noexcept {
  return vf(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
#else
constexpr bool half_in_memory = false;
FACENET_INLINE vf load(const Half* p) noexcept { return plain::load_converted<vf, width>(p); }
#endif
FACENET_INLINE vf load(const std::uint8_t* p) noexcept {
  return vf(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)))));
}
FACENET_INLINE vf load(const std::int8_t* p) noexcept {
  return vf(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)))));
}

FACENET_INLINE vf pair_max(const float* p) noexcept {
  const __m256 a = _mm256_loadu_ps(p), b = _mm256_loadu_ps(p + width);
  const __m256 most = _mm256_max_ps(_mm256_shuffle_ps(a, b, 0x88), _mm256_shuffle_ps(a, b, 0xDD));
  return vf(_mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(most), 0xD8)));
}
FACENET_INLINE void transpose(vf* v) noexcept { xsimd::transpose(v, v + width); }

FACENET_INLINE void prefetch_l2(const void* p) noexcept { plain::prefetch_l2(p); }
FACENET_INLINE bool may_prefetch(const void*, std::int64_t) noexcept { return true; }
FACENET_INLINE void pause() noexcept { _mm_pause(); }

}  // namespace simd

FACENET_END
