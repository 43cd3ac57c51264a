// An exact index of embeddings in memory: add, update, remove, the nearest templates, the nearest persons. Layer 6.
#pragma once

#include <algorithm>

#include "facenet/distance.hpp"
#include "facenet/parallel.hpp"

FACENET_BEGIN

/// How a gallery keeps its templates. Half precision takes half the memory and moves a distance between unit vectors by at
/// most 2^-11; results are exact for the values as they are stored.
enum class TemplateStorage : std::uint8_t { f32, f16 };

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

/// Where templates lie: in blocks that never move, so that a gallery grows without a moment of twice its memory. 32 (a
/// panel's width) templates lie together as [component][template], the way the register tile reads weights.
class TemplateStore {
 public:
  /// What belongs to the templates of one panel.
  struct Panel {
    void* values;  // [dim][simd::panel] floats or halves
    std::uint64_t* id;
    std::uint64_t* person;
  };

  TemplateStore() noexcept = default;
  TemplateStore(TemplateStore&& other) noexcept { swap(other); }
  TemplateStore& operator=(TemplateStore&& other) noexcept {
    swap(other);
    return *this;
  }
  ~TemplateStore() {
    for (std::size_t i = 0; i < blocks_; ++i) deallocate(block_[i]);
  }

  void set(int dim, bool half) noexcept {
    dim_ = dim;
    half_ = half;
    values_bytes_ = static_cast<std::size_t>(dim) * simd::panel * (half ? sizeof(Half) : sizeof(float));
    panel_bytes_ = round_up(values_bytes_ + 2 * simd::panel * sizeof(std::uint64_t), cache_line);
    panels_in_block_ = block_bytes / panel_bytes_ > 0 ? block_bytes / panel_bytes_ : 1;
  }
  bool half() const noexcept { return half_; }
  std::size_t capacity() const noexcept { return blocks_ * panels_in_block_ * simd::panel; }

  /// Makes room for `n` templates in all.
  Status reserve(std::size_t n) noexcept {
    while (capacity() < n) {
      if (blocks_ == block_.size()) {
        auto longer = Buffer<char*>::make(blocks_ == 0 ? 16 : 2 * blocks_);
        if (!longer) return longer.status();
        if (blocks_ > 0) std::memcpy(longer->data(), block_.data(), blocks_ * sizeof(char*));
        block_ = std::move(*longer);
      }
      char* block = static_cast<char*>(allocate(panels_in_block_ * panel_bytes_));
      if (block == nullptr) return {Errc::out_of_memory, "there is not enough memory for the gallery's templates"};
      block_[blocks_++] = block;
    }
    return {};
  }
  Panel panel(std::size_t p) const noexcept {
    char* at = block_[p / panels_in_block_] + p % panels_in_block_ * panel_bytes_;
    auto* id = reinterpret_cast<std::uint64_t*>(at + values_bytes_);
    return {at, id, id + simd::panel};
  }
  std::uint64_t& id(std::size_t slot) const noexcept { return panel(slot / simd::panel).id[slot % simd::panel]; }
  std::uint64_t& person(std::size_t slot) const noexcept { return panel(slot / simd::panel).person[slot % simd::panel]; }

  /// Makes zeros of the panel of a first template: what the last panel lacks is computed with, and thrown away.
  void open(std::size_t slot) const noexcept {
    if (slot % simd::panel == 0) std::memset(panel(slot / simd::panel).values, 0, panel_bytes_);
  }
  void put(std::size_t slot, const float* from) const noexcept {
    void* values = panel(slot / simd::panel).values;
    const std::size_t column = slot % simd::panel;
    for (std::size_t k = 0; k < static_cast<std::size_t>(dim_); ++k)
      if (half_) static_cast<Half*>(values)[k * simd::panel + column] = simd::float_to_half(from[k]);
      else static_cast<float*>(values)[k * simd::panel + column] = from[k];
  }
  void get(std::size_t slot, float* to) const noexcept {
    const void* values = panel(slot / simd::panel).values;
    const std::size_t column = slot % simd::panel;
    for (std::size_t k = 0; k < static_cast<std::size_t>(dim_); ++k)
      to[k] = half_ ? simd::half_to_float(static_cast<const Half*>(values)[k * simd::panel + column])
                    : static_cast<const float*>(values)[k * simd::panel + column];
  }
  /// Puts the template of one slot into another, with whom it belongs to.
  void copy(std::size_t from, std::size_t to) const noexcept {
    char *a = static_cast<char*>(panel(from / simd::panel).values), *b = static_cast<char*>(panel(to / simd::panel).values);
    const std::size_t item = half_ ? sizeof(Half) : sizeof(float), row = item * simd::panel;
    for (std::size_t k = 0; k < static_cast<std::size_t>(dim_); ++k)
      std::memcpy(b + k * row + to % simd::panel * item, a + k * row + from % simd::panel * item, item);
    id(to) = id(from);
    person(to) = person(from);
  }

 private:
  static constexpr std::size_t block_bytes = 2 * huge_page;
  void swap(TemplateStore& other) noexcept {
    std::swap(dim_, other.dim_);
    std::swap(half_, other.half_);
    std::swap(values_bytes_, other.values_bytes_);
    std::swap(panel_bytes_, other.panel_bytes_);
    std::swap(panels_in_block_, other.panels_in_block_);
    std::swap(blocks_, other.blocks_);
    std::swap(block_, other.block_);
  }

  int dim_ = 0;
  bool half_ = false;
  std::size_t values_bytes_ = 0, panel_bytes_ = 0, panels_in_block_ = 1, blocks_ = 0;
  Buffer<char*> block_;
};

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

}  // namespace detail

/// Templates by id, each of a person. Exact: results are those of distances in double to every stored template, and the
/// same for any number of threads. One Gallery serves one caller at a time. Move-only.
class Gallery {
 public:
  /// A gallery for embeddings of `dim` floats. Errors: invalid_argument, limit_exceeded, out_of_memory.
  static Result<Gallery> make(int dim, const GalleryOptions& options = {}) noexcept {
    if (dim < 1) return {Errc::invalid_argument, "an embedding must have at least one component"};
    if (dim > max_embedding_dim) return {Errc::limit_exceeded, "an embedding may have up to 16384 components"};
    if (options.threads < 0 || options.threads > max_threads)
      return {Errc::invalid_argument, "threads must be 1 to 256"};
    Gallery g;
    g.dim_ = dim;
    g.options_ = options;
    g.store_.set(dim, options.storage == TemplateStorage::f16);
    return g;
  }

  int dim() const noexcept { return dim_; }
  std::size_t size() const noexcept { return size_; }
  const GalleryOptions& options() const noexcept { return options_; }
  bool contains(std::uint64_t id) const noexcept { return map_.find(store_, id) != map_.none; }

  /// Makes room for n templates in all, so that add() needs no memory up to there.
  Status reserve(std::size_t n) noexcept {
    if (n > max_templates) return {Errc::limit_exceeded, "a gallery holds up to 2^30 templates"};
    FACENET_TRY(store_.reserve(n));
    return map_.reserve(store_, n);
  }
  /// Adds a template. Errors: invalid_argument for an id that is there already and for an embedding that is not finite (or
  /// does not fit half precision); out_of_memory. After an error the gallery is as before.
  Status add(std::uint64_t id, std::uint64_t person, const float* embedding) noexcept {
    FACENET_TRY(check(embedding, 1, options_.storage));
    if (contains(id)) return {Errc::invalid_argument, "this id is in the gallery already: update or remove it"};
    FACENET_TRY(reserve(size_ + 1));
    const std::size_t slot = size_++;
    store_.open(slot);
    store_.put(slot, embedding);
    store_.id(slot) = id;
    store_.person(slot) = person;
    map_.insert(id, slot);
    return {};
  }
  /// Replaces the values of a template, which stays the same person's. Errors: not_found; as add().
  Status update(std::uint64_t id, const float* embedding) noexcept {
    FACENET_TRY(check(embedding, 1, options_.storage));
    const std::size_t slot = map_.find(store_, id);
    if (slot == map_.none) return {Errc::not_found, "this id is not in the gallery"};
    store_.put(slot, embedding);
    return {};
  }
  /// Errors: not_found. Memory is kept for later templates.
  Status remove(std::uint64_t id) noexcept {
    const std::size_t slot = map_.find(store_, id), last = size_ - 1;
    if (slot == map_.none) return {Errc::not_found, "this id is not in the gallery"};
    map_.erase(store_, slot);
    if (slot != last) {
      map_.move(store_, last, slot);
      store_.copy(last, slot);
    }
    --size_;
    return {};
  }
  /// The values of a template as they are stored. Errors: not_found.
  Status get(std::uint64_t id, float* embedding) const noexcept {
    const std::size_t slot = map_.find(store_, id);
    if (slot == map_.none) return {Errc::not_found, "this id is not in the gallery"};
    store_.get(slot, embedding);
    return {};
  }

  /// The k nearest templates of each query: queries[n][dim], out[n][k], found[n] of them (fewer than k in a small
  /// gallery). Errors: invalid_argument, out_of_memory.
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
  static constexpr std::size_t max_templates = std::size_t{1} << 30;

  Status check(const float* e, int n, TemplateStorage storage) const noexcept {
    FACENET_TRY(detail::check_embeddings(e, static_cast<std::size_t>(n), dim_));
    if (storage == TemplateStorage::f16)
      for (int i = 0; i < n * dim_; ++i)
        if (std::fabs(e[i]) > 65504) return {Errc::invalid_argument, "an embedding has a component over 65504, half precision's largest"};
    return {};
  }

  Status nearest(const float* queries, int n, int k, double threshold, bool persons, Match* out, int* found) noexcept {
    if (n < 1 || k < 1 || out == nullptr || found == nullptr)
      return {Errc::invalid_argument, "there must be at least one query, and k must be 1 or more"};
    FACENET_TRY(check(queries, n, TemplateStorage::f32));
    auto row = Buffer<float>::make(static_cast<std::size_t>(dim_));
    auto all = Buffer<Match>::make(size_);
    if (!row) return row.status();
    if (!all) return all.status();
    for (int i = 0; i < n; ++i) {
      const float* q = queries + std::int64_t{i} * dim_;
      for (std::size_t s = 0; s < size_; ++s) {
        store_.get(s, row->data());
        (*all)[s] = {store_.id(s), store_.person(s), distance(options_.metric, q, row->data(), dim_), similarity(q, row->data(), dim_)};
      }
      std::sort(all->begin(), all->end(), [](const Match& a, const Match& b) {
        return a.distance != b.distance ? a.distance < b.distance : a.id < b.id;
      });
      Match* to = out + std::int64_t{i} * k;
      int count = 0;
      for (const Match& m : *all) {
        if (count == k || m.distance > threshold) break;
        bool seen = false;
        for (int j = 0; persons && j < count; ++j) seen = seen || to[j].person == m.person;
        if (!seen) to[count++] = m;
      }
      found[i] = count;
    }
    return {};
  }

  int dim_ = 0;
  std::size_t size_ = 0;
  GalleryOptions options_;
  detail::TemplateStore store_;
  detail::SlotMap map_;
};

FACENET_END
