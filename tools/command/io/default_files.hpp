// Weight files that the user did not name, and what a machine has to make them with.
#pragma once

#include <string>
#include <vector>

namespace command {

/// Where weights are looked for, in this order: ./weights, $XDG_DATA_HOME/facenet (~/.local/share/facenet where that is
/// not set), /usr/share/facenet.
std::vector<std::string> weight_folders();

/// The first of these folders' `name` that is there; where none is, weights/`name`.
std::string default_file(const std::string& name);

/// "; nor is one in A or B", for a default file that is nowhere; "" for a file that was named.
std::string looked_elsewhere(const std::string& file);

/// How the converter is called here: tools/convert_weights.py, facenet-convert-weights, or where to find it.
std::string converter();

/// What to do where there are no weights.
std::string get_weights();
std::string get_detector();

}  // namespace command
