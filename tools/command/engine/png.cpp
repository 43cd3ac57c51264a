#include "command/engine/png.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

namespace {

/// stb_image_write goes on without memory where malloc gives none.
void* checked(void* memory) {
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STB_IMAGE_WRITE_STATIC
#define STBI_WRITE_NO_STDIO
#define STBIW_ASSERT(condition) ((void)0)
#define STBIW_MALLOC(bytes) checked(std::malloc(bytes))
#define STBIW_REALLOC(pointer, bytes) checked(std::realloc(pointer, bytes))
#define STBIW_FREE(pointer) std::free(pointer)
#if defined(__GNUC__)
#  pragma GCC diagnostic push
#  pragma GCC diagnostic ignored "-Wall"
#  pragma GCC diagnostic ignored "-Wextra"
#  pragma GCC diagnostic ignored "-Wunused-function"
#  pragma GCC diagnostic ignored "-Wconversion"
#  pragma GCC diagnostic ignored "-Wsign-conversion"
#  pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#endif
#if __has_include(<stb/stb_image_write.h>)
#  include <stb/stb_image_write.h>
#else
#  include <stb_image_write.h>
#endif
#if defined(__GNUC__)
#  pragma GCC diagnostic pop
#endif

namespace command {

namespace {

void append(void* to, void* data, int size) {
  static_cast<std::string*>(to)->append(static_cast<const char*>(data), static_cast<std::size_t>(size));
}

}  // namespace

std::string png(facenet::ImageView picture) {
  std::string bytes;
  if (stbi_write_png_to_func(append, &bytes, picture.width, picture.height, 3, picture.data,
                             static_cast<int>(picture.stride)) == 0)
    throw std::bad_alloc();  // its only failure
  return bytes;
}

std::string jpeg(const facenet::Image& picture, int quality) {
  std::string bytes;
  if (stbi_write_jpg_to_func(append, &bytes, picture.width(), picture.height(), 3, picture.data(), quality) == 0)
    throw std::bad_alloc();
  return bytes;
}

PngSize png_size(const std::string& path) {
  unsigned char start[24];  // signature, length and name of IHDR, width, height
  std::FILE* file = std::fopen(path.c_str(), "rb");
  if (file == nullptr) return {};
  const bool whole = std::fread(start, 1, sizeof start, file) == sizeof start;
  std::fclose(file);
  if (!whole || std::memcmp(start, "\x89PNG\r\n\x1a\n\0\0\0\rIHDR", 16) != 0) return {};
  const auto number = [&](int at) {
    return start[at] << 24 | start[at + 1] << 16 | start[at + 2] << 8 | start[at + 3];
  };
  return {number(16), number(20)};
}

}  // namespace command
