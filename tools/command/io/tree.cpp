#include "command/io/tree.hpp"

#include <fcntl.h>
#include <fnmatch.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <system_error>

#include "command/formats/kinds.hpp"
#include "command/io/output.hpp"

namespace command {

namespace fs = std::filesystem;

namespace {

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

/// Of an editor or an office program: a copy of what lies beside it.
bool is_backup(const std::string& name) { return name.back() == '~' || name.rfind("~$", 0) == 0; }

/// Beside those that begin with a dot (.git, .Trash-1000, .DS_Store, .@__thumb, ._photo.jpg).
bool is_system(const std::string& name) {
  static const std::set<std::string> names{
      "@eadir",
      "#recycle",
      "#snapshot",
      "@recycle",
      "@recently-snapshot",
      "@__thumb",
      "@tmp",  // NAS
      "@sharebin",
      "~snapshot",
      "$recycle.bin",
      "recycler",
      "recycled",
      "system volume information",
      "found.000",  // Windows
      "thumbs",
      "thumbs.db",
      "ehthumbs.db",
      "ehthumbs_vista.db",
      "thumbnails",
      "desktop.ini",
      "__macosx",
      "icon\r",
      "network trash folder",
      "temporary items",  // macOS
      "lost+found",
      "lost.dir",  // file systems
  };
  return names.count(lower(name)) != 0 || is_backup(name);
}

Kind kind_of(const fs::path& file) {
  std::uint8_t start[16];
  // Not blocking: who replaces a file by a pipe meanwhile does not stop us.
  const int descriptor = ::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) return Kind::none;
  const ssize_t n = ::read(descriptor, start, sizeof start);
  ::close(descriptor);
  return n > 0 ? recognise(start, static_cast<std::size_t>(n)) : Kind::none;
}

bool has_picture_end(const fs::path& path) {
  const std::vector<std::string>& ends = picture_ends();
  return std::find(ends.begin(), ends.end(), lower(path.extension().string())) != ends.end();
}

/// "" for a picture that is read, else its format, "-" for no picture.
std::string why_not(const fs::path& file) {
  const Kind kind = kind_of(file);
  if (is_read(kind) || (kind == Kind::none && has_picture_end(file))) return {};
  return kind == Kind::none ? "-" : kind == Kind::tiff ? "TIFF or camera raw" : name_of(kind);
}

/// Whether the folder `outer` holds `inner` or is it; both without links.
bool holds(const fs::path& outer, const fs::path& inner) {
  return std::mismatch(outer.begin(), outer.end(), inner.begin(), inner.end()).first == outer.end();
}

}  // namespace

void LeftOut::add(const LeftOut& more) {
  for (const auto& [format, n] : more.formats) formats[format] += n;
  others += more.others;
  system += more.system;
  hidden += more.hidden;
  excluded += more.excluded;
  links += more.links;
}

std::string LeftOut::text() const {
  std::string all;
  const auto add = [&](std::size_t n, const std::string& one, const std::string& many) {
    if (n != 0) all += (all.empty() ? "" : ", ") + std::to_string(n) + " " + (n == 1 ? one : many);
  };
  for (const auto& [format, n] : formats) add(n, format, format);
  add(others, "other file", "other files");
  add(system, "system entry", "system entries");
  add(hidden, "hidden entry", "hidden entries");
  add(excluded, "excluded entry", "excluded entries");
  add(links, "link to what is there already or nowhere", "links to what is there already or nowhere");
  return all;
}

Json LeftOut::json() const {
  Json j;
  j["formats"] = Json::object();
  for (const auto& [format, n] : formats) j["formats"][format] = n;
  j["other_files"] = others;
  j["system"] = system;
  j["hidden"] = hidden;
  j["excluded"] = excluded;
  j["links"] = links;
  return j;
}

Tree::Tree(std::vector<std::string> exclude) : exclude_(std::move(exclude)) {
  for (std::string& pattern : exclude_) {
    while (pattern.size() > 1 && pattern.back() == '/') pattern.pop_back();
    if (pattern.size() > 1 && pattern[0] == '/') pattern.erase(0, 1);
  }
}

bool Tree::collect(const fs::path& root, const fs::path& skip) {
  root_ = root;
  skip_ = skip;
  bool all = walk(root);
  // After the folders themselves, so that what has a place of its own keeps it.
  while (!links_.empty()) {
    std::vector<fs::path> links = std::exchange(links_, {});
    std::sort(links.begin(), links.end());
    for (const fs::path& link : links) follow(link, all);
  }
  std::sort(pictures.begin(), pictures.end());
  return all;
}

void Tree::say_left_out() const {
  if (!left_out.text().empty()) note(root_.string() + ": left out: " + left_out.text() + ".");
}

void Tree::say_empty() const { say(empty_sentence()); }

std::string Tree::empty_sentence() const {
  const std::string found = left_out.text().empty() ? "" : " (left out: " + left_out.text() + ")";
  return root_.string() + ": there is no picture in it that is read (" + formats_read() + ")" + found +
         "; name the folder that holds the pictures.";
}

/// The folder and those below it; links are kept for later.
bool Tree::walk(const fs::path& start) {
  bool all = true;
  std::vector<fs::path> folders{start};
  while (!folders.empty()) {
    const fs::path folder = folders.back();
    folders.pop_back();
    struct stat about {};
    if (::stat(folder.c_str(), &about) == 0 && !folders_.insert({about.st_dev, about.st_ino}).second) continue;
    std::error_code error;
    fs::directory_iterator at(folder, error);
    for (; !error && at != fs::directory_iterator(); at.increment(error)) {
      const fs::path& path = at->path();
      if (by_name(path) || ::lstat(path.c_str(), &about) != 0) continue;
      std::error_code none;
      if (S_ISLNK(about.st_mode))
        links_.push_back(path);
      else if (!S_ISDIR(about.st_mode))
        sort_in(path, S_ISREG(about.st_mode) ? Id{about.st_dev, about.st_ino} : Id{});
      else if (!fs::equivalent(path, skip_, none))
        folders.push_back(path);
    }
    if (error) {
      say(folder.string() + ": this folder cannot be read (" + error.message() + "); check its permissions.");
      all = false;
    }
  }
  return all;
}

/// Whether the name alone leaves the entry out.
bool Tree::by_name(const fs::path& path) {
  const std::string name = path.filename().string(), below = path.lexically_relative(root_).string();
  if (is_temporary(name)) return true;  // maybe of this very run: there is nothing to count
  for (const std::string& pattern : exclude_) {
    const bool a_path = pattern.find('/') != std::string::npos;
    if (::fnmatch(pattern.c_str(), (a_path ? below : name).c_str(), a_path ? FNM_PATHNAME : 0) != 0) continue;
    ++left_out.excluded;
    return true;
  }
  left_out.hidden += name[0] == '.';
  left_out.system += is_system(name);
  return name[0] == '.' || is_system(name);
}

void Tree::follow(const fs::path& link, bool& all) {
  struct stat about {};
  std::error_code error;
  const bool there = ::stat(link.c_str(), &about) == 0;
  const Id id{about.st_dev, about.st_ino};
  if (there && S_ISDIR(about.st_mode)) {
    if (fs::equivalent(link, skip_, error)) return;
    const fs::path target = fs::canonical(link, error);
    // One that leads to a folder around it would bring other persons' pictures, and itself, under its name.
    const bool around = holds(target, fs::canonical(link.parent_path(), error));
    if (!error && !around && folders_.count(id) == 0)
      all = walk(link) && all;
    else
      ++left_out.links;
  } else if (there && (!S_ISREG(about.st_mode) || files_.count(id) == 0)) {
    sort_in(link, S_ISREG(about.st_mode) ? id : Id{});
  } else if (!there && has_picture_end(link)) {
    pictures.push_back(link);  // the user would miss it
  } else {
    ++left_out.links;
  }
}

/// A regular file, or with the id {0, 0} a device, a pipe or a socket, which is not opened.
void Tree::sort_in(const fs::path& file, const Id& id) {
  const std::string why = id == Id{} ? "-" : why_not(file);
  files_.insert(id);
  if (why.empty())
    pictures.push_back(file);
  else
    ++(why == "-" ? left_out.others : left_out.formats[why]);
}

std::string find_picture(const fs::path& folder, const std::string& stem) {
  std::error_code error;
  for (const std::string& end : picture_ends())
    if (fs::is_regular_file(folder / (stem + end), error)) return (folder / (stem + end)).string();
  fs::path found;
  fs::directory_iterator at(folder, error);
  for (; !error && at != fs::directory_iterator(); at.increment(error)) {
    const fs::path& path = at->path();
    std::error_code none;
    if ((path.stem() == stem || path.filename() == stem) && fs::is_regular_file(path, none) && why_not(path) != "-" &&
        (found.empty() || path < found))
      found = path;
  }
  return found.string();
}

bool is_folder(const std::string& path) {
  std::error_code error;
  if (fs::is_directory(path, error)) return true;
  say(path + ": this is not a folder; name the one that holds the pictures.");
  return false;
}

}  // namespace command
