// Plain C++: where xsimd has no vector, or FACENET_SCALAR is set.
#pragma once

#include "facenet/base/simd/plain.hpp"

FACENET_BEGIN

namespace simd {

using vf = float;
constexpr int width = 1, register_count = 16, tile_rows = 2, tile_vectors = 4;
constexpr bool fused = false;
constexpr bool half_in_memory = false, slow_arithmetic = false;

FACENET_INLINE vf load(const float* p) noexcept { return *p; }
FACENET_INLINE void store(float* p, vf v) noexcept { *p = v; }
FACENET_INLINE vf set1(float x) noexcept { return x; }
FACENET_INLINE vf fma(vf a, vf b, vf c) noexcept { return a * b + c; }
FACENET_INLINE vf fnma(vf a, vf b, vf c) noexcept { return c - a * b; }
FACENET_INLINE vf(max)(vf a, vf b) noexcept { return a > b ? a : b; }
FACENET_INLINE vf(min)(vf a, vf b) noexcept { return a < b ? a : b; }
FACENET_INLINE std::uint32_t at_least(vf a, vf b) noexcept { return a >= b ? 1u : 0u; }

FACENET_INLINE vf load_partial(const float*, int) noexcept { return 0; }  // never: 0 < n < 1
FACENET_INLINE void store_partial(float*, vf, int) noexcept {}
FACENET_INLINE vf load(const Half* p) noexcept { return plain::to_float(*p); }
FACENET_INLINE vf load(const std::uint8_t* p) noexcept { return plain::to_float(*p); }
FACENET_INLINE vf load(const std::int8_t* p) noexcept { return plain::to_float(*p); }

FACENET_INLINE vf pair_max(const float* p) noexcept { return p[0] > p[1] ? p[0] : p[1]; }
FACENET_INLINE void transpose(vf*) noexcept {}

FACENET_INLINE void prefetch_l2(const void* p) noexcept { plain::prefetch_l2(p); }
FACENET_INLINE bool may_prefetch(const void*, std::int64_t) noexcept { return true; }

FACENET_INLINE void pause() noexcept {
#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ __volatile__("yield");
#endif
}

}  // namespace simd

FACENET_END
