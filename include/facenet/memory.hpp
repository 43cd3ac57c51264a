// Span, aligned buffers that report failure, and the arena allocator. Layer 1.
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

/// An owning, fixed-size, 64-byte aligned array of trivial T. Move-only.
template <class T>
class Buffer {
  static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>, "raw memory only");

 public:
  Buffer() noexcept = default;
  Buffer(Buffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~Buffer() { detail::deallocate(data_); }

  /// `size` elements, zero-filled unless `zero` is false. Error: out_of_memory.
  static Result<Buffer> make(std::size_t size, bool zero = true) noexcept {
    Buffer b;
    if (size > SIZE_MAX / sizeof(T)) return {Errc::out_of_memory, "the buffer would not fit the address space"};
    b.data_ = static_cast<T*>(detail::allocate(size * sizeof(T)));
    if (b.data_ == nullptr) return {Errc::out_of_memory, "there is not enough memory"};
    b.size_ = size;
    if (zero) std::memset(static_cast<void*>(b.data_), 0, size * sizeof(T));
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
};

FACENET_END
