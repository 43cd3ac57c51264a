// What a model expects of its input and does with its output: shared by models' pages, weight files and pictures.
#pragma once

#include "facenet/base/status.hpp"

FACENET_DATA_BEGIN

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

FACENET_DATA_END

FACENET_BEGIN

enum class Normalise : std::uint8_t { none, l2 };
enum class Crop : std::uint8_t { box, five_point };

namespace detail {
// As weight files and the command name them, in the enumerators' order.
constexpr const char* channel_order_words[] = {"rgb", "bgr"};
constexpr const char* scaling_words[] = {"fixed", "prewhiten", "unit", "mean_255"};
constexpr const char* normalise_words[] = {"none", "l2"};
constexpr const char* crop_words[] = {"box", "five_point"};
}  // namespace detail

inline const char* name(ChannelOrder o) noexcept { return detail::channel_order_words[static_cast<int>(o)]; }
inline const char* name(Scaling s) noexcept { return detail::scaling_words[static_cast<int>(s)]; }
inline const char* name(Normalise n) noexcept { return detail::normalise_words[static_cast<int>(n)]; }
inline const char* name(Crop c) noexcept { return detail::crop_words[static_cast<int>(c)]; }

/// The defaults are facenet-pytorch's.
struct Preprocessing {
  int image_size = 160;  // pixels, square
  ChannelOrder channel_order = ChannelOrder::rgb;
  Scaling scaling = Scaling::fixed;
  Crop crop = Crop::box;
  Normalise normalise = Normalise::l2;
  double margin = 0;
  const char* resize = "pillow_bilinear";
};

FACENET_END
