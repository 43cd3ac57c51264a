"""Units of one program that are compiled otherwise than each other, plug-ins, and other libraries' macros."""

from __future__ import annotations

import itertools
import pathlib
import platform
import re
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
UNITS = ROOT / "tests/consumers/units"
DEPENDENCIES = [f"-isystem{ROOT / '.deps/include'}"] if (ROOT / ".deps/include").exists() else []
COMPILER = ["g++", "-std=c++17", "-pthread", f"-I{ROOT / 'include'}", f"-I{UNITS}", *DEPENDENCIES]
only_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="the flags are x86-64's")

# What makes another unit: units.hpp lists the names too. -O1: with -O0 some of the standard library's functions stay, and are shared.
V4 = "-march=x86-64-v4"
CONFIGURATIONS = {
    "sse2": "", "sse4": "-msse4.2", "avx": "-mavx", "avx2": "-mavx2 -mfma", "f16c": "-mavx2 -mfma -mf16c", "avx512": V4,
    "vnni": f"{V4} -mavx512vnni", "scalar": "-DFACENET_SCALAR", "no_stdio": "-DFACENET_NO_STDIO",
    "no_integer": "-DFACENET_NO_INTEGER", "no_winograd": "-DFACENET_NO_WINOGRAD", "no_int8_weights": "-DFACENET_NO_INT8_WEIGHTS", "no_exceptions": "-fno-exceptions", "own_malloc": "-DUNIT_MALLOC", "fast_math": "-ffast-math", "finite_math": "-ffinite-math-only",
    "serial": "-DFACENET_PARALLEL_SERIAL", "openmp": "-fopenmp", "debug": "-Og -DFACENET_TAG=debug", "tagged": "-DFACENET_TAG=mine",
}


def run(*command: object, status: int = 0, **keywords: object) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, **keywords)
    assert done.returncode == status, (done.stdout + done.stderr)[-3000:]
    return done.stdout


def defined(unit: pathlib.Path) -> set[str]:
    return {line.split()[0] for line in run("nm", "--defined-only", "--extern-only", "-f", "posix", unit).splitlines()}


# ---- Names ----------------------------------------------------------------------------------------------------------------


@only_x86
def test_each_configuration_has_a_namespace_of_its_own() -> None:
    source = '#include "facenet/base/config.hpp"\nnamespace_is FACENET_ABI\n'
    flags = CONFIGURATIONS | {"own_malloc": "-DFACENET_MALLOC=f", "debug": "-O0", "everything": "-march=sapphirerapids -Ofast"}
    more = {f: f for f in ("-msse3 -mssse3", "-mavx2 -mfma -mbmi2", "-mavx2 -mfma -mlzcnt", "-mavx2 -mfma -mmovbe", "-mavx -mfma4",
                           f"{V4} -mavxvnni", "-funsafe-math-optimizations -fno-trapping-math", "-frounding-math", "-mavx512f")}
    names = {}
    for name, options in (flags | more).items():
        text = run(*COMPILER, "-O1", *options.split(), "-E", "-P", "-x", "c++", "-", input=source)
        names[name] = re.search(r"namespace_is (\w+)", text)[1]
    assert len(set(names.values())) == len(names), names
    version = re.search(r'FACENET_VERSION "([^"]+)"', (ROOT / "include/facenet/base/config.hpp").read_text())[1].replace(".", "_")
    assert all(name.startswith(f"v{version}_") and "__" not in name for name in names.values()), names


def test_records_have_no_function_of_their_own(tmp_path: pathlib.Path) -> None:
    """Without optimisation, where nothing is inlined that need not be."""
    unit = tmp_path / "records.o"
    source = ROOT / "tests/consumers/units/records.cpp"
    run(*COMPILER, "-O0", "-DFACENET_ALLOW_DEBUG", "-c", source, "-o", unit)
    functions = defined(unit)
    assert any("use_records" in name for name in functions)
    shared = [name for name in functions if re.match(r"_ZN?K?\d*(?:NK?)?7facenet\d+v\d+_\d+_\d+\d", name)]
    assert not shared, "these would be one unit's for all: make them FACENET_INLINE"


def test_code_without_optimisation_is_not_made_in_silence(tmp_path: pathlib.Path) -> None:
    def says(*flags: str) -> bool:
        done = subprocess.run([*COMPILER, *flags, "-Wall", "-Werror", "-fsyntax-only", "-x", "c++", "-"], capture_output=True, text=True,
                              input='#include "facenet/base/config.hpp"\n', check=True)  # fmt: skip
        return "without optimisation" in done.stderr

    assert says() and says("-O0") and not says("-O1") and not says("-Og") and not says("-DFACENET_ALLOW_DEBUG")
    (tmp_path / "CMakeLists.txt").write_text("cmake_minimum_required(VERSION 3.20)\nproject(x LANGUAGES CXX)\n"
                                             f"add_subdirectory({ROOT} facenet)\n")
    for number, (flags, warns) in enumerate(((["-DCMAKE_BUILD_TYPE=Debug"], True), (["-DCMAKE_BUILD_TYPE=Release"], False),
                                             (["-DCMAKE_BUILD_TYPE=Debug", "-DFACENET_ALLOW_DEBUG=ON"], False))):
        done = subprocess.run(["cmake", "-S", tmp_path, "-B", tmp_path / str(number), *flags], capture_output=True, text=True, check=True)
        assert ("without optimisation" in " ".join(done.stderr.split())) == warns, done.stderr


def test_a_library_without_threads_is_serial() -> None:
    """GCC promises threads for MinGW's win32 threads too, where its library has none (its own macro says so)."""
    source = '#include <cstddef>\n#undef _GLIBCXX_HAS_GTHREADS\n#include "facenet/gallery.hpp"\n'
    source += 'static_assert(facenet::parallel_name[0] == \'s\', "serial");\nfacenet::Team team;\n'
    run(*COMPILER, "-O1", "-fsyntax-only", "-x", "c++", "-", input=source)


# ---- Pairs ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
    folder = tmp_path_factory.mktemp("units")
    jobs = {}
    for name, options in CONFIGURATIONS.items():
        jobs[name] = subprocess.Popen([*COMPILER, "-O1", *options.split(), f"-DUNIT={name}", "-c", UNITS / "unit.cpp",
                                       "-o", folder / f"{name}.o"])
        if len(jobs) % 2 == 0:
            assert all(job.wait() == 0 for job in jobs.values())
    assert all(job.wait() == 0 for job in jobs.values())
    return {name: folder / f"{name}.o" for name in jobs}


@only_x86
@pytest.mark.slow
def test_no_two_units_share_a_function(units: dict[str, pathlib.Path]) -> None:
    symbols = {name: defined(unit) for name, unit in units.items()}
    for a, b in itertools.combinations(symbols, 2):
        assert symbols[a] & symbols[b] <= {"DW.ref.__gxx_personality_v0"}, f"{a}, {b}: of these the linker keeps one copy"


@only_x86
@pytest.mark.slow
def test_all_units_in_one_process(units: dict[str, pathlib.Path], tmp_path: pathlib.Path) -> None:
    """The widest first: of what two had alike, its copy would stay."""
    widest = ["vnni", "avx512", "f16c", "avx2", "avx"]
    order = widest + [name for name in units if name not in widest]
    program = tmp_path / "units"
    run(*COMPILER, "-O1", "-msse2", UNITS / "main.cpp", *(units[name] for name in order), "-fopenmp", "-o", program)
    flags = next(line for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")).split()
    needs = {"avx": "avx", "avx2": "fma", "f16c": "f16c", "avx512": "avx512bw", "vnni": "avx512_vnni"}
    here = [name for name in units if name not in needs or needs[name] in flags]
    assert [line.split()[0] for line in run(program, *here).splitlines()] == here
    if shutil.which("qemu-x86_64"):  # QEMU's threads are slow: one thread is enough to meet an instruction
        old = ["sse2", "sse4", "no_stdio", "no_exceptions", "own_malloc", "fast_math", "serial"]
        assert run("qemu-x86_64", "-cpu", "Nehalem", program, *old).splitlines() == [
            f"{name} {'sse4' if name == 'sse4' else 'sse2'}" for name in old]


# ---- Plug-ins -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("flags", ["-DFACENET_PARALLEL_POOL", "-DFACENET_PARALLEL_SERIAL"], ids=["pool", "serial"])
def test_a_plug_in_can_be_unloaded(flags: str, tmp_path: pathlib.Path) -> None:
    headers = sorted(path.relative_to(ROOT / "include").as_posix() for path in (ROOT / "include").rglob("*.hpp"))
    (tmp_path / "all_headers.hpp").write_text("".join(f'#include "{header}"\n' for header in headers
                                                      if "dispatch" not in header and "base/simd/" not in header))
    plugin, host = tmp_path / "plugin.so", tmp_path / "host"
    run(*COMPILER, "-O1", "-fPIC", "-shared", flags, f"-I{tmp_path}", UNITS / "plugin.cpp", "-o", plugin)
    unique = [line for line in run("nm", "-D", plugin).splitlines() if " u " in line and "facenet" in line]
    assert not unique, "a unique symbol keeps the plug-in for ever: FACENET_HIDDEN"
    run("gcc", "-std=gnu11", UNITS / "host.c", "-ldl", "-o", host)
    run(host, plugin)


# ---- Other libraries' macros --------------------------------------------------------------------------------------------

# Of X11/Xlib.h and X.h, windows.h and its relatives, complex.h.
MACROS = {
    "Status": "int", "Bool": "int", "True": "1", "False": "0", "None": "0L", "Success": "0", "Always": "2", "Complex": "0",
    "Convex": "2", "Above": "0", "Below": "1", "Unsorted": "0", "GrayScale": "1", "CurrentTime": "0L", "KeyPress": "2",
    "far": "", "near": "", "small": "char", "interface": "struct", "ERROR": "0", "OPTIONAL": "", "IN": "", "OUT": "",
    "CONST": "const", "VOID": "void", "TRUE": "1", "FALSE": "0", "DELETE": "0x10000", "STRICT": "1", "Yield()": "",
    "min(a, b)": "((a) < (b) ? (a) : (b))", "max(a, b)": "((a) > (b) ? (a) : (b))", "I": "(1.0iF)",
}


def public_headers() -> list[str]:
    """Those that others need first, so that each is read under the macros itself."""
    import sys

    sys.path.insert(0, str(ROOT / "tools"))
    import amalgamate

    return [name for name in amalgamate.in_order(ROOT / "include", True) if "/" not in name]


def test_headers_among_macros_of_others(tmp_path: pathlib.Path) -> None:
    names = public_headers()
    assert len(names) == len(list((ROOT / "include/facenet").glob("*.hpp")))
    standard = "algorithm atomic cfloat cmath cstddef cstdint cstdio cstdlib cstring functional new stdexcept utility complex".split()
    source = "".join(f"#include <{name}>\n" for name in standard)  # some of them take min and max away
    source += "".join(f"#define {name} {value}\n" for name, value in MACROS.items())
    source += "".join(f'#include "facenet/{name}.hpp"\n' for name in names)
    source += "".join(f"#ifndef {name.partition('(')[0]}\n#error it is gone\n#endif\n" for name in MACROS)
    source += "Status mine = Success;\nauto theirs(const unsigned char* p) { return facenet::Embedder::load({p, 1}); }\n"
    run(*COMPILER, "-O1", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-x", "c++", "-", input=source)


@pytest.mark.slow
def test_headers_after_the_real_xlib() -> None:
    if not pathlib.Path("/usr/include/X11/Xlib.h").exists():
        pytest.skip("there is no Xlib.h")
    for first in ("X11/Xlib.h", "X11/Xutil.h"):
        run(*COMPILER, "-O1", "-ffast-math", "-Wall", "-Werror", "-fsyntax-only", "-x", "c++", "-", input=f"""
#include <{first}>
#include "facenet/facenet.hpp"
#include "facenet/image_io.hpp"
Status status = Success; Bool yes = True; Window none = None;
""")
