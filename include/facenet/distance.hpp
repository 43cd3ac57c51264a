// Distances between embeddings. Each function says what it returns: there is no bare "score" here.
//
// They are arithmetic: of vectors that are zero or not finite the result means nothing, though it may be a small
// number. An Embedder returns no such vector; galleries, clustering and evaluation refuse them (check_embeddings).
// Arrays that cannot be compared, of different lengths or empty, are beyond every threshold: distance DBL_MAX,
// similarity -DBL_MAX.
//
// Up to which distance two faces are one person's depends on the model: models::Entry (models/all.hpp) has the number
// that its authors give and says where they do, ModelInfo::threshold is that of a loaded file, and choose_threshold
// (evaluate.hpp) finds one for a false accept rate on faces of your own.
#pragma once
#include "facenet/base/macros_push.inc"

#include <climits>
#include <cmath>

#include "facenet/base/finite.hpp"
#include "facenet/base/tensor.hpp"

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

inline double squared_distance(const float* a, const float* b, int n) noexcept {
  double sum[1];
  sum_columns(n, sum, [&](std::size_t i, std::size_t c, auto& part) {
    const double d = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    part[0][c] += d * d;
  });
  return sum[0];
}

inline double similarity(const float* a, const float* b, int n) noexcept {
  double sum[3];  // ab, aa, bb
  sum_columns(n, sum, [&](std::size_t i, std::size_t c, auto& part) {
    const double x = static_cast<double>(a[i]), y = static_cast<double>(b[i]);
    part[0][c] += x * y;
    part[1][c] += x * x;
    part[2][c] += y * y;
  });
  if (!(sum[1] > 0 && sum[2] > 0)) return 0;
  const double cosine = sum[0] / std::sqrt(sum[1] * sum[2]);
  return cosine > 1 ? 1 : cosine < -1 ? -1 : cosine;
}

/// The distance that `metric` names, where both lengths are known to be n.
inline double distance(Metric metric, const float* a, const float* b, int n) noexcept {
  return metric == Metric::euclidean ? std::sqrt(squared_distance(a, b, n)) : 1 - similarity(a, b, n);
}

inline bool comparable(Span<const float> a, Span<const float> b) noexcept {
  return a.size() == b.size() && !a.empty() && a.size() <= INT_MAX && a.data() != nullptr && b.data() != nullptr;
}

}  // namespace detail

/// Sum of (a[i] - b[i])^2, in double. Exactly 0 for equal inputs.
inline double squared_distance(Span<const float> a, Span<const float> b) noexcept {
  if (!detail::comparable(a, b)) return DBL_MAX;
  return detail::squared_distance(a.data(), b.data(), static_cast<int>(a.size()));
}
/// The distance that `metric` names: 0 for equal inputs; Euclidean at most 2 between unit vectors.
inline double distance(Metric metric, Span<const float> a, Span<const float> b) noexcept {
  if (!detail::comparable(a, b)) return DBL_MAX;
  return detail::distance(metric, a.data(), b.data(), static_cast<int>(a.size()));
}
/// Euclidean distance.
inline double distance(Span<const float> a, Span<const float> b) noexcept { return distance(Metric::euclidean, a, b); }

/// Cosine of the angle, -1 … 1, exactly 1 for equal inputs; 0 when one of them is the zero vector.
inline double similarity(Span<const float> a, Span<const float> b) noexcept {
  if (!detail::comparable(a, b)) return -DBL_MAX;
  return detail::similarity(a.data(), b.data(), static_cast<int>(a.size()));
}

namespace detail {

/// How many embeddings of `dim` components an array holds. Errors: invalid_argument for a dimension that no embedding
/// has, for none, and for a part of one.
inline Result<std::size_t> count_embeddings(Span<const float> e, int dim) noexcept {
  if (dim < 1 || dim > max_embedding_dim)
    return {Errc::invalid_argument, "an embedding must have 1 to 16384 components"};
  if (e.data() == nullptr || e.empty()) return {Errc::invalid_argument, "there are no embeddings"};
  if (e.size() % static_cast<std::size_t>(dim) != 0)
    return {Errc::invalid_argument,
            "the array does not hold whole embeddings: its length is no multiple of their dimension"};
  return e.size() / static_cast<std::size_t>(dim);
}

/// The largest of magnitude_bits(), in columns as sums are, of which compilers take several at once.
inline std::uint32_t largest_bits(const float* a, std::size_t n) noexcept {
  std::uint32_t most[exact_columns] = {};
  const std::size_t whole = n / exact_columns * exact_columns;
  for (std::size_t i = 0; i < whole; i += exact_columns)
    for (std::size_t c = 0; c < exact_columns; ++c) {
      const std::uint32_t bits = magnitude_bits(a[i + c]);
      most[c] = most[c] < bits ? bits : most[c];
    }
  std::uint32_t all = 0;
  for (const std::uint32_t bits : most) all = all < bits ? bits : all;
  for (std::size_t i = whole; i < n; ++i) all = all < magnitude_bits(a[i]) ? magnitude_bits(a[i]) : all;
  return all;
}

/// Whether embeddings of `dim` components are ones that can be compared: finite, none so large that a square overflows,
/// and not zero, which is as near to any other zero as a face to itself. Below 2^-126 arithmetic takes a component for
/// zero.
inline Status check_embeddings(Span<const float> embeddings, int dim) noexcept {
  FACENET_TRY(count_embeddings(embeddings, dim).status());
  const auto size = static_cast<std::size_t>(dim);
  for (const float* e = embeddings.begin(); e != embeddings.end(); e += size) {
    const std::uint32_t most = largest_bits(e, size);
    if (most > magnitude_bits(1e15f))
      return {Errc::invalid_argument, "an embedding has a component that is not a number or is over 1e15"};
    if (most < magnitude_bits(FLT_MIN))
      return {Errc::invalid_argument, "an embedding is zero, which is nobody's face: look at what made it"};
  }
  return {};
}

}  // namespace detail

FACENET_END

#include "facenet/base/macros_pop.inc"
