// Faces and embeddings of pictures that were embedded before, by the pictures' content: an SQLite file.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "command/engine/quality.hpp"
#include "store/database.hpp"
#include "facenet/detector/boxes.hpp"

namespace command {

/// A face and its embedding. Where pictures are face crops already, the box is the picture and the score 0.
struct EmbeddedFace {
  facenet::Face face;
  FaceQuality quality{};  // 0 for a face crop
  std::vector<float> embedding;
};

/// SHA-256 of a picture's bytes.
using PictureDigest = std::array<std::uint8_t, 32>;

/// Two tables. faces(key, data, picture, most): the key is the SHA-256 of the picture's digest and of all else that its
/// embeddings depend on; the data are its faces as 20 floats each (box, score, landmarks, quality and its parts) and
/// the embedding, host order; `most` is 0 where these are all its faces, else how many were asked for. place(path,
/// picture): where pictures lie. What is of no picture that still lies somewhere is dropped when the cache is closed.
/// Several threads, and several processes, may use one file. What cannot be stored is only a loss of time: it is
/// reported once, and the work goes on.
class EmbeddingCache {
 public:
  EmbeddingCache() = default;
  EmbeddingCache(const EmbeddingCache&) = delete;
  EmbeddingCache& operator=(const EmbeddingCache&) = delete;
  /// Stores what waits.
  ~EmbeddingCache() { close(); }

  /// `context`: what embeddings depend on beside the picture. `most_faces`: how many are asked for, in the order of
  /// --select; 0: all. False when the file is something else. Where it cannot be used, or is another user's, that is
  /// reported, and it stays closed. Both have been reported.
  bool open(const std::string& file, int dim, facenet::Normalise normalise, const std::string& context, int most_faces);
  bool is_open() const { return open_; }
  /// Whether the faces of the picture, which lies at `path`, are there. Every picture is asked for first.
  bool find(const std::string& path, const PictureDigest& picture, std::vector<EmbeddedFace>& faces);
  /// Stored within a second or so: a transaction a picture would wait for the disk each time.
  void add(const PictureDigest& picture, const std::vector<EmbeddedFace>& faces);
  void close();
  /// The file is no longer needed: closes it, whatever waits, and deletes it.
  void remove();

 private:
  using Key = std::array<std::uint8_t, 32>;
  struct Row {
    Key key;
    PictureDigest picture;
    std::vector<float> data;
    bool all;
  };
  struct Place {
    std::string path;
    PictureDigest picture;
  };
  void begin(const std::string& file);
  Key key_of(const PictureDigest& picture) const;
  void lies_at(const std::string& path, const PictureDigest& picture);
  void store_soon();
  void store();
  void drop_gone();
  void give_up(const DatabaseError& why);

  std::optional<Database> database_;
  std::optional<Query> find_, add_, is_at_, put_at_;  // after the database, so that they end before it
  std::vector<Row> rows_;                             // that wait
  std::vector<Place> places_;                         // that wait
  std::atomic<bool> open_{false};
  bool moved_ = false;          // pictures were added, changed or moved
  std::int64_t pictures_ = 0;   // looked for or added
  std::int64_t stored_at_ = 0;  // milliseconds of the steady clock
  std::string context_;
  std::size_t dim_ = 0, most_faces_ = 0;
  facenet::Normalise normalise_{};
  std::mutex mutex_;
};

}  // namespace command
