#include "command/io/config_file.hpp"

#include <sys/stat.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "command/io/escape.hpp"
#include "command/io/output.hpp"

namespace command {

namespace {

constexpr std::size_t most_bytes = 1 << 20;

std::string trimmed(const std::string& text) {
  const std::size_t from = text.find_first_not_of(" \t\r");
  return from == std::string::npos ? "" : text.substr(from, text.find_last_not_of(" \t\r") - from + 1);
}

bool refuse(const std::string& file, std::size_t line, const std::string& why) {
  say(file + ": line " + std::to_string(line) + " " + why + "; a line is 'option = value', '[command]' or '# …'.");
  return false;
}

bool is_word(const std::string& text) {
  return !text.empty() && text[0] != '-' &&
         text.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") == std::string::npos;
}

}  // namespace

std::string config_file() {
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return std::string(value == nullptr ? "" : value);
  };
  const std::string named = variable("FACENET_CONFIG"), folder = variable("XDG_CONFIG_HOME"), home = variable("HOME");
  if (!named.empty()) return named;
  if (!folder.empty() && folder[0] == '/') return folder + "/facenet/config";
  return home.empty() ? "" : home + "/.config/facenet/config";
}

bool read_config(const std::string& file, std::vector<Setting>& settings) {
  settings.clear();
  struct stat about {};
  if (file.empty() || (::stat(file.c_str(), &about) != 0 && (errno == ENOENT || errno == ENOTDIR))) return true;
  std::ifstream in(file, std::ios::binary);
  std::string text(most_bytes + 1, '\0');
  if (S_ISREG(about.st_mode) && in) in.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (!S_ISREG(about.st_mode) || in.bad() || !in.is_open()) {
    say(file + ": this configuration cannot be read (" +
        (S_ISREG(about.st_mode) ? std::strerror(errno) : "it is no file") + "); check its permissions.");
    return false;
  }
  text.resize(static_cast<std::size_t>(in.gcount()));
  if (text.size() > most_bytes) return refuse(file, 1, "begins more than 1 MiB");
  if (const std::size_t bad = line_not_utf8(text)) return refuse(file, bad, "is not UTF-8");
  if (text.rfind("\xef\xbb\xbf", 0) == 0) text.erase(0, 3);
  std::string section;
  std::size_t number = 0;
  for (std::size_t from = 0; from < text.size();) {
    const std::size_t end = std::min(text.find('\n', from), text.size());
    const std::string line = trimmed(text.substr(from, end - from));
    from = end + 1;
    ++number;
    if (line.empty() || line[0] == '#') continue;
    if (line[0] == '[') {
      section = line.back() == ']' ? trimmed(line.substr(1, line.size() - 2)) : "";
      if (!is_word(section)) return refuse(file, number, "names no command");
      continue;
    }
    const std::size_t equals = line.find('=');
    Setting s{section, trimmed(line.substr(0, equals)),
              equals == std::string::npos ? "" : trimmed(line.substr(equals + 1)), number};
    if (s.value.size() > 1 && s.value[0] == '"' && s.value.back() == '"')
      s.value = s.value.substr(1, s.value.size() - 2);
    if (equals == std::string::npos || !is_word(s.key) || s.value.empty()) return refuse(file, number, "is no setting");
    settings.push_back(std::move(s));
  }
  return true;
}

}  // namespace command
