// How alike two faces are, from 0 to 1, as clients of the /api/v1 interface take it: 0.5 is the threshold.
#pragma once

#include <string>

#include "facenet/embedder.hpp"

namespace command::service {

/// similarity = (tanh((centre - d) slope) + 1) / 2 of a Euclidean distance d.
struct SimilarityScale {
  double centre, slope;
  std::string source;  // where the two numbers are from: an answer with status=true says it

  double of(double distance) const;
  /// The formula with its numbers and their source, for people.
  std::string text() const;
};

/// The published numbers where the weights are one of the two models that have some. Else the scale is centred on
/// `threshold`; `option` is what --threshold said, "" for the model's own.
SimilarityScale similarity_scale(const facenet::ModelInfo& info, const std::string& option, double threshold);

}  // namespace command::service
