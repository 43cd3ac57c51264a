// What bench/count_instructions.py runs under callgrind: one image through Inception-ResNet-v1, a dump of the counts
// after each step of the plan. Built for AVX2 and one thread wherever it is built: counts belong to a program, not to a
// machine.
#include <valgrind/callgrind.h>

#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "facenet/models/inception_resnet_v1.hpp"
#include "facenet/plan/from_values.hpp"

namespace {

using namespace facenet;

constexpr Network network = models::inception_resnet_v1();

int fail(const char* sentence) {
  std::fprintf(stderr, "instruction_counter: %s\n", sentence);
  return 2;
}

/// What the counts depend on besides the source.
std::string built_with() {
#if defined(__clang__)
  const std::string compiler = __VERSION__;  // which begins with clang's name
#else
  const std::string compiler = "g++ " __VERSION__;
#endif
  return compiler + ", xsimd " + std::to_string(XSIMD_VERSION_MAJOR) + "." + std::to_string(XSIMD_VERSION_MINOR) + "." +
         std::to_string(XSIMD_VERSION_PATCH) + ", " + isa_name;
}

int count() {
  // No step branches on a value, so numbers without meaning count like any others.
  const auto plan = compile_with(network, {}, [](int, Span<float> weight, Span<float> bias) {
    for (float& w : weight) w = 0.01f;
    for (float& b : bias) b = 0.01f;
  });
  if (!plan) return fail("the plan cannot be compiled");
  auto workspace = plan->workspace(1, 1);
  if (!workspace) return fail("there is not enough memory");
  const Shape in = plan->input_shape();
  const std::vector<std::uint8_t> picture(static_cast<std::size_t>(in.size()), 100);
  PlanInput input;
  input.rgb = picture.data();
  input.stride = std::ptrdiff_t{in.w} * in.c;

  const Span<const Step> steps = plan->steps();
  CALLGRIND_START_INSTRUMENTATION;
  for (std::size_t i = 0; i < steps.size(); ++i) {
    std::string name = network[steps[i].op].name.text;
    if (steps[i].segment_count > 1) name += " +" + std::to_string(steps[i].segment_count - 1);
    CALLGRIND_ZERO_STATS;
    plan->run_step(*workspace, static_cast<int>(i), &input);
    CALLGRIND_DUMP_STATS_AT(name.c_str());
  }
  CALLGRIND_STOP_INSTRUMENTATION;
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::strcmp(argv[1], "--version") == 0) return std::puts(built_with().c_str()) < 0 ? 2 : 0;
  if (argc != 1) return fail("the only argument is --version");
  if (!RUNNING_ON_VALGRIND) return fail("this counts nothing by itself: run bench/count_instructions.py");
  return count();
}
