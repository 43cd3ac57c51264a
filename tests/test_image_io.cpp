// Decoding through stb_image. Whole corpora, against Pillow: tests/python/test_image.py.
#include "failing_malloc.hpp"

#include "facenet/image_io.hpp"

#include <doctest/doctest.h>

#include <thread>
#include <vector>

#include "picture_files.hpp"

using namespace facenet;
using namespace files;

TEST_CASE("a JPEG of mid-grey") {
  auto image = decode_image(span(jpeg(21, 10)));
  REQUIRE(image.ok());
  CHECK(image->width() == 21);
  CHECK(image->height() == 10);
  CHECK(image->order() == ChannelOrder::rgb);
  for (std::size_t i = 0; i < image->bytes(); ++i) CHECK(image->data()[i] == 128);
}

TEST_CASE("PNG: colour, alpha over white, palette with an index past its end, tRNS") {
  auto rgb = decode_image(span(png(ihdr(2, 1, 2), bytes({0, 1, 2, 3, 4, 5, 6}))));
  REQUIRE(rgb.ok());
  for (int i = 0; i < 6; ++i) CHECK(rgb->data()[i] == i + 1);

  auto rgba = decode_image(span(png(ihdr(3, 1, 6), bytes({0, 10, 20, 30, 255, 10, 20, 30, 0, 10, 20, 30, 128}))));
  REQUIRE(rgba.ok());
  const int over_white[] = {10, 20, 30, 255, 255, 255, 132, 137, 142};
  for (int i = 0; i < 9; ++i) CHECK(rgba->data()[i] == over_white[i]);

  auto palette = decode_image(span(png(ihdr(3, 1, 3), bytes({0, 1, 0, 200}), chunk("PLTE", "abcdef"))));
  REQUIRE(palette.ok());
  CHECK(std::memcmp(palette->data(), "defabc\0\0\0", 9) == 0);

  auto grey = decode_image(span(png(ihdr(2, 1, 0), bytes({0, 7, 9}), chunk("tRNS", bytes({0, 7})))));
  REQUIRE(grey.ok());
  CHECK(grey->data()[0] == 255);
  CHECK(grey->data()[3] == 9);
  CHECK(decode_image(span(png(ihdr(3, 1, 3), bytes({0, 1, 0, 2})))).status().code() == Errc::corrupt);
}

TEST_CASE("EXIF turns the picture: where the stored first row and column come to lie") {
  // 2 x 3 grey pixels: 1 2 / 3 4 / 5 6
  const Data lines = bytes({0, 1, 2, 0, 3, 4, 0, 5, 6});
  const int expected[8][6] = {{1, 2, 3, 4, 5, 6}, {2, 1, 4, 3, 6, 5}, {6, 5, 4, 3, 2, 1}, {5, 6, 3, 4, 1, 2},
                              {1, 3, 5, 2, 4, 6}, {5, 3, 1, 6, 4, 2}, {6, 4, 2, 5, 3, 1}, {2, 4, 6, 1, 3, 5}};
  for (int o = 1; o <= 8; ++o) {
    auto image = decode_image(span(png(ihdr(2, 3, 0), lines, chunk("eXIf", exif(o)))));
    REQUIRE(image.ok());
    CHECK(image->width() == (o >= 5 ? 3 : 2));
    CHECK(image->height() == (o >= 5 ? 2 : 3));
    for (int i = 0; i < 6; ++i) CHECK(image->data()[3 * i + 1] == expected[o - 1][i]);
  }
}

TEST_CASE("turning a picture larger than a tile loses no pixel") {
  auto source = Image::make(70, 45, ChannelOrder::rgb, false);
  REQUIRE(source.ok());
  for (std::size_t i = 0; i < source->bytes(); ++i) source->data()[i] = static_cast<std::uint8_t>(i * 31 / 7);
  auto turned = Image::make(45, 70, ChannelOrder::rgb);
  REQUIRE(turned.ok());
  detail::place<3>(source->data(), 70, 45, 6, *turned);
  for (int y = 0; y < 70; ++y)
    for (int x = 0; x < 45; ++x) REQUIRE(std::memcmp(turned->row(y) + 3 * x, source->row(44 - x) + 3 * y, 3) == 0);
}

TEST_CASE("data that unpacks to more than its size allows is refused") {
  // 1 x 1 pixel; deflate with fixed codes: a zero, then runs of 258 zeros, 200 MB in all.
  Data packed = bytes({0x78, 1});
  unsigned bit_buffer = 0;
  int bits = 0;
  const auto put = [&](unsigned value, int count) {
    bit_buffer |= value << bits;
    for (bits += count; bits >= 8; bits -= 8, bit_buffer >>= 8) packed += static_cast<char>(bit_buffer & 255);
  };
  put(1, 1);           // the last block
  put(1, 2);           // fixed codes
  put(0x0C, 8);        // literal 0: 00110000, first bit first
  for (int i = 0; i < 800000; ++i) {
    put(0xA3, 8);      // length 258: 11000101, first bit first
    put(0, 5);         // distance 1
  }
  put(0, 7 + 8);
  const Data bomb = signature() + ihdr(1, 1, 2) + chunk("IDAT", packed) + chunk("IEND", {});
  const auto image = decode_image(span(bomb));
  CHECK(image.status().code() == Errc::limit_exceeded);
}

TEST_CASE("every allocation may fail: an error, no crash, no leak") {
  const Data pictures[] = {jpeg(20, 20), png(ihdr(1, 2, 6), Data(10, 0)),
                           png(ihdr(3, 1, 3), bytes({0, 1, 0, 2}), chunk("PLTE", "abcdef"))};
  for (const Data& d : pictures) {
    int failures = 0;
    for (int n = 0;; ++n) {
      const long before = failing_malloc::blocks_alive;
      failing_malloc::allocations_left = n;
      const Errc code = decode_image(span(d)).status().code();
      failing_malloc::allocations_left = -1;
      CHECK(failing_malloc::blocks_alive == before);
      if (code == Errc::ok) break;
      CHECK(code == Errc::out_of_memory);
      ++failures;
    }
    CHECK(failures >= 3);
  }
}

TEST_CASE("the account of the decoder is balanced") {
  REQUIRE(decode_image(span(jpeg(100, 100))).ok());
  const std::size_t left = detail::decode_memory.left;
  REQUIRE(decode_image(span(jpeg(100, 100))).ok());
  CHECK(detail::decode_memory.left == left);
  CHECK(left == 100 * 100 * 32 + jpeg(100, 100).size() * 4 + (16 << 20));
}

#if !defined(FACENET_PARALLEL_SERIAL)
TEST_CASE("threads decode at the same time") {
  const Data a = jpeg(300, 200), b = png(ihdr(2, 1, 2), bytes({0, 1, 2, 3, 4, 5, 6}));
  int wrong[4] = {};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 50; ++i) {
        auto image = decode_image(span(t % 2 == 0 ? a : b));
        if (!image.ok() || image->data()[0] != (t % 2 == 0 ? 128 : 1)) ++wrong[t];
      }
    });
  for (auto& t : threads) t.join();
  for (const int w : wrong) CHECK(w == 0);
}
#endif

TEST_CASE("files that cannot be read are named") {
  for (const char* path : {"no/such/picture.jpg", "/", "/dev/null"}) {
    auto image = read_image(path);
    REQUIRE(!image.ok());
    CHECK(std::strcmp(image.status().place(), path) == 0);
  }
  CHECK(read_image("no/such/picture.jpg").status().code() == Errc::not_found);
  CHECK(read_image("/").status().code() == Errc::io_error);
}
