// The persons of an archive: what sorting them by program changes, and what people say of them.
#include <map>
#include <set>

#include "store/gallery_store.hpp"

namespace command {

void GalleryStore::each_archive_face(const std::function<void(const ArchiveFace&)>& visit) {
  const ReadTransaction reading(*database_);
  if (schema_ == 1) refuse("this gallery is of an older kind; 'facenet people' makes a newer one of it");
  std::vector<float> embedding(static_cast<std::size_t>(model_.embedding_dim));
  Query q = database_->query(
      "SELECT t.id, t.person, t.sha256, p.named, t.embedding, EXISTS (SELECT 1 FROM decision d WHERE d.template = t.id "
      "AND d.person = t.person AND d.verdict = 'is') FROM template t JOIN person p ON p.id = t.person ORDER BY t.id");
  while (q.step()) {
    const std::string wrong = wrong_stored_embedding(q.blob(4), embedding);
    if (!wrong.empty()) refuse_template(q.integer(0), wrong);
    visit({q.integer(0), q.integer(1), q.text(2), q.integer(5) != 0, q.integer(3) != 0, embedding.data()});
  }
}

std::vector<std::pair<std::int64_t, std::int64_t>> GalleryStore::refusals() {
  std::vector<std::pair<std::int64_t, std::int64_t>> all;
  if (!exists() || schema_ == 1) return all;
  Query q = database_->query("SELECT template, person FROM decision WHERE verdict = 'is not' ORDER BY id");
  while (q.step()) all.emplace_back(q.integer(0), q.integer(1));
  return all;
}

ArchiveChanged GalleryStore::apply(const GalleryModel& model, const ArchiveChange& change) {
  ArchiveChanged result;
  change_or_make(model, [&] {
    result = {};
    const bool other = change.version == 0
                           ? number("SELECT (SELECT count(*) FROM person) + (SELECT count(*) FROM file)") != 0
                           : version() != change.version;
    if (other) return;
    std::map<std::int64_t, std::int64_t> made;
    const auto owner_of = [&](std::int64_t person) {
      if (person > 0) return person;
      std::int64_t& id = made[person];
      if (id == 0) id = this->person(insert_person(""));
      return id;
    };
    std::set<std::int64_t> left;  // persons who may have no face any more
    const auto leave = [&](std::int64_t face) {
      Query owner = database_->query("SELECT person FROM template WHERE id = ?");
      if (owner.bind(face).step()) left.insert(owner.integer(0));
    };
    for (const std::int64_t id : change.removed) {
      leave(id);
      database_->query("DELETE FROM template WHERE id = ?").bind(id).run();
    }
    // Numbers of faces may be exchanged, and are unique.
    for (const ArchiveChange::Face& f : change.faces)
      if (f.renewed) database_->query("UPDATE template SET face = -id WHERE id = ?").bind(f.id).run();
    for (const ArchiveChange::Face& f : change.faces) {
      std::int64_t id = f.id;
      if (id == 0 || f.renewed) {
        Template face = f.face;
        face.name = "x";  // it gets its person by number
        if (face.enrolled.empty()) face.enrolled = time_now();
        const std::string wrong = face.embedding.size() != static_cast<std::size_t>(model_.embedding_dim)
                                      ? "its embedding has another length"
                                      : wrong_template(model_, face);
        if (!wrong.empty()) refuse("a face of " + as_utf8(face.image) + " was not added: " + wrong);
        if (id == 0)
          id = insert_row(face, owner_of(f.person));
        else
          renew_row(id, face);
      }
      if (f.id != 0) {
        leave(id);
        set_owner(id, owner_of(f.person));
      }
      result.ids.push_back(id);
    }
    set_seen(change.files);
    Query forget = database_->query("DELETE FROM file WHERE path = ?");
    for (const std::string& path : change.forgotten) forget.bind(Blob{path.data(), path.size()}).run();
    for (const std::int64_t person : left) drop_if_bare(person);
    result.persons.assign(made.begin(), made.end());
    result.done = true;
  });
  return result;
}

void GalleryStore::set_owner(std::int64_t face, std::int64_t owner) {
  require_sound("template", face);
  database_
      ->query(
          "UPDATE template SET person = ?2, checksum = row_checksum(id, uuid, ?2, image, sha256, face, x1, y1, x2, y2, "
          "score, enrolled, embedding) WHERE id = ?1")
      .bind(face, owner)
      .run();
}

void GalleryStore::drop_if_bare(std::int64_t person) {
  database_
      ->query(
          "DELETE FROM person WHERE id = ?1 AND named = 0 AND NOT EXISTS (SELECT 1 FROM template WHERE person = ?1)")
      .bind(person)
      .run();
}

std::vector<std::int64_t> GalleryStore::faces_of(std::int64_t person) {
  std::vector<std::int64_t> ids;
  Query q = database_->query("SELECT id FROM template WHERE person = ? ORDER BY id");
  for (q.bind(person); q.step();) ids.push_back(q.integer(0));
  return ids;
}

bool GalleryStore::is_named(std::int64_t person) {
  Query q = database_->query("SELECT named FROM person WHERE id = ?");
  return q.bind(person).step() && q.integer(0) != 0;
}

void GalleryStore::require_apart(std::int64_t from, const std::vector<std::int64_t>& ids, std::int64_t to) {
  for (const std::int64_t id : ids) {
    Query both = database_->query(
        "SELECT a.image FROM template a JOIN template b ON b.sha256 = a.sha256 WHERE a.id = ? AND a.person = ? AND "
        "b.person = ?");
    if (both.bind(id, from, to).step())
      refuse("both are in one picture (" + both.text(0) +
             "), so they are two persons; give --collages if they are not");
  }
}

std::int64_t GalleryStore::join_persons(const std::string& from, const std::string& to, bool collages) {
  if (from == to) refuse("'" + to + "' cannot be merged with itself; give two names");
  Transaction change(*database_);
  const std::int64_t source = known_person(from), target = known_person(to);
  if (is_named(source) && !is_named(target))
    refuse("'" + from + "' has a name and '" + to + "' has none; give them the other way round");
  const std::vector<std::int64_t> moved = faces_of(source);
  if (!collages) require_apart(source, moved, target);
  const bool named = is_named(target);
  if (!named)
    for (const std::int64_t id : faces_of(target)) set_decision(id, target, true);
  // What was said of the one holds for both, unless it contradicts that they are one.
  database_
      ->query(
          "UPDATE OR IGNORE decision SET person = ?2, checksum = row_checksum(id, template, ?2, verdict, decided) "
          "WHERE person = ?1")
      .bind(source, target)
      .run();
  for (const std::int64_t id : moved) {
    set_owner(id, target);
    set_decision(id, target, true);
  }
  database_
      ->query(
          "DELETE FROM decision WHERE person = ?1 AND verdict = 'is not' AND template IN "
          "(SELECT id FROM template WHERE person = ?1)")
      .bind(target)
      .run();
  database_->query("DELETE FROM person WHERE id = ?").bind(source).run();
  change.commit();
  return static_cast<std::int64_t>(moved.size());
}

void GalleryStore::require_faces_of(const std::string& name, const std::vector<std::int64_t>& ids) {
  const std::int64_t owner = known_person(name);
  if (ids.empty()) refuse("it is not said which faces of '" + name + "' are meant; name pictures or templates");
  for (const std::int64_t id : ids) {
    Query q = database_->query("SELECT 1 FROM template WHERE id = ? AND person = ?");
    if (!q.bind(id, owner).step())
      refuse("template " + std::to_string(id) + " is not a face of '" + name + "'; 'facenet people show' lists those");
  }
}

std::string GalleryStore::split_person(const std::string& from, const std::vector<std::int64_t>& ids,
                                       const std::string& to) {
  const std::string wrong = to.empty() ? "" : wrong_name(to);
  if (!wrong.empty()) refuse("nothing was split off: " + wrong);
  if (from == to) refuse("'" + to + "' cannot be split off itself; give another name");
  Transaction change(*database_);
  require_faces_of(from, ids);
  const std::int64_t source = known_person(from);
  const std::set<std::int64_t> chosen(ids.begin(), ids.end());
  std::vector<std::int64_t> rest;
  for (const std::int64_t id : faces_of(source))
    if (chosen.count(id) == 0) rest.push_back(id);
  if (rest.empty()) refuse("that is every face of '" + from + "'; name some of them, or rename the person");
  const std::string name = to.empty() || person(to) == 0 ? insert_person(to) : to;
  const std::int64_t target = person(name);
  require_apart(source, ids, target);
  for (const std::int64_t id : chosen) {
    set_owner(id, target);
    set_decision(id, target, true);
    set_decision(id, source, false);
  }
  // They would follow the others where these are more.
  if (!is_named(source))
    for (const std::int64_t id : rest) set_decision(id, source, true);
  change.commit();
  return name;
}

std::vector<std::string> GalleryStore::refuse_faces(const std::string& name, const std::vector<std::int64_t>& ids) {
  Transaction change(*database_);
  require_faces_of(name, ids);
  const std::int64_t source = known_person(name);
  std::vector<std::string> owners;
  for (const std::int64_t id : std::set<std::int64_t>(ids.begin(), ids.end())) {
    owners.push_back(insert_person(""));
    set_owner(id, person(owners.back()));
    set_decision(id, source, false);
  }
  drop_if_bare(source);
  change.commit();
  return owners;
}

}  // namespace command
