#include "embedding_cache.hpp"

#include <sqlite3.h>

#include <chrono>
#include <cstring>

#include "output.hpp"

namespace command {

namespace {

constexpr int application_id = 0x464e4543;  // "FNEC"
constexpr int version = 1;
constexpr int busy_ms = 10000;
constexpr std::size_t face_floats = 15, most_waiting = 256;
constexpr std::int64_t pause_ms = 1000;

std::int64_t now_ms() {
  using namespace std::chrono;
  return duration_cast<milliseconds>(steady_clock::now().time_since_epoch()).count();
}

/// The number that a pragma or a count answers; -1 when it cannot be had.
int ask(sqlite3* database, const char* sql) {
  sqlite3_stmt* statement = nullptr;
  int value = -1;
  if (sqlite3_prepare_v2(database, sql, -1, &statement, nullptr) == SQLITE_OK && sqlite3_step(statement) == SQLITE_ROW)
    value = sqlite3_column_int(statement, 0);
  sqlite3_finalize(statement);
  return value;
}

std::vector<float> pack(const std::vector<EmbeddedFace>& faces) {
  std::vector<float> data;
  for (const EmbeddedFace& f : faces) {
    const facenet::Box& b = f.face.box;
    data.insert(data.end(), {b.x0, b.y0, b.x1, b.y1, f.face.score});
    for (const facenet::Point& p : f.face.landmarks) data.insert(data.end(), {p.x, p.y});
    data.insert(data.end(), f.embedding.begin(), f.embedding.end());
  }
  return data;
}

void unpack(const float* data, std::size_t count, std::size_t dim, std::vector<EmbeddedFace>& faces) {
  faces.resize(count);
  for (EmbeddedFace& f : faces) {
    f.face.box = {data[0], data[1], data[2], data[3]};
    f.face.score = data[4];
    for (int i = 0; i < 5; ++i) f.face.landmarks[i] = {data[5 + 2 * i], data[6 + 2 * i]};
    f.embedding.assign(data + face_floats, data + face_floats + dim);
    data += face_floats + dim;
  }
}

}  // namespace

EmbeddingCache::~EmbeddingCache() { close(); }

bool EmbeddingCache::open(const std::string& file, int dim) {
  file_ = file;
  dim_ = static_cast<std::size_t>(dim);
  int status = sqlite3_open_v2(file.c_str(), &database_, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, nullptr);
  if (status == SQLITE_OK) {
    sqlite3_busy_timeout(database_, busy_ms);
    const int tables = ask(database_, "SELECT count(*) FROM sqlite_master");
    if (tables > 0 && ask(database_, "PRAGMA application_id") != application_id) status = SQLITE_NOTADB;
    if (tables > 0 && ask(database_, "PRAGMA user_version") != version) status = SQLITE_NOTADB;
  }
  // NORMAL: a power cut may cost the last pictures, never the file. TRUNCATE leaves no file beside this one.
  const std::string set_up = "PRAGMA synchronous = NORMAL; PRAGMA journal_mode = TRUNCATE; BEGIN IMMEDIATE;"
                             "PRAGMA application_id = " + std::to_string(application_id) +
                             "; PRAGMA user_version = " + std::to_string(version) +
                             "; CREATE TABLE IF NOT EXISTS faces (key BLOB PRIMARY KEY, data BLOB NOT NULL); COMMIT";
  if (status == SQLITE_OK) status = sqlite3_exec(database_, set_up.c_str(), nullptr, nullptr, nullptr);
  if (status == SQLITE_OK)
    status = sqlite3_prepare_v2(database_, "SELECT data FROM faces WHERE key = ?", -1, &find_, nullptr);
  if (status == SQLITE_OK)
    status = sqlite3_prepare_v2(database_, "INSERT OR IGNORE INTO faces VALUES (?, ?)", -1, &add_, nullptr);
  stored_at_ = now_ms();
  if (status == SQLITE_OK) return true;
  const int kind = status & 0xff;
  if (kind == SQLITE_NOTADB || kind == SQLITE_CORRUPT || kind == SQLITE_ERROR) {
    close();
    say(file + ": this is no cache of embeddings, of another version, or damaged; delete it, or give another --cache FILE.");
    return false;
  }
  give_up(sqlite3_errstr(status));
  return true;
}

bool EmbeddingCache::find(const CacheKey& key, std::vector<EmbeddedFace>& faces) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!is_open()) return false;
  sqlite3_bind_blob(find_, 1, key.data(), static_cast<int>(key.size()), SQLITE_STATIC);
  bool found = false;
  if (sqlite3_step(find_) == SQLITE_ROW) {
    const auto bytes = static_cast<std::size_t>(sqlite3_column_bytes(find_, 0));
    const std::size_t one = (face_floats + dim_) * sizeof(float);
    found = bytes % one == 0;
    std::vector<float> data(bytes / sizeof(float));
    if (found && bytes != 0) std::memcpy(data.data(), sqlite3_column_blob(find_, 0), bytes);
    if (found) unpack(data.data(), bytes / one, dim_, faces);
  }
  sqlite3_reset(find_);
  return found;
}

void EmbeddingCache::add(const CacheKey& key, const std::vector<EmbeddedFace>& faces) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!is_open()) return;
  waiting_.push_back({key, pack(faces)});
  if ((waiting_.size() >= most_waiting || now_ms() - stored_at_ >= pause_ms) && !store())
    give_up(sqlite3_errmsg(database_));
}

bool EmbeddingCache::store() {
  bool fine = sqlite3_exec(database_, "BEGIN IMMEDIATE", nullptr, nullptr, nullptr) == SQLITE_OK;
  for (std::size_t i = 0; fine && i < waiting_.size(); ++i) {
    const Row& row = waiting_[i];
    sqlite3_bind_blob(add_, 1, row.key.data(), static_cast<int>(row.key.size()), SQLITE_STATIC);
    // A null pointer would bind NULL, where no face is zero bytes.
    const void* data = row.data.empty() ? "" : static_cast<const void*>(row.data.data());
    sqlite3_bind_blob(add_, 2, data, static_cast<int>(row.data.size() * sizeof(float)), SQLITE_STATIC);
    fine = sqlite3_step(add_) == SQLITE_DONE;
    sqlite3_reset(add_);
  }
  fine = fine && sqlite3_exec(database_, "COMMIT", nullptr, nullptr, nullptr) == SQLITE_OK;
  waiting_.clear();
  stored_at_ = now_ms();
  return fine;
}

void EmbeddingCache::give_up(const std::string& what) {
  say(file_ + ": embeddings cannot be kept there (" + what + "); the work goes on, and a later run begins afresh.");
  waiting_.clear();
  close();
}

void EmbeddingCache::close() {
  if (!waiting_.empty() && !store()) {
    say(file_ + ": the last embeddings could not be kept (" + sqlite3_errmsg(database_) + "); a later run makes them again.");
  }
  sqlite3_finalize(find_);
  sqlite3_finalize(add_);
  sqlite3_close(database_);
  find_ = add_ = nullptr;
  database_ = nullptr;
}

}  // namespace command
