#include "command/engine/face_choice.hpp"

#include <algorithm>
#include <cstdio>

namespace command {

std::vector<Fails> failed_limits(const std::vector<FaceMeasures>& faces, const FaceLimits& limits) {
  double largest = 0;
  for (const FaceMeasures& face : faces)
    if (face.score >= limits.score) largest = std::max(largest, face.area);
  std::vector<Fails> failed;
  for (const FaceMeasures& face : faces)
    failed.push_back(face.score < limits.score           ? Fails::score
                     : face.area < limits.area * largest ? Fails::area
                     : face.quality < limits.quality     ? Fails::quality
                                                         : Fails::none);
  return failed;
}

std::string why(Fails limit, const FaceMeasures& face, const FaceLimits& limits) {
  char text[100] = "";
  // Digits enough that a value just below its limit does not look like it.
  if (limit == Fails::score) std::snprintf(text, sizeof text, "its score %.4g is below %g", face.score, limits.score);
  if (limit == Fails::area)
    std::snprintf(text, sizeof text, "its area is less than %g of the largest face's", limits.area);
  if (limit == Fails::quality)
    std::snprintf(text, sizeof text, "its quality %.3g is below %g", face.quality, limits.quality);
  return text;
}

}  // namespace command
