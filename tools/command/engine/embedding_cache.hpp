// Faces and embeddings of pictures that were embedded before, by the pictures' content: an SQLite file.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "database.hpp"
#include "facenet/detector_boxes.hpp"

namespace command {

/// A face and its embedding. Where pictures are face crops already, the box is the picture and the score 0.
struct EmbeddedFace {
  facenet::Face face;
  std::vector<float> embedding;
};

/// SHA-256 of a picture's bytes and of all else that its embeddings depend on.
using CacheKey = std::array<std::uint8_t, 32>;

/// One table, faces(key, data): a picture's faces as 15 floats each (box, score, landmarks) and the embedding, host order.
/// Several threads, and several processes, may use one file. What cannot be stored is only a loss of time: it is said
/// once, and the work goes on.
class EmbeddingCache {
 public:
  EmbeddingCache() = default;
  EmbeddingCache(const EmbeddingCache&) = delete;
  EmbeddingCache& operator=(const EmbeddingCache&) = delete;
  /// Stores what waits.
  ~EmbeddingCache() { close(); }

  /// False when the file cannot be made, is something else or damaged, which has been said.
  bool open(const std::string& file, int dim);
  bool is_open() const { return database_.has_value(); }
  /// Whether the picture's faces are there.
  bool find(const CacheKey& key, std::vector<EmbeddedFace>& faces);
  /// Stored within a second or so: a transaction a picture would wait for the disk each time.
  void add(const CacheKey& key, const std::vector<EmbeddedFace>& faces);
  void close();
  /// The file is no longer needed: closes it, whatever waits, and deletes it.
  void remove();

 private:
  struct Row {
    CacheKey key;
    std::vector<float> data;
  };
  void store();
  void give_up(const DatabaseError& why);

  std::optional<Database> database_;
  std::optional<Query> find_, add_;  // behind the database, so that they end before it
  std::vector<Row> waiting_;
  std::int64_t stored_at_ = 0;  // milliseconds of the steady clock
  std::size_t dim_ = 0;
  std::mutex mutex_;
};

}  // namespace command
