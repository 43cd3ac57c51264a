// Running steps: one entry an operator, which says its name, how a step of it is cut into chunks, and how a chunk runs.
#pragma once

#include <iterator>

#include "facenet/base/owned.hpp"
#include "facenet/kernels/pool.hpp"
#include "facenet/plan/arena_layout.hpp"
#include "facenet/plan/pack.hpp"

FACENET_BEGIN

/// One image for Plan::run(): bytes to be standardised, or ready NHWC floats.
struct PlanInput {
  const std::uint8_t* rgb = nullptr;
  std::ptrdiff_t stride = 0;            // bytes from a row to the next
  const float (*value)[256] = nullptr;  // value[channel][byte]; none: (byte - 127.5) / 128
  bool swap = false;                    // the bytes are in the other order than the network's channels
  const float* nhwc = nullptr;          // used instead of rgb when set; rows are dense
};

class Plan;

/// What one caller needs to run a plan: activations for `batch` images and a team of threads. Of one that is
/// default-made or was moved from all numbers are 0, and no plan runs in it.
class Workspace {
 public:
  int batch() const noexcept { return batch_; }
  int threads() const noexcept { return team_ ? team_->size() : 0; }
  /// Bytes of the arena.
  std::size_t bytes() const noexcept { return arena_.size() * sizeof(float); }
  /// Plan::run() looks at `flag` once a step and returns Errc::cancelled when it is set; null: it does not. The flag
  /// must outlive the runs.
  void cancel_when(const std::atomic<bool>* flag) noexcept { cancel_ = flag; }

 private:
  friend class Plan;
  ArenaPart part(int lane = 0) noexcept { return {arena_.data(), batch_, lanes_, lane}; }

  Buffer<float> arena_, scratch_;
  OwnedTeam team_;
  detail::Moved<int> batch_, lanes_;
  const std::atomic<bool>* cancel_ = nullptr;
  bool stop_[2] = {};  // what member 0 saw in this round, and in the one before
};

namespace detail {

/// A step at work: on `images` images from `image` on, by one of `members` threads.
struct StepRun {
  const Network& network;
  const Quantisation& quantisation;
  const Steps& steps;
  const ArenaLayout& layout;
  const PackedWeights& weights;
  ArenaPart arena;
  float* scratch;  // this thread's
  const PlanInput* inputs;
  int index, image, images, members;

  const Step& step() const noexcept { return steps[index]; }
  const Op& op() const noexcept { return network[step().op]; }
  TensorView view(int op, int first, int count) const noexcept { return layout.view(network, arena, op, first, count); }
  TensorView out() const noexcept { return view(step().op, image, images); }
  TensorView in() const noexcept { return view(op().inputs[0], image, images); }
  kernels::ActivationView bytes(int op, int first, int count) const noexcept {
    return layout.bytes(network, arena, op, first, count);
  }
  kernels::ActivationView out_bytes() const noexcept { return bytes(step().op, image, images); }
  kernels::ActivationView in_bytes() const noexcept { return bytes(op().inputs[0], image, images); }
  bool makes_floats() const noexcept { return quantisation.floats(step().op); }
};

/// Pixels, or Winograd tiles, that a convolution computes for `images` images.
inline int conv_units(const Network& n, const Step& s, int images) noexcept {
  const Shape out = computed(n, n[s.op]);
  if (!is_winograd(s.algorithm)) return images * static_cast<int>(out.pixels());
  return with_transform(s.algorithm, [&](auto t) { return kernels::winograd_tiles<decltype(t)>(out, images); });
}

// ---- Operators without weights: pixels and pools run a few rows a chunk, the rest an image a chunk ------------------

constexpr int rows_per_chunk = 8;  // about 50 KB of output

inline int row_chunks(const StepRun& r) noexcept {
  return r.images * ((r.op().out.h + rows_per_chunk - 1) / rows_per_chunk);
}
inline int image_chunks(const StepRun& r) noexcept { return r.images; }

/// The image and the rows of a chunk.
struct Rows {
  int image, first, end;
  Rows(const StepRun& r, int chunk) noexcept {
    const int height = r.op().out.h, slices = (height + rows_per_chunk - 1) / rows_per_chunk;
    image = chunk / slices;
    first = chunk % slices * rows_per_chunk;
    end = first + rows_per_chunk < height ? first + rows_per_chunk : height;
  }
};

inline void run_input(const StepRun& r, int chunk) noexcept {
  const Rows rows(r, chunk);
  const TensorView to = r.out();
  const PlanInput& in = r.inputs[r.image + rows.image];
#if !defined(FACENET_NO_INTEGER)
  if (r.quantisation.bytes(r.step().op)) {
    const kernels::ActivationView bytes = r.out_bytes();
    for (int y = rows.first; y < rows.end; ++y)
      kernels::copy_row(in.rgb + y * in.stride, bytes.shape.w, in.swap, bytes.pixel(rows.image, y, 0));
  }
  if (!r.makes_floats()) return;
#endif
  const int width = to.shape.w;
  for (int y = rows.first; y < rows.end; ++y) {
    float* out = to.pixel(rows.image, y, 0);
    if (in.nhwc != nullptr)
      std::memcpy(out, in.nhwc + std::int64_t{y} * width * to.shape.c,
                  static_cast<std::size_t>(width * to.shape.c) * sizeof(float));
    else
      kernels::convert_row(in.rgb + y * in.stride, width, in.value, in.swap, out);
  }
}
inline void run_max_pool(const StepRun& r, int chunk) noexcept {
  const Rows rows(r, chunk);
#if !defined(FACENET_NO_INTEGER)
  if (!r.makes_floats())
    return kernels::max_pool_bytes(r.in_bytes(), r.out_bytes(), rows.image, r.op().window, rows.first, rows.end);
#endif
  kernels::max_pool_rows(r.in(), r.out(), rows.image, r.op().window, rows.first, rows.end);
}
inline void run_avg_pool(const StepRun& r, int chunk) noexcept {
  const Rows rows(r, chunk);
  kernels::avg_pool_rows(r.in(), r.out(), rows.image, r.op().window, rows.first, rows.end);
}
inline void run_global_avg_pool(const StepRun& r, int chunk) noexcept {
  kernels::global_avg_pool(r.in(), r.out(), chunk);
}
#if !defined(FACENET_NO_INTEGER)
/// Bytes of the floats that the step before has made.
inline void run_quantise(const StepRun& r, int chunk) noexcept {
  const Rows rows(r, chunk);
  const TensorView in = r.out();
  const kernels::ActivationView out = r.out_bytes();
  const float* const scales = &r.quantisation.scales[r.quantisation.ops[r.step().op].first_scale];
  for (int y = rows.first; y < rows.end; ++y)
    for (int x = 0; x < in.shape.w; ++x)
      kernels::quantise_row(in.pixel(rows.image, y, x), scales, in.shape.c, out.pixel(rows.image, y, x));
}
#endif
inline void run_l2_normalise(const StepRun& r, int chunk) noexcept {
  kernels::l2_normalise(r.in().pixel(chunk, 0, 0), r.out().pixel(chunk, 0, 0), r.op().out.c);
}
inline void run_softmax(const StepRun& r, int chunk) noexcept {
  const Rows rows(r, chunk);
  const TensorView in = r.in(), out = r.out();
  for (int y = rows.first; y < rows.end; ++y)
    for (int x = 0; x < out.shape.w; ++x)
      kernels::softmax(in.pixel(rows.image, y, x), out.pixel(rows.image, y, x), out.shape.c);
}

// ---- Convolutions and linear layers ---------------------------------------------------------------------------------

inline Chunking conv_chunking(const StepRun& r) noexcept {
  const Step& s = r.step();
  const int units = conv_units(r.network, s, r.images), panels = kernels::panels(s.channels, s.panel);
  if (is_winograd(s.algorithm))
    return choose_winograd_chunks(units, kernels::winograd_block(winograd_points(s), in_channels(r.network, r.op())),
                                  panels, r.members);
#if defined(FACENET_AMX)
  if (s.matrix_unit) return choose_matrix_chunks(units, kernels::conv_block, panels, r.members, kernels::matrix_rows);
#endif
  if (s.is_integer()) return choose_chunks(units, kernels::conv_block, panels, r.members, simd::integer::tile_rows);
  if (s.algorithm == ConvAlgorithm::in_order) return choose_in_order_chunks(panels, r.members);
  if (r.weights.keeps_int8()) return choose_expanded_chunks(units, kernels::conv_block, panels, r.members);
  return choose_chunks(units, kernels::conv_block, panels, r.members);
}
inline int conv_chunks(const StepRun& r) noexcept { return conv_chunking(r).count(); }

inline kernels::EpilogueKind epilogue_of(const Op& op) noexcept {
  using kernels::EpilogueKind;
  if (op.skip >= 0) return op.act == relu ? EpilogueKind::bias_residual_relu : EpilogueKind::bias_residual;
  return op.act == relu         ? EpilogueKind::bias_relu
         : op.act == Act::prelu ? EpilogueKind::bias_prelu
                                : EpilogueKind::bias;
}

inline kernels::ConvArgs conv_args(const StepRun& r) noexcept {
  const Step& s = r.step();
  const Op& op = r.op();
  kernels::ConvArgs g;
  g.in = r.in();
  g.in.data -= op.window.pad_h * g.in.row_stride + op.window.pad_w * g.in.pixel_stride;
  g.stride = op.window.stride();
  g.out = computed(r.network, op);
  g.out.c = s.channels;
  g.runs = r.layout.runs(r.index);
  g.weights = r.weights.values.data() + r.weights[r.index].weights;
  g.half = r.weights.half;
  g.panel = s.panel;
  g.bias = r.weights.biases.data() + r.weights[r.index].bias;
  g.bias_stride = bias_stride(op);
  g.segment_count = s.segment_count;
  int channel = 0;
  for (int k = 0; k < s.segment_count; ++k) {
    const Op& o = r.network[s.segment_ops[k]];
    kernels::Segment& to = g.segments[k];
    to.out = r.view(s.segment_ops[k], r.image, r.images);
    to.first_panel = channel / s.panel;
    to.epilogue = epilogue_of(o);
    channel += o.out.c;
  }
  return g;
}

inline kernels::WinogradArgs winograd_args(const StepRun& r) noexcept {
  const Op& op = r.op();
  kernels::WinogradArgs g;
  g.in = r.in();
  g.pad_h = op.window.pad_h;
  g.pad_w = op.window.pad_w;
  g.out = r.out();
  g.weights = r.weights.values.data() + r.weights[r.index].weights;
  g.half = r.weights.half;
  g.bias = r.weights.biases.data() + r.weights[r.index].bias;
  g.bias_stride = bias_stride(op);
  g.epilogue = epilogue_of(op);
  if (r.weights.keeps_int8()) g.int8 = r.weights.int8_weights(r.network, r.step().op);
  return g;
}

/// Part of a convolution: pixels or Winograd tiles [u0, u1), panels [p0, p1).
struct ConvPart {
  int u0, u1, p0, p1;
};
inline ConvPart conv_part(const StepRun& r, int chunk) noexcept {
  const Step& s = r.step();
  const Chunking cut = conv_chunking(r);
  const auto part = [](int total, int parts, int i) { return static_cast<int>(std::int64_t{total} * i / parts); };
  const int block = chunk / cut.groups, group = chunk % cut.groups, panels = kernels::panels(s.channels, s.panel);
  // Whole register tiles to each block where there are many, so that only the last one has short tiles; few pixels
  // are shared out evenly.
  int tile_rows = s.is_integer() ? simd::integer::tile_rows : simd::tile_rows;
#if defined(FACENET_AMX)
  if (s.matrix_unit) tile_rows = kernels::matrix_rows;
#endif
  const int units = conv_units(r.network, s, r.images),
            grain = s.matrix_unit || units >= 8 * cut.blocks * tile_rows ? tile_rows : 1;
  const int grains = (units + grain - 1) / grain, end = part(grains, cut.blocks, block + 1) * grain;
  return {part(grains, cut.blocks, block) * grain, end < units ? end : units, part(panels, cut.groups, group),
          part(panels, cut.groups, group + 1)};
}

inline void run_expanded(const StepRun& r, const ConvPart& p) noexcept {
  const Step& s = r.step();
  kernels::Int8Weights weights[kernels::ConvArgs::max_segments];
  float factors[kernels::ConvArgs::max_segments];
  for (int k = 0; k < s.segment_count; ++k) {
    weights[k] = r.weights.int8_weights(r.network, s.segment_ops[k]);
    factors[k] = r.network[s.segment_ops[k]].scale;
  }
  kernels::conv_expanded(conv_args(r), weights, factors, p.u0, p.u1, p.p0, p.p1, r.scratch);
}
#if !defined(FACENET_NO_INTEGER)
inline void run_integer(const StepRun& r, const ConvPart& p) noexcept {
  const Step& s = r.step();
  const Op& op = r.op();
  kernels::IntegerConvArgs g;
  const kernels::ActivationView in = r.in_bytes();
  g.in = in;
  g.in.data -= op.window.pad_h * in.row_stride + op.window.pad_w * in.pixel_stride;
  g.stride = op.window.stride();
  g.out = computed(r.network, op);
  g.out.c = s.channels;
  g.runs = r.layout.runs(r.index);
  g.weights = reinterpret_cast<const std::int8_t*>(r.weights.values.data()) + r.weights[r.index].weights;
  g.pairs_fit = r.weights[r.index].pairs_fit;
  g.scales = r.weights.biases.data() + r.weights[r.index].bias;
  g.segment_count = s.segment_count;
  int channel = 0;
  for (int k = 0; k < s.segment_count; ++k) {
    const int index = s.segment_ops[k];
    const Op& o = r.network[index];
    g.segments[k] = {r.view(index, r.image, r.images),
                     r.bytes(index, r.image, r.images),
                     o.out.c,
                     channel / s.panel,
                     {o.skip >= 0, o.act == relu, r.quantisation.floats(index), r.quantisation.bytes(index)}};
    channel += o.out.c;
  }
#  if defined(FACENET_AMX)
  g.gathered = reinterpret_cast<unsigned char*>(r.scratch);
  if (s.matrix_unit) return kernels::integer_matrix_chunk(g, p.u0, p.u1, p.p0, p.p1);
#  endif
  kernels::integer_conv_chunk(g, p.u0, p.u1, p.p0, p.p1);
}
/// Four pictures at once where there are four, so that a batch reads the weights once; else four panels.
inline void run_in_order(const StepRun& r, const ConvPart& p) noexcept {
  const kernels::ConvArgs g = conv_args(r);
  const TensorView out = r.out();
  const std::int64_t panel_floats = std::int64_t{g.runs.count} * g.runs.length * g.panel;
  const float* const weights = reinterpret_cast<const float*>(r.weights.values.data() + r.weights[r.index].weights);
  const auto run = [&](auto images, auto panels, int image, int panel) {
    constexpr std::size_t I = images, P = panels;
    const float* x[I];
    float* y[I];
    for (std::size_t i = 0; i < I; ++i) {
      x[i] = g.in.pixel(image + static_cast<int>(i), 0, 0);
      y[i] = out.pixel(image + static_cast<int>(i), 0, 0) + panel * g.panel;
    }
    kernels::linear_in_order<I, P>(x, g.runs, weights + panel * panel_floats, panel_floats,
                                   g.bias + std::int64_t{panel} * g.bias_stride, g.bias_stride,
                                   out.shape.c - panel * g.panel, y);
  };
  constexpr std::integral_constant<std::size_t, 1> one;
  constexpr std::integral_constant<std::size_t, 4> four;
  int image = p.u0;
  for (; image + 4 <= p.u1; image += 4)
    for (int panel = p.p0; panel < p.p1; ++panel) run(four, one, image, panel);
  for (; image < p.u1; ++image) {
    int panel = p.p0;
    for (; panel + 4 <= p.p1; panel += 4) run(one, four, image, panel);
    for (; panel < p.p1; ++panel) run(one, one, image, panel);
  }
}
#endif
inline void run_conv(const StepRun& r, int chunk) noexcept {
  const ConvPart p = conv_part(r, chunk);
  const ConvAlgorithm algorithm = r.step().algorithm;
#if !defined(FACENET_NO_INTEGER)
  if (algorithm == ConvAlgorithm::integer) return run_integer(r, p);
  if (algorithm == ConvAlgorithm::in_order) return run_in_order(r, p);
#endif
  if (is_winograd(algorithm))
    with_transform(algorithm, [&](auto t) {
      kernels::winograd_chunk<decltype(t)>(winograd_args(r), p.u0, p.u1, p.p0, p.p1, r.scratch);
    });
  else if (r.weights.keeps_int8())
    run_expanded(r, p);
  else
    kernels::conv_chunk(conv_args(r), p.u0, p.u1, p.p0, p.p1);
}

// ---- The table ------------------------------------------------------------------------------------------------------

/// What a plan must know of an operator. Chunks of a step write disjoint memory.
struct Operator {
  const char* name;                        // null: the algorithm's
  int (*chunks)(const StepRun&) noexcept;  // null: no step, its inputs lie side by side in it
  void (*run)(const StepRun&, int chunk) noexcept;
};

FACENET_HIDDEN inline const Operator& operator_of(const Step& s, const Op& op) noexcept {
  static constexpr Operator table[] = {
      {"pixels", row_chunks, run_input},               // input
      {nullptr, conv_chunks, run_conv},                // conv
      {nullptr, conv_chunks, run_conv},                // linear
      {"max pool", row_chunks, run_max_pool},          // max_pool
      {"average pool", row_chunks, run_avg_pool},      // avg_pool
      {"average", image_chunks, run_global_avg_pool},  // global_avg_pool
      {"concatenation", nullptr, nullptr},             // concat
      {"normalise", image_chunks, run_l2_normalise},   // l2_normalise
      {"softmax", row_chunks, run_softmax},            // softmax
  };
  static_assert(std::size(table) == op_kinds, "an entry for each OpKind, in its order");
#if !defined(FACENET_NO_INTEGER)
  static constexpr Operator quantise = {"bytes", row_chunks, run_quantise};
  if (s.quantise) return quantise;
#else
  (void)s;
#endif
  return table[static_cast<std::size_t>(op.kind)];
}

}  // namespace detail

/// "F(4x4, 3x3)", "max pool", …
inline const char* step_name(const Network& n, const Step& s) noexcept {
  const char* name_of_kind = detail::operator_of(s, n[s.op]).name;
  return name_of_kind != nullptr ? name_of_kind : name(s.algorithm);
}

FACENET_END
