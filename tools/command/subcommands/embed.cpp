// Embeddings as lines or files: of pictures named one by one, and of whole folders, which can be gone on with after a stop.
#include <filesystem>
#include <set>

#include "claims.hpp"
#include "model.hpp"
#include "output.hpp"
#include "rows.hpp"
#include "tree.hpp"

namespace command {

namespace {

namespace fs = std::filesystem;

class Embedding {
 public:
  explicit Embedding(const EmbedOptions& options) : options_(options) {}

  int run() {
    RowFormat format;
    if (!row_format(options_.out, options_.json, format) || !collect()) return failed;
    Claims claims;
    for (const std::string& picture : pictures_) claims.reads(picture);
    claims.reads(weights_file(options_.model.weights));
    claims.reads(options_.faces.detector);
    if (!claims.writes(options_.out)) return failed;
    // Only a folder is long work. What was done of it waits beside the output until that is complete.
    const bool keep = folders_ && options_.cache.empty() && !options_.out.empty() && options_.out != "-";
    const std::string partial = options_.out + ".partial";
    if (folders_ && !options_.out.empty()) remove_leftovers(folder(), files());
    rows_ = begin_rows(options_.out, format, info_);  // first: an output that cannot be written is known before the work is done
    const std::string cache = keep ? partial : options_.cache == "none" ? "" : options_.cache;
    if (rows_ == nullptr || !bulk_.load(options_.model, options_.faces, options_.aligned, cache)) return failed;
    info_ = bulk_.info();
    at_end_ = folders_ || format == RowFormat::npy || format == RowFormat::csv;

    Progress progress(pictures_.size());
    const bool complete = bulk_.run(pictures_, [&](std::size_t i, EmbeddedPicture& picture) {
      const bool written = take(pictures_[i], picture, progress);
      progress.step();
      return written;
    });
    progress.clear();
    if (at_end_) {
      faceless_.say_all();
      failures_.say_all();
    }
    if (!complete || !rows_->finish(faceless_.pictures(), failures_.pictures())) return failed;
    if (keep) bulk_.remove_cache();
    if (!all_read_ || !failures_.none()) return failed;
    return found_ ? done : no;
  }

 private:
  /// Folders become the pictures in them.
  bool collect() {
    for (const std::string& name : options_.pictures) {
      std::error_code error;
      if (name == "-" || !fs::is_directory(name, error)) {
        pictures_.push_back(name);
        continue;
      }
      folders_ = true;
      Tree tree;
      bool read = tree.collect(name);
      if (tree.pictures.empty() && read) {
        say(name + ": there is no JPEG or PNG file in it; name the folder that holds the pictures.");
        read = false;  // the others are embedded all the same
      }
      all_read_ = all_read_ && read;
      for (const fs::path& picture : tree.pictures) pictures_.push_back(picture.string());
    }
    return !pictures_.empty();
  }

  /// The names that the output may have: an array has two files beside it.
  std::set<std::string> files() const {
    const fs::path out = options_.out;
    std::set<std::string> names;
    for (const char* extension : {".index.jsonl", ".model.json"})
      names.insert(fs::path(out).replace_extension(extension).filename().string());
    names.insert(out.filename().string());
    return names;
  }

  std::string folder() const {
    const std::string parent = fs::path(options_.out).parent_path().string();
    return parent.empty() ? "." : parent;
  }

  bool take(const std::string& name, const EmbeddedPicture& picture, Progress& progress) {
    if (!picture.failure.empty()) {
      failures_.add(name, picture.failure);
      if (at_end_) return true;
      progress.clear();
      say(picture.failure);
      return true;
    }
    if (picture.faces.empty()) {
      const std::string sentence = (name == "-" ? "standard input" : name) + ": no face was found.";
      faceless_.add(name, sentence);
      if (at_end_) return true;
      progress.clear();
      say(sentence);
    }
    for (std::size_t i = 0; i < picture.faces.size(); ++i) {
      if (!found_) progress.clear();
      found_ = true;
      warn_untrained(info_);  // here: a run that only failed has one sentence on stderr, the failure
      if (!rows_->add(name, static_cast<int>(i), picture.faces[i])) return false;
    }
    return true;
  }

  const EmbedOptions& options_;
  BulkEmbedder bulk_;
  facenet::ModelInfo info_{};
  std::unique_ptr<Rows> rows_;
  std::vector<std::string> pictures_;
  Failures failures_, faceless_;
  bool folders_ = false, at_end_ = false, found_ = false, all_read_ = true;
};

}  // namespace

int embed(const EmbedOptions& options) { return Embedding(options).run(); }

}  // namespace command
