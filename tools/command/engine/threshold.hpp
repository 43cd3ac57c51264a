// --threshold FILE|NUMBER: the Euclidean distance up to which two faces are taken for one person's.
#pragma once

#include <string>

#include "facenet/embedder.hpp"

namespace command {

/// A threshold file is one JSON object: "format" and "version" as here, "model" (16 hex digits), "metric"
/// ("euclidean"), "threshold", and what `facenet calibrate` measured with it.
constexpr const char* threshold_format = "facenet-threshold";
constexpr int threshold_version = 1;

/// "": the model's own; a number; else a threshold file, which must be of this model. Says why and returns false when
/// it cannot be used.
bool resolve_threshold(const std::string& option, const facenet::ModelInfo& info, double& threshold);

/// What measured the threshold that resolve_threshold() took from the weight file; "" where it is the user's or the
/// architecture's. As the file has it, a stranger's text.
std::string measured_by(const std::string& option, const facenet::ModelInfo& info);
/// ", measured by WHAT" or "", for Output::row, which escapes it.
std::string threshold_note(const std::string& option, const facenet::ModelInfo& info);

}  // namespace command
