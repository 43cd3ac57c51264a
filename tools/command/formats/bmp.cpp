#if defined(FACENET_BMP)

#  include <cstring>

#  include "command/formats/decoder.hpp"

// A copy of its own: the one behind facenet/image_io.hpp reads JPEG and PNG alone.
#  define STBI_ONLY_BMP
#  define STBI_NO_STDIO
#  define STB_IMAGE_STATIC
#  define STB_IMAGE_IMPLEMENTATION
#  if __has_include(<stb/stb_image.h>)
#    include <stb/stb_image.h>
#  else
#    include <stb_image.h>
#  endif

namespace command {

std::string bmp_library() { return "stb_image"; }

namespace {

std::uint32_t le32(const std::uint8_t* p) {
  return static_cast<std::uint32_t>(p[0]) | static_cast<std::uint32_t>(p[1]) << 8 |
         static_cast<std::uint32_t>(p[2]) << 16 | static_cast<std::uint32_t>(p[3]) << 24;
}

/// stb_image takes a file that ends early for one with zeros at its end: its rows are counted first.
void check_rows(Source file) {
  if (file.size < 26) refuse(Trouble::truncated);
  const std::uint32_t header = le32(file.data + 14), begin = le32(file.data + 10);
  std::int64_t width, height;
  std::uint32_t bits, compression = 0;
  if (header == 12) {
    width = file.data[18] | file.data[19] << 8;
    height = file.data[20] | file.data[21] << 8;
    bits = file.data[24];
  } else {
    if (file.size < 34) refuse(Trouble::truncated);
    width = static_cast<std::int32_t>(le32(file.data + 18));
    height = static_cast<std::int32_t>(le32(file.data + 22));
    bits = static_cast<std::uint32_t>(file.data[28] | file.data[29] << 8);
    compression = le32(file.data + 30);
  }
  if (height < 0) height = -height;  // rows from the top down
  if (width <= 0 || height == 0 || bits == 0 || bits > 32) refuse(Trouble::corrupt);
  Canvas::check(static_cast<std::uint64_t>(width), static_cast<std::uint64_t>(height));
  if (compression != 0 && compression != 3 && compression != 6) refuse(Trouble::unsupported);  // run lengths, JPEG, PNG
  const std::uint64_t row = (static_cast<std::uint64_t>(width) * bits + 31) / 32 * 4;
  if (begin + row * static_cast<std::uint64_t>(height) > file.size) refuse(Trouble::truncated);
}

}  // namespace

void decode_bmp(Source file, Canvas& canvas) {
  check_rows(file);
  int width = 0, height = 0, channels = 0;
  std::uint8_t* pixels = stbi_load_from_memory(file.data, static_cast<int>(file.size), &width, &height, &channels, 4);
  if (pixels == nullptr) {
    const char* why = stbi_failure_reason();
    refuse(why != nullptr && std::strcmp(why, "outofmem") == 0 ? Trouble::no_memory : Trouble::corrupt);
  }
  canvas.begin(width, height);
  for (int y = 0; y < height; ++y) canvas.row_rgba(pixels + std::ptrdiff_t{4} * width * y);
}

}  // namespace command

#endif
