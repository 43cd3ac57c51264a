// Scores of queries against packed templates: a register tile of dot products, and how far rounding may move them.
#pragma once

#include <cmath>

#include "facenet/kernels/conv.hpp"

FACENET_BEGIN

namespace kernels {

/// score = dot * scale + offset; the offsets lie simd::panel floats after the scales. With scale 1 and offset -|t|^2 /
/// 2 the squared distance is |q|^2 - 2 score, with scale 1 / |t| and offset 0 the cosine is score / |q|: the nearest
/// score highest.
struct Affine {
  static constexpr bool narrow = false;
  FACENET_INLINE static vf apply(vf sum, const float* scale, const float*) noexcept {
    return simd::fma(sum, simd::load(scale), simd::load(scale + simd::panel));
  }
};

/// out[rows][simd::panel] = scores of the queries a[rows] against one panel [dim][simd::panel] of floats or halves.
template <class W>
inline void score_panel(const float* const* a, int rows, int dim, const W* panel, const float* scale,
                        float* out) noexcept {
  const std::int32_t start = 0;
  PrefetchCursor ahead = detail::prefetch_next_panel(panel, std::int64_t{dim} * simd::panel, rows, simd::panel);
  detail::balanced_tiles(rows, [&](int first, int count) {
    float* to[simd::tile_rows];
    for (int i = 0; i < count; ++i) to[i] = out + (first + i) * simd::panel;
    detail::tile_for<Affine, W>(count, simd::panel)(a + first, {&start, 1, dim}, panel, scale, to, simd::panel, ahead);
    ahead.from += ahead.step * dim;
  });
}

/// |score - exact score| <= norm * |q| + constant, for every template of a panel.
///
/// A chain of d products and sums is off by at most (d + 1) u sum |q_i t_i| <= (d + 1) u |q||t| (Higham, "Accuracy and
/// Stability", 3.5; u = 2^-24; without FMA too), and by 2^-126 a step where denormals count as zero. Scale and offset
/// are rounded once, their FMA once or twice: 3 u (|q||t| scale + |offset|). The exact distance that results are ranked
/// by is a sum in double, off by some d 2^-53: less than the second u that is granted here.
struct ScoreError {
  float norm, constant;
};
/// The error for templates with |t| <= norm, a scale up to `scale` and an offset down to -offset.
inline ScoreError score_error(int dim, double norm, double scale, double offset) noexcept {
  constexpr double u = 0x1p-24;
  const double steps = dim + 8;
  return {static_cast<float>(steps * u * norm * scale * (1 + 4 * u)),
          static_cast<float>((6 * u * offset + dim * 0x1p-125 * scale) * (1 + 4 * u))};
}

}  // namespace kernels

FACENET_END
