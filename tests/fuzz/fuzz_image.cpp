// libFuzzer target of the picture reader and of what is done with its pixels.
//
//   clang++ -std=c++17 -O1 -g -fsanitize=fuzzer,address,undefined -Iinclude tests/fuzz/fuzz_image.cpp -o fuzz_image
//   ./fuzz_image -max_len=8192 CORPUS    (seeds: tests/python/make_image_corpus.py CORPUS)
//
// A PNG is tried a second time with its checksums put right, or no mutation would come past them.
#include <cstdlib>
#include <vector>

#include "facenet/image_io.hpp"

namespace {

void use(facenet::Span<const std::uint8_t> file) {
  auto image = facenet::decode_image(file);
  if (!image) return;
  const int w = image->width(), h = image->height();
  if (w < 1 || h < 1 || w > facenet::max_image_side || h > facenet::max_image_side) std::abort();
  unsigned sum = 0;  // every byte must be there; memory sanitizer sees what stb_image left unset
  for (std::size_t i = 0; i < image->bytes(); ++i) sum += image->data()[i];
  static volatile unsigned sink;
  sink = sum;
  float small[24 * 24 * 3];
  if (!facenet::resize_area(*image, 24, 24, small).ok()) std::abort();
  if (!facenet::resize_bilinear(*image, 7, 11).ok()) std::abort();
  if (!facenet::crop_resize(*image, {-3, -2, w / 2 + 1, h + 5}, 16, 16).ok()) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  use({data, size});
  if (size < 20 || data[0] != 0x89) return 0;
  std::vector<std::uint8_t> repaired(data, data + size);
  for (std::size_t at = 8; at + 12 <= size;) {
    const std::size_t length = facenet::detail::be32(&repaired[at]);
    if (length > size - at - 12) break;
    const std::uint32_t crc = facenet::detail::crc32({&repaired[at + 4], length + 4});
    for (unsigned i = 0; i < 4; ++i) repaired[at + 8 + length + i] = static_cast<std::uint8_t>(crc >> (24 - 8 * i));
    at += 12 + length;
  }
  use({repaired.data(), repaired.size()});
  return 0;
}
