#include <cstdio>

#include "facenet/distance.hpp"
#include "json.hpp"
#include "model.hpp"
#include "output.hpp"
#include "pictures.hpp"

namespace command {

namespace {

/// False when the picture could not be embedded, which has been said.
bool embed_one(facenet::Embedder& embedder, const std::string& name, bool aligned, std::vector<float>& embedding) {
  embedding.resize(static_cast<std::size_t>(embedder.dim()));
  auto picture = read_picture(name);
  facenet::Status status = picture.status();
  if (picture.ok()) status = embedder.embed(picture->view().crop(face_in(*picture, aligned)), embedding.data());
  if (!status.ok()) say(status, name, Subject::picture);
  return status.ok();
}

}  // namespace

int verify(const VerifyOptions& options) {
  auto embedder = load(options.model);
  if (!embedder) return failed;
  const facenet::ModelInfo& info = embedder->info();

  std::vector<float> a, b;
  const bool have_a = embed_one(*embedder, options.a, options.aligned, a);
  const bool have_b = embed_one(*embedder, options.b, options.aligned, b);
  if (!have_a || !have_b) return failed;
  warn_untrained(info);
  explain_crop(options.aligned);
  const double distance = facenet::distance(a.data(), b.data(), embedder->dim());
  const double similarity = facenet::similarity(a.data(), b.data(), embedder->dim());
  const double threshold = options.threshold < 0 ? facenet::default_threshold : options.threshold;
  const bool same = distance <= threshold;

  Output out;
  std::string text;
  if (options.json) {
    Json j;
    j["distance"] = static_cast<float>(distance);
    j["similarity"] = static_cast<float>(similarity);
    j["threshold"] = static_cast<float>(threshold);
    j["same"] = same;
    j["trained"] = info.trained;
    text = line(j);
  } else {
    char numbers[160];
    std::snprintf(numbers, sizeof numbers, "%s: distance %.4f (Euclidean, threshold %.4g), similarity %.4f (cosine)",
                  same ? "same" : "different", distance, threshold, similarity);
    text = numbers;
  }
  if (!out.line(text) || !out.finish()) return failed;
  return same ? done : no;
}

}  // namespace command
