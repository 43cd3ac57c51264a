#include "command/formats/kinds.hpp"

#include <cstring>

#include "command/formats/decoder_program.hpp"

namespace command {

namespace {

struct Row {
  Kind kind;
  const char* name;
  std::vector<const char*> ends;
};

const std::vector<Row>& rows() {
  static const std::vector<Row> all{
      {Kind::jpeg, "JPEG", {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"}},
      {Kind::png, "PNG", {".png"}},
      {Kind::webp, "WebP", {".webp"}},
      {Kind::heic, "HEIC", {".heic", ".heif", ".hif"}},
      {Kind::avif, "AVIF", {".avif"}},
      {Kind::tiff, "TIFF", {".tif", ".tiff"}},
      {Kind::gif, "GIF", {".gif"}},
      {Kind::bmp, "BMP", {".bmp", ".dib"}},
      {Kind::jxl, "JPEG XL", {".jxl"}},
      {Kind::raw,
       "camera raw",
       {".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf", ".pef", ".srw", ".nrw", ".sr2"}},
      {Kind::psd, "PSD", {}},
      {Kind::jpeg2000, "JPEG 2000", {}},
  };
  return all;
}

}  // namespace

const char* name_of(Kind kind) {
  for (const Row& row : rows())
    if (row.kind == kind) return row.name;
  return "";
}

Kind recognise(const std::uint8_t* bytes, std::size_t size) {
  const auto has = [&](std::size_t at, const char* text, std::size_t length) {
    return size >= at + length && std::memcmp(bytes + at, text, length) == 0;
  };
  if (has(0, "\xff\xd8\xff", 3)) return Kind::jpeg;
  if (has(0, "\x89PNG\r\n\x1a\n", 8)) return Kind::png;
  if (has(0, "RIFF", 4) && has(8, "WEBP", 4)) return Kind::webp;
  if (has(0, "GIF87a", 6) || has(0, "GIF89a", 6)) return Kind::gif;
  if (has(0, "BM", 2) && has(6, "\0\0\0\0", 4)) return Kind::bmp;
  if (has(0, "8BPS", 4)) return Kind::psd;
  for (const char* magic : {"II*\0", "MM\0*", "II+\0", "MM\0+"})  // the last two: BigTIFF
    if (has(0, magic, 4)) return Kind::tiff;
  if (has(0, "IIU\0", 4) || has(0, "IIRO", 4) || has(0, "IIRS", 4) || has(0, "MMOR", 4) ||
      has(0, "FUJIFILMCCD-RAW", 15))
    return Kind::raw;
  if (has(0, "\xff\x0a", 2) || has(0, "\0\0\0\x0cJXL \r\n\x87\n", 12)) return Kind::jxl;
  if (has(0, "\0\0\0\x0cjP  \r\n\x87\n", 12) || has(0, "\xff\x4f\xff\x51", 4)) return Kind::jpeg2000;
  if (!has(4, "ftyp", 4)) return Kind::none;
  for (const char* brand : {"avif", "avis"})
    if (has(8, brand, 4)) return Kind::avif;
  for (const char* brand : {"heic", "heix", "heim", "heis", "hevc", "hevx", "hevm", "hevs", "mif1", "msf1"})
    if (has(8, brand, 4)) return Kind::heic;
  return has(8, "crx ", 4) ? Kind::raw : Kind::none;
}

bool is_foreign(Kind kind) { return kind != Kind::none && kind != Kind::jpeg && kind != Kind::png; }

bool is_read(Kind kind) { return kind == Kind::jpeg || kind == Kind::png || has_decoder(kind); }

const std::vector<std::string>& picture_ends() {
  static const std::vector<std::string> all = [] {
    std::vector<std::string> found;
    for (const Row& row : rows())
      for (const char* end : row.ends)
        if (is_read(row.kind)) found.emplace_back(end);
    return found;
  }();
  return all;
}

std::string formats_built_in() {
  std::string there, missing;
  for (const Row& row : rows()) {
    if (row.ends.empty()) continue;
    const bool there_too = has_decoder(row.kind) || !is_foreign(row.kind);
    std::string& list = there_too ? there : missing;
    list += (list.empty() ? "" : ", ") + std::string(row.name);
    if (const std::string library = decoder_library(row.kind); !library.empty()) list += " (" + library + ")";
  }
  return there + (missing.empty() ? "" : "; without " + missing);
}

std::string formats_read() {
  std::string all;
  for (const Row& row : rows())
    if (is_read(row.kind)) all += (all.empty() ? "" : ", ") + std::string(row.name);
  return all;
}

}  // namespace command
