#include "command/io/default_files.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>

namespace command {

namespace {

bool is_there(const std::string& path, int mode = F_OK) { return ::access(path.c_str(), mode) == 0; }

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

bool in_path(const std::string& program) {
  const std::string folders = variable("PATH");
  for (std::size_t from = 0; from < folders.size();) {
    const std::size_t end = std::min(folders.find(':', from), folders.size());
    if (end > from && is_there(folders.substr(from, end - from) + "/" + program, X_OK)) return true;
    from = end + 1;
  }
  return false;
}

constexpr const char* packaged_converter = "facenet-convert-weights";

}  // namespace

std::vector<std::string> weight_folders() {
  std::vector<std::string> folders{"weights"};
  const std::string data = variable("XDG_DATA_HOME"), home = variable("HOME");
  if (!data.empty() && data[0] == '/')
    folders.push_back(data + "/facenet");  // XDG: a relative one is ignored
  else if (!home.empty())
    folders.push_back(home + "/.local/share/facenet");
  folders.push_back("/usr/share/facenet");
  return folders;
}

std::string default_file(const std::string& name) {
  const std::vector<std::string> folders = weight_folders();
  for (const std::string& folder : folders)
    if (is_there(folder + "/" + name)) return folder + "/" + name;
  return folders[0] + "/" + name;
}

std::string looked_elsewhere(const std::string& file) {
  const std::vector<std::string> folders = weight_folders();
  if (file.rfind(folders[0] + "/", 0) != 0 || is_there(file)) return {};
  std::string others;
  for (std::size_t i = 1; i < folders.size(); ++i) others += (i == 1 ? "" : " or ") + folders[i];
  return "; nor is one in " + others;
}

std::string converter() {
  if (is_there("tools/convert_weights.py")) return "tools/convert_weights.py";
  return in_path(packaged_converter) ? packaged_converter
                                     : "facenet's converter (tools/convert_weights.py of its sources)";
}

std::string get_weights() {
  if (is_there("tools/demo.sh")) return "run tools/demo.sh to make weights, or give --weights FILE";
  return "run 'facenet weights get vggface2', convert a checkpoint with " + converter() + ", or give --weights FILE";
}

std::string get_detector() {
  if (is_there("tools/bootstrap.sh")) return "tools/bootstrap.sh makes the detector's weights, or give --detector FILE";
  return "convert MTCNN's with " + converter() + " --mtcnn, or give --detector FILE";
}

}  // namespace command
