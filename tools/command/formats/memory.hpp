// How much memory pictures may take, over all threads that decode and look at one.
#pragma once

#include <cstdint>

namespace command {

/// What one picture takes at the most, in its decoder and as pixels: with what is there to look for faces, 300 MiB.
constexpr std::uint64_t most_of_a_picture = 285u << 20;

/// A budget for `threads` threads, of which each looks at one picture at a time. A half of it is theirs in equal
/// shares; who needs more waits for a part of the other half. So the sum is never larger, and nobody waits for ever.
/// Without a call: half of the machine's memory, or of its control group's, and one thread.
void set_picture_memory(std::uint64_t total, int threads);
/// Half of the machine's memory, or of its control group's.
std::uint64_t default_picture_memory();

/// What a picture may take now at the most.
std::uint64_t picture_allowance();
/// What a thread may keep between two pictures.
std::uint64_t picture_share();

/// A part of the budget, given back at its end.
class MemoryLease {
 public:
  MemoryLease() = default;
  /// Waits until there is so much; more than picture_allowance() is cut to it.
  explicit MemoryLease(std::uint64_t bytes);
  MemoryLease(MemoryLease&& other) noexcept : beyond_(other.beyond_) { other.beyond_ = 0; }
  MemoryLease& operator=(MemoryLease&& other) noexcept;
  ~MemoryLease();

 private:
  std::uint64_t beyond_ = 0;  // the share
};

}  // namespace command
