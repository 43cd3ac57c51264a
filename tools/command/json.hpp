// One JSON object a line, keys in the order they are set, floats with the 9 digits that bring them back exactly.
#pragma once

#include <cstdio>
#include <nlohmann/json.hpp>

namespace command {

using Json = nlohmann::basic_json<nlohmann::ordered_map, std::vector, std::string, bool, std::int64_t, std::uint64_t, float>;

/// File names need not be UTF-8, JSON must: other bytes become U+FFFD. DEL and C1, which JSON allows and a terminal obeys,
/// are escaped as the other control characters are.
inline std::string line(const Json& json) {
  const std::string text = json.dump(-1, ' ', false, Json::error_handler_t::replace);
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = [&](std::size_t k) { return k < text.size() ? static_cast<unsigned char>(text[k]) : 0u; };
    const bool c1 = byte(i) == 0xc2 && byte(i + 1) < 0xa0;
    if (!c1 && byte(i) != 0x7f) {
      out += text[i];
      continue;
    }
    char code[8];
    std::snprintf(code, sizeof code, "\\u%04x", c1 ? byte(i + 1) : 0x7fu);
    out += code;
    i += c1 ? 1 : 0;
  }
  return out;
}

}  // namespace command
