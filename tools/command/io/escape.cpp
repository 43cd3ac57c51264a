#include "command/io/escape.hpp"

#include <cstdio>

namespace command {

namespace {

// Without the two joiners (U+200C, U+200D), which Persian, Indic scripts and emoji need.
bool invisible(unsigned code) {
  return code == 0xad || code == 0x180e || code == 0x200b || (code >= 0x2060 && code <= 0x2064) ||
         (code >= 0x206a && code <= 0x206f) || code == 0xfeff || (code >= 0xfff9 && code <= 0xfffb) ||
         (code >= 0xe0000 && code <= 0xe007f);
}

bool steers(unsigned code) {
  return invisible(code) || code < 0x20 || (code >= 0x7f && code < 0xa0) || code == 0x61c || code == 0x200e ||
         code == 0x200f || (code >= 0x2028 && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069);
}

std::string hex(const char* format, unsigned code) {
  char text[12];
  std::snprintf(text, sizeof text, format, code);
  return text;
}

std::string escape_of(const Character& c) {
  switch (c.code) {
    case '\t':
      return "\\t";
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
  }
  if (c.code > 0xffff) return hex("\\U%08x", c.code);
  return hex(c.valid && c.code >= 0x80 ? "\\u%04x" : "\\x%02x", c.code);
}

}  // namespace

Character character(const std::string& text, std::size_t at) {
  const auto byte = [&](std::size_t k) { return k < text.size() ? static_cast<unsigned char>(text[k]) : 0u; };
  const unsigned first = byte(at);
  if (first < 0x80) return {1, first, true, !steers(first)};
  const std::size_t length = first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
  unsigned code = first & (0x7fu >> length);
  bool valid = length != 0;
  for (std::size_t k = 1; k < length && valid; ++k) {
    valid = (byte(at + k) & 0xc0) == 0x80;
    code = code << 6 | (byte(at + k) & 0x3f);
  }
  // Longer than need be, a surrogate, or beyond Unicode.
  if (valid && length == 3) valid = code >= 0x800 && (code < 0xd800 || code > 0xdfff);
  if (valid && length == 4) valid = code >= 0x10000 && code <= 0x10ffff;
  if (!valid) return {1, first, false, false};
  return {length, code, true, !steers(code)};
}

std::size_t line_not_utf8(const std::string& text) {
  std::size_t line = 1;
  for (std::size_t at = 0; at < text.size();) {
    const Character c = character(text, at);
    if (!c.valid) return line;
    line += c.code == '\n';
    at += c.bytes;
  }
  return 0;
}

std::string not_utf8(std::size_t line, const std::string& start) {
  const bool utf16 = start.compare(0, 2, "\xff\xfe") == 0 || start.compare(0, 2, "\xfe\xff") == 0;
  return "line " + std::to_string(line) + " is not UTF-8" + (utf16 ? " (it looks like UTF-16)" : "");
}

std::string escaped(const std::string& text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size();) {
    const Character c = character(text, i);
    if (c.code == '\\')
      out += "\\\\";
    else if (c.plain)
      out.append(text, i, c.bytes);
    else
      out += escape_of(c);
    i += c.bytes;
  }
  return out;
}

std::string escaped_line(const std::string& text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size();) {
    const Character c = character(text, i);
    if (c.plain || c.code == '\t')
      out.append(text, i, c.bytes);
    else
      out += escape_of(c);
    i += c.bytes;
  }
  return out;
}

std::string escaped_json(const std::string& text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size();) {
    const Character c = character(text, i);
    if (c.plain)
      out.append(text, i, c.bytes);
    else if (c.code <= 0xffff)
      out += hex("\\u%04x", c.code);
    else
      out += hex("\\u%04x", 0xd7c0 + (c.code >> 10)) + hex("\\u%04x", 0xdc00 | (c.code & 0x3ff));
    i += c.bytes;
  }
  return out;
}

std::string file_name(const std::string& stem, const std::string& end) {
  constexpr std::size_t longest = 255;
  std::string name = stem;
  if (name.size() + end.size() > longest) {
    std::size_t room = longest - end.size();
    while (room > 0 && (static_cast<unsigned char>(name[room]) & 0xc0) == 0x80) --room;
    name.resize(room);
  }
  return name + end;
}

}  // namespace command
