// What the two interfaces share: the galleries, the scale of similarities, and the calls that each of them has.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "command/engine/threshold.hpp"
#include "command/service/call.hpp"
#include "command/service/live_gallery.hpp"
#include "command/service/request_log.hpp"
#include "command/service/service.hpp"
#include "command/service/similarity.hpp"

namespace command::service {

/// A face that does not count when a picture's one face is enrolled, by its place in the picture's faces.
struct Ignored {
  std::size_t face;
  std::string reason;
};

class Handlers {
 public:
  /// Throws DatabaseError where a gallery cannot be used.
  explicit Handlers(Service& service);

  Service& service;
  std::vector<std::unique_ptr<LiveGallery>> galleries;  // at least one
  GalleryModel model;
  double threshold = 0;
  Calibrated calibrated;  // what the file of --threshold says of it
  SimilarityScale scale{};
  RequestLog log;

  const facenet::ModelInfo& info() const { return service.engine.info(); }
  int dim() const { return info().embedding_dim; }
  /// The first, which /api/v1 speaks to.
  LiveGallery& gallery() const { return *galleries.front(); }
  /// By its name; HttpError 404.
  LiveGallery& gallery(const std::string& name) const;

  /// Of faces that were embedded. Measured as Stage::search.
  std::vector<std::vector<FoundPerson>> nearest(const LiveGallery& in, facenet::Span<const float> queries, int k,
                                                double most) const;
  /// The one face of a picture that is enrolled. Ignores faces with a score under 0.9 or less than a tenth of the
  /// largest one's area: a passer-by or a poster. HttpError 400 where none or several are left.
  FaceResult one_face(const PictureResult& picture, std::vector<Ignored>* ignored = nullptr) const;
  /// A template of it, without a person.
  Template make_template(const FaceResult& face, const Picture& picture) const;
};

/// The embeddings of faces, one after the other.
std::vector<float> embeddings(const std::vector<FaceResult>& faces);

/// The interface of CompreFace, /api/v1.
std::vector<Call> rest_calls(Handlers& handlers);
/// This project's own, /v1.
std::vector<Call> v1_calls(Handlers& handlers);

}  // namespace command::service
