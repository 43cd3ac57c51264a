// Where a weight file's bytes come from. Files are read, never mapped: one that another process truncates would be a
// SIGBUS that cannot be caught.
#pragma once

#include "facenet/base/file_path.hpp"
#include "facenet/base/hash.hpp"
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

FACENET_SETUP_BEGIN

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
  const std::uint8_t* bytes(std::int64_t offset) const noexcept {
    return memory_ != nullptr ? memory_ + offset : nullptr;
  }

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
    file_ = open_to_read(path);
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

}  // namespace detail

FACENET_SETUP_END
