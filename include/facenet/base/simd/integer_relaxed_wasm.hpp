// Relaxed WebAssembly SIMD: i32x4.relaxed_dot_i8x16_i7x16_add_s, sixteen products an instruction. For bytes of 128 and
// more its result is the host's: x86 takes them as what they are (pmaddubsw, vpdpbusd) or as negative numbers
// (vpdpbssd), as ARM does (sdot, smull). A host does one of these always, so one multiplication tells which. Where
// bytes are negative numbers, activations are flipped to q - 128, and 128 times a channel's sum of weights is added.
// Where they are neither, words are multiplied.
#pragma once

#include <wasm_simd128.h>

#include <atomic>
#include <cstring>

#include "facenet/base/simd/plain.hpp"

FACENET_BEGIN

namespace simd {
namespace integer {

using vi = v128_t;
using va = v128_t;
using vw = v128_t;
using Activation = std::uint8_t;
constexpr const char* name = "relaxed wasm";
constexpr int zero_point = 0, group = 4, tile_rows = 4, tile_vectors = 2, tile_extra = 2, largest_pair = 128;

FACENET_INLINE vi zero() noexcept { return wasm_i32x4_splat(0); }
FACENET_INLINE va broadcast(const Activation* p) noexcept { return wasm_v128_load32_splat(p); }
FACENET_INLINE vw load_weights(const std::int8_t* p) noexcept { return wasm_v128_load(p); }
FACENET_INLINE vi dot(vi sum, va a, vw w) noexcept { return wasm_i32x4_relaxed_dot_i8x16_i7x16_add(w, a, sum); }
constexpr int place(int channel, int k) noexcept { return channel * group + k; }

/// Activations as a host with signed bytes multiplies them.
FACENET_INLINE va broadcast_flipped(const Activation* p) noexcept {
  return wasm_v128_xor(broadcast(p), wasm_i8x16_splat(-128));
}

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

/// What the host's dot makes of bytes of 128 and more.
enum class Bytes : int { unknown, as_they_are, negative, otherwise };

/// The dot of four equal activations and each of `weights`; `activation` is nothing that the compiler may know.
inline bool dot_gives(int activation, v128_t weights, v128_t sums) noexcept {
  __asm__("" : "+r"(activation));
  const v128_t got = dot(zero(), wasm_i8x16_splat(static_cast<std::int8_t>(activation)), weights);
  return wasm_i32x4_all_true(wasm_i32x4_eq(got, sums));
}
inline Bytes multiply_bytes() noexcept {
  const v128_t pairs = wasm_i8x16_make(127, 1, 0, 0, -1, -127, -127, -1, 64, 64, 64, 64, -128, 0, 100, -28);
  const v128_t ends = wasm_i8x16_make(127, 127, 127, 127, -127, -127, -127, -127, 127, -127, 1, 1, 1, 0, 0, 0);
  if (dot_gives(255, pairs, wasm_i32x4_make(255 * 128, -255 * 256, 255 * 256, 255 * -56)) &&
      dot_gives(128, pairs, wasm_i32x4_make(128 * 128, -128 * 256, 128 * 256, 128 * -56)))
    return Bytes::as_they_are;
  if (dot_gives(255, ends, wasm_i32x4_make(-508, 508, -2, -1)) &&
      dot_gives(128, ends, wasm_i32x4_make(-128 * 508, 128 * 508, -256, -128)) &&
      dot_gives(127, ends, wasm_i32x4_make(127 * 508, -127 * 508, 254, 127)))
    return Bytes::negative;
  return Bytes::otherwise;
}
FACENET_HIDDEN inline std::atomic<Bytes> host_bytes{Bytes::unknown};
inline Bytes host() noexcept {
  Bytes bytes = host_bytes.load(std::memory_order_relaxed);
  if (bytes == Bytes::unknown) host_bytes.store(bytes = multiply_bytes(), std::memory_order_relaxed);
  return bytes;
}

FACENET_INLINE vi with_offset(vi sum, const float* p) noexcept { return wasm_i32x4_add(sum, wasm_v128_load(p)); }
FACENET_INLINE v128_t to_float(vi x) noexcept { return wasm_f32x4_convert_i32x4(x); }
FACENET_INLINE v128_t rounded(v128_t x) noexcept {  // there is an FMA
  int zero = 0;  // which the compiler does not know; clang 19 takes no vector in assembly
  __asm__("" : "+r"(zero));
  return wasm_v128_or(x, wasm_i32x4_splat(zero));
}
FACENET_INLINE v128_t words(v128_t first, v128_t second) noexcept {
  return wasm_i16x8_narrow_i32x4(wasm_i32x4_trunc_sat_f32x4(wasm_f32x4_nearest(first)),
                                 wasm_i32x4_trunc_sat_f32x4(wasm_f32x4_nearest(second)));
}
FACENET_INLINE void store_rounded(Activation* p, v128_t x) noexcept {
  const v128_t q = words(x, x);
  wasm_v128_store32_lane(p, wasm_u8x16_narrow_i16x8(q, q), 0);
}
FACENET_INLINE void store_rounded(Activation* p, v128_t first, v128_t second) noexcept {
  const v128_t q = words(first, second);
  wasm_v128_store64_lane(p, wasm_u8x16_narrow_i16x8(q, q), 0);
}
FACENET_INLINE v128_t load_activations(const Activation* p) noexcept {
  return to_float(wasm_u32x4_extend_low_u16x8(wasm_u16x8_extend_low_u8x16(wasm_v128_load32_zero(p))));
}

}  // namespace integer
}  // namespace simd

FACENET_END
