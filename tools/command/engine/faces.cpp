#include "command/engine/faces.hpp"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <utility>

#include "command/engine/model.hpp"
#include "command/io/default_files.hpp"
#include "command/io/output.hpp"

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

// ---- turned pictures -----------------------------------------------------------------------------------------------

facenet::Status turn_picture(facenet::ImageView view, int turn, facenet::Image& out) {
  const bool across = turn % 2 != 0;
  FACENET_TRY(out.remake(across ? view.height : view.width, across ? view.width : view.height, view.order));
  constexpr int tile = 32;  // a quarter turn walks down a column, a cache line a pixel
  const auto place = [&](int x, int y) {
    if (turn == 1) return out.row(x) + 3 * (view.height - 1 - y);
    if (turn == 2) return out.row(view.height - 1 - y) + 3 * (view.width - 1 - x);
    return out.row(view.width - 1 - x) + 3 * y;
  };
  for (int top = 0; top < view.height; top += tile)
    for (int left = 0; left < view.width; left += tile)
      for (int y = top; y < top + tile && y < view.height; ++y)
        for (int x = left; x < left + tile && x < view.width; ++x) std::memcpy(place(x, y), view.row(y) + 3 * x, 3);
  return {};
}

facenet::Face turned_back(const facenet::Face& face, int turn, int width, int height) {
  // `edge`: 0 for edges, which lie between pixels' numbers, 1 for the numbers of pixels.
  const auto w = static_cast<float>(width), h = static_cast<float>(height);
  const auto back = [&](float x, float y, float edge) {
    facenet::Point p;
    p.x = turn == 1 ? y : turn == 2 ? w - edge - x : turn == 3 ? w - edge - y : x;
    p.y = turn == 1 ? h - edge - x : turn == 2 ? h - edge - y : turn == 3 ? x : y;
    return p;
  };
  facenet::Face out = face;
  const facenet::Point a = back(face.box.x0, face.box.y0, 0), b = back(face.box.x1, face.box.y1, 0);
  out.box = {std::min(a.x, b.x), std::min(a.y, b.y), std::max(a.x, b.x), std::max(a.y, b.y)};
  for (int i = 0; i < 5; ++i) out.landmarks[i] = back(face.landmarks[i].x, face.landmarks[i].y, 1);
  return out;
}

int turn_of(const facenet::Face& face) {
  const facenet::Point* p = face.landmarks;
  const float x = p[3].x + p[4].x - p[0].x - p[1].x, y = p[3].y + p[4].y - p[0].y - p[1].y;  // from eyes to mouth
  if (std::fabs(y) >= std::fabs(x)) return y >= 0 ? 0 : 2;
  return x > 0 ? 1 : 3;
}

namespace {

/// The same as turned_back(), the other way.
facenet::Face turned_forth(const facenet::Face& face, int turn, int width, int height) {
  const bool across = turn % 2 != 0;
  return turned_back(face, (4 - turn) % 4, across ? height : width, across ? width : height);
}

/// Of the scores that are at least so high.
template <class Found>
float sum_of(const std::vector<Found>& found, float least) {
  float sum = 0;
  for (const Found& f : found) sum += f.seen.score >= least ? f.seen.score : 0;
  return sum;
}

bool same_face(const facenet::Face& a, const facenet::Face& b) {
  const auto span = [](float a0, float a1, float b0, float b1) {
    return std::max(0.f, std::min(a1, b1) - std::max(a0, b0));
  };
  const float both = span(a.box.x0, a.box.x1, b.box.x0, b.box.x1) * span(a.box.y0, a.box.y1, b.box.y0, b.box.y1);
  constexpr float most = 0.5f;  // of the smaller one
  return both > most * std::min(facenet::detail::area(a.box), facenet::detail::area(b.box));
}

}  // namespace

facenet::Result<facenet::Image> crop_given(const Picture& picture, const facenet::Face& face,
                                           const facenet::ModelInfo& model) {
  const facenet::Face seen = picture.from_given(face);
  const int turn = turn_of(seen);
  if (turn == 0) return facenet::crop_face(picture, seen, model);
  facenet::Image turned;
  FACENET_TRY(turn_picture(picture, turn, turned));
  return facenet::crop_face(turned, turned_forth(seen, turn, picture.width(), picture.height()), model);
}

bool FaceFinder::load(const FaceOptions& options, int threads, const std::string& embedder_file) {
  rotations_ = options.rotations;
  set_picture_options(options, 1);
  auto detector = load_detector(options, threads, embedder_file);
  if (detector) detector_ = std::move(*detector);
  return detector.ok();
}

facenet::Result<FaceFinder> FaceFinder::fork() const {
  FaceFinder other;
  other.rotations_ = rotations_;
  auto detector = fork_detector(detector_);
  if (!detector) return detector.status();
  other.detector_ = std::move(*detector);
  return other;
}

facenet::Status FaceFinder::detect(const Picture& picture, facenet::ImageView view) {
  const facenet::DetectorOptions& o = detector_.options();
  constexpr int usual = facenet::DetectorOptions{}.min_face;  // below, little is found in pixels that were shrunk
  const int least = static_cast<int>(std::int64_t{o.min_face} * picture.width() / picture.given_width);
  if (!picture.shrunk() || o.min_face_share > 0 || o.min_face <= usual) return find_faces(detector_, view, raw_);
  facenet::DetectorOptions smaller = o;
  smaller.min_face = std::max(least, usual);
  auto other = detector_.fork(smaller);
  if (!other) return other.status();
  return find_faces(*other, view, raw_);
}

facenet::Status FaceFinder::turned(const Picture& picture, int turn, facenet::ImageView& view) {
  if (turn != 0 && turn != turn_) {
    turn_ = 0;
    FACENET_TRY(turn_picture(picture, turn, turned_));
    turn_ = turn;
  }
  view = turn == 0 ? picture.view() : turned_.view();
  return {};
}

facenet::Status FaceFinder::look(const Picture& picture, int turn, std::vector<Found>& found) {
  facenet::ImageView view;
  FACENET_TRY(turned(picture, turn, view));
  FACENET_TRY(detect(picture, view));
  for (const facenet::Face& face : raw_) found.push_back({face, turn});
  return {};
}

// Scores, from the sample photographs: of 12 faces that stand upright the lowest is 0.9984; what is found in the same
// photographs on their sides without being a face reaches 0.994, and half of it 0.9.
static constexpr float sure = 0.995f, likely = 0.95f;

facenet::Status FaceFinder::find(const Picture& picture) {
  turn_ = 0;
  found_.clear();
  faces_.clear();
  std::vector<Found> looks[4];
  FACENET_TRY(look(picture, 0, looks[0]));
  const bool all = rotations_ == "all";
  if (all || (rotations_ == "retry" && sum_of(looks[0], sure) == 0))
    for (const int turn : {1, 3, 2}) FACENET_TRY(look(picture, turn, looks[turn]));
  int best = 0;
  const auto choose = [&](float least) {
    for (const int turn : {1, 3, 2})
      if (sum_of(looks[turn], least) > sum_of(looks[best], least)) best = turn;
  };
  choose(sure);
  if (sum_of(looks[best], sure) == 0 && looks[0].empty()) choose(0);
  std::vector<Found> found = std::move(looks[best]);
  for (const int turn : {0, 1, 3, 2})
    for (const Found& f : looks[turn])
      if (all && turn != best && f.seen.score >= likely) found.push_back(f);
  order(picture, std::move(found));
  return {};
}

void FaceFinder::order(const Picture& picture, std::vector<Found> found) {
  const auto given = [&](const Found& f) {
    return picture.to_given(turned_back(f.seen, f.turn, picture.width(), picture.height()));
  };
  bool several = false;
  for (const Found& f : found) several = several || f.turn != found[0].turn;
  if (!several) {  // in order already
    found_ = std::move(found);
    for (const Found& f : found_) faces_.push_back(given(f));
    return;
  }
  std::stable_sort(found.begin(), found.end(),
                   [](const Found& a, const Found& b) { return a.seen.score > b.seen.score; });
  std::vector<Found> kept;
  for (const Found& f : found) {
    const facenet::Face face = given(f);
    bool fresh = true;
    for (const facenet::Face& other : faces_) fresh = fresh && !same_face(face, other);
    if (!fresh) continue;
    kept.push_back(f);
    faces_.push_back(face);
  }
  const std::vector<facenet::Face> before = faces_;
  std::size_t count = facenet::select_faces(faces_.data(), faces_.size(), detector_.options().selection,
                                            picture.given_width, picture.given_height);
  const auto most = static_cast<std::size_t>(detector_.options().max_faces);
  if (most != 0 && count > most) count = most;
  faces_.resize(count);
  for (const facenet::Face& face : faces_)
    for (std::size_t i = 0; i < before.size(); ++i)
      if (std::memcmp(&before[i].box, &face.box, sizeof face.box) == 0) {
        found_.push_back(kept[i]);
        break;
      }
}

facenet::Result<facenet::Image> FaceFinder::crop(const Picture& picture, std::size_t face,
                                                 const facenet::ModelInfo& model) {
  facenet::ImageView view;
  FACENET_TRY(turned(picture, found_[face].turn, view));
  return facenet::crop_face(view, found_[face].seen, model);
}

facenet::Result<FaceQuality> FaceFinder::quality(const Picture& picture, std::size_t face) {
  facenet::ImageView view;
  FACENET_TRY(turned(picture, found_[face].turn, view));
  return measure_quality(view, found_[face].seen);
}

std::string no_face_advice(const FaceOptions& options) {
  std::string words = "a smaller --min-face";
  if (options.rotations == "off") words += ", --rotations retry";
  return "; " + words + " or lower --thresholds may find some";
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
  set_picture_options(options, 1);
  if (options.colour != "auto") reading_ += " colour " + options.colour;
  if (options.rotations != "off") reading_ += " rotations " + options.rotations;
  if (options.memory != 0) reading_ += " memory " + std::to_string(options.memory);
  if (aligned) return true;
  return finder_.load(options, embedder.threads, weights_file(embedder.weights));
}

facenet::Status FaceSource::read(const std::string& name, std::vector<CutFace>& faces) {
  faces.clear();
  FACENET_TRY(read_picture(name, picture_));
  return cut(picture_, faces);
}

facenet::Status FaceSource::cut(Picture& picture, std::vector<CutFace>& faces) {
  faces.clear();
  if (aligned_) {
    facenet::Face whole;
    whole.box = {0, 0, static_cast<float>(picture.given_width), static_cast<float>(picture.given_height)};
    faces.push_back({whole, std::move(picture)});
    picture.release();
    return {};
  }
  FACENET_TRY(finder_.find(picture));
  for (std::size_t i = 0; i < finder_.faces().size(); ++i) {
    auto crop = finder_.crop(picture, i, info_);
    if (!crop) return crop.status();
    const auto quality = finder_.quality(picture, i);
    if (!quality) return quality.status();
    faces.push_back({finder_.faces()[i], std::move(*crop), *quality});
  }
  picture.release();
  return {};
}

facenet::Result<FaceSource> FaceSource::fork() const {
  FaceSource other;
  other.info_ = info_;
  other.aligned_ = aligned_;
  other.reading_ = reading_;
  if (!aligned_) {
    auto finder = finder_.fork();
    if (!finder) return finder.status();
    other.finder_ = std::move(*finder);
  }
  return other;
}

std::string FaceSource::fingerprint() const {
  if (aligned_) return "aligned" + reading_;
  const facenet::DetectorOptions& o = finder_.detector().options();
  char text[200];
  char least[40];
  if (o.min_face_share > 0)
    std::snprintf(least, sizeof least, "%.9g%%", o.min_face_share * 100);
  else
    std::snprintf(least, sizeof least, "%d", o.min_face);
  std::snprintf(text, sizeof text, "%s min_face %s thresholds %.9g %.9g %.9g factor %.17g selection %d",
                finder_.detector().digest(), least, static_cast<double>(o.thresholds[0]),
                static_cast<double>(o.thresholds[1]), static_cast<double>(o.thresholds[2]), o.factor,
                static_cast<int>(o.selection));
  return text + reading_;
}

}  // namespace command
