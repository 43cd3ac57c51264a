// The register tiles are two fifths of the code of a unit that embeds: compiled once (tiles.cpp) for all units of a
// program that are compiled with the same flags. A unit that lacks this header has its own, and the linker keeps one of
// each.
#pragma once

#include "facenet/kernels/gemm.hpp"

#ifndef FACENET_TILES
#  define FACENET_TILES extern template
#endif

#define FACENET_TILE(E, MR, NV, W) \
  FACENET_TILES void tile<E, MR, NV, W>(const float* const*, Runs, const W*, const float*, float* const*, int, \
                                        PrefetchCursor) noexcept;
// clang-format would make a line of each tile, one more each time.
// clang-format off
#define FACENET_TILES_6(E, NV, W) \
  FACENET_TILE(E, 1, NV, W) FACENET_TILE(E, 2, NV, W) FACENET_TILE(E, 3, NV, W) \
  FACENET_TILE(E, 4, NV, W) FACENET_TILE(E, 5, NV, W) FACENET_TILE(E, 6, NV, W)
#if defined(FACENET_ISA_AVX512)
#  define FACENET_TILES_OF(E, NV, W) \
    FACENET_TILES_6(E, NV, W) \
    FACENET_TILE(E, 7, NV, W) FACENET_TILE(E, 8, NV, W) FACENET_TILE(E, 9, NV, W) \
    FACENET_TILE(E, 10, NV, W) FACENET_TILE(E, 11, NV, W) FACENET_TILE(E, 12, NV, W)
#elif defined(FACENET_ISA_AVX2)
#  define FACENET_TILES_OF(E, NV, W) FACENET_TILES_6(E, NV, W)
#else  // each unit has its own
#  define FACENET_TILES_OF(E, NV, W)
#endif
// clang-format on
#if defined(__F16C__)
#  define FACENET_TILES_WIDE(E) FACENET_TILES_OF(E, 2, float) FACENET_TILES_OF(E, 2, Half)
#else
#  define FACENET_TILES_WIDE(E) FACENET_TILES_OF(E, 2, float)
#endif

FACENET_BEGIN
namespace kernels {

FACENET_TILES_OF(Bias, 1, float)
FACENET_TILES_OF(BiasRelu, 1, float)
FACENET_TILES_OF(BiasPRelu, 1, float)
FACENET_TILES_WIDE(Plain)
FACENET_TILES_WIDE(Bias)
FACENET_TILES_WIDE(BiasRelu)
FACENET_TILES_WIDE(BiasPRelu)
FACENET_TILES_WIDE(BiasResidual)
FACENET_TILES_WIDE(BiasResidualRelu)

}  // namespace kernels
FACENET_END
