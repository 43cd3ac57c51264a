// Whose a face is, from the distances to the persons nearest to it, and what else an identification has to say. Pure
// functions for every door: they know neither model nor gallery, and no ISA.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace command {

/// skipped: the face was left out before anybody was looked for.
enum class Verdict { known, unknown, ambiguous, skipped };
/// "known", …
const char* word(Verdict verdict);

struct DecisionRules {
  double threshold = 0;  // the largest distance of one person's faces
  double margin = 0;     // another person less than this farther away than the nearest: nobody is named
  /// A search for the nearest persons up to this distance finds all that decide() needs, if it returns `persons`.
  double reach() const { return threshold + margin; }
  static constexpr int persons = 2;
};

/// `nearest`: distances to different persons, each by the nearest of their templates, in ascending order; at least the
/// first two where there are two within reach(). The runner-up counts though it is beyond the threshold. Two persons at
/// one distance are ambiguous whatever the margin: nothing tells them apart. A rule or a distance that is not a number
/// names nobody.
Verdict decide(const std::vector<double>& nearest, const DecisionRules& rules);

/// The faces of one picture are never one person's. For each of them, the others that were given the same name; "" is a
/// face without a name, and those share nothing.
std::vector<std::vector<std::size_t>> same_names(const std::vector<std::string>& names);

/// The share of strangers' faces that a gallery names: at least one of `comparisons` is accepted, each with probability
/// `far`. It takes comparisons for independent; docs/recognition.md says when that is too high and when too low.
double chance_of_any(double far, double comparisons);
/// The inverse: the probability of each at which that of any is `any`.
double chance_of_each(double any, double comparisons);

}  // namespace command
