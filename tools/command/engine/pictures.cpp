#include "command/engine/pictures.hpp"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <functional>
#include <utility>
#include <vector>

#include "command/formats/decoder_program.hpp"
#include "command/formats/facts.hpp"
#include "command/formats/sandbox.hpp"
#include "command/io/output.hpp"
#include "command/watch/jpeg_stream.hpp"
#include "facenet/detector/boxes.hpp"
#include "facenet/image_io.hpp"

namespace command {

namespace {

/// Whether another picture follows the first. A JPEG that says that it holds several (CIPA's Multi-Picture Format, as
/// telephones write it for depth or brightness) is one picture to people.
bool more_follow(const std::vector<std::uint8_t>& bytes) {
  constexpr std::uint8_t png_end[] = {'I', 'E', 'N', 'D', 0xAE, 0x42, 0x60, 0x82}, png_begin[] = {0x89, 'P', 'N', 'G'},
                         jpeg_begin[] = {0xFF, 0xD8, 0xFF}, several[] = {'M', 'P', 'F', 0};
  const auto begins = [&](auto at, const auto& with) {
    return static_cast<std::size_t>(bytes.end() - at) >= sizeof with &&
           std::equal(std::begin(with), std::end(with), at);
  };
  if (begins(bytes.begin(), png_begin)) {
    const auto end = std::search(bytes.begin(), bytes.end(), std::begin(png_end), std::end(png_end));
    if (end == bytes.end()) return false;
    const auto next = end + sizeof png_end;
    return begins(next, png_begin) || begins(next, jpeg_begin);
  }
  if (!begins(bytes.begin(), jpeg_begin)) return false;
  JpegStream stream(bytes.size());
  stream.feed(bytes.data(), bytes.size());
  std::vector<std::uint8_t> first, second;
  if (!stream.next(first) || !stream.next(second)) return false;
  return std::search(first.begin(), first.end(), std::begin(several), std::end(several)) == first.end();
}

facenet::Result<facenet::Buffer<std::uint8_t>> read_stdin() {
  static std::atomic<bool> taken{false};
  if (taken.exchange(true)) return {facenet::Errc::invalid_argument, "it was read already: name '-' only once"};
  std::vector<std::uint8_t> bytes;
  constexpr std::size_t block = 1 << 16;
  for (std::size_t used = 0;;) {
    if (used > facenet::max_image_file)
      return {facenet::Errc::limit_exceeded, "it has more than 512 MiB: give one picture"};
    bytes.resize(used + block);
    const ssize_t n = ::read(STDIN_FILENO, bytes.data() + used, block);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return {facenet::Errc::io_error, "it cannot be read: redirect a picture to it"};
    used += static_cast<std::size_t>(n);
    if (n != 0) continue;
    if (used == 0) return {facenet::Errc::truncated, "it is empty: redirect a picture to it"};
    bytes.resize(used);
    if (more_follow(bytes))
      note(
          "standard input: other pictures follow the first, and only the first is looked at; facenet watch - reads "
          "all of them.");
    auto all = facenet::Buffer<std::uint8_t>::make(used, false);
    if (all) std::memcpy(all->data(), bytes.data(), used);
    return all;
  }
}

// ---- what becomes of the bytes -------------------------------------------------------------------------------------

struct Settings {
  bool colour = false, foreign_colour = true;  // profiles of JPEG and PNG, and of other formats
  bool turned = false;
} settings;

using facenet::Errc;

Errc code_of(Trouble trouble) {
  switch (trouble) {
    case Trouble::truncated:
      return Errc::truncated;
    case Trouble::unsupported:
    case Trouble::no_preview:
    case Trouble::not_built_in:
      return Errc::unsupported;
    case Trouble::too_large:
      return Errc::limit_exceeded;
    case Trouble::no_memory:
      return Errc::out_of_memory;
    case Trouble::no_process:
      return Errc::io_error;
    default:
      return Errc::corrupt;
  }
}

/// Row `y` of what is stored, to where EXIF's `orientation` puts it.
void place_row(const std::uint8_t* row, int width, int height, int y, int orientation, facenet::Image& out) {
  if (orientation == 1) {
    std::memcpy(out.row(y), row, 3 * static_cast<std::size_t>(width));
    return;
  }
  const bool flip_x = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const bool flip_y = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  const int across = flip_y ? height - 1 - y : y;
  std::ptrdiff_t step = orientation >= 5 ? out.stride() : 3;
  std::uint8_t* to = orientation >= 5 ? out.data() + 3 * across : out.row(across);
  if (flip_x) {
    to += step * (width - 1);
    step = -step;
  }
  for (int x = 0; x < width; ++x, row += 3, to += step) std::memcpy(to, row, 3);
}

/// By a decoder of formats/, in a process of its own.
facenet::Status decode_foreign(Kind kind, facenet::Span<const std::uint8_t> bytes, Picture& into,
                               std::int64_t most_pixels, const std::function<void()>& copied) {
  const std::uint64_t allowance = picture_allowance();
  Wanted wanted;
  // A half for the pixels, while the decoder has them too; a third where they will be turned into another picture.
  // A file of rows as they are is as large as the picture, and stays until the end.
  const std::uint64_t beside = std::min<std::uint64_t>(bytes.size(), allowance / 2);
  wanted.most_pixels =
      std::min(allowance / (settings.turned ? 9 : 6), (allowance - beside) / (settings.turned ? 6 : 3));
  wanted.most_side = facenet::max_image_side;
  wanted.memory = allowance;
  wanted.colour = is_foreign(kind) ? settings.foreign_colour : settings.colour;
  facenet::Status made;
  int width = 0, height = 0, orientation = 1;
  PictureSink sink;
  sink.begin = [&](int w, int h, int full_width, int full_height, int how) {
    width = w;
    height = h;
    orientation = how;
    if (most_pixels != 0 && std::int64_t{full_width} * full_height > most_pixels) {
      made = {Errc::limit_exceeded, "the picture has more pixels than are taken here: make it smaller first"};
      return false;
    }
    const bool turned = orientation >= 5;
    made = into.remake(turned ? height : width, turned ? width : height, facenet::ChannelOrder::rgb);
    into.given_width = turned ? full_height : full_width;
    into.given_height = turned ? full_width : full_height;
    return made.ok();
  };
  sink.rows = [&](const std::uint8_t* rows, int first, int count) {
    for (int i = 0; i < count; ++i)
      place_row(rows + 3 * static_cast<std::ptrdiff_t>(width) * i, width, height, first + i, orientation, into);
  };
  const Trouble trouble = decode_apart(kind, {bytes.data(), bytes.size()}, wanted, sink, copied);
  if (!made.ok()) return made;
  if (trouble == Trouble::none) return {};
  return {code_of(trouble), sentence_of(trouble, kind)};
}

/// Bytes that facenet/image_io.hpp needs for a picture, about.
std::uint64_t needed(const PictureFacts& facts, std::size_t file) {
  const std::uint64_t pixels = static_cast<std::uint64_t>(facts.width) * static_cast<std::uint64_t>(facts.height);
  // A JPEG's planes and pixels, and where it is progressive its coefficients; a PNG's rows, twice, and its pixels.
  const std::uint64_t each = facts.kind == Kind::png ? 3 * facts.row_bits / 8 + 4 : facts.progressive ? 12 : 5;
  const bool turned = facts.orientation >= 5;
  return pixels * (each + (turned ? 3 : 0)) + 2 * std::uint64_t{file};
}

facenet::Status decode_any(facenet::Span<const std::uint8_t> bytes, Picture& into, std::int64_t most_pixels,
                           const std::function<void()>& copied) {
  into.release();
  const Kind kind = recognise(bytes.data(), bytes.size());
  const std::uint64_t allowance = picture_allowance();
  if (is_foreign(kind)) {
    into.lease = MemoryLease(allowance);
    // What begins as a TIFF may be a camera's raw file.
    return decode_foreign(kind, bytes, into, most_pixels, copied);
  }
  PictureFacts facts;
  if (kind != Kind::none) facts = facts_of(kind, {bytes.data(), bytes.size()});
  const std::int64_t pixels = std::int64_t{facts.width} * facts.height;
  if (most_pixels != 0 && pixels > most_pixels)
    return {Errc::limit_exceeded, "the picture has more pixels than are taken here: make it smaller first"};
  const std::uint64_t need = needed(facts, bytes.size());
  const bool large = need > allowance || facts.width > facenet::max_image_side ||
                     facts.height > facenet::max_image_side || pixels > facenet::max_image_pixels;
  const bool apart = has_decoder(kind);
  into.lease = MemoryLease(large ? allowance : need);
  if (apart && (large || (settings.colour && facts.profile)))
    return decode_foreign(kind, bytes, into, most_pixels, copied);
  facenet::Status status = facenet::decode_image(bytes, into);
  // Arithmetic coding, channels in no whole ratio: libjpeg-turbo reads more kinds.
  if (apart && status.code() == Errc::unsupported) {
    const facenet::Status second = decode_foreign(kind, bytes, into, most_pixels, copied);
    if (second.ok()) return second;
  }
  into.given_width = into.width();
  into.given_height = into.height();
  return status;
}

facenet::Face scaled(facenet::Face face, float x, float y) {
  face.box.x0 *= x;
  face.box.x1 *= x;
  face.box.y0 *= y;
  face.box.y1 *= y;
  for (auto& point : face.landmarks) {
    point.x *= x;
    point.y *= y;
  }
  return face;
}

}  // namespace

std::string shown(const std::string& name) { return name == "-" ? "standard input" : name; }

facenet::Result<facenet::Buffer<std::uint8_t>> read_bytes(const std::string& name) {
  if (name == "-") return read_stdin();
  auto bytes = facenet::detail::read_picture_file(name.c_str());
  if (!bytes) bytes.status().in(name.c_str());
  return bytes;
}

facenet::Face Picture::to_given(const facenet::Face& face) const {
  return scaled(face, static_cast<float>(given_width) / static_cast<float>(width()),
                static_cast<float>(given_height) / static_cast<float>(height()));
}
facenet::Face Picture::from_given(const facenet::Face& face) const {
  return scaled(face, static_cast<float>(width()) / static_cast<float>(given_width),
                static_cast<float>(height()) / static_cast<float>(given_height));
}

void Picture::release() {
  if (room() > picture_share()) static_cast<facenet::Image&>(*this) = {};
  lease = {};
}

void set_picture_options(const FaceOptions& options, int at_once) {
  settings.colour = options.colour == "srgb";
  settings.foreign_colour = options.colour != "ignore";
  settings.turned = options.rotations != "off";
  set_picture_memory(options.memory != 0 ? options.memory : default_picture_memory(), at_once > 0 ? at_once : 1);
}

facenet::Status decode(facenet::Span<const std::uint8_t> bytes, const std::string& name, Picture& into,
                       std::int64_t most_pixels) {
  facenet::Status status = decode_any(bytes, into, most_pixels, {});
  if (!status.ok()) into.clear();
  if (!status.ok() && name != "-") status.in(name.c_str());
  return status;
}

facenet::Status decode(facenet::Buffer<std::uint8_t>&& bytes, const std::string& name, Picture& into) {
  facenet::Status status = decode_any(bytes.span(), into, 0, [&] { bytes = {}; });
  bytes = {};
  if (!status.ok()) into.clear();
  if (!status.ok() && name != "-") status.in(name.c_str());
  return status;
}

facenet::Status read_picture(const std::string& name, Picture& into) {
  auto bytes = read_bytes(name);
  if (!bytes) return bytes.status();
  return decode(std::move(*bytes), name, into);
}

}  // namespace command
