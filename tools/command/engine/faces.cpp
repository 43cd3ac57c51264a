#include "command/engine/faces.hpp"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <utility>

#include "command/engine/model.hpp"
#include "command/io/default_files.hpp"
#include "command/io/output.hpp"
#include "command/engine/pictures.hpp"

namespace command {

namespace {

constexpr const char* default_detector = "mtcnn.safetensors";

/// Whether a weight file holds a detector, alone or beside an embedder. One that cannot be read does not: where the
/// user named it, choose_crop() or loading the embedder has reported why, and the default one need not be there.
bool holds_detector(const std::string& file) {
  if (file.empty()) return false;
  const auto reader = facenet::WeightsReader::open(file.c_str());
  return reader && reader->holds("mtcnn.");
}

facenet::Selection selection(const std::string& word) {
  if (word == "probability") return facenet::Selection::probability;
  if (word == "largest_over_threshold") return facenet::Selection::largest_over_threshold;
  if (word == "centre_weighted") return facenet::Selection::centre_weighted;
  return facenet::Selection::largest;
}

}  // namespace

std::string detector_file(const FaceOptions& options, const std::string& embedder_file) {
  if (!options.detector.empty()) return options.detector;
  const char* variable = std::getenv("FACENET_DETECTOR");
  if (variable != nullptr && *variable != 0) return variable;
  if (holds_detector(embedder_file)) return embedder_file;
  const std::string beside = std::filesystem::path(embedder_file).replace_filename(default_detector).string();
  return !embedder_file.empty() && ::access(beside.c_str(), F_OK) == 0 ? beside : default_file(default_detector);
}

facenet::Result<facenet::Detector> load_detector(const FaceOptions& options, int threads,
                                                 const std::string& embedder_file,
                                                 const facenet::DetectorObserver* observer) {
  const std::string file = detector_file(options, embedder_file);
  if (::access(file.c_str(), F_OK) != 0) {
    say(file + ": there is no such file" + looked_elsewhere(file) + "; " + get_detector() + ".");
    return {facenet::Errc::not_found, "reported"};
  }
  facenet::DetectorOptions o;
  o.min_face = options.min_face;
  o.min_face_share = options.min_face_share;
  o.factor = options.factor;
  o.max_faces = options.max_faces;
  o.selection = selection(options.select);
  o.threads = threads;
  o.observer = observer;
  for (std::size_t i = 0; i < options.thresholds.size(); ++i)
    o.thresholds[i] = static_cast<float>(options.thresholds[i]);
  auto detector = facenet::Detector::load(file.c_str(), o);
  if (detector) return detector;
  if (detector.status().code() == facenet::Errc::weights_mismatch && !holds_detector(file))
    say(file + ": this file holds no detector; give one that " + converter() + " --mtcnn wrote.");
  else
    say(detector.status(), file, Subject::detector);
  return detector;
}

facenet::Result<facenet::Detector> fork_detector(const facenet::Detector& detector) {
  facenet::DetectorOptions o = detector.options();
  o.threads = 1;
  return detector.fork(o);
}

facenet::Status find_faces(facenet::Detector& detector, facenet::ImageView picture, facenet::Faces& faces) {
  return detector.detect(picture, faces);
}

bool choose_crop(const CropOptions& options, facenet::ModelInfo& model) {
  model.crop = facenet::Crop::box;
  model.image_size = 160;
  model.margin = 0;
  const std::string file = weights_file(options.weights);
  if (weights_named(options.weights) || ::access(file.c_str(), F_OK) == 0) {
    const auto reader = facenet::WeightsReader::open(file.c_str());
    if (!reader) {
      say(reader.status(), file, Subject::weights);
      return false;
    }
    if (std::strcmp(reader->metadata().architecture, "mtcnn") == 0) {
      say(file + ": holds a detector's weights; --weights names an embedder's, --detector the detector's.");
      return false;
    }
    model.crop = reader->metadata().crop;
    model.image_size = reader->metadata().image_size;
    model.margin = reader->metadata().margin;
  }
  if (!options.kind.empty()) {
    const facenet::Crop kind = options.kind == "box" ? facenet::Crop::box : facenet::Crop::five_point;
    // A margin has another unit for the other kind, so the file's is no use: dlib's padding, or none.
    if (kind != model.crop) model.margin = kind == facenet::Crop::box ? 0 : 0.25;
    model.crop = kind;
  }
  if (options.size != 0) model.image_size = options.size;
  if (options.margin >= 0) model.margin = options.margin;
  const bool whole = model.margin == static_cast<int>(model.margin);
  if (model.crop == facenet::Crop::box && (!whole || model.margin >= model.image_size)) {
    say("--margin must be whole pixels below --size where the box is cut out; give --crop five_point for a fraction.");
    return false;
  }
  return true;
}

std::string describe_crop(const facenet::ModelInfo& model) {
  char text[80];
  std::snprintf(text, sizeof text, "%s, %d pixels, margin %g", model.crop == facenet::Crop::box ? "box" : "five_point",
                model.image_size, model.margin);
  return text;
}

FaceMeasures measures_of(const facenet::Face& face, const FaceQuality& quality) {
  const double width = static_cast<double>(face.box.x1) - static_cast<double>(face.box.x0),
               height = static_cast<double>(face.box.y1) - static_cast<double>(face.box.y0);
  return {static_cast<double>(face.score), width * height, static_cast<double>(quality.value)};
}
std::vector<FaceMeasures> measures_of(const std::vector<CutFace>& faces) {
  std::vector<FaceMeasures> all;
  for (const CutFace& f : faces) all.push_back(measures_of(f.face, f.quality));
  return all;
}

bool FaceSource::load(const FaceOptions& options, bool aligned, const ModelOptions& embedder,
                      const facenet::ModelInfo& info) {
  aligned_ = aligned;
  info_ = info;
  if (aligned) return true;
  auto detector = load_detector(options, embedder.threads, weights_file(embedder.weights));
  if (detector) detector_ = std::move(*detector);
  return detector.ok();
}

facenet::Status FaceSource::read(const std::string& name, std::vector<CutFace>& faces) {
  faces.clear();
  FACENET_TRY(read_picture(name, picture_));
  return cut(picture_, faces);
}

facenet::Status FaceSource::cut(facenet::Image& picture, std::vector<CutFace>& faces) {
  faces.clear();
  if (aligned_) {
    facenet::Face whole;
    whole.box = {0, 0, static_cast<float>(picture.width()), static_cast<float>(picture.height())};
    faces.push_back({whole, std::move(picture)});
    return {};
  }
  FACENET_TRY(find_faces(detector_, picture, found_));
  for (const facenet::Face& face : found_) {
    auto crop = facenet::crop_face(picture, face, info_);
    if (!crop) return crop.status();
    const auto quality = measure_quality(picture, face);
    if (!quality) return quality.status();
    faces.push_back({face, std::move(*crop), *quality});
  }
  return {};
}

facenet::Result<FaceSource> FaceSource::fork() const {
  FaceSource other;
  other.info_ = info_;
  other.aligned_ = aligned_;
  if (!aligned_) {
    auto detector = fork_detector(detector_);
    if (!detector) return detector.status();
    other.detector_ = std::move(*detector);
  }
  return other;
}

std::string FaceSource::fingerprint() const {
  if (aligned_) return "aligned";
  const facenet::DetectorOptions& o = detector_.options();
  char text[200];
  char least[40];
  if (o.min_face_share > 0)
    std::snprintf(least, sizeof least, "%.9g%%", o.min_face_share * 100);
  else
    std::snprintf(least, sizeof least, "%d", o.min_face);
  std::snprintf(text, sizeof text, "%s min_face %s thresholds %.9g %.9g %.9g factor %.17g selection %d",
                detector_.digest(), least, static_cast<double>(o.thresholds[0]), static_cast<double>(o.thresholds[1]),
                static_cast<double>(o.thresholds[2]), o.factor, static_cast<int>(o.selection));
  return text;
}

}  // namespace command
