#include "command/io/overwrite_guard.hpp"

#include <filesystem>

#include "command/io/output.hpp"

namespace command {

namespace {

std::string resolved(const std::string& path) {
  std::error_code error;
  const std::filesystem::path found = std::filesystem::weakly_canonical(path, error);
  return error ? path : found.string();
}

/// "folder/a" for "folder/a_12.png", "" for another name.
std::string stem(const std::string& path) {
  constexpr std::size_t end = 4;  // of ".png"
  if (path.size() <= end || path.compare(path.size() - end, end, ".png") != 0) return {};
  const std::size_t last = path.size() - end - 1, bar = path.find_last_not_of("0123456789", last);
  return bar != std::string::npos && bar < last && path[bar] == '_' ? path.substr(0, bar) : std::string();
}

bool no_file(const std::string& path) { return path.empty() || path == "-"; }

bool refuse_input(const std::string& path) {
  say(path + ": the output would replace this input; give it another name or folder.");
  return false;
}

bool refuse_twice(const std::string& path) {
  say(path + ": two outputs would get this name; give them different folders.");
  return false;
}

}  // namespace

void OverwriteGuard::reads(const std::string& path) {
  if (no_file(path)) return;
  const std::string file = resolved(path);
  inputs_.insert(file);
  input_stems_.insert(stem(file));
}

bool OverwriteGuard::writes(const std::string& path) {
  if (no_file(path)) return true;
  const std::string file = resolved(path);
  if (inputs_.count(file) != 0) return refuse_input(path);
  const bool numbered = !stem(file).empty() && numbered_.count(stem(file)) != 0;
  if (numbered || !outputs_.insert(file).second) return refuse_twice(path);
  output_stems_.insert(stem(file));
  return true;
}

bool OverwriteGuard::writes_numbered(const std::string& path) {
  const std::string file = resolved(path);
  if (input_stems_.count(file) != 0) return refuse_input(path + "_N.png");
  if (output_stems_.count(file) != 0 || !numbered_.insert(file).second) return refuse_twice(path + "_N.png");
  return true;
}

}  // namespace command
