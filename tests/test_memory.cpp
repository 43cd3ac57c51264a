// Spans, and buffers that are aligned, zeroed, given back once, and that report failure.
#include <cstddef>
#include <cstdlib>

namespace {
std::size_t largest_request = 0;
long alive = 0;
bool refuse = false;
void* counted_malloc(std::size_t bytes) {
  largest_request = bytes > largest_request ? bytes : largest_request;
  if (refuse) return nullptr;
  ++alive;
  return std::malloc(bytes);
}
void counted_free(void* p) {
  --alive;
  std::free(p);
}
}  // namespace
#define FACENET_MALLOC(bytes) counted_malloc(bytes)
#define FACENET_FREE(pointer) counted_free(pointer)

#include <doctest/doctest.h>

#include <string>

#include "facenet/memory.hpp"
#include "facenet/tensor.hpp"

using namespace facenet;

namespace {
bool aligned(const void* p, std::size_t to) { return reinterpret_cast<std::uintptr_t>(p) % to == 0; }
}  // namespace

static_assert(round_up(0, 64) == 0 && round_up(1, 64) == 64 && round_up(64, 64) == 64 && round_up(65, 64) == 128);

TEST_CASE("buffers of every size begin at a cache line, large ones at a huge page, and are zero to their end") {
  for (std::size_t size : {0u, 1u, 15u, 16u, 17u, 1000u, 524287u, 524288u, 524289u}) {  // the last three around 2 MiB
    CAPTURE(size);
    auto b = Buffer<float>::make(size);
    REQUIRE(b.ok());
    CHECK(b->size() == size);
    CHECK(b->empty() == (size == 0));
    CHECK(aligned(b->data(), cache_line));
    if (size * sizeof(float) >= detail::huge_page) CHECK(aligned(b->data(), detail::huge_page));
    bool zero = true;
    for (float f : *b) zero = zero && f == 0.0f;
    CHECK(zero);
    for (std::size_t i = 0; i < size; ++i) (*b)[i] = 1;  // a sanitizer watches the end
  }
  CHECK(alive == 0);
}

TEST_CASE("memory that is used again is zeroed again") {
  for (int i = 0; i < 8; ++i) {
    auto b = Buffer<unsigned char>::make(4096);
    REQUIRE(b.ok());
    bool zero = true;
    for (unsigned char c : *b) zero = zero && c == 0;
    CHECK(zero);
    std::memset(b->data(), 0xff, b->size());
  }
}

TEST_CASE("moving hands the memory over, and each block is given back once") {
  {
    auto made = Buffer<int>::make(10);
    REQUIRE(made.ok());
    Buffer<int> a = std::move(*made);
    a[9] = 5;
    const int* at = a.data();
    Buffer<int> b(std::move(a));
    CHECK(b.data() == at);
    CHECK(a.data() == nullptr);
    CHECK(a.size() == 0);
    Buffer<int> c;
    c = std::move(b);
    CHECK(c[9] == 5);
    CHECK(c.span().size() == 10);
    CHECK(alive == 1);
  }
  CHECK(alive == 0);
}

TEST_CASE("no memory, and sizes that would wrap around, are errors") {
  refuse = true;
  CHECK(Buffer<float>::make(1).status().code() == Errc::out_of_memory);
  refuse = false;
  largest_request = 0;
  CHECK(Buffer<double>::make(SIZE_MAX / sizeof(double) + 1).status().code() == Errc::out_of_memory);
  CHECK(Buffer<char>::make(SIZE_MAX).status().code() == Errc::out_of_memory);
  CHECK(Buffer<char>::make(SIZE_MAX - detail::huge_page).status().code() == Errc::out_of_memory);
  CHECK(largest_request == 0);  // refused before anybody was asked for the few bytes that remain after wrapping
  CHECK(alive == 0);
}

TEST_CASE("an arena: both ends, full to the last line, room that comes back, never malloc") {
  alignas(64) unsigned char memory[64 * 10];
  Arena arena(memory, sizeof memory);
  const Memory front{&arena, Arena::front}, back = front.at_back();
  refuse = true;
  {
    auto a = Buffer<float>::make(17, true, front);  // 68 bytes: two lines
    auto b = Buffer<char>::make(64 * 3, true, back);
    REQUIRE(a.ok());
    REQUIRE(b.ok());
    CHECK(static_cast<void*>(a->data()) == memory);
    CHECK(static_cast<void*>(b->data()) == memory + 64 * 7);
    CHECK(arena.used() == 64 * 5);
    const Status full = Buffer<char>::make(64 * 5 + 1, true, front).status();
    CHECK(full.code() == Errc::out_of_memory);
    CHECK(std::string(full.text()).find("required_bytes()") != std::string::npos);
    volatile std::size_t huge = SIZE_MAX / sizeof(double);  // a constant makes GCC warn of the memset that never happens
    CHECK(Buffer<double>::make(huge, true, front).status().code() == Errc::out_of_memory);
    CHECK(arena.used() == 64 * 5);
    auto c = Buffer<char>::make(64 * 5, true, front);
    REQUIRE(c.ok());
    CHECK(static_cast<void*>(c->data()) == memory + 64 * 2);
    CHECK(arena.used() == arena.size());
    { const Buffer<char> gone = std::move(*b); }  // all that the back had
    CHECK(arena.used() == 64 * 7);
    { const Buffer<float> gone = std::move(*a); }  // not all of the front
    CHECK(arena.used() == 64 * 7);
    Buffer<char> moved;
    moved = std::move(*c);
    CHECK(moved.size() == 64 * 5);
  }
  CHECK(arena.used() == 0);
  CHECK(arena.peak() == arena.size());
  CHECK(Buffer<char>::make(64 * 10, false, back).ok());
  refuse = false;
  CHECK(alive == 0);
}

TEST_CASE("an arena in memory that is not aligned, too small for a line, or null") {
  Arena none(nullptr, 4096);
  CHECK(none.size() == 0);
  CHECK(none.take(1, Arena::front) == nullptr);
  CHECK(none.take(1, Arena::back) == nullptr);
  alignas(64) unsigned char memory[64 * 4];
  for (std::size_t skip : {0u, 1u, 63u}) {
    Arena arena(memory + skip, 64 * 3 - skip);
    CHECK(arena.size() == (skip == 0 ? 64 * 3 : 64 * 2));
    auto all = Buffer<char>::make(arena.size(), true, {&arena, Arena::front});
    REQUIRE(all.ok());
    CHECK(aligned(all->data(), cache_line));
    CHECK(all->data() + all->size() <= reinterpret_cast<char*>(memory) + 64 * 3);
  }
  for (std::size_t bytes : {0u, 1u, 63u}) {
    CHECK(Arena(memory, bytes).size() == 0);
    CHECK(Arena(memory + 1, bytes).size() == 0);
  }
}

TEST_CASE("an arena that measures counts what a real one takes; bulk is only counted, tables are real") {
  alignas(64) unsigned char tables[64 * 2];
  {
    Arena measure{Arena::Measure{nullptr}};
    const Memory from{&measure, Arena::front};
    {
      auto table = Buffer<int>::make(1, true, from);
      auto bulk = Buffer<float>::make_bulk(std::size_t{1} << 28, true, from);
      REQUIRE(table.ok());
      REQUIRE(bulk.ok());
      (*table)[0] = 1;
      CHECK(bulk->data() == nullptr);
      CHECK(measure.used() == 64 + (std::size_t{4} << 28));
      CHECK(Buffer<float>::make_bulk(SIZE_MAX / 4, true, from).status().code() == Errc::out_of_memory);
      CHECK(alive == 1);
    }
    CHECK(measure.used() == 0);
    CHECK(alive == 0);
  }
  Arena real(tables, sizeof tables), measure{Arena::Measure{&real}};
  refuse = true;
  {
    auto table = Buffer<int>::make(1, true, {&measure, Arena::back});
    REQUIRE(table.ok());
    CHECK(real.used() == 64);
    CHECK(Buffer<int>::make(64, true, {&measure, Arena::back}).status().code() == Errc::out_of_memory);
    CHECK(measure.used() == 64);
  }
  refuse = false;
  CHECK(real.used() == 0);
}

TEST_CASE("spans: of arrays, of parts, of constants") {
  int numbers[] = {1, 2, 3, 4};
  const Span<int> all(numbers);
  const Span<const int> constant = all;
  CHECK(constant.size() == 4);
  CHECK(constant.data() == numbers);
  const Span<int> part = all.subspan(1, 2);
  CHECK(part.size() == 2);
  part[0] = 20;
  CHECK(numbers[1] == 20);
  int sum = 0;
  for (int n : all) sum += n;
  CHECK(sum == 28);
  CHECK(Span<int>().empty());
}

TEST_CASE("tensor views: a dense one, and a slice of channels inside a halo") {
  float data[2 * 4 * 5 * 6] = {};
  const TensorView dense = dense_view(data, {4, 5, 6}, 2);
  CHECK(dense.pixel(1, 3, 4) == data + 1 * 120 + 3 * 30 + 4 * 6);
  const TensorView slice{data + 1 * 30 + 1 * 6 + 2, {2, 3, 3}, 2, 6, 30, 120};
  CHECK(slice.pixel(1, 1, 2) == data + 120 + 2 * 30 + 3 * 6 + 2);
  const ConstTensorView constant = slice;
  CHECK(constant.pixel(1, 1, 2) == slice.pixel(1, 1, 2));
  CHECK(constant.n == 2);
  CHECK(Shape{2, 3, 4}.size() == 24);
  CHECK(Shape{2, 3, 4} != Shape{2, 4, 3});
  CHECK(Shape{1 << 16, 1 << 16, 16}.size() == std::int64_t{1} << 36);
}
