#include "command/engine/model.hpp"

#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "command/io/default_files.hpp"
#include "command/io/json.hpp"
#include "command/io/output.hpp"
#include "command/engine/pictures.hpp"

namespace command {

namespace {

using facenet::Errc;

constexpr const char* default_weights = "facenet.safetensors";

std::string remedy(Errc code, Subject subject) {
  const bool detector = subject == Subject::detector, weights = detector || subject == Subject::weights;
  switch (code) {
    case Errc::not_found:
      return detector ? get_detector() : weights ? get_weights() : "check the name";
    case Errc::io_error:
      return "check the disk and the file's permissions";
    case Errc::out_of_memory:
      return "free some memory, or use a smaller picture or batch";
    case Errc::truncated:
    case Errc::corrupt:
      return weights ? "copy the file or convert the weights again" : "copy the picture again";
    case Errc::limit_exceeded:
      return weights ? "convert the weights again" : "make the picture smaller";
    case Errc::unsupported:
    case Errc::weights_mismatch:
      return detector  ? "give a file that " + converter() + " --mtcnn wrote"
             : weights ? "give weights that " + converter() + " wrote"
                       : "save the picture as JPEG or PNG";
    case Errc::invalid_argument:
    case Errc::cancelled:
    case Errc::ok:
      break;
  }
  return "see facenet --help";
}

}  // namespace

std::string sentence(const facenet::Status& status, const std::string& file, Subject subject) {
  // A key or golden activations that the file lacks are "not found" too.
  if (status.code() == Errc::not_found && subject == Subject::weights && ::access(file.c_str(), F_OK) != 0)
    return file + ": there is no such file" + looked_elsewhere(file) + "; " + get_weights() + ".";
  char text[768];
  std::string sentence = status.print(text, sizeof text);
  // The library cannot know whether its sources' folder is here.
  constexpr const char* in_sources = "tools/convert_weights.py";
  const std::size_t tool = subject == Subject::picture ? std::string::npos : sentence.find(in_sources);
  if (tool != std::string::npos) sentence.replace(tool, std::strlen(in_sources), converter());
  if (std::strncmp(status.place(), file.c_str(), file.size()) != 0) sentence = shown(file) + ": " + sentence;
  // The library's sentences put a remedy, where they have one, after a colon.
  const bool has_remedy = std::strchr(status.text(), ':') != nullptr;
  if (has_remedy) return sentence + ".";
  return sentence + "; " + remedy(status.code(), subject) + ".";
}

void say(const facenet::Status& status, const std::string& file, Subject subject) {
  say(sentence(status, file, subject));
}

int print_failed(const std::string& file, const facenet::Status& status, Subject subject, bool json) {
  if (!json) return failed;
  Json j;
  j["file"] = file;
  j["error"] = sentence(status, file, subject);
  Output out;
  if (out.line(line(j))) out.finish();
  return failed;
}

std::string weights_file(const std::string& option) {
  if (!option.empty()) return option;
  return weights_named(option) ? std::getenv("FACENET_WEIGHTS") : default_file(default_weights);
}

bool weights_named(const std::string& option) {
  const char* variable = std::getenv("FACENET_WEIGHTS");
  return !option.empty() || (variable != nullptr && *variable != 0);
}

facenet::Result<facenet::Embedder> load(const ModelOptions& options, int batch) {
  const std::string file = weights_file(options.weights);
  facenet::EmbedderOptions o;
  o.threads = options.threads;
  o.batch = batch;
  o.half_weights = options.half_weights;
  o.int8_weights = options.int8_weights;
  if (options.arithmetic == "int8") o.arithmetic = facenet::Arithmetic::int8;
  if (!options.sha256.empty()) o.read.expected_sha256 = options.sha256.c_str();
  auto embedder = facenet::Embedder::load(file.c_str(), o);
  if (!embedder) say(embedder.status(), file, Subject::weights);
  return embedder;
}

facenet::Status embed_crop(facenet::Embedder& embedder, const facenet::Image& crop, facenet::Span<float> embedding) {
  return embedder.embed(crop, embedding);
}

facenet::Result<facenet::Embedder> fork_embedder(const facenet::Embedder& embedder) { return embedder.fork(1, 1); }

void warn_untrained(const facenet::ModelInfo& info) {
  static bool warned = false;
  if (!info.trained && !std::exchange(warned, true))
    note("the weights are untrained (random numbers): distances between their embeddings mean nothing about identity.");
}

}  // namespace command
