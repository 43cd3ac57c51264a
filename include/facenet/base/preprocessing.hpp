// Words for how pixels become numbers, shared by pictures and weight files. Layer 1.
#pragma once

#include "facenet/status.hpp"

FACENET_BEGIN

/// The order of the three bytes of a pixel. BGR taken for RGB moves one known pair from distance 0.56 to 0.85,
/// so nothing here has a default order.
enum class ChannelOrder : std::uint8_t { rgb, bgr };

/// What a model was trained on; a weight file's `scaling` says which.
enum class Scaling : std::uint8_t {
  fixed,      // (x - 127.5) / 128: facenet-pytorch, davidsandberg 2018
  prewhiten,  // (x - mean) / max(deviation, 1 / sqrt(count)) of this picture: davidsandberg 2017, facenet.py
  unit,       // x / 255
  mean_255,   // (x - [122.782, 117.001, 104.298]) / 255, RGB: the dlib network of face-api
};

FACENET_END
