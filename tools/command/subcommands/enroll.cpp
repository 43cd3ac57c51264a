// Faces into a gallery: of one person, or of a folder for each. Each picture is one transaction, and a line on stdout
// only when it is on the disk.
#include <filesystem>
#include <memory>

#include "facenet/base/hash.hpp"
#include "command/cli/sub_command.hpp"
#include "command/engine/faces.hpp"
#include "command/engine/gallery_model.hpp"
#include "store/gallery_store.hpp"
#include "command/io/json.hpp"
#include "command/engine/model.hpp"
#include "command/io/output.hpp"
#include "command/engine/picture_json.hpp"
#include "command/engine/pictures.hpp"
#include "command/io/tree.hpp"

namespace command {

namespace {

struct Options {
  ModelOptions model;
  FaceOptions faces;
  std::string gallery, name, folder;  // name and pictures, or a folder of persons' folders
  std::vector<std::string> exclude;   // of that folder
  std::vector<std::string> pictures;
  bool chosen = false;  // --select was given: it says whose face it is where there are several
  bool aligned = false, json = false;
};

namespace fs = std::filesystem;

struct Job {
  std::string person, picture;
};

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
  explicit Enrolment(const Options& options) : options_(options), store_(options.gallery, Access::create) {}

  int run() {
    if (!plan() || !prepare()) return failed;
    Progress progress(jobs_.size());
    for (const Job& job : jobs_) {
      const facenet::Status status = enroll(job, progress);
      progress.clear();
      if (!status.ok()) refuse(job, sentence(status, job.picture, Subject::picture));
      if (lost_) return failed;
      progress.step();
    }
    if (!out_.finish() || !all_done_) return failed;
    return known_ ? done : no;
  }

 private:
  /// The picture's person is not enrolled from it, and that is an error.
  void refuse(const Job& job, const std::string& failure) {
    say(failure);
    report_failure(job, failure);
  }
  void report_failure(const Job& job, const std::string& failure) {
    all_done_ = false;
    if (options_.json) print(failed_picture(job.picture, failure), job.person);
  }
  void print(Json j, const std::string& person) {
    j["name"] = person;
    lost_ = lost_ || !out_.line(line(j));
  }

  /// Who is to be enrolled from which pictures. False when that is nobody, which has been reported.
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
    Tree tree(options_.exclude);
    if (!is_folder(options_.folder)) return false;
    all_done_ = tree.collect(root);
    tree.say_left_out();
    std::size_t outside = 0;
    std::string refused;
    for (const fs::path& picture : tree.pictures) {
      const fs::path inside = picture.lexically_relative(root);
      const std::string person = inside.begin()->string();
      const std::string wrong = wrong_name(person);
      if (std::next(inside.begin()) == inside.end()) {
        ++outside;
      } else if (!wrong.empty()) {
        const std::string failure = as_utf8((root / person).string()) + ": " + wrong + "; rename this folder.";
        if (person != refused) say(failure);
        refused = person;
        report_failure({person, picture.string()}, failure);
      } else {
        jobs_.push_back({person, picture.string()});
      }
    }
    if (outside != 0)
      note(options_.folder + ": " + std::to_string(outside) +
           " picture(s) lie in no person's folder and are left out.");
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
      report(t, false, nullptr);
      return {};
    }
    FACENET_TRY(decode(bytes->span(), job.picture, source_.picture()));
    FACENET_TRY(source_.cut(source_.picture(), faces_));
    progress.clear();
    if (faces_.empty()) {
      note(shown(job.picture) + ": no face was found, so nothing was enrolled.");
      if (options_.json) print(faceless_picture(job.picture), job.person);
    } else if (faces_.size() > 1 && !options_.chosen) {
      refuse(job, shown(job.picture) + ": " + std::to_string(faces_.size()) + " faces were found, and which one is " +
                      job.person + "'s is not said; give --select, or a picture of that face alone.");
    } else {
      const CutFace& first = faces_[0];
      const facenet::Box& b = first.face.box;
      const float box[] = {b.x0, b.y0, b.x1, b.y1};
      for (int i = 0; i < 4; ++i) t.box[i] = static_cast<double>(box[i]);
      t.score = static_cast<double>(first.face.score);
      t.embedding.resize(static_cast<std::size_t>(embedder_.dim()));
      FACENET_TRY(embed_crop(embedder_, first.crop, t.embedding));
      add(job, t);
    }
    return {};
  }

  void add(const Job& job, Template& t) {
    const GalleryStore::Addition addition = store_.add(model_, t);
    t.id = addition.id;
    warn_untrained(embedder_.info());
    if (addition.added == GalleryStore::Added::another_person) {
      refuse(job, shown(t.image) + ": this face is enrolled as '" + addition.owner + "' already, so it cannot be '" +
                      t.name + "'; remove one of them.");
    } else {
      report(t, addition.added == GalleryStore::Added::yes, &faces_[0].face);
    }
  }

  /// `face`: null where the file was known, so that the picture was not decoded.
  void report(const Template& t, bool is_new, const facenet::Face* face) {
    known_ = true;
    if (!options_.json) {
      lost_ = lost_ || !out_.row({is_new ? "enrolled" : "there", t.name, t.image});
      return;
    }
    Json j;
    j["image"] = t.image;
    j["name"] = t.name;
    if (face != nullptr) j.update(face_json(*face, options_.aligned));
    j["template"] = t.id;
    j["enrolled"] = is_new;
    j["model"] = model_.digest;
    j["trained"] = model_.trained;
    lost_ = lost_ || !out_.line(line(j));
  }

  const Options& options_;
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

SubCommand enroll_command() {
  const auto o = std::make_shared<Options>();
  return {
      "enroll", "Add a person's faces to a gallery",
      "Adds faces to the gallery DB, a file that is made if need be: of one person from pictures, or with --dir of a "
      "folder\n"
      "that holds a folder of pictures for each person, named as the person. A person may have any number of pictures. "
      "Each\n"
      "picture's line is printed when it is safely on the disk; what is enrolled already (by the content of the file) "
      "is\n"
      "left as it is, so that a call that was stopped goes on where it was. A picture with several faces is refused "
      "unless\n"
      "--select says which one is meant. Names are kept exactly as they are given, in UTF-8.\n\n"
      "Examples:\n"
      "  facenet enroll staff.gallery 'Ada Lovelace' ada1.jpg ada2.jpg\n"
      "  facenet enroll --select largest staff.gallery 'Ada Lovelace' party.jpg\n"
      "  facenet enroll staff.gallery --dir photographs/     photographs/NAME/*.jpg\n\n",
      [o](OptionSet& options) {
        options.positional("DB", o->gallery, "The gallery").required();
        const Option name = options.positional("NAME", o->name, "The person");
        const Option pictures = options.positional("IMAGE", o->pictures, "JPEG or PNG files; - is standard input");
        const Option folder = options.option("--dir", "DIR", o->folder, "Enroll a folder of persons' folders instead");
        options.exclude(o->exclude);
        options.aligned(o->aligned);
        const Option select = options.one_face(o->faces);
        options.model(o->model);
        options.check([=]() -> std::string {
          o->chosen = select.given();
          if (folder.given() && name.given())
            return "--dir names the persons by their folders: NAME and IMAGE do not go with it";
          if (!folder.given() && !pictures.given()) return "NAME and IMAGE, or --dir, are required";
          return {};
        });
      },
      [o](bool json) {
        o->json = json;
        return Enrolment(*o).run();
      }};
}

}  // namespace command
