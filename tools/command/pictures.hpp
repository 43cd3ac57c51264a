// Pictures named on the command line: files, and "-" for standard input.
#pragma once

#include <string>

#include "facenet/image.hpp"

namespace command {

/// Decodes `name`; "-" is standard input, once.
facenet::Result<facenet::Image> read_picture(const std::string& name);

}  // namespace command
