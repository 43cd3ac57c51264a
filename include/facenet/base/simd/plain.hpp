// Forms for an ISA that lacks an instruction, under the names of simd.hpp. A page takes those that it needs. V: xsimd's
// batch.
#pragma once

#include "facenet/base/half.hpp"

FACENET_BEGIN

namespace simd {
namespace integer {

/// No two weights have larger magnitudes together.
constexpr int any_pair = 256;

}  // namespace integer

namespace plain {

template <class V, std::size_t Width>
FACENET_INLINE V load_partial(const float* p, int n) noexcept {
  float t[Width] = {};
  for (int i = 0; i < n; ++i) t[i] = p[i];
  return V::load_unaligned(t);
}
template <class V, std::size_t Width>
FACENET_INLINE void store_partial(float* p, V v, int n) noexcept {
  float t[Width];
  v.store_unaligned(t);
  for (int i = 0; i < n; ++i) p[i] = t[i];
}
FACENET_INLINE float to_float(Half h) noexcept { return half_to_float(h); }
FACENET_INLINE float to_float(std::uint8_t b) noexcept { return static_cast<float>(b); }
FACENET_INLINE float to_float(std::int8_t b) noexcept { return static_cast<float>(b); }
template <class V, std::size_t Width, class T>
FACENET_INLINE V load_converted(const T* p) noexcept {
  float t[Width];
  for (std::size_t i = 0; i < Width; ++i) t[i] = to_float(p[i]);
  return V::load_unaligned(t);
}

FACENET_INLINE void prefetch_l1(const void* p) noexcept {
#if defined(__GNUC__)
  __builtin_prefetch(p, 0, 3);
#else
  (void)p;
#endif
}

template <class V, std::size_t Width>
FACENET_INLINE V pair_max(const float* p) noexcept {
  float t[Width];
  for (std::size_t i = 0; i < Width; ++i) t[i] = p[2 * i] > p[2 * i + 1] ? p[2 * i] : p[2 * i + 1];
  return V::load_unaligned(t);
}

FACENET_INLINE void prefetch_l2(const void* p) noexcept {
#if defined(__GNUC__)
  __builtin_prefetch(p, 0, 2);
#else
  (void)p;
#endif
}

}  // namespace plain
}  // namespace simd

FACENET_END
