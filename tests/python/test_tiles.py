"""The register tiles stay in registers: no vector goes through the stack in the loop over k, on any ISA.

kernels/gemm.hpp asserts the tile's own arithmetic; what a compiler makes of it only its code shows. GCC 12 kept two
sums of a 6x16 tile on NEON64 on the stack, though 29 of 32 registers seemed enough."""

from __future__ import annotations

import pathlib
import re
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPENDENCIES = ["-isystem", str(ROOT / ".deps/include")] if (ROOT / ".deps/include").exists() else []
SOURCE = """#include "facenet/kernels/conv.hpp"
namespace facenet { inline namespace FACENET_ABI { namespace kernels {
constexpr std::size_t rows = simd::tile_rows, vectors = simd::tile_vectors;
#define TILE(W) template void tile<BiasRelu, rows, vectors, W>(const float* const*, Runs, const W*, const float*, \\
                                                               float* const*, int, PrefetchCursor) noexcept;
TILE(float)
#if defined(FACENET_ISA_NEON64) || defined(FACENET_ISA_AVX512) || defined(__F16C__)
TILE(Half)
#endif
}}}
"""
INTEGER_SOURCE = """#include "facenet/kernels/integer_gemm.hpp"
namespace facenet { inline namespace FACENET_ABI { namespace kernels {
template void integer_tile<WAY, std::size_t{WAY::rows}, std::size_t{simd::integer::tile_vectors}>(
    const Activation* const*, Runs, const std::int8_t*, const float*, std::int32_t*, PrefetchCursor) noexcept;
}}}
"""
# ISA: compiler, flags, the instruction of a product, a vector on the stack, products in the loop over k.
X86_SPILL = r"%[xyz]mm\d+.*\(%[er][sb]p\)|\(%[er][sb]p\).*%[xyz]mm\d+"
ISAS = {
    "sse2": ("g++", ["-msse2"], r"mulps", X86_SPILL, 6 * 2),
    "sse4": ("g++", ["-msse4.2"], r"mulps", X86_SPILL, 6 * 2),
    "avx2": ("g++", ["-mavx2", "-mfma", "-mf16c"], r"vfmadd\w+ps", X86_SPILL, 6 * 2),
    "avx512": ("g++", ["-march=x86-64-v4"], r"vfmadd\w+ps", X86_SPILL, 12 * 2),
    "neon64": ("aarch64-linux-gnu-g++", ["-Wno-psabi"], r"fmla", r"\b[qdsv]\d+\b.*\[sp", 8 * 2),
}

INTEGER_ISAS = {
    "sse2": ("g++", ["-msse2"], r"pmaddwd", X86_SPILL, 6 * 2),
    "sse4": ("g++", ["-msse4.2"], r"pmaddubsw", X86_SPILL, 5 * 2),
    "sse4, any weights": ("g++", ["-msse4.2"], r"pmaddwd", X86_SPILL, 2 * 3 * 2),
    "avx2": ("g++", ["-mavx2", "-mfma", "-mf16c"], r"vpmaddubsw", X86_SPILL, 5 * 2),
    "avx2, any weights": ("g++", ["-mavx2", "-mfma", "-mf16c"], r"vpmaddwd", X86_SPILL, 2 * 3 * 2),
    "avxvnni": ("g++", ["-mavx2", "-mfma", "-mf16c", "-mavxvnni"], r"(\{vex\} )?vpdpbusd", X86_SPILL, 6 * 2),
    "avx512bw": ("g++", ["-march=x86-64-v4"], r"vpmaddwd", X86_SPILL, 10 * 2),
    "avx512vnni": ("g++", ["-march=x86-64-v4", "-mavx512vnni"], r"vpdpbusd", X86_SPILL, 10 * 2),
    "neon": ("aarch64-linux-gnu-g++", ["-Wno-psabi"], r"smlal2?\b", r"\b[qdsv]\d+\b.*\[sp", 4 * 2),
    "dotprod": ("aarch64-linux-gnu-g++", ["-march=armv8.2-a+dotprod"], r"sdot", r"\b[qdsv]\d+\b.*\[sp", 8 * 2),
    "i8mm": ("aarch64-linux-gnu-g++", ["-march=armv8.2-a+dotprod+i8mm"], r"usdot", r"\b[qdsv]\d+\b.*\[sp", 8 * 2),
}


def loops(assembly: str) -> list[list[str]]:
    """The instructions between each label and a jump back to it, the innermost loops only."""
    found, start = [], {}
    lines = [line.strip() for line in assembly.splitlines()]
    for number, line in enumerate(lines):
        if label := re.match(r"(\.L\w+):", line):
            start[label[1]] = number
        elif (jump := re.match(r"(?:j|b\.?|cb|tb)\w*\s.*?(\.L\w+)$", line)) and jump[1] in start:
            body = lines[start[jump[1]]:number]
            if not any(inner in body[1:] for inner in (f"{name}:" for name in start)):
                found.append(body)
    return found


def tiles_of(source: str, compiler: str, flags: list[str], product: str, products: int) -> list[list[str]]:
    """The loops over k of the tiles that a compiler makes of the source."""
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed (tools/bootstrap.sh --all)")
    command = [compiler, "-std=c++17", "-O2", "-DNDEBUG", "-ffp-contract=off", *flags, f"-I{ROOT / 'include'}",
               *DEPENDENCIES, "-S", "-x", "c++", "-", "-o", "-"]
    done = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:4000]
    return [body for body in loops(done.stdout) if sum(bool(re.match(product, line)) for line in body) >= products]


@pytest.mark.slow
@pytest.mark.parametrize("isa", ISAS)
def test_no_vector_goes_through_the_stack(isa: str) -> None:
    compiler, flags, product, spill, products = ISAS[isa]
    tiles = tiles_of(SOURCE, compiler, flags, product, products)
    assert len(tiles) == (1 if isa.startswith("sse") else 2), "the loop over k is not where this test looks for it"
    assert not [line for body in tiles for line in body if re.search(spill, line)]


@pytest.mark.slow
@pytest.mark.parametrize("isa", INTEGER_ISAS)
def test_no_integer_vector_goes_through_the_stack(isa: str) -> None:
    compiler, flags, product, spill, products = INTEGER_ISAS[isa]
    way = "AnyWeights" if isa.endswith("any weights") else "FittingPairs"
    tiles = tiles_of(INTEGER_SOURCE.replace("WAY", way), compiler, flags, product, products)
    assert len(tiles) == 1, "the loop over k is not where this test looks for it"
    assert not [line for line in tiles[0] if re.search(spill, line)]
