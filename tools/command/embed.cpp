#include <cstdio>

#include "json.hpp"
#include "model.hpp"
#include "output.hpp"
#include "pictures.hpp"

namespace command {

namespace {

struct Face {
  facenet::Rect box;
  const std::vector<float>& embedding;
};

std::string as_json(const std::string& picture, const Face& face, const facenet::ModelInfo& info) {
  Json j;
  j["image"] = picture;
  j["face"] = 0;
  j["box"] = {face.box.x0, face.box.y0, face.box.x1, face.box.y1};
  j["embedding"] = face.embedding;
  j["model"] = info.digest;
  j["trained"] = info.trained;
  return line(j);
}

/// name TAB number of the face TAB the embedding's numbers, separated by spaces.
std::string as_text(const std::string& picture, const Face& face) {
  std::string text = picture + "\t0\t";
  char number[24];
  for (std::size_t i = 0; i < face.embedding.size(); ++i) {
    std::snprintf(number, sizeof number, i == 0 ? "%.9g" : " %.9g", static_cast<double>(face.embedding[i]));
    text += number;
  }
  return text;
}

}  // namespace

int embed(const EmbedOptions& options) {
  Output out;  // first: an output that cannot be written is known before the work is done
  if (!out.open(options.out)) return failed;
  auto embedder = load(options.model);
  if (!embedder) return failed;

  std::vector<float> embedding(static_cast<std::size_t>(embedder->dim()));
  Progress progress(options.pictures.size());
  bool all_done = true;
  for (const std::string& name : options.pictures) {
    auto picture = read_picture(name);
    facenet::Status status = picture.status();
    if (picture.ok()) {
      const facenet::Rect box = face_in(*picture, options.aligned);
      status = embedder->embed(picture->view().crop(box), embedding.data());
      if (status.ok()) {
        const Face face{box, embedding};
        progress.clear();
        warn_untrained(embedder->info());  // here: a run that only failed has one sentence on stderr, the failure
        explain_crop(options.aligned);
        if (!out.line(options.json ? as_json(name, face, embedder->info()) : as_text(name, face))) return failed;
      }
    }
    if (!status.ok()) {
      progress.clear();
      say(status, name, Subject::picture);
      all_done = false;
    }
    progress.step();
  }
  return out.finish() && all_done ? done : failed;
}

}  // namespace command
