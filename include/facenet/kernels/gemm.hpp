// The register tile, its epilogues and the packing of weights into panels. Layer 2.
#pragma once

#include "facenet/simd.hpp"
#include "facenet/tensor.hpp"

FACENET_BEGIN

namespace kernels {

using simd::vf;

// ---- Packing ------------------------------------------------------------------------------------------------------
// Weights for N output channels and K inputs lie as [panel][k][panel_width]: a tile reads one panel front to back.
// K counts (ky, kx, cin) in that order, the order in which an NHWC picture lies in memory.

/// Panels that n output channels need; the last is padded with zero columns.
constexpr int panels(int n) noexcept { return (n + simd::panel - 1) / simd::panel; }

/// Packs OIHW weights [n][cin][kh][kw] as panels of T (float or Half).
/// Every weight is multiplied by `scale` (a residual's). out: panels(n) * kh * kw * cin * simd::panel elements.
template <class T>
inline void pack_panels(const float* oihw, int n, int cin, int kh, int kw, float scale, T* out) noexcept {
  const int taps = kh * kw;
  const std::int64_t row = std::int64_t{cin} * taps;  // weights of one output channel
  for (int p = 0; p < panels(n); ++p, out += row * simd::panel)
    for (int c = 0; c < cin; ++c)  // the source is read front to back: 94 MB are packed at every load
      for (int t = 0; t < taps; ++t) {
        T* to = out + (std::int64_t{t} * cin + c) * simd::panel;
        const float* from = oihw + std::int64_t{p} * simd::panel * row + std::int64_t{c} * taps + t;
        for (int j = 0; j < simd::panel; ++j) {
          const float w = p * simd::panel + j < n ? from[j * row] * scale : 0.0f;
          if constexpr (std::is_same_v<T, Half>) to[j] = simd::float_to_half(w);
          else to[j] = w;
        }
      }
}

// ---- Epilogues ----------------------------------------------------------------------------------------------------
// What happens to a finished sum on its way to memory. `bias` points at the tile's first channel.

struct Bias {
  FACENET_INLINE static vf apply(vf sum, vf bias, const float*) noexcept { return simd::add(sum, bias); }
};
struct BiasRelu {
  FACENET_INLINE static vf apply(vf sum, vf bias, const float*) noexcept {
    return simd::max(simd::add(sum, bias), simd::zero());
  }
};
/// The output is the residual's trunk, updated in place: out = out + sum + bias.
struct BiasResidual {
  FACENET_INLINE static vf apply(vf sum, vf bias, const float* out) noexcept {
    return simd::add(simd::load(out), simd::add(sum, bias));
  }
};
struct BiasResidualRelu {
  FACENET_INLINE static vf apply(vf sum, vf bias, const float* out) noexcept {
    return simd::max(BiasResidual::apply(sum, bias, out), simd::zero());
  }
};

// ---- The micro-kernel ---------------------------------------------------------------------------------------------

/// The K axis of a tile as `count` runs of `length` contiguous floats each:
/// a kh x kw window over densely packed pixels is kh runs of kw * cin, over a slice of channels kh * kw runs of cin.
struct Runs {
  const std::int32_t* offset;  // [count] from a pixel's first input float
  int count;
  int length;
};

/// C[MR x NV*width] = epilogue(A[MR x K] * B[K x NV*width]), K = runs.count * runs.length.
/// a[i]: pixel i's window; b: one packed panel, `simd::panel` elements a row; c[i]: pixel i's first output channel.
/// Each output is one ascending chain of FMAs, so no choice of tile changes a bit.
/// `columns` < NV*width stores only that many channels (the zero-padded end of the last panel).
template <class E, std::size_t MR, std::size_t NV, class W>
FACENET_NOINLINE void tile(const float* const* a, Runs runs, const W* b, const float* bias, float* const* c,
                           int columns) noexcept {
  static_assert(MR * NV + NV + 1 <= std::size_t{simd::register_count}, "the tile would spill");
  const float* row[MR];
  vf acc[MR][NV];
  FACENET_UNROLL
  for (std::size_t i = 0; i < MR; ++i) {
    FACENET_UNROLL
    for (std::size_t j = 0; j < NV; ++j) acc[i][j] = simd::zero();
  }
  for (int r = 0; r < runs.count; ++r) {
    const std::int64_t offset = runs.offset[r];
    FACENET_UNROLL
    for (std::size_t i = 0; i < MR; ++i) row[i] = a[i] + offset;
    const std::int64_t length = runs.length;
    for (std::int64_t k = 0; k < length; ++k) {
      vf w[NV];
      FACENET_UNROLL
      for (std::size_t j = 0; j < NV; ++j) w[j] = simd::load(b + j * simd::width);
      simd::prefetch(b + 1024 / sizeof(W));
      b += simd::panel;
      FACENET_UNROLL
      for (std::size_t i = 0; i < MR; ++i) {
        const vf x = simd::set1(row[i][k]);
        FACENET_UNROLL
        for (std::size_t j = 0; j < NV; ++j) acc[i][j] = simd::fma(x, w[j], acc[i][j]);
      }
    }
  }
  FACENET_UNROLL
  for (std::size_t j = 0; j < NV; ++j) {
    const int left = columns - static_cast<int>(j) * simd::width;
    if (left <= 0) break;
    const vf bj = simd::load(bias + j * simd::width);
    if (left >= simd::width) {
      FACENET_UNROLL
      for (std::size_t i = 0; i < MR; ++i) {
        float* out = c[i] + j * simd::width;
        simd::store(out, E::apply(acc[i][j], bj, out));
      }
    } else {
      FACENET_UNROLL
      for (std::size_t i = 0; i < MR; ++i) {
        float* out = c[i] + j * simd::width;
        float kept[simd::width] = {};
        for (int n = 0; n < left; ++n) kept[n] = out[n];
        simd::store_partial(out, E::apply(acc[i][j], bj, kept), left);
      }
    }
  }
}

}  // namespace kernels

FACENET_END
