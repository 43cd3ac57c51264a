// What is decided from distances, by tables: whose a face is, which faces count, and how often a gallery names
// strangers. The units of tools/command/engine that need no engine.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <random>

#include "command/engine/decision.hpp"
#include "command/engine/face_choice.hpp"
#include "command/engine/open_set.hpp"

using namespace command;

TEST_CASE("whose a face is") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const struct {
    std::vector<double> nearest;
    double threshold, margin;
    Verdict verdict;
  } cases[] = {
      {{}, 1, 0, Verdict::unknown},
      {{0.5}, 1, 0, Verdict::known},
      {{1.0}, 1, 0, Verdict::known},
      {{1.0000001}, 1, 0, Verdict::unknown},
      {{0.5, 0.6}, 1, 0, Verdict::known},
      {{0.5, 0.6}, 1, 0.05, Verdict::known},
      {{0.5, 0.75}, 1, 0.25, Verdict::known},  // exactly the margin
      {{0.5, 0.6}, 1, 0.2, Verdict::ambiguous},
      {{0.9, 1.1}, 1, 0.3, Verdict::ambiguous},  // the runner-up alone would be unknown
      {{1.1, 1.2}, 1, 0.3, Verdict::unknown},
      {{0.5, 0.5}, 1, 0, Verdict::ambiguous},  // nothing tells them apart
      {{0.5, 0.5, 0.9}, 1, 0, Verdict::ambiguous},
      {{nan}, 1, 0, Verdict::unknown},
      {{0.5, nan}, 1, 0, Verdict::ambiguous},
      {{0.5}, nan, 0, Verdict::unknown},
      {{0.5, 0.9}, 1, nan, Verdict::ambiguous},
  };
  for (const auto& c : cases) {
    CAPTURE(c.nearest.size());
    CAPTURE(c.margin);
    CHECK(word(decide(c.nearest, {c.threshold, c.margin})) == std::string(word(c.verdict)));
  }
}

TEST_CASE("faces of one picture share no name") {
  const auto same = same_names({"A", "", "B", "A", "", "A"});
  CHECK(same == std::vector<std::vector<std::size_t>>{{3, 5}, {}, {}, {0, 5}, {}, {0, 3}});
  CHECK(same_names({}).empty());
}

TEST_CASE("which faces count") {
  const std::vector<FaceMeasures> faces = {{0.7, 9000, 0.9}, {0.99, 1000, 0.8}, {0.95, 100, 0.5}, {0.9, 99, 0.5}};
  using F = Fails;
  CHECK(failed_limits(faces, {}) == std::vector<F>(4, F::none));
  // What is no face does not make the others small.
  CHECK(failed_limits(faces, {0.9, 0.1, 0}) == std::vector<F>{F::score, F::none, F::none, F::area});
  CHECK(failed_limits(faces, {0, 0.1, 0}) == std::vector<F>{F::none, F::none, F::area, F::area});
  CHECK(failed_limits(faces, {0, 0, 0.6}) == std::vector<F>{F::none, F::none, F::quality, F::quality});
  CHECK(why(F::score, faces[0], {0.9, 0.1, 0}) == "its score 0.7 is below 0.9");
  CHECK(why(F::none, faces[0], {}).empty());
}

TEST_CASE("chances") {
  CHECK(chance_of_any(0.1, 1) == doctest::Approx(0.1));
  CHECK(chance_of_any(0.1, 2) == doctest::Approx(0.19));
  CHECK(chance_of_any(1e-12, 1e6) == doctest::Approx(1e-6));  // 1 - 1e-12 would lose four digits
  CHECK(chance_of_any(1, 5) == 1);
  CHECK(chance_of_any(0, 5) == 0);
  CHECK(chance_of_each(chance_of_any(1e-5, 1000), 1000) == doctest::Approx(1e-5));
  CHECK(needs_of(1, 0.01).persons == 300);  // as many strangers
  CHECK(needs_of(100, 0.01).persons == 300);
  CHECK(needs_of(1000, 0.01).persons == 774);  // 298,499 pairs
  CHECK(needs_of(1000, 0.01).pairs == 298499);
}

namespace {

/// Persons with one to three pictures, and a distance for each two of these.
struct Data {
  static constexpr std::size_t persons = 7;
  std::vector<int> owner;
  std::vector<std::vector<double>> apart;

  Data() {
    std::mt19937 random(5);
    for (std::size_t p = 0; p < persons; ++p) owner.insert(owner.end(), 1 + p % 3, static_cast<int>(10 * p));
    apart.assign(owner.size(), std::vector<double>(owner.size()));
    for (std::size_t i = 0; i < owner.size(); ++i)
      for (std::size_t k = 0; k < i; ++k)
        apart[i][k] = apart[k][i] = (owner[i] == owner[k] ? 0.4 : 0.7) + 1e-3 * static_cast<double>(random() % 600);
  }
  OpenSet open_set() const {
    OpenSet set(owner);
    for (std::size_t i = 0; i < owner.size(); ++i)
      for (std::size_t k = 0; k < i; ++k) set.pair(i, k, apart[i][k]);
    return set;
  }
  double to_person(std::size_t picture, int person) const {
    double least = 1e9;
    for (std::size_t k = 0; k < owner.size(); ++k)
      if (owner[k] == person && k != picture) least = std::min(least, apart[picture][k]);
    return least;
  }
  /// The rates by identifying every picture in every gallery.
  void count(double threshold, int size, double& fpir, double& fnir) const {
    double weight_of_known = 0;
    fpir = fnir = 0;
    for (std::size_t i = 0; i < owner.size(); ++i) {
      const auto own_pictures = static_cast<double>(std::count(owner.begin(), owner.end(), owner[i]));
      double strangers = 0, named = 0, known = 0, missed = 0;
      for (unsigned gallery = 0; gallery < 1u << persons; ++gallery) {
        int enrolled = 0, nearest = -1;
        double least = 1e9;
        bool own = false;
        for (unsigned p = 0; p < persons; ++p) {
          if ((gallery >> p & 1) == 0) continue;
          ++enrolled;
          const int person = static_cast<int>(10 * p);
          own = own || person == owner[i];
          if (to_person(i, person) < least) least = to_person(i, person), nearest = person;
        }
        if (enrolled != size) continue;
        if (own) {
          ++known;
          missed += !(least <= threshold && nearest == owner[i]);
        } else {
          ++strangers;
          named += least <= threshold;
        }
      }
      fpir += named / strangers / own_pictures / persons;
      if (own_pictures < 2) continue;
      fnir += missed / known / own_pictures;
      weight_of_known += 1 / own_pictures;
    }
    fnir /= weight_of_known;
  }
};

}  // namespace

TEST_CASE("rates among galleries that can be drawn are those of all of these") {
  const Data data;
  OpenSet set = data.open_set();
  CHECK(set.persons() == Data::persons);
  for (const int size : {1, 2, 3, 6})
    for (const double threshold : {0.5, 0.75, 0.8, 0.9, 2.0}) {
      double fpir, fnir;
      data.count(threshold, size, fpir, fnir);
      const OpenSetRates rates = set.at(threshold, static_cast<std::size_t>(size));
      CAPTURE(size);
      CAPTURE(threshold);
      CHECK(rates.fpir == doctest::Approx(fpir).epsilon(1e-12));
      CHECK(rates.fnir == doctest::Approx(fnir).epsilon(1e-12));
      CHECK(rates.fpir_interval.low <= rates.fpir);
      CHECK(rates.fpir <= rates.fpir_interval.high);
    }
}

TEST_CASE("a threshold is the largest with its rate") {
  const Data data;
  OpenSet set = data.open_set();
  for (const std::size_t size : {1, 3, 6, 7, 50})
    for (const double fpir : {0.05, 0.2, 0.45}) {
      const double threshold = set.threshold(size, fpir);
      CAPTURE(size);
      CAPTURE(fpir);
      CHECK(set.at(threshold, size).fpir <= fpir * (1 + 1e-9));
      double next = 1e9;  // the least distance beyond, at which one more is accepted
      for (std::size_t i = 0; i < data.owner.size(); ++i)
        for (std::size_t k = 0; k < i; ++k)
          if (data.owner[i] != data.owner[k] && data.apart[i][k] > threshold) next = std::min(next, data.apart[i][k]);
      CHECK(set.at(next, size).fpir > fpir);
    }
}

TEST_CASE("more persons than were measured count as independent") {
  const Data data;
  OpenSet set = data.open_set();
  CHECK(set.drawn(6));
  CHECK(!set.drawn(7));
  const double f = set.at(0.8, 1).fpir;
  CHECK(set.at(0.8, 50).fpir == doctest::Approx(1 - std::pow(1 - f, 50)));
  CHECK(set.at(0.8, 50).fnir >= set.at(0.8, 6).fnir - 1e-12);
  OpenSet equal({1, 2});
  equal.pair(0, 1, 0);
  CHECK(equal.threshold(1, 0.1) < 0);
}
