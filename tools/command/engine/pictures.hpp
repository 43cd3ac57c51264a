// Pictures named on the command line: files, and "-" for standard input.
#pragma once

#include <cstdint>
#include <string>

#include "facenet/image.hpp"

namespace command {

/// `name` as sentences have it: "-" is "standard input".
std::string shown(const std::string& name);

/// The bytes of the file `name`; "-" is standard input, once.
facenet::Result<facenet::Buffer<std::uint8_t>> read_bytes(const std::string& name);
/// How many pixels its header says that it has; 0 where it is no picture.
std::int64_t declared_pixels(facenet::Span<const std::uint8_t> bytes);
/// The picture in them, in the memory of the one before; `name` is for the failure.
facenet::Status decode(facenet::Span<const std::uint8_t> bytes, const std::string& name, facenet::Image& into);
/// Both in one.
facenet::Status read_picture(const std::string& name, facenet::Image& into);
/// The same as a picture of its own.
facenet::Result<facenet::Image> read_picture(const std::string& name);

}  // namespace command
