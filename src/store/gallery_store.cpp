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
#include <unordered_set>

#include "store/gallery_schema.hpp"
#include "store/row_functions.hpp"

namespace command {

namespace {

// 3 templates of 512 dimensions a page, 2.8 KB each; with SQLite's own 4096 a page held one, and loading took twice as
// long. A new gallery has 16 pages.
constexpr const char* set_page_size = "PRAGMA page_size = 8192";

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
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
  std::memcpy(embedding.data(), blob.data, blob.size);
#else
  const auto* bytes = static_cast<const std::uint8_t*>(blob.data);
  for (std::size_t i = 0; i < embedding.size(); ++i, bytes += 4) {
    const auto at = [&](int b) { return std::uint32_t{bytes[b]} << (8 * b); };
    const std::uint32_t bits = at(0) | at(1) | at(2) | at(3);
    std::memcpy(&embedding[i], &bits, 4);
  }
#endif
  return true;
}

constexpr float most_component = 1e15f;  // as facenet::Gallery's: squares stay finite

/// "", or what makes it no embedding. By bits: a compiler that assumes finite numbers must not drop the question.
std::string wrong_embedding(const GalleryModel& model, const std::vector<float>& embedding) {
  double sum = 0, other = 0;  // two sums: one would wait for each addition
  std::uint32_t most = 0, limit;
  std::memcpy(&limit, &most_component, sizeof limit);
  const auto look = [&](float value, double& into) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, 4);
    most = std::max(most, bits & 0x7fffffffu);
    into += static_cast<double>(value) * static_cast<double>(value);
  };
  std::size_t i = 0;
  for (; i + 2 <= embedding.size(); i += 2) look(embedding[i], sum), look(embedding[i + 1], other);
  if (i < embedding.size()) look(embedding[i], sum);
  sum += other;
  if (most >= 0x7f800000u) return "its embedding holds a number that is not finite";
  // A search refuses the whole gallery that holds such a one.
  if (most > limit) return "its embedding holds a number over 1e15";
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

/// Such as 0b7cbb26-5cdb-4e8e-a1d4-2a1c9d2f9f41.
bool is_uuid(const std::string& text) {
  constexpr const char* form = "hhhhhhhh-hhhh-hhhh-hhhh-hhhhhhhhhhhh";
  if (text.size() != std::strlen(form)) return false;
  for (std::size_t i = 0; i < text.size(); ++i)
    if (form[i] == 'h' ? !is_hex(text.substr(i, 1), 1) : text[i] != '-') return false;
  return true;
}

constexpr const char* unfit = "it does not fit its checksum";
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
  if (!t.uuid.empty() && !is_uuid(t.uuid)) return "'uuid' is not 32 lower-case hex digits in groups of 8-4-4-4-12";
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
    open();
    if (read_model()) {
      if (schema_ == 1 && access != Access::read) migrate();
      return;
    }
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

void GalleryStore::open() {
  database_ = std::make_unique<Database>(path_, access_);
  // Of a file that has tables VACUUM changes it.
  if (access_ != Access::read) database_->execute(set_page_size);
}

bool GalleryStore::read_model() {
  const ReadTransaction reading(*database_);
  const std::int64_t id = database_->number("PRAGMA application_id");
  if (id != gallery_application_id && (id != 0 || !database_->is_empty()))
    refuse("this is an SQLite database of another program; give the name of a gallery");
  if (database_->is_empty()) return false;
  schema_ = database_->number("PRAGMA user_version");
  if (schema_ > gallery_schema_version)
    refuse("a newer facenet made this gallery (schema " + std::to_string(schema_) + ", this one knows " +
           std::to_string(gallery_schema_version) + "); use that one");
  if (schema_ < 1)
    refuse("this gallery does not say which schema it has (its user_version is " + std::to_string(schema_) +
           "), so it was not made by facenet or is damaged; put a copy of it in its place");
  if (!has_gallery_tables(*database_, schema_))
    refuse("the gallery is damaged (its tables are not a gallery's); put a copy of it in its place");
  Query q = database_->query(
      ("SELECT model, architecture, embedding_dim, trained, normalise, image_size, crop, margin, detector, " +
       sound("meta") + " FROM meta")
          .c_str());
  if (!q.step()) refuse("the gallery is damaged; put a copy of it in its place");
  model_ = {q.text(0),    q.text(1),    q.text(4), q.text(6),        q.text(8),
            q.integer(2), q.integer(5), q.real(7), q.integer(3) != 0};
  std::string wrong = wrong_model(model_);
  if (wrong.empty() && q.integer(9) == 0) wrong = "what it says of its model does not fit its checksum";
  if (!wrong.empty()) refuse("the gallery is damaged (" + wrong + "); put a copy of it in its place");
  return true;
}

void GalleryStore::migrate() {
  Transaction change(*database_);
  read_model();  // another process may have done it
  if (schema_ == 1) {
    migrate_gallery_from_1(*database_);
    read_model();
  }
  change.commit();
}

std::string GalleryStore::sound(const std::string& table) const {
  return schema_ == 1 ? "1" : "(" + table + ".checksum IS NULL OR " + table + ".checksum = " + checksum_of(table) + ")";
}

void GalleryStore::detach() {
  database_->detach();
  access_ = Access::read;
  read_model();
}

void GalleryStore::create(const GalleryModel& m) {
  const std::string wrong = wrong_model(m);
  if (!wrong.empty()) refuse("a gallery of these embeddings cannot be made (" + wrong + "); check the weights");
  create_gallery_tables(*database_);
  database_
      ->query(
          "INSERT INTO meta VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, row_checksum(1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, "
          "?8, ?9))")
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

std::int64_t GalleryStore::template_with(const std::string& uuid) {
  if (schema_ == 1) return 0;
  Query q = database_->query("SELECT id FROM template WHERE uuid = ?");
  return q.bind(uuid).step() ? q.integer(0) : 0;
}

void GalleryStore::require_sound(const std::string& table, std::int64_t id) {
  Query q = database_->query(("SELECT " + sound(table) + " FROM " + table + " WHERE id = ?").c_str());
  if (q.bind(id).step()) require_fit(q.integer(0), table, id);
}

void GalleryStore::require_fit(std::int64_t fits, const std::string& row, std::int64_t id) const {
  if (fits == 0)
    refuse(row + " " + std::to_string(id) + " is damaged (" + unfit +
           "); put a copy of the gallery in its place, or run 'facenet gallery repair'");
}

std::string GalleryStore::wrong_stored_embedding(Blob blob, std::vector<float>& embedding) const {
  return from_bytes(blob, embedding) ? wrong_embedding(model_, embedding) : "its embedding has another length";
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
                           const std::function<void(const Template&, const Addition&)>& added,
                           const std::vector<std::string>& persons) {
  change_or_make(model, [&] {
    for (const std::string& name : persons)
      if (person(name) == 0) insert_person(name);
    for (Template face; next(face);) added(face, insert(face));
  });
}

bool GalleryStore::add_person(const GalleryModel& model, const std::string& name) {
  const std::string wrong = wrong_name(name);
  if (!wrong.empty()) refuse("a person was not added: " + wrong + "; nothing was changed");
  bool added = false;
  change_or_make(model, [&] {
    added = person(name) == 0;
    if (added) insert_person(name);
  });
  return added;
}

std::string GalleryStore::add_unnamed_person(const GalleryModel& model) {
  std::string name;
  change_or_make(model, [&] { name = insert_person(""); });
  return name;
}

void GalleryStore::change_or_make(const GalleryModel& model, const std::function<void()>& change) {
  constexpr int most_tries = 100;
  for (int tries = 1;; ++tries) {
    const bool opened = !exists();
    if (opened) open();
    try {
      Transaction whole(*database_);
      // Looked at inside the transaction: another process may have made the gallery in the meantime.
      if (database_->is_empty()) create(model);
      if (model_.digest.empty()) {
        read_model();
        if (schema_ == 1) migrate_gallery_from_1(*database_), read_model();
      }
      require(model);
      change();
      whole.commit();
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
  if (const std::int64_t id = find(face.name, face.sha256)) {
    Query known = database_->query("SELECT uuid FROM template WHERE id = ?");
    return {Added::there, id, {}, known.bind(id).step() ? known.text(0) : ""};
  }
  Query same = database_->query(
      "SELECT p.name FROM template t JOIN person p ON p.id = t.person "
      "WHERE t.sha256 = ? AND t.x1 = ? AND t.y1 = ? AND t.x2 = ? AND t.y2 = ?");
  if (same.bind(face.sha256, face.box[0], face.box[1], face.box[2], face.box[3]).step())
    return {Added::another_person, 0, same.text(0)};
  if (person(face.name) == 0) insert_person(face.name);
  const std::int64_t id = insert_row(face, person(face.name));
  Query made = database_->query("SELECT uuid FROM template WHERE id = ?");
  return {Added::yes, id, {}, made.bind(id).step() ? made.text(0) : ""};
}

std::int64_t GalleryStore::insert_row(const Template& face, std::int64_t owner) {
  const std::int64_t id = next_id("template");
  const std::vector<std::uint8_t> bytes = to_bytes(face.embedding);
  std::string uuid = face.uuid;
  if (uuid.empty() || template_with(uuid) != 0) uuid = new_uuid();
  database_
      ->query(
          "INSERT INTO template (id, uuid, person, image, sha256, face, x1, y1, x2, y2, score, enrolled, embedding, "
          "checksum) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, "
          "row_checksum(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13))")
      .bind(id, uuid, owner, face.image, face.sha256, face.face, face.box[0], face.box[1], face.box[2], face.box[3],
            face.score, face.enrolled, Blob{bytes.data(), bytes.size()})
      .run();
  if (!face.picture.empty())
    database_->query("INSERT INTO picture (template, bytes, checksum) VALUES (?1, ?2, row_checksum(?1, ?2))")
        .bind(id, Blob{face.picture.data(), face.picture.size()})
        .run();
  return id;
}

void GalleryStore::renew_row(std::int64_t id, const Template& face) {
  const std::vector<std::uint8_t> bytes = to_bytes(face.embedding);
  database_
      ->query(
          "UPDATE template SET image = ?2, sha256 = ?3, face = ?4, x1 = ?5, y1 = ?6, x2 = ?7, y2 = ?8, score = ?9, "
          "embedding = ?10, checksum = row_checksum(id, uuid, person, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, enrolled, ?10) "
          "WHERE id = ?1")
      .bind(id, face.image, face.sha256, face.face, face.box[0], face.box[1], face.box[2], face.box[3], face.score,
            Blob{bytes.data(), bytes.size()})
      .run();
}

/// The one that AUTOINCREMENT would take, known before the row is, for its checksum.
std::int64_t GalleryStore::next_id(const std::string& table) {
  return database_->number(("SELECT 1 + max((SELECT coalesce(max(id), 0) FROM " + table +
                            "), (SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = '" + table + "'))")
                               .c_str());
}

std::string GalleryStore::insert_person(const std::string& given) {
  const std::int64_t id = next_id("person");
  const std::string name = given.empty() ? "person " + std::to_string(id) : given;
  if (given.empty() && person(name) != 0) refuse("somebody was given the name " + quoted(name) + "; choose another");
  database_->query("INSERT INTO person (id, name, named, checksum) VALUES (?1, ?2, ?3, row_checksum(?1, ?2, ?3))")
      .bind(id, name, std::int64_t{!given.empty()})
      .run();
  return name;
}

std::vector<Person> GalleryStore::persons() {
  const ReadTransaction reading(*database_);
  std::vector<Person> all;
  Query q = database_->query(
      ("SELECT person.id, name, count(template.id), " + std::string(schema_ == 1 ? "1" : "named") + ", " +
       sound("person") +
       " FROM person LEFT JOIN template ON template.person = person.id GROUP BY person.id ORDER BY person.id")
          .c_str());
  while (q.step()) {
    all.push_back({q.integer(0), q.text(1), q.integer(2), q.integer(3) != 0});
    std::string wrong = wrong_name(all.back().name);
    if (wrong.empty() && all.back().id < 1) wrong = "a bad number";
    if (wrong.empty() && q.integer(4) == 0) wrong = unfit;
    if (!wrong.empty())
      refuse("person " + std::to_string(all.back().id) + " is damaged (" + wrong +
             "); put a copy of the gallery in its place");
  }
  return all;
}

std::vector<Template> GalleryStore::templates_of(const std::vector<std::string>& names) {
  const ReadTransaction reading(*database_);
  std::vector<Template> all;
  for (const std::string& name : names)
    read_templates("template.person = ?1 AND ?2 = 0 ORDER BY template.id", known_person(name), 0, false,
                   [&](const Template& t) { return all.push_back(t), true; });
  return all;
}

GalleryStore::Page GalleryStore::templates(std::int64_t offset, std::int64_t count,
                                           const std::optional<std::string>& name) {
  const ReadTransaction reading(*database_);
  const std::int64_t owner = name ? known_person(*name) : 0;
  const std::string of = name ? " WHERE person = " + std::to_string(owner) : "";
  Page page;
  page.total = database_->number(("SELECT count(*) FROM template" + of).c_str());
  // The ids from an index alone, whose entries are a thirtieth of the rows.
  read_templates("template.id IN (SELECT id FROM template" + of +
                     " ORDER BY person, sha256, face LIMIT ?1 OFFSET ?2) ORDER BY template.person, sha256, face",
                 std::max<std::int64_t>(count, 0), std::max<std::int64_t>(offset, 0), false,
                 [&](const Template& t) { return page.templates.push_back(t), true; });
  return page;
}

std::optional<Template> GalleryStore::find_template(const std::string& uuid) {
  if (!exists()) return {};
  const ReadTransaction reading(*database_);
  std::optional<Template> found;
  if (const std::int64_t id = template_with(uuid))
    read_templates("template.id = ?1 AND ?2 = 0", id, 0, true, [&](const Template& t) { return found = t, true; });
  return found;
}

std::vector<std::uint8_t> GalleryStore::picture(const std::string& uuid) {
  const ReadTransaction reading(*database_);
  const std::int64_t id = template_with(uuid);
  if (id == 0 || schema_ == 1) return {};
  Query q = database_->query(("SELECT bytes, " + sound("picture") + " FROM picture WHERE template = ?").c_str());
  if (!q.bind(id).step()) return {};
  require_fit(q.integer(1), "the picture of template", id);
  const Blob blob = q.blob(0);
  const auto* bytes = static_cast<const std::uint8_t*>(blob.data);
  return {bytes, bytes + blob.size};
}

void GalleryStore::each_template(const std::function<bool(const Template&)>& visit) {
  const ReadTransaction reading(*database_);
  persons();  // for what is wrong with them
  read_templates("?1 = ?2 ORDER BY template.person, template.id", 0, 0, true, visit);
}

void GalleryStore::read_templates(const std::string& which, std::int64_t first, std::int64_t second, bool embeddings,
                                  const std::function<bool(const Template&)>& visit) {
  Query q = database_->query(
      ("SELECT template.id, person.name, image, sha256, face, x1, y1, x2, y2, score, enrolled, embedding, " +
       std::string(schema_ == 1 ? "''" : "uuid") + ", " + sound("template") +
       " FROM template LEFT JOIN person ON person.id = template.person WHERE " + which)
          .c_str());
  q.bind(first, second);
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
    t.uuid = q.text(12);
    t.embedding.resize(static_cast<std::size_t>(model_.embedding_dim));
    if (t.id < 1 || q.is_null(1)) refuse_template(t.id, "it is nobody's");
    if (embeddings && !from_bytes(q.blob(11), t.embedding)) refuse_template(t.id, "its embedding has another length");
    if (!embeddings) t.embedding.clear();
    const std::string wrong = wrong_template(model_, t);
    if (!wrong.empty()) refuse_template(t.id, wrong);
    if (q.integer(13) == 0) refuse_template(t.id, unfit);
    if (!visit(t)) return;
  }
}

void GalleryStore::each_embedding(
    const std::function<void(std::int64_t, std::int64_t, const std::string&, const float*)>& visit) {
  const ReadTransaction reading(*database_);
  std::unordered_set<std::int64_t> known;
  for (Query q = database_->query("SELECT id FROM person"); q.step();) known.insert(q.integer(0));
  std::vector<float> embedding(static_cast<std::size_t>(model_.embedding_dim));
  Query q = database_->query("SELECT id, person, embedding, image FROM template");
  while (q.step()) {
    const std::int64_t id = q.integer(0);
    if (id < 1 || known.count(q.integer(1)) == 0) refuse_template(id, "it is nobody's");
    if (!from_bytes(q.blob(2), embedding)) refuse_template(id, "its embedding has another length");
    const std::string wrong = wrong_embedding(model_, embedding);
    if (!wrong.empty()) refuse_template(id, wrong);
    visit(id, q.integer(1), q.text(3), embedding.data());
  }
}

std::vector<std::string> GalleryStore::change_model(
    const GalleryModel& model, const std::function<bool(const std::string&, std::vector<float>&)>& embedding,
    const std::vector<std::string>& dropped) {
  const std::string wrong_new = wrong_model(model);
  if (!wrong_new.empty()) refuse("a gallery of these embeddings cannot be made (" + wrong_new + "); check the weights");
  Transaction change(*database_);
  Query drop = database_->query("DELETE FROM template WHERE uuid = ?");
  for (const std::string& uuid : dropped) drop.bind(uuid).run();
  std::vector<std::pair<std::int64_t, std::string>> all;
  Query rows = database_->query(("SELECT id, uuid, " + sound("template") + " FROM template").c_str());
  while (rows.step()) {
    require_fit(rows.integer(2), "template", rows.integer(0));
    all.emplace_back(rows.integer(0), rows.text(1));
  }
  std::vector<std::string> left;
  std::vector<float> e;
  Query set = database_->query(
      "UPDATE template SET embedding = ?2, checksum = row_checksum(id, uuid, person, image, sha256, face, x1, y1, x2, "
      "y2, "
      "score, enrolled, ?2) WHERE id = ?1");
  for (const auto& [id, uuid] : all) {
    if (!embedding(uuid, e) || e.size() != static_cast<std::size_t>(model.embedding_dim)) {
      left.push_back(uuid);
      continue;
    }
    const std::string wrong = wrong_embedding(model, e);
    if (!wrong.empty()) refuse_template(id, wrong);
    const std::vector<std::uint8_t> bytes = to_bytes(e);
    set.bind(id, Blob{bytes.data(), bytes.size()}).run();
  }
  if (!left.empty()) return left;  // rolled back
  database_->execute("DELETE FROM person WHERE named = 0 AND id NOT IN (SELECT person FROM template)");
  database_
      ->query(
          "UPDATE meta SET model = ?1, architecture = ?2, embedding_dim = ?3, trained = ?4, normalise = ?5, image_size "
          "= "
          "?6, crop = ?7, margin = ?8, detector = ?9, checksum = row_checksum(1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")
      .bind(model.digest, model.architecture, model.embedding_dim, std::int64_t{model.trained}, model.normalise,
            model.image_size, model.crop, model.margin, model.detector)
      .run();
  change.commit();
  model_ = model;
  return {};
}

std::int64_t GalleryStore::version() {
  return database_->number("PRAGMA data_version") << 32 | (database_->changes() & 0xffffffff);
}

void GalleryStore::rename(const std::string& from, const std::string& to) {
  Transaction change(*database_);
  const std::int64_t id = known_person(from);
  if (from != to && person(to) != 0)
    refuse("somebody in it is called " + quoted(to) + " already; give another name, or merge the two persons");
  require_sound("person", id);
  database_->query("UPDATE person SET name = ?2, named = 1, checksum = row_checksum(id, ?2, 1) WHERE id = ?1")
      .bind(id, to)
      .run();
  change.commit();
}

GalleryStore::Merged GalleryStore::merge(const std::string& from, const std::string& to) {
  if (from == to) refuse(quoted(to) + " cannot be merged with itself; give two names");
  Transaction change(*database_);
  const std::int64_t source = known_person(from), target = known_person(to);
  Merged merged;
  const auto count = [&](const char* sql) {
    Query q = database_->query(sql);
    q.bind(source, target).run();
    return database_->changed();
  };
  merged.dropped =
      count("DELETE FROM template WHERE person = ?1 AND sha256 IN (SELECT sha256 FROM template WHERE person = ?2)");
  // A new checksum must not hide that a row is damaged.
  std::vector<std::int64_t> ids;
  Query moving = database_->query("SELECT id FROM template WHERE person = ?");
  for (moving.bind(source); moving.step();) ids.push_back(moving.integer(0));
  for (const std::int64_t id : ids) require_sound("template", id);
  merged.moved = count(
      "UPDATE template SET person = ?2, checksum = row_checksum(id, uuid, ?2, image, sha256, face, x1, y1, x2, y2, "
      "score, enrolled, embedding) WHERE person = ?1");
  // What was said of the one holds for both, unless it contradicts that they are one.
  count(
      "UPDATE OR IGNORE decision SET person = ?2, checksum = row_checksum(id, template, ?2, verdict, decided) "
      "WHERE person = ?1");
  count(
      "DELETE FROM decision WHERE person = ?2 AND verdict = 'is not' AND template IN "
      "(SELECT id FROM template WHERE person = ?2) AND ?1 = ?1");
  count("DELETE FROM person WHERE id = ?1 AND ?2 = ?2");
  change.commit();
  return merged;
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

std::vector<Template> GalleryStore::remove_templates(const std::vector<std::string>& uuids) {
  std::vector<Template> gone;
  Transaction change(*database_);
  for (const std::string& uuid : uuids) {
    Query q = database_->query(
        "SELECT template.id, name FROM template JOIN person ON person.id = template.person WHERE uuid = ?");
    if (!q.bind(uuid).step()) continue;
    Template t;
    t.id = q.integer(0);
    t.uuid = uuid;
    t.name = q.text(1);
    database_->query("DELETE FROM template WHERE id = ?").bind(t.id).run();
    gone.push_back(t);
  }
  change.commit();
  return gone;
}

std::int64_t GalleryStore::remove_templates_of(const std::optional<std::string>& name) {
  Transaction change(*database_);
  if (name) {
    database_->query("DELETE FROM template WHERE person = ?").bind(known_person(*name)).run();
  } else {
    database_->execute("DELETE FROM template");
  }
  const std::int64_t gone = database_->changed();
  change.commit();
  return gone;
}

std::int64_t GalleryStore::remove_all() {
  Transaction change(*database_);
  database_->execute("DELETE FROM template; DELETE FROM person");
  const std::int64_t gone = database_->changed();
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
  const std::vector<Damage> found = check();
  if (found.empty()) return "ok";
  const Damage& first = found[0];
  return (first.table.empty() ? "" : first.table + " " + std::to_string(first.id) + ": ") + first.what;
}

void GalleryStore::refuse(const std::string& why) const { throw DatabaseError(path_ + ": " + why + "."); }

void GalleryStore::refuse_template(std::int64_t id, const std::string& why) const {
  refuse("template " + std::to_string(id) + " is damaged (" + why +
         "); put a copy of the gallery in its place, or remove the template");
}

}  // namespace command
