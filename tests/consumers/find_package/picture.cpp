// picture FILE: decodes it and prints its size.
#include <facenet/image_io.hpp>

#include <cstdio>

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const auto picture = facenet::read_image(argv[1]);
  if (!picture) {
    char text[512];
    std::fprintf(stderr, "%s\n", picture.status().print(text, sizeof text));
    return 2;
  }
  std::printf("%d %d\n", picture->width(), picture->height());
}
