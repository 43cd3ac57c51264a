// Times the triplet loss by parts: distances, mining, loss with gradient. A batch of random unit vectors, four a
// person.
#include <vector>

#include "bench.hpp"
#include "facenet/triplet.hpp"

using namespace facenet;

namespace {

constexpr float margin = 0.2f;

struct Faces {
  explicit Faces(int count, int dim)
      : values(bench::random_floats(std::int64_t{count} * dim, -1, 1)), labels(bench::z(count)) {
    for (int i = 0; i < count; ++i) {
      labels[bench::z(i)] = i / 4;
      kernels::l2_normalise(values.data() + std::int64_t{i} * dim, values.data() + std::int64_t{i} * dim, dim);
    }
    batch = {values, labels, dim};
  }
  Buffer<float> values;
  std::vector<int> labels;
  EmbeddingBatch batch;
};

/// Arguments: faces, floats of an embedding.
void distances(benchmark::State& state) {
  const Faces faces(static_cast<int>(state.range(0)), static_cast<int>(state.range(1)));
  for (auto _ : state) benchmark::DoNotOptimize(bench::need(squared_distances(faces.batch)).data());
  const double pairs = 0.5 * static_cast<double>(state.range(0) * (state.range(0) - 1));
  state.counters["flops"] = benchmark::Counter(3 * pairs * static_cast<double>(state.range(1)),
                                               benchmark::Counter::kIsIterationInvariantRate);
}

/// Arguments: faces, floats of an embedding, mining.
void mining(benchmark::State& state) {
  const Faces faces(static_cast<int>(state.range(0)), static_cast<int>(state.range(1)));
  const auto d = bench::need(squared_distances(faces.batch));
  std::size_t triplets = 0;
  for (auto _ : state)
    triplets = bench::need(mine(faces.batch, d.span(), static_cast<Mining>(state.range(2)), margin)).size();
  state.counters["triplets"] = static_cast<double>(triplets);
}

/// The same arguments.
void loss_and_gradient(benchmark::State& state) {
  const Faces faces(static_cast<int>(state.range(0)), static_cast<int>(state.range(1)));
  const auto d = bench::need(squared_distances(faces.batch));
  const auto triplets = bench::need(mine(faces.batch, d.span(), static_cast<Mining>(state.range(2)), margin));
  auto gradient = bench::random_floats(state.range(0) * state.range(1), 0, 0);
  for (auto _ : state) {
    const TripletLoss loss =
        bench::need(triplet_loss(faces.batch, d.span(), triplets.span(), margin, Reduction::mean_active, gradient));
    benchmark::DoNotOptimize(loss.value);
    benchmark::ClobberMemory();
  }
  state.counters["triplets"] = static_cast<double>(triplets.size());
}

void sizes(benchmark::internal::Benchmark* b) {
  for (const int faces : {64, 256, 1024}) b->Args({faces, 128})->Args({faces, 512});
}
void sizes_and_minings(benchmark::internal::Benchmark* b) {
  for (const int faces : {64, 256})
    for (const Mining m : {Mining::batch_all, Mining::batch_hard, Mining::semi_hard})
      b->Args({faces, 512, static_cast<int>(m)});
}

BENCHMARK(distances)->Apply(sizes);
BENCHMARK(mining)->Apply(sizes_and_minings);
BENCHMARK(loss_and_gradient)->Apply(sizes_and_minings);

}  // namespace

int main(int argc, char** argv) { return bench::run(argc, argv); }
