// The page that shows an archive's people; what it shows are scripts beside it, so that it works from a folder.
#pragma once

#include <string>

namespace command {

constexpr std::size_t faces_in_chunk = 1000;  // of one person, in one script: 0.1 MB

std::string people_page();

}  // namespace command
