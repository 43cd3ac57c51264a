#!/usr/bin/env python3
"""Builds the consumers of tests/consumers in every configuration the engine is meant for, runs them, and prints a table.

Each embeds one picture with the same int8 weights, and must give PyTorch's float64 embedding (of those weights) to 3e-6;
its unit may not print, end the program, or use what the configuration has not. Rows are kept as
build/constrained_builds/NAME.json; those that other scripts put there are part of the table (build/constrained_builds.md), too:
  {"configuration": …, "built": …, "ran": …, "size_kb": …, "compile_s": …, "ms": …, "peak_mb": …, "note": …}
compile_s is the processor's time for the unit that includes the library; ms the median of five, as the machine was then.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import facenet_tools  # noqa: F401 (first: it picks the Python that has torch)
import numpy as np
import torch
from PIL import Image
from safetensors.numpy import load_file

from facenet_tools import activations, checkpoint, rounding

ROOT = pathlib.Path(__file__).resolve().parents[1]
CONSUMERS = ROOT / "tests/consumers"
sys.path.insert(0, str(CONSUMERS))
import symbols  # noqa: E402

OUT = ROOT / "build/constrained_builds"
WEIGHTS = ROOT / "build/golden/weights512_i8.safetensors"
DETECTOR = ROOT / "build/golden/mtcnn.safetensors"
PORTRAIT = ROOT / ".deps/samples/astronaut.png"
ZIG = ROOT / ".deps/zig/zig"
TOLERANCE = 3e-6  # docs/parity.md: embeddings against float64
STRICT = "-Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow -Werror"
# Contraction would give other bits in other compilers, though not worse ones.
COMMON = "-O2 -DNDEBUG -ffp-contract=off -ffunction-sections -fdata-sections"
# What a unit may take to compile, in times of doctest's own unit, compiled beside it: seconds double where others use the
# machine. The smallest program takes 2.45 (12.3 s on a busy machine; the goal is 6 s on a quiet one), the umbrella alone 0.7.
# The machine's load changes between the two, so one of three pairs has to hold.
SMALLEST_RATIO, UMBRELLA_RATIO, PAIRS = 2.7, 1.0, 3


class Failed(Exception):
    """One configuration's failure, in a sentence."""


@dataclasses.dataclass(frozen=True)
class Config:
    name: str
    flags: str = ""
    unit: str = "embed.cpp"
    compiler: str = "g++"
    standard: str = "c++17"
    target: str = ""                      # zig's
    linked: bool = False                  # the weights are in the program
    extra: tuple[str, ...] = ()           # other units of the program
    link: str = ""
    xsimd: bool = True
    program: bool = True                  # False: compiled only
    runs: bool = True
    faces: bool = False                   # the detector and a gallery too
    forbidden: tuple[str, ...] = ()
    size_kb: float | None = None          # limits
    peak_mb: float | None = None
    compile_ratio: float | None = None    # to doctest's unit


SERIAL = "-DFACENET_PARALLEL_SERIAL"
# Such a unit needs nothing of a C++ library but headers: it is linked by the C compiler, which has none.
FREESTANDING = f"{SERIAL} -fno-exceptions -fno-rtti"
CONFIGS = (
    Config("umbrella included, not used", unit="include.cpp", program=False, compile_ratio=UMBRELLA_RATIO),
    Config("smallest program", SERIAL, forbidden=(symbols.ALLOCATES, symbols.THREADS), size_kb=400, compile_ratio=SMALLEST_RATIO),
    Config("std::thread pool", "-pthread"),
    Config("OpenMP, this CPU", "-fopenmp -march=native", forbidden=(symbols.ALLOCATES,)),
    Config("AVX2", f"{SERIAL} -mavx2 -mfma -mf16c"),
    Config("C++20", SERIAL, standard="c++20"),
    Config("Clang 14", SERIAL, compiler="clang++-14"),
    Config("no exceptions, no RTTI", FREESTANDING,
          forbidden=(symbols.THROWS, symbols.ALLOCATES), faces=True),
    Config("no files, no stdio, weights in the program", f"{FREESTANDING} -DFACENET_NO_STDIO -DCONSUMER_WEIGHTS",
          linked=True, forbidden=(symbols.FILES, symbols.ALLOCATES), faces=True),
    Config("arena, no malloc, int8 in the program", f"{FREESTANDING} -DFACENET_NO_STDIO -march=native",
          unit="arena.cpp", linked=True, extra=("count_malloc.c",),
          forbidden=(symbols.FILES, symbols.ALLOCATES), peak_mb=48, faces=True),
    Config("small memory: int8 kept", f"{SERIAL} -DCONSUMER_INT8 -march=native", peak_mb=48),
    Config("no xsimd: scalar", f"{SERIAL} -DFACENET_SCALAR", xsimd=False),
    Config("one file", f"{SERIAL} -march=native", unit="embed.cpp"),
    Config("macros of windows.h", f"{SERIAL} -DFACENET_SCALAR -DCONSUMER_MACROS", xsimd=False),
    Config("every header, strict warnings", STRICT, unit="warnings.cpp", program=False),
    Config("every header, strict warnings, Clang, C++20", STRICT, unit="warnings.cpp", compiler="clang++-14",
          standard="c++20", program=False),
    Config("musl", FREESTANDING, compiler="zig", target="x86_64-linux-musl", link="-static", faces=True),
    Config("32 bits, musl", f"{FREESTANDING} -msse2 -mfpmath=sse", compiler="zig", target="x86-linux-musl", link="-static", faces=True),
    Config("Windows", FREESTANDING, compiler="zig", target="x86_64-windows-gnu", runs=False, faces=True),
    Config("Windows, with threads", compiler="zig", target="x86_64-windows-gnu", runs=False),
    Config("macOS", FREESTANDING, compiler="zig", target="aarch64-macos", runs=False, faces=True),
)


def slug(name: str) -> str:
    return re.sub(r"\W+", "-", name.lower()).strip("-")


def compilers_of(config: Config) -> tuple[list[str], list[str]]:
    """The C++ and the C compiler."""
    if config.compiler == "zig":
        if not ZIG.exists():
            raise LookupError("zig is not there (tools/bootstrap.sh --all)")
        return [str(ZIG), "c++", "-target", config.target], [str(ZIG), "cc", "-target", config.target]
    c = {"g++": "gcc", "clang++-14": "clang-14"}[config.compiler]
    for program in (config.compiler, c):
        if shutil.which(program) is None:
            raise LookupError(f"{program} is not installed (tools/bootstrap.sh --all)")
    return [config.compiler], [c]


def run(command: list[str], what: str) -> tuple[str, float]:
    """The command's output, and its seconds of processor time."""
    environment = os.environ | {"ZIG_GLOBAL_CACHE_DIR": str(ROOT / "build/zig-cache"), "LC_ALL": "C"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment) as process:
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise Failed(f"{what} failed (status {process.returncode}): {' '.join(command)}\n{output[-3000:]}")
    return output, usage.ru_utime + usage.ru_stime


def prepare() -> dict[str, pathlib.Path]:
    """What several configurations need: the one file, a list of headers, the weights as assembler, the picture, its embedding."""
    OUT.mkdir(parents=True, exist_ok=True)
    for needed in (WEIGHTS, DETECTOR):
        if not needed.exists():
            sys.exit(f"constrained_builds.py: {needed}: is not there; tools/test.sh makes it.")
    made = {"one": OUT / "one_file.hpp", "assembler": OUT / "weights.S", "pixels": OUT / "picture.rgb"}
    python = sys.executable
    run([python, str(ROOT / "tools/amalgamate.py"), "-o", str(made["one"])], "tools/amalgamate.py")
    run([python, str(ROOT / "tools/embed_weights.py"), str(WEIGHTS), "-o", str(made["assembler"])], "tools/embed_weights.py")
    headers = sorted((ROOT / "include").rglob("*.hpp"))
    (OUT / "all_headers.hpp").write_text(
        "".join(f'#include "{path.relative_to(ROOT / "include").as_posix()}"\n' for path in headers
                if "base/simd/" not in path.as_posix()))  # pages, each for one ISA
    (OUT / "include.cpp").write_text('#include "facenet/facenet.hpp"\n')
    picture = activations.golden_picture()
    made["pixels"].write_bytes(picture.tobytes())
    made["portrait"] = OUT / "portrait.rgb"  # of 160 pixels, with one face
    made["portrait"].write_bytes(Image.open(PORTRAIT).convert("RGB").crop((100, 0, 356, 256)).resize((160, 160)).tobytes())
    tensors = load_file(WEIGHTS)
    state = rounding.state_of(tensors, int(tensors["last_linear.bias"].size))
    model = checkpoint.build_model(int(tensors["last_linear.bias"].size)).double()
    model.load_state_dict(state, strict=False)  # it has no counters of batches
    with torch.no_grad():
        np.save(OUT / "embedding.npy", activations.embed(model, picture[None], torch.float64)[0])
    return made


def hold_compile_time(ratio: float, seconds: float, call: list[str], doctest: list[str]) -> None:
    """`seconds`: what `call` took just now."""
    for pair in range(PAIRS):
        if pair > 0:
            _, seconds = run(call, "compiling")
        _, reference = run(doctest, "compiling")
        if seconds <= ratio * reference:
            return
    raise Failed(f"the unit takes {seconds:.1f} s to compile, over {ratio} times doctest's {reference:.1f} s, {PAIRS} times in turn")


def build(config: Config, made: dict[str, pathlib.Path]) -> tuple[pathlib.Path | None, dict]:
    """The program (None: compiled only), and the row so far."""
    folder = OUT / slug(config.name)
    folder.mkdir(exist_ok=True)
    cpp, c = compilers_of(config)
    header = made["one"] if config.name == "one file" else "facenet/facenet.hpp"
    common = [*COMMON.split(), f"-I{CONSUMERS}", f"-I{OUT}", *(["-DCONSUMER_FACES"] if config.faces else [])]
    headers = [f"-I{ROOT / 'include'}", *([f"-isystem{ROOT / '.deps/include'}"] if config.xsimd else [])]
    source = OUT / config.unit if config.unit == "include.cpp" else CONSUMERS / config.unit
    unit = folder / "unit.o"
    call = [*cpp, f"-std={config.standard}", *common, *headers, *config.flags.split(), f'-DCONSUMER_HEADER="{header}"', "-c", str(source),
            "-o", str(unit)]
    _, seconds = run(call, "compiling")
    built = f"{config.compiler} {config.standard} {config.target or config.flags.replace(STRICT, '-Wall … -Werror')}"
    row = {"configuration": config.name, "built": built.strip()}
    if seconds >= 0.5:  # zig keeps what it has compiled before
        row["compile_s"] = round(seconds, 1)
    if config.compile_ratio is not None:
        doctest = [*cpp, f"-std={config.standard}", "-O2", "-c", str(ROOT / "tests/doctest_main.cpp"), "-o", str(folder / "doctest.o")]
        hold_compile_time(config.compile_ratio, seconds, call, doctest)
    if not config.target.startswith(("x86_64-windows", "aarch64-macos")):
        found = sorted(s for s in symbols.undefined(unit) if symbols.forbidden(*config.forbidden).fullmatch(s))
        if found:
            raise Failed(f"the unit asks the linker for {', '.join(found[:8])}")
    if not config.program:
        return None, row | {"ran": "compiled"}
    objects = [str(unit)]
    for other in ("main.c", *config.extra):
        objects.append(str(folder / f"{other}.o"))
        run([*c, "-std=gnu11", *common, "-c", str(CONSUMERS / other), "-o", objects[-1]], f"compiling {other}")
    if config.linked:
        objects.append(str(folder / "weights.o"))
        run([*c, "-c", str(made["assembler"]), "-o", objects[-1]], "assembling the weights")
    program = folder / ("consumer.exe" if "windows" in config.target else "consumer")
    threads = [flag for flag in config.flags.split() if flag in ("-fopenmp", "-pthread")]
    garbage = [] if "macos" in config.target else ["-Wl,--gc-sections"]
    linker = [*c, *objects, "-lm"] if FREESTANDING in config.flags else [*cpp, *objects]
    run([*linker, *threads, *config.link.split(), *garbage, "-s", "-o", str(program)], "linking")
    size = program.stat().st_size - (WEIGHTS.stat().st_size if config.linked else 0)
    row["size_kb"] = round(size / 1000)
    if config.size_kb is not None and size > 1000 * config.size_kb:
        raise Failed(f"the program is {size / 1000:.0f} KB, over {config.size_kb:.0f}")
    return program, row


def execute(config: Config, program: pathlib.Path, row: dict, made: dict[str, pathlib.Path]) -> dict:
    faces = ["5", str(DETECTOR), str(made["portrait"]), "160", "160"] if config.faces else []
    output, _ = run([str(program), str(WEIGHTS), str(made["pixels"]), *faces], "running")
    values = {key: rest for key, _, rest in (line.partition(" ") for line in output.splitlines())}
    want, got = np.load(OUT / "embedding.npy"), np.array(values["embedding"].split(), dtype=np.float64)
    error = float(np.abs(got - want).max()) if got.shape == want.shape else float("inf")
    if not error <= TOLERANCE:
        raise Failed(f"the embedding is {error:.1e} from float64's, over {TOLERANCE:.0e}")
    if config.faces and values["faces"] != "1":
        raise Failed(f"the detector finds {values['faces']} faces in the portrait of one")
    peak = int(values["peak_kb"]) / 1000
    if config.peak_mb is not None and not 0 < peak <= config.peak_mb:
        raise Failed(f"one embedding took {peak:.1f} MB of memory, over {config.peak_mb:.0f}")
    return row | {"ran": f"yes, error {error:.1e}", "ms": float(values["ms"]), "peak_mb": round(peak, 1), "note": values["note"]}


def table() -> str:
    order = {config.name: number for number, config in enumerate(CONFIGS)}
    rows = [json.loads(path.read_text()) for path in OUT.glob("*.json")]
    rows.sort(key=lambda row: (order.get(row["configuration"], len(order)), row["configuration"]))
    columns = {"configuration": "configuration", "built": "built", "ran": "ran", "size_kb": "size, KB", "compile_s": "compiled in, s",
               "ms": "one embedding, ms", "peak_mb": "memory, MB", "note": "note"}
    lines = ["| " + " | ".join(columns.values()) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        lines.append("| " + " | ".join(str(row.get(key, "")).replace("|", "/") for key in columns) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help="only configurations whose name contains this")
    add("--table", action="store_true", help="only print the table of the rows that are there")
    arguments = parser.parse_args()
    chosen = [config for config in CONFIGS if not arguments.names or any(name in config.name for name in arguments.names)]
    failures, skipped = [], []
    if not arguments.table:
        made = prepare()
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            jobs = {config: pool.submit(build, config, made) for config in chosen}
        for config, job in jobs.items():  # one at a time, when the compilers are done
            kept = OUT / f"{slug(config.name)}.json"
            kept.unlink(missing_ok=True)
            try:
                program, row = job.result()
                if program is not None:
                    row = execute(config, program, row, made) if config.runs else row | {"ran": "no: not this machine's"}
                kept.write_text(json.dumps(row))
            except LookupError as error:
                skipped.append(f"{config.name}: {error}")
            except Failed as error:
                failures.append(config.name)
                print(f"constrained_builds.py: {config.name}: {error}", file=sys.stderr)
    text = table()
    (ROOT / "build/constrained_builds.md").write_text(text)
    print(text)
    for line in skipped:
        print(f"skipped: {line}")
    print(f"constrained builds: {len(chosen) - len(failures) - len(skipped)} passed, {len(failures)} failed, {len(skipped)} skipped")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
