// A gallery for another model: every face is embedded anew from its picture.
#pragma once

#include <string>

#include "command/options.hpp"

namespace command {

struct GalleryMigration {
  std::string gallery;
  ModelOptions model;
  FaceOptions faces;
  bool drop_missing = false, json = false;
};

/// New embeddings wait in FILE.migrating, from which a later call goes on; the gallery changes once all are there, in
/// one transaction. Returns an ExitStatus.
int migrate_gallery(const GalleryMigration& options);

}  // namespace command
