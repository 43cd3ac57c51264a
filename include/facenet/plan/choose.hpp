// Every decision about how a layer runs: pure functions of shapes, tested by tables. None looks at threads or batch
// when it chooses an algorithm, which is what makes results the same to the bit.
#pragma once

#include "facenet/kernels/winograd.hpp"
#include "facenet/network.hpp"

FACENET_SETUP_BEGIN

// Winograd's larger weights come from memory: tiles that must share them before a form pays. Where arithmetic is slow
// the 4 tiles of an 8x8 output win too (WebAssembly, mixed_7a's 3x3: 2.5 -> 1.2 ms), and so do forms with yet fewer
// products and yet larger weights: F(6x6, 3x3), and stride 2 (5.4 times the weights: 17x17 outputs win, 6.5 -> 6.1 ms
// with FMA and 7.9 -> 7.1 without, 8x8 outputs lose a fifth).
constexpr int no_tiles_are_enough = 1 << 30;
constexpr int least_winograd_tiles = simd::slow_arithmetic ? 4 : 16;
constexpr int least_large_winograd_tiles = simd::slow_arithmetic ? 9 : no_tiles_are_enough;
constexpr int least_strided_winograd_tiles = simd::slow_arithmetic ? 36 : no_tiles_are_enough;

enum class ConvAlgorithm : std::uint8_t {
  automatic,
  direct,
  integer,   // bytes, to the same bits on every ISA: chosen by the file's scales, never by a shape
  in_order,  // what stays float beside it: one product after the other
  winograd_4x4_3x3,
  winograd_4_1x7,
  winograd_4_7x1,
  winograd_6x6_3x3,
  winograd_3x3_stride_2
};

inline const char* name(ConvAlgorithm a) noexcept {
  constexpr const char* names[] = {"automatic", "direct",    "integer",     "in order",     "F(4x4, 3x3)",
                                   "F(4, 1x7)", "F(4, 7x1)", "F(6x6, 3x3)", "F(3x3, 3x3/2)"};
  return names[static_cast<std::size_t>(a)];
}

/// Root mean square rounding error relative to a direct sum's: the table in docs/kernels.md.
constexpr double rounding_factor(ConvAlgorithm a) noexcept {
  switch (a) {
    case ConvAlgorithm::winograd_4x4_3x3:
      return 3.3 / 2.7;
    case ConvAlgorithm::winograd_4_1x7:
    case ConvAlgorithm::winograd_4_7x1:
      return 1.7 / 0.39;
    case ConvAlgorithm::winograd_6x6_3x3:
      return 6.9 / 2.7;
    default:
      return 1;  // stride 2 too: 3.0e-7 where a direct sum had 4.6e-7 on the same data
  }
}

/// What a decision about a convolution may look at.
struct ConvShape {
  Shape in, out;
  Window window;
  bool plain_relu = true;  // ends in bias and ReLU or PReLU, without a residual
  bool prelu = false;
};

/// Calls f with the kernels::Transform of a Winograd algorithm.
template <class F>
constexpr auto with_transform(ConvAlgorithm a, F&& f) noexcept {
  switch (a) {
    case ConvAlgorithm::winograd_4_1x7:
      return f(kernels::F4_1x7{});
    case ConvAlgorithm::winograd_4_7x1:
      return f(kernels::F4_7x1{});
    case ConvAlgorithm::winograd_6x6_3x3:
      return f(kernels::F6x6_3x3{});
    case ConvAlgorithm::winograd_3x3_stride_2:
      return f(kernels::F3x3_stride_2{});
    default:
      return f(kernels::F4x4_3x3{});
  }
}
#if defined(FACENET_NO_WINOGRAD)
constexpr bool is_winograd(ConvAlgorithm) noexcept { return false; }
#else
constexpr bool is_winograd(ConvAlgorithm a) noexcept { return a > ConvAlgorithm::in_order; }
#endif

/// Whether a Winograd form can compute this convolution.
constexpr bool can_run(ConvAlgorithm a, const ConvShape& s) noexcept {
  if (!s.plain_relu || s.in.c % simd::width != 0 || s.out.c % simd::width != 0) return false;
  return with_transform(a, [&](auto t) {
    using Y = typename decltype(t)::Rows;
    using X = typename decltype(t)::Columns;
    constexpr int stride = Y::stride > X::stride ? Y::stride : X::stride;
    if (s.prelu && !decltype(t)::prelu) return false;
    return s.window.kh == Y::taps && s.window.kw == X::taps && s.window.stride() == stride;
  });
}

/// The algorithm for a convolution; `wanted` is returned where it can run, else the direct one; `automatic` takes the
/// fewest products. Winograd's weights are larger and come from memory: a form pays where enough tiles share them. Of
/// this network's layers the 25 tiles of F(4x4, 3x3) over 17x17 win, the 4 over 8x8 do not; none lies between.
constexpr ConvAlgorithm choose_conv(const ConvShape& s, ConvAlgorithm wanted) noexcept {
  using A = ConvAlgorithm;
#if defined(FACENET_NO_WINOGRAD)
  return (void)s, (void)wanted, A::direct;
#else
  if (wanted != A::automatic) return is_winograd(wanted) && can_run(wanted, s) ? wanted : A::direct;
  struct Form {
    A algorithm;
    int least;  // tiles
  };
  constexpr Form forms[] = {{A::winograd_4x4_3x3, least_winograd_tiles},
                            {A::winograd_4_1x7, least_winograd_tiles},
                            {A::winograd_4_7x1, least_winograd_tiles},
                            {A::winograd_6x6_3x3, least_large_winograd_tiles},
                            {A::winograd_3x3_stride_2, least_strided_winograd_tiles}};
  A best = A::direct;
  std::int64_t fewest = INT64_MAX;
  for (const Form& f : forms) {
    if (!can_run(f.algorithm, s)) continue;
    const auto [tiles, products] = with_transform(f.algorithm, [&](auto t) {
      const int n = kernels::winograd_tiles<decltype(t)>(s.out);
      return std::pair<int, std::int64_t>(n, std::int64_t{n} * decltype(t)::points);
    });
    if (tiles < f.least || products >= fewest) continue;
    best = f.algorithm;
    fewest = products;
  }
  return best;
#endif
}

/// Channels in one panel of packed weights: a single vector where a full tile's width would compute over a tenth more,
/// with AVX-512 over a quarter (conv2d_3b of 80 channels: 32 is 6 to 13% faster than 16).
constexpr int choose_panel(int channels, ConvAlgorithm algorithm, bool residual, bool half) noexcept {
  const int wide = kernels::panels(channels) * simd::panel;
  const int narrow = kernels::panels(channels, simd::width) * simd::width;
  const bool able = algorithm == ConvAlgorithm::direct && !residual && !half;
  constexpr int bound = simd::width == 16 ? 25 : 22;  // twentieths
  return able && 20 * wide > bound * narrow ? simd::width : simd::panel;
}

/// How a convolution of `pixels` (or Winograd tiles) x `panels` is cut into chunks: blocks of at most `block` pixels
/// times groups of panels.
struct Chunking {
  int blocks, groups;
  constexpr int count() const noexcept { return blocks * groups; }
};
/// A thread keeps its part of the pixels from layer to layer, so pixels are cut where each thread gets two register
/// tiles or more; else the panels are cut, and each thread reads a part of the weights. Several chunks a thread, so
/// that a slow one does not hold up the rest.
constexpr Chunking choose_chunks(int pixels, int block, int panels, int threads,
                                 int tile_rows = simd::tile_rows) noexcept {
  const auto up = [](int n, int to) { return (n + to - 1) / to * to; };
  const int least = (pixels + block - 1) / block, tiles = (pixels + tile_rows - 1) / tile_rows;
  if (threads == 1) return {least, 1};
  if (tiles >= 16 * threads) return {up(least < 8 * threads ? 8 * threads : least, threads), 1};
  if (tiles >= 8 * threads) return {up(least < 4 * threads ? 4 * threads : least, threads), 1};
  if (pixels >= 8 * threads) return {up(least, threads), panels < 8 ? panels : 8};
  if (panels >= threads) return {least, panels < 8 * threads ? panels : 8 * threads};
  return {pixels < threads ? pixels : up(least, threads), 1};
}

#if defined(FACENET_AMX)
/// How a step is cut for a matrix unit. Each chunk gathers its windows, so panels are cut only where there are fewer
/// groups of `rows` pixels than four a thread, and then into one part a thread.
constexpr Chunking choose_matrix_chunks(int pixels, int block, int panels, int threads, int rows) noexcept {
  const int least = (pixels + block - 1) / block, groups = (pixels + rows - 1) / rows;
  if (threads == 1) return {least, 1};
  if (groups < 4 * threads) return {least, panels < threads ? panels : threads};
  const int wanted = groups < 16 * threads ? threads : 4 * threads;
  return {((least > wanted ? least : wanted) + threads - 1) / threads * threads, 1};
}
#endif

/// How Winograd tiles are cut. Each chunk transforms the input of its tiles, so panels are cut into one group a thread
/// at the most, and only where a register tile or less would be left to each: Block17's 16 tiles share 655 KB of
/// weights.
constexpr Chunking choose_winograd_chunks(int tiles, int block, int panels, int threads) noexcept {
  constexpr int few = 12, many = 96;  // tiles for each thread
  const int least = (tiles + block - 1) / block;
  if (threads == 1) return {least, 1};
  if (tiles <= few * threads && panels >= threads) return {least, threads};
  if (tiles < threads) return {tiles, 1};
  const int wanted = tiles >= many * threads && least < 4 * threads ? 4 * threads : least;
  return {(wanted + threads - 1) / threads * threads, 1};
}

/// How a step is cut where a chunk expands the int8 weights it multiplies with: panels are cut, so that each is
/// expanded once, and pixels only where there are too few panels, into pieces that are still worth an expansion.
constexpr Chunking choose_expanded_chunks(int pixels, int block, int panels, int threads) noexcept {
  if (threads == 1) return {1, 1};
  const int groups = panels < 4 * threads ? panels : 4 * threads;
  const int wanted = (4 * threads + groups - 1) / groups, least = (threads + groups - 1) / groups;
  int blocks = pixels / block < wanted ? pixels / block : wanted;
  if (blocks < least) blocks = least;
  return {blocks < pixels ? blocks : pixels, groups};
}

/// How a layer "in order" is cut: four panels at once, and less only where a thread would have none.
constexpr Chunking choose_in_order_chunks(int panels, int threads) noexcept {
  const int fours = (panels + 3) / 4, least = panels < threads ? panels : threads;
  return {1, fours < least ? least : fours};
}

/// In a batch, early operators run image by image (their activations stay in L2), and from this one on all images'
/// pixels are merged (the weights are read once a batch): the first operator whose weights outweigh `worth` times the
/// activations of one image. 4 in floats. In integers a weight is a byte while the trunk stays float, so eight images'
/// Block17 would leave L2: 16 merges from Mixed_7a on, 5% faster a batch. A matrix unit waits for weights more than for
/// the trunk: 4 again, 5% faster.
constexpr int choose_merge(const Network& n, bool integers = false, bool matrix_unit = false) noexcept {
  const std::int64_t worth = integers && !matrix_unit ? 16 : 4;
  for (int i = 0; i < n.size(); ++i)
    if (has_weights(n[i]) && weight_count(n, n[i]) > worth * (n[n[i].inputs[0]].out.size() + n[i].out.size())) return i;
  return n.size();
}

/// How many threads run an image each where operators run image by image, in lanes of the arena: all, or one lane in
/// which they share each image. In integers lanes take 0.91 of the time (8 images, 2 threads: nobody waits at the end
/// of a step). In floats they gain nothing, since twice the activations leave L2.
constexpr int choose_lanes(int batch, int threads, bool integers) noexcept {
  return integers && threads > 1 && batch >= threads ? threads : 1;
}

FACENET_SETUP_END
