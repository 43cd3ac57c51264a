// Area resizing of a part of a picture straight into a network's input: what MTCNN does to every pixel. Layer 5.
//
// The same numbers as image.hpp's resize_area, then (x - 127.5) / 128, for a rectangle of the small picture only: P-Net
// sees its pyramid tile by tile, and no level ever exists as a whole.
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

/// out[i] = sum over `rows` rows of row[i]. The byte sums are 16 bits wide and added up every 256 rows; the inner
/// loops have constant counts, which GCC 12's -O2 insists on before it makes vectors.
inline void sum_rows(const std::uint8_t* first, std::ptrdiff_t stride, int rows, int bytes,
                     std::uint32_t* out) noexcept {
  constexpr int block = 64, most = 256;
  if (bytes < block) {
    for (int i = 0; i < bytes; ++i) {
      std::uint32_t sum = 0;
      for (int r = 0; r < rows; ++r) sum += first[r * stride + i];
      out[i] = sum;
    }
    return;
  }
  for (int at = 0; at < bytes; at += block) {
    if (at > bytes - block) at = bytes - block;  // the last block lies over the one before
    std::uint32_t* to = out + at;
    for (int from = 0; from < rows; from += most) {
      const int end = from + most < rows ? from + most : rows;
      const std::uint8_t* row = first + from * stride + at;
      std::uint16_t sum[block];
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

struct AreaWindow {
  int first, count;
};

/// out[pixel] = sum of the pixels of its window. A pixel is loaded and stored with the number behind it, one vector of
/// four: both arrays have room for one number more.
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

/// Working memory for area_pixels(), for pictures up to `width` pixels wide and parts up to `part` pixels.
class AreaScratch {
 public:
  /// Keeps what it has when that is enough. Error: out_of_memory.
  Status reserve(int width, int part) noexcept {
    const auto columns = static_cast<std::size_t>(width) * 3, numbers = static_cast<std::size_t>(part) * 3;
    if (sums_.size() < columns + 1) {  // pixels are handled as four numbers
      auto sums = Buffer<std::uint32_t>::make(columns + 1, false);
      if (!sums) return sums.status();
      sums_ = std::move(*sums);
    }
    if (row_.size() < numbers + 1) {
      auto row = Buffer<std::uint32_t>::make(numbers + 1, false);
      auto across = Buffer<float>::make(numbers, false);
      auto windows = Buffer<AreaWindow>::make(static_cast<std::size_t>(part), false);
      if (!row) return row.status();
      if (!across) return across.status();
      if (!windows) return windows.status();
      row_ = std::move(*row);
      across_ = std::move(*across);
      windows_ = std::move(*windows);
    }
    return {};
  }

 private:
  friend void area_pixels(ImageView, int, int, Rect, AreaScratch&, float*, std::ptrdiff_t) noexcept;
  Buffer<std::uint32_t> sums_, row_;
  Buffer<float> across_;
  Buffer<AreaWindow> windows_;
};

/// `part` of `src` resized to w x h, as RGB numbers (x - 127.5) / 128; rows `stride` floats apart. Requires a part
/// inside w x h, windows below 2^31 / 255 pixels (at 12 pixels or more a side any picture has those), and room.
inline void area_pixels(ImageView src, int w, int h, Rect part, AreaScratch& s, float* out,
                        std::ptrdiff_t stride) noexcept {
  const AreaAxis x{src.width, w}, y{src.height, h};
  const int left = x.begin(part.x0), right = x.end(part.x1 - 1), numbers = 3 * static_cast<int>(part.width());
  for (int i = part.x0; i < part.x1; ++i) {
    const int first = x.begin(i), count = x.end(i) - first, k = i - part.x0;
    s.windows_[static_cast<std::size_t>(k)] = {first - left, count};
    for (int c = 0; c < 3; ++c) s.across_[static_cast<std::size_t>(3 * k + c)] = static_cast<float>(count);
  }
  const std::uint32_t* row = s.row_.data();
  const float* across = s.across_.data();
  for (int i = part.y0; i < part.y1; ++i, out += stride) {
    const int top = y.begin(i), rows = y.end(i) - top;
    sum_rows(src.row(top) + std::ptrdiff_t{3} * left, src.stride, rows, 3 * (right - left), s.sums_.data());
    sum_windows(s.sums_.data(), s.windows_.data(), static_cast<int>(part.width()), s.row_.data());
    if (src.order != ChannelOrder::rgb)
      for (int k = 0; k < numbers; k += 3) std::swap(s.row_[static_cast<std::size_t>(k)], s.row_[static_cast<std::size_t>(k + 2)]);
    // Two divisions, as PyTorch: two roundings are not one.
    const auto down = static_cast<float>(rows);
    const auto number = [&](int k) {
      return (static_cast<float>(static_cast<std::int32_t>(row[k])) / down / across[k] - 127.5f) * 0.0078125f;
    };
    constexpr int block = 16;
    int k = 0;
    for (; k + block <= numbers; k += block) {
      float ready[block];  // written at once: `out` might overlap `across`, for all that the compiler knows
      for (int n = 0; n < block; ++n) ready[n] = number(k + n);
      std::memcpy(out + k, ready, sizeof ready);
    }
    for (; k < numbers; ++k) out[k] = number(k);
  }
}

}  // namespace detail

FACENET_END
