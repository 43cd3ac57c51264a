#include "command/engine/decision.hpp"

#include <cmath>

namespace command {

const char* word(Verdict verdict) {
  switch (verdict) {
    case Verdict::known:
      return "known";
    case Verdict::ambiguous:
      return "ambiguous";
    case Verdict::skipped:
      return "skipped";
    case Verdict::unknown:
      break;
  }
  return "unknown";
}

Verdict decide(const std::vector<double>& nearest, const DecisionRules& rules) {
  if (nearest.empty() || !(nearest[0] <= rules.threshold)) return Verdict::unknown;
  if (nearest.size() == 1) return Verdict::known;
  const double ahead = nearest[1] - nearest[0];
  return ahead > 0 && ahead >= rules.margin ? Verdict::known : Verdict::ambiguous;
}

std::vector<std::vector<std::size_t>> same_names(const std::vector<std::string>& names) {
  std::vector<std::vector<std::size_t>> same(names.size());
  for (std::size_t i = 0; i < names.size(); ++i)
    for (std::size_t k = 0; k < names.size() && !names[i].empty(); ++k)
      if (k != i && names[k] == names[i]) same[i].push_back(k);
  return same;
}

double chance_of_any(double far, double comparisons) { return -std::expm1(comparisons * std::log1p(-far)); }

double chance_of_each(double any, double comparisons) { return -std::expm1(std::log1p(-any) / comparisons); }

}  // namespace command
