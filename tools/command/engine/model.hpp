// The engine as the sub-commands use it: weights found and loaded, failures as sentences.
#pragma once

#include <string>

#include "command/options.hpp"
#include "facenet/embedder.hpp"

namespace command {

/// Remedies for a Status whose sentence does not end in one (after a colon).
enum class Subject { weights, detector, picture };

/// "<file>: <place>: <text> (byte N); <remedy>."
std::string sentence(const facenet::Status& status, const std::string& file, Subject subject);
/// Says it on stderr.
void say(const facenet::Status& status, const std::string& file, Subject subject);

/// With `json` {"file":…, "error":…}, for a weight file that is an input and failed, which has been reported. Always
/// `failed`.
int print_failed(const std::string& file, const facenet::Status& status, Subject subject, bool json);

/// --weights, $FACENET_WEIGHTS or default_file("facenet.safetensors").
std::string weights_file(const std::string& option);
/// Whether the user named it: then it has to be there.
bool weights_named(const std::string& option);

/// A loaded embedder with a workspace for `batch`, or the failure, reported.
facenet::Result<facenet::Embedder> load(const ModelOptions& options, int batch = 1);

/// Compiled once, in model.cpp: a unit with the network's kernels takes 20 seconds, and 90 with sanitizers.
facenet::Status embed_crop(facenet::Embedder& embedder, const facenet::Image& crop, facenet::Span<float> embedding);

/// Another one over the same weights, for one picture at a time on one thread.
facenet::Result<facenet::Embedder> fork_embedder(const facenet::Embedder& embedder);

/// Says once that distances mean nothing when the weights are not trained.
void warn_untrained(const facenet::ModelInfo& info);

}  // namespace command
