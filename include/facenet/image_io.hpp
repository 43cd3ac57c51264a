// JPEG and PNG from memory and from files, through stb_image. Layer 5, opt-in: facenet.hpp does not include it.
//
// stb_image accepts nearly every truncated JPEG and ignores the checksums of a PNG. So a scan goes first: it walks the
// whole file, says what is wrong with it and how large the picture is, and only then does stb_image decode, in memory
// that is counted and zeroed. What comes out is always RGB, upright:
//   EXIF orientation   applied, all eight (JPEG APP1, PNG eXIf); an unreadable one counts as upright
//   grey               repeated; 1, 2 and 4 bits are scaled to 0..255
//   palette            looked up; an index past the palette is black
//   alpha, tRNS        over white, rounded to nearest
//   16 bits            the high byte (as libpng strips them), before alpha
//   CMYK, YCCK         Adobe's inverted inks as c * k / 255, without colour profiles; refused without Adobe's marker
//   gamma, profiles    ignored
// Bytes behind the end marker are ignored: cameras put previews, and copying tools zeros, there.
//
// Include it in one source file: each one that does gets a copy of the decoder (60 KB), of internal linkage.
// FACENET_NO_STDIO leaves read_image out.
#pragma once

#include "facenet/image.hpp"
#include "facenet/image_scan.hpp"
#if !defined(FACENET_NO_STDIO)
#  include <sys/stat.h>

#  include <cerrno>
#  include <cstdio>
#endif

FACENET_BEGIN

namespace detail {

// What stb_image may still take, one account a thread.
struct DecodeMemory {
  std::size_t left = 0;
  bool over_budget = false, out_of_memory = false;
};
inline thread_local DecodeMemory decode_memory;
constexpr std::size_t decode_prefix = 16;  // holds the size, and keeps the alignment that malloc promises

inline void* decode_allocate(std::size_t bytes) noexcept {
  DecodeMemory& memory = decode_memory;
  const bool affordable = bytes <= memory.left;
  void* block = affordable ? allocate(bytes + decode_prefix) : nullptr;
  if (block == nullptr) {
    (affordable ? memory.out_of_memory : memory.over_budget) = true;
    return nullptr;
  }
  memory.left -= bytes;
  std::memset(block, 0, bytes + decode_prefix);
  std::memcpy(block, &bytes, sizeof bytes);
  return static_cast<char*>(block) + decode_prefix;
}

inline std::size_t decode_size(const void* pointer) noexcept {
  std::size_t bytes;
  std::memcpy(&bytes, static_cast<const char*>(pointer) - decode_prefix, sizeof bytes);
  return bytes;
}

inline void decode_free(void* pointer) noexcept {
  if (pointer == nullptr) return;
  decode_memory.left += decode_size(pointer);
  deallocate(static_cast<char*>(pointer) - decode_prefix);
}

inline void* decode_reallocate(void* pointer, std::size_t bytes) noexcept {
  void* larger = decode_allocate(bytes);
  if (larger == nullptr || pointer == nullptr) return larger;
  const std::size_t old = decode_size(pointer);
  std::memcpy(larger, pointer, old < bytes ? old : bytes);
  decode_free(pointer);
  return larger;
}

}  // namespace detail

FACENET_END

#ifdef STBI_INCLUDE_STB_IMAGE_H
#  error "include facenet/image_io.hpp before stb_image.h: it compiles a copy of its own with limits of its own"
#endif
#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
#define STBI_NO_STDIO
#define STBI_ONLY_JPEG
#define STBI_ONLY_PNG
#define STBI_NO_FAILURE_STRINGS
#define STBI_MAX_DIMENSIONS 16384
#define STBI_ASSERT(condition) ((void)0)
#define STBI_MALLOC(bytes) ::facenet::detail::decode_allocate(bytes)
#define STBI_REALLOC(pointer, bytes) ::facenet::detail::decode_reallocate(pointer, bytes)
#define STBI_FREE(pointer) ::facenet::detail::decode_free(pointer)
#if defined(__clang__)
#  pragma clang diagnostic push
#  pragma clang diagnostic ignored "-Weverything"
// On damaged data 2.27 shifts by 32 and more and lets its DC sums wrap: wrong pixels, which such data has anyway.
// Everything that touches memory stays under the sanitizers.
#  pragma clang attribute push(__attribute__((no_sanitize("shift", "signed-integer-overflow"))), apply_to = function)
#elif defined(__GNUC__)
#  pragma GCC diagnostic push
#  pragma GCC diagnostic ignored "-Wall"
#  pragma GCC diagnostic ignored "-Wextra"
#  pragma GCC diagnostic ignored "-Wunused-function"
#  pragma GCC diagnostic ignored "-Wconversion"
#  pragma GCC diagnostic ignored "-Wsign-conversion"
#  pragma GCC diagnostic ignored "-Wshadow"
#  pragma GCC diagnostic ignored "-Wold-style-cast"
#elif defined(_MSC_VER)
#  pragma warning(push, 0)
#endif
#if __has_include(<stb/stb_image.h>)
#  include <stb/stb_image.h>
#elif __has_include(<stb_image.h>)
#  include <stb_image.h>
#else
#  error "facenet/image_io.hpp needs stb_image.h: install libstb-dev, or decode pictures elsewhere"
#endif
#if defined(__clang__)
#  pragma clang attribute pop
#  pragma clang diagnostic pop
#elif defined(__GNUC__)
#  pragma GCC diagnostic pop
#elif defined(_MSC_VER)
#  pragma warning(pop)
#endif
#undef STB_IMAGE_IMPLEMENTATION

FACENET_BEGIN

namespace detail {

// A copy of the file whose palette has all 256 entries. stb_image looks an index past the palette up in memory that
// nobody has set; with the copy it is black.
inline Result<Buffer<std::uint8_t>> fill_palette(Bytes file, const Stored& s) noexcept {
  const std::size_t rest = s.palette_at + 12 + s.palette_bytes, all = 256 * 3;
  auto copy = Buffer<std::uint8_t>::make(file.size() + all - s.palette_bytes);
  if (!copy) return copy;
  std::uint8_t* to = copy->data();
  std::memcpy(to, file.data(), s.palette_at + 8 + s.palette_bytes);
  to[s.palette_at + 2] = all >> 8;
  to[s.palette_at + 3] = all & 255;
  std::memcpy(to + s.palette_at + 12 + all, file.data() + rest, file.size() - rest);
  return copy;
}

// ---- upright RGB ---------------------------------------------------------------------------------------------------

// Pixel (x, y) of `out` is the stored pixel that EXIF's `orientation` puts there; alpha goes over white.
template <int channels>
void place(const std::uint8_t* stored, int width, int height, int orientation, Image& out) noexcept {
  const bool flip_x = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const bool flip_y = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  std::ptrdiff_t step_x = channels, step_y = std::ptrdiff_t{channels} * width;
  if (flip_x) stored += step_x * (width - 1);
  if (flip_y) stored += step_y * (height - 1);
  if (flip_x) step_x = -step_x;
  if (flip_y) step_y = -step_y;
  if (orientation >= 5) std::swap(step_x, step_y);
  // Tiles of 32: a quarter turn walks down a column, a cache line a pixel.
  constexpr int tile = 32;
  for (int top = 0; top < out.height(); top += tile)
    for (int left = 0; left < out.width(); left += tile)
      for (int y = top; y < top + tile && y < out.height(); ++y) {
        const std::uint8_t* from = stored + y * step_y + left * step_x;
        std::uint8_t* to = out.row(y) + 3 * left;
        for (int x = left; x < left + tile && x < out.width(); ++x, from += step_x, to += 3)
          for (int c = 0; c < 3; ++c)
            to[c] = channels == 3 ? from[c]
                                  : static_cast<std::uint8_t>((from[c] * from[3] + 255 * (255 - from[3]) + 127) / 255);
      }
}

}  // namespace detail

/// The picture in the bytes of a JPEG or PNG file, as upright RGB; several threads may decode at once.
/// Errors: truncated, corrupt (with the byte offset), unsupported, limit_exceeded, out_of_memory. Bits that flipped
/// inside a JPEG's coded data have no checksum to betray them: they show as wrong pixels.
[[maybe_unused]] static Result<Image> decode_image(Span<const std::uint8_t> file) noexcept {
  detail::Stored stored;
  FACENET_TRY(detail::scan_picture(file, stored));
  Buffer<std::uint8_t> filled;
  if (stored.indexed && stored.palette_at != 0 && stored.palette_bytes < 256 * 3) {
    auto copy = detail::fill_palette(file, stored);
    if (!copy) return copy.status();
    filled = std::move(*copy);
    file = {filled.data(), filled.size()};
  }
  // 16-bit interlaced RGBA, the dearest kind, needs 28 bytes a pixel; a PNG's data is held twice while it is gathered.
  const std::uint64_t pixels = static_cast<std::uint64_t>(stored.width) * static_cast<std::uint64_t>(stored.height);
  const std::uint64_t budget = pixels * 32 + std::uint64_t{file.size()} * 4 + (16u << 20);
  detail::decode_memory = {budget < SIZE_MAX / 2 ? static_cast<std::size_t>(budget) : SIZE_MAX / 2};
  const int channels = stored.alpha ? 4 : 3;
  int width = 0, height = 0, found = 0;
  std::uint8_t* decoded =
      stbi_load_from_memory(file.data(), static_cast<int>(file.size()), &width, &height, &found, channels);
  if (decoded == nullptr && detail::decode_memory.out_of_memory)
    return {Errc::out_of_memory, "there is not enough memory to decode the picture"};
  if (decoded == nullptr && detail::decode_memory.over_budget)
    return {Errc::limit_exceeded, "the picture's data unpacks to far more than its size: it is made to fill memory"};
  if (decoded == nullptr || width != stored.width || height != stored.height) {
    stbi_image_free(decoded);
    return {Errc::corrupt, "the picture's coded data is damaged: get the file again from where it came"};
  }
  const bool turned = stored.orientation >= 5;
  auto image = Image::make(turned ? height : width, turned ? width : height, ChannelOrder::rgb, false);
  if (image.ok() && channels == 4) detail::place<4>(decoded, width, height, stored.orientation, *image);
  else if (image.ok()) detail::place<3>(decoded, width, height, stored.orientation, *image);
  stbi_image_free(decoded);
  return image;
}

#if !defined(FACENET_NO_STDIO)

namespace detail {

inline Result<Buffer<std::uint8_t>> read_picture_file(const char* path) noexcept {
  struct stat about;
  if (stat(path, &about) != 0) {
    if (errno == ENOENT || errno == ENOTDIR) return {Errc::not_found, "there is no such file"};
    return {Errc::io_error, "the file cannot be looked at: check the permissions of its folder"};
  }
  if ((about.st_mode & S_IFMT) == S_IFDIR) return {Errc::io_error, "this is a directory: name the pictures in it"};
  if ((about.st_mode & S_IFMT) != S_IFREG) return {Errc::io_error, "this is not a regular file: copy it to one first"};
  if (about.st_size == 0) return {Errc::truncated, "the file is empty"};
  if (static_cast<std::uint64_t>(about.st_size) > max_image_file)
    return {Errc::limit_exceeded, "the picture file is larger than 512 MiB"};
  auto bytes = Buffer<std::uint8_t>::make(static_cast<std::size_t>(about.st_size), false);
  if (!bytes) return bytes;
  std::FILE* file = std::fopen(path, "rb");
  if (file == nullptr) return {Errc::io_error, "the file cannot be opened: check its permissions"};
  const std::size_t got = std::fread(bytes->data(), 1, bytes->size(), file);
  std::fclose(file);
  if (got != bytes->size()) return {Errc::io_error, "the file could not be read to its end"};
  return bytes;
}

}  // namespace detail

/// decode_image() of a file; the status names it. Errors: not_found, io_error (a directory, no permission, …) and
/// those of decode_image().
[[maybe_unused]] static Result<Image> read_image(const char* path) noexcept {
  auto bytes = detail::read_picture_file(path);
  if (!bytes) return bytes.status().in(path);
  auto image = decode_image(bytes->span());
  if (!image) image.status().in(path);
  return image;
}

#endif

FACENET_END
