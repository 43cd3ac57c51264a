// Pictures named on the command line: files, and "-" for standard input.
#pragma once

#include <string>

#include "facenet/image.hpp"

namespace command {

/// The bytes of the file `name`; "-" is standard input, once.
facenet::Result<facenet::Buffer<std::uint8_t>> read_bytes(const std::string& name);
/// The picture in them; `name` is for the failure.
facenet::Result<facenet::Image> decode(facenet::Span<const std::uint8_t> bytes, const std::string& name);
/// Both in one.
facenet::Result<facenet::Image> read_picture(const std::string& name);

}  // namespace command
