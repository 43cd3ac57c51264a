// Distances between embeddings. Layer 6. Each function says what it returns: there is no bare "score" here.
#pragma once

#include <cmath>

#include "facenet/memory.hpp"

FACENET_BEGIN

/// Sum of (a[i] - b[i])^2, in double. Exactly 0 for equal inputs.
inline double squared_distance(const float* a, const float* b, int n) noexcept {
  double sum = 0;
  for (int i = 0; i < n; ++i) {
    const double d = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    sum += d * d;
  }
  return sum;
}
/// Euclidean distance: 0 for equal inputs, at most 2 between unit vectors.
inline double distance(const float* a, const float* b, int n) noexcept { return std::sqrt(squared_distance(a, b, n)); }

/// Cosine of the angle, -1 … 1; 0 when one of them is the zero vector.
inline double similarity(const float* a, const float* b, int n) noexcept {
  double ab = 0, aa = 0, bb = 0;
  for (int i = 0; i < n; ++i) {
    const double x = static_cast<double>(a[i]), y = static_cast<double>(b[i]);
    ab += x * y;
    aa += x * x;
    bb += y * y;
  }
  return aa > 0 && bb > 0 ? ab / std::sqrt(aa * bb) : 0;
}

FACENET_END
