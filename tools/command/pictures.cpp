#include "pictures.hpp"

#include <unistd.h>

#include <cerrno>
#include <vector>

#include "facenet/image_io.hpp"

namespace command {

namespace {

facenet::Result<facenet::Image> read_stdin() {
  static bool taken = false;
  if (taken) return {facenet::Errc::invalid_argument, "it was read already: name '-' only once"};
  taken = true;
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
    return facenet::decode_image({bytes.data(), used});
  }
}

}  // namespace

facenet::Result<facenet::Image> read_picture(const std::string& name) {
  return name == "-" ? read_stdin() : facenet::read_image(name.c_str());
}

}  // namespace command
