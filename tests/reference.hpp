// Naive operators that accumulate in double: the oracle of every kernel test, never used to run. Layer 2.
// Each also returns the sum of |terms|, from which tests derive their tolerance.
#pragma once

#include <cmath>

#include "facenet/tensor.hpp"

FACENET_BEGIN

namespace reference {

/// One output of a convolution: the exact-to-double value, and sum |a_i * w_i| + |bias|.
struct Sum {
  double value = 0, magnitude = 0;
};

/// y = sum over ky, kx, c of x[y*s - ph + ky][x*s - pw + kx][c] * w[o][c][ky][kx] + bias[o]; zeros outside.
inline Sum conv_at(ConstTensorView in, int image, const float* oihw, const float* bias, int kh, int kw, int stride,
                   int pad_h, int pad_w, int y, int x, int o) noexcept {
  Sum s;
  for (int ky = 0; ky < kh; ++ky)
    for (int kx = 0; kx < kw; ++kx) {
      const int yy = y * stride - pad_h + ky, xx = x * stride - pad_w + kx;
      if (yy < 0 || xx < 0 || yy >= in.shape.h || xx >= in.shape.w) continue;
      const float* p = in.pixel(image, yy, xx);
      for (int c = 0; c < in.shape.c; ++c) {
        const double w = static_cast<double>(oihw[((std::int64_t{o} * in.shape.c + c) * kh + ky) * kw + kx]);
        const double term = static_cast<double>(p[c]) * w;
        s.value += term;
        s.magnitude += std::fabs(term);
      }
    }
  s.value += static_cast<double>(bias[o]);
  s.magnitude += std::fabs(static_cast<double>(bias[o]));
  return s;
}

inline float max_pool_at(ConstTensorView in, int image, int kh, int kw, int stride, int pad_h, int pad_w, int y, int x,
                         int c) noexcept {
  float best = -INFINITY;
  for (int ky = 0; ky < kh; ++ky)
    for (int kx = 0; kx < kw; ++kx) {
      const int yy = y * stride - pad_h + ky, xx = x * stride - pad_w + kx;
      if (yy >= 0 && xx >= 0 && yy < in.shape.h && xx < in.shape.w) best = std::fmax(best, in.pixel(image, yy, xx)[c]);
    }
  return best;
}

/// Mean over the part of the window that is inside; 0 for channels that the input lacks.
inline Sum avg_pool_at(ConstTensorView in, int image, int kh, int kw, int stride, int pad_h, int pad_w, int y, int x,
                       int c) noexcept {
  Sum s;
  if (c >= in.shape.c) return s;
  int count = 0;
  for (int ky = 0; ky < kh; ++ky)
    for (int kx = 0; kx < kw; ++kx) {
      const int yy = y * stride - pad_h + ky, xx = x * stride - pad_w + kx;
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

}  // namespace reference

FACENET_END
