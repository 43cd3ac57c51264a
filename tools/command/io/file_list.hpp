// Lists of files, as find -print0 or a text editor writes them.
#pragma once

#include <string>
#include <vector>

namespace command {

/// What is named beside the words of a line.
struct PictureLists {
  std::string list;   // a file of names; "": none
  bool zero = false;  // they end in NUL, not in a line feed
  std::vector<std::string> exclude;
};

/// The names in `file` ("-": standard input), each ended by a line feed or with `zero` by NUL. Empty ones are no names.
/// Says why and returns false when it cannot be read.
bool read_file_list(const std::string& file, bool zero, std::vector<std::string>& names);

/// Adds what lists.list names, and puts the pictures of a folder in its place, in the order of their names. Says what
/// was left out of folders. Says why and returns false where nothing is named, or a folder holds no picture or cannot
/// be read; the rest of `pictures` is right all the same.
bool resolve_pictures(const PictureLists& lists, std::vector<std::string>& pictures);

}  // namespace command
