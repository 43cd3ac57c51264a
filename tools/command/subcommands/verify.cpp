#include <algorithm>
#include <cstdio>
#include <memory>

#include "facenet/distance.hpp"
#include "command/cli/sub_command.hpp"
#include "command/engine/faces.hpp"
#include "command/io/json.hpp"
#include "command/engine/model.hpp"
#include "command/io/output.hpp"
#include "command/engine/picture_json.hpp"
#include "command/engine/pictures.hpp"
#include "command/engine/threshold.hpp"

namespace command {

namespace {

struct Options {
  ModelOptions model;
  FaceOptions faces;
  std::string a, b;
  std::string threshold;  // a distance or a threshold file; "": the model's
  bool aligned = false, json = false;
};

/// The face of a picture that is compared.
struct Compared {
  std::string picture;
  facenet::Face face{};
  FaceQuality quality{};
  std::vector<float> embedding{};
  std::string line{};  // of JSON, where there is nothing to compare
};

/// Embeds the selected face of a picture. Reports what prevented it, and where there are several.
ExitStatus embed_one(facenet::Embedder& embedder, FaceSource& source, const FaceOptions& faces_wanted, Compared& one) {
  std::vector<CutFace> faces;
  facenet::Status status = source.read(one.picture, faces);
  if (status.ok() && faces.empty()) {
    note(shown(one.picture) + ": no face was found, so there is nothing to compare" + no_face_advice(faces_wanted) +
         "; give --aligned where pictures are face crops.");
    one.line = line(faceless_picture(one.picture));
    return no;
  }
  one.embedding.resize(static_cast<std::size_t>(embedder.dim()));
  if (status.ok()) status = embed_crop(embedder, faces[0].crop, one.embedding);
  if (!status.ok()) {
    const std::string failure = sentence(status, one.picture, Subject::picture);
    say(failure);
    one.line = line(failed_picture(one.picture, failure));
    return failed;
  }
  one.face = faces[0].face;
  one.quality = faces[0].quality;
  if (faces.size() > 1) {
    char text[160];
    const facenet::Box& b = faces[0].face.box;
    std::snprintf(text, sizeof text,
                  ": %zu faces were found; the one at %.0f,%.0f to %.0f,%.0f is compared, --select chooses another.",
                  faces.size(), static_cast<double>(b.x0), static_cast<double>(b.y0), static_cast<double>(b.x1),
                  static_cast<double>(b.y1));
    note(shown(one.picture) + text);
  }
  return done;
}

int verify(const Options& options) {
  auto embedder = load(options.model);
  if (!embedder) return failed;
  const facenet::ModelInfo& info = embedder->info();
  double threshold = 0;
  FaceSource source;
  if (!resolve_threshold(options.threshold, info, threshold) ||
      !source.load(options.faces, options.aligned, options.model, info))
    return failed;

  Compared a{options.a}, b{options.b};
  const ExitStatus of_a = embed_one(*embedder, source, options.faces, a);
  const ExitStatus of_b = embed_one(*embedder, source, options.faces, b);
  Output out;
  if (of_a != done || of_b != done) {
    for (const Compared* one : {&a, &b})
      if (options.json && !one->line.empty() && !out.line(one->line)) return failed;
    return !options.json || out.finish() ? std::max(of_a, of_b) : failed;
  }
  warn_untrained(info);
  const double distance = facenet::distance(a.embedding, b.embedding);
  const double similarity = facenet::similarity(a.embedding, b.embedding);
  const bool same = distance <= threshold;

  bool printed;
  if (options.json) {
    Json j;
    j["distance"] = static_cast<float>(distance);
    j["similarity"] = static_cast<float>(similarity);
    j["threshold"] = static_cast<float>(threshold);
    if (const std::string by = measured_by(options.threshold, info); !by.empty()) j["threshold_source"] = by;
    j["same"] = same;
    j["trained"] = info.trained;
    j["model"] = info.digest;
    j["faces"] = Json::array();
    for (const Compared* one : {&a, &b}) {
      Json face{{"image", one->picture}};
      face.update(face_json(one->face, one->quality, options.aligned));
      j["faces"].push_back(std::move(face));
    }
    printed = out.line(line(j));
  } else {
    char numbers[160];
    std::snprintf(numbers, sizeof numbers, "%s: distance %.4f (Euclidean, threshold %.4g", same ? "same" : "different",
                  distance, threshold);
    const std::string start = numbers + threshold_note(options.threshold, info);
    std::snprintf(numbers, sizeof numbers, "), similarity %.4f (cosine)", similarity);
    printed = out.row({start + numbers});
  }
  if (!printed || !out.finish()) return failed;
  return same ? done : no;
}

}  // namespace

SubCommand verify_command() {
  const auto o = std::make_shared<Options>();
  return {"verify", "Tell whether two pictures show the same person",
          "The face that --select puts first is compared, with a note where a picture has several. Without a face in "
          "one of\n"
          "the pictures the status is 1 and nothing is printed.\n\n"
          "Same person: the Euclidean distance of the two embeddings is at most the threshold. Its default is what the "
          "weight\n"
          "file says was measured ('facenet info FILE' shows it), else the customary start for the model, 1.1 for "
          "FaceNet (2015,\n"
          "Fig. 1) and 0.6 for dlib's; 'facenet calibrate' measures your own.\n\n"
          "Examples:\n"
          "  facenet verify a.jpg b.jpg && echo same person\n"
          "  facenet verify --json --threshold 0.9 --aligned face1.png face2.png\n"
          "  facenet verify --threshold staff.threshold a.jpg b.jpg\n\n",
          [o](OptionSet& options) {
            options.positional("A", o->a, "A JPEG or PNG file; - is standard input").required();
            options.positional("B", o->b, "Another").required();
            options.aligned(o->aligned);
            options.faces(o->faces);
            options.threshold(o->threshold);
            options.model(o->model);
          },
          [o](bool json) {
            o->json = json;
            return verify(*o);
          }};
}

}  // namespace command
