// Winograd convolution: F(4x4, 3x3) does 36 products where a direct convolution does 144, F(4, 7) along one
// axis 10 for 28. Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015:
//   Y = At [ (G g Gt) . (Bt d B) ] A
// Each axis is an F(m, r) of its own or the identity, so 3x3, 1x7 and 7x1 are one piece of code.
#pragma once

#include "facenet/kernels/int8.hpp"

FACENET_BEGIN

namespace kernels {

/// T[N]; GCC 12 warns of the sign when an int that depends on a template gives the length.
template <class T, int N>
using Array = T[static_cast<std::size_t>(N)];

// ---- F(m, r) along one axis -----------------------------------------------------------------------------------------

/// Interpolates at 0, ±p for each point p, and infinity: points = m + r - 1. With e(x) = prod(x*x - p*p) the rows of Bt
/// are e for 0, x * e for infinity, and (x*x ± p*x) * e / (x*x - p*p) for ±p: sums of even and of odd terms are shared.
template <class Points>
struct Toom {
  static constexpr int outputs = Points::outputs, taps = Points::taps, stride = 1;
  static constexpr int points = outputs + taps - 1, pairs = points / 2 - 1;
  static_assert(points == 2 * pairs + 2, "one of each sign, zero and infinity");

  /// Coefficients of e(x) without the pair `leave_out` (or with all for -1), in powers of x*x.
  struct Poly {
    Array<double, pairs + 1> c;
  };
  static constexpr Poly poly(int leave_out) noexcept {
    Poly p{};
    p.c[0] = 1;
    for (int i = 0, degree = 0; i < pairs; ++i) {
      if (i == leave_out) continue;
      for (int k = ++degree; k >= 0; --k)
        p.c[k] = (k > 0 ? p.c[k - 1] : 0) - (k < degree ? p.c[k] * Points::p[i] * Points::p[i] : 0);
    }
    return p;
  }
  static constexpr double power(double x, int n) noexcept { return n == 0 ? 1 : x * power(x, n - 1); }

  /// G: [1, p, p*p, …] / prod(p - other finite points); [0, …, 0, 1] for infinity.
  struct Matrix {
    Array<Array<double, taps>, points> at;
  };
  static constexpr Matrix g() noexcept {
    Array<double, points - 1> finite = {};
    for (int i = 0; i < pairs; ++i) {
      finite[2 * i + 1] = Points::p[i];
      finite[2 * i + 2] = -Points::p[i];
    }
    Matrix m{};
    for (int j = 0; j < points - 1; ++j) {
      double n = 1;
      for (int k = 0; k < points - 1; ++k)
        if (k != j) n *= finite[j] - finite[k];
      for (int t = 0; t < taps; ++t) m.at[j][t] = power(finite[j], t) / n;
    }
    m.at[points - 1][taps - 1] = 1;
    return m;
  }

  /// What bt() and at() multiply by. A table: clang computed powers of the points in at() each time.
  struct Factors {
    Array<Array<float, pairs + 1>, pairs + 1> poly;  // [i]: without pair i; [pairs]: with all of them
    Array<Array<float, outputs>, pairs> power;       // p[i]^r
  };
  static constexpr Factors factors() noexcept {
    Factors f{};
    for (int i = 0; i <= pairs; ++i) {
      const Poly rest = Toom::poly(i < pairs ? i : -1);
      for (int k = 0; k <= pairs; ++k) f.poly[i][k] = static_cast<float>(rest.c[k]);
    }
    for (int i = 0; i < pairs; ++i)
      for (int r = 0; r < outputs; ++r) f.power[i][r] = static_cast<float>(Toom::power(Points::p[i], r));
    return f;
  }

  FACENET_INLINE static vf c(float x) noexcept { return simd::set1(x); }

  /// t = Bt d.
  FACENET_INLINE static void bt(const vf* d, vf* t) noexcept {
    constexpr Factors f = factors();
    vf zero = d[2 * pairs], infinity = d[2 * pairs + 1];
    FACENET_UNROLL
    for (int k = 0; k < pairs; ++k) {
      zero = simd::fma(d[2 * k], c(f.poly[pairs][k]), zero);
      infinity = simd::fma(d[2 * k + 1], c(f.poly[pairs][k]), infinity);
    }
    t[0] = zero;
    t[points - 1] = infinity;
    FACENET_UNROLL
    for (int i = 0; i < pairs; ++i) {
      vf even = d[2 * pairs], odd = d[2 * pairs - 1];
      FACENET_UNROLL
      for (int k = 0; k < pairs - 1; ++k) {
        even = simd::fma(d[2 * k + 2], c(f.poly[i][k]), even);
        odd = simd::fma(d[2 * k + 1], c(f.poly[i][k]), odd);
      }
      t[2 * i + 1] = simd::fma(odd, c(f.power[i][1]), even);
      t[2 * i + 2] = simd::fnma(odd, c(f.power[i][1]), even);
    }
  }

  /// y = At m.
  FACENET_INLINE static void at(const vf* m, vf* y) noexcept {
    constexpr Factors f = factors();
    Array<vf, pairs> sum, difference;
    FACENET_UNROLL
    for (int i = 0; i < pairs; ++i) {
      sum[i] = simd::add(m[2 * i + 1], m[2 * i + 2]);
      difference[i] = simd::sub(m[2 * i + 1], m[2 * i + 2]);
    }
    FACENET_UNROLL
    for (int r = 0; r < outputs; ++r) {
      const vf* from = r % 2 == 0 ? sum : difference;
      vf v = r == 0 ? simd::add(m[0], from[0]) : simd::mul(from[0], c(f.power[0][r]));
      FACENET_UNROLL
      for (int i = 1; i < pairs; ++i) v = r == 0 ? simd::add(v, from[i]) : simd::fma(from[i], c(f.power[i][r]), v);
      y[r] = r == outputs - 1 ? simd::add(v, m[points - 1]) : v;
    }
  }
};

/// An axis along which nothing is convolved.
struct Identity {
  static constexpr int outputs = 1, taps = 1, stride = 1, points = 1;
  struct Matrix {
    double at[1][1];
  };
  static constexpr Matrix g() noexcept { return {{{1}}}; }
  FACENET_INLINE static void bt(const vf* d, vf* t) noexcept { t[0] = d[0]; }
  FACENET_INLINE static void at(const vf* m, vf* y) noexcept { y[0] = m[0]; }
};

// Points chosen by measuring float32 against double on random data (docs/kernels.md): relative errors 3.3e-7 for F(4,
// 3) (the usual 1, 2: 5.5e-7) and 1.7e-6 for F(4, 7), where direct sums have 2.7e-7 and 3.9e-7.
struct Points43 {
  static constexpr int outputs = 4, taps = 3;
  static constexpr double p[] = {0.625, 1.25};
};
struct Points47 {
  static constexpr int outputs = 4, taps = 7;
  static constexpr double p[] = {0.5, 0.75, 1.25, 2.5};
};
struct Points63 {
  static constexpr int outputs = 6, taps = 3;
  static constexpr double p[] = {0.5, 1, 2};
};
struct Points32 {
  static constexpr int outputs = 3, taps = 2;
  static constexpr double p[] = {1};
};

/// Stride 2: the outer taps of three meet the even inputs, which is F(3, 2), and the middle tap the odd ones, a product
/// for each output. So 7 inputs and 7 products give 3 outputs, which take 9 products directly; in the plane 49 for 81.
struct Strided {
  using Even = Toom<Points32>;
  static constexpr int outputs = 3, taps = 3, stride = 2, points = 7;
  struct Matrix {
    Array<Array<double, taps>, points> at;
  };
  static constexpr Matrix g() noexcept {
    constexpr typename Even::Matrix even = Even::g();
    Matrix m{};
    for (int i = 0; i < Even::points; ++i) {
      m.at[i][0] = even.at[i][0];
      m.at[i][2] = even.at[i][1];
    }
    for (int i = Even::points; i < points; ++i) m.at[i][1] = 1;
    return m;
  }
  FACENET_INLINE static void bt(const vf* d, vf* t) noexcept {
    const vf even[] = {d[0], d[2], d[4], d[6]};
    Even::bt(even, t);
    t[4] = d[1], t[5] = d[3], t[6] = d[5];
  }
  FACENET_INLINE static void at(const vf* m, vf* y) noexcept {
    Even::at(m, y);
    FACENET_UNROLL
    for (int r = 0; r < outputs; ++r) y[r] = simd::add(y[r], m[Even::points + r]);
  }
};

template <class Y, class X>
struct Transform {
  using Rows = Y;
  using Columns = X;
  static constexpr int points = Y::points * X::points;
  static constexpr bool prelu = true;  // as well as ReLU
};
/// A form that ends in ReLU only: networks with PReLU are too small for it, and its code is some kilobytes.
template <class Y, class X>
struct ReluTransform : Transform<Y, X> {
  static constexpr bool prelu = false;
};
using F4x4_3x3 = Transform<Toom<Points43>, Toom<Points43>>;
using F6x6_3x3 = ReluTransform<Toom<Points63>, Toom<Points63>>;
using F3x3_stride_2 = ReluTransform<Strided, Strided>;
using F4_1x7 = Transform<Identity, Toom<Points47>>;
using F4_7x1 = Transform<Toom<Points47>, Identity>;

// ---- The convolution ------------------------------------------------------------------------------------------------

struct WinogradArgs {
  ConstTensorView in;
  int pad_h = 0, pad_w = 0;
  TensorView out;
  const void* weights = nullptr;  // [panel][point][cin][simd::panel] of float or Half
  bool half = false;
  Int8Weights int8;             // used instead where set
  const float* bias = nullptr;  // bias_stride floats a panel: its biases, then PReLU's slopes
  int bias_stride = simd::panel;
  EpilogueKind epilogue = EpilogueKind::bias_relu;  // or bias_prelu where the form has that
};

/// Tiles of outputs that n images of `out` take.
template <class T>
constexpr int winograd_tiles(Shape out, int n = 1) noexcept {
  return n * ((out.h + T::Rows::outputs - 1) / T::Rows::outputs) *
         ((out.w + T::Columns::outputs - 1) / T::Columns::outputs);
}
/// Tiles in one chunk at the most: the transformed input then takes about 300 KB, but a chunk is never less than two
/// register tiles, or twelve rows: each chunk reads all weights.
constexpr int winograd_block(int points, int cin) noexcept {
  const int fit = 300 * 1024 / (points * cin * 4) / simd::tile_rows * simd::tile_rows;
  constexpr int least = 2 * simd::tile_rows + 2 < 12 ? 12 : 2 * simd::tile_rows + 2;
  return fit < least ? least : fit > 96 ? 96 : fit;
}
/// Floats of scratch memory a chunk needs: a zero pixel, the transformed input, and the products of one panel; with
/// int8 weights also winograd_expanded().
constexpr std::int64_t winograd_scratch(int points, int cin) noexcept {
  return static_cast<std::int64_t>(round_up(static_cast<std::size_t>(cin), 16)) +
         std::int64_t{points} * winograd_block(points, cin) * (cin + simd::panel);
}

/// One panel of transformed int8 weights, and the weights themselves.
constexpr std::int64_t winograd_expanded(int points, int taps, int cin) noexcept {
  return std::int64_t{points + taps} * cin * simd::panel;
}

/// A weight of each output channel of a panel: side by side, so that loops over them are vectors.
using Lanes = Array<double, simd::panel>;
constexpr int most_winograd_taps = 9;     // 3x3
constexpr int most_winograd_points = 64;  // F(6x6, 3x3)

/// G of both axes, row by row: what winograd_weights() knows of a form, so that all share its code.
struct WinogradFactors {
  const double *y, *x;
  int y_points, y_taps, x_points, x_taps;
  constexpr int taps() const noexcept { return y_taps * x_taps; }
  constexpr int points() const noexcept { return y_points * x_points; }
};
template <class T>
FACENET_HIDDEN inline WinogradFactors winograd_factors() noexcept {
  using Y = typename T::Rows;
  using X = typename T::Columns;
  static_assert(Y::taps * X::taps <= most_winograd_taps, "winograd_weights() has room for these");
  static constexpr typename Y::Matrix gy = Y::g();
  static constexpr typename X::Matrix gx = X::g();
  return {&gy.at[0][0], &gx.at[0][0], Y::points, Y::taps, X::points, X::taps};
}

/// Winograd's factors as constants, for weights that are expanded at every run: an embedding takes 36 ms, not 53
/// (AVX-512).
template <class T>
struct FixedWinogradFactors {
  using Y = typename T::Rows;
  using X = typename T::Columns;
  FACENET_HIDDEN static constexpr typename Y::Matrix gy = Y::g();
  FACENET_HIDDEN static constexpr typename X::Matrix gx = X::g();
  static constexpr const double *y = &gy.at[0][0], *x = &gx.at[0][0];
  static constexpr int y_points = Y::points, y_taps = Y::taps, x_points = X::points, x_taps = X::taps;
};

/// U = Gy g Gxt of one input channel and a panel of output channels, in double: g[tap] -> U[point], `stride` elements
/// apart, simd::panel each.
template <class F, class W>
FACENET_INLINE void winograd_weights(const F& f, const Lanes* g, W* u, std::int64_t stride) noexcept {
  // sum = row[0] x[0] + row[1] x[step] + …, in that order.
  const auto dot = [](const double* row, const Lanes* x, int count, int step, Lanes& sum) {
    FACENET_UNROLL
    for (int j = 0; j < simd::panel; ++j) sum[j] = 0;
    for (int k = 0; k < count; ++k, x += step) {
      FACENET_UNROLL
      for (int j = 0; j < simd::panel; ++j) sum[j] += row[k] * (*x)[j];
    }
  };
  for (int y = 0; y < f.y_points; ++y) {
    Array<Lanes, most_winograd_taps> part;
    for (int x = 0; x < f.x_taps; ++x) dot(f.y + y * f.y_taps, g + x, f.y_taps, f.x_taps, part[x]);
    for (int x = 0; x < f.x_points; ++x, u += stride) {
      Lanes sum;
      dot(f.x + x * f.x_taps, &part[0], f.x_taps, 1, sum);
      FACENET_UNROLL
      for (int j = 0; j < simd::panel; ++j) {
        if constexpr (std::is_same_v<W, Half>)
          u[j] = simd::float_to_half(static_cast<float>(sum[j]));
        else
          u[j] = static_cast<float>(sum[j]);
      }
    }
  }
}

/// Transforms panel p of OIHW weights, packed [panel][point][cin][simd::panel].
template <class W>
FACENET_NOINLINE inline void pack_winograd_panel(const WinogradFactors& f, const float* oihw, int n, int cin,
                                                 float scale, W* out, int p) noexcept {
  const std::int64_t row = std::int64_t{cin} * f.taps();  // weights of one output channel
  const float* from = oihw + std::int64_t{p} * simd::panel * row;
  W* to = out + std::int64_t{p} * f.points() * cin * simd::panel;
  Array<Lanes, most_winograd_taps> g = {};
  for (int c = 0; c < cin; ++c, from += f.taps(), to += simd::panel) {
    for (int j = 0; j < simd::panel && p * simd::panel + j < n; ++j)
      for (int k = 0; k < f.taps(); ++k) g[k][j] = static_cast<double>(from[j * row + k] * scale);
    winograd_weights(f, &g[0], to, std::int64_t{cin} * simd::panel);
  }
}
/// All panels of a layer.
template <class T, class W>
inline void pack_winograd(const float* oihw, int n, int cin, float scale, W* out) noexcept {
  for (int p = 0; p < panels(n); ++p) pack_winograd_panel(winograd_factors<T>(), oihw, n, cin, scale, out, p);
}

/// Transforms one panel of int8 weights; floats: taps * cin * simd::panel of scratch memory.
template <class T>
inline void expand_winograd(const Int8Weights& w, int panel, float* floats, float* out) noexcept {
  constexpr int taps = T::Rows::taps * T::Columns::taps;
  expand_panel({w.at, w.scale, w.n, w.cin * taps, 1}, panel * simd::panel, simd::panel, 1, floats);
  for (int c = 0; c < w.cin; ++c) {
    Array<Lanes, most_winograd_taps> g;
    for (int k = 0; k < taps; ++k)
      for (int j = 0; j < simd::panel; ++j) g[k][j] = static_cast<double>(*floats++);
    winograd_weights(FixedWinogradFactors<T>{}, &g[0], out + std::int64_t{c} * simd::panel,
                     std::int64_t{w.cin} * simd::panel);
  }
}

namespace detail {

// The rows and columns of a tile: 12 KB of a WebAssembly module, where the values between them are in memory anyway.
#if defined(FACENET_ISA_WASM)
#  define FACENET_UNROLL_ROWS _Pragma("clang loop unroll(disable)")
#else
#  define FACENET_UNROLL_ROWS FACENET_UNROLL
#endif

/// V = Bt d B of one tile, `stride` floats from a point to the next.
template <class T>
inline void winograd_input(const float* const* pixel, int cin, float* v, std::int64_t stride) noexcept {
  using Y = typename T::Rows;
  using X = typename T::Columns;
  for (int c = 0; c < cin; c += simd::width) {
    Array<Array<vf, X::points>, Y::points> t;
    FACENET_UNROLL_ROWS
    for (int x = 0; x < X::points; ++x) {
      Array<vf, Y::points> d, r;
      FACENET_UNROLL
      for (int y = 0; y < Y::points; ++y) d[y] = simd::load(pixel[X::points * y + x] + c);
      Y::bt(d, r);
      FACENET_UNROLL
      for (int y = 0; y < Y::points; ++y) t[y][x] = r[y];
    }
    FACENET_UNROLL_ROWS
    for (int y = 0; y < Y::points; ++y) {
      Array<vf, X::points> r;
      X::bt(t[y], r);
      FACENET_UNROLL
      for (int x = 0; x < X::points; ++x) simd::store(v + (X::points * y + x) * stride + c, r[x]);
    }
  }
}

/// Y = epilogue(At M A) of one tile and one vector of channels, to the rows x columns that exist.
template <class T, class E>
inline void winograd_output(const float* m, std::int64_t stride, const float* bias, float* out, std::int64_t row_stride,
                            std::int64_t pixel_stride, int rows, int columns) noexcept {
  using Y = typename T::Rows;
  using X = typename T::Columns;
  Array<Array<vf, X::points>, Y::outputs> t;
  FACENET_UNROLL_ROWS
  for (int x = 0; x < X::points; ++x) {
    Array<vf, Y::points> d;
    Array<vf, Y::outputs> r;
    FACENET_UNROLL
    for (int y = 0; y < Y::points; ++y) d[y] = simd::load(m + (X::points * y + x) * stride);
    Y::at(d, r);
    FACENET_UNROLL
    for (int y = 0; y < Y::outputs; ++y) t[y][x] = r[y];
  }
  for (int y = 0; y < rows; ++y) {
    Array<vf, X::outputs> r;
    X::at(t[y], r);
    float* to = out + y * row_stride;
    for (int x = 0; x < columns; ++x, to += pixel_stride) simd::store(to, E::apply(r[x], bias, to));
  }
}

#undef FACENET_UNROLL_ROWS

/// What a chunk knows of a form, so that all share its code.
struct WinogradForm {
  struct Axis {
    int outputs, points, stride;
  };
  Axis y, x;
  void (*input)(const float* const*, int, float*, std::int64_t) noexcept;
  void (*relu)(const float*, std::int64_t, const float*, float*, std::int64_t, std::int64_t, int, int) noexcept;
  decltype(relu) prelu;  // null: the form has none
  void (*expand)(const Int8Weights&, int, float*, float*) noexcept;

  constexpr int points() const noexcept { return y.points * x.points; }
};
template <class T>
FACENET_HIDDEN inline const WinogradForm& winograd_form() noexcept {
  using Y = typename T::Rows;
  using X = typename T::Columns;
  constexpr auto prelu = [] {
    if constexpr (T::prelu)
      return &winograd_output<T, BiasPRelu>;
    else
      return nullptr;
  };
  constexpr auto expand = [] {
    if constexpr (may_keep_int8)
      return &expand_winograd<T>;
    else
      return nullptr;
  };
  static constexpr WinogradForm form{{Y::outputs, Y::points, Y::stride},
                                     {X::outputs, X::points, X::stride},
                                     winograd_input<T>,
                                     winograd_output<T, BiasRelu>,
                                     prelu(),
                                     expand()};
  return form;
}

template <class W>
inline void winograd_chunk(const WinogradForm& form, const WinogradArgs& g, int t0, int t1, int p0, int p1,
                           float* scratch) noexcept {
  const WinogradForm::Axis y_axis = form.y, x_axis = form.x;
  const int points = form.points();
  const int cin = g.in.shape.c, tiles = t1 - t0;
  const Shape grid{(g.out.shape.h + y_axis.outputs - 1) / y_axis.outputs,
                   (g.out.shape.w + x_axis.outputs - 1) / x_axis.outputs, 1};
  float* zeros = scratch;
  float* v = scratch + round_up(static_cast<std::size_t>(cin), 16);
  float* m = v + std::int64_t{points} * tiles * cin;
  float* expanded = scratch + winograd_scratch(points, cin);
  std::memset(zeros, 0, static_cast<std::size_t>(cin) * sizeof(float));

  PixelWalk at(t0, grid);
  for (int t = 0; t < tiles; ++t, at.next()) {
    Array<const float*, most_winograd_points> pixel;
    for (int y = 0; y < y_axis.points; ++y)
      for (int x = 0; x < x_axis.points; ++x) {
        const int yy = y_axis.stride * y_axis.outputs * at.y + y - g.pad_h,
                  xx = x_axis.stride * x_axis.outputs * at.x + x - g.pad_w;
        const bool inside = yy >= 0 && xx >= 0 && yy < g.in.shape.h && xx < g.in.shape.w;
        pixel[x_axis.points * y + x] = inside ? g.in.pixel(at.image, yy, xx) : zeros;
      }
    form.input(pixel, cin, v + std::int64_t{t} * cin, std::int64_t{tiles} * cin);
  }

  const std::int32_t no_offset = 0;
  const Runs runs{&no_offset, 1, cin};
  for (int p = p0; p < p1; ++p) {
    const W* u = static_cast<const W*>(g.weights) + std::int64_t{p} * points * cin * simd::panel;
    if constexpr (std::is_same_v<W, float>)
      if (may_keep_int8 && g.int8.at != nullptr) {
        form.expand(g.int8, p, expanded, expanded + g.int8.taps * std::int64_t{cin} * simd::panel);
        u = expanded + g.int8.taps * std::int64_t{cin} * simd::panel;
      }
    for (int i = 0; i < points; ++i, u += std::int64_t{cin} * simd::panel) {
      PrefetchCursor ahead = prefetch_next_panel(u, std::int64_t{cin} * simd::panel, tiles, simd::panel);
      balanced_tiles(tiles, [&](int first, int rows) {
        const float* a[simd::tile_rows];
        float* c[simd::tile_rows];
        for (int r = 0; r < rows; ++r) {
          a[r] = v + (std::int64_t{i} * tiles + first + r) * cin;
          c[r] = m + (std::int64_t{i} * tiles + first + r) * simd::panel;
        }
        tile_for<Plain, W>(rows, simd::panel)(a, runs, u, g.bias, c, simd::panel, ahead);
        ahead.from += ahead.step * cin;
      });
    }
    const int channel = p * simd::panel, left = g.out.shape.c - channel;
    PixelWalk to(t0, grid);
    for (int t = 0; t < tiles; ++t, to.next()) {
      const int y = y_axis.outputs * to.y, x = x_axis.outputs * to.x, rows = g.out.shape.h - y,
                columns = g.out.shape.w - x;
      for (int j = 0; j < simd::panel && j < left; j += simd::width) {
        const auto output = g.epilogue == EpilogueKind::bias_prelu ? form.prelu : form.relu;
        output(m + std::int64_t{t} * simd::panel + j, std::int64_t{tiles} * simd::panel, g.bias + p * g.bias_stride + j,
               g.out.pixel(to.image, y, x) + channel + j, g.out.row_stride, g.out.pixel_stride,
               rows < y_axis.outputs ? rows : y_axis.outputs, columns < x_axis.outputs ? columns : x_axis.outputs);
      }
    }
  }
}

}  // namespace detail

/// Computes tiles [t0, t1), t1 - t0 <= winograd_block(T::points, cin), of panels [p0, p1), with bias and ReLU or PReLU.
/// Requires cin and the output's channels to be multiples of simd::width; scratch: winograd_scratch floats.
template <class T>
inline void winograd_chunk(const WinogradArgs& g, int t0, int t1, int p0, int p1, float* scratch) noexcept {
  if constexpr (simd::half_in_memory)
    if (g.half) return detail::winograd_chunk<Half>(detail::winograd_form<T>(), g, t0, t1, p0, p1, scratch);
  return detail::winograd_chunk<float>(detail::winograd_form<T>(), g, t0, t1, p0, p1, scratch);
}

}  // namespace kernels

FACENET_END
