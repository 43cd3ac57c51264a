// A plug-in: every header of the library, and an object with threads that lives until the plug-in is unloaded.
#include "all_headers.hpp"

static facenet::Gallery kept;

extern "C" int work() {
  facenet::GalleryOptions options;
  options.threads = 3;
  auto gallery = facenet::Gallery::make(4, options);
  if (!gallery) return 1;
  kept = static_cast<facenet::Gallery&&>(*gallery);
  const float e[4] = {1, 2, 3, 4};
  facenet::Match match;
  int found = 0;
  facenet::Sha256 hash;
  std::uint8_t digest[facenet::Sha256::digest_size];
  hash.update(e, sizeof e);
  hash.digest(digest);
  return kept.add(1, 1, e).ok() && kept.search(e, 1, {&match, 1}, found).ok() && found == 1 ? 0 : 1;
}

/// Never called: it makes the compiler emit what only templates and inline functions hold.
extern "C" bool everything(const char* path, facenet::ImageView picture) {
  float out[512];
  auto embedder = facenet::Embedder::load(path);
  auto detector = facenet::Detector::load(path);
  facenet::Faces faces;
  return embedder && detector && embedder->embed(picture, out) && detector->detect(picture, faces) &&
         facenet::read_image(path);
}
