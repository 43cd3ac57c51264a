// faces EMBEDDER DETECTOR PICTURE: the ISA, then for each face its box and its embedding.
#include <facenet/dispatch.hpp>
#include <facenet/image_io.hpp>

#include <cstdio>
#include <vector>

#if defined(__linux__)
#  include <sys/wait.h>
#  include <unistd.h>
#endif

namespace dispatch = facenet::dispatch;

static int fail(const facenet::Status& status) {
  char text[512];
  std::fprintf(stderr, "%s\n", status.print(text, sizeof text));
  return 2;
}

/// Objects that were never loaded answer.
static bool unloaded_say_so() {
  dispatch::Embedder embedder, other;
  dispatch::Detector detector;
  embedder = static_cast<dispatch::Embedder&&>(other);
  facenet::Span<const facenet::Face> faces;
  float none[1];
  return embedder.dim() == 0 && !embedder.embed(facenet::ImageView(), none) && embedder.info().image_size == 0 &&
         !embedder.fork(1, 1) && !detector.fork({}) &&
         detector.options().min_face == facenet::DetectorOptions{}.min_face && *detector.digest() == 0 &&
         !detector.detect({}, faces);
}

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  if (!unloaded_say_so()) return 3;
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
    if (const auto status = embedder->embed(*crop, embedding); !status) return fail(status);
    const auto [x0, y0, x1, y1] = face.box;
    std::printf("%.9g %.9g %.9g %.9g", static_cast<double>(x0), static_cast<double>(y0), static_cast<double>(x1),
                static_cast<double>(y1));
    for (const float x : embedding) std::printf(" %.9g", static_cast<double>(x));
    std::printf("\n");
  }
#if defined(__linux__)
  // A child of fork() has none of the threads that have worked here.
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    alarm(30);
    _exit(detector->detect(*picture, faces).ok() && embedder->embed(*picture, embedding).ok() ? 0 : 4);
  }
  int status = 0;
  return waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : 5;
#endif
}
