"""The engine's headers keep to the ladder of HACKING.md, stand alone, and neither print nor end the program."""

from __future__ import annotations

import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/consumers"))
import symbols  # noqa: E402

INCLUDE = ROOT / "include"
HEADERS = sorted(path.relative_to(INCLUDE / "facenet").with_suffix("").as_posix()
                 for path in (INCLUDE / "facenet").rglob("*.hpp"))
DEPENDENCIES = [f"-isystem{ROOT / '.deps/include'}"] if (ROOT / ".deps/include").exists() else []
COMPILER = [shutil.which("g++") or "c++", "-std=c++17", f"-I{INCLUDE}", *DEPENDENCIES, "-x", "c++"]
STRICT = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wsign-conversion", "-Wshadow", "-Werror"]


def text_of(header: str) -> str:
    return (INCLUDE / "facenet" / f"{header}.hpp").read_text()


def code_of(header: str) -> str:
    """The header with comments blanked out, line by line the same."""
    blank = lambda match: re.sub(r"[^\n]", " ", match[0])
    return re.sub(r"//[^\n]*|/\*.*?\*/", blank, text_of(header), flags=re.DOTALL)


def compile_source(source: str, *flags: str) -> None:
    done = subprocess.run([*COMPILER, *flags, "-"], input=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:4000]


# ---- The ladder ------------------------------------------------------------------------------------------------------


def ladder() -> dict[str, tuple[int, int]]:
    """Each name of HACKING.md's table: its layer, and its place in the row. Lower ones may be included."""
    section = (ROOT / "HACKING.md").read_text().split("## Layers", 1)[1].split("\n## ", 1)[0]
    places = {}
    for layer, names in re.findall(r"^\| (\d+) \| (.*) \|$", section, re.MULTILINE):
        for place, name in enumerate(re.findall(r"`([^`]+)`", names)):
            assert name not in places, f"{name} is in the table twice"
            places[name] = (int(layer), place)
    return places


def rank(header: str, places: dict[str, tuple[int, int]]) -> tuple[int, int] | None:
    return places.get(header) or places.get(f"{pathlib.PurePosixPath(header).parent}/*")


def ladder_errors(includes: dict[str, list[str]], places: dict[str, tuple[int, int]]) -> list[str]:
    errors = [f"{header} is not in the table of HACKING.md" for header in includes if rank(header, places) is None]
    for header, lower in includes.items():
        mine = rank(header, places)
        for other in lower:
            theirs = rank(other, places)
            if mine is not None and theirs is not None and not theirs < mine:
                errors.append(f"{header} (layer {mine[0]}) includes {other} (layer {theirs[0]}), which is not below it")
    return errors


def includes_of(header: str) -> list[str]:
    return re.findall(r'^\s*#\s*include\s+["<]facenet/([\w/]+)\.hpp[">]', code_of(header), re.MULTILINE)


def test_headers_include_only_lower_layers() -> None:
    assert not ladder_errors({header: includes_of(header) for header in HEADERS}, ladder())


def test_quoted_includes_name_the_project_directory() -> None:
    """`#include "conv.hpp"` would pass by the ladder unseen."""
    wrong = [f"{header}: {line}" for header in HEADERS
             for line in re.findall(r'^\s*#\s*include\s+"(?!facenet/).*', code_of(header), re.MULTILINE)]
    assert not wrong


@pytest.mark.parametrize(("header", "included", "part"), [
    ("memory", "plan", "memory (layer 1) includes plan (layer 4)"),
    ("image_scan", "image_io", "image_scan (layer 5) includes image_io (layer 5)"),
    ("models/mtcnn", "models/inception_resnet_v1", "which is not below it"),
    ("no_such_header", "status", "no_such_header is not in the table"),
])
def test_a_broken_ladder_is_seen(header: str, included: str, part: str) -> None:
    assert part in "\n".join(ladder_errors({header: [included]}, ladder()))


# ---- Each header alone ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", HEADERS)
def test_header_compiles_alone(header: str) -> None:
    compile_source(f'#include "facenet/{header}.hpp"\n', *STRICT, "-fsyntax-only")


def test_headers_compile_without_exceptions_and_rtti() -> None:
    source = "".join(f'#include "facenet/{header}.hpp"\n' for header in HEADERS)
    compile_source(source, *STRICT, "-fno-exceptions", "-fno-rtti", "-fsyntax-only")


# ---- One door to SIMD, one to threads -----------------------------------------------------------------------------------

SIMD = r"\bxsimd\b|\b_mm\d*_\w+|\b__m(?:128|256|512)\w*|\bv(?:ld|st)\d\w*_\w+|\bwasm_\w+|<\w*intrin\.h>|<arm_neon\.h>"
THREADS = r"#\s*pragma\s+omp|\bomp_\w+|<omp\.h>|\bstd::j?thread\b|\bstd::async\b|<thread>|\bpthread_\w+"


def uses(pattern: str, code: str) -> list[str]:
    return [f"line {code.count(chr(10), 0, match.start()) + 1}: {match[0]}" for match in re.finditer(pattern, code)]


@pytest.mark.parametrize(("pattern", "door"), [(SIMD, "simd"), (THREADS, "parallel")], ids=["simd", "threads"])
def test_only_one_header_knows(pattern: str, door: str) -> None:
    found = {header: uses(pattern, code_of(header)) for header in HEADERS}
    assert found.pop(door), "the pattern finds nothing even where it must"
    assert not {header: lines for header, lines in found.items() if lines}


# ---- Nothing prints, nothing ends the program ----------------------------------------------------------------------------

EMBEDDER = """\
#include "facenet/facenet.hpp"
int use(const char* path, const unsigned char* pixels, float* out) {
  auto embedder = facenet::Embedder::load(path);
  if (!embedder) return 1;
  return embedder->embed(facenet::ImageView(pixels, 160, 160, 480, facenet::ChannelOrder::rgb), out).ok() ? 0 : 1;
}
"""
TEAM = """\
#include "facenet/parallel.hpp"
bool use(facenet::Team& team, int* out) {
  if (!team.start(facenet::default_threads()).ok()) return false;
  team.run([&](int member, int) { out[member] = member; team.barrier(); });
  return true;
}
"""
FORBIDDEN = symbols.forbidden()


def undefined_symbols(source: str, folder: pathlib.Path, *flags: str) -> set[str]:
    output = folder / "unit.o"
    compile_source(source, "-O2", "-fno-exceptions", *flags, "-c", "-o", str(output))
    return symbols.undefined(output)


# The whole engine once: it takes 5 s. The other two ways of threading differ from it in parallel.hpp alone.
@pytest.mark.parametrize(("source", "flags", "must_call"), [
    (EMBEDDER, ["-DFACENET_PARALLEL_POOL"], "fread"),
    (TEAM, ["-fopenmp"], "GOMP_parallel"),
    (TEAM, ["-DFACENET_PARALLEL_SERIAL"], None),
], ids=["embedder", "openmp", "serial"])
def test_nothing_prints_or_ends_the_program(source: str, flags: list[str], must_call: str | None,
                                            tmp_path: pathlib.Path) -> None:
    symbols = undefined_symbols(source, tmp_path, *flags)
    assert must_call is None or must_call in symbols, "the unit does not reach what it is here for"
    assert not {symbol for symbol in symbols if FORBIDDEN.fullmatch(symbol)}


@pytest.mark.parametrize("statement", [
    "std::abort();", "std::exit(n);", 'std::printf("%d", n);', 'std::puts("x");', "std::cout << n;", "std::cerr << n;",
    'std::fprintf(stderr, "%d", n);', "assert(n == 1);",
])
def test_a_forbidden_symbol_is_seen(statement: str, tmp_path: pathlib.Path) -> None:
    includes = "".join(f"#include <{name}>\n" for name in ("cassert", "cstdio", "cstdlib", "iostream"))
    source = f"{includes}void f(int n) {{ {statement} }}\n"
    assert any(FORBIDDEN.fullmatch(symbol) for symbol in undefined_symbols(source, tmp_path))
