// Embeddings of many pictures: several at once, in order, in bounded memory, and never twice where there is a cache.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "embedding_cache.hpp"
#include "faces.hpp"

namespace command {

struct EmbeddedPicture {
  std::string failure;  // what there is to say; "": none
  std::vector<EmbeddedFace> faces;  // in the order of --select
};

/// Where a folder's embeddings are kept: beside it, "photos.embeddings" for photos/, so that whoever deletes the one sees the
/// other. Where nothing can be written there, which is said, and for `option` (--cache) "none": nowhere, "".
std::string cache_file(const std::string& option, const std::string& folder);

class BulkEmbedder {
 public:
  /// Loads embedder and detector and opens the cache, if one is named. False when that failed, which has been said.
  bool load(const ModelOptions& model, const FaceOptions& faces, bool aligned, const std::string& cache);

  const facenet::ModelInfo& info() const { return embedder_.info(); }
  int dim() const { return embedder_.dim(); }
  void remove_cache() { cache_.remove(); }

  /// Called for picture after picture, by one thread at a time; false ends the run.
  using Take = std::function<bool(std::size_t index, EmbeddedPicture& picture)>;
  /// False when threads could not be started, which has been said, or `take` returned false.
  bool run(const std::vector<std::string>& pictures, const Take& take);

 private:
  struct Worker {
    facenet::Embedder embedder;
    FaceSource source;
  };
  bool hire(int count, std::vector<Worker>& workers);
  EmbeddedPicture embed(Worker& worker, const std::string& name);

  ModelOptions model_;
  facenet::Embedder embedder_;
  FaceSource source_;
  EmbeddingCache cache_;
  std::string context_;  // what embeddings depend on beside the picture
};

/// Failures of single pictures, said together at the end, where they are not lost among the messages of a long run.
class Failures {
 public:
  void add(const std::string& picture, const std::string& sentence);
  const std::vector<std::string>& pictures() const { return pictures_; }
  bool none() const { return pictures_.empty(); }
  /// A sentence each, at most a hundred.
  void say_all() const;

 private:
  std::vector<std::string> pictures_, sentences_;
};

}  // namespace command
