// Embeddings against PyTorch in float64, for batches 1, 2, 7, 32 and 1, 2, 3, 8 threads.
//   parity_embedding WEIGHTS.safetensors GOLDEN.safetensors
#include <cstdio>
#include <cstring>

#include "../support.hpp"
#include "facenet/facenet.hpp"

using namespace support;

namespace {

constexpr double limit = 3e-6;  // docs/parity.md; PyTorch's own float32 reaches 1.2e-6
constexpr double half_cosine = 0.9999;

int fail(const Status& s) {
  char text[512];
  std::fprintf(stderr, "parity_embedding: %s\n", s.print(text, sizeof text));
  return s.code() == Errc::not_found ? 77 : 2;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  auto golden = WeightsReader::open(argv[2]);
  if (!golden) return fail(golden.status());
  const int input = golden->find("input"), embedding = golden->find("embedding"), low = golden->find("embedding_lo");
  if (input < 0 || embedding < 0 || low < 0) return 2;
  const int count = golden->tensor(input).dims[0], dim = golden->tensor(embedding).dims[1];
  std::vector<float> values(z(std::int64_t{count} * 160 * 160 * 3)), want(z(count * dim)), rest(want.size());
  if (!golden->read_f32(input, values) || !golden->read_f32(embedding, want) || !golden->read_f32(low, rest)) return 2;
  const std::vector<std::uint8_t> bytes(values.begin(), values.end());
  std::vector<ImageView> faces;
  for (int i = 0; i < count; ++i)
    faces.emplace_back(bytes.data() + std::ptrdiff_t{i} * 76800, 160, 160, 480, ChannelOrder::rgb);

  int failures = 0;
  std::vector<float> first;
  for (bool half : {false, true})
    for (int threads : {1, 2, 3, 8})
      for (int batch : {1, 2, 7, 32}) {
        if (half && (threads > 2 || batch > 2)) continue;
        EmbedderOptions options;
        options.threads = threads;
        options.batch = batch;
        options.half_weights = half;
        static Embedder loaded[2];
        if (loaded[half].dim() == 0) {
          auto e = Embedder::load(argv[1], options);
          if (!e) return fail(e.status());
          loaded[half] = std::move(*e);
        }
        auto e = loaded[half].fork(threads, batch);
        if (!e) return fail(e.status());
        if (e->dim() != dim) return 2;
        std::vector<float> got(want.size());
        if (auto s = e->embed(faces, got); !s) return fail(s);
        double worst = 0, cosine = 1;
        for (int i = 0; i < count; ++i) {
          for (int c = 0; c < dim; ++c) {
            const std::size_t at = z(i * dim + c);
            worst = std::fmax(worst, std::fabs(static_cast<double>(got[at]) - static_cast<double>(want[at]) -
                                               static_cast<double>(rest[at])));
          }
          cosine = std::fmin(cosine, similarity({got.data() + i * dim, dim}, {want.data() + i * dim, dim}));
          if (distance({got.data() + i * dim, dim}, {got.data() + i * dim, dim}) != 0) ++failures;
        }
        if (half ? cosine < half_cosine : worst > limit) ++failures;
        if (!half) {
          if (first.empty()) first = got;
          if (std::memcmp(first.data(), got.data(), got.size() * sizeof(float)) != 0) {
            ++failures;
            std::printf("FAILED: other bits for %d threads, batch %d\n", threads, batch);
          }
        }
        if (batch == 1 && threads == 1)
          std::printf("%d pictures, %d-d, %s weights: max |error| %.2e, min cosine %.7f\n", count, dim,
                      half ? "half" : "float", worst, cosine);
      }
  return failures == 0 ? 0 : 1;
}
