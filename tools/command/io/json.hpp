// One JSON object a line, keys in the order they are set, floats with the 9 digits that bring them back exactly.
#pragma once

#include <nlohmann/json.hpp>

#include "command/io/escape.hpp"

namespace command {

using Json =
    nlohmann::basic_json<nlohmann::ordered_map, std::vector, std::string, bool, std::int64_t, std::uint64_t, float>;

/// File names need not be UTF-8, JSON must: other bytes become U+FFFD. What JSON allows and a terminal obeys is escaped
/// too.
inline std::string line(const Json& json) {
  return escaped_json(json.dump(-1, ' ', false, Json::error_handler_t::replace));
}

}  // namespace command
