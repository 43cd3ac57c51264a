// Faces into a gallery: of one person, or of a folder for each. Each picture is one transaction, and a line on stdout
// only when it is on the disk.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>

#include "command/cli/sub_command.hpp"
#include "command/engine/face_choice.hpp"
#include "command/engine/faces.hpp"
#include "command/engine/gallery_index.hpp"
#include "command/engine/gallery_model.hpp"
#include "store/gallery_store.hpp"
#include "command/io/json.hpp"
#include "command/engine/model.hpp"
#include "command/io/output.hpp"
#include "command/engine/picture_json.hpp"
#include "command/engine/pictures.hpp"
#include "command/engine/threshold.hpp"
#include "command/io/tree.hpp"

namespace command {

namespace {

struct Options {
  ModelOptions model;
  FaceOptions faces;
  std::string gallery, name, folder;  // name and pictures, or a folder of persons' folders
  std::vector<std::string> exclude;   // of that folder
  std::vector<std::string> pictures;
  FaceLimits limits{enrolled_score, enrolled_area, 0};
  std::string threshold;              // up to which another person's template is a near-duplicate; "": the model's
  std::string duplicates = "report";  // or "refuse", "ignore"
  bool chosen = false;                // --select was given: it says whose face it is where there are several
  bool aligned = false, json = false;
};

namespace fs = std::filesystem;

struct Job {
  std::string person, picture;
};

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
    if (!resolve_threshold(options_.threshold, embedder_.info(), threshold_)) return false;
    // By distances that mean nothing everybody would be everybody.
    looks_for_duplicates_ = options_.duplicates != "ignore" && embedder_.info().trained;
    if (!looks_for_duplicates_) return true;
    const facenet::Status loaded = others_.load(store_, embedder_.dim(), options_.model.threads);
    if (!loaded.ok()) say(options_.gallery + ": " + loaded.text() + "; give --duplicates ignore.");
    return loaded.ok();
  }

  facenet::Status enroll(const Job& job, Progress& progress) {
    Template t;
    t.name = job.person;
    t.image = as_utf8(job.picture);
    auto bytes = read_bytes(job.picture);
    if (!bytes) return bytes.status();
    t.sha256 = picture_sha256(bytes->span());
    t.id = store_.find(t.name, t.sha256);
    if (t.id != 0) {
      report(t, false, nullptr);
      return {};
    }
    FACENET_TRY(decode(bytes->span(), job.picture, source_.picture()));
    FACENET_TRY(source_.cut(source_.picture(), faces_));
    progress.clear();
    leave_out(job);
    if (meant_.empty()) {
      note(shown(job.picture) +
           (faces_.empty() ? ": no face was found, so nothing was enrolled" + no_face_advice(options_.faces) + "."
                           : ": no other face was found, so nothing was enrolled."));
      if (options_.json) print(with_ignored(faceless_picture(job.picture)), job.person);
    } else if (meant_.size() > 1 && !options_.chosen) {
      refuse(job, shown(job.picture) + ": " + std::to_string(meant_.size()) + " faces were found, and which one is " +
                      job.person + "'s is not said; give --select, or a picture of that face alone.");
    } else {
      const CutFace& first = faces_[meant_[0]];
      t.face = static_cast<std::int64_t>(meant_[0]);
      set_face(t, first.face);
      t.embedding.resize(static_cast<std::size_t>(embedder_.dim()));
      FACENET_TRY(embed_crop(embedder_, first.crop, t.embedding));
      return add(job, t);
    }
    return {};
  }

  /// Which faces are meant, and which are passers-by or none at all; says so.
  void leave_out(const Job& job) {
    meant_.clear();
    ignored_ = Json::array();
    const std::vector<FaceMeasures> measures = measures_of(faces_);
    const FaceLimits limits = options_.aligned ? FaceLimits{} : options_.limits;
    const std::vector<Fails> fails = failed_limits(measures, limits);
    std::string reasons;
    for (std::size_t i = 0; i < faces_.size(); ++i) {
      if (fails[i] == Fails::none) {
        meant_.push_back(i);
        continue;
      }
      const std::string reason = why(fails[i], measures[i], limits);
      reasons += (reasons.empty() ? "" : "; ") + std::string("face ") + std::to_string(i) + ": " + reason;
      ignored_.push_back(ignored_face(face_json(faces_[i].face, faces_[i].quality, options_.aligned), i, reason));
    }
    if (!ignored_.empty())
      note(shown(job.picture) + ": " + std::to_string(ignored_.size()) + " of " + std::to_string(faces_.size()) +
           (faces_.size() == 1 ? " face" : " faces") + " ignored (" + reasons +
           "); --min-score, --min-area and --min-quality change that.");
  }
  Json with_ignored(Json j) const {
    if (!ignored_.empty()) j["ignored"] = ignored_;
    return j;
  }

  /// Other persons whose templates are as near to the new one as one person's are, nearest first. One search of the
  /// gallery.
  facenet::Status find_duplicates(const Template& t) {
    duplicates_.clear();
    if (!looks_for_duplicates_) return {};
    constexpr int most = 6;  // five others, and the person
    FACENET_TRY(others_.nearest(t.embedding, most, threshold_, duplicates_));
    const auto own = [&](const facenet::Match& m) { return others_.name(m) == t.name; };
    duplicates_.erase(std::remove_if(duplicates_.begin(), duplicates_.end(), own), duplicates_.end());
    if (duplicates_.size() == most) duplicates_.pop_back();
    return {};
  }
  std::string duplicate_sentence(const Template& t) const {
    const facenet::Match& nearest = duplicates_[0];
    char distance[48];
    std::snprintf(distance, sizeof distance, " (distance %.4f", nearest.distance);
    std::string text = shown(t.image) + ": this face is as near to '" + others_.name(nearest) + "', enrolled from " +
                       shown(others_.image(nearest)) + distance + "), as one person's faces are to each other";
    if (duplicates_.size() > 1) text += ", and to " + std::to_string(duplicates_.size() - 1) + " more";
    return text;
  }
  Json duplicates_json() const {
    Json all = Json::array();
    for (const facenet::Match& m : duplicates_) {
      Json one;
      one["name"] = others_.name(m);
      one["distance"] = static_cast<float>(m.distance);
      one["similarity"] = static_cast<float>(m.similarity);
      one["template"] = m.id;
      one["image"] = others_.image(m);
      all.push_back(std::move(one));
    }
    return all;
  }

  facenet::Status add(const Job& job, Template& t) {
    FACENET_TRY(find_duplicates(t));
    if (!duplicates_.empty()) {
      if (options_.duplicates == "refuse") {
        refuse(job, duplicate_sentence(t) + ", so it is not enrolled as '" + t.name +
                        "'; look at both, and give --duplicates report if they are two persons.");
        return {};
      }
    }
    const GalleryStore::Addition addition = store_.add(model_, t);
    t.id = addition.id;
    if (addition.added == GalleryStore::Added::yes) {
      if (!duplicates_.empty())
        note(duplicate_sentence(t) + "; enrolled as '" + t.name + "' all the same: are the two one person?");
      if (looks_for_duplicates_) FACENET_TRY(others_.add(t));
    }
    warn_untrained(embedder_.info());
    if (addition.added == GalleryStore::Added::another_person) {
      refuse(job, shown(t.image) + ": this face is enrolled as '" + addition.owner + "' already, so it cannot be '" +
                      t.name + "'; remove one of them.");
    } else {
      report(t, addition.added == GalleryStore::Added::yes, &faces_[meant_[0]]);
    }
    return {};
  }

  /// `face`: null where the file was known, so that the picture was not decoded.
  void report(const Template& t, bool is_new, const CutFace* face) {
    known_ = true;
    if (!options_.json) {
      lost_ = lost_ || !out_.row({is_new ? "enrolled" : "there", t.name, t.image});
      return;
    }
    Json j;
    j["image"] = t.image;
    j["name"] = t.name;
    if (face != nullptr) j.update(face_json(face->face, face->quality, options_.aligned));
    j["template"] = t.id;
    j["enrolled"] = is_new;
    if (face != nullptr && !duplicates_.empty()) j["duplicates"] = duplicates_json();
    if (face != nullptr) j = with_ignored(std::move(j));
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
  std::vector<CutFace> faces_;      // of the picture at hand
  std::vector<std::size_t> meant_;  // which of them are not ignored
  Json ignored_ = Json::array();    // those that are
  GalleryIndex others_;
  std::vector<facenet::Match> duplicates_;  // of the face at hand
  double threshold_ = 0;
  bool looks_for_duplicates_ = false;
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
      "--select says which one is meant; faces that the detector is not sure of, and those much smaller than the "
      "largest,\n"
      "are ignored, and a message says so. So it does where the face is as near to another person's as one person's "
      "are.\n"
      "Names are kept exactly as they are given, in UTF-8.\n\n"
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
        const Option score =
            options.min_score(o->limits, "Ignore faces whose score is below X (default 0.9; 0: none is ignored)");
        const Option area =
            options
                .option("--min-area", "X", o->limits.area,
                        "Ignore faces with less than X of the largest face's area (default 0.1; 0: none is ignored)")
                .number(0, 1, "0 to 1");
        const Option quality = options.min_quality(o->limits);
        options
            .option("--duplicates", "WORD", o->duplicates,
                    "A face as near to another person's as one person's are: report (default) and enroll it, refuse it,"
                    " or ignore that (the gallery is not read then)")
            .one_of({"report", "refuse", "ignore"});
        options.threshold(o->threshold);
        options.model(o->model);
        options.check([=]() -> std::string {
          o->chosen = select.given();
          if (o->aligned && (score.given() || area.given() || quality.given()))
            return "--min-score, --min-area and --min-quality are of faces that were looked for: they do not go with "
                   "--aligned";
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
