// NEON on 64-bit ARM: usdot where there is i8mm, sdot with dotprod, else smull, smlal and sadalp. The last two multiply
// signed bytes, so memory holds q - 128, and 128 times a channel's sum of weights is added to its sum.
#pragma once

#include <arm_neon.h>

#include <cstring>

#include "facenet/base/simd/plain.hpp"

FACENET_BEGIN

namespace simd {
namespace integer {

using vi = int32x4_t;
using vw = int8x16_t;
constexpr int group = 4, tile_vectors = 2;

template <class T>
FACENET_INLINE std::int32_t bits_at(const T* p) noexcept {
  std::int32_t bits;
  std::memcpy(&bits, p, sizeof bits);
  return bits;
}

FACENET_INLINE vi zero() noexcept { return vdupq_n_s32(0); }
FACENET_INLINE vw load_weights(const std::int8_t* p) noexcept { return vld1q_s8(p); }

#if defined(FACENET_I8MM)
constexpr const char* name = "neon i8mm";
using Activation = std::uint8_t;
using va = uint8x16_t;
constexpr int tile_rows = 8, zero_point = 0, tile_extra = 8;  // GCC 12 loads the broadcasts of all rows first
FACENET_INLINE va broadcast(const Activation* p) noexcept { return vreinterpretq_u8_s32(vdupq_n_s32(bits_at(p))); }
FACENET_INLINE vi dot(vi sum, va a, vw w) noexcept { return vusdotq_s32(sum, a, w); }
constexpr int place(int channel, int k) noexcept { return channel * group + k; }
#elif defined(FACENET_DOTPROD)
constexpr const char* name = "neon dotprod";
using Activation = std::int8_t;
using va = int8x16_t;
constexpr int tile_rows = 8, zero_point = 128, tile_extra = 8;
FACENET_INLINE va broadcast(const Activation* p) noexcept { return vreinterpretq_s8_s32(vdupq_n_s32(bits_at(p))); }
FACENET_INLINE vi dot(vi sum, va a, vw w) noexcept { return vdotq_s32(sum, a, w); }
constexpr int place(int channel, int k) noexcept { return channel * group + k; }
#else
constexpr const char* name = "neon";
using Activation = std::int8_t;
struct va {
  int8x8_t first, second;  // the first pair of a group four times, and the second
};
// GCC 12 begins all products before it adds one: two broadcasts a row, the weights' upper halves, a product a sum. 6x8
// spilt.
constexpr int tile_rows = 4, zero_point = 128, tile_extra = 18;
using Pair = std::int16_t __attribute__((may_alias, aligned(1)));
FACENET_INLINE int8x8_t broadcast_pair(const Activation* p) noexcept {
  return vreinterpret_s8_s16(vdup_n_s16(*reinterpret_cast<const Pair*>(p)));
}
FACENET_INLINE va broadcast(const Activation* p) noexcept { return {broadcast_pair(p), broadcast_pair(p + 2)}; }
// Two products of at most 128 * 127 fit 16 bits: weights are -127 or more.
FACENET_INLINE vi dot(vi sum, va a, vw w) noexcept {
  return vpadalq_s16(sum, vmlal_s8(vmull_s8(a.first, vget_low_s8(w)), a.second, vget_high_s8(w)));
}
constexpr int place(int channel, int k) noexcept { return k / 2 * 8 + channel * 2 + k % 2; }
#endif

constexpr int largest_pair = any_pair;
namespace exact = integer;
FACENET_INLINE vi with_offset(vi sum, const float* p) noexcept {
  if constexpr (zero_point == 0) return sum;
  return vaddq_s32(sum, vreinterpretq_s32_f32(vld1q_f32(p)));
}
FACENET_INLINE float32x4_t to_float(vi x) noexcept { return vcvtq_f32_s32(x); }
FACENET_INLINE float32x4_t rounded(float32x4_t x) noexcept {
  float32x4_t v = x;
#if defined(__GNUC__)
  __asm__("" : "+w"(v));
#endif
  return v;
}
FACENET_INLINE void store_rounded(Activation* p, float32x4_t x) noexcept {
  const int16x4_t words = vmovn_s32(vsubq_s32(vcvtnq_s32_f32(x), vdupq_n_s32(zero_point)));
  const std::int32_t bytes = vget_lane_s32(vreinterpret_s32_s8(vmovn_s16(vcombine_s16(words, words))), 0);
  std::memcpy(p, &bytes, sizeof bytes);
}
FACENET_INLINE void store_rounded(Activation* p, float32x4_t first, float32x4_t second) noexcept {
  const uint16x4_t a = vqmovun_s32(vcvtnq_s32_f32(first)), b = vqmovun_s32(vcvtnq_s32_f32(second));
  const uint8x8_t bytes = veor_u8(vmovn_u16(vcombine_u16(a, b)), vdup_n_u8(zero_point));  // q - 128, as signed
  vst1_u8(reinterpret_cast<std::uint8_t*>(p), bytes);
}
FACENET_INLINE float32x4_t load_activations(const Activation* p) noexcept {
  const std::int32_t q[4] = {int{p[0]} + zero_point, int{p[1]} + zero_point, int{p[2]} + zero_point,
                             int{p[3]} + zero_point};
  return to_float(vld1q_s32(q));
}

}  // namespace integer
}  // namespace simd

FACENET_END
