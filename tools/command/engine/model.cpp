#include "model.hpp"

#include <cstdlib>
#include <cstring>
#include <utility>

#include "output.hpp"

namespace command {

namespace {

using facenet::Errc;

constexpr const char* default_weights = "weights/facenet.safetensors";

const char* remedy(Errc code, Subject subject) {
  const bool detector = subject == Subject::detector, weights = detector || subject == Subject::weights;
  switch (code) {
    case Errc::not_found:
      return weights ? "run tools/demo.sh to make weights, or give --weights FILE" : "check the name";
    case Errc::io_error: return "check the disk and the file's permissions";
    case Errc::out_of_memory: return "free some memory, or use a smaller picture or batch";
    case Errc::truncated:
    case Errc::corrupt: return weights ? "copy the file or convert the weights again" : "copy the picture again";
    case Errc::limit_exceeded: return weights ? "convert the weights again" : "make the picture smaller";
    case Errc::unsupported:
    case Errc::shape_mismatch:
    case Errc::weights_mismatch:
      return detector  ? "give a file that tools/convert_weights.py --mtcnn wrote"
             : weights ? "give weights that tools/convert_weights.py wrote"
                       : "save the picture as JPEG or PNG";
    case Errc::invalid_argument:
    case Errc::ok: break;
  }
  return "see facenet --help";
}

}  // namespace

std::string sentence(const facenet::Status& status, const std::string& file, Subject subject) {
  char text[768];
  std::string sentence = status.print(text, sizeof text);
  if (std::strncmp(status.place(), file.c_str(), file.size()) != 0)
    sentence = (file == "-" ? "standard input" : file) + ": " + sentence;
  // The library's sentences put a remedy, where they have one, behind a colon.
  const bool has_remedy = std::strchr(status.text(), ':') != nullptr;
  return has_remedy ? sentence + "." : sentence + "; " + remedy(status.code(), subject) + ".";
}

void say(const facenet::Status& status, const std::string& file, Subject subject) {
  say(sentence(status, file, subject));
}

std::string weights_file(const std::string& option) {
  if (!option.empty()) return option;
  return weights_named(option) ? std::getenv("FACENET_WEIGHTS") : default_weights;
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
  if (!options.sha256.empty()) o.read.expected_sha256 = options.sha256.c_str();
  auto embedder = facenet::Embedder::load(file.c_str(), o);
  if (!embedder) say(embedder.status(), file, Subject::weights);
  return embedder;
}

facenet::Status embed_crop(facenet::Embedder& embedder, const facenet::Image& crop, float* embedding) {
  return embedder.embed(crop, embedding);
}

facenet::Result<facenet::Embedder> fork_embedder(const facenet::Embedder& embedder) { return embedder.fork(1, 1); }

void warn_untrained(const facenet::ModelInfo& info) {
  static bool warned = false;
  if (!info.trained && !std::exchange(warned, true))
    say("the weights are untrained (random numbers): distances between their embeddings mean nothing about identity.");
}

}  // namespace command
