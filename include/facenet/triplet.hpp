// The triplet loss of FaceNet, its gradient, and the choice of triplets, for those who train elsewhere.
// Loss: Schroff et al., "FaceNet", 2015, equation 2. Batch-all and batch-hard: Hermans et al., "In Defense of the
// Triplet Loss", 2017. What each choice selects is what pytorch-metric-learning's miners select;
// tests/python/test_triplet.py.
#pragma once
#include "facenet/base/macros_push.inc"

#include <climits>
#include <cmath>

#include "facenet/base/finite.hpp"
#include "facenet/base/simd.hpp"

FACENET_BEGIN

/// embeddings[count][dim], and whose face each is. Owns nothing.
struct EmbeddingBatch {
  Span<const float> embeddings;
  Span<const int> labels;
  int dim;
  int count() const noexcept { return static_cast<int>(labels.size()); }
};

/// Row numbers in a batch: `anchor` and `positive` are of one person, `negative` is of another.
struct Triplet {
  int anchor, positive, negative;
  bool operator==(const Triplet& o) const noexcept {
    return anchor == o.anchor && positive == o.positive && negative == o.negative;
  }
};

/// Which triplets of a batch, with squared distances p = |anchor - positive|^2 and n = |anchor - negative|^2.
enum class Mining : std::uint8_t {
  batch_all,   // n - p <= margin: all that have a loss, or just none (TripletMarginMiner "all")
  batch_hard,  // each anchor with its farthest positive and nearest negative (BatchHardMiner)
  semi_hard,   // 0 < n - p <= margin: right already, but not by the margin (TripletMarginMiner "semihard")
};

/// What is done with the losses of the triplets. mean_active: the mean of those above 0.
enum class Reduction : std::uint8_t { sum, mean, mean_active };

struct TripletLoss {
  double value;
  std::int64_t active;  // triplets with a loss above 0
};

namespace detail {

// Whether Size counts n x n pairs; 32 bits do not from n = 65536 on.
template <class Size>
constexpr bool pairs_fit(int n) noexcept {
  return static_cast<Size>(n) <= static_cast<Size>(-1) / static_cast<Size>(n);
}
inline Status check(const EmbeddingBatch& b) noexcept {
  if (b.embeddings.data() == nullptr || b.labels.data() == nullptr || b.labels.empty() || b.dim < 1)
    return {Errc::invalid_argument, "a batch needs embeddings and labels, at least one, of at least one dimension"};
  const auto dim = static_cast<std::size_t>(b.dim);
  if (b.embeddings.size() % dim != 0 || b.embeddings.size() / dim != b.labels.size())
    return {Errc::invalid_argument, "a batch needs as many embeddings of its dimension as labels"};
  if (b.labels.size() > INT_MAX || !pairs_fit<std::size_t>(b.count()))
    return {Errc::out_of_memory, "the batch has too many pairs for the address space"};
  return {};
}
inline Status check(const EmbeddingBatch& b, Span<const float> distances, const float& margin) noexcept {
  FACENET_TRY(check(b));
  const auto n = static_cast<std::size_t>(b.count());
  if (distances.data() == nullptr || distances.size() != n * n)
    return {Errc::invalid_argument, "the distances are not those of this batch"};
  if (!is_finite(margin)) return {Errc::invalid_argument, "the margin must be a finite number"};
  return {};
}
inline const float* row(const EmbeddingBatch& b, int i) noexcept {
  return b.embeddings.data() + std::int64_t{i} * b.dim;
}

// out[r] = |a - b_r|^2 for `Rows` rows b_r, dim floats apart. Four rows hide the FMA's latency.
template <std::size_t Rows>
void squared_distances(const float* a, const float* b, int dim, float* out) noexcept {
  simd::vf sums[Rows];
  for (simd::vf& sum : sums) sum = simd::zero();
  const auto add = [&](simd::vf x, std::size_t r, simd::vf y) {
    const simd::vf d = simd::sub(x, y);
    sums[r] = simd::fma(d, d, sums[r]);
  };
  int k = 0;
  for (; k + simd::width <= dim; k += simd::width)
    for (std::size_t r = 0; r < Rows; ++r)
      add(simd::load(a + k), r, simd::load(b + r * static_cast<std::size_t>(dim) + k));
  if (k < dim)
    for (std::size_t r = 0; r < Rows; ++r)
      add(simd::load_partial(a + k, dim - k), r,
          simd::load_partial(b + r * static_cast<std::size_t>(dim) + k, dim - k));
  for (std::size_t r = 0; r < Rows; ++r) {
    float lanes[simd::width];
    simd::store(lanes, sums[r]);
    double sum = 0;
    for (float lane : lanes) sum += static_cast<double>(lane);
    out[r] = static_cast<float>(sum);
  }
}

// to += factor * (a - b)
inline void add_difference(const float* a, const float* b, float factor, int dim, float* to) noexcept {
  const simd::vf f = simd::set1(factor);
  int k = 0;
  for (; k + simd::width <= dim; k += simd::width)
    simd::store(to + k, simd::fma(f, simd::sub(simd::load(a + k), simd::load(b + k)), simd::load(to + k)));
  for (; k < dim; ++k) to[k] += factor * (a[k] - b[k]);
}

/// Calls visit(triplet) in the order of anchor, positive, negative.
template <class Visit>
void for_each_triplet(const EmbeddingBatch& b, const float* distances, Mining mining, float margin,
                      Visit&& visit) noexcept {
  const int count = b.count();
  for (int a = 0; a < count; ++a) {
    const float* d = distances + std::int64_t{a} * count;
    const auto positive = [&](int i) { return i != a && b.labels[i] == b.labels[a]; };
    const auto negative = [&](int i) { return b.labels[i] != b.labels[a]; };
    if (mining == Mining::batch_hard) {
      int farthest = -1, nearest = -1;
      for (int i = 0; i < count; ++i) {
        if (positive(i) && (farthest < 0 || d[i] > d[farthest])) farthest = i;
        if (negative(i) && (nearest < 0 || d[i] < d[nearest])) nearest = i;
      }
      if (farthest >= 0 && nearest >= 0) visit(Triplet{a, farthest, nearest});
      continue;
    }
    for (int p = 0; p < count; ++p) {
      if (!positive(p)) continue;
      for (int n = 0; n < count; ++n)
        if (negative(n) && d[n] - d[p] <= margin && (mining == Mining::batch_all || d[n] > d[p]))
          visit(Triplet{a, p, n});
    }
  }
}

}  // namespace detail

/// Squared Euclidean distances [count][count]: symmetric to the bit, 0 for equal embeddings.
/// Error of each: at most (dim / simd::width + 2) eps of its value. Errors: invalid_argument (also when an embedding is
/// not finite), out_of_memory.
inline Result<Buffer<float>> squared_distances(const EmbeddingBatch& batch) noexcept {
  FACENET_TRY(detail::check(batch));
  const int n = batch.count();
  auto distances = Buffer<float>::make(static_cast<std::size_t>(n) * static_cast<std::size_t>(n));
  if (!distances) return distances;
  float* const d = distances->data();
  for (int i = 0; i < n; ++i) {
    float* const to = d + std::int64_t{i} * n;
    const float* const a = detail::row(batch, i);
    int j = i + 1;
    for (; j + 4 <= n; j += 4) detail::squared_distances<4>(a, detail::row(batch, j), batch.dim, to + j);
    for (; j < n; ++j) detail::squared_distances<1>(a, detail::row(batch, j), batch.dim, to + j);
    for (j = i + 1; j < n; ++j) {
      if (!detail::is_finite(to[j]))
        return {Errc::invalid_argument, "an embedding is not finite, or too large to be squared"};
      d[std::int64_t{j} * n + i] = to[j];
    }
  }
  return distances;
}

/// The triplets of a batch, in the order of anchor, positive, negative. `distances`: from squared_distances.
/// `margin` matters to batch_all and semi_hard. Empty where there is none. Errors: invalid_argument (also for a margin
/// that is not finite), out_of_memory.
inline Result<Buffer<Triplet>> mine(const EmbeddingBatch& batch, Span<const float> distances, Mining mining,
                                    float margin) noexcept {
  FACENET_TRY(detail::check(batch, distances, margin));
  std::size_t count = 0;  // counted first: a batch of 1800 with 40 faces a person has up to 123 million triplets
  detail::for_each_triplet(batch, distances.data(), mining, margin, [&](Triplet) { ++count; });
  auto triplets = Buffer<Triplet>::make(count, false);
  if (!triplets) return triplets;
  Triplet* to = triplets->data();
  detail::for_each_triplet(batch, distances.data(), mining, margin, [&](Triplet t) { *to++ = t; });
  return triplets;
}

/// L = reduction over the triplets of max(0, |a - p|^2 - |a - n|^2 + margin), and, unless `gradient` is an empty span,
/// gradient[count][dim] = dL / d embeddings. A loss of exactly 0 has no gradient, as in PyTorch. Errors:
/// invalid_argument (a triplet's row is not in the batch, a margin that is not finite, a gradient that is too small),
/// out_of_memory.
inline Result<TripletLoss> triplet_loss(const EmbeddingBatch& batch, Span<const float> distances,
                                        Span<const Triplet> triplets, float margin, Reduction reduction,
                                        Span<float> gradient) noexcept {
  FACENET_TRY(detail::check(batch, distances, margin));
  if (!gradient.empty()) FACENET_TRY(detail::check_room(gradient, static_cast<std::int64_t>(batch.embeddings.size())));
  const int n = batch.count();
  const std::size_t pairs = distances.size();
  // pull[i][j]: how many active triplets bring i and j together, minus how many push them apart. Whole numbers, so the
  // gradient does not depend on the order of the triplets.
  auto pull = Buffer<std::int32_t>::make(gradient.empty() ? 0 : pairs);
  if (!pull) return pull.status();
  TripletLoss loss = {0, 0};
  for (const Triplet& t : triplets) {
    for (int i : {t.anchor, t.positive, t.negative})
      if (i < 0 || i >= n) return {Errc::invalid_argument, "a triplet names a row that is not in the batch"};
    const std::size_t from = static_cast<std::size_t>(t.anchor) * static_cast<std::size_t>(n);
    const std::size_t p = from + static_cast<std::size_t>(t.positive), q = from + static_cast<std::size_t>(t.negative);
    const double excess =
        static_cast<double>(distances[p]) - static_cast<double>(distances[q]) + static_cast<double>(margin);
    if (excess <= 0) continue;
    loss.value += excess;
    ++loss.active;
    if (gradient.empty()) continue;
    ++(*pull)[p];
    --(*pull)[q];
  }
  const double terms = reduction == Reduction::sum    ? 1.0
                       : reduction == Reduction::mean ? static_cast<double>(triplets.size())
                                                      : static_cast<double>(loss.active);
  const double scale = terms > 0 ? 1 / terms : 0;
  loss.value *= scale;
  if (gradient.empty()) return loss;
  std::memset(gradient.data(), 0, batch.embeddings.size() * sizeof(float));
  const auto at = [&](int i, int j) { return pull->data()[std::int64_t{i} * n + j]; };
  for (int i = 0; i < n; ++i)
    for (int j = 0; j < n; ++j) {
      const double both = static_cast<double>(at(i, j)) + static_cast<double>(at(j, i));
      if (both == 0) continue;
      detail::add_difference(detail::row(batch, i), detail::row(batch, j), static_cast<float>(2 * scale * both),
                             batch.dim, gradient.data() + std::int64_t{i} * batch.dim);
    }
  return loss;
}

FACENET_END

#include "facenet/base/macros_pop.inc"
