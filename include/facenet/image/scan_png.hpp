// What a PNG file says about itself, and whether all of its chunks are sound. Its rows are counted when they are
// unpacked.
//
// The W3C recommendation, second edition; what libpng or Pillow shows is taken: chunks in odd order, of unknown types,
// text and transparency that make no sense. Every chunk that is there keeps its checksum, or the file is damaged.
#pragma once

#include "facenet/image/exif.hpp"
#include "facenet/image/inflate.hpp"

FACENET_BEGIN

namespace detail {

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
FACENET_HIDDEN inline constexpr Crc32Table crc32_table;

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
  out.depth = depth;
  out.colour = colour;
  out.interlaced = data[12] != 0;
  return {};
}

constexpr std::uint32_t chunk_type(const char (&name)[5]) noexcept {
  return static_cast<std::uint32_t>(name[0]) << 24 | static_cast<std::uint32_t>(name[1]) << 16 |
         static_cast<std::uint32_t>(name[2]) << 8 | static_cast<std::uint32_t>(name[3]);
}

// The text of a tEXt, zTXt or iTXt chunk, after its keyword; `unpacked` holds it where it is packed. At most 256 KB.
inline Status text_of(std::uint32_t type, Bytes data, std::size_t keyword, Buffer<std::uint8_t>& unpacked,
                      Bytes& text) noexcept {
  std::size_t at = keyword + 1;
  bool packed = type == chunk_type("zTXt");
  if (type == chunk_type("iTXt")) {
    packed = at < data.size() && data[at] == 1;
    at += 2;
    for (int fields = 0; at < data.size() && fields < 2; ++at) fields += data[at] == 0;  // language, translated keyword
  } else if (packed) {
    ++at;
  }
  text = at < data.size() ? data.subspan(at, data.size() - at) : Bytes{};
  if (!packed) return {};
  auto made = Buffer<std::uint8_t>::make(std::size_t{256} << 10, false);
  if (!made) return made.status();
  unpacked = std::move(*made);
  Inflater inflater(text, unpacked.span());
  (void)inflater.run();
  text = {unpacked.data(), inflater.size()};
  return {};
}

// Where a PNG notes its orientation: eXIf, else ImageMagick's profile, and where neither does, XMP. The last of each.
struct PngOrientation {
  Bytes exif, profile, xmp;
  std::uint32_t profile_type = 0, xmp_type = 0;
  bool has_exif = false;

  void note(std::uint32_t type, Bytes data) noexcept {
    constexpr char profile_key[] = "Raw profile type exif", xmp_key[] = "XML:com.adobe.xmp";
    if (type == chunk_type("eXIf")) {
      exif = data;
      has_exif = true;
    } else if (type == chunk_type("tEXt") || type == chunk_type("zTXt") || type == chunk_type("iTXt")) {
      if (starts_with(data, profile_key, sizeof profile_key)) {
        profile = data;
        profile_type = type;
      } else if (starts_with(data, xmp_key, sizeof xmp_key)) {
        xmp = data;
        xmp_type = type;
      }
    }
  }
  Status find(int& orientation) const noexcept {
    int found = 0;
    Buffer<std::uint8_t> unpacked;
    Bytes text;
    if (has_exif) {
      const std::size_t head = starts_with(exif, "Exif\0\0", 6) ? 6 : 0;  // as JPEG has it, and some writers here
      found = find_orientation(exif.subspan(head, exif.size() - head));
    } else if (profile_type != 0) {
      FACENET_TRY(text_of(profile_type, profile, 21, unpacked, text));
      found = raw_profile_orientation(text);
    }
    if (found == 0 && xmp_type != 0) {
      FACENET_TRY(text_of(xmp_type, xmp, 17, unpacked, text));
      found = xmp_orientation(text);
    }
    orientation = found != 0 ? found : 1;
    return {};
  }
};

// What a PNG has between its header and its data, where its colour type has a use for it.
inline Status check_palette(Stored& out) noexcept {
  if (out.colour == 3 && (out.palette.empty() || out.palette.size() > 768 || out.palette.size() % 3 != 0))
    return {Errc::corrupt, "the PNG's palette does not have 1 to 256 entries"};
  if (out.colour != 3) out.palette = {};
  const std::size_t needed = out.colour == 3 ? 1 : out.colour == 0 ? 2 : out.colour == 2 ? 6 : SIZE_MAX;
  const std::size_t most = out.colour == 3 ? 256 : needed;
  if (out.transparency.size() < needed) out.transparency = {};
  if (out.transparency.size() > most) out.transparency = out.transparency.subspan(0, most);
  out.alpha = (out.colour & 4) != 0 || !out.transparency.empty();
  return {};
}

/// `packed` gets the data of all IDAT chunks; `cut` says that the file ends without its last chunk.
inline Status scan_png(Bytes file, Stored& out, Sink& packed, bool& cut) noexcept {
  PngOrientation orientation;
  bool header_seen = false, data_seen = false;
  cut = false;
  for (std::size_t at = 8;;) {
    const std::size_t left = file.size() - at;
    const std::uint32_t name = left >= 8 ? be32(file.data() + at + 4) : 0;
    if (left < 12 || be32(file.data() + at) > left - 12) {
      // Chunks after the data may be missing; whether the data is whole is seen when it is unpacked.
      cut = true;
      if (data_seen && name != chunk_type("IDAT")) break;
      if (header_seen && name == chunk_type("IDAT")) packed.put(file.data() + at + 8, left - 8);
      return Status{Errc::truncated, "the PNG ends before its last chunk: the file is truncated"}.at(
          static_cast<std::int64_t>(file.size()));
    }
    const std::size_t length = be32(file.data() + at);
    const Bytes data = file.subspan(at + 8, length);
    Status status;
    if (crc32(file.subspan(at + 4, length + 4)) != be32(file.data() + at + 8 + length))
      status = {Errc::corrupt, "the checksum of a PNG chunk does not match: the file is damaged"};
    else if (at == 8 && name == chunk_type("CgBI"))
      status = {Errc::unsupported, "the PNG is in Apple's private form for apps: convert it to an ordinary one"};
    else if (header_seen ? name == chunk_type("IHDR") : name == chunk_type("IDAT") || name == chunk_type("IEND"))
      status = {Errc::corrupt, "the PNG does not have its one header chunk in front"};
    else if (name == chunk_type("IHDR")) {
      header_seen = true;
      status = read_png_header(data, out);
    } else if (name == chunk_type("PLTE") && !data_seen)
      out.palette = data;
    else if (name == chunk_type("tRNS") && !data_seen)
      out.transparency = data;
    else if (name == chunk_type("IDAT")) {
      if (!data_seen) status = check_palette(out);
      data_seen = true;
      packed.put(data.data(), length);
    } else if (name == chunk_type("IEND")) {
      if (data_seen) break;
      status = {Errc::corrupt, "the PNG holds no picture"};
    } else
      orientation.note(name, data);
    if (!status.ok()) return status.at(static_cast<std::int64_t>(at));
    at += 12 + length;
  }
  return orientation.find(out.orientation);
}

// ---- the rows of a PNG ----------------------------------------------------------------------------------------------

// A picture without interlacing is one pass.
struct PngPasses {
  struct Pass {
    std::size_t rows, row_bytes;
  } pass[7];
  int count = 0;
  std::size_t bytes = 0;
  std::int64_t rows = 0;

  explicit PngPasses(const Stored& s) noexcept : pass() {
    constexpr int start_x[] = {0, 4, 0, 2, 0, 1, 0}, start_y[] = {0, 0, 4, 0, 2, 0, 1};
    constexpr int step_x[] = {8, 8, 4, 4, 2, 2, 1}, step_y[] = {8, 8, 8, 4, 4, 2, 2};
    constexpr int channels[] = {1, 0, 3, 1, 2, 0, 4};
    for (int i = 0; i < (s.interlaced ? 7 : 1); ++i) {
      const int w = s.interlaced ? (s.width - start_x[i] + step_x[i] - 1) / step_x[i] : s.width;
      const int h = s.interlaced ? (s.height - start_y[i] + step_y[i] - 1) / step_y[i] : s.height;
      if (w < 1 || h < 1) continue;
      const std::size_t bits = static_cast<std::size_t>(w) * static_cast<std::size_t>(channels[s.colour] * s.depth);
      pass[count] = {static_cast<std::size_t>(h), 1 + (bits + 7) / 8};
      bytes += pass[count].rows * pass[count].row_bytes;
      rows += h;
      ++count;
    }
  }
  // How many rows so many unpacked bytes hold.
  std::int64_t rows_in(std::size_t have) const noexcept {
    std::size_t found = 0;
    for (int i = 0; i < count; ++i) {
      const std::size_t n = have / pass[i].row_bytes < pass[i].rows ? have / pass[i].row_bytes : pass[i].rows;
      found += n;
      if (n < pass[i].rows) break;
      have -= n * pass[i].row_bytes;
    }
    return static_cast<std::int64_t>(found);
  }
};

}  // namespace detail

FACENET_END
