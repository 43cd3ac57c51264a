// Compiles a network and its weights into packed weights, an arena plan and a flat list of steps, and runs it. Layer 4.
//
// A Plan is immutable and shared by any number of threads; each caller owns a Workspace. run() neither allocates nor
// throws. Every output is one fixed chain of operations, so the bits do not depend on threads, batch or position.
#pragma once

#if !defined(FACENET_NO_STDIO)
#  include <cstdio>
#endif

#include "facenet/kernels/conv.hpp"
#include "facenet/kernels/int8.hpp"
#include "facenet/kernels/pool.hpp"
#include "facenet/kernels/winograd.hpp"
#include "facenet/network.hpp"
#include "facenet/parallel.hpp"
#include "facenet/weights.hpp"

FACENET_BEGIN

// ---- Decisions: pure functions of shapes, tested by tables -----------------------------------------------------------

enum class ConvAlgorithm : std::uint8_t {
  automatic,
  direct,
  winograd_4x4_3x3,
  winograd_4_1x7,
  winograd_4_7x1,
  winograd_6x6_3x3,
  winograd_3x3_stride_2
};

inline const char* name(ConvAlgorithm a) noexcept {
  constexpr const char* names[] = {"automatic", "direct",       "F(4x4, 3x3)", "F(4, 1x7)",
                                   "F(4, 7x1)", "F(6x6, 3x3)", "F(3x3, 3x3/2)"};
  return names[static_cast<std::size_t>(a)];
}

/// Root mean square rounding error relative to a direct sum's: the table in HACKING.md.
constexpr double rounding_factor(ConvAlgorithm a) noexcept {
  switch (a) {
    case ConvAlgorithm::winograd_4x4_3x3: return 3.3 / 2.7;
    case ConvAlgorithm::winograd_4_1x7:
    case ConvAlgorithm::winograd_4_7x1: return 1.7 / 0.39;
    case ConvAlgorithm::winograd_6x6_3x3: return 6.9 / 2.7;
    default: return 1;  // stride 2 too: 3.0e-7 where a direct sum had 4.6e-7 on the same data
  }
}

/// What a decision about a convolution may look at.
struct ConvShape {
  Shape in, out;
  Window window;
  bool plain_relu = true;  // ends in bias and ReLU or PReLU, without a residual
  bool prelu = false;
};

/// Calls f with the kernels::Transform of a Winograd algorithm.
template <class F>
constexpr auto with_transform(ConvAlgorithm a, F&& f) noexcept {
  switch (a) {
    case ConvAlgorithm::winograd_4_1x7: return f(kernels::F4_1x7{});
    case ConvAlgorithm::winograd_4_7x1: return f(kernels::F4_7x1{});
    case ConvAlgorithm::winograd_6x6_3x3: return f(kernels::F6x6_3x3{});
    case ConvAlgorithm::winograd_3x3_stride_2: return f(kernels::F3x3_stride_2{});
    default: return f(kernels::F4x4_3x3{});
  }
}
constexpr bool is_winograd(ConvAlgorithm a) noexcept { return a > ConvAlgorithm::direct; }

/// Whether a Winograd form can compute this convolution.
constexpr bool can_run(ConvAlgorithm a, const ConvShape& s) noexcept {
  if (!s.plain_relu || s.in.c % simd::width != 0 || s.out.c % simd::width != 0) return false;
  return with_transform(a, [&](auto t) {
    using Y = typename decltype(t)::Rows;
    using X = typename decltype(t)::Columns;
    constexpr int stride = Y::stride > X::stride ? Y::stride : X::stride;
    if (s.prelu && !decltype(t)::prelu) return false;
    return s.window.kh == Y::taps && s.window.kw == X::taps && s.window.stride_ == stride;
  });
}

/// The algorithm for a convolution; `wanted` is returned where it can run, else the direct one; `automatic` takes the fewest
/// products. Winograd's weights are larger and come from memory: a form pays where enough tiles share them. Of this network's
/// layers the 25 tiles of F(4x4, 3x3) over 17x17 win, the 4 over 8x8 do not; none lies between.
constexpr ConvAlgorithm choose_conv(const ConvShape& s, ConvAlgorithm wanted) noexcept {
  using A = ConvAlgorithm;
  if (wanted != A::automatic) return is_winograd(wanted) && can_run(wanted, s) ? wanted : A::direct;
  struct Form {
    A algorithm;
    int least;  // tiles
  };
  constexpr Form forms[] = {{A::winograd_4x4_3x3, simd::winograd_tiles},
                            {A::winograd_4_1x7, simd::winograd_tiles},
                            {A::winograd_4_7x1, simd::winograd_tiles},
                            {A::winograd_6x6_3x3, simd::large_winograd_tiles},
                            {A::winograd_3x3_stride_2, simd::strided_winograd_tiles}};
  A best = A::direct;
  std::int64_t fewest = INT64_MAX;
  for (const Form& f : forms) {
    if (!can_run(f.algorithm, s)) continue;
    const auto [tiles, products] = with_transform(f.algorithm, [&](auto t) {
      const int n = kernels::winograd_tiles<decltype(t)>(s.out);
      return std::pair<int, std::int64_t>(n, std::int64_t{n} * decltype(t)::points);
    });
    if (tiles < f.least || products >= fewest) continue;
    best = f.algorithm;
    fewest = products;
  }
  return best;
}

/// Channels in one panel of packed weights: a single vector where a full tile's width would compute over a tenth more.
constexpr int choose_panel(int channels, ConvAlgorithm algorithm, bool residual, bool half) noexcept {
  const int wide = kernels::panels(channels) * simd::panel;
  const int narrow = kernels::panels(channels, simd::width) * simd::width;
  const bool able = algorithm == ConvAlgorithm::direct && !residual && !half;
  return able && 10 * wide > 11 * narrow ? simd::width : simd::panel;
}

/// How a convolution of `pixels` (or Winograd tiles) x `panels` is cut into chunks: blocks of at most `block` pixels
/// times groups of panels.
struct Chunking {
  int blocks, groups;
  constexpr int count() const noexcept { return blocks * groups; }
};
/// A thread keeps its part of the pixels from layer to layer, so pixels are cut where each thread gets two register
/// tiles or more; else the panels are cut, and each thread reads a part of the weights. Several chunks a thread, so that
/// a slow one does not hold up the rest.
constexpr Chunking choose_chunks(int pixels, int block, int panels, int threads) noexcept {
  const auto up = [](int n, int to) { return (n + to - 1) / to * to; };
  const int least = (pixels + block - 1) / block, tiles = (pixels + simd::tile_rows - 1) / simd::tile_rows;
  if (threads == 1) return {least, 1};
  if (tiles >= 16 * threads) return {up(least < 8 * threads ? 8 * threads : least, threads), 1};
  if (tiles >= 8 * threads) return {up(least < 4 * threads ? 4 * threads : least, threads), 1};
  if (pixels >= 8 * threads) return {up(least, threads), panels < 8 ? panels : 8};
  if (panels >= threads) return {least, panels < 8 * threads ? panels : 8 * threads};
  return {pixels < threads ? pixels : up(least, threads), 1};
}

/// The same for Winograd tiles. Each chunk transforms the input of its tiles, so panels are cut into one group a thread
/// at the most, and only where a register tile or less would be left to each: Block17's 16 tiles share 655 KB of weights.
constexpr Chunking choose_winograd_chunks(int tiles, int block, int panels, int threads) noexcept {
  constexpr int few = 12, many = 96;  // tiles for each thread
  const int least = (tiles + block - 1) / block;
  if (threads == 1) return {least, 1};
  if (tiles <= few * threads && panels >= threads) return {least, threads};
  if (tiles < threads) return {tiles, 1};
  const int wanted = tiles >= many * threads && least < 4 * threads ? 4 * threads : least;
  return {(wanted + threads - 1) / threads * threads, 1};
}

/// The same where a chunk expands the int8 weights it multiplies with: panels are cut, so that each is expanded once, and
/// pixels only where there are too few panels, into pieces that are still worth an expansion.
constexpr Chunking choose_expanded_chunks(int pixels, int block, int panels, int threads) noexcept {
  if (threads == 1) return {1, 1};
  const int groups = panels < 4 * threads ? panels : 4 * threads;
  const int wanted = (4 * threads + groups - 1) / groups, least = (threads + groups - 1) / groups;
  int blocks = pixels / block < wanted ? pixels / block : wanted;
  if (blocks < least) blocks = least;
  return {blocks < pixels ? blocks : pixels, groups};
}

/// In a batch, early operators run image by image (their activations stay in L2), and from this one on all images'
/// pixels are merged (the weights are read once a batch): the first operator whose weights outweigh four times the
/// activations of one image.
constexpr int choose_merge(const Network& n) noexcept {
  for (int i = 0; i < n.size(); ++i)
    if (has_weights(n[i]) && weight_count(n, n[i]) > 4 * (n[n[i].inputs[0]].out.size() + n[i].out.size())) return i;
  return n.size();
}

// ---- The plan -------------------------------------------------------------------------------------------------------

struct PlanOptions {
  bool half_weights = false;  // keep convolution weights as IEEE half in memory: half the traffic, cosine >= 0.9999
  // Keep int8 weights as they are in the file and expand them panel by panel at every run: a quarter of the memory, or none
  // where the file's bytes are the caller's and stay. Same bits as without, and about 1.7 times the time.
  bool int8_weights = false;
  ConvAlgorithm conv = ConvAlgorithm::automatic;
  Arena* arena = nullptr;  // where plan and workspaces are made; null: malloc
  int threads = 1;         // that pack the weights; the bits do not depend on it
};

/// One image for run(): bytes to be standardised, or ready NHWC floats.
struct PlanInput {
  const std::uint8_t* rgb = nullptr;
  std::ptrdiff_t stride = 0;              // bytes from a row to the next
  const float (*value)[256] = nullptr;    // value[channel][byte]; none: (byte - 127.5) / 128
  bool swap = false;                      // the bytes are in the other order than the network's channels
  const float* nhwc = nullptr;            // used instead of rgb when set; rows are dense
};

enum class StepKind : std::uint8_t { input, conv, max_pool, avg_pool, global_avg_pool, l2_normalise, softmax };

/// One entry of the flat list: an operator, or several that were merged.
struct Step {
  StepKind kind = StepKind::input;
  ConvAlgorithm algorithm = ConvAlgorithm::direct;
  int op = 0;                                     // the first operator
  int segment_ops[kernels::ConvArgs::max_segments] = {};  // conv: the operators merged into this step
  int segment_count = 0;
  int channels = 0;                               // conv: all segments together
  int panel = simd::panel;                        // channels in one panel of weights
  std::int64_t weights = 0, weight_bytes = 0;     // in the packed weights; int8: bytes in the file
  std::int64_t bias = 0;                          // floats into the packed biases
  std::int64_t runs = 0;                          // into the table of run offsets
  int run_count = 0, run_length = 0;
  bool merged = false;                            // runs once for the whole batch
};

class Plan;

/// What one caller needs to run a plan: activations for `batch` images and a team of threads.
class Workspace {
 public:
  int batch() const noexcept { return batch_; }
  int threads() const noexcept { return team_ ? team_->size() : 0; }
  /// Bytes of the arena.
  std::size_t bytes() const noexcept { return arena_.size() * sizeof(float); }

  Workspace() noexcept = default;
  Workspace(Workspace&&) noexcept = default;
  Workspace& operator=(Workspace&&) noexcept = default;

 private:
  friend class Plan;
  float* scratch(int member, std::int64_t each) noexcept { return scratch_.data() + member * each; }
  Buffer<float> arena_, scratch_;
  SharedTeam team_;
  int batch_ = 0;
};

class Plan {
 public:
  /// Reads all weights through `reader` and packs them; int8 weights that stay in the caller's memory must outlive the plan.
  /// Errors: those of the reader, out_of_memory, unsupported, invalid_argument (also for the number of threads).
  static Result<Plan> compile(const Network& network, WeightsReader& reader, PlanOptions options = {}) noexcept {
    Plan p;
    FACENET_TRY(p.layout(network, options, reader.from_memory()));
    auto team = SharedTeam::make(options.threads, p.memory_);
    if (!team) return team.status();
    if (p.memory_.measuring()) FACENET_TRY(reader.measure_layers(network, options.int8_weights));
    else FACENET_TRY(p.pack(reader, *team));
    return p;
  }
  /// The same without a file: fill(op, weights, bias) is called for each weighted operator and fills OIHW
  /// weights and biases (behind the biases PReLU's slopes). For tests,
  /// benchmarks and tools that make weights themselves.
  template <class F>
  static Result<Plan> compile_with(const Network& network, PlanOptions options, F&& fill) noexcept {
    Plan p;
    FACENET_TRY(p.layout(network, options));
    auto team = SharedTeam::make(options.threads);
    if (!team) return team.status();
    for (int i = 0; i < network.size(); ++i) {
      const Op& op = network[i];
      if (!has_weights(op)) continue;
      auto w = Buffer<float>::make(static_cast<std::size_t>(weight_count(network, op)));
      auto b = Buffer<float>::make(bias_count(op));
      if (!w) return w.status();
      if (!b) return b.status();
      fill(i, w->span(), b->span());
      p.pack_layer(i, w->data(), b->data(), *team);
    }
    return p;
  }
  /// And with int8 weights: fill(op, weights, scales, biases) gives the values that outlive the plan.
  template <class F>
  static Result<Plan> compile_int8_with(const Network& network, PlanOptions options, F&& fill) noexcept {
    Plan p;
    options.int8_weights = true;
    FACENET_TRY(p.layout(network, options, true));
    for (int i = 0; i < network.size(); ++i) {
      if (!has_weights(network[i])) continue;
      const std::int8_t* weights = nullptr;
      Span<const float> scales, biases;
      fill(i, weights, scales, biases);
      p.keep_layer(i, weights, scales, biases);
    }
    return p;
  }

  const Network& network() const noexcept { return network_[0]; }
  Shape input_shape() const noexcept { return network()[0].out; }
  /// Floats of one image's output: height, width and channels of the last operator.
  int output_size() const noexcept { return static_cast<int>(network()[network().size() - 1].out.size()); }
  Span<const Step> steps() const noexcept { return {steps_.data(), static_cast<std::size_t>(step_count_)}; }
  /// Multiply-adds of a step's register tiles for one image: fewer than the layer's with Winograd, whose transforms are not
  /// counted, and more where the last panel is padded.
  std::int64_t executed_macs(const Step& s) const noexcept {
    if (s.kind != StepKind::conv) return 0;
    return kernels::panels(s.channels, s.panel) * panel_weights(s) * conv_units(s, 1);  // each once a pixel, or once a tile
  }
  /// Bytes of packed weights; of int8 ones, those that are not the caller's.
  std::size_t weight_bytes() const noexcept { return weights_.size(); }
  /// Bytes of arena that a workspace for `batch` images takes.
  std::size_t arena_bytes(int batch) const noexcept {
    return static_cast<std::size_t>(single_size_ + merged_size_ * batch) * sizeof(float);
  }

  /// Errors: invalid_argument, out_of_memory.
  Result<Workspace> workspace(int batch, int threads) const noexcept {
    if (batch < 1 || batch > 4096) return {Errc::invalid_argument, "the batch must be 1 to 4096 images"};
    Workspace w;
    auto arena = Buffer<float>::make_bulk(arena_bytes(batch) / sizeof(float), true, memory_);  // halos stay zero from here on
    if (!arena) return arena.status();
    w.arena_ = std::move(*arena);
    if (threads < 1 || threads > max_threads) return {Errc::invalid_argument, "threads must be 1 to 256"};
    auto scratch = Buffer<float>::make_bulk(static_cast<std::size_t>(scratch_size_ * threads), true, memory_);
    if (!scratch) return scratch.status();
    w.scratch_ = std::move(*scratch);
    auto team = SharedTeam::make(threads, memory_);
    if (!team) return team.status();
    w.team_ = std::move(*team);
    w.batch_ = batch;
    return w;
  }

  /// Runs n <= workspace.batch() images; out: n * output_size() floats. Error: invalid_argument.
  Status run(Workspace& w, const PlanInput* inputs, int n, float* out) const noexcept {
    return run(w, inputs, n, out, [](int) {});
  }
  /// The same; the calling thread calls after(step) whenever a step is done: once an image, or once a batch if merged.
  template <class After>
  Status run(Workspace& w, const PlanInput* inputs, int n, float* out, After&& after) const noexcept {
    if (n < 1 || n > w.batch_) return {Errc::invalid_argument, "more pictures than the workspace has room for"};
    in_team(w, [&](int member, auto&& step) {
      const auto run_one = [&](int s, int image, int images) {
        step(s, inputs, image, images);
        if (member == 0) after(s);
      };
      int s = 0;
      for (int image = 0; image < n; ++image)
        for (s = 0; s < step_count_ && !steps_[static_cast<std::size_t>(s)].merged; ++s) run_one(s, image, 1);
      for (; s < step_count_; ++s) run_one(s, 0, n);
    });
    const int last = network().size() - 1;
    for (int i = 0; i < n; ++i)
      std::memcpy(out + std::int64_t{i} * output_size(), view(w, last, i, 1).data,
                  static_cast<std::size_t>(output_size()) * sizeof(float));
    return {};
  }

  /// Runs one step alone on image 0, for tests that feed each layer a reference's input.
  void run_step(Workspace& w, int index, const PlanInput* input = nullptr) const noexcept {
    in_team(w, [&](int, auto&& step) { step(index, input, 0, 1); });
  }

  /// Where operator `op`'s output lies. Valid right after the step that computes it; a later step may reuse the memory.
  TensorView view(Workspace& w, int op, int image = 0, int images = 1) const noexcept {
    const Place& at = places_[static_cast<std::size_t>(op)];
    const Storage& s = storages_[static_cast<std::size_t>(at.storage)];
    float* base = w.arena_.data() + (s.merged ? single_size_ + s.offset * w.batch_ + image * s.size() : s.offset);
    TensorView v{base, network()[op].out, images, s.shape.c, s.row(), s.size()};
    v.data += s.halo_h * v.row_stride + s.halo_w * v.pixel_stride + at.channel;
    return v;
  }

#if !defined(FACENET_NO_STDIO)
  /// Calls line(const char*) for each line of a table of the choices: layer, shape, algorithm, tile, MACs, bytes, arena.
  template <class F>
  void describe(F&& line) const noexcept {
    char text[256];
    std::snprintf(text, sizeof text, "%s for %s, %s: tile %dx%d, %s weights", network().architecture().text, isa_name,
                  parallel_name, simd::tile_rows, simd::panel,
                  options_.int8_weights ? "int8" : options_.half_weights ? "half" : "float");
    line(text);
    std::snprintf(text, sizeof text, "%-30s %-13s %-13s %-15s %9s %9s %9s %s", "layer", "in", "out", "algorithm", "MMAC",
                  "weights", "arena at", "batch");
    line(text);
    for (const Step& s : steps()) {
      const Op& op = network()[s.op];
      const Shape in = s.kind == StepKind::input ? op.out : network()[op.inputs[0]].out;
      double mac = 0;
      for (int i = 0; i < s.segment_count; ++i) mac += static_cast<double>(macs(network(), network()[s.segment_ops[i]]));
      char layer[64], from[24], to[24];
      std::snprintf(layer, sizeof layer, s.segment_count > 1 ? "%s +%d" : "%s", op.name.text, s.segment_count - 1);
      std::snprintf(from, sizeof from, "%dx%dx%d", in.h, in.w, in.c);
      std::snprintf(to, sizeof to, "%dx%dx%d", op.out.h, op.out.w, s.kind == StepKind::conv ? s.channels : op.out.c);
      const Storage& st = storages_[static_cast<std::size_t>(places_[static_cast<std::size_t>(s.op)].storage)];
      std::snprintf(text, sizeof text, "%-30s %-13s %-13s %-15s %9.2f %9lld %9lld %s", layer, from, to, step_name(s),
                    mac / 1e6, static_cast<long long>(s.weight_bytes),
                    static_cast<long long>(st.offset * std::int64_t{sizeof(float)}), s.merged ? "merged" : "by image");
      line(text);
    }
    std::snprintf(text, sizeof text, "%d steps, %.1f MMAC, weights %.1f MB, arena %.2f MB + %.2f MB an image",
                  step_count_, static_cast<double>(macs(network())) / 1e6, static_cast<double>(weight_bytes()) / 1e6,
                  static_cast<double>(single_size_) * 4e-6, static_cast<double>(merged_size_) * 4e-6);
    line(text);
  }
#endif

  static const char* step_name(const Step& s) noexcept {
    switch (s.kind) {
      case StepKind::input: return "pixels";
      case StepKind::conv: return name(s.algorithm);
      case StepKind::max_pool: return "max pool";
      case StepKind::avg_pool: return "average pool";
      case StepKind::global_avg_pool: return "average";
      case StepKind::l2_normalise: return "normalise";
      case StepKind::softmax: return "softmax";
    }
    return "";
  }

 private:
  /// A block of the arena: an activation that others may be slices of, with a halo of zeros for padded convolutions.
  struct Storage {
    Shape shape;
    int halo_h = 0, halo_w = 0;
    int first = 0, last = 0;   // steps between which it is in use
    bool merged = false;       // one per image of the batch
    std::int64_t offset = 0;   // floats; for merged ones times the batch
    constexpr std::int64_t row() const noexcept { return std::int64_t{shape.w + 2 * halo_w} * shape.c; }
    constexpr std::int64_t size() const noexcept {
      return static_cast<std::int64_t>(round_up(static_cast<std::size_t>((shape.h + 2 * halo_h) * row()), 16));
    }
    constexpr bool halo() const noexcept { return halo_h > 0 || halo_w > 0; }
  };
  struct Place {
    int storage = -1, channel = 0;
  };
  /// An operator's int8 weights, and where its scales begin in scales_.
  struct Int8Layer {
    std::int8_t* copy = nullptr;       // room for them, where they are not the caller's
    const std::int8_t* at = nullptr;
    std::int64_t scales = 0;
  };

  // -- compile ------------------------------------------------------------------------------------------------------

  Status layout(const Network& network, PlanOptions options, bool int8_in_place = false) noexcept {
    if (!network.ok()) return {Errc::invalid_argument, "the network description has a mistake"};
    if (options.half_weights && options.int8_weights)
      return {Errc::invalid_argument, "weights can be kept in half precision or as int8, not both"};
    memory_ = {options.arena, Arena::front};
    auto copy = Buffer<Network>::make(1, false, memory_);
    if (!copy) return copy.status();
    network_ = std::move(*copy);
    std::memcpy(static_cast<void*>(network_.data()), &network, sizeof network);
    options_ = options;
    options_.half_weights = options.half_weights && simd::half_in_memory;
    const auto ops = static_cast<std::size_t>(network.size());
    auto steps = Buffer<Step>::make(ops, true, memory_);
    auto places = Buffer<Place>::make(ops, true, memory_);
    auto storages = Buffer<Storage>::make(ops, true, memory_);
    if (!steps) return steps.status();
    if (!places) return places.status();
    if (!storages) return storages.status();
    steps_ = std::move(*steps);
    places_ = std::move(*places);
    storages_ = std::move(*storages);
    for (Place& p : places_) p = {};
    make_steps();
    FACENET_TRY(place_outputs());
    lifetimes();
    arrange();
    FACENET_TRY(tabulate_runs());
    FACENET_TRY(reserve_weights());
    return options.int8_weights ? reserve_int8(int8_in_place) : Status();
  }

  /// Convolutions that can share one GEMM: 1x1 over the same input, each but the last a whole number of panels wide.
  bool siblings(int a, int b) const noexcept {
    const Op &x = network()[a], &y = network()[b];
    const auto plain = [](const Op& op) {
      return op.kind == OpKind::conv && op.skip < 0 && op.window.kh == 1 && op.window.kw == 1 &&
             op.window.stride_ == 1 && op.window.pad_h == 0 && op.window.pad_w == 0;
    };
    return plain(x) && plain(y) && x.inputs[0] == y.inputs[0] && x.act == y.act;
  }

  void make_steps() noexcept {
    const Network& n = network();
    bool done[Network::max_ops] = {};
    const int merge_at = choose_merge(n);
    for (int i = 0; i < n.size(); ++i) {
      const Op& op = n[i];
      if (done[i] || op.kind == OpKind::concat) continue;
      Step s;
      s.op = i;
      s.merged = i >= merge_at;
      switch (op.kind) {
        case OpKind::input: s.kind = StepKind::input; break;
        case OpKind::max_pool: s.kind = StepKind::max_pool; break;
        case OpKind::avg_pool: s.kind = StepKind::avg_pool; break;
        case OpKind::global_avg_pool: s.kind = StepKind::global_avg_pool; break;
        case OpKind::l2_normalise: s.kind = StepKind::l2_normalise; break;
        case OpKind::softmax: s.kind = StepKind::softmax; break;
        case OpKind::conv:
        case OpKind::linear:
          s.kind = StepKind::conv;
          s.algorithm = choose_conv(
              {n[op.inputs[0]].out, op.out, op.window, op.kind == OpKind::conv && op.skip < 0 && op.act != Act::none,
               op.act == Act::prelu},
              options_.conv);
          for (int j = i; j < n.size() && s.segment_count < kernels::ConvArgs::max_segments; ++j) {
            if (j != i && (done[j] || !siblings(i, j) || s.channels % simd::panel != 0)) continue;
            done[j] = true;
            s.segment_ops[s.segment_count++] = j;
            s.channels += n[j].out.c;
          }
          s.panel = choose_panel(s.channels, s.algorithm, op.skip >= 0, options_.half_weights);
          break;
        case OpKind::concat: break;
      }
      steps_[static_cast<std::size_t>(step_count_++)] = s;
    }
  }

  Status place_outputs() noexcept {
    const Network& n = network();
    for (int i = n.size() - 1; i >= 0; --i) {  // backwards: a concatenation of concatenations is slices of slices
      if (n[i].kind != OpKind::concat) continue;
      Place& whole = places_[static_cast<std::size_t>(i)];
      if (whole.storage < 0) whole = {new_storage(n[i].out), 0};
      int channel = whole.channel;
      for (int k = 0; k < n[i].input_count; ++k) {
        const int in = n[i].inputs[k];
        Place& slice = places_[static_cast<std::size_t>(in)];
        if (slice.storage >= 0 || n[in].skip >= 0 || n[in].kind == OpKind::input)
          return Status(Errc::unsupported, "a concatenation's input must be used by it alone").in(n[i].name.text);
        slice = {whole.storage, channel};
        channel += n[in].out.c;
      }
    }
    for (int i = 0; i < n.size(); ++i) {
      Place& at = places_[static_cast<std::size_t>(i)];
      if (n[i].skip >= 0) {  // the trunk is updated in place, so nobody may read it later
        for (int j = i + 1; j < n.size(); ++j)
          if (reads(n[j], n[i].skip))
            return Status(Errc::unsupported, "a residual's trunk is read after the addition").in(n[i].name.text);
        at = places_[static_cast<std::size_t>(n[i].skip)];
      } else if (at.storage < 0) {
        at = {new_storage(n[i].out), 0};
      }
    }
    return {};
  }
  static bool reads(const Op& op, int what) noexcept {
    for (int k = 0; k < op.input_count; ++k)
      if (op.inputs[k] == what) return true;
    return op.skip == what;
  }
  int new_storage(Shape shape) noexcept {
    Storage s;
    s.shape = shape;
    s.first = INT32_MAX;
    s.last = -1;
    storages_[static_cast<std::size_t>(storage_count_)] = s;
    return storage_count_++;
  }
  Storage& storage_of(int op) noexcept {
    return storages_[static_cast<std::size_t>(places_[static_cast<std::size_t>(op)].storage)];
  }

  void lifetimes() noexcept {
    const Network& n = network();
    for (int s = 0; s < step_count_; ++s) {
      const Step& step = steps_[static_cast<std::size_t>(s)];
      const auto touch = [&](int op) {
        Storage& st = storage_of(op);
        if (s < st.first) st.first = s;
        if (s > st.last) st.last = s;
        st.merged = st.merged || step.merged;
      };
      touch(step.op);
      for (int k = 0; k < step.segment_count; ++k) touch(step.segment_ops[k]);
      const Op& op = n[step.op];
      for (int k = 0; k < op.input_count; ++k) touch(op.inputs[k]);
      if (step.kind == StepKind::conv && step.algorithm == ConvAlgorithm::direct) {
        Storage& in = storage_of(op.inputs[0]);
        if (op.window.pad_h > in.halo_h) in.halo_h = op.window.pad_h;
        if (op.window.pad_w > in.halo_w) in.halo_w = op.window.pad_w;
      }
    }
    Storage& output = storage_of(n.size() - 1);
    output.last = step_count_;
    output.merged = true;  // every picture's result is read after the last one has run
    // A merged block that an image-by-image step writes must keep every image's part while the next image runs.
    for (int i = 0; i < storage_count_; ++i) {
      Storage& st = storages_[static_cast<std::size_t>(i)];
      if (st.merged && st.first < step_count_ && !steps_[static_cast<std::size_t>(st.first)].merged) st.first = 0;
    }
  }

  /// Gives each block the lowest place that is free while it is in use, the largest blocks first. A block with a halo
  /// shares only with blocks of the same layout: the halo is zeroed once, when the workspace is made.
  void arrange() noexcept {
    bool placed[Network::max_ops] = {};
    for (int round = 0; round < storage_count_; ++round) {
      int best = -1;
      for (int i = 0; i < storage_count_; ++i)
        if (!placed[i] && (best < 0 || larger(i, best))) best = i;
      Storage& s = storages_[static_cast<std::size_t>(best)];
      s.offset = 0;
      for (bool moved = true; moved;) {
        moved = false;
        for (int i = 0; i < storage_count_; ++i) {
          const Storage& o = storages_[static_cast<std::size_t>(i)];
          if (!placed[i] || o.merged != s.merged) continue;
          const bool in_time = o.first <= s.last && s.first <= o.last;
          const bool same_halo = o.shape == s.shape && o.halo_h == s.halo_h && o.halo_w == s.halo_w;
          const bool clash = in_time || ((o.halo() || s.halo()) && !(same_halo && o.offset == s.offset));
          if (clash && s.offset < o.offset + o.size() && o.offset < s.offset + s.size()) {
            s.offset = o.offset + o.size();
            moved = true;
          }
        }
      }
      placed[best] = true;
      std::int64_t& total = s.merged ? merged_size_ : single_size_;
      if (s.offset + s.size() > total) total = s.offset + s.size();
    }
  }
  bool larger(int a, int b) const noexcept {
    return storages_[static_cast<std::size_t>(a)].size() > storages_[static_cast<std::size_t>(b)].size();
  }

  Status tabulate_runs() noexcept {
    const Network& n = network();
    for (int pass = 0; pass < 2; ++pass) {  // count, then fill
      std::int64_t used = 0;
      for (int i = 0; i < step_count_; ++i) {
        Step& s = steps_[static_cast<std::size_t>(i)];
        if (s.kind != StepKind::conv || s.algorithm != ConvAlgorithm::direct) continue;
        const Op& op = n[s.op];
        const Shape in = n[op.inputs[0]].out;
        const Storage& st = storage_of(op.inputs[0]);
        // A linear layer is a window over the whole input.
        const int kh = op.kind == OpKind::linear ? in.h : op.window.kh, kw = op.kind == OpKind::linear ? in.w : op.window.kw;
        const bool dense = in.c == st.shape.c;
        s.runs = used;
        s.run_count = dense ? kh : kh * kw;
        s.run_length = dense ? kw * in.c : in.c;
        for (int r = 0; r < s.run_count; ++r, ++used)
          if (pass == 1)
            runs_[static_cast<std::size_t>(used)] = static_cast<std::int32_t>(
                dense ? r * st.row() : r / kw * st.row() + r % kw * std::int64_t{st.shape.c});
      }
      if (pass == 0) {
        auto runs = Buffer<std::int32_t>::make(static_cast<std::size_t>(used), true, memory_);
        if (!runs) return runs.status();
        runs_ = std::move(*runs);
      }
    }
    return {};
  }

  Status reserve_weights() noexcept {
    std::int64_t bytes = 0, biases = 0;
    for (int i = 0; i < step_count_; ++i) {
      Step& s = steps_[static_cast<std::size_t>(i)];
      if (s.kind != StepKind::conv) continue;
      const std::int64_t element = options_.half_weights ? sizeof(Half) : sizeof(float);
      s.weights = bytes;
      const Op& op = network()[s.op];
      const int cin = in_channels(network(), op), taps = op.window.kh * op.window.kw;
      const int points = is_winograd(s.algorithm) ? winograd_points(s) : 0;
      s.weight_bytes = element * kernels::panels(s.channels, s.panel) * panel_weights(s);
      std::int64_t scratch = points != 0 ? kernels::winograd_scratch(points, cin) : 0;
      if (options_.int8_weights) {
        s.weight_bytes = 0;
        for (int k = 0; k < s.segment_count; ++k) s.weight_bytes += weight_count(network(), network()[s.segment_ops[k]]);
        scratch += points != 0 ? kernels::winograd_expanded(points, taps, cin) : panel_weights(s);
      }
      if (scratch > scratch_size_) scratch_size_ = scratch;
      s.bias = biases;
      if (!options_.int8_weights)
        bytes += static_cast<std::int64_t>(round_up(static_cast<std::size_t>(s.weight_bytes), cache_line));
      biases += std::int64_t{kernels::panels(s.channels, s.panel)} * bias_stride(s);
    }
    scratch_size_ = static_cast<std::int64_t>(round_up(static_cast<std::size_t>(scratch_size_), 16));
    auto weights = Buffer<unsigned char>::make_bulk(static_cast<std::size_t>(bytes), false, memory_);
    auto bias = Buffer<float>::make_bulk(static_cast<std::size_t>(biases), true, memory_);
    if (!weights) return weights.status();
    if (!bias) return bias.status();
    weights_ = std::move(*weights);
    biases_ = std::move(*bias);
    return {};
  }

  Status reserve_int8(bool in_place) noexcept {
    auto layers = Buffer<Int8Layer>::make(static_cast<std::size_t>(network().size()), true, memory_);
    if (!layers) return layers.status();
    std::int64_t scales = 0;
    std::size_t bytes = 0;
    for (int i = 0; i < network().size(); ++i) {
      if (!has_weights(network()[i])) continue;
      (*layers)[static_cast<std::size_t>(i)].scales = scales;
      scales += network()[i].out.c;
      bytes += static_cast<std::size_t>(weight_count(network(), network()[i]));
    }
    auto floats = Buffer<float>::make_bulk(static_cast<std::size_t>(scales), false, memory_);
    auto weights = Buffer<unsigned char>::make_bulk(in_place ? 0 : bytes, false, memory_);
    if (!floats) return floats.status();
    if (!weights) return weights.status();
    int8_ = std::move(*layers);
    scales_ = std::move(*floats);
    weights_ = std::move(*weights);
    bytes = 0;
    for (int i = 0; i < network().size() && !in_place && !memory_.measuring(); ++i) {
      if (!has_weights(network()[i])) continue;
      int8_[static_cast<std::size_t>(i)].copy = reinterpret_cast<std::int8_t*>(weights_.data() + bytes);
      bytes += static_cast<std::size_t>(weight_count(network(), network()[i]));
    }
    return {};
  }

  Status pack(WeightsReader& reader, SharedTeam& team) noexcept {
    if (options_.int8_weights)
      return reader.for_each_int8_layer(
          network(), [&](int op) { return int8_[static_cast<std::size_t>(op)].copy; },
          [&](int op, const std::int8_t* weight, Span<const float> scale, Span<const float> bias) -> Status {
            keep_layer(op, weight, scale, bias);
            return {};
          });
    return reader.for_each_layer(network(), [&](int op, Span<const float> weight, Span<const float> bias) -> Status {
      pack_layer(op, weight.data(), bias.data(), team);
      return {};
    }, &team);
  }

  /// Floats of biases for one panel; PReLU's slopes lie behind them.
  int bias_stride(const Step& s) const noexcept {
    return network()[s.op].act == Act::prelu ? 2 * simd::panel : simd::panel;
  }

  void pack_layer(int index, const float* oihw, const float* bias, SharedTeam& team) noexcept {
    const Op& op = network()[index];
    const Segment at = segment_of(index);
    pack_biases(*at.step, op, at.channel, bias);
    unsigned char* to = weights_.data() + at.step->weights;
    if constexpr (simd::half_in_memory)
      if (options_.half_weights) return pack_weights(*at.step, op, at.channel, oihw, reinterpret_cast<Half*>(to), team);
    pack_weights(*at.step, op, at.channel, oihw, reinterpret_cast<float*>(to), team);
  }
  void keep_layer(int index, const std::int8_t* weights, Span<const float> scales, Span<const float> bias) noexcept {
    const Segment at = segment_of(index);
    pack_biases(*at.step, network()[index], at.channel, bias.data());
    Int8Layer& layer = int8_[static_cast<std::size_t>(index)];
    layer.at = weights;
    std::memcpy(scales_.data() + layer.scales, scales.data(), scales.size() * sizeof(float));
  }

  /// The step that computes an operator, and the operator's first channel in it.
  struct Segment {
    const Step* step;
    int channel;
  };
  Segment segment_of(int index) const noexcept {
    for (const Step& s : steps()) {
      int channel = 0;
      for (int k = 0; k < s.segment_count; channel += network()[s.segment_ops[k++]].out.c)
        if (s.segment_ops[k] == index) return {&s, channel};
    }
    return {nullptr, 0};  // never: make_steps gives each weighted operator a step
  }
  void pack_biases(const Step& s, const Op& op, int channel, const float* bias) noexcept {
    for (int c = 0; c < op.out.c; ++c) {
      float* b = biases_.data() + s.bias + (channel + c) / s.panel * bias_stride(s) + (channel + c) % s.panel;
      b[0] = bias[c] * op.scale;
      if (op.act == Act::prelu) b[kernels::BiasPRelu::slope_offset] = bias[op.out.c + c];
    }
  }
  template <class T>
  void pack_weights(const Step& s, const Op& op, int channel, const float* oihw, T* to, SharedTeam& team) noexcept {
    const int cin = in_channels(network(), op);
    if (is_winograd(s.algorithm))
      return with_transform(s.algorithm, [&](auto t) {
        team.for_chunks(kernels::panels(op.out.c), [&](int, int panel) {
          kernels::pack_winograd_panel(kernels::winograd_factors<decltype(t)>(), oihw, op.out.c, cin, op.scale, to, panel);
        });
      });
    to += std::int64_t{channel} * s.run_count * s.run_length;
    team.for_chunks(kernels::panels(op.out.c, s.panel), [&](int, int panel) {
      kernels::pack_panel(oihw, op.out.c, cin, op.window.kh, op.window.kw, op.scale, to, s.panel, panel);
    });
  }

  // -- run ----------------------------------------------------------------------------------------------------------

  static constexpr int rows_per_chunk = 8;  // pools and pixels: about 50 KB of output

  /// Weights in one packed panel.
  std::int64_t panel_weights(const Step& s) const noexcept {
    const std::int64_t depth = std::int64_t{s.run_count} * s.run_length;
    return s.panel * (is_winograd(s.algorithm) ? std::int64_t{winograd_points(s)} * in_channels(network(), network()[s.op]) : depth);
  }
  /// Pixels, or Winograd tiles, of `images` images.
  int conv_units(const Step& s, int images) const noexcept {
    const Shape out = computed(network(), network()[s.op]);
    if (!is_winograd(s.algorithm)) return images * static_cast<int>(out.pixels());
    return with_transform(s.algorithm, [&](auto t) { return kernels::winograd_tiles<decltype(t)>(out, images); });
  }
  static int winograd_points(const Step& s) noexcept {
    return with_transform(s.algorithm, [](auto t) { return decltype(t)::points; });
  }
  Chunking conv_chunks(const Step& s, int images, int members) const noexcept {
    const int cin = network()[network()[s.op].inputs[0]].out.c;
    const int block = is_winograd(s.algorithm) ? kernels::winograd_block(winograd_points(s), cin) : kernels::conv_block;
    const int panels = kernels::panels(s.channels, s.panel);
    if (is_winograd(s.algorithm)) return choose_winograd_chunks(conv_units(s, images), block, panels, members);
    if (options_.int8_weights) return choose_expanded_chunks(conv_units(s, images), block, panels, members);
    return choose_chunks(conv_units(s, images), block, panels, members);
  }

  int chunk_count(const Step& s, int images, int members) const noexcept {
    const Op& op = network()[s.op];
    switch (s.kind) {
      case StepKind::input:
      case StepKind::softmax:
      case StepKind::max_pool:
      case StepKind::avg_pool: return images * ((op.out.h + rows_per_chunk - 1) / rows_per_chunk);
      case StepKind::conv: return conv_chunks(s, images, members).count();
      case StepKind::global_avg_pool:
      case StepKind::l2_normalise: return images;
    }
    return 0;
  }

  /// Calls body(member, step) on every member; step(index, inputs, image, images) shares one step out among them.
  template <class F>
  void in_team(Workspace& w, F&& body) const noexcept {
    w.team_->queue.reset(w.team_->size());
    w.team_->run([&](int member, int members) {
      // OpenMP may grant fewer threads than asked for (a nested region, OMP_THREAD_LIMIT). Nobody would then reset the
      // counters of those who are absent, and from the third step on their chunks would be taken for done.
      if (members != w.team_->size()) {
        if (member == 0) w.team_->queue.reset(members);
        w.team_->barrier();
      }
      unsigned round = 0;
      body(member, [&](int index, const PlanInput* inputs, int image, int images) {
        const Step& s = steps_[static_cast<std::size_t>(index)];
        const int chunks = chunk_count(s, images, members);
        w.team_->queue.work(member, round++, chunks, [&](int chunk) {
          run_chunk(s, w, inputs, image, images, chunks, member, members, chunk);
        });
        w.team_->barrier();
      });
    });
  }

  void run_chunk(const Step& s, Workspace& w, const PlanInput* inputs, int image, int images, int chunks, int member,
                 int members, int chunk) const noexcept {
    if (s.kind == StepKind::conv) return run_conv(s, w, image, images, member, members, chunk);
    const Op& op = network()[s.op];
    const int slices = chunks / images, which = chunk / slices, row = chunk % slices * rows_per_chunk;
    const int end = row + rows_per_chunk < op.out.h ? row + rows_per_chunk : op.out.h;
    switch (s.kind) {
      case StepKind::input: return run_input(view(w, s.op, image), inputs[image], row, end);
      case StepKind::max_pool:
      case StepKind::avg_pool: {
        const auto pool = s.kind == StepKind::max_pool ? kernels::max_pool_rows : kernels::avg_pool_rows;
        return pool(view(w, op.inputs[0], image, images), view(w, s.op, image, images), which, op.window.kh, op.window.kw,
                    op.window.stride_, op.window.pad_h, op.window.pad_w, row, end);
      }
      case StepKind::global_avg_pool:
        return kernels::global_avg_pool(view(w, op.inputs[0], image, images), view(w, s.op, image, images), which);
      case StepKind::l2_normalise:
        return kernels::l2_normalise(view(w, op.inputs[0], image + which).data, view(w, s.op, image + which).data,
                                     op.out.c);
      case StepKind::softmax: {
        const TensorView in = view(w, op.inputs[0], image + which), out = view(w, s.op, image + which);
        for (int y = row; y < end; ++y)
          for (int x = 0; x < op.out.w; ++x) kernels::softmax(in.pixel(0, y, x), out.pixel(0, y, x), op.out.c);
        return;
      }
      case StepKind::conv: return;
    }
  }

  static void run_input(TensorView to, const PlanInput& in, int row, int end) noexcept {
    const int width = to.shape.w;
    for (int y = row; y < end; ++y) {
      float* out = to.pixel(0, y, 0);
      if (in.nhwc != nullptr)
        std::memcpy(out, in.nhwc + std::int64_t{y} * width * to.shape.c,
                    static_cast<std::size_t>(width * to.shape.c) * sizeof(float));
      else
        kernels::convert_row(in.rgb + y * in.stride, width, in.value, in.swap, out);
    }
  }

  kernels::ConvArgs conv_args(const Step& s, Workspace& w, int image, int images) const noexcept {
    const Op& op = network()[s.op];
    kernels::ConvArgs g;
    g.in = view(w, op.inputs[0], image, images);
    g.in.data -= op.window.pad_h * g.in.row_stride + op.window.pad_w * g.in.pixel_stride;
    g.stride = op.window.stride_;
    g.out = computed(network(), op);
    g.out.c = s.channels;
    g.runs = {runs_.data() + s.runs, s.run_count, s.run_length};
    g.weights = weights_.data() + s.weights;
    g.half = options_.half_weights;
    g.panel = s.panel;
    g.bias = biases_.data() + s.bias;
    g.bias_stride = bias_stride(s);
    g.segment_count = s.segment_count;
    int channel = 0;
    for (int k = 0; k < s.segment_count; ++k) {
      const Op& o = network()[s.segment_ops[k]];
      kernels::Segment& to = g.segments[k];
      to.out = view(w, s.segment_ops[k], image, images);
      to.first_panel = channel / s.panel;
      to.fuse = fuse_of(o);
      channel += o.out.c;
    }
    return g;
  }

  static kernels::Fuse fuse_of(const Op& op) noexcept {
    using kernels::Fuse;
    if (op.skip >= 0) return op.act == relu ? Fuse::bias_residual_relu : Fuse::bias_residual;
    return op.act == relu ? Fuse::bias_relu : op.act == Act::prelu ? Fuse::bias_prelu : Fuse::bias;
  }

  kernels::WinogradArgs winograd_args(const Step& s, Workspace& w, int image, int images) const noexcept {
    const Op& op = network()[s.op];
    kernels::WinogradArgs g;
    g.in = view(w, op.inputs[0], image, images);
    g.pad_h = op.window.pad_h;
    g.pad_w = op.window.pad_w;
    g.out = view(w, s.op, image, images);
    g.weights = weights_.data() + s.weights;
    g.half = options_.half_weights;
    g.bias = biases_.data() + s.bias;
    g.bias_stride = bias_stride(s);
    g.fuse = fuse_of(op);
    if (options_.int8_weights) g.int8 = int8_weights(s.op);
    return g;
  }

  kernels::Int8Weights int8_weights(int index) const noexcept {
    const Op& op = network()[index];
    const Int8Layer& layer = int8_[static_cast<std::size_t>(index)];
    return {layer.at, scales_.data() + layer.scales, op.out.c, in_channels(network(), op), op.window.kh * op.window.kw};
  }

  void run_conv(const Step& s, Workspace& w, int image, int images, int member, int members, int chunk) const noexcept {
    const Chunking cut = conv_chunks(s, images, members);
    const auto part = [](int total, int parts, int i) { return static_cast<int>(std::int64_t{total} * i / parts); };
    const int block = chunk / cut.groups, group = chunk % cut.groups, panels = kernels::panels(s.channels, s.panel);
    // Whole register tiles to each block where there are many, so that only the last one has short tiles; few pixels
    // are shared out evenly.
    const int units = conv_units(s, images), grain = units >= 8 * cut.blocks * simd::tile_rows ? simd::tile_rows : 1;
    const int grains = (units + grain - 1) / grain;
    const int u0 = part(grains, cut.blocks, block) * grain;
    int u1 = part(grains, cut.blocks, block + 1) * grain;
    if (u1 > units) u1 = units;
    const int p0 = part(panels, cut.groups, group), p1 = part(panels, cut.groups, group + 1);
    if (is_winograd(s.algorithm))
      with_transform(s.algorithm, [&](auto t) {
        kernels::winograd_chunk<decltype(t)>(winograd_args(s, w, image, images), u0, u1, p0, p1,
                                             w.scratch(member, scratch_size_));
      });
    else if (options_.int8_weights)
      run_expanded(s, conv_args(s, w, image, images), u0, u1, p0, p1, w.scratch(member, scratch_size_));
    else
      kernels::conv_chunk(conv_args(s, w, image, images), u0, u1, p0, p1);
  }
  void run_expanded(const Step& s, const kernels::ConvArgs& g, int m0, int m1, int p0, int p1,
                    float* scratch) const noexcept {
    kernels::Int8Weights weights[kernels::ConvArgs::max_segments];
    float factors[kernels::ConvArgs::max_segments];
    for (int k = 0; k < s.segment_count; ++k) {
      weights[k] = int8_weights(s.segment_ops[k]);
      factors[k] = network()[s.segment_ops[k]].scale;
    }
    kernels::conv_expanded(g, weights, factors, m0, m1, p0, p1, scratch);
  }

  Memory memory_;
  Buffer<Network> network_;
  Buffer<Step> steps_;
  Buffer<Place> places_;
  Buffer<Storage> storages_;
  Buffer<std::int32_t> runs_;
  Buffer<unsigned char> weights_;
  Buffer<float> biases_, scales_;
  Buffer<Int8Layer> int8_;
  PlanOptions options_;
  int step_count_ = 0, storage_count_ = 0;
  std::int64_t single_size_ = 0, merged_size_ = 0, scratch_size_ = 0;  // floats
};

FACENET_END
