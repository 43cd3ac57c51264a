// LFW's protocol on a folder of pictures: which pairs there are, their distances, and what evaluate.hpp reads from
// them.
#include "facenet/evaluate.hpp"

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <sstream>

#include "command/cli/sub_command.hpp"
#include "command/engine/bulk.hpp"
#include "command/report/evaluation_page.hpp"
#include "facenet/distance.hpp"
#include "command/io/escape.hpp"
#include "command/io/json.hpp"
#include "command/engine/model.hpp"
#include "command/io/output.hpp"
#include "command/engine/threshold.hpp"
#include "command/io/tree.hpp"

namespace command {

namespace {

struct Options {
  FolderOptions images;
  std::string pairs;
  std::string threshold;  // a distance or a threshold file; "": the model's
  std::string html;       // "": none
};

namespace fs = std::filesystem;
using facenet::Errc;
using facenet::Status;

constexpr std::uint64_t seed = 1;
constexpr double rates[] = {1e-1, 1e-2, 1e-3, 1e-4};

std::string text_of(facenet::Span<const char> name) { return std::string(name.data(), name.size()); }

Json interval(facenet::Interval i) { return {static_cast<float>(i.low), static_cast<float>(i.high)}; }

class Evaluation {
 public:
  explicit Evaluation(const Options& options) : options_(options) {}

  int run() {
    LateFile report;
    if (!report.open(options_.html) || !is_folder(options_.images.folder) || !read_pairs()) return failed;
    FaceOptions one = options_.images.faces;
    one.max_faces = 1;
    const std::string cache = cache_file(options_.images.cache, options_.images.folder);
    if (!bulk_.load(options_.images.model, one, options_.images.aligned, cache)) return failed;
    if (!resolve_threshold(options_.threshold, bulk_.info(), data_.threshold)) return failed;
    if (!embed()) return failed;
    const Status status = measure();
    failures_.say_all();
    if (!status.ok()) {
      say(options_.pairs + ": " + status.text() + "; of " + count(data_.pairs.size(), "pair") + " in the list " +
          std::to_string(data_.evaluated()) + " have both faces.");
      return failed;
    }
    warn_untrained(bulk_.info());
    Output out;
    bool printed = true;
    if (options_.images.json)
      printed = out.line(line(as_json()));
    else
      for (const std::string& row : as_text()) printed = printed && out.row({row});
    if (!printed || !out.finish()) return failed;
    if (!report.finish([&] { return evaluation_page(data_, bulk_.info(), options_.images.aligned); })) return failed;
    return failures_.none() && data_.absent == 0 ? done : failed;
  }

 private:
  bool read_pairs() {
    std::ifstream file(options_.pairs, std::ios::binary);
    std::error_code error;
    const auto size = fs::file_size(options_.pairs, error);
    constexpr std::uintmax_t most = 1u << 30;
    if (!file || error || size > most) {
      say(options_.pairs + ": the list of pairs cannot be read; check its name and that it is a text file.");
      return false;
    }
    std::string text(static_cast<std::size_t>(size), '\0');
    file.read(text.data(), static_cast<std::streamsize>(size));
    text.resize(static_cast<std::size_t>(file.gcount()));
    if (text.compare(0, 3, "\xef\xbb\xbf") == 0) text.erase(0, 3);  // some editors begin UTF-8 with it
    if (const std::size_t bad = unknown_bytes(text)) {
      say(options_.pairs + ": " + not_utf8(bad, text) + ", and no folder of " + options_.images.folder +
          " is called so; save the list as UTF-8.");
      return false;
    }
    const auto parsed = facenet::parse_pairs({text.data(), text.size()});
    if (!parsed) {
      char what[512];
      say(options_.pairs + ": " + parsed.status().print(what, sizeof what) +
          "; the format is that of LFW's pairs.txt.");
      return false;
    }
    folds_ = parsed->folds;
    // Pictures in the order of their names, whatever the order of the pairs.
    std::map<std::pair<std::string, int>, int> numbers;
    for (const facenet::LfwPair& p : parsed->pairs) {
      numbers[{text_of(p.name_a), p.picture_a}] = 0;
      numbers[{text_of(p.name_b), p.picture_b}] = 0;
    }
    for (auto& [key, index] : numbers) {
      index = static_cast<int>(data_.pictures.size());
      data_.pictures.push_back({path_of(key.first, key.second), {}, {}});
    }
    for (const facenet::LfwPair& p : parsed->pairs)
      data_.pairs.push_back(
          {numbers[{text_of(p.name_a), p.picture_a}], numbers[{text_of(p.name_b), p.picture_b}], p.fold, p.same, 0});
    return true;
  }

  /// The number of the first line that is not UTF-8 and does not name a folder by such bytes either; 0: there is none.
  std::size_t unknown_bytes(const std::string& text) const {
    std::istringstream lines(text);
    std::string line, name;
    for (std::size_t number = 1; std::getline(lines, line); ++number) {
      std::istringstream names(line);
      std::error_code error;
      while (std::getline(names, name, '\t'))
        if (line_not_utf8(name) != 0 && !fs::exists(fs::path(options_.images.folder) / name, error)) return number;
    }
    return 0;
  }

  /// DIR/NAME/NAME_0001.jpg, or another picture of that name; with .jpg where none is there.
  std::string path_of(const std::string& name, int picture) const {
    char number[16];
    std::snprintf(number, sizeof number, "_%04d", picture);
    const fs::path folder = fs::path(options_.images.folder) / name;
    const std::string found = find_picture(folder, name + number);
    return found.empty() ? (folder / (name + number + ".jpg")).string() : found;
  }

  bool embed() {
    std::vector<std::string> files;
    std::vector<std::size_t> at;
    for (std::size_t i = 0; i < data_.pictures.size(); ++i) {
      std::error_code error;
      if (fs::exists(data_.pictures[i].file, error)) {
        files.push_back(data_.pictures[i].file);
        at.push_back(i);
      } else if (data_.absent++ == 0) {
        say(data_.pictures[i].file + ": there is no such file; check --images, which must hold NAME/NAME_0001.jpg.");
      }
    }
    if (data_.absent > 1) say("... and " + count(data_.absent - 1, "more picture") + " of the list are not there.");
    bulk_.want_keys();
    equal_at_.assign(data_.pictures.size(), -1);
    std::size_t with_face = 0;
    Progress progress(files.size());
    const bool complete = bulk_.run(files, [&](std::size_t i, EmbeddedPicture& found) {
      EvaluatedPicture& picture = data_.pictures[at[i]];
      if (!found.failure.empty()) {
        failures_.add(files[i], found.failure);
      } else if (found.faces.empty()) {
        ++data_.faceless;
      } else {
        picture.face = found.faces[0].face;
        equal_at_[at[i]] = static_cast<int>(with_face++);
        equal_.add(files[i], fs::path(files[i]).parent_path().filename().string(), found.key);
        picture.embedding = std::move(found.faces[0].embedding);
      }
      progress.step();
      return true;
    });
    data_.broken = failures_.pictures().size();
    progress.clear();
    equal_.say_all();
    mark_equal();
    return complete;
  }

  void mark_equal() {
    for (EvaluatedPair& p : data_.pairs) {
      if (!data_.both(p)) continue;
      const auto a = static_cast<std::size_t>(equal_at_[static_cast<std::size_t>(p.a)]);
      const auto b = static_cast<std::size_t>(equal_at_[static_cast<std::size_t>(p.b)]);
      p.equal = equal_.under_two(a) || equal_.under_two(b) || equal_.same(a, b);
    }
  }

  Status measure() {
    const std::size_t n = data_.pairs.size();
    std::vector<double> distances, squared, all;
    std::vector<std::uint8_t> same, all_same;
    std::vector<int> fold, all_fold;
    for (std::size_t i = 0; i < n; ++i) {
      EvaluatedPair& p = data_.pairs[i];
      if (folds_ == 1)
        p.fold = static_cast<int>(i % single_list_folds);  // a list without folds, such as pairsDevTest.txt
      if (p.equal) continue;
      all_same.push_back(p.same);
      all_fold.push_back(p.fold);
      all.push_back(HUGE_VAL);  // a face that is missing is accepted at no threshold
      if (!data_.both(p)) continue;
      p.distance = facenet::distance(data_.picture(p.a).embedding, data_.picture(p.b).embedding);
      all.back() = p.distance * p.distance;
      distances.push_back(p.distance);
      squared.push_back(all.back());
      same.push_back(p.same);
      fold.push_back(p.fold);
    }
    auto comparisons = facenet::Comparisons::make(distances, same);
    if (!comparisons) return comparisons.status();
    const int folds = folds_ == 1 ? single_list_folds : folds_;
    auto accuracy = facenet::fold_accuracies(squared, same, fold, folds);
    auto all_accuracy = facenet::fold_accuracies(all, all_same, all_fold, folds);
    if (accuracy.ok()) data_.accuracy = std::move(*accuracy);
    if (all_accuracy.ok()) data_.accuracy_missing_rejected = std::move(*all_accuracy);
    auto roc = comparisons->roc();
    if (!roc) return roc.status();
    data_.roc = std::move(*roc);
    data_.auc = comparisons->auc();
    data_.eer = comparisons->eer();
    data_.at_threshold = comparisons->at(data_.threshold);
    const int replicates = n <= 100000 ? 1000 : 200;
    for (const double far : rates) {
      auto intervals = comparisons->bootstrap(far, replicates, seed);
      if (!intervals) return intervals.status();
      data_.tar.push_back(comparisons->tar_at(far));
      data_.tar_interval.push_back(intervals->tar);
      data_.auc_interval = intervals->auc;
      data_.eer_interval = intervals->eer;
    }
    return {};
  }

  static Json folds_of(const facenet::FoldAccuracy& a) {
    if (a.folds.size() == 0) return nullptr;
    Json j{{"mean", static_cast<float>(a.mean)}, {"std", static_cast<float>(a.deviation)}};
    Json folds = Json::array();
    for (const facenet::Fold& f : a.folds)
      folds.push_back({{"pairs", f.pairs},
                       {"accuracy", static_cast<float>(f.accuracy)},
                       {"tpr", static_cast<float>(f.tpr)},
                       {"fpr", static_cast<float>(f.fpr)},
                       {"threshold", static_cast<float>(std::sqrt(f.threshold))}});
    j["folds"] = std::move(folds);
    return j;
  }

  Json as_json() const {
    const facenet::ErrorRates& e = data_.at_threshold;
    Json j;
    j["pairs"] = data_.pairs.size();
    j["evaluated"] = data_.evaluated();
    j["genuine"] = e.genuine;
    j["impostors"] = e.impostors;
    j["missing"] = {{"genuine", data_.missing(true)},
                    {"impostors", data_.missing(false)},
                    {"pictures_absent", data_.absent},
                    {"pictures_failed", data_.broken},
                    {"pictures_without_face", data_.faceless}};
    j["equal"] = {{"genuine", data_.equal(true)},
                  {"impostors", data_.equal(false)},
                  {"pictures_twice", equal_.count_again()},
                  {"pictures_under_two_persons", equal_.count_under_two()}};
    j["pictures"] = data_.pictures.size();
    j["errors"] = failures_.json();
    j["accuracy"] = folds_of(data_.accuracy);
    j["accuracy_missing_rejected"] = folds_of(data_.accuracy_missing_rejected);
    j["auc"] = {{"value", static_cast<float>(data_.auc)}, {"interval", interval(data_.auc_interval)}};
    j["eer"] = {{"rate", static_cast<float>(data_.eer.rate)},
                {"threshold", static_cast<float>(data_.eer.threshold)},
                {"interval", interval(data_.eer_interval)}};
    Json tar = Json::array();
    for (std::size_t i = 0; i < data_.tar.size(); ++i) {
      const facenet::TarAtFar& t = data_.tar[i];
      tar.push_back({{"far", static_cast<float>(t.far)},
                     {"tar", static_cast<float>(t.tar)},
                     {"interval", interval(data_.tar_interval[i])},
                     {"threshold", static_cast<float>(t.threshold)},
                     {"actual_far", static_cast<float>(t.actual_far)},
                     {"measurable", t.measurable}});
    }
    j["tar"] = std::move(tar);
    j["at_threshold"] = {{"threshold", static_cast<float>(data_.threshold)},
                         {"far", static_cast<float>(e.far)},
                         {"far_interval", interval(e.far_interval)},
                         {"false_accepts", e.false_accepts},
                         {"frr", static_cast<float>(e.frr)},
                         {"frr_interval", interval(e.frr_interval)},
                         {"false_rejects", e.false_rejects}};
    if (const std::string by = measured_by(options_.threshold, bulk_.info()); !by.empty())
      j["at_threshold"]["threshold_source"] = by;
    j["metric"] = "euclidean";
    j["model"] = bulk_.info().digest;
    j["trained"] = bulk_.info().trained;
    return j;
  }

  std::vector<std::string> as_text() const {
    std::vector<std::string> rows;
    char text[240];
    const auto add = [&](auto... values) {
      std::snprintf(text, sizeof text, values...);
      rows.push_back(text);
    };
    const facenet::ErrorRates& e = data_.at_threshold;
    add("pairs      %zu of %zu have both faces: %llu of one person, %llu of two", data_.evaluated(), data_.pairs.size(),
        static_cast<unsigned long long>(e.genuine), static_cast<unsigned long long>(e.impostors));
    add("missing    %zu pairs; pictures: %zu not there, %zu failed, %zu without a face",
        data_.missing(true) + data_.missing(false), data_.absent, data_.broken, data_.faceless);
    if (equal_.count_again() + equal_.count_under_two() != 0)
      add("equal      %zu pairs left out; pictures: %zu there twice, %zu under two persons",
          data_.equal(true) + data_.equal(false), equal_.count_again(), equal_.count_under_two());
    if (data_.accuracy.folds.size() != 0)
      add("accuracy   %.4f +- %.4f over %zu folds", data_.accuracy.mean, data_.accuracy.deviation,
          data_.accuracy.folds.size());
    if (data_.accuracy_missing_rejected.folds.size() != 0)
      add("           %.4f +- %.4f with missing faces as never accepted", data_.accuracy_missing_rejected.mean,
          data_.accuracy_missing_rejected.deviation);
    add("AUC        %.5f (%.5f to %.5f)", data_.auc, data_.auc_interval.low, data_.auc_interval.high);
    add("EER        %.4f (%.4f to %.4f) at distance %.4f", data_.eer.rate, data_.eer_interval.low,
        data_.eer_interval.high, data_.eer.threshold);
    for (std::size_t i = 0; i < data_.tar.size(); ++i)
      add("TAR        %.4f (%.4f to %.4f) at FAR %g, distance %.4f%s", data_.tar[i].tar, data_.tar_interval[i].low,
          data_.tar_interval[i].high, data_.tar[i].far, data_.tar[i].threshold,
          data_.tar[i].measurable ? "" : "; too few pairs of two persons to measure that FAR");
    add("threshold  %.4f: FAR %.4g (%.4g to %.4g), FRR %.4g (%.4g to %.4g)", data_.threshold, e.far, e.far_interval.low,
        e.far_interval.high, e.frr, e.frr_interval.low, e.frr_interval.high);
    rows.back() += threshold_note(options_.threshold, bulk_.info());
    return rows;
  }

  static constexpr int single_list_folds = 10;
  const Options& options_;
  BulkEmbedder bulk_;
  EvaluationData data_;
  EqualPictures equal_;
  std::vector<int> equal_at_;  // a picture's number in it, -1 without a face
  Failures failures_;
  int folds_ = 0;
};

}  // namespace

SubCommand evaluate_command() {
  const auto o = std::make_shared<Options>();
  return {
      "evaluate", "Measure how well distances tell persons apart",
      "The protocol of LFW (vis-www.cs.umass.edu/lfw): accuracy over the folds of pairs.txt, each with the threshold "
      "that is\n"
      "best on the others (squared distances, 0 to 4 by 0.01, as davidsandberg/facenet), ROC, AUC, equal error rate, "
      "and true\n"
      "accepts at false accept rates of 1e-1 to 1e-4, with 95% bootstrap intervals. A picture stands for the face that "
      "--select\n"
      "puts first. Pairs with a picture that is missing, fails or has no face are counted, and accuracy is given with "
      "and\n"
      "without them (as never accepted). Embeddings are kept: stopped and run again, the command goes on where it "
      "was.\n\n"
      "Examples:\n"
      "  facenet evaluate --pairs pairs.txt --images lfw/ --select centre_weighted --html lfw.html\n"
      "  facenet evaluate --pairs pairs.txt --images lfw_crops/ --aligned --json\n\n",
      [o](OptionSet& options) {
        options.option("--pairs", "FILE", o->pairs, "LFW's pairs.txt, or a list like it").required();
        options.option("--images", "DIR", o->images.folder, "The folder with NAME/NAME_0001.jpg (or .png)").required();
        options.option("--html", "OUT", o->html, "Write a report: ROC, histograms, the ten worst pairs");
        options.threshold(o->threshold);
        options.folder(o->images);
      },
      [o](bool json) {
        o->images.json = json;
        return Evaluation(*o).run();
      }};
}

}  // namespace command
