#include "command/watch/consensus.hpp"

#include <algorithm>
#include <cmath>

namespace command {

void Consensus::add(const Ballot& b) {
  ++frames_;
  last_.reset();
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
  last_ = b.person;
}

Standing Consensus::standing() const {
  const Candidate* best = nullptr;
  for (const Candidate& c : candidates_)
    if (best == nullptr || c.weight > best->weight) best = &c;
  if (best == nullptr) {
    Standing s;
    s.frames = frames_;
    return s;
  }
  Standing s = of(*best);
  s.named = s.votes >= options_.least_votes && s.votes > options_.least_share * s.frames && s.weight > 0 &&
            s.weight >= options_.lead * s.runner_up;
  return s;
}

Standing Consensus::last_standing() const {
  const Standing s = standing();
  if (s.named || !last_ || frames_ < options_.least_votes) return s;
  for (const Candidate& c : candidates_) {
    if (c.person != *last_) continue;
    Standing last = of(c);
    last.named = last.weight > 0 && last.weight >= options_.lead * last.runner_up;
    if (last.named) return last;
  }
  return s;
}

Standing Consensus::of(const Candidate& candidate) const {
  Standing s;
  s.frames = frames_;
  for (const Candidate& c : candidates_)
    if (&c != &candidate) s.runner_up = std::max(s.runner_up, c.weight);
  s.person = candidate.person;
  s.votes = candidate.votes;
  s.weight = candidate.weight;
  s.distance = candidate.distance;
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
