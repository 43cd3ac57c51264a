#include "database.hpp"

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <utility>

namespace command {

namespace {

constexpr int patience_ms = 10000;

/// What a result code means and what to do about it.
std::string meaning(int code, sqlite3* database) {
  switch (code & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return "another process is using this file and was waited for " + std::to_string(patience_ms / 1000) +
             " seconds; try again when it is done";
    case SQLITE_FULL:
      return "there is no room left on the disk, so this change was not made; free some and run this again";
    case SQLITE_READONLY:
      if (code == SQLITE_READONLY_ROLLBACK || code == SQLITE_READONLY_RECOVERY)
        return "a process that was killed left a change half-way, and undoing it needs a file and a folder that can be "
               "written; change their permissions";
      return "the file, or its folder, cannot be written; change their permissions";
    case SQLITE_PERM:
    case SQLITE_AUTH:
    case SQLITE_CANTOPEN:
      return "the file, or its journal beside it, cannot be opened; check the permissions of both and of their folder";
    case SQLITE_NOTADB:
      return "this is not an SQLite database; name one that facenet made";
    case SQLITE_CORRUPT:
    case SQLITE_ERROR:  // the statements are right, so a table or column is gone
    case SQLITE_SCHEMA:
    case SQLITE_MISMATCH:
    case SQLITE_CONSTRAINT:
      return "the file is damaged; put a copy of it in its place";
    case SQLITE_IOERR: {
      const int error = database != nullptr ? sqlite3_system_errno(database) : 0;
      return std::string("the disk refused to read or write it") +
             (error != 0 ? std::string(" (") + std::strerror(error) + ")" : "") + "; nothing of this change was kept";
    }
    case SQLITE_TOOBIG:
      return "an entry is too large";
    default:
      break;
  }
  return std::string("SQLite says: ") + sqlite3_errstr(code) + "; check the file";
}

[[noreturn]] void refuse(const std::string& path, int code, sqlite3* database) {
  if ((code & 0xff) == SQLITE_NOMEM) throw std::bad_alloc();
  throw DatabaseError(path + ": " + meaning(code, database) + ".");
}

/// Zeros over a whole file, on the disk when it returns. 0, or what errno says.
int overwrite(const char* path) {
  const int file = ::open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
  struct stat about {};
  if (file < 0) return errno == ENOENT ? 0 : errno;
  int error = ::fstat(file, &about) == 0 ? 0 : errno;
  static constexpr char zeros[1 << 16] = {};
  for (off_t at = 0; error == 0 && at < about.st_size;) {
    const auto size = static_cast<std::size_t>(std::min<off_t>(about.st_size - at, sizeof zeros));
    const ssize_t n = ::pwrite(file, zeros, size, at);
    if (n > 0)
      at += n;
    else if (n == 0 || errno != EINTR)
      error = n == 0 ? EIO : errno;
  }
  if (error == 0 && ::fdatasync(file) != 0) error = errno;
  ::close(file);
  return error;
}

}  // namespace

Query::Query(Query&& other) noexcept
    : path_(other.path_), statement_(std::exchange(other.statement_, nullptr)), bound_(other.bound_) {}
Query::~Query() { sqlite3_finalize(statement_); }

void Query::check(int code) const {
  if (code != SQLITE_OK) refuse(path_, code, sqlite3_db_handle(statement_));
}
void Query::begin() {
  sqlite3_reset(statement_);
  bound_ = 0;
}
void Query::put(std::int64_t value) { check(sqlite3_bind_int64(statement_, ++bound_, value)); }
void Query::put(double value) { check(sqlite3_bind_double(statement_, ++bound_, value)); }
void Query::put(std::nullptr_t) { check(sqlite3_bind_null(statement_, ++bound_)); }
void Query::put(std::string_view value) {
  check(sqlite3_bind_text64(statement_, ++bound_, value.data(), value.size(), SQLITE_TRANSIENT, SQLITE_UTF8));
}
void Query::put(Blob value) {
  check(sqlite3_bind_blob64(statement_, ++bound_, value.data, value.size, SQLITE_TRANSIENT));
}

bool Query::step() {
  const int code = sqlite3_step(statement_);
  if (code == SQLITE_ROW) return true;
  if (code != SQLITE_DONE)
    refuse(path_, sqlite3_extended_errcode(sqlite3_db_handle(statement_)), sqlite3_db_handle(statement_));
  sqlite3_reset(statement_);  // lets go of the locks
  return false;
}
void Query::run() {
  while (step()) continue;
}

std::int64_t Query::integer(int column) const { return sqlite3_column_int64(statement_, column); }
double Query::real(int column) const { return sqlite3_column_double(statement_, column); }
bool Query::is_null(int column) const { return sqlite3_column_type(statement_, column) == SQLITE_NULL; }
std::string Query::text(int column) const {
  const auto* bytes = reinterpret_cast<const char*>(sqlite3_column_text(statement_, column));
  return bytes == nullptr ? std::string()
                          : std::string(bytes, static_cast<std::size_t>(sqlite3_column_bytes(statement_, column)));
}
Blob Query::blob(int column) const {
  const void* bytes = sqlite3_column_blob(statement_, column);
  return {bytes, bytes == nullptr ? 0 : static_cast<std::size_t>(sqlite3_column_bytes(statement_, column))};
}

Database::Database(std::string path, Access access) : path_(std::move(path)) {
  struct stat about {};
  const bool there = ::stat(path_.c_str(), &about) == 0;
  if (!there && errno == ENOENT && access != Access::create)
    throw DatabaseError(path_ + ": there is no such file; check the name, or make it with 'facenet enroll'.");
  if (there && !S_ISREG(about.st_mode))
    throw DatabaseError(path_ + ": this is not a regular file; give the name of a database.");
  if (access != Access::read && there && ::access(path_.c_str(), W_OK) != 0)
    throw DatabaseError(path_ + ": the file cannot be written (" + std::strerror(errno) + "); change its permissions.");
  // A file named ":memory:" or "file:…" is a file. For reading too it is opened for both where that is allowed: a
  // change that a killed process left half-way must be undone first.
  const std::string name = path_[0] == '/' ? path_ : "./" + path_;
  int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX;
  if (access == Access::create) flags |= SQLITE_OPEN_CREATE;
  const int code = sqlite3_open_v2(name.c_str(), &database_, flags, nullptr);
  try {
    if (code != SQLITE_OK)
      refuse(path_, database_ != nullptr ? sqlite3_extended_errcode(database_) : SQLITE_NOMEM, database_);
    sqlite3_extended_result_codes(database_, 1);
    sqlite3_busy_timeout(database_, patience_ms);
    // A schema from elsewhere may not call functions; what a statement sets aside stays in memory, not in /tmp.
    execute(
        "PRAGMA trusted_schema = OFF; PRAGMA foreign_keys = ON; PRAGMA secure_delete = ON; PRAGMA temp_store = MEMORY");
    if (access == Access::read) {
      execute("PRAGMA query_only = ON");
    } else {
      // PERSIST: the journal keeps its blocks on the disk, so that erase_journal() can overwrite them. DELETE and
      // TRUNCATE would give them back as they are, WAL would collect templates in a second file.
      execute("PRAGMA synchronous = EXTRA");
      Query mode = query("PRAGMA journal_mode = PERSIST");
      if (!mode.step() || mode.text(0) != "persist")
        throw DatabaseError(path_ + ": another program has it open in the journal mode '" + mode.text(0) +
                            "'; close that program and run this again.");
    }
  } catch (...) {
    sqlite3_close(database_);
    throw;
  }
}

Database::~Database() { sqlite3_close(database_); }

Query Database::query(const char* sql) {
  sqlite3_stmt* statement = nullptr;
  if (sqlite3_prepare_v2(database_, sql, -1, &statement, nullptr) != SQLITE_OK)
    refuse(path_, sqlite3_extended_errcode(database_), database_);
  return Query(path_, statement);
}

void Database::execute(const char* sql) {
  if (sqlite3_exec(database_, sql, nullptr, nullptr, nullptr) != SQLITE_OK)
    refuse(path_, sqlite3_extended_errcode(database_), database_);
}

std::int64_t Database::number(const char* sql) {
  Query query = this->query(sql);
  if (!query.step()) refuse(path_, SQLITE_CORRUPT, database_);
  return query.integer(0);
}

std::int64_t Database::last_id() const { return sqlite3_last_insert_rowid(database_); }

void Database::erase_journal() {
  const char* journal = sqlite3_filename_journal(sqlite3_db_filename(database_, "main"));
  if (::access(journal, F_OK) != 0) return;
  // With this lock the journal belongs to no unfinished change, of ours or of another process, and none begins.
  execute("BEGIN EXCLUSIVE");
  const int error = overwrite(journal);
  execute("COMMIT; PRAGMA journal_mode = DELETE; PRAGMA journal_mode = PERSIST");  // the first of the two deletes it
  if (error != 0)
    throw DatabaseError(path_ + ": its journal could not be overwritten (" + std::strerror(error) +
                        "), so traces of what was there may be left; run 'facenet gallery vacuum' on it.");
}

void Database::vacuum() { execute("VACUUM"); }

Transaction::Transaction(Database& database) : database_(database) { database_.execute("BEGIN IMMEDIATE"); }
Transaction::~Transaction() {
  if (!open_) return;
  try {
    database_.execute("ROLLBACK");
  } catch (const std::exception&) {  // SQLite has rolled back by itself; the error that led here is being reported
  }
}
void Transaction::commit() {
  database_.execute("COMMIT");  // when it fails the transaction is still open, and ~Transaction undoes it
  open_ = false;
}

}  // namespace command
