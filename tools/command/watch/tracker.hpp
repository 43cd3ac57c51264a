// Which face of a frame is which of the frame before: by where it is. Who it is, is no matter here.
#pragma once

#include <cstdint>
#include <vector>

namespace command {

struct TrackBox {
  float x0 = 0, y0 = 0, x1 = 0, y1 = 0;

  float width() const { return x1 - x0; }
  float height() const { return y1 - y0; }
  float area() const { return width() > 0 && height() > 0 ? width() * height() : 0; }
};

/// Intersection over union, 0 for boxes that do not meet.
float overlap(const TrackBox& a, const TrackBox& b);

struct TrackerOptions {
  float least_overlap = 0.2f;  // of a face with where its track is expected
  float reach = 1.0f;          // else: the centre moved by so many sides of the box at the most
  float most_growth = 1.6f;    // and the side by this factor
  double fresh_s = 0.5;        // a track that was seen so lately may be reached; later it may only overlap
  double overlap_s = 1e9;      // nor that, when it was not seen for so long: somebody else may stand there
  double lost_s = 3.0;         // a track that was not seen for so long has ended
  std::size_t most_tracks = 64;
};

/// A track is a row of boxes over time. Ids count up from 1.
class Tracker {
 public:
  static constexpr std::uint64_t none = 0;
  explicit Tracker(TrackerOptions options = {}) : options_(options) {}

  /// ids[i] is the track that boxes[i] goes on with, or none: then begin() or revive() may follow. The best overlap is
  /// taken first, then the shortest way. `seconds` never goes back.
  void match(double seconds, const std::vector<TrackBox>& boxes, std::vector<std::uint64_t>& ids);
  /// A new track; none where there are most_tracks.
  std::uint64_t begin(double seconds, const TrackBox& box);
  /// A track that match() did not find goes on with this box, wherever it was. False where there is no such track, or
  /// it was seen at this very time.
  bool revive(std::uint64_t id, double seconds, const TrackBox& box);
  /// Tracks that were not seen at `seconds`, the time of the last match().
  void lost(double seconds, std::vector<std::uint64_t>& ids) const;
  /// Removes those that have ended, and says which.
  void expire(double seconds, std::vector<std::uint64_t>& ids);
  /// Removes all.
  void clear(std::vector<std::uint64_t>& ids);
  std::size_t size() const { return tracks_.size(); }

 private:
  struct Track {
    std::uint64_t id;
    TrackBox box;
    double seen;
    float dx, dy;  // pixels a second
    bool moves;    // the two are known
  };
  TrackBox expected(const Track& track, double seconds) const;
  static void move(Track& track, double seconds, const TrackBox& box);

  TrackerOptions options_;
  std::vector<Track> tracks_;
  std::uint64_t last_ = 0;
};

}  // namespace command
