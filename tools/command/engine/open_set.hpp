// How often a gallery names strangers, and how often it misses its own, from pictures whose persons are known.
#pragma once

#include <cstddef>
#include <vector>

#include "facenet/evaluate.hpp"

namespace command {

/// At one threshold, among N enrolled persons.
struct OpenSetRates {
  double fpir;                                     // of strangers' faces, how many are given a name
  double fnir;                                     // of enrolled persons' faces, how many are given none, or another's
  facenet::Interval fpir_interval, fnir_interval;  // 95%
};

/// Persons with all their pictures enrolled; each picture looks for each person but its own, and for its own person's
/// other pictures. A distance to a person is that to the nearest picture, as a search has it.
///
/// Up to as many persons as there are others, rates are averages over all galleries of N persons that can be drawn from
/// the data, which is exact (hypergeometric), no sample. Of a larger gallery nothing was measured: persons then count
/// as independent, 1 - (1 - f)^N, with f the share of (stranger's face, person) accepted. Where some strangers resemble
/// more persons than others do, that is above the truth (Jensen's inequality). Every person weighs the same, however
/// many pictures there are of them.
///
/// Intervals are Wilson's with a trial for each person, as in evaluate.hpp, since pictures of one person are no
/// independent trials; of a larger gallery, with one for each pair of persons, before the power.
class OpenSet {
 public:
  /// owner[i]: the person of picture i, any numbers. Of so many pictures that distances would fill 160 MB, every
  /// second, third, … looks for persons; all are enrolled.
  explicit OpenSet(const std::vector<int>& owner);
  /// Of each two pictures, once.
  void pair(std::size_t i, std::size_t k, double distance);

  std::size_t persons() const { return pictures_of_.size(); }
  /// Whether a gallery of so many can be drawn, so that rates are measured.
  bool drawn(std::size_t gallery) const { return gallery < persons(); }
  /// The largest threshold, half-way to the next distance, at which the FPIR is not above. Below 0 where that is no
  /// threshold at all: faces of different persons are equal.
  double threshold(std::size_t gallery, double fpir);
  OpenSetRates at(double threshold, std::size_t gallery) const;

 private:
  struct Event {
    double distance;
    std::size_t probe;
  };
  static constexpr std::size_t none = static_cast<std::size_t>(-1);

  double* row(std::size_t picture) { return &nearest_[probe_[picture] * persons()]; }
  double weight(std::size_t probe) const;
  /// A gallery of n of the others, `wrong` of which would be taken: how probable it is that none of these is in it.
  double none_drawn(std::size_t wrong, std::size_t n) const;

  std::vector<std::size_t> person_;       // of each picture, 0 to persons() - 1
  std::vector<std::size_t> probe_;        // of each picture: its row, or none
  std::vector<std::size_t> owner_;        // of each probe: its person
  std::vector<std::size_t> pictures_of_;  // of each person
  std::vector<std::size_t> probes_of_;    // of each person
  std::vector<double> nearest_;           // [probe][person]
};

/// What a claim of an FPIR needs, by the rule of three twice: each person is one stranger, so 3 / fpir persons; and
/// each pair of persons is one comparison, so 3 / f pairs, where a gallery whose persons are each taken with
/// probability f has that FPIR.
struct OpenSetNeeds {
  std::size_t persons, pairs;  // persons: enough for both
};
OpenSetNeeds needs_of(std::size_t gallery, double fpir);

}  // namespace command
