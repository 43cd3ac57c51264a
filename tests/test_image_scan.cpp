// The walk over a picture file. Whole corpora, against Pillow: tests/python/test_image.py.
#include "facenet/image_scan.hpp"

#include <doctest/doctest.h>

#include "picture_files.hpp"

using namespace facenet;
using namespace files;

namespace {

Errc scan(const Data& d) {
  detail::Stored stored;
  return detail::scan_picture(span(d), stored).code();
}

}  // namespace

TEST_CASE("sound files: size, orientation, alpha") {
  detail::Stored s;
  REQUIRE(detail::scan_picture(span(jpeg(17, 9, segment(0xE1, bytes({'E', 'x', 'i', 'f', 0, 0}) + exif(6)))), s).ok());
  CHECK(s.width == 17);
  CHECK(s.height == 9);
  CHECK(s.orientation == 6);
  s = {};
  REQUIRE(detail::scan_picture(span(png(ihdr(1, 2, 6), Data(10, 0), chunk("eXIf", exif(3)))), s).ok());
  CHECK(s.width == 1);
  CHECK(s.height == 2);
  CHECK(s.orientation == 3);
  CHECK(s.alpha);
}

TEST_CASE("every proper beginning of a file is truncated") {
  for (const Data& whole : {jpeg(40, 30), png(ihdr(3, 2, 2), Data(20, 0))}) {
    REQUIRE(scan(whole) == Errc::ok);
    CHECK(scan(whole + "anything") == Errc::ok);
    for (std::size_t n = 0; n < whole.size(); ++n) {
      CAPTURE(n);
      CHECK(scan(whole.substr(0, n)) == Errc::truncated);
    }
  }
}

TEST_CASE("what is neither") {
  CHECK(scan("") == Errc::truncated);
  CHECK(scan("GIF89a") == Errc::unsupported);
  CHECK(scan(bytes({0xFF, 0xD8, 0x00, 0x00})) == Errc::unsupported);
  CHECK(scan(Data(100, 0)) == Errc::unsupported);
}

TEST_CASE("JPEG: pieces missing, twice, or in the wrong place") {
  const Data good = sof(8, 8) + sos() + blocks(1) + eoi();
  CHECK(scan(soi() + tables() + good) == Errc::ok);
  CHECK(scan(soi() + bytes({0xFF, 0xFF, 0xFF}) + tables().substr(1) + good) == Errc::ok);  // fill bytes
  CHECK(scan(soi() + good) == Errc::corrupt);
  CHECK(scan(soi() + dht(0) + dht(1) + good) == Errc::corrupt);
  CHECK(scan(soi() + dqt() + dht(0) + good) == Errc::corrupt);
  CHECK(scan(soi() + dqt() + dht(1) + good) == Errc::corrupt);
  CHECK(scan(soi() + tables() + sos() + blocks(1) + eoi()) == Errc::corrupt);
  CHECK(scan(soi() + tables() + sof(8, 8) + eoi()) == Errc::corrupt);
  CHECK(scan(soi() + tables() + sof(8, 8) + good) == Errc::corrupt);
  CHECK(scan(soi() + soi() + tables() + good) == Errc::corrupt);
  CHECK(scan(soi() + eoi()) == Errc::corrupt);
  CHECK(scan(soi() + tables() + sof(8, 8, 0xC9) + sos() + blocks(1) + eoi()) == Errc::unsupported);
  CHECK(scan(soi() + tables() + sof(0, 8) + sos() + blocks(1) + eoi()) == Errc::corrupt);
  CHECK(scan(soi() + tables() + sof(16385, 8) + sos() + blocks(1) + eoi()) == Errc::limit_exceeded);
  CHECK(scan(soi() + tables() + sof(16000, 16000) + sos() + blocks(1) + eoi()) == Errc::limit_exceeded);
}

TEST_CASE("JPEG: a Huffman table cannot overflow stb_image's") {
  const Data rest = sof(8, 8) + sos() + blocks(1) + eoi();
  CHECK(scan(soi() + dqt() + dht(0) + dht(1, 0, 3) + rest) == Errc::ok);
  CHECK(scan(soi() + dqt() + dht(0) + dht(1, 2, 255) + rest) == Errc::corrupt);
  CHECK(scan(soi() + dqt() + dht(0) + dht(2) + rest) == Errc::corrupt);
  const Data short_table = segment(0xC4, Data(10, 0));
  CHECK(scan(soi() + dqt() + dht(0) + short_table + rest) == Errc::corrupt);
  CHECK(scan(soi() + segment(0xDB, Data(64, 1)) + dht(0) + dht(1) + rest) == Errc::corrupt);
}

TEST_CASE("JPEG: a scan must hold two bits a block, and its restart markers") {
  const Data head = soi() + tables() + sof(64, 64) + sos();
  CHECK(scan(head + blocks(64) + eoi()) == Errc::ok);
  CHECK(scan(head + blocks(60) + eoi()) == Errc::corrupt);
  CHECK(scan(head + eoi()) == Errc::corrupt);
  const Data dri = segment(0xDD, be16(32));
  const Data restarts = soi() + dri + tables() + sof(64, 64) + sos();
  CHECK(scan(restarts + blocks(32) + bytes({0xFF, 0xD0}) + blocks(32) + eoi()) == Errc::ok);
  CHECK(scan(restarts + blocks(64) + eoi()) == Errc::corrupt);
}

TEST_CASE("JPEG: at most 64 scans") {
  Data d = soi() + tables() + sof(8, 8);
  for (int i = 0; i < max_jpeg_scans; ++i) d += sos() + blocks(1);
  CHECK(scan(d + eoi()) == Errc::ok);
  CHECK(scan(d + sos() + blocks(1) + eoi()) == Errc::limit_exceeded);
}

TEST_CASE("PNG: a flipped bit anywhere is found, with its place") {
  const Data whole = png(ihdr(3, 2, 2), Data(20, 0));
  for (std::size_t i = 0; i < whole.size(); ++i) {
    Data bad = whole;
    bad[i] = static_cast<char>(bad[i] ^ 16);
    CAPTURE(i);
    CHECK(scan(bad) != Errc::ok);
  }
  Data bad = whole;
  bad[60] = static_cast<char>(bad[60] ^ 1);
  detail::Stored s;
  const Status status = detail::scan_picture(span(bad), s);
  CHECK(status.code() == Errc::corrupt);
  CHECK(status.offset() == 33);  // the IDAT chunk
}

TEST_CASE("PNG: formats, order of chunks, limits") {
  const Data lines(20, 0), end = chunk("IEND", {});
  for (int colour = 0; colour < 8; ++colour)
    for (int depth = 0; depth <= 17; ++depth) {
      const bool grey_or_palette = colour == 0 || colour == 3;
      const bool right = (depth == 8 && colour != 1 && colour != 5 && colour != 7) ||
                         (depth == 16 && colour % 2 == 0 && colour != 7) ||
                         ((depth == 1 || depth == 2 || depth == 4) && grey_or_palette);
      CAPTURE(colour);
      CAPTURE(depth);
      CHECK((scan(png(ihdr(1, 1, colour, depth), lines)) == Errc::ok) == right);
    }
  CHECK(scan(signature() + idat(lines) + end) == Errc::corrupt);
  CHECK(scan(png(ihdr(3, 2, 2) + ihdr(3, 2, 2), lines)) == Errc::corrupt);
  CHECK(scan(signature() + ihdr(3, 2, 2) + end) == Errc::corrupt);
  CHECK(scan(png(ihdr(0, 2, 2), lines)) == Errc::corrupt);
  CHECK(scan(png(ihdr(16385, 2, 2), lines)) == Errc::limit_exceeded);
  CHECK(scan(png(ihdr(-1, -1, 2), lines)) == Errc::limit_exceeded);
  CHECK(scan(png(ihdr(3, 2, 2), lines, chunk("ABCD", "?"))) == Errc::unsupported);
  CHECK(scan(png(ihdr(3, 2, 2), lines, chunk("abCD", "?"))) == Errc::ok);
  CHECK(scan(png(chunk("CgBI", "?") + ihdr(3, 2, 2), lines)) == Errc::unsupported);
  CHECK(scan(png(ihdr(3, 2, 3), lines, chunk("PLTE", "four"))) == Errc::corrupt);
  CHECK(scan(signature() + be32(0x80000000u) + "IHDR" + Data(40, 0)) == Errc::truncated);
}

TEST_CASE("EXIF: all eight values, both types, and garbage is upright") {
  for (int o = 0; o < 12; ++o) {
    CHECK(detail::exif_orientation(span(exif(o))) == (o >= 1 && o <= 8 ? o : 1));
    CHECK(detail::exif_orientation(span(exif(o, 4))) == (o >= 1 && o <= 8 ? o : 1));
    CHECK(detail::exif_orientation(span(exif(o, 2))) == 1);
  }
  const Data good = exif(6);
  for (std::size_t n = 0; n < 22; ++n) CHECK(detail::exif_orientation(span(good.substr(0, n))) == 1);
  for (int at = 0; at < 26; ++at)
    for (const int value : {0, 1, 255}) {
      Data bad = good;
      bad[static_cast<std::size_t>(at)] = static_cast<char>(value);
      const int o = detail::exif_orientation(span(bad));
      CHECK((o >= 1 && o <= 8));
    }
}

TEST_CASE("the checksum of PNG is CRC-32") { CHECK(detail::crc32(span("123456789")) == 0xCBF43926u); }
