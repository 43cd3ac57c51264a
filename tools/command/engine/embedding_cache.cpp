#include "command/engine/embedding_cache.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstring>
#include <filesystem>

#include "facenet/base/hash.hpp"
#include "facenet/embedder.hpp"
#include "command/io/output.hpp"

namespace command {

namespace {

constexpr int application_id = 0x464e4543;  // "FNEC"
constexpr int version = 3;                  // 1: without places; 2: without quality
constexpr const char* schema = R"(
CREATE TABLE faces (key BLOB PRIMARY KEY, data BLOB NOT NULL, picture BLOB NOT NULL, most INTEGER NOT NULL) STRICT;
CREATE TABLE place (path BLOB PRIMARY KEY, picture BLOB NOT NULL) STRICT;
)";
constexpr std::size_t face_floats = 20, most_waiting = 64;
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
    const FaceQuality& q = f.quality;
    data.insert(data.end(), {q.value, q.size, q.sharpness, q.pose, q.score});
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
    f.quality = {data[15], data[16], data[17], data[18], data[19]};
    f.embedding.assign(data + face_floats, data + face_floats + dim);
    data += face_floats + dim;
  }
}

}  // namespace

bool EmbeddingCache::open(const std::string& file, int dim, facenet::Normalise normalise, const std::string& context,
                          int most_faces) {
  dim_ = static_cast<std::size_t>(dim);
  normalise_ = normalise;
  most_faces_ = static_cast<std::size_t>(most_faces);
  context_ = context;
  struct stat about {};
  try {
    // What another user can change is not taken for what this one computed.
    if (::stat(file.c_str(), &about) == 0 && about.st_uid != ::geteuid())
      throw DatabaseError(file + ": this cache of embeddings is another user's; give --cache FILE.");
    begin(file);
  } catch (const NotADatabase& error) {
    say(error.what());
    close();
    return false;
  } catch (const DatabaseError& error) {
    if (database_) database_->remove_if_empty();
    give_up(error);
  }
  return true;
}

void EmbeddingCache::begin(const std::string& file) {
  database_.emplace(file, Access::create);
  Database& d = *database_;
  // NORMAL: a power cut may cost the last pictures, never the file. DELETE leaves no file beside this one.
  d.execute("PRAGMA synchronous = NORMAL; PRAGMA journal_mode = DELETE");
  Transaction change(d);
  const bool is_new = d.is_empty();
  if (!is_new && d.number("PRAGMA application_id") != application_id)
    throw NotADatabase(file + ": this is no cache of embeddings; give another --cache FILE.");
  const std::int64_t found = d.number("PRAGMA user_version");
  if (!is_new && found > version)
    throw DatabaseError(file + ": a newer facenet made this cache of embeddings; give another --cache FILE.");
  if (!is_new && found < version) d.execute("DROP TABLE IF EXISTS faces; DROP TABLE IF EXISTS place");
  if (is_new || found < version) {
    d.execute(schema);
    d.execute(("PRAGMA application_id = " + std::to_string(application_id) +
               "; PRAGMA user_version = " + std::to_string(version))
                  .c_str());
  }
  change.commit();
  find_.emplace(d.query("SELECT data, most FROM faces WHERE key = ?"));
  // All faces of a picture are not replaced by the first of them, which another process may have asked for.
  add_.emplace(
      d.query("INSERT INTO faces VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET data = excluded.data, "
              "most = excluded.most WHERE excluded.most = 0 OR faces.most <> 0"));
  is_at_.emplace(d.query("SELECT 1 FROM place WHERE path = ? AND picture = ?"));
  put_at_.emplace(d.query("INSERT OR REPLACE INTO place VALUES (?, ?)"));
  stored_at_ = now_ms();
  open_ = true;
}

EmbeddingCache::Key EmbeddingCache::key_of(const PictureDigest& picture) const {
  Key key;
  facenet::Sha256 hash;
  hash.update(context_.c_str(), context_.size() + 1);
  hash.update(picture.data(), picture.size());
  hash.digest(key.data());
  return key;
}

bool EmbeddingCache::find(const std::string& path, const PictureDigest& picture, std::vector<EmbeddedFace>& faces) {
  const Key key = key_of(picture);
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!is_open()) return false;
  try {
    lies_at(path, picture);  // even where it is not found or cannot be embedded: what lay there before is gone
    if (!find_->bind(Blob{key.data(), key.size()}).step()) return false;
    const Blob blob = find_->blob(0);
    const std::size_t one = (face_floats + dim_) * sizeof(float), count = blob.size / one;
    // What was made for fewer faces serves those who want no more of them.
    const auto most = static_cast<std::size_t>(find_->integer(1));
    const bool enough = most == 0 || (most_faces_ != 0 && most_faces_ <= most);
    std::vector<float> data(blob.size / sizeof(float));
    if (blob.size != 0) std::memcpy(data.data(), blob.data, data.size() * sizeof(float));
    bool sound =
        blob.size % one == 0 && std::all_of(data.begin(), data.end(), [](float value) { return std::isfinite(value); });
    // Nothing that the embedder would not have given.
    for (std::size_t i = 0; sound && i < count; ++i) {
      const float* const e = data.data() + i * (face_floats + dim_) + face_floats;
      sound = facenet::detail::check_embedding(e, static_cast<int>(dim_), normalise_).ok();
    }
    if (sound && enough) unpack(data.data(), most_faces_ == 0 ? count : std::min(count, most_faces_), dim_, faces);
    while (find_->step()) continue;
    store_soon();
    return sound && enough;
  } catch (const DatabaseError& error) {
    give_up(error);
    faces.clear();
    return false;
  }
}

void EmbeddingCache::add(const PictureDigest& picture, const std::vector<EmbeddedFace>& faces) {
  const Key key = key_of(picture);
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!is_open()) return;
  try {
    rows_.push_back({key, picture, pack(faces), most_faces_ == 0 || faces.size() < most_faces_});
    store_soon();
  } catch (const DatabaseError& error) {
    give_up(error);
  }
}

void EmbeddingCache::lies_at(const std::string& path, const PictureDigest& picture) {
  std::error_code error;
  const std::string full = std::filesystem::absolute(path, error).lexically_normal().string();
  ++pictures_;
  if (is_at_->bind(Blob{full.data(), full.size()}, Blob{picture.data(), picture.size()}).step()) {
    while (is_at_->step()) continue;
    return;
  }
  places_.push_back({full, picture});
}

void EmbeddingCache::store_soon() {
  const std::size_t waiting = std::max(rows_.size(), places_.size());
  if (waiting >= most_waiting || (waiting > 0 && now_ms() - stored_at_ >= pause_ms)) store();
}

void EmbeddingCache::store() {
  Transaction change(*database_);
  for (const Row& row : rows_) {
    // A null pointer would bind NULL, where no face is zero bytes.
    const void* data = row.data.empty() ? static_cast<const void*>("") : row.data.data();
    add_->bind(Blob{row.key.data(), row.key.size()}, Blob{data, row.data.size() * sizeof(float)},
               Blob{row.picture.data(), row.picture.size()}, static_cast<std::int64_t>(row.all ? 0 : most_faces_))
        .run();
  }
  for (const Place& place : places_)
    put_at_->bind(Blob{place.path.data(), place.path.size()}, Blob{place.picture.data(), place.picture.size()}).run();
  change.commit();
  moved_ = moved_ || !places_.empty();
  rows_.clear();
  places_.clear();
  stored_at_ = now_ms();
}

// Looks at every place only where there are more than this run has seen.
void EmbeddingCache::drop_gone() {
  Database& d = *database_;
  std::vector<std::string> gone;
  if (d.number("SELECT count(*) FROM place") > pictures_) {
    Query all = d.query("SELECT path FROM place");
    while (all.step()) {
      const Blob path = all.blob(0);
      std::string name(static_cast<const char*>(path.data), path.size);
      struct stat about {};
      if (::stat(name.c_str(), &about) != 0 && (errno == ENOENT || errno == ENOTDIR)) gone.push_back(std::move(name));
    }
  }
  constexpr const char* orphans = "FROM faces WHERE picture NOT IN (SELECT picture FROM place)";
  if (gone.empty() && (!moved_ || d.number((std::string("SELECT count(*) ") + orphans).c_str()) == 0)) return;
  d.execute("PRAGMA journal_mode = PERSIST");  // it will hold what is dropped, and is overwritten
  Transaction change(d);
  Query remove = d.query("DELETE FROM place WHERE path = ?");
  for (const std::string& name : gone) remove.bind(Blob{name.data(), name.size()}).run();
  d.execute((std::string("DELETE ") + orphans).c_str());
  change.commit();
  d.erase_journal();
}

void EmbeddingCache::give_up(const DatabaseError& why) {
  note(std::string(why.what()) + " The work goes on without a cache.");
  rows_.clear();
  places_.clear();
  pictures_ = -1;
  close();
}

void EmbeddingCache::remove() {
  if (!is_open()) return;
  const std::string file = database_->path();
  rows_.clear();
  places_.clear();
  pictures_ = -1;
  close();
  ::unlink(file.c_str());
}

void EmbeddingCache::close() {
  try {
    if (is_open() && (!rows_.empty() || !places_.empty())) store();
    if (is_open() && pictures_ > 0) drop_gone();
  } catch (const DatabaseError& error) {
    note(std::string(error.what()) + " A later run makes the last embeddings again.");
  }
  open_ = false;
  find_.reset();
  add_.reset();
  is_at_.reset();
  put_at_.reset();
  database_.reset();
}

}  // namespace command
