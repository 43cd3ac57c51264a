// What a gallery keeps of an archive of pictures: what people said of its faces, and which files were looked at.
#include "store/gallery_store.hpp"

namespace command {

void GalleryStore::decide(const std::string& uuid, const std::string& name, bool is) {
  Transaction change(*database_);
  const std::int64_t face = template_with(uuid), owner = known_person(name);
  if (face == 0) refuse("it has no template " + uuid + "; 'facenet gallery show --json' lists them");
  set_decision(face, owner, is);
  change.commit();
}

void GalleryStore::set_decision(std::int64_t face, std::int64_t owner, bool is) {
  database_->query("DELETE FROM decision WHERE template = ? AND person = ?").bind(face, owner).run();
  const std::int64_t id = 1 + database_->number("SELECT coalesce(max(id), 0) FROM decision");
  database_
      ->query(
          "INSERT INTO decision (id, template, person, verdict, decided, checksum) VALUES (?1, ?2, ?3, ?4, ?5, "
          "row_checksum(?1, ?2, ?3, ?4, ?5))")
      .bind(id, face, owner, std::string(is ? "is" : "is not"), time_now())
      .run();
}

std::vector<Decision> GalleryStore::decisions() {
  const ReadTransaction reading(*database_);
  std::vector<Decision> all;
  if (schema_ == 1) return all;
  Query q = database_->query(
      ("SELECT uuid, name, verdict = 'is', decided, " + sound("decision") +
       ", decision.id FROM decision JOIN template ON template.id = template JOIN person ON person.id = decision.person "
       "ORDER BY decision.id")
          .c_str());
  while (q.step()) {
    require_fit(q.integer(4), "decision", q.integer(5));
    all.push_back({q.text(0), q.text(1), q.integer(2) != 0, q.text(3)});
  }
  return all;
}

void GalleryStore::remember(const std::vector<SeenFile>& files) {
  Transaction change(*database_);
  set_seen(files);
  change.commit();
}

void GalleryStore::set_seen(const std::vector<SeenFile>& files) {
  std::int64_t id = database_->number("SELECT coalesce(max(id), 0) FROM file");
  Query forget = database_->query("DELETE FROM file WHERE path = ?");
  Query add = database_->query(
      "INSERT INTO file (id, path, sha256, bytes, modified, settings, faces, problem, looked, checksum) VALUES "
      "(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, row_checksum(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9))");
  for (const SeenFile& f : files) {
    const Blob path{f.path.data(), f.path.size()};
    forget.bind(path).run();
    add.bind(++id, path, f.sha256, f.bytes, f.modified, f.settings, f.faces, f.problem,
             f.looked.empty() ? time_now() : f.looked)
        .run();
  }
}

void GalleryStore::forget_files(const std::vector<std::string>& paths) {
  Transaction change(*database_);
  Query forget = database_->query("DELETE FROM file WHERE path = ?");
  for (const std::string& path : paths) forget.bind(Blob{path.data(), path.size()}).run();
  change.commit();
}

void GalleryStore::each_file(const std::function<bool(const SeenFile&)>& visit) {
  const ReadTransaction reading(*database_);
  if (schema_ == 1) return;
  Query q = database_->query(("SELECT path, sha256, bytes, modified, settings, faces, problem, looked, " +
                              sound("file") + ", id FROM file ORDER BY path")
                                 .c_str());
  while (q.step()) {
    require_fit(q.integer(8), "file", q.integer(9));
    const Blob path = q.blob(0);
    SeenFile f;
    f.path.assign(static_cast<const char*>(path.data), path.size);
    f.sha256 = q.text(1);
    f.bytes = q.integer(2);
    f.modified = q.integer(3);
    f.settings = q.text(4);
    f.faces = q.integer(5);
    f.problem = q.text(6);
    f.looked = q.text(7);
    if (!visit(f)) return;
  }
}

}  // namespace command
