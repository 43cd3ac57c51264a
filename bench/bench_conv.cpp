// Every distinct convolution of Inception-ResNet-v1, with every algorithm that can run it, its weights cold and warm.
#include "bench.hpp"

namespace {

using namespace facenet;

constexpr Network network = models::inception_resnet_v1();

kernels::EpilogueKind epilogue_of(const Op& op) {
  if (op.skip >= 0)
    return op.act == relu ? kernels::EpilogueKind::bias_residual_relu : kernels::EpilogueKind::bias_residual;
  return op.act == relu ? kernels::EpilogueKind::bias_relu : kernels::EpilogueKind::bias;
}

bool same_work(const Op& a, const Op& b) {
  const Window &v = a.window, &w = b.window;
  return network[a.inputs[0]].out == network[b.inputs[0]].out && a.out == b.out && v.kh == w.kh && v.kw == w.kw &&
         v.stride() == w.stride() && v.pad_h == w.pad_h && v.pad_w == w.pad_w && epilogue_of(a) == epilogue_of(b);
}

// How often the network has a layer of this shape, when `op` is the first of them; else 0.
int occurrences(int op) {
  int times = 0;
  for (int i = 0; i < network.size(); ++i) {
    if (!has_weights(network[i]) || !same_work(network[i], network[op])) continue;
    if (i < op) return 0;
    ++times;
  }
  return times;
}

void add(const Op& op, ConvAlgorithm algorithm, bool cold, int times) {
  const Shape in = network[op.inputs[0]].out;
  const Window& w = op.window;
  const std::string name = std::string("conv/") + op.name.text + "/" + bench::text(in) + "-" + bench::text(op.out) +
                           "/k" + std::to_string(w.kh) + "x" + std::to_string(w.kw) + "s" + std::to_string(w.stride()) +
                           "/" + bench::slug(algorithm) + (cold ? "/cold" : "/warm");
  benchmark::RegisterBenchmark(name.c_str(), [=, &op](benchmark::State& state) {
    bench::time_layer(state, bench::Layer(in, op.out, op.window, epilogue_of(op), algorithm), cold);
    state.counters["layers"] = times;
  })->UseRealTime();
}

}  // namespace

int main(int argc, char** argv) {
  for (int i = 0; i < network.size(); ++i) {
    const Op& op = network[i];
    const int times = has_weights(op) ? occurrences(i) : 0;
    if (times == 0) continue;
    const bool plain_relu = op.kind == OpKind::conv && op.skip < 0 && op.act == relu;
    const ConvShape shape = {network[op.inputs[0]].out, op.out, op.window, plain_relu};
    for (bool cold : {true, false}) {
      add(op, ConvAlgorithm::direct, cold, times);
      for (auto a : {ConvAlgorithm::winograd_4x4_3x3, ConvAlgorithm::winograd_4_1x7, ConvAlgorithm::winograd_4_7x1,
                     ConvAlgorithm::winograd_6x6_3x3, ConvAlgorithm::winograd_3x3_stride_2})
        if (can_run(a, shape)) add(op, a, cold, times);
    }
  }
  return bench::run(argc, argv);
}
