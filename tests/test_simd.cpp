// Every name of simd.hpp against plain arithmetic. Built for this CPU, AVX2, SSE2 and scalar.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "facenet/base/simd.hpp"

using namespace facenet;

namespace {

constexpr int width = simd::width;

struct Lanes {
  float at[width];
  explicit Lanes(simd::vf v) { simd::store(at, v); }
};

std::uint32_t bits_of(float f) {
  std::uint32_t b;
  std::memcpy(&b, &f, sizeof b);
  return b;
}
float float_of(std::uint32_t b) {
  float f;
  std::memcpy(&f, &b, sizeof f);
  return f;
}

/// A half's value from its definition.
double value_of(unsigned bits) {
  const int exponent = static_cast<int>(bits >> 10 & 31), fraction = static_cast<int>(bits & 1023);
  const double sign = bits & 0x8000 ? -1 : 1;
  if (exponent == 31) return fraction == 0 ? sign * INFINITY : NAN;
  return sign * (exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25));
}

}  // namespace

TEST_CASE("load, store, arithmetic") {
  float a[width], b[width], c[width];
  for (int i = 0; i < width; ++i) {
    a[i] = static_cast<float>(i) - 2.5f;
    b[i] = 3.0f / static_cast<float>(i + 1);
    c[i] = static_cast<float>(7 * i % 5) - 1.75f;
  }
  const simd::vf va = simd::load(a), vb = simd::load(b), vc = simd::load(c);
  const Lanes sum(simd::add(va, vb)), difference(simd::sub(va, vb)), product(simd::mul(va, vb)),
      most(simd::max(va, vc)), least(simd::min(va, vc)), fused(simd::fma(va, vb, vc)), negative(simd::fnma(va, vb, vc)),
      one(simd::set1(1.5f)), none(simd::zero());
  for (int i = 0; i < width; ++i) {
    CHECK(sum.at[i] == a[i] + b[i]);
    CHECK(difference.at[i] == a[i] - b[i]);
    CHECK(product.at[i] == a[i] * b[i]);
    CHECK(most.at[i] == std::fmax(a[i], c[i]));
    CHECK(least.at[i] == std::fmin(a[i], c[i]));
    CHECK(one.at[i] == 1.5f);
    CHECK(bits_of(none.at[i]) == 0);
    // Rounded once with FMA, twice without: within an ulp of the larger term either way.
    const double ab = double{a[i]} * double{b[i]}, size = std::fabs(ab) + std::fabs(double{c[i]});
    CHECK(std::fabs(double{fused.at[i]} - (ab + double{c[i]})) <= size * 0x1p-23);
    CHECK(std::fabs(double{negative.at[i]} - (double{c[i]} - ab)) <= size * 0x1p-23);
  }
}

TEST_CASE("an ISA with FMA rounds once") {
  // (1 + 2^-12)^2 - 1 - 2^-11 = 2^-24, which a rounded product loses.
  const float x = 1 + 0x1p-12f;
  const Lanes r(simd::fma(simd::set1(x), simd::set1(x), simd::set1(-1 - 0x1p-11f)));
#if defined(FACENET_ISA_AVX512) || defined(FACENET_ISA_AVX2) || defined(FACENET_ISA_NEON64)
  CHECK(r.at[0] == 0x1p-24f);
  CHECK(simd::fused);
#else
  CHECK_FALSE(simd::fused);
  const bool known = r.at[0] == 0.0f || r.at[0] == 0x1p-24f;
  CHECK(known);
#endif
}

TEST_CASE("the larger of each pair, and a square of vectors turned over") {
  float pairs[2 * width];
  for (int i = 0; i < 2 * width; ++i) pairs[i] = static_cast<float>(i * 37 % 101) - 50;
  const Lanes most(simd::pair_max(pairs));
  for (int i = 0; i < width; ++i)
    CHECK(most.at[i] == (pairs[2 * i] > pairs[2 * i + 1] ? pairs[2 * i] : pairs[2 * i + 1]));
  simd::vf rows[width];
  for (int i = 0; i < width; ++i) {
    float row[width];
    for (int j = 0; j < width; ++j) row[j] = static_cast<float>(100 * i + j);
    rows[i] = simd::load(row);
  }
  simd::transpose(rows);
  for (int i = 0; i < width; ++i)
    for (int j = 0; j < width; ++j) CHECK(Lanes(rows[i]).at[j] == static_cast<float>(100 * j + i));
}

TEST_CASE("partial loads read, and partial stores write, n floats and no more") {
  for (int n = 1; n < width; ++n)
    for (int shift = 0; shift < 4; ++shift) {  // from any address
      // The last float of an allocation, so that a sanitizer sees a lane too many.
      std::vector<float> source(static_cast<std::size_t>(shift + n)), whole(width);
      for (std::size_t i = 0; i < source.size(); ++i) source[i] = static_cast<float>(i) + 1;
      for (std::size_t i = 0; i < whole.size(); ++i) whole[i] = -static_cast<float>(i) - 1;
      const Lanes loaded(simd::load_partial(source.data() + shift, n));
      for (int i = 0; i < width; ++i) CHECK(loaded.at[i] == (i < n ? static_cast<float>(shift + i + 1) : 0.0f));
      std::vector<float> target(static_cast<std::size_t>(shift + n + width), 9.0f);
      simd::store_partial(target.data() + shift, simd::load(whole.data()), n);
      for (int i = 0; i < shift + n + width; ++i)
        CHECK(target[static_cast<std::size_t>(i)] ==
              (i >= shift && i < shift + n ? whole[static_cast<std::size_t>(i - shift)] : 9.0f));
    }
}

TEST_CASE("all 65536 halves become the float of the same value, one by one and by vectors") {
  std::vector<Half> halves(65536);
  for (unsigned i = 0; i < 65536; ++i) halves[i].bits = static_cast<std::uint16_t>(i);
  long wrong = 0;
  for (unsigned i = 0; i < 65536; i += width) {
    const Lanes loaded(simd::load(halves.data() + i));
    for (unsigned k = 0; k < width; ++k) {
      const double want = value_of(i + k), one = double{simd::half_to_float(halves[i + k])},
                   many = double{loaded.at[k]};
      if (want != want)
        wrong += one == one || many == many;
      else
        wrong += one != want || many != want || std::signbit(one) != std::signbit(want);
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("floats become the nearest half, ties to even, on both sides of every boundary") {
  long wrong = 0;
  for (unsigned h = 0; h < 0x7c00; ++h) {
    const double low = value_of(h), high = h + 1 == 0x7c00 ? 65536.0 : value_of(h + 1);
    const float middle = static_cast<float>((low + high) / 2);  // exact: one more bit than a half has
    const unsigned even = h % 2 == 0 ? h : h + 1;
    const struct {
      float from;
      unsigned to;
    } cases[] = {{static_cast<float>(low), h},
                 {middle, even},
                 {std::nextafter(middle, 0.0f), h},
                 {std::nextafter(middle, 1e9f), h + 1}};
    float sixteen[16];
    int at = 0;
    for (const auto& c : cases) {
      wrong += simd::float_to_half(c.from).bits != c.to;
      wrong += simd::float_to_half(-c.from).bits != (c.to | 0x8000u);
      for (const float sign : {1.0f, -1.0f, 1.0f, -1.0f}) sixteen[at++] = sign * c.from;
    }
    Half all[16];
    simd::float_to_half(sixteen, all);
    for (int i = 0; i < 16; ++i) wrong += all[i].bits != simd::float_to_half(sixteen[i]).bits;
  }
  CHECK(wrong == 0);
  CHECK(simd::float_to_half(std::numeric_limits<float>::max()).bits == 0x7c00);
  CHECK(simd::float_to_half(-std::numeric_limits<float>::infinity()).bits == 0xfc00);
  CHECK((simd::float_to_half(std::numeric_limits<float>::quiet_NaN()).bits & 0x7fff) > 0x7c00);
  CHECK((simd::float_to_half(float_of(0x7f800001)).bits & 0x7fff) >
        0x7c00);  // a NaN whose upper bits are those of infinity
  CHECK(simd::float_to_half(std::numeric_limits<float>::denorm_min()).bits == 0);
}

TEST_CASE("all 256 bytes become floats") {
  std::uint8_t bytes[256 + width];
  for (int i = 0; i < 256 + width; ++i) bytes[i] = static_cast<std::uint8_t>(i);
  for (int i = 0; i < 256; ++i) {
    const Lanes v(simd::load(bytes + i));
    for (int k = 0; k < width; ++k) CHECK(v.at[k] == static_cast<float>((i + k) % 256));
  }
}

#if defined(__SSE2__) || defined(__aarch64__)
TEST_CASE("denormals count as zero while FlushDenormals lives, and again afterwards as they are") {
  const auto doubled = [](float x) {
    volatile float in = x;
    volatile float out = in * 2.0f;
    return out;
  };
  const auto halved = [](float x) {
    volatile float in = x;
    volatile float out = in * 0.5f;
    return out;
  };
  CHECK(doubled(0x1p-140f) == 0x1p-139f);
  {
    const simd::FlushDenormals outer;
    {
      const simd::FlushDenormals inner;  // a run inside a run must not end the outer one's mode
      CHECK(bits_of(doubled(0x1p-127f)) == 0);
    }
    CHECK(bits_of(doubled(0x1p-127f)) == 0);  // a denormal input whose double is normal: DAZ
    CHECK(bits_of(halved(0x1p-126f)) == 0);   // a normal input whose half is denormal: FTZ
  }
  CHECK(doubled(0x1p-127f) == 0x1p-126f);
  CHECK(bits_of(halved(0x1p-126f)) == bits_of(0x1p-127f));
}
#endif
