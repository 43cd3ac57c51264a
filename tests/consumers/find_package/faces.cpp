// faces EMBEDDER DETECTOR PICTURE: the ISA, then for each face its box and its embedding.
#include <facenet/dispatch.hpp>
#include <facenet/image_io.hpp>

#include <cstdio>
#include <vector>

namespace dispatch = facenet::dispatch;

static int fail(const facenet::Status& status) {
  char text[512];
  std::fprintf(stderr, "%s\n", status.print(text, sizeof text));
  return 2;
}

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  const auto isa = dispatch::isa();
  if (!isa) return fail(isa.status());
  std::printf("%s\n", *isa);
  auto embedder = dispatch::Embedder::load(argv[1]);
  if (!embedder) return fail(embedder.status());
  auto loaded = dispatch::Detector::load(argv[2]);
  if (!loaded) return fail(loaded.status());
  auto detector = loaded->fork(loaded->options());  // for another thread, over the same weights
  if (!detector) return fail(detector.status());
  const auto picture = facenet::read_image(argv[3]);
  if (!picture) return fail(picture.status());

  facenet::Span<const facenet::Face> faces;
  if (const auto status = detector->detect(*picture, faces); !status) return fail(status);
  std::vector<float> embedding(static_cast<std::size_t>(embedder->dim()));
  for (const facenet::Face& face : faces) {
    const auto crop = facenet::crop_face(*picture, face, embedder->info());
    if (!crop) return fail(crop.status());
    if (const auto status = embedder->embed(*crop, embedding.data()); !status) return fail(status);
    const auto [x0, y0, x1, y1] = face.box;
    std::printf("%.9g %.9g %.9g %.9g", static_cast<double>(x0), static_cast<double>(y0), static_cast<double>(x1),
                static_cast<double>(y1));
    for (const float x : embedding) std::printf(" %.9g", static_cast<double>(x));
    std::printf("\n");
  }
}
