// What several tests share: random numbers, tolerances, and a naive executor of whole networks.
#pragma once

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "reference.hpp"
#include "facenet/network.hpp"
#include "facenet/plan/from_values.hpp"

namespace support {

using namespace facenet;

inline std::size_t z(std::int64_t n) { return static_cast<std::size_t>(n); }

/// The same numbers for the same seed on every machine (std::uniform_real_distribution is not).
class Random {
 public:
  explicit Random(unsigned seed) : engine_(seed) {}
  float operator()(float low = -1, float high = 1) {
    return low + (high - low) * static_cast<float>(engine_() >> 8) / 16777216.0f;
  }
  int integer(int low, int high) { return low + static_cast<int>(engine_() % static_cast<unsigned>(high - low + 1)); }
  void fill(std::vector<float>& v, float low = -1, float high = 1) {
    for (float& x : v) x = (*this)(low, high);
  }

 private:
  std::mt19937 engine_;
};

/// A sum of k terms in float32, in any order and with or without FMA, is within k * u / (1 - k * u) * sum |terms| of
/// the exact one (Higham, "Accuracy and Stability of Numerical Algorithms", 3.5), u = 2^-24. Two more for the epilogue.
inline double sum_tolerance(std::int64_t terms, double magnitude) {
  const double ku = static_cast<double>(terms + 2) * 0x1p-24;
  return ku / (1 - ku) * magnitude + 0x1p-126;
}

/// How much more a Winograd form may be off than a direct sum of the same magnitude: |At| |G| |Bt| summed over the
/// points that reach one output, worst output. Computed from the matrices themselves, per axis and multiplied.
template <class Axis>
double axis_growth() {
  const auto g = Axis::g();
  double worst = 0;
  // Bt and At column by column, through the very functions that the kernels use.
  std::vector<std::vector<double>> bt(z(Axis::points), std::vector<double>(z(Axis::points)));
  std::vector<std::vector<double>> at(z(Axis::outputs), std::vector<double>(z(Axis::points)));
  for (int i = 0; i < Axis::points; ++i) {
    simd::vf d[Axis::points], t[Axis::points], y[Axis::outputs];
    for (int k = 0; k < Axis::points; ++k) d[k] = simd::set1(k == i ? 1.0f : 0.0f);
    Axis::bt(d, t);
    Axis::at(d, y);
    float lane[simd::width];
    for (int k = 0; k < Axis::points; ++k) simd::store(lane, t[k]), bt[z(k)][z(i)] = static_cast<double>(lane[0]);
    for (int k = 0; k < Axis::outputs; ++k) simd::store(lane, y[k]), at[z(k)][z(i)] = static_cast<double>(lane[0]);
  }
  for (int r = 0; r < Axis::outputs; ++r) {
    double sum = 0;
    for (int p = 0; p < Axis::points; ++p) {
      double gs = 0, bs = 0;
      for (int t = 0; t < Axis::taps; ++t) gs = std::fmax(gs, std::fabs(g.at[p][t]));
      for (int k = 0; k < Axis::points; ++k) bs += std::fabs(bt[z(p)][z(k)]);
      sum += std::fabs(at[z(r)][z(p)]) * gs * bs;
    }
    worst = std::fmax(worst, sum);
  }
  return worst;
}
inline double algorithm_growth(ConvAlgorithm a) {
  if (!is_winograd(a)) return 1;
  return with_transform(a, [](auto t) {
    using T = decltype(t);
    return axis_growth<typename T::Rows>() * axis_growth<typename T::Columns>();
  });
}

/// OIHW weights and biases (after them slopes) of every weighted operator.
struct Parameters {
  std::vector<std::vector<float>> weight, bias;
  Parameters(const Network& n, unsigned seed) : weight(z(n.size())), bias(z(n.size())) {
    Random random(seed);
    for (int i = 0; i < n.size(); ++i) {
      if (!has_weights(n[i])) continue;
      weight[z(i)].resize(z(weight_count(n, n[i])));
      bias[z(i)].resize(bias_count(n[i]));
      const auto fan_in = static_cast<float>(weight[z(i)].size()) / static_cast<float>(n[i].out.c);
      random.fill(weight[z(i)], -std::sqrt(3 / fan_in), std::sqrt(3 / fan_in));
      random.fill(bias[z(i)], -0.3f, 0.3f);
    }
  }
  Result<Plan> compile(const Network& n, PlanOptions options = {}) const {
    return compile_with(n, options, [&](int op, Span<float> w, Span<float> b) {
      std::copy(weight[z(op)].begin(), weight[z(op)].end(), w.begin());
      std::copy(bias[z(op)].begin(), bias[z(op)].end(), b.begin());
    });
  }
};

/// Every operator's output for one image, by reference.hpp, rounded to float after each.
inline std::vector<std::vector<float>> execute(const Network& n, const Parameters& p, const std::vector<float>& input) {
  std::vector<std::vector<float>> out(z(n.size()));
  const auto view = [&](int op) { return dense_view<const float>(out[z(op)].data(), n[op].out); };
  for (int i = 0; i < n.size(); ++i) {
    const Op& op = n[i];
    out[z(i)].resize(z(op.out.size()));
    float* to = out[z(i)].data();
    if (op.kind == OpKind::input) {
      out[z(i)] = input;
      continue;
    }
    const ConstTensorView in = view(op.inputs[0]);
    if (op.kind == OpKind::l2_normalise || op.kind == OpKind::softmax) {
      for (std::int64_t at = 0; at < op.out.size(); at += op.out.c) {
        const float* x = in.data + at;
        std::vector<double> y(z(op.out.c));
        if (op.kind == OpKind::l2_normalise) {
          reference::l2_normalise(x, y.data(), op.out.c);
        } else {
          double sum = 0;
          for (int c = 0; c < op.out.c; ++c) sum += std::exp(static_cast<double>(x[c]));
          for (int c = 0; c < op.out.c; ++c) y[z(c)] = std::exp(static_cast<double>(x[c])) / sum;
        }
        for (int c = 0; c < op.out.c; ++c) to[at + c] = static_cast<float>(y[z(c)]);
      }
      continue;
    }
    for (int y = 0; y < op.out.h; ++y)
      for (int x = 0; x < op.out.w; ++x)
        for (int c = 0; c < op.out.c; ++c) {
          float& v = to[(std::int64_t{y} * op.out.w + x) * op.out.c + c];
          switch (op.kind) {
            case OpKind::conv:
            case OpKind::linear: {
              const Shape part = computed(n, op);
              if (y >= part.h || x >= part.w) {
                v = view(op.skip).pixel(0, y, x)[c];
                break;
              }
              double s =
                  reference::conv_at(in, 0, p.weight[z(i)].data(), p.bias[z(i)].data(), window_of(n, op), y, x, c)
                      .value;
              if (op.skip >= 0)
                s = static_cast<double>(view(op.skip).pixel(0, y, x)[c]) + static_cast<double>(op.scale) * s;
              if (op.act == Act::relu) s = std::fmax(s, 0.0);
              if (op.act == Act::prelu && s < 0) s *= static_cast<double>(p.bias[z(i)][z(op.out.c + c)]);
              v = static_cast<float>(s);
              break;
            }
            case OpKind::max_pool:
              v = reference::max_pool_at(in, 0, op.window, y, x, c);
              break;
            case OpKind::avg_pool:
              v = static_cast<float>(reference::avg_pool_at(in, 0, op.window, y, x, c).value);
              break;
            case OpKind::global_avg_pool:
              v = static_cast<float>(reference::mean_at(in, 0, c).value);
              break;
            case OpKind::concat: {
              int k = 0, channel = c;
              while (channel >= n[op.inputs[k]].out.c) channel -= n[op.inputs[k++]].out.c;
              v = view(op.inputs[k]).pixel(0, y, x)[channel];
              break;
            }
            default:
              break;
          }
        }
  }
  return out;
}

}  // namespace support
