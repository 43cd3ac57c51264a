// A network for tests of the plan and its stages.
#pragma once

#include "facenet/network.hpp"

namespace support {

using namespace facenet;

/// Every kind of operator on a small picture: siblings, slices of slices, residuals, halos, both pools.
inline Network small_network() {
  Network n("small", {17, 15, 3});
  Ref x = n.conv("stem", n.input(), 32, k(3).stride(2));  // 8 x 7
  Ref a = n.conv("a", x, 32, k(1)), b = n.conv("b0", x, 32, k(1)), c = n.conv("c0", x, 48, k(1));
  b = n.conv("b1", b, 32, k(3).pad(1, 1));
  c = n.conv("c2", n.conv("c1", c, 48, k(1, 7).pad(0, 3)), 32, k(7, 1).pad(3, 0));
  x = n.residual("up", n.concat("cat", a, n.concat("inner", b, c)), x, 0.17f, relu);
  x = n.residual("up2", n.conv_prelu("p", x, 10, k(1)), x, 1.0f, Act::none);
  x = n.conv_prelu("p3", x, 32, k(3).pad(1, 1));
  Ref d = n.conv("d", x, 24, k(3)), e = n.max_pool("pool", x, k(3)), f = n.avg_pool("means", x, k(3).pad(1, 1));
  x = n.concat("cat2", d, e, n.conv_bias("odd", x, 5, k(3)), n.conv("g", f, 16, k(3)));  // 6 x 5
  // dlib's block: a shortcut with channels of zeros, and a row more than what is added to it.
  const Ref y = n.conv_affine("down", x, 32, k(3).stride(2));  // 2 x 2, onto 3 x 2
  x = n.residual_affine("top_left", y, n.avg_pool("half", x, k(2).stride(2), 96), k(3).pad(1, 1));
  n.l2_normalise("unit", n.linear_bn("head", n.global_avg_pool("mean", x), 20));
  return n;
}

}  // namespace support
