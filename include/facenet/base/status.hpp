// Errors as values: Errc, Status, Result<T>.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <type_traits>
#include <utility>

#include "facenet/base/config.hpp"
#include "facenet/base/text.hpp"
#if FACENET_EXCEPTIONS
#  include <stdexcept>
#endif

FACENET_BEGIN

// What Status does seldom, once and not at each of its thousand places: inlined, it was a tenth of a WebAssembly
// module. These are the unit's own, named like everything with a body; only Status itself is shared by units.
namespace status_text {

/// Puts `outer` and ": " before the text in `place`, which has room for `capacity` bytes and a final zero.
FACENET_NOINLINE inline void put_before(char* place, std::size_t capacity, const char* outer,
                                        std::size_t length) noexcept {
  const std::size_t sep = place[0] != 0 ? 2 : 0, have = std::strlen(place);
  if (length + sep > capacity) length = capacity - sep;
  const std::size_t keep = have < capacity - length - sep ? have : capacity - length - sep;
  std::memmove(place + length + sep, place, keep);
  std::memcpy(place, outer, length);
  if (sep != 0) std::memcpy(place + length, ": ", 2);
  place[length + sep + keep] = 0;
}

/// Writes "place: text (byte N)" into `out`, cut to `size` bytes with its final zero.
FACENET_NOINLINE inline void print(const char* place, const char* text, std::int64_t offset, char* out,
                                   std::size_t size) noexcept {
  if (out == nullptr || size == 0) return;
  std::size_t used = 0;
  const auto put = [&](const char* s) {
    for (; *s != 0 && used + 1 < size; ++s) out[used++] = *s;
  };
  if (place[0] != 0) {
    put(place);
    put(": ");
  }
  put(text);
  if (offset >= 0) {
    char digits[24];
    std::size_t n = sizeof digits;
    digits[--n] = 0;
    do {
      digits[--n] = static_cast<char>('0' + offset % 10);
      offset /= 10;
    } while (offset != 0);
    put(" (byte ");
    put(digits + n);
    put(")");
  }
  out[used] = 0;
}

}  // namespace status_text

FACENET_END

FACENET_DATA_BEGIN

enum class Errc : std::uint8_t {
  ok = 0,
  invalid_argument,  // the caller passed something a function never accepts
  out_of_memory,     // an allocation failed, or a given buffer is too small
  io_error,          // the operating system could not open, read or write
  not_found,         // a file, tensor or key that must exist does not
  truncated,         // the data ends before it should
  corrupt,           // a checksum or an internal rule of the format is broken
  unsupported,       // well-formed, but of a kind this library does not read
  limit_exceeded,    // larger than a documented limit
  weights_mismatch,  // a weight file that does not belong to this network
  cancelled,         // the caller's flag was set
};

/// The name of a code, for logs: "ok", "corrupt", …
FACENET_INLINE const char* name(Errc e) noexcept {
  constexpr const char* names[] = {
      "ok",      "invalid_argument", "out_of_memory",  "io_error",         "not_found", "truncated",
      "corrupt", "unsupported",      "limit_exceeded", "weights_mismatch", "cancelled"};
  return names[static_cast<std::size_t>(e)];
}

/// What went wrong: a code, one sentence with static lifetime, and where (a file, tensor or layer, a byte
/// offset). Copying never allocates. A default-made Status is success, and costs four stores: of the place only the
/// final zero is set. Every member is inlined, so units compiled for different CPUs share no code of it.
class [[nodiscard]] Status {
 public:
  FACENET_INLINE Status() noexcept { place_[0] = 0; }
  FACENET_INLINE Status(Errc code, const char* text) noexcept : text_(text), code_(code) { place_[0] = 0; }

  FACENET_INLINE bool ok() const noexcept { return code_ == Errc::ok; }
  FACENET_INLINE explicit operator bool() const noexcept { return ok(); }
  FACENET_INLINE Errc code() const noexcept { return code_; }
  /// The sentence, without place and without a final full stop.
  FACENET_INLINE const char* text() const noexcept { return text_; }
  /// The place: "file: tensor: …", each `in()` puts its own before the last; cut after 383 bytes. May be "".
  FACENET_INLINE const char* place() const noexcept { return place_; }
  /// Byte offset in the file, or -1.
  FACENET_INLINE std::int64_t offset() const noexcept { return offset_; }

  FACENET_INLINE Status& at(std::int64_t byte_offset) noexcept {
    offset_ = byte_offset;
    return *this;
  }
  /// Puts `outer` before the place: the innermost call names the tensor, its caller the file.
  FACENET_INLINE Status& in(const char* outer) noexcept { return in(outer, std::strlen(outer)); }
  FACENET_INLINE Status& in(const char* outer, std::size_t length) noexcept {
    status_text::put_before(place_, capacity, outer, length);
    return *this;
  }
  /// Writes "place: text (byte N)" into `out`, cut to `size` bytes with its final zero; returns `out`.
  FACENET_INLINE char* print(char* out, std::size_t size) const noexcept {
    status_text::print(place_, text_, offset_, out, size);
    return out;
  }

 private:
  static constexpr std::size_t capacity = 383;
  const char* text_ = "ok";
  std::int64_t offset_ = -1;
  Errc code_ = Errc::ok;
  char place_[capacity + 1];
};

FACENET_DATA_END

FACENET_BEGIN

/// A T or the Status that says why there is none.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) noexcept : has_(true) { ::new (static_cast<void*>(&value_)) T(std::move(value)); }
  Result(Status status) noexcept : status_(status), has_(false) {}
  Result(Errc code, const char* text) noexcept : status_(code, text), has_(false) {}
  Result(Result&& other) noexcept : has_(other.has_) {
    if (has_)
      ::new (static_cast<void*>(&value_)) T(std::move(other.value_));
    else
      status_ = other.status_;
  }
  Result& operator=(Result&& other) noexcept {
    if (this != &other) {
      this->~Result();
      ::new (static_cast<void*>(this)) Result(std::move(other));
    }
    return *this;
  }
  ~Result() {
    if (has_) value_.~T();
  }

  bool ok() const noexcept { return has_; }
  explicit operator bool() const noexcept { return has_; }
  const Status& status() const noexcept { return status_; }
  Status& status() noexcept { return status_; }

  /// The value, unchecked: only after ok().
  T& operator*() noexcept { return value_; }
  const T& operator*() const noexcept { return value_; }
  T* operator->() noexcept { return &value_; }
  const T* operator->() const noexcept { return &value_; }

#if FACENET_EXCEPTIONS
  /// The value, or a std::runtime_error with the printed status.
  T& value() & {
    if (!has_) {
      char text[512];
      throw std::runtime_error(status_.print(text, sizeof text));
    }
    return value_;
  }
  T value() && { return std::move(static_cast<Result&>(*this).value()); }
#endif

 private:
  union {
    T value_;
  };
  Status status_;
  bool has_;
};

FACENET_END

/// Returns from the enclosing function when the Status is an error.
#define FACENET_TRY(expression) \
  do { \
    auto facenet_status_ = (expression); \
    if (!facenet_status_.ok()) return facenet_status_; \
  } while (false)
