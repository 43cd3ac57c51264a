// The smallest JPEG and PNG files, written piece by piece so that a test can spoil any piece.
#pragma once

#include <cstdint>
#include <string>

#include "facenet/image/scan.hpp"

namespace files {

using Data = std::string;

inline facenet::Span<const std::uint8_t> span(const Data& d) {
  return {reinterpret_cast<const std::uint8_t*>(d.data()), d.size()};
}
inline Data bytes(std::initializer_list<int> values) {
  Data d;
  for (const int v : values) d += static_cast<char>(v);
  return d;
}
inline Data be16(std::size_t v) { return bytes({static_cast<int>(v >> 8 & 255), static_cast<int>(v & 255)}); }
inline Data be32(std::size_t v) { return be16(v >> 16) + be16(v & 0xFFFF); }

// ---- JPEG: one grey channel; the one DC code "0" says no change and the one AC code "0" ends the block: mid-grey.

inline Data segment(int marker, const Data& body) { return bytes({0xFF, marker}) + be16(body.size() + 2) + body; }
inline Data dqt() { return segment(0xDB, bytes({0}) + Data(64, 1)); }
inline Data dht(int kind, int one_bit_codes = 1, int two_bit_codes = 0) {
  const auto symbols = static_cast<std::size_t>(one_bit_codes + two_bit_codes);
  return segment(0xC4, bytes({kind << 4, one_bit_codes, two_bit_codes}) + Data(14, 0) + Data(symbols, 0));
}
inline Data sof(int w, int h, int marker = 0xC0) {
  return segment(marker, bytes({8}) + be16(static_cast<std::size_t>(h)) + be16(static_cast<std::size_t>(w)) +
                             bytes({1, 1, 0x11, 0}));
}
inline Data sos() { return segment(0xDA, bytes({1, 1, 0, 0, 63, 0})); }
inline Data blocks(int count) { return Data(static_cast<std::size_t>(count + 3) / 4, 0); }  // two bits each
inline Data soi() { return bytes({0xFF, 0xD8}); }
inline Data eoi() { return bytes({0xFF, 0xD9}); }
inline Data tables() { return dqt() + dht(0) + dht(1); }
inline Data jpeg(int w, int h, const Data& extra = {}) {
  const int count = (w + 7) / 8 * ((h + 7) / 8);
  return soi() + extra + tables() + sof(w, h) + sos() + blocks(count) + eoi();
}

inline Data exif(int orientation, int type = 3) {  // little-endian, one entry
  return bytes({'I', 'I', 42, 0, 8, 0, 0, 0, 1, 0, 0x12, 0x01, type, 0, 1, 0, 0, 0, orientation, 0, 0, 0, 0, 0, 0, 0});
}

// ---- PNG: deflate's stored blocks, filter 0.

inline Data chunk(const char* name, const Data& body) {
  const Data all = name + body;
  return be32(body.size()) + all + be32(facenet::detail::crc32(span(all)));
}
inline Data signature() { return bytes({0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'}); }
inline Data ihdr(int w, int h, int colour, int depth = 8) {
  return chunk("IHDR",
               be32(static_cast<std::size_t>(w)) + be32(static_cast<std::size_t>(h)) + bytes({depth, colour, 0, 0, 0}));
}
inline Data idat(const Data& scanlines) {
  const auto n = static_cast<int>(scanlines.size());
  return chunk("IDAT", bytes({0x78, 1, 1, n & 255, n >> 8, ~n & 255, ~n >> 8 & 255}) + scanlines +
                           be32(facenet::detail::adler32(span(scanlines))));
}
inline Data png(const Data& head, const Data& scanlines, const Data& between = {}) {
  return signature() + head + between + idat(scanlines) + chunk("IEND", {});
}

}  // namespace files
