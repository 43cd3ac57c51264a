// Embeddings as lines or files: of pictures named one by one, and of whole folders, which can be gone on with after a
// stop.
#include <filesystem>
#include <memory>

#include "command/cli/sub_command.hpp"
#include "command/io/overwrite_guard.hpp"
#include "command/engine/model.hpp"
#include "command/io/file_list.hpp"
#include "command/io/output.hpp"
#include "command/engine/pictures.hpp"
#include "command/engine/embedding_writer.hpp"
#include "command/io/tree.hpp"

namespace command {

namespace {

struct Options {
  ModelOptions model;
  FaceOptions faces;
  std::vector<std::string> pictures;  // and folders
  PictureLists lists;
  std::string out;
  std::string cache;  // "": beside the output until that is complete; "none"
  bool aligned = false, json = false;
};

namespace fs = std::filesystem;

class Embedding {
 public:
  explicit Embedding(const Options& options) : options_(options) {}

  int run() {
    EmbeddingFormat format;
    if (!embedding_format(options_.out, options_.json, format) || !collect()) return failed;
    OverwriteGuard guard;
    for (const std::string& picture : pictures_) guard.reads(picture);
    guard.reads(weights_file(options_.model.weights));
    if (!options_.aligned) guard.reads(detector_file(options_.faces, weights_file(options_.model.weights)));
    if (!guard.writes(options_.out)) return failed;
    // Only a folder is long work. What was done of it waits beside the output until that is complete.
    const std::string partial = options_.out + ".partial";
    const bool keep =
        folders_ && options_.cache.empty() && !options_.out.empty() && options_.out != "-" && cache_fits(partial);
    rows_ = begin_embeddings(options_.out, format, options_.aligned,
                             info_);  // first: an output that cannot be written is known before the work is done
    const std::string cache = keep ? partial : options_.cache == "none" ? "" : options_.cache;
    if (rows_ == nullptr || !bulk_.load(options_.model, options_.faces, options_.aligned, cache)) return failed;
    info_ = bulk_.info();
    at_end_ = folders_ || format == EmbeddingFormat::npy || format == EmbeddingFormat::csv;

    Progress progress(pictures_.size());
    const bool complete = bulk_.run(pictures_, [&](std::size_t i, EmbeddedPicture& picture) {
      const bool written = take(pictures_[i], picture, progress);
      progress.step();
      return written;
    });
    progress.clear();
    for (const auto& [name, sentence] : empty_folders_)
      if (!rows_->add_failed(name, sentence)) return failed;
    if (at_end_) {
      faceless_.note_all("pictures without a face");
      failures_.say_all();
      for (const Tree& tree : trees_) tree.say_left_out();
    }
    if (!complete || !rows_->finish(faceless_.pictures(), failures_.pictures(), left_out_)) return failed;
    if (keep) bulk_.remove_cache();
    if (!all_read_ || !failures_.none()) return failed;
    return found_ ? done : no;
  }

 private:
  /// Folders become the pictures in them.
  bool collect() {
    std::vector<std::string> named = options_.pictures;
    if (!options_.lists.list.empty() && !read_file_list(options_.lists.list, options_.lists.zero, named)) return false;
    if (named.empty()) say("no picture was named; give files or folders, or --files-from LIST.");
    for (const std::string& name : named) {
      std::error_code error;
      if (name == "-" || !fs::is_directory(name, error)) {
        pictures_.push_back(name);
        continue;
      }
      folders_ = true;
      Tree tree(options_.lists.exclude);
      bool read = tree.collect(name);
      if (tree.pictures.empty() && read) {
        tree.say_empty();
        empty_folders_.emplace_back(name, tree.empty_sentence());
        read = false;  // the others are embedded all the same
      }
      all_read_ = all_read_ && read;
      left_out_.add(tree.left_out);
      for (const fs::path& picture : tree.pictures) pictures_.push_back(picture.string());
      if (!tree.pictures.empty()) trees_.push_back(std::move(tree));
    }
    return !pictures_.empty();
  }

  bool take(const std::string& name, const EmbeddedPicture& picture, Progress& progress) {
    if (!picture.failure.empty()) {
      failures_.add(name, picture.failure);
      if (!at_end_) progress.clear();
      if (!at_end_) say(picture.failure);
      return rows_->add_failed(name, picture.failure);
    }
    if (picture.faces.empty()) {
      const std::string sentence = shown(name) + ": no face was found" + no_face_advice(options_.faces) + ".";
      faceless_.add(name, sentence);
      if (!at_end_) progress.clear();
      if (!at_end_) note(sentence);
      return rows_->add_faceless(name);
    }
    for (std::size_t i = 0; i < picture.faces.size(); ++i) {
      if (!found_) progress.clear();
      found_ = true;
      warn_untrained(info_);  // here: a run that only failed has one sentence on stderr, the failure
      if (!rows_->add(name, static_cast<int>(i), picture.faces[i])) return false;
    }
    return true;
  }

  const Options& options_;
  BulkEmbedder bulk_;
  facenet::ModelInfo info_{};
  std::unique_ptr<EmbeddingWriter> rows_;
  std::vector<std::string> pictures_;
  Failures failures_, faceless_;
  LeftOut left_out_;
  std::vector<Tree> trees_;
  std::vector<std::pair<std::string, std::string>> empty_folders_;  // their sentences have been printed
  bool folders_ = false, at_end_ = false, found_ = false, all_read_ = true;
};

}  // namespace

SubCommand embed_command() {
  const auto o = std::make_shared<Options>();
  return {
      "embed", "Print the embeddings of the faces in pictures",
      "Prints a line for each face: picture, TAB, number of the face, TAB, the embedding; with --json an object. "
      "Faces\n"
      "of a picture are in the order of --select, cut out as the weight file wants them. Of a folder all JPEG and PNG "
      "files\n"
      "in it and below are taken, in the order of their names; stopped and run again, the command goes on where it "
      "was, and\n"
      "pictures that failed are listed at the end.\n\n"
      "Examples:\n"
      "  facenet embed group.jpg\n"
      "  facenet embed --max-faces 1 --json portraits/*.jpg\n"
      "  facenet embed --aligned --json crops/*.png --out embeddings.jsonl\n"
      "  facenet embed photographs/ --out faces.npy\n"
      "  facenet embed - < portrait.jpg         a picture from standard input\n\n",
      [o](OptionSet& options) {
        options.pictures(o->pictures);
        options.files_from(o->lists.list, o->lists.zero);
        options.exclude(o->lists.exclude);
        options.aligned(o->aligned);
        options.faces(o->faces);
        options.option("-o,--out", "FILE", o->out,
                       "Write to FILE, which appears only when it is complete: X.npy (with X.index.jsonl and "
                       "X.model.json), X.csv, X.jsonl, or lines as on standard output");
        options.cache(o->cache, "a folder's are kept in FILE.partial until --out's FILE is complete");
        options.model(o->model);
      },
      [o](bool json) {
        o->json = json;
        return Embedding(*o).run();
      }};
}

}  // namespace command
