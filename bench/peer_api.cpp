// The engine and the machine's limits behind a C ABI, for bench/compare_peers.py (ctypes).
// Built as the shared library `facenet_peer_api`, with the flags of the preset that times the engine.
#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "facenet/embedder.hpp"
#include "peak.hpp"

#if defined(__linux__)
#  include <sys/mman.h>
#endif

#if defined(_WIN32)
#  define FNB_API extern "C" __declspec(dllexport)
#else
#  define FNB_API extern "C" __attribute__((visibility("default")))
#endif

namespace {

namespace simd = facenet::simd;
using facenet::bench::Clock;
using facenet::bench::fma_chains;
using facenet::bench::read_all;
using facenet::bench::run_fma_chains;
using facenet::bench::seconds_since;

thread_local std::string last_error;

// Runs work(thread) on `threads` threads that start together, `repeats` times, and returns the seconds of each repeat
// until the last thread was done: a core that was taken away for a while shows as a long repeat.
// The threads live for one call, so none of them spins while another engine is timed.
template <class Work>
std::vector<double> time_together(int threads, int repeats, Work work) {
  std::vector<double> seconds(static_cast<std::size_t>(repeats));
  std::vector<std::atomic<int>> arrived(2 * static_cast<std::size_t>(repeats));
  for (auto& a : arrived) a.store(0);
  const auto meet = [&](int where) {
    arrived[static_cast<std::size_t>(where)].fetch_add(1);
    while (arrived[static_cast<std::size_t>(where)].load(std::memory_order_acquire) < threads) simd::pause();
  };
  const auto body = [&](int thread) {
    for (int r = 0; r < repeats; ++r) {
      meet(2 * r);
      const auto start = Clock::now();
      work(thread);
      meet(2 * r + 1);
      if (thread == 0) seconds[static_cast<std::size_t>(r)] = seconds_since(start);
    }
  };
  std::vector<std::thread> others;
  for (int t = 1; t < threads; ++t) others.emplace_back(body, t);
  body(0);
  for (auto& t : others) t.join();
  return seconds;
}

double median(std::vector<double> v) {
  std::nth_element(v.begin(), v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2), v.end());
  return v[v.size() / 2];
}

constexpr std::size_t bandwidth_bytes = std::size_t{256} << 20;  // eight times a 32 MiB L3, and more than the weights
constexpr std::size_t huge_page = std::size_t{2} << 20;

struct FreeAligned {
  void operator()(float* p) const { std::free(p); }
};

// Touched once, on huge pages where the system has them: what is measured is memory, not the TLB.
const float* bandwidth_buffer() {
  static const std::unique_ptr<float, FreeAligned> buffer = [] {
    void* p = std::aligned_alloc(huge_page, bandwidth_bytes);
    if (p == nullptr) return std::unique_ptr<float, FreeAligned>();
#if defined(__linux__)
    madvise(p, bandwidth_bytes, MADV_HUGEPAGE);
#endif
    float* f = static_cast<float*>(p);
    std::fill(f, f + bandwidth_bytes / sizeof(float), 1.0f);
    return std::unique_ptr<float, FreeAligned>(f);
  }();
  return buffer.get();
}

volatile float sink;  // keeps the results alive

}  // namespace

/// "0.1.0 avx512 openmp": version, the ISA this library is compiled for, the threading back end.
FNB_API const char* fnb_version() {
  static const std::string text =
      std::string(facenet::version) + " " + facenet::isa_name + " " + facenet::parallel_name;
  return text.c_str();
}

/// The sentence of this thread's last failure.
FNB_API const char* fnb_error() { return last_error.c_str(); }

/// Peak of fused multiply-adds, single precision, in GFLOP/s for all `threads` together: the median of 9 slices of
/// about 3 ms, each timed until its last thread is done. About 30 ms. The median and not, as in peak.hpp, the best:
/// it must show a second core that is away.
FNB_API double fnb_peak_gflops(int threads) {
  constexpr int slices = 9;
  constexpr double slice_seconds = 3e-3;
  if (threads < 1 || threads > 256) return 0;
  float ab[2 * simd::width];
  std::fill(ab, ab + 2 * simd::width, 1e-3f);
  long turns = 1000;
  for (;;) {  // how many turns fill a slice; also the warm-up that brings the clock up
    const auto start = Clock::now();
    sink = run_fma_chains(ab, turns);
    const double seconds = seconds_since(start);
    if (seconds > slice_seconds / 2) {
      turns = static_cast<long>(static_cast<double>(turns) * slice_seconds / seconds);
      break;
    }
    turns *= 2;
  }
  const double seconds = median(time_together(threads, slices, [&](int) {
    const float r = run_fma_chains(ab, turns);
    if (r < 0) sink = r;
  }));
  return 2e-9 * threads * fma_chains * simd::width * static_cast<double>(turns) / seconds;
}

/// Read bandwidth in GB/s (1e9 bytes) of `threads` threads, each reading its part of 256 MiB: the best of 3.
FNB_API double fnb_bandwidth_gbs(int threads) {
  if (threads < 1 || threads > 256) return 0;
  const float* p = bandwidth_buffer();
  if (p == nullptr) return 0;
  constexpr std::size_t granule = 8 * simd::width * 16;
  const std::size_t all = bandwidth_bytes / sizeof(float);
  const std::size_t each = all / static_cast<std::size_t>(threads) / granule * granule;
  const auto seconds = time_together(threads, 3, [&](int thread) {
    const float r = read_all(p + static_cast<std::size_t>(thread) * each, each);
    if (r < 0) sink = r;
  });
  return static_cast<double>(each * static_cast<std::size_t>(threads) * sizeof(float)) /
         *std::min_element(seconds.begin(), seconds.end()) * 1e-9;
}

namespace {

// A plan with its workspace. The peers get pixels that are floats already, so the plan is called below the Embedder,
// which would standardise bytes. Integer arithmetic takes the bytes themselves.
struct Engine {
  facenet::Plan plan;
  facenet::Workspace workspace;
  std::vector<facenet::PlanInput> inputs;  // one an image, so that fnb_run does not allocate
  bool bytes = false;                      // what the pixels are
};

void fail(const facenet::Status& status) {
  char text[512];
  last_error = status.print(text, sizeof text);
}

std::unique_ptr<const facenet::Network> network_of(facenet::WeightsReader& reader) {
  const facenet::Status recognised = reader.recognise(facenet::models::all());
  if (!recognised.ok()) return fail(recognised), nullptr;
  const facenet::Metadata& m = reader.metadata();
  for (const facenet::models::Entry& e : facenet::models::all())
    if (std::strcmp(e.architecture, m.architecture) == 0)
      return std::make_unique<const facenet::Network>(
          e.build(m.embedding_dim, m.normalise == facenet::Normalise::l2, m.width));
  last_error = std::string("the architecture ") + m.architecture + " is not known here";
  return nullptr;
}

}  // namespace

/// Multiply-adds of one image through the network of a weight file; 0 on failure, with the reason in fnb_error().
FNB_API double fnb_macs(const char* weights) {
  auto reader = facenet::WeightsReader::open(weights);
  if (!reader) return fail(reader.status()), 0;
  const auto network = network_of(*reader);
  return network == nullptr ? 0 : static_cast<double>(facenet::macs(*network));
}

/// Loads a weight file for `threads` threads and up to `max_batch` images; half != 0 keeps the weights in half
/// precision, integers != 0 multiplies bytes. Null on failure, with the reason in fnb_error().
FNB_API void* fnb_open(const char* weights, int threads, int max_batch, int half, int integers) {
  if (half != 0 && !simd::half_in_memory) {
    last_error = std::string("half-precision weights are expanded on load for ") + facenet::isa_name;
    return nullptr;
  }
  auto reader = facenet::WeightsReader::open(weights);
  if (!reader) return fail(reader.status()), nullptr;
  const auto network = network_of(*reader);
  if (network == nullptr) return nullptr;
  if (integers != 0 && reader->metadata().scaling != facenet::Scaling::fixed) {
    last_error = "the model scales its pixels otherwise than the peers get them: (byte - 127.5) / 128";
    return nullptr;
  }
  facenet::PlanOptions options;
  options.half_weights = half != 0;
  if (integers != 0) options.arithmetic = facenet::Arithmetic::int8;
  auto plan = facenet::Plan::compile(*network, *reader, options);
  if (!plan) return fail(plan.status()), nullptr;
  auto workspace = plan->workspace(max_batch, threads);
  if (!workspace) return fail(workspace.status()), nullptr;
  return new Engine{std::move(*plan), std::move(*workspace),
                    std::vector<facenet::PlanInput>(static_cast<std::size_t>(max_batch)), integers != 0};
}

/// pixels: [batch, side, side, 3], floats that are standardised, or bytes for integer arithmetic; out: float
/// [batch, dim]. 0, or 1 with the reason in fnb_error().
FNB_API int fnb_run(void* handle, const void* pixels, int batch, float* out) {
  auto& engine = *static_cast<Engine*>(handle);
  if (batch < 1 || batch > engine.workspace.batch()) {
    last_error = "the batch is larger than fnb_open was told";
    return 1;
  }
  const facenet::Shape shape = engine.plan.input_shape();
  for (int i = 0; i < batch; ++i) {
    facenet::PlanInput& input = engine.inputs[static_cast<std::size_t>(i)];
    if (engine.bytes) {
      input.rgb = static_cast<const std::uint8_t*>(pixels) + i * shape.size();
      input.stride = std::ptrdiff_t{3} * shape.w;
    } else {
      input.nhwc = static_cast<const float*>(pixels) + i * shape.size();
    }
  }
  const facenet::Status status = engine.plan.run(engine.workspace, engine.inputs.data(), batch,
                                                 {out, std::int64_t{batch} * engine.plan.output_size()});
  if (!status.ok()) fail(status);
  return status.ok() ? 0 : 1;
}

FNB_API void fnb_close(void* handle) { delete static_cast<Engine*>(handle); }
