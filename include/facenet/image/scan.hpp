// What a JPEG or PNG file says about itself, and whether all of it is there: the walk over its segments and chunks
// that image_io.hpp does before it lets stb_image decode. Decodes nothing, allocates nothing. Layer 5.
//
// JPEG: ITU-T T.81 (JFIF, EXIF and Adobe markers as libjpeg reads them). PNG: the W3C recommendation, second edition.
#pragma once

#include "facenet/image.hpp"

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
  bool indexed = false;                           // its samples are indices into a palette: a PNG's PLTE chunk,
  std::size_t palette_at = 0, palette_bytes = 0;  // which is here, with so many bytes of data
};

inline Status check_limits(const Stored& s) noexcept {
  if (s.width < 1 || s.height < 1) return {Errc::corrupt, "the picture has no pixels: its width or height is 0"};
  if (s.width > max_image_side || s.height > max_image_side)
    return {Errc::limit_exceeded, "the picture is over 16384 pixels wide or high: make it smaller first"};
  if (std::int64_t{s.width} * s.height > max_image_pixels)
    return {Errc::limit_exceeded, "the picture has over 64 M pixels (32 M in WebAssembly): make it smaller first"};
  return {};
}

// Tag 0x0112 of the first directory of a TIFF file, which is what EXIF is; 1 (upright) for anything unreadable.
inline int exif_orientation(Bytes tiff) noexcept {
  const bool little = starts_with(tiff, "II*\0", 4);
  if (tiff.size() < 8 || (!little && !starts_with(tiff, "MM\0*", 4))) return 1;
  const auto u16 = [&](std::size_t at) {
    return little ? static_cast<std::uint32_t>(tiff[at + 1] << 8 | tiff[at]) : be16(tiff.data() + at);
  };
  const auto u32 = [&](std::size_t at) {
    return little ? u16(at + 2) << 16 | u16(at) : u16(at) << 16 | u16(at + 2);
  };
  const std::size_t directory = u32(4);
  if (directory > tiff.size() - 2) return 1;
  std::size_t at = directory + 2;
  for (std::uint32_t n = u16(directory); n > 0 && tiff.size() - at >= 12; --n, at += 12) {
    if (u16(at) != 0x0112) continue;
    const std::uint32_t type = u16(at + 2), value = type == 3 ? u16(at + 8) : type == 4 ? u32(at + 8) : 0;
    return value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
  }
  return 1;
}

// ---- the scan of a JPEG --------------------------------------------------------------------------------------------

struct JpegComponent {
  std::uint8_t id = 0, quantisation = 0;
  int h = 1, v = 1;  // sampling factors
  bool scanned = false;
};

struct JpegFrame {
  JpegComponent components[4];
  int count = 0;
  int h_max = 1, v_max = 1;
  bool progressive = false;
  std::uint32_t restart_interval = 0;
  unsigned quantisation_tables = 0, huffman_tables = 0;  // bits of those defined; Huffman: 0-3 DC, 4-7 AC
};

inline Status read_quantisation_tables(Bytes segment, JpegFrame& frame) noexcept {
  for (std::size_t at = 0; at < segment.size();) {
    const unsigned precision = segment[at] >> 4, table = segment[at] & 15;
    at += precision == 0 ? 65 : 129;
    if (precision > 1 || table > 3 || at > segment.size())
      return {Errc::corrupt, "a quantisation table of the JPEG is damaged"};
    frame.quantisation_tables |= 1u << table;
  }
  return {};
}

// stb_image before 2.29 writes past its table where the 16 counts add up to more than 256 symbols.
inline Status read_huffman_tables(Bytes segment, JpegFrame& frame) noexcept {
  constexpr const char* damaged = "a Huffman table of the JPEG is damaged";
  for (std::size_t at = 0; at < segment.size();) {
    const unsigned kind = segment[at] >> 4, table = segment[at] & 15;
    if (kind > 1 || table > 3 || segment.size() - at < 17) return {Errc::corrupt, damaged};
    std::size_t symbols = 0;
    for (std::size_t i = 1; i <= 16; ++i) symbols += segment[at + i];
    if (symbols > 256 || segment.size() - at - 17 < symbols) return {Errc::corrupt, damaged};
    frame.huffman_tables |= 1u << (4 * kind + table);
    at += 17 + symbols;
  }
  return {};
}

inline Status read_jpeg_frame(Bytes segment, JpegFrame& frame, Stored& out) noexcept {
  if (frame.count != 0) return {Errc::corrupt, "the JPEG has two frames"};
  if (segment.size() < 6) return {Errc::corrupt, "the JPEG's frame header is too short"};
  if (segment[0] != 8) return {Errc::unsupported, "the JPEG does not have 8 bits a channel: save it with 8"};
  out.height = static_cast<int>(be16(segment.data() + 1));
  out.width = static_cast<int>(be16(segment.data() + 3));
  FACENET_TRY(check_limits(out));
  frame.count = segment[5];
  if (frame.count != 1 && frame.count != 3 && frame.count != 4)
    return {Errc::unsupported, "the JPEG is neither grey nor has three or four channels: save it as RGB"};
  if (segment.size() != 6 + 3 * static_cast<std::size_t>(frame.count))
    return {Errc::corrupt, "the JPEG's frame header has the wrong length"};
  for (int i = 0; i < frame.count; ++i) {
    JpegComponent& c = frame.components[i];
    const std::uint8_t* p = segment.data() + 6 + 3 * i;
    c.id = p[0];
    c.h = p[1] >> 4;
    c.v = p[1] & 15;
    c.quantisation = p[2];
    if (c.h < 1 || c.h > 4 || c.v < 1 || c.v > 4) return {Errc::corrupt, "a sampling factor of the JPEG is not 1 to 4"};
    if (c.h > frame.h_max) frame.h_max = c.h;
    if (c.v > frame.v_max) frame.v_max = c.v;
  }
  for (int i = 0; i < frame.count; ++i)  // stb_image before 2.28 reads past a plane that is subsampled by 3/2
    if (frame.h_max % frame.components[i].h != 0 || frame.v_max % frame.components[i].v != 0)
      return {Errc::unsupported, "the JPEG's channels have sizes in no whole ratio: save it again"};
  return {};
}

// The scan header `segment` and the coded data behind it, from `at`, which moves to the next marker.
inline Status read_jpeg_scan(Bytes file, Bytes segment, std::size_t& at, JpegFrame& frame, const Stored& s) noexcept {
  if (frame.count == 0) return {Errc::corrupt, "the JPEG has a scan before its frame header"};
  const int n = segment.empty() ? 0 : segment[0];
  if (n < 1 || n > 4 || segment.size() != 4 + 2 * static_cast<std::size_t>(n))
    return {Errc::corrupt, "a scan header of the JPEG has the wrong length"};
  const std::uint8_t* spectral = segment.data() + 1 + 2 * n;
  const bool first_pass = spectral[0] == 0 && spectral[2] >> 4 == 0;  // holds the DC coefficients of its channels
  const bool needs_dc = first_pass, needs_ac = !frame.progressive || spectral[0] != 0;
  const auto blocks = [](int size, int factor, int most) {
    const int samples = (size * factor + most - 1) / most;
    return (samples + 7) / 8;
  };
  const std::int64_t whole = std::int64_t{blocks(s.width, 1, frame.h_max)} * blocks(s.height, 1, frame.v_max);
  std::int64_t units = whole, coded = 0;  // what restart markers count, and the 8x8 blocks in all
  for (int i = 0; i < n; ++i) {
    JpegComponent* c = frame.components;
    while (c != frame.components + frame.count && c->id != segment[1 + 2 * static_cast<std::size_t>(i)]) ++c;
    if (c == frame.components + frame.count) return {Errc::corrupt, "a scan of the JPEG names an unknown channel"};
    c->scanned = c->scanned || first_pass;
    const unsigned tables = segment[2 + 2 * static_cast<std::size_t>(i)], dc = tables >> 4, ac = tables & 15;
    const auto defined = [](unsigned set, unsigned bit) { return bit < 8 && (set >> bit & 1) != 0; };
    if (dc > 3 || ac > 3 || !defined(frame.quantisation_tables, c->quantisation) ||
        (needs_dc && !defined(frame.huffman_tables, dc)) || (needs_ac && !defined(frame.huffman_tables, 4 + ac)))
      return {Errc::corrupt, "a scan of the JPEG needs a table that is not there: the file is damaged"};
    if (n == 1) units = std::int64_t{blocks(s.width, c->h, frame.h_max)} * blocks(s.height, c->v, frame.v_max);
    coded += n == 1 ? units : whole * c->h * c->v;
  }
  const std::size_t begin = at;
  std::int64_t restarts = 0;
  for (;; ++at) {
    const void* found = at + 1 < file.size() ? std::memchr(file.data() + at, 0xFF, file.size() - 1 - at) : nullptr;
    if (found == nullptr) {
      at = file.size();
      return {};  // no marker follows: the caller reports the missing end
    }
    at = static_cast<std::size_t>(static_cast<const std::uint8_t*>(found) - file.data());
    const std::uint8_t next = file[at + 1];
    const bool restart = next >= 0xD0 && next <= 0xD7;
    if (restart) ++restarts;
    else if (next != 0 && next != 0xFF) break;
  }
  const auto bits = static_cast<std::int64_t>(at - begin) * 8;
  // A block takes two bits at least (DC, end of block), one in a first progressive pass. stb_image would go on with
  // zeros, and stop without an error where a restart marker is missing: half a face.
  if (first_pass && bits < coded * (frame.progressive ? 1 : 2))
    return Status{Errc::corrupt, "a scan of the JPEG is too short for its picture: the file is damaged"}.at(
        static_cast<std::int64_t>(begin));
  if (frame.restart_interval != 0 && restarts < (units - 1) / frame.restart_interval)
    return Status{Errc::corrupt, "a scan of the JPEG lacks restart markers: the file is damaged"}.at(
        static_cast<std::int64_t>(begin));
  return {};
}

inline Status scan_jpeg(Bytes file, Stored& out) noexcept {
  const auto truncated = [&] {
    return Status{Errc::truncated, "the JPEG ends before its end marker: the file is truncated"}.at(
        static_cast<std::int64_t>(file.size()));
  };
  JpegFrame frame;
  int scans = 0, adobe_transform = -1;
  bool exif = false;
  for (std::size_t at = 2;;) {
    // To the next marker: 0xFF, then neither a stuffed 0 nor more fill. Bytes between segments are skipped.
    while (at + 1 < file.size() && !(file[at] == 0xFF && file[at + 1] != 0 && file[at + 1] != 0xFF)) ++at;
    if (at + 1 >= file.size()) return truncated();
    const std::size_t start = at;
    const int marker = file[at + 1];
    at += 2;
    if (marker == 0xD9) break;
    if (marker == 0x01 || (marker >= 0xD0 && marker <= 0xD7)) continue;  // these have no length
    if (file.size() - at < 2) return truncated();
    const std::size_t length = be16(file.data() + at);
    if (length < 2 || marker == 0xD8)
      return Status{Errc::corrupt, "the JPEG has a segment without a length"}.at(static_cast<std::int64_t>(start));
    if (length > file.size() - at) return truncated();
    const Bytes segment = file.subspan(at + 2, length - 2);
    at += length;
    Status status;
    if (marker >= 0xC0 && marker <= 0xC2) {
      frame.progressive = marker == 0xC2;
      status = read_jpeg_frame(segment, frame, out);
    } else if (marker >= 0xC3 && marker <= 0xCF && marker != 0xC4) {
      status = {Errc::unsupported, "the JPEG is lossless, hierarchical or arithmetic-coded: save it as baseline"};
    } else if (marker == 0xDA) {
      if (++scans > max_jpeg_scans) status = {Errc::limit_exceeded, "the JPEG has more than 64 scans: save it again"};
      else status = read_jpeg_scan(file, segment, at, frame, out);
    } else if (marker == 0xC4) {
      status = read_huffman_tables(segment, frame);
    } else if (marker == 0xDB) {
      status = read_quantisation_tables(segment, frame);
    } else if (marker == 0xDD && segment.size() == 2) {
      frame.restart_interval = be16(segment.data());
    } else if (marker == 0xE1 && !exif && starts_with(segment, "Exif\0\0", 6)) {
      exif = true;
      out.orientation = exif_orientation(segment.subspan(6, segment.size() - 6));
    } else if (marker == 0xEE && segment.size() >= 12 && starts_with(segment, "Adobe\0", 6)) {
      adobe_transform = segment[11];
    }
    if (!status.ok()) return status.offset() < 0 ? status.at(static_cast<std::int64_t>(start)) : status;
  }
  if (frame.count == 0 || scans == 0) return {Errc::corrupt, "the JPEG holds no picture"};
  for (int i = 0; i < frame.count; ++i)
    if (!frame.components[i].scanned) return {Errc::corrupt, "a channel of the JPEG has no scan: the file is damaged"};
  if (frame.count == 4 && adobe_transform != 0 && adobe_transform != 2)
    return {Errc::unsupported, "the JPEG has four channels and does not say which: save it as RGB"};
  return {};
}

// ---- the scan of a PNG ---------------------------------------------------------------------------------------------

struct Crc32Table {
  std::uint32_t value[256];
  constexpr Crc32Table() noexcept : value() {
    for (std::uint32_t i = 0; i < 256; ++i) {
      std::uint32_t c = i;
      for (int k = 0; k < 8; ++k) c = (c & 1) != 0 ? 0xEDB88320u ^ (c >> 1) : c >> 1;
      value[i] = c;
    }
  }
};
inline constexpr Crc32Table crc32_table;

inline std::uint32_t crc32(Bytes data) noexcept {
  std::uint32_t c = 0xFFFFFFFFu;
  for (const std::uint8_t b : data) c = crc32_table.value[(c ^ b) & 255] ^ (c >> 8);
  return ~c;
}

inline Status read_png_header(Bytes data, Stored& out) noexcept {
  if (data.size() != 13) return {Errc::corrupt, "the PNG's header chunk has the wrong length"};
  const std::uint32_t w = be32(data.data()), h = be32(data.data() + 4), most = 0x7FFFFFFF;
  out.width = static_cast<int>(w < most ? w : most);
  out.height = static_cast<int>(h < most ? h : most);
  FACENET_TRY(check_limits(out));
  const int depth = data[8], colour = data[9];
  const bool known = colour == 0 || colour == 2 || colour == 3 || colour == 4 || colour == 6;
  const bool fits = depth == 8 || (depth == 16 && colour != 3) ||
                    ((depth == 1 || depth == 2 || depth == 4) && (colour == 0 || colour == 3));
  if (!known || !fits || data[10] != 0 || data[11] != 0 || data[12] > 1)
    return {Errc::corrupt, "the PNG's header names a format that does not exist"};
  out.alpha = (colour & 4) != 0;
  out.indexed = colour == 3;
  return {};
}

inline Status scan_png(Bytes file, Stored& out) noexcept {
  constexpr auto type = [](const char (&name)[5]) {
    return static_cast<std::uint32_t>(name[0]) << 24 | static_cast<std::uint32_t>(name[1]) << 16 |
           static_cast<std::uint32_t>(name[2]) << 8 | static_cast<std::uint32_t>(name[3]);
  };
  bool data_seen = false;
  for (std::size_t at = 8;;) {
    if (file.size() < at + 12 || be32(file.data() + at) > file.size() - at - 12)
      return Status{Errc::truncated, "the PNG ends before its last chunk: the file is truncated"}.at(
          static_cast<std::int64_t>(file.size()));
    const std::size_t length = be32(file.data() + at);
    const std::uint32_t name = be32(file.data() + at + 4);
    const Bytes data = file.subspan(at + 8, length);
    Status status;
    if (crc32(file.subspan(at + 4, length + 4)) != be32(file.data() + at + 8 + length))
      status = {Errc::corrupt, "the checksum of a PNG chunk does not match: the file is damaged"};
    else if (at == 8 && name == type("CgBI"))
      status = {Errc::unsupported, "the PNG is in Apple's private form for apps: convert it to an ordinary one"};
    else if ((name == type("IHDR")) != (at == 8))
      status = {Errc::corrupt, "the PNG does not have its one header chunk in front"};
    else if (name == type("IHDR"))
      status = read_png_header(data, out);
    else if (name == type("PLTE")) {
      out.palette_at = at;
      out.palette_bytes = length;
      if (length == 0 || length > 768 || length % 3 != 0)
        status = {Errc::corrupt, "the PNG's palette does not have 1 to 256 entries"};
    } else if (name == type("tRNS"))
      out.alpha = true;
    else if (name == type("eXIf"))
      out.orientation = exif_orientation(data);
    else if (name == type("IDAT") && length == 0 && !data_seen)  // stb_image would copy to a null pointer
      status = {Errc::unsupported, "the PNG begins with an empty data chunk: save it again"};
    else if (name == type("IDAT"))
      data_seen = true;
    else if (name == type("IEND"))
      return data_seen ? Status{} : Status{Errc::corrupt, "the PNG holds no picture"};
    else if ((name & 0x20000000u) == 0)
      status = {Errc::unsupported, "the PNG needs a chunk type that is not known: save it as an ordinary PNG"};
    if (!status.ok()) return status.at(static_cast<std::int64_t>(at));
    at += 12 + length;
  }
}

/// Which of the two a file is, by its first bytes, and then its whole structure.
/// Errors: truncated, corrupt (with the byte offset), unsupported, limit_exceeded.
inline Status scan_picture(Bytes file, Stored& out) noexcept {
  constexpr const char *jpeg = "\xFF\xD8\xFF", *png = "\x89PNG\r\n\x1A\n";
  if (file.empty()) return {Errc::truncated, "the file is empty"};
  if (file.size() > max_image_file) return {Errc::limit_exceeded, "the picture file is larger than 512 MiB"};
  if (std::memcmp(file.data(), jpeg, file.size() < 3 ? file.size() : 3) == 0) return scan_jpeg(file, out);
  if (std::memcmp(file.data(), png, file.size() < 8 ? file.size() : 8) == 0) return scan_png(file, out);
  return {Errc::unsupported, "the file is neither a JPEG nor a PNG picture: convert it to one of them"};
}

}  // namespace detail

FACENET_END
