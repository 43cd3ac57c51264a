// dlib's face ResNet for 150x150 faces, 128-d.
// King, "High Quality Face Recognition with Deep Metric Learning", 2017; names and sizes as in face-api's
// faceRecognitionNet/FaceRecognitionNet.ts, with '.' for '/'. Read them side by side.
#pragma once

#include "facenet/network.hpp"

FACENET_SETUP_BEGIN

namespace models {
namespace detail {
namespace dlib {

constexpr Ref residual(Network& n, Ref x, Name at, int channels) {
  const Ref y = n.conv_affine(at / "conv1", x, channels, k(3).pad(1, 1));
  return n.residual_affine(at / "conv2", y, x, k(3).pad(1, 1));
}

// The shortcut is averaged 2x2 and gets channels of zeros. Where the convolutions leave a row and a column less (8 -> 3
// and 4), they count as zeros there: the average of what a ReLU let through stays as it is.
constexpr Ref residual_down(Network& n, Ref x, Name at, int channels) {
  const Ref y = n.conv_affine(at / "conv1", x, channels, k(3).stride(2));
  const Ref skip = n.avg_pool(at / "pool", x, k(2).stride(2), channels);
  return n.residual_affine(at / "conv2", y, skip, k(3).pad(1, 1));
}

constexpr FileTraits traits() {  // a converted file only: no framework saves this model as a state_dict
  FileTraits t;
  t.beside = "mtcnn.";
  return t;
}

}  // namespace dlib
}  // namespace detail

FACENET_HIDDEN inline constexpr FileTraits dlib_resnet_traits = detail::dlib::traits();

/// 150x150x3 in, `embedding_dim` (128) floats out, whose length is 1.2 to 1.6 unless `normalise` makes it 1.
constexpr Network dlib_resnet(int embedding_dim = 128, bool normalise = false, double width = 1) {
  using namespace detail;
  Network n("dlib_resnet", {150, 150, 3}, width, &dlib_resnet_traits);
  Ref x = n.input();
  x = n.conv_affine("conv32_down", x, 32, k(7).stride(2));  // 150 -> 72
  x = n.max_pool("pool", x, k(3).stride(2));                //  72 -> 35
  for (int i = 1; i <= 3; ++i) x = dlib::residual(n, x, Name("conv32_").append(i), 32);
  x = dlib::residual_down(n, x, "conv64_down", 64);  //  35 -> 17
  for (int i = 1; i <= 3; ++i) x = dlib::residual(n, x, Name("conv64_").append(i), 64);
  x = dlib::residual_down(n, x, "conv128_down", 128);  //  17 -> 8
  for (int i = 1; i <= 2; ++i) x = dlib::residual(n, x, Name("conv128_").append(i), 128);
  x = dlib::residual_down(n, x, "conv256_down", 256);  //   8 -> 4
  for (int i = 1; i <= 2; ++i) x = dlib::residual(n, x, Name("conv256_").append(i), 256);
  x = dlib::residual_down(n, x, "conv256_down_out", 256);  //   4 -> 2
  x = n.global_avg_pool("mean", x);
  x = n.linear("fc", x, embedding_dim, Params::no_bias);
  if (normalise) n.l2_normalise("normalise", x);
  return n;
}

namespace detail {
constexpr bool dlib_counts_are_right() {
  const Network n = dlib_resnet();
  return n.ok() && count(n, OpKind::conv) == 29 && parameters(n) == 5614592;
}
static_assert(dlib_counts_are_right(), "the network is not dlib's face ResNet as published");
}  // namespace detail

}  // namespace models

FACENET_SETUP_END
