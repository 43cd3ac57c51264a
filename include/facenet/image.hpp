// Pixels in memory: views, crops, resizing, standardisation. Decodes nothing, opens nothing.
//
// Every operation repeats a reference to the bit or says how far it is from it: Pillow 9.4-12.0 for bilinear
// resizing and crops, PyTorch for area resizing, facenet-pytorch and davidsandberg/facenet for crops with a margin.
#pragma once
#include "facenet/base/macros_push.inc"

#include <cmath>

#include "facenet/base/fp_mode.hpp"
#include "facenet/base/owned.hpp"
#include "facenet/base/rounding.hpp"
#include "facenet/image/pixel_format.hpp"

FACENET_BEGIN

FACENET_END

FACENET_DATA_BEGIN

/// Whole pixels: x0 <= x < x1, y0 <= y < y1.
struct Rect {
  int x0 = 0, y0 = 0, x1 = 0, y1 = 0;

  FACENET_INLINE constexpr Rect() noexcept {}
  FACENET_INLINE constexpr Rect(int left, int top, int right, int bottom) noexcept
      : x0(left), y0(top), x1(right), y1(bottom) {}

  FACENET_INLINE constexpr std::int64_t width() const noexcept { return std::int64_t{x1} - x0; }
  FACENET_INLINE constexpr std::int64_t height() const noexcept { return std::int64_t{y1} - y0; }
  FACENET_INLINE friend constexpr bool operator==(Rect a, Rect b) noexcept {
    return a.x0 == b.x0 && a.y0 == b.y0 && a.x1 == b.x1 && a.y1 == b.y1;
  }
};

/// A rectangle in fractions of a pixel, as a detector finds it.
struct Box {
  float x0 = 0, y0 = 0, x1 = 0, y1 = 0;

  FACENET_INLINE constexpr Box() noexcept {}
  FACENET_INLINE constexpr Box(float left, float top, float right, float bottom) noexcept
      : x0(left), y0(top), x1(right), y1(bottom) {}
};

/// Someone else's pixels, three bytes each; owns nothing. Rows are `stride` bytes apart (negative: stored bottom up).
struct ImageView {
  const std::uint8_t* data = nullptr;  // the top left pixel
  int width = 0, height = 0;
  std::ptrdiff_t stride = 0;
  ChannelOrder order = ChannelOrder::rgb;

  FACENET_INLINE constexpr ImageView() noexcept {}
  FACENET_INLINE constexpr ImageView(const std::uint8_t* first, int w, int h, std::ptrdiff_t bytes_per_row,
                                     ChannelOrder channels) noexcept
      : data(first), width(w), height(h), stride(bytes_per_row), order(channels) {}

  FACENET_INLINE const std::uint8_t* row(int y) const noexcept { return data + y * stride; }
  FACENET_INLINE constexpr Rect bounds() const noexcept { return {0, 0, width, height}; }
  FACENET_INLINE constexpr bool holds(Rect r) const noexcept {
    return r.x0 >= 0 && r.y0 >= 0 && r.x0 < r.x1 && r.y0 < r.y1 && r.x1 <= width && r.y1 <= height;
  }
  /// The pixels of `r` without a copy. Requires holds(r).
  FACENET_INLINE ImageView crop(Rect r) const noexcept {
    return {row(r.y0) + 3 * r.x0, static_cast<int>(r.width()), static_cast<int>(r.height()), stride, order};
  }
};

FACENET_DATA_END

FACENET_BEGIN

namespace detail {

inline Status check_size(std::int64_t w, std::int64_t h) noexcept {
  if (w < 1 || h < 1) return {Errc::invalid_argument, "a picture needs at least one pixel"};
  if (w > max_image_side || h > max_image_side)
    return {Errc::limit_exceeded, "a picture may be at most 16384 pixels wide and high"};
  return {};
}

inline Status check(const ImageView& v) noexcept {
  FACENET_TRY(check_size(v.width, v.height));
  if (v.data == nullptr) return {Errc::invalid_argument, "the picture has no pixels: its pointer is null"};
  if (v.height > 1 && (v.stride < 0 ? -v.stride : v.stride) < std::ptrdiff_t{3} * v.width)
    return {Errc::invalid_argument, "the rows of the picture overlap: its stride is below 3 bytes a pixel"};
  return {};
}

}  // namespace detail

/// Owns width x height pixels of three bytes, rows without a gap. Move-only; 0 x 0 when it was moved from.
class Image {
 public:
  Image() noexcept = default;

  /// Black pixels, or unset ones when `zero` is false. Errors: invalid_argument, limit_exceeded, out_of_memory.
  static Result<Image> make(int w, int h, ChannelOrder order, bool zero = true, Memory from = {}) noexcept {
    FACENET_TRY(detail::check_size(w, h));
    auto pixels = Buffer<std::uint8_t>::make(static_cast<std::size_t>(w) * static_cast<std::size_t>(h) * 3, zero, from);
    if (!pixels) return pixels.status();
    Image image;
    image.pixels_ = std::move(*pixels);
    image.width_ = w;
    image.height_ = h;
    image.order_ = order;
    return image;
  }

  /// Another picture's pixels, unset, in the memory that it has where that is enough: `least` bytes or more. Errors:
  /// invalid_argument, limit_exceeded, out_of_memory; it is 0 x 0 then.
  Status remake(int w, int h, ChannelOrder order, std::size_t least = 0) noexcept {
    clear();
    FACENET_TRY(detail::check_size(w, h));
    const std::size_t needed = static_cast<std::size_t>(w) * static_cast<std::size_t>(h) * 3;
    if (least < needed) least = needed;
    if (pixels_.size() < least) {
      pixels_ = {};  // first: both at once would be twice the memory
      FACENET_TRY(detail::allocate(pixels_, least));
    }
    width_ = w;
    height_ = h;
    order_ = order;
    return {};
  }

  /// 0 x 0; the memory stays.
  void clear() noexcept {
    width_ = 0;
    height_ = 0;
  }

  int width() const noexcept { return width_; }
  int height() const noexcept { return height_; }
  ChannelOrder order() const noexcept { return order_; }
  std::ptrdiff_t stride() const noexcept { return std::ptrdiff_t{3} * width_; }
  std::size_t bytes() const noexcept {
    return 3 * static_cast<std::size_t>(int{width_}) * static_cast<std::size_t>(int{height_});
  }
  /// Bytes of its memory: bytes(), or more where a larger picture was in it or it was decoded there.
  std::size_t room() const noexcept { return pixels_.size(); }
  std::uint8_t* data() noexcept { return pixels_.data(); }
  const std::uint8_t* data() const noexcept { return pixels_.data(); }
  std::uint8_t* row(int y) noexcept { return data() + y * stride(); }
  const std::uint8_t* row(int y) const noexcept { return data() + y * stride(); }
  ImageView view() const& noexcept { return {data(), width_, height_, stride(), order_}; }
  operator ImageView() const& noexcept { return view(); }
  operator ImageView() const&& = delete;  // the pixels would be gone before the view

 private:
  Buffer<std::uint8_t> pixels_;
  detail::Moved<int> width_, height_;
  ChannelOrder order_ = ChannelOrder::rgb;
};

/// A copy of `r`, black where it reaches past the picture, as Pillow's Image.crop.
inline Result<Image> crop(ImageView src, Rect r, Memory memory = {}) noexcept {
  FACENET_TRY(detail::check(src));
  FACENET_TRY(detail::check_size(r.width(), r.height()));
  auto out = Image::make(static_cast<int>(r.width()), static_cast<int>(r.height()), src.order, true, memory);
  if (!out) return out;
  const Rect in{r.x0 > 0 ? r.x0 : 0, r.y0 > 0 ? r.y0 : 0, r.x1 < src.width ? r.x1 : src.width,
                r.y1 < src.height ? r.y1 : src.height};
  if (in.x0 >= in.x1) return out;
  for (int y = in.y0; y < in.y1; ++y)
    std::memcpy(out->row(y - r.y0) + 3 * (in.x0 - r.x0), src.row(y) + 3 * in.x0,
                static_cast<std::size_t>(in.x1 - in.x0) * 3);
  return out;
}

/// The largest square in the middle; an odd pixel stays on the right or below.
constexpr Rect centre_square(int w, int h) noexcept {
  const int side = w < h ? w : h, x = (w - side) / 2, y = (h - side) / 2;
  return {x, y, x + side, y + side};
}

// ---- bilinear, as Pillow -------------------------------------------------------------------------------------------

namespace detail {

// The filter of one axis: an output is the sum over k < count of weight[k] * input[first + k] / 2^22.
// Triangle filter, as wide as the ratio when it shrinks: w = max(0, 1 - |distance| / max(1, ratio)), normalised over
// the pixels that exist. Pillow, src/libImaging/Resample.c: precompute_coeffs, normalize_coeffs_8bpc.
struct ResampleAxis {
  /// The inputs of one output: its support under the filter.
  struct Support {
    int first, count;
  };
  static constexpr int precision = 32 - 8 - 2;  // 8 bits of pixel, 22 of weight, 1 of headroom, 1 of sign

  ResampleAxis(int pixels, float begin, float end, int out) noexcept
      : in(pixels),
        from(static_cast<double>(begin)),
        scale(static_cast<double>(end - begin) / out),
        support(scale < 1.0 ? 1.0 : scale),
        taps(static_cast<int>(std::ceil(support)) * 2 + 1) {}

  // The most pixels that an output looks at, when a picture's side becomes `out`.
  static int most_taps(int side, int out) noexcept { return ResampleAxis(side, 0, static_cast<float>(side), out).taps; }

  // Weights of output i; `exact` has room for `taps` too.
  Support weigh(int i, double* exact, std::int32_t* weights) const noexcept {
    const double centre = from + rounded_product(i + 0.5, scale), inverse = 1.0 / support;
    const int low = static_cast<int>(centre - support + 0.5), high = static_cast<int>(centre + support + 0.5);
    const int first = low < 0 ? 0 : low, count = (high > in ? in : high) - first;
    double sum = 0;
    for (int k = 0; k < count; ++k) {
      const double d = std::fabs(rounded_product(k + first - centre + 0.5, inverse));
      exact[k] = d < 1.0 ? 1.0 - d : 0.0;
      sum += exact[k];
    }
    for (int k = 0; k < count; ++k) {
      const double w = sum != 0.0 ? exact[k] / sum : 0.0;
      weights[k] = static_cast<std::int32_t>(0.5 + w * (1 << precision));
    }
    return {first, count};
  }

  // Rounded to nearest. Never negative; above 255 only when thousands of weights are each rounded up.
  static std::uint8_t pixel(std::int32_t sum) noexcept {
    const std::int32_t v = sum >> precision;
    return static_cast<std::uint8_t>(v > 255 ? 255 : v);
  }

  int in;
  double from, scale, support;
  int taps;
};

// What bilinear resizing works in, whatever the picture's size: the filter of the rows, and as many rows resized to the
// output's width as an output row looks at.
class BilinearScratch {
 public:
  // Room to make w x h pixels of pictures up to `width` x `height`. Error: out_of_memory.
  Status reserve(int width, int height, int w, int h, Memory memory) noexcept {
    const int across = ResampleAxis::most_taps(width, w), down = ResampleAxis::most_taps(height, h);
    const std::size_t x = static_cast<std::size_t>(across), y = static_cast<std::size_t>(down),
                      n = static_cast<std::size_t>(w);
    FACENET_TRY(allocate_bulk(windows, n, false, memory));
    FACENET_TRY(allocate_bulk(weights, n * x, false, memory));
    FACENET_TRY(allocate_bulk(exact, x > y ? x : y, false, memory));
    FACENET_TRY(allocate_bulk(column, y, false, memory));
    return allocate_bulk(rows, n * 3 * y, false, memory);
  }

  Buffer<ResampleAxis::Support> windows;
  Buffer<std::int32_t> weights, column;
  Buffer<double> exact;
  Buffer<std::uint8_t> rows;
};

inline void resample_row(const std::uint8_t* in, const BilinearScratch& s, int w, int taps,
                         std::uint8_t* out) noexcept {
  const std::int32_t* weights = s.weights.data();
  const ResampleAxis::Support* const windows = s.windows.data();
  for (int x = 0; x < w; ++x) {
    constexpr std::int32_t half = 1 << (ResampleAxis::precision - 1);
    std::int32_t a = half, b = half, c = half;
    const std::uint8_t* p = in + 3 * windows[x].first;
    for (int k = 0; k < windows[x].count; ++k, p += 3) {
      a += weights[k] * p[0];
      b += weights[k] * p[1];
      c += weights[k] * p[2];
    }
    *out++ = ResampleAxis::pixel(a);
    *out++ = ResampleAxis::pixel(b);
    *out++ = ResampleAxis::pixel(c);
    weights += taps;
  }
}

// out[i] = sum over k of w[k] * row(k)[i], `bytes` columns, a block at a time so that the sums stay in the L1 cache.
template <class Row>
void resample_column(Row&& row, const std::int32_t* w, int count, int bytes, std::uint8_t* out) noexcept {
  constexpr int block = 512;
  std::int32_t sum[block];
  for (int from = 0; from < bytes; from += block) {
    const int n = bytes - from < block ? bytes - from : block;
    for (int i = 0; i < n; ++i) sum[i] = 1 << (ResampleAxis::precision - 1);
    for (int k = 0; k < count; ++k) {
      const std::uint8_t* p = row(k) + from;
      for (int i = 0; i < n; ++i) sum[i] += w[k] * p[i];
    }
    for (int i = 0; i < n; ++i) out[from + i] = ResampleAxis::pixel(sum[i]);
  }
}

inline Status check_resize_box(ImageView src, Box box) noexcept {
  if (box.x0 >= 0 && box.y0 >= 0 && box.x0 < box.x1 && box.y0 < box.y1 && box.x1 <= static_cast<float>(src.width) &&
      box.y1 <= static_cast<float>(src.height))
    return {};
  return {Errc::invalid_argument, "the box to resize must hold something and lie inside the picture"};
}

// resize_bilinear() of what has been checked, into w x h pixels without gaps, with scratch memory reserved for it.
inline void resize_bilinear_into(ImageView src, Box box, int w, int h, BilinearScratch& s, std::uint8_t* out) noexcept {
  const bool across = w != src.width || box.x0 != 0 || box.x1 != static_cast<float>(w);
  const bool down = h != src.height || box.y0 != 0 || box.y1 != static_cast<float>(h);
  const std::ptrdiff_t row_bytes = std::ptrdiff_t{3} * w;
  const ResampleAxis x(src.width, box.x0, box.x1, w), y(src.height, box.y0, box.y1, h);
  if (across)
    for (int i = 0; i < w; ++i)
      s.windows[i] = x.weigh(i, s.exact.data(), s.weights.data() + std::ptrdiff_t{i} * x.taps);
  if (!down) {
    for (int i = 0; i < h; ++i, out += row_bytes) {
      if (across)
        resample_row(src.row(i), s, w, x.taps, out);
      else
        std::memcpy(out, src.row(i), static_cast<std::size_t>(row_bytes));
    }
    return;
  }
  // Row r of the picture, resized to the output's width, lies in place r % taps: windows move downwards only.
  int done = -1;
  const auto place = [&](int r) { return s.rows.data() + r % y.taps * row_bytes; };
  for (int i = 0; i < h; ++i, out += row_bytes) {
    const auto window = y.weigh(i, s.exact.data(), s.column.data());
    if (!across) {
      resample_column([&](int k) { return src.row(window.first + k); }, s.column.data(), window.count, 3 * w, out);
      continue;
    }
    for (int r = done < window.first ? window.first : done; r < window.first + window.count; ++r)
      resample_row(src.row(r), s, w, x.taps, place(r));
    done = window.first + window.count;
    resample_column([&](int k) { return place(window.first + k); }, s.column.data(), window.count, 3 * w, out);
  }
}

}  // namespace detail

/// `box` of `src` resized to w x h: bit for bit Pillow's resize((w, h), Image.BILINEAR, box), which is antialiased.
/// Horizontally first, over the rows needed only, rounded to bytes between the passes; an axis that keeps its size is
/// left alone. Errors: invalid_argument (the box is empty or leaves the picture), limit_exceeded, out_of_memory.
inline Result<Image> resize_bilinear(ImageView src, Box box, int w, int h, Memory memory = {}) noexcept {
  const simd::FlushDenormals mode;
  FACENET_TRY(detail::check(src));
  auto out = Image::make(w, h, src.order, false, memory);
  if (!out) return out;
  FACENET_TRY(detail::check_resize_box(src, box));
  detail::BilinearScratch scratch;
  FACENET_TRY(scratch.reserve(src.width, src.height, w, h, memory));
  detail::resize_bilinear_into(src, box, w, h, scratch, out->data());
  return out;
}

inline Result<Image> resize_bilinear(ImageView src, int w, int h, Memory memory = {}) noexcept {
  return resize_bilinear(src, {0, 0, static_cast<float>(src.width), static_cast<float>(src.height)}, w, h, memory);
}

/// Pillow's crop(r).resize((w, h), Image.BILINEAR): pixels outside of `r` have no influence, those past the edges
/// are black.
inline Result<Image> crop_resize(ImageView src, Rect r, int w, int h, Memory memory = {}) noexcept {
  FACENET_TRY(detail::check(src));
  if (src.holds(r)) return resize_bilinear(src.crop(r), w, h, memory);
  auto cropped = crop(src, r, memory);
  if (!cropped) return cropped;
  return resize_bilinear(*cropped, w, h, memory);
}

// ---- area, as PyTorch ----------------------------------------------------------------------------------------------

namespace detail {

/// Rows floor(i * in / out) … ceil((i + 1) * in / out) - 1 of `in` become row i of `out`.
struct AreaAxis {
  std::int64_t in, out;
  constexpr int begin(int i) const noexcept { return static_cast<int>(i * in / out); }
  constexpr int end(int i) const noexcept { return static_cast<int>(((i + std::int64_t{1}) * in + out - 1) / out); }
};

}  // namespace detail

/// out[y][x][c] = mean over rows floor(y * H / h) .. ceil((y + 1) * H / h) and the same columns: PyTorch's
/// interpolate(mode="area"), adaptive average pooling. `to`: h * w * 3 floats in 0..255, channels in src's order.
/// Equal to the bit up to 65,793 pixels a window (2^24 / 255); there PyTorch's float32 sum starts to round, ours does
/// not. Errors: invalid_argument, limit_exceeded, out_of_memory (12 bytes a column).
inline Status resize_area(ImageView src, int w, int h, Span<float> to, Memory memory = {}) noexcept {
  const simd::FlushDenormals mode;
  FACENET_TRY(detail::check(src));
  FACENET_TRY(detail::check_size(w, h));
  FACENET_TRY(detail::check_room(to, std::int64_t{w} * h * 3));
  float* out = to.data();
  const auto columns = static_cast<std::size_t>(src.width) * 3;
  auto sums = Buffer<std::uint32_t>::make(columns, false, memory);  // 16384 rows of 255 stay far below 2^32
  if (!sums) return sums.status();
  const detail::AreaAxis rows_of{src.height, h}, columns_of{src.width, w};
  for (int y = 0; y < h; ++y) {
    const int y0 = rows_of.begin(y), y1 = rows_of.end(y);
    std::uint32_t* sum = sums->data();
    std::memset(sum, 0, columns * sizeof *sum);
    for (int r = y0; r < y1; ++r) {
      const std::uint8_t* row = src.row(r);
      for (std::size_t i = 0; i < columns; ++i) sum[i] += row[i];
    }
    const auto rows = static_cast<float>(y1 - y0);
    for (int x = 0; x < w; ++x) {
      const int x0 = columns_of.begin(x), x1 = columns_of.end(x);
      std::uint64_t total[3] = {};
      for (const std::uint32_t *s = sum + 3 * x0, *stop = sum + 3 * x1; s != stop; s += 3)
        for (int c = 0; c < 3; ++c) total[c] += s[c];
      // PyTorch divides twice, and two roundings are not one; only for a single pixel it calls mean(), which does once.
      const auto across = static_cast<float>(x1 - x0);
      for (const std::uint64_t t : total)
        *out++ = w == 1 && h == 1 ? static_cast<float>(t) / (rows * across) : static_cast<float>(t) / rows / across;
    }
  }
  return {};
}

// ---- bytes to the network's numbers --------------------------------------------------------------------------------

/// The number of each byte value, a row for each colour: value[0] red, [1] green, [2] blue. A table because
/// no scale and shift in float32 gives the references' roundings for all four, and it is 3 KiB.
struct Standardisation {
  float value[3][256];
};

/// The table for `view`, which only prewhiten looks at: one without pixels gives zeros there.
/// Prewhiten: mean and deviation over all pixels and channels, from a histogram, in double.
inline Standardisation standardisation(ImageView view, Scaling scaling) noexcept {
  const simd::FlushDenormals mode;
  constexpr float means[3] = {122.782f, 117.001f, 104.298f};
  double mean = 0, inverse = 0;
  if (scaling == Scaling::prewhiten && detail::check(view).ok()) {
    std::int64_t histogram[256] = {};
    for (int y = 0; y < view.height; ++y) {
      const std::uint8_t* row = view.row(y);
      for (int i = 0; i < 3 * view.width; ++i) ++histogram[row[i]];
    }
    const double count = 3.0 * view.width * view.height;
    for (int v = 0; v < 256; ++v) mean += static_cast<double>(histogram[v] * v);
    mean /= count;
    double square = 0;
    for (int v = 0; v < 256; ++v) square += static_cast<double>(histogram[v]) * (v - mean) * (v - mean);
    const double deviation = std::sqrt(square / count), least = 1.0 / std::sqrt(count);
    inverse = 1.0 / (deviation > least ? deviation : least);
  }
  Standardisation s;
  for (int c = 0; c < 3; ++c)
    for (int v = 0; v < 256; ++v) {
      const auto x = static_cast<float>(v);
      float& to = s.value[c][v];
      switch (scaling) {
        case Scaling::fixed:
          to = (x - 127.5f) / 128.0f;
          break;
        case Scaling::prewhiten:
          to = static_cast<float>((v - mean) * inverse);
          break;
        case Scaling::unit:
          to = x / 255.0f;
          break;
        case Scaling::mean_255:
          to = (x - means[c]) / 255.0f;
          break;
      }
    }
  return s;
}

/// Writes height * width * 3 floats to `to` (NHWC), channels in the order the network `wants`.
/// Errors: invalid_argument and limit_exceeded for a bad view, invalid_argument where `to` is too small.
inline Status standardise(ImageView view, const Standardisation& s, ChannelOrder wants, Span<float> to) noexcept {
  FACENET_TRY(detail::check(view));
  FACENET_TRY(detail::check_room(to, std::int64_t{view.height} * view.width * 3));
  float* out = to.data();
  const int swap = view.order == wants ? 0 : 2, blue_first = wants == ChannelOrder::bgr ? 2 : 0;
  const float *t0 = s.value[blue_first], *t1 = s.value[1], *t2 = s.value[2 - blue_first];
  for (int y = 0; y < view.height; ++y) {
    const std::uint8_t* p = view.row(y);
    for (int x = 0; x < view.width; ++x, p += 3, out += 3) {
      out[0] = t0[p[swap]];
      out[1] = t1[p[1]];
      out[2] = t2[p[2 - swap]];
    }
  }
  return {};
}

/// Both steps.
inline Status standardise(ImageView view, Scaling scaling, ChannelOrder wants, Span<float> to) noexcept {
  FACENET_TRY(detail::check(view));
  return standardise(view, standardisation(view, scaling), wants, to);
}

// ---- from a detector's box to the pixels of a face -----------------------------------------------------------------

namespace detail {

// [face - half a margin, face + half a margin] cut to the picture and truncated as Python's int() does, in double,
// since the references' boxes have become Python floats by then. Not a number gives an empty rectangle.
inline Rect widen(Box face, double margin_x, double margin_y, int width, int height) noexcept {
  const simd::FlushDenormals mode;
  const auto low = [&](float edge, double margin) {
    const double v = static_cast<double>(edge) - margin / 2;
    return whole_pixels(v < 0 ? 0 : v);
  };
  const auto high = [&](float edge, double margin, int end) {
    const double v = static_cast<double>(edge) + margin / 2;
    return whole_pixels(v > end ? end : v);
  };
  return {low(face.x0, margin_x), low(face.y0, margin_y), high(face.x1, margin_x, width),
          high(face.y1, margin_y, height)};
}

}  // namespace detail

/// facenet-pytorch's extract_face: `margin` counts pixels of the finished crop of `image_size`, which are
/// margin * side / (image_size - margin) in the picture. Requires margin < image_size. Empty for a box outside.
inline Rect crop_output_margin(Box face, int margin, int image_size, int width, int height) noexcept {
  const simd::FlushDenormals mode;
  const double m = margin, rest = image_size - margin;
  return detail::widen(face, m * (static_cast<double>(face.x1) - static_cast<double>(face.x0)) / rest,
                       m * (static_cast<double>(face.y1) - static_cast<double>(face.y0)) / rest, width, height);
}

/// davidsandberg/facenet's align_dataset_mtcnn.py: `margin` counts pixels of the picture, half on each side.
inline Rect crop_source_margin(Box face, int margin, int width, int height) noexcept {
  return detail::widen(face, margin, margin, width, height);
}

FACENET_END

#include "facenet/base/macros_pop.inc"
