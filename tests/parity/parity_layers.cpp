// Every step of the plan, fed the float64 reference's input, against the float64 reference's output.
//   parity_layers WEIGHTS.safetensors LAYERS.safetensors
#include <cstdio>
#include <string>

#include "../support.hpp"
#include "facenet/embedder.hpp"

using namespace support;

namespace {

int fail(const Status& s) {
  char text[512];
  std::fprintf(stderr, "parity_layers: %s\n", s.print(text, sizeof text));
  return s.code() == Errc::not_found ? 77 : 2;  // 77: skipped, the files are made by tools/test.sh
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  auto reader = WeightsReader::open(argv[1]);
  if (!reader) return fail(reader.status());
  if (auto s = reader->recognise(models::all()); !s.ok()) return fail(s);
  auto golden = WeightsReader::open(argv[2]);
  if (!golden) return fail(golden.status());
  const models::Entry* entry = models::find(reader->metadata().architecture);
  if (entry == nullptr) return 2;
  const Network n = entry->build(reader->metadata().embedding_dim, reader->metadata().normalise == Normalise::l2,
                                 reader->metadata().width);
  // The folded weights again, for the tolerance.
  std::vector<std::vector<float>> weight(z(n.size())), bias(z(n.size()));
  if (auto s = reader->for_each_layer(n,
                                      [&](int op, Span<const float> w, Span<const float> b) -> Status {
                                        weight[z(op)].assign(w.begin(), w.end());
                                        bias[z(op)].assign(b.begin(), b.end());
                                        return {};
                                      });
      !s)
    return fail(s);
  auto plan = Plan::compile(n, *reader);
  if (!plan) return fail(plan.status());
  auto w = plan->workspace(1, 2);
  if (!w) return fail(w.status());

  const auto load = [&](int op) {
    std::vector<float> v(z(n[op].out.size()));
    const std::string tensor = op == 0 ? "input" : std::string("act.") + n[op].name.text;
    const int t = golden->find(tensor.c_str());
    if (t < 0 || !golden->read_f32(t, v).ok()) {
      std::fprintf(stderr, "parity_layers: the golden file lacks %s: run tools/test.sh to make it again\n",
                   tensor.c_str());
      std::exit(2);
    }
    if (op == 0)
      for (float& x : v) x = (x - 127.5f) / 128.0f;
    return v;
  };
  const auto put = [&](int op) {
    const auto v = load(op);
    const TensorView to = plan->view(*w, op);
    for (int y = 0; y < to.shape.h; ++y)
      for (int x = 0; x < to.shape.w; ++x)
        std::copy_n(v.data() + (std::int64_t{y} * to.shape.w + x) * to.shape.c, to.shape.c, to.pixel(0, y, x));
  };

  int checked = 0, bad_layers = 0;
  double worst_share = 0, worst_error = 0, worst_rms_share[2] = {0, 0};
  std::string worst_layer;
  const auto picture = load(0);
  PlanInput in;
  in.nhwc = picture.data();
  for (int s = 0; s < static_cast<int>(plan->steps().size()); ++s) {
    const Step& step = plan->steps()[z(s)];
    const Op& first = n[step.op];
    for (int i = 0; i < first.input_count; ++i) put(first.inputs[i]);
    if (first.skip >= 0) put(first.skip);
    plan->run_step(*w, s, &in);
    for (int k = 0; k < (step.segment_count > 0 ? step.segment_count : 1); ++k) {
      const int index = step.segment_count > 0 ? step.segment_ops[k] : step.op;
      const Op& op = n[index];
      const auto want = load(index);
      const TensorView got = plan->view(*w, index);
      const auto input = op.input_count > 0 ? load(op.inputs[0]) : want;
      const Shape from = n[op.input_count > 0 ? op.inputs[0] : index].out;
      const auto x = dense_view<const float>(input.data(), from);
      const double growth = algorithm_growth(step.algorithm);
      double share = 0, error = 0, off2 = 0, magnitude2 = 0;
      for (int y = 0; y < op.out.h; ++y)
        for (int xx = 0; xx < op.out.w; ++xx)
          for (int c = 0; c < op.out.c; ++c) {
            const float value = want[z((std::int64_t{y} * op.out.w + xx) * op.out.c + c)];
            const double off = std::fabs(static_cast<double>(got.pixel(0, y, xx)[c]) - static_cast<double>(value));
            error = std::fmax(error, off);
            // The bound needs the sum of |terms|, which costs as much as the layer in double: every 37th output of a
            // convolution gets it, and all of them the looser test below.
            const std::int64_t at = (std::int64_t{y} * op.out.w + xx) * op.out.c + c;
            if (!has_weights(op) || (at % 37 != 0 && op.out.size() > 4096)) continue;
            const auto sum =
                reference::conv_at(x, 0, weight[z(index)].data(), bias[z(index)].data(), window_of(n, op), y, xx, c);
            const double scale = op.skip >= 0 ? static_cast<double>(op.scale) : 1;
            // Terms: the products, the bias, the residual; the input and the golden value are rounded to float too.
            const double magnitude = scale * sum.magnitude + std::fabs(static_cast<double>(value)) * 2;
            off2 += off * off;
            magnitude2 += magnitude * magnitude;
            share = std::fmax(share, off / (growth * sum_tolerance(weight_count(n, op) / op.out.c + 4, magnitude)));
          }
      const double terms = static_cast<double>(has_weights(op) ? weight_count(n, op) / op.out.c + 6 : 0);
      // Rounding errors are as good as independent, so the root mean square error of a sum of k terms stays below
      // sqrt(k) * u * sum |terms| (Higham and Mary, "A New Approach to Probabilistic Rounding Error Analysis", 2019),
      // times a Winograd form's factor. Holds for many outputs together, not for each; a coefficient that is wrong by
      // 1e-4 breaks it, which the worst-case bound lets pass.
      const double typical = rounding_factor(step.algorithm) * std::sqrt(terms * magnitude2) * 0x1p-24;
      const double rms_share = has_weights(op) ? std::sqrt(off2) / typical : 0;
      const double loose = has_weights(op) ? 1e-3 : 4e-7;  // pools copy; the mean and the norm round once or twice
      double largest = 0;
      for (float v : want) largest = std::fmax(largest, std::fabs(static_cast<double>(v)));
      const bool bad = share > 1 || rms_share > 1 || error > loose * largest;
      if (bad) {
        ++bad_layers;
        std::printf(
            "FAILED %-26s %-12s error %.2e of at most %.2f, %.2f of the bound, %.2f of the bound for the mean\n",
            op.name.text, plan->step_name(step), error, largest, share, rms_share);
      }
      double& worst_rms = worst_rms_share[is_winograd(step.algorithm)];
      worst_rms = std::fmax(worst_rms, rms_share);
      if (share > worst_share) worst_share = share, worst_layer = op.name.text, worst_error = error;
      ++checked;
    }
  }
  std::printf(
      "%d operators; nearest to its bound: %s at %.1f%% (error %.2e); to the mean's bound: direct %.1f%%, Winograd "
      "%.1f%%; %d failed\n",
      checked, worst_layer.c_str(), 100 * worst_share, worst_error, 100 * worst_rms_share[0], 100 * worst_rms_share[1],
      bad_layers);
  return bad_layers == 0 && checked > 130 ? 0 : 1;
}
