// Faces into a gallery: of one person, or of a folder for each. Each picture is one transaction, and a line on stdout
// only when it is on the disk.
#include <filesystem>

#include "facenet/hash.hpp"
#include "faces.hpp"
#include "gallery_store.hpp"
#include "json.hpp"
#include "model.hpp"
#include "output.hpp"
#include "pictures.hpp"
#include "tree.hpp"

namespace command {

namespace {

namespace fs = std::filesystem;

struct Job {
  std::string person, picture;
};

std::string shown(const std::string& picture) { return picture == "-" ? "standard input" : picture; }

std::string sha256(facenet::Span<const std::uint8_t> bytes) {
  facenet::Sha256 hash;
  std::uint8_t digest[facenet::Sha256::digest_size];
  char digits[2 * sizeof digest + 1];
  hash.update(bytes.data(), bytes.size());
  hash.digest(digest);
  facenet::to_hex({digest, sizeof digest}, digits);
  return digits;
}

class Enrolment {
 public:
  explicit Enrolment(const EnrollOptions& options) : options_(options), store_(options.gallery, Access::create) {}

  int run() {
    if (!plan() || !prepare()) return failed;
    Progress progress(jobs_.size());
    for (const Job& job : jobs_) {
      const facenet::Status status = enroll(job, progress);
      progress.clear();
      if (!status.ok()) {
        say(status, job.picture, Subject::picture);
        all_done_ = false;
      }
      if (lost_) return failed;
      progress.step();
    }
    if (!out_.finish() || !all_done_) return failed;
    return known_ ? done : no;
  }

 private:
  /// Who is to be enrolled from which pictures. False when that is nobody, which has been said.
  bool plan() {
    if (!options_.folder.empty()) return plan_folder();
    const std::string wrong = wrong_name(options_.name);
    if (!wrong.empty()) say(wrong + "; give one of 1 to 255 bytes of UTF-8 without control characters.");
    for (const std::string& picture : options_.pictures) jobs_.push_back({options_.name, picture});
    return wrong.empty();
  }

  /// FOLDER/NAME/… belongs to NAME, however deep.
  bool plan_folder() {
    const fs::path root = options_.folder;
    Tree tree;
    if (!is_folder(options_.folder)) return false;
    all_done_ = tree.collect(root);
    std::size_t outside = 0;
    std::string refused;
    for (const fs::path& picture : tree.pictures) {
      const fs::path inside = picture.lexically_relative(root);
      const std::string person = inside.begin()->string();
      const std::string wrong = wrong_name(person);
      if (std::next(inside.begin()) == inside.end()) {
        ++outside;
      } else if (!wrong.empty()) {
        if (person != refused) say(as_utf8((root / person).string()) + ": " + wrong + "; rename this folder.");
        refused = person;
        all_done_ = false;
      } else {
        jobs_.push_back({person, picture.string()});
      }
    }
    if (outside != 0)
      say(options_.folder + ": " + std::to_string(outside) + " picture(s) lie in no person's folder and are left out.");
    if (jobs_.empty() && all_done_)
      say(options_.folder + ": there is no folder with pictures in it; make one for each person.");
    return !jobs_.empty();
  }

  bool prepare() {
    auto embedder = load(options_.model);
    if (!embedder) return false;
    store_.require(gallery_model(embedder->info(), ""));
    if (!source_.load(options_.faces, options_.aligned, options_.model, embedder->info())) return false;
    embedder_ = std::move(*embedder);
    model_ = gallery_model(embedder_.info(), source_.detector());
    return true;
  }

  facenet::Status enroll(const Job& job, Progress& progress) {
    Template t;
    t.name = job.person;
    t.image = as_utf8(job.picture);
    auto bytes = read_bytes(job.picture);
    if (!bytes) return bytes.status();
    t.sha256 = sha256(bytes->span());
    t.id = store_.find(t.name, t.sha256);
    if (t.id != 0) {
      report(t, false);
      return {};
    }
    auto picture = decode(bytes->span(), job.picture);
    if (!picture) return picture.status();
    FACENET_TRY(source_.cut(std::move(*picture), faces_));
    progress.clear();
    if (faces_.empty()) {
      say(shown(job.picture) + ": no face was found, so nothing was enrolled.");
    } else if (faces_.size() > 1 && !options_.chosen) {
      say(shown(job.picture) + ": " + std::to_string(faces_.size()) + " faces were found, and which one is " +
          job.person + "'s is not said; give --select, or a picture of that face alone.");
      all_done_ = false;
    } else {
      const CutFace& first = faces_[0];
      const facenet::Box& b = first.face.box;
      const float box[] = {b.x0, b.y0, b.x1, b.y1};
      for (int i = 0; i < 4; ++i) t.box[i] = static_cast<double>(box[i]);
      t.score = static_cast<double>(first.face.score);
      t.embedding.resize(static_cast<std::size_t>(embedder_.dim()));
      FACENET_TRY(embed_crop(embedder_, first.crop, t.embedding.data()));
      add(t);
    }
    return {};
  }

  void add(Template& t) {
    const GalleryStore::Addition addition = store_.add(model_, t);
    t.id = addition.id;
    warn_untrained(embedder_.info());
    if (addition.added == GalleryStore::Added::another_person) {
      say(shown(t.image) + ": this face is enrolled as '" + addition.owner + "' already, so it cannot be '" + t.name +
          "'; remove one of them.");
      all_done_ = false;
    } else {
      report(t, addition.added == GalleryStore::Added::yes);
    }
  }

  void report(const Template& t, bool is_new) {
    known_ = true;
    if (!options_.json) {
      lost_ = !out_.line((is_new ? "enrolled\t" : "there\t") + t.name + "\t" + t.image);
      return;
    }
    Json j;
    j["image"] = t.image;
    j["name"] = t.name;
    j["template"] = t.id;
    j["enrolled"] = is_new;
    j["model"] = model_.digest;
    j["trained"] = model_.trained;
    lost_ = !out_.line(line(j));
  }

  const EnrollOptions& options_;
  GalleryStore store_;
  GalleryModel model_;
  std::vector<Job> jobs_;
  facenet::Embedder embedder_;
  FaceSource source_;
  std::vector<CutFace> faces_;
  Output out_;
  bool all_done_ = true, known_ = false, lost_ = false;
};

}  // namespace

int enroll(const EnrollOptions& options) { return Enrolment(options).run(); }

}  // namespace command
