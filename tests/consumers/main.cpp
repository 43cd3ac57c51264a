// main WEIGHTS PIXELS [RUNS] : embeds a picture through consumer.hpp and prints what tools/places.py wants to know.
#include "consumer.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <vector>

namespace {

/// The most memory this process had so far, in kB. Not getrusage: its number begins with that of the process that forked us.
long peak_memory() {
  char line[256];
  long kb = -1;
  if (std::FILE* f = std::fopen("/proc/self/status", "r")) {
    while (std::fgets(line, sizeof line, f) != nullptr)
      if (std::strncmp(line, "VmHWM:", 6) == 0) std::sscanf(line + 6, "%ld", &kb);
    std::fclose(f);
  }
  return kb;
}

int fail(const char* what, const char* why) {
  std::fprintf(stderr, "%s: %s\n", what, why);
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return fail(argv[0], "usage: WEIGHTS PIXELS [RUNS]");
  std::vector<unsigned char> pixels(160 * 160 * 3);
  std::FILE* f = std::fopen(argv[2], "rb");
  if (f == nullptr || std::fread(pixels.data(), 1, pixels.size(), f) != pixels.size())
    return fail(argv[2], "160 x 160 pixels of three bytes cannot be read");
  std::fclose(f);
  int runs = 5;
  if (argc > 3) std::sscanf(argv[3], "%d", &runs);

  if (const char* why = consumer_open(argv[1])) return fail("open", why);
  std::vector<float> out(static_cast<std::size_t>(consumer_dim()));
  if (const char* why = consumer_embed(pixels.data(), out.data())) return fail("embed", why);
  std::printf("peak_kb %ld\nembedding", peak_memory());
  for (float x : out) std::printf(" %.9g", static_cast<double>(x));
  std::vector<double> times;
  for (int i = 0; i < runs; ++i) {
    std::vector<float> again(out.size());
    const auto began = std::chrono::steady_clock::now();
    if (const char* why = consumer_embed(pixels.data(), again.data())) return fail("embed", why);
    times.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - began).count());
    if (std::memcmp(out.data(), again.data(), out.size() * sizeof(float)) != 0) return fail("embed", "other bits at another time");
  }
  std::sort(times.begin(), times.end());
  std::printf("\nms %.3f\n", times.empty() ? -1.0 : times[times.size() / 2]);
  const char* note = consumer_close();
  if (std::strncmp(note, "error: ", 7) == 0) return fail("close", note + 7);
  std::printf("note %s\n", note);
}
