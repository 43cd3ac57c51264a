// A weight file's golden activations, recomputed layer by layer: does this file, on this machine, give what the network
// that it was made from gave?
//
// The converter stores, in float64 and rounded once to float: a picture (selftest.input, pixels 0 ... 255, RGB), for
// each convolution, pool and linear layer 64 values of its output (selftest.<layer>.samples) and the Euclidean norm of
// each channel (selftest.<layer>.norms), and the embedding (selftest.embedding).
//
// A layer is judged by what it adds to the error that its input has already. An output y = w * x of k terms may be off
// by
//   rounding   f(k) u |w| |x|, u = 2^-24: a sum's error has a root mean square of at most sqrt(k) u sum |terms| (Higham
//              and Mary, 2019), times a Winograd form's factor; single values stay within 8 of it; never above
//              k u sum |terms|; and sum |terms| <= |w| |x| (Cauchy and Schwarz), x being the window
//   the input  |w| |dx|, where |dx| = 8 sqrt(k) e, e the root mean square of the input's errors at its own 64 samples,
//              the largest of which is at most sqrt(64) = 8 times as large
// and likewise for pools (an average is a sum) and the residual's trunk (8 e). What a bad layer does is thus not held
// against the layers after it.
#pragma once
#include "facenet/base/macros_push.inc"

#include <cmath>

#include "facenet/image.hpp"
#include "facenet/plan.hpp"

FACENET_BEGIN

/// What became of one layer. share: its largest error over the bound there; above 1 it left the bound.
struct LayerError {
  const char* name;
  double max_abs_error;  // at the samples
  double share;
  bool passed() const noexcept { return share <= 1; }
};

namespace detail {

constexpr double spread = 8;  // the largest of 64 values over their root mean square
constexpr int golden_samples = 64;

class Selftest {
 public:
  Selftest(const Plan& plan, Workspace& workspace, WeightsReader& reader) noexcept
      : plan_(plan), network_(plan.network()), workspace_(workspace), reader_(reader) {}

  Status prepare() noexcept {
    std::size_t channels = 0, most = 0;
    for (int i = 0; i < network_.size(); ++i) {
      const auto c = static_cast<std::size_t>(network_[i].out.c);
      channels += c;
      most = most < c ? c : most;
    }
    FACENET_TRY(allocate(ops_, static_cast<std::size_t>(network_.size())));
    FACENET_TRY(allocate(row_norm_, channels, true));
    FACENET_TRY(allocate(bias_, channels, true));
    FACENET_TRY(allocate(golden_, most + golden_samples));
    FACENET_TRY(allocate(square_, most));
    FACENET_TRY(allocate(windows_, kernels::ConvArgs::max_segments * golden_samples));
    std::int64_t at = 0;
    for (int i = 0; i < network_.size(); at += network_[i++].out.c) ops_[i] = {at, 0, 0};
    FACENET_TRY(check_names());
    FACENET_TRY(reader_.for_each_layer(network_, [&](int op, Span<const float> w, Span<const float> b) -> Status {
      note_weights(op, w, b);
      return {};
    }));
    return read_picture();
  }

  template <class F>
  Status run(F&& each) {
    PlanInput in;
    in.rgb = pixels_.data();
    in.stride = std::ptrdiff_t{3} * network_[0].out.w;
    in.value = values_.value;
    in.swap = reader_.metadata().channel_order == ChannelOrder::bgr;
    for (int s = 0; s < static_cast<int>(plan_.steps().size()); ++s) {
      const Step& step = plan_.steps()[s];
      const int count = step.segment_count > 0 ? step.segment_count : 1;
      const auto op = [&](int k) { return step.segment_count > 0 ? step.segment_ops[k] : step.op; };
      const Op& first = network_[step.op];
      const double norm = first.input_count > 0 ? look_at(first.inputs[0]) : 0;
      if (first.skip >= 0) look_at(first.skip);
      for (int k = 0; k < count; ++k) note_windows(op(k), windows_.data() + k * golden_samples);
      plan_.run_step(workspace_, s, &in);
      for (int k = 0; k < count; ++k) {
        if (!is_golden(network_[op(k)])) {
          pass_on(op(k));
          continue;
        }
        LayerError e{};
        FACENET_TRY(compare(step, op(k), norm, windows_.data() + k * golden_samples, e));
        each(e);
      }
    }
    LayerError e{};
    FACENET_TRY(compare_embedding(e));
    each(e);
    return {};
  }

 private:
  struct Known {
    std::int64_t channel;  // where its channels begin in row_norm_ and bias_
    double error;          // root mean square of its errors at the samples
    double rms;            // of its values
  };

  static bool is_golden(const Op& op) noexcept {
    return has_weights(op) || op.kind == OpKind::max_pool || op.kind == OpKind::avg_pool ||
           op.kind == OpKind::global_avg_pool;
  }
  static int samples_of(const Op& op) noexcept {
    return op.out.size() < golden_samples ? static_cast<int>(op.out.size()) : golden_samples;
  }
  /// Where sample j stands in the output.
  struct Spot {
    int y, x, c;
    Spot(const Op& op, int j) noexcept {
      const auto at =
          static_cast<std::int64_t>(std::uint64_t(j) * 2654435761u % static_cast<std::uint64_t>(op.out.size()));
      c = static_cast<int>(at % op.out.c);
      x = static_cast<int>(at / op.out.c % op.out.w);
      y = static_cast<int>(at / op.out.c / op.out.w);
    }
  };
  /// A linear layer's window is the whole input, and so is the global mean's.
  facenet::Window window_of(const Op& op) const noexcept {
    if (op.kind != OpKind::linear && op.kind != OpKind::global_avg_pool) return op.window;
    const Shape in = network_[op.inputs[0]].out;
    return k(in.h, in.w);
  }
  /// Terms of one output's sum.
  std::int64_t terms(const Op& op) const noexcept {
    const facenet::Window w = window_of(op);
    return std::int64_t{w.kh} * w.kw * (has_weights(op) ? network_[op.inputs[0]].out.c : 1);
  }

  struct GoldenName {
    char text[Name::capacity + 20];
    explicit GoldenName(const char* layer, const char* what = "") noexcept {
      Line line;
      copy_text(text, line.add("selftest.").add(layer).add(what).text());
    }
  };
  /// The tensor of that name; -1 when it is not there or has another size.
  int golden(const GoldenName& name, std::int64_t count) const noexcept {
    const int t = reader_.find(name.text);
    return t >= 0 && elements(reader_.tensor(t)) == count ? t : -1;
  }
  Status check_names() const noexcept {
    int expected = 0, there = 0;
    const auto need = [&](const GoldenName& name, std::int64_t count) -> Status {
      ++expected;
      if (golden(name, count) >= 0) return {};
      return Status(Errc::weights_mismatch,
                    "a golden activation is missing or has another size: convert the weights again")
          .in(name.text);
    };
    for (int i = 0; i < reader_.size(); ++i) there += starts_with(reader_.tensor(i).name, "selftest.");
    if (there == 0)
      return {Errc::not_found, "the file has no golden activations: convert the weights with tools/convert_weights.py"};
    FACENET_TRY(need(GoldenName("input"), network_[0].out.size()));
    for (int i = 0; i < network_.size(); ++i) {
      if (!is_golden(network_[i])) continue;
      FACENET_TRY(need(GoldenName(network_[i].name.text, ".samples"), samples_of(network_[i])));
      FACENET_TRY(need(GoldenName(network_[i].name.text, ".norms"), network_[i].out.c));
    }
    FACENET_TRY(need(GoldenName("embedding"), network_[network_.size() - 1].out.size()));
    if (there != expected)
      return {Errc::weights_mismatch, "the file has golden activations of another network: convert the weights again"};
    return {};
  }

  void note_weights(int index, Span<const float> w, Span<const float> b) noexcept {
    const Op& op = network_[index];
    const std::size_t row = w.size() / static_cast<std::size_t>(op.out.c), at = of_channel(index, 0);
    for (std::size_t o = 0; o < static_cast<std::size_t>(op.out.c); ++o) {
      double sum = 0;
      for (std::size_t i = 0; i < row; ++i) sum += square(w[o * row + i]);
      row_norm_[at + o] = std::sqrt(sum) * static_cast<double>(op.scale);
      bias_[at + o] = std::fabs(static_cast<double>(b[o])) * static_cast<double>(op.scale);
    }
    const int tensor = reader_.find(PartName(op.name, ".weight").text);
    if (tensor >= 0 && dtype_ != Dtype::i8) dtype_ = reader_.tensor(tensor).dtype;
  }

  Status read_picture() noexcept {
    const auto count = static_cast<std::size_t>(network_[0].out.size());
    Buffer<float> values;
    FACENET_TRY(allocate(values, count));
    FACENET_TRY(allocate(pixels_, count));
    FACENET_TRY(reader_.read_f32(golden(GoldenName("input"), network_[0].out.size()), values));
    for (std::size_t i = 0; i < count; ++i) {
      if (!(values[i] >= 0 && values[i] <= 255 && values[i] == std::floor(values[i])))
        return Status(Errc::corrupt, "a pixel is not a whole number in 0 ... 255: convert the weights again")
            .in("selftest.input");
      pixels_[i] = static_cast<std::uint8_t>(values[i]);
    }
    const Shape s = network_[0].out;
    values_ = standardisation({pixels_.data(), s.w, s.h, std::ptrdiff_t{3} * s.w, ChannelOrder::rgb},
                              reader_.metadata().scaling);
    if (reader_.metadata().channel_order == ChannelOrder::bgr) std::swap(values_.value[0], values_.value[2]);
    return {};
  }

  static double square(float x) noexcept { return static_cast<double>(x) * static_cast<double>(x); }

  /// Notes the root mean square of an operator's values; returns their Euclidean norm.
  double look_at(int index) noexcept {
    const TensorView v = plan_.view(workspace_, index);
    double sum = 0;
    for (int y = 0; y < v.shape.h; ++y)
      for (int x = 0; x < v.shape.w; ++x)
        for (int c = 0; c < v.shape.c; ++c) sum += square(v.pixel(0, y, x)[c]);
    Known& known = ops_[index];
    known.rms = std::sqrt(sum / static_cast<double>(v.shape.size()));
    const Op& op = network_[index];
    if (op.kind == OpKind::input) known.error = known.rms * unit;  // a pixel is rounded once
    if (op.kind == OpKind::concat) {                               // it is no step: its inputs lie side by side in it
      double errors = 0;
      for (int k = 0; k < op.input_count; ++k) {
        const double e = ops_[op.inputs[k]].error;
        errors += e * e * network_[op.inputs[k]].out.c / op.out.c;
      }
      known.error = std::sqrt(errors);
    }
    return std::sqrt(sum);
  }

  /// Before the step runs, while its input is there: |x| of each sample's window.
  void note_windows(int index, double* norms) const noexcept {
    const Op& op = network_[index];
    if (!is_golden(op)) return;
    const TensorView in = plan_.view(workspace_, op.inputs[0]);
    const facenet::Window w = window_of(op);
    const double least = ops_[op.inputs[0]].rms * std::sqrt(static_cast<double>(terms(op)));
    for (int j = 0; j < samples_of(op); ++j) {
      const Spot at(op, j);
      double sum = 0;
      for (int y = at.y * w.stride() - w.pad_h, ky = 0; ky < w.kh; ++ky, ++y)
        for (int x = at.x * w.stride() - w.pad_w, kx = 0; kx < w.kw; ++kx, ++x) {
          if (y < 0 || x < 0 || y >= in.shape.h || x >= in.shape.w) continue;
          for (int c = 0; c < in.shape.c; ++c)
            if (has_weights(op) || c == at.c) sum += square(in.pixel(0, y, x)[c]);
        }
      // A Winograd form rounds what lies around the window too: at least an average window.
      norms[j] = std::fmax(std::sqrt(sum), least);
    }
  }

  void pass_on(int index) noexcept {
    const Op& op = network_[index];
    if (op.input_count > 0) ops_[index].error = ops_[op.inputs[0]].error;
  }

  /// What a layer may be off by: norm_x and norm_dx are a window's, or all windows' together.
  double bound(const Step& step, int index, int channel, double norm_x, double norm_dx) const noexcept {
    const Op& op = network_[index];
    if (op.kind == OpKind::max_pool) return norm_dx;
    const auto count = static_cast<double>(terms(op) + 4);  // and the weight, the bias, the activation
    double factor = spread * std::sqrt(count) * rounding_factor(step.algorithm);
    if (!is_winograd(step.algorithm) && factor > count) factor = count;
    double row = 1;  // |w| of a mean over a window that is cut at the picture's edge
    if (has_weights(op)) row = row_norm_[of_channel(index, channel)];
    if (op.kind == OpKind::global_avg_pool) row = 1 / std::sqrt(static_cast<double>(terms(op)));
    return row * (factor * unit * norm_x + norm_dx);
  }
  std::size_t of_channel(int index, int channel) const noexcept {
    return static_cast<std::size_t>(ops_[index].channel + channel);
  }

  Status compare(const Step& step, int index, double input_norm, const double* windows, LayerError& out) noexcept {
    const Op& op = network_[index];
    Known& known = ops_[index];
    const TensorView got = plan_.view(workspace_, index);
    const int count = samples_of(op);
    float* const samples = golden_.data();
    float* const norms = golden_.data() + golden_samples;
    FACENET_TRY(reader_.read_f32(golden(GoldenName(op.name.text, ".samples"), count), {samples, count}));
    FACENET_TRY(reader_.read_f32(golden(GoldenName(op.name.text, ".norms"), op.out.c), {norms, op.out.c}));

    const double input_error = ops_[op.inputs[0]].error;
    const double trunk = op.skip >= 0 ? spread * ops_[op.skip].error : 0;
    const auto share = [&](double off, double allowed) {
      if (!(off <= out.share * allowed)) out.share = number(off / allowed);  // NaN too
    };
    out.name = op.name.text;
    double errors = 0;
    for (int j = 0; j < count; ++j) {
      const Spot at(op, j);
      const double want = static_cast<double>(samples[j]);
      const double off = std::fabs(static_cast<double>(got.pixel(0, at.y, at.x)[at.c]) - want);
      const double delta = spread * std::sqrt(static_cast<double>(terms(op))) * input_error;
      const double bias = bias_[of_channel(index, at.c)];
      share(off, bound(step, index, at.c, windows[j], delta) + trunk + 4 * unit * (bias + std::fabs(want)));
      if (!(off <= out.max_abs_error)) out.max_abs_error = number(off);
      errors += off * off;
    }
    known.error = std::sqrt(errors / count);

    for (int c = 0; c < op.out.c; ++c) square_[c] = 0;
    for (int y = 0; y < op.out.h; ++y)
      for (int x = 0; x < op.out.w; ++x)
        for (int c = 0; c < op.out.c; ++c) square_[c] += square(got.pixel(0, y, x)[c]);
    // Each value of the input is in at most kh * kw windows; the error's norm bounds the norm's error.
    const facenet::Window w = window_of(op);
    const double taps = std::sqrt(static_cast<double>(w.kh) * w.kw);
    const double all = input_error * spread * std::sqrt(static_cast<double>(network_[op.inputs[0]].out.size()));
    const double pixels = std::sqrt(static_cast<double>(op.out.pixels()));
    for (int c = 0; c < op.out.c; ++c) {
      const double want = static_cast<double>(norms[c]);
      const double off = std::fabs(std::sqrt(square_[c]) - want);
      const double bias = bias_[of_channel(index, c)];
      share(off, bound(step, index, c, taps * input_norm, taps * all) + pixels * (trunk + 4 * unit * bias) +
                     4 * unit * want);
    }
    return {};
  }

  /// The embedding is the source network's, whose weights are not rounded, so its bound is the promise for their type:
  /// 3e-6 for single values of a unit vector (f32), cosine 0.9999 (f16) and 0.995 (i8), as |a - b|^2 = 2 - 2 cosine.
  Status compare_embedding(LayerError& out) noexcept {
    const int last = network_.size() - 1, n = static_cast<int>(network_[last].out.size());
    const float* const got = plan_.view(workspace_, last).data;
    Buffer<float> want;
    FACENET_TRY(allocate(want, static_cast<std::size_t>(n)));
    FACENET_TRY(reader_.read_f32(golden(GoldenName("embedding"), n), want));
    double off2 = 0, length2 = 0;
    out.name = "embedding";
    for (int i = 0; i < n; ++i) {
      const double off = std::fabs(static_cast<double>(got[i]) - static_cast<double>(want[i]));
      if (!(off <= out.max_abs_error)) out.max_abs_error = number(off);
      off2 += off * off;
      length2 += square(want[i]);
    }
    const double length = std::sqrt(length2);
    if (!(length >= 1e-12))
      return Status(Errc::corrupt, "the golden embedding is zero or not a number: convert the weights again")
          .in("selftest.embedding");
    const double bound =
        length * (dtype_ == Dtype::f32 ? 3e-6 : std::sqrt(2 - 2 * (dtype_ == Dtype::f16 ? 0.9999 : 0.995)));
    out.share = number((dtype_ == Dtype::f32 ? out.max_abs_error : std::sqrt(off2)) / bound);
    return {};
  }
  /// What is not a number is beyond any bound, and printed as such.
  static double number(double x) noexcept { return x == x ? x : HUGE_VAL; }

  static constexpr double unit = 0x1p-24;

  const Plan& plan_;
  const Network& network_;
  Workspace& workspace_;
  WeightsReader& reader_;
  Buffer<Known> ops_;
  Buffer<double> row_norm_, bias_, square_, windows_;
  Buffer<float> golden_;
  Buffer<std::uint8_t> pixels_;
  Standardisation values_{};
  Dtype dtype_ = Dtype::f32;
};

}  // namespace detail

/// Recomputes the file's golden activations with `plan`, which was compiled from it, and calls each(const LayerError&)
/// for every layer in order of execution and for the embedding. Errors: not_found (the file has none), weights_mismatch
/// (not this network's), corrupt, invalid_argument, those of the reader.
template <class F>
Status selftest(const Plan& plan, Workspace& workspace, WeightsReader& reader, F&& each) {
  const simd::FlushDenormals mode;
  if (plan.steps().empty() || workspace.batch() == 0)
    return {Errc::invalid_argument, "the plan or its workspace was never made, or was moved from"};
  detail::Selftest test(plan, workspace, reader);
  FACENET_TRY(test.prepare());
  return test.run(each);
}

FACENET_END

#include "facenet/base/macros_pop.inc"
