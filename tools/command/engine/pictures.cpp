#include "command/engine/pictures.hpp"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <vector>

#include "command/io/output.hpp"
#include "command/watch/jpeg_stream.hpp"
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

}  // namespace

std::string shown(const std::string& name) { return name == "-" ? "standard input" : name; }

facenet::Result<facenet::Buffer<std::uint8_t>> read_bytes(const std::string& name) {
  if (name == "-") return read_stdin();
  auto bytes = facenet::detail::read_picture_file(name.c_str());
  if (!bytes) bytes.status().in(name.c_str());
  return bytes;
}

std::int64_t declared_pixels(facenet::Span<const std::uint8_t> bytes) {
  int width = 0, height = 0, channels = 0;
  if (bytes.size() > facenet::max_image_file ||
      facenet::detail::stb::facenet_stbi_info_from_memory(bytes.data(), static_cast<int>(bytes.size()), &width, &height,
                                                          &channels) == 0)
    return 0;
  return std::int64_t{width} * height;
}

facenet::Status decode(facenet::Span<const std::uint8_t> bytes, const std::string& name, facenet::Image& into) {
  facenet::Status status = facenet::decode_image(bytes, into);
  if (!status.ok() && name != "-") status.in(name.c_str());
  return status;
}

facenet::Result<facenet::Image> read_picture(const std::string& name) {
  facenet::Image image;
  FACENET_TRY(read_picture(name, image));
  return image;
}

facenet::Status read_picture(const std::string& name, facenet::Image& into) {
  auto bytes = read_bytes(name);
  if (!bytes) return bytes.status();
  return decode(bytes->span(), name, into);
}

}  // namespace command
