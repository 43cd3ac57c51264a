// The integer register tile alone, hot from L2, beside the float tile of the same unit, and other shapes of it.
#include "bench.hpp"
#include "facenet/kernels/integer_gemm.hpp"

namespace {

using namespace facenet;
using kernels::Activation;

constexpr int depths[] = {96, 256, 896, 2304};

template <class Way, std::size_t MR, std::size_t NV>
void integer_tile(benchmark::State& state, int depth) {
  constexpr int rows = static_cast<int>(MR), width = static_cast<int>(NV) * simd::width;
  std::uint32_t x = 0x9e3779b9u;
  const auto next = [&x] { return x ^= x << 13, x ^= x >> 17, x ^= x << 5; };
  auto a = bench::need(Buffer<Activation>::make(bench::z(rows * depth + kernels::integer_overread), false));
  auto b = bench::need(Buffer<std::int8_t>::make(bench::z(depth * width), false));
  auto q = bench::need(Buffer<Activation>::make(bench::z(rows * width), false));
  for (std::size_t i = 0; i < a.size(); ++i) a[i] = simd::integer::stored(static_cast<int>(next() >> 24));
  for (std::size_t i = 0; i < b.size(); ++i)
    b[i] = static_cast<std::int8_t>(static_cast<int>(next() >> 24) % 255 - 127);
  const auto scales = bench::random_floats(kernels::IntegerScales::rows * width, 1e-4f, 2e-4f);
  const Activation* pixel[MR];
  Activation* out[MR];
  for (int i = 0; i < rows; ++i) {
    pixel[i] = a.data() + i * depth;
    out[i] = q.data() + i * width;
  }
  const std::int32_t offset = 0;
  // A null pointer is no address to prefetch: Zen 3 looks it up in the page tables each time, for a third of the time.
  const kernels::PrefetchCursor itself{reinterpret_cast<const char*>(b.data()), 0};
  alignas(64) std::int32_t sums[static_cast<std::size_t>(rows * width)];
  const simd::FlushDenormals mode;
  for (auto _ : state) {
    if constexpr (NV == std::size_t{simd::integer::tile_vectors}) {
      kernels::integer_tile<Way, MR, NV>(pixel, {&offset, 1, depth}, b.data(), scales.data(), sums, itself);
      kernels::finish_tile(sums, rows, {}, {scales.data()}, {nullptr, out}, width);
    } else {
      kernels::integer_tile<Way, MR, NV>(pixel, {&offset, 1, depth}, b.data(), scales.data(), sums, itself);
    }
    benchmark::ClobberMemory();
  }
  const double operations = 2.0 * rows * depth * width;
  bench::count(state, {operations, operations, static_cast<double>(b.size())});
}

void float_tile(benchmark::State& state, int depth) {
  constexpr int rows = simd::tile_rows;
  const auto a = bench::random_floats(std::int64_t{rows} * depth, 0, 1);
  const auto b = bench::random_floats(std::int64_t{depth} * simd::panel, -0.05f, 0.05f);
  const auto bias = bench::random_floats(simd::panel, -0.1f, 0.1f);
  auto c = bench::random_floats(std::int64_t{rows} * simd::panel, 0, 1);
  const float* pixel[rows];
  float* out[rows];
  for (int i = 0; i < rows; ++i) {
    pixel[i] = a.data() + std::int64_t{i} * depth;
    out[i] = c.data() + std::int64_t{i} * simd::panel;
  }
  const std::int32_t offset = 0;
  const simd::FlushDenormals mode;
  for (auto _ : state) {
    kernels::tile<kernels::BiasRelu, std::size_t{rows}, std::size_t{simd::tile_vectors}, float>(
        pixel, {&offset, 1, depth}, b.data(), bias.data(), out, simd::panel,
        {reinterpret_cast<const char*>(b.data()), 0});
    benchmark::ClobberMemory();
  }
  const double operations = 2.0 * rows * depth * simd::panel;
  bench::count(state, {operations, operations, static_cast<double>(b.size() * sizeof(float))});
}

template <class Way, std::size_t MR, std::size_t NV>
void add(int depth, const char* way = "") {
  if constexpr (MR * NV + NV + std::size_t{Way::extra} <= std::size_t{simd::register_count}) {
    const std::string name = std::string("integer/") + simd::integer::name + way + "/" + std::to_string(MR) + "x" +
                             std::to_string(NV * std::size_t{simd::width}) + "/K" + std::to_string(depth);
    benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& s) {
      integer_tile<Way, MR, NV>(s, depth);
    })->UseRealTime();
  }
}

}  // namespace

int main(int argc, char** argv) {
  for (int depth : depths) {
    const std::string name =
        "float/" + std::to_string(simd::tile_rows) + "x" + std::to_string(simd::panel) + "/K" + std::to_string(depth);
    benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& s) { float_tile(s, depth); })->UseRealTime();
    using kernels::AnyWeights, kernels::FittingPairs;
    constexpr std::size_t vectors = std::size_t{simd::integer::tile_vectors};
    add<FittingPairs, std::size_t{FittingPairs::rows}, vectors>(depth);
    if constexpr (simd::integer::largest_pair != simd::integer::any_pair)
      add<AnyWeights, std::size_t{AnyWeights::rows}, vectors>(depth, ", any weights");
    add<FittingPairs, 4, 2>(depth);
    add<FittingPairs, 4, 3>(depth);
    add<FittingPairs, 12, 1>(depth);
    add<FittingPairs, 14, 2>(depth);
    add<FittingPairs, 8, 3>(depth);
    add<FittingPairs, 9, 3>(depth);
    add<FittingPairs, 6, 4>(depth);
  }
  return bench::run(argc, argv);
}
