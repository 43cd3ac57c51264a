// consumer_faces() of every consumer: the detector and a gallery, under the same constraint as the embedder. With
// CONSUMER_FACES.
#pragma once

#if defined(CONSUMER_FACES)
namespace {

/// Faces in the picture; then a gallery must know its own embedding again. In `arena` unless it is null.
const char* look_for_faces(const unsigned char* weights, unsigned long long size, const unsigned char* rgb, int width,
                           int height, const float* embedding, int dim, facenet::Arena* arena, int* count) {
  static char text[512];
  const auto text_of = [&](const facenet::Status& status) { return status.print(text, sizeof text); };
  facenet::DetectorOptions options;
  options.threads = 1;
  options.arena = arena;
  auto detector = facenet::Detector::load({weights, static_cast<std::size_t>(size)}, options);
  if (!detector) return text_of(detector.status());
  facenet::Faces faces;
  const facenet::ImageView picture(rgb, width, height, std::ptrdiff_t{3} * width, facenet::ChannelOrder::rgb);
  if (const facenet::Status status = detector->detect(picture, faces); !status) return text_of(status);
  *count = faces.size();
  if (arena != nullptr) return nullptr;  // a gallery has no arena

  facenet::GalleryOptions one;
  one.threads = 1;
  auto gallery = facenet::Gallery::make(dim, one);
  if (!gallery) return text_of(gallery.status());
  if (const facenet::Status status = gallery->add(7, 1, {embedding, dim}); !status) return text_of(status);
  facenet::Match match;
  int found = 0;
  if (const facenet::Status status = gallery->identify({embedding, dim}, 1, 0.5, {&match, 1}, found); !status)
    return text_of(status);
  return found == 1 && match.id == 7 && match.distance == 0 ? nullptr : "the gallery does not know its own template";
}

}  // namespace
#endif
