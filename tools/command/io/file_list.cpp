#include "command/io/file_list.hpp"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>

#include "command/io/output.hpp"
#include "command/io/tree.hpp"

namespace command {

bool read_file_list(const std::string& file, bool zero, std::vector<std::string>& names) {
  const bool standard = file == "-";
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> opened(standard ? nullptr : std::fopen(file.c_str(), "rbe"),
                                                         [](std::FILE* f) { return std::fclose(f); });
  std::FILE* const from = standard ? stdin : opened.get();
  if (from == nullptr) {
    say(file + ": this list cannot be read (" + std::strerror(errno) + "); check its name and permissions.");
    return false;
  }
  std::string name;
  char block[1 << 14];
  const auto add = [&] {
    if (!zero && !name.empty() && name.back() == '\r') name.pop_back();
    if (!name.empty()) names.push_back(name);
    name.clear();
  };
  for (std::size_t n; (n = std::fread(block, 1, sizeof block, from)) > 0;)
    for (std::size_t i = 0; i < n; ++i)
      if (block[i] == (zero ? '\0' : '\n'))
        add();
      else
        name += block[i];
  add();
  if (std::ferror(from) == 0) return true;
  say((standard ? std::string("standard input") : file) + ": this list cannot be read (" + std::strerror(errno) +
      "); check its name and permissions.");
  return false;
}

bool resolve_pictures(const PictureLists& lists, std::vector<std::string>& pictures) {
  std::vector<std::string> named = std::move(pictures);
  pictures.clear();
  if (!lists.list.empty() && !read_file_list(lists.list, lists.zero, named)) return false;
  if (named.empty()) {
    say("no picture was named; give files or folders, or --files-from LIST.");
    return false;
  }
  bool all = true;
  for (const std::string& name : named) {
    std::error_code error;
    if (name == "-" || !std::filesystem::is_directory(name, error)) {
      pictures.push_back(name);
      continue;
    }
    Tree tree(lists.exclude);
    all = tree.collect(name) && all;
    if (tree.pictures.empty()) {
      tree.say_empty();
      all = false;
    }
    tree.say_left_out();
    for (const std::filesystem::path& picture : tree.pictures) pictures.push_back(picture.string());
  }
  return all;
}

}  // namespace command
