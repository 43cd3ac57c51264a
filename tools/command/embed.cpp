#include <cstdio>

#include "claims.hpp"
#include "faces.hpp"
#include "json.hpp"
#include "model.hpp"
#include "output.hpp"

namespace command {

namespace {

using Embedding = std::vector<float>;

std::string as_json(const std::string& picture, int number, const facenet::Box& box, const Embedding& embedding,
                    const facenet::ModelInfo& info) {
  Json j;
  j["image"] = picture;
  j["face"] = number;
  j["box"] = {box.x0, box.y0, box.x1, box.y1};
  j["embedding"] = embedding;
  j["model"] = info.digest;
  j["trained"] = info.trained;
  return line(j);
}

/// name TAB number of the face TAB the embedding's numbers, separated by spaces.
std::string as_text(const std::string& picture, int number, const Embedding& embedding) {
  std::string text = escaped(picture) + "\t" + std::to_string(number) + "\t";
  char digits[24];
  for (std::size_t i = 0; i < embedding.size(); ++i) {
    std::snprintf(digits, sizeof digits, i == 0 ? "%.9g" : " %.9g", static_cast<double>(embedding[i]));
    text += digits;
  }
  return text;
}

}  // namespace

int embed(const EmbedOptions& options) {
  Claims claims;
  for (const std::string& name : options.pictures) claims.reads(name);
  claims.reads(weights_file(options.model.weights));
  claims.reads(options.faces.detector);
  Output out;  // first: an output that cannot be written is known before the work is done
  if (!claims.writes(options.out) || !out.open(options.out)) return failed;
  auto embedder = load(options.model);
  FaceSource source;
  if (!embedder || !source.load(options.faces, options.aligned, options.model, embedder->info())) return failed;
  const facenet::ModelInfo& info = embedder->info();

  Embedding embedding(static_cast<std::size_t>(embedder->dim()));
  std::vector<CutFace> faces;
  Progress progress(options.pictures.size());
  bool all_done = true, found = false;
  for (const std::string& name : options.pictures) {
    facenet::Status status = source.read(name, faces);
    progress.clear();
    if (status.ok() && faces.empty()) say((name == "-" ? "standard input" : name) + ": no face was found.");
    for (std::size_t i = 0; i < faces.size() && status.ok(); ++i) {
      status = embedder->embed(faces[i].crop, embedding.data());
      if (!status.ok()) break;
      found = true;
      warn_untrained(info);  // here: a run that only failed has one sentence on stderr, the failure
      const int number = static_cast<int>(i);
      if (!out.line(options.json ? as_json(name, number, faces[i].face.box, embedding, info)
                                 : as_text(name, number, embedding)))
        return failed;
    }
    if (!status.ok()) {
      say(status, name, Subject::picture);
      all_done = false;
    }
    progress.step();
  }
  if (!out.finish() || !all_done) return failed;
  return found ? done : no;
}

}  // namespace command
