#include "store/gallery_store.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

namespace command {

namespace {

constexpr std::int64_t application_id = 0x464e4554;  // "FNET"
constexpr std::int64_t schema_version = 1;

// Ids are never used twice (AUTOINCREMENT): what another program remembers as 7 is never another person.
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

// How many of these there are: a file of another make may hold a view or a computed column of the same name.
constexpr const char* columns = R"(
SELECT count(*) FROM sqlite_schema m JOIN pragma_table_xinfo(m.name) c
WHERE m.type = 'table' AND NOT c.hidden AND m.name || '.' || c.name || ' ' || c.type IN (
  'meta.model TEXT', 'meta.architecture TEXT', 'meta.embedding_dim INTEGER', 'meta.trained INTEGER',
  'meta.normalise TEXT', 'meta.image_size INTEGER', 'meta.crop TEXT', 'meta.margin REAL', 'meta.detector TEXT',
  'person.id INTEGER', 'person.name TEXT', 'template.id INTEGER', 'template.person INTEGER', 'template.image TEXT',
  'template.sha256 TEXT', 'template.face INTEGER', 'template.x1 REAL', 'template.y1 REAL', 'template.x2 REAL',
  'template.y2 REAL', 'template.score REAL', 'template.enrolled TEXT', 'template.embedding BLOB')
)";
constexpr std::int64_t column_count = 23;

std::string folder_of(const std::string& path) {
  const std::string folder = std::filesystem::path(path).parent_path().string();
  return folder.empty() ? "." : folder;
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

/// False when the bytes are not as many floats.
bool from_bytes(Blob blob, std::vector<float>& embedding) {
  if (blob.size != embedding.size() * 4) return false;
  const auto* bytes = static_cast<const std::uint8_t*>(blob.data);
  for (std::size_t i = 0; i < embedding.size(); ++i, bytes += 4) {
    const auto at = [&](int b) { return std::uint32_t{bytes[b]} << (8 * b); };
    const std::uint32_t bits = at(0) | at(1) | at(2) | at(3);
    std::memcpy(&embedding[i], &bits, 4);
  }
  return true;
}

constexpr float most_component = 1e15f;  // as facenet::Gallery's: squares stay finite

/// "", or what makes it no embedding. By bits: a compiler that assumes finite numbers must not drop the question.
std::string wrong_embedding(const GalleryModel& model, const std::vector<float>& embedding) {
  double sum = 0;
  for (const float value : embedding) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, 4);
    if ((bits & 0x7f800000u) == 0x7f800000u) return "its embedding holds a number that is not finite";
    // A search refuses the whole gallery that holds such a one.
    if (std::fabs(value) > most_component) return "its embedding holds a number over 1e15";
    sum += static_cast<double>(value) * static_cast<double>(value);
  }
  // Length 1 is what l2 says; half-precision files are off by 1e-3. Below 1e-10 the embedder refuses its own.
  if (std::sqrt(sum) >= (model.normalise == "l2" ? 1e-6 : 1e-10)) return {};
  return sum == 0 ? "its embedding is zero, which is no face's" : "its embedding is all but zero, which is no face's";
}

bool is_hex(const std::string& text, std::size_t digits) {
  return text.size() == digits && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

bool is_float(double value) { return std::isfinite(value) && std::fabs(value) <= static_cast<double>(FLT_MAX); }

/// Such as 2026-11-28T07:18:32Z.
bool is_time(const std::string& text) {
  constexpr const char* form = "dddd-dd-ddTdd:dd:ddZ";
  if (text.size() != std::strlen(form)) return false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool digit = text[i] >= '0' && text[i] <= '9';
    if (form[i] == 'd' ? !digit : text[i] != form[i]) return false;
  }
  const auto number = [&](std::size_t at, std::size_t count) { return std::stoi(text.substr(at, count)); };
  const int year = number(0, 4), month = number(5, 2), day = number(8, 2);
  const bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
  const int days = month == 2 ? 28 + leap : month == 4 || month == 6 || month == 9 || month == 11 ? 30 : 31;
  return month >= 1 && month <= 12 && day >= 1 && day <= days && number(11, 2) <= 23 && number(14, 2) <= 59 &&
         number(17, 2) <= 60;
}

/// "", or what is wrong with a line of text: it is UTF-8, of 1 to `most` bytes, without control characters.
std::string wrong_line(const std::string& text, std::size_t most) {
  if (text.empty()) return "is empty";
  if (text.size() > most) return "has more than " + std::to_string(most) + " bytes";
  if (as_utf8(text) != text) return "is not UTF-8";
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    const bool c1 = c == 0xc2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xa0;
    if (c < 0x20 || c == 0x7f || c1) return "holds a control character";
  }
  return {};
}

constexpr std::size_t most_in_line = 255;
constexpr std::int64_t most_int = std::numeric_limits<int>::max();

}  // namespace

std::string time_now() {
  const std::time_t seconds = std::time(nullptr);
  std::tm parts{};
  ::gmtime_r(&seconds, &parts);
  char text[32];
  return {text, std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts)};
}

std::string as_utf8(const std::string& text) {
  using Json = nlohmann::json;
  return Json::parse(Json(text).dump(-1, ' ', false, Json::error_handler_t::replace)).get<std::string>();
}

std::string wrong_name(const std::string& name) {
  const std::string wrong = wrong_line(name, most_in_line);
  return wrong.empty() ? wrong : "the name " + wrong;
}

std::string wrong_model(const GalleryModel& m) {
  if (!is_hex(m.digest, 16)) return "'model' is not 16 hex digits";
  const std::string wrong = wrong_line(m.architecture, most_in_line);
  if (!wrong.empty()) return "'architecture' " + wrong;
  if (m.embedding_dim < 1 || m.embedding_dim > most_dims) return "'embedding_dim' is not 1 to 65536";
  if (m.normalise != "l2" && m.normalise != "none") return "'normalise' is neither l2 nor none";
  if (m.crop != "box" && m.crop != "five_point") return "'crop' is neither box nor five_point";
  if (m.image_size < 1 || m.image_size > most_int) return "'image_size' is no number of pixels";
  if (!is_float(m.margin)) return "'margin' is no number";
  if (!m.detector.empty() && !is_hex(m.detector, 16)) return "'detector' is neither empty nor 16 hex digits";
  return {};
}

std::string wrong_template(const GalleryModel& model, const Template& t) {
  constexpr std::size_t most_image = 3 * 4096;  // a path, each byte of it as U+FFFD
  std::string wrong = wrong_name(t.name);
  if (!wrong.empty()) return wrong;
  // A file's name may hold any character but NUL. Whoever prints it escapes it.
  if (t.image.empty() || t.image.size() > most_image || t.image.find('\0') != std::string::npos ||
      as_utf8(t.image) != t.image)
    return "'image' is not the name of a file in UTF-8";
  if (!is_hex(t.sha256, 64)) return "'sha256' is not 64 hex digits";
  if (t.face < 0 || t.face > most_int) return "'face' is not the number of a face";
  if (!std::all_of(t.box, t.box + 4, is_float)) return "'box' holds what is no number";
  if (!is_float(t.score)) return "'score' is no number";
  if (!is_time(t.enrolled)) return "'enrolled' is not a time such as 2026-11-28T07:18:32Z";
  return t.embedding.empty() ? wrong : wrong_embedding(model, t.embedding);
}

GalleryStore::GalleryStore(const std::string& path, Access access) : path_(path), access_(access) {
  if (path == "-" || path.empty()) refuse("a gallery is a file; give its name");
  struct stat about {};
  const bool there = ::stat(path.c_str(), &about) == 0;
  if (!there && errno == ENOENT && access != Access::create)
    refuse("there is no such gallery; 'facenet enroll' makes one");
  // An empty file is what is left where the first change was killed, or a database without tables where its journal
  // was.
  if ((there || errno != ENOENT) && !(there && S_ISREG(about.st_mode) && about.st_size == 0)) {
    database_ = std::make_unique<Database>(path_, access);
    if (read_model()) return;
    database_.reset();
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

bool GalleryStore::read_model() {
  const ReadTransaction reading(*database_);
  const std::int64_t id = database_->number("PRAGMA application_id");
  if (id != application_id && (id != 0 || !database_->is_empty()))
    refuse("this is an SQLite database of another program; give the name of a gallery");
  if (database_->is_empty()) return false;
  const std::int64_t version = database_->number("PRAGMA user_version");
  if (version > schema_version)
    refuse("a newer facenet made this gallery (schema " + std::to_string(version) + ", this one knows " +
           std::to_string(schema_version) + "); use that one");
  if (database_->number(columns) != column_count)
    refuse("the gallery is damaged (its tables are not a gallery's); put a copy of it in its place");
  Query q = database_->query(
      "SELECT model, architecture, embedding_dim, trained, normalise, image_size, crop, margin, detector FROM meta");
  if (!q.step()) refuse("the gallery is damaged; put a copy of it in its place");
  model_ = {q.text(0),    q.text(1),    q.text(4), q.text(6),        q.text(8),
            q.integer(2), q.integer(5), q.real(7), q.integer(3) != 0};
  const std::string wrong = wrong_model(model_);
  if (!wrong.empty()) refuse("the gallery is damaged (" + wrong + "); put a copy of it in its place");
  return true;
}

void GalleryStore::detach() {
  database_->detach();
  access_ = Access::read;
  read_model();
}

void GalleryStore::create(const GalleryModel& m) {
  const std::string wrong = wrong_model(m);
  if (!wrong.empty()) refuse("a gallery of these embeddings cannot be made (" + wrong + "); check the weights");
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
  constexpr int most_tries = 100;
  for (int tries = 1;; ++tries) {
    const bool opened = !exists();
    if (opened) database_ = std::make_unique<Database>(path_, Access::create);
    try {
      Transaction change(*database_);
      // Looked at inside the transaction: another process may have made the gallery in the meantime.
      if (database_->is_empty()) create(model);
      if (model_.digest.empty()) read_model();
      require(model);
      for (Template face; next(face);) added(face, insert(face));
      change.commit();
      return;
    } catch (const FileMoved&) {
      // Two were making the gallery, and the other one took its empty file away again.
      if (!opened || tries == most_tries) throw;
      database_.reset();
    } catch (...) {
      if (opened) forget();
      throw;
    }
  }
}

void GalleryStore::forget() {
  database_->remove_if_empty();
  try {
    database_->erase_journal();
  } catch (const std::exception&) {
  }
  database_.reset();
  model_ = {};
}

GalleryStore::Addition GalleryStore::insert(const Template& face) {
  if (face.enrolled.empty()) {
    Template dated = face;
    dated.enrolled = time_now();
    return insert(dated);
  }
  const std::string wrong = face.embedding.size() != static_cast<std::size_t>(model_.embedding_dim)
                                ? "its embedding has another length"
                                : wrong_template(model_, face);
  if (!wrong.empty())
    refuse("a template of " + quoted(face.name) + " was not added: " + wrong + "; nothing was changed");
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
          "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
      .bind(owner, face.image, face.sha256, face.face, face.box[0], face.box[1], face.box[2], face.box[3], face.score,
            face.enrolled, Blob{bytes.data(), bytes.size()})
      .run();
  return {Added::yes, database_->last_id(), {}};
}

std::vector<Person> GalleryStore::persons() {
  const ReadTransaction reading(*database_);
  std::vector<Person> all;
  Query q = database_->query(
      "SELECT p.id, p.name, count(t.id) FROM person p LEFT JOIN template t ON t.person = p.id GROUP BY p.id ORDER BY "
      "p.id");
  while (q.step()) {
    all.push_back({q.integer(0), q.text(1), q.integer(2)});
    const std::string wrong = wrong_name(all.back().name);
    if (!wrong.empty() || all.back().id < 1)
      refuse("person " + std::to_string(all.back().id) + " is damaged (" + (wrong.empty() ? "a bad number" : wrong) +
             "); put a copy of the gallery in its place");
  }
  return all;
}

std::vector<Template> GalleryStore::templates_of(const std::vector<std::string>& names) {
  const ReadTransaction reading(*database_);
  std::vector<Template> all;
  for (const std::string& name : names)
    read_templates(known_person(name), false, [&](const Template& t) { return all.push_back(t), true; });
  return all;
}

void GalleryStore::each_template(const std::function<bool(const Template&)>& visit) {
  const ReadTransaction reading(*database_);
  persons();  // for what is wrong with them
  read_templates(0, true, visit);
}

void GalleryStore::read_templates(std::int64_t person, bool embeddings,
                                  const std::function<bool(const Template&)>& visit) {
  Query q = database_->query(
      "SELECT t.id, p.name, t.image, t.sha256, t.face, t.x1, t.y1, t.x2, t.y2, t.score, t.enrolled, "
      "CASE WHEN ? THEN t.embedding END FROM template t LEFT JOIN person p ON p.id = t.person "
      "WHERE t.person BETWEEN ? AND ? ORDER BY t.person, t.id");
  using Id = std::numeric_limits<std::int64_t>;
  q.bind(std::int64_t{embeddings}, person != 0 ? person : Id::min(), person != 0 ? person : Id::max());
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
    if (t.id < 1 || q.is_null(1)) refuse_template(t.id, "it is nobody's");
    if (embeddings && !from_bytes(q.blob(11), t.embedding)) refuse_template(t.id, "its embedding has another length");
    const std::string wrong = wrong_template(model_, t);
    if (!wrong.empty()) refuse_template(t.id, wrong);
    if (!visit(t)) return;
  }
}

void GalleryStore::each_embedding(
    const std::function<void(std::int64_t, std::int64_t, const std::string&, const float*)>& visit) {
  const ReadTransaction reading(*database_);
  std::vector<float> embedding(static_cast<std::size_t>(model_.embedding_dim));
  Query q = database_->query(
      "SELECT t.id, t.person, t.embedding, t.image, p.id FROM template t LEFT JOIN person p ON p.id = t.person");
  while (q.step()) {
    const std::int64_t id = q.integer(0);
    if (id < 1 || q.is_null(4)) refuse_template(id, "it is nobody's");
    if (!from_bytes(q.blob(2), embedding)) refuse_template(id, "its embedding has another length");
    const std::string wrong = wrong_embedding(model_, embedding);
    if (!wrong.empty()) refuse_template(id, wrong);
    visit(id, q.integer(1), q.text(3), embedding.data());
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

void GalleryStore::vacuum() {
  database_->vacuum();
  database_->erase_journal();
}

void GalleryStore::erase_traces() {
  try {
    vacuum();
  } catch (const std::exception&) {  // its sentence might say that the change was not made
    throw TracesLeft(path_ +
                     ": the change was made, but traces of what was there may be left in the file; run 'facenet "
                     "gallery vacuum' on it, which says why.");
  }
}

std::string GalleryStore::integrity() {
  const ReadTransaction reading(*database_);
  Query q = database_->query("PRAGMA integrity_check(1)");
  const std::string found = q.step() ? q.text(0) : "nothing could be checked";
  if (found != "ok") return found;
  Query keys = database_->query("PRAGMA foreign_key_check");
  return keys.step() ? "a template without a person" : "ok";
}

std::string GalleryStore::soundness() {
  const std::string found = integrity();
  if (found != "ok") return found;
  const ReadTransaction reading(*database_);
  std::vector<float> embedding(static_cast<std::size_t>(model_.embedding_dim));
  Query q = database_->query("SELECT id, embedding FROM template");
  while (q.step()) {
    const std::string wrong =
        from_bytes(q.blob(1), embedding) ? wrong_embedding(model_, embedding) : "its embedding has another length";
    if (!wrong.empty()) return "template " + std::to_string(q.integer(0)) + ": " + wrong;
  }
  return "ok";
}

void GalleryStore::refuse(const std::string& why) const { throw DatabaseError(path_ + ": " + why + "."); }

void GalleryStore::refuse_template(std::int64_t id, const std::string& why) const {
  refuse("template " + std::to_string(id) + " is damaged (" + why +
         "); put a copy of the gallery in its place, or remove the template");
}

}  // namespace command
