// The walk over a picture file. Whole corpora, against Pillow: tests/python/test_image.py.
#include "facenet/image/scan.hpp"

#include <doctest/doctest.h>

#include <memory>
#include <random>
#include <vector>

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

TEST_CASE("every beginning of a file that lacks a part of the picture is truncated; an end marker may be missing") {
  for (const Data& whole : {jpeg(40, 30), png(ihdr(3, 2, 2), Data(20, 0))}) {
    REQUIRE(scan(whole) == Errc::ok);
    CHECK(scan(whole + "anything") == Errc::ok);
    const std::size_t end = whole.size() - (whole[0] == '\x89' ? 12 : 2);
    for (std::size_t n = 0; n < whole.size(); ++n) {
      CAPTURE(n);
      CHECK(scan(whole.substr(0, n)) == (n < end ? Errc::truncated : Errc::ok));
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
  CHECK(scan(soi() + dqt() + dht(1) + good) == Errc::ok);  // T.81's DC codes have the same first one
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

TEST_CASE("JPEG: every block of every restart segment must be there, and the error says how many are") {
  const auto words = [](const Data& d) {
    detail::Stored s;
    return Data(detail::scan_picture(span(d), s).place());
  };
  const Data head = soi() + tables() + sof(64, 64) + sos();
  CHECK(scan(head + blocks(64) + eoi()) == Errc::ok);
  CHECK(scan(head + blocks(60) + eoi()) == Errc::corrupt);
  CHECK(words(head + blocks(60) + eoi()) == "only 60 of 64 blocks are there");
  CHECK(words(soi() + tables() + sof(800, 800) + sos() + blocks(4096) + eoi()) ==
        "only 4,096 of 10,000 blocks are there");
  CHECK(scan(head + eoi()) == Errc::corrupt);
  CHECK(scan(head + blocks(60)) == Errc::truncated);
  const Data dri = segment(0xDD, be16(16));
  const Data restarts = soi() + dri + tables() + sof(64, 64) + sos();
  const auto rst = [](int n) { return bytes({0xFF, 0xD0 + n}); };
  const Data four = blocks(16);
  CHECK(scan(restarts + four + rst(0) + four + rst(1) + four + rst(2) + four + eoi()) == Errc::ok);
  CHECK(scan(restarts + blocks(64) + eoi()) == Errc::corrupt);
  CHECK(words(restarts + blocks(64) + eoi()) == "only 16 of 64 blocks are there");
  // Lost: a segment with its marker, a part of one, the last. What comes after is counted.
  CHECK(words(restarts + four + rst(0) + four + rst(2) + four + eoi()) == "only 48 of 64 blocks are there");
  CHECK(words(restarts + four + rst(0) + blocks(8) + rst(1) + four + rst(2) + four + eoi()) ==
        "only 56 of 64 blocks are there");
  CHECK(words(restarts + four + rst(0) + four + rst(1) + four + rst(2) + eoi()) == "only 48 of 64 blocks are there");
  // A marker twice is passed over, as libjpeg does; without an interval it ends the data.
  CHECK(scan(restarts + four + rst(0) + four + rst(0) + rst(1) + four + rst(2) + four + eoi()) == Errc::ok);
  CHECK(scan(head + blocks(32) + rst(0) + blocks(32) + eoi()) == Errc::corrupt);
}

TEST_CASE("JPEG: data after the last block is surplus where the end marker follows, else the file was cut") {
  const Data head = soi() + tables() + sof(64, 64) + sos();
  for (const Data& junk :
       {Data("a"), Data(5000, 0), bytes({0xFF, 0, 7}), bytes({0xFF, 0xD3}), bytes({0xFF, 0xFF, 0xFF})}) {
    CHECK(scan(head + blocks(64) + junk + eoi()) == Errc::ok);
    if (junk[0] != '\xFF') CHECK(scan(head + blocks(64) + junk) == Errc::truncated);
  }
  // Zeros after a last block that ends before them are padding (four bits of a byte; the rest is filled with ones).
  const Data two = soi() + tables() + sof(16, 8) + sos() + bytes({0x0F});
  for (const int zeros : {1, 7, 8, 9, 5000}) {
    CHECK(scan(two + Data(static_cast<std::size_t>(zeros), 0)) == Errc::ok);
    CHECK(scan(two + Data(static_cast<std::size_t>(zeros), 0) + "a") == Errc::truncated);
  }
}

TEST_CASE("JPEG: after a whole picture junk may look like any marker, and another frame may begin") {
  const Data whole = soi() + tables() + sof(64, 64) + sos() + blocks(64);
  for (const Data& junk :
       {bytes({0xFF, 0xE1, 0, 0}), bytes({0xFF, 0xC0, 0, 3, 1}), bytes({0xFF, 0xDA, 0, 8, 1, 9, 9, 9}),
        segment(0xC4, bytes({0x55})), segment(0xDD, {}), soi(), jpeg(8, 8), whole})
    CHECK(scan(whole + junk + eoi()) == Errc::ok);
}

TEST_CASE("JPEG: a progressive picture is whole when every bit of every coefficient has come") {
  const auto scan_of = [](int from, int to, int bits) { return segment(0xDA, bytes({1, 1, 0, from, to, bits})); };
  const Data head = soi() + tables() + sof(16, 16, 0xC2);
  const Data one_bit = bytes({0});  // four DC codes, four ends of block, or four DC bits
  const Data whole = head + scan_of(0, 0, 1) + one_bit + scan_of(1, 63, 1) + one_bit + scan_of(0, 0, 0x10) + one_bit +
                     scan_of(1, 63, 0x10) + one_bit;
  CHECK(scan(whole + eoi()) == Errc::ok);
  CHECK(scan(whole) == Errc::ok);
  detail::Stored s;
  const Data no_last = whole.substr(0, whole.size() - 11);
  const Status status = detail::scan_picture(span(no_last + eoi()), s);
  CHECK(status.code() == Errc::corrupt);
  CHECK(Data(status.place()) == "only 1 of 64 coefficients of a channel are whole");
  CHECK(scan(no_last) == Errc::truncated);
  CHECK(scan(head + scan_of(0, 0, 1) + one_bit + scan_of(1, 63, 0) + eoi()) == Errc::corrupt);  // an empty scan
  for (const auto& wrong :
       {scan_of(0, 5, 0), scan_of(5, 4, 0), scan_of(1, 64, 0), scan_of(0, 0, 0x31), scan_of(0, 0, 14)})
    CHECK(scan(head + wrong + one_bit + eoi()) == Errc::corrupt);
  // Every scan of these is sound, but one between is missing, or the first comes last, which clears the others.
  const auto dc = [&](int bits) { return scan_of(0, 0, bits) + one_bit; };
  const auto ac = [&](int bits) { return scan_of(1, 63, bits) + one_bit; };
  CHECK(scan(head + dc(2) + dc(0x21) + dc(0x10) + ac(2) + ac(0x21) + ac(0x10) + eoi()) == Errc::ok);
  CHECK(scan(head + dc(2) + dc(0x10) + ac(0) + eoi()) == Errc::corrupt);
  CHECK(scan(head + dc(0) + ac(2) + ac(0x10) + eoi()) == Errc::corrupt);
  CHECK(scan(head + dc(0x10) + ac(0) + eoi()) == Errc::corrupt);
  CHECK(scan(head + ac(0) + dc(0) + eoi()) == Errc::corrupt);
  CHECK(scan(head + dc(1) + ac(0) + dc(0) + eoi()) == Errc::corrupt);
}

TEST_CASE("JPEG: without Huffman tables those of T.81 apply, to sequential pictures only") {
  // DC 00, end of block 1010: six bits each.
  const Data four = bytes({0x28, 0xA2, 0x8A});
  CHECK(scan(soi() + dqt() + sof(16, 16) + sos() + four + eoi()) == Errc::ok);
  CHECK(scan(soi() + dqt() + sof(16, 16, 0xC2) + segment(0xDA, bytes({1, 1, 0, 0, 0, 0})) + four + eoi()) ==
        Errc::corrupt);
  CHECK(scan(soi() + sof(16, 16) + sos() + four + eoi()) == Errc::corrupt);  // quantisation has no default
}

TEST_CASE("JPEG: codes that do not exist and runs past the block are damage") {
  const Data head = soi() + dqt() + dht(0) + sof(8, 8) + sos();
  const Data runs = segment(0xC4, bytes({0x10, 1}) + Data(15, 0) + bytes({0xF0}));  // the only AC code: 16 zeros
  CHECK(scan(soi() + dqt() + dht(0) + runs + sof(8, 8) + sos() + Data(20, 0) + eoi()) == Errc::corrupt);
  CHECK(scan(soi() + tables() + sof(8, 8) + sos() + bytes({0x7F}) + eoi()) == Errc::corrupt);  // DC, then no AC code
}

TEST_CASE("JPEG: at most 64 scans") {
  const auto scan_of = [](int k, int bits) { return segment(0xDA, bytes({1, 1, 0, k, k, bits})) + blocks(1); };
  Data d = soi() + tables() + sof(8, 8, 0xC2);
  for (int k = 0; k < max_jpeg_scans - 1; ++k) d += scan_of(k, 0);
  CHECK(scan(d + scan_of(63, 0) + eoi()) == Errc::ok);
  CHECK(scan(d + scan_of(63, 1) + scan_of(63, 0x10) + eoi()) == Errc::limit_exceeded);
}

TEST_CASE("PNG: a flipped bit anywhere is found, with its place") {
  const Data whole = png(ihdr(3, 2, 2), Data(20, 0));
  for (std::size_t i = 0; i < whole.size(); ++i) {
    Data bad = whole;
    bad[i] = static_cast<char>(bad[i] ^ 16);
    CAPTURE(i);
    const bool length_of_end = i + 12 >= whole.size() && i + 8 < whole.size();  // as if cut there: the rows are there
    CHECK((scan(bad) != Errc::ok) != length_of_end);
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
      CHECK((scan(png(ihdr(1, 1, colour, depth), lines, chunk("PLTE", "abc"))) == Errc::ok) == right);
    }
  CHECK(scan(signature() + idat(lines) + end) == Errc::corrupt);
  CHECK(scan(png(ihdr(3, 2, 2) + ihdr(3, 2, 2), lines)) == Errc::corrupt);
  CHECK(scan(signature() + ihdr(3, 2, 2) + end) == Errc::corrupt);
  CHECK(scan(png(ihdr(0, 2, 2), lines)) == Errc::corrupt);
  CHECK(scan(png(ihdr(16385, 2, 2), lines)) == Errc::limit_exceeded);
  CHECK(scan(png(ihdr(-1, -1, 2), lines)) == Errc::limit_exceeded);
  CHECK(scan(png(ihdr(3, 2, 2), lines, chunk("ABCD", "?"))) == Errc::ok);  // Pillow shows it, libpng does not
  CHECK(scan(png(chunk("abCD", "?") + ihdr(3, 2, 2), lines)) == Errc::ok);
  CHECK(scan(png(ihdr(3, 2, 2), lines, chunk("PLTE", "four"))) == Errc::ok);  // only a suggestion
  CHECK(scan(png(ihdr(3, 2, 3), lines)) == Errc::corrupt);
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

TEST_CASE("EXIF: the last of several entries that can be read") {
  const auto two = [](int first, int second) {
    return bytes({'I', 'I', 42, 0,    8, 0, 0, 0, 2, 0, 0x12, 1,      3, 0, 1, 0, 0, 0, first,
                  0,   0,   0,  0x12, 1, 3, 0, 1, 0, 0, 0,    second, 0, 0, 0, 0, 0, 0, 0});
  };
  CHECK(detail::exif_orientation(span(two(6, 1))) == 1);
  CHECK(detail::exif_orientation(span(two(1, 6))) == 6);
  CHECK(detail::exif_orientation(span(two(6, 9))) == 1);
  Data none = exif(6);
  none[14] = 0;  // a count of 0
  CHECK(detail::find_orientation(span(none)) == 0);
}

TEST_CASE("orientation in XMP and in ImageMagick's profile") {
  const auto xmp = [](const Data& text) { return detail::xmp_orientation(span(text)); };
  CHECK(xmp("<x tiff:Orientation=\"6\"/>") == 6);
  CHECK(xmp("<tiff:Orientation>3<") == 3);
  CHECK(xmp("<tiff:Orientation=6") == 0);
  CHECK(xmp("tiff:Orientation=\"") == 0);
  CHECK(detail::raw_profile_orientation(
            span("\nexif\n      32\n4578696600004d4d002a00000008000101120003\n00000001000600000000\n")) == 6);
  CHECK(detail::raw_profile_orientation(span("exif 457869")) == 0);
}

TEST_CASE("deflate: what came out before the data ended, broke or filled the room") {
  const Data stored = bytes({0x78, 1, 1, 3, 0, 0xFC, 0xFF, 'a', 'b', 'c', 2, 0x4D, 1, 0x27});
  std::uint8_t out[16];
  const auto run = [&](const Data& d, std::size_t room, std::size_t& size) {
    detail::Inflater inflater(span(d), {out, room});
    const auto end = inflater.run();
    size = inflater.size();
    return end;
  };
  std::size_t n = 0;
  CHECK(run(stored, 16, n) == detail::InflateEnd::finished);
  CHECK(n == 3);
  CHECK(detail::adler32({out, 3}) == 0x024D0127u);
  CHECK(run(stored, 2, n) == detail::InflateEnd::full);
  CHECK(run(stored.substr(0, 9), 16, n) == detail::InflateEnd::cut);
  CHECK(n == 2);
  CHECK(run(bytes({0x78, 1, 7}), 16, n) == detail::InflateEnd::damaged);
  CHECK(run(bytes({0x78, 2, 7}), 16, n) == detail::InflateEnd::damaged);
}

TEST_CASE("the checksum of PNG is CRC-32") { CHECK(detail::crc32(span("123456789")) == 0xCBF43926u); }

namespace {

/// One code at a time, and one bit: what the walk takes several codes a look-up of.
struct BitByBit {
  const std::vector<bool>& bits;
  std::size_t at = 0;

  int take() { return at < bits.size() ? bits[at++] : (++at, 0); }
  /// The symbol of the next code, or -1.
  int symbol(const std::uint8_t* table) {
    int code = 0, first = 0, place = 0;
    for (int length = 1; length <= 16; ++length) {
      code = 2 * code + take();
      first *= 2;
      if (code - first < table[length - 1]) return table[16 + place + code - first];
      first += table[length - 1];
      place += table[length - 1];
    }
    return -1;
  }
  bool block(const std::uint8_t* dc, const std::uint8_t* ac) {
    const int size = symbol(dc);
    if (size < 0) return false;
    at += static_cast<std::size_t>(size);
    for (int k = 1; k < 64;) {
      const int s = symbol(ac);
      if (s < 0) return false;
      at += static_cast<std::size_t>(s & 15);
      if (s == 0 || (s & 15) == 0) {
        if (s >> 4 != 15) return true;
        k += 16;
      } else {
        k += (s >> 4) + 1;
      }
      if (k > 64) return false;
    }
    return true;
  }
};

void put_symbol(std::vector<bool>& bits, const std::uint8_t* table, int symbol, std::mt19937& random) {
  int code = 0, place = 0;
  for (int length = 1; length <= 16; ++length, code *= 2)
    for (int i = 0; i < table[length - 1]; ++i, ++place, ++code)
      if (table[16 + place] == symbol) {
        for (int b = length - 1; b >= 0; --b) bits.push_back((code >> b & 1) != 0);
        for (int b = 0; b < (symbol & 15); ++b) bits.push_back(random() % 4 != 0);  // ones, which make 0xFF
        return;
      }
}

}  // namespace

TEST_CASE("a walk of several codes a look-up takes what one bit at a time takes, with stuffed bytes, to the last one") {
  const std::uint8_t *dc_source = detail::default_tables.dc[0], *ac_source = detail::default_tables.ac[0];
  const auto dc = std::make_unique<detail::JpegTable>(), ac = std::make_unique<detail::JpegTable>();
  REQUIRE(dc->build(dc_source, true));
  REQUIRE(ac->build(ac_source, false));
  ac->build_many();
  std::mt19937 random(5);
  int blocks = 0, full = 0, invalid = 0;
  for (int stream = 0; stream < 400; ++stream) {
    std::vector<bool> bits;
    for (int b = 0; b < 20; ++b) {  // some full to the last coefficient, some of rare and long codes
      put_symbol(bits, dc_source, static_cast<int>(random() % 12), random);
      const auto kind = static_cast<unsigned>(random() % 3);
      int k = 1;
      while (k < 64 && (kind == 0 || random() % 8 != 0)) {
        const int run = kind == 2 ? static_cast<int>(random() % 16) : static_cast<int>(random() % 2);
        if (k + run > 63) continue;
        put_symbol(bits, ac_source, run << 4 | (1 + static_cast<int>(random() % (kind == 1 ? 3 : 10))), random);
        k += run + 1;
      }
      if (k < 64) put_symbol(bits, ac_source, 0, random);
      full += k == 64;
    }
    if (stream % 4 == 3)  // damaged
      for (int i = 0; i < 3; ++i) bits[random() % bits.size()].flip();
    while (bits.size() % 8 != 0) bits.push_back(true);
    std::vector<std::uint8_t> data;
    for (std::size_t i = 0; i < bits.size(); i += 8) {
      unsigned byte = 0;
      for (std::size_t j = 0; j < 8; ++j) byte = byte << 1 | bits[i + j];
      data.push_back(static_cast<std::uint8_t>(byte));
      if (byte == 0xFF) data.push_back(0);
    }
    data.insert(data.end(), {0xFF, 0xD9});
    detail::JpegBits walk(data.data(), data.data() + data.size());
    BitByBit slow{bits};
    for (int b = 0; b < 25; ++b) {
      const bool want = slow.block(dc_source, ac_source), past = slow.at > bits.size();
      const bool got = detail::walk_sequential(walk, *dc, *ac);
      CHECK((got || past) == (want || past));
      CHECK(walk.overrun() == past);
      if (!want || past || !got) {
        invalid += !want && !past;
        break;
      }
      CHECK(walk.used() == (slow.at + 7) / 8);
      ++blocks;
    }
  }
  CHECK(blocks > 6000);
  CHECK(full > 2000);
  CHECK(invalid > 20);
}
