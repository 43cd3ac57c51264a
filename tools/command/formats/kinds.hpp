// Kinds of picture files: what a file is by its first bytes, and which kinds this build reads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace command {

enum class Kind : std::uint8_t {
  none,  // no picture that is known here
  jpeg,
  png,
  webp,
  heic,
  avif,
  tiff,  // also camera raw: only its directory tells, see formats/tiff.cpp
  gif,
  bmp,
  jxl,
  raw,
  psd,  // those below are never read
  jpeg2000
};
constexpr int kind_count = static_cast<int>(Kind::jpeg2000) + 1;

/// "HEIC", as people know it.
const char* name_of(Kind kind);
/// By content: 16 bytes suffice.
Kind recognise(const std::uint8_t* bytes, std::size_t size);
/// Whether this build decodes it.
bool is_read(Kind kind);
/// Whether it is decoded by formats/ alone: all but JPEG and PNG.
bool is_foreign(Kind kind);
/// Ends of names of pictures that this build reads, in lower case: ".jpg", …; the usual ones first.
const std::vector<std::string>& picture_ends();
/// "JPEG, PNG, WebP (libwebp 1.2.4), …; without JPEG XL": for --version.
std::string formats_built_in();
/// "JPEG, PNG, WebP, …": for sentences.
std::string formats_read();

}  // namespace command
