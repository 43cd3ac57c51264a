// Faces and embeddings of pictures that were embedded before, by the pictures' content: an SQLite file.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "facenet/detector_boxes.hpp"

struct sqlite3;
struct sqlite3_stmt;

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
  ~EmbeddingCache();

  /// False when the file is something else or damaged, which has been said. Where it cannot be made or written, that is
  /// said and the cache stays closed.
  bool open(const std::string& file, int dim);
  bool is_open() const { return database_ != nullptr; }
  /// Whether the picture's faces are there.
  bool find(const CacheKey& key, std::vector<EmbeddedFace>& faces);
  /// Stored within a second or so: a transaction a picture would wait for the disk each time.
  void add(const CacheKey& key, const std::vector<EmbeddedFace>& faces);
  void close();

 private:
  struct Row {
    CacheKey key;
    std::vector<float> data;
  };
  bool store();
  void give_up(const std::string& what);

  std::string file_;
  sqlite3* database_ = nullptr;
  sqlite3_stmt *find_ = nullptr, *add_ = nullptr;
  std::vector<Row> waiting_;
  std::int64_t stored_at_ = 0;  // milliseconds of the steady clock
  std::size_t dim_ = 0;
  std::mutex mutex_;
};

}  // namespace command
