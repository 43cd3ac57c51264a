// The small levels of a pyramid, all in one pass over the picture.
//
// Resized tile by tile, each level reads the whole picture: of 12 MP with faces from 20 pixels on 15 times 36 MB, which
// was a quarter of the detector's time, and waiting for memory. Of the first levels that is what there is to do. All
// levels from a ninth of the picture's side down have a tenth of its bytes together: they are kept whole, and made from
// one look at each row.
#pragma once

#include "facenet/detector/area_resize.hpp"
#include "facenet/detector/boxes.hpp"

FACENET_BEGIN

namespace detail {

/// Scalar code goes without: its convolutions outweigh the resizing, and the smallest web module saves 8 KB. The pixels
/// are the same either way.
constexpr bool shrinks_small_levels = simd::width > 1;
constexpr double small_scale = 0.11;
constexpr bool is_small(const Level& l) noexcept { return l.scale <= small_scale; }
constexpr int small_block = 16;  // pixels whose numbers are made together

/// Gives each small level its place among the kept ones, three planes without gaps, and returns how many floats they
/// take, `overrun` more for those who read past the end.
inline std::size_t place_small_levels(List<Level>& levels, std::size_t overrun) noexcept {
  std::size_t used = 0;
  for (Level& l : levels) {
    if (!is_small(l)) continue;
    l.kept = static_cast<std::ptrdiff_t>(used);
    used += 3 * static_cast<std::size_t>(l.width) * static_cast<std::size_t>(l.height);
  }
  return used == 0 ? 0 : used + overrun;
}

/// A level on its way: two windows of rows may be open at a time.
struct SmallLevel {
  std::int32_t width, height;
  std::int32_t open, next;  // rows of the level: those from `open` to `next` - 1 are open
  std::ptrdiff_t columns;   // its first among the scratch's windows
  std::ptrdiff_t kept;
};

/// Working memory for shrink_rows(). Numbers come in fours: three colours and one that nobody asks for.
class SmallScratch {
 public:
  /// Keeps what it has when that is enough. Error: out_of_memory.
  Status reserve(int width, const List<Level>& levels, Memory memory = {}) noexcept {
    std::size_t columns = 0, count = 0;
    for (const Level& l : levels)
      if (is_small(l)) {
        columns += round_up(static_cast<std::size_t>(l.width), small_block);
        ++count;
      }
    const std::size_t prefix = 4 * (static_cast<std::size_t>(width) + 1);
    if (count == 0) return {};
    if (prefix_.size() < prefix) FACENET_TRY(allocate_bulk(prefix_, prefix, true, memory));
    if (levels_.size() < count) FACENET_TRY(allocate_bulk(levels_, count, false, memory));
    if (windows_.size() >= columns) return {};
    FACENET_TRY(allocate_bulk(across_, 4 * columns, false, memory));
    FACENET_TRY(allocate_bulk(inverse_, 4 * columns, false, memory));
    FACENET_TRY(allocate_bulk(sums_, 8 * columns, true, memory));
    return allocate_bulk(windows_, columns, false, memory);
  }

 private:
  friend void shrink_rows(ImageView, const List<Level>&, int, int, SmallScratch&, float*) noexcept;
  Buffer<std::uint32_t> prefix_, sums_;  // sums_: of two open rows of each level
  Buffer<float> across_, inverse_;
  Buffer<AreaWindow> windows_;  // the fourfold numbers of the first column, and of the one after the last
  Buffer<SmallLevel> levels_;
};

/// prefix[x] = sum of the row's pixels before x. Three sums in registers: an array of them GCC 12 keeps in memory.
inline void sum_pixels_before(const std::uint8_t* row, int width, std::uint32_t* prefix) noexcept {
  std::uint32_t first = 0, second = 0, third = 0;
  for (const std::uint8_t* const end = row + std::ptrdiff_t{3} * width; row != end; row += 3) {
    prefix += 4;
    first += row[0];
    second += row[1];
    third += row[2];
    prefix[0] = first;
    prefix[1] = second;
    prefix[2] = third;
  }
}

/// Adds to each column's sum what its window has of a row.
inline void add_windows(const std::uint32_t* prefix, const AreaWindow* windows, int count,
                        std::uint32_t* sums) noexcept {
  for (int k = 0; k < count; ++k, sums += 4) {
    const std::uint32_t *first = prefix + windows[k].first, *end = prefix + windows[k].count;
    std::uint32_t sum[4];
    for (int c = 0; c < 4; ++c) sum[c] = sums[c] + (end[c] - first[c]);
    for (int c = 0; c < 4; ++c) sums[c] = sum[c];
  }
}

/// Makes the rows of all small levels whose windows begin in rows `top` to `bottom` - 1 of the picture, to the bits of
/// area_pixels(). Requires place_small_levels() and room in `kept`.
inline void shrink_rows(ImageView src, const List<Level>& levels, int top, int bottom, SmallScratch& s,
                        float* kept) noexcept {
  const auto axis = [&](const SmallLevel& l) { return AreaAxis{src.height, l.height}; };
  SmallLevel* const begin = s.levels_.data();
  SmallLevel* end = begin;
  std::ptrdiff_t columns = 0;
  for (const Level& level : levels) {
    if (!is_small(level)) continue;
    SmallLevel& l = *end++;
    l = {level.width, level.height, 0, 0, columns, level.kept};
    while (l.next < l.height && axis(l).begin(l.next) < top) ++l.next;
    l.open = l.next;
    const AreaAxis x{src.width, l.width};
    const int padded = static_cast<int>(round_up(static_cast<std::size_t>(l.width), small_block));
    for (int k = 0; k < padded; ++k) {
      const int column = k < l.width ? k : l.width - 1, first = x.begin(column), stop = x.end(column);
      s.windows_[columns + k] = {4 * first, 4 * stop};
      for (int c = 0; c < 4; ++c) {
        s.across_[4 * (columns + k) + c] = static_cast<float>(stop - first);
        s.inverse_[4 * (columns + k) + c] = 1 / static_cast<float>(stop - first);
      }
    }
    columns += padded;
  }
  const bool swap = src.order != ChannelOrder::rgb;
  bool any = true;
  for (int row = top; row < src.height && (row < bottom || any); ++row) {
    sum_pixels_before(src.row(row), src.width, s.prefix_.data());
    any = false;
    for (SmallLevel* l = begin; l != end; ++l) {
      const AreaAxis y = axis(*l);
      const auto sums = [&](int i) { return s.sums_.data() + 8 * l->columns + (i % 2) * 4 * l->width; };
      if (row < bottom && l->next < l->height && y.begin(l->next) == row)
        std::memset(sums(l->next++), 0, 4 * static_cast<std::size_t>(l->width) * sizeof(std::uint32_t));
      for (int i = l->open; i < l->next; ++i)
        add_windows(s.prefix_.data(), s.windows_.data() + l->columns, l->width, sums(i));
      if (l->open < l->next && y.end(l->open) == row + 1) {
        const int i = l->open++;
        const auto down = static_cast<float>(y.end(i) - y.begin(i));
        const std::ptrdiff_t plane = std::ptrdiff_t{l->width} * l->height;
        float* to = kept + l->kept + std::ptrdiff_t{i} * l->width;
        for (int at = 0; at < l->width; at += small_block) {
          float some[4 * small_block], colours[3][small_block];
          area_numbers<4 * small_block>(sums(i) + 4 * at, down, 1 / down, s.across_.data() + 4 * (l->columns + at),
                                        s.inverse_.data() + 4 * (l->columns + at), some);
          for (int n = 0; n < small_block; ++n) {
            colours[0][n] = some[4 * n];
            colours[1][n] = some[4 * n + 1];
            colours[2][n] = some[4 * n + 2];
          }
          const int count = l->width - at < small_block ? l->width - at : small_block;
          for (int c = 0; c < 3; ++c)
            std::memcpy(to + (swap ? 2 - c : c) * plane + at, colours[c],
                        static_cast<std::size_t>(count) * sizeof(float));
        }
      }
      any = any || l->open < l->next;
    }
  }
}

}  // namespace detail

FACENET_END
