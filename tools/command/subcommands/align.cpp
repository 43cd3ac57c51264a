// A tree of photographs to a tree of face crops. Each thread takes one picture after the other, with a detector of its
// own: that scales better than several threads in one small picture.
#include <algorithm>
#include <atomic>
#include <cerrno>
#include <filesystem>
#include <memory>
#include <mutex>
#include <new>
#include <set>

#include "facenet/base/parallel.hpp"
#include "command/cli/sub_command.hpp"
#include "command/engine/faces.hpp"
#include "command/io/escape.hpp"
#include "command/io/json.hpp"
#include "command/engine/model.hpp"
#include "command/io/output.hpp"
#include "command/engine/pictures.hpp"
#include "command/engine/picture_json.hpp"
#include "command/engine/png.hpp"
#include "command/io/tree.hpp"

namespace command {

namespace {

struct Options {
  FaceOptions faces;
  CropOptions crop;
  std::string from, to;
  std::vector<std::string> exclude;  // patterns, as Tree takes them; so below
  int threads = 0;
  bool json = false;
};

namespace fs = std::filesystem;

enum class Outcome { waiting, written, there, no_face, failed };

struct Job {
  fs::path from, to;
  Outcome outcome = Outcome::waiting;
  std::string failure{};  // what has been reported
};

/// OUT/person/photo.png for DIR/person/photo.jpg; where a folder has photo.jpg and photo.png, photo.jpg.png and
/// photo.png.png.
std::vector<Job> plan(const Tree& tree, const fs::path& from, const fs::path& to) {
  std::vector<Job> jobs;
  std::multiset<fs::path> wanted;
  const auto named = [](const fs::path& p, const std::string& stem) {
    return p.parent_path() / file_name(stem, ".png");
  };
  const auto beside = [&](const fs::path& p) { return named(p, p.stem().string()); };
  for (const fs::path& p : tree.pictures) wanted.insert(beside(p));
  std::set<fs::path> taken;
  for (const fs::path& p : tree.pictures) {
    fs::path name = wanted.count(beside(p)) == 1 ? beside(p) : named(p, p.filename().string());
    for (int n = 2; !taken.insert(name).second; ++n)
      name = p.parent_path() / file_name(p.filename().string(), "-" + std::to_string(n) + ".png");
    jobs.push_back({p, to / name.lexically_relative(from)});
  }
  return jobs;
}

class Alignment {
 public:
  explicit Alignment(const Options& options) : options_(options) {}

  int run() {
    if (!prepare()) return failed;
    work();
    return summary();
  }

 private:
  bool prepare() {
    const fs::path from = options_.from, to = options_.to;
    std::error_code error;
    if (!is_folder(options_.from)) return false;
    if (!choose_crop(options_.crop, crop_)) return false;
    FaceOptions one = options_.faces;
    one.max_faces = 1;
    FaceFinder first;
    if (!first.load(one, 1, weights_file(options_.crop.weights))) return false;
    if (!make_folder(options_.to)) return false;
    if (fs::equivalent(from, to, error)) {
      say(options_.to + ": the crops would lie among the pictures; give another folder for them.");
      return false;
    }
    all_read_ = tree_.collect(from, to);
    jobs_ = plan(tree_, from, to);
    if (jobs_.empty()) {
      if (all_read_) tree_.say_empty();
      return false;
    }
    set_out();
    return same_size() && start(std::move(first));
  }

  /// Crops of two sizes in one folder are useless: a run that would mix them is refused.
  bool same_size() const {
    for (const Job& job : jobs_) {
      if (job.outcome != Outcome::there) continue;
      const PngSize there = png_size(job.to.string());
      if (there.width == 0 || (there.width == crop_.image_size && there.height == crop_.image_size)) continue;
      say(job.to.string() + ": this crop is there already, with " + std::to_string(there.width) + "x" +
          std::to_string(there.height) + " pixels, and this run makes " + std::to_string(crop_.image_size) + "x" +
          std::to_string(crop_.image_size) + "; give another folder, or the --size of what is there.");
      return false;
    }
    return true;
  }

  /// What an earlier run has done is left alone.
  void set_out() {
    for (std::size_t i = 0; i < jobs_.size(); ++i) {
      std::error_code error;
      if (fs::is_regular_file(jobs_[i].to, error))
        jobs_[i].outcome = Outcome::there;
      else
        waiting_.push_back(i);
    }
  }

  bool start(FaceFinder first) {
    const int most = options_.threads == 0 ? facenet::default_threads() : options_.threads;
    const int threads = std::max(1, std::min(most, static_cast<int>(std::min(waiting_.size(), std::size_t{256}))));
    facenet::Status status = team_.start(threads);
    set_picture_options(options_.faces, team_.size());
    finders_.push_back(std::move(first));
    while (status.ok() && finders_.size() < static_cast<std::size_t>(team_.size())) {
      auto next = finders_[0].fork();
      if (next)
        finders_.push_back(std::move(*next));
      else
        status = next.status();
    }
    if (!status.ok()) say(std::string(status.text()) + "; give fewer --threads.");
    return status.ok();
  }

  void work() {
    Progress progress(waiting_.size());
    std::atomic<std::size_t> next{0};
    team_.run([&](int member, int) noexcept {
      Picture picture;
      for (std::size_t i; !stop_ && (i = next.fetch_add(1)) < waiting_.size();) {
        Job& job = jobs_[waiting_[i]];
        try {
          job.failure = align_one(finders_[static_cast<std::size_t>(member)], picture, job);
        } catch (const std::bad_alloc&) {
          job.outcome = Outcome::failed;
          job.failure = "there is not enough memory for a picture; give fewer --threads.";
        }
        const std::lock_guard<std::mutex> lock(speaking_);
        if (job.outcome == Outcome::failed) progress.clear();
        if (job.outcome == Outcome::failed) say(job.failure);
        progress.step();
      }
    });
  }

  /// Sets the outcome; returns what there is to say about a failure.
  std::string align_one(FaceFinder& finder, Picture& picture, Job& job) {
    job.outcome = Outcome::failed;
    const facenet::Status read = read_picture(job.from.string(), picture);
    if (!read.ok()) return sentence(read, job.from.string(), Subject::picture);
    const facenet::Status found = finder.find(picture);
    if (!found.ok()) return sentence(found, job.from.string(), Subject::picture);
    if (finder.faces().empty()) {
      job.outcome = Outcome::no_face;
      return {};
    }
    const auto crop = finder.crop(picture, 0, crop_);
    if (!crop) return sentence(crop.status(), job.from.string(), Subject::picture);
    picture.release();
    int error = make_private_folder(job.to.parent_path().string());
    if (error == 0) error = write_file(job.to.string(), png(*crop));
    if (error == 0) {
      job.outcome = Outcome::written;
      return {};
    }
    // Nothing more can be written: the rest would only repeat this. Run again, it goes on here.
    stop_ = stop_ || error == ENOSPC || error == EDQUOT || error == EROFS || error == EIO;
    return unwritable(job.to.string(), error);
  }

  int summary() {
    std::size_t written = 0, there = 0, left = 0;
    std::vector<std::string> faceless, broken;
    Json errors = Json::array();
    for (const Job& job : jobs_) {
      written += job.outcome == Outcome::written;
      there += job.outcome == Outcome::there;
      left += job.outcome == Outcome::waiting;
      if (job.outcome == Outcome::no_face) faceless.push_back(job.from.string());
      if (job.outcome != Outcome::failed) continue;
      broken.push_back(job.from.string());
      errors.push_back(failed_picture(broken.back(), job.failure));
    }
    tree_.say_left_out();
    Output out;
    bool printed;
    if (options_.json) {
      Json j;
      j["pictures"] = jobs_.size();
      j["written"] = written;
      j["there"] = there;
      j["without_face"] = faceless;
      j["failed"] = broken;
      j["errors"] = std::move(errors);
      j["left"] = left;
      j["left_out"] = tree_.left_out.json();
      j["crop"] = {{"kind", crop_.crop == facenet::Crop::box ? "box" : "five_point"},
                   {"size", crop_.image_size},
                   {"margin", static_cast<float>(crop_.margin)}};
      printed = out.line(line(j));
    } else {
      printed = out.row({std::to_string(jobs_.size()) + " pictures: " + std::to_string(written) + " crops written (" +
                         describe_crop(crop_) + "), " + std::to_string(there) + " were there, " +
                         std::to_string(faceless.size()) + " without a face, " + std::to_string(broken.size()) +
                         " failed" + (left == 0 ? "" : ", " + std::to_string(left) + " left for another run")});
      for (const std::string& name : faceless) printed = printed && out.row({"without a face: " + name});
      for (const std::string& name : broken) printed = printed && out.row({"failed: " + name});
    }
    if (!printed || !out.finish() || !all_read_ || !broken.empty() || left != 0) return failed;
    return written + there == 0 ? no : done;
  }

  const Options& options_;
  facenet::ModelInfo crop_{};
  std::vector<Job> jobs_;
  std::vector<std::size_t> waiting_;  // numbers of jobs
  std::vector<FaceFinder> finders_;
  facenet::Team team_;
  std::mutex speaking_;
  std::atomic<bool> stop_{false};
  Tree tree_{options_.exclude};
  bool all_read_ = true;
};

}  // namespace

SubCommand align_command() {
  const auto o = std::make_shared<Options>();
  return {
      "align", "Turn a folder of photographs into a folder of face crops",
      "Writes OUT/person/photo.png for DIR/person/photo.jpg: the face that --select puts first. JPEG and PNG files in\n"
      "DIR and all folders below it are taken, by their content. What is in OUT already is left as it is: run again "
      "after\n"
      "a stop, the command goes on where it was. The summary on standard output names the pictures without a face and\n"
      "those that failed; one line on standard error counts what was left out (hidden and system files, other "
      "formats).\n\n"
      "Examples:\n"
      "  facenet align photographs/ crops/\n"
      "  facenet align --crop box --margin 32 --size 182 --select centre_weighted lfw/ lfw_182/\n\n",
      [o](OptionSet& options) {
        options.positional("DIR", o->from, "The folder with the pictures").required();
        options.positional("OUT", o->to, "The folder for the crops, made if need be (mode 0700)").required();
        options.exclude(o->exclude);
        options.one_face(o->faces);
        options.crop(o->crop);
        options.threads(o->threads);
      },
      [o](bool json) {
        o->json = json;
        return Alignment(*o).run();
      }};
}

}  // namespace command
