// XNNPACK's operators, which pack their weights when they are made: so each copy of the weights is an operator. A
// residual is an addition of its own. Bytes: signed ones, so a byte q is q - 128 with a zero point of -128, and int8
// weights with a scale for each channel (qc8).
#include <xnnpack.h>

#include <limits>

#include "worker.hpp"

namespace {

using namespace kernels_bench;

void need(xnn_status status, const char* what) {
  if (status != xnn_status_success) fail(std::string(what) + ": status " + std::to_string(status));
}

struct Xnnpack : Worker {
  pthreadpool_t pool = nullptr;  // none: the caller alone
  std::vector<xnn_operator_t> convolutions;
  xnn_operator_t addition = nullptr;
  std::vector<float> x, y, trunk;
  std::vector<std::int8_t> qx, qy, qtrunk;
  bool integer = false, residual = false;

  explicit Xnnpack(int threads) : pool(threads > 1 ? pthreadpool_create(z(threads)) : nullptr) {
    need(xnn_initialize(nullptr), "xnn_initialize");
  }
  static std::string version() { return "2022-02"; }

  void load(const Layer& l, const Numbers& n) {
    for (xnn_operator_t op : convolutions) xnn_delete_operator(op);
    if (addition != nullptr) xnn_delete_operator(addition);
    convolutions.clear();
    addition = nullptr;
    integer = l.integer != 0;
    residual = l.residual != 0;
    if (integer && l.bytes == 0) fail("no floats as the output of bytes");
    const auto u = [](int v) { return static_cast<std::uint32_t>(v); };
    const auto below = u(l.pad_below()), right = u(l.pad_right());
    const std::size_t from = z(l.in.c), to = z(l.out.c), taps = z(std::int64_t{l.kh} * l.kw),
                      size[] = {1, z(l.out.h), z(l.out.w), to};
    constexpr float infinity = std::numeric_limits<float>::infinity();
    const float least = l.relu != 0 ? 0 : -infinity;
    const auto ohwi = [&](auto w) {
      auto made = w;
      for (std::size_t o = 0; o < to; ++o)
        for (std::size_t c = 0; c < from; ++c)
          for (std::size_t t = 0; t < taps; ++t) made[(o * taps + t) * from + c] = w[(o * from + c) * taps + t];
      return made;
    };
    rounding = {};
    how = residual ? "convolution and addition" : "convolution";
    if (!integer) {
      x = n.x;
      x.resize(x.size() + XNN_EXTRA_BYTES);
      y.assign(z(l.out.size()) + XNN_EXTRA_BYTES, 0);
      trunk = n.trunk;
      trunk.resize(y.size());
      const std::vector<float> w = ohwi(n.w);
      for (int i = 0; i < l.copies; ++i) {
        xnn_operator_t op = nullptr;
        need(xnn_create_convolution2d_nhwc_f32(u(l.pad_h), right, below, u(l.pad_w), u(l.kh), u(l.kw), u(l.stride),
                                               u(l.stride), 1, 1, 1, from, to, from, to, w.data(), n.bias.data(),
                                               residual ? -infinity : least, infinity, 0, &op),
             "convolution");
        convolutions.push_back(op);
        need(xnn_setup_convolution2d_nhwc_f32(op, 1, z(l.in.h), z(l.in.w), x.data(), y.data(), pool), "set-up");
      }
      if (!residual) return;
      need(xnn_create_add_nd_f32(least, infinity, 0, &addition), "addition");
      need(xnn_setup_add_nd_f32(addition, 4, size, 4, size, y.data(), trunk.data(), trunk.data(), pool), "set-up");
      return;
    }
    const auto signed_bytes = [](const std::vector<std::uint8_t>& bytes) {
      std::vector<std::int8_t> made;
      for (std::uint8_t q : bytes) made.push_back(static_cast<std::int8_t>(int{q} - 128));
      made.resize(made.size() + XNN_EXTRA_BYTES);
      return made;
    };
    qx = signed_bytes(n.qx);
    qtrunk = signed_bytes(n.qtrunk);
    qy.assign(qtrunk.size(), 0);
    const std::vector<std::int8_t> w = ohwi(n.qw);
    // Before an addition a byte stands for three times as much: -384 ... 381 of the output's bytes. That is rounded,
    // and so is what the addition makes of it (its factors have some 20 bits).
    const float wide = residual ? 3 : 1;
    if (residual) rounding.bytes = 0.5 * 3 + 0.01;
    const auto zero = static_cast<std::int8_t>(residual ? 0 : -128);
    for (int i = 0; i < l.copies; ++i) {
      xnn_operator_t op = nullptr;
      need(xnn_create_convolution2d_nhwc_qc8(u(l.pad_h), right, below, u(l.pad_w), u(l.kh), u(l.kw), u(l.stride),
                                             u(l.stride), 1, 1, 1, from, to, from, to, -128, 1, n.multiplier.data(),
                                             w.data(), n.qbias.data(), zero, wide, -128, 127, 0, &op),
           "convolution");
      convolutions.push_back(op);
      need(xnn_setup_convolution2d_nhwc_qc8(op, 1, z(l.in.h), z(l.in.w), qx.data(), qy.data(), pool), "set-up");
    }
    if (!residual) return;
    need(xnn_create_add_nd_qs8(zero, wide, -128, 1, -128, 1, -128, 127, 0, &addition), "addition");
    need(xnn_setup_add_nd_qs8(addition, 4, size, 4, size, qy.data(), qtrunk.data(), qtrunk.data(), pool), "set-up");
  }

  template <class Tick>
  void run(int first, int times, int copies, Tick&& tick) {
    for (int i = 0, copy = first; i < times; ++i, copy = copy + 1 == copies ? 0 : copy + 1) {
      need(xnn_run_operator(convolutions[z(copy)], pool), "convolution");
      if (residual) need(xnn_run_operator(addition, pool), "addition");
      tick();
    }
  }

  void output(float* to) {
    if (!integer) {
      const auto& made = residual ? trunk : y;
      std::copy(made.begin(), made.end() - XNN_EXTRA_BYTES, to);
      return;
    }
    const auto& made = residual ? qtrunk : qy;
    for (std::size_t i = 0; i + XNN_EXTRA_BYTES < made.size(); ++i) to[i] = static_cast<float>(made[i] + 128);
  }
};

}  // namespace

int main(int argc, char** argv) {
  Xnnpack library(argc > 1 ? std::atoi(argv[1]) : 1);
  return serve(library);
}
