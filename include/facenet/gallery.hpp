// An exact index of embeddings in memory: add, update, remove, the nearest templates, the nearest persons. Layer 6.
#pragma once

#include <algorithm>
#include <functional>

#include "facenet/parallel.hpp"
#include "facenet/template_store.hpp"

FACENET_BEGIN

struct GalleryOptions {
  Metric metric = Metric::euclidean;
  TemplateStorage storage = TemplateStorage::f32;
  int threads = 0;  // 0: default_threads()
};

/// One template of a gallery beside a query. Matches are ordered by distance, then by id.
struct Match {
  std::uint64_t id;      // the template's
  std::uint64_t person;  // whose it is
  double distance;       // of the gallery's metric
  double similarity;     // cosine
};

namespace detail {

/// From an id to its slot: open addressing with linear probing, at most three quarters full. An entry is slot + 1, and
/// the ids themselves are the store's.
class SlotMap {
 public:
  static constexpr std::size_t none = SIZE_MAX;

  std::size_t find(const TemplateStore& store, std::uint64_t id) const noexcept {
    for (std::size_t i = home(id); !table_.empty(); i = next(i)) {
      if (table_[i] == 0) break;
      if (store.id(table_[i] - 1) == id) return table_[i] - 1;
    }
    return none;
  }
  /// Makes room for n entries in all.
  Status reserve(const TemplateStore& store, std::size_t n) noexcept {
    std::size_t size = table_.empty() ? 64 : table_.size();
    while (size / 4 * 3 < n) size *= 2;
    if (size == table_.size()) return {};
    auto larger = Buffer<std::uint32_t>::make(size);
    if (!larger) return larger.status();
    std::swap(table_, *larger);
    for (std::uint32_t entry : *larger)
      if (entry != 0) insert(store.id(entry - 1), entry - 1);
    return {};
  }
  void insert(std::uint64_t id, std::size_t slot) noexcept {
    std::size_t i = home(id);
    while (table_[i] != 0) i = next(i);
    table_[i] = static_cast<std::uint32_t>(slot + 1);
  }
  /// The entry of `from` says `to` from now on; the store still has the id at `from`.
  void move(const TemplateStore& store, std::size_t from, std::size_t to) noexcept {
    table_[place(store, from)] = static_cast<std::uint32_t>(to + 1);
  }
  void erase(const TemplateStore& store, std::size_t slot) noexcept {
    std::size_t hole = place(store, slot);
    // Entries behind the hole move up where their home allows it, so that no search ends early.
    for (std::size_t i = next(hole); table_[i] != 0; i = next(i)) {
      const std::size_t mask = table_.size() - 1, wants = home(store.id(table_[i] - 1));
      if (((i - wants) & mask) < ((i - hole) & mask)) continue;
      table_[hole] = table_[i];
      hole = i;
    }
    table_[hole] = 0;
  }

 private:
  std::size_t home(std::uint64_t id) const noexcept {
    id = (id ^ id >> 32) * 0x9e3779b97f4a7c15u;  // Fibonacci hashing: ids may be 1, 2, 3 or addresses
    return static_cast<std::size_t>(id >> 32) & (table_.size() - 1);
  }
  std::size_t next(std::size_t i) const noexcept { return (i + 1) & (table_.size() - 1); }
  std::size_t place(const TemplateStore& store, std::size_t slot) const noexcept {
    std::size_t i = home(store.id(slot));
    while (table_[i] != slot + 1) i = next(i);
    return i;
  }
  Buffer<std::uint32_t> table_;
};

/// One that may be among the k nearest of a query: its score is somewhere from low to high.
struct Candidate {
  float low, high;
  std::uint32_t slot;
  double distance;    // once it is ranked
  std::uint64_t key;  // the slot, or the person where one template counts for all of a person's
};

/// What a scan keeps of a query: candidates of which no k others (of different keys) are certainly nearer.
struct Shortlist {
  Candidate* at;
  std::size_t count, capacity, k;
  float kth;  // the k-th highest `low` of different keys when last filtered: whose `high` is below is out

  void add(const Candidate& c) noexcept { at[count++] = c; }

  /// Throws out who is certainly not among the k nearest. `temporary` holds as many floats as there are candidates.
  void filter(float* temporary) noexcept {
    std::sort(at, at + count, [](const Candidate& a, const Candidate& b) {
      return a.key != b.key ? a.key < b.key : a.low != b.low ? a.low > b.low : a.slot < b.slot;
    });
    std::size_t keys = 0;
    for (std::size_t i = 0; i < count; ++i)
      if (i == 0 || at[i].key != at[i - 1].key) temporary[keys++] = at[i].low;
    if (keys >= k) {
      // A comparison of ours: its name holds the ISA. std::greater<float> would be one function for all units, perhaps with AVX.
      std::nth_element(temporary, temporary + k - 1, temporary + keys, [](float a, float b) { return a > b; });
      kth = temporary[k - 1];
    }
    std::size_t kept = 0;
    std::uint64_t key = 0;
    float best = 0;  // the highest `low` of this key
    for (std::size_t i = 0; i < count; ++i) {
      const Candidate c = at[i];
      if (i == 0 || c.key != key) key = c.key, best = c.low;
      if (c.high >= kth && c.high >= best) at[kept++] = c;
    }
    count = kept;
  }
  /// The same for good: leaves the k nearest, in order. `row` holds one template.
  void rank(const TemplateStore& store, const float* query, float* row) noexcept {
    for (std::size_t i = 0; i < count; ++i) {
      store.get(at[i].slot, row);
      at[i].distance = facenet::distance(store.metric(), query, row, store.dim());
    }
    const auto nearer = [&](const Candidate& a, const Candidate& b) {
      return a.distance != b.distance ? a.distance < b.distance : store.id(a.slot) < store.id(b.slot);
    };
    std::sort(at, at + count, [&](const Candidate& a, const Candidate& b) {
      return a.key != b.key ? a.key < b.key : nearer(a, b);
    });
    count = static_cast<std::size_t>(std::unique(at, at + count, [](const Candidate& a, const Candidate& b) {
                                       return a.key == b.key;
                                     }) - at);
    std::sort(at, at + count, nearer);
    count = count < k ? count : k;
  }
};

}  // namespace detail

/// Templates by id, each of a person. Exact: results are those of distances in double to every stored template, and the
/// same for any number of threads. One Gallery serves one caller at a time. Move-only.
class Gallery {
 public:
  /// A gallery for embeddings of `dim` floats. Errors: invalid_argument, out_of_memory.
  static Result<Gallery> make(int dim, const GalleryOptions& options = {}) noexcept {
    if (dim < 1 || dim > max_embedding_dim)
      return {Errc::invalid_argument, "an embedding must have 1 to 16384 components"};
    if (options.threads < 0) return {Errc::invalid_argument, "threads must be 1 to 256"};
    auto team = SharedTeam::make(options.threads == 0 ? default_threads() : options.threads);
    if (!team) return team.status();
    Gallery g;
    g.options_ = options;
    g.team_ = std::move(*team);
    g.store_ = detail::TemplateStore(dim, options.metric, options.storage);
    return g;
  }

  int dim() const noexcept { return store_.dim(); }
  std::size_t size() const noexcept { return size_; }
  const GalleryOptions& options() const noexcept { return options_; }
  bool contains(std::uint64_t id) const noexcept { return map_.find(store_, id) != map_.none; }

  /// Makes room for n templates in all, so that add() needs no memory up to there. Errors: limit_exceeded, out_of_memory.
  Status reserve(std::size_t n) noexcept {
    if (n > std::size_t{1} << 30) return {Errc::limit_exceeded, "a gallery holds up to 2^30 templates"};
    FACENET_TRY(store_.reserve(n));
    return map_.reserve(store_, n);
  }
  /// Adds a template. Errors: invalid_argument for an id that is there already and for an embedding that is not finite (or
  /// does not fit half precision); limit_exceeded; out_of_memory. After an error the gallery is as before.
  Status add(std::uint64_t id, std::uint64_t person, const float* embedding) noexcept {
    FACENET_TRY(storable(embedding));
    if (contains(id)) return {Errc::invalid_argument, "this id is in the gallery already: update or remove it"};
    FACENET_TRY(reserve(size_ + 1));
    if (size_ % simd::panel == 0) store_.open(size_ / simd::panel);
    store_.put(size_, embedding);
    store_.id(size_) = id;
    store_.person(size_) = person;
    map_.insert(id, size_++);
    return {};
  }
  /// Replaces the values of a template, which stays the same person's. Errors: not_found; invalid_argument as add().
  Status update(std::uint64_t id, const float* embedding) noexcept {
    FACENET_TRY(storable(embedding));
    const std::size_t slot = map_.find(store_, id);
    if (slot == map_.none) return {Errc::not_found, "this id is not in the gallery"};
    store_.put(slot, embedding);
    return {};
  }
  /// Errors: not_found, out_of_memory. Memory is kept for later templates.
  Status remove(std::uint64_t id) noexcept {
    const std::size_t slot = map_.find(store_, id);
    if (slot == map_.none) return {Errc::not_found, "this id is not in the gallery"};
    const std::size_t last = size_ - 1;
    if (slot != last) {  // the last one moves into the gap
      auto row = Buffer<float>::make(static_cast<std::size_t>(dim()));
      if (!row) return row.status();
      store_.get(last, row->data());
      map_.erase(store_, slot);
      map_.move(store_, last, slot);
      store_.put(slot, row->data());  // a half is the same half again
      store_.id(slot) = store_.id(last);
      store_.person(slot) = store_.person(last);
    } else {
      map_.erase(store_, slot);
    }
    --size_;
    return {};
  }
  /// The values of a template as they are stored, dim() floats. Errors: not_found.
  Status get(std::uint64_t id, float* embedding) const noexcept {
    const std::size_t slot = map_.find(store_, id);
    if (slot == map_.none) return {Errc::not_found, "this id is not in the gallery"};
    store_.get(slot, embedding);
    return {};
  }

  /// The k nearest templates of each query: queries[n][dim], out[n][k], found[n] of them (fewer than k in a small gallery).
  /// Errors: invalid_argument, out_of_memory.
  Status search(const float* queries, int n, int k, Match* out, int* found) noexcept {
    return nearest(queries, n, k, HUGE_VAL, false, out, found);
  }
  /// The k nearest persons of each query, each by the nearest of their templates; those farther than `threshold` are left
  /// out, so that found[i] is 0 for an unknown face. Errors: as search().
  Status identify(const float* queries, int n, int k, double threshold, Match* out, int* found) noexcept {
    if (!(threshold >= 0)) return {Errc::invalid_argument, "a threshold must be 0 or more"};
    return nearest(queries, n, k, threshold, true, out, found);
  }

 private:
  // Queries of one pass: they share each panel, which is read from memory once. 96 are whole tiles on every ISA.
  static constexpr int most_queries = 96;
  static constexpr int panels_in_chunk = 8;

  /// What one pass over the gallery works with.
  struct Pass {
    const float* row[most_queries];  // the queries
    float norm[most_queries];
    int n;
    bool persons;
    std::size_t members, capacity, k;
    detail::Shortlist* list;  // [query][member]
    float* row_of;            // [member][dim]: a template
    float* temporary;         // [member][members * capacity]: what Shortlist::filter wants

    detail::Shortlist& list_of(int query, int member) const noexcept {
      return list[static_cast<std::size_t>(query) * members + static_cast<std::size_t>(member)];
    }
  };

  Status storable(const float* e) const noexcept {
    FACENET_TRY(detail::check_embeddings(e, 1, dim()));
    for (int i = 0; store_.half() && i < dim(); ++i)
      if (std::fabs(e[i]) > 65504)
        return {Errc::invalid_argument, "an embedding has a component over 65504, the largest of half precision"};
    return {};
  }

  Status nearest(const float* queries, int n, int k, double threshold, bool persons, Match* out, int* found) noexcept {
    if (n < 1 || k < 1 || out == nullptr || found == nullptr)
      return {Errc::invalid_argument, "there must be at least one query, and k must be 1 or more"};
    FACENET_TRY(detail::check_embeddings(queries, static_cast<std::size_t>(n), dim()));
    if (size_ == 0) return std::memset(found, 0, static_cast<std::size_t>(n) * sizeof *found), Status{};
    const std::size_t most = static_cast<std::size_t>(k) < size_ ? static_cast<std::size_t>(k) : size_;
    const auto members = static_cast<std::size_t>(team_->size()), row = static_cast<std::size_t>(dim());
    Pass pass{};
    pass.persons = persons;
    pass.members = members;
    pass.k = most;
    pass.capacity = 2 * most + 64;
    // As many queries as 8 MiB hold the candidates of, and one at least.
    const std::size_t fit = (std::size_t{8} << 20) / (members * pass.capacity * sizeof(detail::Candidate));
    const int group = fit < 1 ? 1 : fit < most_queries ? static_cast<int>(fit) : most_queries;
    const auto lists = static_cast<std::size_t>(group < n ? group : n) * members;
    auto list = Buffer<detail::Shortlist>::make(lists);
    auto candidates = Buffer<detail::Candidate>::make(lists * pass.capacity, false);
    auto rows = Buffer<float>::make(members * row), temporary = Buffer<float>::make(members * members * pass.capacity, false);
    if (!list) return list.status();
    if (!candidates) return candidates.status();
    if (!rows) return rows.status();
    if (!temporary) return temporary.status();
    pass.list = list->data();
    pass.row_of = rows->data();
    pass.temporary = temporary->data();

    const std::size_t panels = (size_ + simd::panel - 1) / simd::panel;
    for (int first = 0; first < n; first += group) {
      pass.n = n - first < group ? n - first : group;
      for (int q = 0; q < pass.n; ++q) {
        pass.row[q] = queries + static_cast<std::size_t>(first + q) * row;
        pass.norm[q] = static_cast<float>(std::sqrt(detail::squared_norm(pass.row[q], dim())) * (1 + 0x1p-22));
      }
      for (std::size_t i = 0; i < lists; ++i)
        pass.list[i] = {candidates->data() + i * pass.capacity, 0, pass.capacity, most, -HUGE_VALF};
      team_.for_chunks(static_cast<int>((panels + panels_in_chunk - 1) / panels_in_chunk), [&](int member, int chunk) {
        const std::size_t from = static_cast<std::size_t>(chunk) * panels_in_chunk;
        for (std::size_t p = from; p < from + panels_in_chunk && p < panels; ++p)
          store_.half() ? scan<Half>(pass, member, p) : scan<float>(pass, member, p);
      });
      team_.for_chunks(pass.n, [&](int member, int q) {
        const auto to = static_cast<std::size_t>(first + q);
        found[to] = finish(pass, member, q, threshold, out + to * static_cast<std::size_t>(k));
      });
    }
    return {};
  }

  /// Scores one panel and keeps the candidates.
  template <class T>
  void scan(const Pass& pass, int member, std::size_t p) const noexcept {
    alignas(cache_line) float score[most_queries * simd::panel];
    const detail::TemplateStore::Panel panel = store_.panel(p);
    kernels::score_panel(pass.row, pass.n, dim(), static_cast<const T*>(panel.values), panel.scale, score);
    const std::size_t first = p * simd::panel;
    const std::uint32_t there = size_ - first < simd::panel ? (1u << (size_ - first)) - 1 : ~0u;
    for (int q = 0; q < pass.n; ++q) {
      detail::Shortlist& list = pass.list_of(q, member);
      const float error = panel.error->norm * pass.norm[q] + panel.error->constant;
      const float* s = score + q * simd::panel;
      for (std::uint32_t hits = simd::at_least_mask(s, list.kth - error) & there; hits != 0; hits &= hits - 1) {
        const std::size_t column = simd::lowest_bit(hits);
        if (list.count == list.capacity) tidy(pass, list, member, q);
        const auto slot = static_cast<std::uint32_t>(first + column);
        list.add({s[column] - error, s[column] + error, slot, 0, pass.persons ? panel.person[column] : slot});
      }
    }
  }

  /// Makes room in a full list. Where rounding leaves too many in doubt (templates that are equal, say), they are ranked.
  void tidy(const Pass& pass, detail::Shortlist& list, int member, int q) const noexcept {
    const auto m = static_cast<std::size_t>(member);
    list.filter(pass.temporary + m * pass.members * pass.capacity);
    if (2 * list.count > list.capacity) list.rank(store_, pass.row[q], pass.row_of + m * static_cast<std::size_t>(dim()));
  }

  /// Brings together what all members found for a query; returns how many are within the threshold.
  int finish(const Pass& pass, int member, int q, double threshold, Match* out) const noexcept {
    const auto m = static_cast<std::size_t>(member);
    float* row = pass.row_of + m * static_cast<std::size_t>(dim());
    detail::Shortlist all = pass.list_of(q, 0);
    for (int other = 1; other < static_cast<int>(pass.members); ++other) {  // their lists lie behind the first
      const detail::Shortlist& more = pass.list_of(q, other);
      std::memmove(static_cast<void*>(all.at + all.count), more.at, more.count * sizeof(detail::Candidate));
      all.count += more.count;
      all.kth = more.kth > all.kth ? more.kth : all.kth;
    }
    all.filter(pass.temporary + m * pass.members * pass.capacity);
    all.rank(store_, pass.row[q], row);
    int count = 0;
    for (std::size_t i = 0; i < all.count && all.at[i].distance <= threshold; ++i) {
      const std::size_t slot = all.at[i].slot;
      store_.get(slot, row);
      out[count++] = {store_.id(slot), store_.person(slot), all.at[i].distance, similarity(pass.row[q], row, dim())};
    }
    return count;
  }

  std::size_t size_ = 0;
  GalleryOptions options_;
  SharedTeam team_;
  detail::TemplateStore store_;
  detail::SlotMap map_;
};

FACENET_END
