// Pixels as a PNG or JPEG file.
#pragma once

#include <string>

#include "facenet/image.hpp"

namespace command {

/// The bytes of a PNG file with an RGB picture. Rows follow each other downwards. Throws std::bad_alloc.
std::string png(facenet::ImageView picture);

/// A JPEG file, for pages that people look at. Rows without a gap.
std::string jpeg(const facenet::Image& picture, int quality);

/// What the first bytes of a PNG file say; 0 for another file or none.
struct PngSize {
  int width = 0, height = 0;
};
PngSize png_size(const std::string& path);

}  // namespace command
