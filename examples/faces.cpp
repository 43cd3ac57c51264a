// Every face in a photograph, found, cut out and embedded:  example_faces WEIGHTS DETECTOR PHOTOGRAPH
#include <cstdio>
#include <vector>

#include "facenet/align.hpp"
#include "facenet/detector.hpp"
#include "facenet/image_io.hpp"

int main(int argc, char** argv) {
  if (argc != 4) return std::fprintf(stderr, "usage: %s WEIGHTS DETECTOR PHOTOGRAPH\n", argv[0]), 2;
  const auto fail = [](const facenet::Status& status) {
    char text[512];
    std::fprintf(stderr, "%s\n", status.print(text, sizeof text));
    return 2;
  };

  auto embedder = facenet::Embedder::load(argv[1]);
  if (!embedder) return fail(embedder.status());
  auto detector = facenet::Detector::load(argv[2]);
  if (!detector) return fail(detector.status());
  auto picture = facenet::read_image(argv[3]);
  if (!picture) return fail(picture.status());

  facenet::Faces faces;  // the largest first
  if (const facenet::Status status = detector->detect(*picture, faces); !status) return fail(status);
  std::vector<float> embedding(static_cast<std::size_t>(embedder->dim()));
  for (const facenet::Face& face : faces) {
    auto crop = facenet::crop_face(*picture, face, embedder->info());  // as the weight file says
    if (!crop) return fail(crop.status());
    if (const facenet::Status status = embedder->embed(*crop, embedding); !status) return fail(status);
    std::printf("%.1f %.1f %.1f %.1f score %.4f:", face.box.x0, face.box.y0, face.box.x1, face.box.y1, face.score);
    for (const float x : embedding) std::printf(" %.9g", static_cast<double>(x));
    std::printf("\n");
  }
}
