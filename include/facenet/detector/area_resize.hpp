// Area resizing of a part of a picture straight into a network's input: what MTCNN does to every pixel. Layer 5.
//
// The same numbers as image.hpp's resize_area, then (x - 127.5) / 128, for a rectangle of the small picture only: P-Net
// sees its pyramid tile by tile, and no level ever exists as a whole. In planes or pixel by pixel.
#pragma once

#include "facenet/image.hpp"

FACENET_BEGIN

namespace detail {

/// Rows floor(i * in / out) … ceil((i + 1) * in / out) - 1 of `in` become row i of `out`.
struct AreaAxis {
  std::int64_t in, out;
  constexpr int begin(int i) const noexcept { return static_cast<int>(i * in / out); }
  constexpr int end(int i) const noexcept { return static_cast<int>(((i + std::int64_t{1}) * in + out - 1) / out); }
};

/// out[i] = sum over `rows` rows of row[i], `block` columns at a time. The sums of bytes are 16 bits wide and added up
/// every 256 rows; the inner loops have constant counts, which GCC 12's -O2 insists on before it makes vectors.
/// Requires bytes >= block.
template <int block>
inline void sum_rows(const std::uint8_t* first, std::ptrdiff_t stride, int rows, int bytes,
                     std::uint32_t* out) noexcept {
  constexpr int most = 256;
  for (int at = 0; at < bytes; at += block) {
    if (at > bytes - block) at = bytes - block;  // the last block lies over the one before
    std::uint32_t* to = out + at;
    for (int from = 0; from < rows; from += most) {
      const int end = from + most < rows ? from + most : rows;
      const std::uint8_t* row = first + from * stride + at;
      std::uint16_t sum[std::size_t{block}];
      int r = from + 1;
      if ((end - from) % 2 == 0) {
        const std::uint8_t* next = row + stride;
        for (int i = 0; i < block; ++i) sum[i] = static_cast<std::uint16_t>(row[i] + next[i]);
        row = next;
        ++r;
      } else {
        for (int i = 0; i < block; ++i) sum[i] = row[i];
      }
      for (; r < end; r += 2) {
        const std::uint8_t *a = row + stride, *b = a + stride;
        for (int i = 0; i < block; ++i) sum[i] = static_cast<std::uint16_t>(sum[i] + (a[i] + b[i]));
        row = b;
      }
      if (from == 0) {
        for (int i = 0; i < block; ++i) to[i] = sum[i];
      } else {
        for (int i = 0; i < block; ++i) to[i] += sum[i];
      }
    }
  }
}

inline void sum_rows(const std::uint8_t* first, std::ptrdiff_t stride, int rows, int bytes,
                     std::uint32_t* out) noexcept {
  if (bytes >= 64) return sum_rows<64>(first, stride, rows, bytes, out);
  if (bytes >= 16) return sum_rows<16>(first, stride, rows, bytes, out);
  sum_rows<1>(first, stride, rows, bytes, out);
}

struct AreaWindow {
  int first, count;
};

/// out[pixel] = sum of the pixels of its window. A pixel is loaded and stored with the number behind it, one vector of
/// four: both arrays have one number more.
inline void sum_windows(const std::uint32_t* in, const AreaWindow* windows, int count, std::uint32_t* out) noexcept {
  for (int i = 0; i < count; ++i, out += 3) {
    const std::uint32_t* p = in + 3 * windows[i].first;
    std::uint32_t sum[4];
    for (int c = 0; c < 4; ++c) sum[c] = p[c];
    for (int k = 1; k < windows[i].count; ++k) {
      p += 3;
      for (int c = 0; c < 4; ++c) sum[c] += p[c];
    }
    for (int c = 0; c < 4; ++c) out[c] = sum[c];
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
  Status reserve(int width, int part) noexcept {
    const auto columns = static_cast<std::size_t>(width) * 3, numbers = static_cast<std::size_t>(part) * 3;
    if (sums_.size() < columns + 1) {
      auto sums = Buffer<std::uint32_t>::make(columns + 1, false);
      if (!sums) return sums.status();
      sums_ = std::move(*sums);
    }
    if (across_.size() < numbers) {
      auto row = Buffer<std::uint32_t>::make(numbers + 1, false);
      auto across = Buffer<float>::make(numbers, false);
      auto ready = Buffer<float>::make(numbers, false);
      auto windows = Buffer<AreaWindow>::make(static_cast<std::size_t>(part), false);
      if (!row) return row.status();
      if (!across) return across.status();
      if (!ready) return ready.status();
      if (!windows) return windows.status();
      row_ = std::move(*row);
      across_ = std::move(*across);
      ready_ = std::move(*ready);
      windows_ = std::move(*windows);
    }
    return {};
  }

 private:
  friend void area_pixels(ImageView, int, int, Rect, AreaScratch&, PixelLayout) noexcept;
  Buffer<std::uint32_t> sums_, row_;
  Buffer<float> across_, ready_;
  Buffer<AreaWindow> windows_;
};

/// `part` of `src` resized to w x h, as RGB numbers (x - 127.5) / 128. Requires a part inside w x h, windows below
/// 2^31 / 255 pixels (at 12 pixels or more a side any picture has those), and room.
inline void area_pixels(ImageView src, int w, int h, Rect part, AreaScratch& s, PixelLayout out) noexcept {
  const AreaAxis x{src.width, w}, y{src.height, h};
  const int left = x.begin(part.x0), right = x.end(part.x1 - 1), count = static_cast<int>(part.width());
  for (int k = 0; k < count; ++k) {
    const int first = x.begin(part.x0 + k), end = x.end(part.x0 + k);
    s.windows_[static_cast<std::size_t>(k)] = {first - left, end - first};
    for (int c = 0; c < 3; ++c) s.across_[static_cast<std::size_t>(3 * k + c)] = static_cast<float>(end - first);
  }
  const std::uint32_t* sums = s.row_.data();
  const float* across = s.across_.data();
  float* ready = s.ready_.data();
  const bool swap = src.order != ChannelOrder::rgb;
  for (int i = part.y0; i < part.y1; ++i, out.data += out.row) {
    const int top = y.begin(i), rows = y.end(i) - top;
    sum_rows(src.row(top) + std::ptrdiff_t{3} * left, src.stride, rows, 3 * (right - left), s.sums_.data());
    sum_windows(s.sums_.data(), s.windows_.data(), count, s.row_.data());
    // Two divisions, as PyTorch: two roundings are not one.
    const auto down = static_cast<float>(rows);
    const auto number = [&](int k) {
      return (static_cast<float>(static_cast<std::int32_t>(sums[k])) / down / across[k] - 127.5f) * 0.0078125f;
    };
    constexpr int block = 16;
    int k = 0;
    for (; k + block <= 3 * count; k += block) {
      float some[block];  // apart from `ready`, which might overlap `across` for all that the compiler knows
      for (int n = 0; n < block; ++n) some[n] = number(k + n);
      std::memcpy(ready + k, some, sizeof some);
    }
    for (; k < 3 * count; ++k) ready[k] = number(k);
    float *red = out.data + (swap ? 2 : 0) * out.colour, *green = out.data + out.colour;
    float* blue = out.data + (swap ? 0 : 2) * out.colour;
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

}  // namespace detail

FACENET_END
