// No files but the weights: pixels and weights from memory, as an embedded or WebAssembly program has them.
//   example_raw_pixels WEIGHTS
#include <cstdio>
#include <fstream>
#include <iterator>
#include <vector>

#include "facenet/embedder.hpp"

int main(int argc, char** argv) {
  if (argc != 2) return std::fprintf(stderr, "usage: %s WEIGHTS\n", argv[0]), 2;
  const auto fail = [](const facenet::Status& status) {
    char text[512];
    std::fprintf(stderr, "%s\n", status.print(text, sizeof text));
    return 2;
  };

  // Any bytes will do: linked into the program, received, or read from a file as here. Not needed after load().
  std::ifstream file(argv[1], std::ios::binary);
  const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
  auto embedder = facenet::Embedder::load(
      facenet::Span<const std::uint8_t>(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()));
  if (!embedder) return fail(embedder.status());

  // A camera's frame: three bytes a pixel, rows 4 * 64 bytes apart, and the order of the channels said aloud.
  constexpr int width = 80, height = 90, stride = 256;
  std::vector<std::uint8_t> frame(stride * height);
  for (std::size_t i = 0; i < frame.size(); ++i) frame[i] = static_cast<std::uint8_t>(i * 7 / 3);
  const facenet::ImageView face(frame.data(), width, height, stride, facenet::ChannelOrder::bgr);

  std::vector<float> embedding(static_cast<std::size_t>(embedder->dim()));
  const facenet::Status status = embedder->embed(face, embedding);
  if (!status) return fail(status);
  std::printf("%d numbers, the first: %.9g\n", embedder->dim(), static_cast<double>(embedding[0]));
}
