// Steps and a weight file -> PackedWeights: weights in the order in which tiles read them, biases, int8 tables.
#pragma once

#include "facenet/base/rounding.hpp"
#include "facenet/kernels/int8.hpp"
#include "facenet/kernels/integer_matrix.hpp"
#include "facenet/plan/step.hpp"
#include "facenet/weights.hpp"

FACENET_BEGIN

/// Where a step's weights and biases lie.
struct PackedStep {
  std::int64_t weights = 0;  // byte into PackedWeights::values
  std::int64_t bytes = 0;    // int8: bytes in the file
  std::int64_t bias = 0;     // float into PackedWeights::biases; integer steps: their IntegerScales
  bool pairs_fit = true;     // integer steps: IntegerConvArgs::pairs_fit
};

struct PackedWeights {
  /// An operator's int8 weights, and where its scales begin in `scales`.
  struct Int8Layer {
    std::int8_t* copy = nullptr;  // room for them, where they are not the caller's
    const std::int8_t* at = nullptr;
    std::int64_t scales = 0;
  };
  Buffer<PackedStep> steps;
  Buffer<unsigned char> values;
  Buffer<float> biases, scales;
  Buffer<Int8Layer> int8;    // by operator; empty: no int8 weights are kept
  std::int64_t scratch = 0;  // floats that each thread needs while it runs
  bool half = false;

  const PackedStep& operator[](int step) const noexcept { return steps[step]; }
  bool keeps_int8() const noexcept { return kernels::may_keep_int8 && !int8.empty(); }
  kernels::Int8Weights int8_weights(const Network& n, int op) const noexcept {
    const Int8Layer& layer = int8[op];
    return {layer.at, scales.data() + layer.scales, n[op].out.c, in_channels(n, n[op]),
            n[op].window.kh * n[op].window.kw};
  }
};

/// Rows of constants of an integer step's panel: kernels::IntegerScales.
constexpr int integer_constants = 4;
/// Floats of biases for one panel; PReLU's slopes follow them.
constexpr int bias_stride(const Op& op) noexcept { return op.act == Act::prelu ? 2 * simd::panel : simd::panel; }

/// Points of a Winograd step's form.
constexpr int winograd_points(const Step& s) noexcept {
  return with_transform(s.algorithm, [](auto t) { return decltype(t)::points; });
}
/// Inputs of one output channel: kh * kw * cin.
constexpr std::int64_t depth(const Network& n, const Op& op) noexcept { return weight_count(n, op) / op.out.c; }
/// Weights in one packed panel.
constexpr std::int64_t panel_weights(const Network& n, const Step& s) noexcept {
  const Op& op = n[s.op];
  return s.panel * (is_winograd(s.algorithm) ? std::int64_t{winograd_points(s)} * in_channels(n, op) : depth(n, op));
}

namespace detail {

/// Threads that pack. One thread needs no team, and no memory for it.
class PackingTeam {
 public:
  Status start(int threads, Memory memory) noexcept {
    if (threads == 1) return {};
    auto made = OwnedTeam::make(threads, memory);
    if (!made) return made.status();
    team_ = std::move(*made);
    return {};
  }
  template <class F>
  void for_chunks(int count, F&& f) noexcept {
    if (team_) return team_.for_chunks(count, f);
    for (int chunk = 0; chunk < count; ++chunk) f(0, chunk);
  }
  OwnedTeam* get() noexcept { return team_ ? &team_ : nullptr; }

 private:
  OwnedTeam team_;
};

/// Makes room for the weights of all steps, and fills it a layer at a time.
class WeightPacker {
 public:
  WeightPacker(const Network& n, const Quantisation& q, const Steps& steps, const PlanOptions& options) noexcept
      : n_(n), q_(q), steps_(steps), int8_weights_(kernels::may_keep_int8 && options.int8_weights) {
    packed_.half = options.half_weights && simd::half_in_memory;
  }

  /// int8_in_place: int8 weights stay where the file is. Error: out_of_memory.
  Status reserve(bool int8_in_place, Memory memory) noexcept {
    FACENET_TRY(allocate(packed_.steps, static_cast<std::size_t>(steps_.size()), true, memory));
    std::int64_t bytes = 0, biases = 0;
    for (int i = 0; i < steps_.size(); ++i) {
      const Step& s = steps_[i];
      if (!s.is_conv()) continue;
      const Op& op = n_[s.op];
      PackedStep& at = packed_.steps[i];
      at = {bytes, step_bytes(s), biases, true};
      if (!int8_weights_) bytes += static_cast<std::int64_t>(round_up(static_cast<std::size_t>(at.bytes), cache_line));
      const std::int64_t constants = s.is_integer() ? integer_constants * s.panel : bias_stride(op);
      biases += kernels::panels(s.channels, s.panel) * constants;
      if (const std::int64_t scratch = step_scratch(s); scratch > packed_.scratch) packed_.scratch = scratch;
    }
    packed_.scratch = static_cast<std::int64_t>(round_up(static_cast<std::size_t>(packed_.scratch), 16));
#if defined(FACENET_AMX)
    if (!q_.empty()) bytes += kernels::matrix_overread;
#endif
    FACENET_TRY(allocate_bulk(packed_.values, static_cast<std::size_t>(bytes), false, memory));
    FACENET_TRY(allocate_bulk(packed_.biases, static_cast<std::size_t>(biases), true, memory));
    return kernels::may_keep_int8 && int8_weights_ ? reserve_int8(int8_in_place, memory) : Status();
  }

  void pack_layer(int index, const float* oihw, const float* bias, PackingTeam& team) noexcept {
    const Op& op = n_[index];
    const Found at = find(index);
    pack_biases(at, op, bias);
    unsigned char* to = packed_.values.data() + packed_[at.step].weights;
    if constexpr (simd::half_in_memory)
      if (packed_.half) return pack_weights(at, op, oihw, reinterpret_cast<Half*>(to), team);
    pack_weights(at, op, oihw, reinterpret_cast<float*>(to), team);
  }
#if !defined(FACENET_NO_INTEGER)
  /// Packs a layer of integers: value = (sum of bytes and weights) * scale + bias. Error: corrupt for scales or biases
  /// that kernels/integer_gemm.hpp does not take.
  Status pack_integer_layer(int index, const std::int8_t* oihw, Span<const float> scales, Span<const float> bias,
                            PackingTeam& team) noexcept {
    const Op& op = n_[index];
    const Found at = find(index);
    const Step& s = steps_[at.step];
    static_assert(integer_constants == kernels::IntegerScales::rows, "a row for each");
    const kernels::IntegerPackShape shape = integer_shape(op);
    auto* const values = reinterpret_cast<std::int8_t*>(packed_.values.data()) + packed_[at.step].weights;
    float* const constants = packed_.biases.data() + packed_[at.step].bias;
    const int first = at.channel / s.panel;
    std::atomic<bool> usable{true}, fit{true};
    team.for_chunks(kernels::panels(op.out.c, s.panel), [&](int, int panel) {
      std::int32_t sums[simd::integer::panel];
      std::int8_t* const to = values + (first + panel) * shape.panel_bytes();
      kernels::pack_integer_panel(oihw, shape, panel, to, sums);
      if (!kernels::pairs_fit(to, shape.panel_bytes())) fit.store(false, std::memory_order_relaxed);
      float* const row = constants + std::int64_t{first + panel} * kernels::IntegerScales::rows * s.panel;
      for (int j = 0; j < s.panel && panel * s.panel + j < op.out.c; ++j) {
        const int c = panel * s.panel + j;
        const auto place = static_cast<std::size_t>(c);
        const float input = q_.ops[index].scaled ? 1.0f : q_.scale(op.inputs[0], 0);
        row[j] = scales[place] * input * op.scale;
        row[s.panel + j] = input_bias(op, oihw, c, scales[place], bias[place]) * op.scale;
        row[2 * s.panel + j] = q_.bytes(index) ? 1.0f / q_.scale(index, c) : 0;
        const std::int32_t offset = kernels::zero_point() * sums[j];
        std::memcpy(row + 3 * s.panel + j, &offset, sizeof offset);
        for (int k = 0; k < 3; ++k)
          if (!is_usable(row[k * s.panel + j])) usable.store(false, std::memory_order_relaxed);
      }
    });
    packed_.steps[at.step].pairs_fit = packed_[at.step].pairs_fit && fit.load(std::memory_order_relaxed);
    if (usable.load(std::memory_order_relaxed)) return {};
    return Status(Errc::corrupt, "a scale or a bias is outside 2^-100 ... 2^80: calibrate the weights again")
        .in(op.name.text);
  }
#endif
  void keep_layer(int index, const std::int8_t* weights, Span<const float> scales, Span<const float> bias) noexcept {
    pack_biases(find(index), n_[index], bias.data());
    PackedWeights::Int8Layer& layer = packed_.int8[index];
    layer.at = weights;
    std::memcpy(packed_.scales.data() + layer.scales, scales.data(), scales.size() * sizeof(float));
  }
  std::int8_t* room(int index) noexcept { return packed_.int8[index].copy; }
  PackedWeights take() noexcept { return std::move(packed_); }

 private:
  std::int64_t step_bytes(const Step& s) const noexcept {
    std::int64_t bytes = 0;
#if !defined(FACENET_NO_INTEGER)
    if (s.is_integer()) return kernels::panels(s.channels, s.panel) * integer_shape(n_[s.op]).panel_bytes();
#endif
    if (int8_weights_)
      for (int k = 0; k < s.segment_count; ++k) bytes += weight_count(n_, n_[s.segment_ops[k]]);
    else
      bytes = kernels::panels(s.channels, s.panel) * panel_weights(n_, s) *
              static_cast<std::int64_t>(packed_.half ? sizeof(Half) : sizeof(float));
    return bytes;
  }
  std::int64_t step_scratch(const Step& s) const noexcept {
    const Op& op = n_[s.op];
    const int cin = in_channels(n_, op);
#if defined(FACENET_AMX)
    if (s.matrix_unit) return kernels::gathered_bytes(integer_shape(op).depth()) / std::int64_t{sizeof(float)};
#endif
    if (!is_winograd(s.algorithm)) return int8_weights_ ? panel_weights(n_, s) : 0;
    const int points = winograd_points(s), taps = op.window.kh * op.window.kw;
    return kernels::winograd_scratch(points, cin) + (int8_weights_ ? kernels::winograd_expanded(points, taps, cin) : 0);
  }

  Status reserve_int8(bool in_place, Memory memory) noexcept {
    FACENET_TRY(allocate(packed_.int8, static_cast<std::size_t>(n_.size()), true, memory));
    std::int64_t scales = 0, bytes = 0;
    for (int i = 0; i < n_.size(); ++i) {
      if (!has_weights(n_[i])) continue;
      packed_.int8[i].scales = scales;
      scales += n_[i].out.c;
      bytes += weight_count(n_, n_[i]);
    }
    FACENET_TRY(allocate_bulk(packed_.scales, static_cast<std::size_t>(scales), false, memory));
    if (in_place) return {};
    FACENET_TRY(allocate_bulk(packed_.values, static_cast<std::size_t>(bytes), false, memory));
    bytes = 0;
    for (int i = 0; i < n_.size() && !memory.measuring(); ++i) {
      if (!has_weights(n_[i])) continue;
      packed_.int8[i].copy = reinterpret_cast<std::int8_t*>(packed_.values.data() + bytes);
      bytes += weight_count(n_, n_[i]);
    }
    return {};
  }

#if !defined(FACENET_NO_INTEGER)
  /// A row of the window is one run of bytes, where the input is no slice of channels.
  kernels::IntegerPackShape integer_shape(const Op& op) const noexcept {
    return {op.out.c, in_channels(n_, op), op.window.taps(), is_slice(n_, op.inputs[0]) ? 1 : op.window.kw};
  }
  /// The bias of a convolution of bytes: of the network's input, the mean of each colour is taken off here.
  float input_bias(const Op& op, const std::int8_t* oihw, int channel, float scale, float bias) const noexcept {
    if (op.inputs[0] != 0) return bias;
    const int cin = in_channels(n_, op), taps = op.window.taps();
    double all = static_cast<double>(bias);
    for (int c = 0; c < cin; ++c) {
      std::int32_t sum = 0;
      for (int t = 0; t < taps; ++t) sum += oihw[(std::int64_t{channel} * cin + c) * taps + t];
      const double step = q_.mean[c] * static_cast<double>(q_.factor) * static_cast<double>(scale);
      all -= rounded_product(step, static_cast<double>(sum));  // fused, its bits would be another CPU's
    }
    return static_cast<float>(all);
  }
  /// Flushing of denormals changes nothing that these make: integer_gemm.hpp.
  static bool is_usable(float x) noexcept {
    const float size = x < 0 ? -x : x;
    return x == 0 || (size >= 0x1p-100f && size <= 0x1p80f);
  }
#endif

  /// The step that computes an operator, and the operator's first channel in it.
  struct Found {
    int step = 0, channel = 0;
  };
  Found find(int index) const noexcept {
    for (int i = 0; i < steps_.size(); ++i) {
      int channel = 0;
      for (int k = 0; k < steps_[i].segment_count; channel += n_[steps_[i].segment_ops[k++]].out.c)
        if (steps_[i].segment_ops[k] == index) return {i, channel};
    }
    return {};  // never: make_steps gives each weighted operator a step
  }
  void pack_biases(Found at, const Op& op, const float* bias) noexcept {
    const int panel = steps_[at.step].panel;
    for (int c = 0; c < op.out.c; ++c) {
      const int to = at.channel + c;
      float* b = packed_.biases.data() + packed_[at.step].bias + to / panel * bias_stride(op) + to % panel;
      b[0] = bias[c] * op.scale;
      if (op.act == Act::prelu) b[kernels::BiasPRelu::slope_offset] = bias[op.out.c + c];
    }
  }
  template <class T>
  void pack_weights(Found at, const Op& op, const float* oihw, T* to, PackingTeam& team) noexcept {
    const Step& s = steps_[at.step];
    const int cin = in_channels(n_, op);
    if (is_winograd(s.algorithm))
      return with_transform(s.algorithm, [&](auto t) {
        team.for_chunks(kernels::panels(op.out.c), [&](int, int panel) {
          kernels::pack_winograd_panel(kernels::winograd_factors<decltype(t)>(), oihw, op.out.c, cin, op.scale, to,
                                       panel);
        });
      });
    to += at.channel * depth(n_, op);
    const kernels::PackShape shape{op.out.c, cin, op.window.kh * op.window.kw, s.panel};
    team.for_chunks(kernels::panels(op.out.c, s.panel),
                    [&](int, int panel) { kernels::pack_panel(oihw, shape, op.scale, to, panel); });
  }

  const Network& n_;
  [[maybe_unused]] const Quantisation& q_;
  const Steps& steps_;
  const bool int8_weights_;
  PackedWeights packed_;
};

}  // namespace detail

/// Reads all weights through `reader` and packs them; int8 weights that stay in the caller's memory must outlive the
/// result. Errors: those of the reader, out_of_memory, invalid_argument for the number of threads.
inline Result<PackedWeights> pack_weights(const Network& n, const Quantisation& q, const Steps& steps,
                                          const PlanOptions& options, WeightsReader& reader, Memory memory) noexcept {
  detail::WeightPacker packer(n, q, steps, options);
  FACENET_TRY(packer.reserve(reader.from_memory(), memory));
  detail::PackingTeam team;
  FACENET_TRY(team.start(options.threads, memory.at_back()));
  const auto pack_floats = [&](int op, Span<const float> weight, Span<const float> bias) -> Status {
    packer.pack_layer(op, weight.data(), bias.data(), team);
    return {};
  };
  if (memory.measuring()) {
    FACENET_TRY(reader.measure_layers(n, options.int8_weights));
  } else if (kernels::may_keep_int8 && options.int8_weights) {
    FACENET_TRY(reader.for_each_int8_layer(
        n, [&](int op) { return packer.room(op); },
        [&](int op, const std::int8_t* weight, Span<const float> scale, Span<const float> bias) -> Status {
          packer.keep_layer(op, weight, scale, bias);
          return {};
        }));
#if !defined(FACENET_NO_INTEGER)
  } else if (!q.empty()) {
    FACENET_TRY(reader.for_each_integer_layer(
        n, [&](int op) { return q.integer(op); },
        [&](int op, const std::int8_t* weight, Span<const float> scale, Span<const float> bias) -> Status {
          return packer.pack_integer_layer(op, weight, scale, bias, team);
        },
        pack_floats, team.get()));
#endif
  } else {
    FACENET_TRY(reader.for_each_layer(n, pack_floats, team.get()));
  }
  return packer.take();
}

FACENET_END
