// Sorting in place, without memory of its own.
#pragma once

#include <algorithm>

#include "facenet/base/config.hpp"

FACENET_BEGIN

namespace detail {

/// Sorts [from, to) by less(a, b). Equal elements may change places. A heap in WebAssembly: 0.6 KB for each type
/// instead of 2 to 4, in modules that are downloaded.
template <class T, class Less>
void sort(T* from, T* to, Less less) noexcept {
#if defined(__wasm__)
  std::make_heap(from, to, less);
  std::sort_heap(from, to, less);
#else
  std::sort(from, to, less);
#endif
}

}  // namespace detail

FACENET_END
