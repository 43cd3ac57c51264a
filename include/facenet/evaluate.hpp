// How well distances tell persons apart: LFW's protocol, ROC, error rates with intervals, thresholds.
// Pure functions over arrays of distances and same/different flags; nothing here knows of files. Two faces are taken
// for one person's where distance <= threshold; FAR is the share of impostor pairs that are, FRR of genuine pairs that
// are not.
#pragma once
#include "facenet/base/macros_push.inc"

#include <algorithm>
#include <cmath>

#include "facenet/base/finite.hpp"
#include "facenet/base/memory.hpp"
#include "facenet/base/random.hpp"

FACENET_BEGIN

struct Interval {
  double low, high;
};

/// Wilson's score interval for `count` of `total` at `z` standard deviations (1.96: 95%); 0 … 1 for none.
inline Interval wilson(std::uint64_t count, std::uint64_t total, double z = 1.959963984540054) noexcept {
  if (total == 0) return {0, 1};
  const double n = static_cast<double>(total), p = static_cast<double>(count) / n, z2 = z * z;
  const double middle = (p + z2 / (2 * n)) / (1 + z2 / n);
  const double half = z * std::sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n);
  return {count == 0 ? 0 : middle - half, count == total ? 1 : middle + half};
}

// ---- Pairs ----------------------------------------------------------------------------------------------------------

/// One line of pairs.txt. Names point into the text; pictures count from 1.
struct LfwPair {
  Span<const char> name_a, name_b;
  int picture_a, picture_b, fold;
  bool same;
};
struct LfwPairs {
  Buffer<LfwPair> pairs;  // as in the file
  int folds = 0;
};
namespace detail {

/// Has the ISA in its name, unlike std::less<double>: algorithms that take it are not shared by units for several ISAs.
struct Less {
  bool operator()(double a, double b) const noexcept { return a < b; }
};
constexpr Less less{};

/// A text line by line, each cut into fields: at tabs, or where a line has none at spaces. Empty lines are left out.
class Lines {
 public:
  explicit Lines(Span<const char> text) noexcept : text_(text) {}
  bool next() noexcept {
    while (at_ < text_.size()) {
      begin_ = at_;
      std::size_t end = begin_;
      while (end < text_.size() && text_[end] != '\n') ++end;
      at_ = end + (end < text_.size() ? 1 : 0);
      ++number_;
      if (split(text_.subspan(begin_, end - begin_))) return true;
    }
    begin_ = text_.size();
    return false;
  }
  int fields() const noexcept { return fields_; }
  Span<const char> field(int i) const noexcept { return field_[i]; }
  Status error(Errc code, const char* sentence) const noexcept {
    detail::Line place;
    place.add("line ").add(static_cast<std::int64_t>(number_));
    return Status(code, sentence).at(static_cast<std::int64_t>(begin_)).in(place.text());
  }

 private:
  static bool blank(char c) noexcept { return c == ' ' || c == '\t' || c == '\r'; }
  bool split(Span<const char> line) noexcept {
    const bool tabs = line.size() > 0 && std::memchr(line.data(), '\t', line.size()) != nullptr;
    fields_ = 0;
    for (std::size_t i = 0; i < line.size();) {
      while (i < line.size() && blank(line[i])) ++i;
      std::size_t end = i;
      while (end < line.size() && (tabs ? line[end] != '\t' : !blank(line[end]))) ++end;
      std::size_t length = end - i;
      while (length > 0 && blank(line[i + length - 1])) --length;
      if (length > 0 && fields_ < 5) field_[fields_++] = line.subspan(i, length);
      i = end;
    }
    return fields_ > 0;
  }

  Span<const char> text_, field_[5];
  std::size_t at_ = 0, begin_ = 0, number_ = 0;
  int fields_ = 0;
};

/// A decimal integer 1 … 99,999,999, in at most eight digits.
inline bool parse_count(Span<const char> text, int* value) noexcept {
  return text.size() <= 8 && parse_count(text.data(), text.size(), 99999999, *value);
}

}  // namespace detail

/// LFW's pairs.txt (folds, a tab, pairs of each kind in a fold; then each fold's same and different pairs), or one of
/// its development lists (the number of pairs of each kind; one fold). Errors: truncated, corrupt, limit_exceeded,
/// out_of_memory, at the byte of the line at fault, with "line N" as the place.
inline Result<LfwPairs> parse_pairs(Span<const char> text) noexcept {
  detail::Lines lines(text);
  int number[2] = {1, 0}, header = 0;  // folds and pairs of a kind, or the latter alone
  if (!lines.next())
    return lines.error(Errc::truncated, "a list of pairs begins with the number of pairs, and this is empty");
  header = lines.fields();
  if (header < 1 || header > 2 || !detail::parse_count(lines.field(0), &number[header == 1 ? 1 : 0]) ||
      (header == 2 && !detail::parse_count(lines.field(1), &number[1])))
    return lines.error(Errc::corrupt,
                       "a list of pairs begins with the number of folds and of pairs of each kind in a fold");
  const std::int64_t in_fold = 2 * std::int64_t{number[1]}, count = number[0] * in_fold;
  if (number[0] > 1000 || count > 10000000)
    return lines.error(Errc::limit_exceeded, "at most 1000 folds and 10,000,000 pairs are read");
  // A line of pairs has 6 characters at least: a header that promises more than the text can hold allocates nothing.
  if (static_cast<std::uint64_t>(count) > text.size() / 6 + 1)
    return lines.error(Errc::truncated, "the text is too short for as many pairs as its first line says");

  LfwPairs out;
  out.folds = number[0];
  auto pairs = Buffer<LfwPair>::make(static_cast<std::size_t>(count));
  if (!pairs) return pairs.status();
  for (std::int64_t i = 0; i < count; ++i) {
    if (!lines.next()) return lines.error(Errc::truncated, "there are fewer lines of pairs than the first line says");
    const bool same = i % in_fold < number[1];
    if (same && lines.fields() != 3)
      return lines.error(Errc::corrupt, "this line should hold a name and the numbers of two of its pictures");
    if (!same && lines.fields() != 4)
      return lines.error(Errc::corrupt, "this line should hold a name, a number, another name and a number");
    LfwPair& p = (*pairs)[static_cast<std::size_t>(i)];
    p.name_a = lines.field(0);
    p.name_b = lines.field(same ? 0 : 2);
    p.fold = static_cast<int>(i / in_fold);
    p.same = same;
    if (!detail::parse_count(lines.field(1), &p.picture_a) ||
        !detail::parse_count(lines.field(same ? 2 : 3), &p.picture_b))
      return lines.error(Errc::corrupt, "the number of a picture should be 1 or more");
  }
  if (lines.next()) return lines.error(Errc::corrupt, "there are more lines of pairs than the first line says");
  out.pairs = std::move(*pairs);
  return out;
}

/// The fold of each of n pairs: `folds` runs of equal length, the first n % folds of them one longer (scikit-learn's
/// KFold). Writes nothing for fewer than one fold.
inline void contiguous_folds(int folds, Span<int> fold) noexcept {
  if (folds < 1 || fold.data() == nullptr) return;
  const std::size_t f = static_cast<std::size_t>(folds), n = fold.size();
  for (std::size_t i = 0, k = 0, left = 0; i < n; ++i, --left) {
    while (left == 0) left = n / f + (k < n % f ? 1 : 0), ++k;
    fold[i] = static_cast<int>(k) - 1;
  }
}

namespace detail {

inline Status check_pairs(Span<const double> distances, Span<const std::uint8_t> same) noexcept {
  if (distances.data() == nullptr || same.data() == nullptr || distances.empty())
    return {Errc::invalid_argument, "there are no pairs"};
  if (distances.size() != same.size()) return {Errc::invalid_argument, "each pair needs a distance and a flag"};
  return {};
}

}  // namespace detail

// ---- LFW's accuracy -------------------------------------------------------------------------------------------------

/// Thresholds first, first + step, …: davidsandberg/facenet's are 0 to 4 by 0.01 on squared distances.
struct ThresholdGrid {
  double first = 0, step = 0.01;
  int count = 400;
};
struct Fold {
  double accuracy, tpr, fpr;  // on this fold
  double threshold;           // the best of the other folds
  std::size_t pairs;
};
struct FoldAccuracy {
  Buffer<Fold> folds;
  double mean, deviation;  // of the accuracies; the deviation is numpy's std
};
/// Each fold's accuracy with the threshold that is best (the smallest of several) on all other folds: LFW's restricted
/// protocol, as davidsandberg/facenet's calculate_roc, which takes pairs for one person's where distance < threshold.
/// same[n]: 0 or 1; fold[n]: 0 … folds - 1, none of them empty. Errors: invalid_argument (also for arrays of different
/// lengths), out_of_memory.
inline Result<FoldAccuracy> fold_accuracies(Span<const double> distances, Span<const std::uint8_t> same,
                                            Span<const int> fold, int folds, const ThresholdGrid& grid = {}) noexcept {
  const std::size_t n = distances.size();
  FACENET_TRY(detail::check_pairs(distances, same));
  if (fold.size() != n || fold.data() == nullptr)
    return {Errc::invalid_argument, "each pair needs the number of its fold"};
  if (folds < 2 || folds > 1000 || grid.count < 1 || grid.count > 1000000 || !detail::is_finite(grid.first) ||
      !detail::is_finite(grid.step) || grid.step <= 0)
    return {Errc::invalid_argument, "accuracy needs pairs, 2 to 1000 folds and rising thresholds"};
  const auto thresholds = static_cast<std::size_t>(grid.count), f = static_cast<std::size_t>(folds);
  // accepted[2 * fold + same][t]: pairs that are accepted at threshold t and not at t - 1; later, at t.
  const std::size_t row = thresholds + 1;
  auto accepted = Buffer<std::uint64_t>::make(2 * f * row);
  auto limits = Buffer<double>::make(thresholds);
  FoldAccuracy out{};
  auto result = Buffer<Fold>::make(f);
  if (!accepted) return accepted.status();
  if (!limits) return limits.status();
  if (!result) return result.status();
  for (std::size_t t = 0; t < thresholds; ++t) (*limits)[t] = grid.first + static_cast<double>(t) * grid.step;
  for (std::size_t i = 0; i < n; ++i) {
    if (fold[i] < 0 || fold[i] >= folds || same[i] > 1 || detail::is_nan(distances[i]))
      return {Errc::invalid_argument,
              "a pair has a fold that is not there, a flag over 1 or a distance that is not a number"};
    const auto t = static_cast<std::size_t>(
        std::upper_bound(limits->begin(), limits->end(), distances[i], detail::less) - limits->begin());
    ++(*accepted)[(2 * static_cast<std::size_t>(fold[i]) + same[i]) * row + t];
  }
  for (std::size_t r = 0; r < 2 * f; ++r)
    for (std::size_t t = 1; t < row; ++t) (*accepted)[r * row + t] += (*accepted)[r * row + t - 1];

  const auto total = [&](std::size_t r) { return (*accepted)[r * row + thresholds]; };
  const auto right = [&](std::size_t k, std::size_t t) {  // genuine pairs accepted, impostors refused
    return (*accepted)[(2 * k + 1) * row + t] + total(2 * k) - (*accepted)[2 * k * row + t];
  };
  const auto share = [](std::uint64_t part, std::uint64_t all) {
    return all == 0 ? 0.0 : static_cast<double>(part) / static_cast<double>(all);
  };
  for (std::size_t k = 0; k < f; ++k) {
    const std::uint64_t pairs = total(2 * k) + total(2 * k + 1);
    if (pairs == 0) return {Errc::invalid_argument, "a fold has no pairs"};
    std::size_t best = 0;
    std::uint64_t most = 0;
    for (std::size_t t = 0; t < thresholds; ++t) {
      std::uint64_t sum = 0;
      for (std::size_t g = 0; g < f; ++g) sum += g != k ? right(g, t) : 0;
      if (sum > most) most = sum, best = t;
    }
    (*result)[k] = {share(right(k, best), pairs), share((*accepted)[(2 * k + 1) * row + best], total(2 * k + 1)),
                    share((*accepted)[2 * k * row + best], total(2 * k)), (*limits)[best],
                    static_cast<std::size_t>(pairs)};
    out.mean += (*result)[k].accuracy / static_cast<double>(folds);
  }
  for (const Fold& k : *result) out.deviation += (k.accuracy - out.mean) * (k.accuracy - out.mean);
  out.deviation = std::sqrt(out.deviation / static_cast<double>(folds));
  out.folds = std::move(*result);
  return out;
}

// ---- ROC ------------------------------------------------------------------------------------------------------------

struct RocPoint {
  double fpr, tpr, threshold;  // pairs with distance <= threshold are accepted
};
/// Both error rates at one threshold, and what they were counted from.
struct ErrorRates {
  double far, frr;
  Interval far_interval, frr_interval;  // Wilson, 95%
  std::uint64_t false_accepts, impostors, false_rejects, genuine;
};
struct TarAtFar {
  double far;  // requested
  double tar;  // at the largest threshold whose FAR is not above
  double threshold;
  double actual_far;
  bool measurable;  // false: one false accept is more than that FAR already, so tar says little
};
struct EqualErrorRate {
  double rate, threshold;
};
/// 95% bootstrap intervals.
struct RocIntervals {
  Interval auc, eer, tar;  // tar: at the FAR that was requested
};

/// Distances sorted with their flags: what ROC, AUC, EER and TAR are read from. Move-only. One that was never made, or
/// was moved from, has no pairs: roc() and bootstrap() say so, and every rate is what tells nothing (auc 0.5, eer 0.5,
/// tar 0, rates 0).
class Comparisons {
 public:
  Comparisons() noexcept = default;
  Comparisons(Comparisons&& other) noexcept { swap(other); }
  Comparisons& operator=(Comparisons&& other) noexcept {
    Comparisons moved(std::move(other));
    swap(moved);
    return *this;
  }

  /// Copies n distances and flags (1: the same person). Errors: invalid_argument (not finite, none of one kind, or
  /// another number of flags), limit_exceeded, out_of_memory.
  static Result<Comparisons> make(Span<const double> distances, Span<const std::uint8_t> same) noexcept {
    FACENET_TRY(detail::check_pairs(distances, same));
    const std::size_t n = distances.size();
    if (n > UINT32_MAX) return {Errc::limit_exceeded, "at most 2^32 - 1 pairs are compared"};
    auto step = Buffer<Step>::make(n);
    auto genuine = Buffer<std::uint32_t>::make(n), impostor = Buffer<std::uint32_t>::make(n);
    if (!step) return step.status();
    if (!genuine) return genuine.status();
    if (!impostor) return impostor.status();
    for (std::size_t i = 0; i < n; ++i) {
      if (!detail::is_finite(distances[i]) || same[i] > 1)
        return {Errc::invalid_argument, "a pair has a distance that is not finite or a flag over 1"};
      (*step)[i] = {distances[i], same[i], 1u - same[i]};
    }
    std::sort(step->begin(), step->end(), [](const Step& a, const Step& b) { return a.distance < b.distance; });
    Comparisons c;
    for (std::size_t i = 0; i < n; ++i) {  // pairs of one distance become one step
      const Step s = (*step)[i];
      if (i == 0 || s.distance != (*step)[c.steps_ - 1].distance) (*step)[c.steps_++] = {s.distance, 0, 0};
      Step& to = (*step)[c.steps_ - 1];
      to.genuine += s.genuine;
      to.impostors += s.impostors;
      const auto at = static_cast<std::uint32_t>(c.steps_ - 1);
      if (s.genuine != 0)
        (*genuine)[c.genuine_++] = at;
      else
        (*impostor)[c.impostors_++] = at;
    }
    if (c.genuine_ == 0) return {Errc::invalid_argument, "there is no pair of one person's, so no rate can be counted"};
    if (c.impostors_ == 0)
      return {Errc::invalid_argument, "there is no pair of two persons', so no rate can be counted"};
    c.step_ = std::move(*step);
    c.genuine_step_ = std::move(*genuine);
    c.impostor_step_ = std::move(*impostor);
    return c;
  }

  std::uint64_t genuine() const noexcept { return genuine_; }
  std::uint64_t impostors() const noexcept { return impostors_; }

  /// scikit-learn's roc_curve on -distance: the first point accepts no pair (threshold -infinity). Points inside a
  /// straight line are left out unless `drop_intermediate` is false. Error: out_of_memory.
  Result<Buffer<RocPoint>> roc(bool drop_intermediate = true) const noexcept {
    FACENET_TRY(made());
    auto all = Buffer<RocPoint>::make(steps_ + 1);
    if (!all) return all.status();
    std::size_t kept = 0;
    Step sum{};
    for (std::size_t i = 0; i <= steps_; ++i) {
      const Step here = i > 0 ? step_[i - 1] : Step{-HUGE_VAL, 0, 0};
      sum.genuine += here.genuine;
      sum.impostors += here.impostors;
      // A point is on the line when the steps before and after it are the same. scikit-learn keeps the first.
      const bool inside = drop_intermediate && i > 1 && i < steps_ && here.genuine == step_[i].genuine &&
                          here.impostors == step_[i].impostors;
      if (!inside) (*all)[kept++] = {share(sum.impostors, impostors_), share(sum.genuine, genuine_), here.distance};
    }
    auto out = Buffer<RocPoint>::make(kept);
    if (!out) return out.status();
    std::copy(all->begin(), all->begin() + kept, out->begin());
    return out;
  }
  /// Area under the ROC: the chance that a genuine pair is nearer than an impostor pair, ties counted half.
  double auc() const noexcept { return steps_ > 0 ? auc(step_.data()) : 0.5; }
  /// Where FAR = FRR, on the straight line between the two points of the ROC around it.
  EqualErrorRate eer() const noexcept { return steps_ > 0 ? eer(step_.data()) : EqualErrorRate{0.5, 0}; }
  /// `far` is 0 … 1; one that is not a number is 0.
  TarAtFar tar_at(double far) const noexcept {
    return steps_ > 0 ? tar_at(step_.data(), far) : TarAtFar{far, 0, 0, 0, false};
  }
  /// A threshold that is not a number accepts nobody.
  ErrorRates at(double threshold) const noexcept {
    if (steps_ == 0) return {0, 0, wilson(0, 0), wilson(0, 0), 0, 0, 0, 0};
    Step sum{};
    const std::size_t steps = detail::is_nan(threshold) ? 0 : steps_;
    for (std::size_t i = 0; i < steps && step_[i].distance <= threshold; ++i) {
      sum.genuine += step_[i].genuine;
      sum.impostors += step_[i].impostors;
    }
    const std::uint64_t rejects = genuine_ - sum.genuine;
    return {share(sum.impostors, impostors_),
            share(rejects, genuine_),
            wilson(sum.impostors, impostors_),
            wilson(rejects, genuine_),
            sum.impostors,
            impostors_,
            rejects,
            genuine_};
  }
  /// From `replicates` resamples with replacement, genuine and impostor pairs apart, percentiles 2.5 and 97.5. The same
  /// for the same seed. Pairs that share a face are not independent, so the true interval is wider. Errors:
  /// invalid_argument, out_of_memory.
  Result<RocIntervals> bootstrap(double far, int replicates, std::uint64_t seed) const noexcept {
    FACENET_TRY(made());
    if (replicates < 1 || replicates > 1000000 || !detail::is_finite(far) || far < 0 || far > 1)
      return {Errc::invalid_argument, "a bootstrap takes 1 to 1,000,000 replicates and a FAR of 0 to 1"};
    const auto count = static_cast<std::size_t>(replicates);
    auto steps = Buffer<Step>::make(steps_);
    auto values = Buffer<double>::make(3 * count);
    if (!steps) return steps.status();
    if (!values) return values.status();
    SplitMix64 random(seed);
    for (std::size_t r = 0; r < count; ++r) {
      for (std::size_t i = 0; i < steps_; ++i) (*steps)[i] = {step_[i].distance, 0, 0};
      for (std::uint64_t i = 0; i < genuine_; ++i)
        ++(*steps)[genuine_step_[random.below(static_cast<std::uint32_t>(genuine_))]].genuine;
      for (std::uint64_t i = 0; i < impostors_; ++i)
        ++(*steps)[impostor_step_[random.below(static_cast<std::uint32_t>(impostors_))]].impostors;
      (*values)[r] = auc(steps->data());
      (*values)[count + r] = eer(steps->data()).rate;
      (*values)[2 * count + r] = tar_at(steps->data(), far).tar;
    }
    return RocIntervals{percentiles(values->data(), count), percentiles(values->data() + count, count),
                        percentiles(values->data() + 2 * count, count)};
  }

 private:
  /// The pairs of one distance.
  struct Step {
    double distance;
    std::uint64_t genuine, impostors;
  };

  Status made() const noexcept {
    if (steps_ > 0) return {};
    return {Errc::invalid_argument, "these comparisons were never made, or were moved from"};
  }
  void swap(Comparisons& other) noexcept {
    std::swap(steps_, other.steps_);
    std::swap(genuine_, other.genuine_);
    std::swap(impostors_, other.impostors_);
    std::swap(step_, other.step_);
    std::swap(genuine_step_, other.genuine_step_);
    std::swap(impostor_step_, other.impostor_step_);
  }

  static double share(std::uint64_t part, std::uint64_t all) noexcept {
    return static_cast<double>(part) / static_cast<double>(all);
  }
  double auc(const Step* steps) const noexcept {
    double twice = 0;  // of the pairs (genuine, impostor) in the right order; exact to 2^53
    std::uint64_t before = 0;
    for (std::size_t i = 0; i < steps_; ++i) {
      twice += static_cast<double>(steps[i].impostors) * static_cast<double>(2 * before + steps[i].genuine);
      before += steps[i].genuine;
    }
    return twice / 2 / static_cast<double>(genuine_) / static_cast<double>(impostors_);
  }
  EqualErrorRate eer(const Step* steps) const noexcept {
    std::uint64_t genuine = 0, impostors = 0;
    double far0 = 0, frr0 = 1, distance0 = steps[0].distance;
    for (std::size_t i = 0; i < steps_; ++i) {
      const double far = share(impostors += steps[i].impostors, impostors_);
      const double frr = share(genuine_ - (genuine += steps[i].genuine), genuine_);
      if (far >= frr) {
        const double t = (frr0 - far0) / (frr0 - far0 + far - frr);
        return {far0 + t * (far - far0), distance0 + t * (steps[i].distance - distance0)};
      }
      far0 = far, frr0 = frr, distance0 = steps[i].distance;
    }
    return {far0, distance0};  // never reached: the last step has far = 1 and frr = 0
  }
  TarAtFar tar_at(const Step* steps, double far) const noexcept {
    if (detail::is_nan(far)) far = 0;
    const double most = far * static_cast<double>(impostors_) * (1 + 1e-12);  // 0.07 * 100 is a little over 7
    Step sum{std::nextafter(steps[0].distance, -HUGE_VAL), 0, 0};
    for (std::size_t i = 0; i < steps_ && static_cast<double>(sum.impostors + steps[i].impostors) <= most; ++i)
      sum = {steps[i].distance, sum.genuine + steps[i].genuine, sum.impostors + steps[i].impostors};
    return {far, share(sum.genuine, genuine_), sum.distance, share(sum.impostors, impostors_), most >= 1};
  }
  /// Percentiles 2.5 and 97.5, between two values on the straight line (numpy's default). Sorts.
  static Interval percentiles(double* values, std::size_t n) noexcept {
    std::sort(values, values + n, detail::less);
    const auto at = [&](double q) {
      const double place = q * static_cast<double>(n - 1);
      const auto i = static_cast<std::size_t>(place);
      return i + 1 < n ? values[i] + (place - static_cast<double>(i)) * (values[i + 1] - values[i]) : values[i];
    };
    return {at(0.025), at(0.975)};
  }

  std::size_t steps_ = 0;
  std::uint64_t genuine_ = 0, impostors_ = 0;
  Buffer<Step> step_;                                   // the first steps_ of it, by distance
  Buffer<std::uint32_t> genuine_step_, impostor_step_;  // the step of each pair
};

// ---- Calibration ----------------------------------------------------------------------------------------------------

/// Impostor pairs that a false accept rate needs to be claimed: 3 / far. With none accepted among so many, the FAR is
/// below with 95% confidence (the rule of three).
inline std::uint64_t impostors_needed(double far) noexcept {
  if (detail::is_nan(far)) return UINT64_MAX;
  return far > 0 && far < 1 ? static_cast<std::uint64_t>(std::ceil(3 / far * (1 - 1e-12))) : far >= 1 ? 1 : UINT64_MAX;
}
struct ThresholdChoice {
  double threshold;
  std::uint64_t accepted, impostors;  // impostor pairs within the threshold, of all
};
/// The largest threshold at which at most far * n of the impostor pairs are accepted: half-way to the first one that is
/// not. Errors: invalid_argument (a FAR outside 0 … 1, distances that are not finite); limit_exceeded for fewer than
/// impostors_needed(far) pairs; out_of_memory.
inline Result<ThresholdChoice> choose_threshold(Span<const double> impostor_distances, double far) noexcept {
  if (!detail::is_finite(far) || far <= 0 || far >= 1)
    return {Errc::invalid_argument, "a false accept rate must lie between 0 and 1"};
  const std::size_t n = impostor_distances.size();
  if (impostor_distances.data() == nullptr && n > 0) return {Errc::invalid_argument, "there are no pairs"};
  if (n < impostors_needed(far))
    return {Errc::limit_exceeded, "there are too few impostor pairs for this false accept rate: 3 / rate are needed"};
  auto sorted = Buffer<double>::make(n, false);
  if (!sorted) return sorted.status();
  for (std::size_t i = 0; i < n; ++i) {
    if (!detail::is_finite(impostor_distances[i]) || impostor_distances[i] < 0)
      return {Errc::invalid_argument, "a distance is negative or not finite"};
    (*sorted)[i] = impostor_distances[i];
  }
  std::sort(sorted->begin(), sorted->end(), detail::less);
  const auto most =
      static_cast<std::size_t>(far * static_cast<double>(n) * (1 + 1e-12));  // below n, since far is below 1
  const double next = (*sorted)[most];  // the first that must not be accepted, nor any other of that distance
  const auto accepted =
      static_cast<std::size_t>(std::lower_bound(sorted->begin(), sorted->end(), next, detail::less) - sorted->begin());
  if (next == 0)
    return {Errc::invalid_argument, "too many impostor pairs have distance 0: is one picture filed under two persons?"};
  const double below = accepted > 0 ? (*sorted)[accepted - 1] : 0;
  const double middle = below + (next - below) / 2;
  return ThresholdChoice{middle < next ? middle : below, accepted, n};
}

FACENET_END

#include "facenet/base/macros_pop.inc"
