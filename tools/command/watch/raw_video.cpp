#include "command/watch/raw_video.hpp"

#include <cstdlib>
#include <cstring>

namespace command {

namespace {

using Pixels = RawFormat::Pixels;

constexpr int most_side = 16384;  // facenet::max_image_side
constexpr struct {
  const char* name;
  Pixels pixels;
} formats[] = {{"rgb24", Pixels::rgb24},
               {"bgr24", Pixels::bgr24},
               {"gray", Pixels::gray},
               {"yuv420p", Pixels::yuv420p},
               {"nv12", Pixels::nv12}};

bool subsampled(Pixels p) { return p == Pixels::yuv420p || p == Pixels::nv12; }

/// A whole number at `at`, which then points behind it; 0 where there is none.
int side_at(const char*& at) {
  if (*at < '0' || *at > '9') return 0;
  char* end = nullptr;
  const long value = std::strtol(at, &end, 10);
  at = end;
  return value > most_side ? 0 : static_cast<int>(value);
}

std::uint8_t byte_of(int fixed) {
  const int v = (fixed + (1 << 15)) >> 16;
  return static_cast<std::uint8_t>(v < 0 ? 0 : v > 255 ? 255 : v);
}

}  // namespace

std::size_t RawFormat::bytes() const {
  const std::size_t n = static_cast<std::size_t>(width) * static_cast<std::size_t>(height);
  return pixels == Pixels::gray ? n : subsampled(pixels) ? n + n / 2 : 3 * n;
}

bool parse_raw_format(const std::string& text, RawFormat& format) {
  const char* at = text.c_str();
  RawFormat f;
  f.width = side_at(at);
  if (f.width == 0 || *at++ != 'x') return false;
  f.height = side_at(at);
  if (f.height == 0 || *at++ != ':') return false;
  for (const auto& known : formats) {
    if (std::strcmp(at, known.name) != 0) continue;
    f.pixels = known.pixels;
    if (subsampled(f.pixels) && (f.width % 2 != 0 || f.height % 2 != 0)) return false;
    format = f;
    return true;
  }
  return false;
}

void raw_to_rgb(const RawFormat& f, const std::uint8_t* frame, std::uint8_t* rgb) {
  const std::size_t w = static_cast<std::size_t>(f.width), h = static_cast<std::size_t>(f.height), n = w * h;
  switch (f.pixels) {
    case Pixels::rgb24:
      std::memcpy(rgb, frame, 3 * n);
      return;
    case Pixels::bgr24:
      for (std::size_t i = 0; i < 3 * n; i += 3) {
        rgb[i] = frame[i + 2];
        rgb[i + 1] = frame[i + 1];
        rgb[i + 2] = frame[i];
      }
      return;
    case Pixels::gray:
      for (std::size_t i = 0; i < n; ++i) rgb[3 * i] = rgb[3 * i + 1] = rgb[3 * i + 2] = frame[i];
      return;
    case Pixels::yuv420p:
    case Pixels::nv12:
      break;
  }
  const bool planes = f.pixels == Pixels::yuv420p;
  const std::size_t step = planes ? 1 : 2, row = planes ? w / 2 : w;
  const std::uint8_t* const blue = frame + n;
  const std::uint8_t* const red = planes ? blue + n / 4 : blue + 1;
  for (std::size_t y = 0; y < h; ++y)
    for (std::size_t x = 0; x < w; ++x, rgb += 3) {
      const std::size_t c = y / 2 * row + x / 2 * step;
      const int l = 76309 * (frame[y * w + x] - 16), u = blue[c] - 128, v = red[c] - 128;
      rgb[0] = byte_of(l + 104597 * v);
      rgb[1] = byte_of(l - 25675 * u - 53279 * v);
      rgb[2] = byte_of(l + 132201 * u);
    }
}

}  // namespace command
