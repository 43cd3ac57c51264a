#include "command/engine/pictures.hpp"

#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <vector>

#include "facenet/image_io.hpp"

namespace command {

namespace {

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
