// Rates that can be counted by hand or by brute force, pairs.txt whole and broken, thresholds and their limits.
#include "recognition.hpp"

#include <algorithm>
#include <string>

#include "facenet/evaluate.hpp"

using namespace facenet;

namespace {

Result<LfwPairs> parse(const std::string& text) { return parse_pairs({text.data(), text.size()}); }
std::string string(Span<const char> s) { return {s.data(), s.size()}; }

/// Genuine distances around 0.8, impostors around 1.3, some of them equal.
struct Pairs {
  std::vector<double> d;
  std::vector<std::uint8_t> same;
};
Pairs random_pairs(std::size_t n, unsigned seed, double step = 0) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  Pairs p;
  for (std::size_t i = 0; i < n; ++i) {
    p.same.push_back(i == 0 || (i > 1 && random() % 3 == 0));
    const double d = std::fabs((p.same.back() ? 0.8 : 1.3) + 0.25 * normal(random));
    p.d.push_back(step > 0 ? std::round(d / step) * step : d);
  }
  return p;
}
Comparisons make(const Pairs& p) {
  auto c = Comparisons::make(p.d, p.same);
  REQUIRE(c.ok());
  return std::move(*c);
}
double rate(const Pairs& p, bool same, double threshold) {
  double accepted = 0, all = 0;
  for (std::size_t i = 0; i < p.d.size(); ++i)
    if (p.same[i] == same) ++all, accepted += p.d[i] <= threshold;
  return accepted / all;
}

}  // namespace

// ---- Pairs ----------------------------------------------------------------------------------------------------------

TEST_CASE("pairs.txt of two folds, a development list, and the ways in which lines end") {
  const std::string text = "2\t1\nAda_B\t1\t4\nAda_B\t2\tCarl\t1\nÉva\t10\t3\nCarl\t1\tÉva\t2\n";
  auto parsed = parse(text);
  REQUIRE(parsed.ok());
  CHECK(parsed->folds == 2);
  REQUIRE(parsed->pairs.size() == 4);
  const LfwPair &a = parsed->pairs[0], &b = parsed->pairs[1], &c = parsed->pairs[2];
  CHECK((string(a.name_a) == "Ada_B" && string(a.name_b) == "Ada_B" && a.picture_a == 1 && a.picture_b == 4 && a.same &&
         a.fold == 0));
  CHECK((string(b.name_a) == "Ada_B" && string(b.name_b) == "Carl" && b.picture_a == 2 && b.picture_b == 1 && !b.same &&
         b.fold == 0));
  CHECK((string(c.name_a) == "Éva" && c.picture_a == 10 && c.same && c.fold == 1));

  for (std::string other : {"2 1\r\nAda_B 1 4\r\n\r\nAda_B  2 Carl 1 \r\nEva 10 3\r\nCarl 1 Eva 2",
                            "\n 2\t1\nA B\t1\t4\nA B\t2\tC D\t1\nE\t10\t3\nC\t1\tE\t2\n\n"}) {
    auto p = parse(other);
    REQUIRE(p.ok());
    CHECK(p->pairs.size() == 4);
    CHECK(p->pairs[0].picture_b == 4);
  }
  auto list = parse("1\nA\t1\t2\nA\t1\tB\t2\n");
  REQUIRE(list.ok());
  CHECK(list->folds == 1);
  CHECK(list->pairs.size() == 2);
}

TEST_CASE("a broken pairs.txt is refused at its line") {
  const auto fails = [](const std::string& text, Errc code, const std::string& place, std::int64_t offset) {
    const auto p = parse(text);
    CAPTURE(text);
    CHECK(p.status().code() == code);
    CHECK(p.status().place() == place);
    CHECK(p.status().offset() == offset);
  };
  fails("", Errc::truncated, "line 0", 0);
  fails("\n \n", Errc::truncated, "line 2", 3);
  fails("ten\t300\n", Errc::corrupt, "line 1", 0);
  fails("0\t300\n", Errc::corrupt, "line 1", 0);
  fails("1\t-2\n", Errc::corrupt, "line 1", 0);
  fails("1\t2\t3\n", Errc::corrupt, "line 1", 0);
  fails("99999999\t99999999\n", Errc::limit_exceeded, "line 1", 0);
  fails("10\t300\nA\t1\t2\n", Errc::truncated, "line 1", 0);
  fails("1\t1\nAnna_Maria\t1\t2\n", Errc::truncated, "line 2", 19);
  fails("1\t1\nA\t1\tB\t2\nA\t1\tB\t2\n", Errc::corrupt, "line 2", 4);
  fails("1\t1\nA\t1\t2\nA\t1\t2\n", Errc::corrupt, "line 3", 10);
  fails("1\t1\nA\t1\t2\nA\t1\tB\t0\n", Errc::corrupt, "line 3", 10);
  fails("1\t1\nA\t1\tx\nA\t1\tB\t1\n", Errc::corrupt, "line 2", 4);
  fails("1\t1\nA\t1\t2\nA\t1\tB\t1\nA\t1\tB\t2\n", Errc::corrupt, "line 4", 18);
}

TEST_CASE("every prefix of a pairs.txt, and every byte of it changed, is read or refused") {
  const std::string text =
      "2\t2\nAb\t1\t4\nAb\t1\t3\nAb\t2\tCd\t1\nX\t1\tY\t2\nE\t10\t3\nE\t1\t3\nC\t1\tE\t2\nC\t1\tE\t3";
  REQUIRE(parse(text).ok());
  for (std::size_t n = 0; n + 1 < text.size(); ++n) {
    const std::string part = text.substr(0, n);
    CHECK_FALSE(parse(part).ok());
  }
  for (std::size_t i = 0; i < text.size(); ++i)
    for (char c : {'\0', '\t', '\n', '9', 'z', '\xff'}) {
      std::string changed = text;
      changed[i] = c;
      const auto p = parse(changed);
      if (p.ok())
        CHECK(p->pairs.size() == static_cast<std::size_t>(p->folds) * (8 / static_cast<std::size_t>(p->folds)));
    }
}

// ---- Folds ----------------------------------------------------------------------------------------------------------

TEST_CASE("contiguous folds are scikit-learn's") {
  int fold[11];
  contiguous_folds(3, fold);
  const int want[11] = {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2};
  CHECK(std::equal(fold, fold + 11, want));
  contiguous_folds(5, {fold, 2});
  CHECK(fold[0] == 0);
  CHECK(fold[1] == 1);
}

TEST_CASE("each fold is judged by the threshold of the others: the definition, written out") {
  for (unsigned seed : {1u, 2u, 3u}) {
    const Pairs p = random_pairs(400, seed, seed == 3 ? 0.05 : 0);
    std::vector<int> fold(400);
    contiguous_folds(7, fold);
    ThresholdGrid grid;
    grid.step = 0.02;
    grid.count = 150;
    const auto got = fold_accuracies(p.d, p.same, fold, 7, grid);
    REQUIRE(got.ok());
    double sum = 0;
    for (int k = 0; k < 7; ++k) {
      int best = -1, best_right = -1;
      const auto right = [&](int t, bool test) {
        int count = 0;
        for (std::size_t i = 0; i < 400; ++i)
          if ((fold[i] == k) == test) count += (p.d[i] < grid.first + t * grid.step) == (p.same[i] == 1);
        return count;
      };
      for (int t = 0; t < grid.count; ++t)
        if (right(t, false) > best_right) best_right = right(t, false), best = t;
      const Fold& f = got->folds[static_cast<std::size_t>(k)];
      CHECK(f.threshold == grid.first + best * grid.step);
      CHECK(f.accuracy == right(best, true) / static_cast<double>(f.pairs));
      sum += f.accuracy;
    }
    CHECK(std::fabs(got->mean - sum / 7) < 1e-14);
    CHECK(got->deviation > 0);
  }
}

TEST_CASE("fold accuracies refuse what they cannot count") {
  const double d[4] = {1, 2, 3, NAN};
  const std::uint8_t same[4] = {1, 0, 1, 2};
  const int fold[4] = {0, 1, 2, 5};
  const auto code = [&](std::size_t n, int folds, const ThresholdGrid& grid = {}) {
    return fold_accuracies({d, n}, {same, n}, {fold, n}, folds, grid).status().code();
  };
  CHECK(code(3, 3) == Errc::ok);
  CHECK(code(3, 4) == Errc::invalid_argument);  // an empty fold
  CHECK(code(3, 2) == Errc::invalid_argument);  // a fold that is not there
  CHECK(code(4, 6) == Errc::invalid_argument);  // not a number, and a flag of 2
  CHECK(code(3, 1) == Errc::invalid_argument);
  ThresholdGrid grid;
  for (double bad : {0.0, -1.0, static_cast<double>(NAN), HUGE_VAL}) {
    grid = {};
    grid.step = bad;
    CHECK(code(3, 3, grid) == Errc::invalid_argument);
  }
  grid = {};
  grid.first = NAN;
  CHECK(code(3, 3, grid) == Errc::invalid_argument);
  contiguous_folds(0, {nullptr, 3});  // nothing to write to, and nothing is
}

// ---- ROC ------------------------------------------------------------------------------------------------------------

TEST_CASE("a ROC that can be drawn by hand") {
  //             genuine 1 2 4, impostors 3 4 5: steps G G I (G I) I
  const double d[6] = {4, 1, 3, 5, 2, 4};
  const std::uint8_t same[6] = {1, 1, 0, 0, 1, 0};
  auto c = Comparisons::make(d, same);
  REQUIRE(c.ok());
  CHECK(c->genuine() == 3);
  CHECK(c->impostors() == 3);
  auto roc = c->roc(false);
  REQUIRE(roc.ok());
  REQUIRE(roc->size() == 6);
  const double third = 1.0 / 3, want[6][3] = {{0, 0, -HUGE_VAL},     {0, third, 1},     {0, 2 * third, 2},
                                              {third, 2 * third, 3}, {2 * third, 1, 4}, {1, 1, 5}};
  for (std::size_t i = 0; i < 6; ++i) {
    CHECK((*roc)[i].fpr == want[i][0]);
    CHECK((*roc)[i].tpr == want[i][1]);
    CHECK((*roc)[i].threshold == want[i][2]);
  }
  CHECK(c->auc() == doctest::Approx(7.5 / 9).epsilon(1e-15));  // 3 + 3, and 2 + 2.5 - 3 of the third's
  CHECK(c->eer().rate == doctest::Approx(third));
  CHECK(c->eer().threshold == 3);
  CHECK(c->tar_at(0.5).tar == doctest::Approx(2 * third));
  CHECK(c->tar_at(0.5).threshold == 3);
  CHECK(c->tar_at(0.5).measurable);
  CHECK_FALSE(c->tar_at(0.2).measurable);
  CHECK(c->tar_at(0.2).threshold == 2);
  CHECK(c->tar_at(1).tar == 1);
  const ErrorRates at = c->at(3.5);
  CHECK((at.false_accepts == 1 && at.impostors == 3 && at.false_rejects == 1 && at.genuine == 3));
  CHECK(at.far == third);
  CHECK(at.frr == third);
}

TEST_CASE("AUC, EER and TAR at FAR by their definitions, with and without ties") {
  for (double step : {0.0, 0.05, 0.5})
    for (unsigned seed : {1u, 2u, 3u}) {
      const Pairs p = random_pairs(500, seed, step);
      const Comparisons c = make(p);
      double right = 0, all = 0;
      for (std::size_t i = 0; i < 500; ++i)
        for (std::size_t j = 0; j < 500; ++j)
          if (p.same[i] && !p.same[j]) ++all, right += p.d[i] < p.d[j] ? 1 : p.d[i] == p.d[j] ? 0.5 : 0;
      CHECK(c.auc() == doctest::Approx(right / all).epsilon(1e-13));
      for (double far : {0.0, 0.001, 0.01, 0.1, 0.5, 1.0}) {
        const TarAtFar t = c.tar_at(far);
        double best = 0;
        for (double threshold : p.d)
          if (rate(p, false, threshold) <= far) best = std::max(best, rate(p, true, threshold));
        CHECK(t.tar == doctest::Approx(best).epsilon(1e-14));
        CHECK(rate(p, true, t.threshold) == doctest::Approx(t.tar).epsilon(1e-14));
        CHECK(rate(p, false, t.threshold) == doctest::Approx(t.actual_far).epsilon(1e-14));
        CHECK(t.actual_far <= far);
      }
      const ErrorRates r = c.at(1.05);
      CHECK(r.far == doctest::Approx(rate(p, false, 1.05)).epsilon(1e-14));
      CHECK(r.frr == doctest::Approx(1 - rate(p, true, 1.05)).epsilon(1e-13));
      // The rate lies between the FAR, and between the FRR, of the distances on both sides of its threshold.
      const EqualErrorRate e = c.eer();
      double below = -1, above = HUGE_VAL;
      for (double d : p.d) {
        if (d < e.threshold) below = std::max(below, d);
        if (d >= e.threshold) above = std::min(above, d);
      }
      CHECK((rate(p, false, below) <= e.rate + 1e-12 && e.rate <= rate(p, false, above) + 1e-12));
      CHECK((1 - rate(p, true, above) <= e.rate + 1e-12 && e.rate <= 1 - rate(p, true, below) + 1e-12));
    }
}

TEST_CASE("perfect and worthless distances") {
  const double d[4] = {1, 2, 3, 4}, flat[4] = {1, 1, 1, 1};
  const std::uint8_t good[4] = {1, 1, 0, 0}, wrong[4] = {0, 0, 1, 1};
  CHECK(Comparisons::make(d, good)->auc() == 1);
  CHECK(Comparisons::make(d, good)->eer().rate == 0);
  CHECK(Comparisons::make(d, wrong)->auc() == 0);
  CHECK(Comparisons::make(d, wrong)->eer().rate == 1);
  CHECK(Comparisons::make(flat, good)->auc() == 0.5);
  CHECK(Comparisons::make(flat, good)->eer().rate == 0.5);
  CHECK(Comparisons::make(flat, good)->roc()->size() == 2);
}

TEST_CASE("pairs of one kind alone, and distances that are no numbers, are refused") {
  const double d[3] = {1, 2, NAN};
  const std::uint8_t same[3] = {1, 1, 0}, two[2] = {0, 2};
  CHECK(Comparisons::make({d, 2}, {same, 2}).status().code() == Errc::invalid_argument);
  CHECK(Comparisons::make(d, same).status().code() == Errc::invalid_argument);
  CHECK(Comparisons::make({d, 1}, {same + 2, 1}).status().code() == Errc::invalid_argument);
  CHECK(Comparisons::make({d, 2}, two).status().code() == Errc::invalid_argument);
  CHECK(Comparisons::make({d, 0}, {same, 0}).status().code() == Errc::invalid_argument);
}

TEST_CASE("arrays of different lengths are refused, whichever is the shorter") {
  const std::vector<double> d = {1, 2, 3, 4};
  const std::vector<std::uint8_t> same = {1, 0, 1, 0};
  const std::vector<int> fold = {0, 0, 1, 1};
  REQUIRE(Comparisons::make(d, same).ok());
  REQUIRE(fold_accuracies(d, same, fold, 2).ok());
  for (const std::size_t n : {std::size_t{0}, std::size_t{3}}) {
    const Span<const double> fewer_d(d.data(), n);
    const Span<const std::uint8_t> fewer_same(same.data(), n);
    CHECK(Comparisons::make(fewer_d, same).status().code() == Errc::invalid_argument);
    CHECK(Comparisons::make(d, fewer_same).status().code() == Errc::invalid_argument);
    CHECK(fold_accuracies(fewer_d, same, fold, 2).status().code() == Errc::invalid_argument);
    CHECK(fold_accuracies(d, fewer_same, fold, 2).status().code() == Errc::invalid_argument);
    CHECK(fold_accuracies(d, same, {fold.data(), n}, 2).status().code() == Errc::invalid_argument);
  }
  CHECK(Comparisons::make({nullptr, 4}, same).status().code() == Errc::invalid_argument);
  CHECK(Comparisons::make(d, {nullptr, 4}).status().code() == Errc::invalid_argument);
  CHECK(fold_accuracies(d, same, {nullptr, 4}, 2).status().code() == Errc::invalid_argument);
  CHECK(choose_threshold({nullptr, 40}, 0.1).status().code() == Errc::invalid_argument);
}

TEST_CASE("comparisons that were never made, or were moved from, say so") {
  const double d[4] = {1, 2, 3, 4};
  const std::uint8_t same[4] = {1, 0, 1, 0};
  const auto says_so = [](const Comparisons& c) {
    CHECK(c.genuine() == 0);
    CHECK(c.impostors() == 0);
    CHECK(c.roc().status().code() == Errc::invalid_argument);
    CHECK(c.bootstrap(0.1, 2, 1).status().code() == Errc::invalid_argument);
    CHECK(c.auc() == 0.5);
    CHECK(c.eer().rate == 0.5);
    CHECK(c.tar_at(0.1).tar == 0);
    CHECK_FALSE(c.tar_at(0.1).measurable);
    CHECK(c.at(1).far_interval.high == 1);
  };
  Comparisons none;
  says_so(none);
  auto made = Comparisons::make(d, same);
  REQUIRE(made.ok());
  Comparisons here = std::move(*made);
  says_so(*made);
  none = std::move(here);
  says_so(here);
  CHECK(none.roc().ok());
}

TEST_CASE("Wilson's interval") {
  // scipy.stats.binomtest(k, n).proportion_ci(method="wilson"), to its printed digits
  const auto near = [](Interval i, double low, double high) {
    CHECK(i.low == doctest::Approx(low).epsilon(1e-9));
    CHECK(i.high == doctest::Approx(high).epsilon(1e-9));
  };
  near(wilson(1, 10), 0.017876213095072924, 0.4041500267952385);
  near(wilson(50, 100), 0.4038315303659956, 0.5961684696340044);
  near(wilson(0, 30), 0, 0.11351339317396808);
  near(wilson(30, 30), 1 - 0.11351339317396808, 1);
  near(wilson(0, 0), 0, 1);
}

TEST_CASE("bootstrap intervals: repeatable, around the value, as wide as theory says, narrower with more pairs") {
  const Pairs p = random_pairs(600, 4);
  const Comparisons c = make(p);
  const auto a = c.bootstrap(0.1, 400, 5), b = c.bootstrap(0.1, 400, 5), other = c.bootstrap(0.1, 400, 6);
  REQUIRE(a.ok());
  CHECK((a->auc.low == b->auc.low && a->tar.high == b->tar.high));
  CHECK(a->auc.low != other->auc.low);
  CHECK((a->auc.low < c.auc() && c.auc() < a->auc.high));
  CHECK((a->eer.low <= c.eer().rate && c.eer().rate <= a->eer.high));
  CHECK((a->tar.low <= c.tar_at(0.1).tar && c.tar_at(0.1).tar <= a->tar.high));
  // Hanley and McNeil's standard error of the AUC, which assumes exponential scores: within a third of it.
  const double auc = c.auc(), g = static_cast<double>(c.genuine()), i = static_cast<double>(c.impostors());
  const double q1 = auc / (2 - auc), q2 = 2 * auc * auc / (1 + auc);
  const double error = std::sqrt((auc * (1 - auc) + (g - 1) * (q1 - auc * auc) + (i - 1) * (q2 - auc * auc)) / (g * i));
  const double width = (a->auc.high - a->auc.low) / (2 * 1.96);
  CHECK(width == doctest::Approx(error).epsilon(0.33));
  CHECK(c.bootstrap(0.1, 0, 1).status().code() == Errc::invalid_argument);
  CHECK(c.bootstrap(2, 10, 1).status().code() == Errc::invalid_argument);
}

// ---- Calibration ----------------------------------------------------------------------------------------------------

TEST_CASE("a threshold for a false accept rate accepts as many impostors as it may, and no more") {
  for (double step : {0.0, 0.01})
    for (double far : {0.5, 0.1, 0.01, 0.003}) {
      const Pairs p = random_pairs(1500, 8, step);
      const auto c = choose_threshold(p.d, far);
      REQUIRE(c.ok());
      std::uint64_t accepted = 0;
      for (double d : p.d) accepted += d <= c->threshold;
      CHECK(accepted == c->accepted);
      CHECK(c->impostors == 1500);
      CHECK(static_cast<double>(accepted) <= far * 1500);
      // The next distance would be too many.
      double next = HUGE_VAL;
      for (double d : p.d)
        if (d > c->threshold) next = std::min(next, d);
      std::uint64_t more = 0;
      for (double d : p.d) more += d <= next;
      CHECK(static_cast<double>(more) > far * 1500);
    }
}

TEST_CASE("too few impostors for a false accept rate are refused, and how many it needs is said") {
  CHECK(impostors_needed(0.1) == 30);
  CHECK(impostors_needed(1e-3) == 3000);
  CHECK(impostors_needed(1e-4) == 30000);
  CHECK(impostors_needed(0) == UINT64_MAX);
  const std::vector<double> d(30, 1.0);
  CHECK(choose_threshold({d.data(), 29}, 0.1).status().code() == Errc::limit_exceeded);
  const auto c = choose_threshold(d, 0.1);
  REQUIRE(c.ok());  // all are equal, so none can be accepted
  CHECK(c->accepted == 0);
  CHECK(c->threshold < 1);
  CHECK(choose_threshold(d, 0).status().code() == Errc::invalid_argument);
  CHECK(choose_threshold(d, 1).status().code() == Errc::invalid_argument);
  const std::vector<double> zero(30, 0.0), bad(30, NAN);
  CHECK(choose_threshold(zero, 0.1).status().code() == Errc::invalid_argument);
  CHECK(choose_threshold(bad, 0.1).status().code() == Errc::invalid_argument);
}

TEST_CASE("a failing allocation is an error and leaks nothing") {
  const Pairs p = random_pairs(100, 1);
  std::vector<int> fold(100);
  contiguous_folds(10, fold);
  CHECK(recognition::fail_each_allocation([&] {
          auto c = Comparisons::make(p.d, p.same);
          if (!c.ok()) return c.status().code();
          if (auto roc = c->roc(); !roc.ok()) return roc.status().code();
          return c->bootstrap(0.1, 10, 1).status().code();
        }) == 7);
  CHECK(recognition::fail_each_allocation([&] { return fold_accuracies(p.d, p.same, fold, 10).status().code(); }) == 3);
  CHECK(recognition::fail_each_allocation([&] { return choose_threshold(p.d, 0.5).status().code(); }) == 1);
  CHECK(recognition::fail_each_allocation([] { return parse("1\nA\t1\t2\nA\t1\tB\t2\n").status().code(); }) == 1);
}
