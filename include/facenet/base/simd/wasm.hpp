// WebAssembly SIMD, plain and relaxed: 4 floats; FMA only with relaxed SIMD, where the CPU decides.
#pragma once

#include <xsimd/xsimd.hpp>

#include "facenet/base/simd/plain.hpp"

FACENET_BEGIN

namespace simd {

using vf = xsimd::batch<float, xsimd::wasm>;
constexpr int width = 4, register_count = 16, tile_rows = 4, tile_vectors = 2;
constexpr bool fused = false;
constexpr bool half_in_memory = false, slow_arithmetic = true;  // V8, four lanes

FACENET_INLINE vf load(const float* p) noexcept { return vf::load_unaligned(p); }
FACENET_INLINE void store(float* p, vf v) noexcept { v.store_unaligned(p); }
FACENET_INLINE vf set1(float x) noexcept { return vf(x); }
#if defined(__wasm_relaxed_simd__)
FACENET_INLINE vf fma(vf a, vf b, vf c) noexcept { return vf(wasm_f32x4_relaxed_madd(a, b, c)); }
FACENET_INLINE vf fnma(vf a, vf b, vf c) noexcept { return vf(wasm_f32x4_relaxed_nmadd(a, b, c)); }
#else
FACENET_INLINE vf fma(vf a, vf b, vf c) noexcept { return xsimd::fma(a, b, c); }
FACENET_INLINE vf fnma(vf a, vf b, vf c) noexcept { return xsimd::fnma(a, b, c); }
#endif
FACENET_INLINE vf(max)(vf a, vf b) noexcept { return (xsimd::max)(a, b); }
FACENET_INLINE vf(min)(vf a, vf b) noexcept { return (xsimd::min)(a, b); }
FACENET_INLINE std::uint32_t at_least(vf a, vf b) noexcept { return static_cast<std::uint32_t>((a >= b).mask()); }

FACENET_INLINE vf load_partial(const float* p, int n) noexcept { return plain::load_partial<vf, width>(p, n); }
FACENET_INLINE void store_partial(float* p, vf v, int n) noexcept { plain::store_partial<vf, width>(p, v, n); }
FACENET_INLINE vf load(const Half* p) noexcept { return plain::load_converted<vf, width>(p); }
FACENET_INLINE vf load(const std::uint8_t* p) noexcept { return plain::load_converted<vf, width>(p); }
FACENET_INLINE vf load(const std::int8_t* p) noexcept { return plain::load_converted<vf, width>(p); }

/// There is no such instruction: a load asks whose value is not used (Block8's layers 18 -> 24 GFLOP/s in V8), so the
/// memory must exist.
FACENET_INLINE vf pair_max(const float* p) noexcept { return plain::pair_max<vf, width>(p); }
FACENET_INLINE void transpose(vf* v) noexcept { xsimd::transpose(v, v + width); }

FACENET_INLINE void prefetch_l2(const void* p) noexcept { (void)*static_cast<const volatile char*>(p); }
FACENET_INLINE bool may_prefetch(const void* p, std::int64_t bytes) noexcept {
  return std::int64_t{static_cast<std::uint32_t>(reinterpret_cast<std::uintptr_t>(p))} + bytes <=
         std::int64_t{static_cast<std::uint32_t>(__builtin_wasm_memory_size(0))} << 16;
}
FACENET_INLINE void pause() noexcept {}

}  // namespace simd

FACENET_END
