// Which tensors of a weight file make a layer, by name.
#pragma once

#include "facenet/base/text.hpp"
#include "facenet/network.hpp"

FACENET_SETUP_BEGIN

namespace detail {

/// What a tensor is to its layer. The slopes come right after the biases: the two are handed out as one span.
enum class Role : std::uint8_t { bias, slope, scale, mean, variance, weight };
/// Roles that have one number for each output channel: all but the weight.
constexpr int channel_roles = static_cast<int>(Role::weight);
constexpr unsigned bit(Role r) noexcept { return 1u << static_cast<int>(r); }

/// One tensor of a layer: its name is the layer's, or its batch norm's, and this suffix.
struct Part {
  const char* suffix;
  Role role;
  bool of_batch_norm;
};

inline bool has_batch_norm(Params p) noexcept { return p == Params::conv_bn || p == Params::linear_bn; }

/// The tensors of a layer in an imported state_dict, or in a converted file.
FACENET_HIDDEN inline Span<const Part> parts(Params params, bool imported) noexcept {
  static constexpr Part converted[] = {{".weight", Role::weight, false},
                                       {".bias", Role::bias, false},
                                       {".weight_scale", Role::scale, false},
                                       {".slope", Role::slope, false}};
  static constexpr Part plain[] = {
      {".weight", Role::weight, false}, {".bias", Role::bias, false}, {".slope", Role::slope, false}};
  static constexpr Part with_batch_norm[] = {{".weight", Role::weight, false},
                                             {".bias", Role::bias, true},
                                             {".weight", Role::scale, true},
                                             {".running_mean", Role::mean, true},
                                             {".running_var", Role::variance, true}};
  if (imported && has_batch_norm(params)) return with_batch_norm;
  const Span<const Part> all = imported ? Span<const Part>(plain) : Span<const Part>(converted);
  return all.subspan(0, all.size() - (params == Params::bias_slope ? 0 : 1));  // the slopes come last
}

/// Of a convolution that runs in integers: F32 [1], or one for each input channel.
constexpr const char* input_scale_suffix = ".input_scale";

/// A tensor's whole name.
struct PartName {
  char text[Name::capacity + 32] = {};

  PartName(const Name& prefix, const char* suffix) noexcept {
    const auto length = static_cast<std::size_t>(prefix.length);
    std::memcpy(text, prefix.text, length);
    std::memcpy(text + length, suffix, std::strlen(suffix) + 1);
  }
  PartName(const Op& op, const Part& part, const FileTraits& traits, bool imported) noexcept
      : PartName(!imported            ? op.name
                 : part.of_batch_norm ? traits.batch_norm(op)
                                      : traits.layer(op),
                 part.suffix) {}
};

/// The network's traits, or the defaults.
FACENET_HIDDEN inline const FileTraits& traits_of(const Network& n) noexcept {
  static constexpr FileTraits defaults{};
  return n.traits() != nullptr ? *n.traits() : defaults;
}

}  // namespace detail

FACENET_SETUP_END
