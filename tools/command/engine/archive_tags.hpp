// Names of an archive's people into sidecars beside its pictures, for other programs.
#pragma once

#include <string>
#include <vector>

namespace command {

struct ArchiveTags {
  std::string gallery;
  std::vector<std::string> folders;
  std::string sidecar = "full";  // photo.jpg.xmp; "stem": photo.xmp
  bool dry_run = false, undo = false, json = false;
};

/// Prints a line for each sidecar that changed, or would. Pictures themselves are never written. Returns an ExitStatus.
int tag_archive(const ArchiveTags& options);

}  // namespace command
