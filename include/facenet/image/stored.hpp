// What the scan of a picture file finds out, the limits that it keeps, and the bytes that it hands on.
#pragma once

#include <initializer_list>

#include "facenet/base/memory.hpp"
#include "facenet/image/pixel_format.hpp"

FACENET_BEGIN

/// Limits, checked before anything is decoded.
constexpr std::size_t max_image_file = std::size_t{512} << 20;
#if defined(__wasm__)
constexpr std::int64_t max_image_pixels = std::int64_t{32} << 20;
#else
constexpr std::int64_t max_image_pixels = std::int64_t{64} << 20;
#endif
constexpr int max_jpeg_scans = 64;  // a progressive encoder writes about 10; each visits every block

namespace detail {

using Bytes = Span<const std::uint8_t>;

inline std::uint32_t be16(const std::uint8_t* p) noexcept { return static_cast<std::uint32_t>(p[0] << 8 | p[1]); }
inline std::uint32_t be32(const std::uint8_t* p) noexcept { return be16(p) << 16 | be16(p + 2); }
inline bool starts_with(Bytes data, const char* magic, std::size_t n) noexcept {
  return data.size() >= n && std::memcmp(data.data(), magic, n) == 0;
}

// What the scan found out about a picture as it is stored.
struct Stored {
  int width = 0, height = 0;
  int orientation = 1;
  bool alpha = false;
  bool png = false;
  int depth = 8, colour = 0;  // of a PNG, as its header says them
  bool interlaced = false;
  Bytes palette, transparency;  // a PNG's PLTE and tRNS, where its colour type has a use for them
};

inline Status check_limits(const Stored& s) noexcept {
  if (s.width < 1 || s.height < 1) return {Errc::corrupt, "the picture has no pixels: its width or height is 0"};
  if (s.width > max_image_side || s.height > max_image_side)
    return {Errc::limit_exceeded, "the picture is over 16384 pixels wide or high: make it smaller first"};
  if (std::int64_t{s.width} * s.height > max_image_pixels)
    return {Errc::limit_exceeded, "the picture has over 64 M pixels (32 M in WebAssembly): make it smaller first"};
  return {};
}

// The part of a file that the decoder gets: of a JPEG a plain one with the same picture, of a PNG its packed rows.
// One without room takes nothing, for those who only ask what a file holds.
class Sink {
 public:
  // A plain JPEG has a segment for each table, a DQT for each channel and, for MJPEG, T.81's Huffman tables:
  // 64 scans * 8 tables * 4 bytes, 4 * 133 and 420 bytes more than the file, and headers of under 200.
  static constexpr std::size_t reserve = 4096;

  Status make(std::size_t file_size) noexcept {
    auto made = Buffer<std::uint8_t>::make(file_size + reserve, false);
    if (!made) return made.status();
    bytes_ = std::move(*made);
    return {};
  }
  void put(const std::uint8_t* data, std::size_t n) noexcept {
    if (n > bytes_.size() - used_) return;  // a sink without room; one with room is large enough, see above
    if (n != 0) std::memcpy(bytes_.data() + used_, data, n);
    used_ += n;
  }
  void put(std::initializer_list<unsigned> values) noexcept {
    for (const unsigned v : values) {
      const auto byte = static_cast<std::uint8_t>(v);
      put(&byte, 1);
    }
  }
  void clear() noexcept { used_ = 0; }
  bool empty() const noexcept { return used_ == 0; }
  Bytes bytes() const noexcept { return {bytes_.data(), used_}; }

 private:
  Buffer<std::uint8_t> bytes_;
  std::size_t used_ = 0;
};

// "only 412 of 1,200 blocks are there", for Status::in().
struct HowMuch {
  char text[96];

  HowMuch(std::int64_t have, std::int64_t all, const char* what) noexcept : text() {
    std::size_t used = 0;
    const auto put = [&](const char* s) {
      for (; *s != 0 && used + 1 < sizeof text; ++s) text[used++] = *s;
    };
    const auto number = [&](std::int64_t v) {
      char digits[32];
      std::size_t n = sizeof digits;
      digits[--n] = 0;
      for (int i = 0; i == 0 || v != 0; ++i, v /= 10) {
        if (i != 0 && i % 3 == 0) digits[--n] = ',';
        digits[--n] = static_cast<char>('0' + v % 10);
      }
      put(digits + n);
    };
    put("only ");
    number(have);
    put(" of ");
    number(all);
    put(" ");
    put(what);
    text[used] = 0;
  }
};

}  // namespace detail

FACENET_END
