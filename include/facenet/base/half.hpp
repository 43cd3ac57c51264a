// IEEE 754 half precision: a format of storage; arithmetic is always in float.
#pragma once

#include <cstdint>
#include <cstring>

#include "facenet/base/config.hpp"

FACENET_BEGIN

/// Half precision, as stored.
struct Half {
  std::uint16_t bits;
};

namespace simd {

/// One half as a float, exactly, subnormals and infinities included, and where denormal floats count as zero too: no
/// intermediate is one.
inline float half_to_float(Half h) noexcept {
  const std::uint32_t magnitude = h.bits & 0x7fffu;
  float f = static_cast<float>(magnitude) * 0x1p-24f;  // a subnormal half is so many times 2^-24
  std::uint32_t bits;
  std::memcpy(&bits, &f, sizeof bits);
  if (magnitude >= 0x400u)
    bits = (magnitude << 13) + (magnitude >= 0x7c00u ? 224u << 23 : 112u << 23);  // bias 127 for 15
  bits |= (h.bits & 0x8000u) << 16;
  std::memcpy(&f, &bits, sizeof f);
  return f;
}
/// The nearest half, ties to even; overflow becomes infinity.
inline Half float_to_half(float f) noexcept {
  std::uint32_t x;
  std::memcpy(&x, &f, sizeof x);
  const auto sign = static_cast<std::uint16_t>((x >> 16) & 0x8000u);
  x &= 0x7fffffffu;
  if (x >= 0x7f800000u) return {static_cast<std::uint16_t>(sign | (x > 0x7f800000u ? 0x7e00u : 0x7c00u))};
  if (x >= 0x477ff000u) return {static_cast<std::uint16_t>(sign | 0x7c00u)};
  if (x >= 0x38800000u) {  // a normal half: rebias, round the 13 lost bits
    const std::uint32_t r = x - (112u << 23) + 0xfffu + ((x >> 13) & 1u);
    return {static_cast<std::uint16_t>(sign | (r >> 13))};
  }
  if (x < 0x33000000u) return {sign};  // below half of the smallest subnormal
  const std::uint32_t shift = 126u - (x >> 23), m = (x & 0x7fffffu) | 0x800000u;
  const std::uint32_t half = 1u << (shift - 1), q = m >> shift, rest = m & ((1u << shift) - 1);
  return {static_cast<std::uint16_t>(sign | (q + (rest > half || (rest == half && (q & 1u)) ? 1u : 0u)))};
}
/// Sixteen at once, as above; those that become normal halves, nearly all of an embedding, without a branch.
inline void float_to_half(const float (&from)[16], Half (&to)[16]) noexcept {
  std::uint32_t x[16], others = 0;
  std::memcpy(x, from, sizeof x);
  for (int i = 0; i < 16; ++i) {
    const std::uint32_t m = x[i] & 0x7fffffffu;
    others |= m - 0x38800000u < 0x477ff000u - 0x38800000u ? 0u : 1u;
    to[i].bits =
        static_cast<std::uint16_t>(((x[i] >> 16) & 0x8000u) | ((m - (112u << 23) + 0xfffu + ((m >> 13) & 1u)) >> 13));
  }
  if (others != 0)
    for (int i = 0; i < 16; ++i) to[i] = float_to_half(from[i]);
}

}  // namespace simd

FACENET_END
