// MTCNN's three networks. Zhang et al., "Joint Face Detection and Alignment using Multi-task Cascaded
// Convolutional Networks", 2016, with the sizes of facenet-pytorch's models/mtcnn.py; names as there, after
// "mtcnn.pnet." and so on. Dense layers are convolutions over the whole picture: the converter reorders their
// weights from (W, H, C) to OIHW.
#pragma once

#include "facenet/network.hpp"

FACENET_SETUP_BEGIN

namespace models {

/// Any size of at least 12x12 in; for each 12x12 window, two pixels apart: [not a face, face, 4 box offsets].
constexpr Network mtcnn_pnet(int height, int width) {
  Network n("mtcnn.pnet", {height, width, 3});
  const Name at = "mtcnn.pnet";
  Ref x = n.conv_prelu(at / "conv1", n.input(), 10, k(3));
  x = n.max_pool(at / "pool1", x, k(2).stride(2).ceil());
  x = n.conv_prelu(at / "conv2", x, 16, k(3));
  x = n.conv_prelu(at / "conv3", x, 32, k(3));
  const Ref face = n.softmax(at / "softmax4_1", n.conv_bias(at / "conv4_1", x, 2, k(1)));
  n.concat(at / "out", face, n.conv_bias(at / "conv4_2", x, 4, k(1)));
  return n;
}

/// 24x24 in, [not a face, face, 4 box offsets] out.
constexpr Network mtcnn_rnet() {
  Network n("mtcnn.rnet", {24, 24, 3});
  const Name at = "mtcnn.rnet";
  Ref x = n.conv_prelu(at / "conv1", n.input(), 28, k(3));  // 24 -> 22
  x = n.max_pool(at / "pool1", x, k(3).stride(2).ceil());   //       11
  x = n.conv_prelu(at / "conv2", x, 48, k(3));              //        9
  x = n.max_pool(at / "pool2", x, k(3).stride(2).ceil());   //        4
  x = n.conv_prelu(at / "conv3", x, 64, k(2));              //        3
  x = n.conv_prelu(at / "dense4", x, 128, k(3));            //        1
  const Ref face = n.softmax(at / "softmax5_1", n.conv_bias(at / "dense5_1", x, 2, k(1)));
  n.concat(at / "out", face, n.conv_bias(at / "dense5_2", x, 4, k(1)));
  return n;
}

/// 48x48 in, [not a face, face, 4 box offsets, 5 landmark x, 5 landmark y] out.
constexpr Network mtcnn_onet() {
  Network n("mtcnn.onet", {48, 48, 3});
  const Name at = "mtcnn.onet";
  Ref x = n.conv_prelu(at / "conv1", n.input(), 32, k(3));  // 48 -> 46
  x = n.max_pool(at / "pool1", x, k(3).stride(2).ceil());   //       23
  x = n.conv_prelu(at / "conv2", x, 64, k(3));              //       21
  x = n.max_pool(at / "pool2", x, k(3).stride(2).ceil());   //       10
  x = n.conv_prelu(at / "conv3", x, 64, k(3));              //        8
  x = n.max_pool(at / "pool3", x, k(2).stride(2).ceil());   //        4
  x = n.conv_prelu(at / "conv4", x, 128, k(2));             //        3
  x = n.conv_prelu(at / "dense5", x, 256, k(3));            //        1
  const Ref face = n.softmax(at / "softmax6_1", n.conv_bias(at / "dense6_1", x, 2, k(1)));
  const Ref box = n.conv_bias(at / "dense6_2", x, 4, k(1));
  n.concat(at / "out", face, box, n.conv_bias(at / "dense6_3", x, 10, k(1)));
  return n;
}

// Parameters as facenet-pytorch counts them: P-Net 6,632, R-Net 100,178, O-Net 389,040.
static_assert(mtcnn_pnet(12, 12).ok() && parameters(mtcnn_pnet(12, 12)) == 6632, "not P-Net as published");
static_assert(mtcnn_rnet().ok() && parameters(mtcnn_rnet()) == 100178, "not R-Net as published");
static_assert(mtcnn_onet().ok() && parameters(mtcnn_onet()) == 389040, "not O-Net as published");

}  // namespace models

FACENET_SETUP_END
