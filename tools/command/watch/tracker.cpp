#include "command/watch/tracker.hpp"

#include <algorithm>
#include <cmath>

namespace command {

namespace {

struct Pair {
  float merit;
  std::size_t track, box;
};

/// The pairs of most merit first, each track and each box once.
void take_best(std::vector<Pair>& pairs, std::vector<bool>& tracks, std::vector<bool>& boxes,
               std::vector<Pair>& taken) {
  std::sort(pairs.begin(), pairs.end(), [](const Pair& a, const Pair& b) {
    return a.merit != b.merit ? a.merit > b.merit : a.track != b.track ? a.track < b.track : a.box < b.box;
  });
  for (const Pair& p : pairs) {
    if (tracks[p.track] || boxes[p.box]) continue;
    tracks[p.track] = boxes[p.box] = true;
    taken.push_back(p);
  }
  pairs.clear();
}

float centre_x(const TrackBox& b) { return (b.x0 + b.x1) / 2; }
float centre_y(const TrackBox& b) { return (b.y0 + b.y1) / 2; }
float side(const TrackBox& b) { return std::sqrt(b.area()); }

}  // namespace

float overlap(const TrackBox& a, const TrackBox& b) {
  const TrackBox both{std::max(a.x0, b.x0), std::max(a.y0, b.y0), std::min(a.x1, b.x1), std::min(a.y1, b.y1)};
  const float common = both.area(), all = a.area() + b.area() - common;
  return all > 0 ? common / all : 0;
}

TrackBox Tracker::expected(const Track& track, double seconds) const {
  // Someone who was hidden for long has not walked on in a straight line.
  const auto ahead = static_cast<float>(std::min(seconds - track.seen, options_.fresh_s));
  const float dx = track.moves ? track.dx * ahead : 0, dy = track.moves ? track.dy * ahead : 0;
  return {track.box.x0 + dx, track.box.y0 + dy, track.box.x1 + dx, track.box.y1 + dy};
}

void Tracker::move(Track& track, double seconds, const TrackBox& box) {
  const double passed = seconds - track.seen;
  if (passed > 0) {
    const float dx = static_cast<float>((centre_x(box) - centre_x(track.box)) / passed);
    const float dy = static_cast<float>((centre_y(box) - centre_y(track.box)) / passed);
    // Half of it from before: a detector's box jitters by some per cent of its side.
    track.dx = track.moves ? (track.dx + dx) / 2 : dx;
    track.dy = track.moves ? (track.dy + dy) / 2 : dy;
    track.moves = true;
  }
  track.box = box;
  track.seen = seconds;
}

void Tracker::match(double seconds, const std::vector<TrackBox>& boxes, std::vector<std::uint64_t>& ids) {
  ids.assign(boxes.size(), none);
  std::vector<bool> track_taken(tracks_.size()), box_taken(boxes.size());
  std::vector<Pair> pairs, taken;
  std::vector<TrackBox> where(tracks_.size());
  for (std::size_t t = 0; t < tracks_.size(); ++t) where[t] = expected(tracks_[t], seconds);
  for (std::size_t t = 0; t < tracks_.size(); ++t)
    for (std::size_t b = 0; b < boxes.size() && seconds - tracks_[t].seen <= options_.overlap_s; ++b) {
      const float o = overlap(where[t], boxes[b]);
      if (o >= options_.least_overlap) pairs.push_back({o, t, b});
    }
  take_best(pairs, track_taken, box_taken, taken);
  // A walker's second box need not overlap the first, and its speed is not known then.
  for (std::size_t t = 0; t < tracks_.size(); ++t)
    for (std::size_t b = 0; b < boxes.size(); ++b) {
      if (track_taken[t] || box_taken[b] || seconds - tracks_[t].seen > options_.fresh_s) continue;
      const float from = side(where[t]), to = side(boxes[b]);
      if (!(from > 0 && to > 0) || std::max(from / to, to / from) > options_.most_growth) continue;
      const float way = std::hypot(centre_x(boxes[b]) - centre_x(where[t]), centre_y(boxes[b]) - centre_y(where[t]));
      if (way <= options_.reach * std::max(from, to)) pairs.push_back({-way, t, b});
    }
  take_best(pairs, track_taken, box_taken, taken);
  for (const Pair& p : taken) {
    move(tracks_[p.track], seconds, boxes[p.box]);
    ids[p.box] = tracks_[p.track].id;
  }
}

std::uint64_t Tracker::begin(double seconds, const TrackBox& box) {
  if (tracks_.size() >= options_.most_tracks) return none;
  tracks_.push_back({++last_, box, seconds, 0, 0, false});
  return last_;
}

bool Tracker::revive(std::uint64_t id, double seconds, const TrackBox& box) {
  for (Track& t : tracks_) {
    if (t.id != id || t.seen >= seconds) continue;
    t.box = box;
    t.seen = seconds;
    t.moves = false;  // it was elsewhere
    return true;
  }
  return false;
}

void Tracker::lost(double seconds, std::vector<std::uint64_t>& ids) const {
  ids.clear();
  for (const Track& t : tracks_)
    if (t.seen < seconds) ids.push_back(t.id);
}

void Tracker::expire(double seconds, std::vector<std::uint64_t>& ids) {
  ids.clear();
  const auto ended = [&](const Track& t) { return seconds - t.seen > options_.lost_s; };
  for (const Track& t : tracks_)
    if (ended(t)) ids.push_back(t.id);
  tracks_.erase(std::remove_if(tracks_.begin(), tracks_.end(), ended), tracks_.end());
}

void Tracker::clear(std::vector<std::uint64_t>& ids) {
  ids.clear();
  for (const Track& t : tracks_) ids.push_back(t.id);
  tracks_.clear();
}

}  // namespace command
