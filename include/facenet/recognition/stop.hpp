// How a caller ends a long search or clustering.
#pragma once
#include "facenet/base/macros_push.inc"

#include <atomic>

#include "facenet/base/status.hpp"

FACENET_BEGIN

namespace detail {

/// The caller's flag. Once seen it stays set: what a thread left out is not forgotten when the caller clears it.
class Stop {
 public:
  explicit Stop(const std::atomic<bool>* flag) noexcept : flag_(flag) {}
  bool operator()() noexcept {
    if (flag_ != nullptr && flag_->load(std::memory_order_relaxed)) seen_.store(true, std::memory_order_relaxed);
    return seen_.load(std::memory_order_relaxed);
  }
  static Status status() noexcept { return {Errc::cancelled, "the caller has cancelled it"}; }

 private:
  const std::atomic<bool>* const flag_;
  std::atomic<bool> seen_{false};
};

}  // namespace detail

FACENET_END

#include "facenet/base/macros_pop.inc"
