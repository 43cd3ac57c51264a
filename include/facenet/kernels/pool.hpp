// Pooling, L2 normalisation and the conversion of pixels.
#pragma once

#include <cmath>
#include <cstddef>

#include "facenet/base/simd.hpp"
#include "facenet/base/tensor.hpp"

FACENET_BEGIN

namespace kernels {

namespace detail {

FACENET_INLINE simd::vf load_n(const float* p, int n) noexcept {
  return simd::width == 1 || n >= simd::width ? simd::load(p) : simd::load_partial(p, n);
}
FACENET_INLINE void store_n(float* p, simd::vf v, int n) noexcept {
  if (simd::width == 1 || n >= simd::width)
    simd::store(p, v);
  else
    simd::store_partial(p, v, n);
}

/// Neighbouring channels of one pixel: `Vectors` whole vectors, or the first n channels of one.
template <int Vectors>
struct Block {
  simd::vf v[std::size_t{Vectors}];

  FACENET_INLINE static Block load(const float* p, int n) noexcept {
    Block b;
    FACENET_UNROLL
    for (int i = 0; i < Vectors; ++i) b.v[i] = Vectors > 1 ? simd::load(p + i * simd::width) : load_n(p, n);
    return b;
  }
  FACENET_INLINE static Block all(simd::vf value) noexcept {
    Block b;
    FACENET_UNROLL
    for (int i = 0; i < Vectors; ++i) b.v[i] = value;
    return b;
  }
  FACENET_INLINE void store(float* p, int n) const noexcept {
    FACENET_UNROLL
    for (int i = 0; i < Vectors; ++i) Vectors > 1 ? simd::store(p + i * simd::width, v[i]) : store_n(p, v[i], n);
  }
  /// v = f(v, x.v)
  template <class F>
  FACENET_INLINE void take(const Block& x, F&& f) noexcept {
    FACENET_UNROLL
    for (int i = 0; i < Vectors; ++i) v[i] = f(v[i], x.v[i]);
  }
};
/// Calls f(channel, block, channels that are left): blocks of 4 vectors, then of one, of which the last may be partly
/// filled. With one vector at a time 73 of the 118 instructions of a 3x3 window were its loops': four share them.
template <class F>
FACENET_INLINE void for_channels(int channels, F&& f) noexcept {
  constexpr int wide = simd::width > 1 ? 4 : 1;  // without SIMD the code would only be larger
  int c = 0;
  if constexpr (wide > 1)
    for (; c + wide * simd::width <= channels; c += wide * simd::width) f(c, Block<wide>(), channels - c);
  for (; c < channels; c += simd::width) f(c, Block<1>(), channels - c);
}

/// The part of a pool's window that is inside the picture: rows [y0, y1), columns [x0, x1).
struct Clipped {
  int y0, y1, x0, x1;
};
/// Calls f(address) for each pixel of a window of one image, row after row. Strides are copied: a vector's store may
/// change anything in memory, and GCC would read them again for each.
template <class F>
FACENET_INLINE void for_pixels(const ConstTensorView& in, int image, const Clipped& at, F&& f) noexcept {
  const float* const first = in.pixel(image, at.y0, at.x0);
  const auto down = static_cast<std::ptrdiff_t>(in.row_stride), right = static_cast<std::ptrdiff_t>(in.pixel_stride);
  const int rows = at.y1 - at.y0, columns = at.x1 - at.x0;
  for (int y = 0; y < rows; ++y)
    for (int x = 0; x < columns; ++x) f(first + y * down + x * right);
}
/// to[c] = the mean over the window, its pixels summed in row order.
inline void mean(const ConstTensorView& in, int image, const Clipped& at, float* to) noexcept {
  const simd::vf scale = simd::set1(1.0f / static_cast<float>((at.y1 - at.y0) * (at.x1 - at.x0)));
  for_channels(in.shape.c, [&](int c, auto block, int n) {
    auto sum = block.all(simd::zero());
    for_pixels(in, image, at, [&](const float* p) {
      sum.take(block.load(p + c, n), [](simd::vf a, simd::vf b) { return simd::add(a, b); });
    });
    sum.take(block.all(scale), [](simd::vf a, simd::vf b) { return simd::mul(a, b); });
    sum.store(to + c, n);
  });
}
/// Calls f(window, output pixel) for each pixel of the output rows [row0, row1) of one image.
template <class T, class F>
FACENET_INLINE void for_windows(const Shape& in, const BasicTensorView<T>& out, int image, Window w, int row0, int row1,
                                F&& f) noexcept {
  const auto inside = [](int i, int end) { return i < 0 ? 0 : i > end ? end : i; };
  for (int y = row0; y < row1; ++y)
    for (int x = 0; x < out.shape.w; ++x) {
      const int top = y * w.stride() - w.pad_h, left = x * w.stride() - w.pad_w;
      f(Clipped{inside(top, in.h), inside(top + w.kh, in.h), inside(left, in.w), inside(left + w.kw, in.w)},
        out.pixel(image, y, x));
    }
}

}  // namespace detail

/// out[y][x][c] = max over the window at (y * stride - pad_h, x * stride - pad_w), clipped to the picture.
/// Output rows [row0, row1) of one image. Requires that no window is wholly outside.
inline void max_pool_rows(ConstTensorView in, TensorView out, int image, Window w, int row0, int row1) noexcept {
  detail::for_windows(in.shape, out, image, w, row0, row1, [&](detail::Clipped at, float* to) {
    detail::for_channels(out.shape.c, [&](int c, auto block, int n) {
      auto best = block.load(in.pixel(image, at.y0, at.x0) + c, n);
      detail::for_pixels(in, image, at, [&](const float* p) {
        best.take(block.load(p + c, n), [](simd::vf a, simd::vf b) { return (simd::max)(a, b); });
      });
      best.store(to + c, n);
    });
  });
}

/// Rows of average pooling: the mean over the clipped window, summed in row order: PyTorch's count_include_pad=False,
/// TensorFlow's SAME. Channels past in.shape.c are zeros.
inline void avg_pool_rows(ConstTensorView in, TensorView out, int image, Window w, int row0, int row1) noexcept {
  detail::for_windows(in.shape, out, image, w, row0, row1, [&](detail::Clipped at, float* to) {
    detail::mean(in, image, at, to);
    for (int c = in.shape.c; c < out.shape.c; ++c) to[c] = 0;
  });
}

/// out[0][0][c] = mean over all pixels of in[..][..][c], summed in row order.
inline void global_avg_pool(ConstTensorView in, TensorView out, int image) noexcept {
  avg_pool_rows(in, out, image, k(in.shape.h, in.shape.w), 0, 1);
}

/// y = x / max(|x|, 1e-12), as torch.nn.functional.normalize. The norm is summed in double.
inline void l2_normalise(const float* x, float* y, int n) noexcept {
  double sum = 0;
  for (int i = 0; i < n; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  const double norm = std::sqrt(sum);
  const double scale = 1.0 / (norm > 1e-12 ? norm : 1e-12);
  for (int i = 0; i < n; ++i) y[i] = static_cast<float>(static_cast<double>(x[i]) * scale);
}

/// y[i] = exp(x[i] - max) / sum over n channels, in float32 as torch.softmax: near 1 its steps are 1.2e-7, MTCNN's
/// scores collide there, and in double other boxes would win (12 pixels away in one test picture).
inline void softmax(const float* x, float* y, int n) noexcept {
  float most = x[0];
  for (int i = 1; i < n; ++i) most = x[i] > most ? x[i] : most;
  float sum = 0;
  for (int i = 0; i < n; ++i) {
    y[i] = std::exp(x[i] - most);
    sum += y[i];
  }
  for (int i = 0; i < n; ++i) y[i] /= sum;
}

/// One row of `width` pixels of three bytes as floats: (byte - 127.5) / 128, which is exact, or value[channel][byte].
/// `swap` exchanges the first and the last channel.
inline void convert_row(const std::uint8_t* bytes, int width, const float (*value)[256], bool swap,
                        float* out) noexcept {
  if (value == nullptr && !swap) {
    const simd::vf half = simd::set1(-127.5f / 128), scale = simd::set1(1.0f / 128);
    const int count = 3 * width, rest = count % simd::width;
    for (int i = 0; i < count - rest; i += simd::width)
      simd::store(out + i, simd::fma(simd::load(bytes + i), scale, half));
    for (int i = count - rest; i < count; ++i) out[i] = (static_cast<float>(bytes[i]) - 127.5f) / 128;
    return;
  }
  for (int x = 0; x < width; ++x)
    for (int c = 0; c < 3; ++c) {
      const std::uint8_t b = bytes[3 * x + (swap ? 2 - c : c)];
      out[3 * x + c] = value != nullptr ? value[c][b] : (static_cast<float>(b) - 127.5f) / 128;
    }
}

}  // namespace kernels

FACENET_END
