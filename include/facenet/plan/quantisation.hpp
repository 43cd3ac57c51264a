// Network and activation scales -> Quantisation: which convolutions run in integers, and which activations are kept as
// bytes, as floats, or as both.
//
// Bytes are what integer convolutions read, and pools between them. Floats are what everything else reads: the trunk of
// residual blocks, which is updated in place and would round 21 times as bytes, the global pool, the last linear layer.
#pragma once

#include "facenet/kernels/integer_gemm.hpp"
#include "facenet/network.hpp"

FACENET_SETUP_BEGIN

/// The activations' side of integer arithmetic. Empty: every operator is float.
struct Quantisation {
  struct Activations {
    bool floats = false, bytes = false;  // what the operator's output is kept as
    bool integer = false;                // a convolution of bytes
    bool scaled = false;                 // its weights hold the input's scales already, one a channel
    std::int64_t first_scale = 0;        // of the out.c scales of its bytes
  };
  Buffer<Activations> ops;
  Buffer<float> scales;
  // What the network's input stands for: x = (byte - mean[channel]) * factor.
  double mean[3] = {};
  float factor = 1;

  bool empty() const noexcept { return ops.empty(); }
  bool integer(int op) const noexcept { return !empty() && ops[op].integer; }
  bool floats(int op) const noexcept { return empty() || ops[op].floats; }
  bool bytes(int op) const noexcept { return !empty() && ops[op].bytes; }
  /// The scale of a byte of operator `op`'s channel.
  float scale(int op, int channel) const noexcept { return scales[ops[op].first_scale + channel]; }
};

#if !defined(FACENET_NO_INTEGER)

/// What pixels become before the first layer: of Scaling::prewhiten each picture has its own, so that layer is float.
struct InputBytes {
  double mean[3] = {127.5, 127.5, 127.5};
  float factor = 1.0f / 128;
};
FACENET_HIDDEN inline InputBytes input_bytes(Scaling scaling, ChannelOrder order) noexcept {
  if (scaling == Scaling::unit) return {{0, 0, 0}, 1.0f / 255};
  if (scaling != Scaling::mean_255) return {};
  InputBytes b{{122.782, 117.001, 104.298}, 1.0f / 255};
  if (order == ChannelOrder::bgr) std::swap(b.mean[0], b.mean[2]);
  return b;
}

namespace detail {

/// Whether an output cannot be below 0, so that bytes hold it without a zero point.
constexpr bool is_positive(const Network& n, int op) noexcept {
  switch (n[op].kind) {
    case OpKind::input:
      return true;  // bytes from the start
    case OpKind::conv:
      return n[op].act == relu;
    case OpKind::max_pool:
    case OpKind::avg_pool:
      return is_positive(n, n[op].inputs[0]);
    case OpKind::concat:
      for (int k = 0; k < n[op].input_count; ++k)
        if (!is_positive(n, n[op].inputs[k])) return false;
      return true;
    default:
      return false;
  }
}
/// Whether an operator's outputs are some of its inputs' values.
constexpr bool moves_values(const Op& op) noexcept { return op.kind == OpKind::max_pool || op.kind == OpKind::concat; }
/// A residual that reaches only a part of its trunk: the rest keeps what it was.
constexpr bool is_partial(const Network& n, const Op& op) noexcept { return op.skip >= 0 && computed(n, op) != op.out; }

/// Walks a network from its end, so that all readers of an output have been seen when it is met.
class Quantiser {
 public:
  Quantiser(const Network& n, Quantisation& q, Span<float> room) noexcept : n_(n), q_(q), room_(room) {}

  template <class Scales>
  Status run(Scales&& scales_of) noexcept {
    q_.ops[n_.size() - 1].floats = true;
    for (int i = n_.size() - 1; i > 0; --i) {
      const Op& op = n_[i];
      if (q_.ops[i].bytes && !is_positive(n_, i))
        return Status(Errc::unsupported, "an integer convolution reads what may be below 0").in(op.name.text);
      if (op.kind == OpKind::conv) FACENET_TRY(visit_conv(i, scales_of));
      FACENET_TRY(visit_inputs(i));
    }
    return {};
  }

 private:
  template <class Scales>
  Status visit_conv(int i, Scales& scales_of) noexcept {
    const Op& op = n_[i];
    const auto cin = static_cast<std::size_t>(in_channels(n_, op));
    const Span<float> scales = room_.subspan(0, cin);
    std::size_t count = 0;
    FACENET_TRY(scales_of(i, scales, count));
    if (count == 0) return {};
    if (weight_count(n_, op) / op.out.c > kernels::max_integer_depth)
      return Status(Errc::limit_exceeded, "a sum of this depth would leave 32 bits").in(op.name.text);
    if (op.act == Act::prelu || (op.inputs[0] == 0 && (op.window.pad_h > 0 || op.window.pad_w > 0)))
      return Status(Errc::unsupported, "this layer cannot run in integers: list it in float_layers").in(op.name.text);
    for (std::size_t c = count; c < cin; ++c) scales[c] = scales[0];
    q_.ops[i].integer = true;
    q_.ops[i].scaled = count > 1;
    return give(op.inputs[0], scales);
  }

  /// What its inputs must be kept as.
  Status visit_inputs(int i) noexcept {
    const Op& op = n_[i];
    Quantisation::Activations& a = q_.ops[i];
    if (a.bytes && !a.integer && !moves_values(op)) a.floats = true;  // and a step that quantises them
    if (op.skip >= 0) {  // the trunk is one memory, before the addition and after it
      a.floats = q_.ops[op.skip].floats = true;
      if (a.bytes && is_partial(n_, op)) FACENET_TRY(give(op.skip, scales(i)));
    }
    // A max pool commutes with rounding, so it works on bytes where only bytes are read. Where floats are kept too,
    // they are pooled, and their bytes have a scale of their own.
    const bool passes_on = moves_values(op) && (op.kind == OpKind::concat || !a.floats);
    for (int k = 0, channel = 0; k < op.input_count; channel += n_[op.inputs[k++]].out.c) {
      if (a.integer) continue;
      Quantisation::Activations& input = q_.ops[op.inputs[k]];
      if (!passes_on || a.floats) input.floats = true;
      if (passes_on && a.bytes)
        FACENET_TRY(give(op.inputs[k], scales(i).subspan(static_cast<std::size_t>(channel), width(op.inputs[k]))));
    }
    return {};
  }

  std::size_t width(int op) const noexcept { return static_cast<std::size_t>(n_[op].out.c); }
  Span<float> scales(int op) const noexcept { return {q_.scales.data() + q_.ops[op].first_scale, width(op)}; }
  /// Operator `op` makes bytes of these scales.
  Status give(int op, Span<const float> given) noexcept {
    const Span<float> place = scales(op);
    const std::size_t bytes = width(op) * sizeof(float);
    if (q_.ops[op].bytes && std::memcmp(place.data(), given.data(), bytes) != 0)
      return Status(Errc::corrupt, "layers that read one tensor have different input scales").in(n_[op].name.text);
    std::memcpy(place.data(), given.data(), bytes);
    q_.ops[op].bytes = true;
    return {};
  }

  const Network& n_;
  Quantisation& q_;
  const Span<float> room_;  // the widest input
};

}  // namespace detail

/// scales_of(op, room, count) fills `room` with the input scales of convolution `op` and says how many there are: 1, or
/// one a channel; 0 where the layer is float. Errors: corrupt (scales that do not agree), unsupported (bytes of what
/// may be below 0), limit_exceeded, out_of_memory, and those of scales_of.
template <class Scales>
Result<Quantisation> quantise(const Network& n, const InputBytes& input, Scales&& scales_of, Memory memory) noexcept {
  Quantisation q;
  FACENET_TRY(detail::allocate(q.ops, static_cast<std::size_t>(n.size()), true, memory));
  std::int64_t channels = 0;
  int widest = 0;
  for (int i = 0; i < n.size(); ++i) {
    q.ops[i] = {};
    q.ops[i].first_scale = channels;
    channels += n[i].out.c;
    if (n[i].kind == OpKind::conv && in_channels(n, n[i]) > widest) widest = in_channels(n, n[i]);
  }
  Buffer<float> room;
  FACENET_TRY(detail::allocate(q.scales, static_cast<std::size_t>(channels), true, memory));
  FACENET_TRY(detail::allocate(room, static_cast<std::size_t>(widest), false, memory.at_back()));
  FACENET_TRY(detail::Quantiser(n, q, room.span()).run(scales_of));
  std::memcpy(q.mean, input.mean, sizeof q.mean);
  q.factor = input.factor;
  for (int c = 0; q.ops[0].bytes && c < n[0].out.c; ++c)
    if (q.scale(0, c) != q.factor)
      return Status(Errc::corrupt, "the first layer's input_scale is not that of the file's scaling")
          .in(n[0].name.text);
  return q;
}

#endif

FACENET_SETUP_END
