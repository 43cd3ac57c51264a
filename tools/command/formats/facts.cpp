#include "command/formats/facts.hpp"

#include <cstring>

#include "facenet/image/exif.hpp"
#include "facenet/image/stored.hpp"

namespace command {

namespace {

using facenet::detail::be16;
using facenet::detail::be32;

void read_jpeg(Source file, PictureFacts& facts) {
  for (std::size_t at = 2; at + 4 <= file.size;) {
    if (file.data[at] != 0xFF) {
      ++at;
      continue;
    }
    const int marker = file.data[at + 1];
    if (marker == 0xFF) {
      ++at;
      continue;
    }
    if (marker == 0 || marker == 0x01 || (marker >= 0xD0 && marker <= 0xD8)) {
      at += 2;
      continue;
    }
    if (marker == 0xD9 || marker == 0xDA) return;
    const std::size_t length = be16(file.data + at + 2);
    if (length < 2 || length > file.size - at - 2) return;
    const std::uint8_t* segment = file.data + at + 4;
    const std::size_t size = length - 2;
    const bool frame = marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC;
    if (frame && size >= 6) {
      facts.progressive = (marker & 3) == 2;
      facts.height = static_cast<int>(be16(segment + 1));
      facts.width = static_cast<int>(be16(segment + 3));
    } else if (marker == 0xE1 && size >= 6 && std::memcmp(segment, "Exif\0\0", 6) == 0 && facts.orientation == 1) {
      const int found = orientation_of_exif(segment, size);
      facts.orientation = found != 0 ? found : 1;
    } else if (marker == 0xE2 && size >= 12 && std::memcmp(segment, "ICC_PROFILE\0", 12) == 0) {
      facts.profile = true;
    }
    at += 2 + length;
  }
}

void read_png(Source file, PictureFacts& facts) {
  if (file.size < 33 || std::memcmp(file.data + 12, "IHDR", 4) != 0) return;
  const std::uint32_t width = be32(file.data + 16), height = be32(file.data + 20);
  if (width > 0x7FFFFFFF || height > 0x7FFFFFFF) return;
  facts.width = static_cast<int>(width);
  facts.height = static_cast<int>(height);
  constexpr std::uint64_t channels[] = {1, 0, 3, 1, 2, 0, 4};
  const int colour = file.data[25];
  facts.row_bits = (colour <= 6 ? channels[colour] : 4) * file.data[24];
  for (std::size_t at = 8; file.size - at >= 12;) {
    const std::size_t length = be32(file.data + at);
    if (std::memcmp(file.data + at + 4, "iCCP", 4) == 0) facts.profile = true;
    if (length > file.size - at - 12 || std::memcmp(file.data + at + 4, "IDAT", 4) == 0) return;
    at += 12 + length;
  }
}

}  // namespace

PictureFacts facts_of(Kind kind, Source file) {
  PictureFacts facts;
  facts.kind = kind;
  if (kind == Kind::jpeg)
    read_jpeg(file, facts);
  else if (kind == Kind::png)
    read_png(file, facts);
  return facts;
}

int orientation_of_exif(const std::uint8_t* data, std::size_t size) {
  const facenet::detail::Bytes exif(data, size);
  const std::size_t head = facenet::detail::starts_with(exif, "Exif\0\0", 6) ? 6 : 0;
  return facenet::detail::find_orientation(exif.subspan(head, size - head));
}

}  // namespace command
