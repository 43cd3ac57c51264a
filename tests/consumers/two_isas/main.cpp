// two_isas DETECTOR PICTURE ISA...: how many faces each unit finds.
#include <facenet/image_io.hpp>

#include <cstdio>
#include <cstring>

extern "C" int find_faces_avx2(const char*, const unsigned char*, int, int, long, const char**);
extern "C" int find_faces_sse2(const char*, const unsigned char*, int, int, long, const char**);

int main(int argc, char** argv) {
  if (argc < 4) return 2;
  const auto picture = facenet::read_image(argv[2]);
  if (!picture) return 2;
  const facenet::ImageView view = *picture;
  for (int i = 3; i < argc; ++i) {
    const auto find = std::strcmp(argv[i], "avx2") == 0 ? find_faces_avx2 : find_faces_sse2;
    const char* isa = "";
    const int faces = find(argv[1], view.data, view.width, view.height, static_cast<long>(view.stride), &isa);
    if (faces < 0) return 2;
    std::printf("%s %d\n", isa, faces);
  }
}
