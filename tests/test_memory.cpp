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
