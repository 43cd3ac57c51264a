// Shape and TensorView: NHWC floats with a pixel stride. Layer 1.
#pragma once

#include "facenet/memory.hpp"

FACENET_BEGIN

/// Height, width and channels of one image's activation. The batch is always outside.
struct Shape {
  int h = 0, w = 0, c = 0;

  constexpr std::int64_t pixels() const noexcept { return std::int64_t{h} * w; }
  constexpr std::int64_t size() const noexcept { return pixels() * c; }
  friend constexpr bool operator==(Shape a, Shape b) noexcept { return a.h == b.h && a.w == b.w && a.c == b.c; }
  friend constexpr bool operator!=(Shape a, Shape b) noexcept { return !(a == b); }
};

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
