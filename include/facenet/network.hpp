// A network as data: operators, shape inference, parameter and multiply-add counts, all constexpr.
#pragma once
#include "facenet/base/macros_push.inc"

#include "facenet/base/preprocessing.hpp"
#include "facenet/base/tensor.hpp"

FACENET_SETUP_BEGIN

/// A parameter prefix such as "repeat_1.0.branch1.0", built at compile time: `at / "branch1" / 0`.
struct Name {
  static constexpr int capacity = 47;
  char text[capacity + 1] = {};
  int length = 0;

  constexpr Name() noexcept = default;
  FACENET_NOINLINE constexpr Name(const char* s) noexcept {
    while (*s != 0) push(*s++);
  }
  constexpr void push(char c) noexcept {
    if (length < capacity) text[length++] = c;
  }
  FACENET_NOINLINE constexpr Name operator/(const char* child) const noexcept {
    Name n = *this;
    if (n.length != 0) n.push('.');
    while (*child != 0) n.push(*child++);
    return n;
  }
  constexpr Name operator/(int index) const noexcept { return (*this / "").append(index); }
  FACENET_NOINLINE constexpr Name append(int number) const noexcept {
    const Digits digits(number);
    Name n = *this;
    for (const char* c = digits.text(); *c != 0; ++c) n.push(*c);
    return n;
  }
  constexpr bool operator==(const char* s) const noexcept {
    int i = 0;
    while (i < length && s[i] == text[i]) ++i;
    return i == length && s[i] == 0;
  }
};

enum class OpKind : std::uint8_t {
  input,
  conv,    // out = act(W * x + b); with `skip`: out = act(skip + scale * (W * x + b))
  linear,  // the whole input flattened (H, W, C) to one vector
  max_pool,
  avg_pool,  // mean over the part of the window that is inside the picture; channels past the input's are zeros
  global_avg_pool,
  concat,        // along channels
  l2_normalise,  // over all channels of a 1x1 picture: x / max(|x|, 1e-12)
  softmax,       // per pixel over channels
};
constexpr int op_kinds = static_cast<int>(OpKind::softmax) + 1;
enum class Act : std::uint8_t { none, relu, prelu };
constexpr Act relu = Act::relu;

/// How a state_dict stores a convolution's or linear layer's parameters before folding. FileTraits names the layers.
enum class Params : std::uint8_t {
  bias,        // <name>.weight, <name>.bias
  no_bias,     // <name>.weight; a converted file has zeros as <name>.bias
  bias_slope,  // those and <name>.slope: PReLU's factor for each channel
  conv_bn,     // <name>.conv.weight and <name>.bn.*: facenet-pytorch's BasicConv2d
  linear_bn,   // <name>.weight and <name>.bn.*
  affine,      // <name>.weight, <name>.bias, then a factor and a shift for each channel, folded: dlib's
};
/// Parameters of one output channel beside its weights, before folding.
constexpr int channel_parameters(Params p) noexcept {
  constexpr int count[] = {1, 0, 2, 2, 2, 3};
  return count[static_cast<int>(p)];
}

struct Ref {
  int op = -1;
};

struct Op {
  static constexpr int max_inputs = 4;
  OpKind kind = OpKind::input;
  Act act = Act::none;
  Params params = Params::bias;
  std::uint8_t input_count = 0;
  int inputs[max_inputs] = {-1, -1, -1, -1};
  int skip = -1;    // conv: the residual's other input
  float scale = 1;  // conv with skip
  Window window;
  Shape out;
  Name name;
};

/// How weight files hold a model, beyond what its layers say. A model's page has one; its network and its row of
/// models::all() point to it. The reader knows no model but by this.
struct FileTraits {
  /// In a converted file, tensors whose names begin so are another network's: a detector's beside an embedder's.
  const char* beside = nullptr;

  // The rest is for a plain state_dict, in the names of the framework that saved it.

  /// The prefix that a layer's ".weight" and ".bias" have, and that its batch norm's tensors have.
  Name (*layer)(const Op&) = [](const Op& op) { return op.params == Params::conv_bn ? op.name / "conv" : op.name; };
  Name (*batch_norm)(const Op&) = [](const Op& op) { return op.name / "bn"; };
  double batch_norm_eps = 1e-3;  // facenet-pytorch's and TensorFlow's; PyTorch's default is 1e-5
  /// Tensors whose names begin so are not read: a classifier that only training needs.
  const char* ignored = nullptr;
  /// A state_dict with this tensor is this model's, unless an earlier row of the table takes it; null: none is.
  const char* mark = nullptr;
  /// [embedding_dim][..]: the weight of the layer that makes the embedding. A state_dict without it is not this
  /// model's.
  const char* embedding = nullptr;
  /// [width * stem_channels][..][..][..]: the first convolution's weight; null: the width is always 1.
  const char* stem = nullptr;
  int stem_channels = 1;
  /// What is assumed, since a state_dict says nothing about it.
  Preprocessing preprocessing;
};

// What builds a network is kept out of line: it runs once, and inlined three models took 0.7 s to compile and 30 KB.

/// Operators in execution order; op 0 is the input. Build it with the functions below; ok() is false after a
/// mistake (too many operators, shapes that do not fit), which a static_assert can catch.
class Network {
 public:
  static constexpr int max_ops = 304;  // Inception-ResNet-v2 has 296

  /// `width` multiplies the channels of conv() and conv_affine(); a product that is no whole number is a mistake.
  /// `traits` says how weight files hold the model, and must outlive the network; null: as the defaults of FileTraits.
  constexpr Network(const char* architecture, Shape input, double width = 1,
                    const FileTraits* traits = nullptr) noexcept
      : architecture_(architecture), width_(width), traits_(traits) {
    Op op;
    op.name = "input";
    op.out = input;
    add(op);
  }

  constexpr Ref input() const noexcept { return {0}; }
  constexpr const Name& architecture() const noexcept { return architecture_; }
  constexpr const FileTraits* traits() const noexcept { return traits_; }
  constexpr int size() const noexcept { return size_; }
  FACENET_INLINE constexpr const Op& operator[](int i) const noexcept { return ops_[i]; }
  constexpr Shape shape(Ref r) const noexcept { return ops_[r.op].out; }
  constexpr bool ok() const noexcept { return ok_; }

  /// Convolution, batch norm and ReLU: facenet-pytorch's BasicConv2d.
  FACENET_NOINLINE constexpr Ref conv(Name at, Ref x, int cout, Window w) noexcept {
    Op op = windowed(OpKind::conv, at, x, scaled(cout), w);
    op.act = relu;
    op.params = Params::conv_bn;
    return add(op);
  }
  /// Convolution with bias, and nothing after it.
  FACENET_NOINLINE constexpr Ref conv_bias(Name at, Ref x, int cout, Window w) noexcept {
    return add(windowed(OpKind::conv, at, x, cout, w));
  }
  /// Convolution with bias and PReLU: MTCNN's layers.
  FACENET_NOINLINE constexpr Ref conv_prelu(Name at, Ref x, int cout, Window w) noexcept {
    Op op = windowed(OpKind::conv, at, x, cout, w);
    op.act = Act::prelu;
    op.params = Params::bias_slope;
    return add(op);
  }
  /// Convolution with dlib's affine layer after it, and ReLU.
  FACENET_NOINLINE constexpr Ref conv_affine(Name at, Ref x, int cout, Window w) noexcept {
    Op op = windowed(OpKind::conv, at, x, scaled(cout), w);
    op.act = relu;
    op.params = Params::affine;
    return add(op);
  }
  /// act(skip + scale * (1x1 convolution of x, with bias)): the end of an Inception-ResNet block.
  FACENET_NOINLINE constexpr Ref residual(Name at, Ref x, Ref skip, float scale, Act act) noexcept {
    Op op = windowed(OpKind::conv, at, x, shape(skip).c, k(1));
    op.skip = skip.op;
    op.scale = scale;
    op.act = act;
    if (op.out != shape(skip)) ok_ = false;
    return add(op);
  }
  /// relu(skip + convolution with dlib's affine layer): the end of a dlib block. A convolution with fewer rows and
  /// columns than skip is added at its top left; the rest of skip stays as it is.
  FACENET_NOINLINE constexpr Ref residual_affine(Name at, Ref x, Ref skip, Window w) noexcept {
    Op op = windowed(OpKind::conv, at, x, shape(skip).c, w);
    op.skip = skip.op;
    op.act = relu;
    op.params = Params::affine;
    if (op.out.size() <= 0 || op.out.h > shape(skip).h || op.out.w > shape(skip).w) ok_ = false;
    op.out = shape(skip);
    return add(op);
  }
  FACENET_NOINLINE constexpr Ref max_pool(Name at, Ref x, Window w) noexcept {
    return add(windowed(OpKind::max_pool, at, x, shape(x).c, w));
  }
  /// `channels` may be more than x's: ResNet's shortcut without weights, whose new channels are zeros. 0: as x.
  FACENET_NOINLINE constexpr Ref avg_pool(Name at, Ref x, Window w, int channels = 0) noexcept {
    channels = channels == 0 ? shape(x).c : scaled(channels);
    if (channels < shape(x).c) ok_ = false;
    return add(windowed(OpKind::avg_pool, at, x, channels, w));
  }
  FACENET_NOINLINE constexpr Ref global_avg_pool(Name at, Ref x) noexcept {
    Op op = simple(OpKind::global_avg_pool, at, x);
    op.out = {1, 1, shape(x).c};
    return add(op);
  }
  FACENET_NOINLINE constexpr Ref concat(Name at, Ref a, Ref b, Ref c = {}, Ref d = {}) noexcept {
    Op op = simple(OpKind::concat, at, a);
    for (Ref r : {b, c, d}) {
      if (r.op < 0) continue;
      op.inputs[op.input_count++] = r.op;
      if (shape(r).h != op.out.h || shape(r).w != op.out.w) ok_ = false;
      op.out.c += shape(r).c;
    }
    return add(op);
  }
  /// A linear layer over the flattened input, with the batch norm that follows it.
  constexpr Ref linear_bn(Name at, Ref x, int cout) noexcept { return linear(at, x, cout, Params::linear_bn); }
  FACENET_NOINLINE constexpr Ref linear(Name at, Ref x, int cout, Params params) noexcept {
    Op op = simple(OpKind::linear, at, x);
    op.params = params;
    op.out = {1, 1, cout};
    return add(op);
  }
  FACENET_NOINLINE constexpr Ref softmax(Name at, Ref x) noexcept { return add(simple(OpKind::softmax, at, x)); }
  FACENET_NOINLINE constexpr Ref l2_normalise(Name at, Ref x) noexcept {
    return add(simple(OpKind::l2_normalise, at, x));
  }

 private:
  constexpr int scaled(int channels) noexcept {
    if (!(width_ > 0 && width_ <= 16)) ok_ = false;
    if (!ok_) return 1;
    const double wide = channels * width_;
    const int whole = static_cast<int>(wide);
    if (whole < 1 || whole != wide) ok_ = false;
    return whole;
  }
  FACENET_NOINLINE constexpr Op simple(OpKind kind, Name at, Ref x) const noexcept {
    Op op;
    op.kind = kind;
    op.name = at;
    op.inputs[op.input_count++] = x.op;
    op.out = shape(x);
    return op;
  }
  FACENET_NOINLINE constexpr Op windowed(OpKind kind, Name at, Ref x, int cout, Window w) const noexcept {
    Op op = simple(kind, at, x);
    op.window = w;
    op.out = w.out(shape(x), cout);
    return op;
  }
  FACENET_NOINLINE constexpr Ref add(const Op& op) noexcept {
    if (size_ == max_ops || op.out.size() <= 0) {
      ok_ = false;
      return {size_ - 1};
    }
    ops_[size_] = op;
    return {size_++};
  }

  Op ops_[max_ops] = {};
  Name architecture_;
  double width_ = 1;
  const FileTraits* traits_ = nullptr;
  int size_ = 0;
  bool ok_ = true;
};

/// Whether it is one of several networks in a weight file, as "mtcnn.pnet": its layers' names all begin with its own.
constexpr bool is_part(const Network& n) noexcept {
  for (char c : n.architecture().text)
    if (c == '.') return true;
  return false;
}

constexpr bool has_weights(const Op& op) noexcept { return op.kind == OpKind::conv || op.kind == OpKind::linear; }

/// Channels a weighted operator reads: the whole flattened input for `linear`.
constexpr int in_channels(const Network& n, const Op& op) noexcept {
  const Shape s = n[op.inputs[0]].out;
  return op.kind == OpKind::linear ? static_cast<int>(s.size()) : s.c;
}
/// Elements of the weight tensor.
constexpr std::int64_t weight_count(const Network& n, const Op& op) noexcept {
  return std::int64_t{op.out.c} * in_channels(n, op) * op.window.taps();
}
/// Biases, then PReLU's slopes.
constexpr std::size_t bias_count(const Op& op) noexcept {
  return static_cast<std::size_t>(op.out.c) * (op.params == Params::bias_slope ? 2 : 1);
}
/// What a convolution computes: its output, or the part of a residual's trunk that it is added to.
constexpr Shape computed(const Network& n, const Op& op) noexcept {
  if (op.kind != OpKind::conv) return op.out;
  return op.window.out(n[op.inputs[0]].out, op.out.c);
}
/// The window that a weighted operator looks at: a linear layer's is the whole input.
constexpr Window window_of(const Network& n, const Op& op) noexcept {
  const Shape in = n[op.inputs[0]].out;
  return op.kind == OpKind::linear ? k(in.h, in.w) : op.window;
}
/// Multiply-adds for one image.
constexpr std::int64_t macs(const Network& n, const Op& op) noexcept {
  return has_weights(op) ? weight_count(n, op) * computed(n, op).pixels() : 0;
}
constexpr std::int64_t macs(const Network& n) noexcept {
  std::int64_t sum = 0;
  for (int i = 0; i < n.size(); ++i) sum += macs(n, n[i]);
  return sum;
}
/// Trainable parameters before folding: weights, and what channel_parameters() says.
constexpr std::int64_t parameters(const Network& n) noexcept {
  std::int64_t sum = 0;
  for (int i = 0; i < n.size(); ++i)
    if (has_weights(n[i])) sum += weight_count(n, n[i]) + n[i].out.c * channel_parameters(n[i].params);
  return sum;
}
constexpr int count(const Network& n, OpKind kind) noexcept {
  int sum = 0;
  for (int i = 0; i < n.size(); ++i) sum += n[i].kind == kind;
  return sum;
}

namespace models {

/// One row of a table of models: the name in a weight file's metadata, how to build the network, and the Euclidean
/// distance up to which two faces are taken for one person's where nobody has calibrated.
struct Entry {
  const char* architecture;
  Network (*build)(int embedding_dim, bool normalise, double width);
  double threshold;
  const FileTraits* traits;
};

}  // namespace models

FACENET_SETUP_END

#include "facenet/base/macros_pop.inc"
