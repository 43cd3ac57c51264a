#include "command/engine/compreface_import.hpp"

#include <fstream>
#include <utility>

#include "command/engine/faces.hpp"
#include "command/engine/gallery_model.hpp"
#include "command/engine/model.hpp"
#include "command/engine/pictures.hpp"
#include "command/io/compreface.hpp"
#include "command/io/json.hpp"
#include "command/io/output.hpp"

namespace command {

namespace {

/// A key on the command line is seen by whoever lists processes, one in a file is not.
bool read_key(std::string& key) {
  if (key.empty() || key[0] != '@') return true;
  const std::string name = key.substr(1);
  std::ifstream file(name);
  if (std::getline(file, key)) return true;
  say(name + ": the key cannot be read from this file; write it in the first line.");
  return false;
}

class Takeover {
 public:
  explicit Takeover(const ComprefaceImport& options) : options_(options), store_(options.gallery, Access::create) {}

  int run() {
    std::string key = options_.instance[1];
    if (!read_key(key)) return failed;
    ComprefaceClient from(options_.instance[0], key);
    const std::vector<std::string> subjects = from.subjects();
    const std::vector<ComprefaceExample> examples = from.examples();
    if (!prepare()) return failed;
    for (const std::string& name : subjects) add_subject(name);
    Progress progress(examples.size());
    for (const ComprefaceExample& example : examples) {
      const std::string wrong = take(from, example);
      progress.clear();
      if (!wrong.empty()) {
        say("example " + example.id + " of '" + example.subject + "': " + wrong);
        ++failed_;
      }
      progress.step();
    }
    progress.clear();
    Json j{{"enrolled", enrolled_}, {"there", there_}, {"failed", failed_}};
    const std::string text = std::to_string(enrolled_) + " template(s) enrolled, " + std::to_string(there_) +
                             " were there, " + std::to_string(failed_) + " failed";
    Output out;
    return out.line(options_.json ? line(j) : text) && out.finish() && failed_ == 0 ? done : failed;
  }

 private:
  bool prepare() {
    auto embedder = load(options_.model);
    if (!embedder) return false;
    store_.require(gallery_model(embedder->info(), ""));
    if (!source_.load(options_.faces, false, options_.model, embedder->info())) return false;
    embedder_ = std::move(*embedder);
    model_ = gallery_model(embedder_.info(), source_.detector());
    warn_untrained(embedder_.info());
    return true;
  }

  void add_subject(const std::string& name) {
    const std::string wrong = wrong_name(name);
    if (wrong.empty()) {
      store_.add_person(model_, name);
      return;
    }
    say("a subject is left out: " + wrong + ".");
    ++failed_;
  }

  /// What is wrong, "" for nothing.
  std::string take(ComprefaceClient& from, const ComprefaceExample& example) {
    if (store_.exists() && store_.find_template(example.id)) {
      ++there_;
      return "";
    }
    const std::string bytes = from.picture(example.id);
    if (bytes.empty()) return "the instance has no picture of it, so it cannot be embedded.";
    const std::string wrong = wrong_name(example.subject);
    if (!wrong.empty()) return wrong + ".";
    Template t;
    t.uuid = example.id;
    t.name = example.subject;
    t.image = example.id;
    const facenet::Span<const std::uint8_t> file(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
    t.sha256 = picture_sha256(file);
    facenet::Status status = decode(file, example.id, source_.picture());
    if (status.ok()) status = source_.cut(source_.picture(), faces_);
    if (status.ok() && faces_.empty()) return "no face was found in its picture.";
    if (status.ok()) status = fill(t);
    if (!status.ok()) return sentence(status, example.id, Subject::picture);
    if (options_.keep_pictures) t.picture.assign(bytes.begin(), bytes.end());
    const GalleryStore::Addition added = store_.add(model_, t);
    if (added.added == GalleryStore::Added::another_person)
      return "this face is enrolled as '" + added.owner + "' already.";
    ++(added.added == GalleryStore::Added::yes ? enrolled_ : there_);
    return "";
  }

  /// Of the first face: the instance took the picture for one of a single face.
  facenet::Status fill(Template& t) {
    const CutFace& first = faces_[0];
    set_face(t, first.face);
    t.embedding.resize(static_cast<std::size_t>(embedder_.dim()));
    return embed_crop(embedder_, first.crop, t.embedding);
  }

  const ComprefaceImport& options_;
  GalleryStore store_;
  GalleryModel model_;
  facenet::Embedder embedder_;
  FaceSource source_;
  std::vector<CutFace> faces_;
  std::int64_t enrolled_ = 0, there_ = 0, failed_ = 0;
};

}  // namespace

int import_compreface(const ComprefaceImport& options) {
  try {
    return Takeover(options).run();
  } catch (const ComprefaceError& e) {
    say(e.what());
    return failed;
  }
}

}  // namespace command
