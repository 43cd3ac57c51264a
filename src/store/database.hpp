// A thin door to SQLite: statements that end themselves, transactions that roll back, every failure a sentence.
#pragma once

#include <cstdint>
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
  Query(const std::string& path, sqlite3_stmt* statement) : path_(path), statement_(statement) {}
  void begin();
  void put(std::int64_t value);
  void put(double value);
  void put(std::string_view value);
  void put(Blob value);
  void put(std::nullptr_t);
  void check(int code) const;

  const std::string& path_;  // the Database's
  sqlite3_stmt* statement_;
  int bound_ = 0;
};

/// One open file. What is deleted is overwritten with zeros (secure_delete); a commit is on the disk when it returns
/// (synchronous); another process's change is waited for, 10 seconds at most. Functions throw DatabaseError.
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
  /// The key of the row that was inserted last.
  std::int64_t last_id() const;

  /// Overwrites and deletes the journal, which holds what the last changes replaced. Waits for those who read.
  void erase_journal();
  /// Rewrites the whole file: secure_delete alone leaves copies of index entries where SQLite rearranged a page.
  void vacuum();

 private:
  std::string path_;
  sqlite3* database_ = nullptr;
};

/// A change: all of it or nothing. Begins with the lock for writing.
class Transaction {
 public:
  explicit Transaction(Database& database);
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;
  ~Transaction();
  /// When it returns, the change is on the disk.
  void commit();

 private:
  Database& database_;
  bool open_ = true;
};

}  // namespace command
