#include "command/engine/growing_clusters.hpp"

#include <algorithm>
#include <cfloat>

namespace command {

namespace {

constexpr int most_rounds = 100;            // as cluster's; a handful is usual
constexpr std::size_t faces_at_once = 512;  // whose neighbours are searched in one call: 2 MB of matches

/// The order in which equal votes are decided: those of the gallery first, then the older ones.
bool before(std::int64_t a, std::int64_t b) {
  if ((a > 0) != (b > 0)) return a > 0;
  return a > 0 ? a < b : a > b;
}

}  // namespace

facenet::Result<GrowingClusters> GrowingClusters::make(int dim, const GrowingOptions& options) {
  facenet::GalleryOptions o;
  o.threads = options.threads;
  auto index = facenet::Gallery::make(dim, o);
  if (!index) return index.status();
  GrowingClusters clusters;
  clusters.options_ = options;
  clusters.index_ = std::move(*index);
  return clusters;
}

facenet::Status GrowingClusters::add(Person person, std::uint64_t picture, bool settled,
                                     facenet::Span<const float> embedding, Slot& slot) {
  slot = static_cast<Slot>(faces_.size());
  FACENET_TRY(index_.add(slot, 0, embedding));
  faces_.push_back({person != 0 ? person : next_--, picture, settled, person == 0, true});
  pictures_[picture].push_back(slot);
  return {};
}

facenet::Status GrowingClusters::renew(Slot slot, std::uint64_t picture, facenet::Span<const float> embedding) {
  FACENET_TRY(index_.update(slot, embedding));
  std::vector<Slot>& before = pictures_[faces_[slot].picture];
  before.erase(std::remove(before.begin(), before.end(), slot), before.end());
  faces_[slot].picture = picture;
  pictures_[picture].push_back(slot);
  return {};
}

void GrowingClusters::remove(Slot slot) {
  faces_[slot].there = false;
  std::vector<Slot>& others = pictures_[faces_[slot].picture];
  others.erase(std::remove(others.begin(), others.end(), slot), others.end());
  (void)index_.remove(slot);  // it is there
}

void GrowingClusters::renumber(const std::map<Person, Person>& numbers) {
  for (Face& face : faces_) {
    const auto at = face.person < 0 ? numbers.find(face.person) : numbers.end();
    if (at != numbers.end()) face.person = at->second;
  }
}

bool GrowingClusters::movable(Slot slot) const {
  const Face& face = faces_[slot];
  return face.there && !face.settled && (face.fresh || named_.count(face.person) == 0);
}

facenet::Status GrowingClusters::find_neighbours(const std::vector<Slot>& faces) {
  std::vector<Slot> missing;
  for (const Slot slot : faces)
    if (faces_[slot].there && near_.count(slot) == 0) missing.push_back(slot);
  const auto dim = static_cast<std::size_t>(index_.dim());
  constexpr int most = most_neighbours + 1;  // the face itself
  std::vector<float> queries;
  std::vector<facenet::Match> matches;
  std::vector<int> found;
  for (std::size_t from = 0; from < missing.size(); from += faces_at_once) {
    const std::size_t n = std::min(faces_at_once, missing.size() - from);
    queries.resize(n * dim);
    matches.resize(n * most);
    found.resize(n);
    for (std::size_t i = 0; i < n; ++i) FACENET_TRY(index_.get(missing[from + i], {queries.data() + i * dim, dim}));
    FACENET_TRY(index_.search(queries, most, matches, found));
    for (std::size_t i = 0; i < n; ++i) {
      const Slot slot = missing[from + i];
      Neighbours& near = near_[slot];
      const double reach = options_.threshold + options_.margin;
      near.cut_short = found[i] == most && matches[(i + 1) * most - 1].distance <= reach;
      for (int k = 0; k < found[i]; ++k) {
        const facenet::Match& match = matches[i * most + static_cast<std::size_t>(k)];
        const auto other = static_cast<Slot>(match.id);
        if (other == slot || match.distance > reach) continue;
        if (!options_.collages && faces_[other].picture == faces_[slot].picture) continue;
        near.list.push_back({other, static_cast<float>(match.distance)});
      }
    }
  }
  return {};
}

bool GrowingClusters::between_names(Slot slot) {
  if (options_.margin <= 0) return false;
  const Neighbours& near = neighbours(slot);
  Person first = 0;
  float least = 0;
  for (const Neighbour& n : near.list) {
    const Person person = faces_[n.slot].person;
    if (named_.count(person) == 0) continue;
    if (first == 0 && n.distance <= static_cast<float>(options_.threshold)) first = person, least = n.distance;
    if (first != 0 && person != first) return static_cast<double>(n.distance - least) < options_.margin;
  }
  // So many of one person's stand in front that the list may end before the other person begins.
  if (first == 0 || !near.cut_short || near.list.back().distance - least >= static_cast<float>(options_.margin))
    return false;
  std::vector<float> mine(static_cast<std::size_t>(index_.dim())), other(mine.size());
  if (!index_.get(slot, mine).ok()) return false;
  for (Slot s = 0; s < faces_.size(); ++s) {
    const Face& face = faces_[s];
    if (!face.there || s == slot || face.person == first || named_.count(face.person) == 0) continue;
    if (!options_.collages && face.picture == faces_[slot].picture) continue;
    if (index_.get(s, other).ok() && facenet::distance(mine, other) - static_cast<double>(least) < options_.margin)
      return true;
  }
  return false;
}

GrowingClusters::Slot GrowingClusters::rival(Slot slot, Person person) const {
  if (options_.collages) return slot;
  for (const Slot other : pictures_.at(faces_[slot].picture))
    if (other != slot && faces_[other].person == person) return other;
  return slot;
}

facenet::Status GrowingClusters::distance_to(Slot slot, Person person, float& distance) {
  FACENET_TRY(find_neighbours({slot}));
  distance = FLT_MAX;
  for (const Neighbour& n : neighbours(slot).list)
    if (faces_[n.slot].person == person) distance = std::min(distance, n.distance);
  return {};
}

facenet::Status GrowingClusters::choose(Slot slot, Person& chosen, Slot& evicted) {
  struct Votes {
    int count = 0;
    float least = FLT_MAX;
  };
  std::map<Person, Votes> votes;
  for (const Neighbour& n : neighbours(slot).list) {
    if (static_cast<double>(n.distance) > options_.threshold) break;  // they are in order
    Votes& v = votes[faces_[n.slot].person];
    ++v.count;
    v.least = std::min(v.least, n.distance);
  }
  const bool nameless = between_names(slot);
  const auto allowed = [&](Person person) {
    return refused_.count({slot, person}) == 0 && !(nameless && named_.count(person) != 0);
  };
  chosen = 0;
  evicted = slot;
  int most = 0;
  for (const auto& [person, v] : votes) {
    if (v.count < most || (v.count == most && !before(person, chosen)) || !allowed(person)) continue;
    const Slot other = rival(slot, person);
    if (other != slot) {
      float theirs = 0;
      if (!movable(other)) continue;
      FACENET_TRY(distance_to(other, person, theirs));
      if (theirs <= v.least) continue;
    }
    chosen = person, most = v.count, evicted = other;
  }
  if (chosen != 0) return {};
  // Nobody else will have it: it stays where it is, or is alone.
  const Person now = faces_[slot].person;
  evicted = slot;
  chosen = allowed(now) && rival(slot, now) == slot && (named_.count(now) == 0 || !faces_[slot].fresh) ? now : next_--;
  return {};
}

void GrowingClusters::give(Slot slot, Person person, std::vector<Slot>& moved) {
  faces_[slot].person = person;
  if (moved_.insert(slot).second) moved.push_back(slot);
}

facenet::Status GrowingClusters::settle(const std::vector<Slot>& faces, std::vector<Slot>& moved) {
  moved.clear();
  moved_.clear();
  near_.clear();
  std::map<Slot, Person> was;
  for (const Slot slot : faces) faces_[slot].fresh = true;
  std::vector<Slot> wave(faces.begin(), faces.end());
  facenet::Status status;
  for (int round = 0; round < most_rounds && !wave.empty() && status.ok(); ++round) {
    std::vector<Slot> looked;
    for (const Slot slot : wave)
      if (movable(slot)) looked.push_back(slot);
    status = find_neighbours(looked);
    std::set<Slot> next;
    for (std::size_t i = 0; i < looked.size() && status.ok(); ++i) {
      const Slot slot = looked[i];
      Person person = 0;
      Slot evicted = slot;
      status = choose(slot, person, evicted);
      if (!status.ok()) break;
      if (person == faces_[slot].person) continue;
      was.insert({slot, faces_[slot].person});
      if (evicted != slot) {
        was.insert({evicted, faces_[evicted].person});
        give(evicted, next_--, moved);
        next.insert(evicted);
      }
      give(slot, person, moved);
      for (const Neighbour& n : neighbours(slot).list)
        if (faces_[n.slot].person != person) next.insert(n.slot);
    }
    wave.assign(next.begin(), next.end());
  }
  for (const Slot slot : faces) faces_[slot].fresh = false;
  // Who went and came back has not moved.
  moved.erase(
      std::remove_if(moved.begin(), moved.end(), [&](Slot slot) { return was.at(slot) == faces_[slot].person; }),
      moved.end());
  near_.clear();
  moved_.clear();
  return status;
}

}  // namespace command
