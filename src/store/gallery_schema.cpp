#include "store/gallery_schema.hpp"

namespace command {

namespace {

// Ids are never used twice (AUTOINCREMENT): what another program remembers as 7 is never another person. The default of
// uuid is for other programs; ours are drawn by new_uuid().
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
  detector TEXT NOT NULL,
  checksum INTEGER
) STRICT;
CREATE TABLE person (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL UNIQUE CHECK (name <> ''),
  named INTEGER NOT NULL DEFAULT 1 CHECK (named IN (0, 1)),
  checksum INTEGER
) STRICT;
CREATE TABLE template (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  uuid TEXT NOT NULL UNIQUE CHECK (length(uuid) = 36) DEFAULT (lower(
    hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2) ||
    '-' || substr('89AB', 1 + (random() & 3), 1) || substr(hex(randomblob(2)), 2) || '-' ||
    hex(randomblob(6)))),
  person INTEGER NOT NULL REFERENCES person ON DELETE CASCADE,
  image TEXT NOT NULL,
  sha256 TEXT NOT NULL CHECK (length(sha256) = 64),
  face INTEGER NOT NULL,
  x1 REAL NOT NULL, y1 REAL NOT NULL, x2 REAL NOT NULL, y2 REAL NOT NULL,
  score REAL NOT NULL,
  enrolled TEXT NOT NULL,
  checksum INTEGER,
  embedding BLOB NOT NULL,
  UNIQUE (person, sha256, face)
) STRICT;
CREATE INDEX template_sha256 ON template (sha256);
CREATE TABLE picture (
  template INTEGER PRIMARY KEY REFERENCES template ON DELETE CASCADE,
  checksum INTEGER,
  bytes BLOB NOT NULL
) STRICT;
CREATE TABLE decision (
  id INTEGER PRIMARY KEY,
  template INTEGER NOT NULL REFERENCES template ON DELETE CASCADE,
  person INTEGER NOT NULL REFERENCES person ON DELETE CASCADE,
  verdict TEXT NOT NULL CHECK (verdict IN ('is', 'is not')),
  decided TEXT NOT NULL,
  checksum INTEGER,
  UNIQUE (template, person)
) STRICT;
CREATE INDEX decision_person ON decision (person);
CREATE TABLE file (
  id INTEGER PRIMARY KEY,
  path BLOB NOT NULL UNIQUE CHECK (length(path) > 0),
  sha256 TEXT NOT NULL CHECK (length(sha256) IN (0, 64)),
  bytes INTEGER NOT NULL,
  modified INTEGER NOT NULL,
  settings TEXT NOT NULL,
  faces INTEGER NOT NULL,
  problem TEXT NOT NULL,
  looked TEXT NOT NULL,
  checksum INTEGER
) STRICT;
CREATE INDEX file_sha256 ON file (sha256);
)";

constexpr const char* columns_of_1 =
    "'meta.model TEXT', 'meta.architecture TEXT', 'meta.embedding_dim INTEGER', 'meta.trained INTEGER', "
    "'meta.normalise TEXT', 'meta.image_size INTEGER', 'meta.crop TEXT', 'meta.margin REAL', 'meta.detector TEXT', "
    "'person.id INTEGER', 'person.name TEXT', 'template.id INTEGER', 'template.person INTEGER', "
    "'template.image TEXT', 'template.sha256 TEXT', 'template.face INTEGER', 'template.x1 REAL', 'template.y1 REAL', "
    "'template.x2 REAL', 'template.y2 REAL', 'template.score REAL', 'template.enrolled TEXT', "
    "'template.embedding BLOB'";
constexpr std::int64_t count_of_1 = 23;

constexpr const char* columns_of_2 =
    "'meta.checksum INTEGER', 'person.named INTEGER', 'person.checksum INTEGER', 'template.uuid TEXT', "
    "'template.checksum INTEGER', 'picture.template INTEGER', 'picture.checksum INTEGER', 'picture.bytes BLOB', "
    "'decision.id INTEGER', 'decision.template INTEGER', 'decision.person INTEGER', 'decision.verdict TEXT', "
    "'decision.decided TEXT', 'decision.checksum INTEGER', 'file.id INTEGER', 'file.path BLOB', 'file.sha256 TEXT', "
    "'file.bytes INTEGER', 'file.modified INTEGER', 'file.settings TEXT', 'file.faces INTEGER', 'file.problem TEXT', "
    "'file.looked TEXT', 'file.checksum INTEGER'";
constexpr std::int64_t count_of_2 = 24;

void set_version(Database& database) {
  database.execute(("PRAGMA application_id = " + std::to_string(gallery_application_id)).c_str());
  database.execute(("PRAGMA user_version = " + std::to_string(gallery_schema_version)).c_str());
}

}  // namespace

std::string checksum_of(const std::string& table) {
  std::string columns;
  for (const GalleryTable& t : gallery_tables)
    if (table == t.name) columns = t.columns;
  for (std::size_t at = 0; at != std::string::npos; at = columns.find(", ", at)) {
    if (at != 0) at += 2;
    columns.insert(at, table + ".");
  }
  return "row_checksum(" + columns + ")";
}

void create_gallery_tables(Database& database) {
  database.execute(schema);
  set_version(database);
}

bool has_gallery_tables(Database& database, std::int64_t version) {
  const std::string wanted = std::string(columns_of_1) + (version == 1 ? "" : std::string(", ") + columns_of_2);
  const std::string count =
      "SELECT count(*) FROM sqlite_schema m JOIN pragma_table_xinfo(m.name) c WHERE m.type = 'table' AND NOT c.hidden "
      "AND m.name || '.' || c.name || ' ' || c.type IN (" +
      wanted + ")";
  return database.number(count.c_str()) == count_of_1 + (version == 1 ? 0 : count_of_2);
}

std::vector<std::string> changed_definitions(Database& database) {
  std::vector<std::string> changed;
  const std::string all = schema;
  for (std::size_t from = all.find("CREATE"), end; from != std::string::npos; from = all.find("CREATE", end)) {
    end = all.find(";\n", from);
    const std::string statement = all.substr(from, end - from);
    Query q = database.query("SELECT 1 FROM sqlite_schema WHERE sql = ?");
    const std::size_t name = statement.find(' ', statement.find(' ') + 1) + 1;
    if (!q.bind(statement).step()) changed.push_back(statement.substr(name, statement.find(' ', name) - name));
  }
  return changed;
}

void migrate_gallery_from_1(Database& database) {
  // The new tables get their names at once, so that their text in the file is the same as a new gallery's. The old
  // template goes first: a person's removal would take its templates along.
  database.execute(
      "DROP INDEX IF EXISTS template_sha256;"
      "ALTER TABLE meta RENAME TO old_meta;"
      "ALTER TABLE person RENAME TO old_person;"
      "ALTER TABLE template RENAME TO old_template;");
  database.execute(schema);
  database.execute(
      "INSERT INTO sqlite_sequence (name, seq) SELECT substr(name, 5), seq FROM sqlite_sequence "
      "WHERE name IN ('old_person', 'old_template');"
      "INSERT INTO meta (id, model, architecture, embedding_dim, trained, normalise, image_size, crop, margin, "
      "detector) SELECT id, model, architecture, embedding_dim, trained, normalise, image_size, crop, margin, detector "
      "FROM old_meta;"
      "INSERT INTO person (id, name) SELECT id, name FROM old_person;"
      // MATERIALIZED: the column and the checksum get the same UUID.
      "WITH drawn AS MATERIALIZED (SELECT id, new_uuid() AS uuid FROM old_template) "
      "INSERT INTO template (id, uuid, person, image, sha256, face, x1, y1, x2, y2, score, enrolled, embedding, "
      "checksum) SELECT id, uuid, person, image, sha256, face, x1, y1, x2, y2, score, enrolled, embedding, "
      "row_checksum(id, uuid, person, image, sha256, face, x1, y1, x2, y2, score, enrolled, embedding) "
      "FROM drawn JOIN old_template USING (id);"
      "DROP TABLE old_template;"
      "DROP TABLE old_person;"
      "DROP TABLE old_meta;");
  for (const char* table : {"meta", "person"})
    database.execute((std::string("UPDATE ") + table + " SET checksum = " + checksum_of(table)).c_str());
  set_version(database);
}

}  // namespace command
