// What a JPEG or PNG says of itself in front: enough to know how much memory it will take, and who should decode it.
#pragma once

#include "command/formats/decoder.hpp"

namespace command {

struct PictureFacts {
  Kind kind = Kind::none;
  int width = 0, height = 0;  // 0 where it could not be found out
  int orientation = 1;
  bool progressive = false;     // a JPEG
  std::uint64_t row_bits = 24;  // of a pixel in a PNG's rows
  bool profile = false;         // an ICC profile
};

PictureFacts facts_of(Kind kind, Source file);

}  // namespace command
