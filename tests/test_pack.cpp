// Weights -> PackedWeights: every weight once, where its tile reads it.
#include "facenet/plan/pack.hpp"

#include <doctest/doctest.h>

#include <cstring>
#include <vector>

#include "small_network.hpp"

using namespace support;

static const Quantisation quantisation;  // everything is float

TEST_CASE("steps do not share bytes, each weight is there once, and the rest is zeros") {
  const Network n = small_network();
  for (const bool half : {false, true}) {
    PlanOptions options;
    options.half_weights = half;
    options.conv = ConvAlgorithm::direct;  // Winograd's are transformed
    auto steps = make_steps(n, {}, options, {});
    REQUIRE(steps.ok());
    detail::WeightPacker packer(n, quantisation, *steps, options);
    REQUIRE(packer.reserve(false, {}).ok());
    detail::PackingTeam team;
    std::vector<std::int64_t> ones(static_cast<std::size_t>(n.size()));
    for (int op = 0; op < n.size(); ++op) {
      if (!has_weights(n[op])) continue;
      ones[static_cast<std::size_t>(op)] = weight_count(n, n[op]);
      const std::vector<float> w(static_cast<std::size_t>(weight_count(n, n[op])), 1.0f), b(bias_count(n[op]), 1.0f);
      packer.pack_layer(op, w.data(), b.data(), team);
    }
    const PackedWeights packed = packer.take();
    CHECK(packed.half == (half && simd::half_in_memory));
    CHECK(!packed.keeps_int8());
    std::int64_t end = 0;
    for (int i = 0; i < steps->size(); ++i) {
      const Step& s = (*steps)[i];
      if (!s.is_conv()) continue;
      CHECK(packed[i].weights >= end);
      CHECK(packed[i].weights % 64 == 0);
      end = packed[i].weights + packed[i].bytes;
      CHECK(static_cast<std::size_t>(end) <= packed.values.size());
      std::int64_t expected = 0, found = 0;
      for (int k = 0; k < s.segment_count; ++k) expected += ones[static_cast<std::size_t>(s.segment_ops[k])];
      const std::int64_t elements =
          packed[i].bytes / static_cast<std::int64_t>(packed.half ? sizeof(Half) : sizeof(float));
      for (std::int64_t e = 0; e < elements; ++e) {
        const unsigned char* at = packed.values.data() + packed[i].weights;
        const float value = packed.half ? simd::half_to_float(reinterpret_cast<const Half*>(at)[e])
                                        : reinterpret_cast<const float*>(at)[e];
        found += value != 0.0f;
      }
      CHECK(found == expected);
      CHECK(elements == kernels::panels(s.channels, s.panel) * panel_weights(n, s));
    }
  }
}

TEST_CASE("int8 weights stay where they are, and their scales are kept") {
  const Network n = small_network();
  PlanOptions options;
  options.int8_weights = true;
  auto steps = make_steps(n, {}, options, {});
  REQUIRE(steps.ok());
  detail::WeightPacker packer(n, quantisation, *steps, options);
  REQUIRE(packer.reserve(true, {}).ok());
  const std::vector<std::int8_t> bytes(static_cast<std::size_t>(weight_count(n, n[1])), 5);
  const std::vector<float> scales(static_cast<std::size_t>(n[1].out.c), 0.25f), biases(scales.size(), 0.5f);
  REQUIRE(has_weights(n[1]));
  packer.keep_layer(1, bytes.data(), scales, biases);
  const PackedWeights packed = packer.take();
  CHECK(packed.keeps_int8());
  CHECK(packed.values.size() == 0);
  const kernels::Int8Weights w = packed.int8_weights(n, 1);
  CHECK(w.at == bytes.data());
  CHECK(w.scale[0] == 0.25f);
  CHECK(w.n == n[1].out.c);
  CHECK(w.cin * w.taps * w.n == static_cast<int>(bytes.size()));
}

#if !defined(FACENET_NO_INTEGER)
TEST_CASE("pairs of a step's weights fit where those of all its layers do") {
  Network n("siblings", {4, 4, 3});
  const Ref x = n.conv("stem", n.input(), 32, k(1)), a = n.conv("a", x, 32, k(1)), b = n.conv("b", x, 32, k(1));
  n.l2_normalise("unit", n.linear_bn("head", n.global_avg_pool("mean", n.concat("cat", a, b)), 8));
  REQUIRE(n.ok());
  const auto reads = [&](int op, const char* name) { return std::strcmp(n[op].name.text, name) == 0; };
  auto q = quantise(n, {},
                    [&](int op, Span<float> room, std::size_t& count) -> Status {
                      count = reads(op, "a") || reads(op, "b") ? 1 : 0;
                      room[0] = 0.01f;
                      return {};
                    },
                    {});
  REQUIRE(q.ok());
  auto steps = make_steps(n, *q, {}, {});
  REQUIRE(steps.ok());
  for (const int in_a : {64, 127})
    for (const int in_b : {64, 127}) {
      detail::WeightPacker packer(n, *q, *steps, {});
      REQUIRE(packer.reserve(false, {}).ok());
      detail::PackingTeam team;
      for (int op = 0; op < n.size(); ++op) {
        if (!q->integer(op)) continue;
        const auto w = static_cast<std::int8_t>(reads(op, "a") ? in_a : in_b);
        const std::vector<std::int8_t> weights(static_cast<std::size_t>(weight_count(n, n[op])), w);
        const std::vector<float> ones(static_cast<std::size_t>(n[op].out.c), 1.0f);
        REQUIRE(packer.pack_integer_layer(op, weights.data(), ones, ones, team).ok());
      }
      const PackedWeights packed = packer.take();
      int integer_steps = 0;
      for (int i = 0; i < steps->size(); ++i) {
        if (!(*steps)[i].is_integer()) continue;
        ++integer_steps;
        CHECK((*steps)[i].segment_count == 2);
        constexpr bool any = simd::integer::largest_pair == simd::integer::any_pair;
        CHECK(packed[i].pairs_fit == (any || in_a + in_b == 128));
      }
      CHECK(integer_steps == 1);
    }
}
#endif
