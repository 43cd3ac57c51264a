// The faces of a folder, sorted by person.
#include "facenet/cluster.hpp"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <set>

#include "command/cli/sub_command.hpp"
#include "command/engine/bulk.hpp"
#include "command/io/escape.hpp"
#include "command/io/json.hpp"
#include "command/engine/model.hpp"
#include "command/io/output.hpp"
#include "command/report/page.hpp"
#include "command/engine/threshold.hpp"
#include "command/io/tree.hpp"

namespace command {

namespace {

struct Options {
  FolderOptions images;
  std::string algorithm = "chinese_whispers";
  std::string threshold;  // a distance or a threshold file; "": the model's
  int min_samples = 2;
  std::string out, html;  // "": none
  bool copy = false;
};

namespace fs = std::filesystem;

constexpr int iterations = 100;  // of Chinese whispers, as dlib; it stops at the first without a change
constexpr std::uint64_t seed = 1;
constexpr std::size_t most_shown = 60;  // faces of one person on the contact sheet

struct ClusterFace {
  std::size_t picture;
  int number;  // in its picture
  facenet::Face face;
  FaceQuality quality;
};

class Clustering {
 public:
  explicit Clustering(const Options& options) : options_(options) {}

  int run() {
    LateFile sheet;
    if (!sheet.open(options_.html) || !collect() || !embed()) return failed;
    Output out;
    if (!faces_.empty()) warn_untrained(bulk_.info());
    if (!faces_.empty() && !label()) return failed;
    for (std::size_t g = 0; g < groups_.size(); ++g)
      if (!(options_.images.json ? out.line(as_json(g)) : out.row(as_fields(g)))) return failed;
    if (options_.images.json && !print_others(out)) return failed;
    if (!out.finish() || !write_folders() || !sheet.finish([this] { return contact_sheet(); })) return failed;
    if (!failures_.none() || !all_read_) return failed;
    return faces_.empty() ? no : done;
  }

 private:
  bool collect() {
    const std::string& folder = options_.images.folder;
    if (!is_folder(folder)) return false;
    // Into a new or empty folder only: groups change from run to run, and old ones among the new would mislead.
    if (!options_.out.empty() && !out_.open(options_.out)) return false;
    all_read_ = tree_.collect(folder, options_.out);
    for (const fs::path& picture : tree_.pictures) pictures_.push_back(picture.string());
    if (!pictures_.empty()) return true;
    if (all_read_) tree_.say_empty();
    return false;
  }

  bool embed() {
    const std::string cache = cache_file(options_.images.cache, options_.images.folder);
    if (!bulk_.load(options_.images.model, options_.images.faces, options_.images.aligned, cache) ||
        !resolve_threshold(options_.threshold, bulk_.info(), threshold_))
      return false;
    Progress progress(pictures_.size());
    const bool complete = bulk_.run(pictures_, [&](std::size_t i, EmbeddedPicture& picture) {
      if (!picture.failure.empty()) failures_.add(pictures_[i], picture.failure);
      if (picture.failure.empty() && picture.faces.empty()) without_face_.push_back(pictures_[i]);
      for (std::size_t f = 0; f < picture.faces.size(); ++f) {
        faces_.push_back({i, static_cast<int>(f), picture.faces[f].face, picture.faces[f].quality});
        embeddings_.insert(embeddings_.end(), picture.faces[f].embedding.begin(), picture.faces[f].embedding.end());
      }
      progress.step();
      return true;
    });
    progress.clear();
    failures_.say_all();
    tree_.say_left_out();
    if (complete && faces_.empty() && failures_.none())
      note(options_.images.folder + ": no face was found" + no_face_advice(options_.images.faces) +
           "; give --aligned where pictures are face crops.");
    return complete;
  }

  /// Groups, the largest first; noise last.
  bool label() {
    facenet::ClusterOptions o;
    o.threshold = threshold_;
    o.threads = options_.images.model.threads;
    std::vector<int> labels(faces_.size());
    const facenet::Status status =
        options_.algorithm == "dbscan" ? facenet::dbscan(embeddings_, bulk_.dim(), o, options_.min_samples, labels)
        : options_.algorithm == "average"
            ? facenet::average_link(embeddings_, bulk_.dim(), o, labels)
            : facenet::chinese_whispers(embeddings_, bulk_.dim(), o, iterations, seed, labels);
    if (!status.ok()) {
      say(options_.images.folder + ": " + status.text() + ".");
      return false;
    }
    const int count = *std::max_element(labels.begin(), labels.end()) + 1;
    groups_.resize(static_cast<std::size_t>(count) + 1);
    for (std::size_t i = 0; i < labels.size(); ++i)
      groups_[static_cast<std::size_t>(labels[i] < 0 ? count : labels[i])].push_back(i);
    noise_ = !groups_.back().empty();
    if (!noise_) groups_.pop_back();
    std::stable_sort(groups_.begin(), groups_.end() - noise_,
                     [](const auto& a, const auto& b) { return a.size() > b.size(); });
    return true;
  }

  bool is_noise(std::size_t group) const { return noise_ && group + 1 == groups_.size(); }
  int number_of(std::size_t group) const { return is_noise(group) ? -1 : static_cast<int>(group); }

  std::string as_json(std::size_t group) const {
    Json j, faces = Json::array();
    for (const std::size_t i : groups_[group]) {
      Json face{{"image", pictures_[faces_[i].picture]}, {"face", faces_[i].number}};
      face.update(face_json(faces_[i].face, faces_[i].quality, options_.images.aligned));
      faces.push_back(std::move(face));
    }
    j["cluster"] = number_of(group);
    j["size"] = groups_[group].size();
    j["faces"] = std::move(faces);
    j["algorithm"] = options_.algorithm;
    j["threshold"] = static_cast<float>(threshold_);
    if (const std::string by = measured_by(options_.threshold, bulk_.info()); !by.empty()) j["threshold_source"] = by;
    j["model"] = bulk_.info().digest;
    j["trained"] = bulk_.info().trained;
    return line(j);
  }
  /// The pictures that are in no group, after the groups.
  bool print_others(Output& out) const {
    bool printed = true;
    for (const std::string& picture : without_face_) printed = printed && out.line(line(faceless_picture(picture)));
    for (const Json& failure : failures_.json()) printed = printed && out.line(line(failure));
    return printed;
  }
  std::vector<std::string> as_fields(std::size_t group) const {
    std::string text;
    for (std::size_t i = 0; i < groups_[group].size(); ++i) {
      const ClusterFace& f = faces_[groups_[group][i]];
      text += (i == 0 ? "" : ", ") + pictures_[f.picture] + " " + std::to_string(f.number);
    }
    return {std::to_string(number_of(group)), std::to_string(groups_[group].size()), text};
  }

  /// DIR2/person_001/photo.jpg: a picture lies with each person who is on it, once.
  bool write_folders() {
    if (options_.out.empty()) return true;
    for (std::size_t g = 0; g < groups_.size(); ++g) {
      char name[32];
      std::snprintf(name, sizeof name, "person_%03zu", g + 1);
      const fs::path folder = fs::path(out_.filled()) / (is_noise(g) ? "noise" : name);
      if (!make_folder(folder.string())) return false;
      std::set<std::size_t> pictures;
      for (const std::size_t i : groups_[g]) pictures.insert(faces_[i].picture);
      std::set<std::string> taken;
      for (const std::size_t p : pictures)
        if (!place(pictures_[p], folder, taken)) return false;
    }
    return out_.commit();
  }
  /// Of two pictures with one name the second becomes NAME-2.
  bool place(const std::string& picture, const fs::path& folder, std::set<std::string>& taken) const {
    const fs::path from = picture;
    std::string name = from.filename().string();
    for (int i = 2; !taken.insert(name).second; ++i)
      name = file_name(from.stem().string(), "-" + std::to_string(i) + from.extension().string());
    std::error_code error;
    const fs::path to = folder / name;
    if (options_.copy) {
      fs::copy_file(from, to, error);  // which takes the mode of the other, too
      if (!error) fs::permissions(to, fs::perms::owner_read | fs::perms::owner_write, error);
    }
    if (!options_.copy) fs::create_symlink(fs::absolute(from, error), to, error);
    if (!error) return true;
    return say_unwritable((fs::path(options_.out) / folder.filename() / name).string(), error.value());
  }

  std::string contact_sheet() const {
    std::string body;
    for (std::size_t g = 0; g < groups_.size(); ++g) {
      const std::vector<std::size_t>& group = groups_[g];
      if (group.size() == 1 && !is_noise(g)) break;  // those alone come together, below
      body += "<h2>" + (is_noise(g) ? "Noise" : "Person " + std::to_string(g + 1)) + " <small>" +
              count(group.size(), "face") +
              (group.size() > most_shown ? ", the first " + std::to_string(most_shown) : "") + "</small></h2>" +
              images(group);
    }
    std::vector<std::size_t> alone;
    for (std::size_t g = 0; g < groups_.size(); ++g)
      if (groups_[g].size() == 1 && !is_noise(g)) alone.push_back(groups_[g][0]);
    if (!alone.empty())
      body += "<h2>Once only <small>" + count(alone.size(), "person") +
              (alone.size() > most_shown ? ", the first " + std::to_string(most_shown) : "") + "</small></h2>" +
              images(alone);
    const std::size_t persons = groups_.size() - noise_;
    std::string algorithm = options_.algorithm;
    std::replace(algorithm.begin(), algorithm.end(), '_', ' ');
    std::string lead = count(faces_.size(), "face") + " in " + count(pictures_.size(), "picture") + ", " + algorithm +
                       " at threshold " + number(threshold_);
    if (!without_face_.empty()) lead += "; " + count(without_face_.size(), "picture") + " without a face";
    if (!failures_.none()) lead += "; " + count(failures_.pictures().size(), "picture") + " failed";
    return page(count(persons, "person"), lead + ".", body, bulk_.info());
  }
  std::string images(const std::vector<std::size_t>& faces) const {
    std::string list = "<ul class=faces>";
    for (std::size_t i = 0; i < faces.size() && i < most_shown; ++i) {
      const ClusterFace& f = faces_[faces[i]];
      const std::string& picture = pictures_[f.picture];
      const std::string name = fs::path(picture).filename().string();
      list += "<li>" + face_image(picture, f.face, options_.images.aligned, bulk_.info(), "face in " + name) +
              "<small>" + escape(name) + "</small></li>";
    }
    return list + "</ul>";
  }

  const Options& options_;
  NewFolder out_;
  Tree tree_{options_.images.exclude};
  BulkEmbedder bulk_;
  Failures failures_;
  std::vector<std::string> pictures_;
  std::vector<ClusterFace> faces_;
  std::vector<float> embeddings_;
  std::vector<std::vector<std::size_t>> groups_;
  std::vector<std::string> without_face_;
  double threshold_ = 0;
  bool noise_ = false, all_read_ = true;
};

}  // namespace

SubCommand cluster_command() {
  const auto o = std::make_shared<Options>();
  return {"cluster", "Sort the faces of a folder by person",
          "Prints a line for each group of faces, the largest first: number, TAB, number of faces, TAB, the pictures "
          "with the\n"
          "number of the face; with --json an object. chinese_whispers and average leave nobody out; dbscan calls "
          "faces without\n"
          "neighbours noise (number -1). The threshold is the distance up to which two faces are neighbours.\n\n"
          "Examples:\n"
          "  facenet cluster photographs/ --html people.html\n"
          "  facenet cluster photographs/ --out people/ --copy --threshold 0.5\n"
          "  facenet cluster crops/ --aligned --algorithm average --json\n\n",
          [o](OptionSet& options) {
            options.positional("DIR", o->images.folder, "The folder with the pictures").required();
            options.option("--algorithm", "WORD", o->algorithm, "chinese_whispers (default), dbscan or average")
                .one_of({"chinese_whispers", "dbscan", "average"});
            options
                .option("--min-samples", "N", o->min_samples,
                        "Neighbours that dbscan asks of a face inside a group, itself counted (default 2)")
                .whole_number(1, 1000000);
            options.threshold(o->threshold);
            options.option("--out", "DIR2", o->out,
                           "Make this folder (mode 0700), with a folder of links to pictures for each person");
            options.flag("--copy", o->copy, "Copy pictures there instead of linking to them");
            options.option("--html", "OUT", o->html, "Write a contact sheet");
            options.exclude(o->images.exclude);
            options.folder_of_groups(o->images);
          },
          [o](bool json) {
            o->images.json = json;
            return Clustering(*o).run();
          }};
}

}  // namespace command
