#include "command/engine/quality.hpp"

#include <algorithm>
#include <cmath>

namespace command {

namespace {

constexpr double full_side = 80;       // half of the 160 pixels that FaceNet sees: fewer are blown up more than twice
constexpr int laplacian_side = 112;    // one size for all, as the variance depends on it
constexpr double full_variance = 250;  // Frigate's limit, measured on 112 x 112 too: below it is called blurred
constexpr double most_turned = 0.5;    // the nose is as far from the eyes' middle as an eye is
constexpr double usual_nose = 0.55;    // from the eyes' line (0) to the mouth's (1), where a face looks straight ahead
constexpr double most_nodded = 0.45;   // from there: the nose is on the mouth's line

float part(double x) { return static_cast<float>(std::isfinite(x) ? std::min(std::max(x, 0.0), 1.0) : 0.0); }

/// Variance of the 3 x 3 Laplacian (0 1 0, 1 -4 1, 0 1 0) of the inner pixels of a square picture's luminance.
double laplacian_variance(const facenet::Image& square) {
  constexpr int n = laplacian_side;
  int grey[n][n];
  const bool bgr = square.order() == facenet::ChannelOrder::bgr;
  for (int y = 0; y < n; ++y)
    for (int x = 0; x < n; ++x) {
      const std::uint8_t* p = square.row(y) + 3 * x;
      grey[y][x] = (299 * p[bgr ? 2 : 0] + 587 * p[1] + 114 * p[bgr ? 0 : 2] + 500) / 1000;  // BT.601
    }
  double sum = 0, squares = 0;
  for (int y = 1; y < n - 1; ++y)
    for (int x = 1; x < n - 1; ++x) {
      const int v = grey[y - 1][x] + grey[y + 1][x] + grey[y][x - 1] + grey[y][x + 1] - 4 * grey[y][x];
      sum += v;
      squares += static_cast<double>(v) * v;
    }
  constexpr double count = (n - 2) * (n - 2);
  return squares / count - sum / count * (sum / count);
}

/// The pixels of the box that the picture has, and how large the whole box is.
facenet::Result<FaceQuality> measure_pixels(facenet::ImageView picture, facenet::Box box) {
  FaceQuality q;
  const auto inside = [](float x, int most) {
    return static_cast<int>(std::min(std::max(x, 0.0f), static_cast<float>(most)));
  };
  const facenet::Rect r{inside(box.x0, picture.width), inside(box.y0, picture.height), inside(box.x1, picture.width),
                        inside(box.y1, picture.height)};
  if (!picture.holds(r)) return q;
  const auto square = facenet::crop_resize(picture, r, laplacian_side, laplacian_side);
  if (!square) return square.status();
  // What lies outside of the picture shows nothing, so it does not count as size.
  q.size = part(std::sqrt(static_cast<double>(r.width()) * static_cast<double>(r.height())) / full_side);
  q.sharpness = part(laplacian_variance(*square) / full_variance);
  return q;
}

FaceQuality with_value(FaceQuality q) {
  q.value = q.size * q.sharpness * q.pose * q.score;
  return q;
}

}  // namespace

float pose_quality(const facenet::Point (&landmarks)[5]) {
  const auto x = [&](int i) { return static_cast<double>(landmarks[i].x); };
  const auto y = [&](int i) { return static_cast<double>(landmarks[i].y); };
  // The axes of the face: along the eyes, so that a head that is merely tilted loses nothing, and down to the mouth.
  const double across_x = x(1) - x(0), across_y = y(1) - y(0), eyes = std::hypot(across_x, across_y);
  if (!(eyes > 0)) return 0;
  const double middle_x = (x(0) + x(1)) / 2, middle_y = (y(0) + y(1)) / 2;
  const auto across = [&](double px, double py) {
    return ((px - middle_x) * across_x + (py - middle_y) * across_y) / eyes;
  };
  const auto down = [&](double px, double py) {
    return ((py - middle_y) * across_x - (px - middle_x) * across_y) / eyes;
  };
  const double mouth_x = (x(3) + x(4)) / 2, mouth_y = (y(3) + y(4)) / 2, mouth = down(mouth_x, mouth_y);
  if (!(mouth > 0)) return 0;
  const double turned = std::fabs(across(x(2), y(2))) / eyes, nodded = std::fabs(down(x(2), y(2)) / mouth - usual_nose);
  return part(1 - turned / most_turned) * part(1 - nodded / most_nodded);
}

facenet::Result<FaceQuality> measure_quality(facenet::ImageView picture, const facenet::Face& face) {
  auto q = measure_pixels(picture, face.box);
  if (!q || q->size == 0) return q;
  q->pose = pose_quality(face.landmarks);
  q->score = part(static_cast<double>(face.score));
  return with_value(*q);
}

facenet::Result<FaceQuality> measure_aligned_quality(facenet::ImageView crop) {
  auto q = measure_pixels(crop, {0, 0, static_cast<float>(crop.width), static_cast<float>(crop.height)});
  if (!q || q->size == 0) return q;
  q->pose = q->score = 1;
  return with_value(*q);
}

void add_quality(Json& j, const FaceQuality& quality) {
  j["quality"] = quality.value;
  Json& parts = j["quality_parts"] = Json::object();
  parts["size"] = quality.size;
  parts["sharpness"] = quality.sharpness;
  parts["pose"] = quality.pose;
  parts["score"] = quality.score;
}

}  // namespace command
