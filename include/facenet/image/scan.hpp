// What a picture file holds, and whether all of it is there: the walk over it before stb_image decodes.
#pragma once

#include "facenet/image/scan_jpeg.hpp"
#include "facenet/image/scan_png.hpp"

FACENET_BEGIN

namespace detail {

/// Which of the two a file is, by its first bytes, and then its whole structure. `copy` gets what the decoder needs,
/// where it has room: of a JPEG a plain one with the same picture, of a PNG its packed rows; `cut` is true of a PNG
/// without its last chunk. Errors: truncated, corrupt (with the byte offset), unsupported, limit_exceeded,
/// out_of_memory.
inline Status scan_picture(Bytes file, Stored& out, Sink& copy, bool& cut) noexcept {
  constexpr const char *jpeg = "\xFF\xD8\xFF", *png = "\x89PNG\r\n\x1A\n";
  cut = false;
  if (file.empty()) return {Errc::truncated, "the file is empty"};
  if (file.size() > max_image_file) return {Errc::limit_exceeded, "the picture file is larger than 512 MiB"};
  if (std::memcmp(file.data(), jpeg, file.size() < 3 ? file.size() : 3) == 0) {
    if (file.size() < 3) return {Errc::truncated, "the file ends after its first bytes"};
    return scan_jpeg(file, out, copy);
  }
  if (std::memcmp(file.data(), png, file.size() < 8 ? file.size() : 8) == 0) {
    if (file.size() < 8) return {Errc::truncated, "the file ends after its first bytes"};
    out.png = true;
    return scan_png(file, out, copy, cut);
  }
  return {Errc::unsupported, "the file is neither a JPEG nor a PNG picture: convert it to one of them"};
}

/// Scans without making a copy.
inline Status scan_picture(Bytes file, Stored& out) noexcept {
  Sink none;
  bool cut = false;
  return scan_picture(file, out, none, cut);
}

}  // namespace detail

FACENET_END
