#include "command/watch/consensus.hpp"

#include <algorithm>
#include <cmath>

namespace command {

void Consensus::add(const Ballot& b) {
  ++frames_;
  // At the threshold a vote weighs nothing, so it is none.
  if (!(b.distance < options_.threshold) || b.runner_up - b.distance < options_.margin) return;
  const double weight = std::min(std::max(b.area, 0.0), options_.full_area) / options_.full_area *
                        (options_.threshold - b.distance) / options_.threshold;
  auto at =
      std::find_if(candidates_.begin(), candidates_.end(), [&](const Candidate& c) { return c.person == b.person; });
  if (at == candidates_.end()) at = candidates_.insert(at, {b.person, 0, 0, b.distance});
  ++at->votes;
  at->weight += weight;
  at->distance = std::min(at->distance, b.distance);
}

Standing Consensus::standing() const {
  Standing s;
  s.frames = frames_;
  const Candidate* best = nullptr;
  for (const Candidate& c : candidates_)
    if (best == nullptr || c.weight > best->weight) best = &c;
  if (best == nullptr) return s;
  for (const Candidate& c : candidates_)
    if (&c != best) s.runner_up = std::max(s.runner_up, c.weight);
  s.person = best->person;
  s.votes = best->votes;
  s.weight = best->weight;
  s.distance = best->distance;
  s.named = s.votes >= options_.least_votes && s.votes > options_.least_share * s.frames && s.weight > 0 &&
            s.weight >= options_.lead * s.runner_up;
  return s;
}

const std::vector<float>& MeanFace::add(const std::vector<float>& embedding, double quality, bool normalised) {
  sum_.resize(embedding.size());
  weight_ += quality;
  for (std::size_t i = 0; i < sum_.size(); ++i) sum_[i] += quality * static_cast<double>(embedding[i]);
  double length = 0;
  for (const double x : sum_) length += x * x;
  const double scale = normalised ? std::sqrt(length) : weight_;
  mean_ = embedding;
  for (std::size_t i = 0; i < sum_.size() && scale > 0; ++i) mean_[i] = static_cast<float>(sum_[i] / scale);
  return mean_;
}

}  // namespace command
