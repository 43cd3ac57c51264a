// What is done to each chunk of a weight file: expand, check, scale.
#pragma once

#include "facenet/base/hash.hpp"

FACENET_BEGIN

namespace detail {

// Loops below run over blocks of 64: at -O2 GCC 12 vectorizes only loops with a constant trip count.
constexpr std::size_t raw_block = 64;

/// Calls f(raw, out) for each whole block of `count` elements of `item` bytes, and once on a zero-padded copy of the
/// rest.
template <std::size_t item, class F>
FACENET_INLINE void in_blocks(const std::uint8_t* raw, float* out, std::size_t count, F&& f) noexcept {
  for (; count >= raw_block; count -= raw_block, raw += raw_block * item, out += raw_block) f(raw, out);
  if (count == 0) return;
  std::uint8_t raw_tail[raw_block * item] = {};
  float out_tail[raw_block];
  std::memcpy(raw_tail, raw, count * item);
  f(raw_tail, out_tail);
  std::memcpy(out, out_tail, count * sizeof(float));
}

/// Exact float values of little-endian halves. Integers only where a subnormal is met, so that a thread which flushes
/// denormals gets the same weights. 47 MB take 10 ms.
inline void expand_f16(const std::uint8_t* raw, float* out, std::size_t count) noexcept {
  in_blocks<2>(raw, out, count, [](const std::uint8_t* from, float* to) {
    std::uint32_t bits[raw_block];
    for (std::size_t i = 0; i < raw_block; ++i) {
      const std::uint32_t h = load_le<std::uint16_t>(from + 2 * i), magnitude = h & 0x7fffu;
      const std::uint32_t normal = (magnitude << 13) + ((127u - 15u) << 23);
      const float f = static_cast<float>(static_cast<std::int32_t>(magnitude)) * 0x1p-24f;
      std::uint32_t subnormal;
      std::memcpy(&subnormal, &f, sizeof f);
      const std::uint32_t is_subnormal = 0u - ((magnitude - 0x400u) >> 31);
      bits[i] = (subnormal & is_subnormal) | (normal & ~is_subnormal) | (h & 0x8000u) << 16;
    }
    std::memcpy(to, bits, sizeof bits);
  });
}
inline void expand_i8(const std::uint8_t* raw, float* out, std::size_t count) noexcept {
  in_blocks<1>(raw, out, count, [](const std::uint8_t* from, float* to) {
    for (std::size_t i = 0; i < raw_block; ++i) to[i] = static_cast<float>(static_cast<std::int8_t>(from[i]));
  });
}
inline void expand_u8(const std::uint8_t* raw, float* out, std::size_t count) noexcept {
  for (std::size_t i = 0; i < count; ++i) out[i] = static_cast<float>(raw[i]);
}

/// The index of the first NaN or infinity, or `count`. An exponent of ones plus one carries into the sign bit, so one
/// addition and one OR for each value suffice.
inline std::size_t first_non_finite_f32(const float* x, std::size_t count) noexcept {
  auto carries = [x](std::size_t i) {
    std::uint32_t b;
    std::memcpy(&b, x + i, sizeof b);
    return (b & 0x7fffffffu) + 0x00800000u;
  };
  std::size_t i = 0;
  for (; i + raw_block <= count; i += raw_block) {
    std::uint32_t seen = 0;
    for (std::size_t j = 0; j < raw_block; ++j) seen |= carries(i + j);
    if (seen >> 31 != 0) break;
  }
  while (i < count && carries(i) >> 31 == 0) ++i;
  return i;
}
inline std::size_t first_non_finite_f16(const std::uint8_t* raw, std::size_t count) noexcept {
  auto carries = [raw](std::size_t i) { return (load_le<std::uint16_t>(raw + 2 * i) & 0x7fffu) + 0x0400u; };
  std::size_t i = 0;
  for (; i + raw_block <= count; i += raw_block) {
    std::uint32_t seen = 0;
    for (std::size_t j = 0; j < raw_block; ++j) seen |= carries(i + j);
    if ((seen & 0x8000u) != 0) break;
  }
  while (i < count && (carries(i) & 0x8000u) == 0) ++i;
  return i;
}

inline void scale_f32(float* x, std::size_t count, float s) noexcept {
  std::size_t i = 0;
  for (; i + raw_block <= count; i += raw_block)
    for (std::size_t j = 0; j < raw_block; ++j) x[i + j] *= s;
  for (; i < count; ++i) x[i] *= s;
}
/// x = x * s, each product rounded once from double.
inline void scale_f64(float* x, std::size_t count, double s) noexcept {
  std::size_t i = 0;
  for (; i + raw_block <= count; i += raw_block)
    for (std::size_t j = 0; j < raw_block; ++j) x[i + j] = static_cast<float>(static_cast<double>(x[i + j]) * s);
  for (; i < count; ++i) x[i] = static_cast<float>(static_cast<double>(x[i]) * s);
}

}  // namespace detail

FACENET_END
