// A thin door to SQLite: statements that end themselves, transactions that roll back, every failure a sentence.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

struct sqlite3;
struct sqlite3_stmt;

namespace command {

/// What went wrong with a database, as a whole sentence that names the file and the remedy.
class DatabaseError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// read: the file must be there and stays as it is. change: the same, to be written. create: made if need be.
enum class Access { read, change, create };

/// The file is something else, which a person named by mistake: it stays as it is.
class NotADatabase : public DatabaseError {
  using DatabaseError::DatabaseError;
};

/// There is no room left on its disk: the change was not made.
class DiskFull : public DatabaseError {
  using DatabaseError::DatabaseError;
};

/// The file was removed or replaced while it was open: a change would be written to a file without a name.
class FileMoved : public DatabaseError {
  using DatabaseError::DatabaseError;
};

/// A change was made, but what it removed could not be overwritten.
class TracesLeft : public DatabaseError {
  using DatabaseError::DatabaseError;
};

class Database;

/// Bytes for a BLOB column.
struct Blob {
  const void* data;
  std::size_t size;
};

/// A prepared statement. Values are bound to its question marks from left to right.
class Query {
 public:
  Query(Query&& other) noexcept;
  Query& operator=(Query&&) = delete;
  ~Query();

  template <class... T>
  Query& bind(const T&... values) {
    begin();
    (put(values), ...);
    return *this;
  }
  /// The first `count` columns of another statement's row.
  Query& bind_columns(const Query& row, int count);
  /// The next row; false after the last.
  bool step();
  /// For statements without rows.
  void run();

  std::int64_t integer(int column) const;
  double real(int column) const;
  std::string text(int column) const;
  bool is_null(int column) const;
  /// Valid until the next step().
  Blob blob(int column) const;

 private:
  friend class Database;
  Query(Database& database, sqlite3_stmt* statement) : database_(database), statement_(statement) {}
  void begin();
  void put(std::int64_t value);
  void put(double value);
  void put(std::string_view value);
  void put(Blob value);
  void put(std::nullptr_t);
  void check(int code) const;

  Database& database_;
  sqlite3_stmt* statement_;
  int bound_ = 0;
};

/// A new file, its owner's alone, that takes its name only in commit(). Killed, it leaves a file .facenet-….tmp in that
/// folder, which the command's next output there removes.
class NewDatabase {
 public:
  /// `path`: what the file will be called; a link stays one, and its target is replaced.
  explicit NewDatabase(const std::string& path);
  NewDatabase(const NewDatabase&) = delete;
  NewDatabase& operator=(const NewDatabase&) = delete;
  /// Removes what was not committed.
  ~NewDatabase();
  /// Where it is filled. Close it before commit().
  const std::string& filled() const { return temporary_; }
  /// Renames. `kept`: a name that the file that had the name before gets; "": none.
  void commit(const std::string& kept = {});

 private:
  [[noreturn]] void refuse(const std::string& path, int error) const;
  std::string path_, temporary_;
  int descriptor_ = -1;
};

/// One open file. What is deleted is overwritten with zeros (secure_delete); a commit is on the disk when it returns
/// (synchronous); another process's change is waited for, 10 seconds at most. A new file has mode 0600 whatever the
/// umask is, and so has its journal. Functions throw DatabaseError.
class Database {
 public:
  Database(std::string path, Access access);
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;
  ~Database();

  const std::string& path() const { return path_; }
  Query query(const char* sql);
  void execute(const char* sql);
  /// The one number that a statement returns.
  std::int64_t number(const char* sql);
  /// How many rows the last statement changed; and all of this object's together, those of foreign keys too.
  std::int64_t changed() const;
  std::int64_t changes() const;
  /// Whether another file, or none, has its name now. Takes no lock, and opens nothing.
  bool was_moved() noexcept;
  /// Whether the file holds no table yet.
  bool is_empty() { return number("SELECT count(*) FROM sqlite_schema") == 0; }

  /// Replaces the file by a copy of it in memory, as it is at this moment: what follows holds no lock, however long it
  /// takes. Needs as much memory as the file is long.
  void detach();
  /// Writes all of it, as it is at this moment, over an empty file, which errors call `shown`. Who wants to change this
  /// one waits meanwhile.
  void copy_to(const std::string& file, const std::string& shown);
  /// Deletes the file if this object made it and it holds no table. Another process that has it open already notices
  /// (FileMoved) before it writes.
  void remove_if_empty() noexcept;

  /// Overwrites and deletes the journal, which holds what the last changes replaced. Waits for those who read. Does
  /// nothing where the file was moved: the journal of that name belongs to the other file.
  void erase_journal();
  /// Rewrites the whole file: secure_delete alone leaves copies of index entries where SQLite rearranged a page.
  void vacuum();

 private:
  friend class Query;
  friend class Transaction;
  friend class ReadTransaction;
  Database() = default;
  static int on_busy(void* self, int calls);
  void open(const char* name, int flags);
  void copy_to(Database& copy);
  /// A transaction that is not inside of another one.
  void begin(const char* sql);
  void end(Query& rollback) noexcept;
  /// What a result code means and what to do about it.
  std::string meaning(int code) const;
  [[noreturn]] void refuse(int code) const;
  [[noreturn]] void refuse() const;  // the last error's

  std::string path_;
  sqlite3* database_ = nullptr;
  bool made_ = false;
  int transactions_ = 0;  // that have an object
  std::chrono::steady_clock::time_point busy_since_{};
  double waited_ = 0;  // seconds that the present statement has waited for a lock
};

/// Several statements that read see one state of the file. Inside another transaction it does nothing.
class ReadTransaction {
 public:
  explicit ReadTransaction(Database& database);
  ReadTransaction(const ReadTransaction&) = delete;
  ReadTransaction& operator=(const ReadTransaction&) = delete;
  ~ReadTransaction();

 private:
  Database& database_;
  std::optional<Query> rollback_;  // prepared while there is memory; none inside another transaction
};

/// A change: all of it or nothing. Begins with the lock for writing.
class Transaction {
 public:
  /// Throws FileMoved too.
  explicit Transaction(Database& database);
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;
  ~Transaction();
  /// When it returns, the change is on the disk.
  void commit();

 private:
  Database& database_;
  Query rollback_;  // prepared while there is memory
  bool open_ = true;
};

}  // namespace command
