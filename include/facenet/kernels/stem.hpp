// The first layers of P-Net: 3x3 convolution of three planes, bias, PReLU, 2x2 max pooling in ceil mode; and the 3x3
// convolution after it.
//
// The register tile puts channels into a vector: 10 of 16 lanes, and a load for each FMA. Here a vector holds pixels
// and the weights are broadcast: all lanes count, and FMAs share loads. 36 ns an output become 16 (AVX-512). Where a
// panel is no wider than the 16 channels of the second convolution, a tile's broadcasts limit it too (13 loads for 12
// FMAs): there it reads the pooled planes as they are and has 11 loads for 24 FMAs.
#pragma once

#include "facenet/base/simd.hpp"
#include "facenet/base/tensor.hpp"

FACENET_BEGIN

namespace kernels {

/// Weights of a 3x3 convolution, transposed: at[k][channel], k = (ky, kx, input channel) as in packed panels.
template <std::size_t In, std::size_t C>
struct PlaneWeights {
  static constexpr std::size_t inputs = In, channels = C;
  float at[9 * In][C];
  float bias[C], slope[C];

  /// From OIHW weights [C][In][3][3] and C biases and C slopes after them.
  void set(const float* oihw, const float* biases) noexcept {
    for (std::size_t c = 0; c < C; ++c) {
      bias[c] = biases[c];
      slope[c] = biases[C + c];
      for (std::size_t in = 0; in < In; ++in)
        for (std::size_t t = 0; t < 9; ++t) at[In * t + in][c] = oihw[(In * c + in) * 9 + t];
    }
  }
};

/// Planes of height x width floats. A row has room for stem_overrun() more, whatever they are.
struct Planes {
  const float* data = nullptr;
  std::ptrdiff_t row = 0, plane = 0;  // floats from a row, from a plane to the next
  int height = 0, width = 0;
};

namespace detail {

/// sum[c][v] = PReLU(bias + convolution) of channel first + c and the pixels from in + v * width on, each one ascending
/// chain of FMAs as in a tile: G * NV accumulators, NV vectors of pixels and one broadcast weight.
template <std::size_t G, std::size_t NV, std::size_t In, std::size_t C>
FACENET_INLINE void convolve_pixels(const float* in, std::ptrdiff_t row, std::ptrdiff_t plane,
                                    const PlaneWeights<In, C>& w, std::size_t first, simd::vf (&sum)[G][NV]) noexcept {
  // Without SIMD the compiler spills what it must.
  static_assert(simd::width == 1 || G * NV + NV + 1 <= std::size_t{simd::register_count}, "the sums would spill");
  FACENET_UNROLL
  for (std::size_t c = 0; c < G; ++c) {
    FACENET_UNROLL
    for (std::size_t v = 0; v < NV; ++v) sum[c][v] = simd::zero();
  }
  const float* k = w.at[0] + first;
  for (int ky = 0; ky < 3; ++ky, in += row)
    for (int kx = 0; kx < 3; ++kx) {
      const float* from = in + kx;
      for (std::size_t i = 0; i < In; ++i, k += C, from += plane) {
        simd::vf x[NV];
        FACENET_UNROLL
        for (std::size_t v = 0; v < NV; ++v) x[v] = simd::load(from + v * simd::width);
        FACENET_UNROLL
        for (std::size_t c = 0; c < G; ++c) {
          const simd::vf weight = simd::set1(k[c]);
          FACENET_UNROLL
          for (std::size_t v = 0; v < NV; ++v) sum[c][v] = simd::fma(x[v], weight, sum[c][v]);
        }
      }
    }
  FACENET_UNROLL
  for (std::size_t c = 0; c < G; ++c) {
    FACENET_UNROLL
    for (std::size_t v = 0; v < NV; ++v) {
      const simd::vf y = simd::add(sum[c][v], simd::set1(w.bias[first + c]));
      sum[c][v] = simd::fma((simd::min)(y, simd::zero()), simd::set1(w.slope[first + c]), (simd::max)(y, simd::zero()));
    }
  }
}

// A pool's block: two vectors of pixels, together or one after the other.
constexpr int stem_block = 2 * simd::width;
constexpr std::size_t stem_vectors = simd::register_count >= 32 || simd::width == 1 ? 2 : 1;

/// most[c][i] = the convolution's output i of a row, or where that is larger than what is there: `pixels` of them, and
/// some after them.
template <bool First, std::size_t NV, std::size_t C>
FACENET_INLINE void stem_sums(const float* in, const Planes& p, const PlaneWeights<3, C>& w,
                              float (&most)[C][std::size_t{stem_block}], int at) noexcept {
  simd::vf sum[C][NV];
  convolve_pixels<C, NV>(in + at, p.row, p.plane, w, 0, sum);
  FACENET_UNROLL  // else GCC 12 on NEON64 stores every sum after every product
      for (std::size_t c = 0; c < C; ++c) {
    FACENET_UNROLL
    for (std::size_t v = 0; v < NV; ++v) {
      float* m = most[c] + at + v * simd::width;
      simd::store(m, First ? sum[c][v] : (simd::max)(simd::load(m), sum[c][v]));
    }
  }
}
template <bool First, std::size_t C>
FACENET_INLINE void stem_row(const float* in, const Planes& p, const PlaneWeights<3, C>& w,
                             float (&most)[C][std::size_t{stem_block}], int pixels) noexcept {
  // 136 columns are 9 vectors; in pairs they would be 10.
  if constexpr (stem_vectors == 2)
    if (pixels > simd::width) return stem_sums<First, 2>(in, p, w, most, 0);
  for (int at = 0; at < pixels && at < stem_block; at += simd::width) stem_sums<First, 1>(in, p, w, most, at);
}

/// The pools of a whole picture; f(c, y, x, maxima, count) takes `width` maxima of channel c from output (y, x) on, of
/// which the first `count` are some. ahead(y) is called before each row of pools.
template <std::size_t C, class F, class Ahead>
FACENET_INLINE void stem_pools(const Planes& in, const PlaneWeights<3, C>& w, F&& f, Ahead&& ahead) noexcept {
  const int height = in.height - 2, width = in.width - 2;
  float most[C][std::size_t{stem_block}] = {};
  for (int y = 0; y < height; y += 2) {
    ahead(y / 2);
    for (int x = 0; x < width; x += stem_block) {
      const int pixels = width - x < stem_block ? width - x : stem_block;
      const float* from = in.data + y * in.row + x;
      stem_row<true>(from, in, w, most, pixels);
      if (y + 1 < height) stem_row<false>(from + in.row, in, w, most, pixels);
      if (pixels % 2 != 0)  // an odd last column stands alone
        for (std::size_t c = 0; c < C; ++c) most[c][pixels] = most[c][pixels - 1];
      for (std::size_t c = 0; c < C; ++c) f(c, y / 2, x / 2, simd::pair_max(most[c]), (pixels + 1) / 2);
    }
  }
}

}  // namespace detail

/// How far past the end of a row stem_pool() reads.
constexpr int stem_overrun() noexcept { return detail::stem_block; }

/// out[y][x] = max of the 2x2 convolution outputs at (2y, 2x), those that exist: ceil((side - 2) / 2) rows and columns.
/// out: NHWC with C channels, at least that large; the rest is left alone. ahead(y) is called before each row of it.
template <std::size_t C, class Ahead>
inline void stem_pool(const Planes& in, const PlaneWeights<3, C>& w, TensorView out, Ahead&& ahead) noexcept {
  const auto scatter = [&](std::size_t c, int y, int x, simd::vf maxima, int count) {
    float t[simd::width];
    simd::store(t, maxima);
    float* to = out.pixel(0, y, x) + c;
    for (int i = 0; i < count; ++i, to += out.pixel_stride) *to = t[i];
  };
  detail::stem_pools(in, w, scatter, ahead);
}

/// The same into planes, `out` for their data. Rows are written from top to bottom, and up to a vector past their end:
/// the last one needs that room.
template <std::size_t C, class Ahead>
inline void stem_pool(const Planes& in, const PlaneWeights<3, C>& w, float* out, std::ptrdiff_t row,
                      std::ptrdiff_t plane, Ahead&& ahead) noexcept {
  const auto put = [&](std::size_t c, int y, int x, simd::vf maxima, int) {
    simd::store(out + static_cast<std::ptrdiff_t>(c) * plane + y * row + x, maxima);
  };
  detail::stem_pools(in, w, put, ahead);
}

// ---- The convolution after it ---------------------------------------------------------------------------------------

namespace detail {
// 24 accumulators of 32 registers, 12 of 16.
constexpr std::size_t plane_group = simd::register_count >= 32 ? 8 : 4, plane_vectors = 3;
constexpr int plane_block = static_cast<int>(plane_vectors) * simd::width;
}  // namespace detail

/// How far past the end of its input conv_planes() reads, and that of a plane.
constexpr int conv_planes_overrun() noexcept { return detail::plane_block; }

/// out[y][x] = PReLU(bias + 3x3 convolution of In planes): in.height - 2 rows and in.width - 2 columns, NHWC. Blocks of
/// pixels run over the ends of rows: two columns of each are computed in vain, no part of a vector is.
template <std::size_t In, std::size_t C>
inline void conv_planes(const Planes& in, const PlaneWeights<In, C>& w, TensorView out) noexcept {
  using namespace detail;
  constexpr std::size_t width = simd::width, groups = C / plane_group;
  static_assert(C % plane_group == 0 && C % width == 0, "there is no part of a group");
  const int rows = in.height - 2, columns = in.width - 2, row = static_cast<int>(in.row);
  const int count = (rows - 1) * row + columns;
  int x = 0, y = 0;
  for (int at = 0; at < count; at += plane_block) {
    alignas(cache_line) float sums[C][std::size_t{plane_block}];
    for (std::size_t g = 0; g < groups; ++g) {
      simd::vf sum[plane_group][plane_vectors];
      convolve_pixels<plane_group, plane_vectors>(in.data + at, in.row, in.plane, w, g * plane_group, sum);
      FACENET_UNROLL
      for (std::size_t c = 0; c < plane_group; ++c) {
        FACENET_UNROLL
        for (std::size_t v = 0; v < plane_vectors; ++v) simd::store(sums[g * plane_group + c] + v * width, sum[c][v]);
      }
    }
    for (std::size_t v = 0; v < plane_vectors && y < rows; ++v) {
      alignas(cache_line) float pixels[width][C];
      for (std::size_t c = 0; c < C; c += width) {
        simd::vf t[width];
        FACENET_UNROLL
        for (std::size_t i = 0; i < width; ++i) t[i] = simd::load(sums[c + i] + v * width);
        simd::transpose(t);
        FACENET_UNROLL
        for (std::size_t i = 0; i < width; ++i) simd::store(pixels[i] + c, t[i]);
      }
      for (std::size_t i = 0; i < width; ++i) {
        if (x < columns && y < rows) {
          float* to = out.pixel(0, y, x);
          for (std::size_t c = 0; c < C; c += width) simd::store(to + c, simd::load(pixels[i] + c));
        }
        if (++x == row) {
          x = 0;
          ++y;
        }
      }
    }
  }
}

// ---- The layer that decides -----------------------------------------------------------------------------------------

/// Whether sum over c of pixel[c] * weights[c] + bias >= bound in any of `count` <= width pixels side by side, where
/// the sum is rounded in another order than a tile's. Requires channels % width == 0.
FACENET_INLINE bool any_dot_above(const float* pixels, std::ptrdiff_t stride, int count, int channels,
                                  const float* weights, float bias, float bound) noexcept {
  using simd::vf;
  constexpr int width = simd::width;
  vf sum[std::size_t{width}];
  FACENET_UNROLL
  for (int i = 0; i < width; ++i) {
    const float* p = pixels + (i < count ? i : count - 1) * stride;
    sum[i] = simd::mul(simd::load(p), simd::load(weights));
    for (int c = width; c < channels; c += width)
      sum[i] = simd::fma(simd::load(p + c), simd::load(weights + c), sum[i]);
  }
  simd::transpose(sum);
  vf total = sum[0];
  FACENET_UNROLL
  for (int i = 1; i < width; ++i) total = simd::add(total, sum[i]);
  return simd::at_least(simd::add(total, simd::set1(bias)), simd::set1(bound)) != 0;
}

/// out[o][i] = sum over c of pixel i's [c] * weights[o][c] + biases[o], of `count` <= width pixels side by side, to the
/// bits of a tile: one ascending chain of FMAs. Requires C % width == 0.
template <std::size_t Out, std::size_t C>
inline void dots(const float* pixels, std::ptrdiff_t stride, int count, const float (&weights)[Out][C],
                 const float (&biases)[Out], float (&out)[Out][std::size_t{simd::width}]) noexcept {
  constexpr int width = simd::width;
  static_assert(C % std::size_t{width} == 0, "there is no part of a vector");
  simd::vf sum[Out], x[std::size_t{width}];
  for (std::size_t o = 0; o < Out; ++o) sum[o] = simd::zero();
  for (std::size_t c = 0; c < C; c += width) {
    FACENET_UNROLL
    for (int i = 0; i < width; ++i) x[i] = simd::load(pixels + (i < count ? i : count - 1) * stride + c);
    simd::transpose(x);
    for (std::size_t k = 0; k < std::size_t{width}; ++k)
      for (std::size_t o = 0; o < Out; ++o) sum[o] = simd::fma(x[k], simd::set1(weights[o][c + k]), sum[o]);
  }
  for (std::size_t o = 0; o < Out; ++o) simd::store(out[o], simd::add(sum[o], simd::set1(biases[o])));
}

}  // namespace kernels

FACENET_END
