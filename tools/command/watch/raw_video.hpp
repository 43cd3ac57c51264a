// Frames of rawvideo: bytes of a stated size and layout, as ffmpeg's -f rawvideo writes them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace command {

struct RawFormat {
  enum class Pixels { rgb24, bgr24, gray, yuv420p, nv12 };
  int width = 0, height = 0;
  Pixels pixels = Pixels::rgb24;

  std::size_t bytes() const;  // of a frame
};

/// "1280x720:rgb24": rgb24, bgr24, gray, yuv420p or nv12, as ffmpeg's -pix_fmt calls them. False for anything else,
/// such as sides that are not 1 to 16384 pixels, or odd ones where colour has half of them.
bool parse_raw_format(const std::string& text, RawFormat& format);

/// A frame as RGB, three bytes a pixel, rows without gaps. Luminance and colour are taken for BT.601's of limited
/// range, as cameras and ffmpeg have them: R = 1.164 (Y - 16) + 1.596 (V - 128), …, in 16.16 fixed point.
void raw_to_rgb(const RawFormat& format, const std::uint8_t* frame, std::uint8_t* rgb);

}  // namespace command
