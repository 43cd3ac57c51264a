// The first layers of P-Net in one pass: 3x3 convolution of three planes, bias, PReLU, 2x2 max pooling in ceil mode.
// Layer 2.
//
// The register tile puts channels into a vector: 10 of 16 lanes, and a load for each FMA. Here a vector holds pixels
// and the weights are broadcast: all lanes count, and FMAs share loads. 36 ns an output become 16 (AVX-512).
#pragma once

#include "facenet/simd.hpp"
#include "facenet/tensor.hpp"

FACENET_BEGIN

namespace kernels {

/// Weights of the convolution, transposed: at[k][channel], k = (ky, kx, colour) as in packed panels.
template <std::size_t C>
struct StemWeights {
  static constexpr std::size_t channels = C;
  float at[27][C];
  float bias[C], slope[C];

  /// From OIHW weights [C][3][3][3] and C biases with C slopes behind them.
  void set(const float* oihw, const float* biases) noexcept {
    for (std::size_t c = 0; c < C; ++c) {
      bias[c] = biases[c];
      slope[c] = biases[C + c];
      for (std::size_t colour = 0; colour < 3; ++colour)
        for (std::size_t t = 0; t < 9; ++t) at[3 * t + colour][c] = oihw[(3 * c + colour) * 9 + t];
    }
  }
};

/// Three planes of height x width floats. A row has room for stem_overrun() more, whatever they are.
struct Planes {
  const float* data = nullptr;
  std::ptrdiff_t row = 0, plane = 0;  // floats from a row, from a plane to the next
  int height = 0, width = 0;
};

namespace detail {

// Vectors of pixels: C * NV accumulators, NV of pixels and one broadcast weight must fit the registers.
// Without SIMD two pixels, since a pool's window must not be cut, and the compiler spills what it must.
constexpr std::size_t stem_vectors = simd::register_count >= 32 || simd::width == 1 ? 2 : 1;
constexpr int stem_block = static_cast<int>(stem_vectors) * simd::width;
static_assert(stem_block % 2 == 0, "a pool's window would be cut");

/// sum[c] = PReLU(bias + convolution) of stem_block pixels from `in` on, each one ascending chain of FMAs as in a tile.
template <std::size_t C>
FACENET_INLINE void stem_row(const float* in, const Planes& p, const StemWeights<C>& w,
                             simd::vf (&sum)[C][stem_vectors]) noexcept {
  static_assert(simd::width == 1 || C * stem_vectors + stem_vectors + 1 <= std::size_t{simd::register_count},
                "the sums would spill");
  FACENET_UNROLL
  for (std::size_t c = 0; c < C; ++c) {
    FACENET_UNROLL
    for (std::size_t v = 0; v < stem_vectors; ++v) sum[c][v] = simd::zero();
  }
  const float(*k)[C] = w.at;
  for (int ky = 0; ky < 3; ++ky, in += p.row)
    for (int kx = 0; kx < 3; ++kx) {
      const float* from = in + kx;
      for (int colour = 0; colour < 3; ++colour, ++k, from += p.plane) {
        simd::vf x[stem_vectors];
        FACENET_UNROLL
        for (std::size_t v = 0; v < stem_vectors; ++v) x[v] = simd::load(from + v * simd::width);
        FACENET_UNROLL
        for (std::size_t c = 0; c < C; ++c) {
          const simd::vf weight = simd::set1((*k)[c]);
          FACENET_UNROLL
          for (std::size_t v = 0; v < stem_vectors; ++v) sum[c][v] = simd::fma(x[v], weight, sum[c][v]);
        }
      }
    }
  FACENET_UNROLL
  for (std::size_t c = 0; c < C; ++c) {
    FACENET_UNROLL
    for (std::size_t v = 0; v < stem_vectors; ++v) {
      const simd::vf y = simd::add(sum[c][v], simd::set1(w.bias[c]));
      sum[c][v] = simd::fma((simd::min)(y, simd::zero()), simd::set1(w.slope[c]), (simd::max)(y, simd::zero()));
    }
  }
}

}  // namespace detail

/// How far behind the end of a row stem_pool() reads.
constexpr int stem_overrun() noexcept { return detail::stem_block; }

/// out[y][x] = max of the 2x2 convolution outputs at (2y, 2x), those that exist: ceil((side - 2) / 2) rows and columns.
/// out: NHWC with C channels, at least that large; the rest is left alone.
template <std::size_t C>
inline void stem_pool(const Planes& in, const StemWeights<C>& w, TensorView out) noexcept {
  using detail::stem_vectors;
  using simd::vf;
  constexpr int block = detail::stem_block;
  const int height = in.height - 2, width = in.width - 2;
  for (int y = 0; y < height; y += 2) {
    float* row = out.pixel(0, y / 2, 0);
    for (int x = 0; x < width; x += block) {
      float most[C][std::size_t{block}];
      vf sum[C][stem_vectors];
      detail::stem_row<C>(in.data + y * in.row + x, in, w, sum);
      FACENET_UNROLL  // else GCC 12 on NEON64 stores every sum after every product
      for (std::size_t c = 0; c < C; ++c) {
        FACENET_UNROLL
        for (std::size_t v = 0; v < stem_vectors; ++v) simd::store(most[c] + v * simd::width, sum[c][v]);
      }
      if (y + 1 < height) {
        detail::stem_row<C>(in.data + (y + 1) * in.row + x, in, w, sum);
        FACENET_UNROLL
        for (std::size_t c = 0; c < C; ++c) {
          FACENET_UNROLL
          for (std::size_t v = 0; v < stem_vectors; ++v) {
            float* m = most[c] + v * simd::width;
            simd::store(m, (simd::max)(simd::load(m), sum[c][v]));
          }
        }
      }
      const int pixels = width - x < block ? width - x : block;
      for (int i = 0; i < pixels; i += 2) {
        float* to = row + (x + i) / 2 * out.pixel_stride;
        const int next = i + 1 < pixels ? i + 1 : i;  // an odd last column stands alone
        for (std::size_t c = 0; c < C; ++c) to[c] = most[c][i] > most[c][next] ? most[c][i] : most[c][next];
      }
    }
  }
}

}  // namespace kernels

FACENET_END
