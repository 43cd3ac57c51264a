// One pass over a weight file for one network: which tensor belongs to which layer, and each layer folded as soon as
// the last of its tensors is there.
#pragma once

#include <cfloat>
#include <cmath>

#include "facenet/base/parallel.hpp"
#include "facenet/weights/layer_parts.hpp"
#include "facenet/weights/tensor_reader.hpp"

FACENET_BEGIN

namespace detail {

/// Who takes the layers: plain functions and their `self`. A reader that is a template of the caller's function would
/// be compiled anew for each, and std::function allocates.
struct LayerSink {
  void* self = nullptr;
  Status (*floats)(void* self, int op, Span<const float> weight, Span<const float> bias) = nullptr;
  std::int8_t* (*int8_place)(void* self, int op) = nullptr;  // set: weights stay int8, and go to `int8`
  Status (*int8)(void* self, int op, const std::int8_t* weight, Span<const float> scale,
                 Span<const float> bias) = nullptr;
  bool (*is_integer)(void* self, int op) = nullptr;  // set: those layers go to `int8` as they are, and stay nowhere
};

/// Use: match(), then read(), each once.
class LayerReader {
 public:
  /// `imported`: the file is a plain state_dict. `path_length`: what errors must leave room for.
  LayerReader(TensorReader& file, const Network& network, const LayerSink& sink, bool imported,
              std::size_t path_length) noexcept
      : file_(file),
        header_(file.header),
        network_(network),
        traits_(traits_of(network)),
        sink_(sink),
        imported_(imported),
        path_length_(path_length) {}

  /// Finds each layer's tensors, checks names, shapes and dtypes, and allocates what reading takes.
  Status match(Memory memory) noexcept {
    if (!network_.ok()) return {Errc::invalid_argument, "the network's shapes do not fit together"};
    FACENET_TRY(allocate(owners_, static_cast<std::size_t>(header_.size()), false, memory));
    FACENET_TRY(allocate(layers_, static_cast<std::size_t>(network_.size()), false, memory));
    for (Owner& o : owners_) o = Owner();
    for (Layer& l : layers_) l = Layer();
    std::int64_t vectors = 0, largest = 0;
    bool all_there = true;
    for (int i = 0; i < network_.size(); ++i) {
      const Op& op = network_[i];
      if (!has_weights(op)) continue;
      Layer& layer = layer_of(i);
      layer.vectors_at = vectors;
      vectors += std::int64_t{channel_roles} * op.out.c;
      if (largest < weight_count(network_, op) && !stays_int8()) largest = weight_count(network_, op);
      for (const Part& part : parts(op.params, imported_)) {
        if (!needs(part, layer.weight)) continue;
        const int tensor = header_.find(name_of(op, part).text);
        if (tensor < 0) {
          all_there = false;
          continue;
        }
        Owner& owner = owner_of(tensor);
        if (owner.op >= 0)
          return Status(Errc::invalid_argument, "the network has two layers of one name").in(op.name.text);
        owner = {static_cast<std::int16_t>(i), part.role};
        if (part.role == Role::weight) layer.weight = tensor;
        layer.missing |= bit(part.role);
      }
    }
    for (int i = 0; i < header_.size(); ++i) all_there = all_there && !is_extra(i);
    if (!all_there) return list_differences();
    for (int i = 0; i < header_.size(); ++i) FACENET_TRY(check_tensor(i));
    FACENET_TRY(allocate_bulk(vectors_, static_cast<std::size_t>(vectors), false, memory));
    return allocate_bulk(weight_, static_cast<std::size_t>(largest), false, memory);
  }

  /// Reads the tensors in the file's order and hands over each layer. `checked`: the data's hash is known to agree, so
  /// only the layers' tensors are read, and `hash` means nothing afterwards.
  Status read(Xxh64& hash, bool checked, OwnedTeam* team) noexcept {
    for (int i = 0; i < header_.size(); ++i) {
      const TensorInfo& t = header_[i];
      const Owner owner = owner_of(i);
      if (owner.op < 0) {
        if (!checked) FACENET_TRY(file_.read(t, nullptr, &hash));
        continue;
      }
      Layer& layer = layer_of(owner.op);
      const bool is_weight = owner.role == Role::weight;
      float* const to = is_weight ? weight_.data() : vector(owner.op, owner.role);
      if (is_weight && stays_int8()) {
        std::int8_t* const place = file_.source.bytes(0) != nullptr ? nullptr : sink_.int8_place(sink_.self, owner.op);
        FACENET_TRY(file_.read_int8(t, place, hash, layer.int8));
      } else if (is_weight && is_integer(owner.op)) {
        FACENET_TRY(file_.read_int8(t, reinterpret_cast<std::int8_t*>(to), hash, layer.int8));
        FACENET_TRY(check_symmetric(t, layer.int8));
      } else {
        FACENET_TRY(file_.read(t, to, checked ? nullptr : &hash));
      }
      if (is_weight) in_weight_ = owner.op;
      if (!is_weight) FACENET_TRY(check_sign(t, to, owner.role));
      layer.missing &= ~bit(owner.role);
      if (layer.missing != 0) continue;
      if (in_weight_ != owner.op) FACENET_TRY(read_again(layer));  // another layer's weight came in between
      FACENET_TRY(hand_over(owner.op, team));
      in_weight_ = -1;
    }
    return {};
  }

 private:
  /// Whose tensor it is.
  struct Owner {
    std::int16_t op = -1;  // -1: no layer's
    Role role = Role::bias;
  };
  struct Layer {
    std::int64_t vectors_at = 0;        // where its vectors of out.c floats begin, one a channel role
    int weight = -1;                    // tensor
    unsigned missing = 0;               // bits of the roles that have not been read
    const std::int8_t* int8 = nullptr;  // the weight, where it stays int8
  };

  Owner& owner_of(int tensor) noexcept { return owners_[static_cast<std::size_t>(tensor)]; }
  const Owner& owner_of(int tensor) const noexcept { return owners_[static_cast<std::size_t>(tensor)]; }
  Layer& layer_of(int op) noexcept { return layers_[static_cast<std::size_t>(op)]; }
  const Layer& layer_of(int op) const noexcept { return layers_[static_cast<std::size_t>(op)]; }
  bool stays_int8() const noexcept { return sink_.int8_place != nullptr; }
  bool is_integer(int op) const noexcept { return sink_.is_integer != nullptr && sink_.is_integer(sink_.self, op); }
  float* vector(int op, Role role) noexcept {
    return vectors_.data() + layer_of(op).vectors_at + std::int64_t{static_cast<int>(role)} * network_[op].out.c;
  }
  PartName name_of(const Op& op, const Part& part) const noexcept { return {op, part, traits_, imported_}; }

  /// Whether the file must have this part, given the layer's weight tensor or -1.
  bool needs(const Part& part, int weight) const noexcept {
    return imported_ || part.role != Role::scale || (weight >= 0 && header_[weight].dtype == Dtype::i8);
  }
  /// Whether a tensor is no layer's and nothing that a file may have besides.
  bool is_extra(int tensor) const noexcept {
    if (owner_of(tensor).op >= 0) return false;
    const TensorInfo& t = header_[tensor];
    const auto begins = [&t](const char* prefix) { return prefix != nullptr && starts_with(t.name, prefix); };
    if (is_part(network_)) return begins((network_.architecture() / "").text);  // all else is its neighbours'
    if (!imported_)
      return !begins("selftest.") && !begins(traits_.beside) && t.dtype != Dtype::u8 && !is_input_scale(t);
    return !begins(traits_.ignored) && !ends_with(t.name, "num_batches_tracked") &&
           std::strcmp(t.name, "facenet_untrained") != 0;
  }

  /// Format 2: what WeightsReader::input_scales() reads. It belongs to a convolution of the network.
  bool is_input_scale(const TensorInfo& t) const noexcept {
    if (!ends_with(t.name, input_scale_suffix)) return false;
    const std::size_t length = std::strlen(t.name) - std::strlen(input_scale_suffix);
    for (int i = 0; i < network_.size(); ++i) {
      const Name& name = network_[i].name;
      if (network_[i].kind == OpKind::conv && static_cast<std::size_t>(name.length) == length &&
          std::memcmp(name.text, t.name, length) == 0)
        return true;
    }
    return false;
  }

  /// Shape and dtype of one tensor are what its layer declares.
  Status check_tensor(int tensor) const noexcept {
    const Owner owner = owner_of(tensor);
    if (owner.op < 0) return {};
    const TensorInfo& t = header_[tensor];
    const Op& op = network_[owner.op];
    const bool is_weight = owner.role == Role::weight;
    const std::int64_t want[] = {op.out.c, in_channels(network_, op), op.window.kh, op.window.kw};
    const int rank = !is_weight ? 1 : op.kind == OpKind::linear ? 2 : 4;
    std::int64_t have[TensorInfo::max_rank] = {};
    bool same = t.rank == rank;
    for (int i = 0; i < t.rank; ++i) {
      have[i] = t.dims[i];
      same = same && have[i] == want[i];
    }
    if (!same) {
      Line where;
      where.add(t.name).add(" is ").shape(have, t.rank).add(", not ").shape(want, rank);
      return Status(Errc::weights_mismatch,
                    "a tensor's shape is not the network's: these weights are for another network")
          .in(where.text());
    }
    const bool scales = !imported_ && owner.role == Role::scale;
    if (is_weight && is_integer(owner.op) && t.dtype != Dtype::i8)
      return Status(Errc::weights_mismatch, "a layer with an input_scale must have I8 weights").in(t.name);
    if (is_weight && stays_int8() && (imported_ || t.dtype != Dtype::i8))
      return Status(Errc::weights_mismatch,
                    "weights that are to stay int8 must be int8 in the file: convert them with --dtype i8")
          .in(t.name);
    if (t.dtype == Dtype::f32 || (t.dtype == Dtype::f16 && !scales) ||
        (t.dtype == Dtype::i8 && is_weight && !imported_))
      return {};
    return Status(Errc::weights_mismatch,
                  "a layer's tensor cannot have this dtype: convert it with tools/convert_weights.py")
        .in(t.name);
  }

  Status read_again(Layer& layer) noexcept {
    const TensorInfo& t = header_[layer.weight];
    if (layer.int8 == nullptr) return file_.read(t, weight_.data(), nullptr);
    if (layer.int8 != reinterpret_cast<const std::int8_t*>(weight_.data())) return {};  // it stays where it is
    Xxh64 unused;
    return file_.read_int8(t, reinterpret_cast<std::int8_t*>(weight_.data()), unused, layer.int8);
  }
  /// -128 has no counterpart, and two products of it would not fit 16 bits.
  Status check_symmetric(const TensorInfo& t, const std::int8_t* x) const noexcept {
    const std::int64_t count = elements(t);
    for (std::int64_t i = 0; i < count; ++i)
      if (x[i] == -128)
        return Status(Errc::corrupt, "a quantised weight is -128: calibrate the weights again")
            .in(t.name)
            .at(file_.data_start + t.offset + i);
    return {};
  }

  Status list_differences() const noexcept {
    // What the place of a Status holds, less the file's name and the words around the lists.
    const std::size_t room = 383 - (path_length_ < 180 ? path_length_ : 180) - 60;
    Line missing, extra;
    bool any_extra = false;
    for (int i = 0; i < header_.size(); ++i) any_extra = any_extra || is_extra(i);
    for (int i = 0; i < network_.size(); ++i) {
      const Op& op = network_[i];
      if (!has_weights(op)) continue;
      for (const Part& part : parts(op.params, imported_)) {
        const PartName name = name_of(op, part);
        if (needs(part, layer_of(i).weight) && header_.find(name.text) < 0)
          missing.name(name.text, any_extra ? room / 2 : room);
      }
    }
    for (int i = 0; i < header_.size(); ++i)
      if (is_extra(i)) extra.name(header_[i].name, room - missing.length());
    missing.end_names();
    extra.end_names();
    Line all;
    if (*missing.text() != 0) all.add("missing ").add(missing.text());
    if (*extra.text() != 0) all.add(*all.text() != 0 ? "; extra " : "extra ").add(extra.text());
    return Status(Errc::weights_mismatch,
                  "the file's tensors are not the network's: these weights are for another network")
        .in(all.text());
  }

  /// Quantisation scales are above 0, variances not below.
  Status check_sign(const TensorInfo& t, const float* x, Role role) const noexcept {
    const bool scale = role == Role::scale && !imported_;
    if (!scale && role != Role::variance) return {};
    const std::int64_t count = elements(t);
    for (std::int64_t i = 0; i < count; ++i) {
      if (x[i] > 0 || (x[i] == 0 && !scale)) continue;
      return Status(Errc::corrupt, scale ? "a quantisation scale is not above 0" : "a running_var is below 0")
          .in(t.name)
          .at(file_.data_start + t.offset + i * (t.bytes / count));
    }
    return {};
  }

  /// Folds a layer in double, in place, and hands it over:
  /// w' = w * gamma / sqrt(var + eps), b' = beta - mean * gamma / sqrt(var + eps); int8: w' = q * scale.
  Status hand_over(int index, OwnedTeam* team) noexcept {
    const Op& op = network_[index];
    const std::size_t outputs = static_cast<std::size_t>(op.out.c);
    const std::size_t count = static_cast<std::size_t>(weight_count(network_, op)), row = count / outputs;
    float* const weight = weight_.data();
    float* const bias = vector(index, Role::bias);
    const float* const scale = vector(index, Role::scale);
    const float* const mean = vector(index, Role::mean);
    const float* const variance = vector(index, Role::variance);
    const bool batch_norm = imported_ && has_batch_norm(op.params);
    const Layer& layer = layer_of(index);
    const TensorInfo& t = header_[layer.weight];
    if (layer.int8 != nullptr) {
      for (std::size_t o = 0; o < outputs; ++o)
        if (!(scale[o] <= FLT_MAX / 128))
          return Status(Errc::corrupt, "a value becomes infinite when its scale is applied").in(t.name);
      return sink_.int8(sink_.self, index, layer.int8, {scale, outputs}, {bias, bias_count(op)});
    }
    if (batch_norm || t.dtype == Dtype::i8) {
      std::atomic<bool> finite{true};
      const double eps = traits_.batch_norm_eps;
      const auto fold = [&](std::size_t o) noexcept {
        double s = static_cast<double>(scale[o]);
        if (batch_norm) {
          s /= std::sqrt(static_cast<double>(variance[o]) + eps);
          bias[o] = static_cast<float>(static_cast<double>(bias[o]) - static_cast<double>(mean[o]) * s);
        }
        float* const w = weight + o * row;
        if (batch_norm)
          scale_f64(w, row, s);
        else
          scale_f32(w, row, scale[o]);  // a byte times a float: double would round to the same
        if (first_non_finite_f32(w, row) != row) finite.store(false, std::memory_order_relaxed);
      };
      if (team != nullptr)
        team->for_chunks(op.out.c, [&](int, int o) { fold(static_cast<std::size_t>(o)); });
      else
        for (std::size_t o = 0; o < outputs; ++o) fold(o);
      if (!finite.load(std::memory_order_relaxed) || first_non_finite_f32(bias, outputs) != outputs)
        return Status(Errc::corrupt, "a value becomes infinite when its scale is applied").in(t.name);
    }
    return sink_.floats(sink_.self, index, {weight, count}, {bias, bias_count(op)});
  }

  TensorReader& file_;
  const SafetensorsHeader& header_;
  const Network& network_;
  const FileTraits& traits_;
  const LayerSink& sink_;
  const bool imported_;
  const std::size_t path_length_;
  Buffer<Owner> owners_;  // by tensor
  Buffer<Layer> layers_;  // by operator
  Buffer<float> vectors_, weight_;
  int in_weight_ = -1;  // the operator whose weight, not folded yet, is in `weight_`
};

}  // namespace detail

FACENET_END
