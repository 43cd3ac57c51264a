// Time does not depend on data: the whole network on ordinary numbers, on denormal pixels and with denormal weights, in
// turns. Prints medians and paired ratios; Google Benchmark, which has no pairs, is not asked.
#include <cstdlib>
#include <vector>

#include "bench.hpp"

namespace {

using namespace facenet;

constexpr Network network = models::inception_resnet_v1();
constexpr float denormal = 0x1p-127f;  // the largest power of two that is one

/// Without biases, so that denormal pixels would stay denormal from layer to layer. `most` > 0: weights within +-most.
Plan make_plan(float most) {
  return bench::need(compile_with(network, {}, [=](int op, Span<float> weight, Span<float>) {
    if (most > 0)
      bench::fill(weight.data(), weight.size(), -most, most);
    else
      bench::fill_weights(weight, network[op].out.c);
  }));
}

struct Case {
  const char* name;
  const Plan* plan;
  float most;  // pixels are within +-most
  Buffer<float> pixels{};
  Workspace workspace{};
  std::vector<double> seconds{};  // one a round: there and back
};

double time(Case& c) {
  PlanInput input;
  input.nhwc = c.pixels.data();
  float out[512];
  const auto start = bench::Clock::now();
  const Status status = c.plan->run(c.workspace, &input, 1, out);
  const double seconds = bench::seconds_since(start);
  if (!status.ok()) std::exit(2);
  return seconds;
}

double middle(std::vector<double> v, double from_middle = 0) {
  std::sort(v.begin(), v.end());
  const double last = static_cast<double>(v.size() - 1), at = last / 2 + from_middle;
  return v[static_cast<std::size_t>(at < 0 ? 0 : at > last ? last : at)];
}

void print(const Case& c, const Case& normal) {
  std::vector<double> ratios;
  for (std::size_t i = 0; i < c.seconds.size(); ++i) ratios.push_back(c.seconds[i] / normal.seconds[i]);
  // 95% of the medians of n values lie within 1.96 * sqrt(n) / 2 ranks of the middle.
  const double ranks = 0.98 * std::sqrt(static_cast<double>(ratios.size()));
  std::printf("%-18s %9.3f ms   %6.3f  [%.3f, %.3f]\n", c.name, middle(c.seconds) * 1e3, middle(ratios),
              middle(ratios, -ranks), middle(ratios, ranks));
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1, rounds = argc > 2 ? std::atoi(argv[2]) : 60;
  if (argc > 3 || threads < 1 || threads > max_threads || rounds < 1) {
    std::fputs("usage: bench_denormals [THREADS [ROUNDS]]\n", stderr);
    return 2;
  }
  const Plan ordinary = make_plan(0), tiny = make_plan(denormal);
  Case cases[] = {{"ordinary", &ordinary, 1}, {"denormal pixels", &ordinary, denormal}, {"denormal weights", &tiny, 1}};
  for (Case& c : cases) {
    c.pixels = bench::random_floats(network[0].out.size(), -c.most, c.most);
    c.workspace = bench::need(c.plan->workspace(1, threads));
    time(c);
  }
  constexpr int count = sizeof cases / sizeof cases[0];
  for (int round = 0; round < rounds; ++round) {
    double there[count];
    for (int i = 0; i < count; ++i) there[i] = time(cases[i]);
    for (int i = count - 1; i >= 0; --i) cases[i].seconds.push_back((there[i] + time(cases[i])) / 2);
  }
  std::printf("%d thread%s, %d rounds, %s %s\n%-18s %12s   ratio to ordinary, 95%% interval\n", threads,
              threads == 1 ? "" : "s", rounds, isa_name, parallel_name, "numbers", "median");
  for (const Case& c : cases) print(c, cases[0]);
  return 0;
}
