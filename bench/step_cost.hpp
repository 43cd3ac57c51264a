// What one step of a plan computes and moves for one image: shared by bench_network and `facenet bench --layers`.
#pragma once

#include "facenet/plan.hpp"

FACENET_BEGIN

namespace bench {

struct StepCost {
  double direct = 0;  // flops of a plain convolution, whatever the algorithm
  double executed =
      0;  // flops of the register tiles: Winograd's products, tiles that stick out and a padded panel's columns
  double bytes = 0;  // weights, input, output, and the trunk that a residual reads
};

inline StepCost step_cost(const Plan& plan, const Step& s) noexcept {
  const Network& n = plan.network();
  const Op& first = n[s.op];
  StepCost c;
  double floats = 0;
  for (int k = 0; k < first.input_count; ++k) floats += static_cast<double>(n[first.inputs[k]].out.size());
  if (!s.is_conv()) floats += static_cast<double>(first.out.size());
  for (int k = 0; k < s.segment_count; ++k) {
    const Op& op = n[s.segment_ops[k]];
    c.direct += 2.0 * static_cast<double>(macs(n, op));
    floats += static_cast<double>(op.out.size()) * (op.skip >= 0 ? 2 : 1);
  }
  c.executed = 2.0 * static_cast<double>(plan.executed_macs(s));
  c.bytes = static_cast<double>(plan.weight_bytes(s)) + 4.0 * floats;
  return c;
}

}  // namespace bench

FACENET_END
