// Pictures named on the command line: files, and "-" for standard input.
#pragma once

#include <cstdint>
#include <string>

#include "command/formats/memory.hpp"
#include "command/options.hpp"
#include "facenet/detector/boxes.hpp"
#include "facenet/image.hpp"

namespace command {

/// A picture in memory. One that is too large for it was shrunk: faces are looked for and cut out in these pixels, and
/// told in those of the picture as it was given.
struct Picture : facenet::Image {
  int given_width = 0, given_height = 0;  // upright
  MemoryLease lease = {};

  bool shrunk() const { return given_width != width() || given_height != height(); }
  /// From these pixels to the given ones, and back.
  facenet::Face to_given(const facenet::Face& face) const;
  facenet::Face from_given(const facenet::Face& face) const;
  /// What is larger than a thread may keep goes back.
  void release();
};

/// How pictures are read from now on, by all threads. `at_once`: how many are at hand at a time.
void set_picture_options(const FaceOptions& options, int at_once);

/// `name` as sentences have it: "-" is "standard input".
std::string shown(const std::string& name);

/// The bytes of the file `name`; "-" is standard input, once.
facenet::Result<facenet::Buffer<std::uint8_t>> read_bytes(const std::string& name);
/// The picture in them, in the memory of the one before; `name` is for the failure. More than `most_pixels` (0: any)
/// are an error.
facenet::Status decode(facenet::Span<const std::uint8_t> bytes, const std::string& name, Picture& into,
                       std::int64_t most_pixels = 0);
/// The same; the bytes are gone afterwards, and as soon as they are not needed.
facenet::Status decode(facenet::Buffer<std::uint8_t>&& bytes, const std::string& name, Picture& into);
/// Both in one.
facenet::Status read_picture(const std::string& name, Picture& into);

}  // namespace command
