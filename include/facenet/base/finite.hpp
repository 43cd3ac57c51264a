// Whether a number is one, looked up in its bits: -ffast-math, -ffinite-math-only and -Ofast let a compiler drop
// comparisons that only a NaN or an infinity could fail. Numbers are taken by reference, since Clang promises there
// what it passes by value.
#pragma once

#include <cfloat>

#include "facenet/base/status.hpp"

FACENET_BEGIN

namespace detail {

FACENET_INLINE std::uint32_t magnitude_bits(const float& x) noexcept {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits & 0x7fffffffu;
}
FACENET_INLINE std::uint64_t magnitude_bits(const double& x) noexcept {
  std::uint64_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits & 0x7fffffffffffffffu;
}
FACENET_INLINE bool is_nan(const float& x) noexcept { return magnitude_bits(x) > 0x7f800000u; }
FACENET_INLINE bool is_nan(const double& x) noexcept { return magnitude_bits(x) > 0x7ff0000000000000u; }
FACENET_INLINE bool is_finite(const float& x) noexcept { return magnitude_bits(x) < 0x7f800000u; }
FACENET_INLINE bool is_finite(const double& x) noexcept { return magnitude_bits(x) < 0x7ff0000000000000u; }
/// |x| <= most, a finite number: magnitudes are ordered like their bits.
FACENET_INLINE bool is_within(const float& x, const float& most) noexcept {
  return magnitude_bits(x) <= magnitude_bits(most);
}

}  // namespace detail

FACENET_END
