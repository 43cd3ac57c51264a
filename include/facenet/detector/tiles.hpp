// P-Net over the levels of a pyramid, tile by tile. Layer 5.
//
// A level never exists as a whole: a tile of it is resized from the picture's bytes into three planes, kernels/stem.hpp
// does the first convolution and pool, the plan the rest, and all activations stay in the L2 cache. Tiles come in a few
// fixed sizes, so no picture compiles anything, and a tile's outputs have the bits of a plan for the whole level.
#pragma once

#include "facenet/detector_boxes.hpp"
#include "facenet/detector_pixels.hpp"
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
constexpr int tile_rows(int kind) noexcept { return tile_heights[kind / 3]; }
constexpr int tile_columns(int kind) noexcept { return tile_widths[kind % 3]; }
constexpr Network tile_network(int kind) noexcept {
  return models::mtcnn_pnet(2 * tile_rows(kind) + 10, 2 * tile_columns(kind) + 10);
}

/// The next piece of `left` outputs: the longest side that is no more than them, rounded up to the grain.
template <std::size_t N>
constexpr int choose_side(int left, const int (&sides)[N]) noexcept {
  int i = 0;
  while (sides[i] > (left + tile_grain - 1) / tile_grain * tile_grain) ++i;
  return i;
}

struct Tile {
  std::int32_t level, y, x, kind;  // y, x: the first output
};

/// Covers every level. Errors: limit_exceeded (above 4 M tiles: P-Net would run for a day), out_of_memory.
inline Status cut_into_tiles(const List<Level>& levels, List<Tile>& tiles) noexcept {
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

// mtcnn_pnet's operators by number.
constexpr int pnet_conv1 = 1, pnet_pool1 = 2, pnet_conv2 = 3, pnet_logits = 5, pnet_softmax = 6, pnet_out = 8;
constexpr bool pnet_is(int op, const char* name) noexcept { return models::mtcnn_pnet(12, 12)[op].name == name; }
static_assert(pnet_is(pnet_conv1, "mtcnn.pnet.conv1") && pnet_is(pnet_pool1, "mtcnn.pnet.pool1") &&
                  pnet_is(pnet_conv2, "mtcnn.pnet.conv2") && pnet_is(pnet_logits, "mtcnn.pnet.conv4_1") &&
                  models::mtcnn_pnet(12, 12)[pnet_conv1].out.c == 10 &&
                  pnet_is(pnet_softmax, "mtcnn.pnet.softmax4_1") && pnet_is(pnet_out, "mtcnn.pnet.out"),
              "P-Net has changed");
using PnetStem = kernels::StemWeights<10>;

/// Working memory for one tile at a time.
struct TileScratch {
  AreaScratch area;
  Buffer<float> planes;

  static constexpr int rows() noexcept { return 2 * tile_heights[0] + 10; }
  static constexpr int columns() noexcept { return 2 * tile_widths[0] + 10; }
  static constexpr std::ptrdiff_t stride() noexcept { return columns() + kernels::stem_overrun(); }
  /// Once, and again before pictures up to `width` pixels wide. Error: out_of_memory.
  Status reserve(int width) noexcept {
    if (planes.empty()) {
      auto made = Buffer<float>::make(static_cast<std::size_t>(3 * rows() * stride()));
      if (!made) return made.status();
      planes = std::move(*made);
    }
    return area.reserve(width, columns());
  }
};

/// Overwrites what lies outside of the first `rows` x `columns` pixels.
inline void fill_outside(TensorView v, int rows, int columns, float value) noexcept {
  for (int y = 0; y < v.shape.h; ++y) {
    const int x = y < rows ? columns : 0;
    for (float *p = v.pixel(0, y, x), *end = v.pixel(0, y, v.shape.w); p < end; ++p) *p = value;
  }
}

/// Runs a tile as far as the logits. What it has beyond the level's edge is kept from its outputs: the pool ends there
/// (ceil mode), and Winograd's blocks see zeros, as at the edge of a whole level.
inline void run_tile(const Plan& plan, Workspace& w, const PnetStem& stem, ImageView picture, const Level& level, int y,
                     int x, TileScratch& scratch) noexcept {
  const Shape in = plan.input_shape();
  const auto least = [](int a, int b) { return a < b ? a : b; };
  const Rect part{2 * x, 2 * y, least(2 * x + in.w, level.width), least(2 * y + in.h, level.height)};
  const std::ptrdiff_t row = TileScratch::stride(), plane = row * TileScratch::rows();
  float* planes = scratch.planes.data();
  area_pixels(picture, level.width, level.height, part, scratch.area, {planes, row, 1, plane});
  kernels::stem_pool({planes, row, plane, static_cast<int>(part.height()), static_cast<int>(part.width())}, stem,
                     plan.view(w, pnet_pool1));
  fill_outside(plan.view(w, pnet_pool1), level.rows - y + 4, level.columns - x + 4, 0);
  const Span<const Step> steps = plan.steps();
  for (std::size_t i = 0; i < steps.size() && steps[i].op < pnet_softmax; ++i) {
    if (steps[i].op <= pnet_pool1) continue;
    plan.run_step(w, static_cast<int>(i));
    if (steps[i].op == pnet_conv2) fill_outside(plan.view(w, pnet_conv2), level.rows - y + 2, level.columns - x + 2, 0);
  }
}

/// The rest of it: scores and offsets. Most tiles hold nothing and need none.
inline void finish_tile(const Plan& plan, Workspace& w) noexcept {
  const Span<const Step> steps = plan.steps();
  for (std::size_t i = 1; i < steps.size(); ++i)
    if (steps[i].op >= pnet_softmax) plan.run_step(w, static_cast<int>(i));
}

/// Whether the logits for a face are `bound` above those against it in any of rows x columns outputs.
inline bool any_above(TensorView logits, int rows, int columns, float bound) noexcept {
  for (int y = 0; y < rows; ++y) {
    const float* p = logits.pixel(0, y, 0);
    bool any = false;
    for (int x = 0; x < columns; ++x, p += logits.pixel_stride) any |= p[1] - p[0] >= bound;
    if (any) return true;
  }
  return false;
}
/// Below this difference of logits no softmax reaches `score`: a tenth less than the inverse of the sigmoid, and 10 for
/// scores so near to 1 that float32 runs out of steps (1 - sigmoid(10) is 400 of them).
inline float least_logit(float score) noexcept {
  if (!(score > 0)) return -INFINITY;
  const double exact = score < 1 ? std::log(static_cast<double>(score) / (1 - static_cast<double>(score))) : 10;
  return static_cast<float>(exact < 10 ? exact : 10) - 0.1f;
}

/// A window of P-Net that may hold a face.
struct Window {
  float score;
  float offset[4];
  std::int32_t level, x, y;
};

}  // namespace detail

FACENET_END
