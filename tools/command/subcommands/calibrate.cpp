// A threshold for a false accept rate, from pictures whose persons are known.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <map>

#include "bulk.hpp"
#include "facenet/distance.hpp"
#include "facenet/evaluate.hpp"
#include "json.hpp"
#include "model.hpp"
#include "output.hpp"
#include "threshold.hpp"
#include "tree.hpp"

namespace command {

namespace {

namespace fs = std::filesystem;

/// Of more pairs every second, third, … is taken: 400 MB of distances.
constexpr std::size_t most_impostor_pairs = 50000000;

std::size_t pairs_of(std::size_t n) { return n * (n - (n > 0)) / 2; }

/// The error rate `share` as if it had been seen in `trials` independent trials.
facenet::Interval interval_of(double share, std::size_t trials) {
  return facenet::wilson(static_cast<std::uint64_t>(std::llround(share * static_cast<double>(trials))), trials);
}

class Calibrating {
 public:
  explicit Calibrating(const CalibrateOptions& options) : options_(options) {}

  int run() {
    NewFile file;
    if (!options_.out.empty()) {
      const int error = file.open(options_.out);
      if (error != 0) return say_unwritable(options_.out, error) ? done : failed;
    }
    if (!collect() || !embed() || !choose()) return failed;
    warn_untrained(bulk_.info());
    const std::string text = line(as_json());
    if (!options_.out.empty()) {
      int error = file.write((text + "\n").data(), text.size() + 1);
      if (error == 0) error = file.commit();
      if (error != 0) return say_unwritable(options_.out, error) ? done : failed;
    }
    Output out;
    const bool shown = options_.out.empty() || options_.images.json ? out.line(text) : out.line(summary());
    return shown && out.finish() && failures_.none() && all_read_ ? done : failed;
  }

 private:
  bool collect() {
    const std::string& folder = options_.images.folder;
    if (!is_folder(folder)) return false;
    Tree tree;
    all_read_ = tree.collect(folder);
    std::map<std::string, int> persons;
    for (const fs::path& picture : tree.pictures) {
      const fs::path inside = picture.lexically_relative(folder);
      if (std::distance(inside.begin(), inside.end()) < 2) continue;  // in no person's folder
      const std::string person = inside.begin()->string();
      person_.push_back(persons.emplace(person, static_cast<int>(persons.size())).first->second);
      files_.push_back(picture.string());
    }
    if (!files_.empty()) return true;
    say(folder + ": there is no folder with pictures in it; it must hold a folder for each person.");
    return false;
  }

  bool embed() {
    FaceOptions one = options_.images.faces;
    one.max_faces = 1;
    const std::string cache = cache_file(options_.images.cache, options_.images.folder);
    if (!bulk_.load(options_.images.model, one, options_.images.aligned, cache)) return false;
    Progress progress(files_.size());
    const bool complete = bulk_.run(files_, [&](std::size_t i, EmbeddedPicture& picture) {
      if (!picture.failure.empty()) failures_.add(files_[i], picture.failure);
      without_face_ += picture.failure.empty() && picture.faces.empty();
      if (!picture.faces.empty()) {
        embeddings_.insert(embeddings_.end(), picture.faces[0].embedding.begin(), picture.faces[0].embedding.end());
        owner_.push_back(person_[i]);
      }
      progress.step();
      return true;
    });
    progress.clear();
    failures_.say_all();
    return complete;
  }

  bool choose() {
    std::map<int, std::size_t> pictures;
    for (const int person : owner_) ++pictures[person];
    persons_ = pictures.size();
    std::size_t genuine = 0;
    for (const auto& [person, n] : pictures) {
      genuine += pairs_of(n);
      several_ += n > 1;
    }
    const auto needed = static_cast<std::size_t>(facenet::impostors_needed(options_.far));
    const auto persons_needed = static_cast<std::size_t>(std::ceil(0.5 + std::sqrt(0.25 + 2 * static_cast<double>(needed))));
    if (pairs_of(persons_) < needed) return refuse(needed, persons_needed);
    if (genuine == 0) {
      say(options_.images.folder + ": no person has two pictures with a face, so nothing tells how many are refused; add pictures.");
      return false;
    }
    measure(pairs_of(owner_.size()) - genuine);
    const auto choice = facenet::choose_threshold(impostor_.data(), impostor_.size(), options_.far);
    if (!choice) {
      say(options_.images.folder + ": " + choice.status().text() + ".");
      return false;
    }
    // The file holds a float: rounded down, so that no other pair gets in.
    threshold_ = static_cast<float>(choice->threshold);
    if (static_cast<double>(threshold_) > choice->threshold) threshold_ = std::nextafterf(threshold_, 0);
    for (const double d : impostor_) accepted_ += d <= static_cast<double>(threshold_);
    for (const double d : genuine_) rejected_ += d > static_cast<double>(threshold_);
    return true;
  }

  bool refuse(std::size_t needed, std::size_t persons_needed) const {
    char text[640];
    const std::size_t have = pairs_of(persons_);
    // Two digits, rounded up.
    const double lowest = have == 0 ? 1 : 3 / static_cast<double>(have);
    const double unit = std::pow(10, std::floor(std::log10(lowest)) - 1), rounded = std::ceil(lowest / unit - 1e-9) * unit;
    char other[48] = "";
    if (rounded <= 0.5) std::snprintf(other, sizeof other, ", or give --far %.2g or more", rounded);
    std::snprintf(text, sizeof text,
                  ": these pictures cannot support a false accept rate of %g: it needs %zu pairs of different persons (3 / rate), "
                  "so %zu persons, and there are %zu with a face, which make %zu pairs; add persons%s.",
                  options_.far, needed, persons_needed, persons_, have, other);
    say(options_.images.folder + text);
    return false;
  }

  void measure(std::size_t impostor_pairs) {
    const std::size_t every = (impostor_pairs + most_impostor_pairs - 1) / most_impostor_pairs;
    const auto dim = static_cast<std::size_t>(bulk_.dim());
    std::size_t pair = 0;
    for (std::size_t i = 0; i < owner_.size(); ++i)
      for (std::size_t k = 0; k < i; ++k) {
        const bool same = owner_[i] == owner_[k];
        if (!same && pair++ % every != 0) continue;
        const double d = facenet::distance(&embeddings_[i * dim], &embeddings_[k * dim], bulk_.dim());
        (same ? genuine_ : impostor_).push_back(d);
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
    j["far_target"] = static_cast<float>(options_.far);
    j["persons"] = persons_;
    j["persons_with_several"] = several_;
    j["pictures"] = owner_.size();
    j["pictures_without_face"] = without_face_;
    j["pictures_failed"] = failures_.pictures().size();
    j["genuine_pairs"] = genuine_.size();
    j["impostor_pairs"] = impostor_.size();
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
                  "threshold %.4f: false accepts %.4g (%.2g to %.2g, %zu of %zu pairs), false rejects %.4g (%.2g to %.2g, %zu of %zu "
                  "pairs); %zu persons, %zu pictures, %zu without a face",
                  static_cast<double>(threshold_), far(), a.low, a.high, accepted_, impostor_.size(), frr(), r.low, r.high, rejected_,
                  genuine_.size(), persons_, owner_.size(), without_face_);
    return text;
  }

  const CalibrateOptions& options_;
  BulkEmbedder bulk_;
  Failures failures_;
  std::vector<std::string> files_;
  std::vector<int> person_;  // of each file
  std::vector<int> owner_;   // of each embedding
  std::vector<float> embeddings_;
  std::vector<double> genuine_, impostor_;
  std::size_t persons_ = 0, several_ = 0, without_face_ = 0, accepted_ = 0, rejected_ = 0;
  float threshold_ = 0;
  bool all_read_ = true;
};

}  // namespace

int calibrate(const CalibrateOptions& options) { return Calibrating(options).run(); }

}  // namespace command
