// Every kernel against reference.hpp over generated shapes, all tails included.
#include <doctest/doctest.h>

#include "support.hpp"

using namespace support;

namespace {

// This value surrounds every output: a stray write, or a read of what was never written, shows.
constexpr float untouched = -12345.5f;

/// A convolution with everything that can differ from the plain case.
struct Case {
  int cin, cout, h, w;
  Window window;
  int n = 1;
  int in_extra = 0, out_extra = 0;  // channels that the tensors are wider: slices of a concatenation
  kernels::EpilogueKind epilogue = kernels::EpilogueKind::bias_relu;
  bool half = false;
  int panel = simd::panel;
};

void check_conv(const Case& k, unsigned seed) {
  CAPTURE(k.cin);
  CAPTURE(k.cout);
  CAPTURE(k.h);
  CAPTURE(k.w);
  CAPTURE(k.n);
  CAPTURE(static_cast<int>(k.epilogue));
  CAPTURE(k.half);
  CAPTURE(k.panel);
  Random random(seed);
  const Window& w = k.window;
  const int oh = w.out(k.h, w.kh, w.pad_h), ow = w.out(k.w, w.kw, w.pad_w), pc = k.cin + k.in_extra;
  // The input, inside a halo of zeros.
  const int hh = k.h + 2 * w.pad_h, hw = k.w + 2 * w.pad_w;
  std::vector<float> in(z(std::int64_t{k.n} * hh * hw * pc));
  TensorView inside{in.data(), {k.h, k.w, k.cin}, k.n, pc, std::int64_t{hw} * pc, std::int64_t{hh} * hw * pc};
  inside.data += w.pad_h * inside.row_stride + w.pad_w * inside.pixel_stride;
  for (int i = 0; i < k.n; ++i)
    for (int y = 0; y < k.h; ++y)
      for (int x = 0; x < k.w; ++x)
        for (int c = 0; c < k.cin; ++c) inside.pixel(i, y, x)[c] = random();
  std::vector<float> weight(z(std::int64_t{k.cout} * k.cin * w.kh * w.kw)), bias(z(k.cout)), slope(z(k.cout));
  random.fill(weight);
  random.fill(bias);
  random.fill(slope);
  std::vector<float> exact_weight = weight;
  if (k.half)
    for (float& x : exact_weight) x = simd::half_to_float(simd::float_to_half(x));

  const int count = kernels::panels(k.cout, k.panel);
  const std::int64_t depth = std::int64_t{k.cin} * w.kh * w.kw;
  std::vector<float> packed(z(count * depth * k.panel));
  std::vector<Half> packed_half(packed.size());
  if (k.half)
    kernels::pack_panels(weight.data(), {k.cout, k.cin, w.taps(), k.panel}, 1.0f, packed_half.data());
  else
    kernels::pack_panels(weight.data(), {k.cout, k.cin, w.taps(), k.panel}, 1.0f, packed.data());
  const int stride = k.epilogue == kernels::EpilogueKind::bias_prelu ? 2 * simd::panel : simd::panel;
  std::vector<float> packed_bias(z(std::int64_t{count} * stride));
  for (int c = 0; c < k.cout; ++c) {
    packed_bias[z(c / k.panel * stride + c % k.panel)] = bias[z(c)];
    if (stride > simd::panel)
      packed_bias[z(c / k.panel * stride + c % k.panel + kernels::BiasPRelu::slope_offset)] = slope[z(c)];
  }
  std::vector<std::int32_t> runs;
  const bool dense = k.in_extra == 0;
  for (int y = 0; y < w.kh; ++y)
    for (int x = 0; x < (dense ? 1 : w.kw); ++x) runs.push_back(static_cast<std::int32_t>((y * hw + x) * pc));

  const int opc = k.cout + k.out_extra;
  std::vector<float> out(z(std::int64_t{k.n} * oh * ow * opc), untouched);
  const TensorView to{out.data(), {oh, ow, k.cout}, k.n, opc, std::int64_t{ow} * opc, std::int64_t{oh} * ow * opc};
  const bool residual =
      k.epilogue == kernels::EpilogueKind::bias_residual || k.epilogue == kernels::EpilogueKind::bias_residual_relu;
  std::vector<float> before = out;
  if (residual)
    for (int i = 0; i < k.n * oh * ow; ++i)
      for (int c = 0; c < k.cout; ++c) before[z(i * opc + c)] = out[z(i * opc + c)] = random();

  kernels::ConvArgs g;
  g.in = inside;
  g.in.data -= w.pad_h * inside.row_stride + w.pad_w * inside.pixel_stride;
  g.stride = w.stride();
  g.out = {oh, ow, k.cout};
  g.runs = {runs.data(), static_cast<int>(runs.size()), static_cast<int>(dense ? w.kw * k.cin : k.cin)};
  g.weights = k.half ? static_cast<const void*>(packed_half.data()) : packed.data();
  g.half = k.half;
  g.panel = k.panel;
  g.bias = packed_bias.data();
  g.bias_stride = stride;
  g.segments[0].out = to;
  g.segments[0].epilogue = k.epilogue;
  // Uneven cuts of pixels and panels: every output exactly once.
  for (int m = 0; m < g.pixels();) {
    const int m1 = std::min(g.pixels(), m + random.integer(1, kernels::conv_block));
    for (int p = 0; p < count;) {
      const int p1 = std::min(count, p + random.integer(1, 3));
      kernels::conv_chunk(g, m, m1, p, p1);
      p = p1;
    }
    m = m1;
  }
  int bad = 0, stray = 0;
  for (int i = 0; i < k.n; ++i)
    for (int y = 0; y < oh; ++y)
      for (int x = 0; x < ow; ++x) {
        for (int c = 0; c < k.cout; ++c) {
          const auto s = reference::conv_at(inside, i, exact_weight.data(), bias.data(), w, y, x, c);
          const std::int64_t at = (std::int64_t{i} * oh * ow + y * ow + x) * opc + c;
          double want = s.value, magnitude = s.magnitude;
          if (residual)
            want += static_cast<double>(before[z(at)]), magnitude += std::fabs(static_cast<double>(before[z(at)]));
          if (k.epilogue == kernels::EpilogueKind::bias_relu || k.epilogue == kernels::EpilogueKind::bias_residual_relu)
            want = std::fmax(want, 0.0);
          if (k.epilogue == kernels::EpilogueKind::bias_prelu && want < 0) want *= static_cast<double>(slope[z(c)]);
          if (!(std::fabs(static_cast<double>(out[z(at)]) - want) <= sum_tolerance(depth + 1, magnitude))) ++bad;
        }
        for (int c = k.cout; c < opc; ++c)
          stray += out[z((std::int64_t{i} * oh * ow + y * ow + x) * opc + c)] != untouched;
      }
  CHECK(bad == 0);
  CHECK(stray == 0);
}

struct Pad {
  int h, w;
};

template <class T>
void check_winograd(int cin, int cout, int h, int w, Pad pad, int n, bool half, unsigned seed, bool prelu = false) {
  CAPTURE(cin);
  CAPTURE(cout);
  CAPTURE(h);
  CAPTURE(w);
  CAPTURE(half);
  CAPTURE(prelu);
  using Y = typename T::Rows;
  using X = typename T::Columns;
  Random random(seed);
  const int oh = (h + 2 * pad.h - Y::taps) / Y::stride + 1, ow = (w + 2 * pad.w - X::taps) / X::stride + 1;
  const int pc = cin + simd::width, opc = cout + 3;
  std::vector<float> in(z(std::int64_t{n} * h * w * pc)), out(z(std::int64_t{n} * oh * ow * opc), untouched);
  random.fill(in);
  // Each panel's biases, and after them its slopes.
  const int stride = prelu ? 2 * simd::panel : simd::panel;
  std::vector<float> weight(z(std::int64_t{cout} * cin * Y::taps * X::taps)),
      packed_bias(z(kernels::panels(cout) * stride));
  random.fill(weight);
  random.fill(packed_bias);
  std::vector<float> bias(z(cout)), slope(z(cout));
  for (int c = 0; c < cout; ++c) {
    bias[z(c)] = packed_bias[z(c / simd::panel * stride + c % simd::panel)];
    if (prelu)
      slope[z(c)] = packed_bias[z(c / simd::panel * stride + c % simd::panel + kernels::BiasPRelu::slope_offset)];
  }
  kernels::WinogradArgs g;
  g.epilogue = prelu ? kernels::EpilogueKind::bias_prelu : kernels::EpilogueKind::bias_relu;
  g.bias_stride = stride;
  g.in = {in.data(), {h, w, cin}, n, pc, std::int64_t{w} * pc, std::int64_t{h} * w * pc};
  g.out = {out.data(), {oh, ow, cout}, n, opc, std::int64_t{ow} * opc, std::int64_t{oh} * ow * opc};
  g.pad_h = pad.h;
  g.pad_w = pad.w;
  const std::size_t size = z(std::int64_t{kernels::panels(cout)} * T::points * cin * simd::panel);
  std::vector<float> packed(size);
  std::vector<Half> packed_half(size);
  kernels::pack_winograd<T>(weight.data(), cout, cin, 1.0f, packed.data());
  kernels::pack_winograd<T>(weight.data(), cout, cin, 1.0f, packed_half.data());
  std::vector<float> rounded(size);  // what the half weights stand for
  for (std::size_t i = 0; i < size; ++i) rounded[i] = simd::half_to_float(packed_half[i]);
  g.bias = packed_bias.data();
  std::vector<float> scratch(z(kernels::winograd_scratch(T::points, cin)), untouched);
  const int tiles = kernels::winograd_tiles<T>(g.out.shape, n), block = kernels::winograd_block(T::points, cin);
  const auto run = [&](const void* weights, bool as_half) {
    g.weights = weights;
    g.half = as_half;
    for (int t = 0; t < tiles;) {
      const int t1 = std::min(tiles, t + random.integer(1, block));
      for (int p = 0; p < kernels::panels(cout); ++p) kernels::winograd_chunk<T>(g, t, t1, p, p + 1, scratch.data());
      t = t1;
    }
  };
  if (half) {
    run(rounded.data(), false);
    const std::vector<float> want = out;
    std::fill(out.begin(), out.end(), untouched);
    run(packed_half.data(), true);
    CHECK(out == want);  // half weights are expanded exactly, so the bits are those of the rounded weights
  } else {
    run(packed.data(), false);
  }
  // Products and sums in the transformed domain are larger than the outputs by |At||G||Bt|, and each of the three
  // transforms rounds: terms of k + about 3 * points. Half weights are rounded to 11 bits after the transform.
  const double growth = axis_growth<Y>() * axis_growth<X>();
  const std::int64_t terms = std::int64_t{cin} + 3 * T::points;
  int bad = 0, stray = 0;
  double worst = 0;
  for (int i = 0; i < n; ++i)
    for (int y = 0; y < oh; ++y)
      for (int x = 0; x < ow; ++x) {
        for (int c = 0; c < cout; ++c) {
          const auto s = reference::conv_at(g.in, i, weight.data(), bias.data(),
                                            facenet::k(Y::taps, X::taps).stride(X::stride).pad(pad.h, pad.w), y, x, c);
          const double got = static_cast<double>(out[z((std::int64_t{i} * oh * ow + y * ow + x) * opc + c)]);
          const double tolerance =
              growth * (half ? 0x1p-11 * s.magnitude : 0) + growth * sum_tolerance(terms, s.magnitude + cin);
          const double error = std::fabs(got - (s.value > 0 ? s.value : s.value * static_cast<double>(slope[z(c)])));
          worst = std::fmax(worst, error / (s.magnitude + 1e-30));
          if (!(error <= tolerance)) ++bad;
        }
        for (int c = cout; c < opc; ++c)
          stray += out[z((std::int64_t{i} * oh * ow + y * ow + x) * opc + c)] != untouched;
      }
  CHECK(bad == 0);
  CHECK(stray == 0);
  // The bound above adds up k + 3 * points roundings of one sign. Those of mixed signs stay below one rounding grown by
  // the form (0.19 of it at the most, F(4, 7) on SSE2); a wrong coefficient is off by 1e-2, over 1e4 times as much.
  if (!half) CHECK(worst < 0.25 * growth * 0x1p-24);
}

}  // namespace

TEST_CASE("every tile height and every width of the last panel") {
  unsigned seed = 1;
  for (int pixels = 1; pixels <= 2 * simd::tile_rows + 1; ++pixels)
    check_conv({5, simd::panel + 3, 1, pixels, k(1)}, seed++);
  for (int cout = 1; cout <= 2 * simd::panel + 1; ++cout) {
    check_conv({7, cout, 2, 3, k(1), 1, 0, 2}, seed++);
    check_conv({3, cout, 3, 3, k(2), 1, 0, 1, kernels::EpilogueKind::bias_prelu, false, simd::width}, seed++);
  }
}

TEST_CASE("every epilogue, float and half weights") {
  unsigned seed = 100;
  for (auto fuse : {kernels::EpilogueKind::bias, kernels::EpilogueKind::bias_relu, kernels::EpilogueKind::bias_prelu,
                    kernels::EpilogueKind::bias_residual, kernels::EpilogueKind::bias_residual_relu})
    for (bool half : {false, simd::half_in_memory})  // elsewhere plans never keep halves, and no kernel reads them
      for (int cout : {simd::panel, simd::panel + simd::width, 2 * simd::panel - 1})
        check_conv({17, cout, 5, 6, k(1), 2, 3, 5, fuse, half}, seed++);
}

TEST_CASE("windows, strides, padding, slices and batches") {
  unsigned seed = 200;
  for (Window w : {k(1), k(3), k(3).stride(2), k(3).pad(1, 1), k(1, 7).pad(0, 3), k(7, 1).pad(3, 0), k(1, 3).pad(0, 1),
                   k(3, 1).pad(1, 0), k(2), k(5).stride(3).pad(2, 1)})
    for (int cin : {1, 3, 8, 19})
      for (int extra : {0, 4}) check_conv({cin, 2 * simd::panel, 9, 11, w, 2, extra, 1}, seed++);
}

TEST_CASE("generated shapes") {
  Random random(7);
  for (unsigned i = 0; i < 150; ++i) {
    const int kh = random.integer(1, 4), kw = random.integer(1, 4);
    Case c{random.integer(1, 40),
           random.integer(1, 70),
           random.integer(kh, 12),
           random.integer(kw, 12),
           k(kh, kw).stride(random.integer(1, 3)).pad(random.integer(0, 2), random.integer(0, 2)),
           random.integer(1, 3)};
    c.in_extra = random.integer(0, 1) * 5;
    c.out_extra = random.integer(0, 3);
    c.epilogue = static_cast<kernels::EpilogueKind>(random.integer(0, 4));
    c.half = random.integer(0, 3) == 0 && simd::half_in_memory;
    const bool narrow =
        !c.half && static_cast<int>(c.epilogue) < static_cast<int>(kernels::EpilogueKind::bias_residual);
    c.panel = narrow && random.integer(0, 1) ? simd::width : simd::panel;
    check_conv(c, 1000 + i);
  }
}

TEST_CASE("Winograd: every form, ragged edges, padding, batches, half weights") {
  unsigned seed = 300;
  const int v = simd::width < 4 ? 4 : simd::width;
  for (bool half : {false, simd::half_in_memory})
    for (int size : {3, 4, 5, 8, 9, 17})
      for (int pad : {0, 1}) check_winograd<kernels::F4x4_3x3>(2 * v, 3 * v, size + 2, size, {pad, 1}, 2, half, seed++);
  for (int size : {1, 3, 8, 13}) {
    check_winograd<kernels::F4_1x7>(2 * v, 3 * v, 3, size, {0, 3}, 2, size == 8 && simd::half_in_memory, seed++);
    check_winograd<kernels::F4_7x1>(2 * v, 3 * v, size, 3, {3, 0}, 2, size == 8 && simd::half_in_memory, seed++);
  }
  for (int size : {3, 6, 8, 13, 17}) {
    const bool half = size == 8 && simd::half_in_memory;
    check_winograd<kernels::F6x6_3x3>(2 * v, 3 * v, size + 2, size, {0, 1}, 2, half, seed++);
    for (int pad : {0, 1})
      check_winograd<kernels::F3x3_stride_2>(2 * v, 3 * v, size + 3, size, {1, pad}, 2, half, seed++);
  }
  check_winograd<kernels::F4x4_3x3>(80, 192, 38, 38, {0, 0}, 1, false, seed++);
  check_winograd<kernels::F3x3_stride_2>(192, 64, 36, 36, {0, 0}, 1, false, seed++);
  for (bool half : {false, simd::half_in_memory})
    check_winograd<kernels::F4x4_3x3>(2 * v, 3 * v, 9, 7, {1, 1}, 2, half, seed++, true);
  check_winograd<kernels::F4_1x7>(2 * v, 2 * simd::panel + v, 3, 9, {0, 3}, 1, false, seed++, true);
}

TEST_CASE("pooling equals the reference: the largest exactly, the mean within its bound") {
  Random random(3);
  for (int i = 0; i < 240; ++i) {
    const bool mean = i % 2 != 0;
    const int extra = mean && i % 3 == 0 ? random.integer(1, simd::width + 1) : 0;  // channels of zeros
    const int kh = random.integer(1, 4), kw = random.integer(1, 4), c = random.integer(1, 2 * simd::width + 3);
    Window w = k(kh, kw).stride(random.integer(1, 3)).pad(random.integer(0, kh / 2), random.integer(0, kw / 2));
    if (random.integer(0, 1)) w = w.ceil();
    const Shape in{random.integer(kh, 11), random.integer(kw, 11), c};
    const Shape out = w.out(in, c + extra);
    // A last window of ceil mode that lies wholly outside is nothing that MTCNN has.
    if ((out.h - 1) * w.stride() - w.pad_h >= in.h || (out.w - 1) * w.stride() - w.pad_w >= in.w) continue;
    const int stride = out.c + 2;
    std::vector<float> x(z(in.size() * 2)), y(z(out.pixels() * 2 * stride), untouched);
    random.fill(x, -3, -1);  // negative, so that a zero that slipped in would win
    const auto from = dense_view<const float>(x.data(), in, 2);
    const TensorView to{y.data(), out, 2, stride, std::int64_t{out.w} * stride, out.pixels() * stride};
    const auto pool = mean ? kernels::avg_pool_rows : kernels::max_pool_rows;
    for (int image = 0; image < 2; ++image)
      for (int row = 0; row < out.h; ++row) pool(from, to, image, w, row, row + 1);
    bool same = true;
    for (int image = 0; image < 2; ++image)
      for (int yy = 0; yy < out.h; ++yy)
        for (int xx = 0; xx < out.w; ++xx) {
          for (int ch = 0; ch < out.c; ++ch) {
            const auto got = static_cast<double>(to.pixel(image, yy, xx)[ch]);
            const auto s = reference::avg_pool_at(from, image, w, yy, xx, ch);
            const auto most = mean ? 0.0f : reference::max_pool_at(from, image, w, yy, xx, ch);
            same = same && (mean ? std::fabs(got - s.value) <= sum_tolerance(w.kh * w.kw, s.magnitude)
                                 : got == static_cast<double>(most));
          }
          same = same && to.pixel(image, yy, xx)[out.c] == untouched;
        }
    CHECK(same);
  }
}

TEST_CASE("average, L2 normalisation, softmax, pixels") {
  Random random(4);
  for (int c : {1, simd::width, 2 * simd::width + 1, 1792}) {
    const Shape shape{3, 5, c};
    std::vector<float> x(z(shape.size())), y(z(c)), n(z(c));
    random.fill(x);
    const auto in = dense_view<const float>(x.data(), shape);
    kernels::global_avg_pool(in, dense_view(y.data(), {1, 1, c}), 0);
    kernels::l2_normalise(x.data(), n.data(), c);
    std::vector<double> exact(z(c));
    reference::l2_normalise(x.data(), exact.data(), c);
    for (int i = 0; i < c; ++i) {
      const auto s = reference::mean_at(in, 0, i);
      CHECK(std::fabs(static_cast<double>(y[z(i)]) - s.value) <= sum_tolerance(15, s.magnitude));
      CHECK(std::fabs(static_cast<double>(n[z(i)]) - exact[z(i)]) <= 0x1p-24 * std::fabs(exact[z(i)]) + 0x1p-149);
    }
  }
  float zeros[4] = {}, out[4] = {1, 1, 1, 1};
  kernels::l2_normalise(zeros, out, 4);
  CHECK(out[0] == 0.0f);
  const float big[3] = {1000, 1001, -1000};
  kernels::softmax(big, out, 3);
  CHECK(out[0] == doctest::Approx(0.268941421).epsilon(1e-6));
  CHECK(out[2] == 0.0f);

  std::uint8_t bytes[3 * 256];
  for (int i = 0; i < 768; ++i) bytes[i] = static_cast<std::uint8_t>(i / 3 + i % 3);
  std::vector<float> f(768);
  kernels::convert_row(bytes, 256, nullptr, false, f.data());
  bool exact = true;
  for (int i = 0; i < 768; ++i) exact = exact && f[z(i)] == (static_cast<float>(bytes[i]) - 127.5f) / 128.0f;
  CHECK(exact);
  kernels::convert_row(bytes, 256, nullptr, true, f.data());
  CHECK(f[0] == (static_cast<float>(bytes[2]) - 127.5f) / 128.0f);
}

TEST_CASE("half precision: every value there and back, ties to even") {
  bool same = true;
  for (unsigned bits = 0; bits < 65536; ++bits) {
    const Half h{static_cast<std::uint16_t>(bits)};
    const float f = simd::half_to_float(h);
    if (f == f) same = same && simd::float_to_half(f).bits == bits;
  }
  CHECK(same);
  CHECK(simd::float_to_half(2049.0f).bits == simd::float_to_half(2048.0f).bits);  // a tie, to the even one
  CHECK(simd::float_to_half(2051.0f).bits == simd::float_to_half(2052.0f).bits);
  CHECK(simd::float_to_half(65520.0f).bits == 0x7c00);
  CHECK(simd::float_to_half(0x1p-25f).bits == 0);
  CHECK(simd::float_to_half(0x1.8p-25f).bits == 1);
}
