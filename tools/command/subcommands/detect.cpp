#include <sys/stat.h>

#include <cstdio>
#include <set>

#include "claims.hpp"
#include "draw.hpp"
#include "faces.hpp"
#include "json.hpp"
#include "model.hpp"
#include "output.hpp"
#include "pictures.hpp"
#include "png.hpp"

namespace command {

namespace {

bool is_folder(const std::string& path) {
  struct stat about {};
  return ::stat(path.c_str(), &about) == 0 && S_ISDIR(about.st_mode);
}

/// "photo" for "folder/photo.jpg"; "photo-2" for another picture of that name in the same run.
std::string short_name(const std::string& picture, std::set<std::string>& taken) {
  std::string name = picture == "-" ? "stdin" : picture.substr(picture.rfind('/') + 1);
  const std::size_t dot = name.rfind('.');
  if (dot != std::string::npos && dot > 0) name.resize(dot);
  std::string free = name;
  for (int n = 2; !taken.insert(free).second; ++n) free = name + "-" + std::to_string(n);
  return free;
}

std::string as_json(const std::string& picture, const facenet::Faces& faces, const std::vector<std::string>& crops) {
  Json j;
  j["image"] = picture;
  j["faces"] = Json::array();
  for (int i = 0; i < faces.size(); ++i) {
    Json face;
    face["box"] = {faces[i].box.x0, faces[i].box.y0, faces[i].box.x1, faces[i].box.y1};
    face["score"] = faces[i].score;
    for (const facenet::Point p : faces[i].landmarks) face["landmarks"].push_back({p.x, p.y});
    if (!crops.empty()) face["crop"] = crops[static_cast<std::size_t>(i)];
    j["faces"].push_back(std::move(face));
  }
  return line(j);
}

/// name TAB number of the face TAB score TAB the box TAB the landmarks, their numbers separated by spaces.
std::string as_text(const std::string& picture, const facenet::Face& face, int number) {
  const auto d = [](float x) { return static_cast<double>(x); };
  char text[96];
  std::snprintf(text, sizeof text, "\t%d\t%.4f\t%.1f %.1f %.1f %.1f\t", number, d(face.score), d(face.box.x0),
                d(face.box.y0), d(face.box.x1), d(face.box.y1));
  std::string all = escaped(picture) + text;
  for (int k = 0; k < 5; ++k) {
    std::snprintf(text, sizeof text, k == 0 ? "%.1f %.1f" : " %.1f %.1f", d(face.landmarks[k].x),
                  d(face.landmarks[k].y));
    all += text;
  }
  return all;
}

class Detection {
 public:
  explicit Detection(const DetectOptions& options) : options_(options) {}

  int run() {
    if (!prepare()) return failed;
    Progress progress(options_.pictures.size());
    for (const std::string& name : options_.pictures) {
      auto picture = read_picture(name);
      facenet::Status status = picture.status();
      if (picture.ok()) status = find_faces(detector_, *picture, faces_);
      progress.clear();
      if (!status.ok()) {
        say(status, name, Subject::picture);
        all_done_ = false;
      } else if (!report(name, *picture)) {
        return failed;
      }
      progress.step();
    }
    if (!out_.finish() || !all_done_) return failed;
    return found_ ? done : no;
  }

 private:
  /// Everything that can be known to fail before the work is done.
  bool prepare() {
    const bool crops = !options_.crops.empty();
    if ((crops || weights_named(options_.crop.weights)) && !choose_crop(options_.crop, crop_)) return false;
    if (!options_.draw.empty())
      draw_to_folder_ = options_.pictures.size() > 1 || options_.draw.back() == '/' || is_folder(options_.draw);
    if (!claim_outputs() || (crops && !make_folder(options_.crops))) return false;
    if (!options_.draw.empty()) {
      if (draw_to_folder_ && !make_folder(options_.draw)) return false;
      NewFile trial;
      if (const int error = draw_to_folder_ ? 0 : trial.open(options_.draw))
        return say_unwritable(options_.draw, error);
    }
    auto detector = load_detector(options_.faces, options_.threads, weights_file(options_.crop.weights));
    if (detector) detector_ = std::move(*detector);
    return detector.ok();
  }

  /// False, and said, where a drawing or a crop would replace a picture, a weight file or each other.
  bool claim_outputs() {
    Claims claims;
    for (const std::string& name : options_.pictures) claims.reads(name);
    claims.reads(weights_file(options_.crop.weights));
    claims.reads(options_.faces.detector);
    std::set<std::string> taken;
    for (const std::string& name : options_.pictures) {
      const std::string short_one = short_name(name, taken);
      if (!options_.draw.empty() && !claims.writes(drawing(short_one))) return false;
      if (!options_.crops.empty() && !claims.writes_numbered(options_.crops + "/" + short_one)) return false;
    }
    return true;
  }

  std::string drawing(const std::string& short_one) const {
    return draw_to_folder_ ? options_.draw + "/" + short_one + ".png" : options_.draw;
  }

  /// Prints and writes what was found in one picture. False when stdout is lost.
  bool report(const std::string& name, facenet::Image& picture) {
    found_ = found_ || !faces_.empty();
    const std::string short_one = short_name(name, taken_);
    std::vector<std::string> crops;
    if (!options_.crops.empty()) all_done_ = write_crops(name, short_one, picture, crops) && all_done_;
    if (options_.json) {
      if (!out_.line(as_json(name, faces_, crops))) return false;
    } else {
      for (int i = 0; i < faces_.size(); ++i)
        if (!out_.line(as_text(name, faces_[i], i))) return false;
      if (faces_.empty()) say((name == "-" ? "standard input" : name) + ": no face was found.");
    }
    if (!options_.draw.empty()) {
      for (int i = faces_.size() - 1; i >= 0; --i) draw_face(picture, faces_[i], i);  // the first one on top
      const std::string path = drawing(short_one);
      const int error = write_file(path, png(picture));
      if (error != 0) all_done_ = say_unwritable(path, error);
    }
    return true;
  }

  /// False when one could not be made, which has been said; the others are there.
  bool write_crops(const std::string& name, const std::string& short_one, const facenet::Image& picture,
                   std::vector<std::string>& crops) {
    bool all = true;
    for (int i = 0; i < faces_.size(); ++i) {
      crops.push_back(options_.crops + "/" + short_one + "_" + std::to_string(i) + ".png");
      const auto crop = facenet::crop_face(picture, faces_[i], crop_);
      const int error = crop ? write_file(crops.back(), png(*crop)) : 0;
      if (!crop) say(crop.status(), name, Subject::picture);
      if (error != 0) say_unwritable(crops.back(), error);
      all = all && crop.ok() && error == 0;
    }
    return all;
  }

  const DetectOptions& options_;
  facenet::Detector detector_;
  facenet::Faces faces_;
  facenet::ModelInfo crop_{};
  std::set<std::string> taken_;
  Output out_;
  bool draw_to_folder_ = false, all_done_ = true, found_ = false;
};

}  // namespace

int detect(const DetectOptions& options) { return Detection(options).run(); }

}  // namespace command
