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

TEST_CASE("a JPEG with more than its picture is that picture; one with less is none") {
  const auto grey = [](const Data& d) {
    auto image = decode_image(span(d));
    if (!image.ok()) return false;
    for (std::size_t i = 0; i < image->bytes(); ++i)
      if (image->data()[i] != 128) return false;
    return true;
  };
  const Data frame = sof(64, 64) + sos(), head = soi() + tables() + frame, junk = Data(700, 'Z');
  for (const Data& tail : {Data(), junk, bytes({0xFF, 0xD0}), junk + bytes({0xFF, 0xD1}) + junk, bytes({0xFF, 0xFF}),
                           Data("\x12\xFF\0\x56", 4) + Data(4096, 0)}) {
    CHECK(grey(head + blocks(64) + tail + eoi()));
    CHECK_FALSE(grey(head + blocks(60) + eoi() + tail));
  }
  CHECK(grey(head + blocks(64)));  // no end marker
  // Bytes, fill bytes and a marker of the past before restart markers.
  Data data;
  for (int i = 0; i < 3; ++i) data += blocks(16) + junk + bytes({0xFF, 0xD0 + (i + 7) % 8, 0xFF, 0xFF, 0xD0 + i});
  const Data dri = segment(0xDD, be16(16));
  CHECK(grey(soi() + dri + tables() + frame + data + blocks(16) + eoi()));
  CHECK_FALSE(grey(soi() + dri + tables() + frame + data + blocks(12) + eoi()));
  // Anything between frame and tables, and no Huffman tables at all (DC 00, end of block 1010).
  CHECK(grey(soi() + sof(64, 64) + segment(0xF0, junk) + junk + tables() + segment(0xEF, junk) + sos() + blocks(64) +
             eoi()));
  Data four;
  for (int i = 0; i < 16; ++i) four += bytes({0x28, 0xA2, 0x8A});
  CHECK(grey(soi() + dqt() + frame + four + eoi()));
}

TEST_CASE("every beginning of a PNG is that picture or truncated, with the rows that are there") {
  const Data lines = bytes({0, 1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9});
  const Data whole = png(ihdr(1, 3, 2), lines);
  for (std::size_t n = 0; n < whole.size(); ++n) {
    auto image = decode_image(span(whole.substr(0, n)));
    CAPTURE(n);
    if (n < whole.size() - 12)
      CHECK(image.status().code() == Errc::truncated);
    else
      REQUIRE(image.ok());
    if (image.ok()) CHECK(image->data()[8] == 9);
  }
  const auto place = [](const Data& d) { return Data(decode_image(span(d)).status().place()); };
  CHECK(place(whole.substr(0, whole.size() - 12 - 8 - 3)) == "only 2 of 3 rows are there");
  CHECK(place(png(ihdr(1, 4, 2), lines)) == "only 3 of 4 rows are there");
}

TEST_CASE("PNG: data that is not finished but whole, an empty first chunk, a wrong checksum") {
  const Data lines = bytes({0, 1, 2, 3}), zlib = bytes({0x78, 1}), open = bytes({0, 4, 0, 0xFB, 0xFF}) + lines;
  const auto with = [](const Data& packed) {
    return decode_image(
        span(signature() + ihdr(1, 1, 2) + chunk("IDAT", {}) + chunk("IDAT", packed) + chunk("IEND", {})));
  };
  const Data closed = bytes({1, 4, 0, 0xFB, 0xFF}) + lines, sum = be32(detail::adler32(span(lines)));
  for (const Data& packed : {zlib + closed + sum, zlib + closed, zlib + open,
                             zlib + open + bytes({0, 0, 0, 0xFF, 0xFF}), zlib + closed + sum + Data(300, 0)}) {
    auto image = with(packed);
    REQUIRE(image.ok());
    CHECK(std::memcmp(image->data(), "\1\2\3", 3) == 0);
  }
  CHECK(with(zlib + closed + "abcd").status().code() == Errc::corrupt);
  CHECK(with(zlib + open.substr(0, 8)).status().code() == Errc::corrupt);
  CHECK(with("").status().code() == Errc::corrupt);
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
  put(1, 1);     // the last block
  put(1, 2);     // fixed codes
  put(0x0C, 8);  // literal 0: 00110000, first bit first
  for (int i = 0; i < 800000; ++i) {
    put(0xA3, 8);  // length 258: 11000101, first bit first
    put(0, 5);     // distance 1
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

TEST_CASE("one picture after the other in the same memory") {
  const Data large = jpeg(640, 480), damaged = large.substr(0, large.size() / 2);
  const Data lines = bytes({0, 1, 2, 3, 0, 4, 5, 6});
  const Data pictures[] = {large,        png(ihdr(1, 2, 2), lines),
                           jpeg(70, 33), jpeg(21, 10),
                           damaged,      png(ihdr(1, 2, 2), lines, chunk("eXIf", exif(6))),
                           sof(3, 3),    jpeg(640, 480, segment(0xE1, Data("Exif\0\0", 6) + exif(8))),
                           large};
  Image image;
  REQUIRE(decode_image(span(large), image).ok());
  // Grey: one plane of as many bytes as pixels begins where two thirds of the pixels end.
  const std::size_t room = image.room();
  CHECK(room > image.bytes());
  CHECK(room < image.bytes() * 13 / 10);
  const std::uint8_t* const memory = image.data();
  for (const Data& d : pictures) {
    std::atomic<std::uint64_t> allocated{0};
    detail::allocation_meter = &allocated;
    const Status status = decode_image(span(d), image);
    detail::allocation_meter = nullptr;
    auto fresh = decode_image(span(d));
    CHECK(status.code() == fresh.status().code());
    CHECK(image.room() == room);
    CHECK(image.width() == (fresh.ok() ? fresh->width() : 0));
    CHECK(image.height() == (fresh.ok() ? fresh->height() : 0));
    if (!fresh.ok()) continue;
    CHECK(image.data() == memory);
    CHECK(std::memcmp(image.data(), fresh->data(), image.bytes()) == 0);
    if (image.width() == 640) CHECK(allocated < image.bytes() / 2);  // the file, tables and lines
  }
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
