// How a camera was held: the orientation that EXIF notes, 1 (upright) to 8.
//
// TIFF 6.0 and EXIF 2.3, read as leniently as Pillow does: both byte orders of the number 42, integers of every width,
// the last of several entries.
#pragma once

#include "facenet/image/stored.hpp"

FACENET_BEGIN

namespace detail {

// Tag 0x0112 of the first directory of a TIFF file, which is what EXIF is; 0 where there is none, 1 (upright) where its
// value means nothing.
inline int find_orientation(Bytes tiff) noexcept {
  const bool little = starts_with(tiff, "II", 2);
  if (tiff.size() < 8 || (!little && !starts_with(tiff, "MM", 2))) return 0;
  if (be16(tiff.data() + 2) != 42 && be16(tiff.data() + 2) != 42 << 8) return 0;
  const auto u16 = [&](std::size_t at) {
    return little ? static_cast<std::uint32_t>(tiff[at + 1] << 8 | tiff[at]) : be16(tiff.data() + at);
  };
  const auto u32 = [&](std::size_t at) { return little ? u16(at + 2) << 16 | u16(at) : u16(at) << 16 | u16(at + 2); };
  const std::size_t directory = u32(4);
  if (directory > tiff.size() - 2) return 0;
  int found = 0;
  std::size_t at = directory + 2;
  for (std::uint32_t n = u16(directory); n > 0 && tiff.size() - at >= 12; --n, at += 12) {
    if (u16(at) != 0x0112) continue;
    constexpr std::uint8_t sizes[] = {0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8};  // of TIFF's types 1 to 12
    const std::uint32_t type = u16(at + 2), count = u32(at + 4);
    const std::uint64_t bytes = type <= 12 ? std::uint64_t{sizes[type]} * count : 0;
    const std::uint64_t place = bytes <= 4 ? at + 8 : u32(at + 8);
    if (bytes == 0 || place + bytes > tiff.size()) continue;  // Pillow passes over what it cannot read
    const auto where = static_cast<std::size_t>(place);
    const std::uint32_t value = type == 3 || type == 8   ? u16(where)
                                : type == 4 || type == 9 ? u32(where)
                                : type == 6              ? tiff[where]
                                                         : 0;
    found = value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
  }
  return found;
}

inline int exif_orientation(Bytes tiff) noexcept {
  const int found = find_orientation(tiff);
  return found != 0 ? found : 1;
}

// The orientation in XMP, a text: tiff:Orientation="6" or <tiff:Orientation>6; 0 where there is none.
inline int xmp_orientation(Bytes text) noexcept {
  constexpr char key[] = "tiff:Orientation";
  constexpr std::size_t length = sizeof key - 1;
  for (std::size_t at = 0; at + length + 3 <= text.size(); ++at) {
    if (std::memcmp(text.data() + at, key, length) != 0) continue;
    const std::uint8_t* p = text.data() + at + length;
    const std::uint8_t digit = p[0] == '>' ? p[1] : p[0] == '=' && p[1] == '"' ? p[2] : std::uint8_t{0};
    if (digit >= '0' && digit <= '9') return digit >= '1' && digit <= '8' ? digit - '0' : 1;
  }
  return 0;
}

// The orientation in ImageMagick's "Raw profile type exif": three lines (empty, name, size), then EXIF in hexadecimal.
inline int raw_profile_orientation(Bytes text) noexcept {
  std::uint8_t tiff[4096];  // the first directory lies in front
  std::size_t at = 0, size = 0;
  for (int lines = 0; at < text.size() && lines < 3; ++at) lines += text[at] == '\n';
  int half = -1;
  for (; at < text.size() && size < sizeof tiff; ++at) {
    const int c = text[at] | 32, digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    if (digit < 0) continue;
    if (half >= 0) tiff[size++] = static_cast<std::uint8_t>(half << 4 | digit);
    half = half >= 0 ? -1 : digit;
  }
  const std::size_t head = starts_with({tiff, size}, "Exif\0\0", 6) ? 6 : 0;
  return find_orientation({tiff + head, size - head});
}

}  // namespace detail

FACENET_END
