// Integer kernels against the scalar oracle of reference.hpp, to the bit: generated shapes with all tails, every
// epilogue, the largest sums. Built for every ISA that the compiler knows; HACKING.md says which of them run where.
#include <doctest/doctest.h>

#include <cstring>
#include <iterator>

#include "facenet/kernels/integer_matrix.hpp"
#include "support.hpp"

#if defined(FACENET_AMX)
#  include <sys/mman.h>
#endif

using namespace support;

namespace {

using facenet::kernels::Activation;
using Kind = kernels::IntegerEpilogue;
namespace integer = facenet::simd::integer;

constexpr int width = simd::width, panel = integer::panel;
// residual, relu, floats, activations
constexpr Kind to_float{false, false, true, false}, to_bytes{false, true, false, true},
    residual{true, false, true, false};
constexpr Kind kinds[] = {to_float,
                          {false, true, true, false},
                          to_bytes,
                          {false, true, true, true},
                          residual,
                          {true, true, true, false},
                          {true, true, true, true}};
constexpr float untouched = -12345.5f;
#if defined(FACENET_AMX)
constexpr int overread = kernels::matrix_overread;  // of weights
#else
constexpr int overread = 0;
#endif

std::uint32_t bits_of(float f) {
  std::uint32_t b;
  std::memcpy(&b, &f, sizeof b);
  return b;
}

/// An activation tensor inside a halo, whose last element is followed by exactly what a tile may read beyond it.
struct Input {
  std::vector<Activation> memory;
  kernels::ActivationView inside;

  /// extreme: 255 and 0 alone.
  Input(int n, Shape s, Window w, int extra, Random& random, bool extreme = false) {
    const int hh = s.h + 2 * w.pad_h, hw = s.w + 2 * w.pad_w, pc = s.c + extra;
    memory.assign(z(std::int64_t{n} * hh * hw * pc + kernels::integer_overread), integer::stored(0));
    inside = {memory.data(), s, n, pc, std::int64_t{hw} * pc, std::int64_t{hh} * hw * pc};
    inside.data += w.pad_h * inside.row_stride + w.pad_w * inside.pixel_stride;
    for (int i = 0; i < n; ++i)
      for (int y = 0; y < s.h; ++y)
        for (int x = 0; x < s.w; ++x)
          for (int c = 0; c < pc; ++c)
            inside.pixel(i, y, x)[c] =
                integer::stored(extreme ? (random.integer(0, 3) != 0 ? 255 : 0) : random.integer(0, 255));
    for (int k = 0; k < kernels::integer_overread; ++k) memory[memory.size() - 1 - z(k)] = integer::stored(255);
  }
};

#if defined(FACENET_AMX)
/// A copy that ends where the memory that may be read ends.
struct Guarded {
  explicit Guarded(const std::vector<Activation>& from) {
    const std::size_t page = 4096, whole = round_up(from.size(), page);
    bytes = whole + page;
    memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(memory != MAP_FAILED);
    REQUIRE(mprotect(static_cast<unsigned char*>(memory) + whole, page, PROT_NONE) == 0);
    at = static_cast<Activation*>(memory) + whole - from.size();
    std::memcpy(at, from.data(), from.size());
  }
  ~Guarded() { munmap(memory, bytes); }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;

  void* memory = nullptr;
  std::size_t bytes = 0;
  Activation* at = nullptr;
};
#endif

/// Magnitudes of weights: what a dot that adds pairs in 16 bits is exact for, just, and what it is not.
enum class Weights { any, largest, fitting, at_bound, past_bound };

std::int8_t weight(Weights kind, std::int64_t channel, Random& random) {
  const int sign = random.integer(0, 1) != 0 ? 1 : -1;
  switch (kind) {
    case Weights::any:
      return static_cast<std::int8_t>(random.integer(-127, 127));
    case Weights::largest:
      return static_cast<std::int8_t>(127 * sign);
    case Weights::fitting:
      return static_cast<std::int8_t>(random.integer(-64, 64));
    default:  // channels side by side are a pair where their number is even
      return static_cast<std::int8_t>(channel % 2 != 0 ? 127 * sign : (kind == Weights::at_bound ? 1 : 2) * sign);
  }
}

/// Weights of one layer, packed, and its constants.
struct Layer {
  std::vector<std::int8_t> oihw, packed;
  std::vector<float> scale, bias, inverse, constants;
  bool pairs_fit = true;

  Layer(const kernels::IntegerPackShape& s, Random& random, Weights weights) {
    const std::int64_t depth = std::int64_t{s.cin} * s.taps;
    oihw.resize(z(s.n * depth));
    for (std::int64_t k = 0; k < s.n * depth; ++k) oihw[z(k)] = weight(weights, k / s.taps % s.cin, random);
    const int count = kernels::panels(s.n, panel);
    packed.assign(z(count * s.panel_bytes() + overread), 99);
    constants.assign(z(std::int64_t{count} * panel * kernels::IntegerScales::rows), 0.0f);
    for (auto* v : {&scale, &bias, &inverse}) v->resize(z(s.n));
    // An output of some 100 in bytes: half of them are below 0, and some are above 255.
    const float typical = 255 * 127 / 3.0f * std::sqrt(static_cast<float>(depth));
    for (int j = 0; j < s.n; ++j) {
      scale[z(j)] = random(0.5f, 1.5f) / typical;
      bias[z(j)] = random(-0.5f, 0.5f);
      inverse[z(j)] = random(50, 200);
    }
    for (int p = 0; p < count; ++p) {
      std::int32_t sums[panel];
      kernels::pack_integer_panel(oihw.data(), s, p, packed.data() + p * s.panel_bytes(), sums);
      pairs_fit = pairs_fit && kernels::pairs_fit(packed.data() + p * s.panel_bytes(), s.panel_bytes());
      float* at = constants.data() + p * panel * kernels::IntegerScales::rows;
      for (int j = 0; j < panel && p * panel + j < s.n; ++j) {
        at[j] = scale[z(p * panel + j)];
        at[panel + j] = bias[z(p * panel + j)];
        at[2 * panel + j] = inverse[z(p * panel + j)];
        const std::int32_t offset = integer::weight_offset() * sums[j];
        std::memcpy(at + 3 * panel + j, &offset, sizeof offset);
      }
    }
  }
};

struct Case {
  int cin, cout, h, w;
  Window window;
  int n = 1, in_extra = 0, out_extra = 0;
  Kind kind = to_bytes;
  Weights weights = Weights::any;
};

void check(const Case& c, unsigned seed) {
  CAPTURE(c.cin);
  CAPTURE(c.cout);
  CAPTURE(c.h);
  CAPTURE(c.w);
  CAPTURE(c.kind.residual);
  CAPTURE(c.kind.relu);
  CAPTURE(c.kind.floats);
  CAPTURE(c.kind.activations);
  Random random(seed);
  const Window& w = c.window;
  Input in(c.n, {c.h, c.w, c.cin}, w, c.in_extra, random, c.weights != Weights::any && c.weights != Weights::fitting);
  const bool whole_rows = c.in_extra == 0;
  const kernels::IntegerPackShape shape{c.cout, c.cin, w.taps(), whole_rows ? w.kw : 1};
  const Layer layer(shape, random, c.weights);
  constexpr bool any_fits = integer::largest_pair == integer::any_pair;
  if (c.weights == Weights::fitting || c.weights == Weights::at_bound)
    CHECK(layer.pairs_fit == integer::host_takes_bytes());
  if (c.weights == Weights::largest || c.weights == Weights::past_bound) CHECK(layer.pairs_fit == any_fits);
  std::vector<std::int32_t> offsets;
  for (int ky = 0; ky < w.kh; ++ky)
    for (int kx = 0; kx < w.kw; kx += whole_rows ? w.kw : 1)
      offsets.push_back(static_cast<std::int32_t>(ky * in.inside.row_stride + kx * in.inside.pixel_stride));

  const Shape out = w.out(Shape{c.h, c.w, c.cin}, c.cout);
  const int oc = c.cout + c.out_extra;
  std::vector<float> f(z(c.n * out.pixels() * oc), untouched);
  std::vector<Activation> q(f.size(), integer::stored(77));
  // What a residual finds there.
  for (std::size_t i = 0; i < f.size(); ++i)
    if (c.kind.residual && static_cast<int>(i % z(oc)) < c.cout) f[i] = random(-1, 1);
  const auto f_before = f;
  const auto q_before = q;

  kernels::IntegerConvArgs g;
  g.in = in.inside;
  g.in.data -= w.pad_h * in.inside.row_stride + w.pad_w * in.inside.pixel_stride;
  g.stride = w.stride();
  g.out = out;
  g.runs = {offsets.data(), static_cast<int>(offsets.size()), shape.run_length()};
  g.weights = layer.packed.data();
  g.pairs_fit = layer.pairs_fit;
  g.scales = layer.constants.data();
  g.segments[0] = {dense_view(f.data(), {out.h, out.w, oc}, c.n), dense_view(q.data(), {out.h, out.w, oc}, c.n), c.cout,
                   0, c.kind};
  {
    const simd::FlushDenormals mode;
    const int count = kernels::panels(c.cout, panel), cut = count / 2;
    for (int m = 0; m < g.pixels(); m += 37) {  // chunks that end anywhere, and heights of every tile
      const int end = m + 37 < g.pixels() ? m + 37 : g.pixels();
      if (cut > 0) kernels::integer_conv_chunk(g, m, end, 0, cut);
      g.pairs_fit = layer.pairs_fit && m % 2 == 0;  // what fits is right by either tile
      kernels::integer_conv_chunk(g, m, end, cut, count);
      g.pairs_fit = layer.pairs_fit;
    }
  }

  int wrong = 0;
  for (std::size_t i = 0; i < f.size(); ++i) {
    const int o = static_cast<int>(i % z(oc));
    float want_f = f_before[i];
    int want_q = integer::activation_of(q_before[i]);
    if (o < c.cout) {
      const int m = static_cast<int>(i / z(oc)), x = m % out.w, y = m / out.w % out.h,
                image = m / static_cast<int>(out.pixels());
      const std::int64_t sum = reference::integer_conv_at<Activation>(
          in.inside, image, layer.oihw.data(), w, y, x, o, [](Activation a) { return integer::activation_of(a); });
      float value = reference::dequantised(sum, layer.scale[z(o)], layer.bias[z(o)]);
      if (c.kind.residual) value = reference::to_nearest(static_cast<double>(want_f) + static_cast<double>(value));
      if (c.kind.relu && !(value > 0)) value = 0;
      if (c.kind.floats) want_f = value;
      if (c.kind.activations) want_q = reference::quantised(value, layer.inverse[z(o)]);
    }
    wrong += bits_of(f[i]) != bits_of(want_f);
    wrong += integer::activation_of(q[i]) != want_q;
  }
  CHECK(wrong == 0);
#if defined(FACENET_AMX)
  if (!integer::amx::granted()) return;
  const Guarded guarded(in.memory);  // sanitizers do not see what assembly reads
  g.in.data = guarded.at + (g.in.data - in.memory.data());
  const auto f_want = f;
  const auto q_want = q;
  f = f_before;
  q = q_before;
  std::vector<unsigned char> gathered(z(kernels::gathered_bytes(shape.depth())), 0xee);  // of the layer before
  g.gathered = gathered.data();
  {
    const simd::FlushDenormals mode;
    const int count = kernels::panels(c.cout, panel), cut = count / 2;
    for (int m = 0; m < g.pixels(); m += 83) {  // two groups of 32, and 19
      const int end = m + 83 < g.pixels() ? m + 83 : g.pixels();
      kernels::integer_matrix_chunk(g, m, end, 0, cut);
      kernels::integer_matrix_chunk(g, m, end, cut, count);
    }
  }
  CHECK(std::memcmp(f.data(), f_want.data(), f.size() * sizeof(float)) == 0);
  CHECK(std::memcmp(q.data(), q_want.data(), q.size() * sizeof(Activation)) == 0);
#endif
}

}  // namespace

TEST_CASE("convolutions of generated shapes, every epilogue, to the bit") {
  MESSAGE("integer kernels: " << std::string(integer::name));
  const Window windows[] = {k(1),          k(3), k(3).pad(1, 1), k(3).stride(2), k(1, 7).pad(0, 3), k(7, 1).pad(3, 0),
                            k(2).stride(2)};
  unsigned seed = 1;
  for (const Window& w : windows)
    for (int cin : {1, 3, 4, 6, 16, 33})
      for (int cout : {1, width + 1, panel, 2 * panel + 3}) {
        const Kind kind = kinds[seed % std::size(kinds)];
        check({cin, cout, 8, 9, w, 1 + static_cast<int>(seed % 2), static_cast<int>(seed % 3),
               static_cast<int>(seed % 4), kind, seed / 2 % 2 == 0 ? Weights::fitting : Weights::any},
              seed);
        ++seed;
      }
}

TEST_CASE("windows as the network has them: whole steps of 64, and what a matrix unit gathers") {
  unsigned seed = 500;
  for (const Window& w : {k(1), k(3), k(3).pad(1, 1), k(3).stride(2), k(1, 7).pad(0, 3), k(7, 1).pad(3, 0)})
    for (int cin : {32, 64, 80, 100})
      for (int side : {3, 8, 11}) {
        if (w.out(Shape{side, side, cin}, 1).h < 1) continue;
        check({cin, panel + 5, side, side, w, 1 + static_cast<int>(seed % 2), 0, 0, kinds[seed % std::size(kinds)],
               seed % 3 == 0 ? Weights::largest : Weights::any},
              seed);
        ++seed;
      }
}

TEST_CASE("every epilogue over whole and broken vectors") {
  unsigned seed = 1000;
  for (Kind kind : kinds)
    for (int cout = 1; cout <= panel + 1; cout += cout < width + 2 ? 1 : width / 2 + 1)
      check({5, cout, 5, 7, k(3).pad(1, 1), 1, 0, 2, kind}, ++seed);
}

TEST_CASE("every height of a tile") {
  for (Weights weights : {Weights::fitting, Weights::largest})
    for (int w = 1; w <= 2 * integer::tile_rows + 1; ++w)
      check({8, panel, 1, w, k(1), 1, 0, 0, to_bytes, weights}, 2000 + static_cast<unsigned>(w));
}

TEST_CASE("pairs of weights at the bound of 16 bits, and past it") {
  for (Weights weights : {Weights::at_bound, Weights::past_bound})
    for (const Window& w : {k(1), k(3).pad(1, 1), k(7, 1).pad(3, 0)})
      for (int cin : {2, 6, 64})
        for (int extra : {0, 1})  // with whole rows of the window side by side, and without
          check({cin, panel + 1, 7, 8, w, 1, extra, 0, to_float, weights}, 2500 + static_cast<unsigned>(cin));
}

TEST_CASE("whether pairs fit") {
  constexpr bool any_fits = integer::largest_pair == integer::any_pair;
  for (int place = 0; place < 256; place += 2)
    for (int order = 0; order < 2; ++order)
      for (int signs = 0; signs < 4; ++signs)
        for (int small : {0, 1, 2, 64, 127}) {
          std::vector<std::int8_t> packed(256, 64);
          packed[z(place + order)] = static_cast<std::int8_t>(signs % 2 != 0 ? -127 : 127);
          packed[z(place + 1 - order)] = static_cast<std::int8_t>(signs / 2 != 0 ? -small : small);
          CHECK(kernels::pairs_fit(packed.data(), 256) == (any_fits || small <= 1));
        }
}

TEST_CASE("sums of the largest weights and activations, of the network's depths, past 2^24") {
  for (Kind kind : {to_float, to_bytes}) {
    check({256, 4, 4, 4, k(3), 1, 0, 0, kind, Weights::largest}, 3000);
    check({320, 4, 4, 4, k(3), 1, 0, 0, kind, Weights::largest}, 3001);
    check({896, 4, 2, 2, k(1), 1, 0, 0, kind, Weights::largest}, 3002);
  }
}

TEST_CASE("the largest depth does not leave 32 bits") {
  const int depth = kernels::max_integer_depth;
  std::vector<Activation> in(z(depth + kernels::integer_overread), integer::stored(255));
  const kernels::IntegerPackShape shape{2, depth, 1, 1};
  std::vector<std::int8_t> oihw(z(2 * std::int64_t{depth}), 127), packed(z(shape.panel_bytes()));
  std::fill(oihw.begin() + depth, oihw.end(), static_cast<std::int8_t>(-127));
  std::int32_t sums[panel];
  kernels::pack_integer_panel(oihw.data(), shape, 0, packed.data(), sums);
  std::vector<float> constants(z(panel * kernels::IntegerScales::rows), 0.0f);
  for (int j = 0; j < 2; ++j) {
    const std::int32_t offset = integer::weight_offset() * sums[j];
    std::memcpy(&constants[z(3 * panel + j)], &offset, sizeof offset);
  }
  std::int32_t out[panel];
  const Activation* a = in.data();
  const std::int32_t zero = 0;
  kernels::integer_tile<kernels::AnyWeights, 1, std::size_t{integer::tile_vectors}>(
      &a, {&zero, 1, depth}, packed.data(), constants.data() + 3 * panel, out);
  const std::int64_t sum = std::int64_t{depth} * 255 * 127;
  CHECK(sum <= 2147483647);
  CHECK(out[0] == sum);
  CHECK(out[1] == -sum);
}

TEST_CASE("activations round to nearest, ties to even") {
  const simd::FlushDenormals mode;
  for (int first = 0; first < 255 * 8; first += width) {
    float x[width];
    Activation q[width];
    for (int i = 0; i < width; ++i) x[i] = static_cast<float>(first + i < 255 * 8 ? first + i : 255 * 8) / 8;
    integer::store_rounded(q, simd::load(x));
    float back[width];
    simd::store(back, integer::load_activations(q));
    for (int i = 0; i < width; ++i) {
      CHECK(integer::activation_of(q[i]) == reference::quantised(x[i], 1));
      CHECK(back[i] == static_cast<float>(integer::activation_of(q[i])));
    }
  }
}

TEST_CASE("two vectors are stored in order, and what is below 0 becomes 0") {
  const simd::FlushDenormals mode;
  for (int first = -16 * width; first < 255 * 8 + 2 * width; first += 2 * width) {
    float x[2 * width];
    Activation q[2 * width];
    for (int i = 0; i < 2 * width; ++i) x[i] = static_cast<float>(first + i < 255 * 8 ? first + i : 255 * 8) / 8;
    integer::store_rounded(q, simd::load(x), simd::load(x + width));
    for (int i = 0; i < 2 * width; ++i) CHECK(integer::activation_of(q[i]) == reference::quantised(x[i], 1));
  }
  for (const float low : {-0.0f, -0.6f, -255.0f, -40000.0f, -3e9f, -3e38f}) {
    float x[2 * width];
    Activation q[2 * width];
    for (int i = 0; i < 2 * width; ++i) x[i] = i % 3 == 1 ? 200.0f : low;
    integer::store_rounded(q, simd::load(x), simd::load(x + width));
    for (int i = 0; i < 2 * width; ++i) CHECK(integer::activation_of(q[i]) == (i % 3 == 1 ? 200 : 0));
  }
}

TEST_CASE("two segments with outputs and epilogues of their own") {
  Random random(4000);
  const int cin = 12, first = panel, second = 5, count = kernels::panels(first + second, panel);
  Input in(1, {6, 5, cin}, k(1), 0, random);
  const kernels::IntegerPackShape shape{first + second, cin, 1, 1};
  const Layer layer(shape, random, Weights::any);
  std::vector<float> f(z(30 * second), untouched);
  std::vector<Activation> q(z(30 * first));
  const std::int32_t zero = 0;
  kernels::IntegerConvArgs g;
  g.in = in.inside;
  g.out = {6, 5, first + second};
  g.runs = {&zero, 1, cin};
  g.weights = layer.packed.data();
  g.pairs_fit = layer.pairs_fit;
  g.scales = layer.constants.data();
  g.segments[0] = {{}, dense_view(q.data(), {6, 5, first}), first, 0, to_bytes};
  g.segments[1] = {dense_view(f.data(), {6, 5, second}), {}, second, 1, to_float};
  g.segment_count = 2;
  {
    const simd::FlushDenormals mode;
    kernels::integer_conv_chunk(g, 0, 30, 0, count);
  }
  for (int m = 0; m < 30; ++m)
    for (int o = 0; o < first + second; ++o) {
      const std::int64_t sum =
          reference::integer_conv_at<Activation>(in.inside, 0, layer.oihw.data(), k(1), m / 5, m % 5, o,
                                                 [](Activation a) { return integer::activation_of(a); });
      const float x = reference::dequantised(sum, layer.scale[z(o)], layer.bias[z(o)]);
      if (o < first)
        CHECK(integer::activation_of(q[z(m * first + o)]) == reference::quantised(x, layer.inverse[z(o)]));
      else
        CHECK(bits_of(f[z(m * second + o - first)]) == bits_of(x));
    }
}
