// Text without a locale and without allocation: digits, counts, prefixes, lines that are cut where they end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "facenet/base/config.hpp"

FACENET_DATA_BEGIN

/// The decimal digits of a number, 0 or above: `Digits(42).text()`. Always inlined, since Status prints with it.
class Digits {
 public:
  FACENET_INLINE constexpr explicit Digits(std::int64_t n) noexcept {
    do text_[--begin_] = static_cast<char>('0' + n % 10);
    while ((n /= 10) != 0);
  }
  FACENET_INLINE constexpr const char* text() const noexcept { return text_ + begin_; }

 private:
  char text_[20] = {};  // 2^63 - 1 has 19 digits
  int begin_ = 19;
};

FACENET_DATA_END

FACENET_BEGIN

namespace detail {

inline bool starts_with(const char* s, const char* prefix) noexcept {
  return std::strncmp(s, prefix, std::strlen(prefix)) == 0;
}
inline bool ends_with(const char* s, const char* suffix) noexcept {
  const std::size_t n = std::strlen(s), m = std::strlen(suffix);
  return n >= m && std::strcmp(s + n - m, suffix) == 0;
}

/// Copies a text, cut to what fits.
template <std::size_t N>
inline void copy_text(char (&to)[N], const char* from) noexcept {
  std::size_t n = std::strlen(from);
  if (n >= N) n = N - 1;
  std::memcpy(to, from, n);
  to[n] = 0;
}

/// A number of 1 ... `most` from plain digits; false where `s` is anything else.
inline bool parse_count(const char* s, std::size_t length, int most, int& out) noexcept {
  std::int64_t value = 0;
  for (std::size_t i = 0; i < length; ++i) {
    if (s[i] < '0' || s[i] > '9') return false;
    value = value * 10 + (s[i] - '0');
    if (value > most) return false;
  }
  out = static_cast<int>(value);
  return value > 0;
}

/// A line of text that is cut, never overrun: for the place that a Status names.
class Line {
 public:
  const char* text() const noexcept { return text_; }
  std::size_t length() const noexcept { return length_; }
  Line& add(const char* s) noexcept {
    while (*s != 0 && length_ + 1 < sizeof text_) text_[length_++] = *s++;
    text_[length_] = 0;
    return *this;
  }
  Line& add(std::int64_t n) noexcept { return add(Digits(n).text()); }
  Line& shape(const std::int64_t* dims, int rank) noexcept {
    add("[");
    for (int i = 0; i < rank; ++i) add(i == 0 ? "" : ",").add(dims[i]);
    return add("]");
  }
  /// "a, b and 3 more": names as long as they fit `room` characters.
  void name(const char* s, std::size_t room) noexcept {
    if (more_ == 0 && length_ + std::strlen(s) + 2 <= room) {
      add(length_ == 0 ? "" : ", ").add(s);
    } else {
      ++more_;
    }
  }
  void end_names() noexcept {
    if (more_ > 0) add(length_ == 0 ? "" : " and ").add(more_).add(" more");
  }

 private:
  char text_[384] = {};
  std::size_t length_ = 0;
  std::int64_t more_ = 0;
};

}  // namespace detail

FACENET_END
