// What a run reads and writes, so that it refuses to overwrite what it reads, or one result with another.
#pragma once

#include <set>
#include <string>

namespace command {

/// First every reads(), then writes(), all before the work. Files are told apart by their names with links resolved:
/// NewFile replaces a name, so a hard link of another name is not in danger.
class OverwriteGuard {
 public:
  /// "" and "-" are no files.
  void reads(const std::string& path);
  /// False where the path is taken, which has been reported.
  bool writes(const std::string& path);
  /// The same for PATH_0.png, PATH_1.png, …: how many is not known yet.
  bool writes_numbered(const std::string& path);

 private:
  std::set<std::string> inputs_, outputs_;
  std::set<std::string> input_stems_, output_stems_;  // what is before _N.png in those that end so
  std::set<std::string> numbered_;
};

}  // namespace command
