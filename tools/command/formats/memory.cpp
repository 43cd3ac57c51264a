#include "command/formats/memory.hpp"

#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <utility>

namespace command {

namespace {

/// The number in a file, or the largest where there is none, as "max" of a control group.
std::uint64_t number_in(const char* file) {
  std::uint64_t value = UINT64_MAX;
  std::FILE* in = std::fopen(file, "re");
  if (in == nullptr) return value;
  char text[32] = {};
  if (std::fgets(text, sizeof text, in) != nullptr && text[0] >= '0' && text[0] <= '9')
    value = std::strtoull(text, nullptr, 10);
  std::fclose(in);
  return value;
}

struct Budget {
  std::mutex mutex;
  std::condition_variable given_back;
  std::uint64_t share = 0, pool = 0, taken = 0;

  Budget() { set(default_picture_memory(), 1); }
  void set(std::uint64_t total, int threads) {
    share = total / 2 / static_cast<std::uint64_t>(threads);
    pool = total / 2;
  }
};

Budget& budget() {
  static Budget one;
  return one;
}

}  // namespace

std::uint64_t default_picture_memory() {
  const std::uint64_t machine =
      static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES)) * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  // What a container sees as its own group.
  return std::min({machine, number_in("/sys/fs/cgroup/memory.max"),
                   number_in("/sys/fs/cgroup/memory/memory.limit_in_bytes")}) /
         2;
}

void set_picture_memory(std::uint64_t total, int threads) {
  const std::lock_guard<std::mutex> lock(budget().mutex);
  budget().set(total, threads);
}

std::uint64_t picture_allowance() {
  const std::lock_guard<std::mutex> lock(budget().mutex);
  return std::min(most_of_a_picture, budget().share + budget().pool);
}

std::uint64_t picture_share() {
  const std::lock_guard<std::mutex> lock(budget().mutex);
  return budget().share;
}

MemoryLease::MemoryLease(std::uint64_t bytes) {
  Budget& b = budget();
  std::unique_lock<std::mutex> lock(b.mutex);
  if (bytes <= b.share) return;
  beyond_ = std::min(bytes - b.share, b.pool);
  b.given_back.wait(lock, [&] { return b.taken + beyond_ <= b.pool; });
  b.taken += beyond_;
}

MemoryLease& MemoryLease::operator=(MemoryLease&& other) noexcept {
  std::swap(beyond_, other.beyond_);
  return *this;
}

MemoryLease::~MemoryLease() {
  if (beyond_ == 0) return;
  {
    const std::lock_guard<std::mutex> lock(budget().mutex);
    budget().taken -= beyond_;
  }
  budget().given_back.notify_all();
}

}  // namespace command
