// Network -> Steps: which operators run together, by which algorithm, and whether once an image or once a batch.
#pragma once

#include "facenet/base/parallel.hpp"
#include "facenet/kernels/integer_matrix.hpp"
#include "facenet/plan/choose.hpp"
#include "facenet/plan/quantisation.hpp"

FACENET_SETUP_BEGIN

enum class Arithmetic : std::uint8_t { floats, int8 };

struct PlanOptions {
  bool half_weights = false;  // keep convolution weights as IEEE half in memory: half the traffic, cosine >= 0.9999
  // Keep int8 weights as they are in the file and expand them panel by panel at every run: a quarter of the memory, or
  // none where the file's bytes are the caller's and stay. Same bits as without, and about 1.7 times the time.
  bool int8_weights = false;
  // Convolutions in integers where the file has scales for it (format 2). The bits are then the same on every ISA.
  Arithmetic arithmetic = Arithmetic::floats;
  // In integers: AMX where the CPU has it and the system lends it. The bits are the same without.
  bool matrix_unit = true;
  ConvAlgorithm conv = ConvAlgorithm::automatic;
  Arena* arena = nullptr;  // where plan and workspaces are made; null: malloc
  int threads = 1;         // that pack the weights; the bits do not depend on it
};

/// One entry of the flat list that a plan runs: an operator, or several convolutions that share one GEMM.
struct Step {
  int op = 0;  // the first operator
  ConvAlgorithm algorithm = ConvAlgorithm::direct;
  bool per_batch = false;                                 // runs once for all images of the batch
  bool quantise = false;                                  // makes bytes of the operator's floats
  bool matrix_unit = false;                               // integers: runs in it
  int segment_ops[kernels::ConvArgs::max_segments] = {};  // convolutions: the operators of this step
  int segment_count = 0;                                  // 0: no convolution
  int channels = 0;                                       // of all segments together
  int panel = simd::panel;                                // channels in one panel of weights

  bool is_conv() const noexcept { return segment_count > 0; }
  bool is_integer() const noexcept { return algorithm == ConvAlgorithm::integer; }
};

struct Steps {
  Buffer<Step> list;

  int size() const noexcept { return static_cast<int>(list.size()); }
  FACENET_INLINE const Step& operator[](int i) const noexcept { return list[i]; }
  int index_of(const Step& s) const noexcept { return static_cast<int>(&s - list.data()); }
};

/// Whether an operator's output lies in a slice of a concatenation's channels.
constexpr bool is_slice(const Network& n, int op) noexcept {
  for (int i = op + 1; i < n.size(); ++i)
    for (int k = 0; n[i].kind == OpKind::concat && k < n[i].input_count; ++k)
      if (n[i].inputs[k] == op) return true;
  return false;
}

namespace detail {

/// Convolutions that can share one GEMM: 1x1 over the same input.
inline bool share_input(const Network& n, const Quantisation& q, int a, int b) noexcept {
  const Op &x = n[a], &y = n[b];
  const auto plain = [](const Op& op) {
    return op.kind == OpKind::conv && op.skip < 0 && op.window.kh == 1 && op.window.kw == 1 &&
           op.window.stride() == 1 && op.window.pad_h == 0 && op.window.pad_w == 0;
  };
  return plain(x) && plain(y) && x.inputs[0] == y.inputs[0] && x.act == y.act && q.integer(a) == q.integer(b);
}

/// The step that begins with operator i. Marks the operators that it computes in `done`.
inline Step make_step(const Network& n, const Quantisation& q, int i, const PlanOptions& options,
                      [[maybe_unused]] bool matrix_unit, bool* done) noexcept {
  const Op& op = n[i];
  Step s;
  s.op = i;
  if (!has_weights(op)) return s;
  if (q.integer(i))
    s.algorithm = ConvAlgorithm::integer;
  else if (op.kind == OpKind::linear && !q.empty())
    s.algorithm = ConvAlgorithm::in_order;
  else
    s.algorithm = choose_conv({n[op.inputs[0]].out, op.out, op.window,
                               op.kind == OpKind::conv && op.skip < 0 && op.act != Act::none, op.act == Act::prelu},
                              options.conv);
  const int panel = q.integer(i) ? simd::integer::panel : simd::panel;
  for (int j = i; j < n.size() && s.segment_count < kernels::ConvArgs::max_segments; ++j) {
    // Each segment but the last is a whole number of panels wide.
    if (j != i && (done[j] || !share_input(n, q, i, j) || s.channels % panel != 0)) continue;
    done[j] = true;
    s.segment_ops[s.segment_count++] = j;
    s.channels += n[j].out.c;
  }
  s.panel = panel;
#if defined(FACENET_AMX)
  // The first layer, which is 27 deep, is not worth a step of 64.
  s.matrix_unit = matrix_unit && s.is_integer() && weight_count(n, op) >= kernels::matrix_depth * op.out.c;
#endif
  if (!s.is_integer()) s.panel = choose_panel(s.channels, s.algorithm, op.skip >= 0, options.half_weights);
  return s;
}

}  // namespace detail

/// A concatenation is no step: its inputs are written straight into their slices. A residual addition is none either:
/// it is the epilogue of its convolution. An integer convolution writes bytes itself; whatever else is read as bytes
/// and was made as floats is quantised by a step of its own. Error: out_of_memory.
inline Result<Steps> make_steps(const Network& n, const Quantisation& q, const PlanOptions& options,
                                Memory memory) noexcept {
#if defined(FACENET_AMX)
  const bool matrix_unit = options.matrix_unit && !q.empty() && simd::integer::amx::granted();
#else
  constexpr bool matrix_unit = false;
#endif
  const int merge_at = choose_merge(n, !q.empty(), matrix_unit);
  Steps steps;
  for (bool filled = false; !filled;) {  // count, then fill
    filled = !steps.list.empty();
    bool done[Network::max_ops] = {};
    std::size_t count = 0;
    const auto add = [&](Step s, bool per_batch) {
      s.per_batch = per_batch;
      if (filled) steps.list[count] = s;
      ++count;
    };
    for (int i = 0; i < n.size(); ++i) {
      if (done[i] || n[i].kind == OpKind::concat) continue;
      const Step s = detail::make_step(n, q, i, options, matrix_unit, done);
      add(s, i >= merge_at);
      if (s.is_integer()) continue;
      Step bytes;
      bytes.quantise = true;
      for (int k = 0; k < (s.is_conv() ? s.segment_count : 1); ++k) {
        bytes.op = s.is_conv() ? s.segment_ops[k] : i;
        if (q.bytes(bytes.op) && q.floats(bytes.op)) add(bytes, i >= merge_at);
      }
    }
    if (filled) break;
    FACENET_TRY(detail::allocate(steps.list, count, true, memory));
  }
  return steps;
}

FACENET_SETUP_END
