// WebAssembly SIMD: i32x4.dot_i16x8_s, two exact products a lane. Relaxed SIMD has dots of bytes, but says what they
// are for activations of 7 bits only. Engines make vpdpbusd, pmaddubsw or sdot of them, and all take 8 bits in one way
// or another; so two functions ask what this engine's are. Where neither is exact, words multiply.
#pragma once

#include <wasm_simd128.h>

#include <cstring>

#include "facenet/base/simd/plain.hpp"

FACENET_BEGIN

namespace simd {
namespace integer {

using vi = v128_t;

FACENET_INLINE vi zero() noexcept { return wasm_i32x4_splat(0); }

#if defined(FACENET_RELAXED_DOT)

using Activation = std::uint8_t;
using va = v128_t;
using vw = v128_t;
constexpr const char* name = "wasm relaxed";
constexpr int zero_point = 0, group = 4, tile_rows = 5, tile_vectors = 2, tile_extra = 3, largest_pair = 128;

FACENET_INLINE va broadcast(const Activation* p) noexcept { return wasm_v128_load32_splat(p); }
FACENET_INLINE vw load_weights(const std::int8_t* p) noexcept { return wasm_v128_load(p); }
// pmaddubsw. As i32x4.relaxed_dot V8 makes five instructions of it, this way three.
FACENET_INLINE vi dot(vi sum, va a, vw w) noexcept {
  return wasm_i32x4_add(sum, wasm_i32x4_extadd_pairwise_i16x8(wasm_i16x8_relaxed_dot_i8x16_i7x16(w, a)));
}
FACENET_NOINLINE inline bool pair_dot_takes_bytes() noexcept {
  const v128_t w = wasm_i8x16_const(64, 64, 64, 64, -64, -64, -64, -64, 127, 1, 1, 127, -127, -1, 0, 1);
  const v128_t want = wasm_i32x4_const(255 * 256, -255 * 256, 255 * 256, -255 * 127);
  return wasm_i32x4_all_true(wasm_i32x4_eq(dot(zero(), wasm_i8x16_splat(-1), w), want));
}

/// For weights of any size, where the engine sums four products in 32 bits: vpdpbusd, or with signed activations sdot.
namespace wide {

constexpr int tile_rows = 5, tile_extra = 4;
FACENET_INLINE vi dot(vi sum, va a, vw w) noexcept { return wasm_i32x4_relaxed_dot_i8x16_i7x16_add(w, a, sum); }
/// What makes bytes q - 128 where they have a sign, else 0: a constant of the loop around it.
FACENET_INLINE v128_t flip() noexcept {
  const vi largest = dot(zero(), wasm_i8x16_splat(-1), wasm_i32x4_splat(1));
  return wasm_v128_and(wasm_i32x4_shr(largest, 31), wasm_i8x16_splat(-128));
}
FACENET_INLINE va broadcast(const Activation* p) noexcept { return wasm_v128_xor(integer::broadcast(p), flip()); }
/// What a channel's sum of weights is multiplied by: with_offset().
FACENET_INLINE int zero_point() noexcept { return wasm_v128_any_true(flip()) ? 128 : 0; }
FACENET_NOINLINE inline bool is_exact() noexcept {
  const v128_t w = wasm_i8x16_splat(127), none = dot(zero(), flip(), w);
  const vi all = dot(zero(), wasm_v128_xor(wasm_i8x16_splat(-1), flip()), w);
  return wasm_i32x4_all_true(wasm_i32x4_eq(wasm_i32x4_sub(all, none), wasm_i32x4_splat(4 * 255 * 127))) &&
         wasm_i32x4_extract_lane(none, 0) == -4 * 127 * zero_point();
}

}  // namespace wide

/// For weights of any size on every engine: even and odd bytes as words.
namespace exact {

struct va {
  v128_t even, odd;
};
using vw = va;
constexpr int tile_rows = 3, tile_extra = 6;
FACENET_INLINE va broadcast(const Activation* p) noexcept {
  const v128_t bytes = integer::broadcast(p);
  return {wasm_v128_and(bytes, wasm_i16x8_splat(255)), wasm_u16x8_shr(bytes, 8)};
}
FACENET_INLINE vw load_weights(const std::int8_t* p) noexcept {
  const v128_t bytes = integer::load_weights(p);
  return {wasm_i16x8_shr(wasm_i16x8_shl(bytes, 8), 8), wasm_i16x8_shr(bytes, 8)};
}
FACENET_INLINE vi dot(vi sum, va a, vw w) noexcept {
  return wasm_i32x4_add(wasm_i32x4_add(sum, wasm_i32x4_dot_i16x8(a.even, w.even)), wasm_i32x4_dot_i16x8(a.odd, w.odd));
}

}  // namespace exact

#else

using Activation = std::uint16_t;
using va = v128_t;
using vw = v128_t;
constexpr const char* name = "wasm";
constexpr int zero_point = 0, group = 2, tile_rows = 4, tile_vectors = 2, tile_extra = 2, largest_pair = any_pair;

FACENET_INLINE va broadcast(const Activation* p) noexcept { return wasm_v128_load32_splat(p); }
FACENET_INLINE vw load_weights(const std::int8_t* p) noexcept { return wasm_i16x8_load8x8(p); }
FACENET_INLINE vi dot(vi sum, va a, vw w) noexcept { return wasm_i32x4_add(sum, wasm_i32x4_dot_i16x8(a, w)); }
namespace exact = integer;

#endif

constexpr int place(int channel, int k) noexcept { return channel * group + k; }

#if defined(FACENET_RELAXED_DOT)
FACENET_INLINE vi with_offset(vi sum, const float* p) noexcept { return wasm_i32x4_add(sum, wasm_v128_load(p)); }
#else
FACENET_INLINE vi with_offset(vi sum, const float*) noexcept { return sum; }
#endif
FACENET_INLINE v128_t to_float(vi x) noexcept { return wasm_f32x4_convert_i32x4(x); }
FACENET_INLINE v128_t rounded(v128_t x) noexcept {  // relaxed SIMD has an FMA
  int zero = 0;  // which the compiler does not know; clang 19 takes no vector in assembly
  __asm__("" : "+r"(zero));
  return wasm_v128_or(x, wasm_i32x4_splat(zero));
}
FACENET_INLINE v128_t rint(v128_t x) noexcept { return wasm_i32x4_trunc_sat_f32x4(wasm_f32x4_nearest(x)); }
#if defined(FACENET_RELAXED_DOT)
FACENET_INLINE void store_rounded(Activation* p, v128_t x) noexcept {
  const v128_t q = rint(x), words = wasm_i16x8_narrow_i32x4(q, q);
  wasm_v128_store32_lane(p, wasm_u8x16_narrow_i16x8(words, words), 0);
}
FACENET_INLINE void store_rounded(Activation* p, v128_t first, v128_t second) noexcept {
  const v128_t words = wasm_i16x8_narrow_i32x4(rint(first), rint(second));
  wasm_v128_store64_lane(p, wasm_u8x16_narrow_i16x8(words, words), 0);
}
FACENET_INLINE v128_t load_activations(const Activation* p) noexcept {
  return to_float(wasm_u32x4_extend_low_u16x8(wasm_u16x8_extend_low_u8x16(wasm_v128_load32_zero(p))));
}
#else
FACENET_INLINE void store_rounded(Activation* p, v128_t x) noexcept {
  const v128_t q = rint(x);
  wasm_v128_store64_lane(p, wasm_u16x8_narrow_i32x4(q, q), 0);
}
FACENET_INLINE void store_rounded(Activation* p, v128_t first, v128_t second) noexcept {
  wasm_v128_store(p, wasm_u16x8_narrow_i32x4(rint(first), rint(second)));
}
FACENET_INLINE v128_t load_activations(const Activation* p) noexcept { return to_float(wasm_u32x4_load16x4(p)); }
#endif

}  // namespace integer
}  // namespace simd

FACENET_END
