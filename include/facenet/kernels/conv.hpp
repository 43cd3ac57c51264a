// Convolution by register tiles: 1x1 as GEMM, k x k as implicit GEMM (no im2col: NHWC rows are read where they lie).
//
#pragma once

#include "facenet/kernels/gemm.hpp"

FACENET_BEGIN

namespace kernels {

/// Names an epilogue type where a plan stores it.
enum class EpilogueKind : std::uint8_t { bias, bias_relu, bias_prelu, bias_residual, bias_residual_relu };

/// Where some of a convolution's panels go: siblings that read the same input are one GEMM with several outputs.
struct Segment {
  TensorView out;
  int first_panel = 0;
  EpilogueKind epilogue = EpilogueKind::bias_relu;
};

struct ConvArgs {
  static constexpr int max_segments = 4;
  ConstTensorView in;  // data: the window of output pixel (0, 0), so inside a halo of zeros where there is padding
  int stride = 1;
  Shape out;  // h, w of the output; c: all segments together, each but the last a whole number of panels
  Runs runs{};
  const void* weights = nullptr;  // panels(out.c, panel) packed panels of float or Half
  bool half = false;              // only where simd::half_in_memory
  int panel = simd::panel;        // or simd::width
  const float* bias = nullptr;    // bias_stride floats a panel: its biases, then PReLU's slopes
  int bias_stride = simd::panel;
  int first_panel = 0;  // the one that `weights` begins with
  Segment segments[max_segments];
  int segment_count = 1;

  int pixels() const noexcept { return in.n * static_cast<int>(out.pixels()); }
};

/// Output pixels in one chunk at the most. Its A block is read once a panel, from L2.
constexpr int conv_block = 240;

namespace detail {

/// Walks output pixels m, m + 1, … over rows and images.
struct PixelWalk {
  int x, y, image;
  Shape out;
  PixelWalk(int m, Shape s) noexcept : x(m % s.w), y(m / s.w % s.h), image(m / (s.w * s.h)), out(s) {}
  void next() noexcept {
    if (++x < out.w) return;
    x = 0;
    if (++y < out.h) return;
    y = 0;
    ++image;
  }
};

/// Calls f(i, count, image, y, x) for each piece of a row among output pixels m … m + pixels - 1: pixel m + i is the
/// first of `count` side by side. P-Net's many narrow layers spent a tenth of their time on addresses found pixel by
/// pixel.
template <class F>
inline void for_row_pieces(int m, int pixels, Shape out, F&& f) noexcept {
  int x = m % out.w, y = m / out.w % out.h, image = m / (out.w * out.h);
  for (int i = 0; i < pixels;) {
    const int count = out.w - x < pixels - i ? out.w - x : pixels - i;
    f(i, count, image, y, x);
    i += count;
    x = 0;
    if (++y < out.h) continue;
    y = 0;
    ++image;
  }
}

template <class W>
using TileFn = void (*)(const float* const*, Runs, const W*, const float*, float* const*, int, PrefetchCursor);

/// tile<E, 1 … tile_rows, NV>.
template <class E, std::size_t NV, class W, std::size_t... I>
FACENET_HIDDEN inline TileFn<W> tile_for(int rows, std::index_sequence<I...>) noexcept {
  static constexpr TileFn<W> table[] = {tile<E, I + 1, NV, W>...};
  return table[rows - 1];
}
template <class E, class W>
inline TileFn<W> tile_for(int rows, int panel) noexcept {
  constexpr auto heights = std::make_index_sequence<std::size_t{simd::tile_rows}>{};
  // Narrow panels are for odd channel counts in float: a residual's or a half-precision layer's never are. Each tile
  // left out is 40 ms of compile time.
  if constexpr (std::is_same_v<W, float> && E::narrow)
    if (panel != simd::panel) return tile_for<E, 1, W>(rows, heights);
  (void)panel;
  return tile_for<E, std::size_t{simd::tile_vectors}, W>(rows, heights);
}

/// Calls f(first, rows) for tiles of nearly equal height: 64 = 9*6 + 2*5, not 10*6 + 4, since short tiles are slow.
template <class F>
inline void balanced_tiles(int pixels, F&& f) noexcept {
  const int tiles = (pixels + simd::tile_rows - 1) / simd::tile_rows;
  const int rows = pixels / tiles, longer = pixels % tiles;
  for (int t = 0, first = 0; t < tiles; ++t) {
    const int n = rows + (t < longer);
    f(first, n);
    first += n;
  }
}

/// The panel after b, which has `size` elements, spread evenly over the tiles of `pixels`. A thread's chunks follow
/// each other in memory, and so do the layers.
template <class W>
inline PrefetchCursor prefetch_next_panel(const W* b, std::int64_t size, int pixels, int width) noexcept {
  const int tiles = (pixels + simd::tile_rows - 1) / simd::tile_rows;
  const std::int64_t row = std::int64_t{width} * std::int64_t{sizeof(W)};
  const PrefetchCursor next{reinterpret_cast<const char*>(b) + size * std::int64_t{sizeof(W)},
                            (row + tiles - 1) / tiles};
  // The steps are rounded up: at most twice the panel is prefetched.
  return simd::may_prefetch(next.from, 2 * size * std::int64_t{sizeof(W)})
             ? next
             : PrefetchCursor{reinterpret_cast<const char*>(b), 0};
}

template <class E, class W>
inline void conv_panel(const ConvArgs& g, const float* const* a, const std::int64_t* c, int pixels, int panel,
                       const Segment& s) noexcept {
  const std::int64_t depth = std::int64_t{g.runs.count} * g.runs.length;
  const W* b = static_cast<const W*>(g.weights) + (panel - g.first_panel) * depth * g.panel;
  PrefetchCursor ahead = prefetch_next_panel(b, depth * g.panel, pixels, g.panel);
  const int channel = (panel - s.first_panel) * g.panel;
  const int left = s.out.shape.c - channel, columns = left < g.panel ? left : g.panel;
  balanced_tiles(pixels, [&](int first, int rows) {
    float* out[simd::tile_rows];
    for (int i = 0; i < rows; ++i) out[i] = s.out.data + c[first + i] + channel;
    tile_for<E, W>(rows, g.panel)(a + first, g.runs, b, g.bias + panel * g.bias_stride, out, columns, ahead);
    ahead.from += ahead.step * depth;
  });
}

template <class W>
inline void conv_panel(const ConvArgs& g, const float* const* a, const std::int64_t* c, int pixels, int panel,
                       const Segment& s) noexcept {
  switch (s.epilogue) {
    case EpilogueKind::bias:
      return conv_panel<Bias, W>(g, a, c, pixels, panel, s);
    case EpilogueKind::bias_relu:
      return conv_panel<BiasRelu, W>(g, a, c, pixels, panel, s);
    case EpilogueKind::bias_prelu:
      return conv_panel<BiasPRelu, W>(g, a, c, pixels, panel, s);
    case EpilogueKind::bias_residual:
      return conv_panel<BiasResidual, W>(g, a, c, pixels, panel, s);
    case EpilogueKind::bias_residual_relu:
      return conv_panel<BiasResidualRelu, W>(g, a, c, pixels, panel, s);
  }
}

}  // namespace detail

/// Computes output pixels [m0, m1), m1 - m0 <= conv_block, of panels [p0, p1). Chunks write disjoint memory.
inline void conv_chunk(const ConvArgs& g, int m0, int m1, int p0, int p1) noexcept {
  const float* a[conv_block];
  std::int64_t c[conv_block];
  const int pixels = m1 - m0;
  detail::for_row_pieces(m0, pixels, g.out, [&](int i, int count, int image, int y, int x) {
    const float* from = g.in.pixel(image, y * g.stride, x * g.stride);
    for (int k = 0; k < count; ++k, from += g.stride * g.in.pixel_stride) a[i + k] = from;
  });
  int s = -1;
  for (int p = p0; p < p1; ++p) {
    const int before = s;
    if (s < 0) s = 0;
    while (s + 1 < g.segment_count && g.segments[s + 1].first_panel <= p) ++s;
    if (s != before) {
      const TensorView& out = g.segments[s].out;
      detail::for_row_pieces(m0, pixels, g.out, [&](int i, int count, int image, int y, int x) {
        std::int64_t to = image * out.image_stride + y * out.row_stride + x * out.pixel_stride;
        for (int k = 0; k < count; ++k, to += out.pixel_stride) c[i + k] = to;
      });
    }
    if constexpr (simd::half_in_memory)  // else no plan has such weights, and their tiles would be half of the code
      if (g.half) {
        detail::conv_panel<Half>(g, a, c, pixels, p, g.segments[s]);
        continue;
      }
    detail::conv_panel<float>(g, a, c, pixels, p, g.segments[s]);
  }
}

}  // namespace kernels

FACENET_END
