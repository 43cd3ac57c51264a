// How far apart are two faces?  example_verify WEIGHTS FACE1 FACE2   (pictures that show the face and little else)
#include <cstdio>
#include <vector>

#include "facenet/distance.hpp"
#include "facenet/embedder.hpp"
#include "facenet/image_io.hpp"

int main(int argc, char** argv) {
  if (argc != 4) return std::fprintf(stderr, "usage: %s WEIGHTS FACE1 FACE2\n", argv[0]), 2;
  const auto fail = [](const facenet::Status& status) {
    char text[512];
    std::fprintf(stderr, "%s\n", status.print(text, sizeof text));
    return 2;
  };

  facenet::EmbedderOptions options;
  options.batch = 2;  // both faces in one go
  auto embedder = facenet::Embedder::load(argv[1], options);
  if (!embedder) return fail(embedder.status());
  auto first = facenet::read_image(argv[2]), second = facenet::read_image(argv[3]);
  if (!first) return fail(first.status());
  if (!second) return fail(second.status());

  const facenet::ImageView faces[] = {first->view(), second->view()};
  const auto dim = static_cast<std::size_t>(embedder->dim());
  std::vector<float> out(2 * dim);
  const facenet::Status status = embedder->embed(faces, out);
  if (!status) return fail(status);

  const double distance = facenet::distance({out.data(), dim}, {out.data() + dim, dim});
  if (!embedder->info().trained) std::fprintf(stderr, "untrained weights: the distance means nothing\n");
  std::printf("%.4f\n", distance);
}
