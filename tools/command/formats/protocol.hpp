// What goes through the pipe from the process of a decoder: this header, then the rows, then four bytes of zeros. A
// failure before the header is in it; one after it is the exit status, and the zeros are missing.
#pragma once

#include "command/formats/decoder.hpp"

namespace command {

/// How the program of the decoders is called: with this word, and what is wanted.
constexpr const char* decode_flag = "--decode-picture";
constexpr int no_start = 126;  // its exit status where it cannot confine itself

struct PictureHeader {
  Trouble trouble = Trouble::none;
  std::int32_t full_width = 0, full_height = 0;  // of the picture as it is stored
  std::int32_t width = 0, height = 0;            // of the rows that follow
  std::int32_t orientation = 1;
};

}  // namespace command
