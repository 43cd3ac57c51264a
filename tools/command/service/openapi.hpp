// The OpenAPI 3.1 document of the service, made from the table of calls and the JSON Schemas of docs/schema.
#pragma once

#include <string>
#include <vector>

#include "command/service/call.hpp"

namespace command::service {

std::string openapi_document(const std::vector<Call>& calls);

}  // namespace command::service
