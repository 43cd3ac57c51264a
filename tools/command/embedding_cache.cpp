#include "embedding_cache.hpp"

#include <unistd.h>

#include <chrono>
#include <cstring>

#include "output.hpp"

namespace command {

namespace {

constexpr int application_id = 0x464e4543;  // "FNEC"
constexpr int version = 1;
constexpr std::size_t face_floats = 15, most_waiting = 64;
constexpr std::int64_t pause_ms = 1000;

std::int64_t now_ms() {
  using namespace std::chrono;
  return duration_cast<milliseconds>(steady_clock::now().time_since_epoch()).count();
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

bool EmbeddingCache::open(const std::string& file, int dim) {
  dim_ = static_cast<std::size_t>(dim);
  try {
    database_.emplace(file, Access::create);
    Database& d = *database_;
    const bool is_new = d.number("SELECT count(*) FROM sqlite_master") == 0;
    if (!is_new && (d.number("PRAGMA application_id") != application_id || d.number("PRAGMA user_version") != version))
      throw DatabaseError(file + ": this is no cache of embeddings, or one of another version; give another --cache FILE.");
    // NORMAL: a power cut may cost the last pictures, never the file. DELETE leaves no file beside this one.
    d.execute("PRAGMA synchronous = NORMAL; PRAGMA journal_mode = DELETE");
    Transaction change(d);
    d.execute(("PRAGMA application_id = " + std::to_string(application_id) + "; PRAGMA user_version = " +
               std::to_string(version) + "; CREATE TABLE IF NOT EXISTS faces (key BLOB PRIMARY KEY, data BLOB NOT NULL) STRICT")
                  .c_str());
    change.commit();
    find_.emplace(d.query("SELECT data FROM faces WHERE key = ?"));
    add_.emplace(d.query("INSERT OR IGNORE INTO faces VALUES (?, ?)"));
  } catch (const DatabaseError& error) {
    say(error.what());
    close();
    return false;
  }
  stored_at_ = now_ms();
  return true;
}

bool EmbeddingCache::find(const CacheKey& key, std::vector<EmbeddedFace>& faces) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!is_open()) return false;
  try {
    if (!find_->bind(Blob{key.data(), key.size()}).step()) return false;
    const Blob blob = find_->blob(0);
    const std::size_t one = (face_floats + dim_) * sizeof(float);
    std::vector<float> data(blob.size / sizeof(float));
    if (blob.size != 0) std::memcpy(data.data(), blob.data, data.size() * sizeof(float));
    const bool whole = blob.size % one == 0;
    if (whole) unpack(data.data(), blob.size / one, dim_, faces);
    while (find_->step()) continue;
    return whole;
  } catch (const DatabaseError& error) {
    give_up(error);
    return false;
  }
}

void EmbeddingCache::add(const CacheKey& key, const std::vector<EmbeddedFace>& faces) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!is_open()) return;
  waiting_.push_back({key, pack(faces)});
  if (waiting_.size() < most_waiting && now_ms() - stored_at_ < pause_ms) return;
  try {
    store();
  } catch (const DatabaseError& error) {
    give_up(error);
  }
}

void EmbeddingCache::store() {
  Transaction change(*database_);
  for (const Row& row : waiting_) {
    // A null pointer would bind NULL, where no face is zero bytes.
    const void* data = row.data.empty() ? static_cast<const void*>("") : row.data.data();
    add_->bind(Blob{row.key.data(), row.key.size()}, Blob{data, row.data.size() * sizeof(float)}).run();
  }
  change.commit();
  waiting_.clear();
  stored_at_ = now_ms();
}

void EmbeddingCache::give_up(const DatabaseError& why) {
  say(std::string(why.what()) + " The work goes on without a cache.");
  waiting_.clear();
  close();
}

void EmbeddingCache::remove() {
  if (!is_open()) return;
  const std::string file = database_->path();
  waiting_.clear();
  close();
  ::unlink(file.c_str());
}

void EmbeddingCache::close() {
  try {
    if (is_open() && !waiting_.empty()) store();
  } catch (const DatabaseError& error) {
    say(std::string(error.what()) + " A later run makes the last embeddings again.");
  }
  find_.reset();
  add_.reset();
  database_.reset();
}

}  // namespace command
