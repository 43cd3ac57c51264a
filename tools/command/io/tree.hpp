// Pictures in folders, in the same order each time.
#pragma once

#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "command/io/json.hpp"

namespace command {

/// What there was in a folder beside the pictures that are taken.
struct LeftOut {
  std::map<std::string, std::size_t> formats;  // pictures of formats that are not read, such as PSD
  std::size_t others = 0;                      // files that are no pictures
  std::size_t system = 0;    // what NAS, desktops, archivers and file systems keep beside people's files
  std::size_t hidden = 0;    // names that begin with a dot
  std::size_t excluded = 0;  // by --exclude
  std::size_t links = 0;     // to what is there already, to a folder around them, or to nothing

  void add(const LeftOut& more);
  /// "3 HEIC, 1 link, 2 other files"; "" for nothing.
  std::string text() const;
  Json json() const;
};

/// The pictures below a folder that this build reads, in the order of their names. The content tells what a file is,
/// the end of its name only where the content tells nothing: a damaged picture is to be named, not left out. Links are
/// followed, but each folder and each file that one leads to is taken once.
class Tree {
 public:
  /// `exclude`: patterns as of a shell, for names, or where one has a slash for paths below the folder.
  explicit Tree(std::vector<std::string> exclude = {});

  /// `skip`: a folder inside that is not searched. False when a folder could not be read, which has been reported.
  bool collect(const std::filesystem::path& root, const std::filesystem::path& skip = {});
  /// One sentence that counts what was left out, if anything was: for the end of the work.
  void say_left_out() const;
  /// The sentence where there are no pictures.
  void say_empty() const;
  std::string empty_sentence() const;

  std::vector<std::filesystem::path> pictures;
  LeftOut left_out;

 private:
  using Id = std::pair<std::uint64_t, std::uint64_t>;  // device and inode
  bool walk(const std::filesystem::path& folder);
  bool by_name(const std::filesystem::path& path);
  void follow(const std::filesystem::path& link, bool& all);
  void sort_in(const std::filesystem::path& file, const Id& id);

  std::vector<std::string> exclude_;
  std::filesystem::path root_, skip_;         // root_: as it was named
  std::vector<std::filesystem::path> links_;  // still to be followed
  std::set<Id> folders_, files_;              // seen
};

/// DIR/STEM with any end that is a picture, the usual ones first; "" where there is none.
std::string find_picture(const std::filesystem::path& folder, const std::string& stem);

/// Whether the path is a folder; if not, reports it.
bool is_folder(const std::string& path);

}  // namespace command
