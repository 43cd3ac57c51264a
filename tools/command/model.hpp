// The engine as the sub-commands use it: weights found and loaded, failures as sentences.
#pragma once

#include <string>

#include "facenet/embedder.hpp"

namespace command {

/// Options that every sub-command with a network has.
struct ModelOptions {
  std::string weights;  // "": $FACENET_WEIGHTS, else the default file
  std::string sha256;   // "": not checked
  int threads = 0;      // 0: one for each CPU this process may use
  bool half_weights = false;
};

/// Remedies for a Status whose sentence does not end in one (after a colon).
enum class Subject { weights, picture };

/// Says "<file>: <place>: <text> (byte N); <remedy>." on stderr.
void say(const facenet::Status& status, const std::string& file, Subject subject);

/// --weights, $FACENET_WEIGHTS or weights/facenet.safetensors.
std::string weights_file(const std::string& option);

/// A loaded embedder with a workspace for `batch`, or the failure, said.
facenet::Result<facenet::Embedder> load(const ModelOptions& options, int batch = 1);

/// Says once that distances mean nothing when the weights are not trained.
void warn_untrained(const facenet::ModelInfo& info);

/// Euclidean distance up to which two pictures count as one person, unless the user says otherwise.
/// 1.1 is the threshold of Fig. 1 in Schroff et al., "FaceNet", 2015, which users of davidsandberg/facenet's compare.py
/// and of facenet-pytorch apply to the Euclidean distance of unit vectors (the paper's figure shows its square).
/// A starting point for trained Inception-ResNet-v1 models: a deployment should measure its own.
double default_threshold(const facenet::ModelInfo& info);

}  // namespace command
