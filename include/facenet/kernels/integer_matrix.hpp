// Convolution in integers by a matrix unit: two tiles of pixels times a panel of channels, 64 deep. The sums are those
// of integer_conv.hpp to the bit, and so are weights, scales and epilogues.
#pragma once

#include "facenet/kernels/integer_conv.hpp"

#if defined(FACENET_AMX)

FACENET_FAST_BEGIN

namespace kernels {

constexpr int matrix_tile_rows = 16, matrix_rows = 2 * matrix_tile_rows, matrix_depth = 64;

/// Bytes from a gathered window to the next: whole steps of depth, and a line more, since rows 4 KB apart would share
/// their place in L1.
constexpr std::int64_t gathered_stride(std::int64_t depth) noexcept {
  return (depth + matrix_depth - 1) / matrix_depth * matrix_depth + matrix_depth;
}
/// Bytes that windows of `depth` bytes take, each run padded to a multiple of 4.
constexpr std::int64_t gathered_bytes(std::int64_t depth) noexcept { return matrix_rows * gathered_stride(depth); }
/// Bytes after the last panel that a step of depth may read, and multiplies by 0.
constexpr int matrix_overread = matrix_depth * 32;

static_assert(simd::integer::panel == matrix_rows && simd::integer::group == 4 && simd::integer::zero_point == 0,
              "a panel is two tiles wide, and its rows are groups of 4");

namespace detail {

/// How a convolution reads its windows: where they are, or gathered. Where they are, if the windows of an image lie
/// evenly: `width` pixels to a row, of which the last have no output (at most a fifth). Gathering takes a fifth of the
/// time.
struct MatrixWay {
  bool direct = false;
  int depth = matrix_depth;  // of a step
  int width = 0;

  explicit MatrixWay(const IntegerConvArgs& g) noexcept {
    const std::int64_t pixel = g.in.pixel_stride, row = g.in.row_stride;
    if (g.stride != 1 || row % pixel != 0 || g.runs.length % 4 != 0) return;
    int steps = (g.runs.length + matrix_depth - 1) / matrix_depth;  // of a run
    while (g.runs.length % (4 * steps) != 0) ++steps;
    const int each = g.runs.length / steps, columns = static_cast<int>(row / pixel);
    if (each < matrix_depth / 2 || 4 * columns > 5 * g.out.w || g.out.h * columns < 2 * matrix_rows) return;
    direct = true;
    depth = each;
    width = columns;
  }
};

/// Pixels that are multiplied at once: rows of A.
struct MatrixGroup {
  const unsigned char* a = nullptr;
  std::ptrdiff_t stride = 0;
  Runs runs{};
  int first = 0, rows = 0;  // those that count
  int pixels = 0;
  int row_of[matrix_rows];     // of each pixel
  std::int32_t no_offset = 0;  // of gathered windows
};

/// The next pixels from m on, all of one image. Near its end the rows begin before m, so that none lies behind it.
inline void place_group(const IntegerConvArgs& g, const MatrixWay& way, int m, int end, MatrixGroup& group) noexcept {
  const int each = static_cast<int>(g.out.pixels()), image = m / each, y = m % each / g.out.w, x = m % each % g.out.w;
  if (end > (image + 1) * each) end = (image + 1) * each;
  const int all = (g.out.h - 1) * way.width + g.out.w, at = y * way.width + x;
  const int start = at + matrix_rows <= all ? at : all - matrix_rows;
  group.a = g.in.pixel(image, 0, 0) + start * g.in.pixel_stride;
  group.stride = g.in.pixel_stride;
  group.runs = g.runs;
  group.first = at - start;
  group.pixels = 0;
  for (int row = group.first, column = x; row < matrix_rows && m + group.pixels < end; ++row) {
    if (column < g.out.w) {
      group.row_of[group.pixels++] = row;
      group.rows = row + 1;
    }
    if (++column == way.width) column = 0;
  }
}

/// Windows one after the other: what does not fill a step of depth is 0.
inline void gather_group(const IntegerConvArgs& g, int m, int end, MatrixGroup& group) noexcept {
  const int length = (g.runs.length + 3) / 4 * 4, depth = g.runs.count * length;
  const Activation* a[matrix_rows];
  group.pixels = group.rows = end - m < matrix_rows ? end - m : matrix_rows;
  window_starts(g, m, group.pixels, a);
  group.a = g.gathered;
  group.stride = gathered_stride(depth);
  group.runs = {&group.no_offset, 1, depth};
  for (int i = 0; i < group.pixels; ++i) {
    group.row_of[i] = i;
    unsigned char* out = g.gathered + i * group.stride;
    for (int r = 0; r < g.runs.count; ++r, out += length)
      simd::integer::amx::copy(out, a[i] + g.runs.offset[r], length);
    simd::integer::amx::clear_line(out);
  }
}

/// sums[16 or 32][panel] = A * B, `depth` products a step.
template <bool two>
FACENET_NOINLINE void matrix_tile(const MatrixGroup& group, int depth, const std::int8_t* b,
                                  std::int32_t* sums) noexcept {
  using namespace simd::integer;
  constexpr std::ptrdiff_t row = panel * simd::integer::group, column = row / 2, below = matrix_tile_rows;
  amx::zero<0>();
  amx::zero<1>();
  if constexpr (two) amx::zero<2>(), amx::zero<3>();
  for (int r = 0; r < group.runs.count; ++r) {
    const unsigned char* a = group.a + group.runs.offset[r];
    for (int k = 0; k < group.runs.length; k += depth, a += depth, b += depth * panel) {
      amx::load<4>(a, group.stride);
      amx::load<6>(b, row);
      amx::load<7>(b + column, row);
      amx::dot<0, 4, 6>();
      amx::dot<1, 4, 7>();
      if constexpr (two) {
        amx::load<5>(a + below * group.stride, group.stride);
        amx::dot<2, 5, 6>();
        amx::dot<3, 5, 7>();
      }
    }
  }
  amx::store<0>(sums, row);
  amx::store<1>(sums + panel / 2, row);
  if constexpr (two) {
    amx::store<2>(sums + below * panel, row);
    amx::store<3>(sums + below * panel + panel / 2, row);
  }
}

/// All panels [p0, p1) of a group whose first pixel is m.
inline void run_group(const IntegerConvArgs& g, const MatrixGroup& group, int depth, int m, int p0, int p1) noexcept {
  constexpr int width = simd::integer::panel;
  const std::int64_t bytes = std::int64_t{g.runs.count} * ((g.runs.length + 3) / 4 * 4) * width;
  std::int64_t f[matrix_rows], q[matrix_rows];
  for_panels(g, m, group.pixels, p0, p1, f, q, [&](int p, const IntegerSegment& s) {
    const int channel = (p - s.first_panel) * width, left = s.channels - channel;
    float* floats[matrix_rows];
    Activation* activations[matrix_rows];
    float no_floats[width] = {};  // what becomes of a row without a pixel
    Activation no_activations[width];
    if (group.rows - group.first > group.pixels)
      for (int i = group.first; i < group.rows; ++i) floats[i] = no_floats, activations[i] = no_activations;
    for (int i = 0; i < group.pixels; ++i) {
      if (s.epilogue.floats) floats[group.row_of[i]] = s.floats.data + f[i] + channel;
      if (s.epilogue.activations) activations[group.row_of[i]] = s.activations.data + q[i] + channel;
    }
    alignas(cache_line) std::int32_t sums[matrix_rows * width];
    (group.rows > matrix_tile_rows ? matrix_tile<true> : matrix_tile<false>)(group, depth, g.weights + p * bytes, sums);
    const IntegerScales scales{g.scales + std::int64_t{p} * IntegerScales::rows * width};
    finish_tile(sums + group.first * width, group.rows - group.first, s.epilogue, scales,
                {floats + group.first, activations + group.first}, left < width ? left : width);
  });
}

}  // namespace detail

/// integer_conv_chunk() by the matrix unit, where g.gathered is set: all panels of a few pixels, then the next pixels.
/// The weights come from L2 from the second time on.
inline void integer_matrix_chunk(const IntegerConvArgs& g, int m0, int m1, int p0, int p1) noexcept {
  const detail::MatrixWay way(g);
  const simd::integer::amx::Registers registers(way.depth);
  detail::MatrixGroup group;
  for (int m = m0; m < m1; m += group.pixels) {
    if (way.direct)
      detail::place_group(g, way, m, m1, group);
    else
      detail::gather_group(g, m, m1, group);
    detail::run_group(g, group, way.depth, m, p0, p1);
  }
}

}  // namespace kernels

FACENET_FAST_END

#endif
