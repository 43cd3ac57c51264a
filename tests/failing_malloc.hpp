// An allocator that fails when told, in the place of the library's. Include it before the library's headers.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdlib>

namespace failing_malloc {

inline long allocations_left = -1;  // until one fails, and all after it; negative: none does
inline std::atomic<long> blocks_alive{0};
inline std::atomic<std::size_t> bytes_asked{0};  // in all

inline void* allocate(std::size_t bytes) {
  if (allocations_left == 0) return nullptr;
  if (allocations_left > 0) --allocations_left;
  ++blocks_alive;
  bytes_asked += bytes;
  return std::malloc(bytes);
}

inline void release(void* p) {
  --blocks_alive;
  std::free(p);
}

}  // namespace failing_malloc
#define FACENET_MALLOC(bytes) failing_malloc::allocate(bytes)
#define FACENET_FREE(pointer) failing_malloc::release(pointer)
