// Ownership, written once: objects in one block, objects that several share, and numbers that do not outlive their
// object.
#pragma once

#include <atomic>

#include "facenet/base/memory.hpp"

FACENET_BEGIN

namespace detail {

/// A number that is T() again when it has been moved from, as the Buffer that it describes is empty then.
template <class T>
class Moved {
 public:
  constexpr Moved(T value = T()) noexcept : value_(value) {}
  constexpr Moved(Moved&& other) noexcept : value_(std::exchange(other.value_, T())) {}
  constexpr Moved& operator=(Moved&& other) noexcept {
    value_ = std::exchange(other.value_, T());
    return *this;
  }
  constexpr operator T() const noexcept { return value_; }

 private:
  T value_;
};

/// Objects that are made in place and stay there: `size()` of them in one block. Move-only.
template <class T>
class Owned {
 public:
  Owned() noexcept = default;
  Owned(Owned&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)), from_(other.from_) {}
  Owned& operator=(Owned&& other) noexcept {
    Owned moved(std::move(other));
    std::swap(data_, moved.data_);
    std::swap(size_, moved.size_);
    std::swap(from_, moved.from_);
    return *this;
  }
  ~Owned() {
    if (data_ == nullptr) return;
    for (std::size_t i = size_; i > 0; --i) data_[i - 1].~T();
    from_.give(data_, size_ * sizeof(T));
  }

  /// `size` default-made objects. Error: out_of_memory.
  static Status make(Owned& into, std::size_t size, Memory from) noexcept {
    void* const block = size <= SIZE_MAX / sizeof(T) ? from.take(size * sizeof(T)) : nullptr;
    if (block == nullptr) return from.refusal();
    Owned made;
    made.data_ = static_cast<T*>(block);
    made.from_ = from;
    for (; made.size_ < size; ++made.size_) ::new (static_cast<void*>(made.data_ + made.size_)) T;
    into = std::move(made);
    return {};
  }

  explicit operator bool() const noexcept { return data_ != nullptr; }
  std::size_t size() const noexcept { return size_; }
  template <class I>
  T& operator[](I i) const noexcept {
    return data_[i];
  }
  T& operator*() const noexcept { return *data_; }
  T* operator->() const noexcept { return data_; }
  T* begin() const noexcept { return data_; }
  T* end() const noexcept { return data_ + size_; }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
  Memory from_;
};

/// One object with several owners, on any threads; the last to go destroys it.
template <class T>
class Shared {
 public:
  Shared() noexcept = default;
  Shared(const Shared& other) noexcept : block_(other.block_) {
    if (block_ != nullptr) block_->owners.fetch_add(1, std::memory_order_relaxed);
  }
  Shared(Shared&& other) noexcept : block_(std::exchange(other.block_, nullptr)) {}
  Shared& operator=(Shared other) noexcept {
    std::swap(block_, other.block_);
    return *this;
  }
  ~Shared() {
    if (block_ == nullptr || block_->owners.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
    const Memory from = block_->from;
    block_->~Block();
    from.give(block_, sizeof(Block));
  }

  /// A default-made object. Error: out_of_memory.
  static Status make(Shared& into, Memory from) noexcept {
    void* const block = from.take(sizeof(Block));
    if (block == nullptr) return from.refusal();
    Shared made;
    made.block_ = ::new (block) Block;
    made.block_->from = from;
    into = std::move(made);
    return {};
  }

  explicit operator bool() const noexcept { return block_ != nullptr; }
  T& operator*() const noexcept { return block_->value; }
  T* operator->() const noexcept { return &block_->value; }
  /// Where the object lies.
  Memory memory() const noexcept { return block_ != nullptr ? block_->from : Memory(); }

 private:
  struct Block {
    T value;
    Memory from;
    std::atomic<int> owners{1};
  };
  Block* block_ = nullptr;
};

}  // namespace detail

FACENET_END
