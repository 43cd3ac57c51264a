#include "store/database.hpp"

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <new>
#include <thread>
#include <utility>

#include "store/row_functions.hpp"

namespace command {

namespace {

constexpr double patience = 10;  // seconds

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

/// Makes an empty file that only its owner may read. 0, or what errno says: EEXIST where there is one, whose locks
/// stay as they are, since it is not opened.
int make_private(std::filesystem::path path) {
  constexpr int most_links = 40;
  std::error_code error;
  // O_EXCL does not follow links, but a link to a file that is still to be made is a good name.
  for (int i = 0; i < most_links && std::filesystem::is_symlink(path, error); ++i)
    path = path.parent_path() / std::filesystem::read_symlink(path, error);
  const int file = ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, S_IRUSR | S_IWUSR);
  if (file < 0) return errno;
  (void)::fchmod(file, S_IRUSR | S_IWUSR);  // a umask may take bits of the owner's too
  ::close(file);
  return 0;
}

}  // namespace

NewDatabase::NewDatabase(const std::string& path) {
  std::error_code none;
  const std::filesystem::path real = std::filesystem::weakly_canonical(path, none);
  path_ = none ? path : real.string();
  // The name is output.hpp's of a file that is not finished, and the lock says that somebody lives who fills it.
  temporary_ = (std::filesystem::path(path_).parent_path() / (".facenet-" + new_uuid().substr(19, 4))).string() +
               new_uuid().substr(24) + ".tmp";
  descriptor_ = ::open(temporary_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, S_IRUSR | S_IWUSR);
  if (descriptor_ < 0) refuse(path, errno);
  (void)::fchmod(descriptor_, S_IRUSR | S_IWUSR);
  (void)::flock(descriptor_, LOCK_EX);
}

NewDatabase::~NewDatabase() {
  if (!temporary_.empty()) {
    ::unlink(temporary_.c_str());
    ::unlink((temporary_ + "-journal").c_str());
  }
  if (descriptor_ >= 0) ::close(descriptor_);
}

void NewDatabase::commit(const std::string& kept) {
  if (::fsync(descriptor_) != 0) refuse(path_, errno);
  if (!kept.empty() && ::link(path_.c_str(), kept.c_str()) != 0) refuse(kept, errno);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) refuse(path_, errno);
  temporary_.clear();
  // The rename itself must survive a power cut; a folder that cannot be synced is no reason to fail.
  const std::string folder = std::filesystem::path(path_).parent_path().string();
  const int opened = ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (opened < 0) return;
  (void)::fsync(opened);
  ::close(opened);
}

void NewDatabase::refuse(const std::string& path, int error) const {
  throw DatabaseError(path + ": this file cannot be made (" + std::strerror(error) +
                      "); choose a folder that can be written, with room left.");
}

Query::Query(Query&& other) noexcept
    : database_(other.database_), statement_(std::exchange(other.statement_, nullptr)), bound_(other.bound_) {}
Query::~Query() { sqlite3_finalize(statement_); }

void Query::check(int code) const {
  if (code != SQLITE_OK) database_.refuse(code);
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

Query& Query::bind_columns(const Query& row, int count) {
  begin();
  for (int i = 0; i < count; ++i)
    check(sqlite3_bind_value(statement_, ++bound_, sqlite3_column_value(row.statement_, i)));
  return *this;
}

bool Query::step() {
  database_.waited_ = 0;
  const int code = sqlite3_step(statement_);
  if (code == SQLITE_ROW) return true;
  if (code != SQLITE_DONE) database_.refuse();
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

std::string Database::meaning(int code) const {
  switch (code & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED: {
      const std::string seconds = std::to_string(std::lround(waited_));
      return "another process is using this file" +
             (waited_ < 1 ? std::string() : " and was waited for " + seconds + " seconds") +
             "; try again when it is done";
    }
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
      const int error = database_ != nullptr ? sqlite3_system_errno(database_) : 0;
      return std::string("the disk refused to read or write it") +
             (error != 0 ? std::string(" (") + std::strerror(error) + ")" : "") +
             "; nothing of this change was kept, check the disk and its limits";
    }
    case SQLITE_TOOBIG:
      return "an entry is too large";
    default:
      break;
  }
  return std::string("SQLite says: ") + sqlite3_errstr(code) + "; check the file";
}

void Database::refuse(int code) const {
  if ((code & 0xff) == SQLITE_NOMEM) throw std::bad_alloc();
  if ((code & 0xff) == SQLITE_NOTADB) throw NotADatabase(path_ + ": " + meaning(code) + ".");
  if ((code & 0xff) == SQLITE_FULL) throw DiskFull(path_ + ": " + meaning(code) + ".");
  throw DatabaseError(path_ + ": " + meaning(code) + ".");
}

void Database::refuse() const { refuse(database_ != nullptr ? sqlite3_extended_errcode(database_) : SQLITE_NOMEM); }

int Database::on_busy(void* self, int calls) {
  auto& database = *static_cast<Database*>(self);
  const auto now = std::chrono::steady_clock::now();
  if (calls == 0) database.busy_since_ = now;
  database.waited_ = std::chrono::duration<double>(now - database.busy_since_).count();
  if (database.waited_ >= patience) return 0;
  std::this_thread::sleep_for(std::chrono::milliseconds(std::min(1 + 2 * calls, 25)));
  return 1;
}

void Database::open(const char* name, int flags) {
  if (sqlite3_open_v2(name, &database_, flags | SQLITE_OPEN_NOMUTEX, nullptr) != SQLITE_OK) refuse();
  sqlite3_extended_result_codes(database_, 1);
  sqlite3_busy_handler(database_, on_busy, this);
  // A file from elsewhere may neither call functions nor bring statements of its own, which may never end.
  sqlite3_db_config(database_, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  sqlite3_db_config(database_, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, nullptr);
  sqlite3_db_config(database_, SQLITE_DBCONFIG_ENABLE_VIEW, 0, nullptr);
  if (add_row_functions(database_) != SQLITE_OK) refuse();
  // What a statement sets aside stays in memory, not in /tmp.
  execute(
      "PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA foreign_keys = ON; PRAGMA secure_delete = ON; "
      "PRAGMA temp_store = MEMORY");
}

Database::Database(std::string path, Access access) : path_(std::move(path)) {
  struct stat about {};
  const bool there = ::stat(path_.c_str(), &about) == 0;
  if (!there && errno != ENOENT)
    throw DatabaseError(path_ + ": this file cannot be opened (" + std::strerror(errno) +
                        "); check its name, and the permissions of its folder.");
  if (!there && access != Access::create)
    throw DatabaseError(path_ + ": there is no such file; check the name, or make it with 'facenet enroll'.");
  if (there && !S_ISREG(about.st_mode))
    throw NotADatabase(path_ + ": this is not a regular file; give the name of a database.");
  if (access != Access::read && there && ::access(path_.c_str(), W_OK) != 0)
    throw DatabaseError(path_ + ": the file cannot be written (" + std::strerror(errno) + "); change its permissions.");
  if (!there && access == Access::create) {
    const int error = make_private(path_);
    made_ = error == 0;
    if (error != 0 && error != EEXIST)
      throw DatabaseError(path_ + ": this file cannot be made (" + std::strerror(error) +
                          "); choose a folder that can be written, with room left.");
  }
  // A file named ":memory:" or "file:…" is a file. For reading too it is opened for both where that is allowed: a
  // change that a killed process left half-way must be undone first.
  const std::string name = path_[0] == '/' ? path_ : "./" + path_;
  try {
    open(name.c_str(), SQLITE_OPEN_READWRITE);
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
    remove_if_empty();
    sqlite3_close(database_);
    throw;
  }
}

Database::~Database() { sqlite3_close(database_); }

Query Database::query(const char* sql) {
  sqlite3_stmt* statement = nullptr;
  waited_ = 0;
  if (sqlite3_prepare_v2(database_, sql, -1, &statement, nullptr) != SQLITE_OK) refuse();
  return Query(*this, statement);
}

void Database::execute(const char* sql) {
  waited_ = 0;
  if (sqlite3_exec(database_, sql, nullptr, nullptr, nullptr) != SQLITE_OK) refuse();
}

std::int64_t Database::number(const char* sql) {
  Query query = this->query(sql);
  if (!query.step()) refuse(SQLITE_CORRUPT);
  return query.integer(0);
}

std::int64_t Database::changed() const { return sqlite3_changes64(database_); }
std::int64_t Database::changes() const { return sqlite3_total_changes64(database_); }

bool Database::was_moved() noexcept {
  int moved = 0;
  return sqlite3_file_control(database_, "main", SQLITE_FCNTL_HAS_MOVED, &moved) == SQLITE_OK && moved != 0;
}

void Database::detach() {
  Database copy;
  copy.path_ = path_;
  copy.open(":memory:", SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
  copy_to(copy);
  std::swap(database_, copy.database_);
  sqlite3_busy_handler(database_, on_busy, this);
}

void Database::copy_to(const std::string& file, const std::string& shown) {
  Database copy;
  copy.path_ = shown;
  copy.open((file[0] == '/' ? file : "./" + file).c_str(), SQLITE_OPEN_READWRITE);
  copy.execute("PRAGMA journal_mode = MEMORY");  // nobody waits for the file yet
  copy_to(copy);
}

void Database::copy_to(Database& copy) {
  waited_ = 0;
  sqlite3_backup* backup = sqlite3_backup_init(copy.database_, "main", database_, "main");
  if (backup == nullptr) copy.refuse();
  const int code = sqlite3_backup_step(backup, -1);  // all pages under one lock
  sqlite3_backup_finish(backup);
  if (code == SQLITE_DONE) return;
  const int kind = code & 0xff;
  if (kind == SQLITE_FULL || kind == SQLITE_IOERR || kind == SQLITE_CANTOPEN || kind == SQLITE_READONLY)
    copy.refuse(code);
  refuse(code);
}

void Database::remove_if_empty() noexcept {
  if (!made_ || database_ == nullptr) return;
  try {
    if (!is_empty()) return;
    // A journal in memory: on a full disk the lock could not be had otherwise. The journal on the disk goes with it.
    sqlite3_busy_timeout(database_, 0);
    execute("PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE");
    // Whoever waits for this lock looks, when it has it, whether the file is still there.
    if (is_empty() && !was_moved()) ::unlink(sqlite3_db_filename(database_, "main"));
    execute("ROLLBACK");
  } catch (const std::exception&) {  // it counts as empty
  }
}

void Database::erase_journal() {
  if (was_moved()) return;
  const char* journal = sqlite3_filename_journal(sqlite3_db_filename(database_, "main"));
  if (::access(journal, F_OK) != 0) return;
  // With this lock the journal belongs to no unfinished change, of ours or of another process, and none begins. Of an
  // empty file it would make one of a page, which the ROLLBACK undoes.
  Query rollback = query("ROLLBACK");  // prepared before: without memory the lock would stay
  execute("BEGIN EXCLUSIVE");
  const int error = overwrite(journal);
  rollback.run();
  execute("PRAGMA journal_mode = DELETE; PRAGMA journal_mode = PERSIST");  // the first of the two deletes it
  if (error != 0)
    throw DatabaseError(path_ + ": its journal could not be overwritten (" + std::strerror(error) +
                        "), so traces of what was there may be left; run 'facenet gallery vacuum' on it.");
}

void Database::vacuum() { execute("VACUUM"); }

void Database::begin(const char* sql) {
  if (sqlite3_get_autocommit(database_) == 0) execute("ROLLBACK");  // one before could not be ended
  execute(sql);
  ++transactions_;
}

void Database::end(Query& rollback) noexcept {
  --transactions_;
  try {
    if (sqlite3_get_autocommit(database_) == 0) rollback.run();
  } catch (const std::exception&) {  // begin() tries again; the error that led here is being reported
  }
}

ReadTransaction::ReadTransaction(Database& database) : database_(database) {
  if (database_.transactions_ > 0) return;
  rollback_.emplace(database_.query("ROLLBACK"));
  database_.begin("BEGIN");
}
ReadTransaction::~ReadTransaction() {
  if (rollback_) database_.end(*rollback_);
}

Transaction::Transaction(Database& database) : database_(database), rollback_(database.query("ROLLBACK")) {
  database_.begin("BEGIN IMMEDIATE");
  if (!database_.was_moved()) return;
  database_.end(rollback_);
  throw FileMoved(
      database_.path_ +
      ": this file was removed or replaced while it was open, so this change was not made; run this again.");
}
Transaction::~Transaction() {
  if (open_) database_.end(rollback_);
}
void Transaction::commit() {
  database_.execute("COMMIT");  // when it fails the transaction is still open, and ~Transaction undoes it
  --database_.transactions_;
  open_ = false;
}

}  // namespace command
