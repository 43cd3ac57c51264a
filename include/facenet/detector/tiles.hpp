// P-Net over the levels of a pyramid, tile by tile.
//
// A level never exists as a whole: a tile of it is resized from the picture's bytes into three planes, kernels/stem.hpp
// does the first convolution and pool, the plan the rest, and all activations stay in the L2 cache. Tiles come in a few
// fixed sizes, so no picture compiles anything, and a tile's outputs have the bits of a plan for the whole level.
#pragma once

#include "facenet/detector/boxes.hpp"
#include "facenet/detector/small_levels.hpp"
#include "facenet/kernels/score.hpp"
#include "facenet/kernels/stem.hpp"
#include "facenet/models/mtcnn.hpp"
#include "facenet/plan.hpp"

FACENET_BEGIN

namespace detail {

// Sides of a tile in P-Net outputs; its input has 2 * side + 10 pixels. 48 x 64 keeps 0.75 MB of activations and fills
// whole blocks of Winograd tiles; the small ones are for the edges. All are multiples of 16, so that Winograd's 4 x 4
// outputs are cut as in the whole level. Over five sizes of pictures these compute 14-24% more than a level without
// overlap would; one size alone 19-29%, and three heights no less.
constexpr int tile_heights[] = {48, 16}, tile_widths[] = {64, 32, 16}, tile_grain = 16;
constexpr int tile_kinds = 2 * 3;

/// A tile's kind is a number: which height, and which width.
constexpr int pyramid_tile_rows(int kind) noexcept { return tile_heights[kind / 3]; }
constexpr int pyramid_tile_columns(int kind) noexcept { return tile_widths[kind % 3]; }
constexpr Network tile_network(int kind) noexcept {
  return models::mtcnn_pnet(2 * pyramid_tile_rows(kind) + 10, 2 * pyramid_tile_columns(kind) + 10);
}

/// The next piece of `left` outputs: the longest side that is no more than them, rounded up to the grain.
template <std::size_t N>
constexpr int choose_side(int left, const int (&sides)[N]) noexcept {
  int i = 0;
  while (sides[i] > (left + tile_grain - 1) / tile_grain * tile_grain) ++i;
  return i;
}

struct PyramidTile {
  std::int32_t level, y, x, kind;  // y, x: the first output
};

/// Covers every level. Errors: limit_exceeded (above 4 M tiles: P-Net would run for a day), out_of_memory.
inline Status cut_into_tiles(const List<Level>& levels, List<PyramidTile>& tiles) noexcept {
  tiles.clear();
  for (std::size_t i = 0; i < levels.size(); ++i) {
    const Level& l = levels[i];
    for (int y = 0, high; y < l.rows; y += tile_heights[high]) {
      high = choose_side(l.rows - y, tile_heights);
      for (int x = 0, wide; x < l.columns; x += tile_widths[wide]) {
        wide = choose_side(l.columns - x, tile_widths);
        if (tiles.size() >= std::size_t{4} << 20)
          return {Errc::limit_exceeded, "min_face is too small for so large a picture"};
        FACENET_TRY(tiles.push({static_cast<std::int32_t>(i), y, x, high * 3 + wide}));
      }
    }
  }
  return {};
}

/// The most tiles that a level with up to so many outputs is cut into: after whole ones of the longest side, two are
/// enough along each.
constexpr std::int64_t most_tiles(const Level& l) noexcept {
  return (std::int64_t{l.rows} / tile_heights[0] + 2) * (std::int64_t{l.columns} / tile_widths[0] + 2);
}

// mtcnn_pnet's operators by number.
constexpr int pnet_conv1 = 1, pnet_pool1 = 2, pnet_conv2 = 3, pnet_conv3 = 4, pnet_logits = 5, pnet_softmax = 6,
              pnet_offsets = 7, pnet_out = 8;
constexpr bool pnet_is(int op, const char* name) noexcept { return models::mtcnn_pnet(12, 12)[op].name == name; }
static_assert(pnet_is(pnet_conv1, "mtcnn.pnet.conv1") && pnet_is(pnet_pool1, "mtcnn.pnet.pool1") &&
                  pnet_is(pnet_conv2, "mtcnn.pnet.conv2") && pnet_is(pnet_logits, "mtcnn.pnet.conv4_1") &&
                  models::mtcnn_pnet(12, 12)[pnet_conv1].out.c == 10 &&
                  pnet_is(pnet_softmax, "mtcnn.pnet.softmax4_1") && pnet_is(pnet_offsets, "mtcnn.pnet.conv4_2") &&
                  pnet_is(pnet_out, "mtcnn.pnet.out"),
              "P-Net has changed");
/// The layers that no plan runs.
struct PnetLayers {
  kernels::PlaneWeights<3, 10> conv1;
  kernels::PlaneWeights<10, 16> conv2;
  float head[6][32], head_bias[6];  // logits against a face and for it, offsets
  float logit[32], logit_bias;      // for it, less that against it

  /// Takes a layer's weights as they are in the file.
  void set(int op, const float* w, const float* b) noexcept {
    if (op == pnet_conv1) conv1.set(w, b);
    if (op == pnet_conv2) conv2.set(w, b);
    if (op != pnet_logits && op != pnet_offsets) return;
    const int first = op == pnet_logits ? 0 : 2, count = op == pnet_logits ? 2 : 4;
    for (int o = 0; o < count; ++o) {
      std::memcpy(head[first + o], w + std::ptrdiff_t{32} * o, sizeof head[0]);
      head_bias[first + o] = b[o];
    }
    if (op != pnet_logits) return;
    for (int c = 0; c < 32; ++c) logit[c] = head[1][c] - head[0][c];
    logit_bias = head_bias[1] - head_bias[0];
  }
};

// Whether the second convolution reads planes: where a vector holds its 16 channels. With two vectors a tile's loads
// are shared, and it is as fast without transposing anything.
constexpr bool pnet_in_planes = simd::width == 16;

/// Working memory for one tile at a time.
struct TileScratch {
  AreaScratch area;
  Buffer<float> planes, pooled;  // pooled: only where pnet_in_planes

  static constexpr int rows() noexcept { return 2 * tile_heights[0] + 10; }
  static constexpr int columns() noexcept { return 2 * tile_widths[0] + 10; }
  static constexpr std::ptrdiff_t stride() noexcept { return columns() + kernels::stem_overrun(); }
  static constexpr std::ptrdiff_t pooled_plane() noexcept {
    return (tile_heights[0] + 4) * (tile_widths[0] + 4) + kernels::conv_planes_overrun();
  }
  /// Once, and again before pictures up to `width` pixels wide. Error: out_of_memory.
  Status reserve(int width, Memory memory = {}) noexcept {
    if (planes.empty())
      FACENET_TRY(allocate_bulk(planes, static_cast<std::size_t>(3 * rows() * stride()), true, memory));
    if (pnet_in_planes && pooled.empty())
      FACENET_TRY(allocate_bulk(pooled, static_cast<std::size_t>(10 * pooled_plane()), true, memory));
    return area.reserve(width, columns(), memory);
  }
};

/// Overwrites what lies outside of the first `rows` x `columns` pixels.
inline void fill_outside(TensorView v, int rows, int columns, float value) noexcept {
  for (int y = 0; y < v.shape.h; ++y) {
    const int x = y < rows ? columns : 0;
    for (float *p = v.pixel(0, y, x), *end = v.pixel(0, y, v.shape.w); p < end; ++p) *p = value;
  }
}

/// The bytes of a picture that the next tile is made of, to be brought nearer while this one is computed: pieces of
/// rows, a picture's row apart, where no hardware looks ahead. Half of the time of resizing was waiting for them.
struct TileSource {
  const std::uint8_t* data = nullptr;
  std::ptrdiff_t stride = 0;
  int rows = 0, bytes = 0;

  static constexpr std::int64_t most = 512 << 10;  // else it would drive this tile out of a L2 cache of 2 MB

  /// Row y of `rows_of_tile` rows.
  void prefetch(int y, int rows_of_tile) const noexcept {
    const std::int64_t first = std::int64_t{rows} * y / rows_of_tile, end = std::int64_t{rows} * (y + 1) / rows_of_tile;
    for (std::int64_t r = first; r < end; ++r)
      for (int at = 0; at < bytes; at += static_cast<int>(cache_line)) simd::prefetch_l2(data + r * stride + at);
  }
};

/// The part of the level that a tile sees.
inline Rect tile_part(const Level& level, int kind, int y, int x) noexcept {
  const auto least = [](int a, int b) { return a < b ? a : b; };
  const int high = 2 * pyramid_tile_rows(kind) + 10, wide = 2 * pyramid_tile_columns(kind) + 10;
  return {2 * x, 2 * y, least(2 * x + wide, level.width), least(2 * y + high, level.height)};
}
inline TileSource source_of(ImageView picture, const Level& level, const PyramidTile& t) noexcept {
  if (simd::width == 1 || level.kept >= 0) return {};  // scalar code does not wait for memory
  const AreaAxis x{picture.width, level.width}, y{picture.height, level.height};
  const Rect part = tile_part(level, t.kind, t.y, t.x);
  const int left = x.begin(part.x0), top = y.begin(part.y0), rows = y.end(part.y1 - 1) - top;
  const int bytes = 3 * (x.end(part.x1 - 1) - left);
  if (std::int64_t{rows} * bytes > TileSource::most) return {};
  return {picture.row(top) + std::ptrdiff_t{3} * left, picture.stride, rows, bytes};
}

/// Runs a tile as far as the layer before the logits. What it has beyond the level's edge is kept from its outputs: the
/// pool ends there (ceil mode), and Winograd's blocks see zeros, as at the edge of a whole level. `kept`: the small
/// levels' pixels; `next`: what comes after it. `resized` is called once the tile's pixels are there.
template <class F>
inline void run_tile(const Plan& plan, Workspace& w, const PnetLayers& layers, ImageView picture, const Level& level,
                     const PyramidTile& t, TileScratch& scratch, const float* kept, TileSource next,
                     F&& resized) noexcept {
  const int y = t.y, x = t.x;
  const Rect part = tile_part(level, t.kind, y, x);
  kernels::Planes pixels{scratch.planes.data(), TileScratch::stride(), TileScratch::stride() * TileScratch::rows(),
                         static_cast<int>(part.height()), static_cast<int>(part.width())};
  if (simd::width == 1 || level.kept < 0) {
    area_pixels(picture, level.width, level.height, part, scratch.area,
                {scratch.planes.data(), pixels.row, 1, pixels.plane});
  } else {
    pixels.row = level.width;
    pixels.plane = std::ptrdiff_t{level.width} * level.height;
    pixels.data = kept + level.kept + part.y0 * pixels.row + part.x0;
  }
  resized();
  const int pools = (pixels.height - 1) / 2;
  const auto ahead = [&](int pool) {
    if constexpr (simd::width > 1) next.prefetch(pool, pools);
  };
  const TensorView conv2 = plan.view(w, pnet_conv2);
  if constexpr (pnet_in_planes) {
    // Past the level's edge there is what an earlier tile left. Only outputs past the edge see it.
    const int wide = conv2.shape.w + 2;
    float* pooled = scratch.pooled.data();
    kernels::stem_pool(pixels, layers.conv1, pooled, wide, TileScratch::pooled_plane(), ahead);
    kernels::conv_planes({pooled, wide, TileScratch::pooled_plane(), conv2.shape.h + 2, wide}, layers.conv2, conv2);
  } else {
    const TensorView pooled = plan.view(w, pnet_pool1);
    kernels::stem_pool(pixels, layers.conv1, pooled, ahead);
    fill_outside(pooled, level.rows - y + 4, level.columns - x + 4, 0);
  }
  const Span<const Step> steps = plan.steps();
  for (std::size_t i = 0; i < steps.size() && steps[i].op < pnet_logits; ++i) {
    const int op = steps[i].op;
    if (op > (pnet_in_planes ? pnet_conv2 : pnet_pool1)) plan.run_step(w, static_cast<int>(i));
    if (op == pnet_conv2) fill_outside(conv2, level.rows - y + 2, level.columns - x + 2, 0);
  }
}

/// Below this difference of logits no softmax reaches `score`: a tenth less than the inverse of the sigmoid, which is
/// a thousand times what another order of the 32 products changes, and 10 for scores so near to 1 that float32 runs out
/// of steps (1 - sigmoid(10) is 400 of them).
inline float least_logit(float score) noexcept {
  if (!(score > 0)) return -INFINITY;
  const double exact = score < 1 ? std::log(static_cast<double>(score) / (1 - static_cast<double>(score))) : 10;
  return static_cast<float>(exact < 10 ? exact : 10) - 0.1f;
}

/// Calls f(y, x, out) for those of the first rows x columns windows that score `threshold` or more: out is what P-Net
/// gives, to the bit: not a face, face, four offsets. Most blocks of windows are nothing at a glance, and most tiles
/// hold no other. Returns the first error of f.
template <class F>
inline Status for_each_face(ConstTensorView conv3, int rows, int columns, const PnetLayers& layers, float threshold,
                            F&& f) noexcept {
  constexpr int width = simd::width;
  const float bound = least_logit(threshold);
  const auto stride = static_cast<std::ptrdiff_t>(conv3.pixel_stride);
  for (int y = 0; y < rows; ++y)
    for (int x = 0; x < columns; x += width) {
      const int count = columns - x < width ? columns - x : width;
      const float* pixels = conv3.pixel(0, y, x);
      if (!kernels::any_dot_above(pixels, stride, count, 32, layers.logit, layers.logit_bias, bound)) continue;
      float heads[6][std::size_t{width}];
      kernels::dots(pixels, stride, count, layers.head, layers.head_bias, heads);
      for (int i = 0; i < count; ++i) {
        const float logits[2] = {heads[0][i], heads[1][i]};
        if (!(logits[1] - logits[0] >= bound)) continue;
        float out[6] = {0, 0, heads[2][i], heads[3][i], heads[4][i], heads[5][i]};
        kernels::softmax(logits, out, 2);
        if (out[1] >= threshold) FACENET_TRY(f(y, x + i, out));
      }
    }
  return {};
}

/// A window of P-Net that may hold a face.
struct FaceCandidate {
  float score;
  float offset[4];
  std::int32_t level, x, y;
};

}  // namespace detail

FACENET_END
