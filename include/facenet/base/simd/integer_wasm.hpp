// WebAssembly SIMD: i32x4.dot_i16x8_s, two exact products a lane. Relaxed SIMD multiplies bytes
// (integer_relaxed_wasm.hpp).
#pragma once

#include <wasm_simd128.h>

#include <cstring>

#include "facenet/base/simd/plain.hpp"

FACENET_BEGIN

namespace simd {
namespace integer {

using vi = v128_t;
using va = v128_t;
using vw = v128_t;
using Activation = std::uint16_t;
constexpr const char* name = "wasm";
constexpr int zero_point = 0, group = 2, tile_rows = 4, tile_vectors = 2, tile_extra = 2;

FACENET_INLINE vi zero() noexcept { return wasm_i32x4_splat(0); }
FACENET_INLINE va broadcast(const Activation* p) noexcept { return wasm_v128_load32_splat(p); }
FACENET_INLINE vw load_weights(const std::int8_t* p) noexcept { return wasm_i16x8_load8x8(p); }
FACENET_INLINE vi dot(vi sum, va a, vw w) noexcept { return wasm_i32x4_add(sum, wasm_i32x4_dot_i16x8(a, w)); }
constexpr int largest_pair = any_pair;
namespace exact = integer;
constexpr int place(int channel, int k) noexcept { return channel * group + k; }

FACENET_INLINE vi with_offset(vi sum, const float*) noexcept { return sum; }
FACENET_INLINE v128_t to_float(vi x) noexcept { return wasm_f32x4_convert_i32x4(x); }
FACENET_INLINE v128_t rounded(v128_t x) noexcept {  // relaxed SIMD has an FMA
  int zero = 0;  // which the compiler does not know; clang 19 takes no vector in assembly
  __asm__("" : "+r"(zero));
  return wasm_v128_or(x, wasm_i32x4_splat(zero));
}
FACENET_INLINE void store_rounded(Activation* p, v128_t x) noexcept {
  const v128_t q = wasm_i32x4_trunc_sat_f32x4(wasm_f32x4_nearest(x));
  wasm_v128_store64_lane(p, wasm_u16x8_narrow_i32x4(q, q), 0);
}
FACENET_INLINE void store_rounded(Activation* p, v128_t first, v128_t second) noexcept {
  const v128_t a = wasm_i32x4_trunc_sat_f32x4(wasm_f32x4_nearest(first));
  const v128_t b = wasm_i32x4_trunc_sat_f32x4(wasm_f32x4_nearest(second));
  wasm_v128_store(p, wasm_u16x8_narrow_i32x4(a, b));
}
FACENET_INLINE v128_t load_activations(const Activation* p) noexcept { return to_float(wasm_u32x4_load16x4(p)); }

}  // namespace integer
}  // namespace simd

FACENET_END
