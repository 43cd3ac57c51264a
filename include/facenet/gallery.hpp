// An exact index of embeddings in memory: add, update, remove, the nearest templates, the nearest persons.
#pragma once
#include "facenet/base/macros_push.inc"

#include <algorithm>
#include <atomic>
#include <iterator>

#include "facenet/base/parallel.hpp"
#include "facenet/recognition/stop.hpp"
#include "facenet/recognition/template_store.hpp"

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

/// A template as iteration over a gallery gives it; Gallery::get has its values.
struct TemplateEntry {
  std::uint64_t id;
  std::uint64_t person;
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
    // Entries after the hole move up where their home allows it, so that no search ends early.
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
      // A comparison of ours: its name holds the ISA. std::greater<float> would be one function for all units, perhaps
      // with AVX.
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
  /// Leaves the k nearest, in order. `row` holds one template.
  void rank(const TemplateStore& store, const float* query, float* row) noexcept {
    for (std::size_t i = 0; i < count; ++i) {
      store.get(at[i].slot, row);
      at[i].distance = detail::distance(store.metric(), query, row, store.dim());
    }
    const auto nearer = [&](const Candidate& a, const Candidate& b) {
      return a.distance != b.distance ? a.distance < b.distance : store.id(a.slot) < store.id(b.slot);
    };
    std::sort(at, at + count,
              [&](const Candidate& a, const Candidate& b) { return a.key != b.key ? a.key < b.key : nearer(a, b); });
    count = static_cast<std::size_t>(
        std::unique(at, at + count, [](const Candidate& a, const Candidate& b) { return a.key == b.key; }) - at);
    std::sort(at, at + count, nearer);
    count = count < k ? count : k;
  }
};

}  // namespace detail

/// Templates by id, each of a person. Search is exact: results are those of distances in double to every stored
/// template, for any number of threads.
///
/// Example:
///   auto gallery = facenet::Gallery::make(512);
///   if (!gallery) return gallery.status();
///   const float embedding[512] = {1}, query[512] = {1};
///   if (auto status = gallery->add(1, 100, embedding); !status) return status;  // template 1, of person 100
///   facenet::Match match;
///   int found = 0;
///   if (auto status = gallery->identify(query, 1, 1.1, {&match, 1}, found); !status) return status;
///   if (found == 1) std::printf("person %d at %.3f\n", static_cast<int>(match.person), match.distance);
///
/// Threads: any number of threads may call the const members (search, identify, get, contains, iteration) at once,
/// while none changes the gallery. Lifetimes: embeddings are copied. Move-only. A Gallery that was never made, or was
/// moved from, has dim() and size() 0, and every call that returns a Status returns invalid_argument.
class Gallery {
 public:
  /// Over the templates, in no order that holds: { for (const TemplateEntry t : gallery) … }. A change of the gallery
  /// ends it.
  class Iterator {
   public:
    using iterator_category = std::input_iterator_tag;
    using value_type = TemplateEntry;
    using difference_type = std::ptrdiff_t;
    using pointer = const TemplateEntry*;
    using reference = TemplateEntry;

    Iterator() noexcept = default;
    TemplateEntry operator*() const noexcept { return {store_->id(slot_), store_->person(slot_)}; }
    Iterator& operator++() noexcept {
      ++slot_;
      return *this;
    }
    Iterator operator++(int) noexcept {
      const Iterator here = *this;
      ++slot_;
      return here;
    }
    bool operator==(const Iterator& o) const noexcept { return slot_ == o.slot_; }
    bool operator!=(const Iterator& o) const noexcept { return slot_ != o.slot_; }

   private:
    friend class Gallery;
    Iterator(const detail::TemplateStore& store, std::size_t slot) noexcept : store_(&store), slot_(slot) {}
    const detail::TemplateStore* store_ = nullptr;
    std::size_t slot_ = 0;
  };

  Gallery() noexcept = default;
  Gallery(Gallery&& other) noexcept { swap(other); }
  Gallery& operator=(Gallery&& other) noexcept {
    Gallery moved(std::move(other));  // which leaves `other` as one that was never made
    swap(moved);
    return *this;
  }

  /// A gallery for embeddings of `dim` floats. Errors: invalid_argument, out_of_memory.
  static Result<Gallery> make(int dim, const GalleryOptions& options = {}) noexcept {
    if (dim < 1 || dim > max_embedding_dim)
      return {Errc::invalid_argument, "an embedding must have 1 to 16384 components"};
    if (options.threads < 0) return {Errc::invalid_argument, "threads must be 1 to 256"};
    auto team = OwnedTeam::make(options.threads == 0 ? default_threads() : options.threads);
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
  /// Searching looks at `flag` every few hundred templates, and returns Errc::cancelled while it is set. Null: at none.
  void cancel_when(const std::atomic<bool>* flag) noexcept { cancel_ = flag; }
  bool contains(std::uint64_t id) const noexcept { return map_.find(store_, id) != map_.none; }
  Iterator begin() const noexcept { return {store_, 0}; }
  Iterator end() const noexcept { return {store_, size_}; }

  /// Makes room for n templates in all, so that add() needs no memory up to there. Errors: limit_exceeded,
  /// out_of_memory.
  Status reserve(std::size_t n) noexcept {
    FACENET_TRY(made());
    if (n > std::size_t{1} << 30) return {Errc::limit_exceeded, "a gallery holds up to 2^30 templates"};
    FACENET_TRY(store_.reserve(n));
    return map_.reserve(store_, n);
  }
  /// Adds a template of dim() floats. Errors: invalid_argument for an id that is there already and for an embedding of
  /// another length, or that is zero or not finite (or becomes so in half precision); limit_exceeded; out_of_memory.
  /// After an error the gallery is as before.
  Status add(std::uint64_t id, std::uint64_t person, Span<const float> embedding) noexcept {
    FACENET_TRY(storable(embedding));
    if (contains(id)) return {Errc::invalid_argument, "this id is in the gallery already: update or remove it"};
    FACENET_TRY(reserve(size_ + 1));
    if (size_ % simd::panel == 0) store_.open(size_ / simd::panel);
    store_.put(size_, embedding.data());
    store_.id(size_) = id;
    store_.person(size_) = person;
    map_.insert(id, size_++);
    return {};
  }
  /// Replaces the values of a template, which stays the same person's. Errors: not_found; invalid_argument as add().
  Status update(std::uint64_t id, Span<const float> embedding) noexcept {
    FACENET_TRY(storable(embedding));
    const std::size_t slot = map_.find(store_, id);
    if (slot == map_.none) return {Errc::not_found, "this id is not in the gallery"};
    store_.put(slot, embedding.data());
    return {};
  }
  /// Errors: not_found, out_of_memory. Memory is kept for later templates.
  Status remove(std::uint64_t id) noexcept {
    FACENET_TRY(made());
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
  /// The values of a template as they are stored, dim() floats. Errors: not_found, invalid_argument.
  Status get(std::uint64_t id, Span<float> embedding) const noexcept {
    FACENET_TRY(made());
    FACENET_TRY(detail::check_room(embedding, dim()));
    const std::size_t slot = map_.find(store_, id);
    if (slot == map_.none) return {Errc::not_found, "this id is not in the gallery"};
    store_.get(slot, embedding.data());
    return {};
  }

  /// The k nearest templates of each query: queries[n][dim], out[n][k], found[n] of them (fewer than k in a small
  /// gallery). The gallery's threads serve one call at a time; a call that comes meanwhile searches in its caller's
  /// thread alone. Errors: invalid_argument (also where `out` or `found` is too small), out_of_memory, cancelled.
  Status search(Span<const float> queries, int k, Span<Match> out, Span<int> found) const noexcept {
    return nearest(queries, k, DBL_MAX, false, out, found);
  }
  /// The same for one query.
  Status search(Span<const float> query, int k, Span<Match> out, int& found) const noexcept {
    return of_one(query, [&] { return search(query, k, out, Span<int>(&found, 1)); });
  }
  /// The k nearest persons of each query, each by the nearest of their templates; those farther than `threshold` are
  /// left out, so that found[i] is 0 for an unknown face. Errors: as search().
  Status identify(Span<const float> queries, int k, double threshold, Span<Match> out, Span<int> found) const noexcept {
    if (detail::is_nan(threshold) || threshold < 0) return {Errc::invalid_argument, "a threshold must be 0 or more"};
    return nearest(queries, k, threshold, true, out, found);
  }
  /// The same for one query.
  Status identify(Span<const float> query, int k, double threshold, Span<Match> out, int& found) const noexcept {
    return of_one(query, [&] { return identify(query, k, threshold, out, Span<int>(&found, 1)); });
  }

 private:
  // Queries of one pass: they share each panel, which is read from memory once. 96 are whole tiles on every ISA.
  static constexpr int most_queries = 96;
  static constexpr int panels_in_chunk = 8;
  static constexpr std::size_t spare =
      32;  // candidates beyond k that rounding may leave in doubt before they are ranked

  /// What one pass over the gallery works with.
  struct Pass {
    const float* row[most_queries];  // the queries
    float norm[most_queries];
    int n;
    bool persons;
    std::size_t members, capacity, k;
    detail::Shortlist* list;  // [query][member]
    float* row_of;            // [member][dim]: a template
    float* temporary;         // [member][capacity]: what Shortlist::filter wants

    detail::Shortlist& list_of(int query, int member) const noexcept {
      return list[static_cast<std::size_t>(query) * members + static_cast<std::size_t>(member)];
    }
  };

  /// Who works on one search: the gallery's threads, or the caller alone while another search has them. Nobody waits,
  /// so that nothing can wait for ever either, after fork() for instance.
  class Workers {
   public:
    explicit Workers(const Gallery& of) noexcept
        : gallery_(of), all_(!of.searching_.exchange(true, std::memory_order_acquire)) {}
    Workers(const Workers&) = delete;
    Workers& operator=(const Workers&) = delete;
    ~Workers() {
      if (all_) gallery_.searching_.store(false, std::memory_order_release);
    }
    std::size_t size() const noexcept { return all_ ? static_cast<std::size_t>(gallery_.team_->size()) : 1; }
    /// OwnedTeam::for_chunks.
    template <class F>
    void for_chunks(int count, F&& f) const noexcept {
      if (all_) return gallery_.team_.for_chunks(count, f);
      const simd::FlushDenormals mode;
      for (int chunk = 0; chunk < count; ++chunk) f(0, chunk);
    }

   private:
    const Gallery& gallery_;
    const bool all_;
  };

  Status made() const noexcept {
    if (team_) return {};
    return {Errc::invalid_argument, "this gallery was never made, or was moved from"};
  }
  Status one_embedding(Span<const float> e) const noexcept {
    FACENET_TRY(made());
    if (e.size() == static_cast<std::size_t>(dim())) return {};
    return {Errc::invalid_argument, "the embedding has not as many components as the gallery's: another model made it"};
  }
  template <class F>
  Status of_one(Span<const float> query, F&& search) const noexcept {
    FACENET_TRY(one_embedding(query));
    return search();
  }
  Status storable(Span<const float> e) const noexcept {
    FACENET_TRY(one_embedding(e));
    FACENET_TRY(detail::check_embeddings(e, dim()));
    if (!store_.half()) return {};
    const std::uint32_t bits = detail::largest_bits(e.data(), e.size());
    float most;
    std::memcpy(&most, &bits, sizeof most);
    if (most > 65504)
      return {Errc::invalid_argument, "an embedding has a component over 65504, the largest of half precision"};
    if (simd::float_to_half(most).bits == 0)
      return {Errc::invalid_argument, "an embedding is zero in half precision: keep it in single precision"};
    return {};
  }

  Status nearest(Span<const float> queries, int k, double threshold, bool persons, Span<Match> out,
                 Span<int> found) const noexcept {
    FACENET_TRY(made());
    if (k < 1) return {Errc::invalid_argument, "k must be 1 or more"};
    FACENET_TRY(detail::check_embeddings(queries, dim()));
    const auto row = static_cast<std::size_t>(dim()), n = queries.size() / row, each = static_cast<std::size_t>(k);
    if (out.data() == nullptr || out.size() / each < n || found.data() == nullptr || found.size() < n)
      return {Errc::invalid_argument, "there is no room for k matches of each query, or for how many were found"};
    if (size_ == 0) return std::memset(found.data(), 0, n * sizeof(int)), Status{};
    const std::size_t most = each < size_ ? each : size_;
    const Workers workers(*this);
    const std::size_t members = workers.size();
    Pass pass{};
    pass.persons = persons;
    pass.members = members;
    pass.k = most;
    pass.capacity = 2 * (most + spare);
    // As many queries as 8 MiB hold the candidates of, and one at least; where that one's take more than a list of all
    // templates would, all of them are ranked.
    constexpr std::size_t room = std::size_t{8} << 20;
    const std::size_t one = members * pass.capacity * sizeof(detail::Candidate), fit = room / one;
    if (fit < 1 && one > size_ * sizeof(Ranked))
      return rank_all(workers, queries, each, threshold, persons, out, found);
    const int group = fit < 1 ? 1 : fit < most_queries ? static_cast<int>(fit) : most_queries;
    const auto in_pass = static_cast<std::size_t>(group);
    const std::size_t lists = (in_pass < n ? in_pass : n) * members;
    auto list = Buffer<detail::Shortlist>::make(lists);
    auto candidates = Buffer<detail::Candidate>::make(lists * pass.capacity, false);
    auto rows = Buffer<float>::make(members * row), temporary = Buffer<float>::make(members * pass.capacity, false);
    if (!list) return list.status();
    if (!candidates) return candidates.status();
    if (!rows) return rows.status();
    if (!temporary) return temporary.status();
    pass.list = list->data();
    pass.row_of = rows->data();
    pass.temporary = temporary->data();

    detail::Stop stop(cancel_);
    const std::size_t panels = (size_ + simd::panel - 1) / simd::panel;
    for (std::size_t first = 0; first < n; first += in_pass) {
      pass.n = n - first < in_pass ? static_cast<int>(n - first) : group;
      for (int q = 0; q < pass.n; ++q) {
        pass.row[q] = queries.data() + (first + static_cast<std::size_t>(q)) * row;
        pass.norm[q] = static_cast<float>(std::sqrt(detail::squared_norm(pass.row[q], dim())) * (1 + 0x1p-22));
      }
      for (std::size_t i = 0; i < lists; ++i)
        pass.list[i] = {candidates->data() + i * pass.capacity, 0, pass.capacity, most, -1e38f};
      workers.for_chunks(static_cast<int>((panels + panels_in_chunk - 1) / panels_in_chunk),
                         [&](int member, int chunk) {
                           if (stop()) return;
                           const std::size_t from = static_cast<std::size_t>(chunk) * panels_in_chunk;
                           for (std::size_t p = from; p < from + panels_in_chunk && p < panels; ++p)
                             store_.half() ? scan<Half>(pass, member, p) : scan<float>(pass, member, p);
                         });
      if (stop()) return stop.status();
      workers.for_chunks(pass.n, [&](int member, int q) {
        const std::size_t to = first + static_cast<std::size_t>(q);
        found[to] = finish(pass, member, q, threshold, out.data() + to * each);
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

  /// Makes room in a full list. Where rounding leaves too many in doubt (templates that are equal, say), they are
  /// ranked.
  void tidy(const Pass& pass, detail::Shortlist& list, int member, int q) const noexcept {
    const auto m = static_cast<std::size_t>(member);
    list.filter(pass.temporary + m * pass.capacity);
    if (2 * list.count > list.capacity)
      list.rank(store_, pass.row[q], pass.row_of + m * static_cast<std::size_t>(dim()));
  }

  /// Brings together what all members found for a query; returns how many are within the threshold.
  int finish(const Pass& pass, int member, int q, double threshold, Match* out) const noexcept {
    const auto m = static_cast<std::size_t>(member);
    float* row = pass.row_of + m * static_cast<std::size_t>(dim());
    const auto shorten = [&](detail::Shortlist& list) {  // so that two have room in one
      list.filter(pass.temporary + m * pass.capacity);
      if (list.count > pass.k + spare) list.rank(store_, pass.row[q], row);
    };
    detail::Shortlist all{};
    for (int other = 0; other < static_cast<int>(pass.members); ++other) {
      detail::Shortlist& more = pass.list_of(q, other);
      shorten(more);
      if (other == 0) {
        all = more;
        continue;
      }
      std::memcpy(static_cast<void*>(all.at + all.count), more.at, more.count * sizeof(detail::Candidate));
      all.count += more.count;
      all.kth = more.kth > all.kth ? more.kth : all.kth;
      shorten(all);
    }
    all.rank(store_, pass.row[q], row);
    int count = 0;
    for (std::size_t i = 0; i < all.count && all.at[i].distance <= threshold; ++i) {
      const std::size_t slot = all.at[i].slot;
      store_.get(slot, row);
      out[count++] = {store_.id(slot), store_.person(slot), all.at[i].distance,
                      detail::similarity(pass.row[q], row, dim())};
    }
    return count;
  }

  /// A template's exact distance, and what orders equal ones.
  struct Ranked {
    double distance;
    std::uint64_t person, id;
    std::size_t slot;
  };

  /// nearest() for a k that takes most of the gallery: one query after the other, all distances in double, the same
  /// results.
  Status rank_all(const Workers& workers, Span<const float> queries, std::size_t k, double threshold, bool persons,
                  Span<Match> out, Span<int> found) const noexcept {
    const auto row = static_cast<std::size_t>(dim());
    auto ranked = Buffer<Ranked>::make(size_, false);
    auto rows = Buffer<float>::make(workers.size() * row, false);
    if (!ranked) return ranked.status();
    if (!rows) return rows.status();
    constexpr std::size_t in_chunk = panels_in_chunk * simd::panel;
    const auto chunks = [](std::size_t count) { return static_cast<int>((count + in_chunk - 1) / in_chunk); };
    const auto nearer = [](const Ranked& a, const Ranked& b) {
      return a.distance != b.distance ? a.distance < b.distance : a.id < b.id;
    };
    detail::Stop stop(cancel_);
    for (std::size_t q = 0; q < queries.size() / row; ++q) {
      const float* const query = queries.data() + q * row;
      Ranked* const all = ranked->data();
      workers.for_chunks(chunks(size_), [&](int member, int chunk) {
        if (stop()) return;
        float* const e = rows->data() + static_cast<std::size_t>(member) * row;
        const std::size_t first = static_cast<std::size_t>(chunk) * in_chunk;
        for (std::size_t slot = first; slot < first + in_chunk && slot < size_; ++slot) {
          store_.get(slot, e);
          all[slot] = {detail::distance(store_.metric(), query, e, dim()), store_.person(slot), store_.id(slot), slot};
        }
      });
      if (stop()) return stop.status();
      std::size_t count = 0;
      for (std::size_t i = 0; i < size_; ++i)
        if (all[i].distance <= threshold) all[count++] = all[i];
      if (persons) {
        std::sort(all, all + count, [&](const Ranked& a, const Ranked& b) {
          return a.person != b.person ? a.person < b.person : nearer(a, b);
        });
        count = static_cast<std::size_t>(
            std::unique(all, all + count, [](const Ranked& a, const Ranked& b) { return a.person == b.person; }) - all);
      }
      const std::size_t most = k < count ? k : count;
      if (most < count) std::nth_element(all, all + most, all + count, nearer);
      std::sort(all, all + most, nearer);
      Match* const to = out.data() + q * k;
      workers.for_chunks(chunks(most), [&](int member, int chunk) {
        float* const e = rows->data() + static_cast<std::size_t>(member) * row;
        const std::size_t first = static_cast<std::size_t>(chunk) * in_chunk;
        for (std::size_t i = first; i < first + in_chunk && i < most; ++i) {
          store_.get(all[i].slot, e);
          to[i] = {all[i].id, all[i].person, all[i].distance, detail::similarity(query, e, dim())};
        }
      });
      found[q] = static_cast<int>(most);
    }
    return {};
  }

  void swap(Gallery& other) noexcept {
    std::swap(size_, other.size_);
    std::swap(options_, other.options_);
    std::swap(cancel_, other.cancel_);
    std::swap(team_, other.team_);
    std::swap(store_, other.store_);
    std::swap(map_, other.map_);
  }

  std::size_t size_ = 0;
  GalleryOptions options_;
  const std::atomic<bool>* cancel_ = nullptr;
  mutable OwnedTeam team_;
  mutable std::atomic<bool> searching_{false};  // with the team; stays with the object that is moved from
  detail::TemplateStore store_;
  detail::SlotMap map_;
};

FACENET_END

#include "facenet/base/macros_pop.inc"
