// Whose faces are in pictures, of those that a gallery knows.
#include <algorithm>
#include <cstdio>
#include <memory>

#include "command/cli/sub_command.hpp"
#include "command/engine/decision.hpp"
#include "command/engine/face_choice.hpp"
#include "command/engine/faces.hpp"
#include "command/engine/gallery_index.hpp"
#include "command/engine/gallery_model.hpp"
#include "store/gallery_store.hpp"
#include "command/io/file_list.hpp"
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
  FaceLimits limits;
  std::string gallery;
  std::vector<std::string> pictures;
  PictureLists lists;
  std::string threshold;  // a distance or a threshold file; "": the model's
  double margin = 0;
  std::string require = "some";  // or "every": of the faces, known ones for exit status 0
  int top = 1;
  bool aligned = false, json = false;
};

/// What became of one face.
struct Answer {
  Verdict verdict = Verdict::skipped;
  std::string name;                     // where it is known
  std::string reason;                   // where it is ambiguous or skipped
  std::vector<facenet::Match> matches;  // persons within the threshold; of an ambiguous face the runner-up too
};

/// "1.3%"
std::string percent(double rate) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2g%%", 100 * rate);
  return rate >= 0.995 ? "100%" : text;
}

class Identification {
 public:
  explicit Identification(const Options& options) : options_(options) {}

  int run() {
    if (!prepare()) return failed;
    Progress progress(options_.pictures.size());
    for (const std::string& name : options_.pictures) {
      facenet::Status status = source_.read(name, faces_);
      if (status.ok()) status = answer();
      progress.clear();
      if (!report(name, status)) return failed;
      progress.step();
    }
    if (!out_.finish() || !all_done_) return failed;
    return known_ > 0 && (options_.require == "some" || known_ == counted_) ? done : no;
  }

 private:
  bool prepare() {
    GalleryStore store(options_.gallery, Access::read);
    auto embedder = load(options_.model);
    if (!embedder) return false;
    const facenet::ModelInfo& info = embedder->info();
    store.require(gallery_model(info, ""));
    if (!resolve_threshold(options_.threshold, info, rules_.threshold, &calibrated_)) return false;
    rules_.margin = options_.margin;
    const facenet::Status loaded = known_persons_.load(store, embedder->dim(), options_.model.threads);
    if (!loaded.ok()) {
      say(options_.gallery + ": " + loaded.text() + ".");
      return false;
    }
    fpir_ = expected_fpir(calibrated_, known_persons_.persons(), known_persons_.templates());
    if (!source_.load(options_.faces, options_.aligned, options_.model, info)) return false;
    embedder_ = std::move(*embedder);
    embedding_.resize(static_cast<std::size_t>(embedder_.dim()));
    return true;
  }

  /// Fills answers_, one for each of faces_.
  facenet::Status answer() {
    answers_.assign(faces_.size(), {});
    const std::vector<FaceMeasures> measures = measures_of(faces_);
    const std::vector<Fails> fails = failed_limits(measures, options_.limits);
    for (std::size_t i = 0; i < faces_.size(); ++i) {
      // What is no face to the detector is not asked for; a face that cannot be judged is, and is not known.
      counted_ += fails[i] != Fails::score;
      if (fails[i] == Fails::none)
        FACENET_TRY(look_up(faces_[i], answers_[i]));
      else
        answers_[i].reason = why(fails[i], measures[i], options_.limits);
    }
    return {};
  }

  facenet::Status look_up(const CutFace& face, Answer& answer) {
    FACENET_TRY(embed_crop(embedder_, face.crop, embedding_));
    std::vector<facenet::Match>& m = answer.matches;
    FACENET_TRY(known_persons_.nearest(embedding_, std::max(options_.top, DecisionRules::persons), rules_.reach(), m));
    std::vector<double> distances;
    for (const facenet::Match& match : m) distances.push_back(match.distance);
    answer.verdict = decide(distances, rules_);
    const bool ambiguous = answer.verdict == Verdict::ambiguous;
    std::size_t kept = 0;
    while (kept < m.size() && m[kept].distance <= rules_.threshold) ++kept;
    kept = std::min(kept, static_cast<std::size_t>(options_.top));
    m.resize(ambiguous ? std::max<std::size_t>(kept, DecisionRules::persons) : kept);
    if (answer.verdict == Verdict::known) answer.name = known_persons_.name(m[0]);
    if (ambiguous) {
      char numbers[120];
      std::snprintf(numbers, sizeof numbers, " at distance %.4f, within the margin %g", m[1].distance, rules_.margin);
      answer.reason = "'" + known_persons_.name(m[0]) + "' is nearest, and '" + known_persons_.name(m[1]) + "' is" +
                      (m[1].distance == m[0].distance ? " as near" : numbers);
    }
    known_ += answer.verdict == Verdict::known;
    return {};
  }

  /// Prints what is known of a picture when all its faces have been looked up. False when stdout is lost.
  bool report(const std::string& name, const facenet::Status& status) {
    if (!status.ok()) {
      const std::string failure = sentence(status, name, Subject::picture);
      say(failure);
      all_done_ = false;
      return !options_.json || out_.line(line(failed_picture(name, failure)));
    }
    if (faces_.empty()) {
      note(shown(name) + ": no face was found" + no_face_advice(options_.faces) + ".");
      return !options_.json || out_.line(line(faceless_picture(name)));
    }
    warn_untrained(embedder_.info());
    say_rate();
    std::vector<std::string> names;
    for (const Answer& answer : answers_) names.push_back(answer.name);
    const auto same = same_names(names);
    bool printed = true;
    for (std::size_t i = 0; i < faces_.size(); ++i) {
      // Said once, at the first of them.
      if (!same[i].empty() && same[i][0] > i) note(shown(name) + ": " + named_twice(i, same[i]));
      printed = printed && (options_.json ? out_.line(as_json(name, i, same[i])) : print_rows(name, i));
    }
    return printed;
  }

  std::string named_twice(std::size_t first, const std::vector<std::size_t>& others) const {
    std::string numbers = std::to_string(first);
    for (std::size_t i = 0; i < others.size(); ++i)
      numbers += (i + 1 < others.size() ? ", " : " and ") + std::to_string(others[i]);
    return "faces " + numbers + " are all named '" + answers_[first].name +
           "', and two faces of one picture are never one person's (but for mirrors and pictures of pictures): at "
           "most one of these names is right.";
  }

  /// Once: how many strangers this gallery names, or that it is not known.
  void say_rate() {
    const std::size_t persons = known_persons_.persons();
    if (rate_said_ || persons == 0 || !embedder_.info().trained) return;
    rate_said_ = true;
    const std::string size = std::to_string(persons) + (persons == 1 ? " person" : " persons");
    if (fpir_.known)
      note(options_.gallery + ": " + size + "; at this threshold at most " + percent(fpir_.value) + " (" +
           percent(fpir_.interval.low) + " to " + percent(fpir_.interval.high) +
           ") of strangers' faces are expected to be given a name.");
    else
      note(options_.gallery + ": " + size + ", and nobody measured how many strangers this threshold gives a name; " +
           "run 'facenet calibrate --gallery-size " + std::to_string(persons) +
           " --fpir 1e-2' on pictures of your own, and give its file to --threshold.");
    if (fpir_.known && calibrated_.fpir.known && persons > calibrated_.gallery_size)
      note(options_.gallery + ": the threshold was measured for " + std::to_string(calibrated_.gallery_size) +
           " persons, fewer than these; the expected rate takes persons for independent.");
  }

  Json as_json(const facenet::Match& m) const {
    Json match;
    match["name"] = known_persons_.name(m);
    match["distance"] = static_cast<float>(m.distance);
    match["similarity"] = static_cast<float>(m.similarity);
    match["template"] = m.id;
    match["image"] = known_persons_.image(m);
    return match;
  }

  std::string as_json(const std::string& picture, std::size_t number, const std::vector<std::size_t>& same) const {
    const Answer& answer = answers_[number];
    Json j;
    j["image"] = picture;
    j["face"] = number;
    j.update(face_json(faces_[number].face, faces_[number].quality, options_.aligned));
    j["decision"] = word(answer.verdict);
    if (answer.verdict == Verdict::known) j["name"] = answer.name;
    if (!answer.reason.empty()) j["reason"] = answer.reason;
    if (!same.empty()) j["same_name"] = same;
    // A program that takes the first of the matches for the name must not name an ambiguous face.
    j["matches"] = Json::array();
    if (answer.verdict == Verdict::ambiguous) j["candidates"] = Json::array();
    for (const facenet::Match& m : answer.matches)
      j[answer.verdict == Verdict::ambiguous ? "candidates" : "matches"].push_back(as_json(m));
    j["threshold"] = static_cast<float>(rules_.threshold);
    if (const std::string by = measured_by(options_.threshold, embedder_.info()); !by.empty())
      j["threshold_source"] = by;
    j["margin"] = static_cast<float>(rules_.margin);
    j["gallery_size"] = known_persons_.persons();
    if (fpir_.known) {
      j["fpir"] = static_cast<float>(fpir_.value);
      j["fpir_interval"] = {static_cast<float>(fpir_.interval.low), static_cast<float>(fpir_.interval.high)};
    }
    j["model"] = embedder_.info().digest;
    j["trained"] = embedder_.info().trained;
    return line(j);
  }

  /// Name, number of the face, the person, distance and similarity, a line for each match; or one line that begins with
  /// another verdict.
  bool print_rows(const std::string& picture, std::size_t number) {
    const Answer& answer = answers_[number];
    std::vector<std::string> row{picture, std::to_string(number)};
    if (answer.verdict != Verdict::known) {
      row.push_back(word(answer.verdict));
      if (!answer.reason.empty()) row.push_back(answer.reason);
      return out_.row(row);
    }
    bool printed = true;
    for (const facenet::Match& m : answer.matches) {
      char distance[64], similarity[64];
      std::snprintf(distance, sizeof distance, "distance %.4f", m.distance);
      std::snprintf(similarity, sizeof similarity, "similarity %.4f", m.similarity);
      printed = printed && out_.row({row[0], row[1], known_persons_.name(m), distance, similarity});
    }
    return printed;
  }

  const Options& options_;
  GalleryIndex known_persons_;
  DecisionRules rules_;
  Calibrated calibrated_;
  Calibrated::Rate fpir_;
  facenet::Embedder embedder_;
  FaceSource source_;
  std::vector<float> embedding_;
  std::vector<CutFace> faces_;   // of the picture at hand
  std::vector<Answer> answers_;  // one each
  Output out_;
  std::size_t counted_ = 0, known_ = 0;  // faces
  bool all_done_ = true, rate_said_ = false;
};

}  // namespace

SubCommand identify_command() {
  const auto o = std::make_shared<Options>();
  return {
      "identify", "Tell who of a gallery is in pictures",
      "Prints a line for each face: picture, number of the face, the person whose template is nearest, distance\n"
      "(Euclidean) and similarity (cosine), or 'unknown' where nobody's is within the threshold, or 'ambiguous' where\n"
      "another person is less than --margin farther away; with --json one object a face. A message says how many "
      "strangers\n"
      "a gallery of that size is expected to name, where --threshold is a file that says it.\n"
      "Exit status 0: somebody was identified (--require every: every face was), 1: not so.\n\n"
      "Examples:\n"
      "  facenet identify staff.gallery door.jpg\n"
      "  facenet identify --top 3 --json staff.gallery *.jpg\n"
      "  facenet calibrate people/ --gallery-size 20 --fpir 0.02 -o staff.threshold\n"
      "  facenet identify --threshold staff.threshold --margin 0.05 --require every staff.gallery - < door.jpg\n\n",
      [o](OptionSet& options) {
        options.positional("DB", o->gallery, "The gallery").required();
        options.pictures(o->pictures);
        options.files_from(o->lists.list, o->lists.zero);
        options.exclude(o->lists.exclude);
        options.option("-k,--top", "N", o->top, "Name up to N persons for each face (default 1)").whole_number(1, 1000);
        options.threshold(o->threshold);
        options
            .option("--margin", "X", o->margin,
                    "Name nobody where another person is less than this farther away than the nearest (default 0)")
            .number(0, 1000, "0 to 1000");
        options
            .option("--require", "WORD", o->require,
                    "Of the faces, how many must be known for exit status 0: some (default) or every")
            .one_of({"some", "every"});
        options.aligned(o->aligned);
        options.faces(o->faces);
        const Option score =
            options.min_score(o->limits, "Leave out faces whose score is below X (default 0: none but the detector's)");
        const Option quality = options.min_quality(o->limits);
        options.model(o->model);
        options.check([=]() -> std::string {
          if (o->aligned && (score.given() || quality.given()))
            return "--min-score and --min-quality are of faces that were looked for: they do not go with --aligned";
          return {};
        });
      },
      [o](bool json) -> int {
        o->json = json;
        const bool all = resolve_pictures(o->lists, o->pictures);
        if (o->pictures.empty()) return failed;
        const int status = Identification(*o).run();
        return all ? status : failed;
      }};
}

}  // namespace command
