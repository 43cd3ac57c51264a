#include "command/watch/visits.hpp"

namespace command {

VisitEvent Visits::event(VisitEvent::Kind kind, std::uint64_t track, const Visit& v) const {
  return {kind, track, v.last, v.first, v.last_frame, v.box, v.best, v.best_frame, v.frames, v.standing};
}

void Visits::seen(std::uint64_t track, double seconds, std::uint64_t frame, const TrackBox& box,
                  std::vector<VisitEvent>& events) {
  const auto [at, is_new] = visits_.try_emplace(track);
  Visit& v = at->second;
  if (is_new) {
    v.first = seconds;
    v.best_frame = frame;
    v.consensus = Consensus(consensus_);
  }
  v.last = seconds;
  v.last_frame = frame;
  v.box = box;
  ++v.frames;
  if (v.arrived || v.frames < static_cast<std::uint64_t>(options_.arrival_frames)) return;
  v.arrived = true;
  ++arrivals_;
  events.push_back(event(VisitEvent::Kind::arrival, track, v));
  if (options_.decides && v.standing.named) decide(track, v, events);  // before it was reported
}

bool Visits::wants(std::uint64_t track, std::uint64_t frame, double quality) {
  const auto at = visits_.find(track);
  if (at == visits_.end()) return false;
  Visit& v = at->second;
  if (quality > v.best) {
    v.best = quality;
    v.best_frame = frame;
  }
  if (!options_.decides || v.decided || v.standing.named || quality < options_.least_quality) return false;
  const bool due =
      !v.embedded || quality > options_.better * v.embedded_best || frame >= v.embedded_frame + options_.each_frames;
  return due;
}

int Visits::ballots(std::uint64_t track) const {
  const auto at = visits_.find(track);
  return at == visits_.end() ? 0 : at->second.standing.frames;
}

void Visits::vote(std::uint64_t track, double seconds, std::uint64_t frame, const Ballot& ballot,
                  std::vector<VisitEvent>& events) {
  const auto at = visits_.find(track);
  if (at == visits_.end() || at->second.decided) return;
  Visit& v = at->second;
  v.embedded = true;
  v.embedded_frame = frame;
  v.embedded_best = v.best;
  v.last = seconds;
  v.consensus.add(ballot);
  v.standing = v.consensus.standing();
  const bool all = v.standing.frames >= options_.most_frames;
  if (all) v.standing = v.consensus.last_standing();
  if (v.arrived && (v.standing.named || all)) decide(track, v, events);
}

void Visits::decide(std::uint64_t track, Visit& v, std::vector<VisitEvent>& events) {
  v.decided = true;
  events.push_back(event(VisitEvent::Kind::decision, track, v));
}

void Visits::gone(std::uint64_t track, std::vector<VisitEvent>& events) {
  const auto at = visits_.find(track);
  if (at == visits_.end()) return;
  Visit& v = at->second;
  passed_ += !v.arrived;
  if (v.arrived) {
    if (options_.decides && !v.decided) {
      v.standing = v.consensus.last_standing();
      decide(track, v, events);
    }
    events.push_back(event(VisitEvent::Kind::leaving, track, v));
  }
  visits_.erase(at);
}

void Visits::forget_ballots(const ConsensusOptions& consensus) {
  consensus_ = consensus;
  for (auto& [track, v] : visits_) {
    if (v.decided) continue;
    v.consensus = Consensus(consensus_);
    v.standing = {};
    v.embedded = false;
  }
}

}  // namespace command
