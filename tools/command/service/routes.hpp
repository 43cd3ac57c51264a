// All that `facenet serve` answers, but /health, /ready and /metrics.
#pragma once

#include <vector>

#include "command/http/http.hpp"
#include "command/service/service.hpp"

namespace command::service {

/// The service must outlive the routes. Throws a DatabaseError where the gallery cannot be used.
std::vector<Route> make_routes(Service& service);

}  // namespace command::service
