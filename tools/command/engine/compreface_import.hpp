// A gallery from a running instance of CompreFace: its pictures are embedded anew.
#pragma once

#include <string>
#include <vector>

#include "command/options.hpp"

namespace command {

struct ComprefaceImport {
  std::vector<std::string> instance;  // address and key, or "@" and a file that holds the key
  std::string gallery;
  ModelOptions model;
  FaceOptions faces;
  bool keep_pictures = false, json = false;
};

/// Takes over subjects and examples, with the examples' ids. What is there already is left as it is, so that a call
/// that was stopped goes on where it was. Returns an ExitStatus.
int import_compreface(const ComprefaceImport& options);

}  // namespace command
