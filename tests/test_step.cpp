// Network -> Steps: what runs together, by which algorithm, once an image or once a batch.
#include "facenet/plan/step.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "facenet/models/inception_resnet_v1.hpp"
#include "small_network.hpp"

using namespace support;

namespace {

Steps steps_of(const Network& n, const PlanOptions& options = {}) {
  auto made = make_steps(n, {}, options, {});
  REQUIRE(made.ok());
  return std::move(*made);
}
std::string text(const Network& n, int op) { return n[op].name.text; }

constexpr Network inception = models::inception_resnet_v1();

}  // namespace

TEST_CASE("each operator is in one step, a concatenation in none, and inputs come first") {
  for (const Network& n : {small_network(), inception}) {
    const Steps steps = steps_of(n);
    std::vector<int> in_steps(static_cast<std::size_t>(n.size())), step_of(static_cast<std::size_t>(n.size()), -1);
    for (int i = 0; i < steps.size(); ++i) {
      const Step& s = steps[i];
      CHECK(steps.index_of(s) == i);
      CHECK(s.is_conv() == has_weights(n[s.op]));
      CHECK((!s.is_conv() || s.segment_ops[0] == s.op));
      for (int k = 0; k < (s.is_conv() ? s.segment_count : 1); ++k) {
        const int op = s.is_conv() ? s.segment_ops[k] : s.op;
        ++in_steps[static_cast<std::size_t>(op)];
        step_of[static_cast<std::size_t>(op)] = i;
      }
    }
    for (int op = 0; op < n.size(); ++op) {
      CAPTURE(text(n, op));
      CHECK(in_steps[static_cast<std::size_t>(op)] == (n[op].kind == OpKind::concat ? 0 : 1));
      for (int k = 0; k < n[op].input_count; ++k)
        if (n[op].kind != OpKind::concat && n[n[op].inputs[k]].kind != OpKind::concat)
          CHECK(step_of[static_cast<std::size_t>(n[op].inputs[k])] < step_of[static_cast<std::size_t>(op)]);
    }
  }
}

TEST_CASE("1x1 convolutions of one input share a GEMM while each is whole panels wide") {
  constexpr int whole = simd::panel;
  Network n("siblings", {4, 4, 8});
  const Ref a = n.conv("a", n.input(), whole, k(1)), b = n.conv("b", n.input(), whole, k(1));
  n.conv("other", n.input(), whole, k(3).pad(1, 1));          // not 1x1
  n.conv_bias("linear", n.input(), whole, k(1));              // another activation
  const Ref odd = n.conv("odd", n.input(), whole + 1, k(1));  // no panel ends with it: the last of its step
  const Ref late = n.conv("late", n.input(), whole, k(1));
  const Steps steps = steps_of(n);
  REQUIRE(steps.size() == 5);
  CHECK(steps[1].segment_count == 3);
  CHECK(steps[1].segment_ops[0] == a.op);
  CHECK(steps[1].segment_ops[1] == b.op);
  CHECK(steps[1].segment_ops[2] == odd.op);
  CHECK(steps[1].channels == 3 * whole + 1);
  CHECK(steps[2].segment_count == 1);
  CHECK(steps[3].segment_count == 1);
  CHECK(steps[4].op == late.op);
}

TEST_CASE("steps run once a batch from the first operator with heavy weights on, and a forced algorithm is taken") {
  const Steps steps = steps_of(inception);
  const int merge = choose_merge(inception);
  for (int i = 0; i < steps.size(); ++i) CHECK(steps[i].per_batch == (steps[i].op >= merge));
  PlanOptions direct;
  direct.conv = ConvAlgorithm::direct;
  const Steps forced = steps_of(inception, direct);
  for (int i = 0; i < forced.size(); ++i) CHECK(forced[i].algorithm == ConvAlgorithm::direct);
}
