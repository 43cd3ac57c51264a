// Shape, Window and TensorView: NHWC floats with a pixel stride.
#pragma once

#include "facenet/base/memory.hpp"

FACENET_BEGIN

/// The most components of an embedding: what a weight file may declare is what a gallery takes.
constexpr int max_embedding_dim = 16384;

/// Height, width and channels of one image's activation. The batch is always outside.
struct Shape {
  int h = 0, w = 0, c = 0;

  constexpr std::int64_t pixels() const noexcept { return std::int64_t{h} * w; }
  constexpr std::int64_t size() const noexcept { return pixels() * c; }
  friend constexpr bool operator==(Shape a, Shape b) noexcept { return a.h == b.h && a.w == b.w && a.c == b.c; }
  friend constexpr bool operator!=(Shape a, Shape b) noexcept { return !(a == b); }
};

/// The rectangle that a convolution or a pool looks at: k(3), k(1, 7).pad(0, 3), k(3).stride(2).
class Window {
 public:
  int kh = 1, kw = 1, pad_h = 0, pad_w = 0;

  constexpr Window() noexcept = default;
  constexpr Window(int h, int w) noexcept : kh(h), kw(w) {}
  constexpr Window stride(int s) const noexcept {
    Window w = *this;
    w.stride_ = s;
    return w;
  }
  constexpr Window pad(int h, int w_) const noexcept {
    Window w = *this;
    w.pad_h = h;
    w.pad_w = w_;
    return w;
  }
  /// Pools: a last window that is only partly inside still counts (Caffe, MTCNN).
  constexpr Window ceil() const noexcept {
    Window w = *this;
    w.ceil_ = true;
    return w;
  }
  constexpr int stride() const noexcept { return stride_; }
  constexpr int taps() const noexcept { return kh * kw; }
  constexpr int out(int in, int kernel, int padding) const noexcept {
    const int free = in + 2 * padding - kernel;
    return free < 0 ? 0 : (ceil_ ? (free + stride_ - 1) / stride_ : free / stride_) + 1;
  }
  /// Height and width of what a picture becomes.
  constexpr Shape out(Shape in, int channels) const noexcept {
    return {out(in.h, kh, pad_h), out(in.w, kw, pad_w), channels};
  }

 private:
  int stride_ = 1;
  bool ceil_ = false;
};
constexpr Window k(int side) noexcept { return {side, side}; }
constexpr Window k(int h, int w) noexcept { return {h, w}; }

/// n images of `shape`, channels innermost. Strides are in elements, so a view can be a slice of the channels of a
/// wider tensor, or the inside of one that has a halo of zeros around it.
template <class T>
struct BasicTensorView {
  T* data = nullptr;
  Shape shape;
  int n = 1;
  std::int64_t pixel_stride = 0;  // from a pixel to its right neighbour, >= shape.c
  std::int64_t row_stride = 0;    // from a pixel to the one below, >= shape.w * pixel_stride
  std::int64_t image_stride = 0;

  T* pixel(int image, int y, int x) const noexcept {
    return data + image * image_stride + y * row_stride + x * pixel_stride;
  }
  operator BasicTensorView<const T>() const noexcept {
    return {data, shape, n, pixel_stride, row_stride, image_stride};
  }
};

using TensorView = BasicTensorView<float>;
using ConstTensorView = BasicTensorView<const float>;

/// A view of densely packed NHWC data.
template <class T>
BasicTensorView<T> dense_view(T* data, Shape s, int n = 1) noexcept {
  return {data, s, n, s.c, std::int64_t{s.w} * s.c, s.size()};
}

FACENET_END
