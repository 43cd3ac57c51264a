// What SQL of the galleries can call beside SQLite's own functions.
#pragma once

#include <string>

struct sqlite3;

namespace command {

/// A UUID of version 4 from the system's random numbers, in lower case.
std::string new_uuid();

/// row_checksum(value, …): XXH64 of a row's values, as docs/galleries.md encodes them.
/// new_uuid(): another one at each call.
/// Returns an SQLite result code.
int add_row_functions(sqlite3* database) noexcept;

}  // namespace command
