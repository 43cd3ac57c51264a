// A plan as a table for people: what `facenet info --plan` prints. The only part of a plan that needs <cstdio>.
#pragma once

#include "facenet/plan/execute.hpp"

#if !defined(FACENET_NO_STDIO)

#  include <cstdio>

FACENET_SETUP_BEGIN

/// Calls line(const char*) for each line of a table of the choices: layer, shapes, algorithm, MACs, bytes, arena.
template <class F>
void describe(const Network& n, const Steps& steps, const ArenaLayout& layout, const PackedWeights& weights,
              F&& line) noexcept {
  char text[256];
  std::snprintf(text, sizeof text, "%s for %s, %s: tile %dx%d, %s weights", n.architecture().text, isa_name,
                parallel_name, simd::tile_rows, simd::panel,
                weights.keeps_int8() ? "int8"
                : weights.half       ? "half"
                                     : "float");
  line(text);
  std::snprintf(text, sizeof text, "%-30s %-13s %-13s %-15s %9s %9s %9s %s", "layer", "in", "out", "algorithm", "MMAC",
                "weights", "arena at", "batch");
  line(text);
  for (int i = 0; i < steps.size(); ++i) {
    const Step& s = steps[i];
    const Op& op = n[s.op];
    const Shape in = op.kind == OpKind::input ? op.out : n[op.inputs[0]].out;
    double mac = 0;
    for (int k = 0; k < s.segment_count; ++k) mac += static_cast<double>(macs(n, n[s.segment_ops[k]]));
    char layer[64], from[24], to[24];
    std::snprintf(layer, sizeof layer, s.segment_count > 1 ? "%s +%d" : "%s", op.name.text, s.segment_count - 1);
    std::snprintf(from, sizeof from, "%dx%dx%d", in.h, in.w, in.c);
    std::snprintf(to, sizeof to, "%dx%dx%d", op.out.h, op.out.w, s.is_conv() ? s.channels : op.out.c);
    const char* const algorithm = s.matrix_unit          ? "integer, AMX"
                                  : weights[i].pairs_fit ? step_name(n, s)
                                                         : "integer, words";
    std::snprintf(text, sizeof text, "%-30s %-13s %-13s %-15s %9.2f %9lld %9lld %s", layer, from, to, algorithm,
                  mac / 1e6, static_cast<long long>(weights[i].bytes),
                  static_cast<long long>(layout.block_of(s.op).offset * std::int64_t{sizeof(float)}),
                  s.per_batch ? "merged" : "by image");
    line(text);
  }
  std::snprintf(text, sizeof text, "%d steps, %.1f MMAC, weights %.1f MB, arena %.2f MB + %.2f MB an image",
                steps.size(), static_cast<double>(macs(n)) / 1e6, static_cast<double>(weights.values.size()) / 1e6,
                static_cast<double>(layout.single_size) * 4e-6, static_cast<double>(layout.per_batch_size) * 4e-6);
  line(text);
}

FACENET_SETUP_END

#endif
