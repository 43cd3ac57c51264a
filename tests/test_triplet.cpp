// Triplet loss, gradient and mining against definitions written out in double. Against PyTorch's autograd and
// pytorch-metric-learning: tests/python/test_triplet.py.
#include "failing_malloc.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <random>
#include <vector>

#include "facenet/triplet.hpp"

using namespace facenet;

namespace {

struct Batch {
  std::vector<float> values;
  std::vector<int> labels;
  int dim;
  EmbeddingBatch view() const { return {values, labels, dim}; }
};

// Unit vectors, `each` of every person, persons mixed; the last person has one.
Batch batch(int people, int each, int dim, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  Batch b{{}, {}, dim};
  for (int i = 0; i < people * each; ++i) b.labels.push_back(i % people * 10 - 20);
  b.labels.push_back(999);
  for (std::size_t i = 0; i < b.labels.size(); ++i) {
    std::vector<double> row(static_cast<std::size_t>(dim));
    double length = 0;
    for (double& x : row) {
      x = normal(random);
      length += x * x;
    }
    for (double x : row) b.values.push_back(static_cast<float>(x / std::sqrt(length)));
  }
  return b;
}

double exact_distance(const Batch& b, const std::vector<double>& values, int i, int j) {
  double sum = 0;
  for (int k = 0; k < b.dim; ++k) {
    const double d = values[static_cast<std::size_t>(i * b.dim + k)] - values[static_cast<std::size_t>(j * b.dim + k)];
    sum += d * d;
  }
  return sum;
}

double exact_loss(const Batch& b, const std::vector<double>& values, Span<const Triplet> triplets, double margin,
                  Reduction reduction) {
  double sum = 0, active = 0;
  for (const Triplet& t : triplets) {
    const double x =
        exact_distance(b, values, t.anchor, t.positive) - exact_distance(b, values, t.anchor, t.negative) + margin;
    if (x > 0) sum += x, ++active;
  }
  if (reduction == Reduction::sum) return sum;
  const double terms = reduction == Reduction::mean ? static_cast<double>(triplets.size()) : active;
  return terms > 0 ? sum / terms : 0;
}

std::vector<double> widened(const Batch& b) { return {b.values.begin(), b.values.end()}; }

constexpr double eps = 0x1p-23;

}  // namespace

TEST_CASE("squared distances: every tail of dimensions and rows") {
  for (int dim : {1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 128, 130}) {
    const Batch b = batch(3, 3, dim, static_cast<unsigned>(dim));
    const auto d = squared_distances(b.view());
    REQUIRE(d.ok());
    const int n = b.view().count();
    for (int i = 0; i < n; ++i)
      for (int j = 0; j < n; ++j) {
        const float value = (*d)[static_cast<std::size_t>(i * n + j)];
        const double want = exact_distance(b, widened(b), i, j);
        // A lane adds dim / width squares, each of a difference rounded once.
        CHECK(std::abs(static_cast<double>(value) - want) <= (dim / simd::width + 3) * eps * want);
        CHECK(value == (*d)[static_cast<std::size_t>(j * n + i)]);
        if (i == j) CHECK(value == 0.0f);
      }
  }
}

TEST_CASE("mining selects what its definition says") {
  const Batch b = batch(6, 4, 12, 5);
  const auto d = squared_distances(b.view());
  REQUIRE(d.ok());
  const int n = b.view().count();
  const auto at = [&](int i, int j) { return (*d)[static_cast<std::size_t>(i * n + j)]; };
  const float margin = 0.3f;
  for (Mining mining : {Mining::batch_all, Mining::semi_hard, Mining::batch_hard}) {
    std::vector<Triplet> want;
    for (int a = 0; a < n; ++a) {
      Triplet hardest{a, -1, -1};
      for (int p = 0; p < n; ++p)
        for (int q = 0; q < n; ++q) {
          const auto label = [&](int i) { return b.labels[static_cast<std::size_t>(i)]; };
          if (p == a || label(p) != label(a) || label(q) == label(a)) continue;
          const float gap = at(a, q) - at(a, p);
          if (mining == Mining::batch_hard) {
            if (hardest.positive < 0 || at(a, p) > at(a, hardest.positive)) hardest.positive = p;
            if (hardest.negative < 0 || at(a, q) < at(a, hardest.negative)) hardest.negative = q;
          } else if (gap <= margin && (mining == Mining::batch_all || gap > 0)) {
            want.push_back({a, p, q});
          }
        }
      if (hardest.positive >= 0) want.push_back(hardest);
    }
    const auto found = mine(b.view(), d->span(), mining, margin);
    REQUIRE(found.ok());
    CHECK(!want.empty());
    CHECK(found->size() == want.size());
    CHECK(std::equal(found->begin(), found->end(), want.begin(), want.end()));
    for (const Triplet& t : *found) CHECK(b.labels[static_cast<std::size_t>(t.anchor)] != 999);  // nobody to be near
  }
}

TEST_CASE("exactly at the limits: equal distances, and a gap of just the margin") {
  // Anchor 0 and positive 1 at 0 and 1/4 (p = 1/16); negatives at squared distances 1/16 and 1/4 from the anchor.
  const std::vector<float> values = {0.0f, 0.25f, -0.25f, -0.5f};
  const std::vector<int> labels = {1, 1, 2, 3};
  const EmbeddingBatch b{values, labels, 1};
  const auto d = squared_distances(b);
  REQUIRE(d.ok());
  const auto of_first = [&](Mining mining) {
    const auto found = mine(b, d->span(), mining, 0.1875f);
    REQUIRE(found.ok());
    std::vector<int> negatives;
    for (const Triplet& t : *found)
      if (t.anchor == 0) negatives.push_back(t.negative);
    return negatives;
  };
  CHECK(of_first(Mining::batch_all) == std::vector<int>{2, 3});
  CHECK(of_first(Mining::semi_hard) == std::vector<int>{3});
  const Triplet edge{0, 1, 3};  // 1/16 - 1/4 + 3/16 = 0
  std::vector<float> gradient(4, 1.0f);
  const auto loss = triplet_loss(b, d->span(), {&edge, 1}, 0.1875f, Reduction::sum, gradient);
  REQUIRE(loss.ok());
  CHECK(loss->value == 0);
  CHECK(loss->active == 0);
  CHECK(std::all_of(gradient.begin(), gradient.end(), [](float g) { return g == 0.0f; }));
}

TEST_CASE("a batch whose pairs no size_t counts") {
  static_assert(detail::pairs_fit<std::uint32_t>(65535) && !detail::pairs_fit<std::uint32_t>(65536), "2^32 pairs");
  static_assert(detail::pairs_fit<std::uint64_t>(std::numeric_limits<int>::max()), "2^62 pairs");
  if (sizeof(std::size_t) > 4) return;
  const std::vector<float> values(65537);
  const std::vector<int> labels(65537);
  const EmbeddingBatch b{values, labels, 1};
  const std::vector<float> wrapped(131073);  // 65537 squared, modulo 2^32
  CHECK(squared_distances(b).status().code() == Errc::out_of_memory);
  const Span<const float> d{wrapped.data(), wrapped.size()};
  CHECK(mine(b, d, Mining::batch_all, 0.2f).status().code() == Errc::out_of_memory);
  CHECK(triplet_loss(b, d, {}, 0.2f, Reduction::sum, {}).status().code() == Errc::out_of_memory);
}

TEST_CASE("loss and gradient: the definition and its finite differences") {
  for (int dim : {3, 16, 37}) {
    Batch b = batch(5, 3, dim, 40 + static_cast<unsigned>(dim));
    const auto d = squared_distances(b.view());
    REQUIRE(d.ok());
    const float margin = 0.4f;
    for (Mining mining : {Mining::batch_all, Mining::batch_hard, Mining::semi_hard})
      for (Reduction reduction : {Reduction::sum, Reduction::mean, Reduction::mean_active}) {
        const auto triplets = mine(b.view(), d->span(), mining, margin);
        REQUIRE(triplets.ok());
        REQUIRE(triplets->size() > 0);
        std::vector<float> gradient(b.values.size(), 7.0f);
        const auto loss = triplet_loss(b.view(), d->span(), triplets->span(), margin, reduction, gradient);
        REQUIRE(loss.ok());
        std::vector<double> x = widened(b);
        const double m = static_cast<double>(margin);
        const double want = exact_loss(b, x, triplets->span(), m, reduction);
        // Each distance is at most 4, off by (dim / width + 3) eps of it.
        const double share = reduction == Reduction::sum ? static_cast<double>(triplets->size()) : 1.0;
        CHECK(std::abs(loss->value - want) <= share * 8 * (dim / simd::width + 3) * eps);
        const auto without = triplet_loss(b.view(), d->span(), triplets->span(), margin, reduction, {});
        CHECK(without->value == loss->value);
        // The loss is piecewise quadratic: a central difference is exact but for rounding, unless a hinge lies within
        // h.
        const double h = 1e-6;
        double worst = 0, largest = 0;
        for (std::size_t k = 0; k < x.size(); ++k) {
          const double kept = x[k];
          x[k] = kept + h;
          const double up = exact_loss(b, x, triplets->span(), m, Reduction::sum);
          x[k] = kept - h;
          const double down = exact_loss(b, x, triplets->span(), m, Reduction::sum);
          x[k] = kept;
          const double terms = reduction == Reduction::sum    ? 1.0
                               : reduction == Reduction::mean ? static_cast<double>(triplets->size())
                                                              : static_cast<double>(loss->active);
          worst = std::max(worst, std::abs((up - down) / (2 * h) / terms - static_cast<double>(gradient[k])));
          largest = std::max(largest, std::abs(static_cast<double>(gradient[k])));
        }
        CHECK(largest > 0.01);
        // Rounding of a sum of some 500 losses of about 1 is 1e-13, over 2h: 5e-8 a unit of the sum; and the float
        // gradient's own.
        CHECK(worst <= 1e-6 * (reduction == Reduction::sum ? static_cast<double>(triplets->size()) : 1.0));
      }
  }
}

TEST_CASE("collapsed embeddings: the loss is the margin, and nothing pulls them apart") {
  Batch b = batch(4, 3, 16, 9);
  for (std::size_t i = 0; i < b.values.size(); ++i) b.values[i] = b.values[i % 16];
  const auto d = squared_distances(b.view());
  REQUIRE(d.ok());
  const auto triplets = mine(b.view(), d->span(), Mining::batch_hard, 0.2f);
  REQUIRE(triplets.ok());
  std::vector<float> gradient(b.values.size(), 1.0f);
  const auto loss = triplet_loss(b.view(), d->span(), triplets->span(), 0.2f, Reduction::mean, gradient);
  REQUIRE(loss.ok());
  CHECK(loss->value == doctest::Approx(0.2f).epsilon(1e-12));
  CHECK(std::all_of(gradient.begin(), gradient.end(), [](float g) { return g == 0.0f; }));
}

TEST_CASE("nothing to mine, nothing to lose") {
  for (int people : {0, 1}) {  // one face; one person with four
    Batch b = batch(people, 4, 8, 3);
    b.labels.back() = b.labels.front();
    const auto d = squared_distances(b.view());
    REQUIRE(d.ok());
    const auto triplets = mine(b.view(), d->span(), Mining::batch_all, 0.2f);
    REQUIRE(triplets.ok());
    CHECK(triplets->empty());
    std::vector<float> gradient(b.values.size(), 1.0f);
    for (Reduction reduction : {Reduction::sum, Reduction::mean, Reduction::mean_active}) {
      const auto loss = triplet_loss(b.view(), d->span(), triplets->span(), 0.2f, reduction, gradient);
      REQUIRE(loss.ok());
      CHECK(loss->value == 0);
      CHECK(loss->active == 0);
      CHECK(gradient[0] == 0.0f);
    }
  }
}

TEST_CASE("what is wrong is an error") {
  Batch b = batch(2, 2, 4, 1);
  const auto d = squared_distances(b.view());
  REQUIRE(d.ok());
  EmbeddingBatch wrong[7];
  std::fill_n(wrong, 7, b.view());
  wrong[0].embeddings = {}, wrong[1].labels = {nullptr, 4}, wrong[2].labels = {}, wrong[3].dim = 0;
  wrong[4].dim = 3, wrong[5].labels = {b.labels.data(), 3}, wrong[6].embeddings = {b.values.data(), 12};
  for (const EmbeddingBatch& w : wrong) {
    CHECK(squared_distances(w).status().code() == Errc::invalid_argument);
    CHECK(mine(w, d->span(), Mining::batch_all, 0.2f).status().code() == Errc::invalid_argument);
    CHECK(triplet_loss(w, d->span(), {}, 0.2f, Reduction::sum, {}).status().code() == Errc::invalid_argument);
  }
  const Span<const float> short_by_one = Span<const float>(d->span()).subspan(0, d->size() - 1);
  CHECK(mine(b.view(), short_by_one, Mining::batch_all, 0.2f).status().code() == Errc::invalid_argument);
  CHECK(triplet_loss(b.view(), short_by_one, {}, 0.2f, Reduction::sum, {}).status().code() == Errc::invalid_argument);
  for (const Triplet& t : {Triplet{-1, 0, 1}, Triplet{0, 5, 1}, Triplet{0, 2, 5}})
    CHECK(triplet_loss(b.view(), d->span(), {&t, 1}, 0.2f, Reduction::sum, {}).status().code() ==
          Errc::invalid_argument);
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), 1e30f}) {
    Batch broken = b;
    broken.values[5] = bad;
    CHECK(squared_distances(broken.view()).status().code() == Errc::invalid_argument);
  }
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    CHECK(mine(b.view(), d->span(), Mining::batch_all, bad).status().code() == Errc::invalid_argument);
    CHECK(triplet_loss(b.view(), d->span(), {}, bad, Reduction::sum, {}).status().code() == Errc::invalid_argument);
  }
  std::vector<float> gradient(b.values.size());
  const Span<float> narrow(gradient.data(), gradient.size() - 1);
  CHECK(triplet_loss(b.view(), d->span(), {}, 0.2f, Reduction::sum, narrow).status().code() == Errc::invalid_argument);
  failing_malloc::allocations_left = 0;
  const Errc codes[] = {squared_distances(b.view()).status().code(),
                        mine(b.view(), d->span(), Mining::batch_hard, 0.2f).status().code(),
                        triplet_loss(b.view(), d->span(), {}, 0.2f, Reduction::sum, gradient).status().code()};
  failing_malloc::allocations_left = -1;
  for (Errc code : codes) CHECK(code == Errc::out_of_memory);
}
