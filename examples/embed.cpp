// A face crop in, its embedding out:  example_embed WEIGHTS PICTURE   (example_faces looks for faces)
#include <cstdio>
#include <vector>

#include "facenet/embedder.hpp"
#include "facenet/image_io.hpp"

int main(int argc, char** argv) {
  if (argc != 3) return std::fprintf(stderr, "usage: %s WEIGHTS PICTURE\n", argv[0]), 2;
  const auto fail = [](const facenet::Status& status) {
    char text[512];
    std::fprintf(stderr, "%s\n", status.print(text, sizeof text));
    return 2;
  };

  auto embedder = facenet::Embedder::load(argv[1]);
  if (!embedder) return fail(embedder.status());
  auto picture = facenet::read_image(argv[2]);
  if (!picture) return fail(picture.status());

  std::vector<float> embedding(static_cast<std::size_t>(embedder->dim()));
  const facenet::Status status = embedder->embed(*picture, embedding);
  if (!status) return fail(status);

  for (const float x : embedding) std::printf("%.9g\n", static_cast<double>(x));
}
