// What a gallery has to know of the embedder that fills it.
#pragma once

#include <string>

#include "facenet/base/hash.hpp"
#include "facenet/detector/boxes.hpp"
#include "facenet/embedder.hpp"
#include "store/gallery_store.hpp"

namespace command {

/// `detector`: its weights' digest, "" where pictures are face crops.
inline GalleryModel gallery_model(const facenet::ModelInfo& info, const std::string& detector) {
  GalleryModel m;
  m.digest = info.digest;
  m.architecture = info.architecture;
  m.embedding_dim = info.embedding_dim;
  m.trained = info.trained;
  m.normalise = info.normalise == facenet::Normalise::l2 ? "l2" : "none";
  m.image_size = info.image_size;
  m.crop = info.crop == facenet::Crop::box ? "box" : "five_point";
  m.margin = info.margin;
  m.detector = detector;
  return m;
}

/// What stands for a picture's file in a template, 64 hex digits.
inline std::string picture_sha256(facenet::Span<const std::uint8_t> bytes) {
  facenet::Sha256 hash;
  std::uint8_t digest[facenet::Sha256::digest_size];
  char digits[2 * sizeof digest + 1];
  hash.update(bytes.data(), bytes.size());
  hash.digest(digest);
  facenet::to_hex({digest, sizeof digest}, digits);
  return digits;
}

/// The box and the score of a template's face.
inline void set_face(Template& t, const facenet::Face& face) {
  const float box[] = {face.box.x0, face.box.y0, face.box.x1, face.box.y1};
  for (int i = 0; i < 4; ++i) t.box[i] = static_cast<double>(box[i]);
  t.score = static_cast<double>(face.score);
}

}  // namespace command
