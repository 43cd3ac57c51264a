// Distances between embeddings. Layer 6. Each function says what it returns: there is no bare "score" here.
//
// Up to which distance two faces are one person's depends on the model: models::Entry (embedder.hpp) has the number that its
// authors give and says where they do, ModelInfo::threshold is that of a loaded file, and choose_threshold (evaluate.hpp)
// finds one for a false accept rate on faces of your own.
#pragma once

#include <cmath>

#include "facenet/memory.hpp"

FACENET_BEGIN

/// Euclidean distance, or 1 - cosine of the angle. On unit vectors they order alike: euclidean^2 = 2 cosine.
enum class Metric : std::uint8_t { euclidean, cosine };

namespace detail {

// Sums in double, one for each of 16 columns: one chain of additions would wait 4 cycles for each of 512 terms, and a
// fixed number of columns gives the same bits on every machine.
constexpr std::size_t exact_columns = 16;

/// Calls term(i, column) for each i < n and adds up the columns of each of the N sums.
template <std::size_t N, class F>
FACENET_INLINE void sum_columns(int n, double (&sum)[N], F&& term) noexcept {
  double part[N][exact_columns] = {};
  const std::size_t count = n > 0 ? static_cast<std::size_t>(n) : 0, whole = count / exact_columns * exact_columns;
  for (std::size_t i = 0; i < whole; i += exact_columns)
    for (std::size_t c = 0; c < exact_columns; ++c) term(i + c, c, part);
  for (std::size_t c = 0; whole + c < count; ++c) term(whole + c, c, part);
  for (std::size_t s = 0; s < N; ++s) {
    for (std::size_t half = exact_columns / 2; half > 0; half /= 2)
      for (std::size_t c = 0; c < half; ++c) part[s][c] += part[s][c + half];
    sum[s] = part[s][0];
  }
}

inline double squared_norm(const float* a, int n) noexcept {
  double sum[1];
  sum_columns(n, sum, [&](std::size_t i, std::size_t c, auto& part) {
    part[0][c] += static_cast<double>(a[i]) * static_cast<double>(a[i]);
  });
  return sum[0];
}

}  // namespace detail

/// Sum of (a[i] - b[i])^2, in double. Exactly 0 for equal inputs.
inline double squared_distance(const float* a, const float* b, int n) noexcept {
  double sum[1];
  detail::sum_columns(n, sum, [&](std::size_t i, std::size_t c, auto& part) {
    const double d = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    part[0][c] += d * d;
  });
  return sum[0];
}
/// Euclidean distance: 0 for equal inputs, at most 2 between unit vectors.
inline double distance(const float* a, const float* b, int n) noexcept { return std::sqrt(squared_distance(a, b, n)); }

/// Cosine of the angle, -1 … 1, exactly 1 for equal inputs; 0 when one of them is the zero vector.
inline double similarity(const float* a, const float* b, int n) noexcept {
  double sum[3];  // ab, aa, bb
  detail::sum_columns(n, sum, [&](std::size_t i, std::size_t c, auto& part) {
    const double x = static_cast<double>(a[i]), y = static_cast<double>(b[i]);
    part[0][c] += x * y;
    part[1][c] += x * x;
    part[2][c] += y * y;
  });
  if (!(sum[1] > 0 && sum[2] > 0)) return 0;
  const double cosine = sum[0] / std::sqrt(sum[1] * sum[2]);
  return cosine > 1 ? 1 : cosine < -1 ? -1 : cosine;
}

/// The distance that `metric` names.
inline double distance(Metric metric, const float* a, const float* b, int n) noexcept {
  return metric == Metric::euclidean ? distance(a, b, n) : 1 - similarity(a, b, n);
}

constexpr int max_embedding_dim = 16384;

namespace detail {

/// Whether embeddings of `dim` components are ones that can be compared: finite, and none so large that a square overflows.
inline Status check_embeddings(const float* e, std::size_t n, int dim) noexcept {
  if (dim < 1 || dim > max_embedding_dim)
    return {Errc::invalid_argument, "an embedding must have 1 to 16384 components"};
  if (e == nullptr) return {Errc::invalid_argument, "there are no embeddings"};
  for (std::size_t i = 0; i < n * static_cast<std::size_t>(dim); ++i)
    if (!(std::fabs(e[i]) <= 1e15f))
      return {Errc::invalid_argument, "an embedding has a component that is not a number or is over 1e15"};
  return {};
}

}  // namespace detail

FACENET_END
