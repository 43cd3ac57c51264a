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

#include <array>
#include <random>
#include <string>
#include <vector>

#include "facenet/base/memory.hpp"
#include "facenet/base/owned.hpp"
#include "facenet/base/tensor.hpp"

using namespace facenet;

namespace {
bool aligned(const void* p, std::size_t to) { return reinterpret_cast<std::uintptr_t>(p) % to == 0; }
}  // namespace

static_assert(round_up(0, 64) == 0 && round_up(1, 64) == 64 && round_up(64, 64) == 64 && round_up(65, 64) == 128);

TEST_CASE("a part of an arena is one block, which goes back with the last block in it") {
  alignas(64) static unsigned char memory[4096];
  Arena arena(memory, sizeof memory);
  Arena* const part = arena.split(256);
  REQUIRE(part != nullptr);
  CHECK(arena.used() == Arena::split_bytes(256));
  void* const first = part->take(128, Arena::front);
  void* const second = part->take(128, Arena::back);
  REQUIRE(first != nullptr);
  REQUIRE(second != nullptr);
  CHECK(part->take(64, Arena::front) == nullptr);
  part->release();
  part->give(first, 128, Arena::front);
  CHECK(arena.used() == Arena::split_bytes(256));
  part->give(second, 128, Arena::back);
  CHECK(arena.used() == 0);
  arena.split(64)->release();  // nothing was taken of it
  CHECK(arena.used() == 0);
  CHECK(arena.split(sizeof memory) == nullptr);
}

TEST_CASE("objects made in one block fit each other's places") {
  struct Two {
    Buffer<char> small, large;
  };
  const auto make = [](Memory m) -> Result<Two> {
    Two two;
    FACENET_TRY(detail::allocate_bulk(two.small, 64, false, m));
    FACENET_TRY(detail::allocate_bulk(two.large, 640, false, m));
    return two;
  };
  constexpr std::size_t each = Arena::split_bytes(64 + 640);
  alignas(64) static unsigned char memory[3 * each];
  Arena arena(memory, sizeof memory);
  auto a = detail::make_in_one_block(&arena, make), b = detail::make_in_one_block(&arena, make),
       c = detail::make_in_one_block(&arena, make);
  REQUIRE(c.ok());
  CHECK(arena.used() == 3 * each);
  CHECK(detail::make_in_one_block(&arena, make).status().code() == Errc::out_of_memory);
  a->large = {};  // half of a is gone: of blocks of their own, the next one's small part would lie in its place
  c->small = {};
  c->large = {};
  auto d = detail::make_in_one_block(&arena, make);
  REQUIRE(d.ok());
  a->small = {};
  auto e = detail::make_in_one_block(&arena, make);
  CHECK(e.ok());
  CHECK(arena.used() == 3 * each);
}

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
    volatile std::size_t huge =
        SIZE_MAX / sizeof(double);  // a constant makes GCC warn of the memset that never happens
    CHECK(Buffer<double>::make(huge, true, front).status().code() == Errc::out_of_memory);
    CHECK(arena.used() == 64 * 5);
    auto c = Buffer<char>::make(64 * 5, true, front);
    REQUIRE(c.ok());
    CHECK(static_cast<void*>(c->data()) == memory + 64 * 2);
    CHECK(arena.used() == arena.size());
    { const Buffer<char> gone = std::move(*b); }  // all that the back had
    CHECK(arena.used() == 64 * 7);
    { const Buffer<float> gone = std::move(*a); }  // not all of the front
    CHECK(arena.used() == 64 * 5);
    CHECK(Buffer<char>::make(64 * 2, true, front)->data() == reinterpret_cast<char*>(memory));  // where the first was
    CHECK_FALSE(Buffer<char>::make(64 * 4, true, front).ok());
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

namespace {

/// What C++20's std::span is for our purposes: shallow constness.
struct View {
  int* first;
  std::size_t count;
  int* data() const { return first; }
  std::size_t size() const { return count; }
};
template <class From, class T>
constexpr bool makes = std::is_constructible_v<Span<T>, From>;

}  // namespace

TEST_CASE(
    "spans: of containers, views and temporaries that may be read, but no promise to write what is gone or constant") {
  std::vector<int> vector{1, 2, 3};
  const std::vector<int> constant = vector;
  std::array<int, 2> array{4, 5};
  int numbers[4] = {};
  CHECK(Span<int>(vector).data() == vector.data());
  CHECK(Span<int>(array).size() == 2);
  CHECK(Span<int>(View{numbers, 4}).size() == 4);
  CHECK(Span<const int>(constant)[2] == 3);
  CHECK(Span<int>(numbers, 3u).size() == 3);
  CHECK(Span<int>(numbers, -1).empty());
  static_assert(makes<const std::vector<int>&, const int> && makes<std::vector<int>, const int> &&
                makes<Span<int>, const int>);
  static_assert(!makes<const std::vector<int>&, int> && !makes<std::vector<int>, int> &&
                !makes<std::vector<long>&, int> && !makes<Span<const int>, int> && !makes<int*, int> &&
                !makes<std::vector<int>&, char>);
  const auto sum = [](Span<const int> s) {
    int all = 0;
    for (const int i : s) all += i;
    return all;
  };
  CHECK(sum(vector) == 6);
  CHECK(sum({numbers, 4LL}) == 0);
  auto buffer = Buffer<int>::make(5);
  CHECK(Span<int>(*buffer).size() == 5);
  for (short i = 0; i < 5; ++i) CHECK((*buffer)[i] == 0);
}

TEST_CASE("an arena gives back each block of its front, in whatever order they go, and never hands out one twice") {
  std::vector<unsigned char> raw(64 * 101);
  Arena arena(raw.data(), raw.size());
  const Memory front{&arena, Arena::front};
  std::mt19937 random(5);
  std::vector<Buffer<unsigned char>> blocks;
  std::size_t fills = 0;
  for (int round = 0; round < 4000; ++round) {
    if (blocks.empty() || random() % 2 == 0) {
      auto made = Buffer<unsigned char>::make(random() % 700, false, front);
      if (!made.ok()) continue;
      std::memset(made->data(), static_cast<int>(round % 251), made->size());
      blocks.push_back(std::move(*made));
      ++fills;
    } else {
      const std::size_t which = random() % blocks.size();
      for (const unsigned char c : blocks[which]) REQUIRE(c == blocks[which][0]);
      blocks[which] = std::move(blocks.back());
      blocks.pop_back();
    }
    std::size_t bytes = 0;
    for (const auto& b : blocks) bytes += round_up(b.size(), cache_line);
    REQUIRE(arena.used() == bytes);
  }
  CHECK(fills > 1500);
  blocks.clear();
  CHECK(arena.used() == 0);
  CHECK(Buffer<char>::make(arena.size(), false, front).ok());
}

TEST_CASE("what is moved from is empty, by construction and by assignment, and says so") {
  auto a = Buffer<int>::make(3), b = Buffer<int>::make(7);
  *a = std::move(*b);
  CHECK(a->size() == 7);
  CHECK(b->empty());  // not the three that `a` had
  CHECK(b->data() == nullptr);
  detail::Moved<int> n = 5, m = std::move(n);
  CHECK(n == 0);
  CHECK(m == 5);
  n = std::move(m);
  CHECK(m == 0);
}

TEST_CASE("owned objects are destroyed once, backwards; shared ones by the last owner") {
  static std::vector<int> gone;
  static int next = 0;
  struct Noisy {
    int number = next++;
    ~Noisy() { gone.push_back(number); }
  };
  {
    detail::Owned<Noisy> some, other;
    REQUIRE(detail::Owned<Noisy>::make(some, 3, {}).ok());
    other = std::move(some);
    CHECK_FALSE(static_cast<bool>(some));
    CHECK(some.size() == 0);
    CHECK(other[2].number == 2);
    refuse = true;
    CHECK(detail::Owned<Noisy>::make(other, 1, {}).code() == Errc::out_of_memory);
    CHECK(detail::Owned<Noisy>::make(other, SIZE_MAX / 2, {}).code() == Errc::out_of_memory);
    refuse = false;
    CHECK(gone.empty());
  }
  CHECK(gone == std::vector<int>{2, 1, 0});
  gone.clear();
  {
    detail::Shared<Noisy> one;
    REQUIRE(detail::Shared<Noisy>::make(one, {}).ok());
    {
      const detail::Shared<Noisy> two = one;
      detail::Shared<Noisy> three = std::move(one);
      CHECK_FALSE(static_cast<bool>(one));
      three = {};
      CHECK(gone.empty());
      CHECK(two->number == 3);
    }
    CHECK(gone.size() == 1);
  }
  CHECK(gone.size() == 1);
  CHECK(alive == 0);
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
