// Someone comes, is decided upon once, and leaves: what there is to report of a track.
#pragma once

#include <map>
#include <vector>

#include "command/watch/consensus.hpp"
#include "command/watch/tracker.hpp"

namespace command {

struct VisitOptions {
  int arrival_frames = 2;  // frames with the face before it is reported: a detector's false alarm seldom comes twice
  int most_frames = 12;    // ballots, after which a face that nobody was found for is unknown
  double least_quality = 0.02;    // frames below are not embedded
  double better = 1.1;            // a frame is embedded where its quality is so many times the best one's so far,
  std::uint64_t each_frames = 2;  // or so many frames after the last one
  bool decides = true;            // false: there is no gallery, and nothing to embed for
};

struct VisitEvent {
  enum class Kind { arrival, decision, leaving };
  Kind kind;
  std::uint64_t visit;
  double seconds, arrived;  // now, and when the face was first seen
  std::uint64_t frame;      // now
  TrackBox box;             // where the face was last
  double quality;           // of the best frame
  std::uint64_t best_frame;
  std::uint64_t frames;  // with the face
  Standing standing;     // named: who it is, which no later event of the visit changes
};

class Visits {
 public:
  Visits(VisitOptions options, ConsensusOptions consensus) : options_(options), consensus_(consensus) {}

  /// The face of a track is in a frame. `events` are added to; so below.
  void seen(std::uint64_t track, double seconds, std::uint64_t frame, const TrackBox& box,
            std::vector<VisitEvent>& events);
  /// The quality in this frame. True: embed the face, and put the ballot to vote().
  bool wants(std::uint64_t track, std::uint64_t frame, double quality);
  /// How many ballots a track has: those with the fewest come first.
  int ballots(std::uint64_t track) const;
  void vote(std::uint64_t track, double seconds, std::uint64_t frame, const Ballot& ballot,
            std::vector<VisitEvent>& events);
  /// The track has ended: a decision where there was none, then the leaving; nothing where it never arrived.
  void gone(std::uint64_t track, std::vector<VisitEvent>& events);
  /// The gallery has changed: ballots so far are of the old one, and those not yet decided begin anew.
  void forget_ballots(const ConsensusOptions& consensus);

  std::uint64_t arrived() const { return arrivals_; }
  std::uint64_t passed() const { return passed_; }  // tracks that ended before they arrived

 private:
  struct Visit {
    double first = 0, last = 0;
    std::uint64_t last_frame = 0, frames = 0, best_frame = 0, embedded_frame = 0;
    TrackBox box;
    double best = 0, embedded_best = 0;
    bool arrived = false, decided = false, embedded = false;
    Consensus consensus;
    Standing standing;
  };
  VisitEvent event(VisitEvent::Kind kind, std::uint64_t track, const Visit& visit) const;
  void decide(std::uint64_t track, Visit& visit, std::vector<VisitEvent>& events);

  VisitOptions options_;
  ConsensusOptions consensus_;
  std::map<std::uint64_t, Visit> visits_;
  std::uint64_t arrivals_ = 0, passed_ = 0;
};

}  // namespace command
