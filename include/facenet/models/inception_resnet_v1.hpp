// Inception-ResNet-v1 for 160x160 faces.
// Names are the state_dict prefixes of facenet-pytorch's models/inception_resnet_v1.py; read them side by side.
// The architecture: Szegedy et al., "Inception-v4, Inception-ResNet and the Impact of Residual Connections", 2016.
#pragma once

#include "facenet/network.hpp"

FACENET_SETUP_BEGIN

namespace models {
// What is indented goes on with the branch above it, which clang-format would hide.
// clang-format off
namespace detail {

constexpr Ref block35(Network& n, Ref x, Name at) {
  Ref b0 = n.conv(at / "branch0", x, 32, k(1));
  Ref b1 = n.conv(at / "branch1" / 0, x, 32, k(1));
      b1 = n.conv(at / "branch1" / 1, b1, 32, k(3).pad(1, 1));
  Ref b2 = n.conv(at / "branch2" / 0, x, 32, k(1));
      b2 = n.conv(at / "branch2" / 1, b2, 32, k(3).pad(1, 1));
      b2 = n.conv(at / "branch2" / 2, b2, 32, k(3).pad(1, 1));
  return n.residual(at / "conv2d", n.concat(at / "cat", b0, b1, b2), x, 0.17f, relu);
}

constexpr Ref block17(Network& n, Ref x, Name at) {
  Ref b0 = n.conv(at / "branch0", x, 128, k(1));
  Ref b1 = n.conv(at / "branch1" / 0, x, 128, k(1));
      b1 = n.conv(at / "branch1" / 1, b1, 128, k(1, 7).pad(0, 3));
      b1 = n.conv(at / "branch1" / 2, b1, 128, k(7, 1).pad(3, 0));
  return n.residual(at / "conv2d", n.concat(at / "cat", b0, b1), x, 0.10f, relu);
}

constexpr Ref block8(Network& n, Ref x, Name at, float scale, Act act) {
  Ref b0 = n.conv(at / "branch0", x, 192, k(1));
  Ref b1 = n.conv(at / "branch1" / 0, x, 192, k(1));
      b1 = n.conv(at / "branch1" / 1, b1, 192, k(1, 3).pad(0, 1));
      b1 = n.conv(at / "branch1" / 2, b1, 192, k(3, 1).pad(1, 0));
  return n.residual(at / "conv2d", n.concat(at / "cat", b0, b1), x, scale, act);
}

constexpr Ref mixed_6a(Network& n, Ref x, Name at) {
  Ref b0 = n.conv(at / "branch0", x, 384, k(3).stride(2));
  Ref b1 = n.conv(at / "branch1" / 0, x, 192, k(1));
      b1 = n.conv(at / "branch1" / 1, b1, 192, k(3).pad(1, 1));
      b1 = n.conv(at / "branch1" / 2, b1, 256, k(3).stride(2));
  Ref b2 = n.max_pool(at / "branch2", x, k(3).stride(2));
  return n.concat(at / "cat", b0, b1, b2);
}

constexpr Ref mixed_7a(Network& n, Ref x, Name at) {
  Ref b0 = n.conv(at / "branch0" / 0, x, 256, k(1));
      b0 = n.conv(at / "branch0" / 1, b0, 384, k(3).stride(2));
  Ref b1 = n.conv(at / "branch1" / 0, x, 256, k(1));
      b1 = n.conv(at / "branch1" / 1, b1, 256, k(3).stride(2));
  Ref b2 = n.conv(at / "branch2" / 0, x, 256, k(1));
      b2 = n.conv(at / "branch2" / 1, b2, 256, k(3).pad(1, 1));
      b2 = n.conv(at / "branch2" / 2, b2, 256, k(3).stride(2));
  Ref b3 = n.max_pool(at / "branch3", x, k(3).stride(2));
  return n.concat(at / "cat", b0, b1, b2, b3);
}

constexpr FileTraits v1_traits() {
  FileTraits t;
  t.beside = "mtcnn.";
  t.ignored = "logits.";  // VGGFace2's and CASIA-WebFace's classifiers
  t.batch_norm = [](const Op& op) { return op.params == Params::linear_bn ? Name("last_bn") : op.name / "bn"; };
  t.mark = t.embedding = "last_linear.weight";
  t.stem = "conv2d_1a.conv.weight";
  t.stem_channels = 32;
  return t;
}

}  // namespace detail

FACENET_HIDDEN inline constexpr FileTraits inception_resnet_v1_traits = detail::v1_traits();

/// 160x160x3 in, `embedding_dim` (512, or 128) floats out: a unit vector unless `normalise` is false.
/// `width` times the channels below, in sixteenths: each is a multiple of 16.
constexpr Network inception_resnet_v1(int embedding_dim = 512, bool normalise = true, double width = 1) {
  Network n("inception_resnet_v1", {160, 160, 3}, width, &inception_resnet_v1_traits);
  Ref x = n.input();
  x = n.conv("conv2d_1a", x, 32, k(3).stride(2));       // 160 -> 79
  x = n.conv("conv2d_2a", x, 32, k(3));                 //  79 -> 77
  x = n.conv("conv2d_2b", x, 64, k(3).pad(1, 1));       //  77
  x = n.max_pool("maxpool_3a", x, k(3).stride(2));      //  77 -> 38
  x = n.conv("conv2d_3b", x, 80, k(1));                 //  38
  x = n.conv("conv2d_4a", x, 192, k(3));                //  38 -> 36
  x = n.conv("conv2d_4b", x, 256, k(3).stride(2));      //  36 -> 17
  for (int i = 0; i < 5; ++i) x = detail::block35(n, x, Name("repeat_1") / i);
  x = detail::mixed_6a(n, x, "mixed_6a");               //  17 -> 8
  for (int i = 0; i < 10; ++i) x = detail::block17(n, x, Name("repeat_2") / i);
  x = detail::mixed_7a(n, x, "mixed_7a");               //   8 -> 3
  for (int i = 0; i < 5; ++i) x = detail::block8(n, x, Name("repeat_3") / i, 0.20f, relu);
  x = detail::block8(n, x, "block8", 1.0f, Act::none);
  x = n.global_avg_pool("avgpool_1a", x);
  x = n.linear_bn("last_linear", x, embedding_dim);
  if (normalise) n.l2_normalise("normalise", x);
  return n;
}

namespace detail {
constexpr bool counts_are_right() {
  const Network n = inception_resnet_v1();
  return n.ok() && count(n, OpKind::conv) == 132 && count(n, OpKind::linear) == 1 && parameters(n) == 23482624 &&
         macs(n) == 1417662304 && inception_resnet_v1(512, true, 1.0 / 16).ok() && !inception_resnet_v1(512, true, 1.0 / 32).ok();
}
static_assert(counts_are_right(), "the network is not Inception-ResNet-v1 as published");
}  // namespace detail

}  // namespace models

FACENET_SETUP_END
