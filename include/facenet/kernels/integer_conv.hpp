// Direct convolution in integers over NHWC activations, by runs, as conv.hpp does in floats. No Winograd: its sums of
// activations leave 8 bits.
#pragma once

#include "facenet/kernels/integer_gemm.hpp"

#if !defined(FACENET_NO_INTEGER)

FACENET_FAST_BEGIN

namespace kernels {

/// Where some of a convolution's panels go, as floats, as activations or as both: what the epilogue writes.
struct IntegerSegment {
  TensorView floats;
  ActivationView activations;
  int channels = 0;
  int first_panel = 0;
  IntegerEpilogue epilogue;
};

struct IntegerConvArgs {
  static constexpr int max_segments = ConvArgs::max_segments;
  ConstActivationView
      in;  // data: the window of output pixel (0, 0), so inside a halo of stored(0) where there is padding
  int stride = 1;
  Shape out;    // h, w of the output; c: all segments together, each but the last a whole number of panels
  Runs runs{};  // in elements of `in`
  const std::int8_t* weights = nullptr;  // what pack_integer_panel made, panel after panel
  bool pairs_fit = false;                // as pairs_fit() says of all of them
  unsigned char* gathered = nullptr;     // with a matrix unit: gathered_bytes() for its rows; null: there is none
  const float* scales = nullptr;         // IntegerScales::rows * panel values a panel
  IntegerSegment segments[max_segments];
  int segment_count = 1;

  int pixels() const noexcept { return in.n * static_cast<int>(out.pixels()); }
};

namespace detail {

using IntegerTileFn = void (*)(const Activation* const*, Runs, const std::int8_t*, const float*, std::int32_t*,
                               PrefetchCursor);

/// integer_tile<Way, 1 … Way::rows, NV>.
template <class Way, std::size_t NV, std::size_t... I>
FACENET_HIDDEN inline IntegerTileFn integer_tile_for(int rows, std::index_sequence<I...>) noexcept {
  static constexpr IntegerTileFn table[] = {integer_tile<Way, I + 1, NV>...};
  return table[rows - 1];
}

template <class Way>
inline void integer_panel(const IntegerConvArgs& g, const Activation* const* a, const std::int64_t* f,
                          const std::int64_t* q, int pixels, int panel, const IntegerSegment& s) noexcept {
  constexpr int width = simd::integer::panel, tallest = Way::rows;
  constexpr auto heights = std::make_index_sequence<std::size_t{tallest}>{};
  const std::int64_t depth = std::int64_t{g.runs.count} * ((g.runs.length + 3) / 4 * 4), bytes = depth * width;
  const std::int8_t* b = g.weights + panel * bytes;
  const IntegerScales scales{g.scales + std::int64_t{panel} * IntegerScales::rows * width};
  const int channel = (panel - s.first_panel) * width;
  const int left = s.channels - channel, columns = left < width ? left : width;
  // Nearly equal heights, as in conv.hpp, and the panel after this one spread over their steps of a group each.
  const int tiles = (pixels + tallest - 1) / tallest, short_rows = pixels / tiles, longer = pixels % tiles;
  constexpr std::int64_t row = std::int64_t{width} * simd::integer::group;
  PrefetchCursor ahead{reinterpret_cast<const char*>(b + bytes), (row + tiles - 1) / tiles};
  if (!simd::may_prefetch(ahead.from, 2 * bytes)) ahead = {reinterpret_cast<const char*>(b), 0};
  alignas(cache_line) std::int32_t sums[std::size_t{tallest * width}];
  for (int t = 0, first = 0; t < tiles; ++t) {
    const int rows = short_rows + (t < longer);
    float* floats[std::size_t{tallest}];
    Activation* activations[std::size_t{tallest}];
    for (int i = 0; i < rows; ++i) {
      if (s.epilogue.floats) floats[i] = s.floats.data + f[first + i] + channel;
      if (s.epilogue.activations) activations[i] = s.activations.data + q[first + i] + channel;
    }
    integer_tile_for<Way, std::size_t{simd::integer::tile_vectors}>(rows, heights)(a + first, g.runs, b,
                                                                                   scales.offset(), sums, ahead);
    finish_tile(sums, rows, s.epilogue, scales, {floats, activations}, columns);
    ahead.from += ahead.step * (depth / simd::integer::group);
    first += rows;
  }
}

/// Where output pixels m0 … begin in v.
template <class T>
inline void output_offsets(const BasicTensorView<T>& v, int m0, int pixels, Shape out, std::int64_t* at) noexcept {
  for_row_pieces(m0, pixels, out, [&](int i, int count, int image, int y, int x) {
    std::int64_t to = image * v.image_stride + y * v.row_stride + x * v.pixel_stride;
    for (int k = 0; k < count; ++k, to += v.pixel_stride) at[i + k] = to;
  });
}

}  // namespace detail

namespace detail {

/// Where the windows of output pixels m0 … begin.
inline void window_starts(const IntegerConvArgs& g, int m0, int pixels, const Activation** a) noexcept {
  for_row_pieces(m0, pixels, g.out, [&](int i, int count, int image, int y, int x) {
    const Activation* from = g.in.pixel(image, y * g.stride, x * g.stride);
    for (int k = 0; k < count; ++k, from += g.stride * g.in.pixel_stride) a[i + k] = from;
  });
}

/// Calls panel(index, segment) for panels [p0, p1), with f and q at the segment's output of pixels m0 ….
template <class F>
inline void for_panels(const IntegerConvArgs& g, int m0, int pixels, int p0, int p1, std::int64_t* f, std::int64_t* q,
                       F&& panel) noexcept {
  for (int p = p0, s = 0, placed = -1; p < p1; ++p) {
    while (s + 1 < g.segment_count && g.segments[s + 1].first_panel <= p) ++s;
    if (s != placed) {
      output_offsets(g.segments[s].floats, m0, pixels, g.out, f);
      output_offsets(g.segments[s].activations, m0, pixels, g.out, q);
      placed = s;
    }
    panel(p, g.segments[s]);
  }
}

}  // namespace detail

/// Computes output pixels [m0, m1), m1 - m0 <= conv_block, of panels [p0, p1). Chunks write disjoint memory.
inline void integer_conv_chunk(const IntegerConvArgs& g, int m0, int m1, int p0, int p1) noexcept {
  const Activation* a[conv_block];
  std::int64_t f[conv_block], q[conv_block];
  const int pixels = m1 - m0;
  detail::window_starts(g, m0, pixels, a);
  detail::for_panels(g, m0, pixels, p0, p1, f, q, [&](int p, const IntegerSegment& s) {
#  if defined(FACENET_RELAXED_DOT)
    if (simd::integer::host() == simd::integer::Bytes::negative)
      return detail::integer_panel<FlippedBytes>(g, a, f, q, pixels, p, s);
#  endif
    if constexpr (simd::integer::largest_pair != simd::integer::any_pair)
      if (!g.pairs_fit) return detail::integer_panel<AnyWeights>(g, a, f, q, pixels, p, s);
    detail::integer_panel<FittingPairs>(g, a, f, q, pixels, p, s);
  });
}

}  // namespace kernels

FACENET_FAST_END

#endif
