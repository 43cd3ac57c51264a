#include "store/row_functions.hpp"

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <system_error>

#include "facenet/base/hash.hpp"

namespace command {

namespace {

/// Not SQLite's generator: a child that was forked would draw its parent's numbers again.
void fill_random(std::uint8_t* out, std::size_t size) {
#if defined(SYS_getrandom)
  if (::syscall(SYS_getrandom, out, size, 0) == static_cast<long>(size)) return;
#endif
  const int file = ::open("/dev/urandom", O_RDONLY | O_CLOEXEC);
  const ssize_t n = file < 0 ? -1 : ::read(file, out, size);
  const int error = errno;
  if (file >= 0) ::close(file);
  if (n != static_cast<ssize_t>(size)) throw std::system_error(error, std::generic_category(), "/dev/urandom");
}

/// The bytes of `n` numbers, the lowest first.
template <class T>
void hash_number(facenet::Xxh64& hash, T value) noexcept {
  std::uint8_t bytes[sizeof(T)];
  for (std::size_t b = 0; b < sizeof(T); ++b) bytes[b] = static_cast<std::uint8_t>(value >> (8 * b));
  hash.update(bytes, sizeof bytes);
}

void row_checksum(sqlite3_context* context, int count, sqlite3_value** values) {
  facenet::Xxh64 hash;
  for (int i = 0; i < count; ++i) {
    sqlite3_value* const value = values[i];
    const int type = sqlite3_value_type(value);
    hash_number(hash, static_cast<std::uint8_t>(type));  // 1 integer, 2 real, 3 text, 4 blob, 5 null
    if (type == SQLITE_INTEGER) {
      hash_number(hash, static_cast<std::uint64_t>(sqlite3_value_int64(value)));
    } else if (type == SQLITE_FLOAT) {
      const double real = sqlite3_value_double(value) + 0.0;  // SQLite stores -0 as 0
      std::uint64_t bits;
      std::memcpy(&bits, &real, sizeof bits);
      hash_number(hash, bits);
    } else if (type != SQLITE_NULL) {
      const void* bytes =
          type == SQLITE_TEXT ? static_cast<const void*>(sqlite3_value_text(value)) : sqlite3_value_blob(value);
      const auto size = static_cast<std::size_t>(sqlite3_value_bytes(value));
      if (bytes == nullptr && size != 0) return sqlite3_result_error_nomem(context);
      hash_number(hash, std::uint64_t{size});
      hash.update(bytes, size);
    }
  }
  sqlite3_result_int64(context, static_cast<sqlite3_int64>(hash.digest()));
}

void uuid_function(sqlite3_context* context, int, sqlite3_value**) {
  try {
    const std::string uuid = new_uuid();
    sqlite3_result_text(context, uuid.data(), static_cast<int>(uuid.size()), SQLITE_TRANSIENT);
  } catch (const std::exception&) {
    sqlite3_result_error_code(context, SQLITE_IOERR);
  }
}

}  // namespace

std::string new_uuid() {
  std::uint8_t bytes[16];
  fill_random(bytes, sizeof bytes);
  bytes[6] = static_cast<std::uint8_t>((bytes[6] & 0x0f) | 0x40);  // version 4
  bytes[8] = static_cast<std::uint8_t>((bytes[8] & 0x3f) | 0x80);  // variant of RFC 9562
  char digits[2 * sizeof bytes + 1];
  facenet::to_hex({bytes, sizeof bytes}, digits);
  std::string uuid = digits;
  for (const std::size_t at : {8u, 13u, 18u, 23u}) uuid.insert(at, 1, '-');
  return uuid;
}

int add_row_functions(sqlite3* database) noexcept {
  // DIRECTONLY: nothing in a file from elsewhere may call them.
  constexpr int pure = SQLITE_UTF8 | SQLITE_DIRECTONLY | SQLITE_DETERMINISTIC;
  const int code = sqlite3_create_function(database, "row_checksum", -1, pure, nullptr, row_checksum, nullptr, nullptr);
  if (code != SQLITE_OK) return code;
  return sqlite3_create_function(database, "new_uuid", 0, SQLITE_UTF8 | SQLITE_DIRECTONLY, nullptr, uuid_function,
                                 nullptr, nullptr);
}

}  // namespace command
