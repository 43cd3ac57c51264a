// What moves memory and computes little: pools, L2 normalisation and the conversion of pixels. Bytes a second, read and
// written, of data that the step before left in the caches.
#include <vector>

#include "bench.hpp"

namespace {

using namespace facenet;

constexpr Network network = models::inception_resnet_v1();

template <class F>
void add(const std::string& name, double bytes, F&& body) {
  benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) {
    auto once = body();
    const simd::FlushDenormals mode;
    for (auto _ : state) {
      once();
      benchmark::ClobberMemory();
    }
    using benchmark::Counter;
    state.counters["bytes_per_s"] = Counter(bytes, Counter::kIsIterationInvariantRate);
  })->UseRealTime();
}

double float_bytes(Shape a, Shape b) { return static_cast<double>(a.size() + b.size()) * sizeof(float); }

void add_op(const Op& op) {
  const Shape in = network[op.inputs[0]].out, out = op.out;
  const Window w = op.window;
  const bool average = op.kind == OpKind::global_avg_pool;
  add(std::string("pool/") + (average ? "average/" : "max/") + op.name.text + "/" + bench::text(in),
      float_bytes(in, out), [=] {
        return
            [=, from = bench::random_floats(in.size(), 0, 1), to = bench::random_floats(out.size(), 0, 1)]() mutable {
              const auto x = dense_view<const float>(from.data(), in);
              const auto y = dense_view(to.data(), out);
              if (average)
                kernels::global_avg_pool(x, y, 0);
              else
                kernels::max_pool_rows(x, y, 0, w, 0, out.h);
              benchmark::DoNotOptimize(y.data);
            };
      });
}

void add_l2(int channels) {
  add("l2_normalise/" + std::to_string(channels), 8.0 * channels, [=] {
    return [=, x = bench::random_floats(channels, -1, 1), y = bench::random_floats(channels, 0, 1)]() mutable {
      kernels::l2_normalise(x.data(), y.data(), channels);
      benchmark::DoNotOptimize(y.data());
    };
  });
}

void add_convert(const char* name, bool table, bool swap) {
  const Shape picture = network[0].out;
  const double bytes = static_cast<double>(picture.size()) * (1 + sizeof(float));
  add(std::string("convert_row/") + name, bytes, [=] {
    std::vector<std::uint8_t> rgb(bench::z(picture.size()));
    for (std::size_t i = 0; i < rgb.size(); ++i) rgb[i] = static_cast<std::uint8_t>(i * 2654435761u >> 13);
    return [=, rgb = std::move(rgb), value = bench::random_floats(3 * 256, -1, 1),
            out = bench::random_floats(picture.size(), 0, 1)]() mutable {
      const auto* values = table ? reinterpret_cast<const float(*)[256]>(value.data()) : nullptr;
      const int row = 3 * picture.w;
      for (int y = 0; y < picture.h; ++y)
        kernels::convert_row(rgb.data() + y * row, picture.w, values, swap, out.data() + y * row);
      benchmark::DoNotOptimize(out.data());
    };
  });
}

}  // namespace

int main(int argc, char** argv) {
  for (int i = 0; i < network.size(); ++i)
    if (network[i].kind == OpKind::max_pool || network[i].kind == OpKind::global_avg_pool) add_op(network[i]);
  add_l2(128);
  add_l2(512);
  add_convert("fixed", false, false);
  add_convert("fixed_swapped", false, true);
  add_convert("table", true, false);
  return bench::run(argc, argv);
}
