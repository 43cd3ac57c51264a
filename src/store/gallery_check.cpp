// Whether a gallery's file is sound, what can be saved where it is not, and copies of it.
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>
#include <unordered_set>

#include "store/gallery_schema.hpp"
#include "store/gallery_store.hpp"

namespace command {

namespace {

constexpr const char* unfit = "it does not fit its checksum";

std::string numbered(int count) {
  std::string list;
  for (int i = 1; i <= count; ++i) list += (i == 1 ? "?" : ", ?") + std::to_string(i);
  return list;
}

/// INSERT of a row whose values are bound in the order of the table's columns, with a new checksum.
std::string insertion(const GalleryTable& table) {
  const std::string columns = table.columns;
  const std::string values = numbered(1 + static_cast<int>(std::count(columns.begin(), columns.end(), ',')));
  return std::string("INSERT INTO ") + table.name + " (" + columns + ", checksum) VALUES (" + values +
         ", row_checksum(" + values + "))";
}

const GalleryTable& table_of(const std::string& name) {
  return *std::find_if(std::begin(gallery_tables), std::end(gallery_tables),
                       [&](const GalleryTable& t) { return name == t.name; });
}

}  // namespace

GalleryStore::GalleryStore(const std::string& path, AsItIs) : path_(path), access_(Access::change) {
  open();
  if (!read_model())
    refuse("this file is empty, so there is nothing to repair; 'facenet enroll' makes a gallery of it");
}

void GalleryStore::check_rows(const std::string& table, std::vector<Damage>& found) {
  const std::string key = table == "picture" ? "template" : "id";
  const bool is_template = table == "template";
  std::vector<float> embedding(static_cast<std::size_t>(model_.embedding_dim));
  std::int64_t last = 0;
  try {
    Query q = database_->query(("SELECT " + key + ", " + (schema_ == 1 ? "0" : "checksum IS NULL") + ", " +
                                sound(table) + (is_template ? ", embedding" : "") + " FROM " + table)
                                   .c_str());
    while (q.step()) {
      last = q.integer(0);
      std::string what;
      if (q.integer(1) != 0) what = "it has no checksum, since another program wrote it";
      if (q.integer(2) == 0) what = unfit;
      if (what.empty() && is_template) what = wrong_stored_embedding(q.blob(3), embedding);
      if (!what.empty()) found.push_back({table, last, what, {}, {}});
    }
  } catch (const DatabaseError&) {
    found.push_back({table, 0, "rows after " + std::to_string(last) + " cannot be read", {}, {}});
  }
}

std::vector<Damage> GalleryStore::check() {
  const ReadTransaction reading(*database_);
  std::vector<Damage> found;
  if (schema_ == 1) {
    check_rows("template", found);
  } else {
    for (const GalleryTable& table : gallery_tables) check_rows(table.name, found);
    for (const std::string& name : changed_definitions(*database_))
      found.push_back({"", 0, "the definition of '" + name + "' is not the one that facenet writes", {}, {}});
  }
  try {
    for (Query q = database_->query("PRAGMA integrity_check"); q.step();)
      if (q.text(0) != "ok") found.push_back({"", 0, q.text(0), {}, {}});
    for (Query q = database_->query("PRAGMA foreign_key_check"); q.step();)
      found.push_back({q.text(0), q.integer(1), "the " + q.text(2) + " that it belongs to is not there", {}, {}});
  } catch (const DatabaseError&) {
    found.push_back({"", 0, "SQLite cannot read its pages", {}, {}});
  }
  for (Damage& d : found) {
    if (d.id == 0 || (d.table != "template" && d.table != "picture" && d.table != "person")) continue;
    const bool is_person = d.table == "person";
    try {
      Query q = database_->query(
          is_person ? "SELECT name, '' FROM person WHERE id = ?"
                    : "SELECT person.name, image FROM template LEFT JOIN person ON person.id = person WHERE "
                      "template.id = ?");
      if (!q.bind(d.id).step()) continue;
      d.name = as_utf8(q.text(0));
      d.image = as_utf8(q.text(1));
    } catch (const DatabaseError&) {  // it stays without a name
    }
  }
  return found;
}

void GalleryStore::backup(const std::string& to) {
  if (to.empty() || to == "-") refuse("a backup is a file; give its name");
  std::error_code none;
  if (std::filesystem::equivalent(path_, to, none)) refuse("a gallery cannot be its own backup; give another name");
  struct stat about {};
  if (::stat(to.c_str(), &about) == 0 && !S_ISREG(about.st_mode))
    throw NotADatabase(to + ": this is not a regular file; give another name for the backup.");
  if (::access((to + "-journal").c_str(), F_OK) == 0)
    throw DatabaseError(to +
                        ": beside it lies the journal of a change that was not finished; open that gallery once, or "
                        "give another name for the backup.");
  NewDatabase made(to);
  database_->copy_to(made.filled(), to);
  made.commit();
}

namespace {

/// All ids of a table that can be found: in the table itself as far as it can be read from either end, and in indexes.
std::set<std::int64_t> ids_of(Database& database, const std::vector<std::string>& queries) {
  std::set<std::int64_t> ids;
  for (const std::string& sql : queries) {
    try {
      for (Query q = database.query(sql.c_str()); q.step();) ids.insert(q.integer(0));
    } catch (const DatabaseError&) {  // as far as it goes
    }
  }
  return ids;
}

}  // namespace

GalleryStore::Repair GalleryStore::repair(const std::string& path) {
  GalleryStore source(path, AsItIs());
  Database& from = *source.database_;
  from.erase_journal();
  const Transaction lock(from);  // nobody changes it meanwhile
  Repair done;
  done.damage = source.check();
  if (done.damage.empty()) return done;
  std::error_code none;
  const std::string real = std::filesystem::canonical(path, none).string(), kept = real + ".damaged";
  if (std::filesystem::exists(kept, none))
    source.refuse("the damaged file would be kept as " + kept + ", and there is one; move it away");
  from.execute("PRAGMA cell_size_check = OFF");  // it gives a whole page up for one row
  const bool old = source.schema_ == 1;
  const auto lose = [&](const std::string& table, std::int64_t id, const std::string& what,
                        const std::string& name = {}, const std::string& image = {}) {
    done.lost.push_back({table, id, what, as_utf8(name), as_utf8(image)});
  };

  NewDatabase made(real);
  {
    GalleryStore target(made.filled(), Access::create);
    target.change_or_make(source.model_, [&] {
      Database& to = *target.database_;
      std::unordered_set<std::int64_t> persons;
      Query add_person = to.query(insertion(table_of("person")).c_str());
      const auto keep_person = [&](std::int64_t id, const std::string& name, bool named) {
        add_person.bind(id, name, std::int64_t{named}).run();
        persons.insert(id);
      };
      const auto unname = [&](std::int64_t id, const std::string& what) {
        std::string name = "person " + std::to_string(id);
        while (target.person(name) != 0) name += "?";
        keep_person(id, name, false);
        lose("person", id, what + "; it is called '" + name + "' now", name);
      };

      // A name is in the table and in its index: one of the two may be whole.
      std::map<std::int64_t, std::string> indexed;
      try {
        for (Query q = from.query("SELECT id, name FROM person INDEXED BY sqlite_autoindex_person_1 ORDER BY name");
             q.step();)
          indexed[q.integer(0)] = q.text(1);
      } catch (const DatabaseError&) {  // as far as it goes
      }
      std::vector<std::int64_t> nameless;
      std::set<std::int64_t> ids = ids_of(from, {"SELECT id FROM person", "SELECT id FROM person ORDER BY id DESC"});
      for (const auto& entry : indexed) ids.insert(entry.first);
      for (const std::int64_t id : ids) {
        std::string name;
        bool sound = false, named = true;
        for (const bool of_index : {false, true}) {
          if (sound || (of_index && (old || indexed.count(id) == 0))) continue;
          try {
            Query q = from.query(
                old        ? "SELECT name, 1, 1 FROM person WHERE id = ?1 AND ?2 = ?2"
                : of_index ? "SELECT ?2, named, checksum = row_checksum(id, ?2, named) FROM person WHERE id = ?1"
                           : "SELECT name, named, checksum IS NULL OR checksum = row_checksum(id, name, named) "
                             "FROM person WHERE id = ?1 AND ?2 = ?2");
            if (!q.bind(id, of_index ? indexed[id] : std::string()).step()) continue;
            name = q.text(0);
            named = q.integer(1) != 0;
            sound = q.integer(2) != 0 && wrong_name(name).empty() && target.person(name) == 0;
          } catch (const DatabaseError&) {  // not sound
          }
        }
        if (sound && id > 0)
          keep_person(id, name, named);
        else
          nameless.push_back(id);
      }
      for (const std::int64_t id : nameless)
        if (id > 0) unname(id, "its row is damaged");

      // A template is kept with its person, whose row may be gone.
      Query add_template = to.query(insertion(table_of("template")).c_str());
      Query add_picture = to.query(insertion(table_of("picture")).c_str());
      const std::string columns = std::string(old ? "id, new_uuid()" : "id, uuid") +
                                  ", person, image, sha256, face, x1, y1, x2, y2, score, enrolled, embedding, " +
                                  source.sound("template");
      std::set<std::int64_t> kept_templates;
      std::map<std::int64_t, Damage> bad;
      const auto keep_template = [&](const Query& row) {
        const std::int64_t id = row.integer(0), owner = row.integer(2);
        if (kept_templates.count(id) != 0) return;
        Template t;
        t.id = id;
        t.uuid = row.text(1);
        t.name = "x";  // the person's is checked by itself
        t.image = row.text(3);
        t.sha256 = row.text(4);
        t.face = row.integer(5);
        for (int i = 0; i < 4; ++i) t.box[i] = row.real(6 + i);
        t.score = row.real(10);
        t.enrolled = row.text(11);
        t.embedding.resize(static_cast<std::size_t>(source.model_.embedding_dim));
        std::string wrong = row.integer(13) == 0 ? unfit : id < 1 || owner < 1 ? "a bad number" : "";
        if (wrong.empty()) wrong = source.wrong_stored_embedding(row.blob(12), t.embedding);
        if (wrong.empty()) wrong = wrong_template(source.model_, t);
        if (wrong.empty() && target.template_with(t.uuid) != 0) wrong = "another one has its UUID";
        if (!wrong.empty()) {
          bad[id] = {"template", id, wrong, {}, t.image};
          return;
        }
        if (persons.count(owner) == 0) unname(owner, "its row is not there");
        add_template.bind_columns(row, 13).run();
        kept_templates.insert(id);
      };
      for (const char* order : {"", " ORDER BY id DESC"}) {
        try {
          for (Query q = from.query(("SELECT " + columns + " FROM template" + order).c_str()); q.step();)
            keep_template(q);
          break;
        } catch (const DatabaseError&) {  // from the other end, then one by one
        }
      }
      const std::vector<std::string> lists{"SELECT id FROM template ORDER BY person, sha256",
                                           "SELECT id FROM template ORDER BY sha256"};
      for (const std::int64_t id : ids_of(from, lists)) {
        if (kept_templates.count(id) != 0 || bad.count(id) != 0) continue;
        try {
          Query q = from.query(("SELECT " + columns + " FROM template WHERE id = ?").c_str());
          if (q.bind(id).step())
            keep_template(q);
          else
            bad[id] = {"template", id, "its row is not there", {}, {}};
        } catch (const DatabaseError&) {
          bad[id] = {"template", id, "its row cannot be read", {}, {}};
        }
      }
      for (const auto& entry : bad)
        if (kept_templates.count(entry.first) == 0)
          lose("template", entry.first, entry.second.what, {}, entry.second.image);

      if (!old) {
        for (const std::int64_t id : kept_templates) {
          try {
            Query q = from.query(
                ("SELECT template, bytes, " + source.sound("picture") + " FROM picture WHERE template = ?").c_str());
            if (!q.bind(id).step()) continue;
            if (q.integer(2) != 0)
              add_picture.bind_columns(q, 2).run();
            else
              lose("picture", id, unfit);
          } catch (const DatabaseError&) {
            lose("picture", id, "its row cannot be read");
          }
        }
        for (const char* name : {"decision", "file"}) {
          const GalleryTable& table = table_of(name);
          const std::string all = table.columns;
          const int count = 1 + static_cast<int>(std::count(all.begin(), all.end(), ','));
          Query add = to.query(insertion(table).c_str());
          std::int64_t last = 0;
          try {
            for (Query q = from.query(("SELECT " + all + ", " + source.sound(name) + " FROM " + name).c_str());
                 q.step();) {
              last = q.integer(0);
              const bool whole = table.name != std::string("decision") ||
                                 (kept_templates.count(q.integer(1)) != 0 && persons.count(q.integer(2)) != 0);
              if (whole && q.integer(count) != 0)
                add.bind_columns(q, count).run();
              else
                lose(name, last, whole ? unfit : "what it is about is lost");
            }
          } catch (const DatabaseError&) {
            lose(name, 0, "rows after " + std::to_string(last) + " cannot be read");
          }
        }
      }
      // Numbers that were in use are not used again.
      try {
        for (Query q = from.query("SELECT name, seq FROM sqlite_sequence WHERE name IN ('person', 'template')");
             q.step();) {
          to.query("DELETE FROM sqlite_sequence WHERE name = ?1 AND seq < ?2").bind(q.text(0), q.integer(1)).run();
          to.query("INSERT INTO sqlite_sequence SELECT ?1, ?2 WHERE ?1 NOT IN (SELECT name FROM sqlite_sequence)")
              .bind(q.text(0), q.integer(1))
              .run();
        }
      } catch (const DatabaseError&) {  // the highest that is kept counts
      }
      done.persons = static_cast<std::int64_t>(persons.size());
      done.templates = static_cast<std::int64_t>(kept_templates.size());
    });
  }
  made.commit(kept);
  done.original = kept;
  return done;
}

}  // namespace command
