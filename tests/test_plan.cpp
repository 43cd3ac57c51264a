// Plans: decisions, arena, threads, batches. Built for OpenMP, std::thread and serial, and for lesser ISAs.
#define FACENET_MALLOC(bytes) counted_malloc(bytes)
#define FACENET_FREE(pointer) std::free(pointer)
#include <atomic>
#include <cstdlib>
#include <new>

namespace {
std::atomic<long> allocations{0};
std::atomic<bool> refuse{false};
}  // namespace
static void* counted_malloc(std::size_t bytes) {
  ++allocations;
  return refuse ? nullptr : std::malloc(bytes);
}
void* operator new(std::size_t bytes) {
  ++allocations;
  if (void* p = std::malloc(bytes)) return p;
  std::abort();
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }

#include <doctest/doctest.h>

#include <cstring>
#include <string>
#include <thread>

#include "facenet/models/inception_resnet_v1.hpp"
#include "support.hpp"

using namespace support;

namespace {

/// Every kind of operator on a small picture: siblings, slices of slices, residuals, halos, both pools.
Network small_network() {
  Network n("small", {17, 15, 3});
  Ref x = n.conv("stem", n.input(), 32, k(3).stride(2));  // 8 x 7
  Ref a = n.conv("a", x, 32, k(1)), b = n.conv("b0", x, 32, k(1)), c = n.conv("c0", x, 48, k(1));
  b = n.conv("b1", b, 32, k(3).pad(1, 1));
  c = n.conv("c2", n.conv("c1", c, 48, k(1, 7).pad(0, 3)), 32, k(7, 1).pad(3, 0));
  x = n.residual("up", n.concat("cat", a, n.concat("inner", b, c)), x, 0.17f, relu);
  x = n.residual("up2", n.conv_prelu("p", x, 10, k(1)), x, 1.0f, Act::none);
  Ref d = n.conv("d", x, 24, k(3)), e = n.max_pool("pool", x, k(3));
  x = n.concat("cat2", d, e, n.conv_bias("odd", x, 5, k(3)));
  n.l2_normalise("unit", n.linear_bn("head", n.global_avg_pool("mean", x), 20));
  return n;
}

std::vector<float> pixels(Shape s, unsigned seed) {
  std::vector<float> v(z(s.size()));
  Random(seed).fill(v);
  return v;
}

std::vector<float> run(const Plan& p, int threads, int batch, const std::vector<std::vector<float>>& pictures) {
  auto w = p.workspace(batch, threads);
  REQUIRE(w.ok());
  std::vector<float> out(pictures.size() * z(p.output_size()));
  for (std::size_t i = 0; i < pictures.size(); i += z(batch)) {
    const std::size_t n = std::min(z(batch), pictures.size() - i);
    std::vector<PlanInput> in(n);
    for (std::size_t k = 0; k < n; ++k) in[k].nhwc = pictures[i + k].data();
    REQUIRE(p.run(*w, in.data(), static_cast<int>(n), out.data() + i * z(p.output_size())).ok());
  }
  return out;
}

constexpr Network inception = models::inception_resnet_v1();

// Where a picture takes a second: scalar code, and code with sanitizers inside.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool slow = true;
#else
constexpr bool slow = simd::width == 1;
#endif

}  // namespace

TEST_CASE("a plan computes what the naive executor computes, with every algorithm") {
  const Network n = small_network();
  REQUIRE(n.ok());
  const Parameters parameters(n, 5);
  for (auto algorithm : {ConvAlgorithm::automatic, ConvAlgorithm::direct, ConvAlgorithm::winograd_4x4_3x3,
                         ConvAlgorithm::winograd_4_1x7, ConvAlgorithm::winograd_4_7x1}) {
    PlanOptions options;
    options.conv = algorithm;
    auto plan = parameters.compile(n, options);
    REQUIRE(plan.ok());
    for (int threads : {1, 3}) {
      const auto picture = pixels(n[0].out, 9);
      const auto want = execute(n, parameters, picture);
      const auto got = run(*plan, threads, 1, {picture});
      double error = 0;
      for (std::size_t i = 0; i < got.size(); ++i)
        error = std::fmax(error, std::fabs(static_cast<double>(got[i]) - static_cast<double>(want.back()[i])));
      CAPTURE(name(algorithm));
      CHECK(error < 2e-6);  // unit vector of 20; a wrong slice or halo is off by 0.1 and more
    }
  }
}

TEST_CASE("each step, fed the executor's values, gives the executor's values") {
  const Network n = small_network();
  const Parameters parameters(n, 6);
  auto plan = parameters.compile(n);
  REQUIRE(plan.ok());
  auto w = plan->workspace(1, 2);
  REQUIRE(w.ok());
  const auto picture = pixels(n[0].out, 10);
  const auto want = execute(n, parameters, picture);
  const auto copy = [&](int op, bool write) {
    const TensorView v = plan->view(*w, op);
    double error = 0;
    for (int y = 0; y < v.shape.h; ++y)
      for (int x = 0; x < v.shape.w; ++x)
        for (int c = 0; c < v.shape.c; ++c) {
          const float value = want[z(op)][z((std::int64_t{y} * v.shape.w + x) * v.shape.c + c)];
          if (write) v.pixel(0, y, x)[c] = value;
          error = std::fmax(error, std::fabs(static_cast<double>(v.pixel(0, y, x)[c]) - static_cast<double>(value)));
        }
    return error;
  };
  PlanInput in;
  in.nhwc = picture.data();
  for (int s = 0; s < static_cast<int>(plan->steps().size()); ++s) {
    const Step& step = plan->steps()[z(s)];
    const Op& op = n[step.op];
    for (int i = 0; i < op.input_count; ++i) copy(op.inputs[i], true);
    if (op.skip >= 0) copy(op.skip, true);
    plan->run_step(*w, s, &in);
    CAPTURE(op.name.text);
    CHECK(copy(step.op, false) < 1e-5);
    for (int i = 0; i < step.segment_count; ++i) CHECK(copy(step.segment_ops[i], false) < 1e-5);
  }
}

TEST_CASE("decisions") {
  using A = ConvAlgorithm;
  const int v = simd::width, wide = 64;
  CHECK(choose_conv({{79, 79, wide}, {77, 77, wide}, k(3), true}, A::automatic) == A::winograd_4x4_3x3);
  CHECK(choose_conv({{79, 79, wide}, {77, 77, wide}, k(3), true}, A::direct) == A::direct);
  CHECK(choose_conv({{79, 79, wide}, {39, 39, wide}, k(3).stride(2), true}, A::automatic) == A::direct);
  CHECK(choose_conv({{79, 79, wide}, {77, 77, wide}, k(3), false}, A::automatic) == A::direct);
  CHECK(choose_conv({{8, 8, wide}, {8, 8, wide}, k(3).pad(1, 1), true}, A::automatic) == A::direct);  // 4 tiles
  CHECK(choose_conv({{8, 8, wide}, {8, 8, wide}, k(3).pad(1, 1), true}, A::winograd_4x4_3x3) == A::winograd_4x4_3x3);
  CHECK(choose_conv({{8, 8, wide}, {8, 8, wide}, k(1, 7).pad(0, 3), true}, A::automatic) == A::winograd_4_1x7);
  CHECK(choose_conv({{8, 8, wide}, {8, 8, wide}, k(7, 1).pad(3, 0), true}, A::automatic) == A::winograd_4_7x1);
  if (v > 1) CHECK(choose_conv({{79, 79, 3}, {77, 77, wide}, k(3), true}, A::automatic) == A::direct);
  CHECK(choose_merge(inception) > 40);
  CHECK(inception[choose_merge(inception)].name == "mixed_6a.branch0");
  CHECK(choose_panel(simd::panel, A::direct, false, false) == simd::panel);
  if (simd::panel > v) CHECK(choose_panel(v, A::direct, false, false) == v);
  if (simd::panel > v) CHECK(choose_panel(v, A::direct, true, false) == simd::panel);
  for (int pixels : {1, 9, 64, 289, 1444, 6241, 49928})
    for (int panels : {1, 3, 28, 56})
      for (int threads : {1, 2, 3, 8, 64})
        for (int block : {24, kernels::conv_block}) {
          const Chunking c = choose_chunks(pixels, block, panels, threads);
          const bool sane = c.blocks >= 1 && c.groups >= 1 && c.groups <= panels && c.blocks <= pixels &&
                            (pixels + c.blocks - 1) / c.blocks <= block;
          CHECK(sane);
        }
}

TEST_CASE("the same bits for any number of threads, any batch and any place in it; nothing allocated while running") {
  const Parameters parameters(inception, 1);
  for (bool half : {false, true}) {
    PlanOptions options;
    options.half_weights = half;
    auto plan = parameters.compile(inception, options);
    REQUIRE(plan.ok());
    std::vector<std::vector<float>> pictures;
    const int count = slow ? 3 : 9;
    for (int i = 0; i < count; ++i) pictures.push_back(pixels(inception[0].out, static_cast<unsigned>(i)));
    pictures.back() = pictures.front();
    const auto want = run(*plan, 1, 1, pictures);
    CHECK(std::memcmp(want.data(), want.data() + (pictures.size() - 1) * 512, 512 * sizeof(float)) == 0);
    CHECK(std::memcmp(want.data(), want.data() + 512, 512 * sizeof(float)) != 0);
    if (slow) break;
    for (int threads : {1, 2, 3, 8})
      for (int batch : {1, 2, 7, 32}) {
        CAPTURE(threads);
        CAPTURE(batch);
        const auto got = run(*plan, threads, batch, pictures);
        CHECK(std::memcmp(want.data(), got.data(), want.size() * sizeof(float)) == 0);
      }
    auto w = plan->workspace(2, 2);
    REQUIRE(w.ok());
    std::vector<PlanInput> in(2);
    in[0].nhwc = in[1].nhwc = pictures[0].data();
    std::vector<float> out(1024);
    REQUIRE(plan->run(*w, in.data(), 2, out.data()).ok());
    const long before = allocations;
    for (int i = 0; i < 3; ++i) REQUIRE(plan->run(*w, in.data(), 2, out.data()).ok());
    CHECK(allocations == before);
    CHECK(plan->run(*w, in.data(), 3, out.data()).code() == Errc::invalid_argument);
  }
}

TEST_CASE("one plan serves several threads, each with a workspace") {
  const Network n = small_network();
  const Parameters parameters(n, 2);
  auto plan = parameters.compile(n);
  REQUIRE(plan.ok());
  const auto picture = pixels(n[0].out, 3);
  const auto want = run(*plan, 1, 1, {picture});
  std::vector<std::vector<float>> got(4);
#if defined(FACENET_PARALLEL_SERIAL)
  for (auto& g : got) g = run(*plan, 1, 1, {picture});
#else
  std::vector<std::thread> users;
  for (auto& g : got)
    users.emplace_back([&] {
      for (int i = 0; i < 10; ++i) g = run(*plan, 2, 1, {picture});
    });
  for (auto& u : users) u.join();
#endif
  for (const auto& g : got) CHECK(g == want);
}

TEST_CASE("denormals in data change nothing but by rounding to zero, and describe() names every layer") {
  const Network n = small_network();
  const Parameters parameters(n, 2);
  auto plan = parameters.compile(n);
  REQUIRE(plan.ok());
  std::vector<float> tiny(z(n[0].out.size()), 0x1p-140f), zero(tiny.size());
  CHECK(run(*plan, 1, 1, {tiny}) == run(*plan, 1, 1, {zero}));
  std::string text;
  plan->describe([&](const char* line) { text += std::string(line) + "\n"; });
  for (const Step& s : plan->steps()) CHECK(text.find(n[s.op].name.text) != std::string::npos);
}

TEST_CASE("no memory is an error, and the next call works") {
  const Network n = small_network();
  const Parameters parameters(n, 2);
  refuse = true;
  auto none = parameters.compile(n);
  refuse = false;
  CHECK(none.status().code() == Errc::out_of_memory);
  auto plan = parameters.compile(n);
  REQUIRE(plan.ok());
  refuse = true;
  const auto workspace = plan->workspace(1, 1);
  refuse = false;
  CHECK(workspace.status().code() == Errc::out_of_memory);
  CHECK(plan->workspace(0, 1).status().code() == Errc::invalid_argument);
  CHECK(plan->workspace(1, 0).status().code() == Errc::invalid_argument);
  CHECK(plan->workspace(1, 1).ok());
}
