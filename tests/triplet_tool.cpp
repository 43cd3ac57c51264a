// The triplet loss for the Python tests. Standard input: a line "N DIM MINING REDUCTION MARGIN", N int32 labels and
// N x DIM floats, as they lie in memory; MINING and REDUCTION are the enums' numbers. Standard output: a line
// "TRIPLETS LOSS ACTIVE", then N x N squared distances, three int32 a triplet, and the gradient's N x DIM floats.
#include <cstdio>
#include <vector>

#include "facenet/triplet.hpp"

namespace {

int fail(const facenet::Status& status) {
  char text[512];
  std::fprintf(stderr, "%s\n", status.print(text, sizeof text));
  return 1;
}

template <class T>
bool read(std::vector<T>& to) {
  return std::fread(to.data(), sizeof(T), to.size(), stdin) == to.size();
}

}  // namespace

int main() {
  int n = 0, dim = 0, mining = 0, reduction = 0;
  float margin = 0;
  if (std::scanf("%d %d %d %d %f", &n, &dim, &mining, &reduction, &margin) != 5 || std::getchar() != '\n') return 2;
  const auto count = static_cast<std::size_t>(n), size = count * static_cast<std::size_t>(dim);
  std::vector<int> labels(count);
  std::vector<float> embeddings(size), gradient(size);
  if (!read(labels) || !read(embeddings)) return 2;
  const facenet::EmbeddingBatch batch{embeddings, labels, dim};
  const auto distances = facenet::squared_distances(batch);
  if (!distances) return fail(distances.status());
  const auto triplets = facenet::mine(batch, distances->span(), static_cast<facenet::Mining>(mining), margin);
  if (!triplets) return fail(triplets.status());
  const auto loss = facenet::triplet_loss(batch, distances->span(), triplets->span(), margin,
                                          static_cast<facenet::Reduction>(reduction), gradient);
  if (!loss) return fail(loss.status());
  std::printf("%zu %.17g %lld\n", triplets->size(), loss->value, static_cast<long long>(loss->active));
  std::fwrite(distances->data(), sizeof(float), distances->size(), stdout);
  std::fwrite(triplets->data(), sizeof(facenet::Triplet), triplets->size(), stdout);
  std::fwrite(gradient.data(), sizeof(float), gradient.size(), stdout);
  return 0;
}
