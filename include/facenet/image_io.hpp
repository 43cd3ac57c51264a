// JPEG and PNG from memory and from files, through stb_image. Opt-in: facenet.hpp does not include it.
//
// stb_image accepts half a JPEG, refuses whole ones that every viewer shows, and ignores the checksums of a PNG. So a
// scan goes first: it walks the whole file, every code of a JPEG's data too, and says how large the picture is, and
// what is wrong or missing ("only 412 of 1,200 blocks are there"). Only then does stb_image decode a plain copy, in
// memory that is counted and zeroed; for a baseline JPEG this adds 5 to 18% to the time, the file is in memory twice,
// and a progressive one has 8 bytes a block more. What comes out is always RGB, upright:
//   orientation        applied, all eight (JPEG: EXIF; PNG: eXIf, ImageMagick's profile, XMP); an unreadable one is
//                      upright
//   grey               repeated; 1, 2 and 4 bits are scaled to 0..255
//   palette            looked up; an index past the palette is black
//   alpha, tRNS        over white, rounded to nearest
//   16 bits            the high byte (as libpng strips them), before alpha
//   CMYK, YCCK         Adobe's inverted inks as c * k / 255, without colour profiles; refused without Adobe's marker
//   gamma, profiles    ignored
// Bytes after the end marker are ignored: cameras put previews, and copying tools zeros, there. So are data after a
// JPEG's last block and before its restart markers, and a missing end where nothing else is missing.
//
// Include it in one source file: each one that does gets a copy of the decoder (60 KB), of internal linkage. It may
// hold another stb_image.h too, before or after, with or without its implementation; no macro of stb_image remains.
// FACENET_NO_STDIO leaves read_image out.
#pragma once
#include "facenet/base/macros_push.inc"

#include "facenet/base/file_path.hpp"
#include "facenet/image.hpp"
#include "facenet/image/scan.hpp"
#include "facenet/image/stb_image.hpp"
#if !defined(FACENET_NO_STDIO)
#  include <sys/stat.h>

#  include <cerrno>
#  include <cstdio>
#endif

FACENET_BEGIN

namespace detail {

// ---- a PNG's rows --------------------------------------------------------------------------------------------------

// A PNG of the same picture that stb_image unpacks as it is: a palette of all 256 entries (an index past the end is
// black, not unset memory), `rows` in stored blocks, no checksums, since it reads none.
inline Result<Buffer<std::uint8_t>> plain_png(const Stored& s, Bytes rows) noexcept {
  constexpr std::size_t most = 0xFFFF;  // of a stored block
  const std::size_t blocks = (rows.size() + most - 1) / most, data = 2 + rows.size() + 5 * blocks + 4;
  auto copy = Buffer<std::uint8_t>::make(8 + 25 + 12 + 768 + 12 + 256 + 12 + data + 12, true);
  if (!copy) return copy;
  std::uint8_t* to = copy->data();
  const auto byte = [&](std::size_t v) { *to++ = static_cast<std::uint8_t>(v & 255); };
  const auto word = [&](std::size_t v) {
    for (int shift = 24; shift >= 0; shift -= 8) byte(v >> shift);
  };
  const auto bytes = [&](const void* from, std::size_t n) {
    if (n != 0) std::memcpy(to, from, n);
    to += n;
  };
  const auto head = [&](std::size_t length, const char* type) {
    word(length);
    bytes(type, 4);
  };
  bytes("\x89PNG\r\n\x1A\n", 8);
  head(13, "IHDR");
  word(static_cast<std::size_t>(s.width));
  word(static_cast<std::size_t>(s.height));
  for (const int v : {s.depth, s.colour, 0, 0, s.interlaced ? 1 : 0}) byte(static_cast<std::size_t>(v));
  word(0);
  if (s.colour == 3) {
    head(768, "PLTE");
    bytes(s.palette.data(), s.palette.size());
    to += 768 - s.palette.size() + 4;
  }
  if (!s.transparency.empty()) {
    head(s.transparency.size(), "tRNS");
    if (s.colour == 3) {
      bytes(s.transparency.data(), s.transparency.size());
    } else {  // only the bits of a sample count, as libpng takes them
      const unsigned mask = (1u << s.depth) - 1;
      for (std::size_t i = 0; i < s.transparency.size(); i += 2) {
        const std::uint32_t v = be16(s.transparency.data() + i) & mask;
        byte(v >> 8);
        byte(v);
      }
    }
    word(0);
  }
  head(data, "IDAT");
  bytes("\x78\x01", 2);
  for (std::size_t at = 0; at < rows.size(); at += most) {
    const std::size_t n = rows.size() - at < most ? rows.size() - at : most;
    byte(at + n == rows.size());
    for (const std::size_t v : {n, n ^ most}) {
      byte(v);
      byte(v >> 8);
    }
    bytes(rows.data() + at, n);
  }
  word(0);  // the checksum of the rows
  word(0);  // and that of the chunk
  head(0, "IEND");
  word(0);
  return copy;
}

inline Status decode_error(Errc otherwise, const char* text) noexcept {
  if (decode_memory.out_of_memory) return {Errc::out_of_memory, "there is not enough memory to decode the picture"};
  if (decode_memory.over_budget)
    return {Errc::limit_exceeded, "the picture's data unpacks to far more than its size: it is made to fill memory"};
  return {otherwise, text};
}

// Unpacks a PNG's rows, all of which must be there, and gives the PNG for stb_image. Where stb_image's own unpacking
// fails, or the checksum is not the last thing in the data, the slower one says what is there and what is wrong.
inline Result<Buffer<std::uint8_t>> unpack_png(const Stored& s, Bytes packed, bool cut) noexcept {
  constexpr const char* damaged = "the PNG's packed data is damaged: get the file again from where it came";
  const PngPasses passes(s);
  int size = 0;
  auto* unpacked = reinterpret_cast<std::uint8_t*>(stb::facenet_stbi_zlib_decode_malloc_guesssize_headerflag(
      reinterpret_cast<const char*>(packed.data()), static_cast<int>(packed.size()), static_cast<int>(passes.bytes),
      &size, 1));
  if (unpacked == nullptr && (decode_memory.out_of_memory || decode_memory.over_budget))
    return decode_error(Errc::corrupt, damaged);
  struct Free {
    std::uint8_t* memory;
    ~Free() { decode_free(memory); }
  } const owner{unpacked};
  const auto have = static_cast<std::size_t>(size);
  if (unpacked != nullptr && have >= passes.bytes && packed.size() >= 6 &&
      adler32({unpacked, have}) == be32(packed.data() + packed.size() - 4))
    return plain_png(s, {unpacked, passes.bytes});

  const std::size_t room = unpacked != nullptr && have > passes.bytes ? have : passes.bytes;
  auto rows = Buffer<std::uint8_t>::make(room, false);
  if (!rows) return rows.status();
  Inflater inflater(packed, rows->span());
  const InflateEnd end = inflater.run();
  std::uint32_t sum = 0;
  if (inflater.size() < passes.bytes) {
    const HowMuch words(passes.rows_in(inflater.size()), passes.rows,
                        s.interlaced ? "rows of its passes are there" : "rows are there");
    return Status{cut ? Errc::truncated : Errc::corrupt,
                  cut                          ? "the PNG ends before its picture does: the file is truncated"
                  : end == InflateEnd::damaged ? damaged
                                               : "the PNG's data ends before its picture: the file is damaged"}
        .in(words.text);
  }
  if (inflater.checksum(sum) && adler32({rows->data(), inflater.size()}) != sum)
    return {Errc::corrupt, "the checksum of the PNG's rows does not match: the file is damaged"};
  return plain_png(s, {rows->data(), passes.bytes});
}

// ---- where a picture is decoded ------------------------------------------------------------------------------------

// Plans the frame of a baseline JPEG that the scan wrote: its planes as stb_image asks for them (whole MCUs and 15
// bytes), one after the other, as near to the front as the pixels allow. Row y of the pixels ends at 3 w (y + 1) + 1,
// and then rows from y / v - 1 on of a plane are still to be read. A plane's rows are no longer than those of the
// pixels, so the last row decides. 4:2:0 takes 1.17 times the pixels, 4:4:4 1.67 times. Anything else keeps its planes
// elsewhere.
inline void plan_planes(Bytes jpeg, const Stored& s, DecodeFrame& frame) noexcept {
  constexpr int least_width = 64;  // below, padding to whole MCUs could make a plane's row the longer one
  std::size_t at = 2;
  while (at + 4 <= jpeg.size() && jpeg[at] == 0xFF && jpeg[at + 1] != 0xC0 && jpeg[at + 1] != 0xC1) {
    if (jpeg[at + 1] == 0xC2 || jpeg[at + 1] == 0xDA) return;  // progressive, or no frame header at all
    at += 2 + be16(jpeg.data() + at + 2);
  }
  if (s.width < least_width || at + 10 > jpeg.size() || jpeg[at] != 0xFF) return;
  const int count = jpeg[at + 9];
  if (count < 1 || count > DecodeFrame::most_planes || at + 10 + 3 * static_cast<std::size_t>(count) > jpeg.size())
    return;
  int high = 1, wide = 1, h[DecodeFrame::most_planes] = {}, v[DecodeFrame::most_planes] = {};
  for (int i = 0; i < count; ++i) {
    const int sampling = jpeg[at + 11 + 3 * static_cast<std::size_t>(i)];
    h[i] = sampling >> 4;
    v[i] = sampling & 15;
    if (h[i] < 1 || h[i] > 4 || v[i] < 1 || v[i] > 4) return;
    wide = h[i] > wide ? h[i] : wide;
    high = v[i] > high ? v[i] : high;
  }
  const auto mcus = [](int side, int sampling) { return (side + 8 * sampling - 1) / (8 * sampling); };
  std::size_t used = 0, front = 0;  // of the planes; where the first may begin
  for (int i = 0; i < count; ++i) {
    const auto row = static_cast<std::size_t>(mcus(s.width, wide) * h[i] * 8);
    const auto rows = static_cast<std::size_t>(mcus(s.height, high) * v[i] * 8);
    const int last = (s.height - 1) / (high / v[i]) - 1;
    const std::size_t read = row * static_cast<std::size_t>(last > 0 ? last : 0);
    const std::size_t end = 3 * static_cast<std::size_t>(s.width) * static_cast<std::size_t>(s.height) + 1;
    const std::size_t least = frame.pixels != 0 && end > read + used ? end - read - used : 0;
    front = least > front ? least : front;
    frame.plane_at[i] = used;
    frame.plane_bytes[i] = row * rows + 15;
    used += round_up(frame.plane_bytes[i], cache_line);
  }
  front = round_up(front, cache_line);
  for (int i = 0; i < count; ++i) frame.plane_at[i] += front;
  frame.planes = count;
  frame.size = front + used;
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

/// Decodes a JPEG or PNG file from memory as upright RGB; several threads may decode at once. The picture is decoded in
/// the memory that `image` has, where that is enough: whoever reads one after the other into the same Image spares the
/// kernel the clearing of 1.2 to 1.7 times its pixels (Image::room()) for each. Errors: truncated, corrupt (with the
/// byte offset), unsupported, limit_exceeded, out_of_memory; `image` is then 0 x 0. Bits that flipped inside a JPEG's
/// coded data have no checksum to betray them: they show as wrong pixels.
[[maybe_unused]] static Status decode_image(Span<const std::uint8_t> file, Image& image) noexcept {
  Image room = std::move(image);  // which is 0 x 0 until all has gone well
  struct Return {
    Image &from, &to;
    bool ok = false;
    ~Return() {
      if (!ok) from.clear();
      to = std::move(from);
    }
  } result{room, image};
  detail::Stored stored;
  detail::Sink copy;
  if (file.size() <= max_image_file) FACENET_TRY(copy.make(file.size()));
  bool cut = false;
  const Status sound = detail::scan_picture(file, stored, copy, cut);
  if (!sound.ok() && !(cut && !copy.empty())) return sound;
  // 16-bit interlaced RGBA, the dearest kind, needs 28 bytes a pixel; a PNG's data is held twice while it is gathered.
  const std::uint64_t pixels = static_cast<std::uint64_t>(stored.width) * static_cast<std::uint64_t>(stored.height);
  const std::uint64_t budget = pixels * 32 + std::uint64_t{file.size()} * 4 + (16u << 20);
  detail::decode_memory = {budget < SIZE_MAX / 2 ? static_cast<std::size_t>(budget) : SIZE_MAX / 2, false, false, {}};
  detail::Bytes plain = copy.bytes();
  Buffer<std::uint8_t> rows;
  if (stored.png) {
    auto unpacked = detail::unpack_png(stored, plain, cut);
    if (!unpacked) return unpacked.status();
    if (!sound.ok()) return sound;  // all rows are there, but not the checksum of their chunk
    rows = std::move(*unpacked);
    copy = {};
    plain = rows.span();
  }
  const int channels = stored.alpha ? 4 : 3;
  const bool turned = stored.orientation >= 5, finished = channels == 3 && stored.orientation == 1;
  detail::DecodeFrame frame;
  frame.pixels = finished ? static_cast<std::size_t>(pixels) * 3 : 0;
  frame.clear = stored.png;
  frame.size = static_cast<std::size_t>(pixels) * 3 + !stored.png;
  if (!stored.png) detail::plan_planes(plain, stored, frame);
  const int upright_width = turned ? stored.height : stored.width,
            upright_height = turned ? stored.width : stored.height;
  FACENET_TRY(room.remake(upright_width, upright_height, ChannelOrder::rgb, frame.size));
  frame.data = room.data();
  if (room.room() > frame.size) frame.size = room.room();
  detail::decode_memory.frame = frame;
  int width = 0, height = 0, found = 0;
  std::uint8_t* decoded = detail::stb::facenet_stbi_load_from_memory(plain.data(), static_cast<int>(plain.size()),
                                                                     &width, &height, &found, channels);
  result.ok = decoded != nullptr && width == stored.width && height == stored.height;
  if (result.ok && decoded != room.data()) {
    if (channels == 4)
      detail::place<4>(decoded, width, height, stored.orientation, room);
    else
      detail::place<3>(decoded, width, height, stored.orientation, room);
  }
  detail::decode_free(decoded);
  detail::decode_memory.frame = {};
  if (!result.ok)
    return detail::decode_error(Errc::corrupt,
                                "the picture's coded data is damaged: get the file again from where it came");
  return {};
}

/// The same as a picture of its own.
[[maybe_unused]] static Result<Image> decode_image(Span<const std::uint8_t> file) noexcept {
  Image image;
  FACENET_TRY(decode_image(file, image));
  return image;
}

#if !defined(FACENET_NO_STDIO)

namespace detail {

inline Result<Buffer<std::uint8_t>> read_picture_file(const char* path) noexcept {
  FileStatus about;
  if (file_status(path, &about) != 0) {
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
  std::FILE* file = open_to_read(path);
  if (file == nullptr) return {Errc::io_error, "the file cannot be opened: check its permissions"};
  const std::size_t got = std::fread(bytes->data(), 1, bytes->size(), file);
  std::fclose(file);
  if (got != bytes->size()) return {Errc::io_error, "the file could not be read to its end"};
  return bytes;
}

}  // namespace detail

/// Reads a JPEG or PNG file as upright RGB into the memory that `image` has, as decode_image(). Errors: those below.
[[maybe_unused]] static Status read_image(const char* path, Image& image) noexcept {
  image.clear();
  if (path == nullptr) return {Errc::invalid_argument, "there is no path: it is null"};
  auto bytes = detail::read_picture_file(path);
  if (!bytes) return bytes.status().in(path);
  Status status = decode_image(bytes->span(), image);
  if (!status.ok()) status.in(path);
  return status;
}

/// Reads a JPEG or PNG file as upright RGB.
///
/// Example:
///   auto image = facenet::read_image("portrait.jpg");
///   if (!image) return image.status();
///   const facenet::ImageView view = image->view();  // valid while `image` lives
///
/// Threads: several may read at once. Errors name the file: not_found, io_error (a directory, no permission, …) and
/// those of decode_image().
[[maybe_unused]] static Result<Image> read_image(const char* path) noexcept {
  Image image;
  FACENET_TRY(read_image(path, image));
  return image;
}

#endif

FACENET_END

#include "facenet/base/macros_pop.inc"
