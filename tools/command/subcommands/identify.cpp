// Whose faces are in pictures, of those that a gallery knows.
#include <cstdio>
#include <unordered_map>

#include "facenet/gallery.hpp"
#include "faces.hpp"
#include "gallery_store.hpp"
#include "json.hpp"
#include "model.hpp"
#include "output.hpp"
#include "threshold.hpp"

namespace command {

namespace {

/// A gallery's templates in memory, and what people want to know of them.
struct Known {
  facenet::Gallery index;
  std::unordered_map<std::uint64_t, std::string> names;   // by person
  std::unordered_map<std::uint64_t, std::string> images;  // by template
};

facenet::Status load_known(GalleryStore& store, int threads, Known& known) {
  facenet::GalleryOptions options;
  options.threads = threads;
  auto index = facenet::Gallery::make(static_cast<int>(store.model().embedding_dim), options);
  if (!index) return index.status();
  known.index = std::move(*index);
  FACENET_TRY(known.index.reserve(static_cast<std::size_t>(store.number("SELECT count(*) FROM template"))));
  facenet::Status status;
  store.each_embedding([&](std::int64_t id, std::int64_t person, const std::string& image, const float* embedding) {
    if (!status.ok()) return;
    status = known.index.add(static_cast<std::uint64_t>(id), static_cast<std::uint64_t>(person), embedding);
    known.images.emplace(static_cast<std::uint64_t>(id), image);
  });
  for (const Person& p : store.persons()) known.names.emplace(static_cast<std::uint64_t>(p.id), p.name);
  return status;
}

class Identification {
 public:
  explicit Identification(const IdentifyOptions& options) : options_(options) {}

  int run() {
    if (!prepare()) return failed;
    Progress progress(options_.pictures.size());
    std::vector<CutFace> faces;
    for (const std::string& name : options_.pictures) {
      facenet::Status status = source_.read(name, faces);
      progress.clear();
      if (status.ok() && faces.empty()) say((name == "-" ? "standard input" : name) + ": no face was found.");
      for (std::size_t i = 0; i < faces.size() && status.ok() && !lost_; ++i) status = look_up(name, i, faces[i]);
      if (lost_) return failed;
      if (!status.ok()) {
        say(status, name, Subject::picture);
        all_done_ = false;
      }
      progress.step();
    }
    if (!out_.finish() || !all_done_) return failed;
    return found_ ? done : no;
  }

 private:
  bool prepare() {
    GalleryStore store(options_.gallery, Access::read);
    auto embedder = load(options_.model);
    if (!embedder) return false;
    const facenet::ModelInfo& info = embedder->info();
    store.require(gallery_model(info, ""));
    if (!choose_threshold(options_.threshold, info, threshold_)) return false;
    const facenet::Status loaded = load_known(store, options_.model.threads, known_);
    if (!loaded.ok()) {
      say(options_.gallery + ": " + loaded.text() + ".");
      return false;
    }
    if (!source_.load(options_.faces, options_.aligned, options_.model, info)) return false;
    embedder_ = std::move(*embedder);
    embedding_.resize(static_cast<std::size_t>(embedder_.dim()));
    matches_.resize(static_cast<std::size_t>(options_.top));
    return true;
  }

  facenet::Status look_up(const std::string& picture, std::size_t number, const CutFace& face) {
    FACENET_TRY(embed_crop(embedder_, face.crop, embedding_.data()));
    int count = 0;
    FACENET_TRY(known_.index.identify(embedding_.data(), 1, options_.top, threshold_, matches_.data(), &count));
    warn_untrained(embedder_.info());
    found_ = found_ || count > 0;
    lost_ =
        !(options_.json ? out_.line(as_json(picture, number, face.face.box, count)) : print(picture, number, count));
    return {};
  }

  std::string as_json(const std::string& picture, std::size_t number, const facenet::Box& box, int count) const {
    Json j;
    j["image"] = picture;
    j["face"] = number;
    j["box"] = {box.x0, box.y0, box.x1, box.y1};
    j["matches"] = Json::array();
    for (int i = 0; i < count; ++i) {
      const facenet::Match& m = matches_[static_cast<std::size_t>(i)];
      Json match;
      match["name"] = known_.names.at(m.person);
      match["distance"] = static_cast<float>(m.distance);
      match["similarity"] = static_cast<float>(m.similarity);
      match["template"] = m.id;
      match["image"] = known_.images.at(m.id);
      j["matches"].push_back(std::move(match));
    }
    j["threshold"] = static_cast<float>(threshold_);
    j["model"] = embedder_.info().digest;
    j["trained"] = embedder_.info().trained;
    return line(j);
  }

  /// name TAB number of the face TAB the person TAB distance TAB similarity, a line for each match; or "unknown".
  bool print(const std::string& picture, std::size_t number, int count) {
    const std::string start = picture + "\t" + std::to_string(number) + "\t";
    if (count == 0) return out_.line(start + "unknown");
    bool printed = true;
    for (int i = 0; i < count && printed; ++i) {
      const facenet::Match& m = matches_[static_cast<std::size_t>(i)];
      char numbers[64];
      std::snprintf(numbers, sizeof numbers, "\tdistance %.4f\tsimilarity %.4f", m.distance, m.similarity);
      printed = out_.line(start + known_.names.at(m.person) + numbers);
    }
    return printed;
  }

  const IdentifyOptions& options_;
  Known known_;
  double threshold_ = 0;
  facenet::Embedder embedder_;
  FaceSource source_;
  std::vector<float> embedding_;
  std::vector<facenet::Match> matches_;
  Output out_;
  bool all_done_ = true, found_ = false, lost_ = false;
};

}  // namespace

int identify(const IdentifyOptions& options) { return Identification(options).run(); }

}  // namespace command
