// Files that the build puts into the program: those of service/page and the JSON Schemas. cmake/EmbedFiles.cmake writes
// the unit that defines this.
#pragma once

#include <string_view>

namespace command::service {

/// By the file's name without its folder; empty where there is none.
std::string_view embedded_file(std::string_view name);

}  // namespace command::service
