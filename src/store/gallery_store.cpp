#include "gallery_store.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>

#include "facenet/hash.hpp"
#include "json.hpp"

namespace command {

namespace {

constexpr std::int64_t application_id = 0x464e4554;  // "FNET"
constexpr std::int64_t schema_version = 1;

// Ids are never used twice (AUTOINCREMENT): what another program remembers as 7 is never somebody else.
constexpr const char* schema = R"(
CREATE TABLE meta (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  model TEXT NOT NULL,
  architecture TEXT NOT NULL,
  embedding_dim INTEGER NOT NULL CHECK (embedding_dim > 0),
  trained INTEGER NOT NULL CHECK (trained IN (0, 1)),
  normalise TEXT NOT NULL,
  image_size INTEGER NOT NULL,
  crop TEXT NOT NULL,
  margin REAL NOT NULL,
  detector TEXT NOT NULL
) STRICT;
CREATE TABLE person (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL UNIQUE CHECK (name <> '')
) STRICT;
CREATE TABLE template (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  person INTEGER NOT NULL REFERENCES person ON DELETE CASCADE,
  image TEXT NOT NULL,
  sha256 TEXT NOT NULL CHECK (length(sha256) = 64),
  face INTEGER NOT NULL,
  x1 REAL NOT NULL, y1 REAL NOT NULL, x2 REAL NOT NULL, y2 REAL NOT NULL,
  score REAL NOT NULL,
  enrolled TEXT NOT NULL,
  embedding BLOB NOT NULL,
  UNIQUE (person, sha256)
) STRICT;
CREATE INDEX template_sha256 ON template (sha256);
)";

std::string folder_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}

std::string quoted(const std::string& name) { return "'" + name + "'"; }

std::vector<std::uint8_t> to_bytes(const std::vector<float>& embedding) {
  std::vector<std::uint8_t> bytes(embedding.size() * 4);
  for (std::size_t i = 0; i < embedding.size(); ++i) {
    std::uint32_t bits;
    std::memcpy(&bits, &embedding[i], 4);
    for (std::size_t b = 0; b < 4; ++b) bytes[4 * i + b] = static_cast<std::uint8_t>(bits >> (8 * b));
  }
  return bytes;
}

/// False when the bytes are not dim finite floats.
bool from_bytes(Blob blob, std::vector<float>& embedding) {
  if (blob.size != embedding.size() * 4) return false;
  bool finite = true;
  for (std::size_t i = 0; i < embedding.size(); ++i) {
    const auto bits = facenet::detail::load_le<std::uint32_t>(static_cast<const std::uint8_t*>(blob.data) + 4 * i);
    std::memcpy(&embedding[i], &bits, 4);
    finite = finite && std::isfinite(embedding[i]);
  }
  return finite;
}

}  // namespace

GalleryModel gallery_model(const facenet::ModelInfo& info, const std::string& detector) {
  GalleryModel m;
  m.digest = info.digest;
  m.architecture = info.architecture;
  m.embedding_dim = info.embedding_dim;
  m.trained = info.trained;
  m.normalise = info.normalise == facenet::Normalise::l2 ? "l2" : "none";
  m.image_size = info.image_size;
  m.crop = info.crop == facenet::Crop::box ? "box" : "five_point";
  m.margin = info.margin;
  m.detector = detector;
  return m;
}

std::string as_utf8(const std::string& text) { return Json::parse(line(Json(text))).get<std::string>(); }

std::string wrong_name(const std::string& name) {
  constexpr std::size_t most = 255;
  if (name.empty()) return "the name is empty";
  if (name.size() > most) return "the name has more than 255 bytes";
  if (as_utf8(name) != name) return "the name is not UTF-8";
  for (std::size_t i = 0; i < name.size(); ++i) {
    const auto c = static_cast<unsigned char>(name[i]);
    const bool c1 = c == 0xc2 && i + 1 < name.size() && static_cast<unsigned char>(name[i + 1]) < 0xa0;
    if (c < 0x20 || c == 0x7f || c1) return "the name holds a control character";
  }
  return {};
}

GalleryStore::GalleryStore(const std::string& path, Access access) : path_(path), access_(access) {
  if (path == "-" || path.empty()) refuse("a gallery is a file; give its name");
  struct stat about {};
  const bool there = ::stat(path.c_str(), &about) == 0;
  if (!there && access != Access::create) refuse("there is no such gallery; 'facenet enroll' makes one");
  // An empty file is what is left where the first change was killed.
  if (there && !(S_ISREG(about.st_mode) && about.st_size == 0)) {
    database_ = std::make_unique<Database>(path_, access);
    read_model();
    return;
  }
  if (access != Access::create) refuse("this file is empty; 'facenet enroll' makes a gallery of it");
  const std::string folder = folder_of(path);
  if (::access(folder.c_str(), W_OK | X_OK) != 0)
    refuse(std::string("a gallery cannot be made here (") + std::strerror(errno) +
           "); choose a folder that can be written");
}

GalleryStore::~GalleryStore() {
  if (!exists() || access_ == Access::read) return;
  try {
    database_->erase_journal();
  } catch (const std::exception&) {
  }
}

void GalleryStore::read_model() {
  if (database_->number("PRAGMA application_id") != application_id)
    refuse("this is an SQLite database of another program; give the name of a gallery");
  const std::int64_t version = database_->number("PRAGMA user_version");
  if (version > schema_version)
    refuse("a newer facenet made this gallery (schema " + std::to_string(version) + ", this one knows " +
           std::to_string(schema_version) + "); use that one");
  Query q = database_->query(
      "SELECT model, architecture, embedding_dim, trained, normalise, image_size, crop, margin, detector FROM meta");
  if (!q.step() || q.integer(2) < 1 || q.integer(2) > 1 << 20)
    refuse("the gallery is damaged; put a copy of it in its place");
  model_ = {q.text(0),    q.text(1),    q.text(4), q.text(6),        q.text(8),
            q.integer(2), q.integer(5), q.real(7), q.integer(3) != 0};
}

void GalleryStore::create(const GalleryModel& m) {
  database_->execute(schema);
  database_->execute(("PRAGMA application_id = " + std::to_string(application_id)).c_str());
  database_->execute(("PRAGMA user_version = " + std::to_string(schema_version)).c_str());
  database_->query("INSERT INTO meta VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
      .bind(m.digest, m.architecture, m.embedding_dim, std::int64_t{m.trained}, m.normalise, m.image_size, m.crop,
            m.margin, m.detector)
      .run();
}

void GalleryStore::require(const GalleryModel& m) const {
  if (!exists() || m.digest == model_.digest) return;
  refuse("its templates were made with another model (" + model_.digest + ", " + model_.architecture + ", " +
         std::to_string(model_.embedding_dim) + "-d), and embeddings of " + m.digest + " (" + m.architecture + ", " +
         std::to_string(m.embedding_dim) +
         "-d) cannot be compared with them; give that model's --weights, or another gallery");
}

std::int64_t GalleryStore::person(const std::string& name) {
  Query q = database_->query("SELECT id FROM person WHERE name = ?");
  return q.bind(name).step() ? q.integer(0) : 0;
}

std::int64_t GalleryStore::known_person(const std::string& name) {
  const std::int64_t id = person(name);
  if (id == 0) refuse("nobody in it is called " + quoted(name) + "; 'facenet gallery list' shows the names");
  return id;
}

std::int64_t GalleryStore::find(const std::string& name, const std::string& sha256) {
  if (!exists()) return 0;
  Query q = database_->query(
      "SELECT t.id FROM template t JOIN person p ON p.id = t.person WHERE t.sha256 = ? AND p.name = ?");
  return q.bind(sha256, name).step() ? q.integer(0) : 0;
}

GalleryStore::Addition GalleryStore::add(const GalleryModel& model, const Template& face) {
  Addition result;
  bool given = false;
  add_all(
      model,
      [&](Template& next) {
        if (given) return false;
        given = true;
        next = face;
        return true;
      },
      [&](const Template&, const Addition& addition) { result = addition; });
  return result;
}

void GalleryStore::add_all(const GalleryModel& model, const std::function<bool(Template&)>& next,
                           const std::function<void(const Template&, const Addition&)>& added) {
  if (!exists()) database_ = std::make_unique<Database>(path_, Access::create);
  Transaction change(*database_);
  // Looked at inside the transaction: another process may have made the gallery in the meantime.
  if (database_->number("SELECT count(*) FROM sqlite_schema") == 0) create(model);
  if (model_.digest.empty()) read_model();
  require(model);
  for (Template face; next(face);) added(face, insert(face));
  change.commit();
}

GalleryStore::Addition GalleryStore::insert(const Template& face) {
  if (const std::int64_t id = find(face.name, face.sha256)) return {Added::there, id, {}};
  Query same = database_->query(
      "SELECT p.name FROM template t JOIN person p ON p.id = t.person "
      "WHERE t.sha256 = ? AND t.x1 = ? AND t.y1 = ? AND t.x2 = ? AND t.y2 = ?");
  if (same.bind(face.sha256, face.box[0], face.box[1], face.box[2], face.box[3]).step())
    return {Added::another_person, 0, same.text(0)};
  std::int64_t owner = person(face.name);
  if (owner == 0) {
    database_->query("INSERT INTO person (name) VALUES (?)").bind(face.name).run();
    owner = database_->last_id();
  }
  const std::vector<std::uint8_t> bytes = to_bytes(face.embedding);
  database_
      ->query(
          "INSERT INTO template (person, image, sha256, face, x1, y1, x2, y2, score, enrolled, embedding) VALUES "
          "(?, ?, ?, ?, ?, ?, ?, ?, ?, iif(?10 = '', strftime('%Y-%m-%dT%H:%M:%SZ', 'now'), ?10), ?)")
      .bind(owner, face.image, face.sha256, face.face, face.box[0], face.box[1], face.box[2], face.box[3], face.score,
            face.enrolled, Blob{bytes.data(), bytes.size()})
      .run();
  return {Added::yes, database_->last_id(), {}};
}

std::vector<Person> GalleryStore::persons() {
  std::vector<Person> all;
  Query q = database_->query(
      "SELECT p.id, p.name, count(t.id) FROM person p LEFT JOIN template t ON t.person = p.id GROUP BY p.id ORDER BY "
      "p.id");
  while (q.step()) all.push_back({q.integer(0), q.text(1), q.integer(2)});
  return all;
}

void GalleryStore::each_template(const std::string* name, bool embeddings,
                                 const std::function<void(const Template&)>& visit) {
  const std::int64_t owner = name != nullptr ? known_person(*name) : 0;
  Query q = database_->query(
      "SELECT t.id, p.name, t.image, t.sha256, t.face, t.x1, t.y1, t.x2, t.y2, t.score, t.enrolled, "
      "CASE WHEN ? THEN t.embedding END FROM person p JOIN template t ON t.person = p.id "
      "WHERE ?2 = 0 OR p.id = ?2 ORDER BY p.id, t.id");
  q.bind(std::int64_t{embeddings}, owner);
  Template t;
  while (q.step()) {
    t.id = q.integer(0);
    t.name = q.text(1);
    t.image = q.text(2);
    t.sha256 = q.text(3);
    t.face = q.integer(4);
    for (int i = 0; i < 4; ++i) t.box[i] = q.real(5 + i);
    t.score = q.real(9);
    t.enrolled = q.text(10);
    t.embedding.resize(embeddings ? static_cast<std::size_t>(model_.embedding_dim) : 0);
    if (embeddings && !from_bytes(q.blob(11), t.embedding))
      refuse("template " + std::to_string(t.id) +
             " is damaged; put a copy of the gallery in its place, or remove the template");
    visit(t);
  }
}

void GalleryStore::each_embedding(
    const std::function<void(std::int64_t, std::int64_t, const std::string&, const float*)>& visit) {
  std::vector<float> embedding(static_cast<std::size_t>(model_.embedding_dim));
  Query q = database_->query("SELECT id, person, embedding, image FROM template");
  while (q.step()) {
    if (!from_bytes(q.blob(2), embedding))
      refuse("template " + std::to_string(q.integer(0)) +
             " is damaged; put a copy of the gallery in its place, or remove the template");
    visit(q.integer(0), q.integer(1), q.text(3), embedding.data());
  }
}

void GalleryStore::rename(const std::string& from, const std::string& to) {
  Transaction change(*database_);
  const std::int64_t id = known_person(from);
  if (from != to && person(to) != 0)
    refuse("somebody in it is called " + quoted(to) + " already; give another name, or remove that person first");
  database_->query("UPDATE person SET name = ? WHERE id = ?").bind(to, id).run();
  change.commit();
}

std::int64_t GalleryStore::remove(const std::vector<std::string>& names) {
  std::int64_t templates = 0;
  Transaction change(*database_);
  std::vector<std::int64_t> ids;
  for (const std::string& name : names) ids.push_back(known_person(name));
  for (const std::int64_t id : ids) {
    Query count = database_->query("SELECT count(*) FROM template WHERE person = ?");
    if (count.bind(id).step()) templates += count.integer(0);
    database_->query("DELETE FROM person WHERE id = ?").bind(id).run();  // its templates with it
  }
  change.commit();
  return templates;
}

std::vector<std::string> GalleryStore::remove(const std::vector<std::int64_t>& ids) {
  std::vector<std::string> gone;
  Transaction change(*database_);
  for (const std::int64_t id : ids) {
    Query owner = database_->query("SELECT person FROM template WHERE id = ?");
    if (!owner.bind(id).step())
      refuse("it has no template " + std::to_string(id) + "; 'facenet gallery show' lists them");
    const std::int64_t person = owner.integer(0);
    database_->query("DELETE FROM template WHERE id = ?").bind(id).run();
    Query bare = database_->query("SELECT name FROM person WHERE id = ? AND id NOT IN (SELECT person FROM template)");
    if (!bare.bind(person).step()) continue;
    gone.push_back(bare.text(0));
    database_->query("DELETE FROM person WHERE id = ?").bind(person).run();
  }
  change.commit();
  return gone;
}

void GalleryStore::erase_traces() {
  database_->vacuum();
  database_->erase_journal();
}

std::string GalleryStore::integrity() {
  Query q = database_->query("PRAGMA integrity_check(1)");
  const std::string found = q.step() ? q.text(0) : "nothing could be checked";
  if (found != "ok") return found;
  Query keys = database_->query("PRAGMA foreign_key_check");
  return keys.step() ? "a template without a person" : "ok";
}

void GalleryStore::refuse(const std::string& why) const { throw DatabaseError(path_ + ": " + why + "."); }

}  // namespace command
