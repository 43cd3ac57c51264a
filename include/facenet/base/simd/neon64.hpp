// NEON on 64-bit ARM: 4 floats, FMAs that take a lane as one factor, conversions from half precision.
#pragma once

#include <xsimd/xsimd.hpp>

#include "facenet/base/simd/plain.hpp"

FACENET_BEGIN

namespace simd {

using vf = xsimd::batch<float, xsimd::neon64>;
// FMAs take the broadcast from a lane of a register. GCC 12 loads those of all rows first, so MR registers, not one:
// 6x16 (34 of 32) kept two accumulators on the stack, 8x8 takes 26 and still has more FMAs than loads.
constexpr int width = 4, register_count = 32, tile_rows = 8, tile_vectors = 2;
constexpr bool fused = true;
constexpr bool half_in_memory = true, slow_arithmetic = false;

FACENET_INLINE vf load(const float* p) noexcept { return vf::load_unaligned(p); }
FACENET_INLINE void store(float* p, vf v) noexcept { v.store_unaligned(p); }
FACENET_INLINE vf set1(float x) noexcept { return vf(x); }
FACENET_INLINE vf fma(vf a, vf b, vf c) noexcept { return xsimd::fma(a, b, c); }
FACENET_INLINE vf fnma(vf a, vf b, vf c) noexcept { return xsimd::fnma(a, b, c); }
FACENET_INLINE vf(max)(vf a, vf b) noexcept { return (xsimd::max)(a, b); }
FACENET_INLINE vf(min)(vf a, vf b) noexcept { return (xsimd::min)(a, b); }
FACENET_INLINE std::uint32_t at_least(vf a, vf b) noexcept { return static_cast<std::uint32_t>((a >= b).mask()); }

FACENET_INLINE vf load_partial(const float* p, int n) noexcept { return plain::load_partial<vf, width>(p, n); }
FACENET_INLINE void store_partial(float* p, vf v, int n) noexcept { plain::store_partial<vf, width>(p, v, n); }
FACENET_INLINE vf load(const Half* p) noexcept { return vf(vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(&p->bits)))); }
FACENET_INLINE vf load(const std::uint8_t* p) noexcept { return plain::load_converted<vf, width>(p); }
FACENET_INLINE vf load(const std::int8_t* p) noexcept { return plain::load_converted<vf, width>(p); }

FACENET_INLINE vf pair_max(const float* p) noexcept { return plain::pair_max<vf, width>(p); }
FACENET_INLINE void transpose(vf* v) noexcept { xsimd::transpose(v, v + width); }

FACENET_INLINE void prefetch_l2(const void* p) noexcept { plain::prefetch_l2(p); }
FACENET_INLINE bool may_prefetch(const void*, std::int64_t) noexcept { return true; }
FACENET_INLINE void pause() noexcept { __asm__ __volatile__("yield"); }

}  // namespace simd

FACENET_END
