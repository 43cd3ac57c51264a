// The detector's arithmetic on boxes: pyramid, regression, squaring, non-maximum suppression, selection.
//
// Everything is float32 in the order of facenet-pytorch 2.6's models/utils/detect_face.py and each operation is
// rounded by itself: in double, or with a product fused into the sum after it, one face of a test photograph is lost.
#pragma once

#include <algorithm>

#include "facenet/base/owned.hpp"
#include "facenet/base/rounding.hpp"
#include "facenet/base/sort.hpp"
#include "facenet/image.hpp"

FACENET_DATA_BEGIN

struct Point {
  float x = 0, y = 0;

  FACENET_INLINE constexpr Point() noexcept {}
  FACENET_INLINE constexpr Point(float right, float down) noexcept : x(right), y(down) {}
};

/// One face, in pixels of the picture. The box may reach past the picture's edges.
struct Face {
  Box box;
  float score = 0;     // 0 … 1, O-Net's
  Point landmarks[5];  // as seen: left eye, right eye, nose, left corner of the mouth, right corner

  FACENET_INLINE constexpr Face() noexcept {}
};

FACENET_DATA_END

FACENET_BEGIN

namespace detail {

/// A Buffer that grows: trivial T, one allocation at each doubling.
template <class T>
class List {
 public:
  /// Where it grows; what it has stays where it is.
  void grow_in(Memory memory) noexcept { memory_ = memory; }
  Memory memory() const noexcept { return memory_; }
  std::size_t capacity() const noexcept { return items_.size(); }
  std::size_t size() const noexcept { return size_; }
  bool empty() const noexcept { return size_ == 0; }
  T* data() noexcept { return items_.data(); }
  const T* data() const noexcept { return items_.data(); }
  template <class I>
  T& operator[](I i) noexcept {
    return items_[i];
  }
  template <class I>
  const T& operator[](I i) const noexcept {
    return items_[i];
  }
  T* begin() noexcept { return data(); }
  T* end() noexcept { return data() + size_; }
  const T* begin() const noexcept { return data(); }
  const T* end() const noexcept { return data() + size_; }
  void clear() noexcept { size_ = 0; }
  void shrink(std::size_t count) noexcept {
    if (count < size()) size_ = count;
  }

  /// Error: out_of_memory; the items stay.
  Status reserve(std::size_t count) noexcept {
    if (count <= items_.size()) return {};
    const std::size_t doubled = 2 * items_.size();
    return items_.grow(count > doubled ? count : doubled, size_, memory_);
  }
  void swap(List& other) noexcept {
    items_.swap(other.items_);
    std::swap(size_, other.size_);
    std::swap(memory_, other.memory_);
  }
  /// Room for `count` items, before there are any.
  Status reserve_bulk(std::size_t count) noexcept { return allocate_bulk(items_, count, false, memory_); }
  /// `count` items, new ones unset.
  Status resize(std::size_t count) noexcept {
    FACENET_TRY(reserve(count));
    size_ = count;
    return {};
  }
  Status push(const T& item) noexcept {
    const std::size_t count = size_;
    if (count == items_.size()) FACENET_TRY(reserve(count + 1 < 64 ? 64 : count + 1));
    items_[count] = item;
    size_ = count + 1;
    return {};
  }

 private:
  Buffer<T> items_;
  Moved<std::size_t> size_;
  Memory memory_;
};

// ---- The pyramid ----------------------------------------------------------------------------------------------------

/// One size at which P-Net sees the picture.
struct Level {
  double scale = 1;           // pixels of the level in one of the picture
  int width = 0, height = 0;  // of the shrunk picture
  int columns = 0, rows = 0;  // windows of 12x12, two pixels apart: P-Net's output, its pool counted up (ceil mode)
  std::ptrdiff_t kept = -1;   // where its planes begin among those of the small levels
};

constexpr int pnet_windows(int side) noexcept { return (side - 2 + 1) / 2 - 4; }

/// Levels of a picture's pyramid.
inline std::size_t pyramid_levels(int width, int height, int min_face, double factor) noexcept {
  std::size_t count = 0;
  for (double least = (width < height ? width : height) * (12.0 / min_face); least >= 12; least *= factor) ++count;
  return count;
}

/// The pixels of a min_face that is a share of the picture's shorter side; 12 are the least that P-Net sees unenlarged.
inline int share_of(double share, int width, int height) noexcept {
  const int pixels = static_cast<int>(share * (width < height ? width : height) + 0.5);
  return pixels < 12 ? 12 : pixels;
}

/// From 12 / min_face on, each `factor` times the one before, as long as the short side has 12 pixels. None for a
/// picture thinner than min_face. Error: out_of_memory.
inline Status make_pyramid(int width, int height, int min_face, double factor, List<Level>& out) noexcept {
  out.clear();
  const double first = 12.0 / min_face;
  const auto side = [](int pixels, double scale) {
    return static_cast<int>(rounded_product<double>(pixels, scale) + 1);
  };
  double scale = first, least = (width < height ? width : height) * first;
  for (; least >= 12; scale *= factor, least *= factor) {
    Level l;
    l.scale = scale;
    l.width = side(width, scale);
    l.height = side(height, scale);
    l.columns = pnet_windows(l.width);
    l.rows = pnet_windows(l.height);
    FACENET_TRY(out.push(l));
  }
  return {};
}

/// The picture's pixels under P-Net's window (x, y).
inline Box window_box(int x, int y, double scale) noexcept {
  const auto s = static_cast<float>(scale);
  const auto at = [s](int cell, int edge) { return std::floor(static_cast<float>(2 * cell + edge) / s); };
  return {at(x, 1), at(y, 1), at(x, 12), at(y, 12)};
}

// ---- One box --------------------------------------------------------------------------------------------------------

/// Moves each edge by its offset times the side: `extra` is 0 after P-Net and 1 after the other two.
inline Box regress(Box b, const float* offset, float extra) noexcept {
  const float w = b.x1 - b.x0 + extra, h = b.y1 - b.y0 + extra;
  return {b.x0 + rounded_product(offset[0], w), b.y0 + rounded_product(offset[1], h),
          b.x1 + rounded_product(offset[2], w), b.y1 + rounded_product(offset[3], h)};
}

/// The square with the longer side, around the same middle.
inline Box square(Box b) noexcept {
  const float h = b.y1 - b.y0, w = b.x1 - b.x0, side = w > h ? w : h;
  b.x0 = b.x0 + w * 0.5f - side * 0.5f;  // halves are exact
  b.y0 = b.y0 + h * 0.5f - side * 0.5f;
  b.x1 = b.x0 + side;
  b.y1 = b.y0 + side;
  return b;
}

/// The pixels that R-Net or O-Net looks at: truncated, and cut to the picture; the first counts as number 1. May be
/// empty or turned inside out: ask ImageView::holds().
inline Rect pixels_of(Box b, int width, int height) noexcept {
  const auto whole = [](float v) { return whole_pixels(static_cast<double>(v)); };
  const int x = whole(b.x0), y = whole(b.y0), ex = whole(b.x1), ey = whole(b.y1);
  return {x < 1 ? 0 : x - 1, y < 1 ? 0 : y - 1, ex > width ? width : ex, ey > height ? height : ey};
}

inline float area(Box b, float extra = 0) noexcept { return rounded_product(b.x1 - b.x0 + extra, b.y1 - b.y0 + extra); }
inline float intersection(Box a, Box b, float extra = 0) noexcept {
  const float w = (a.x1 < b.x1 ? a.x1 : b.x1) - (a.x0 > b.x0 ? a.x0 : b.x0) + extra;
  const float h = (a.y1 < b.y1 ? a.y1 : b.y1) - (a.y0 > b.y0 ? a.y0 : b.y0) + extra;
  return rounded_product(w > 0 ? w : 0, h > 0 ? h : 0);
}
/// torchvision's: intersection over union.
inline float overlap_union(Box a, Box b) noexcept {
  const float both = intersection(a, b);
  return both / (area(a) + area(b) - both);
}
/// detect_face's nms_numpy with "Min": intersection over the smaller area, an end counted as a whole pixel.
inline float overlap_least(Box a, Box b) noexcept {
  const float x = area(a, 1), y = area(b, 1);
  return intersection(a, b, 1) / (x < y ? x : y);
}

// ---- Non-maximum suppression ----------------------------------------------------------------------------------------

/// Scratch memory for nms().
struct NmsScratch {
  List<int> by_left;
  List<std::uint8_t> dead;
};

/// torchvision's nms over boxes that come in descending order of score: a box stays unless it overlaps one that stayed
/// by more than `threshold`. `keep`: indices, ascending.
/// Overlap t in the plane needs t along x too, so left edges are less than (1 / t - 1) widths apart: only that window
/// of the boxes sorted by left edge is compared, and a picture of noise with 10^5 boxes takes no minutes.
/// Error: out_of_memory.
inline Status nms(const Box* boxes, std::size_t count, float threshold, NmsScratch& s, List<int>& keep) noexcept {
  keep.clear();
  FACENET_TRY(s.by_left.resize(count));
  FACENET_TRY(s.dead.resize(count));
  for (std::size_t i = 0; i < count; ++i) {
    s.by_left[i] = static_cast<int>(i);
    s.dead[i] = 0;
  }
  sort(s.by_left.begin(), s.by_left.end(), [&](int a, int b) { return boxes[a].x0 < boxes[b].x0; });
  for (std::size_t i = 0; i < count; ++i) {
    if (s.dead[i] != 0) continue;
    const auto index = static_cast<int>(i);
    FACENET_TRY(keep.push(index));
    const Box b = boxes[i];
    const float reach = (b.x1 - b.x0) * (1 / threshold - 1) * 1.001f + 1;  // rounding included
    const float from = b.x0 - reach, to = b.x0 + reach;
    const int* at =
        std::lower_bound(s.by_left.begin(), s.by_left.end(), from, [&](int a, float x) { return boxes[a].x0 < x; });
    for (; at != s.by_left.end() && boxes[*at].x0 <= to; ++at)
      if (*at > index && s.dead[*at] == 0 && overlap_union(b, boxes[*at]) > threshold) s.dead[*at] = 1;
  }
  return {};
}

/// The last suppression: among `faces` in descending order of score, the weaker of two is dropped if their overlap by
/// the smaller area is above 0.7. A dozen faces: every pair is compared. Returns how many stay, at the front.
inline std::size_t nms_least(Face* faces, std::size_t count, float threshold) noexcept {
  std::size_t kept = 0;
  for (std::size_t i = 0; i < count; ++i) {
    bool stays = true;
    for (std::size_t k = 0; k < kept && stays; ++k) stays = overlap_least(faces[k].box, faces[i].box) <= threshold;
    if (stays) faces[kept++] = faces[i];
  }
  return kept;
}

}  // namespace detail

// ---- Selection ------------------------------------------------------------------------------------------------------

/// Which face comes first: MTCNN.select_boxes of facenet-pytorch.
enum class Selection : std::uint8_t {
  largest,                 // by area of the box
  probability,             // by score
  largest_over_threshold,  // by area, only those with a score above 0.9
  centre_weighted,         // by area - 2 * squared distance of the box's middle from the picture's
};

/// Puts the faces into the order of `how`, equal ones last first as numpy's argsort()[::-1] does, and returns how
/// many there are: fewer only for largest_over_threshold. `faces` come in descending order of score.
inline std::size_t select_faces(Face* faces, std::size_t count, Selection how, int width, int height,
                                float threshold = 0.9f, double centre_weight = 2.0) noexcept {
  if (how == Selection::probability) return count;
  if (how == Selection::largest_over_threshold)
    count = static_cast<std::size_t>(
        std::remove_if(faces, faces + count, [&](const Face& f) { return !(f.score > threshold); }) - faces);
  const auto value = [&](const Face& f) {
    const double size = static_cast<double>(detail::area(f.box));
    if (how != Selection::centre_weighted) return size;
    const double x = static_cast<double>((f.box.x0 + f.box.x1) / 2) - width / 2.0;
    const double y = static_cast<double>((f.box.y0 + f.box.y1) / 2) - height / 2.0;
    return size - (x * x + y * y) * centre_weight;
  };
  // Insertion, a later one before those that are equal. A picture has a dozen faces, a crowd a few hundred.
  for (std::size_t i = 1; i < count; ++i) {
    const Face f = faces[i];
    const double v = value(f);
    std::size_t at = i;
    for (; at > 0 && value(faces[at - 1]) <= v; --at) faces[at] = faces[at - 1];
    faces[at] = f;
  }
  return count;
}

FACENET_END
