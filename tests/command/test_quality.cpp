// The quality of a face's picture: each part falls where it should, and they are multiplied.
#include <doctest/doctest.h>

#include "command/engine/quality.hpp"

using command::measure_quality;
using command::pose_quality;

namespace {

facenet::Face face_at(float x, float y, float side) {
  facenet::Face f;
  f.box = {x, y, x + side, y + side};
  f.score = 1;
  const float points[5][2] = {{0.3f, 0.4f}, {0.7f, 0.4f}, {0.5f, 0.62f}, {0.35f, 0.8f}, {0.65f, 0.8f}};
  for (int i = 0; i < 5; ++i) f.landmarks[i] = {x + side * points[i][0], y + side * points[i][1]};
  return f;
}

/// Squares of `square` pixels, black and of the given grey.
facenet::Image board(int side, int square, int grey) {
  auto image = facenet::Image::make(side, side, facenet::ChannelOrder::rgb);
  REQUIRE(image.ok());
  for (int y = 0; y < side; ++y)
    for (int x = 0; x < 3 * side; ++x)
      image->row(y)[x] = static_cast<std::uint8_t>((x / 3 / square + y / square) % 2 != 0 ? grey : 0);
  return std::move(*image);
}

}  // namespace

TEST_CASE("a large sharp face that looks ahead has all of it") {
  const facenet::Image picture = board(200, 8, 200);
  const auto q = measure_quality(picture, face_at(40, 40, 112));
  REQUIRE(q.ok());
  CHECK(q->size == 1);
  CHECK(q->sharpness == 1);
  CHECK(q->pose == doctest::Approx(1).epsilon(0.01));
  CHECK(q->value == doctest::Approx(1).epsilon(0.01));
}

TEST_CASE("each part falls by itself") {
  const facenet::Image picture = board(200, 8, 200), grey = board(200, 200, 200);
  const auto small = measure_quality(picture, face_at(40, 40, 20));
  REQUIRE(small.ok());
  CHECK(small->size == doctest::Approx(0.25));
  CHECK(small->value == doctest::Approx(small->size * small->sharpness * small->pose));
  const auto flat = measure_quality(grey, face_at(40, 40, 112));
  REQUIRE(flat.ok());
  CHECK(flat->sharpness == 0);
  CHECK(flat->value == 0);
  facenet::Face doubtful = face_at(40, 40, 112);
  doubtful.score = 0.7f;
  CHECK(measure_quality(picture, doubtful)->value == doctest::Approx(0.7).epsilon(0.01));
}

TEST_CASE("the variance is of one size of picture: contrast a quarter, variance a sixteenth") {
  // Squares of 28 pixels in a crop that is 112 already: a Laplacian of +-g along each edge and of 0 inside.
  const facenet::Image light = board(112, 28, 40), dark = board(112, 28, 10);
  const auto strong = measure_quality(light, face_at(0, 0, 112)), weak = measure_quality(dark, face_at(0, 0, 112));
  REQUIRE((strong.ok() && weak.ok()));
  REQUIRE(strong->sharpness < 1);
  CHECK(weak->sharpness == doctest::Approx(strong->sharpness / 16).epsilon(0.01));
}

TEST_CASE("a face outside of the picture, in part and wholly") {
  const facenet::Image picture = board(200, 8, 200);
  const auto half = measure_quality(picture, face_at(-40, 40, 80));
  REQUIRE(half.ok());
  CHECK(half->size == doctest::Approx(0.7071).epsilon(0.001));  // sqrt(40 * 80) / 80
  const auto gone = measure_quality(picture, face_at(300, 40, 80));
  REQUIRE(gone.ok());
  CHECK(gone->value == 0);
}

TEST_CASE("pose: turned and nodded heads lose, a tilted one does not") {
  facenet::Face f = face_at(0, 0, 100);
  const float ahead = pose_quality(f.landmarks);
  facenet::Face turned = f;
  turned.landmarks[2].x += 10;  // a quarter of the eyes' distance: half of what is allowed
  CHECK(pose_quality(turned.landmarks) == doctest::Approx(ahead / 2).epsilon(0.01));
  turned.landmarks[2].x += 10;
  CHECK(pose_quality(turned.landmarks) == 0);
  facenet::Face nodded = f;
  nodded.landmarks[2].y = 79;
  CHECK(pose_quality(nodded.landmarks) < 0.1f);
  facenet::Face tilted = f;  // by 90 degrees
  for (facenet::Point& p : tilted.landmarks) p = {100 - p.y, p.x};
  CHECK(pose_quality(tilted.landmarks) == doctest::Approx(ahead).epsilon(0.001));
  facenet::Face upside_down = f;  // eyes below the mouth, left eye left: no face that the detector means
  for (facenet::Point& p : upside_down.landmarks) p.y = 100 - p.y;
  CHECK(pose_quality(upside_down.landmarks) == 0);
  facenet::Face none = f;
  for (facenet::Point& p : none.landmarks) p = {0, 0};
  CHECK(pose_quality(none.landmarks) == 0);
}
