// Pixels as a PNG file.
#pragma once

#include <string>

#include "facenet/image.hpp"

namespace command {

/// The bytes of a PNG file with an RGB picture. Rows follow each other downwards. Throws std::bad_alloc.
std::string png(facenet::ImageView picture);

}  // namespace command
