// Which faces are one person's, when nobody says who: three ways over one threshold. Layer 6.
// Labels count from 0; -1 is noise. The same labels for any number of threads.
#pragma once

#include <algorithm>

#include "facenet/distance.hpp"
#include "facenet/parallel.hpp"
#include "facenet/random.hpp"

FACENET_BEGIN

struct ClusterOptions {
  Metric metric = Metric::euclidean;
  double threshold = 1.1;  // the distance up to which two faces are neighbours: of the metric and of the model
  int threads = 0;         // 0: default_threads()
};

constexpr int max_cluster_faces = 131072;       // the graph of their neighbours takes n^2 / 8 bytes: 2 GiB
constexpr int max_average_link_faces = 32768;  // their distances take 2 n^2 bytes: 2 GiB

namespace detail {

/// Which faces are neighbours: within the threshold of each other. A bit a pair, both ways, none for a face and itself.
class NeighbourGraph {
 public:
  static Result<NeighbourGraph> make(const float* e, int n, int dim, const ClusterOptions& options) noexcept {
    if (n < 1) return {Errc::invalid_argument, "there must be at least one face"};
    if (n > max_cluster_faces) return {Errc::limit_exceeded, "up to 131,072 faces can be clustered"};
    if (!(options.threshold >= 0)) return {Errc::invalid_argument, "a threshold must be 0 or more"};
    FACENET_TRY(check_embeddings(e, static_cast<std::size_t>(n), dim));
    NeighbourGraph g;
    g.faces_ = static_cast<std::size_t>(n);
    g.words_ = (g.faces_ + 63) / 64;
    auto bits = Buffer<std::uint64_t>::make(g.faces_ * g.words_);
    if (!bits) return bits.status();
    g.bits_ = std::move(*bits);
    for (std::size_t i = 0; i < g.faces_; ++i)
      for (std::size_t j = 0; j < i; ++j)
        if (distance(options.metric, e + i * static_cast<std::size_t>(dim), e + j * static_cast<std::size_t>(dim), dim) <=
            options.threshold) {
          g.bits_[i * g.words_ + j / 64] |= std::uint64_t{1} << j % 64;
          g.bits_[j * g.words_ + i / 64] |= std::uint64_t{1} << i % 64;
        }
    return g;
  }
  std::size_t size() const noexcept { return faces_; }

  /// Calls f(j) for each neighbour j of face i, in ascending order.
  template <class F>
  void for_each(std::size_t i, F&& f) const noexcept {
    const std::uint64_t* row = bits_.data() + i * words_;
    for (std::size_t w = 0; w < words_; ++w)
      for (std::uint64_t left = row[w]; left != 0; left &= left - 1) f(w * 64 + simd::lowest_bit(left));
  }

 private:
  std::size_t faces_ = 0, words_ = 0;
  Buffer<std::uint64_t> bits_;
};

/// Sets that grow together; each is known by its smallest member.
class DisjointSets {
 public:
  static Result<DisjointSets> make(std::size_t n) noexcept {
    DisjointSets s;
    auto parent = Buffer<int>::make(n);
    if (!parent) return parent.status();
    s.parent_ = std::move(*parent);
    for (std::size_t i = 0; i < n; ++i) s.parent_[i] = static_cast<int>(i);
    return s;
  }
  std::size_t find(std::size_t i) noexcept {
    for (std::size_t up; (up = at(i)) != i; i = up) parent_[i] = parent_[up];  // halves the path
    return i;
  }
  void join(std::size_t a, std::size_t b) noexcept {
    a = find(a), b = find(b);
    if (a != b) parent_[a > b ? a : b] = static_cast<int>(a < b ? a : b);
  }

 private:
  std::size_t at(std::size_t i) const noexcept { return static_cast<std::size_t>(parent_[i]); }
  Buffer<int> parent_;
};

/// Puts 0, 1, 2 … in the place of labels 0 … n - 1 in order of first appearance; `seen` holds n values.
inline void number_by_appearance(int* labels, std::size_t n, int* seen) noexcept {
  std::fill(seen, seen + n, -1);
  for (std::size_t i = 0, count = 0; i < n; ++i) {
    int& now = seen[labels[i]];
    if (now < 0) now = static_cast<int>(count++);
    labels[i] = now;
  }
}

}  // namespace detail

/// Chinese whispers on the graph of pairs within the threshold: each face in turn, in a random order, takes the label that
/// most of its neighbours have (of several the smallest). Labels in order of first appearance; a face without neighbours is
/// alone in its cluster. At most `iterations` rounds, fewer when one changes nothing; `seed` makes the orders.
/// Biemann, "Chinese Whispers", 2006; edges all weigh 1, as in dlib's face clustering.
/// Errors: invalid_argument, limit_exceeded, out_of_memory.
inline Status chinese_whispers(const float* e, int n, int dim, const ClusterOptions& options, int iterations,
                               std::uint64_t seed, int* labels) noexcept {
  if (iterations < 1 || labels == nullptr) return {Errc::invalid_argument, "there must be at least one iteration"};
  auto graph = detail::NeighbourGraph::make(e, n, dim, options);
  if (!graph) return graph.status();
  const std::size_t faces = graph->size();
  auto order = Buffer<int>::make(faces), votes = Buffer<int>::make(faces);
  if (!order) return order.status();
  if (!votes) return votes.status();
  for (std::size_t i = 0; i < faces; ++i) labels[i] = (*order)[i] = static_cast<int>(i);
  SplitMix64 random(seed);
  bool changed = true;
  for (int round = 0; round < iterations && changed; ++round) {
    changed = false;
    for (std::size_t i = faces - 1; i > 0; --i)
      std::swap((*order)[i], (*order)[random.below(static_cast<std::uint32_t>(i + 1))]);
    for (int face : *order) {
      const auto i = static_cast<std::size_t>(face);
      const auto votes_of = [&](std::size_t j) -> int& { return (*votes)[static_cast<std::size_t>(labels[j])]; };
      int best = labels[i], most = 0;
      graph->for_each(i, [&](std::size_t j) {
        const int count = ++votes_of(j);
        if (count > most || (count == most && labels[j] < best)) most = count, best = labels[j];
      });
      graph->for_each(i, [&](std::size_t j) { votes_of(j) = 0; });
      changed = changed || best != labels[i];
      labels[i] = best;
    }
  }
  detail::number_by_appearance(labels, faces, votes->data());
  return {};
}

/// DBSCAN (Ester et al., 1996), threshold = eps: the labels of sklearn.cluster.DBSCAN, clusters numbered by their first core
/// face, noise -1. A face counts among its own min_samples neighbours; one in reach of several clusters belongs to the first.
/// Errors: invalid_argument, limit_exceeded, out_of_memory.
inline Status dbscan(const float* e, int n, int dim, const ClusterOptions& options, int min_samples, int* labels) noexcept {
  if (min_samples < 1 || labels == nullptr) return {Errc::invalid_argument, "min_samples must be 1 or more"};
  auto graph = detail::NeighbourGraph::make(e, n, dim, options);
  if (!graph) return graph.status();
  const std::size_t faces = graph->size();
  auto sets = detail::DisjointSets::make(faces);
  auto core = Buffer<std::uint8_t>::make(faces);
  if (!sets) return sets.status();
  if (!core) return core.status();
  for (std::size_t i = 0; i < faces; ++i) {
    int neighbours = 1;
    graph->for_each(i, [&](std::size_t) { ++neighbours; });
    (*core)[i] = neighbours >= min_samples;
  }
  for (std::size_t i = 0; i < faces; ++i)
    if ((*core)[i])
      graph->for_each(i, [&](std::size_t j) {
        if (j < i && (*core)[j]) sets->join(i, j);
      });
  int clusters = 0;
  for (std::size_t i = 0; i < faces; ++i) {
    labels[i] = -1;
    if (!(*core)[i]) continue;
    const std::size_t first = sets->find(i);  // the smallest of its set, so it has its label already
    labels[i] = first == i ? clusters++ : labels[first];
  }
  for (std::size_t i = 0; i < faces; ++i)
    if (!(*core)[i])
      graph->for_each(i, [&](std::size_t j) {
        if ((*core)[j] && (labels[i] < 0 || labels[j] < labels[i])) labels[i] = labels[j];
      });
  return {};
}

/// Average-link agglomerative clustering: the two nearest clusters merge while the mean distance between their faces is below
/// the threshold, as sklearn.cluster.AgglomerativeClustering(linkage="average", distance_threshold=...). Labels in order of
/// first appearance. Where two means are equal, to the last bit of a float, which pair merges first is not defined.
/// Nearest-neighbour chains (Murtagh, 1983): O(n^2). Errors: invalid_argument, limit_exceeded, out_of_memory.
inline Status average_link(const float* e, int n, int dim, const ClusterOptions& options, int* labels) noexcept {
  if (n < 1 || labels == nullptr) return {Errc::invalid_argument, "there must be at least one face"};
  if (n > max_average_link_faces)
    return {Errc::limit_exceeded, "average link takes up to 32,768 faces: their distances are 2 GiB; use DBSCAN or Chinese whispers"};
  if (!(options.threshold >= 0)) return {Errc::invalid_argument, "a threshold must be 0 or more"};
  FACENET_TRY(detail::check_embeddings(e, static_cast<std::size_t>(n), dim));
  const auto faces = static_cast<std::size_t>(n), row = static_cast<std::size_t>(dim);
  auto distances = Buffer<float>::make(faces * (faces - 1) / 2, false);
  auto sets = detail::DisjointSets::make(faces);
  auto size = Buffer<int>::make(faces), chain = Buffer<int>::make(faces), active = Buffer<int>::make(faces);
  if (!distances) return distances.status();
  if (!sets) return sets.status();
  if (!size) return size.status();
  if (!chain) return chain.status();
  if (!active) return active.status();
  const auto d = [&](std::size_t a, std::size_t b) -> float& {  // the row of the larger index
    return a > b ? (*distances)[a * (a - 1) / 2 + b] : (*distances)[b * (b - 1) / 2 + a];
  };
  for (std::size_t i = 0; i < faces; ++i) {
    (*size)[i] = 1;
    (*active)[i] = static_cast<int>(i);
    for (std::size_t j = 0; j < i; ++j)
      d(i, j) = static_cast<float>(distance(options.metric, e + i * row, e + j * row, dim));
  }

  // A chain goes from a cluster to its nearest, from there to its nearest, … until two are each other's: they merge. One
  // whose nearest is at the threshold or beyond never merges again, since no mean of larger distances is smaller.
  std::size_t left = faces, length = 0;
  const auto retire = [&](std::size_t cluster) {
    int* at = std::lower_bound(active->data(), active->data() + left, static_cast<int>(cluster));
    std::copy(at + 1, active->data() + left--, at);
  };
  while (left > 1 || length > 0) {
    if (length == 0) (*chain)[length++] = (*active)[0];
    const auto top = static_cast<std::size_t>((*chain)[length - 1]);
    std::size_t nearest = length > 1 ? static_cast<std::size_t>((*chain)[length - 2]) : top;  // preferred among equals: chains end
    float least = length > 1 ? d(top, nearest) : HUGE_VALF;
    for (std::size_t k = 0; k < left; ++k) {
      const auto other = static_cast<std::size_t>((*active)[k]);
      if (other != top && d(top, other) < least) least = d(top, other), nearest = other;
    }
    if (!(static_cast<double>(least) < options.threshold)) {
      retire(top);
      --length;
      continue;
    }
    if (length < 2 || nearest != static_cast<std::size_t>((*chain)[length - 2])) {
      (*chain)[length++] = static_cast<int>(nearest);
      continue;
    }
    length -= 2;
    const std::size_t keep = top < nearest ? top : nearest, gone = top < nearest ? nearest : top;
    const double keeps = (*size)[keep], goes = (*size)[gone];
    retire(gone);
    for (std::size_t k = 0; k < left; ++k) {
      const auto other = static_cast<std::size_t>((*active)[k]);
      if (other == keep) continue;
      float& to = d(keep, other);
      to = static_cast<float>((keeps * static_cast<double>(to) + goes * static_cast<double>(d(gone, other))) / (keeps + goes));
    }
    (*size)[keep] += (*size)[gone];
    sets->join(keep, gone);
  }
  for (std::size_t i = 0; i < faces; ++i) labels[i] = static_cast<int>(sets->find(i));
  detail::number_by_appearance(labels, faces, chain->data());
  return {};
}

FACENET_END
