// What runs in the process of a decoder beside the decoder: the rows' way out, orientation, colour.
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "command/formats/decoder.hpp"
#include "command/formats/protocol.hpp"
#if defined(FACENET_LCMS)
#  include <lcms2.h>
#endif

namespace command {

namespace {

/// To the process that waits for the picture. One that no longer waits ends this one.
void send(const void* data, std::size_t size) {
  const auto* at = static_cast<const std::uint8_t*>(data);
  while (size != 0) {
    const ssize_t n = ::write(STDOUT_FILENO, at, size);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) _exit(1);
    at += n;
    size -= static_cast<std::size_t>(n);
  }
}

constexpr std::size_t block = 256 << 10;
std::vector<std::uint8_t> waiting;  // rows that are not sent yet: a write for each would be thousands
bool begun = false;

void flush() {
  if (!waiting.empty()) send(waiting.data(), waiting.size());
  waiting.clear();
}

}  // namespace

void refuse(Trouble trouble) {
  // Before the header: a header that says so. Later: what is said at the end is not "none".
  if (!begun) {
    PictureHeader header{};
    header.trouble = trouble;
    send(&header, sizeof header);
    _exit(0);
  }
  waiting.clear();
  _exit(static_cast<int>(trouble));
}

Canvas::Canvas(const Wanted& wanted) : wanted_(wanted) {}

Canvas::~Canvas() {
#if defined(FACENET_LCMS)
  if (transform_ != nullptr) cmsDeleteTransform(transform_);
#endif
}

void Canvas::check(std::uint64_t width, std::uint64_t height) {
  if (width == 0 || height == 0) refuse(Trouble::corrupt);
  if (width > most_side_in_file || height > most_side_in_file || width * height > most_pixels_in_file)
    refuse(Trouble::too_large);
}

bool Canvas::fits(std::uint64_t width, std::uint64_t height) const {
  const auto side = static_cast<std::uint64_t>(wanted_.most_side);
  return width <= side && height <= side && width * height <= wanted_.most_pixels;
}

void Canvas::set_profile(const std::uint8_t* icc, std::size_t size) {
#if defined(FACENET_LCMS)
  if (!wanted_.colour || size == 0 || size > (4u << 20) || transform_ != nullptr) return;
  cmsHPROFILE from = cmsOpenProfileFromMem(icc, static_cast<cmsUInt32Number>(size));
  if (from == nullptr) return;
  if (cmsGetColorSpace(from) == cmsSigRgbData) {
    cmsHPROFILE to = cmsCreate_sRGBProfile();
    transform_ = cmsCreateTransform(from, TYPE_RGB_8, to, TYPE_RGB_8, INTENT_RELATIVE_COLORIMETRIC,
                                    cmsFLAGS_NOCACHE | cmsFLAGS_BLACKPOINTCOMPENSATION);
    cmsCloseProfile(to);
  }
  cmsCloseProfile(from);
#else
  (void)icc;
  (void)size;
#endif
}

void Canvas::begin(int width, int height, int full_width, int full_height) {
  if (full_width == 0) full_width = width, full_height = height;
  check(static_cast<std::uint64_t>(full_width), static_cast<std::uint64_t>(full_height));
  const auto smaller = [&](int side) { return (side + shrink_ - 1) / shrink_; };
  while (!fits(static_cast<std::uint64_t>(smaller(width)), static_cast<std::uint64_t>(smaller(height)))) ++shrink_;
  width_ = width;
  height_ = height;
  PictureHeader header{};
  header.full_width = full_width;
  header.full_height = full_height;
  header.width = smaller(width);
  header.height = smaller(height);
  header.orientation = orientation_;
  begun = true;
  send(&header, sizeof header);
  waiting.reserve(block + static_cast<std::size_t>(header.width) * 3);
  small_.resize(static_cast<std::size_t>(header.width) * 3);
  opaque_.resize(static_cast<std::size_t>(width) * 3);
  if (shrink_ > 1) sums_.assign(static_cast<std::size_t>(header.width) * 3, 0);
}

void Canvas::row(const std::uint8_t* rgb) {
  if (rows_++ == height_) refuse(Trouble::corrupt);
  if (shrink_ == 1) {
    std::memcpy(small_.data(), rgb, small_.size());
    put(small_.data());
    return;
  }
  const int width = width_, n = shrink_;
  for (int x = 0, to = 0; x < width; ++to) {
    const int end = x + n < width ? x + n : width;
    for (; x < end; ++x)
      for (int c = 0; c < 3; ++c) sums_[static_cast<std::size_t>(3 * to + c)] += rgb[3 * x + c];
  }
  if (++in_sum_ < n && rows_ < height_) return;
  for (std::size_t i = 0; i < small_.size(); ++i) {
    const int left = width - static_cast<int>(i / 3) * n;
    const auto count = static_cast<std::uint32_t>((left < n ? left : n) * in_sum_);
    small_[i] = static_cast<std::uint8_t>((sums_[i] + count / 2) / count);
    sums_[i] = 0;
  }
  in_sum_ = 0;
  put(small_.data());
}

void Canvas::row_rgba(const std::uint8_t* rgba, bool premultiplied) {
  std::uint8_t* to = opaque_.data();
  for (int x = 0; x < width_; ++x, rgba += 4)
    for (int c = 0; c < 3; ++c) {
      const int white = 255 - rgba[3];
      const int v = premultiplied ? rgba[c] + white : (rgba[c] * rgba[3] + 255 * white + 127) / 255;
      *to++ = static_cast<std::uint8_t>(v < 255 ? v : 255);
    }
  row(opaque_.data());
}

void Canvas::put(std::uint8_t* rgb) {
#if defined(FACENET_LCMS)
  if (transform_ != nullptr) cmsDoTransform(transform_, rgb, rgb, static_cast<cmsUInt32Number>(small_.size() / 3));
#endif
  waiting.insert(waiting.end(), rgb, rgb + small_.size());
  if (waiting.size() >= block) flush();
}

void Canvas::end() {
  if (rows_ != height_) refuse(Trouble::truncated);
  flush();
  const auto none = static_cast<std::uint32_t>(Trouble::none);
  send(&none, sizeof none);
}

std::string version_text(const char* name, int major, int minor, int patch) {
  return std::string(name) + " " + std::to_string(major) + "." + std::to_string(minor) + "." + std::to_string(patch);
}

}  // namespace command
