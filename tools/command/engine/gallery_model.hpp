// What a gallery has to know of the embedder that fills it.
#pragma once

#include <string>

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

}  // namespace command
