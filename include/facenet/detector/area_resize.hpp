// Area resizing of a part of a picture straight into a network's input: what MTCNN does to every pixel.
//
// The same numbers as image.hpp's resize_area, then (x - 127.5) / 128, for a rectangle of the small picture only: P-Net
// sees its pyramid tile by tile, and no level ever exists as a whole. In planes or pixel by pixel.
#pragma once

#include "facenet/base/simd.hpp"
#include "facenet/image.hpp"

FACENET_BEGIN

namespace detail {

/// sum[i] = sum over `rows` rows, 257 at the most, of row[i]: 257 * 255 is 2^16 - 1. Loops have constant counts, which
/// GCC 12's -O2 insists on before it makes vectors, and take two rows at a time.
template <int block>
FACENET_INLINE void sum_few_rows(const std::uint8_t* row, std::ptrdiff_t stride, int rows,
                                 std::uint16_t (&sum)[std::size_t{block}]) noexcept {
  int r = 1;
  if (rows % 2 == 0) {
    const std::uint8_t* next = row + stride;
    for (int i = 0; i < block; ++i) sum[i] = static_cast<std::uint16_t>(row[i] + next[i]);
    row = next;
    ++r;
  } else {
    for (int i = 0; i < block; ++i) sum[i] = row[i];
  }
  for (; r < rows; r += 2) {
    const std::uint8_t *a = row + stride, *b = a + stride;
    for (int i = 0; i < block; ++i) sum[i] = static_cast<std::uint16_t>(sum[i] + (a[i] + b[i]));
    row = b;
  }
}

/// out[i] = sum over `rows` rows of row[i], `block` columns at a time; sums of 16 bits are added up every 256 rows.
/// Requires bytes >= block.
template <int block>
inline void sum_rows(const std::uint8_t* first, std::ptrdiff_t stride, int rows, int bytes,
                     std::uint32_t* out) noexcept {
  constexpr int most = 256;
  for (int at = 0; at < bytes; at += block) {
    if (at > bytes - block) at = bytes - block;  // the last block lies over the one before
    std::uint32_t* to = out + at;
    for (int from = 0; from < rows; from += most) {
      std::uint16_t sum[std::size_t{block}];
      sum_few_rows<block>(first + from * stride + at, stride, most < rows - from ? most : rows - from, sum);
      if (from == 0) {
        for (int i = 0; i < block; ++i) to[i] = sum[i];
      } else {
        for (int i = 0; i < block; ++i) to[i] += sum[i];
      }
    }
  }
}

/// The same in 16 bits, for up to 257 rows: half of the bytes, and nothing is widened.
template <int block>
inline void sum_rows(const std::uint8_t* first, std::ptrdiff_t stride, int rows, int bytes,
                     std::uint16_t* out) noexcept {
  for (int at = 0; at < bytes; at += block) {
    if (at > bytes - block) at = bytes - block;
    std::uint16_t sum[std::size_t{block}];
    sum_few_rows<block>(first + at, stride, rows, sum);
    std::memcpy(out + at, sum, sizeof sum);
  }
}

template <class Sum>
inline void sum_rows(const std::uint8_t* first, std::ptrdiff_t stride, int rows, int bytes, Sum* out) noexcept {
  if (bytes >= 64) return sum_rows<64>(first, stride, rows, bytes, out);
  if (bytes >= 16) return sum_rows<16>(first, stride, rows, bytes, out);
  sum_rows<1>(first, stride, rows, bytes, out);
}

struct AreaWindow {
  int first, count;
};

/// Four numbers side by side, a pixel's three and the one after them, and how they are added. Sums of 16 bits stay
/// below 2^16, so one word holds four of them and no carry leaves its place.
template <class Sum>
struct FourSums {
  Sum at[4];
  static FACENET_INLINE FourSums load(const Sum* p) noexcept {
    FourSums s;
    for (int c = 0; c < 4; ++c) s.at[c] = p[c];
    return s;
  }
  FACENET_INLINE void add(const Sum* p) noexcept {
    for (int c = 0; c < 4; ++c) at[c] += p[c];
  }
  FACENET_INLINE void store(Sum* p) const noexcept {
    for (int c = 0; c < 4; ++c) p[c] = at[c];
  }
};
template <>
struct FourSums<std::uint16_t> {
  std::uint64_t word;
  static FACENET_INLINE FourSums load(const std::uint16_t* p) noexcept {
    FourSums s;
    std::memcpy(&s.word, p, sizeof s.word);
    return s;
  }
  FACENET_INLINE void add(const std::uint16_t* p) noexcept { word += load(p).word; }
  FACENET_INLINE void store(std::uint16_t* p) const noexcept { std::memcpy(p, &word, sizeof word); }
};

/// out[pixel] = sum of the `least` pixels of its window, or of one more where it has more. A pixel is loaded and stored
/// with the number after it: both arrays have one number more. Without a branch: where windows have two pixels or
/// three, no CPU foresees which.
template <int least, class Sum>
FACENET_HIDDEN inline void sum_windows(const Sum* in, const AreaWindow* windows, int count, Sum* out) noexcept {
  static constexpr Sum nothing[4] = {};
  for (int i = 0; i < count; ++i, out += 3) {
    const Sum* p = in + 3 * windows[i].first;
    FourSums<Sum> sum = FourSums<Sum>::load(p);
    sum.add(windows[i].count > least ? p + 3 * least : nothing);
    FACENET_UNROLL
    for (int k = 1; k < least; ++k) sum.add(p + 3 * k);
    sum.store(out);
  }
}
/// The same of windows of any sizes.
template <class Sum>
inline void sum_windows(const Sum* in, const AreaWindow* windows, int count, Sum* out) noexcept {
  for (int i = 0; i < count; ++i, out += 3) {
    const Sum* p = in + 3 * windows[i].first;
    FourSums<Sum> sum = FourSums<Sum>::load(p);
    for (int k = 1; k < windows[i].count; ++k) sum.add(p += 3);
    sum.store(out);
  }
}
/// The least and the most pixels of a window decide how.
template <class Sum>
inline void sum_windows(const Sum* in, const AreaWindow* windows, int count, Sum* out, int least, int most) noexcept {
  if (simd::width == 1 || most > least + 1) return sum_windows(in, windows, count, out);
  switch (least) {
    case 1:
      return sum_windows<1>(in, windows, count, out);
    case 2:
      return sum_windows<2>(in, windows, count, out);
    case 3:
      return sum_windows<3>(in, windows, count, out);
    case 4:
      return sum_windows<4>(in, windows, count, out);
    default:
      return sum_windows(in, windows, count, out);
  }
}

/// Where the numbers go: colour c of pixel (x, y) to data[c * colour + y * row + x * pixel].
struct PixelLayout {
  float* data;
  std::ptrdiff_t row, pixel, colour;
};

/// Working memory for area_pixels(), for pictures up to `width` pixels wide and parts up to `part` pixels.
class AreaScratch {
 public:
  /// Keeps what it has when that is enough. Error: out_of_memory.
  Status reserve(int width, int part, Memory memory = {}) noexcept {
    const auto columns = static_cast<std::size_t>(width) * 3, numbers = static_cast<std::size_t>(part) * 3;
    if (sums_.size() < columns + 1) {
      FACENET_TRY(allocate_bulk(sums_, columns + 1, false, memory));
      FACENET_TRY(allocate_bulk(short_sums_, columns + 1, false, memory));
    }
    if (across_.size() >= numbers) return {};
    FACENET_TRY(allocate_bulk(row_, numbers + 1, false, memory));
    FACENET_TRY(allocate_bulk(short_row_, numbers + 1, false, memory));
    FACENET_TRY(allocate_bulk(ready_, numbers, false, memory));
    FACENET_TRY(allocate_bulk(inverse_, numbers, false, memory));
    FACENET_TRY(allocate_bulk(windows_, static_cast<std::size_t>(part), false, memory));
    return allocate_bulk(across_, numbers, false, memory);
  }

 private:
  template <class Sum>
  friend void area_rows(ImageView, int, int, Rect, AreaScratch&, PixelLayout, Buffer<Sum>&, Buffer<Sum>&) noexcept;
  friend void area_pixels(ImageView, int, int, Rect, AreaScratch&, PixelLayout) noexcept;
  Buffer<std::uint32_t> sums_, row_;
  Buffer<std::uint16_t> short_sums_, short_row_;
  Buffer<float> across_, inverse_, ready_;
  Buffer<AreaWindow> windows_;
};

/// x / d, rounded once, for whole d up to 2^14 and inverse = 1 / d rounded: Markstein's. The remainder is exact, and a
/// quotient by so small a number is never so near to the middle of two floats that the last rounding could go wrong.
/// Two divisions took as long as all else that happens to a number.
FACENET_INLINE float divide_exactly(float x, float d, float inverse) noexcept {
  if constexpr (!simd::fused) return x / d;
  const float q = x * inverse;
  return std::fma(std::fma(-q, d, x), inverse, q);
}

/// numbers[i] = (sums[i] / down / across[i] - 127.5) / 128: two divisions, as PyTorch, since two roundings are not one.
template <int count, class Sum>
FACENET_INLINE void area_numbers(const Sum* sums, float down, float inverse_down, const float* across,
                                 const float* inverse, float* numbers) noexcept {
  for (int i = 0; i < count; ++i) {
    const auto sum = static_cast<float>(static_cast<std::int32_t>(sums[i]));
    const float mean = divide_exactly(divide_exactly(sum, down, inverse_down), across[i], inverse[i]);
    numbers[i] = (mean - 127.5f) * 0.0078125f;
  }
}

/// area_pixels() with sums of one kind: of a window's columns in `column_sums`, of whole windows in `window_sums`.
template <class Sum>
inline void area_rows(ImageView src, int w, int h, Rect part, AreaScratch& s, PixelLayout out, Buffer<Sum>& column_sums,
                      Buffer<Sum>& window_sums) noexcept {
  const AreaAxis x{src.width, w}, y{src.height, h};
  const int left = x.begin(part.x0), right = x.end(part.x1 - 1), count = static_cast<int>(part.width());
  int fewest = src.width, most = 0;
  for (int k = 0; k < count; ++k) {
    const int first = x.begin(part.x0 + k), end = x.end(part.x0 + k);
    fewest = end - first < fewest ? end - first : fewest;
    most = end - first > most ? end - first : most;
    s.windows_[k] = {first - left, end - first};
    for (int c = 0; c < 3; ++c) {
      s.across_[3 * k + c] = static_cast<float>(end - first);
      s.inverse_[3 * k + c] = 1 / static_cast<float>(end - first);
    }
  }
  Sum* const sums = window_sums.data();
  const float *across = s.across_.data(), *inverse = s.inverse_.data();
  float* ready = s.ready_.data();
  const bool swap = src.order != ChannelOrder::rgb;
  constexpr int block = 16;  // pixels
  for (int i = part.y0; i < part.y1; ++i, out.data += out.row) {
    const int top = y.begin(i), rows = y.end(i) - top;
    sum_rows(src.row(top) + std::ptrdiff_t{3} * left, src.stride, rows, 3 * (right - left), column_sums.data());
    sum_windows(column_sums.data(), s.windows_.data(), count, sums, fewest, most);
    const auto down = static_cast<float>(rows);
    const float inverse_down = 1 / down;
    float *red = out.data + (swap ? 2 : 0) * out.colour, *green = out.data + out.colour;
    float* blue = out.data + (swap ? 0 : 2) * out.colour;
    if (out.pixel == 1 && count >= block) {
      for (int at = 0; at < count; at += block) {
        if (at > count - block) at = count - block;  // the last block lies over the one before
        float some[3 * block], r[block], g[block], b[block];
        area_numbers<3 * block>(sums + 3 * at, down, inverse_down, across + 3 * at, inverse + 3 * at, some);
        for (int n = 0; n < block; ++n) {
          r[n] = some[3 * n];
          g[n] = some[3 * n + 1];
          b[n] = some[3 * n + 2];
        }
        std::memcpy(red + at, r, sizeof r);
        std::memcpy(green + at, g, sizeof g);
        std::memcpy(blue + at, b, sizeof b);
      }
      continue;
    }
    int k = 0;
    for (; k + block <= 3 * count; k += block) {
      float some[block];  // apart from `ready`, which might overlap `across` for all that the compiler knows
      area_numbers<block>(sums + k, down, inverse_down, across + k, inverse + k, some);
      std::memcpy(ready + k, some, sizeof some);
    }
    for (; k < 3 * count; ++k) area_numbers<1>(sums + k, down, inverse_down, across + k, inverse + k, ready + k);
    if (out.pixel == 3 && out.colour == 1 && !swap) {
      std::memcpy(out.data, ready, static_cast<std::size_t>(3 * count) * sizeof(float));
      continue;
    }
    for (const float *p = ready, *stop = ready + 3 * count; p != stop; p += 3) {
      *red = p[0];
      *green = p[1];
      *blue = p[2];
      red += out.pixel;
      green += out.pixel;
      blue += out.pixel;
    }
  }
}

/// `part` of `src` resized to w x h, as RGB numbers (x - 127.5) / 128. Requires a part inside w x h, windows below
/// 2^31 / 255 pixels (at 12 pixels or more a side any picture has those), and room.
inline void area_pixels(ImageView src, int w, int h, Rect part, AreaScratch& s, PixelLayout out) noexcept {
  // A window has at most two parts of pixels more than the quotient of the sides. 257 * 255 is 2^16 - 1. Scalar code
  // gains nothing from narrow sums.
  if (simd::width > 1 && std::int64_t{src.width / w + 2} * (src.height / h + 2) <= 257)
    area_rows(src, w, h, part, s, out, s.short_sums_, s.short_row_);
  else
    area_rows(src, w, h, part, s, out, s.sums_, s.row_);
}

}  // namespace detail

FACENET_END
