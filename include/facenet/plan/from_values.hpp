// Plans from weights that a program makes itself, without a file: for tests, benchmarks and tools.
#pragma once
#include "facenet/base/macros_push.inc"

#include "facenet/plan.hpp"

FACENET_BEGIN

namespace detail {

/// Packs operator `op` with floats that fill(op, weights, biases) writes.
template <class F>
Status pack_filled(const Network& n, int op, WeightPacker& packer, PackingTeam& team, F&& fill) noexcept {
  Buffer<float> w, b;
  FACENET_TRY(allocate(w, static_cast<std::size_t>(weight_count(n, n[op])), true));
  FACENET_TRY(allocate(b, bias_count(n[op]), true));
  fill(op, w.span(), b.span());
  packer.pack_layer(op, w.data(), b.data(), team);
  return {};
}

}  // namespace detail

/// fill(op, weights, bias) is called for each weighted operator and fills its OIHW weights, and its biases, which
/// PReLU's slopes follow. Errors: out_of_memory, unsupported, invalid_argument.
template <class F>
Result<Plan> compile_with(const Network& n, PlanOptions options, F&& fill) noexcept {
  return Plan::compile_packed(
      n, options,
      [&](const Network& network, const Quantisation& q, const Steps& steps, Memory memory) -> Result<PackedWeights> {
        detail::WeightPacker packer(network, q, steps, options);
        FACENET_TRY(packer.reserve(false, memory));
        detail::PackingTeam team;
        FACENET_TRY(team.start(options.threads, {}));
        for (int i = 0; i < network.size(); ++i)
          if (has_weights(network[i])) FACENET_TRY(detail::pack_filled(network, i, packer, team, fill));
        return packer.take();
      });
}

/// Compiles with int8 weights: fill(op, weights, scales, biases) points at values, which must outlive the plan.
template <class F>
Result<Plan> compile_int8_with(const Network& n, PlanOptions options, F&& fill) noexcept {
  options.int8_weights = true;
  return Plan::compile_packed(
      n, options,
      [&](const Network& network, const Quantisation& q, const Steps& steps, Memory memory) -> Result<PackedWeights> {
        detail::WeightPacker packer(network, q, steps, options);
        FACENET_TRY(packer.reserve(true, memory));
        for (int i = 0; i < network.size(); ++i) {
          if (!has_weights(network[i])) continue;
          const std::int8_t* weights = nullptr;
          Span<const float> scales, biases;
          fill(i, weights, scales, biases);
          packer.keep_layer(i, weights, scales, biases);
        }
        return packer.take();
      });
}

#if !defined(FACENET_NO_INTEGER)
/// Compiles for integer arithmetic: scales(op, room, count) as for quantise(); fill_int8(op, weights, scales, biases)
/// as above for integer layers, whose values are only read; fill(op, weights, biases) for the others.
template <class Scales, class FillInt8, class Fill>
Result<Plan> compile_integer_with(const Network& n, PlanOptions options, const InputBytes& input, Scales&& scales,
                                  FillInt8&& fill_int8, Fill&& fill) noexcept {
  options.arithmetic = Arithmetic::int8;
  return Plan::compile_packed(
      n, options,
      [&](const Network& network, const Quantisation& q, const Steps& steps, Memory memory) -> Result<PackedWeights> {
        detail::WeightPacker packer(network, q, steps, options);
        FACENET_TRY(packer.reserve(false, memory));
        detail::PackingTeam team;
        FACENET_TRY(team.start(options.threads, {}));
        for (int i = 0; i < network.size(); ++i) {
          if (!has_weights(network[i])) continue;
          if (!q.integer(i)) {
            FACENET_TRY(detail::pack_filled(network, i, packer, team, fill));
            continue;
          }
          const std::int8_t* weights = nullptr;
          Span<const float> factors, biases;
          fill_int8(i, weights, factors, biases);
          FACENET_TRY(packer.pack_integer_layer(i, weights, factors, biases, team));
        }
        return packer.take();
      },
      [&](const Network& network, Memory memory) { return quantise(network, input, scales, memory); });
}
#endif

FACENET_END

#include "facenet/base/macros_pop.inc"
