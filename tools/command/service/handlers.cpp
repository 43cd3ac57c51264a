#include "command/service/handlers.hpp"

#include <chrono>

#include "command/engine/face_choice.hpp"
#include "command/engine/gallery_model.hpp"

namespace command::service {

Handlers::Handlers(Service& s) : service(s) {
  model = gallery_model(info(), service.engine.detector());
  if (!resolve_threshold(service.options.threshold, info(), threshold, &calibrated))
    throw DatabaseError("The threshold cannot be used.");
  scale = similarity_scale(info(), service.options.threshold, threshold);
  LiveGallery::Options options;
  options.half = service.options.half_gallery;
  options.keep_pictures = service.options.keep_pictures;
  options.threads = service.engine.workers();
  for (const std::string& file : service.options.galleries) {
    auto gallery = std::make_unique<LiveGallery>(file, model, options);
    for (const auto& other : galleries)
      if (other->name() == gallery->name())
        throw DatabaseError(file + ": another gallery is called '" + gallery->name() +
                            "' too; galleries go by the names of their files, so rename one.");
    galleries.push_back(std::move(gallery));
  }
  if (galleries.empty()) throw DatabaseError("No gallery is named; give --gallery FILE, which is made if need be.");
}

LiveGallery& Handlers::gallery(const std::string& name) const {
  for (const auto& gallery : galleries)
    if (gallery->name() == name) return *gallery;
  throw HttpError{404, "there is no gallery of this name.", unknown_gallery};
}

std::vector<std::vector<FoundPerson>> Handlers::nearest(const LiveGallery& in, facenet::Span<const float> queries,
                                                        int k, double most) const {
  const auto begin = std::chrono::steady_clock::now();
  auto found = in.nearest(queries, k, most);
  service.metrics.add_time(Stage::search,
                           std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  return found;
}

FaceResult Handlers::one_face(const PictureResult& picture, std::vector<Ignored>* ignored) const {
  std::vector<FaceMeasures> measures;
  for (const FaceResult& f : picture.faces) measures.push_back(measures_of(f.face, f.quality));
  const FaceLimits limits{enrolled_score, enrolled_area, 0};
  const std::vector<Fails> fails = failed_limits(measures, limits);
  for (std::size_t i = 0; ignored != nullptr && i < fails.size(); ++i)
    if (fails[i] != Fails::none) ignored->push_back({i, why(fails[i], measures[i], limits)});
  const FaceResult* one = nullptr;
  for (std::size_t i = 0; i < picture.faces.size(); ++i) {
    if (fails[i] != Fails::none) continue;
    if (one != nullptr)
      throw HttpError{400, "More than one face is found in the given image: whose face is meant is not clear.",
                      several_faces};
    one = &picture.faces[i];
  }
  if (one == nullptr) throw HttpError{400, "No face is found in the given image", no_face};
  return *one;
}

Template Handlers::make_template(const FaceResult& face, const Picture& picture) const {
  Template t;
  t.image = picture.name;
  t.sha256 = picture_sha256({reinterpret_cast<const std::uint8_t*>(picture.bytes.data()), picture.bytes.size()});
  set_face(t, face.face);
  t.embedding = face.embedding;
  return t;
}

std::vector<float> embeddings(const std::vector<FaceResult>& faces) {
  std::vector<float> all;
  for (const FaceResult& f : faces) all.insert(all.end(), f.embedding.begin(), f.embedding.end());
  return all;
}

}  // namespace command::service
