// oneDNN, the v2 API and the v3 API: weights reordered to the format that the primitive asks for, activations in the
// format it likes, bias and ReLU or sum as post-operations. Bytes: u8 * s8 -> u8 with a scale for each channel; the
// residual's trunk is bytes too, and ReLU is the saturation at 0.
#include <oneapi/dnnl/dnnl.hpp>

#include "worker.hpp"

namespace {

using namespace kernels_bench;
using dnnl::memory;
using Tag = memory::format_tag;
using Type = memory::data_type;

struct OneDnn : Worker {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  dnnl::convolution_forward convolution;
  std::vector<memory> weights;
  memory x, y, bias, scales;
  Shape shape;

  static std::string version() {
    const auto* v = dnnl_version();
    return std::to_string(v->major) + "." + std::to_string(v->minor) + "." + std::to_string(v->patch);
  }

  void load(const Layer& l, const Numbers& n) {
    weights.clear();
    shape = l.out;
    const bool integer = l.integer != 0;
    const Type in = integer ? Type::u8 : Type::f32, out = integer && l.bytes != 0 ? Type::u8 : Type::f32,
               of_weights = integer ? Type::s8 : Type::f32;
    const memory::dims from{1, l.in.c, l.in.h, l.in.w}, to{1, l.out.c, l.out.h, l.out.w},
        window{l.out.c, l.in.c, l.kh, l.kw}, stride{l.stride, l.stride};
    const memory::dims before{l.pad_h, l.pad_w}, after{l.pad_below(), l.pad_right()};
    const auto any = [](const memory::dims& d, Type t) { return memory::desc(d, t, Tag::any); };
    const memory::desc bias_desc({l.out.c}, Type::f32, Tag::a);

    dnnl::post_ops post;
    if (l.residual != 0) post.append_sum(1.0f);
    dnnl::primitive_attr attributes;
    const auto kind = dnnl::prop_kind::forward_inference;
    const auto algorithm = dnnl::algorithm::convolution_auto;
#if DNNL_VERSION_MAJOR >= 3
    if (l.relu != 0 && out != Type::u8) post.append_eltwise(dnnl::algorithm::eltwise_relu, 0, 0);
    if (integer) attributes.set_scales_mask(DNNL_ARG_WEIGHTS, 1);
    attributes.set_post_ops(post);
    const dnnl::convolution_forward::primitive_desc chosen(engine, kind, algorithm, any(from, in),
                                                           any(window, of_weights), bias_desc, any(to, out), stride,
                                                           before, after, attributes);
#else
    if (l.relu != 0 && out != Type::u8) post.append_eltwise(1.0f, dnnl::algorithm::eltwise_relu, 0, 0);
    if (integer) attributes.set_output_scales(2, n.multiplier);
    attributes.set_post_ops(post);
    const dnnl::convolution_forward::primitive_desc chosen(
        {kind, algorithm, any(from, in), any(window, of_weights), bias_desc, any(to, out), stride, before, after},
        attributes, engine);
#endif
    how = chosen.impl_info_str();
    if (how.find("wino") != std::string::npos) fail("Winograd, whose tolerance is not known here");
    convolution = dnnl::convolution_forward(chosen);

    x = placed(integer ? n.qx.data() : static_cast<const void*>(n.x.data()), {from, in, Tag::nhwc}, chosen.src_desc());
    weights.push_back(placed(integer ? n.qw.data() : static_cast<const void*>(n.w.data()),
                             {window, of_weights, Tag::oihw}, chosen.weights_desc()));
    for (int i = 1; i < l.copies; ++i) {
      weights.emplace_back(chosen.weights_desc(), engine);
      std::memcpy(weights.back().get_data_handle(), weights[0].get_data_handle(), chosen.weights_desc().get_size());
    }
    std::vector<float> floats = n.bias;
    for (std::size_t c = 0; c < n.qbias.size(); ++c) {
      const auto b = static_cast<float>(n.qbias[c]);  // v2 adds it to the sum of products, v3 to what has been scaled
      floats.push_back(DNNL_VERSION_MAJOR >= 3 ? b * n.multiplier[c] : b);
    }
    bias = placed(floats.data(), bias_desc, bias_desc);
    if (integer) scales = placed(n.multiplier.data(), bias_desc, bias_desc);
    std::vector<float> trunk = n.trunk;
    if (integer && out == Type::f32) trunk.assign(n.qtrunk.begin(), n.qtrunk.end());
    y = placed(out == Type::u8 ? n.qtrunk.data() : static_cast<const void*>(trunk.data()), {to, out, Tag::nhwc},
               chosen.dst_desc());
  }

  template <class Tick>
  void run(int first, int times, int copies, Tick&& tick) {
    std::unordered_map<int, memory> arguments{
        {DNNL_ARG_SRC, x}, {DNNL_ARG_WEIGHTS, weights[0]}, {DNNL_ARG_BIAS, bias}, {DNNL_ARG_DST, y}};
#if DNNL_VERSION_MAJOR >= 3
    if (scales) arguments[DNNL_ARG_ATTR_SCALES | DNNL_ARG_WEIGHTS] = scales;
#endif
    memory& used = arguments[DNNL_ARG_WEIGHTS];
    for (int i = 0, copy = first; i < times; ++i, copy = copy + 1 == copies ? 0 : copy + 1) {
      used = weights[z(copy)];
      convolution.execute(stream, arguments);
      stream.wait();
      tick();
    }
  }

  void output(float* to) {
    const memory::desc dense({1, shape.c, shape.h, shape.w}, Type::f32, Tag::nhwc);
    memory floats(dense, engine, to);
    dnnl::reorder(y, floats).execute(stream, y, floats);
    stream.wait();
  }

 private:
  /// The same values in the format `wanted`, in memory of oneDNN's.
  memory placed(const void* values, const memory::desc& are, const memory::desc& wanted) {
    memory made(wanted, engine);
    memory given(are, engine, const_cast<void*>(values));
    dnnl::reorder(given, made).execute(stream, given, made);
    stream.wait();
    return made;
  }
};

}  // namespace

int main() {
  OneDnn library;
  return serve(library);
}
