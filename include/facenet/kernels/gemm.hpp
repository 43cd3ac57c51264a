// The register tile, its epilogues and the packing of weights into panels.
#pragma once

#include "facenet/base/simd.hpp"
#include "facenet/base/tensor.hpp"

FACENET_BEGIN

namespace kernels {

using simd::vf;

// ---- Packing ------------------------------------------------------------------------------------------------------
// Weights for N output channels and K inputs lie as [panel][k][width of a panel]: a tile reads one panel front to back.
// K counts (ky, kx, cin) in that order, the order in which an NHWC picture lies in memory.

/// Panels that n output channels need; the last is padded with zero columns. A panel is simd::panel channels wide, or
/// one vector (simd::width) where that wastes less: MTCNN's 10 and 28 channels, the 80 of conv2d_3b.
constexpr int panels(int n, int width = simd::panel) noexcept { return (n + width - 1) / width; }

/// OIHW weights [n][cin][taps], and the width of the panels they are packed into.
struct PackShape {
  int n, cin, taps, width = simd::panel;
};

/// Packs panel p of OIHW weights as T (float or Half), each multiplied by `scale` (a residual's). out: the panels,
/// taps * cin * width elements each. One call a panel: a WebAssembly engine that compiles while it runs changes to
/// better code at the next call only.
template <class T>
FACENET_NOINLINE inline void pack_panel(const float* oihw, PackShape s, float scale, T* out, int p) noexcept {
  const auto [n, cin, taps, width] = s;
  const std::int64_t row = std::int64_t{cin} * taps;  // weights of one output channel
  out += p * row * width;
  for (int c = 0; c < cin; ++c)  // the source is read front to back: 94 MB are packed at every load
    for (int t = 0; t < taps; ++t) {
      T* to = out + (std::int64_t{t} * cin + c) * width;
      const float* from = oihw + std::int64_t{p} * width * row + std::int64_t{c} * taps + t;
      for (int j = 0; j < width; ++j) {
        const float w = p * width + j < n ? from[j * row] * scale : 0.0f;
        if constexpr (std::is_same_v<T, Half>)
          to[j] = simd::float_to_half(w);
        else
          to[j] = w;
      }
    }
}
/// All panels of a layer.
template <class T>
inline void pack_panels(const float* oihw, PackShape s, float scale, T* out) noexcept {
  for (int p = 0; p < panels(s.n, s.width); ++p) pack_panel(oihw, s, scale, out, p);
}

// ---- Epilogues ----------------------------------------------------------------------------------------------------
// What happens to a finished sum on its way to memory. `bias` points at the vector's first channel; `out` is what the
// memory holds, which only residuals look at. `narrow`: also for panels of one vector.

struct Plain {
  static constexpr bool narrow = false;
  FACENET_INLINE static vf apply(vf sum, const float*, const float*) noexcept { return sum; }
};
struct Bias {
  static constexpr bool narrow = true;
  FACENET_INLINE static vf apply(vf sum, const float* bias, const float*) noexcept {
    return simd::add(sum, simd::load(bias));
  }
};
struct BiasRelu {
  static constexpr bool narrow = true;
  FACENET_INLINE static vf apply(vf sum, const float* bias, const float*) noexcept {
    return (simd::max)(simd::add(sum, simd::load(bias)), simd::zero());
  }
};
/// x where x > 0, else slope * x; the slopes lie `slope_offset` floats after the biases.
struct BiasPRelu {
  static constexpr bool narrow = true;
  static constexpr int slope_offset = simd::panel;
  FACENET_INLINE static vf apply(vf sum, const float* bias, const float*) noexcept {
    const vf x = simd::add(sum, simd::load(bias));
    return simd::fma((simd::min)(x, simd::zero()), simd::load(bias + slope_offset), (simd::max)(x, simd::zero()));
  }
};
/// The output is the residual's trunk, updated in place: out = out + sum + bias.
struct BiasResidual {
  static constexpr bool narrow = false;
  FACENET_INLINE static vf apply(vf sum, const float* bias, const float* out) noexcept {
    return simd::add(simd::load(out), simd::add(sum, simd::load(bias)));
  }
};
struct BiasResidualRelu {
  static constexpr bool narrow = false;
  FACENET_INLINE static vf apply(vf sum, const float* bias, const float* out) noexcept {
    return (simd::max)(BiasResidual::apply(sum, bias, out), simd::zero());
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

/// Memory to prefetch while a tile computes: `step` bytes a k, from `from` on. The first tile of a panel would wait for
/// memory at 42 GB/s while the others run from L2; prefetched one panel ahead, the traffic spreads over all of them.
struct PrefetchCursor {
  const char* from = nullptr;
  std::int64_t step = 0;
};

/// The end of a row of channels that fills no vector: `left` of them from c[i] + first on. Once for all tiles: inside
/// them it was a third of their code.
template <class E>
FACENET_NOINLINE void store_partial_rows(const float* sums, int rows, const float* bias, float* const* c, int first,
                                         int left) noexcept {
  for (int i = 0; i < rows; ++i) {
    float kept[simd::width];
    simd::store(kept, simd::load_partial(c[i] + first, left));
    simd::store_partial(c[i] + first, E::apply(simd::load(sums + i * simd::width), bias, kept), left);
  }
}

/// C[MR x NV*width] = epilogue(A[MR x K] * B[K x NV*width]), K = runs.count * runs.length.
/// a[i]: pixel i's window; b: one packed panel of NV vectors a row; c[i]: pixel i's first output channel.
/// Each output is one ascending chain of FMAs, so no choice of tile changes a bit.
/// `columns` < NV*width stores only that many channels (the zero-padded end of the last panel).
template <class E, std::size_t MR, std::size_t NV, class W>
FACENET_NOINLINE void tile(const float* const* a, Runs runs, const W* b, const float* bias, float* const* c,
                           int columns, PrefetchCursor ahead = {}) noexcept {
  static_assert(MR * NV + NV + 1 <= std::size_t{simd::register_count}, "the tile would spill");
  const float* row[MR];
  const char* next = ahead.from;  // a parameter in memory, as on WebAssembly, would be written back at every k
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
    const std::ptrdiff_t length = runs.length;
    for (std::ptrdiff_t k = 0; k < length; ++k) {
      vf w[NV];
      FACENET_UNROLL
      for (std::size_t j = 0; j < NV; ++j) w[j] = simd::load(b + j * simd::width);
      FACENET_UNROLL
      for (std::size_t line = 0; line < NV * simd::width * sizeof(W); line += cache_line)
        simd::prefetch_l2(next + line);
      next += ahead.step;
      b += NV * simd::width;
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
    const int first = static_cast<int>(j) * simd::width, left = columns - first;
    if (left <= 0) break;
    if (left >= simd::width) {
      FACENET_UNROLL
      for (std::size_t i = 0; i < MR; ++i) simd::store(c[i] + first, E::apply(acc[i][j], bias + first, c[i] + first));
    } else {
      float sums[MR * std::size_t{simd::width}];
      FACENET_UNROLL
      for (std::size_t i = 0; i < MR; ++i) simd::store(sums + i * std::size_t{simd::width}, acc[i][j]);
      store_partial_rows<E>(sums, static_cast<int>(MR), bias + first, c, first, left);
    }
  }
}

}  // namespace kernels

FACENET_END
