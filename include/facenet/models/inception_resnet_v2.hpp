// Inception-ResNet-v2 for 160x160 faces.
// Names are the state_dict prefixes of timm's models/inception_resnet_v2.py; the head is facenet-pytorch's last_linear.
// Sizes, and the bottleneck instead of ImageNet's classes, as in davidsandberg/facenet's models/inception_resnet_v2.py.
#pragma once

#include "facenet/network.hpp"

FACENET_SETUP_BEGIN

namespace models {
// What is indented goes on with the branch above it, which clang-format would hide.
// clang-format off
namespace detail {
namespace v2 {

constexpr Ref mixed_5b(Network& n, Ref x, Name at) {
  Ref b0 = n.conv(at / "branch0", x, 96, k(1));
  Ref b1 = n.conv(at / "branch1" / 0, x, 48, k(1));
      b1 = n.conv(at / "branch1" / 1, b1, 64, k(5).pad(2, 2));
  Ref b2 = n.conv(at / "branch2" / 0, x, 64, k(1));
      b2 = n.conv(at / "branch2" / 1, b2, 96, k(3).pad(1, 1));
      b2 = n.conv(at / "branch2" / 2, b2, 96, k(3).pad(1, 1));
  Ref b3 = n.avg_pool(at / "branch3" / 0, x, k(3).pad(1, 1));
      b3 = n.conv(at / "branch3" / 1, b3, 64, k(1));
  return n.concat(at / "cat", b0, b1, b2, b3);
}

constexpr Ref block35(Network& n, Ref x, Name at) {
  Ref b0 = n.conv(at / "branch0", x, 32, k(1));
  Ref b1 = n.conv(at / "branch1" / 0, x, 32, k(1));
      b1 = n.conv(at / "branch1" / 1, b1, 32, k(3).pad(1, 1));
  Ref b2 = n.conv(at / "branch2" / 0, x, 32, k(1));
      b2 = n.conv(at / "branch2" / 1, b2, 48, k(3).pad(1, 1));
      b2 = n.conv(at / "branch2" / 2, b2, 64, k(3).pad(1, 1));
  return n.residual(at / "conv2d", n.concat(at / "cat", b0, b1, b2), x, 0.17f, relu);
}

constexpr Ref block17(Network& n, Ref x, Name at) {
  Ref b0 = n.conv(at / "branch0", x, 192, k(1));
  Ref b1 = n.conv(at / "branch1" / 0, x, 128, k(1));
      b1 = n.conv(at / "branch1" / 1, b1, 160, k(1, 7).pad(0, 3));
      b1 = n.conv(at / "branch1" / 2, b1, 192, k(7, 1).pad(3, 0));
  return n.residual(at / "conv2d", n.concat(at / "cat", b0, b1), x, 0.10f, relu);
}

constexpr Ref block8(Network& n, Ref x, Name at, float scale, Act act) {
  Ref b0 = n.conv(at / "branch0", x, 192, k(1));
  Ref b1 = n.conv(at / "branch1" / 0, x, 192, k(1));
      b1 = n.conv(at / "branch1" / 1, b1, 224, k(1, 3).pad(0, 1));
      b1 = n.conv(at / "branch1" / 2, b1, 256, k(3, 1).pad(1, 0));
  return n.residual(at / "conv2d", n.concat(at / "cat", b0, b1), x, scale, act);
}

constexpr Ref mixed_6a(Network& n, Ref x, Name at) {
  Ref b0 = n.conv(at / "branch0", x, 384, k(3).stride(2));
  Ref b1 = n.conv(at / "branch1" / 0, x, 256, k(1));
      b1 = n.conv(at / "branch1" / 1, b1, 256, k(3).pad(1, 1));
      b1 = n.conv(at / "branch1" / 2, b1, 384, k(3).stride(2));
  Ref b2 = n.max_pool(at / "branch2", x, k(3).stride(2));
  return n.concat(at / "cat", b0, b1, b2);
}

constexpr Ref mixed_7a(Network& n, Ref x, Name at) {
  Ref b0 = n.conv(at / "branch0" / 0, x, 256, k(1));
      b0 = n.conv(at / "branch0" / 1, b0, 384, k(3).stride(2));
  Ref b1 = n.conv(at / "branch1" / 0, x, 256, k(1));
      b1 = n.conv(at / "branch1" / 1, b1, 288, k(3).stride(2));
  Ref b2 = n.conv(at / "branch2" / 0, x, 256, k(1));
      b2 = n.conv(at / "branch2" / 1, b2, 288, k(3).pad(1, 1));
      b2 = n.conv(at / "branch2" / 2, b2, 320, k(3).stride(2));
  Ref b3 = n.max_pool(at / "branch3", x, k(3).stride(2));
  return n.concat(at / "cat", b0, b1, b2, b3);
}

constexpr FileTraits traits() {
  FileTraits t;
  t.beside = "mtcnn.";
  t.ignored = "logits.";
  t.batch_norm = [](const Op& op) { return op.params == Params::linear_bn ? Name("last_bn") : op.name / "bn"; };
  t.mark = "mixed_5b.branch0.conv.weight";
  t.embedding = "last_linear.weight";
  t.stem = "conv2d_1a.conv.weight";
  t.stem_channels = 32;
  return t;
}

}  // namespace v2
}  // namespace detail

FACENET_HIDDEN inline constexpr FileTraits inception_resnet_v2_traits = detail::v2::traits();

/// 160x160x3 in, `embedding_dim` (512, or 128) floats out: a unit vector unless `normalise` is false.
constexpr Network inception_resnet_v2(int embedding_dim = 512, bool normalise = true, double width = 1) {
  using namespace detail;
  Network n("inception_resnet_v2", {160, 160, 3}, width, &inception_resnet_v2_traits);
  Ref x = n.input();
  x = n.conv("conv2d_1a", x, 32, k(3).stride(2));       // 160 -> 79
  x = n.conv("conv2d_2a", x, 32, k(3));                 //  79 -> 77
  x = n.conv("conv2d_2b", x, 64, k(3).pad(1, 1));       //  77
  x = n.max_pool("maxpool_3a", x, k(3).stride(2));      //  77 -> 38
  x = n.conv("conv2d_3b", x, 80, k(1));                 //  38
  x = n.conv("conv2d_4a", x, 192, k(3));                //  38 -> 36
  x = n.max_pool("maxpool_5a", x, k(3).stride(2));      //  36 -> 17
  x = v2::mixed_5b(n, x, "mixed_5b");                   //  17
  for (int i = 0; i < 10; ++i) x = v2::block35(n, x, Name("repeat") / i);
  x = v2::mixed_6a(n, x, "mixed_6a");                   //  17 -> 8
  for (int i = 0; i < 20; ++i) x = v2::block17(n, x, Name("repeat_1") / i);
  x = v2::mixed_7a(n, x, "mixed_7a");                   //   8 -> 3
  for (int i = 0; i < 9; ++i) x = v2::block8(n, x, Name("repeat_2") / i, 0.20f, relu);
  x = v2::block8(n, x, "block8", 1.0f, Act::none);
  x = n.conv("conv2d_7b", x, 1536, k(1));               //   3
  x = n.global_avg_pool("global_pool", x);
  x = n.linear_bn("last_linear", x, embedding_dim);
  if (normalise) n.l2_normalise("normalise", x);
  return n;
}

namespace detail {
constexpr bool v2_counts_are_right() {
  const Network n = inception_resnet_v2();
  // timm counts 55,843,464 with its classifier of 1536 * 1000 + 1000; the bottleneck here has 512 * (1536 + 2).
  return n.ok() && count(n, OpKind::conv) == 244 && parameters(n) == 55843464 - 1537000 + 512 * 1538;
}
static_assert(v2_counts_are_right(), "the network is not Inception-ResNet-v2 as published");
}  // namespace detail

}  // namespace models

FACENET_SETUP_END
