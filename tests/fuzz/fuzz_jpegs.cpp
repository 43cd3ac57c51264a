// libFuzzer target of what takes a stream of JPEG files apart.
//
//   clang++ -std=c++17 -O1 -g -fsanitize=fuzzer,address,undefined -Iinclude -Itools tests/fuzz/fuzz_jpegs.cpp \
//     tools/command/watch/jpeg_stream.cpp -o fuzz_jpegs
//
// The first byte says how many bytes come at a time. What comes out must not depend on it, and nothing is lost or
// counted twice.
#include <cstdlib>

#include "../../tools/command/watch/jpeg_stream.cpp"

namespace {

constexpr std::size_t limit = 300;

std::vector<std::vector<std::uint8_t>> split(const std::uint8_t* data, std::size_t size, std::size_t step) {
  command::JpegStream stream(limit);
  std::vector<std::vector<std::uint8_t>> files;
  std::vector<std::uint8_t> file;
  std::size_t out = 0;
  for (std::size_t at = 0; at < size; at += step) {
    stream.feed(data + at, size - at < step ? size - at : step);
    while (stream.next(file)) {
      if (file.size() < 4 || file.size() > limit || file[0] != 0xFF || file[1] != 0xD8 || file.back() != 0xD9)
        std::abort();
      out += file.size();
      files.push_back(file);
    }
  }
  stream.finish();
  if (out + stream.passed_over() != size) std::abort();
  return files;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::size_t step = data[0] % 64 + 1u;
  if (split(data + 1, size - 1, step) != split(data + 1, size - 1, size)) std::abort();
  return 0;
}
