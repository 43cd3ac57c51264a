// From a face found to the pixels that an embedder wants: the box cut out, or five landmarks brought to fixed places.
//
#pragma once
#include "facenet/base/macros_push.inc"

#include "facenet/detector/boxes.hpp"
#include "facenet/embedder.hpp"

FACENET_BEGIN

// ---- The box --------------------------------------------------------------------------------------------------------

/// facenet-pytorch's extract_face, bit for bit on decoded pixels: the box with `margin` output pixels around it, cut to
/// the picture, truncated to whole pixels, resized to size x size as Pillow does (antialiased bilinear).
/// Errors: invalid_argument (no pixel of the box is inside, or the margin leaves nothing), limit_exceeded,
/// out_of_memory.
inline Result<Image> extract_face(ImageView picture, Box box, int size = 160, int margin = 0,
                                  Memory memory = {}) noexcept {
  FACENET_TRY(detail::check(picture));
  if (margin < 0 || margin >= size) return {Errc::invalid_argument, "the margin must be 0 or above and below the size"};
  const Rect r = crop_output_margin(box, margin, size, picture.width, picture.height);
  if (!picture.holds(r)) return {Errc::invalid_argument, "the box holds no pixel of the picture"};
  return crop_resize(picture, r, size, size, memory);
}

// ---- Five points ----------------------------------------------------------------------------------------------------

/// (x, y) -> (a x - b y + tx, b x + a y + ty): rotation, one scale for both axes, shift.
struct Similarity {
  double a = 1, b = 0, tx = 0, ty = 0;

  double scale() const noexcept { return std::sqrt(a * a + b * b); }
  /// Requires scale() > 0.
  Similarity inverse() const noexcept {
    const double s = a * a + b * b, ia = a / s, ib = -b / s;
    return {ia, ib, -(ia * tx - ib * ty), -(ib * tx + ia * ty)};
  }
};

/// The similarity that brings `from` nearest to `to` in the least-squares sense, as scikit-image's
/// SimilarityTransform.estimate: Umeyama, "Least-squares estimation of transformation parameters between two point
/// patterns", 1991. In the plane, with points as complex numbers around their means, it is one quotient:
/// a + ib = sum(conj(from) to) / sum |from|^2, and no reflection can come out.
/// Error: invalid_argument (null, not finite, all points in one place, or nothing in common between the two).
inline Result<Similarity> estimate_similarity(const Point* from, const Point* to, int count) noexcept {
  const simd::FlushDenormals mode;
  if (from == nullptr || to == nullptr || count < 1) return {Errc::invalid_argument, "there are no points"};
  double fx = 0, fy = 0, x = 0, y = 0;
  for (int i = 0; i < count; ++i) {
    fx += static_cast<double>(from[i].x);
    fy += static_cast<double>(from[i].y);
    x += static_cast<double>(to[i].x);
    y += static_cast<double>(to[i].y);
  }
  fx /= count;
  fy /= count;
  x /= count;
  y /= count;
  double spread = 0, real = 0, imaginary = 0;
  for (int i = 0; i < count; ++i) {
    const double px = static_cast<double>(from[i].x) - fx, py = static_cast<double>(from[i].y) - fy;
    const double qx = static_cast<double>(to[i].x) - x, qy = static_cast<double>(to[i].y) - y;
    spread += px * px + py * py;
    real += px * qx + py * qy;
    imaginary += px * qy - py * qx;
  }
  Similarity s;
  s.a = real / spread;
  s.b = imaginary / spread;
  if (!(spread > 0) || !(s.scale() > 1e-9) || !(s.scale() < 1e9))  // not for NaN and infinity either
    return {Errc::invalid_argument, "the landmarks lie in one place or are not numbers: no alignment fits them"};
  s.tx = x - (s.a * fx - s.b * fy);
  s.ty = y - (s.b * fx + s.a * fy);
  return s;
}

/// Where the five landmarks of a Face shall come to lie.
struct FivePoints {
  Point at[5];
};

namespace detail {

constexpr FivePoints five_points(const double (&p)[5][2], double shift, double scale) noexcept {
  FivePoints out{};
  for (int i = 0; i < 5; ++i)
    out.at[i] = {static_cast<float>((p[i][0] + shift) * scale), static_cast<float>((p[i][1] + shift) * scale)};
  return out;
}

}  // namespace detail

/// The places that InsightFace's models are trained on, published for 112 x 112 pixels.
constexpr FivePoints arcface_points(int size) noexcept {
  constexpr double p[5][2] = {
      {38.2946, 51.6963}, {73.5318, 51.5014}, {56.0252, 71.7366}, {41.5493, 92.3655}, {70.7299, 92.2041}};
  return detail::five_points(p, 0, size / 112.0);
}

/// dlib's mean face (get_face_chip_details) with `padding` faces around it on each side: the middles of the eyes, the
/// tip of the nose and the corners of the mouth among its 68 points.
constexpr FivePoints dlib_points(int size, double padding = 0.25) noexcept {
  constexpr double p[5][2] = {
      {0.225492, 0.215990}, {0.754762, 0.215990}, {0.490127, 0.515625}, {0.254149, 0.780233}, {0.726104, 0.780233}};
  return detail::five_points(p, padding, size / (2 * padding + 1));
}

/// size x size pixels: out(q) is the picture at s^-1(q), bilinear between pixel middles, black outside. From two pixels
/// of the picture for one of the output on, the picture's part is first averaged down by that whole number (dlib does
/// it too): four pixels of a face ten times as large would be noise. Errors: invalid_argument, limit_exceeded,
/// out_of_memory.
inline Result<Image> warp(ImageView picture, const Similarity& s, int size, Memory memory = {}) noexcept {
  const simd::FlushDenormals mode;
  FACENET_TRY(detail::check(picture));
  auto out = Image::make(size, size, picture.order, true, memory);
  if (!out) return out;
  const double scale = s.scale();
  if (!(scale > 1e-9) || !(scale < 1e9)) return {Errc::invalid_argument, "the transformation has no inverse"};
  const Similarity back = s.inverse();
  const auto at = [&](double x, double y, double& px, double& py) {
    px = back.a * x - back.b * y + back.tx;
    py = back.b * x + back.a * y + back.ty;
  };

  // The part of the picture under the output's corners, and one pixel more.
  double low_x = 1e9, low_y = 1e9, high_x = -1e9, high_y = -1e9;
  for (int corner = 0; corner < 4; ++corner) {
    double x, y;
    at(corner % 2 == 0 ? 0 : size - 1, corner < 2 ? 0 : size - 1, x, y);
    low_x = x < low_x ? x : low_x;
    low_y = y < low_y ? y : low_y;
    high_x = x > high_x ? x : high_x;
    high_y = y > high_y ? y : high_y;
  }
  const int block = scale > 0.5 ? 1 : static_cast<int>(1 / scale < max_image_side ? 1 / scale : max_image_side);
  const auto inside = [](double v, int end) { return static_cast<int>(v < 0 ? 0 : v > end ? end : v); };
  const Rect part{inside(std::floor(low_x) - block, picture.width), inside(std::floor(low_y) - block, picture.height),
                  inside(std::ceil(high_x) + 1 + block, picture.width),
                  inside(std::ceil(high_y) + 1 + block, picture.height)};
  if (!picture.holds(part)) return out;  // all of it is outside

  const int w = static_cast<int>((part.width() + block - 1) / block);
  const int h = static_cast<int>((part.height() + block - 1) / block);
  Buffer<float> pixels;
  FACENET_TRY(detail::allocate(pixels, static_cast<std::size_t>(w) * static_cast<std::size_t>(h) * 3, false, memory));
  FACENET_TRY(resize_area(picture.crop(part), w, h, pixels, memory));

  const double shrink_x = w / static_cast<double>(part.width()), shrink_y = h / static_cast<double>(part.height());
  for (int y = 0; y < size; ++y) {
    std::uint8_t* to = out->row(y);
    for (int x = 0; x < size; ++x, to += 3) {
      double px, py;
      at(x, y, px, py);
      px = (px - part.x0 + 0.5) * shrink_x - 0.5;
      py = (py - part.y0 + 0.5) * shrink_y - 0.5;
      if (!(px > -1 && py > -1 && px < w && py < h)) continue;  // stays black
      const int x0 = static_cast<int>(std::floor(px)), y0 = static_cast<int>(std::floor(py));
      const auto fx = static_cast<float>(px - x0), fy = static_cast<float>(py - y0);
      float sum[3] = {0.5f, 0.5f, 0.5f};  // rounded to nearest
      for (int corner = 0; corner < 4; ++corner) {
        const int cx = x0 + corner % 2, cy = y0 + corner / 2;
        if (cx < 0 || cy < 0 || cx >= w || cy >= h) continue;
        const float weight = (corner % 2 == 0 ? 1 - fx : fx) * (corner < 2 ? 1 - fy : fy);
        const float* p = pixels.data() + (std::int64_t{cy} * w + cx) * 3;
        for (int c = 0; c < 3; ++c) sum[c] += weight * p[c];
      }
      for (int c = 0; c < 3; ++c) to[c] = static_cast<std::uint8_t>(sum[c]);  // at most 255.5
    }
  }
  return out;
}

/// The face turned and scaled so that its landmarks come nearest to `points`. Errors: those of the two steps.
inline Result<Image> align_face(ImageView picture, const Point (&landmarks)[5], const FivePoints& points, int size,
                                Memory memory = {}) noexcept {
  auto s = estimate_similarity(landmarks, points.at, 5);
  if (!s) return s.status();
  return warp(picture, *s, size, memory);
}

/// Aligns to InsightFace's points.
inline Result<Image> align_face(ImageView picture, const Point (&landmarks)[5], int size = 160) noexcept {
  const simd::FlushDenormals mode;
  return align_face(picture, landmarks, arcface_points(size), size);
}

/// What the embedder's weights were made for: the box with the file's margin, or for `crop: five_point` dlib's chip
/// with the margin as its padding. The crop and what is needed for a while come from `memory`. Errors: those of
/// extract_face and align_face.
inline Result<Image> crop_face(ImageView picture, const Face& face, const ModelInfo& model,
                               Memory memory = {}) noexcept {
  const simd::FlushDenormals mode;
  if (model.image_size == 0) return {Errc::invalid_argument, "this embedder was never loaded, or was moved from"};
  if (model.crop == Crop::box)
    return extract_face(picture, face.box, model.image_size, static_cast<int>(model.margin), memory);
  return align_face(picture, face.landmarks, dlib_points(model.image_size, model.margin), model.image_size, memory);
}

FACENET_END

#include "facenet/base/macros_pop.inc"
