// Distances against sums in long double, and what must hold exactly.
#include "recognition.hpp"

#include <array>

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
    const Span<const float> a(v.data(), n), b(v.data() + n, n);
    const Sums s = sums(v, n);
    CAPTURE(n);
    // n products and sums in double, each off by 2^-53 of sums of positive terms; a root or quotient adds a few more.
    const double bound = (n + 8) * 0x1p-53;
    CHECK(std::fabs(squared_distance(a, b) - static_cast<double>(s.square)) <= bound * static_cast<double>(s.square));
    CHECK(std::fabs(distance(a, b) - std::sqrt(static_cast<double>(s.square))) <=
          bound * std::sqrt(static_cast<double>(s.square)));
    // The cosine's terms have both signs: its error is relative to 1 (Cauchy and Schwarz).
    CHECK(std::fabs(similarity(a, b) - static_cast<double>(s.ab / std::sqrt(s.aa * s.bb))) <= 2 * bound);
    CHECK(distance(Metric::euclidean, a, b) == distance(a, b));
    CHECK(distance(Metric::cosine, a, b) == 1 - similarity(a, b));
  }
}

TEST_CASE("equal inputs have distance exactly 0, whatever their length") {
  for (int n = 1; n <= 600; n += 7) {
    const auto v = recognition::faces(1, n, 1, 1, static_cast<unsigned>(n));
    CHECK(squared_distance(v, v) == 0);
    CHECK(distance(Metric::euclidean, v, v) == 0);
    CHECK(distance(Metric::cosine, v, v) == 0);
  }
}

TEST_CASE("a cosine is never beyond 1, and that of a zero vector is 0") {
  for (unsigned seed = 0; seed < 200; ++seed) {
    auto v = recognition::faces(2, 5, 1, 0, seed);
    for (std::size_t i = 0; i < 5; ++i) v[5 + i] = 3 * v[i];
    CHECK(similarity({v.data(), 5}, {v.data() + 5, 5}) <= 1);
    for (std::size_t i = 0; i < 5; ++i) v[5 + i] = -v[5 + i];
    CHECK(similarity({v.data(), 5}, {v.data() + 5, 5}) >= -1);
  }
  const float zero[4] = {}, one[4] = {1, 0, 0, 0};
  CHECK(similarity(zero, one) == 0);
  CHECK(distance(Metric::cosine, zero, zero) == 1);
}

TEST_CASE("arrays of different lengths, or empty ones, are beyond every threshold") {
  const std::vector<float> v = {3, 4, 5};
  const std::array<float, 3> same = {3, 4, 5};
  const float room[4] = {3, 4, 5, 0};
  CHECK(distance(v, same) == 0);
  CHECK(distance(v, {room, 3}) == 0);
  const Span<const float> none, null(nullptr, 3);
  const Span<const float> wrong[] = {room, {v.data(), 2}, none, null};
  for (const Span<const float> other : wrong)
    for (const bool first : {false, true}) {
      const Span<const float> a = first ? other : Span<const float>(v), b = first ? Span<const float>(v) : other;
      CHECK(squared_distance(a, b) == DBL_MAX);
      CHECK(distance(a, b) == DBL_MAX);
      CHECK(distance(Metric::cosine, a, b) == DBL_MAX);
      CHECK(similarity(a, b) == -DBL_MAX);
    }
  CHECK(distance(none, none) == DBL_MAX);  // nothing is not the same as nothing
  CHECK(similarity(null, null) == -DBL_MAX);
}

TEST_CASE("embeddings that cannot be compared are refused") {
  float e[6] = {1, 2, 3, 4, 5, 6};
  CHECK(detail::check_embeddings(e, 3).ok());
  for (float bad : {NAN, -NAN, HUGE_VALF, -HUGE_VALF, 1.1e15f, -1.1e15f}) {
    e[5] = bad;
    CHECK(detail::check_embeddings(e, 3).code() == Errc::invalid_argument);
    CHECK(detail::check_embeddings({e, 3}, 3).ok());
  }
  for (float zero : {0.0f, -0.0f, 1e-39f}) {
    const float none[6] = {1, 0, 0, zero, -zero, 0};
    CHECK(detail::check_embeddings({none, 3}, 3).ok());
    CHECK(detail::check_embeddings(none, 3).code() == Errc::invalid_argument);
  }
  CHECK(detail::check_embeddings({nullptr, 3}, 3).code() == Errc::invalid_argument);
  CHECK(detail::check_embeddings({}, 3).code() == Errc::invalid_argument);
  CHECK(detail::check_embeddings(e, 4).code() == Errc::invalid_argument);  // one and a half
  CHECK(detail::check_embeddings({e, 5}, 3).code() == Errc::invalid_argument);
  CHECK(detail::check_embeddings(e, 0).code() == Errc::invalid_argument);
  CHECK(detail::check_embeddings(e, max_embedding_dim + 1).code() == Errc::invalid_argument);
}
