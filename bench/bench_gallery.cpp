// Times searches of a gallery and the neighbour graph of clustering, with random unit vectors: what a value is does not
// matter. bench/compare_search.py times the same beside faiss and scikit-learn.
#include "bench.hpp"
#include "facenet/cluster.hpp"
#include "facenet/gallery.hpp"

using namespace facenet;

namespace {

constexpr int dim = 512;

Buffer<float> unit_vectors(std::int64_t n) {
  auto e = bench::random_floats(n * dim, -1, 1);
  for (std::int64_t i = 0; i < n; ++i) {
    float* row = e.data() + i * dim;
    const float scale = static_cast<float>(1 / std::sqrt(detail::squared_norm(row, dim)));
    for (int k = 0; k < dim; ++k) row[k] *= scale;
  }
  return e;
}

/// Arguments: templates, queries, threads, half.
void search(benchmark::State& state) {
  const auto n = state.range(0);
  const int queries = static_cast<int>(state.range(1)), k = 10;
  GalleryOptions options;
  options.threads = static_cast<int>(state.range(2));
  options.storage = state.range(3) != 0 ? TemplateStorage::f16 : TemplateStorage::f32;
  auto gallery = bench::need(Gallery::make(dim, options));
  const auto e = unit_vectors(n), q = unit_vectors(queries);
  for (std::int64_t i = 0; i < n; ++i) (void)gallery.add(static_cast<std::uint64_t>(i), 0, {e.data() + i * dim, dim});
  auto out = bench::need(Buffer<Match>::make(bench::z(queries) * k));
  auto found = bench::need(Buffer<int>::make(bench::z(queries)));
  for (auto _ : state) (void)gallery.search(q, k, out, found);
  bench::Work work;
  work.direct = work.executed = 2.0 * static_cast<double>(n) * queries * dim;
  work.weight_bytes = static_cast<double>(n) * dim * (state.range(3) != 0 ? 2 : 4);
  bench::count(state, work, options.threads);
}

/// Arguments: faces, threads.
void neighbours(benchmark::State& state) {
  const int n = static_cast<int>(state.range(0));
  ClusterOptions options;
  options.threads = static_cast<int>(state.range(1));
  const auto e = unit_vectors(n);
  auto labels = bench::need(Buffer<int>::make(bench::z(n)));
  for (auto _ : state) (void)dbscan(e, dim, options, 2, labels);
  bench::Work work;
  work.direct = work.executed = static_cast<double>(n) * n * dim;  // one triangle, two flops a product
  work.weight_bytes = static_cast<double>(n) * n / 2 * dim * 4 / 192;
  bench::count(state, work, options.threads);
}

}  // namespace

BENCHMARK(search)
    ->ArgNames({"templates", "queries", "threads", "half"})
    ->ArgsProduct({{100000}, {1, 32}, {1, 2}, {0, 1}})
    ->ArgsProduct({{1000000}, {1}, {1, 2}, {1}})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();
BENCHMARK(neighbours)
    ->ArgNames({"faces", "threads"})
    ->ArgsProduct({{20000}, {1, 2}})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

int main(int argc, char** argv) { return bench::run(argc, argv); }
