#include "command/engine/gallery_migration.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <exception>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "command/engine/bulk.hpp"
#include "command/engine/gallery_model.hpp"
#include "command/engine/model.hpp"
#include "command/engine/pictures.hpp"
#include "command/io/json.hpp"
#include "command/io/output.hpp"
#include "store/gallery_store.hpp"

namespace command {

namespace {

constexpr auto between_commits = std::chrono::seconds(3);
constexpr double least_overlap = 0.4;  // of a face's box then and now

double overlap(const double (&a)[4], const facenet::Box& box) {
  const double b[4] = {static_cast<double>(box.x0), static_cast<double>(box.y0), static_cast<double>(box.x1),
                       static_cast<double>(box.y1)};
  const double w = std::min(a[2], b[2]) - std::max(a[0], b[0]), h = std::min(a[3], b[3]) - std::max(a[1], b[1]);
  if (w <= 0 || h <= 0) return 0;
  return w * h / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h);
}

/// New embeddings by UUID, on disk until the gallery has them.
class Waiting {
 public:
  Waiting(const std::string& file, const std::string& model) : database_(file, Access::create) {
    database_.execute(
        "CREATE TABLE IF NOT EXISTS migration (model TEXT NOT NULL);"
        "CREATE TABLE IF NOT EXISTS embedding (uuid TEXT PRIMARY KEY, bytes BLOB NOT NULL) WITHOUT ROWID");
    Query q = database_.query("SELECT model FROM migration");
    const bool there = q.step();
    if (there && q.text(0) == model) return;
    // Of another model, which is not wanted any more.
    Transaction change(database_);
    database_.execute("DELETE FROM embedding; DELETE FROM migration");
    database_.query("INSERT INTO migration VALUES (?)").bind(model).run();
    change.commit();
  }
  bool has(const std::string& uuid) {
    Query q = database_.query("SELECT 1 FROM embedding WHERE uuid = ?");
    return q.bind(uuid).step();
  }
  bool find(const std::string& uuid, std::vector<float>& embedding) {
    Query q = database_.query("SELECT bytes FROM embedding WHERE uuid = ?");
    if (!q.bind(uuid).step()) return false;
    const Blob blob = q.blob(0);
    embedding.resize(blob.size / sizeof(float));
    std::memcpy(embedding.data(), blob.data, embedding.size() * sizeof(float));
    return true;
  }
  void add(const std::vector<std::pair<std::string, std::vector<float>>>& rows) {
    Transaction change(database_);
    Query q = database_.query("INSERT OR REPLACE INTO embedding VALUES (?, ?)");
    for (const auto& [uuid, e] : rows) q.bind(uuid, Blob{e.data(), e.size() * sizeof(float)}).run();
    change.commit();
  }

 private:
  Database database_;
};

class Migration {
 public:
  explicit Migration(const GalleryMigration& options)
      : options_(options), store_(options.gallery, Access::change), file_(options.gallery + ".migrating") {}

  int run() {
    const bool aligned = store_.model().detector.empty();
    if (!bulk_.load(options_.model, options_.faces, aligned, "")) return failed;
    if (bulk_.info().digest == store_.model().digest) return finish(true);
    warn_untrained(bulk_.info());
    bulk_.want_keys();
    waiting_ = std::make_unique<Waiting>(file_, bulk_.info().digest);
    // What another process adds meanwhile is embedded too.
    for (int round = 0; round < most_rounds; ++round) {
      load();
      if (!embed_kept(aligned) || !embed_files()) return failed;
      failures_.say_all();
      if (!missing_.empty() && !options_.drop_missing) return finish(false);
      const std::vector<std::string> left = store_.change_model(
          gallery_model(bulk_.info(), bulk_.detector()),
          [this](const std::string& uuid, std::vector<float>& e) { return waiting_->find(uuid, e); },
          {missing_.begin(), missing_.end()});
      if (!left.empty()) continue;
      waiting_.reset();
      for (const char* end : {"", "-journal"}) ::unlink((file_ + end).c_str());
      store_.erase_traces();
      return finish(true);
    }
    say(options_.gallery + ": another process adds templates as fast as they are embedded; run this again later.");
    return failed;
  }

 private:
  static constexpr int most_rounds = 100;

  void load() {
    missing_.clear();
    todo_.clear();
    kept_.clear();
    std::map<std::string, std::vector<std::string>> places;
    {
      const ReadTransaction reading = store_.reading();
      store_.each_file([&](const SeenFile& f) {
        if (!f.sha256.empty()) places[f.sha256].push_back(f.path);
        return true;
      });
      std::vector<std::string> persons;
      for (const Person& p : store_.persons()) persons.push_back(p.name);
      std::vector<Template> all = store_.templates_of(persons);
      for (Template& t : all) {
        if (waiting_->has(t.uuid)) continue;
        missing_.insert(t.uuid);
        std::vector<std::string>& where = places[t.sha256];
        if (where.empty()) where.push_back(t.image);
        for (const std::string& path : where)
          if (::access(path.c_str(), R_OK) == 0) {
            todo_[path].push_back(t);
            break;
          }
        kept_.push_back(std::move(t));
      }
    }
  }

  /// Pictures that the gallery itself keeps.
  bool embed_kept(bool aligned) {
    auto embedder = facenet::Result<facenet::Embedder>{facenet::Errc::not_found, "not needed"};
    FaceSource source;
    for (const Template& t : kept_) {
      const std::vector<std::uint8_t> bytes = store_.picture(t.uuid);
      if (bytes.empty()) continue;
      if (!embedder) {
        embedder = command::load(options_.model);
        if (!embedder || !source.load(options_.faces, aligned, options_.model, embedder->info())) return false;
      }
      std::vector<CutFace> faces;
      facenet::Status status = decode({bytes.data(), bytes.size()}, t.image, source.picture());
      if (status.ok()) status = source.cut(source.picture(), faces);
      std::vector<EmbeddedFace> embedded;
      for (std::size_t i = 0; status.ok() && i < faces.size(); ++i) {
        EmbeddedFace face{faces[i].face, faces[i].quality, std::vector<float>(static_cast<std::size_t>(bulk_.dim()))};
        status = embed_crop(*embedder, faces[i].crop, face.embedding);
        embedded.push_back(std::move(face));
      }
      if (status.ok()) take({t}, embedded, aligned);
    }
    flush();
    return true;
  }

  bool embed_files() {
    std::vector<std::string> paths;
    for (const auto& [path, templates] : todo_)
      if (std::any_of(templates.begin(), templates.end(),
                      [&](const Template& t) { return missing_.count(t.uuid) != 0; }))
        paths.push_back(path);
    if (paths.empty()) return true;
    const bool aligned = store_.model().detector.empty();
    Progress progress(paths.size());
    committed_ = Clock::now();
    const bool complete = bulk_.run(paths, [&](std::size_t i, EmbeddedPicture& picture) {
      try {
        char digits[2 * facenet::Sha256::digest_size + 1];
        facenet::to_hex({picture.key.data(), picture.key.size()}, digits);
        std::vector<Template> wanted;
        for (const Template& t : todo_[paths[i]])
          if (t.sha256 == digits) wanted.push_back(t);
        if (!picture.failure.empty()) failures_.add(paths[i], picture.failure);
        take(wanted, picture.faces, aligned);
        if (Clock::now() - committed_ >= between_commits) flush();
        progress.step();
        return true;
      } catch (const DatabaseError&) {
        error_ = std::current_exception();
        return false;
      }
    });
    progress.clear();
    if (error_) std::rethrow_exception(error_);
    flush();
    return complete;
  }

  /// Each template's face is the one that stands where it stood.
  void take(const std::vector<Template>& templates, const std::vector<EmbeddedFace>& faces, bool aligned) {
    for (const Template& t : templates) {
      const EmbeddedFace* best = nullptr;
      double most = least_overlap;
      for (const EmbeddedFace& f : faces) {
        const double same = aligned ? 1 : overlap(t.box, f.face.box);
        if (same >= most) most = same, best = &f;
      }
      if (best == nullptr) continue;
      rows_.emplace_back(t.uuid, best->embedding);
      missing_.erase(t.uuid);
    }
  }

  void flush() {
    if (!rows_.empty()) waiting_->add(rows_);
    embedded_ += rows_.size();
    rows_.clear();
    committed_ = Clock::now();
  }

  int finish(bool complete) {
    const auto templates = store_.number("SELECT count(*) FROM template");
    if (!complete)
      say(options_.gallery + ": " + std::to_string(missing_.size()) +
          " of its faces were not found again in a picture, so it stays as it is; bring the pictures back, or give "
          "--drop-missing to leave those faces out.");
    Output out;
    Json j;
    j["gallery"] = options_.gallery;
    j["templates"] = templates;
    j["embedded"] = embedded_;
    j["missing"] = missing_.size();
    j["complete"] = complete;
    j["model"] = store_.model().digest;
    const std::string text = std::to_string(embedded_) + " face(s) embedded anew, " + std::to_string(missing_.size()) +
                             " not found; " + (complete ? "the gallery is of model " : "it stays of model ") +
                             store_.model().digest;
    if (!(options_.json ? out.line(line(j)) : out.row({text})) || !out.finish()) return failed;
    return complete ? done : failed;
  }

  using Clock = std::chrono::steady_clock;

  const GalleryMigration& options_;
  GalleryStore store_;
  std::string file_;
  BulkEmbedder bulk_;
  std::unique_ptr<Waiting> waiting_;
  std::map<std::string, std::vector<Template>> todo_;  // by path
  std::vector<Template> kept_;
  std::set<std::string> missing_;
  std::vector<std::pair<std::string, std::vector<float>>> rows_;
  Failures failures_;
  std::size_t embedded_ = 0;
  std::exception_ptr error_;
  Clock::time_point committed_{};
};

}  // namespace

int migrate_gallery(const GalleryMigration& options) { return Migration(options).run(); }

}  // namespace command
