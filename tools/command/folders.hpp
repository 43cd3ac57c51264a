// Folders of pictures.
#pragma once

#include <filesystem>
#include <vector>

namespace command {

/// The pictures below a folder, in the order of their names.
class Tree {
 public:
  /// `skip`: a folder inside that is not searched, or "". False when a folder could not be read, which has been said.
  bool collect(const std::filesystem::path& root, const std::filesystem::path& skip = {});

  std::vector<std::filesystem::path> pictures;
  std::size_t others = 0;  // files that are no pictures by their name

 private:
  void sort_in(const std::filesystem::directory_entry& entry, const std::filesystem::path& skip,
               std::vector<std::filesystem::path>& folders);
};

}  // namespace command
