// What is not finite is refused where the compiler may take for granted that everything is: built with -ffast-math.
// Such numbers come from bits here, since this unit's own constants and comparisons mean nothing either.
#include <doctest/doctest.h>

#include <vector>

#include "facenet/base/finite.hpp"
#include "facenet/base/rounding.hpp"
#include "facenet/cluster.hpp"
#include "facenet/evaluate.hpp"
#include "facenet/gallery.hpp"
#include "facenet/triplet.hpp"

using namespace facenet;

namespace {

float of_bits(std::uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
double of_bits64(std::uint64_t bits) {
  double x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
constexpr std::uint32_t bad_bits[] = {0x7fc00000u, 0xffc00000u, 0x7f800001u, 0xffffffffu, 0x7f800000u, 0xff800000u};

}  // namespace

TEST_CASE("coordinates become whole pixels, whatever they are") {
  for (std::uint32_t bits : bad_bits) {
    const bool nan = (bits & 0x7fffffu) != 0, negative = bits >> 31 != 0;
    const double y = of_bits64(std::uint64_t{bits & 0x80000000u} << 32 | 0x7ff0000000000000u |
                               std::uint64_t{bits & 0x7fffffu} << 29);
    CHECK(detail::whole_pixels(y) == (nan ? 0 : negative ? -(1 << 24) : 1 << 24));
  }
  CHECK(detail::whole_pixels(-3.9) == -3);
  CHECK(detail::whole_pixels(159.999) == 159);
  CHECK(detail::whole_pixels(1e300) == 1 << 24);
}

TEST_CASE("numbers are told apart by their bits") {
#if defined(__GNUC__) && !defined(__FAST_MATH__)
  FAIL("this test is to be compiled with -ffast-math");
#endif
  for (std::uint32_t bits : bad_bits) {
    CAPTURE(bits);
    const float x = of_bits(bits);
    const double y = of_bits64(std::uint64_t{bits & 0x80000000u} << 32 | 0x7ff0000000000000u |
                               std::uint64_t{bits & 0x7fffffu} << 29);
    const bool nan = (bits & 0x7fffffu) != 0;
    CHECK_FALSE(detail::is_finite(x));
    CHECK_FALSE(detail::is_finite(y));
    CHECK(detail::is_nan(x) == nan);
    CHECK(detail::is_nan(y) == nan);
    CHECK_FALSE(detail::is_within(x, FLT_MAX));
  }
  for (float x : {0.0f, -0.0f, 1.0f, -2.5f, FLT_MAX, -FLT_MAX, of_bits(1)}) {
    const double y = static_cast<double>(x);
    CHECK(detail::is_finite(x));
    CHECK(detail::is_finite(y));
    CHECK_FALSE(detail::is_nan(x));
    CHECK_FALSE(detail::is_nan(y));
    CHECK(detail::is_within(x, 2.5f) == (x < 3 && x > -3));
  }
}

TEST_CASE("galleries, clusters, rates and triplets refuse what is not finite, and embeddings that are zero") {
  constexpr int dim = 64;
  std::vector<float> e(2 * dim, 0.0f);
  e[0] = e[dim] = 1;
  std::vector<float> out(dim);
  Match match[2];
  int found, founds[2], labels[2];
  const int persons[2] = {0, 1};
  for (TemplateStorage storage : {TemplateStorage::f32, TemplateStorage::f16}) {
    GalleryOptions options;
    options.storage = storage;
    options.threads = 1;
    auto g = Gallery::make(dim, options);
    REQUIRE(g.ok());
    REQUIRE(g->add(1, 1, {e.data(), dim}).ok());
    REQUIRE(g->search({e.data(), dim}, 1, match, found).ok());
    for (std::uint32_t bits :
         {bad_bits[0], bad_bits[1], bad_bits[2], bad_bits[3], bad_bits[4], bad_bits[5], 0u, 0x80000000u}) {
      CAPTURE(bits);
      std::vector<float> bad = e;
      bad[dim] = of_bits(bits);
      CHECK(g->add(2, 1, {&bad[dim], dim}).code() == Errc::invalid_argument);
      CHECK(g->update(1, {&bad[dim], dim}).code() == Errc::invalid_argument);
      CHECK(g->search({&bad[dim], dim}, 1, match, found).code() == Errc::invalid_argument);
      CHECK(g->identify(bad, 1, 1, match, founds).code() == Errc::invalid_argument);
      CHECK(dbscan(bad, dim, {}, 1, labels).code() == Errc::invalid_argument);
      CHECK(chinese_whispers(bad, dim, {}, 1, 1, labels).code() == Errc::invalid_argument);
      CHECK(average_link(bad, dim, {}, labels).code() == Errc::invalid_argument);
      if ((bits & 0x7fffffffu) != 0)
        CHECK(squared_distances({bad, persons, dim}).status().code() == Errc::invalid_argument);
    }
  }

  const std::uint8_t same[4] = {1, 0, 1, 0};
  const int fold[4] = {0, 0, 1, 1};
  for (std::uint64_t bits : {0x7ff8000000000000u, 0xfff8000000000000u, 0x7ff0000000000000u, 0xfff0000000000000u}) {
    CAPTURE(bits);
    std::vector<double> d = {0.1, 0.9, 0.2, 0.8};
    const double bad = of_bits64(bits);
    CHECK(choose_threshold(d, bad).status().code() == Errc::invalid_argument);
    ThresholdGrid grid;
    grid.step = bad;
    CHECK(fold_accuracies(d, same, fold, 2, grid).status().code() == Errc::invalid_argument);
    grid = {};
    grid.first = bad;
    CHECK(fold_accuracies(d, same, fold, 2, grid).status().code() == Errc::invalid_argument);
    auto rates = Comparisons::make(d, same);
    REQUIRE(rates.ok());
    CHECK(rates->bootstrap(bad, 10, 1).status().code() == Errc::invalid_argument);
    d[3] = bad;
    CHECK(Comparisons::make(d, same).status().code() == Errc::invalid_argument);
    CHECK(choose_threshold(d, 0.9).status().code() == Errc::invalid_argument);
    CHECK(fold_accuracies(d, same, fold, 2).ok() == ((bits & 0xfffffffffffffu) == 0));  // infinite is far away
  }
}

TEST_CASE("a threshold, rate or margin that is not a number is refused, or accepts nobody") {
  const std::vector<float> e = {1, 0, 0, 1};
  const int persons[2] = {0, 0};
  std::vector<double> d = {0.1, 0.9, 0.2, 0.8};
  const std::uint8_t same[4] = {1, 0, 1, 0};
  GalleryOptions one;
  one.threads = 1;
  auto g = Gallery::make(2, one);
  REQUIRE(g.ok());
  REQUIRE(g->add(1, 1, {e.data(), 2}).ok());
  auto rates = Comparisons::make(d, same);
  REQUIRE(rates.ok());
  auto squared = squared_distances({e, persons, 2});
  REQUIRE(squared.ok());
  Match match[1];
  int found = 7, labels[2] = {7, 7};
  for (std::uint64_t bits : {0x7ff8000000000000u, 0xfff8000000000000u, 0x7ff0000000000001u, 0xffffffffffffffffu}) {
    CAPTURE(bits);
    const double nan = of_bits64(bits);
    CHECK(g->identify({e.data(), 2}, 1, nan, match, found).code() == Errc::invalid_argument);
    ClusterOptions options;
    options.threads = 1;
    options.threshold = nan;
    CHECK(dbscan(e, 2, options, 1, labels).code() == Errc::invalid_argument);
    CHECK(chinese_whispers(e, 2, options, 1, 1, labels).code() == Errc::invalid_argument);
    CHECK(average_link(e, 2, options, labels).code() == Errc::invalid_argument);
    CHECK(choose_threshold(d, nan).status().code() == Errc::invalid_argument);
    CHECK(rates->bootstrap(nan, 10, 1).status().code() == Errc::invalid_argument);
    const ErrorRates at = rates->at(nan);
    CHECK((at.false_accepts == 0 && at.false_rejects == 2));
    const TarAtFar tar = rates->tar_at(nan);
    CHECK((tar.tar == 1 && tar.actual_far == 0 && !tar.measurable));  // as for a rate of 0
    CHECK(impostors_needed(nan) == UINT64_MAX);
  }
  CHECK((found == 7 && labels[0] == 7 && labels[1] == 7));
  for (std::uint32_t bits : bad_bits) {
    CAPTURE(bits);
    const float margin = of_bits(bits);
    CHECK(mine({e, persons, 2}, squared->span(), Mining::batch_all, margin).status().code() == Errc::invalid_argument);
    CHECK(triplet_loss({e, persons, 2}, squared->span(), {}, margin, Reduction::sum, {}).status().code() ==
          Errc::invalid_argument);
  }
}
