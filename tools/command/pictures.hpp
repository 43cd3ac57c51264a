// Pictures named on the command line: files, and "-" for standard input.
#pragma once

#include <string>

#include "facenet/image.hpp"

namespace command {

/// The bytes of `name`; "-" is standard input, once.
facenet::Result<facenet::Buffer<std::uint8_t>> read_picture_bytes(const std::string& name);

/// Decodes them; a failure's place is `name`.
facenet::Result<facenet::Image> decode_picture(facenet::Span<const std::uint8_t> bytes, const std::string& name);

/// Both.
facenet::Result<facenet::Image> read_picture(const std::string& name);

}  // namespace command
