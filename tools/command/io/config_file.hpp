// Defaults of options that a user keeps in a file.
#pragma once

#include <string>
#include <vector>

namespace command {

/// "threads = 2" of a file, maybe under "[people]".
struct Setting {
  std::string section;  // the command that it is for; "": all that have the option
  std::string key;      // a long option's name without dashes
  std::string value;
  std::size_t line = 0;
};

/// $FACENET_CONFIG, else $XDG_CONFIG_HOME/facenet/config, else ~/.config/facenet/config; "": there is no such place.
std::string config_file();

/// What stands in it; nothing where it is not there. Says why and returns false when it cannot be read or is no such
/// file.
bool read_config(const std::string& file, std::vector<Setting>& settings);

}  // namespace command
