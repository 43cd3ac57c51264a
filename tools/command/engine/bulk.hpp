// Embeddings of many pictures: several at once, in order, in bounded memory, and never twice where there is a cache.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "command/engine/embedding_cache.hpp"
#include "command/engine/faces.hpp"
#include "command/engine/picture_json.hpp"

namespace command {

struct EmbeddedPicture {
  std::string failure;              // what there is to say; "": none
  std::vector<EmbeddedFace> faces;  // in the order of --select
  PictureDigest key{};  // equal for pictures of equal bytes; zero where neither a cache nor keys() asked for it
  bool known = false;   // leave_out() said so: it was not decoded
};

/// Where a folder's embeddings are kept: beside it, "photos.embeddings" for photos/, so that whoever deletes the one
/// sees the other. Where nothing can be written there, which is reported, and for `option` (--cache) "none": nowhere,
/// "".
std::string cache_file(const std::string& option, const std::string& folder);

/// Whether SQLite can make the file and its journal: its name may be too long. Says so where not.
bool cache_fits(const std::string& file);

class BulkEmbedder {
 public:
  /// Loads embedder and detector and opens the cache, if one is named. False when that failed, which has been reported.
  bool load(const ModelOptions& model, const FaceOptions& faces, bool aligned, const std::string& cache);

  const facenet::ModelInfo& info() const { return embedder_.info(); }
  int dim() const { return embedder_.dim(); }
  void remove_cache() { cache_.remove(); }
  /// Every picture gets its key.
  void want_keys() { keys_ = true; }
  /// The same; and `known`, which several threads ask of a picture's key, is true for those that are not decoded.
  void leave_out(std::function<bool(const PictureDigest&)> known) {
    keys_ = true;
    known_ = std::move(known);
  }
  /// FaceSource's, once loaded.
  std::string fingerprint() const { return source_.fingerprint(); }
  std::string detector() const { return source_.detector(); }

  /// Called for picture after picture, by one thread at a time; false ends the run.
  using Take = std::function<bool(std::size_t index, EmbeddedPicture& picture)>;
  /// False when threads could not be started, which has been reported, or `take` returned false.
  bool run(const std::vector<std::string>& pictures, const Take& take);

 private:
  struct Worker {
    facenet::Embedder embedder;
    FaceSource source;
  };
  bool make_workers(int count, std::vector<Worker>& workers);
  EmbeddedPicture embed(Worker& worker, const std::string& name);

  ModelOptions model_;
  FaceOptions faces_;
  facenet::Embedder embedder_;
  FaceSource source_;
  EmbeddingCache cache_;
  bool keys_ = false;
  std::function<bool(const PictureDigest&)> known_;
};

/// Pictures of known persons that are one and the same file, by their content.
class EqualPictures {
 public:
  /// A picture's key and its person.
  void add(const std::string& picture, const std::string& person, const PictureDigest& key);
  /// Whether the picture stands under two persons; whether it does under one, and is not the first of those.
  bool under_two(std::size_t index) const;
  bool again(std::size_t index) const;
  bool same(std::size_t a, std::size_t b) const { return keys_[a] == keys_[b]; }
  std::size_t count_under_two() const;
  std::size_t count_again() const;
  /// Names them.
  void say_all() const;

 private:
  struct Group {
    std::vector<std::size_t> pictures;
    bool two_persons = false;
  };
  std::vector<std::string> pictures_, persons_;
  std::vector<PictureDigest> keys_;
  std::map<PictureDigest, Group> groups_;
};

/// What there is to say of single pictures, reported together at the end, where it is not lost among the messages of a
/// long run.
class Failures {
 public:
  void add(const std::string& picture, const std::string& sentence);
  const std::vector<std::string>& pictures() const { return pictures_; }
  bool none() const { return pictures_.empty(); }
  /// As errors: a sentence each, at most a hundred, then how many more there are.
  void say_all() const;
  /// As notes; `of_these`: what the rest is called.
  void note_all(const char* of_these) const;
  /// A failed_picture() each.
  Json json() const;

 private:
  void tell(void (*tell_one)(const std::string&), const char* of_these) const;

  std::vector<std::string> pictures_, sentences_;
};

}  // namespace command
