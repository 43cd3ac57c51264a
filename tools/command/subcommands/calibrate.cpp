// A threshold for a false accept rate, from pictures whose persons are known.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>

#include "command/cli/sub_command.hpp"
#include "command/engine/bulk.hpp"
#include "command/engine/face_choice.hpp"
#include "command/engine/open_set.hpp"
#include "facenet/distance.hpp"
#include "facenet/evaluate.hpp"
#include "command/io/json.hpp"
#include "command/engine/model.hpp"
#include "command/io/output.hpp"
#include "command/engine/threshold.hpp"
#include "command/io/tree.hpp"

namespace command {

namespace {

struct Options {
  FolderOptions images;
  double far = 1e-3;
  int gallery_size = 0;  // 0: --far decides
  double fpir = 0;
  std::string out;  // "": stdout
};

namespace fs = std::filesystem;

/// Of more pairs every second, third, … is taken: 400 MB of distances.
constexpr std::size_t most_impostor_pairs = 50000000;

std::size_t pairs_of(std::size_t n) { return n * (n - (n > 0)) / 2; }

/// The error rate `share` as if it had been seen in `trials` independent trials.
facenet::Interval interval_of(double share, std::size_t trials) {
  return facenet::wilson(static_cast<std::uint64_t>(std::llround(share * static_cast<double>(trials))), trials);
}

class Calibration {
 public:
  explicit Calibration(const Options& options) : options_(options) {}

  int run() {
    LateFile file;
    if (!file.open(options_.out) || !collect() || !embed() || !choose()) return failed;
    warn_untrained(bulk_.info());
    const std::string text = line(as_json());
    if (!file.finish([&] { return text + "\n"; })) return failed;
    Output out;
    const bool shown = options_.out.empty() || options_.images.json ? out.line(text) : out.row({summary()});
    return shown && out.finish() && failures_.none() && all_read_ ? done : failed;
  }

 private:
  bool collect() {
    const std::string& folder = options_.images.folder;
    if (!is_folder(folder)) return false;
    all_read_ = tree_.collect(folder);
    std::map<std::string, int> persons;
    for (const fs::path& picture : tree_.pictures) {
      const fs::path inside = picture.lexically_relative(folder);
      if (std::distance(inside.begin(), inside.end()) < 2) continue;  // in no person's folder
      const std::string person = inside.begin()->string();
      person_.push_back(persons.emplace(person, static_cast<int>(persons.size())).first->second);
      files_.push_back(picture.string());
    }
    if (files_.empty()) {
      say(folder + ": there is no folder with pictures in it; it must hold a folder for each person.");
      return false;
    }
    return enough(person_, "");  // before the work of embedding them
  }

  /// Whether pictures of these persons can support the rate.
  bool enough(const std::vector<int>& owners, const char* with_a_face) {
    std::map<int, std::size_t> pictures;
    for (const int person : owners) ++pictures[person];
    persons_ = pictures.size();
    several_ = genuine_pairs_ = 0;
    for (const auto& [person, n] : pictures) {
      genuine_pairs_ += pairs_of(n);
      several_ += n > 1;
    }
    if (options_.gallery_size != 0) return enough_for_gallery(with_a_face);
    const auto needed = static_cast<std::size_t>(facenet::impostors_needed(options_.far));
    const auto persons_needed =
        static_cast<std::size_t>(std::ceil(0.5 + std::sqrt(0.25 + 2 * static_cast<double>(needed))));
    if (pairs_of(persons_) < needed) return refuse(needed, persons_needed, with_a_face);
    return genuine_pairs_ != 0 || refuse_single(with_a_face);
  }
  bool refuse_single(const char* with_a_face) const {
    say(options_.images.folder + ": no person has two pictures" + with_a_face +
        ", so nothing tells how many are refused; add pictures.");
    return false;
  }
  bool enough_for_gallery(const char* with_a_face) const {
    const OpenSetNeeds needs = needs_of(static_cast<std::size_t>(options_.gallery_size), options_.fpir);
    if (persons_ >= needs.persons) return genuine_pairs_ != 0 || refuse_single(with_a_face);
    char text[500];
    std::snprintf(text, sizeof text,
                  ": these pictures cannot support a false positive identification rate of %g among %d persons: it "
                  "needs 3 / rate persons and %zu pairs of different persons, so %zu persons, and there are %zu%s, "
                  "which make %zu pairs; add persons, or give a larger --fpir or a smaller --gallery-size.",
                  options_.fpir, options_.gallery_size, needs.pairs, needs.persons, persons_, with_a_face,
                  pairs_of(persons_));
    say(options_.images.folder + text);
    return false;
  }

  bool embed() {
    // The first face of a picture is its person's. The others are not, whoever they are.
    const std::string cache = cache_file(options_.images.cache, options_.images.folder);
    if (!bulk_.load(options_.images.model, options_.images.faces, options_.images.aligned, cache)) return false;
    bulk_.want_keys();
    Progress progress(files_.size());
    const bool complete = bulk_.run(files_, [&](std::size_t i, EmbeddedPicture& picture) {
      if (!picture.failure.empty()) failures_.add(files_[i], picture.failure);
      without_face_ += picture.failure.empty() && picture.faces.empty();
      if (!picture.faces.empty()) {
        embeddings_.insert(embeddings_.end(), picture.faces[0].embedding.begin(), picture.faces[0].embedding.end());
        owner_.push_back(person_[i]);
        equal_.add(files_[i], std::to_string(person_[i]), picture.key);
        company_.push_back(distances_within(picture));
      }
      progress.step();
      return true;
    });
    progress.clear();
    failures_.say_all();
    tree_.say_left_out();
    equal_.say_all();
    leave_out_equal();
    return complete;
  }

  /// Of each two faces of a picture, which are never one person's. Not of what may be no face, as enrolment has it, nor
  /// of two boxes that overlap: they may be around one face.
  static std::vector<double> distances_within(const EmbeddedPicture& picture) {
    std::vector<FaceMeasures> measures;
    for (const EmbeddedFace& f : picture.faces) measures.push_back(measures_of(f.face, f.quality));
    const std::vector<Fails> fails = failed_limits(measures, {enrolled_score, enrolled_area, 0});
    std::vector<double> distances;
    for (std::size_t i = 0; i < picture.faces.size(); ++i)
      for (std::size_t k = 0; k < i; ++k) {
        const EmbeddedFace &a = picture.faces[i], &b = picture.faces[k];
        if (fails[i] == Fails::none && fails[k] == Fails::none && !overlap(a.face.box, b.face.box))
          distances.push_back(facenet::distance(a.embedding, b.embedding));
      }
    return distances;
  }
  static bool overlap(const facenet::Box& a, const facenet::Box& b) {
    return a.x0 < b.x1 && b.x0 < a.x1 && a.y0 < b.y1 && b.y0 < a.y1;
  }

  /// A picture compared with itself says nothing; one that stands under two persons says something false.
  void leave_out_equal() {
    const auto dim = static_cast<std::size_t>(bulk_.dim());
    std::size_t kept = 0;
    for (std::size_t i = 0; i < owner_.size(); ++i) {
      if (equal_.under_two(i) || equal_.again(i)) continue;
      owner_[kept] = owner_[i];
      impostor_.insert(impostor_.end(), company_[i].begin(), company_[i].end());
      std::copy_n(&embeddings_[i * dim], dim, &embeddings_[kept++ * dim]);
    }
    owner_.resize(kept);
    embeddings_.resize(kept * dim);
    within_pictures_ = impostor_.size();
  }

  bool choose() {
    if (!enough(owner_, " with a face")) return false;
    OpenSet persons(options_.gallery_size != 0 ? owner_ : std::vector<int>());
    measure(pairs_of(owner_.size()) - genuine_pairs_, persons);
    double threshold;
    if (options_.gallery_size != 0) {
      threshold = persons.threshold(static_cast<std::size_t>(options_.gallery_size), options_.fpir);
      if (threshold < 0) {
        say(options_.images.folder +
            ": too many faces of different persons have distance 0: is one picture filed under two persons?");
        return false;
      }
    } else {
      const auto choice = facenet::choose_threshold(impostor_, options_.far);
      if (!choice) {
        say(options_.images.folder + ": " + choice.status().text() + ".");
        return false;
      }
      threshold = choice->threshold;
    }
    // The file holds a float: rounded down, so that no other pair gets in.
    threshold_ = static_cast<float>(threshold);
    if (static_cast<double>(threshold_) > threshold) threshold_ = std::nextafterf(threshold_, 0);
    if (options_.gallery_size != 0)
      open_set_ = persons.at(static_cast<double>(threshold_), static_cast<std::size_t>(options_.gallery_size));
    drawn_ = persons.drawn(static_cast<std::size_t>(options_.gallery_size));
    for (const double d : impostor_) accepted_ += d <= static_cast<double>(threshold_);
    for (const double d : genuine_) rejected_ += d > static_cast<double>(threshold_);
    return true;
  }

  bool refuse(std::size_t needed, std::size_t persons_needed, const char* with_a_face) const {
    char text[640];
    const std::size_t have = pairs_of(persons_);
    // Two digits, rounded up.
    const double lowest = have == 0 ? 1 : 3 / static_cast<double>(have);
    const double unit = std::pow(10, std::floor(std::log10(lowest)) - 1),
                 rounded = std::ceil(lowest / unit - 1e-9) * unit;
    char other[48] = "";
    if (rounded <= 0.5) std::snprintf(other, sizeof other, ", or give --far %.2g or more", rounded);
    std::snprintf(text, sizeof text,
                  ": these pictures cannot support a false accept rate of %g: it needs %zu pairs of different persons "
                  "(3 / rate), "
                  "so %zu persons, and there are %zu%s, which make %zu pairs; add persons%s.",
                  options_.far, needed, persons_needed, persons_, with_a_face, have, other);
    say(options_.images.folder + text);
    return false;
  }

  void measure(std::size_t impostor_pairs, OpenSet& persons) {
    const std::size_t every = (impostor_pairs + most_impostor_pairs - 1) / most_impostor_pairs;
    const auto dim = static_cast<std::size_t>(bulk_.dim());
    const facenet::Span<const float> all = embeddings_;
    std::size_t pair = 0;
    for (std::size_t i = 0; i < owner_.size(); ++i)
      for (std::size_t k = 0; k < i; ++k) {
        const bool same = owner_[i] == owner_[k], counts = same || pair++ % every == 0;
        if (!counts && options_.gallery_size == 0) continue;
        const double d = facenet::distance(all.subspan(i * dim, dim), all.subspan(k * dim, dim));
        if (options_.gallery_size != 0) persons.pair(i, k, d);
        if (counts) (same ? genuine_ : impostor_).push_back(d);
      }
  }

  double far() const { return static_cast<double>(accepted_) / static_cast<double>(impostor_.size()); }
  double frr() const { return static_cast<double>(rejected_) / static_cast<double>(genuine_.size()); }

  Json as_json() const {
    const facenet::ModelInfo& info = bulk_.info();
    const auto pair = [](facenet::Interval i) { return Json{static_cast<float>(i.low), static_cast<float>(i.high)}; };
    Json j;
    j["format"] = threshold_format;
    j["version"] = threshold_version;
    j["model"] = info.digest;
    j["architecture"] = info.architecture;
    j["trained"] = info.trained;
    j["metric"] = "euclidean";
    j["threshold"] = threshold_;
    if (options_.gallery_size == 0) {
      j["far_target"] = static_cast<float>(options_.far);
    } else {
      j["gallery_size"] = options_.gallery_size;
      j["fpir_target"] = static_cast<float>(options_.fpir);
      j["fpir"] = static_cast<float>(open_set_.fpir);
      j["fpir_interval"] = pair(open_set_.fpir_interval);
      j["fnir"] = static_cast<float>(open_set_.fnir);
      j["fnir_interval"] = pair(open_set_.fnir_interval);
      j["fpir_method"] = drawn_ ? "drawn galleries" : "independent persons";
    }
    j["persons"] = persons_;
    j["persons_with_several"] = several_;
    j["pictures"] = owner_.size();
    j["pictures_without_face"] = without_face_;
    j["pictures_failed"] = failures_.pictures().size();
    j["pictures_twice"] = equal_.count_again();
    j["pictures_under_two_persons"] = equal_.count_under_two();
    j["left_out"] = tree_.left_out.json();
    j["genuine_pairs"] = genuine_.size();
    j["impostor_pairs"] = impostor_.size();
    j["impostor_pairs_of_one_picture"] = within_pictures_;
    j["false_accepts"] = accepted_;
    j["far"] = static_cast<float>(far());
    j["far_interval"] = pair(interval_of(far(), pairs_of(persons_)));
    j["false_rejects"] = rejected_;
    j["frr"] = static_cast<float>(frr());
    j["frr_interval"] = pair(interval_of(frr(), several_));
    return j;
  }

  std::string summary() const {
    const facenet::Interval a = interval_of(far(), pairs_of(persons_)), r = interval_of(frr(), several_);
    char text[400];
    std::snprintf(text, sizeof text,
                  "threshold %.4f: false accepts %.4g (%.2g to %.2g, %zu of %zu pairs), false rejects %.4g (%.2g to "
                  "%.2g, %zu of %zu "
                  "pairs); %zu persons, %zu pictures, %zu without a face",
                  static_cast<double>(threshold_), far(), a.low, a.high, accepted_, impostor_.size(), frr(), r.low,
                  r.high, rejected_, genuine_.size(), persons_, owner_.size(), without_face_);
    std::string all = text;
    if (options_.gallery_size != 0) {
      const facenet::Interval p = open_set_.fpir_interval, n = open_set_.fnir_interval;
      std::snprintf(text, sizeof text,
                    "; among %d persons (%s) strangers named %.4g (%.2g to %.2g), enrolled persons missed %.4g (%.2g "
                    "to %.2g)",
                    options_.gallery_size, drawn_ ? "galleries drawn from these" : "as if independent", open_set_.fpir,
                    p.low, p.high, open_set_.fnir, n.low, n.high);
      all += text;
    }
    if (within_pictures_ != 0)
      all += ", " + std::to_string(within_pictures_) + " pairs of faces of one picture among them";
    if (equal_.count_again() != 0) all += ", " + std::to_string(equal_.count_again()) + " there twice";
    if (equal_.count_under_two() != 0) all += ", " + std::to_string(equal_.count_under_two()) + " under two persons";
    return all;
  }

  const Options& options_;
  Tree tree_{options_.images.exclude};
  BulkEmbedder bulk_;
  EqualPictures equal_;
  Failures failures_;
  std::vector<std::string> files_;
  std::vector<int> person_;  // of each file
  std::vector<int> owner_;   // of each embedding
  std::vector<float> embeddings_;
  std::vector<std::vector<double>> company_;  // of each embedding: distances between its picture's faces
  std::vector<double> genuine_, impostor_;
  std::size_t within_pictures_ = 0;  // of impostor_
  OpenSetRates open_set_{};
  bool drawn_ = false;
  std::size_t persons_ = 0, several_ = 0, genuine_pairs_ = 0, without_face_ = 0, accepted_ = 0, rejected_ = 0;
  float threshold_ = 0;
  bool all_read_ = true;
};

}  // namespace

SubCommand calibrate_command() {
  const auto o = std::make_shared<Options>();
  return {
      "calibrate", "Choose a threshold for a false accept rate, or for a gallery, on your own pictures",
      "Compares each two pictures below DIR, whose folders are persons, and takes the largest threshold that accepts "
      "at most\n"
      "--far of the pairs of two persons. Few persons cannot support a small rate: by the rule of three (none of n "
      "seen, so\n"
      "below 3/n with 95% confidence) 3/far different pairs of persons are needed, 78 persons for 1e-3. Pairs that "
      "share a\n"
      "person are no independent trials, so the intervals count pairs of persons, and persons, not pictures.\n"
      "With --gallery-size N and --fpir X: the largest threshold at which a gallery of N persons gives at most X of "
      "the\n"
      "faces of strangers a name. That needs 3/X persons, and 3 N/X pairs of them.\n"
      "Other faces of a picture are never its person's: they are compared with each other too.\n\n"
      "Examples:\n"
      "  facenet calibrate people/ --far 1e-2 -o people.threshold\n"
      "  facenet calibrate people/ --gallery-size 100 --fpir 1e-2 -o gate.threshold\n"
      "  facenet verify --threshold people.threshold a.jpg b.jpg\n\n",
      [o](OptionSet& options) {
        options.positional("DIR", o->images.folder, "A folder with a folder for each person").required();
        const Option far =
            options
                .option("--far", "X", o->far,
                        "The false accept rate, such as 1e-3 (default): of pairs of two persons, how many may pass for "
                        "one")
                .number(1e-9, 0.5, "1e-9 to 0.5");
        const Option size = options
                                .option("--gallery-size", "N", o->gallery_size,
                                        "Choose the threshold for a gallery of N persons; with --fpir")
                                .whole_number(1, 1000000000);
        const Option fpir = options
                                .option("--fpir", "X", o->fpir,
                                        "The false positive identification rate: of strangers' faces, how many such a "
                                        "gallery may give a name, such as 1e-2")
                                .number(1e-9, 0.5, "1e-9 to 0.5");
        options.check([=]() -> std::string {
          if (size.given() != fpir.given()) return "--gallery-size and --fpir go together: give both";
          if (far.given() && fpir.given()) return "--far and --fpir both choose the threshold: give one of them";
          return {};
        });
        options.option("-o,--out", "FILE", o->out, "The threshold file to write (default: standard output)");
        options.exclude(o->images.exclude);
        options.folder(o->images);
      },
      [o](bool json) {
        o->images.json = json;
        return Calibration(*o).run();
      }};
}

}  // namespace command
