// Writes toy safetensors files for a toy network, right and wrong ones, and makes allocations fail. Shared by
// test_weights.cpp and the fuzz target; must come before every header of the library.
#pragma once

#include <cmath>
#include <cstdlib>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "failing_malloc.hpp"

#include "facenet/weights.hpp"

namespace builder {

using facenet::Network;

// Named as facenet-pytorch's, so that state_dict() makes what its users have.
constexpr facenet::FileTraits toy_traits = [] {
  facenet::FileTraits t;
  t.beside = "mtcnn.";
  t.ignored = "logits.";
  t.batch_norm = [](const facenet::Op& op) {
    return op.kind == facenet::OpKind::linear ? facenet::Name("last_bn") : op.name / "bn";
  };
  t.mark = t.embedding = "last_linear.weight";
  t.stem = "stem.conv.weight";
  t.stem_channels = 5;
  return t;
}();

// Every way a layer's parameters are stored, a bottleneck, and a 1x3 kernel so that a transposed shape shows.
constexpr Network toy_network(int dim = 4) {
  Network n("toy", {6, 6, 3}, 1, &toy_traits);
  facenet::Ref x = n.conv("stem", n.input(), 5, facenet::k(3));
  facenet::Ref up = n.conv(facenet::Name("branch") / 0, x, 2, facenet::k(1, 3).pad(0, 1));
  x = n.residual("up", up, x, 0.2f, facenet::relu);
  x = n.global_avg_pool("pool", x);
  x = n.linear_bn("last_linear", x, dim);
  n.l2_normalise("normalise", x);
  return n;
}
static_assert(toy_network().ok(), "the toy network's shapes fit");

struct Tensor {
  std::string name, dtype;
  std::vector<std::int64_t> shape;
  std::string bytes;
};

template <class T>
std::string little_endian(T value) {
  std::string s;
  for (std::size_t i = 0; i < sizeof(T); ++i) s += static_cast<char>(static_cast<std::uint64_t>(value) >> (8 * i));
  return s;
}
inline std::string f32_bytes(const std::vector<float>& values) {
  std::string s;
  for (float v : values) {
    std::uint32_t bits;
    std::memcpy(&bits, &v, sizeof bits);
    s += little_endian(bits);
  }
  return s;
}
inline Tensor f32(std::string name, std::vector<std::int64_t> shape, const std::vector<float>& values) {
  return {std::move(name), "F32", std::move(shape), f32_bytes(values)};
}

inline std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const std::size_t at = text.find(from);
  return at == std::string::npos ? text : text.replace(at, from.size(), to);
}

using Pairs = std::vector<std::pair<std::string, std::string>>;

inline Pairs toy_metadata() {
  return {{"format", "1"},
          {"architecture", "toy"},
          {"embedding_dim", "4"},
          {"trained", "false"},
          {"normalise", "l2"},
          {"width", "1"},
          {"image_size", "6"},
          {"channel_order", "rgb"},
          {"scaling", "fixed"},
          {"crop", "box"},
          {"margin", "0.25"},
          {"resize", "pillow_bilinear"},
          {"dataset", "none"},
          {"source", "a test"},
          {"licence", "MIT"},
          {"source_sha256", std::string(64, 'a')},
          {"data_xxh64", std::string(16, '0')},
          {"header_xxh64", std::string(16, '0')}};
}

struct File {
  Pairs metadata;
  std::vector<Tensor> tensors;
  std::size_t padding = 3;  // spaces after the JSON

  std::string data() const {
    std::string s;
    for (const Tensor& t : tensors) s += t.bytes;
    return s;
  }
  std::string header() const {
    std::string s = "{";
    if (!metadata.empty()) {
      s += "\"__metadata__\":{";
      for (const auto& [key, value] : metadata) s += (s.back() == '{' ? "\"" : ",\"") + key + "\":\"" + value + '"';
      s += '}';
    }
    std::size_t at = 0;
    for (const Tensor& t : tensors) {
      s += (s.back() == '{' ? "\"" : ",\"") + t.name + "\":{\"dtype\":\"" + t.dtype + "\",\"shape\":[";
      for (std::size_t i = 0; i < t.shape.size(); ++i) s += (i == 0 ? "" : ",") + std::to_string(t.shape[i]);
      s += "],\"data_offsets\":[" + std::to_string(at) + ',' + std::to_string(at + t.bytes.size()) + "]}";
      at += t.bytes.size();
    }
    return s + '}' + std::string(padding, ' ');
  }
  std::string bytes() const { return assemble(header(), data()); }

  /// A whole file from header text and data; both hashes are put right where their keys are.
  static std::string assemble(std::string header, const std::string& data) {
    const std::pair<std::string, const std::string*> hashes[] = {{"\"data_xxh64\":\"", &data},
                                                                 {"\"header_xxh64\":\"", nullptr}};
    for (const auto& [key, what] : hashes) {
      const std::size_t found = header.find(key), at = found + key.size();
      if (found == std::string::npos || at + 16 > header.size()) continue;
      header.replace(at, 16, 16, '0');
      const std::string& over = what != nullptr ? *what : header;
      char digits[17];
      facenet::to_hex(facenet::xxh64(over.data(), over.size()), digits);
      header.replace(at, 16, digits);
    }
    return little_endian(std::uint64_t{header.size()}) + header + data;
  }

  Tensor& operator[](const std::string& name) {
    for (Tensor& t : tensors)
      if (t.name == name) return t;
    return tensors.front();
  }
  std::string& meta(const std::string& key) {
    for (auto& [k, v] : metadata)
      if (k == key) return v;
    metadata.emplace_back(key, "");
    return metadata.back().second;
  }
};

/// Small multiples of 1/64 in -2 ... 2: exact in every dtype, so the expected values need no tolerance.
class Numbers {
 public:
  float next() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<float>(static_cast<int>(state_ >> 40) % 128) / 64;
  }
  std::vector<float> some(std::int64_t n) {
    std::vector<float> v(static_cast<std::size_t>(n));
    for (float& x : v) x = next();
    return v;
  }

 private:
  std::uint64_t state_ = 1;
};

using Layers = std::map<int, std::pair<std::vector<float>, std::vector<float>>>;

inline std::vector<std::int64_t> weight_shape(const Network& n, const facenet::Op& op) {
  std::vector<std::int64_t> shape = {op.out.c, in_channels(n, op)};
  if (op.kind == facenet::OpKind::conv) shape.insert(shape.end(), {op.window.kh, op.window.kw});
  return shape;
}

inline std::uint16_t exact_half(float f) {  // of 0 and of normal halves that need no rounding
  std::uint32_t b;
  std::memcpy(&b, &f, sizeof b);
  const std::uint32_t exponent = b >> 23 & 255;
  return static_cast<std::uint16_t>((b >> 16 & 0x8000u) |
                                    (exponent == 0 ? 0 : (exponent - 112) << 10 | (b >> 13 & 0x3ffu)));
}

/// A Converted file of the network; `expected` gets what the reader must hand over.
inline File converted(const Network& n, const std::string& dtype = "F32", Layers* expected = nullptr) {
  File file;
  file.metadata = toy_metadata();
  Numbers numbers;
  for (int i = 0; i < n.size(); ++i) {
    const facenet::Op& op = n[i];
    if (!has_weights(op)) continue;
    const std::string name = op.name.text;
    std::vector<float> weight = numbers.some(weight_count(n, op)), bias = numbers.some(op.out.c);
    file.tensors.push_back(f32(name + ".bias", {op.out.c}, bias));
    Tensor w = {name + ".weight", dtype, weight_shape(n, op), ""};
    if (dtype == "F32") w.bytes = f32_bytes(weight);
    if (dtype == "F16")
      for (float v : weight) w.bytes += little_endian(exact_half(v));
    if (dtype == "I8") {
      std::vector<float> scale;
      for (int o = 0; o < op.out.c; ++o) scale.push_back(std::abs(numbers.next()) + 1.0f / 3);
      const std::size_t row = weight.size() / scale.size();
      for (std::size_t j = 0; j < weight.size(); ++j) {
        const auto q = static_cast<std::int8_t>(weight[j] * 63);
        w.bytes += static_cast<char>(q);
        weight[j] = static_cast<float>(q) * scale[j / row];
      }
      file.tensors.push_back(f32(name + ".weight_scale", {op.out.c}, scale));
    }
    file.tensors.push_back(w);
    if (expected != nullptr) (*expected)[i] = {weight, bias};
  }
  return file;
}

/// A plain state_dict of the network, with what a real one has beside the layers.
inline File state_dict(const Network& n, Layers* expected = nullptr) {
  File file;
  Numbers numbers;
  for (int i = 0; i < n.size(); ++i) {
    const facenet::Op& op = n[i];
    if (!has_weights(op)) continue;
    const std::string name = op.name.text;
    std::vector<float> weight = numbers.some(weight_count(n, op)), bias = numbers.some(op.out.c);
    const bool conv = op.params == facenet::Params::conv_bn, plain = op.params == facenet::Params::bias;
    file.tensors.push_back(f32(name + (conv ? ".conv.weight" : ".weight"), weight_shape(n, op), weight));
    const std::string norm = conv ? name + ".bn" : "last_bn";
    file.tensors.push_back(f32((plain ? name : norm) + ".bias", {op.out.c}, bias));
    if (!plain) {
      const std::vector<float> gamma = numbers.some(op.out.c), mean = numbers.some(op.out.c);
      std::vector<float> variance;
      for (int o = 0; o < op.out.c; ++o)
        variance.push_back(o == 0 ? 0.0f : std::abs(numbers.next()) * static_cast<float>(o));
      file.tensors.push_back(f32(norm + ".weight", {op.out.c}, gamma));
      file.tensors.push_back(f32(norm + ".running_mean", {op.out.c}, mean));
      file.tensors.push_back(f32(norm + ".running_var", {op.out.c}, variance));
      file.tensors.push_back({norm + ".num_batches_tracked", "I64", {}, std::string(8, '\x01')});
      const std::size_t row = weight.size() / gamma.size();
      for (std::size_t o = 0; o < gamma.size(); ++o) {
        const double s = double{gamma[o]} / std::sqrt(double{variance[o]} + 0.001);
        for (std::size_t j = 0; j < row; ++j) weight[o * row + j] = static_cast<float>(double{weight[o * row + j]} * s);
        bias[o] = static_cast<float>(double{bias[o]} - double{mean[o]} * s);
      }
    }
    if (expected != nullptr) (*expected)[i] = {weight, bias};
  }
  file.tensors.push_back(f32("logits.weight", {7, 4}, numbers.some(28)));
  file.tensors.push_back(f32("logits.bias", {7}, numbers.some(7)));
  return file;
}

}  // namespace builder
