// Pictures in folders, in the same order each time.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace command {

/// By the end of its name: .jpg, .jpeg or .png.
bool is_picture(const std::filesystem::path& path);

/// The pictures below a folder, in the order of their names.
class Tree {
 public:
  /// `skip`: a folder inside that is not searched. False when a folder could not be read, which has been said.
  bool collect(const std::filesystem::path& root, const std::filesystem::path& skip = {});

  std::vector<std::filesystem::path> pictures;
  std::size_t others = 0;  // files that are no pictures by their name

 private:
  void sort_in(const std::filesystem::directory_entry& entry, const std::filesystem::path& skip,
               std::vector<std::filesystem::path>& folders);
};

/// Whether the path is a folder; if not, says so.
bool is_folder(const std::string& path);

}  // namespace command
