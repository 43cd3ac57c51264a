// Deflate and zlib (RFC 1951, RFC 1950) as far as their data goes: says how many bytes came out before it ended or
// broke.
//
// stb_image unpacks sound PNGs, faster. This is for those that it refuses, to say what is there, and for text chunks.
#pragma once

#include "facenet/image/stored.hpp"

FACENET_BEGIN

namespace detail {

inline std::uint32_t adler32(Bytes data) noexcept {
  std::uint32_t a = 1, b = 0;
  for (std::size_t at = 0; at < data.size();) {
    std::size_t n = data.size() - at < 5552 ? data.size() - at : 5552;  // the most before b overflows: RFC 1950
    for (; n > 0; --n) b += a += data[at++];
    a %= 65521;
    b %= 65521;
  }
  return b << 16 | a;
}

enum class InflateEnd : std::uint8_t { finished, full, cut, damaged };

class Inflater {
 public:
  Inflater(Bytes in, Span<std::uint8_t> out) noexcept : in_(in), out_(out) {}

  // Unpacks a zlib stream until it is finished, `out` is full, its data is at its end, or no valid code follows.
  InflateEnd run() noexcept {
    if (in_.size() < 2) return InflateEnd::cut;
    if ((in_[0] & 15) != 8 || in_[0] >> 4 > 7 || (in_[1] & 32) != 0 || be16(in_.data()) % 31 != 0)
      return InflateEnd::damaged;
    at_ = 2;
    for (bool last = false; !last && state_ == InflateEnd::finished;) {
      last = bits(1) != 0;
      const unsigned kind = bits(2);
      if (state_ != InflateEnd::finished) break;
      if (kind == 0)
        stored();
      else if (kind == 3)
        fail(InflateEnd::damaged);
      else if (kind == 1)
        fixed();
      else
        dynamic();
    }
    return state_;
  }
  std::size_t size() const noexcept { return size_; }
  // The checksum after a finished stream, where it is there.
  bool checksum(std::uint32_t& value) const noexcept {
    const std::size_t at = at_ - static_cast<std::size_t>(count_ / 8);
    if (state_ != InflateEnd::finished || in_.size() - at < 4) return false;
    value = be32(in_.data() + at);
    return true;
  }

 private:
  struct Codes {
    std::uint16_t count[16], symbol[288];
  };

  void fail(InflateEnd why) noexcept {
    if (state_ == InflateEnd::finished) state_ = why;
  }
  unsigned bits(int n) noexcept {
    while (count_ < n) {
      if (at_ == in_.size()) {
        fail(InflateEnd::cut);
        return 0;
      }
      buffer_ |= std::uint32_t{in_[at_++]} << count_;
      count_ += 8;
    }
    const unsigned value = buffer_ & ((1u << n) - 1);
    buffer_ >>= n;
    count_ -= n;
    return value;
  }
  void put(std::uint8_t byte) noexcept {
    if (size_ == out_.size())
      fail(InflateEnd::full);
    else
      out_[size_++] = byte;
  }
  void stored() noexcept {
    at_ -= static_cast<std::size_t>(count_ / 8);
    buffer_ = 0;
    count_ = 0;
    const unsigned n = bits(16), complement = bits(16);
    if (state_ == InflateEnd::finished && (n ^ complement) != 0xFFFF) fail(InflateEnd::damaged);
    for (unsigned i = 0; i < n && state_ == InflateEnd::finished; ++i) {
      if (at_ == in_.size()) return fail(InflateEnd::cut);
      put(in_[at_++]);
    }
  }
  // Codes of the given lengths; false where they are more than fit.
  static bool build(Codes& c, const std::uint8_t* lengths, int n) noexcept {
    c = {};
    for (int i = 0; i < n; ++i) ++c.count[lengths[i]];
    c.count[0] = 0;
    int room = 1;
    std::uint16_t first[16] = {};
    for (int i = 1; i < 16; ++i) {
      room = 2 * room - c.count[i];
      if (room < 0) return false;
      first[i] = static_cast<std::uint16_t>(first[i - 1] + c.count[i - 1]);
    }
    for (int i = 0; i < n; ++i)
      if (lengths[i] != 0) c.symbol[first[lengths[i]]++] = static_cast<std::uint16_t>(i);
    return true;
  }
  unsigned decode(const Codes& c) noexcept {
    int code = 0, first = 0, index = 0;
    for (int length = 1; length < 16 && state_ == InflateEnd::finished; ++length) {
      code |= static_cast<int>(bits(1));
      const int count = c.count[length];
      if (state_ == InflateEnd::finished && code - count < first)
        return c.symbol[static_cast<std::size_t>(index + code - first)];
      index += count;
      first = (first + count) * 2;
      code *= 2;
    }
    fail(InflateEnd::damaged);
    return 256;
  }
  void codes(const Codes& lengths, const Codes& distances) noexcept {
    constexpr std::uint16_t length_base[] = {3,  4,  5,  6,  7,  8,  9,  10, 11,  13,  15,  17,  19,  23, 27,
                                             31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258};
    constexpr std::uint16_t distance_base[] = {1,    2,    3,    4,    5,    7,    9,    13,    17,    25,
                                               33,   49,   65,   97,   129,  193,  257,  385,   513,   769,
                                               1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577};
    while (state_ == InflateEnd::finished) {
      const unsigned symbol = decode(lengths);
      if (state_ != InflateEnd::finished || symbol == 256) return;
      if (symbol < 256) {
        put(static_cast<std::uint8_t>(symbol));
        continue;
      }
      if (symbol > 285) return fail(InflateEnd::damaged);
      const unsigned l = symbol - 257, extra = l < 8 || l == 28 ? 0 : l / 4 - 1;
      const std::size_t length = length_base[l] + bits(static_cast<int>(extra));
      const unsigned d = decode(distances);
      if (state_ != InflateEnd::finished) return;
      if (d > 29) return fail(InflateEnd::damaged);
      const std::size_t distance = distance_base[d] + bits(d < 4 ? 0 : static_cast<int>(d / 2 - 1));
      if (distance > size_) fail(InflateEnd::damaged);
      for (std::size_t i = 0; i < length && state_ == InflateEnd::finished; ++i) put(out_[size_ - distance]);
    }
  }
  void fixed() noexcept {
    std::uint8_t lengths[288];
    for (int i = 0; i < 288; ++i) lengths[i] = i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8;
    Codes literals, distances;
    build(literals, lengths, 288);
    std::memset(lengths, 5, 30);
    build(distances, lengths, 30);
    codes(literals, distances);
  }
  void dynamic() noexcept {
    constexpr std::uint8_t order[] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
    const int literal_count = static_cast<int>(bits(5)) + 257, distance_count = static_cast<int>(bits(5)) + 1;
    const int order_count = static_cast<int>(bits(4)) + 4;
    std::uint8_t lengths[288 + 32] = {};
    for (int i = 0; i < order_count; ++i) lengths[order[i]] = static_cast<std::uint8_t>(bits(3));
    Codes literals, distances;
    if (state_ != InflateEnd::finished) return;
    if (literal_count > 286 || !build(literals, lengths, 19)) return fail(InflateEnd::damaged);
    std::memset(lengths, 0, sizeof lengths);
    for (int i = 0; i < literal_count + distance_count;) {
      const unsigned symbol = decode(literals);
      if (state_ != InflateEnd::finished) return;
      if (symbol < 16) {
        lengths[i++] = static_cast<std::uint8_t>(symbol);
        continue;
      }
      if (symbol == 16 && i == 0) return fail(InflateEnd::damaged);
      const std::uint8_t value = symbol == 16 ? lengths[i - 1] : std::uint8_t{0};
      const int times = static_cast<int>(symbol == 16 ? 3 + bits(2) : symbol == 17 ? 3 + bits(3) : 11 + bits(7));
      if (state_ != InflateEnd::finished) return;
      if (i + times > literal_count + distance_count) return fail(InflateEnd::damaged);
      for (int j = 0; j < times; ++j) lengths[i++] = value;
    }
    if (!build(literals, lengths, literal_count) || !build(distances, lengths + literal_count, distance_count))
      return fail(InflateEnd::damaged);
    codes(literals, distances);
  }

  Bytes in_;
  Span<std::uint8_t> out_;
  std::size_t at_ = 0, size_ = 0;
  std::uint32_t buffer_ = 0;
  int count_ = 0;
  InflateEnd state_ = InflateEnd::finished;
};

}  // namespace detail

FACENET_END
