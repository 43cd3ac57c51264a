// Groups faces by person without known names: three algorithms over one threshold.
// Labels count from 0; -1 is noise. The same labels for any number of threads. Each takes embeddings[n][dim] and writes
// n labels.
#pragma once
#include "facenet/base/macros_push.inc"

#include <algorithm>

#include "facenet/base/parallel.hpp"
#include "facenet/base/random.hpp"
#include "facenet/recognition/stop.hpp"
#include "facenet/recognition/template_store.hpp"

FACENET_BEGIN

struct ClusterOptions {
  Metric metric = Metric::euclidean;
  double threshold = 1.1;  // the distance up to which two faces are neighbours: of the metric and of the model
  int threads = 0;         // 0: default_threads()
  const std::atomic<bool>* cancel = nullptr;  // looked at for each face, or some; Errc::cancelled while it is set
};

constexpr int max_cluster_faces = 131072;      // the graph of their neighbours takes n^2 / 8 bytes: 2 GiB
constexpr int max_average_link_faces = 32768;  // their distances take 2 n^2 bytes: 2 GiB

namespace detail {

/// How many faces there are to label. Error: limit_exceeded with `beyond` for more than `most`, before any is read.
inline Result<int> check_faces(Span<const float> e, int dim, const ClusterOptions& options, int most,
                               const char* beyond, Span<int> labels) noexcept {
  const auto n = count_embeddings(e, dim);
  if (!n) return n.status();
  if (*n > static_cast<std::size_t>(most)) return {Errc::limit_exceeded, beyond};
  FACENET_TRY(check_room(labels, static_cast<std::int64_t>(*n)));
  if (is_nan(options.threshold) || options.threshold < 0)
    return {Errc::invalid_argument, "a threshold must be 0 or more"};
  if (options.threads < 0) return {Errc::invalid_argument, "threads must be 1 to 256"};
  FACENET_TRY(check_embeddings(e, dim));
  return static_cast<int>(*n);
}

/// Turns a 64 x 64 matrix of bits round its diagonal (Warren, "Hacker's Delight", 7-3).
inline void transpose(std::uint64_t (&row)[64]) noexcept {
  std::uint64_t mask = 0xffffffffu;
  for (std::size_t j = 32; j != 0; j >>= 1, mask ^= mask << j)
    for (std::size_t k = 0; k < 64; k = (k + j + 1) & ~j) {
      const std::uint64_t t = ((row[k] >> j) ^ row[k + j]) & mask;
      row[k] ^= t << j;
      row[k + j] ^= t;
    }
}

/// Which faces are neighbours: within the threshold of each other. A bit a pair, both ways, none for a face and itself.
/// One triangle is computed, by the register tile in float; pairs that rounding leaves in doubt are computed in double.
class NeighbourGraph {
 public:
  /// Of faces that will have `labels`.
  static Result<NeighbourGraph> make(Span<const float> embeddings, int dim, const ClusterOptions& options,
                                     Span<int> labels) noexcept {
    const auto n =
        check_faces(embeddings, dim, options, max_cluster_faces, "up to 131,072 faces can be clustered", labels);
    if (!n) return n.status();
    const float* const e = embeddings.data();
    auto team = OwnedTeam::make(options.threads == 0 ? default_threads() : options.threads);
    if (!team) return team.status();
    NeighbourGraph g;
    g.faces_ = static_cast<std::size_t>(*n);
    g.words_ = (g.faces_ + 63) / 64;
    auto bits = Buffer<std::uint64_t>::make(g.faces_ * g.words_);
    if (!bits) return bits.status();
    g.bits_ = std::move(*bits);
    Stop stop(options.cancel);
    TemplateStore store(dim, options.metric, TemplateStorage::f32);
    FACENET_TRY(store.reserve(g.faces_));

    const std::size_t width = simd::panel, row = static_cast<std::size_t>(dim);
    const auto chunks = [&](std::size_t each) { return static_cast<int>((g.faces_ + each - 1) / each); };
    team->for_chunks(chunks(width), [&](int, int chunk) {
      const auto p = static_cast<std::size_t>(chunk);
      store.open(p);
      for (std::size_t i = p * width; i < (p + 1) * width && i < g.faces_; ++i) store.put(i, e + i * row);
    });
    team->for_chunks(chunks(rows_in_chunk), [&](int, int chunk) { g.compare(store, e, options, chunk, stop); });
    team->for_chunks(static_cast<int>(g.words_), [&](int, int block) {
      if (!stop()) g.mirror(static_cast<std::size_t>(block));
    });
    if (stop()) return Stop::status();
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
  static constexpr int rows_in_chunk = 192;  // whole tiles on every ISA; a panel is read once for all of them

  /// Rows of one chunk against all faces before each.
  void compare(const TemplateStore& store, const float* e, const ClusterOptions& options, int chunk,
               Stop& stop) noexcept {
    alignas(cache_line) float score[rows_in_chunk * simd::panel];
    const float* row[rows_in_chunk];
    float norm[rows_in_chunk], limit[rows_in_chunk];
    const std::size_t dim = static_cast<std::size_t>(store.dim()),
                      first = static_cast<std::size_t>(chunk) * rows_in_chunk;
    const int rows = static_cast<int>(faces_ - first < rows_in_chunk ? faces_ - first : rows_in_chunk);
    for (int r = 0; r < rows; ++r) {
      row[r] = e + (first + static_cast<std::size_t>(r)) * dim;
      const double square = squared_norm(row[r], store.dim()), length = std::sqrt(square);
      // Neighbours: |a|^2 - 2 score <= t^2, or 1 - score / |a| <= t (score.hpp).
      const double least = options.metric == Metric::euclidean ? (square - options.threshold * options.threshold) / 2
                                                               : (1 - options.threshold) * length;
      limit[r] = static_cast<float>(least > -1e38 ? least : -1e38);
      norm[r] = static_cast<float>(length * (1 + 0x1p-22));
    }
    for (std::size_t p = 0; p * simd::panel < first + static_cast<std::size_t>(rows); ++p) {
      if (stop()) return;
      const TemplateStore::Panel panel = store.panel(p);
      kernels::score_panel(row, rows, store.dim(), static_cast<const float*>(panel.values), panel.scale, score);
      const std::size_t column = p * simd::panel;
      for (int r = 0; r < rows; ++r) {
        const std::size_t i = first + static_cast<std::size_t>(r);
        if (i <= column) continue;
        const float error = panel.error->norm * norm[r] + panel.error->constant, *s = score + r * simd::panel;
        const std::uint32_t before = i - column < simd::panel ? (1u << (i - column)) - 1 : ~0u;
        std::uint32_t sure = simd::at_least_mask(s, limit[r] + error) & before;
        std::uint32_t doubt = simd::at_least_mask(s, limit[r] - error) & before & ~sure;
        for (; doubt != 0; doubt &= doubt - 1) {
          const std::size_t j = simd::lowest_bit(doubt);
          if (distance(options.metric, row[r], e + (column + j) * dim, store.dim()) <= options.threshold)
            sure |= 1u << j;
        }
        bits_[i * words_ + column / 64] |= std::uint64_t{sure} << column % 64;
      }
    }
  }

  /// Fills the upper triangle of 64 rows from the lower one.
  void mirror(std::size_t block) noexcept {
    for (std::size_t w = block; w < words_; ++w) {
      std::uint64_t square[64] = {};
      for (std::size_t i = 0; i < 64 && w * 64 + i < faces_; ++i) square[i] = bits_[(w * 64 + i) * words_ + block];
      transpose(square);
      for (std::size_t i = 0; i < 64 && block * 64 + i < faces_; ++i) bits_[(block * 64 + i) * words_ + w] |= square[i];
    }
  }

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
inline void number_by_appearance(Span<int> labels, std::size_t n, int* seen) noexcept {
  std::fill(seen, seen + n, -1);
  for (std::size_t i = 0, count = 0; i < n; ++i) {
    int& now = seen[labels[i]];
    if (now < 0) now = static_cast<int>(count++);
    labels[i] = now;
  }
}

}  // namespace detail

/// Chinese whispers on the graph of pairs within the threshold: each face in turn, in a random order, takes the label
/// that most of its neighbours have (of several the smallest). Labels in order of first appearance; a face without
/// neighbours is alone in its cluster. At most `iterations` rounds, fewer when one changes nothing; `seed` makes the
/// orders. Biemann, "Chinese Whispers", 2006; edges all weigh 1, as in dlib's face clustering. Errors: invalid_argument
/// (also for too few labels), limit_exceeded, out_of_memory, cancelled.
inline Status chinese_whispers(Span<const float> embeddings, int dim, const ClusterOptions& options, int iterations,
                               std::uint64_t seed, Span<int> labels) noexcept {
  if (iterations < 1) return {Errc::invalid_argument, "there must be at least one iteration"};
  auto graph = detail::NeighbourGraph::make(embeddings, dim, options, labels);
  if (!graph) return graph.status();
  const std::size_t faces = graph->size();
  auto order = Buffer<int>::make(faces), votes = Buffer<int>::make(faces);
  if (!order) return order.status();
  if (!votes) return votes.status();
  for (std::size_t i = 0; i < faces; ++i) labels[i] = (*order)[i] = static_cast<int>(i);
  SplitMix64 random(seed);
  detail::Stop stop(options.cancel);
  bool changed = true;
  for (int round = 0; round < iterations && changed; ++round) {
    changed = false;
    for (std::size_t i = faces - 1; i > 0; --i)
      std::swap((*order)[i], (*order)[random.below(static_cast<std::uint32_t>(i + 1))]);
    for (int face : *order) {
      if (stop()) return stop.status();
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

/// DBSCAN (Ester et al., 1996), threshold = eps: the labels of sklearn.cluster.DBSCAN, clusters numbered by their first
/// core face, noise -1. A face counts among its own min_samples neighbours; one in reach of several clusters belongs to
/// the first. Errors: invalid_argument (also for too few labels), limit_exceeded, out_of_memory, cancelled.
inline Status dbscan(Span<const float> embeddings, int dim, const ClusterOptions& options, int min_samples,
                     Span<int> labels) noexcept {
  if (min_samples < 1) return {Errc::invalid_argument, "min_samples must be 1 or more"};
  auto graph = detail::NeighbourGraph::make(embeddings, dim, options, labels);
  if (!graph) return graph.status();
  const std::size_t faces = graph->size();
  auto sets = detail::DisjointSets::make(faces);
  auto core = Buffer<std::uint8_t>::make(faces);
  if (!sets) return sets.status();
  if (!core) return core.status();
  detail::Stop stop(options.cancel);
  for (std::size_t i = 0; i < faces; ++i) {
    if (stop()) return stop.status();
    int neighbours = 1;
    graph->for_each(i, [&](std::size_t) { ++neighbours; });
    (*core)[i] = neighbours >= min_samples;
  }
  for (std::size_t i = 0; i < faces; ++i) {
    if (stop()) return stop.status();
    if ((*core)[i])
      graph->for_each(i, [&](std::size_t j) {
        if (j < i && (*core)[j]) sets->join(i, j);
      });
  }
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

/// Average-link agglomerative clustering: the two nearest clusters merge while the mean distance between their faces is
/// below the threshold, as sklearn.cluster.AgglomerativeClustering(linkage="average", distance_threshold=...). Labels
/// in order of first appearance. Where two means are equal, to the last bit of a float, which pair merges first is not
/// defined. Nearest-neighbour chains (Murtagh, 1983): O(n^2). Errors: invalid_argument (also for too few labels),
/// limit_exceeded, out_of_memory, cancelled.
inline Status average_link(Span<const float> embeddings, int dim, const ClusterOptions& options,
                           Span<int> labels) noexcept {
  const auto n =
      detail::check_faces(embeddings, dim, options, max_average_link_faces,
                          "average link takes up to 32,768 faces (2 GiB); use DBSCAN or Chinese whispers", labels);
  if (!n) return n.status();
  auto team = OwnedTeam::make(options.threads == 0 ? default_threads() : options.threads);
  if (!team) return team.status();
  const auto faces = static_cast<std::size_t>(*n), row = static_cast<std::size_t>(dim);
  const float* const e = embeddings.data();
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
  std::fill(size->begin(), size->end(), 1);
  for (std::size_t i = 0; i < faces; ++i) (*active)[i] = static_cast<int>(i);
  detail::Stop stop(options.cancel);
  constexpr std::size_t block = 32;  // rows that a column's face is read once for
  team->for_chunks(static_cast<int>((faces + block - 1) / block), [&](int, int chunk) {
    const std::size_t first = static_cast<std::size_t>(chunk) * block,
                      end = first + block < faces ? first + block : faces;
    for (std::size_t j = 0; j < end; ++j) {
      if (stop()) return;
      for (std::size_t i = first > j ? first : j + 1; i < end; ++i)
        d(i, j) = static_cast<float>(detail::distance(options.metric, e + i * row, e + j * row, dim));
    }
  });

  // A chain goes from a cluster to its nearest, from there to its nearest, … until two are each other's: they merge.
  // One whose nearest is at the threshold or beyond never merges again, since no mean of larger distances is smaller.
  std::size_t left = faces, length = 0;
  const auto retire = [&](std::size_t cluster) {
    int* at = std::lower_bound(active->data(), active->data() + left, static_cast<int>(cluster),
                               [](int a, int b) { return a < b; });
    std::copy(at + 1, active->data() + left--, at);
  };
  while (left > 1 || length > 0) {
    if (stop()) return stop.status();
    if (length == 0) (*chain)[length++] = (*active)[0];
    const auto top = static_cast<std::size_t>((*chain)[length - 1]);
    std::size_t nearest =
        length > 1 ? static_cast<std::size_t>((*chain)[length - 2]) : top;  // preferred among equals: chains end
    float least = length > 1 ? d(top, nearest) : FLT_MAX;
    for (std::size_t k = 0; k < left; ++k) {
      const auto other = static_cast<std::size_t>((*active)[k]);
      if (other != top && d(top, other) < least) least = d(top, other), nearest = other;
    }
    if (static_cast<double>(least) >= options.threshold || nearest == top) {
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
      to = static_cast<float>((keeps * static_cast<double>(to) + goes * static_cast<double>(d(gone, other))) /
                              (keeps + goes));
    }
    (*size)[keep] += (*size)[gone];
    sets->join(keep, gone);
  }
  if (stop()) return stop.status();
  for (std::size_t i = 0; i < faces; ++i) labels[i] = static_cast<int>(sets->find(i));
  detail::number_by_appearance(labels, faces, chain->data());
  return {};
}

FACENET_END

#include "facenet/base/macros_pop.inc"
