// Whose faces are in pictures, of those that a gallery knows.
#include <cstdio>
#include <memory>
#include <unordered_map>

#include "facenet/gallery.hpp"
#include "command/cli/sub_command.hpp"
#include "command/engine/faces.hpp"
#include "command/engine/gallery_model.hpp"
#include "store/gallery_store.hpp"
#include "command/io/json.hpp"
#include "command/engine/model.hpp"
#include "command/io/output.hpp"
#include "command/engine/picture_json.hpp"
#include "command/engine/pictures.hpp"
#include "command/engine/threshold.hpp"

namespace command {

namespace {

struct Options {
  ModelOptions model;
  FaceOptions faces;
  std::string gallery;
  std::vector<std::string> pictures;
  std::string threshold;  // a distance or a threshold file; "": the model's
  int top = 1;
  bool aligned = false, json = false;
};

/// A gallery's templates in memory, and what people want to know of them.
struct GalleryIndex {
  facenet::Gallery index;
  std::unordered_map<std::uint64_t, std::string> names;   // by person
  std::unordered_map<std::uint64_t, std::string> images;  // by template
};

const std::string& text_of(const std::unordered_map<std::uint64_t, std::string>& texts, std::uint64_t id) {
  static const std::string none;
  const auto at = texts.find(id);
  return at == texts.end() ? none : at->second;
}

facenet::Status load_index(GalleryStore& store, int threads, GalleryIndex& known) {
  const ReadTransaction reading = store.reading();  // another process may remove persons meanwhile
  facenet::GalleryOptions options;
  options.threads = threads;
  auto index = facenet::Gallery::make(static_cast<int>(store.model().embedding_dim), options);
  if (!index) return index.status();
  known.index = std::move(*index);
  FACENET_TRY(known.index.reserve(static_cast<std::size_t>(store.number("SELECT count(*) FROM template"))));
  facenet::Status status;
  store.each_embedding([&](std::int64_t id, std::int64_t person, const std::string& image, const float* embedding) {
    if (!status.ok()) return;
    status = known.index.add(static_cast<std::uint64_t>(id), static_cast<std::uint64_t>(person),
                             {embedding, known.index.dim()});
    known.images.emplace(static_cast<std::uint64_t>(id), image);
  });
  for (const Person& p : store.persons()) known.names.emplace(static_cast<std::uint64_t>(p.id), p.name);
  return status;
}

class Identification {
 public:
  explicit Identification(const Options& options) : options_(options) {}

  int run() {
    if (!prepare()) return failed;
    Progress progress(options_.pictures.size());
    std::vector<CutFace> faces;
    for (const std::string& name : options_.pictures) {
      facenet::Status status = source_.read(name, faces);
      lines_.clear();
      for (std::size_t i = 0; i < faces.size() && status.ok(); ++i) status = look_up(name, i, faces[i]);
      progress.clear();
      if (!report(name, status, faces.empty())) return failed;
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
    if (!resolve_threshold(options_.threshold, info, threshold_)) return false;
    const facenet::Status loaded = load_index(store, options_.model.threads, known_);
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

  /// Prints what is known of a picture when all its faces have been looked up. False when stdout is lost.
  bool report(const std::string& name, const facenet::Status& status, bool faceless) {
    if (!status.ok()) {
      const std::string failure = sentence(status, name, Subject::picture);
      say(failure);
      all_done_ = false;
      return !options_.json || out_.line(line(failed_picture(name, failure)));
    }
    if (faceless) {
      note(shown(name) + ": no face was found.");
      return !options_.json || out_.line(line(faceless_picture(name)));
    }
    warn_untrained(embedder_.info());
    bool printed = true;
    for (const std::vector<std::string>& fields : lines_)
      printed = printed && (options_.json ? out_.line(fields[0]) : out_.row(fields));
    return printed;
  }

  facenet::Status look_up(const std::string& picture, std::size_t number, const CutFace& face) {
    FACENET_TRY(embed_crop(embedder_, face.crop, embedding_));
    int count = 0;
    FACENET_TRY(known_.index.identify(embedding_, options_.top, threshold_, matches_, count));
    found_ = found_ || count > 0;
    if (options_.json)
      lines_.push_back({as_json(picture, number, face.face, count)});
    else
      add_fields(picture, number, count);
    return {};
  }

  std::string as_json(const std::string& picture, std::size_t number, const facenet::Face& face, int count) const {
    Json j;
    j["image"] = picture;
    j["face"] = number;
    j.update(face_json(face, options_.aligned));
    j["matches"] = Json::array();
    for (int i = 0; i < count; ++i) {
      const facenet::Match& m = matches_[static_cast<std::size_t>(i)];
      Json match;
      match["name"] = text_of(known_.names, m.person);
      match["distance"] = static_cast<float>(m.distance);
      match["similarity"] = static_cast<float>(m.similarity);
      match["template"] = m.id;
      match["image"] = text_of(known_.images, m.id);
      j["matches"].push_back(std::move(match));
    }
    j["threshold"] = static_cast<float>(threshold_);
    if (const std::string by = measured_by(options_.threshold, embedder_.info()); !by.empty())
      j["threshold_source"] = by;
    j["model"] = embedder_.info().digest;
    j["trained"] = embedder_.info().trained;
    return line(j);
  }

  /// Name, number of the face, the person, distance and similarity, a line for each match; or "unknown".
  void add_fields(const std::string& picture, std::size_t number, int count) {
    if (count == 0) lines_.push_back({picture, std::to_string(number), "unknown"});
    for (int i = 0; i < count; ++i) {
      const facenet::Match& m = matches_[static_cast<std::size_t>(i)];
      char distance[64], similarity[64];
      std::snprintf(distance, sizeof distance, "distance %.4f", m.distance);
      std::snprintf(similarity, sizeof similarity, "similarity %.4f", m.similarity);
      lines_.push_back({picture, std::to_string(number), text_of(known_.names, m.person), distance, similarity});
    }
  }

  const Options& options_;
  GalleryIndex known_;
  double threshold_ = 0;
  facenet::Embedder embedder_;
  FaceSource source_;
  std::vector<float> embedding_;
  std::vector<facenet::Match> matches_;
  std::vector<std::vector<std::string>> lines_;  // of the picture at hand: fields, or one field of JSON
  Output out_;
  bool all_done_ = true, found_ = false;
};

}  // namespace

SubCommand identify_command() {
  const auto o = std::make_shared<Options>();
  return {
      "identify", "Tell who of a gallery is in pictures",
      "Prints a line for each face: picture, number of the face, the person whose template is nearest, distance\n"
      "(Euclidean) and similarity (cosine), or 'unknown' where nobody's is within the threshold; with --json one "
      "object a\n"
      "face. Exit status 0: somebody was identified, 1: nobody.\n\n"
      "Examples:\n"
      "  facenet identify staff.gallery door.jpg\n"
      "  facenet identify --top 3 --json staff.gallery *.jpg\n"
      "  facenet identify --threshold staff.threshold staff.gallery - < door.jpg\n\n",
      [o](OptionSet& options) {
        options.positional("DB", o->gallery, "The gallery").required();
        options.pictures(o->pictures);
        options.option("-k,--top", "N", o->top, "Name up to N persons for each face (default 1)").whole_number(1, 1000);
        options.threshold(o->threshold);
        options.aligned(o->aligned);
        options.faces(o->faces);
        options.model(o->model);
      },
      [o](bool json) {
        o->json = json;
        return Identification(*o).run();
      }};
}

}  // namespace command
