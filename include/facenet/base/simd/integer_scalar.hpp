// Plain C++: where there is no vector, or FACENET_SCALAR is set.
#pragma once

#include <cstring>

#include "facenet/base/simd/plain.hpp"

FACENET_BEGIN

namespace simd {
namespace integer {

using vi = std::int32_t;
using Activation = std::uint8_t;
using va = const Activation*;
using vw = const std::int8_t*;
constexpr const char* name = "scalar";
constexpr int zero_point = 0, group = 4, tile_rows = 2, tile_vectors = 4, tile_extra = 1;

FACENET_INLINE vi zero() noexcept { return 0; }
FACENET_INLINE va broadcast(const Activation* p) noexcept { return p; }
FACENET_INLINE vw load_weights(const std::int8_t* p) noexcept { return p; }
FACENET_INLINE vi dot(vi sum, va a, vw w) noexcept {
  return sum + (a[0] * w[0] + a[1] * w[1]) + (a[2] * w[2] + a[3] * w[3]);
}
constexpr int largest_pair = any_pair;
namespace exact = integer;
constexpr int place(int, int k) noexcept { return k; }

/// Through memory, which also ends x87's longer mantissa.
FACENET_INLINE float rounded(float x) noexcept {
#if defined(__GNUC__)
  __asm__("" : "+m"(x));
  return x;
#else
  volatile float v = x;
  return v;
#endif
}
FACENET_INLINE vi with_offset(vi sum, const float*) noexcept { return sum; }
FACENET_INLINE float to_float(vi x) noexcept { return rounded(static_cast<float>(x)); }
/// 1.5 * 2^23 leaves no bit for a fraction: the sum's last bits are the nearest integer, ties to even.
FACENET_INLINE void store_rounded(Activation* p, float x) noexcept {
  const float sum = rounded(rounded(x) + 12582912.0f);
  std::uint32_t bits;
  std::memcpy(&bits, &sum, sizeof bits);
  *p = static_cast<Activation>(bits);
}
FACENET_INLINE void store_rounded(Activation* p, float first, float second) noexcept {
  store_rounded(p, first > 0 ? first : 0);
  store_rounded(p + 1, second > 0 ? second : 0);
}
FACENET_INLINE float load_activations(const Activation* p) noexcept { return static_cast<float>(*p); }

}  // namespace integer
}  // namespace simd

FACENET_END
