// What decides where a line says nothing: the configuration, and the files that are found.
#include <unistd.h>

#include <cstdlib>
#include <memory>

#include "command/cli/sub_command.hpp"
#include "command/io/config_file.hpp"
#include "command/io/default_files.hpp"
#include "command/io/json.hpp"
#include "command/io/output.hpp"

namespace command {

namespace {

bool is_there(const std::string& path) { return !path.empty() && ::access(path.c_str(), R_OK) == 0; }

/// As the commands find it without an option: a variable, a setting, or one of the usual places.
std::string found(const std::vector<Setting>& settings, const char* option, const char* variable, const char* name) {
  const char* value = std::getenv(variable);
  if (value != nullptr && *value != 0) return value;
  for (const Setting& s : settings)
    if (s.section.empty() && s.key == option) return s.value;
  return default_file(name);
}

int show(bool json) {
  const std::string file = config_file();
  std::vector<Setting> settings;
  if (!read_config(file, settings)) return failed;
  const std::string weights = found(settings, "weights", "FACENET_WEIGHTS", "facenet.safetensors"),
                    detector = found(settings, "detector", "FACENET_DETECTOR", "mtcnn.safetensors");
  Output out;
  if (json) {
    Json j;
    j["file"] = file;
    j["there"] = is_there(file);
    j["settings"] = Json::array();
    for (const Setting& s : settings)
      j["settings"].push_back({{"command", s.section}, {"option", s.key}, {"value", s.value}, {"line", s.line}});
    j["weights"] = {{"file", weights}, {"there", is_there(weights)}};
    j["detector"] = {{"file", detector}, {"there", is_there(detector)}};
    return out.line(line(j)) && out.finish() ? done : failed;
  }
  const auto row = [&](const std::string& what, const std::string& path) {
    return out.row({what, path, is_there(path) ? "" : "not there"});
  };
  bool printed = row("configuration", file) && row("weights", weights) && row("detector", detector);
  for (const Setting& s : settings)
    printed = printed && out.row({(s.section.empty() ? "" : s.section + " ") + "--" + s.key, s.value,
                                  "line " + std::to_string(s.line)});
  return printed && out.finish() ? done : failed;
}

}  // namespace

SubCommand config_command() {
  return {
      "config", "Show the defaults that a configuration file sets, and which weights are found",
      "The file is $FACENET_CONFIG, else $XDG_CONFIG_HOME/facenet/config (~/.config/facenet/config). A line is the "
      "long name of\n"
      "an option, =, and its value (true for one without a value); a line [COMMAND] begins what is for that command "
      "alone. What\n"
      "stands on the command line counts more.\n\n"
      "Examples:\n"
      "  facenet config\n"
      "  echo 'threads = 2' >> ~/.config/facenet/config\n\n",
      [](OptionSet&) {}, [](bool json) { return show(json); }};
}

}  // namespace command
