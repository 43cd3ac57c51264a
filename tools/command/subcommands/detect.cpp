#include <cstdio>
#include <filesystem>
#include <memory>
#include <set>

#include "command/cli/sub_command.hpp"
#include "command/io/overwrite_guard.hpp"
#include "command/io/escape.hpp"
#include "command/report/draw.hpp"
#include "command/engine/faces.hpp"
#include "command/io/file_list.hpp"
#include "command/io/json.hpp"
#include "command/engine/model.hpp"
#include "command/io/output.hpp"
#include "command/engine/pictures.hpp"
#include "command/engine/picture_json.hpp"
#include "command/engine/png.hpp"

namespace command {

namespace {

struct Options {
  FaceOptions faces;
  CropOptions crop;
  std::vector<std::string> pictures;
  PictureLists lists;
  std::string draw, crops;  // "": none
  int threads = 0;
  bool json = false;
};

/// "photo" for "folder/photo.jpg"; "photo-2" for another picture of that name in the same run.
std::string short_name(const std::string& picture, std::set<std::string>& taken) {
  std::string name = picture == "-" ? "stdin" : picture.substr(picture.rfind('/') + 1);
  const std::size_t dot = name.rfind('.');
  if (dot != std::string::npos && dot > 0) name.resize(dot);
  constexpr std::size_t longest_end = 16;  // "_" and a number, ".png"
  name = file_name(name, std::string(longest_end, ' '));
  name.resize(name.size() - longest_end);
  std::string free = name;
  for (int n = 2; !taken.insert(free).second; ++n) free = name + "-" + std::to_string(n);
  return free;
}

/// What was written beside the lines of one picture, and what there was to say about what could not be.
struct Written {
  std::vector<std::string> crops;  // "" where a face's is not there; none where none were wanted
  std::string failure;             // the first
};

std::string as_json(const std::string& picture, const std::vector<facenet::Face>& faces,
                    const std::vector<FaceQuality>& quality, const Written& written) {
  Json j = faceless_picture(picture);
  for (std::size_t i = 0; i < faces.size(); ++i) {
    Json face = face_json(faces[i], quality[i], false);
    const std::string crop = written.crops.empty() ? "" : written.crops[i];
    if (!crop.empty()) face["crop"] = crop;
    j["faces"].push_back(std::move(face));
  }
  if (!written.failure.empty()) j["error"] = written.failure;
  return line(j);
}

/// Name, number of the face, score, box and landmarks, the numbers of these two separated by spaces.
std::vector<std::string> as_fields(const std::string& picture, const facenet::Face& face, std::size_t number) {
  const auto d = [](float x) { return static_cast<double>(x); };
  char score[32], box[200], point[100];
  std::snprintf(score, sizeof score, "%.4f", d(face.score));
  std::snprintf(box, sizeof box, "%.1f %.1f %.1f %.1f", d(face.box.x0), d(face.box.y0), d(face.box.x1), d(face.box.y1));
  std::string landmarks;
  for (int k = 0; k < 5; ++k) {
    std::snprintf(point, sizeof point, k == 0 ? "%.1f %.1f" : " %.1f %.1f", d(face.landmarks[k].x),
                  d(face.landmarks[k].y));
    landmarks += point;
  }
  return {picture, std::to_string(number), score, box, landmarks};
}

class Detection {
 public:
  explicit Detection(const Options& options) : options_(options) {}

  int run() {
    if (!prepare()) return failed;
    Progress progress(options_.pictures.size());
    for (const std::string& name : options_.pictures) {
      facenet::Status status = read_picture(name, picture_);
      if (status.ok()) status = finder_.find(picture_);
      if (status.ok()) status = measure();
      progress.clear();
      if (!(status.ok() ? report(name, picture_) : report_failure(name, sentence(status, name, Subject::picture))))
        return failed;
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
    std::error_code none;
    if (!options_.draw.empty())
      draw_to_folder_ = options_.pictures.size() > 1 || options_.draw.back() == '/' ||
                        std::filesystem::is_directory(options_.draw, none);
    if (!claim_outputs() || (crops && !make_folder(options_.crops))) return false;
    if (!options_.draw.empty()) {
      if (draw_to_folder_ && !make_folder(options_.draw)) return false;
      NewFile trial;
      if (const int error = draw_to_folder_ ? 0 : trial.open(options_.draw))
        return say_unwritable(options_.draw, error);
    }
    return finder_.load(options_.faces, options_.threads, weights_file(options_.crop.weights));
  }

  /// False, and reported, where a drawing or a crop would replace a picture, a weight file or each other.
  bool claim_outputs() {
    OverwriteGuard guard;
    for (const std::string& name : options_.pictures) guard.reads(name);
    guard.reads(weights_file(options_.crop.weights));
    guard.reads(detector_file(options_.faces, weights_file(options_.crop.weights)));
    std::set<std::string> taken;
    for (const std::string& name : options_.pictures) {
      const std::string short_one = short_name(name, taken);
      if (!options_.draw.empty() && !guard.writes(drawing(short_one))) return false;
      if (!options_.crops.empty() && !guard.writes_numbered(options_.crops + "/" + short_one)) return false;
    }
    return true;
  }

  std::string drawing(const std::string& short_one) const {
    return draw_to_folder_ ? options_.draw + "/" + short_one + ".png" : options_.draw;
  }

  /// False when stdout is lost; so below.
  bool report_failure(const std::string& name, const std::string& failure) {
    say(failure);
    all_done_ = false;
    return !options_.json || out_.line(line(failed_picture(name, failure)));
  }

  facenet::Status measure() {
    quality_.clear();
    for (std::size_t i = 0; options_.json && i < faces().size(); ++i) {
      const auto quality = finder_.quality(picture_, i);
      if (!quality) return quality.status();
      quality_.push_back(*quality);
    }
    return {};
  }

  /// Prints and writes what was found in one picture.
  bool report(const std::string& name, Picture& picture) {
    found_ = found_ || !faces().empty();
    const std::string short_one = short_name(name, taken_);
    Written written;
    if (!options_.crops.empty()) write_crops(name, short_one, picture, written);
    if (!options_.draw.empty()) write_drawing(drawing(short_one), picture, written);
    picture.release();
    if (options_.json) return out_.line(as_json(name, faces(), quality_, written));
    for (std::size_t i = 0; i < faces().size(); ++i)
      if (!out_.row(as_fields(name, faces()[i], i))) return false;
    if (faces().empty()) note(shown(name) + ": no face was found" + no_face_advice(options_.faces) + ".");
    return true;
  }

  void write_crops(const std::string& name, const std::string& short_one, const Picture& picture, Written& written) {
    for (std::size_t i = 0; i < faces().size(); ++i) {
      const std::string path = options_.crops + "/" + short_one + "_" + std::to_string(i) + ".png";
      const auto crop = finder_.crop(picture, i, crop_);
      const int error = crop ? write_file(path, png(*crop)) : 0;
      if (!crop) fail(written, sentence(crop.status(), name, Subject::picture));
      if (error != 0) fail(written, unwritable(path, error));
      written.crops.push_back(crop.ok() && error == 0 ? path : "");
    }
  }

  void write_drawing(const std::string& path, Picture& picture, Written& written) {
    for (std::size_t i = faces().size(); i-- > 0;)  // the first one on top
      draw_face(picture, picture.from_given(faces()[i]), static_cast<int>(i));
    const int error = write_file(path, png(picture));
    if (error != 0) fail(written, unwritable(path, error));
  }

  void fail(Written& written, const std::string& failure) {
    say(failure);
    all_done_ = false;
    if (written.failure.empty()) written.failure = failure;
  }

  const std::vector<facenet::Face>& faces() const { return finder_.faces(); }

  const Options& options_;
  FaceFinder finder_;
  Picture picture_;
  std::vector<FaceQuality> quality_;  // of each, with --json
  facenet::ModelInfo crop_{};
  std::set<std::string> taken_;
  Output out_;
  bool draw_to_folder_ = false, all_done_ = true, found_ = false;
};

}  // namespace

SubCommand detect_command() {
  const auto o = std::make_shared<Options>();
  return {
      "detect", "Find the faces in pictures",
      "Prints a line for each face: picture, number of the face, score, box (x1 y1 x2 y2) and landmarks (eyes, nose,\n"
      "corners of the mouth), with TABs between; with --json one object a picture. Faces are in --select's order.\n\n"
      "Examples:\n"
      "  facenet detect group.jpg\n"
      "  facenet detect --json --min-face 60 --select probability *.jpg > faces.jsonl\n"
      "  facenet detect --draw found.png --crops crops/ group.jpg\n"
      "  facenet detect --draw found/ *.jpg     one picture each, found/NAME.png\n\n",
      [o](OptionSet& options) {
        options.pictures(o->pictures);
        options.files_from(o->lists.list, o->lists.zero);
        options.exclude(o->lists.exclude);
        options.option("--draw", "OUT", o->draw,
                       "Write the picture with boxes, landmarks and scores to OUT (PNG); a folder, or several "
                       "pictures: to OUT/NAME.png");
        options.option("--crops", "DIR", o->crops,
                       "Write each face as the embedder would see it to DIR/NAME_FACE.png (a new DIR has mode 0700)");
        options.faces(o->faces);
        options.crop(o->crop);
        options.threads(o->threads);
      },
      [o](bool json) -> int {
        o->json = json;
        const bool all = resolve_pictures(o->lists, o->pictures);
        if (o->pictures.empty()) return failed;
        const int status = Detection(*o).run();
        return all ? status : failed;
      }};
}

}  // namespace command
