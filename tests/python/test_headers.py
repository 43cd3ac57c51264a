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

    def blank(match: re.Match[str]) -> str:
        return re.sub(r"[^\n]", " ", match[0])

    return re.sub(r"//[^\n]*|/\*.*?\*/", blank, text_of(header), flags=re.DOTALL)


def compile_source(source: str, *flags: str) -> None:
    done = subprocess.run([*COMPILER, *flags, "-"], input=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:4000]


# ---- The ladder ------------------------------------------------------------------------------------------------------


def ladder() -> list[tuple[set[str], set[str]]]:
    """The rows of HACKING.md's table: the places of a row, and the places that it may include beside its own."""
    section = (ROOT / "HACKING.md").read_text().split("## Folders are layers", 1)[1].split("\n## ", 1)[0]
    rows = [tuple(set(re.findall(r"`([^`]+)`", cell)) for cell in (places, allowed))
            for places, _, allowed in re.findall(r"^\| (`[^|]*) \| ([^|]*) \|([^|]*)\|$", section, re.MULTILINE)]
    places = [place for row, _ in rows for place in row]
    assert len(places) == len(set(places)), "a place is in two rows"
    return rows


def holds(places: set[str], header: str) -> bool:
    return header in places or any(place.endswith("/") and header.startswith(place) for place in places)


def ladder_errors(includes: dict[str, list[str]], rows: list[tuple[set[str], set[str]]]) -> list[str]:
    errors = []
    for header, lower in includes.items():
        mine = [row for row in rows if holds(row[0], header)]
        if len(mine) != 1:
            errors.append(f"{header} is in {len(mine)} rows of HACKING.md's table")
            continue
        places, allowed = mine[0]
        if header == "facenet":  # the umbrella
            continue
        errors += [f"{header} includes {other}, which its row does not allow" for other in lower
                   if not holds(places | allowed, other)]
    return errors


def includes_of(header: str) -> list[str]:
    return re.findall(r'^\s*#\s*include\s+["<]facenet/([\w/]+)\.hpp[">]', code_of(header), re.MULTILINE)


def test_headers_include_only_lower_layers() -> None:
    assert not ladder_errors({header: includes_of(header) for header in HEADERS}, ladder())


def test_the_umbrella_has_all_but_pictures_training_and_dispatch() -> None:
    within, waiting = set(), ["facenet"]
    while waiting:
        header = waiting.pop()
        waiting += [other for other in includes_of(header) if other not in within]
        within.add(header)
    assert {header for header in HEADERS if "/" not in header} - within == {"image_io", "triplet", "dispatch"}


def test_quoted_includes_name_the_project_directory() -> None:
    """`#include "conv.hpp"` would pass by the ladder unseen."""
    wrong = [f"{header}: {line}" for header in HEADERS
             for line in re.findall(r'^\s*#\s*include\s+"(?!facenet/).*', code_of(header), re.MULTILINE)]
    assert not wrong


@pytest.mark.parametrize(("header", "included", "part"), [
    ("base/memory", "plan", "base/memory includes plan, which"),
    ("weights/metadata", "image/scan", "weights/metadata includes image/scan, which"),
    ("kernels/conv", "network", "which its row does not allow"),
    ("no_such_header", "base/status", "no_such_header is in 0 rows"),
])
def test_a_broken_ladder_is_seen(header: str, included: str, part: str) -> None:
    assert part in "\n".join(ladder_errors({header: [included]}, ladder()))


# ---- Each header alone ------------------------------------------------------------------------------------------------


# A page of base/simd/ is for one ISA: the compilers and flags that have it, the first of them that is installed.
PAGES = {"avx2": [["g++", "-march=x86-64-v3"]], "avx512": [["g++", "-march=x86-64-v4"]],
         "neon64": [["aarch64-linux-gnu-g++"]],
         "wasm": [["clang++-19", "--target=wasm32-wasi", "-msimd128", "-D__EMSCRIPTEN__", "-fno-exceptions"]]}


PAGES |= {f"integer_{page}": command for page, command in PAGES.items()}
INTEGERS = [("integer_avx512", "-mavx512vnni"), ("integer_avx2", "-mavxvnni"), ("integer_neon64", "-march=armv8.2-a+dotprod"),
            ("integer_neon64", "-march=armv8.2-a+dotprod+i8mm"), ("integer_wasm", "-mrelaxed-simd")]


@pytest.mark.slow
@pytest.mark.parametrize(("page", "flag"), INTEGERS)
def test_integer_pages_compile_for_every_dot_product(page: str, flag: str) -> None:
    usable = [command for command in PAGES[page] if shutil.which(command[0])]
    if not usable:
        pytest.skip(f"no compiler for {page}: tools/bootstrap.sh --all installs one")
    done = subprocess.run([*usable[0], flag, *COMPILER[1:], *STRICT, "-fsyntax-only", "-"], capture_output=True, text=True,
                          input='#include "facenet/kernels/integer_conv.hpp"\n', check=False)
    assert done.returncode == 0, done.stderr[:4000]


@pytest.mark.slow
@pytest.mark.parametrize("header", HEADERS)
def test_header_compiles_alone(header: str) -> None:
    source = f'#include "facenet/{header}.hpp"\n'
    page = header.removeprefix("base/simd/")
    if page == header or page not in PAGES:
        compile_source(source, *STRICT, "-fsyntax-only")
        return
    usable = [command for command in PAGES[page] if shutil.which(command[0])]
    if not usable:
        pytest.skip(f"no compiler for {page}: tools/bootstrap.sh --all installs one")
    done = subprocess.run([*usable[0], *COMPILER[1:], *STRICT, "-fsyntax-only", "-"], input=source, capture_output=True,
                          text=True, check=False)
    assert done.returncode == 0, done.stderr[:4000]


def test_headers_compile_without_exceptions_and_rtti() -> None:
    source = "".join(f'#include "facenet/{header}.hpp"\n' for header in HEADERS if not header.startswith("base/simd/"))
    compile_source(source, *STRICT, "-fno-exceptions", "-fno-rtti", "-fsyntax-only")


# ---- One door to SIMD, one to threads -----------------------------------------------------------------------------------

SIMD = r"\bxsimd\b|\b_mm\d*_\w+|\b__m(?:128|256|512)\w*|\bv(?:ld|st)\d\w*_\w+|\bwasm_\w+|<\w*intrin\.h>|<arm_neon\.h>"
THREADS = r"#\s*pragma\s+omp|\bomp_\w+|<omp\.h>|\bstd::j?thread\b|\bstd::async\b|<thread>|\bpthread_\w+"


def uses(pattern: str, code: str) -> list[str]:
    return [f"line {code.count(chr(10), 0, match.start()) + 1}: {match[0]}" for match in re.finditer(pattern, code)]


@pytest.mark.parametrize(("pattern", "door"), [(SIMD, "base/simd"), (THREADS, "base/parallel")], ids=["simd", "threads"])
def test_only_one_header_knows(pattern: str, door: str) -> None:
    found = {header: uses(pattern, code_of(header)) for header in HEADERS if not header.startswith(f"{door}/")}
    found |= {door: [line for header in HEADERS if f"{header}/".startswith(f"{door}/") for line in uses(pattern, code_of(header))]}
    # What stb_image includes must be included before its namespace is opened.
    found["image/stb_image"] = [use for use in found["image/stb_image"] if not use.endswith("intrin.h>")]
    assert found.pop(door), "the pattern finds nothing even where it must"
    assert not {header: lines for header, lines in found.items() if lines}


def test_every_error_code_is_returned_somewhere_and_known_in_javascript() -> None:
    codes = re.findall(r"^  (\w+)(?: = 0)?,", code_of("base/status").partition("enum class Errc")[2].partition("};")[0], re.MULTILINE)
    assert codes[0] == "ok" and len(codes) > 5
    used = "".join(code_of(header) for header in HEADERS if header != "base/status")
    assert not [code for code in codes if code != "ok" and f"Errc::{code}" not in used]
    script = (ROOT / "examples/web/facenet/errors.js").read_text()
    assert re.findall(r"'(\w+)'", script.partition("const CODES = [")[2].partition("]")[0]) == codes


# ---- Nothing prints, nothing ends the program ----------------------------------------------------------------------------

EMBEDDER = """\
#include "facenet/facenet.hpp"
int use(const char* path, const unsigned char* pixels, float* out) {
  auto embedder = facenet::Embedder::load(path);
  if (!embedder) return 1;
  return embedder->embed(facenet::ImageView(pixels, 160, 160, 480, facenet::ChannelOrder::rgb), {out, 512}).ok() ? 0 : 1;
}
"""
TEAM = """\
#include "facenet/base/parallel.hpp"
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
@pytest.mark.slow
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
