// Roundings that must not depend on a compiler's options.
#pragma once

#include "facenet/base/finite.hpp"

FACENET_BEGIN

namespace detail {

/// a * b, rounded by itself. Written as an expression, a compiler may join it with the sum that follows into one fused
/// operation (-ffp-contract), and the bits are no longer the reference's. A product that has been in memory stays.
template <class T>
inline T rounded_product(T a, T b) noexcept {
  volatile T p = a * b;
  return p;
}

/// A coordinate truncated as Python's int() does it. Not a number gives 0, and what is beyond any picture is held at
/// 2^24, instead of undefined behaviour.
inline int whole_pixels(double v) noexcept {
  constexpr double beyond = 1 << 24;
  return is_nan(v) ? 0 : static_cast<int>(v > beyond ? beyond : v < -beyond ? -beyond : v);
}

}  // namespace detail

FACENET_END
