#include "command/http/multipart.hpp"

#include <algorithm>
#include <array>
#include <cstdint>

namespace command::service {

namespace {

constexpr std::string_view line_end = "\r\n";

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

bool equal_without_case(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i)
    if (lower(a[i]) != lower(b[i])) return false;
  return true;
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

/// The value of `wanted` in `; name="value"; name=value`: quoted, with \" and \\ for " and \, or bare. False where it
/// is not there.
bool find_parameter(std::string_view text, std::string_view wanted, std::string& value) {
  std::size_t at = text.find(';');
  while (at < text.size()) {
    ++at;
    const std::size_t equals = text.find('=', at);
    if (equals == std::string_view::npos) return false;
    const std::string_view name = trimmed(text.substr(at, equals - at));
    at = equals + 1;
    while (at < text.size() && (text[at] == ' ' || text[at] == '\t')) ++at;
    std::string found;
    if (at < text.size() && text[at] == '"') {
      for (++at; at < text.size() && text[at] != '"'; ++at) {
        if (text[at] == '\\' && at + 1 < text.size() && (text[at + 1] == '"' || text[at + 1] == '\\')) ++at;
        found.push_back(text[at]);
      }
      at = text.find(';', at);
    } else {
      const std::size_t end = std::min(text.find(';', at), text.size());
      found = trimmed(text.substr(at, end - at));
      at = end;
    }
    if (equal_without_case(name, wanted)) {
      value = std::move(found);
      return true;
    }
  }
  return false;
}

/// Reads header lines as far as the empty one, whose end `at` is then.
std::string parse_part_header(std::string_view body, std::size_t& at, Part& part) {
  const std::size_t limit = at + most_part_header;
  for (;;) {
    const std::size_t end = body.find(line_end, at);
    if (end == std::string_view::npos) return "a part has no end of its header";
    if (end > limit) return "a part's header has more than 4096 bytes";
    const std::string_view line = body.substr(at, end - at);
    at = end + line_end.size();
    if (line.empty()) return "";
    const std::size_t colon = line.find(':');
    if (colon == std::string_view::npos) return "a header line of a part has no colon";
    const std::string_view name = trimmed(line.substr(0, colon)), value = trimmed(line.substr(colon + 1));
    if (equal_without_case(name, "content-disposition")) {
      find_parameter(value, "name", part.name);
      find_parameter(value, "filename", part.filename);
    } else if (equal_without_case(name, "content-type")) {
      part.type = value;
    }
  }
}

constexpr std::string_view alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

constexpr std::array<std::int8_t, 256> make_values() {
  std::array<std::int8_t, 256> values{};
  for (std::int8_t& v : values) v = -1;
  for (std::size_t i = 0; i < alphabet.size(); ++i)
    values[static_cast<std::uint8_t>(alphabet[i])] = static_cast<std::int8_t>(i);
  values[static_cast<std::uint8_t>('-')] = 62;
  values[static_cast<std::uint8_t>('_')] = 63;
  return values;
}
constexpr std::array<std::int8_t, 256> base64_values = make_values();

}  // namespace

std::string multipart_boundary(std::string_view content_type) {
  const std::string_view type = trimmed(content_type.substr(0, content_type.find(';')));
  std::string boundary;
  if (!equal_without_case(type, "multipart/form-data") || !find_parameter(content_type, "boundary", boundary))
    return "";
  return boundary.size() <= 70 ? boundary : "";  // RFC 2046
}

std::string parse_multipart(std::string_view body, const std::string& boundary, std::vector<Part>& parts) {
  parts.clear();
  if (boundary.empty()) return "its content-type names no boundary";
  const std::string delimiter = "\r\n--" + boundary;
  std::size_t at;
  if (body.substr(0, delimiter.size() - 2) == std::string_view(delimiter).substr(2)) {
    at = delimiter.size() - 2;
  } else {  // what stands before the first boundary is for no one
    at = body.find(delimiter);
    if (at == std::string_view::npos) return "the boundary that its content-type names is not in it";
    at += delimiter.size();
  }
  for (;;) {  // `at` is behind a boundary
    if (body.substr(at, 2) == "--") return "";
    while (at < body.size() && (body[at] == ' ' || body[at] == '\t')) ++at;
    if (body.substr(at, 2) != line_end) return "a boundary's line does not end there";
    at += line_end.size();
    if (parts.size() == most_parts) return "it has more than 32 parts";
    Part part;
    if (std::string wrong = parse_part_header(body, at, part); !wrong.empty()) return wrong;
    std::size_t end = body.find(delimiter, at);
    // An empty part's boundary follows its header at once, whose line end is the delimiter's too.
    if (body.substr(at - 2, delimiter.size()) == delimiter) end = at - 2;
    if (end == std::string_view::npos) return "its last boundary is missing: it was cut off";
    part.data = end < at ? std::string_view() : body.substr(at, end - at);
    parts.push_back(std::move(part));
    at = end + delimiter.size();
  }
}

bool decode_base64(std::string_view text, std::string& bytes) {
  bytes.clear();
  if (text.substr(0, 5) == "data:") {
    const std::size_t comma = text.find(',');
    if (comma == std::string_view::npos || comma > 256) return false;
    constexpr std::string_view coding = ";base64";
    const std::string_view prefix = text.substr(0, comma);
    if (prefix.size() < coding.size() || prefix.substr(prefix.size() - coding.size()) != coding) return false;
    text.remove_prefix(comma + 1);
  }
  bytes.reserve(text.size() / 4 * 3 + 3);
  std::uint32_t bits = 0;
  int digits = 0, padding = 0;
  for (const char c : text) {
    if (c == ' ' || c == '\n' || c == '\r' || c == '\t') continue;
    if (c == '=') {
      if (++padding > 2) return false;
      continue;
    }
    const int value = base64_values[static_cast<std::uint8_t>(c)];
    if (value < 0 || padding > 0) return false;
    bits = bits << 6 | static_cast<std::uint32_t>(value);
    if (++digits == 4) {
      for (const int shift : {16, 8, 0}) bytes.push_back(static_cast<char>(bits >> shift & 255));
      bits = 0;
      digits = 0;
    }
  }
  if (digits == 1 || (padding > 0 && digits + padding != 4)) return false;
  if (digits >= 2) bytes.push_back(static_cast<char>(bits >> (digits == 2 ? 4 : 10) & 255));
  if (digits == 3) bytes.push_back(static_cast<char>(bits >> 2 & 255));
  return true;
}

std::string encode_base64(std::string_view bytes) {
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t bits = 0;
    for (std::size_t k = 0; k < 3; ++k)
      bits = bits << 8 | (i + k < bytes.size() ? static_cast<std::uint8_t>(bytes[i + k]) : 0u);
    for (std::size_t k = 0; k < 4; ++k)
      text.push_back(i + k <= bytes.size() ? alphabet[bits >> (18 - 6 * k) & 63] : '=');
  }
  return text;
}

}  // namespace command::service
