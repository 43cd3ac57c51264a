// The people of an archive of pictures, kept in a gallery: what is new or changed is looked at, the rest is known.
#pragma once

#include <string>
#include <vector>

#include "command/engine/face_choice.hpp"
#include "command/options.hpp"

namespace command {

struct ArchiveOptions {
  ModelOptions model;
  FaceOptions faces;
  FaceLimits limits{enrolled_score, 0, 0};
  std::string gallery, threshold;
  std::vector<std::string> folders;  // each with all that is below it
  std::string list;                  // a file of pictures' names; "": none
  bool zero = false;                 // they end in NUL, not in a line feed
  std::vector<std::string> exclude;
  double margin = 0.05;
  bool collages = false, prune = false, aligned = false, json = false;
};

/// Prints one summary. Everything that was acknowledged is on the disk, so that a run which was killed goes on where it
/// was. Returns an ExitStatus.
int scan_archive(const ArchiveOptions& options);

}  // namespace command
