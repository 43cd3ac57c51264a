// Span, aligned buffers that report failure, and the arena that they may be cut from.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "facenet/base/status.hpp"
#if defined(__linux__)
#  include <sys/mman.h>
#endif

#ifndef FACENET_MALLOC
#  define FACENET_MALLOC(bytes) std::malloc(bytes)
#  define FACENET_FREE(pointer) std::free(pointer)
#endif

FACENET_BEGIN

template <class T>
class Span;

namespace detail {

template <class C>
using Bare = std::remove_cv_t<std::remove_reference_t<C>>;
/// How a Span looks at a C: a temporary as a constant, so that one which owns its elements lends them to be read only.
template <class C>
using Lent = std::conditional_t<std::is_lvalue_reference_v<C>, C, const Bare<C>&>;
template <class T, class P>
constexpr bool is_array_of = std::is_convertible_v<std::remove_pointer_t<P> (*)[], T (*)[]>;

}  // namespace detail

/// A pointer and a count; owns nothing. Made from an array, from anything with data() and size() (std::array,
/// std::vector, std::span, Buffer, another Span), or from a pointer and any integer.
template <class T>
class Span {
 public:
  constexpr Span() noexcept = default;
  template <class N, class = std::enable_if_t<std::is_integral_v<N>>>
  constexpr Span(T* data, N size) noexcept : data_(data), size_(size > 0 ? static_cast<std::size_t>(size) : 0) {}
  template <std::size_t N>
  constexpr Span(T (&array)[N]) noexcept : data_(array), size_(N) {}
  template <class C, class P = decltype(std::declval<detail::Lent<C>>().data()),
            class = decltype(std::declval<detail::Lent<C>>().size()),
            class = std::enable_if_t<!std::is_same_v<detail::Bare<C>, Span> && detail::is_array_of<T, P>>>
  constexpr Span(C&& of) noexcept
      : data_(static_cast<detail::Lent<C>>(of).data()),
        size_(static_cast<std::size_t>(static_cast<detail::Lent<C>>(of).size())) {}

  constexpr T* data() const noexcept { return data_; }
  constexpr std::size_t size() const noexcept { return size_; }
  constexpr bool empty() const noexcept { return size_ == 0; }
  template <class I>
  constexpr T& operator[](I i) const noexcept {
    return data_[i];
  }
  constexpr T* begin() const noexcept { return data_; }
  constexpr T* end() const noexcept { return data_ + size_; }
  constexpr Span subspan(std::size_t from, std::size_t count) const noexcept { return {data_ + from, count}; }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

namespace detail {

/// invalid_argument where `out` has no room for `needed` elements.
template <class T>
inline Status check_room(Span<T> out, std::int64_t needed) noexcept {
  if (out.data() == nullptr) return {Errc::invalid_argument, "the output is null"};
  if (needed < 0 || out.size() < static_cast<std::uint64_t>(needed))
    return {Errc::invalid_argument, "the output is too small for what is written to it"};
  return {};
}

}  // namespace detail

constexpr std::size_t cache_line = 64;

constexpr std::size_t round_up(std::size_t n, std::size_t to) noexcept { return (n + to - 1) / to * to; }

namespace detail {

constexpr std::size_t huge_page = std::size_t{2} << 20;

/// Counts the bytes that allocate() hands out, for whoever sets it: tests, and `facenet bench --picture`.
FACENET_HIDDEN inline std::atomic<std::uint64_t>* allocation_meter = nullptr;

/// `bytes` aligned to a cache line, to 2 MiB from 2 MiB on; nullptr when there is no memory.
/// A large block requests huge pages: 94 MB of weights on 4 KiB pages miss the TLB on every panel.
inline void* allocate(std::size_t bytes) noexcept {
  const std::size_t align = bytes >= huge_page ? huge_page : cache_line;
  if (bytes > SIZE_MAX - 2 * align - sizeof(void*)) return nullptr;
  void* raw = FACENET_MALLOC(bytes + align + sizeof(void*));
  if (raw == nullptr) return nullptr;
  const auto address = round_up(reinterpret_cast<std::uintptr_t>(raw) + sizeof(void*), align);
  void* aligned = reinterpret_cast<void*>(address);
  std::memcpy(reinterpret_cast<char*>(address) - sizeof(void*), &raw, sizeof raw);
  if (allocation_meter != nullptr) allocation_meter->fetch_add(bytes, std::memory_order_relaxed);
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  // Only whole huge pages: a rounded-up last one would cost up to 2 MiB that is never used.
  if (align == huge_page) (void)madvise(aligned, bytes / huge_page * huge_page, MADV_HUGEPAGE);
#endif
  return aligned;
}

inline void deallocate(void* pointer) noexcept {
  if (pointer == nullptr) return;
  void* raw;
  std::memcpy(&raw, static_cast<char*>(pointer) - sizeof(void*), sizeof raw);
  FACENET_FREE(raw);
}

}  // namespace detail

/// Memory of the caller's, fixed in size, that objects are built in instead of malloc's: what stays from the front,
/// what is needed only for a while from the back. It must outlive them. Objects in it may be made and destroyed on any
/// thread. Room at the front comes back with each block, the back's when nothing of it is in use any more.
class Arena {
  /// Held for some instructions only, and only while objects are made or destroyed.
  class Lock {
   public:
    explicit Lock(std::atomic_flag& busy) noexcept : busy_(busy) {
      while (busy_.test_and_set(std::memory_order_acquire)) {
      }
    }
    Lock(const Lock&) = delete;
    Lock& operator=(const Lock&) = delete;
    ~Lock() { busy_.clear(std::memory_order_release); }

   private:
    std::atomic_flag& busy_;
  };

 public:
  enum End : std::uint8_t { front, back };

  /// Blocks begin at a cache line: memory that does not loses up to 63 bytes. Null is an arena without room.
  Arena(void* memory, std::size_t bytes) noexcept {
    const auto begin = reinterpret_cast<std::uintptr_t>(memory);
    const std::size_t skip = round_up(begin, cache_line) - begin;
    memory_ = static_cast<unsigned char*>(memory) + skip;
    size_ = memory != nullptr && skip < bytes ? (bytes - skip) / cache_line * cache_line : 0;
  }
  /// An arena without memory that finds out how large a real one must be. Small tables are real, from `backing` or from
  /// malloc where that is null; large blocks (Buffer::make_bulk) are only counted.
  struct Measure {
    Arena* backing;
  };
  explicit Arena(Measure m) noexcept : backing_(m.backing), size_(SIZE_MAX / 2), measuring_(true) {}
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  bool measuring() const noexcept { return measuring_; }
  std::size_t size() const noexcept { return size_; }
  std::size_t used() const noexcept { return extent() - free_; }
  /// The most bytes of the memory that were needed at one time.
  std::size_t peak() const noexcept { return peak_; }

  /// A block, or nullptr when there is not enough room.
  void* take(std::size_t bytes, End end) noexcept {
    const Lock lock(busy_);
    if (!measuring_ && end == front)
      if (void* const hole = fill_hole(rounded(bytes))) return hole;
    if (!extend(bytes, end)) return nullptr;
    if (!measuring_) return end == front ? memory_ + used_[front] - rounded(bytes) : memory_ + size_ - used_[back];
    void* const block = backing_ != nullptr ? backing_->take(bytes, end) : detail::allocate(bytes);
    if (block == nullptr) {
      used_[end] -= rounded(bytes);
      uncount(end);
    }
    return block;
  }
  /// Counts a block that is not there.
  bool count(std::size_t bytes, End end) noexcept {
    const Lock lock(busy_);
    return extend(bytes, end);
  }
  /// Gives back the `bytes` that take() returned, or nullptr for what count() counted.
  void give(void* block, std::size_t bytes, End end) noexcept {
    give_and([&] {
      if (!measuring_ && end == front && bytes != 0) open_hole(block, rounded(bytes));
      uncount(end);
      if (!measuring_ || block == nullptr) return;
      if (backing_ != nullptr)
        backing_->give(block, bytes, end);
      else
        detail::deallocate(block);
    });
  }

  /// Room for `bytes` as an arena of its own: one block of this arena, which is given back with the last block in it.
  /// Null without that room. It stays until release() even without a block.
  Arena* split(std::size_t bytes) noexcept {
    const std::size_t whole = split_bytes(bytes);
    void* const block = take(whole, front);
    if (block == nullptr) return nullptr;
    Arena* const part = ::new (block) Arena(static_cast<unsigned char*>(block) + split_bytes(0), bytes);
    part->whole_ = this;
    part->whole_bytes_ = whole;
    part->blocks_[front] = 1;
    return part;
  }
  void release() noexcept {
    give_and([this] { uncount(front); });
  }
  /// What a part of `bytes` takes.
  static constexpr std::size_t split_bytes(std::size_t bytes) noexcept {
    return rounded(sizeof(Arena)) + rounded(bytes);
  }

  /// While it lives, no other thread has one.
  class Turn {
   public:
    explicit Turn(Arena& arena) noexcept : lock_(arena.turn_) {}

   private:
    Lock lock_;
  };

 private:
  /// Room between blocks of the front, which lies in that room; in the order of addresses, never two beside each other.
  struct Hole {
    Hole* next;
    std::size_t bytes;
    unsigned char* begin() noexcept { return reinterpret_cast<unsigned char*>(this); }
  };
  static_assert(sizeof(Hole) <= cache_line, "a hole is at least a cache line");

  static constexpr std::size_t rounded(std::size_t bytes) noexcept { return round_up(bytes, cache_line); }
  std::size_t extent() const noexcept { return used_[front] + used_[back]; }
  bool extend(std::size_t bytes, End end) noexcept {
    if (bytes > size_ || rounded(bytes) > size_ - extent()) return false;
    used_[end] += rounded(bytes);
    ++blocks_[end];
    if (extent() > peak_) peak_ = extent();
    return true;
  }
  /// Calls f under the lock. A part that has no block after it goes back, and is no more.
  template <class F>
  void give_and(F&& f) noexcept {
    bool last = false;
    {
      const Lock lock(busy_);
      f();
      last = whole_ != nullptr && blocks_[front] + blocks_[back] == 0;
    }
    if (last) whole_->give(this, whole_bytes_, front);
  }
  void uncount(End end) noexcept {
    if (--blocks_[end] != 0) return;
    used_[end] = 0;
    if (end != front) return;
    holes_ = nullptr;
    free_ = 0;
  }
  /// The first hole of that size or more; what is left of it stays a hole.
  void* fill_hole(std::size_t bytes) noexcept {
    for (Hole** at = &holes_; bytes != 0 && *at != nullptr; at = &(*at)->next) {
      Hole* const hole = *at;
      if (hole->bytes < bytes) continue;
      *at = hole->bytes == bytes ? hole->next
                                 : ::new (static_cast<void*>(hole->begin() + bytes))
                                       Hole{hole->next, hole->bytes - bytes};
      free_ -= bytes;
      ++blocks_[front];
      return hole;
    }
    return nullptr;
  }
  void open_hole(void* block, std::size_t bytes) noexcept {
    Hole *before = nullptr, *after = holes_;
    while (after != nullptr && after->begin() < block) {
      before = after;
      after = after->next;
    }
    Hole* hole = ::new (block) Hole{after, bytes};
    free_ += bytes;
    if (after != nullptr && hole->begin() + bytes == after->begin()) {
      hole->next = after->next;
      hole->bytes += after->bytes;
    }
    if (before != nullptr && before->begin() + before->bytes == hole->begin()) {
      before->next = hole->next;
      before->bytes += hole->bytes;
      hole = before;
    } else {
      (before != nullptr ? before->next : holes_) = hole;
    }
    if (hole->begin() + hole->bytes != memory_ + used_[front]) return;
    used_[front] -= hole->bytes;  // the last one is no hole
    free_ -= hole->bytes;
    Hole** last = &holes_;
    while (*last != hole) last = &(*last)->next;
    *last = nullptr;
  }

  unsigned char* memory_ = nullptr;
  Arena* backing_ = nullptr;
  Arena* whole_ = nullptr;  // of which this is a part
  std::size_t whole_bytes_ = 0;
  Hole* holes_ = nullptr;
  std::size_t size_ = 0, used_[2] = {}, free_ = 0,
              peak_ = 0;  // used_: up to the last block of an end; free_: the holes'
  int blocks_[2] = {};
  bool measuring_ = false;
  std::atomic_flag busy_ = ATOMIC_FLAG_INIT, turn_ = ATOMIC_FLAG_INIT;
};

/// Where an object's memory comes from: malloc, or one end of an arena.
struct Memory {
  Arena* arena = nullptr;
  Arena::End end = Arena::front;

  Memory at_back() const noexcept { return {arena, Arena::back}; }
  bool measuring() const noexcept { return arena != nullptr && arena->measuring(); }
  void* take(std::size_t bytes) const noexcept {
    return arena != nullptr ? arena->take(bytes, end) : detail::allocate(bytes);
  }
  void give(void* block, std::size_t bytes) const noexcept {
    if (arena != nullptr)
      arena->give(block, bytes, end);
    else
      detail::deallocate(block);
  }
  /// What it means when take() returns nullptr.
  Status refusal() const noexcept {
    return {Errc::out_of_memory, arena != nullptr ? "the arena is too small: required_bytes() says what is needed"
                                                  : "there is not enough memory"};
  }
};

namespace detail {

/// An object in one block of an arena: make(Memory) measures it, then makes it. Objects of equal size then fit each
/// other's places, whatever several threads make and destroy at once; of several blocks, two would fill parts of a
/// third's place. The small blocks that measuring takes are no other thread's place either, hence the turn.
template <class Make>
auto make_in_one_block(Arena* arena, Make&& make) noexcept -> decltype(make(Memory{})) {
  if (arena == nullptr || arena->measuring()) return make(Memory{arena, Arena::front});
  Arena* part = nullptr;
  {
    const Arena::Turn turn(*arena);
    Arena measure{Arena::Measure{arena}};
    {
      auto measured = make(Memory{&measure, Arena::front});
      if (!measured) return measured.status();
    }
    part = arena->split(measure.peak());
  }
  if (part == nullptr) return Memory{arena, Arena::front}.refusal();
  auto made = make(Memory{part, Arena::front});
  part->release();
  return made;
}

}  // namespace detail

namespace detail {

/// What all Buffers are, whatever their elements: `size` elements in a block of `bytes`.
struct RawBlock {
  void* data = nullptr;
  std::size_t size = 0, bytes = 0;
  Memory from;

  RawBlock() noexcept = default;
  RawBlock(RawBlock&& other) noexcept { swap(other); }
  RawBlock& operator=(RawBlock&& other) noexcept {
    RawBlock moved(std::move(other));  // which leaves `other` empty
    swap(moved);
    return *this;
  }
  ~RawBlock() { from.give(data, bytes); }
  void swap(RawBlock& other) noexcept {
    std::swap(data, other.data);
    std::swap(size, other.size);
    std::swap(bytes, other.bytes);
    std::swap(from, other.from);
  }

  /// A new block instead; `bulk`: memory that measures only counts it, and data is null then. Error: out_of_memory.
  Status renew(std::size_t count, std::size_t element, bool zero, bool bulk, Memory memory) noexcept {
    RawBlock b;
    bulk = bulk && memory.measuring();
    if (count > SIZE_MAX / element || (bulk && !memory.arena->count(count * element, memory.end)))
      return {Errc::out_of_memory, "the buffer would not fit the address space"};
    if (!bulk) b.data = memory.take(count * element);
    if (!bulk && b.data == nullptr) return memory.refusal();
    b.size = count;
    b.bytes = count * element;
    b.from = memory;
    if (zero && !bulk) std::memset(b.data, 0, b.bytes);
    swap(b);
    return {};
  }
  /// The same with more room, its first `kept` bytes as they were. Error: out_of_memory.
  Status grow(std::size_t count, std::size_t element, std::size_t kept, Memory memory) noexcept {
    RawBlock b;
    FACENET_TRY(b.renew(count, element, false, false, memory));
    if (kept != 0) std::memcpy(b.data, data, kept);
    swap(b);
    return {};
  }
};

}  // namespace detail

/// An owning, fixed-size, 64-byte aligned array of trivial T. Move-only.
template <class T>
class Buffer {
  static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>, "raw memory only");

 public:
  /// `size` elements, zero-filled unless `zero` is false. Error: out_of_memory.
  static Result<Buffer> make(std::size_t size, bool zero = true, Memory from = {}) noexcept {
    Buffer b;
    FACENET_TRY(b.renew(size, zero, from));
    return b;
  }
  /// Makes a large block. An arena that measures only counts it: data() is null then.
  static Result<Buffer> make_bulk(std::size_t size, bool zero, Memory from) noexcept {
    Buffer b;
    FACENET_TRY(b.renew(size, zero, from, true));
    return b;
  }
  /// Becomes a new array; stays what it was where there is no memory for that.
  Status renew(std::size_t size, bool zero, Memory from, bool bulk = false) noexcept {
    return block_.renew(size, sizeof(T), zero, bulk, from);
  }

  /// More room: the first `kept` elements stay. Error: out_of_memory.
  Status grow(std::size_t size, std::size_t kept, Memory from) noexcept {
    return block_.grow(size, sizeof(T), kept * sizeof(T), from);
  }
  void swap(Buffer& other) noexcept { block_.swap(other.block_); }

  T* data() noexcept { return static_cast<T*>(block_.data); }
  const T* data() const noexcept { return static_cast<const T*>(block_.data); }
  std::size_t size() const noexcept { return block_.size; }
  bool empty() const noexcept { return block_.size == 0; }
  template <class I>
  T& operator[](I i) noexcept {
    return data()[i];
  }
  template <class I>
  const T& operator[](I i) const noexcept {
    return data()[i];
  }
  T* begin() noexcept { return data(); }
  T* end() noexcept { return data() + size(); }
  const T* begin() const noexcept { return data(); }
  const T* end() const noexcept { return data() + size(); }
  Span<T> span() noexcept { return {data(), size()}; }
  Span<const T> span() const noexcept { return {data(), size()}; }

 private:
  detail::RawBlock block_;
};

namespace detail {

/// Gives `into` a new array of `size` elements. Error: out_of_memory.
template <class T>
Status allocate(Buffer<T>& into, std::size_t size, bool zero = false, Memory from = {}) noexcept {
  return into.renew(size, zero, from);
}
/// Gives `into` a new array by Buffer::make_bulk. Error: out_of_memory.
template <class T>
Status allocate_bulk(Buffer<T>& into, std::size_t size, bool zero, Memory from) noexcept {
  return into.renew(size, zero, from, true);
}

}  // namespace detail

FACENET_END
