// The Huffman codes of a JPEG's coded data, walked without decoding a picture: which blocks are there.
//
// ITU-T T.81, F.2.2 (sequential) and G.2 (progressive). No coefficient is computed; what a later refinement asks of an
// earlier scan, which coefficients are not zero, is a bit each.
#pragma once

#include "facenet/image/stored.hpp"

FACENET_BEGIN

namespace detail {

// The 16 counts and the symbols of T.81's K.3 to K.6, as a DHT segment has them. Motion JPEG leaves them out.
struct DefaultTables {
  std::uint8_t dc[2][16 + 12], ac[2][16 + 162];
};
FACENET_HIDDEN inline constexpr DefaultTables default_tables = {
    {{0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11},
     {0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}},
    {{0,    2,    1,    3,    3,    2,    4,    3,    5,    5,    4,    4,    0,    0,    1,    0x7d, 0x01, 0x02,
      0x03, 0x00, 0x04, 0x11, 0x05, 0x12, 0x21, 0x31, 0x41, 0x06, 0x13, 0x51, 0x61, 0x07, 0x22, 0x71, 0x14, 0x32,
      0x81, 0x91, 0xa1, 0x08, 0x23, 0x42, 0xb1, 0xc1, 0x15, 0x52, 0xd1, 0xf0, 0x24, 0x33, 0x62, 0x72, 0x82, 0x09,
      0x0a, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2a, 0x34, 0x35, 0x36, 0x37, 0x38, 0x39,
      0x3a, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4a, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5a, 0x63,
      0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a, 0x83, 0x84, 0x85,
      0x86, 0x87, 0x88, 0x89, 0x8a, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a, 0xa2, 0xa3, 0xa4, 0xa5,
      0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba, 0xc2, 0xc3, 0xc4, 0xc5,
      0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda, 0xe1, 0xe2, 0xe3, 0xe4,
      0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa},
     {0,    2,    1,    2,    4,    4,    3,    4,    7,    5,    4,    4,    0,    1,    2,    0x77, 0x00, 0x01,
      0x02, 0x03, 0x11, 0x04, 0x05, 0x21, 0x31, 0x06, 0x12, 0x41, 0x51, 0x07, 0x61, 0x71, 0x13, 0x22, 0x32, 0x81,
      0x08, 0x14, 0x42, 0x91, 0xa1, 0xb1, 0xc1, 0x09, 0x23, 0x33, 0x52, 0xf0, 0x15, 0x62, 0x72, 0xd1, 0x0a, 0x16,
      0x24, 0x34, 0xe1, 0x25, 0xf1, 0x17, 0x18, 0x19, 0x1a, 0x26, 0x27, 0x28, 0x29, 0x2a, 0x35, 0x36, 0x37, 0x38,
      0x39, 0x3a, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4a, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5a,
      0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a, 0x82, 0x83,
      0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a, 0xa2, 0xa3,
      0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba, 0xc2, 0xc3,
      0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda, 0xe2, 0xe3,
      0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa}}};

// What one code stands for. `bits`: of the code and of the value after it. `step`: by how much a sequential block
// advances; the end of a block takes it past all others.
struct JpegCode {
  std::uint8_t symbol, length, bits, step;
};
constexpr int end_of_block = 128;

// One Huffman table as two look-ups: by the next look_bits bits, and by length for the rare longer codes.
struct JpegTable {
  static constexpr int look_bits = 10, many_bits = 11;
  const std::uint8_t* source;  // 16 counts and the symbols; what is below was made from them
  JpegCode look[1 << look_bits];
  // All the codes that lie whole in the next many_bits bits, up to the end of the block; the last one's value may reach
  // further: bits, step. Two symbols a look-up or three: the look-up's latency is what a walk costs.
  std::uint8_t many[1 << many_bits][2];
  std::int32_t limit[17];   // codes of this length, moved up to 16 bits, are smaller
  std::int32_t offset[17];  // from a code of this length to the place of its symbol

  static JpegCode code(int symbol, int length, bool dc) noexcept {
    const int size = dc ? symbol : symbol & 15, run = symbol >> 4;
    const int step = dc ? 1 : size != 0 ? run + 1 : run == 15 ? 16 : end_of_block;
    return {static_cast<std::uint8_t>(symbol), static_cast<std::uint8_t>(length),
            static_cast<std::uint8_t>(length + size), static_cast<std::uint8_t>(step)};
  }
  // False where the codes are more than fit, or a DC symbol is no number of bits.
  bool build(const std::uint8_t* table, bool dc) noexcept {
    source = nullptr;
    std::memset(look, 0, sizeof look);
    int next = 0, place = 0;
    for (int length = 1; length <= 16; ++length) {
      offset[length] = place - next;
      for (int i = 0; i < table[length - 1]; ++i, ++place, ++next) {
        const int symbol = table[16 + place];
        if (next >> length != 0 || (dc && symbol > 15)) return false;
        if (length > look_bits) continue;
        const JpegCode c = code(symbol, length, dc);
        for (int j = 0; j < 1 << (look_bits - length); ++j) look[(next << (look_bits - length)) + j] = c;
      }
      limit[length] = next << (16 - length);
      next *= 2;
    }
    source = table;
    return true;
  }
  void build_many() noexcept {
    for (unsigned i = 0; i < 1u << many_bits; ++i) {
      int bits = 0, step = 0;
      while (step < end_of_block && bits < many_bits) {
        const unsigned rest = i << bits & ((1u << many_bits) - 1);
        const JpegCode c = look[rest >> (many_bits - look_bits)];
        if (c.length == 0 || bits + c.length > many_bits || (c.step < end_of_block && step + c.step > 63)) break;
        bits += c.bits;
        step += c.step;
      }
      many[i][0] = static_cast<std::uint8_t>(bits);
      many[i][1] = static_cast<std::uint8_t>(bits != 0 ? step : 64);
    }
  }
};

// The bits of one segment of coded data, up to its marker or the end of the file. After it come zeros, which count.
class JpegBits {
 public:
  JpegBits(const std::uint8_t* begin, const std::uint8_t* end) noexcept : begin_(begin), at_(begin), end_(end) {
    find_plain();
  }

  // At least 32 bits, which is what a code (16) and its value (15) need; 56 where it says so, which is enough for two
  // look-ups of many codes (26 each). Without a branch on how many there are, which no processor foresees. Requires a
  // skip since the last one.
  bool refill() noexcept {
    if (plain_ - at_ >= 8) {
      buffer_ |= (std::uint64_t{be32(at_)} << 32 | be32(at_ + 4)) >> count_;
      at_ += (63 - count_) >> 3;
      count_ |= 56;
      return true;
    }
    if (count_ >= 32) return false;
    JpegBits other = *this;  // only the address of a copy is taken, so that the original lives in registers
    other.refill_slowly();
    *this = other;
    return true;
  }
  // The same 32 where there may have been no skip, and so 64 bits are there.
  void need32() noexcept {
    if (count_ < 32) refill();
  }
  std::uint32_t peek(int n) const noexcept { return static_cast<std::uint32_t>(buffer_ >> (64 - n)); }
  void skip(int n) noexcept {
    buffer_ <<= n;
    count_ -= n;
  }
  struct State {
    std::uint64_t buffer;
    int count;
  };
  State state() const noexcept { return {buffer_, count_}; }
  // To what state() said since the last refill().
  void restore(State state) noexcept {
    buffer_ = state.buffer;
    count_ = state.count;
  }
  // Requires n <= 32.
  std::uint32_t take(int n) noexcept {
    if (n == 0) return 0;
    refill();
    const std::uint32_t value = peek(n);
    skip(n);
    return value;
  }
  // The next code; its length is 0 where no code begins like this.
  JpegCode next(const JpegTable& table, bool dc) const noexcept {
    const JpegCode c = table.look[peek(JpegTable::look_bits)];
    return c.length != 0 ? c : longer(table, dc);
  }
  bool overrun() const noexcept { return count_ < beyond_; }

  const std::uint8_t* at() const noexcept { return at_; }
  // How many bytes of data (a stuffed one counts once) the bits taken so far are from. Requires !overrun().
  std::size_t used() const noexcept {
    return static_cast<std::size_t>(at_ - begin_) - stuffed_ - static_cast<std::size_t>((count_ - beyond_) / 8);
  }
  // How many whole bytes before at() no code has taken. Requires that none of them is stuffed.
  std::size_t left() const noexcept { return static_cast<std::size_t>((count_ - beyond_) / 8); }
  bool surplus() const noexcept { return count_ - beyond_ >= 8; }
  // The last eight bytes and the next seven are 0: a hole that a disk or a download left. T.81's tables read zeros as
  // an endless row of coefficients of -1, which no picture has.
  bool in_hole() const noexcept {
    return buffer_ >> 8 == 0 && beyond_ == 0 && at_ - begin_ >= 16 && be32(at_ - 16) == 0 && be32(at_ - 12) == 0;
  }

 private:
  FACENET_NOINLINE void refill_slowly() noexcept {
    while (count_ <= 56) {
      unsigned byte = 0;
      if (at_ != end_ && *at_ != 0xFF) {
        byte = *at_++;
      } else {
        const std::uint8_t* q = at_;
        while (q != end_ && *q == 0xFF) ++q;  // fill bytes
        if (q != end_ && q != at_ && *q == 0) {
          stuffed_ += static_cast<std::size_t>(q - at_);
          at_ = q + 1;
          byte = 0xFF;
        } else {
          beyond_ += 8;
        }
      }
      buffer_ |= std::uint64_t{byte} << (56 - count_);
      count_ += 8;
    }
    if (at_ > plain_) find_plain();
  }
  void find_plain() noexcept {
    const void* found = at_ != end_ ? std::memchr(at_, 0xFF, static_cast<std::size_t>(end_ - at_)) : nullptr;
    plain_ = found != nullptr ? static_cast<const std::uint8_t*>(found) : end_;
  }
  JpegCode longer(const JpegTable& table, bool dc) const noexcept {
    const auto bits = static_cast<std::int32_t>(peek(16));
    for (int length = JpegTable::look_bits + 1; length <= 16; ++length)
      if (bits < table.limit[length])
        return JpegTable::code(table.source[16 + (bits >> (16 - length)) + table.offset[length]], length, dc);
    return {};
  }

  const std::uint8_t *begin_, *at_, *end_;
  const std::uint8_t* plain_ = nullptr;  // the next 0xFF, or the end
  std::uint64_t buffer_ = 0;
  std::size_t stuffed_ = 0;
  int count_ = 0, beyond_ = 0;  // bits in the buffer, the last of which are none of the file's
};

// ---- one block of each kind; false where no valid code follows ------------------------------------------------------

inline bool walk_sequential(JpegBits& bits, const JpegTable& dc, const JpegTable& ac) noexcept {
  bits.refill();
  JpegCode c = bits.next(dc, true);
  if (c.length == 0) return false;
  bits.skip(c.bits);
  for (int k = 1;;) {
    const bool plenty = bits.refill();
    JpegBits::State before = bits.state();
    int was = k;
    const std::uint8_t* many = ac.many[bits.peek(JpegTable::many_bits)];
    bits.skip(many[0]);
    k += many[1];
    if (k < 64 && plenty) {
      before = bits.state();
      was = k;
      many = ac.many[bits.peek(JpegTable::many_bits)];
      bits.skip(many[0]);
      k += many[1];
    }
    if (k < 64) continue;
    if ((k & (end_of_block - 1)) < 64) return true;
    // A longer code, or the last coefficient, after which the next block begins.
    bits.restore(before);
    bits.need32();
    c = bits.next(ac, false);
    if (c.length == 0) return false;
    bits.skip(c.bits);
    k = was + c.step;
    if (k >= 64) return k >= end_of_block || (k == 64 && !bits.in_hole());
  }
}

inline bool walk_dc_first(JpegBits& bits, const JpegTable& dc) noexcept {
  bits.refill();
  const JpegCode c = bits.next(dc, true);
  bits.skip(c.bits);
  return c.length != 0;
}

// The coefficients of a band: bits `from` to `to` of a block's mask.
constexpr std::uint64_t band_mask(int from, int to) noexcept {
  return from > to ? 0 : (~std::uint64_t{0} >> (63 - to)) & (~std::uint64_t{0} << from);
}

struct JpegBand {
  int from, to;
  std::uint32_t end_run = 0;  // so many blocks more end without a code
};

inline bool walk_ac_first(JpegBits& bits, const JpegTable& ac, JpegBand& band, std::uint64_t& mask) noexcept {
  for (int k = band.from; k <= band.to;) {
    bits.refill();
    const JpegCode c = bits.next(ac, false);
    if (c.length == 0) return false;
    bits.skip(c.length);
    const int run = c.symbol >> 4, size = c.symbol & 15;
    if (size != 0) {
      k += run;
      if (k > band.to) return false;
      mask |= std::uint64_t{1} << k++;
      bits.skip(size);
    } else if (run == 15) {
      k += 16;
      if (k > band.to + 1) return false;
    } else {
      band.end_run = (1u << run) - 1 + bits.take(run);
      return true;
    }
  }
  return !bits.in_hole();
}

// G.1.2.3: each coefficient that is not zero already has a correction bit, in the order of coefficients.
inline bool walk_ac_refinement(JpegBits& bits, const JpegTable& ac, JpegBand& band, std::uint64_t& mask) noexcept {
  int k = band.from;
  if (band.end_run == 0) {
    while (k <= band.to) {
      bits.refill();
      const JpegCode c = bits.next(ac, false);
      if (c.length == 0) return false;
      bits.skip(c.length);
      int run = c.symbol >> 4;
      const int size = c.symbol & 15;
      if (size > 1) return false;
      if (size == 0 && run != 15) {
        band.end_run = (1u << run) + bits.take(run);
        break;
      }
      if (size != 0) bits.skip(1);
      int corrections = 0;
      for (; k <= band.to; ++k) {
        if ((mask >> k & 1) != 0)
          ++corrections;
        else if (--run < 0)
          break;
      }
      for (; corrections > 0; corrections -= 32) bits.take(corrections < 32 ? corrections : 32);
      if (size != 0) {
        if (k > band.to) return false;
        mask |= std::uint64_t{1} << k;
      }
      ++k;
    }
  }
  if (band.end_run > 0) {
    for (std::uint64_t rest = mask & band_mask(k, band.to); rest != 0; rest &= rest - 1) bits.take(1);
    --band.end_run;
  }
  return true;
}

}  // namespace detail

FACENET_END
