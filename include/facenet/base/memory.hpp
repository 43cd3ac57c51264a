// Span, aligned buffers that report failure, and the arena that they may be cut from. Layer 1.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "facenet/status.hpp"
#if defined(__linux__)
#  include <sys/mman.h>
#endif

#ifndef FACENET_MALLOC
#  define FACENET_MALLOC(bytes) std::malloc(bytes)
#  define FACENET_FREE(pointer) std::free(pointer)
#endif

FACENET_BEGIN

/// A pointer and a count; owns nothing.
template <class T>
class Span {
 public:
  constexpr Span() noexcept = default;
  constexpr Span(T* data, std::size_t size) noexcept : data_(data), size_(size) {}
  template <std::size_t N>
  constexpr Span(T (&array)[N]) noexcept : data_(array), size_(N) {}
  template <class U, class = std::enable_if_t<std::is_same_v<const U, T>>>
  constexpr Span(Span<U> other) noexcept : data_(other.data()), size_(other.size()) {}

  constexpr T* data() const noexcept { return data_; }
  constexpr std::size_t size() const noexcept { return size_; }
  constexpr bool empty() const noexcept { return size_ == 0; }
  constexpr T& operator[](std::size_t i) const noexcept { return data_[i]; }
  constexpr T* begin() const noexcept { return data_; }
  constexpr T* end() const noexcept { return data_ + size_; }
  constexpr Span subspan(std::size_t from, std::size_t count) const noexcept { return {data_ + from, count}; }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

constexpr std::size_t cache_line = 64;

constexpr std::size_t round_up(std::size_t n, std::size_t to) noexcept { return (n + to - 1) / to * to; }

namespace detail {

constexpr std::size_t huge_page = std::size_t{2} << 20;

/// `bytes` aligned to a cache line, to 2 MiB from 2 MiB on; nullptr when there is no memory.
/// A large block asks for huge pages: 94 MB of weights on 4 KiB pages miss the TLB on every panel.
inline void* allocate(std::size_t bytes) noexcept {
  const std::size_t align = bytes >= huge_page ? huge_page : cache_line;
  if (bytes > SIZE_MAX - 2 * align - sizeof(void*)) return nullptr;
  void* raw = FACENET_MALLOC(bytes + align + sizeof(void*));
  if (raw == nullptr) return nullptr;
  const auto address = round_up(reinterpret_cast<std::uintptr_t>(raw) + sizeof(void*), align);
  void* aligned = reinterpret_cast<void*>(address);
  std::memcpy(reinterpret_cast<char*>(address) - sizeof(void*), &raw, sizeof raw);
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  // Only whole huge pages: a rounded-up last one would cost up to 2 MiB that nobody uses.
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

/// Memory of the caller's, fixed in size, that objects are built in instead of malloc's: what stays from the front, what
/// is needed only for a while from the back. It must outlive them and serves one thread at a time. An end's room comes
/// back when nothing of it is in use any more.
class Arena {
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
  std::size_t used() const noexcept { return used_[front] + used_[back]; }
  /// The most bytes that were in use at one time.
  std::size_t peak() const noexcept { return peak_; }

  /// A block, or nullptr when there is not enough room.
  void* take(std::size_t bytes, End end) noexcept {
    if (!count(bytes, end)) return nullptr;
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
    if (bytes > size_ || rounded(bytes) > size_ - used()) return false;
    used_[end] += rounded(bytes);
    ++blocks_[end];
    if (used() > peak_) peak_ = used();
    return true;
  }
  /// Gives back what take() returned, or nullptr for what count() counted.
  void give(void* block, End end) noexcept {
    uncount(end);
    if (!measuring_ || block == nullptr) return;
    if (backing_ != nullptr) backing_->give(block, end);
    else detail::deallocate(block);
  }

 private:
  static constexpr std::size_t rounded(std::size_t bytes) noexcept { return round_up(bytes, cache_line); }
  void uncount(End end) noexcept {
    if (--blocks_[end] == 0) used_[end] = 0;
  }

  unsigned char* memory_ = nullptr;
  Arena* backing_ = nullptr;
  std::size_t size_ = 0, used_[2] = {}, peak_ = 0;
  int blocks_[2] = {};
  bool measuring_ = false;
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
  void give(void* block) const noexcept {
    if (arena != nullptr) arena->give(block, end);
    else detail::deallocate(block);
  }
};

/// An owning, fixed-size, 64-byte aligned array of trivial T. Move-only.
template <class T>
class Buffer {
  static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>, "raw memory only");

 public:
  Buffer() noexcept = default;
  Buffer(Buffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)),
        from_(std::exchange(other.from_, {})) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(from_, other.from_);
    return *this;
  }
  ~Buffer() { from_.give(data_); }

  /// `size` elements, zero-filled unless `zero` is false. Error: out_of_memory.
  static Result<Buffer> make(std::size_t size, bool zero = true, Memory from = {}) noexcept {
    Buffer b;
    if (size > SIZE_MAX / sizeof(T)) return {Errc::out_of_memory, "the buffer would not fit the address space"};
    b.data_ = static_cast<T*>(from.take(size * sizeof(T)));
    if (b.data_ == nullptr)
      return {Errc::out_of_memory, from.arena != nullptr ? "the arena is too small: required_bytes() says what is needed"
                                                         : "there is not enough memory"};
    b.size_ = size;
    b.from_ = from;
    if (zero) std::memset(static_cast<void*>(b.data_), 0, size * sizeof(T));
    return b;
  }
  /// The same for the large blocks that an arena which measures only counts: data() is null then.
  static Result<Buffer> make_bulk(std::size_t size, bool zero, Memory from) noexcept {
    if (!from.measuring()) return make(size, zero, from);
    Buffer b;
    if (size > SIZE_MAX / sizeof(T) || !from.arena->count(size * sizeof(T), from.end))
      return {Errc::out_of_memory, "the buffer would not fit the address space"};
    b.size_ = size;
    b.from_ = from;
    return b;
  }

  T* data() noexcept { return data_; }
  const T* data() const noexcept { return data_; }
  std::size_t size() const noexcept { return size_; }
  bool empty() const noexcept { return size_ == 0; }
  T& operator[](std::size_t i) noexcept { return data_[i]; }
  const T& operator[](std::size_t i) const noexcept { return data_[i]; }
  T* begin() noexcept { return data_; }
  T* end() noexcept { return data_ + size_; }
  const T* begin() const noexcept { return data_; }
  const T* end() const noexcept { return data_ + size_; }
  Span<T> span() noexcept { return {data_, size_}; }
  Span<const T> span() const noexcept { return {data_, size_}; }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
  Memory from_;
};

FACENET_END
