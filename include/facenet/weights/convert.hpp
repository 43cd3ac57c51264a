// Where a weight file's bytes come from, and what is done to each chunk of them: expand, check, scale. Layer 2.
// Files are read, never mapped: one that another process truncates would be a SIGBUS nobody can catch.
#pragma once

#include "facenet/hash.hpp"
#if !defined(FACENET_NO_STDIO)
#  include <cstdio>
#  if defined(__unix__) || defined(__APPLE__) || defined(__wasi__) || defined(__EMSCRIPTEN__)
#    define FACENET_POSIX_FILES 1
#    include <errno.h>
#    include <fcntl.h>
#    include <sys/stat.h>
#    include <unistd.h>
#  endif
#endif

FACENET_BEGIN

namespace detail {

/// Where the bytes come from: memory of the caller's, or a regular file that is opened once.
class WeightSource {
 public:
  WeightSource() noexcept = default;
  explicit WeightSource(Span<const std::uint8_t> memory) noexcept
      : memory_(memory.data()), size_(static_cast<std::int64_t>(memory.size())) {}
  WeightSource(WeightSource&& other) noexcept { swap(other); }
  WeightSource& operator=(WeightSource&& other) noexcept {
    swap(other);
    return *this;
  }
  std::int64_t size() const noexcept { return size_; }
  /// The caller's bytes from `offset` on; nullptr for a file.
  const std::uint8_t* bytes(std::int64_t offset) const noexcept { return memory_ != nullptr ? memory_ + offset : nullptr; }

#if !defined(FACENET_NO_STDIO)
  ~WeightSource() {
    if (file_ != nullptr) std::fclose(file_);
  }

  Status open(const char* path) noexcept {
#  if defined(FACENET_POSIX_FILES)
    // O_NONBLOCK: opening a pipe without a writer would wait for ever, before anyone can see that it is a pipe.
    const int descriptor = ::open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (descriptor < 0) return cannot_open(errno == ENOENT || errno == ENOTDIR);
    struct stat info;
    const bool known = ::fstat(descriptor, &info) == 0, regular = known && S_ISREG(info.st_mode);
    if (regular) file_ = ::fdopen(descriptor, "rb");
    if (file_ == nullptr) ::close(descriptor);
    if (known && !regular) return {Errc::unsupported, "weights must be a regular file, not a folder, pipe or device"};
    if (file_ == nullptr) return cannot_open(false);
    size_ = static_cast<std::int64_t>(info.st_size);
#  else
    file_ = std::fopen(path, "rb");
    if (file_ == nullptr) return cannot_open(false);
    if (std::fseek(file_, 0, SEEK_END) != 0 || (size_ = std::ftell(file_)) < 0)
      return {Errc::unsupported, "weights must be a regular file of less than 512 MiB"};
    at_ = size_;
#  endif
    // Reads are whole chunks into their place; a buffer in between would only copy once more.
    std::setvbuf(file_, nullptr, _IONBF, 0);
    return {};
  }
#endif

  /// Copies `count` bytes from `offset` on, which must lie inside size().
  Status read(std::int64_t offset, void* to, std::size_t count) noexcept {
    if (count == 0) return {};
#if !defined(FACENET_NO_STDIO)
    if (file_ != nullptr) {
      if (at_ != offset && std::fseek(file_, static_cast<long>(offset), SEEK_SET) != 0)
        return Status(Errc::io_error, "the file could not be read at this place").at(offset);
      const std::size_t got = std::fread(to, 1, count, file_);
      at_ = offset + static_cast<std::int64_t>(got);
      if (got == count) return {};
      if (std::ferror(file_) != 0) return Status(Errc::io_error, "the file could not be read at this place").at(at_);
      return Status(Errc::truncated, "the file became shorter while it was read").at(at_);
    }
#endif
    std::memcpy(to, memory_ + offset, count);
    return {};
  }

 private:
  void swap(WeightSource& other) noexcept {
    std::swap(memory_, other.memory_);
    std::swap(size_, other.size_);
#if !defined(FACENET_NO_STDIO)
    std::swap(file_, other.file_);
    std::swap(at_, other.at_);
#endif
  }

  const std::uint8_t* memory_ = nullptr;
  std::int64_t size_ = 0;
#if !defined(FACENET_NO_STDIO)
  static Status cannot_open(bool absent) noexcept {
    if (absent)
      return {Errc::not_found, "there is no such file: check the path, or make it with tools/convert_weights.py"};
    return {Errc::io_error, "the file could not be opened: check its permissions"};
  }
  std::FILE* file_ = nullptr;
  std::int64_t at_ = 0;  // where the next fread begins
#endif
};

// Loops below run over blocks of 64: at -O2 GCC 12 vectorizes only loops with a constant trip count.
constexpr std::size_t raw_block = 64;

/// Calls f(raw, out) for each whole block of `count` elements of `item` bytes, and once on a zero-padded copy of the
/// rest.
template <std::size_t item, class F>
FACENET_INLINE void in_blocks(const std::uint8_t* raw, float* out, std::size_t count, F&& f) noexcept {
  for (; count >= raw_block; count -= raw_block, raw += raw_block * item, out += raw_block) f(raw, out);
  if (count == 0) return;
  std::uint8_t raw_tail[raw_block * item] = {};
  float out_tail[raw_block];
  std::memcpy(raw_tail, raw, count * item);
  f(raw_tail, out_tail);
  std::memcpy(out, out_tail, count * sizeof(float));
}

/// Exact float values of little-endian halves. Integers only where a subnormal is met, so that a thread which flushes
/// denormals gets the same weights. 47 MB take 10 ms.
inline void expand_f16(const std::uint8_t* raw, float* out, std::size_t count) noexcept {
  in_blocks<2>(raw, out, count, [](const std::uint8_t* from, float* to) {
    std::uint32_t bits[raw_block];
    for (std::size_t i = 0; i < raw_block; ++i) {
      const std::uint32_t h = load_le<std::uint16_t>(from + 2 * i), magnitude = h & 0x7fffu;
      const std::uint32_t normal = (magnitude << 13) + ((127u - 15u) << 23);
      const float f = static_cast<float>(static_cast<std::int32_t>(magnitude)) * 0x1p-24f;
      std::uint32_t subnormal;
      std::memcpy(&subnormal, &f, sizeof f);
      const std::uint32_t is_subnormal = 0u - ((magnitude - 0x400u) >> 31);
      bits[i] = (subnormal & is_subnormal) | (normal & ~is_subnormal) | (h & 0x8000u) << 16;
    }
    std::memcpy(to, bits, sizeof bits);
  });
}
inline void expand_i8(const std::uint8_t* raw, float* out, std::size_t count) noexcept {
  in_blocks<1>(raw, out, count, [](const std::uint8_t* from, float* to) {
    for (std::size_t i = 0; i < raw_block; ++i) to[i] = static_cast<float>(static_cast<std::int8_t>(from[i]));
  });
}
inline void expand_u8(const std::uint8_t* raw, float* out, std::size_t count) noexcept {
  for (std::size_t i = 0; i < count; ++i) out[i] = static_cast<float>(raw[i]);
}

/// The index of the first NaN or infinity, or `count`. An exponent of ones plus one carries into the sign bit, so one
/// addition and one OR for each value suffice.
inline std::size_t first_non_finite_f32(const float* x, std::size_t count) noexcept {
  auto carries = [x](std::size_t i) {
    std::uint32_t b;
    std::memcpy(&b, x + i, sizeof b);
    return (b & 0x7fffffffu) + 0x00800000u;
  };
  std::size_t i = 0;
  for (; i + raw_block <= count; i += raw_block) {
    std::uint32_t seen = 0;
    for (std::size_t j = 0; j < raw_block; ++j) seen |= carries(i + j);
    if (seen >> 31 != 0) break;
  }
  while (i < count && carries(i) >> 31 == 0) ++i;
  return i;
}
inline std::size_t first_non_finite_f16(const std::uint8_t* raw, std::size_t count) noexcept {
  auto carries = [raw](std::size_t i) { return (load_le<std::uint16_t>(raw + 2 * i) & 0x7fffu) + 0x0400u; };
  std::size_t i = 0;
  for (; i + raw_block <= count; i += raw_block) {
    std::uint32_t seen = 0;
    for (std::size_t j = 0; j < raw_block; ++j) seen |= carries(i + j);
    if ((seen & 0x8000u) != 0) break;
  }
  while (i < count && (carries(i) & 0x8000u) == 0) ++i;
  return i;
}

inline void scale_f32(float* x, std::size_t count, float s) noexcept {
  std::size_t i = 0;
  for (; i + raw_block <= count; i += raw_block)
    for (std::size_t j = 0; j < raw_block; ++j) x[i + j] *= s;
  for (; i < count; ++i) x[i] *= s;
}
/// x = x * s, each product rounded once from double.
inline void scale_f64(float* x, std::size_t count, double s) noexcept {
  std::size_t i = 0;
  for (; i + raw_block <= count; i += raw_block)
    for (std::size_t j = 0; j < raw_block; ++j) x[i + j] = static_cast<float>(static_cast<double>(x[i + j]) * s);
  for (; i < count; ++i) x[i] = static_cast<float>(static_cast<double>(x[i]) * s);
}

}  // namespace detail

FACENET_END
