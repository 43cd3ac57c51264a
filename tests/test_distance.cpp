// Distances against sums in long double, and what must hold exactly.
#include "recognition.hpp"

#include "facenet/distance.hpp"

using namespace facenet;

namespace {

struct Sums {
  long double ab = 0, aa = 0, bb = 0, square = 0;
};
Sums sums(const std::vector<float>& v, int n) {
  Sums s;
  for (int i = 0; i < n; ++i) {
    const long double a = v[static_cast<std::size_t>(i)], b = v[static_cast<std::size_t>(n + i)];
    s.ab += a * b, s.aa += a * a, s.bb += b * b, s.square += (a - b) * (a - b);
  }
  return s;
}

}  // namespace

TEST_CASE("distances of every length are those of long double") {
  for (int n = 1; n <= 70; ++n) {
    const auto v = recognition::faces(2, n, 2, 1, static_cast<unsigned>(n));
    const float *a = v.data(), *b = a + n;
    const Sums s = sums(v, n);
    CAPTURE(n);
    // n products and sums in double, each off by 2^-53 of sums of positive terms; a root or quotient adds a few more.
    const double bound = (n + 8) * 0x1p-53;
    CHECK(std::fabs(squared_distance(a, b, n) - static_cast<double>(s.square)) <= bound * static_cast<double>(s.square));
    CHECK(std::fabs(distance(a, b, n) - std::sqrt(static_cast<double>(s.square))) <= bound * std::sqrt(static_cast<double>(s.square)));
    // The cosine's terms have both signs: its error is relative to 1 (Cauchy and Schwarz).
    CHECK(std::fabs(similarity(a, b, n) - static_cast<double>(s.ab / std::sqrt(s.aa * s.bb))) <= 2 * bound);
    CHECK(distance(Metric::euclidean, a, b, n) == distance(a, b, n));
    CHECK(distance(Metric::cosine, a, b, n) == 1 - similarity(a, b, n));
  }
}

TEST_CASE("equal inputs have distance exactly 0, whatever their length") {
  for (int n = 1; n <= 600; n += 7) {
    const auto v = recognition::faces(1, n, 1, 1, static_cast<unsigned>(n));
    CHECK(squared_distance(v.data(), v.data(), n) == 0);
    CHECK(distance(Metric::euclidean, v.data(), v.data(), n) == 0);
    CHECK(distance(Metric::cosine, v.data(), v.data(), n) == 0);
  }
}

TEST_CASE("a cosine is never beyond 1, and that of a zero vector is 0") {
  for (unsigned seed = 0; seed < 200; ++seed) {
    auto v = recognition::faces(2, 5, 1, 0, seed);
    for (std::size_t i = 0; i < 5; ++i) v[5 + i] = 3 * v[i];
    CHECK(similarity(v.data(), v.data() + 5, 5) <= 1);
    for (std::size_t i = 0; i < 5; ++i) v[5 + i] = -v[5 + i];
    CHECK(similarity(v.data(), v.data() + 5, 5) >= -1);
  }
  const float zero[4] = {}, one[4] = {1, 0, 0, 0};
  CHECK(similarity(zero, one, 4) == 0);
  CHECK(distance(Metric::cosine, zero, zero, 4) == 1);
}

TEST_CASE("embeddings that cannot be compared are refused") {
  float e[6] = {1, 2, 3, 4, 5, 6};
  CHECK(detail::check_embeddings(e, 2, 3).ok());
  for (float bad : {NAN, HUGE_VALF, -HUGE_VALF, 1.1e15f, -1.1e15f}) {
    e[5] = bad;
    CHECK(detail::check_embeddings(e, 2, 3).code() == Errc::invalid_argument);
    CHECK(detail::check_embeddings(e, 1, 3).ok());
  }
  CHECK(detail::check_embeddings(nullptr, 1, 3).code() == Errc::invalid_argument);
  CHECK(detail::check_embeddings(e, 1, 0).code() == Errc::invalid_argument);
  CHECK(detail::check_embeddings(e, 1, max_embedding_dim + 1).code() == Errc::invalid_argument);
}
