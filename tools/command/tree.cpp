#include "tree.hpp"

#include <algorithm>
#include <cctype>
#include <system_error>

#include "output.hpp"

namespace command {

namespace fs = std::filesystem;

bool is_picture(const fs::path& path) {
  std::string end = path.extension().string();
  std::transform(end.begin(), end.end(), end.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return end == ".jpg" || end == ".jpeg" || end == ".png";
}

bool Tree::collect(const fs::path& root, const fs::path& skip) {
  bool all = true;
  std::vector<fs::path> folders{root};
  while (!folders.empty()) {
    const fs::path folder = folders.back();
    folders.pop_back();
    std::error_code error;
    fs::directory_iterator at(folder, error);
    for (; !error && at != fs::directory_iterator(); at.increment(error)) sort_in(*at, skip, folders);
    if (error) {
      say(folder.string() + ": this folder cannot be read (" + error.message() + "); check its permissions.");
      all = false;
    }
  }
  std::sort(pictures.begin(), pictures.end());
  return all;
}

// Hidden entries are for programs, not for people. Links to folders are not followed: they may lead round in circles.
void Tree::sort_in(const fs::directory_entry& entry, const fs::path& skip, std::vector<fs::path>& folders) {
  std::error_code error;
  const fs::path& path = entry.path();
  if (path.filename().string()[0] == '.') return;
  if (entry.is_directory(error)) {
    if (!entry.is_symlink(error) && !fs::equivalent(path, skip, error)) folders.push_back(path);
  } else if (is_picture(path)) {
    pictures.push_back(path);
  } else {
    ++others;
  }
}

bool is_folder(const std::string& path) {
  std::error_code error;
  if (fs::is_directory(path, error)) return true;
  say(path + ": this is not a folder; name the one that holds the pictures.");
  return false;
}

}  // namespace command
