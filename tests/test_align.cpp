// Similarities, the warp, the crop a model wants. Against facenet-pytorch and scikit-image: tests/python/test_align.py.
#include <doctest/doctest.h>

#include <limits>
#include <vector>

#include "facenet/align.hpp"

using namespace facenet;

namespace {

struct Picture {
  int width, height;
  std::vector<std::uint8_t> bytes;
  template <class F>
  Picture(int w, int h, F&& pixel) : width(w), height(h) {
    for (int y = 0; y < h; ++y)
      for (int x = 0; x < w; ++x)
        for (int c = 0; c < 3; ++c) bytes.push_back(static_cast<std::uint8_t>(pixel(x, y, c)));
  }
  ImageView view(ChannelOrder order = ChannelOrder::rgb) const {
    return {bytes.data(), width, height, 3 * width, order};
  }
};

int hash(int x, int y, int c) { return (x * 31 + y * 17 + c * 101 + x * y) & 255; }

}  // namespace

TEST_CASE("the estimate is scikit-image's SimilarityTransform.estimate") {
  struct Case {
    Point from[5];
    double a, b, tx, ty;
  };
  const Case cases[] = {
      // A face nearly upright, one lying on its side, a mirrored one that no rotation fits.
      {{{30.5f, 52}, {74, 48.25f}, {51, 73.5f}, {36.75f, 95}, {69, 91}},
       1.281223992,
       0.057390878,
       17.222691884,
       7.532659593},
      {{{412, 300}, {380, 402.5f}, {450, 360}, {512, 330}, {500, 398}},
       -0.014770193,
       0.117463329,
       128.759393136,
       55.052136492},
      {{{90, 40}, {30, 41}, {61, 70}, {82, 99}, {40, 100}}, 0.169293579, 0.000990298, 69.847501800, 90.804836575},
  };
  const FivePoints to = arcface_points(160);
  for (const Case& c : cases) {
    auto s = estimate_similarity(c.from, to.at, 5);
    REQUIRE(s.ok());
    CHECK(std::fabs(s->a - c.a) < 1e-5);
    CHECK(std::fabs(s->b - c.b) < 1e-5);
    CHECK(std::fabs(s->tx - c.tx) < 1e-5);
    CHECK(std::fabs(s->ty - c.ty) < 1e-5);
  }
}

TEST_CASE("points that are moved by a similarity give it back, and its inverse undoes it") {
  const Similarity want{1.25, -0.5, 17, -300};
  Point from[5] = {{0, 0}, {8, 0}, {4, 4}, {0, 16}, {8, 12}}, to[5];
  for (int i = 0; i < 5; ++i)
    to[i] = {static_cast<float>(want.a) * from[i].x - static_cast<float>(want.b) * from[i].y + 17,
             static_cast<float>(want.b) * from[i].x + static_cast<float>(want.a) * from[i].y - 300};
  auto s = estimate_similarity(from, to, 5);
  REQUIRE(s.ok());
  CHECK(std::fabs(s->a - want.a) < 1e-12);
  CHECK(std::fabs(s->b - want.b) < 1e-12);
  CHECK(std::fabs(s->tx - want.tx) < 1e-12);
  CHECK(std::fabs(s->ty - want.ty) < 1e-12);
  const Similarity back = s->inverse();
  CHECK(std::fabs(back.a * 17 - back.b * -300 + back.tx) < 1e-12);
  CHECK(std::fabs(back.b * 17 + back.a * -300 + back.ty) < 1e-12);
  CHECK(std::fabs(back.scale() * s->scale() - 1) < 1e-12);
}

TEST_CASE("what has no fit is an error") {
  const FivePoints to = arcface_points(112);
  const float no_number = std::numeric_limits<float>::quiet_NaN(), infinite = std::numeric_limits<float>::infinity();
  for (Point p : {Point{5, 5}, Point{no_number, 1}, Point{infinite, 1}, Point{-infinite, no_number}}) {
    const Point from[5] = {p, p, p, p, p};
    CHECK(estimate_similarity(from, to.at, 5).status().code() == Errc::invalid_argument);
  }
  Point one_bad[5] = {{1, 1}, {2, 1}, {3, 4}, {9, 9}, {no_number, 2}};
  CHECK(estimate_similarity(one_bad, to.at, 5).status().code() == Errc::invalid_argument);
  const Picture p(8, 8, hash);
  CHECK(warp(p.view(), {0, 0, 1, 1}, 16).status().code() == Errc::invalid_argument);
  CHECK(warp(p.view(), {1, 0, 0, 0}, 0).status().code() == Errc::invalid_argument);
  CHECK(warp({}, {1, 0, 0, 0}, 8).status().code() == Errc::invalid_argument);
}

TEST_CASE("the places are the published ones, at any size") {
  const FivePoints a = arcface_points(112), d = dlib_points(150, 0.25);
  CHECK(a.at[0].x == 38.2946f);
  CHECK(a.at[4].y == 92.2041f);
  CHECK(arcface_points(224).at[2].x == 2 * a.at[2].x);
  CHECK(std::fabs(d.at[0].x - (0.25f + 0.225492f) * 100) < 1e-4f);
  CHECK(std::fabs(d.at[0].x + d.at[1].x - 2 * d.at[2].x) < 1e-3f);  // a mean face is symmetric
}

TEST_CASE("shifts and quarter turns by whole pixels move bytes, black comes in from outside") {
  const Picture p(40, 30, hash);
  auto same = warp(p.view(ChannelOrder::bgr), {1, 0, 0, 0}, 30);
  REQUIRE(same.ok());
  CHECK(same->order() == ChannelOrder::bgr);
  auto shifted = warp(p.view(), {1, 0, 5, -3}, 40);
  auto turned = warp(p.view(), {0, 1, 29, 0}, 30);  // (x, y) -> (29 - y, x)
  REQUIRE(shifted.ok());
  REQUIRE(turned.ok());
  bool all = true;
  for (int y = 0; y < 30; ++y)
    for (int x = 0; x < 30; ++x)
      for (int c = 0; c < 3; ++c) {
        all = all && same->row(y)[3 * x + c] == hash(x, y, c);
        all = all && turned->row(x)[3 * (29 - y) + c] == hash(x, y, c);
      }
  for (int y = 0; y < 40; ++y)
    for (int x = 0; x < 40; ++x)
      for (int c = 0; c < 3; ++c)
        all = all && shifted->row(y)[3 * x + c] == (x >= 5 && y + 3 < 30 ? hash(x - 5, y + 3, c) : 0);
  CHECK(all);
  auto nothing = warp(p.view(), {1, 0, 1000, 0}, 20);
  REQUIRE(nothing.ok());
  for (std::size_t i = 0; i < nothing->bytes(); ++i) CHECK(nothing->data()[i] == 0);
}

TEST_CASE("a large face is averaged before it is sampled") {
  const Picture board(512, 512, [](int x, int y, int) { return (x + y) % 2 * 255; });
  auto small = warp(board.view(), {0.125, 0, 0, 0}, 60);
  REQUIRE(small.ok());
  int off = 0;
  for (int y = 1; y < 58; ++y)
    for (int x = 3; x < 3 * 58; ++x)
      if (std::abs(small->row(y)[x] - 128) > off) off = std::abs(small->row(y)[x] - 128);
  CHECK(off <= 2);  // windows of 8 or 9 pixels: one of 81 too many is 1.6, and half for rounding. Sampled alone: 128
}

TEST_CASE("the box's crop, and what a model asks for") {
  const Picture p(200, 120, hash);
  auto face = extract_face(p.view(), {20.7f, 10.2f, 120.9f, 90.5f});
  auto by_hand = crop_resize(p.view(), {20, 10, 120, 90}, 160, 160);
  REQUIRE(face.ok());
  REQUIRE(by_hand.ok());
  CHECK(std::memcmp(face->data(), by_hand->data(), face->bytes()) == 0);
  CHECK(extract_face(p.view(), {0, 0, 50, 50}, 160, 160).status().code() == Errc::invalid_argument);
  CHECK(extract_face(p.view(), {0, 0, 50, 50}, 160, -1).status().code() == Errc::invalid_argument);
  CHECK(extract_face(p.view(), {300, 0, 350, 50}).status().code() == Errc::invalid_argument);

  Face f;
  f.box = {20.7f, 10.2f, 120.9f, 90.5f};
  const FivePoints at = dlib_points(150, 0.25);
  for (int i = 0; i < 5; ++i) f.landmarks[i] = {at.at[i].x + 10, at.at[i].y - 20};
  ModelInfo model{};
  model.crop = Crop::box;
  model.image_size = 160;
  auto boxed = crop_face(p.view(), f, model);
  REQUIRE(boxed.ok());
  CHECK(std::memcmp(face->data(), boxed->data(), face->bytes()) == 0);
  model.crop = Crop::five_point;
  model.image_size = 150;
  model.margin = 0.25;
  auto chip = crop_face(p.view(), f, model);
  REQUIRE(chip.ok());
  CHECK(chip->width() == 150);
  int off = 0;  // a shift by (10, -20), to float32's accuracy of the landmarks
  for (int y = 20; y < 140; ++y)
    for (int x = 0; x < 150; ++x) off += std::abs(chip->row(y)[3 * x] - hash(x + 10, y - 20, 0)) > 1;
  CHECK(off == 0);
}
