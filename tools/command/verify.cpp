#include <cstdio>

#include "facenet/distance.hpp"
#include "faces.hpp"
#include "json.hpp"
#include "model.hpp"
#include "output.hpp"
#include "threshold.hpp"

namespace command {

namespace {

/// Embeds the selected face of a picture. What prevented it, or that there were several, is said.
ExitStatus embed_one(facenet::Embedder& embedder, FaceSource& source, const std::string& name,
                     std::vector<float>& embedding) {
  std::vector<CutFace> faces;
  facenet::Status status = source.read(name, faces);
  const std::string shown = name == "-" ? "standard input" : name;
  if (status.ok() && faces.empty()) {
    say(shown + ": no face was found, so there is nothing to compare; give --aligned where pictures are face crops.");
    return no;
  }
  embedding.resize(static_cast<std::size_t>(embedder.dim()));
  if (status.ok()) status = embed_crop(embedder, faces[0].crop, embedding.data());
  if (!status.ok()) {
    say(status, name, Subject::picture);
    return failed;
  }
  if (faces.size() > 1) {
    char text[160];
    const facenet::Box& b = faces[0].face.box;
    std::snprintf(text, sizeof text,
                  ": %zu faces were found; the one at %.0f,%.0f to %.0f,%.0f is compared, --select chooses another.",
                  faces.size(), static_cast<double>(b.x0), static_cast<double>(b.y0), static_cast<double>(b.x1),
                  static_cast<double>(b.y1));
    say(shown + text);
  }
  return done;
}

}  // namespace

int verify(const VerifyOptions& options) {
  auto embedder = load(options.model);
  if (!embedder) return failed;
  const facenet::ModelInfo& info = embedder->info();
  double threshold = 0;
  FaceSource source;
  if (!choose_threshold(options.threshold, info, threshold) ||
      !source.load(options.faces, options.aligned, options.model, info))
    return failed;

  std::vector<float> a, b;
  const ExitStatus of_a = embed_one(*embedder, source, options.a, a);
  const ExitStatus of_b = embed_one(*embedder, source, options.b, b);
  if (of_a != done || of_b != done) return of_a > of_b ? of_a : of_b;
  warn_untrained(info);
  const double distance = facenet::distance(a.data(), b.data(), embedder->dim());
  const double similarity = facenet::similarity(a.data(), b.data(), embedder->dim());
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
    j["model"] = info.digest;
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
