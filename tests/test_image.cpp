// Views, crops, resizing, standardisation. On random pictures, against Pillow and PyTorch: tests/python/test_image.py.
#include "facenet/image.hpp"

#include <doctest/doctest.h>

#include <limits>
#include <vector>

using namespace facenet;

namespace {

// Pixel (x, y) is (x, y, x + y), in a row that is wider than the picture.
struct Picture {
  static constexpr int gap = 7;
  int width, height;
  std::vector<std::uint8_t> bytes;

  Picture(int w, int h) : width(w), height(h), bytes(static_cast<std::size_t>(h * (3 * w + gap)), 0xEE) {
    for (int y = 0; y < h; ++y)
      for (int x = 0; x < w; ++x) {
        std::uint8_t* p = bytes.data() + y * (3 * w + gap) + 3 * x;
        p[0] = static_cast<std::uint8_t>(x);
        p[1] = static_cast<std::uint8_t>(y);
        p[2] = static_cast<std::uint8_t>(x + y);
      }
  }
  ImageView view(ChannelOrder order = ChannelOrder::rgb) const {
    return {bytes.data(), width, height, 3 * width + gap, order};
  }
};

bool same(const Image& a, ImageView b) {
  if (a.width() != b.width || a.height() != b.height) return false;
  for (int y = 0; y < b.height; ++y)
    if (std::memcmp(a.row(y), b.row(y), static_cast<std::size_t>(b.width) * 3) != 0) return false;
  return true;
}

}  // namespace

TEST_CASE("an image is made black, within the limits only") {
  auto image = Image::make(3, 2, ChannelOrder::bgr);
  REQUIRE(image.ok());
  CHECK(image->bytes() == 18);
  CHECK(image->order() == ChannelOrder::bgr);
  CHECK(image->view().order == ChannelOrder::bgr);
  for (std::size_t i = 0; i < image->bytes(); ++i) CHECK(image->data()[i] == 0);
  CHECK(Image::make(0, 1, ChannelOrder::rgb).status().code() == Errc::invalid_argument);
  CHECK(Image::make(1, -1, ChannelOrder::rgb).status().code() == Errc::invalid_argument);
  CHECK(Image::make(max_image_side + 1, 1, ChannelOrder::rgb).status().code() == Errc::limit_exceeded);
  CHECK(Image::make(max_image_side, 1, ChannelOrder::rgb).ok());
}

TEST_CASE("a bad view is refused by everything that takes one") {
  const Picture p(4, 4);
  const ImageView bad[] = {{},
                           {nullptr, 4, 4, 12, ChannelOrder::rgb},
                           {p.bytes.data(), 0, 4, 12, ChannelOrder::rgb},
                           {p.bytes.data(), 4, -1, 12, ChannelOrder::rgb},
                           {p.bytes.data(), 4, 4, 11, ChannelOrder::rgb},
                           {p.bytes.data(), 4, 4, -11, ChannelOrder::rgb}};
  float out[48];
  for (const ImageView& v : bad) {
    CHECK(crop(v, {0, 0, 1, 1}).status().code() == Errc::invalid_argument);
    CHECK(resize_bilinear(v, 2, 2).status().code() == Errc::invalid_argument);
    CHECK(crop_resize(v, {0, 0, 2, 2}, 2, 2).status().code() == Errc::invalid_argument);
    CHECK(resize_area(v, 2, 2, out).code() == Errc::invalid_argument);
    CHECK(standardise(v, Scaling::fixed, ChannelOrder::rgb, out).code() == Errc::invalid_argument);
  }
}

TEST_CASE("rows may be stored bottom up") {
  const Picture p(5, 4);
  const ImageView v = p.view();
  const ImageView flipped(v.row(3), 5, 4, -v.stride, ChannelOrder::rgb);
  auto image = resize_bilinear(flipped, 5, 4);
  REQUIRE(image.ok());
  CHECK(image->row(0)[1] == 3);
  CHECK(image->row(3)[1] == 0);
}

TEST_CASE("a crop copies what is there and is black elsewhere") {
  const Picture p(6, 5);
  auto inside = crop(p.view(), {1, 2, 4, 5});
  REQUIRE(inside.ok());
  CHECK(same(*inside, p.view().crop({1, 2, 4, 5})));
  auto outside = crop(p.view(), {-2, -1, 8, 7});
  REQUIRE(outside.ok());
  for (int y = -1; y < 7; ++y)
    for (int x = -2; x < 8; ++x) {
      const bool in = x >= 0 && y >= 0 && x < 6 && y < 5;
      CHECK(outside->row(y + 1)[3 * (x + 2) + 2] == (in ? x + y : 0));
    }
  auto beyond = crop(p.view(), {100, 100, 103, 102});
  REQUIRE(beyond.ok());
  CHECK(beyond->data()[0] == 0);
  CHECK(crop(p.view(), {3, 3, 3, 4}).status().code() == Errc::invalid_argument);
  CHECK(crop(p.view(), {3, 3, 2, 4}).status().code() == Errc::invalid_argument);
  constexpr int low = std::numeric_limits<int>::min(), high = std::numeric_limits<int>::max();
  CHECK(crop(p.view(), {low, low, high, high}).status().code() == Errc::limit_exceeded);
}

TEST_CASE("the centre square") {
  CHECK(centre_square(10, 4) == Rect{3, 0, 7, 4});
  CHECK(centre_square(4, 9) == Rect{0, 2, 4, 6});
  CHECK(centre_square(1, 1) == Rect{0, 0, 1, 1});
}

TEST_CASE("bilinear: equal sizes copy, flat stays flat, two known rows of Pillow") {
  const Picture p(9, 7);
  auto copy = resize_bilinear(p.view(ChannelOrder::bgr), 9, 7);
  REQUIRE(copy.ok());
  CHECK(same(*copy, p.view()));
  CHECK(copy->order() == ChannelOrder::bgr);

  const std::vector<std::uint8_t> white(50 * 40 * 3, 255);
  for (const int w : {1, 7, 50, 333})
    for (const int h : {1, 9, 40, 200}) {
      auto flat = resize_bilinear(ImageView(white.data(), 50, 40, 150, ChannelOrder::rgb), w, h);
      REQUIRE(flat.ok());
      for (std::size_t i = 0; i < flat->bytes(); ++i) REQUIRE(flat->data()[i] == 255);
    }

  // Image.fromarray(row).resize((3, 1) and (7, 1), Image.BILINEAR) of five grey pixels.
  const std::uint8_t row[] = {0, 0, 0, 200, 200, 200, 10, 10, 10, 255, 255, 255, 90, 90, 90};
  const ImageView v(row, 5, 1, 15, ChannelOrder::rgb);
  const int three[] = {86, 107, 161}, seven[] = {0, 114, 146, 10, 185, 184, 90};
  auto small = resize_bilinear(v, 3, 1), large = resize_bilinear(v, 7, 1);
  REQUIRE(small.ok());
  REQUIRE(large.ok());
  for (int i = 0; i < 3; ++i) CHECK(small->data()[3 * i] == three[i]);
  for (int i = 0; i < 7; ++i) CHECK(large->data()[3 * i + 2] == seven[i]);
}

TEST_CASE("bilinear: a crop is not influenced by what lies around it, a box is checked") {
  const Picture p(20, 20);
  auto whole = resize_bilinear(p.view().crop({5, 5, 15, 15}), 4, 4);
  auto direct = crop_resize(p.view(), {5, 5, 15, 15}, 4, 4);
  REQUIRE(whole.ok());
  REQUIRE(direct.ok());
  CHECK(same(*direct, *whole));
  auto padded = crop_resize(p.view(), {-10, 0, 10, 20}, 2, 1);
  REQUIRE(padded.ok());
  CHECK(padded->data()[1] < padded->data()[4]);  // the left half is black

  constexpr float nan = std::numeric_limits<float>::quiet_NaN();
  for (const Box box : {Box{-1, 0, 5, 5}, Box{0, 0, 21, 5}, Box{3, 3, 3, 5}, Box{4, 3, 3, 5}, Box{nan, 0, 5, 5},
                        Box{0, 0, 5, nan}, Box{0, 0, 5, 20.5f}})
    CHECK(resize_bilinear(p.view(), box, 3, 3).status().code() == Errc::invalid_argument);
  CHECK(resize_bilinear(p.view(), 0, 3).status().code() == Errc::invalid_argument);
  CHECK(resize_bilinear(p.view(), 3, max_image_side + 1).status().code() == Errc::limit_exceeded);
}

TEST_CASE("area: means over windows, overlapping where the ratio is not whole") {
  const std::uint8_t row[] = {0, 1, 2, 10, 11, 12, 50, 51, 52};
  const ImageView v(row, 3, 1, 9, ChannelOrder::rgb);
  float out[6];
  REQUIRE(resize_area(v, 2, 1, out).ok());
  CHECK(out[0] == 5.0f);   // columns 0 and 1
  CHECK(out[3] == 30.0f);  // columns 1 and 2
  CHECK(out[5] == 32.0f);
  float up[3 * 4 * 2];
  REQUIRE(resize_area(v, 4, 2, up).ok());
  CHECK(up[0] == 0.0f);
  CHECK(up[3] == 5.0f);
  CHECK(up[12] == up[0]);
  CHECK(resize_area(v, 0, 1, out).code() == Errc::invalid_argument);
}

TEST_CASE("area: windows beyond 2^24 do not lose counts") {
  auto image = Image::make(2000, 1500, ChannelOrder::rgb);
  REQUIRE(image.ok());
  std::memset(image->data(), 255, image->bytes());
  float out[3];
  REQUIRE(resize_area(*image, 1, 1, out).ok());
  CHECK(out[0] == doctest::Approx(255.0).epsilon(1e-6));
}

TEST_CASE("standardisation: values and channel order") {
  const std::uint8_t pixel[] = {10, 128, 250};
  const ImageView rgb(pixel, 1, 1, 3, ChannelOrder::rgb), bgr(pixel, 1, 1, 3, ChannelOrder::bgr);
  float a[3], b[3], c[3];
  for (const Scaling scaling : {Scaling::fixed, Scaling::prewhiten, Scaling::unit, Scaling::mean_255}) {
    REQUIRE(standardise(rgb, scaling, ChannelOrder::rgb, a).ok());
    REQUIRE(standardise(rgb, scaling, ChannelOrder::bgr, b).ok());
    for (int i = 0; i < 3; ++i) CHECK(a[i] == b[2 - i]);
    REQUIRE(standardise(bgr, scaling, ChannelOrder::bgr, c).ok());
    REQUIRE(standardise(bgr, scaling, ChannelOrder::rgb, b).ok());
    for (int i = 0; i < 3; ++i) CHECK(c[i] == b[2 - i]);
  }
  REQUIRE(standardise(rgb, Scaling::fixed, ChannelOrder::rgb, a).ok());
  CHECK(a[0] == -117.5f / 128.0f);
  REQUIRE(standardise(rgb, Scaling::mean_255, ChannelOrder::rgb, a).ok());
  CHECK(a[2] == (250.0f - 104.298f) / 255.0f);
  REQUIRE(standardise(bgr, Scaling::mean_255, ChannelOrder::bgr, a).ok());
  CHECK(a[0] == (10.0f - 104.298f) / 255.0f);  // byte 0 is blue
  const std::uint8_t flat[12] = {};            // deviation 0: the least one, 1 / sqrt(12), keeps it finite
  float zero[12];
  REQUIRE(standardise(ImageView(flat, 2, 2, 6, ChannelOrder::rgb), Scaling::prewhiten, ChannelOrder::rgb, zero).ok());
  CHECK(zero[7] == 0.0f);
}

TEST_CASE("margins: both conventions, and boxes that no detector should give") {
  const Box face{100.7f, 50.2f, 180.9f, 150.6f};
  // extract_face: 14 * 80.2 / 146 / 2 = 3.84 on the left and right, 4.81 above and below
  CHECK(crop_output_margin(face, 14, 160, 1000, 1000) == Rect{96, 45, 184, 155});
  CHECK(crop_output_margin(face, 0, 160, 150, 120) == Rect{100, 50, 150, 120});
  CHECK(crop_source_margin(face, 44, 1000, 1000) == Rect{78, 28, 202, 172});
  CHECK(crop_source_margin(face, 44, 190, 160) == Rect{78, 28, 190, 160});
  CHECK(crop_source_margin({-5, -5, 20, 20}, 0, 100, 100) == Rect{0, 0, 20, 20});

  constexpr float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  const Picture p(10, 10);
  for (const Box box : {Box{nan, nan, nan, nan}, Box{200, 200, 300, 300}, Box{-50, -50, -20, -20}, Box{5, 5, 4, 4},
                        Box{inf, inf, inf, inf}, Box{-inf, -inf, -inf, -inf}, Box{1e30f, 0, 2e30f, 5}}) {
    CHECK(!p.view().holds(crop_output_margin(box, 0, 160, 10, 10)));
    CHECK(!p.view().holds(crop_source_margin(box, 0, 10, 10)));
  }
}
