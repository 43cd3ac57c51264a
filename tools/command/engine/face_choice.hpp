// Which of a picture's faces count.
#pragma once

#include <string>
#include <vector>

#include "command/options.hpp"

namespace command {

/// What enrolment asks unless told otherwise: passers-by in the background and what only resembles a face are not
/// meant.
constexpr double enrolled_score = 0.9, enrolled_area = 0.1;

struct FaceMeasures {
  double score, area, quality;
};

/// The limit that a face fails first, in this order.
enum class Fails { none, score, area, quality };
std::vector<Fails> failed_limits(const std::vector<FaceMeasures>& faces, const FaceLimits& limits);

/// "its score 0.62 is below 0.9"; "" for none.
std::string why(Fails limit, const FaceMeasures& face, const FaceLimits& limits);

}  // namespace command
