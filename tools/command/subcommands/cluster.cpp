// The faces of a folder, sorted by person.
#include "facenet/cluster.hpp"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <set>

#include "bulk.hpp"
#include "json.hpp"
#include "model.hpp"
#include "output.hpp"
#include "page.hpp"
#include "threshold.hpp"
#include "tree.hpp"

namespace command {

namespace {

namespace fs = std::filesystem;

constexpr int iterations = 100;  // of Chinese whispers, as dlib; it stops at the first without a change
constexpr std::uint64_t seed = 1;
constexpr std::size_t most_shown = 60;  // faces of one person on the contact sheet

struct ClusterFace {
  std::size_t picture;
  int number;  // in its picture
  facenet::Face face;
};

class Clustering {
 public:
  explicit Clustering(const ClusterOptions& options) : options_(options) {}

  int run() {
    NewFile sheet;
    if (!options_.html.empty()) {
      const int error = sheet.open(options_.html);
      if (error != 0) return say_unwritable(options_.html, error) ? done : failed;
    }
    if (!collect() || !embed()) return failed;
    Output out;
    if (!faces_.empty()) warn_untrained(bulk_.info());
    if (!faces_.empty() && !label()) return failed;
    for (std::size_t g = 0; g < groups_.size(); ++g)
      if (!out.line(options_.images.json ? as_json(g) : as_text(g))) return failed;
    if (!out.finish() || !write_folders()) return failed;
    if (!options_.html.empty()) {
      const std::string html = contact_sheet();
      int error = sheet.write(html.data(), html.size());
      if (error == 0) error = sheet.commit();
      if (error != 0) return say_unwritable(options_.html, error) ? done : failed;
    }
    if (!failures_.none() || !all_read_) return failed;
    return faces_.empty() ? no : done;
  }

 private:
  bool collect() {
    const std::string& folder = options_.images.folder;
    if (!is_folder(folder)) return false;
    std::error_code error;
    if (!options_.out.empty()) {
      // Into a new or empty folder only: groups change from run to run, and old ones among the new would mislead.
      if (fs::exists(options_.out, error) && !(fs::is_directory(options_.out, error) && fs::is_empty(options_.out, error))) {
        say(options_.out + ": this is there already and not an empty folder; give the name of a new one.");
        return false;
      }
      if (!make_folder(options_.out)) return false;
    }
    Tree tree;
    all_read_ = tree.collect(folder, options_.out);
    for (const fs::path& picture : tree.pictures) pictures_.push_back(picture.string());
    if (!pictures_.empty()) return true;
    if (all_read_) say(folder + ": there is no JPEG or PNG file in it; name the folder that holds the pictures.");
    return false;
  }

  bool embed() {
    const std::string cache = cache_file(options_.images.cache, options_.images.folder);
    if (!bulk_.load(options_.images.model, options_.images.faces, options_.images.aligned, cache) ||
        !choose_threshold(options_.threshold, bulk_.info(), threshold_))
      return false;
    Progress progress(pictures_.size());
    const bool complete = bulk_.run(pictures_, [&](std::size_t i, EmbeddedPicture& picture) {
      if (!picture.failure.empty()) failures_.add(pictures_[i], picture.failure);
      without_face_ += picture.failure.empty() && picture.faces.empty();
      for (std::size_t f = 0; f < picture.faces.size(); ++f) {
        faces_.push_back({i, static_cast<int>(f), picture.faces[f].face});
        embeddings_.insert(embeddings_.end(), picture.faces[f].embedding.begin(), picture.faces[f].embedding.end());
      }
      progress.step();
      return true;
    });
    progress.clear();
    failures_.say_all();
    if (complete && faces_.empty() && failures_.none())
      say(options_.images.folder + ": no face was found; give --aligned where pictures are face crops.");
    return complete;
  }

  /// Groups, the largest first; noise last.
  bool label() {
    facenet::ClusterOptions o;
    o.threshold = threshold_;
    o.threads = options_.images.model.threads;
    const int n = static_cast<int>(faces_.size());
    std::vector<int> labels(faces_.size());
    const facenet::Status status =
        options_.algorithm == "dbscan"
            ? facenet::dbscan(embeddings_.data(), n, bulk_.dim(), o, options_.min_samples, labels.data())
        : options_.algorithm == "average"
            ? facenet::average_link(embeddings_.data(), n, bulk_.dim(), o, labels.data())
            : facenet::chinese_whispers(embeddings_.data(), n, bulk_.dim(), o, iterations, seed, labels.data());
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
    std::stable_sort(groups_.begin(), groups_.end() - noise_, [](const auto& a, const auto& b) { return a.size() > b.size(); });
    return true;
  }

  bool is_noise(std::size_t group) const { return noise_ && group + 1 == groups_.size(); }
  int number_of(std::size_t group) const { return is_noise(group) ? -1 : static_cast<int>(group); }

  std::string as_json(std::size_t group) const {
    Json j, faces = Json::array();
    for (const std::size_t i : groups_[group]) {
      const facenet::Box& b = faces_[i].face.box;
      faces.push_back({{"image", pictures_[faces_[i].picture]}, {"face", faces_[i].number}, {"box", {b.x0, b.y0, b.x1, b.y1}}});
    }
    j["cluster"] = number_of(group);
    j["size"] = groups_[group].size();
    j["faces"] = std::move(faces);
    j["algorithm"] = options_.algorithm;
    j["threshold"] = static_cast<float>(threshold_);
    j["model"] = bulk_.info().digest;
    j["trained"] = bulk_.info().trained;
    return line(j);
  }
  std::string as_text(std::size_t group) const {
    std::string text = std::to_string(number_of(group)) + "\t" + std::to_string(groups_[group].size()) + "\t";
    for (std::size_t i = 0; i < groups_[group].size(); ++i) {
      const ClusterFace& f = faces_[groups_[group][i]];
      text += (i == 0 ? "" : ", ") + pictures_[f.picture] + " " + std::to_string(f.number);
    }
    return text;
  }

  /// DIR2/person_001/photo.jpg: a picture lies with each person who is on it, once.
  bool write_folders() const {
    if (options_.out.empty()) return true;
    for (std::size_t g = 0; g < groups_.size(); ++g) {
      char name[32];
      std::snprintf(name, sizeof name, "person_%03zu", g + 1);
      const fs::path folder = fs::path(options_.out) / (is_noise(g) ? "noise" : name);
      if (!make_folder(folder.string())) return false;
      std::set<std::size_t> pictures;
      for (const std::size_t i : groups_[g]) pictures.insert(faces_[i].picture);
      std::set<std::string> taken;
      for (const std::size_t p : pictures)
        if (!place(pictures_[p], folder, taken)) return false;
    }
    return true;
  }
  /// Of two pictures with one name the second becomes NAME-2.
  bool place(const std::string& picture, const fs::path& folder, std::set<std::string>& taken) const {
    const fs::path from = picture;
    std::string name = from.filename().string();
    for (int i = 2; !taken.insert(name).second; ++i)
      name = from.stem().string() + "-" + std::to_string(i) + from.extension().string();
    std::error_code error;
    const fs::path to = folder / name;
    if (options_.copy) fs::copy_file(from, to, error);
    else fs::create_symlink(fs::absolute(from, error), to, error);
    if (!error) return true;
    say(unwritable(to.string(), error.value()));
    return false;
  }

  std::string contact_sheet() const {
    std::string body;
    for (std::size_t g = 0; g < groups_.size(); ++g) {
      const std::vector<std::size_t>& group = groups_[g];
      if (group.size() == 1 && !is_noise(g)) break;  // those alone come together, below
      body += "<h2>" + (is_noise(g) ? "Noise" : "Person " + std::to_string(g + 1)) + " <small>" + count(group.size(), "face") +
              (group.size() > most_shown ? ", the first " + std::to_string(most_shown) : "") + "</small></h2>" + images(group);
    }
    std::vector<std::size_t> alone;
    for (std::size_t g = 0; g < groups_.size(); ++g)
      if (groups_[g].size() == 1 && !is_noise(g)) alone.push_back(groups_[g][0]);
    if (!alone.empty())
      body += "<h2>Once only <small>" + count(alone.size(), "person") + (alone.size() > most_shown ? ", the first " + std::to_string(most_shown) : "") +
              "</small></h2>" + images(alone);
    const std::size_t persons = groups_.size() - noise_;
    std::string algorithm = options_.algorithm;
    std::replace(algorithm.begin(), algorithm.end(), '_', ' ');
    std::string lead = count(faces_.size(), "face") + " in " + count(pictures_.size(), "picture") + ", " + algorithm +
                       " at threshold " + number(threshold_);
    if (without_face_ != 0) lead += "; " + count(without_face_, "picture") + " without a face";
    if (!failures_.none()) lead += "; " + count(failures_.pictures().size(), "picture") + " failed";
    return page(count(persons, "person"), lead + ".", body, bulk_.info());
  }
  std::string images(const std::vector<std::size_t>& faces) const {
    std::string list = "<ul class=faces>";
    for (std::size_t i = 0; i < faces.size() && i < most_shown; ++i) {
      const ClusterFace& f = faces_[faces[i]];
      const std::string& picture = pictures_[f.picture];
      const std::string name = fs::path(picture).filename().string();
      list += "<li>" + face_image(picture, f.face, options_.images.aligned, bulk_.info(), "face in " + name) + "<small>" +
              escape(name) + "</small></li>";
    }
    return list + "</ul>";
  }

  const ClusterOptions& options_;
  BulkEmbedder bulk_;
  Failures failures_;
  std::vector<std::string> pictures_;
  std::vector<ClusterFace> faces_;
  std::vector<float> embeddings_;
  std::vector<std::vector<std::size_t>> groups_;
  std::size_t without_face_ = 0;
  double threshold_ = 0;
  bool noise_ = false, all_read_ = true;
};

}  // namespace

int cluster(const ClusterOptions& options) { return Clustering(options).run(); }

}  // namespace command
