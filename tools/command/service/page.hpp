// The page at /: a few files that are part of the program.
#pragma once

#include <vector>

#include "command/http/http.hpp"

namespace command::service {

std::vector<Route> page_routes();

}  // namespace command::service
