// malloc, realloc and free for the WASI modules: 1 KB instead of the C library's 12. A module holds some hundred
// blocks, most of them as long as a model is loaded, so the first free block that is large enough is taken. Memory that
// is needed beyond the last block is the host's, 64 KB at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

extern unsigned char __heap_base;  // the linker's

namespace heap {

/// Before each block's bytes. Blocks lie side by side from `first()` to `end`; neighbours that are free are joined when
/// somebody looks for memory.
struct alignas(16) Block {
  std::size_t bytes;  // with this header, a multiple of 16
  bool used;

  unsigned char* data() noexcept { return reinterpret_cast<unsigned char*>(this + 1); }
  Block* next() noexcept { return reinterpret_cast<Block*>(reinterpret_cast<unsigned char*>(this) + bytes); }
};
static_assert(sizeof(Block) == 16, "data is aligned as a block is");

inline Block* end = nullptr;

inline std::size_t up(std::size_t n, std::size_t to) noexcept { return (n + to - 1) / to * to; }
inline Block* first() noexcept {
  return reinterpret_cast<Block*>(up(reinterpret_cast<std::size_t>(&__heap_base), sizeof(Block)));
}

/// Cuts a block that is free to `bytes`, where the rest is worth a block.
inline void cut(Block* b, std::size_t bytes) noexcept {
  if (b->bytes - bytes >= 2 * sizeof(Block)) {
    const std::size_t rest = b->bytes - bytes;
    b->bytes = bytes;
    b->next()->bytes = rest;
    b->next()->used = false;
  }
}
inline void join(Block* b) noexcept {
  while (b->next() != end && !b->next()->used) b->bytes += b->next()->bytes;
}
/// Adds memory behind `last`, the last block, which is free and too small; null: there is no block.
inline Block* grow(Block* last, std::size_t bytes) noexcept {
  constexpr std::size_t page = 65536;
  Block* const from = last != nullptr ? last : end;
  const std::size_t there = __builtin_wasm_memory_size(0) * page, at = reinterpret_cast<std::size_t>(from);
  if (bytes > SIZE_MAX - page - at) return nullptr;
  const std::size_t wanted = up(at + bytes, page);
  if (wanted > there && __builtin_wasm_memory_grow(0, (wanted - there) / page) == SIZE_MAX) return nullptr;
  from->bytes = (wanted > there ? wanted : there) - at;
  from->used = false;
  end = from->next();
  return from;
}

inline void* allocate(std::size_t n) noexcept {
  if (n > SIZE_MAX - 2 * sizeof(Block)) return nullptr;
  const std::size_t bytes = up(n + sizeof(Block), sizeof(Block));
  if (end == nullptr) end = first();
  Block *found = nullptr, *last = nullptr;
  for (Block* b = first(); b != end; b = b->next()) {
    last = nullptr;
    if (b->used) continue;
    join(b);
    last = b;
    if (b->bytes >= bytes) {
      found = b;
      break;
    }
  }
  if (found == nullptr) found = grow(last, bytes);
  if (found == nullptr) return nullptr;
  cut(found, bytes);
  found->used = true;
  return found->data();
}
inline void release(void* p) noexcept {
  if (p != nullptr) (static_cast<Block*>(p) - 1)->used = false;
}
inline void* resize(void* p, std::size_t n) noexcept {
  if (p == nullptr) return allocate(n);
  if (n > SIZE_MAX - 2 * sizeof(Block)) return nullptr;
  Block* const b = static_cast<Block*>(p) - 1;
  const std::size_t bytes = up(n + sizeof(Block), sizeof(Block)), before = b->bytes;
  join(b);
  if (b->bytes < bytes && b->next() == end) grow(b, bytes);
  if (b->bytes >= bytes) {
    cut(b, bytes);
    b->used = true;
    return p;
  }
  b->used = true;
  void* const moved = allocate(n);
  if (moved == nullptr) return nullptr;
  std::memcpy(moved, p, before - sizeof(Block));
  b->used = false;
  return moved;
}

}  // namespace heap
