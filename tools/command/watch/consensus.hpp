// Who a track is, from several of its frames: weighted votes, and nobody where they do not agree.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <vector>

namespace command {

struct ConsensusOptions {
  double threshold = 1;      // distances up to it are one person's
  double margin = 0.05;      // a frame whose second person is nearer than this to the first votes for nobody
  int least_votes = 3;       // frames that name the person
  double least_share = 0.5;  // of all frames that were looked at: more than that name the person
  double lead = 2;           // the person's weight is at least so many times the next one's
  double full_area = 4000;   // square pixels of a face whose vote has its full weight
};

/// What the gallery says of one frame's face.
struct Ballot {
  std::uint64_t person = 0;                                    // the nearest
  double distance = std::numeric_limits<double>::infinity();   // of the nearest; infinite where the gallery is empty
  double runner_up = std::numeric_limits<double>::infinity();  // distance of the nearest other person
  double area = 0;                                             // of the face's box
};

/// Of all ballots so far.
struct Standing {
  bool named = false;                                         // the rules name `person`
  std::uint64_t person = 0;                                   // who leads, if anybody
  int votes = 0;                                              // for `person`
  int frames = 0;                                             // ballots, those for nobody too
  double weight = 0, runner_up = 0;                           // sums of the leader's votes and of the next one's
  double distance = std::numeric_limits<double>::infinity();  // the least of the leader's
};

/// A vote weighs min(area, full_area) / full_area * (threshold - distance) / threshold: a large face near to the
/// person's says more than a small one just inside of the threshold.
class Consensus {
 public:
  explicit Consensus(ConsensusOptions options = {}) : options_(options) {}

  void add(const Ballot& ballot);
  Standing standing() const;
  /// When no more ballots come. Each is of the mean of all frames so far (MeanFace), so the last one is the best: where
  /// the votes agree on nobody, it names the person it is for, if there were enough ballots and `lead` holds.
  Standing last_standing() const;

 private:
  struct Candidate {
    std::uint64_t person;
    int votes;
    double weight, distance;
  };
  Standing of(const Candidate& candidate) const;

  ConsensusOptions options_;
  std::vector<Candidate> candidates_;
  int frames_ = 0;
  std::optional<std::uint64_t> last_;  // whom the last ballot was for
};

/// What a visit's face looks like in all of its frames that were embedded: their mean, in which what a single frame
/// adds of pose and light cancels out. A better frame weighs more.
class MeanFace {
 public:
  /// normalised: as the network's embeddings are. quality > 0.
  const std::vector<float>& add(const std::vector<float>& embedding, double quality, bool normalised);

 private:
  std::vector<double> sum_;
  std::vector<float> mean_;
  double weight_ = 0;
};

}  // namespace command
