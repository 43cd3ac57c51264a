// Winograd F(4x4, 3x3): 36 products where a direct 3x3 convolution takes 144. Stride 1 only. Layer 2.
// Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015:  Y = At [ (G g Gt) . (Bt d B) ] A.
//
// The interpolation points are 0, ±1/sqrt(2), ±sqrt(2) and infinity. Their relative error is about half of that of
// the usual 0, ±1, ±2 (HACKING.md has the measurement), and the transforms cost the same.
#pragma once

#include "facenet/kernels/conv.hpp"

FACENET_BEGIN

namespace kernels {

constexpr int winograd_in = 6, winograd_out = 4, winograd_points = 36;

namespace detail {

constexpr double wino_a = 0.70710678118654752440, wino_b = 1.41421356237309504880;  // a*a = 1/2, b*b = 2, a*b = 1

/// The six rows of G: row p is [1, p, p*p] / prod(p - other finite points), the last [0, 0, 1].
struct WinogradG {
  double row[6][3];
};
constexpr WinogradG winograd_g() noexcept {
  constexpr double points[5] = {0, wino_a, -wino_a, wino_b, -wino_b};
  WinogradG g{};
  for (int j = 0; j < 5; ++j) {
    double n = 1;
    for (int k = 0; k < 5; ++k)
      if (k != j) n *= points[j] - points[k];
    g.row[j][0] = 1 / n;
    g.row[j][1] = points[j] / n;
    g.row[j][2] = points[j] * points[j] / n;
  }
  g.row[5][2] = 1;
  return g;
}

/// t = Bt d for one column or row of six.
FACENET_INLINE void winograd_bt(const vf d[6], vf t[6]) noexcept {
  const vf a = simd::set1(static_cast<float>(wino_a)), b = simd::set1(static_cast<float>(wino_b));
  const vf sum = simd::set1(-2.5f), a2 = simd::set1(-0.5f), b2 = simd::set1(-2.0f);
  const vf even_a = simd::fma(d[2], b2, d[4]), odd_a = simd::fma(d[1], b2, d[3]);
  const vf even_b = simd::fma(d[2], a2, d[4]), odd_b = simd::fma(d[1], a2, d[3]);
  t[0] = simd::fma(d[2], sum, simd::add(d[4], d[0]));
  t[1] = simd::fma(odd_a, a, even_a);
  t[2] = simd::fnma(odd_a, a, even_a);
  t[3] = simd::fma(odd_b, b, even_b);
  t[4] = simd::fnma(odd_b, b, even_b);
  t[5] = simd::fma(d[3], sum, simd::add(d[5], d[1]));
}

/// y = At m for one column or row.
FACENET_INLINE void winograd_at(const vf m[6], vf y[4]) noexcept {
  const vf sa = simd::add(m[1], m[2]), da = simd::sub(m[1], m[2]);
  const vf sb = simd::add(m[3], m[4]), db = simd::sub(m[3], m[4]);
  const auto c = [](double x) { return simd::set1(static_cast<float>(x)); };
  y[0] = simd::add(m[0], simd::add(sa, sb));
  y[1] = simd::fma(db, c(wino_b), simd::mul(da, c(wino_a)));
  y[2] = simd::fma(sb, c(2.0), simd::mul(sa, c(0.5)));
  y[3] = simd::fma(db, c(2 * wino_b), simd::fma(da, c(wino_a / 2), m[5]));
}

}  // namespace detail

struct WinogradArgs {
  ConstTensorView in;
  int pad_h = 0, pad_w = 0;
  TensorView out;
  const void* weights = nullptr;  // [panel][36][cin][simd::panel] of float or Half
  bool half = false;
  const float* bias = nullptr;

  int tiles_x() const noexcept { return (out.shape.w + winograd_out - 1) / winograd_out; }
  int tiles_y() const noexcept { return (out.shape.h + winograd_out - 1) / winograd_out; }
  int tiles() const noexcept { return in.n * tiles_x() * tiles_y(); }
};

/// Transforms OIHW 3x3 weights in double: U = G g Gt, packed [panel][36][cin][simd::panel].
template <class T>
inline void pack_winograd(const float* oihw, int n, int cin, float scale, T* out) noexcept {
  constexpr detail::WinogradG g = detail::winograd_g();
  for (int p = 0; p < panels(n); ++p)
    for (int c = 0; c < cin; ++c)
      for (int j = 0; j < simd::panel; ++j) {
        const int o = p * simd::panel + j;
        double half[6][3] = {};
        if (o < n) {
          const float* w = oihw + (std::int64_t{o} * cin + c) * 9;
          for (int y = 0; y < 6; ++y)
            for (int x = 0; x < 3; ++x)
              for (int k = 0; k < 3; ++k) half[y][x] += g.row[y][k] * static_cast<double>(w[3 * k + x] * scale);
        }
        for (int y = 0; y < 6; ++y)
          for (int x = 0; x < 6; ++x) {
            double u = 0;
            for (int k = 0; k < 3; ++k) u += half[y][k] * g.row[x][k];
            T& to = out[((std::int64_t{p} * 36 + y * 6 + x) * cin + c) * simd::panel + j];
            if constexpr (std::is_same_v<T, Half>) to = simd::float_to_half(static_cast<float>(u));
            else to = static_cast<float>(u);
          }
      }
}

/// Tiles in one chunk at the most: the transformed input V[36][tiles][cin] then takes about 300 KB, but never less
/// than a full register tile of them.
constexpr int winograd_block(int cin) noexcept {
  const int fit = 300 * 1024 / (winograd_points * cin * 4) / simd::tile_rows * simd::tile_rows;
  return fit < 2 * simd::tile_rows + 2 ? 2 * simd::tile_rows + 2 : fit > 96 ? 96 : fit;
}
/// Floats of scratch memory that a chunk needs: a zero pixel, V, and the products of one panel.
constexpr std::int64_t winograd_scratch(int cin) noexcept {
  return static_cast<std::int64_t>(round_up(static_cast<std::size_t>(cin), 16)) +
         std::int64_t{winograd_points} * winograd_block(cin) * (cin + simd::panel);
}

namespace detail {

/// V = Bt d B of one tile: V[point][channel], `stride` floats from a point to the next.
inline void winograd_input(const float* const pixel[36], int cin, float* v, std::int64_t stride) noexcept {
  for (int c = 0; c < cin; c += simd::width) {
    vf t[6][6];
    FACENET_UNROLL
    for (int x = 0; x < 6; ++x) {
      vf d[6], r[6];
      FACENET_UNROLL
      for (int y = 0; y < 6; ++y) d[y] = simd::load(pixel[6 * y + x] + c);
      winograd_bt(d, r);
      FACENET_UNROLL
      for (int y = 0; y < 6; ++y) t[y][x] = r[y];
    }
    FACENET_UNROLL
    for (int y = 0; y < 6; ++y) {
      vf r[6];
      winograd_bt(t[y], r);
      FACENET_UNROLL
      for (int x = 0; x < 6; ++x) simd::store(v + (6 * y + x) * stride + c, r[x]);
    }
  }
}

/// Y = At M A of one tile and one vector of channels, plus bias, ReLU, to the rows x columns that exist.
inline void winograd_output(const float* m, std::int64_t stride, const float* bias, float* out, std::int64_t row_stride,
                            std::int64_t pixel_stride, int rows, int columns) noexcept {
  vf t[4][6];
  FACENET_UNROLL
  for (int x = 0; x < 6; ++x) {
    vf d[6], r[4];
    FACENET_UNROLL
    for (int y = 0; y < 6; ++y) d[y] = simd::load(m + (6 * y + x) * stride);
    winograd_at(d, r);
    FACENET_UNROLL
    for (int y = 0; y < 4; ++y) t[y][x] = r[y];
  }
  for (int y = 0; y < rows; ++y) {
    vf r[4];
    winograd_at(t[y], r);
    float* to = out + y * row_stride;
    for (int x = 0; x < columns; ++x, to += pixel_stride) simd::store(to, BiasRelu::apply(r[x], bias, to));
  }
}

template <class W>
inline void winograd_chunk(const WinogradArgs& g, int t0, int t1, int p0, int p1, float* scratch) noexcept {
  const int cin = g.in.shape.c, tiles = t1 - t0, across = g.tiles_x();
  float* zeros = scratch;
  float* v = scratch + round_up(static_cast<std::size_t>(cin), 16);
  float* m = v + std::int64_t{winograd_points} * tiles * cin;
  std::memset(zeros, 0, static_cast<std::size_t>(cin) * sizeof(float));

  PixelWalk at(t0, {g.tiles_y(), across, 1});
  for (int t = 0; t < tiles; ++t, at.next()) {
    const float* pixel[winograd_points];
    for (int y = 0; y < 6; ++y)
      for (int x = 0; x < 6; ++x) {
        const int yy = 4 * at.y + y - g.pad_h, xx = 4 * at.x + x - g.pad_w;
        const bool inside = yy >= 0 && xx >= 0 && yy < g.in.shape.h && xx < g.in.shape.w;
        pixel[6 * y + x] = inside ? g.in.pixel(at.image, yy, xx) : zeros;
      }
    winograd_input(pixel, cin, v + std::int64_t{t} * cin, std::int64_t{tiles} * cin);
  }

  const std::int32_t no_offset = 0;
  const Runs runs{&no_offset, 1, cin};
  for (int p = p0; p < p1; ++p) {
    const W* u = static_cast<const W*>(g.weights) + std::int64_t{p} * winograd_points * cin * simd::panel;
    for (int i = 0; i < winograd_points; ++i, u += std::int64_t{cin} * simd::panel) {
      Ahead ahead = ahead_of(u, std::int64_t{cin} * simd::panel, tiles, simd::panel);
      balanced_tiles(tiles, [&](int first, int rows) {
        const float* a[simd::tile_rows];
        float* c[simd::tile_rows];
        for (int r = 0; r < rows; ++r) {
          a[r] = v + (std::int64_t{i} * tiles + first + r) * cin;
          c[r] = m + (std::int64_t{i} * tiles + first + r) * simd::panel;
        }
        tile_for<Plain, W>(rows, simd::panel)(a, runs, u, nullptr, c, simd::panel, ahead);
        ahead.from += ahead.step * cin;
      });
    }
    const int channel = p * simd::panel, left = g.out.shape.c - channel;
    PixelWalk to(t0, {g.tiles_y(), across, 1});
    for (int t = 0; t < tiles; ++t, to.next()) {
      const int rows = g.out.shape.h - 4 * to.y, columns = g.out.shape.w - 4 * to.x;
      for (int j = 0; j < simd::panel && j < left; j += simd::width)
        winograd_output(m + std::int64_t{t} * simd::panel + j, std::int64_t{tiles} * simd::panel,
                           g.bias + channel + j, g.out.pixel(to.image, 4 * to.y, 4 * to.x) + channel + j,
                           g.out.row_stride, g.out.pixel_stride, rows < 4 ? rows : 4, columns < 4 ? columns : 4);
    }
  }
}

}  // namespace detail

/// Computes tiles [t0, t1), t1 - t0 <= winograd_block(cin), of panels [p0, p1).
/// Requires cin and the output's channels to be multiples of simd::width; scratch: winograd_scratch(cin) floats.
inline void winograd_chunk(const WinogradArgs& g, int t0, int t1, int p0, int p1, float* scratch) noexcept {
  if (g.half) return detail::winograd_chunk<Half>(g, t0, t1, p0, p1, scratch);
  return detail::winograd_chunk<float>(g, t0, t1, p0, p1, scratch);
}

}  // namespace kernels

FACENET_END
