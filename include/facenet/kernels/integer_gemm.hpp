// Convolution in integers by register tiles: activations of 0…255 times weights of -127…127, summed in 32 bits, then
// scaled.
//   sum[m][n] = sum over k of a[m][k] * w[n][k]             exact, in any order
//   x = float(sum) * scale[n] + bias[n]                     each of the three rounded to nearest, never fused
// So the result is the same to the bit on every ISA. What an epilogue makes of x is below.
// Requires: K * 255 * 127 < 2^31, so K <= 66,311. Scales are finite, and scales and biases are 0 or at least 2^-100 in
// magnitude: then every float that is kept is 0 or at least 2^-123, and CPUs that flush denormals agree with those that
// do not.
#pragma once

#include "facenet/kernels/conv.hpp"
#include "facenet/kernels/pool.hpp"

FACENET_FAST_BEGIN

namespace kernels {

using simd::integer::Activation;
using ActivationView = BasicTensorView<Activation>;
using ConstActivationView = BasicTensorView<const Activation>;

/// Elements after an input's last one that a tile may read, and multiplies by 0.
constexpr int integer_overread = 3;

#if !defined(FACENET_NO_INTEGER)

/// The largest depth whose sums fit 32 bits.
constexpr int max_integer_depth = 2147483647 / (255 * 127);
static_assert(max_integer_depth == 66311, "what the weights' reader compares with");

/// OIHW weights as `runs` of `length` (as in Runs) each: length = cin * the taps of a run.
struct IntegerPackShape {
  int n, cin, taps, taps_in_run, width = simd::integer::panel;

  constexpr int runs() const noexcept { return taps / taps_in_run; }
  constexpr int run_length() const noexcept { return cin * taps_in_run; }
  /// A run's end is filled with weights of 0 up to a multiple of 4. What is read there may be anything.
  constexpr int padded_length() const noexcept { return (run_length() + 3) / 4 * 4; }
  /// Of a window as it is multiplied.
  constexpr std::int64_t depth() const noexcept { return std::int64_t{runs()} * padded_length(); }
  constexpr std::int64_t panel_bytes() const noexcept { return depth() * width; }
};

namespace detail {

/// Writes a group of each of `channels` channels: channel[from[i]] for i < some. A loop for whole groups, which nearly
/// all are, and one where they lie together: 24 million weights are packed when a file is loaded.
template <int whole, bool together>
inline void place_group(const std::int8_t* channel, std::ptrdiff_t depth, int channels, const std::ptrdiff_t* from,
                        int some, std::int8_t* out) noexcept {
  using namespace simd::integer;
  constexpr int width = simd::width;
  for (int first = 0; first < channels; first += width, out += width * group) {
    const int lanes = channels - first < width ? channels - first : width;
    for (int j = 0; j < lanes; ++j, channel += depth) {
      if constexpr (together && place(0, group - 1) == group - 1) {
        std::memcpy(out + place(j, 0), channel + from[0], std::size_t{group});
      } else if constexpr (whole > 0) {
        FACENET_UNROLL
        for (int i = 0; i < whole; ++i) out[place(j, i)] = channel[from[i]];
      } else {
        for (int i = 0; i < some; ++i) out[place(j, i)] = channel[from[i]];
      }
    }
  }
}

}  // namespace detail

/// Packs panel p of OIHW weights: [depth / group][vector][what place() says], s.panel_bytes() bytes at out. sums (may
/// be null): sum over k of each of the panel's channels.
inline void pack_integer_panel(const std::int8_t* oihw, IntegerPackShape s, int p, std::int8_t* out,
                               std::int32_t* sums) noexcept {
  using namespace simd::integer;
  const std::ptrdiff_t depth = std::ptrdiff_t{s.cin} * s.taps;  // of a channel
  const int left = s.n - p * s.width, channels = left < s.width ? left : s.width;
  oihw += p * s.width * depth;
  std::memset(out, 0, static_cast<std::size_t>(s.panel_bytes()));
  for (int k = 0; k < s.runs() * s.padded_length(); k += group, out += s.width * group) {
    const int run = k / s.padded_length(), first = k % s.padded_length(), in_run = s.run_length() - first;
    const int some = in_run < group ? in_run : group;
    std::ptrdiff_t from[group] = {};
    for (int i = 0; i < some; ++i)
      from[i] = std::ptrdiff_t{(first + i) % s.cin} * s.taps + run * s.taps_in_run + (first + i) / s.cin;
    if (some == group && s.taps == 1)
      detail::place_group<group, true>(oihw, depth, channels, from, some, out);
    else if (some == group)
      detail::place_group<group, false>(oihw, depth, channels, from, some, out);
    else
      detail::place_group<0, false>(oihw, depth, channels, from, some, out);
  }
  for (int j = 0; sums != nullptr && j < s.width; ++j) {
    sums[j] = 0;
    for (std::ptrdiff_t k = 0; j < channels && k < depth; ++k) sums[j] += oihw[j * depth + k];
  }
}

/// Whether the page's dot is exact for packed weights, whose pairs lie side by side.
inline bool pairs_fit(const std::int8_t* packed, std::int64_t bytes) noexcept {
  if constexpr (simd::integer::largest_pair == simd::integer::any_pair) return true;
#  if defined(FACENET_RELAXED_DOT)
  if (simd::integer::wide::is_exact()) return true;
  if (!simd::integer::pair_dot_takes_bytes()) return false;
#  endif
  std::int16_t most = 0;
  for (std::int64_t i = 0; i < bytes; i += 2) {
    std::int16_t both;  // as words, or GCC 12 makes no vectors
    std::memcpy(&both, packed + i, sizeof both);
    // NOLINTNEXTLINE(bugprone-signed-char-misuse): its sign is meant
    const auto low = static_cast<std::int16_t>(static_cast<std::int8_t>(both & 255)),
               high = static_cast<std::int16_t>(both >> 8);
    const auto sum = static_cast<std::int16_t>((low < 0 ? -low : low) + (high < 0 ? -high : high));
    most = sum > most ? sum : most;
  }
  return most <= simd::integer::largest_pair;
}

// ---- The micro-kernel ---------------------------------------------------------------------------------------------

/// What a channel's sum of weights is multiplied by, for the tile to add it.
inline int zero_point() noexcept {
#  if defined(FACENET_RELAXED_DOT)
  return simd::integer::wide::is_exact() ? simd::integer::wide::zero_point() : 0;
#  else
  return simd::integer::zero_point;
#  endif
}

/// The page's ways to multiply: where pairs fit, and for any weights.
struct FittingPairs {
  using va = simd::integer::va;
  using vw = simd::integer::vw;
  static constexpr int rows = simd::integer::tile_rows, extra = simd::integer::tile_extra;
  static FACENET_INLINE va broadcast(const Activation* p) noexcept { return simd::integer::broadcast(p); }
  static FACENET_INLINE vw load(const std::int8_t* p) noexcept { return simd::integer::load_weights(p); }
  static FACENET_INLINE simd::integer::vi dot(simd::integer::vi sum, va a, vw w) noexcept {
    return simd::integer::dot(sum, a, w);
  }
};
struct AnyWeights {
  using va = simd::integer::exact::va;
  using vw = simd::integer::exact::vw;
  static constexpr int rows = simd::integer::exact::tile_rows, extra = simd::integer::exact::tile_extra;
  static FACENET_INLINE va broadcast(const Activation* p) noexcept { return simd::integer::exact::broadcast(p); }
  static FACENET_INLINE vw load(const std::int8_t* p) noexcept { return simd::integer::exact::load_weights(p); }
  static FACENET_INLINE simd::integer::vi dot(simd::integer::vi sum, va a, vw w) noexcept {
    return simd::integer::exact::dot(sum, a, w);
  }
};
#  if defined(FACENET_RELAXED_DOT)
/// For any weights, where the engine has it.
struct WideDot : FittingPairs {
  static constexpr int rows = simd::integer::wide::tile_rows, extra = simd::integer::wide::tile_extra;
  static FACENET_INLINE va broadcast(const Activation* p) noexcept { return simd::integer::wide::broadcast(p); }
  static FACENET_INLINE simd::integer::vi dot(simd::integer::vi sum, va a, vw w) noexcept {
    return simd::integer::wide::dot(sum, a, w);
  }
};
#  endif

/// sums[MR][NV*width] = A[MR x K] * B[K x NV*width]. a[i]: pixel i's window, runs.length elements and
/// integer_overread more; b: one packed panel, which is prefetched into L1 as it is read; offset: NV*width 32-bit
/// integers, zero_point() * the sum of a channel's weights.
template <class Way, std::size_t MR, std::size_t NV>
FACENET_NOINLINE void integer_tile(const Activation* const* a, Runs runs, const std::int8_t* b, const float* offset,
                                   std::int32_t* sums, PrefetchCursor ahead = {}) noexcept {
  using namespace simd::integer;
  static_assert(MR * NV + NV + std::size_t{Way::extra} <= std::size_t{simd::register_count}, "the tile would spill");
  constexpr std::size_t width = std::size_t{simd::width}, vector = width * std::size_t{group};
  // A panel of K > 1,500 leaves L1 between two tiles. Without the prefetch, 8 steps ahead, the layers of K = 1728 reach
  // 84% of the peak, with it 99% (Sapphire Rapids; 512 bytes ahead 96%).
  constexpr std::size_t near = 8 * NV * vector;
  const Activation* row[MR];
  const char* next = ahead.from;
  vi acc[MR][NV];
  FACENET_UNROLL
  for (std::size_t i = 0; i < MR; ++i) {
    FACENET_UNROLL
    for (std::size_t j = 0; j < NV; ++j) acc[i][j] = zero();
  }
  const std::ptrdiff_t length = (runs.length + 3) / 4 * 4;
  for (int r = 0; r < runs.count; ++r) {
    const std::int64_t at = runs.offset[r];
    FACENET_UNROLL
    for (std::size_t i = 0; i < MR; ++i) row[i] = a[i] + at;
    for (std::ptrdiff_t k = 0; k < length; k += group) {
      typename Way::vw w[NV];
      FACENET_UNROLL
      for (std::size_t j = 0; j < NV; ++j) w[j] = Way::load(b + j * vector);
      FACENET_UNROLL
      for (std::size_t line = 0; line < NV * vector; line += cache_line) {
        simd::prefetch_l1(b + near + line);
        simd::prefetch_l2(next + line);
      }
      next += ahead.step;
      b += NV * vector;
      FACENET_UNROLL
      for (std::size_t i = 0; i < MR; ++i) {
        const typename Way::va x = Way::broadcast(row[i] + k);
        FACENET_UNROLL
        for (std::size_t j = 0; j < NV; ++j) acc[i][j] = Way::dot(acc[i][j], x, w[j]);
      }
    }
  }
  FACENET_UNROLL
  for (std::size_t i = 0; i < MR; ++i) {
    FACENET_UNROLL
    for (std::size_t j = 0; j < NV; ++j) {
      const vi sum = with_offset(acc[i][j], offset + j * width);
      std::memcpy(sums + (i * NV + j) * width, &sum, sizeof sum);
    }
  }
}

// ---- Epilogues ----------------------------------------------------------------------------------------------------

/// A panel's constants: rows of `panel` values, a channel each.
struct IntegerScales {
  static constexpr int rows = 4, panel = simd::integer::panel;
  const float* at = nullptr;

  FACENET_INLINE const float* scale() const noexcept { return at; }  // of a sum
  FACENET_INLINE const float* bias() const noexcept { return at + panel; }
  FACENET_INLINE const float* inverse() const noexcept { return at + 2 * panel; }  // 1 / scale of what is written
  FACENET_INLINE const float* offset() const noexcept { return at + 3 * panel; }   // the tile's 32-bit integers
};

/// What becomes of x: f = x, or f + x for a residual, at least 0 with a ReLU. It is kept as float, as activation, or
/// both.
struct IntegerEpilogue {
  bool residual = false, relu = true;
  bool floats = false, activations = true;
};

namespace detail {

// A value that has been rounded is fused into nothing. It also ends x87's longer mantissa.
FACENET_INLINE vf plus(vf a, vf b) noexcept { return simd::integer::rounded(simd::add(a, b)); }
FACENET_INLINE vf times(vf a, vf b) noexcept { return simd::integer::rounded(simd::mul(a, b)); }
FACENET_INLINE vf rectified(vf x) noexcept { return (simd::max)(x, simd::zero()); }

/// Times 1 / scale, and at most 255. The bound comes before the conversion to integers, which gives another value on
/// each ISA for what is out of range.
FACENET_INLINE vf bounded(vf x, vf inverse) noexcept { return (simd::min)(times(x, inverse), simd::set1(255.0f)); }

/// A pair of vectors of channels. What a switch would decide inside a loop is decided here.
template <bool residual, bool relu, bool floats, bool activations>
struct Finish {
  static constexpr int width = simd::width;
  vf scale[2], bias[2], inverse[2];

  FACENET_INLINE Finish(const IntegerScales& s, int column) noexcept
      : scale{simd::load(s.scale() + column), simd::load(s.scale() + column + width)},
        bias{simd::load(s.bias() + column), simd::load(s.bias() + column + width)},
        inverse{simd::load(s.inverse() + column), simd::load(s.inverse() + column + width)} {}
  /// The half's sums, finished; of activations before they are rounded, where what is below 0 becomes 0.
  FACENET_INLINE vf half(int h, const std::int32_t* sum, float* f) const noexcept {
    simd::integer::vi sums;
    std::memcpy(&sums, sum + h * width, sizeof sums);
    vf x = plus(times(simd::integer::to_float(sums), scale[h]), bias[h]);
    if constexpr (residual) x = plus(simd::load(f + h * width), x);
    if constexpr (relu && floats) x = rectified(x);
    if constexpr (floats) simd::store(f + h * width, x);
    if constexpr (activations) x = bounded(x, inverse[h]);
    return x;
  }
  FACENET_INLINE void operator()(const std::int32_t* sum, float* f, Activation* q) const noexcept {
    const vf first = half(0, sum, f), second = half(1, sum, f);
    if constexpr (activations) simd::integer::store_rounded(q, first, second);
  }
};

}  // namespace detail

/// Where a tile's rows of output begin. Null where the epilogue writes none.
struct IntegerRows {
  float* const* f = nullptr;
  Activation* const* q = nullptr;
};

namespace detail {

/// `columns` < a panel stores only that many channels.
template <bool residual, bool relu, bool floats, bool activations>
FACENET_NOINLINE void finish_rows(const std::int32_t* sums, int rows, IntegerScales s, IntegerRows out,
                                  int columns) noexcept {
  constexpr int width = simd::width, panel = simd::integer::panel;
  static_assert(panel % (2 * width) == 0, "vectors are stored in pairs");
  for (int c = 0; c < columns; c += 2 * width) {
    const Finish<residual, relu, floats, activations> finish(s, c);
    const std::int32_t* sum = sums + c;
    if (columns - c >= 2 * width) {
      for (int i = 0; i < rows; ++i, sum += panel)
        finish(sum, floats ? out.f[i] + c : nullptr, activations ? out.q[i] + c : nullptr);
      continue;
    }
    const std::size_t some = static_cast<std::size_t>(columns - c);  // fills no pair: through vectors in memory
    for (int i = 0; i < rows; ++i, sum += panel) {
      float f[2 * width] = {};
      Activation q[2 * width];
      if constexpr (residual) std::memcpy(f, out.f[i] + c, some * sizeof(float));
      finish(sum, f, q);
      if constexpr (floats) std::memcpy(out.f[i] + c, f, some * sizeof(float));
      if constexpr (activations) std::memcpy(out.q[i] + c, q, some * sizeof(Activation));
    }
  }
}

}  // namespace detail

/// Applies an epilogue to a tile's sums. They come through L1: 1% of the time of the layer with the least depth, and a
/// tile's code is there once instead of once an epilogue. Requires: floats with a residual, and activations of what a
/// ReLU made.
inline void finish_tile(const std::int32_t* sums, int rows, IntegerEpilogue e, IntegerScales s, IntegerRows out,
                        int columns) noexcept {
  using detail::finish_rows;
  if (e.residual && !e.relu) return finish_rows<true, false, true, false>(sums, rows, s, out, columns);
  if (e.residual && e.activations) return finish_rows<true, true, true, true>(sums, rows, s, out, columns);
  if (e.residual) return finish_rows<true, true, true, false>(sums, rows, s, out, columns);
  if (!e.relu) return finish_rows<false, false, true, false>(sums, rows, s, out, columns);
  if (e.floats && e.activations) return finish_rows<false, true, true, true>(sums, rows, s, out, columns);
  if (e.floats) return finish_rows<false, true, true, false>(sums, rows, s, out, columns);
  finish_rows<false, true, false, true>(sums, rows, s, out, columns);
}

// ---- What stays float ---------------------------------------------------------------------------------------------
// In an order of its own, each operation rounded, so that these too are the same to the bit on every ISA.

namespace detail {

FACENET_INLINE void quantise_pair(const float* x, const float* scale, Activation* q) noexcept {
  const vf one = simd::set1(1.0f);
  simd::integer::store_rounded(q, bounded(simd::load(x), one / simd::load(scale)),
                               bounded(simd::load(x + simd::width), one / simd::load(scale + simd::width)));
}

}  // namespace detail

/// Floats as activations: max(0, x[i]) * (1 / scale[i]).
inline void quantise_row(const float* x, const float* scale, int n, Activation* q) noexcept {
  constexpr int width = simd::width;
  int c = 0;
  for (; c + 2 * width <= n; c += 2 * width) detail::quantise_pair(x + c, scale + c, q + c);
  if (c == n) return;
  float values[2 * width] = {}, scales[2 * width];
  Activation some[2 * width];
  const std::size_t left = static_cast<std::size_t>(n - c);
  for (float& s : scales) s = 1;
  std::memcpy(values, x + c, left * sizeof(float));
  std::memcpy(scales, scale + c, left * sizeof(float));
  detail::quantise_pair(values, scales, some);
  std::memcpy(q + c, some, left * sizeof(Activation));
}

/// A row of `width` pixels of three bytes as activations; `swap` exchanges the first and the last channel.
inline void copy_row(const std::uint8_t* rgb, int width, bool swap, Activation* q) noexcept {
  if (!swap && sizeof(Activation) == 1 && simd::integer::zero_point == 0) {
    std::memcpy(q, rgb, static_cast<std::size_t>(3 * width));
    return;
  }
  for (int i = 0; i < width; ++i, rgb += 3, q += 3)
    for (int c = 0; c < 3; ++c) q[c] = simd::integer::stored(rgb[swap ? 2 - c : c]);
}

namespace detail {

/// max over a window's pixels of N channels. A constant count, or GCC 12 makes no vectors at -O2.
template <std::size_t N>
FACENET_INLINE void max_of_window(ConstActivationView in, int image, Clipped at, int c, Activation* to) noexcept {
  Activation best[N];
  std::memcpy(best, in.pixel(image, at.y0, at.x0) + c, sizeof best);
  for (int y = at.y0; y < at.y1; ++y)
    for (int x = at.x0; x < at.x1; ++x) {
      const Activation* const from = in.pixel(image, y, x) + c;
      for (std::size_t i = 0; i < N; ++i) best[i] = from[i] > best[i] ? from[i] : best[i];
    }
  std::memcpy(to + c, best, sizeof best);
}

}  // namespace detail

/// max_pool_rows() of activations, which lie in the order of what they stand for.
inline void max_pool_bytes(ConstActivationView in, ActivationView out, int image, Window w, int row0,
                           int row1) noexcept {
  detail::for_windows(in.shape, out, image, w, row0, row1, [&](detail::Clipped at, Activation* to) {
    int c = 0;
    for (; c + 32 <= out.shape.c; c += 32) detail::max_of_window<32>(in, image, at, c, to);
    for (; c < out.shape.c; ++c) detail::max_of_window<1>(in, image, at, c, to);
  });
}

/// y[i][p * panel …] = x[i] * W[p] + bias[p] for I rows and P panels, W[p] as pack_panel() makes it: for each output
/// one sum in the order of x's runs. I * P panels at once: one sum waits for its addition, and W comes from memory.
template <std::size_t I, std::size_t P>
FACENET_NOINLINE void linear_in_order(const float* const (&x)[I], Runs runs, const float* weights,
                                      std::int64_t panel_floats, const float* bias, std::int64_t bias_stride,
                                      int columns, float* const (&y)[I]) noexcept {
  constexpr std::size_t vectors = std::size_t{simd::tile_vectors}, width = std::size_t{simd::width};
  constexpr std::ptrdiff_t ahead = 4096;  // bytes; 512-d has 3.7 MB of weights, more than L2
  vf sum[I][P * vectors];
  for (auto& row : sum)
    for (vf& s : row) s = simd::zero();
  for (int r = 0; r < runs.count; ++r)
    for (int k = 0; k < runs.length; ++k, weights += vectors * width) {
      vf value[I];
      FACENET_UNROLL
      for (std::size_t i = 0; i < I; ++i) value[i] = simd::set1(x[i][runs.offset[r] + k]);
      FACENET_UNROLL
      for (std::size_t p = 0; p < P; ++p) {
        const float* const w = weights + static_cast<std::int64_t>(p) * panel_floats;
        FACENET_UNROLL
        for (std::size_t v = 0; v < vectors; ++v) {
          const vf column = simd::load(w + v * width);
          simd::prefetch_l1(reinterpret_cast<const char*>(w + v * width) + ahead);
          FACENET_UNROLL
          for (std::size_t i = 0; i < I; ++i)
            sum[i][p * vectors + v] = detail::plus(sum[i][p * vectors + v], detail::times(value[i], column));
        }
      }
    }
  for (std::size_t i = 0; i < I; ++i)
    for (std::size_t p = 0; p < P; ++p)
      for (std::size_t v = 0; v < vectors; ++v) {
        const std::size_t at = (p * vectors + v) * width;
        const int left = columns - static_cast<int>(at);
        if (left <= 0) break;
        const vf all = detail::plus(sum[i][p * vectors + v],
                                    simd::load(bias + static_cast<std::int64_t>(p) * bias_stride + v * width));
        if (left >= static_cast<int>(width))
          simd::store(y[i] + at, all);
        else
          simd::store_partial(y[i] + at, all, left);
      }
}

#endif

}  // namespace kernels

FACENET_FAST_END
