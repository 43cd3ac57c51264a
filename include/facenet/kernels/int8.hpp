// int8 weights that stay as the file has them and become floats one panel at a time, right before they are used.
// A weight is q * scale of its output channel, rounded once, as the reader expands them: results are the same to the
// bit. An embedding's 23 million take 5 ms (AVX-512), and 23 MB where floats take 94.
#pragma once

#include "facenet/base/hash.hpp"
#include "facenet/kernels/conv.hpp"

FACENET_BEGIN

namespace kernels {

/// Whether int8 weights may stay what they are in the file.
#if defined(FACENET_NO_INT8_WEIGHTS)
constexpr bool may_keep_int8 = false;
#else
constexpr bool may_keep_int8 = true;
#endif

struct Int8Weights {
  const std::int8_t* at = nullptr;  // [n][cin][taps]
  const float* scale = nullptr;     // [n]
  int n = 0, cin = 0, taps = 0;
};

namespace detail {

/// Transposes 8x8 bytes: byte j of x[i] and byte i of x[j] change places. Warren, "Hacker's Delight", 7-3.
inline void transpose_bytes(std::uint64_t (&x)[8]) noexcept {
  const auto exchange = [&x](int step, std::uint64_t low) {
    for (int i = 0; i < 8; ++i) {
      if ((i & step) != 0) continue;
      const std::uint64_t t = ((x[i] >> 8 * step) ^ x[i + step]) & low;
      x[i] ^= t << 8 * step;
      x[i + step] ^= t;
    }
  };
  exchange(4, 0x00000000ffffffffu);
  exchange(2, 0x0000ffff0000ffffu);
  exchange(1, 0x00ff00ff00ff00ffu);
}

/// to[r][j] = from[j * stride + r] for r < depth <= 8 and j < columns; to[r][j] = 0 up to the next multiple of 8.
template <std::size_t N>
inline void transpose_rows(const std::int8_t* from, std::int64_t stride, int depth, int columns,
                           std::int8_t (&to)[8][N]) noexcept {
  for (int j = 0; j < columns; j += 8, from += 8 * stride) {
    std::uint64_t block[8] = {};
    for (int i = 0; i < 8 && j + i < columns; ++i) {
      const std::int8_t* row = from + i * stride;
      if (depth == 8)
        std::memcpy(&block[i], row, 8);
      else
        std::memcpy(&block[i], row, static_cast<std::size_t>(depth));
    }
    if constexpr (facenet::detail::big_endian)
      for (std::uint64_t& b : block) b = facenet::detail::load_le<std::uint64_t>(reinterpret_cast<std::uint8_t*>(&b));
    transpose_bytes(block);
    if constexpr (facenet::detail::big_endian)
      for (std::uint64_t& b : block) b = facenet::detail::load_le<std::uint64_t>(reinterpret_cast<std::uint8_t*>(&b));
    for (int r = 0; r < 8; ++r) std::memcpy(&to[r][j], &block[r], 8);
  }
}

}  // namespace detail

/// Output channels first … first + width - 1 as one packed panel [tap][cin][width] of floats, times `factor` (a
/// residual's scale); channels past the last are zeros. What pack_panels makes of the same weights as floats.
inline void expand_panel(const Int8Weights& w, int first, int width, float factor, float* out) noexcept {
  const int depth = w.cin * w.taps, left = w.n - first, columns = left < width ? left : width;
  constexpr std::size_t lanes = round_up(std::size_t{simd::panel}, 8);
  std::int8_t bytes[8][lanes] = {};
  float scale[simd::panel] = {};
  std::memcpy(scale, w.scale + first, static_cast<std::size_t>(columns) * sizeof(float));
  const simd::vf factors = simd::set1(factor);
  int c = 0, tap = 0;
  for (int k = 0; k < depth; k += 8) {
    const int rows = depth - k < 8 ? depth - k : 8;
    detail::transpose_rows(w.at + std::int64_t{first} * depth + k, depth, rows, columns, bytes);
    for (int r = 0; r < rows; ++r) {
      float* to = out + (std::int64_t{tap} * w.cin + c) * width;
      for (int j = 0; j < width; j += simd::width)
        simd::store(to + j, simd::mul(simd::mul(simd::load(bytes[r] + j), simd::load(scale + j)), factors));
      if (++tap < w.taps) continue;
      tap = 0;
      ++c;
    }
  }
}

/// Computes output pixels [m0, m1) of panels [p0, p1) of a convolution whose segment s has the weights int8[s] and the
/// residual's scale factor[s]. Each panel is expanded once, for all pixels; expanded: its floats.
inline void conv_expanded(ConvArgs g, const Int8Weights* int8, const float* factor, int m0, int m1, int p0, int p1,
                          float* expanded) noexcept {
  g.weights = expanded;
  for (int p = p0, s = 0; p < p1; ++p) {
    while (s + 1 < g.segment_count && g.segments[s + 1].first_panel <= p) ++s;
    expand_panel(int8[s], (p - g.segments[s].first_panel) * g.panel, g.panel, factor[s], expanded);
    g.first_panel = p;
    for (int m = m0; m < m1; m += conv_block) conv_chunk(g, m, m1 - m < conv_block ? m1 : m + conv_block, p, p + 1);
  }
}

}  // namespace kernels

FACENET_END
