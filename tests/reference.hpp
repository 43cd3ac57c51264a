// Naive operators that accumulate in double: the oracle of every kernel test, never used to run.
// Each also returns the sum of |terms|, from which tests derive their tolerance.
#pragma once

#include <cmath>

#include "facenet/base/tensor.hpp"

FACENET_BEGIN

namespace reference {

/// One output of a convolution: the exact-to-double value, and sum |a_i * w_i| + |bias|.
struct Sum {
  double value = 0, magnitude = 0;
};

/// y = sum over ky, kx, c of x[y*s - ph + ky][x*s - pw + kx][c] * w[o][c][ky][kx] + bias[o]; zeros outside.
inline Sum conv_at(ConstTensorView in, int image, const float* oihw, const float* bias, Window w, int y, int x,
                   int o) noexcept {
  Sum s;
  for (int ky = 0; ky < w.kh; ++ky)
    for (int kx = 0; kx < w.kw; ++kx) {
      const int yy = y * w.stride() - w.pad_h + ky, xx = x * w.stride() - w.pad_w + kx;
      if (yy < 0 || xx < 0 || yy >= in.shape.h || xx >= in.shape.w) continue;
      const float* p = in.pixel(image, yy, xx);
      for (int c = 0; c < in.shape.c; ++c) {
        const double weight = static_cast<double>(oihw[((std::int64_t{o} * in.shape.c + c) * w.kh + ky) * w.kw + kx]);
        const double term = static_cast<double>(p[c]) * weight;
        s.value += term;
        s.magnitude += std::fabs(term);
      }
    }
  s.value += static_cast<double>(bias[o]);
  s.magnitude += std::fabs(static_cast<double>(bias[o]));
  return s;
}

inline float max_pool_at(ConstTensorView in, int image, Window w, int y, int x, int c) noexcept {
  float best = -INFINITY;
  for (int ky = 0; ky < w.kh; ++ky)
    for (int kx = 0; kx < w.kw; ++kx) {
      const int yy = y * w.stride() - w.pad_h + ky, xx = x * w.stride() - w.pad_w + kx;
      if (yy >= 0 && xx >= 0 && yy < in.shape.h && xx < in.shape.w) best = std::fmax(best, in.pixel(image, yy, xx)[c]);
    }
  return best;
}

/// Mean over the part of the window that is inside; 0 for channels that the input lacks.
inline Sum avg_pool_at(ConstTensorView in, int image, Window w, int y, int x, int c) noexcept {
  Sum s;
  if (c >= in.shape.c) return s;
  int count = 0;
  for (int ky = 0; ky < w.kh; ++ky)
    for (int kx = 0; kx < w.kw; ++kx) {
      const int yy = y * w.stride() - w.pad_h + ky, xx = x * w.stride() - w.pad_w + kx;
      if (yy < 0 || xx < 0 || yy >= in.shape.h || xx >= in.shape.w) continue;
      const double v = static_cast<double>(in.pixel(image, yy, xx)[c]);
      s.value += v;
      s.magnitude += std::fabs(v);
      ++count;
    }
  return {s.value / count, s.magnitude / count};
}

inline Sum mean_at(ConstTensorView in, int image, int c) noexcept {
  Sum s;
  for (int y = 0; y < in.shape.h; ++y)
    for (int x = 0; x < in.shape.w; ++x) {
      const double v = static_cast<double>(in.pixel(image, y, x)[c]);
      s.value += v;
      s.magnitude += std::fabs(v);
    }
  const double n = static_cast<double>(in.shape.pixels());
  return {s.value / n, s.magnitude / n};
}

/// x / max(|x|, 1e-12) into y.
inline void l2_normalise(const float* x, double* y, int n) noexcept {
  double sum = 0;
  for (int i = 0; i < n; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  const double norm = std::fmax(std::sqrt(sum), 1e-12);
  for (int i = 0; i < n; ++i) y[i] = static_cast<double>(x[i]) / norm;
}

/// sum over ky, kx, c of q[y*s - ph + ky][x*s - pw + kx][c] * w[o][c][ky][kx] in integers; zeros outside. `in` is read
/// by value(element).
template <class T, class F>
inline std::int64_t integer_conv_at(const BasicTensorView<const T>& in, int image, const std::int8_t* oihw, Window w,
                                    int y, int x, int o, F&& value) noexcept {
  std::int64_t sum = 0;
  for (int ky = 0; ky < w.kh; ++ky)
    for (int kx = 0; kx < w.kw; ++kx) {
      const int yy = y * w.stride() - w.pad_h + ky, xx = x * w.stride() - w.pad_w + kx;
      if (yy < 0 || xx < 0 || yy >= in.shape.h || xx >= in.shape.w) continue;
      const T* p = in.pixel(image, yy, xx);
      for (int c = 0; c < in.shape.c; ++c)
        sum += std::int64_t{value(p[c])} * oihw[((std::int64_t{o} * in.shape.c + c) * w.kh + ky) * w.kw + kx];
    }
  return sum;
}

/// The nearest float: of a double that holds an integer, a sum or a product of floats exactly, so that one rounding is
/// all.
inline float to_nearest(double exact) noexcept {
  volatile float f = static_cast<float>(exact);
  return f;
}
/// sum * scale + bias with both roundings.
inline float dequantised(std::int64_t sum, float scale, float bias) noexcept {
  const float s = to_nearest(static_cast<double>(sum));
  return to_nearest(static_cast<double>(to_nearest(static_cast<double>(s) * static_cast<double>(scale))) +
                    static_cast<double>(bias));
}
/// max(0, x) * inverse, at most 255, to the nearest integer, ties to even.
inline int quantised(float x, float inverse) noexcept {
  const double y =
      static_cast<double>(to_nearest(static_cast<double>(x > 0 ? x : 0.0f) * static_cast<double>(inverse)));
  const double most = y < 255 ? y : 255, down = std::floor(most), part = most - down;
  const bool up = part > 0.5 || (part == 0.5 && std::fmod(down, 2) == 1);
  return static_cast<int>(down) + up;
}

}  // namespace reference

FACENET_END
