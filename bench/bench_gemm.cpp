// The register tile alone, bound by arithmetic, and the GEMMs that the plan makes of sibling 1x1 convolutions.
#include "bench.hpp"

namespace {

using namespace facenet;

// Depths of the network, and how far a tile reaches into the caches with them: a panel of 32 floats is 12 KB at 96,
// 115 KB at 896 and 295 KB at 2304.
constexpr int depths[] = {96, 256, 896, 2304};

template <class W>
void tile(benchmark::State& state, int rows, int depth) {
  const auto a = bench::random_floats(std::int64_t{rows} * depth, 0, 1);
  const auto from = bench::random_floats(std::int64_t{depth} * simd::panel, -0.05f, 0.05f);
  const auto bias = bench::random_floats(simd::panel, -0.1f, 0.1f);
  auto c = bench::random_floats(std::int64_t{rows} * simd::panel, 0, 1);
  auto b = bench::need(Buffer<W>::make(from.size(), false));
  for (std::size_t i = 0; i < b.size(); ++i) {
    if constexpr (std::is_same_v<W, Half>)
      b[i] = simd::float_to_half(from[i]);
    else
      b[i] = from[i];
  }
  const float* pixel[simd::tile_rows];
  float* out[simd::tile_rows];
  for (int i = 0; i < rows; ++i) {
    pixel[i] = a.data() + std::int64_t{i} * depth;
    out[i] = c.data() + std::int64_t{i} * simd::panel;
  }
  const std::int32_t offset = 0;
  const auto compute = kernels::detail::tile_for<kernels::BiasRelu, W>(rows, simd::panel);
  const simd::FlushDenormals mode;
  for (auto _ : state) {
    compute(pixel, {&offset, 1, depth}, b.data(), bias.data(), out, simd::panel,
            {reinterpret_cast<const char*>(b.data()), 0});
    benchmark::ClobberMemory();
  }
  const double flops = 2.0 * rows * depth * simd::panel;
  bench::count(state, {flops, flops, static_cast<double>(b.size() * sizeof(W))});
}

template <class W>
void add_tiles(const char* precision) {
  for (int depth : depths)
    for (int rows = 1; rows <= simd::tile_rows; ++rows) {
      const std::string name = "tile/" + std::to_string(rows) + "x" + std::to_string(simd::panel) + "/K" +
                               std::to_string(depth) + "/" + precision;
      benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& s) { tile<W>(s, rows, depth); })->UseRealTime();
    }
}

struct Gemm {
  Shape in;
  int channels;
};

// The merged 1x1 convolutions of the network: M pixels, N channels together, K channels in.
void add_gemms() {
  static constexpr Network n = models::inception_resnet_v1();
  Gemm seen[Network::max_ops];
  int count = 0;
  bool done[Network::max_ops] = {};
  const auto plain = [](const Op& op) {
    return op.kind == OpKind::conv && op.skip < 0 && op.window.kh == 1 && op.window.kw == 1 && op.window.stride() == 1;
  };
  for (int i = 0; i < n.size(); ++i) {
    if (done[i] || !plain(n[i])) continue;
    Gemm g{n[n[i].inputs[0]].out, 0};
    int members = 0;
    for (int j = i; j < n.size(); ++j) {
      if (!plain(n[j]) || n[j].inputs[0] != n[i].inputs[0]) continue;
      done[j] = true;
      g.channels += n[j].out.c;
      ++members;
    }
    const auto same = [&](const Gemm& o) { return o.in == g.in && o.channels == g.channels; };
    if (members < 2 || std::any_of(seen, seen + count, same)) continue;
    seen[count++] = g;
    for (bool cold : {true, false}) {
      const std::string name = std::string("gemm/") + n[i].name.text + "/M" + std::to_string(g.in.pixels()) + "xN" +
                               std::to_string(g.channels) + "xK" + std::to_string(g.in.c) + (cold ? "/cold" : "/warm");
      benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) {
        const Shape out{g.in.h, g.in.w, g.channels};
        bench::time_layer(state, bench::Layer(g.in, out, k(1), kernels::EpilogueKind::bias_relu, ConvAlgorithm::direct),
                          cold);
      })->UseRealTime();
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  add_tiles<float>("f32");
  if (simd::half_in_memory) add_tiles<Half>("half");
  add_gemms();
  return bench::run(argc, argv);
}
