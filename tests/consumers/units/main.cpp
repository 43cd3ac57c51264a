// main UNIT...: calls each unit named and prints its ISA.
#include <cstdio>
#include <cstring>

#include "units.hpp"

int main(int argc, char** argv) {
  unsigned char pixels[4 * 4 * 3] = {};
  pixels[(2 * 4 + 1) * 3] = 7;
  const struct {
    const char* name;
    facenet::Status (*call)(facenet::ImageView, facenet::Box, facenet::Face&, const char**);
  } units[] = {
#define UNITS_ROW(name) {#name, name},
      UNITS(UNITS_ROW)};
  for (int i = 1; i < argc; ++i)
    for (const auto& unit : units) {
      if (std::strcmp(unit.name, argv[i]) != 0) continue;
      facenet::Face face;
      const char* isa = "";
      const facenet::Status refused = unit.call({}, {}, face, &isa);
      const facenet::Status status =
          unit.call({pixels, 4, 4, 12, facenet::ChannelOrder::rgb}, {1, 2, 3, 4}, face, &isa);
      char text[512];
      if (!status) return std::printf("%s: %s\n", argv[i], status.print(text, sizeof text)), 1;
      if (refused.code() != facenet::Errc::invalid_argument ||
          std::strcmp(refused.print(text, sizeof text), "unit: no picture") != 0 || face.box.y1 != 4 ||
          face.landmarks[2].x != 7 || face.score != 1)
        return std::printf("%s: the records are others\n", argv[i]), 1;
      std::printf("%s %s\n", argv[i], isa);
    }
}
