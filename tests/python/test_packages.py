"""Packages: what is installed, consumers that use it, the command for several ISAs, and its .deb.

On what `cmake --preset package` builds (build/package); tools/test.sh --all makes it. Logs of the consumers and lists of
files lie in build/packages.
"""

from __future__ import annotations

import ctypes
import gzip
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import tarfile

import c_header
import numpy as np
import pytest
from conftest import ROOT, run_tool
from PIL import Image

from facenet_tools import integer_arithmetic, pictures

BUILD = ROOT / "build/package"
LOGS = ROOT / "build/packages"
CONSUMERS = ROOT / "tests/consumers"
COMMAND = BUILD / "facenet"
DETECTOR = ROOT / "build/golden/mtcnn.safetensors"
ASTRONAUT = ROOT / ".deps/samples/astronaut.png"
WEIGHTS = ROOT / "build/golden/weights128.safetensors"   # made by tools/test.sh
FACE_API = ROOT / ".deps/face-api"
MADE = BUILD / "isas/dispatch/isas.hpp"  # those of FACENET_DISPATCH_ISAS
ISAS = tuple(re.findall(r"\) X\((\w+),", MADE.read_text())) if MADE.exists() else ()

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not COMMAND.exists(), reason=f"{COMMAND} is not built"),
]


def run(*command: object, status: int | None = 0, log: str = "", env: dict[str, str] | None = None,
        cwd: pathlib.Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Runs a command; `log` adds what it prints to that file of LOGS."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("FACENET_", "CMAKE_PREFIX"))} | (env or {})
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, check=False,
                          stdin=subprocess.DEVNULL)
    if log:
        with (LOGS / f"{log}.log").open("a") as file:
            file.write(f"$ {' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    assert status is None or done.returncode == status, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


def needs(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (tools/bootstrap.sh --all)")


def dispatched() -> bool:
    return (BUILD / "tools/facenet_command_avx2.o").exists()


def usable() -> list[str]:
    """The ISAs of the package that this CPU has."""
    return [isa for isa in ISAS if run(COMMAND, "--version", status=None, env={"FACENET_FORCE_ISA": isa}).returncode == 0]


only_dispatched = pytest.mark.skipif(COMMAND.exists() and not dispatched(), reason="one ISA on this machine")


@pytest.fixture(scope="module", autouse=True)
def logs() -> None:
    shutil.rmtree(LOGS, ignore_errors=True)
    LOGS.mkdir(parents=True)


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("prefix") / "a folder"   # moved from where it was configured for, with a space in it
    run("cmake", "--install", BUILD, "--prefix", folder)
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())
    (LOGS / "installed.txt").write_text("\n".join(files) + "\n")
    return folder


@pytest.fixture(scope="module")
def small_picture(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A portrait of 160 pixels, of which an emulator makes something in seconds."""
    path = tmp_path_factory.mktemp("picture") / "portrait.png"
    Image.open(ASTRONAUT).convert("RGB").crop((100, 0, 356, 256)).resize((160, 160)).save(path)
    return path


def build_consumer(name: str, folder: pathlib.Path, *definitions: object) -> pathlib.Path:
    run("cmake", "-S", CONSUMERS / name, "-B", folder, "-G", "Ninja", *definitions, log=name)
    run("cmake", "--build", folder, log=name)
    return folder


# ---- Consumers ----------------------------------------------------------------------------------------------------------


def rows(text: str) -> np.ndarray:
    return np.array([[float(x) for x in line.split()] for line in text.splitlines()])


def check_faces(program: pathlib.Path, picture: pathlib.Path) -> None:
    """facenet::dispatch's objects: the same faces from each ISA, within the bound that each has."""
    if not WEIGHTS.exists():
        pytest.skip(f"{WEIGHTS} is not made")
    found = {}
    for isa in usable() if dispatched() else [""]:
        done = run(program, WEIGHTS, DETECTOR, picture, env={"FACENET_FORCE_ISA": isa} if isa else None)
        name, _, lines = done.stdout.partition("\n")
        assert name == isa or not isa
        found[isa] = rows(lines)
    best = rows(run(program, WEIGHTS, DETECTOR, picture).stdout.partition("\n")[2])
    assert len(best) == 1, "the portrait has one face"
    assert np.array_equal(best, found[list(found)[-1]])
    for values in found.values():
        assert np.abs(values[:, :4] - best[:, :4]).max() < 0.01   # of a pixel: the same whole pixels are cut out
        assert np.abs(values[:, 4:] - best[:, 4:]).max() <= 2 * 3e-6   # each within 3e-6 of float64 (docs/parity.md)


def test_find_package(prefix: pathlib.Path, small_picture: pathlib.Path, tmp_path: pathlib.Path) -> None:
    folder = build_consumer("find_package", tmp_path, f"-DCMAKE_PREFIX_PATH={prefix}", "-DCMAKE_CXX_FLAGS=-O1 -Wall -Wextra -Werror")
    assert run(folder / "threads").stdout.split()[1:] == ["pool", "10", "5"]
    assert run(folder / "openmp_threads").stdout.split()[1:] == ["openmp", "10", "5"]
    assert run(folder / "picture", small_picture).stdout == "160 160\n"
    if dispatched():
        refused = run(folder / "faces", WEIGHTS, DETECTOR, small_picture, status=2, env={"FACENET_FORCE_ISA": "mmx"})
        assert "mmx: FACENET_FORCE_ISA names no instruction set of this build" in refused.stderr
    check_faces(folder / "faces", small_picture)


@pytest.mark.parametrize(("component", "part"), [("nonsense", "there is no such component"), ("image", "stb_image.h")])
def test_a_missing_component_is_named(component: str, part: str, prefix: pathlib.Path, tmp_path: pathlib.Path) -> None:
    hide = "-DCMAKE_FIND_ROOT_PATH=/nowhere -DCMAKE_FIND_ROOT_PATH_MODE_INCLUDE=ONLY" if component == "image" else ""
    (tmp_path / "CMakeLists.txt").write_text(
        f"cmake_minimum_required(VERSION 3.20)\nproject(consumer LANGUAGES CXX)\n"
        f"find_package(facenet REQUIRED COMPONENTS {component} PATHS \"{prefix}\" NO_DEFAULT_PATH NO_CMAKE_FIND_ROOT_PATH)\n")
    failed = run("cmake", "-S", tmp_path, "-B", tmp_path / "build", *hide.split(), status=1, log="find_package")
    assert f"component {component}" in " ".join(failed.stderr.split()) and part in " ".join(failed.stderr.split())


@pytest.mark.parametrize(("version", "pointer", "fits"), [
    ("0.1", 8, True), ("0.1.0", 4, True), ("0.2", 8, False), ("1.0", 4, False),
])
def test_the_version_file_ignores_the_size_of_a_pointer(version: str, pointer: int, fits: bool, prefix: pathlib.Path,
                                                         tmp_path: pathlib.Path) -> None:
    (found,) = prefix.rglob("facenetConfigVersion.cmake")
    major, minor = version.split(".")[:2]
    script = tmp_path / "ask.cmake"
    script.write_text(f'cmake_minimum_required(VERSION 3.20)\nset(CMAKE_SIZEOF_VOID_P {pointer})\nset(PACKAGE_FIND_VERSION {version})\nset(PACKAGE_FIND_VERSION_MAJOR {major})\n'
                      f'set(PACKAGE_FIND_VERSION_MINOR {minor})\ninclude("{found}")\n'
                      'if(PACKAGE_VERSION_UNSUITABLE OR NOT PACKAGE_VERSION_COMPATIBLE)\nmessage(FATAL_ERROR no)\nendif()\n')
    assert (run("cmake", "-P", script, status=None).returncode == 0) == fits


@pytest.mark.parametrize("xsimd", ["bundled", "fetched"])
def test_subdirectory(xsimd: str, tmp_path: pathlib.Path) -> None:
    """Its CMakeLists.txt checks that no test, target, flag or variable comes along. fetched: what FetchContent would have
    downloaded lies in a folder, and an xsimd too old for us is installed."""
    fetched = []
    if xsimd == "fetched":
        copy, old = tmp_path / "xsimd-src", tmp_path / "old"
        shutil.copytree(ROOT / ".deps/include", copy / "include")
        (copy / "CMakeLists.txt").write_text("message(FATAL_ERROR \"nobody wants its targets\")\n")
        old.mkdir()
        (old / "xsimdConfig.cmake").write_text("add_library(xsimd INTERFACE IMPORTED)\n")
        (old / "xsimdConfigVersion.cmake").write_text("set(PACKAGE_VERSION 8.1.0)\n")
        fetched = ["-DFACENET_BUNDLE_XSIMD=OFF", f"-DFETCHCONTENT_SOURCE_DIR_XSIMD={copy}", f"-Dxsimd_DIR={old}"]
    folder = build_consumer("subdirectory", tmp_path / "build", f"-DFACENET_SOURCE_DIR={ROOT}", *fetched)
    assert run(folder / "threads").stdout.split()[1:] == ["pool", "10", "5"]
    assert {path.name for path in folder.glob("_deps/*")} <= {"facenet-build", "facenet-subbuild"}


def test_pkg_config(prefix: pathlib.Path, small_picture: pathlib.Path, tmp_path: pathlib.Path) -> None:
    needs("pkg-config", "make")
    (pc,) = prefix.rglob("facenet.pc")
    plain = tmp_path / "prefix"   # pkg-config and make's shell agree on spaces in no way
    plain.symlink_to(prefix)
    folder = tmp_path / "pkg_config"
    shutil.copytree(CONSUMERS / "find_package", tmp_path / "find_package")
    shutil.copytree(CONSUMERS / "pkg_config", folder)
    environment = {"PKG_CONFIG_PATH": str(plain / pc.parent.relative_to(prefix))}
    run("make", "-C", folder, log="pkg_config", env=environment)
    assert run(folder / "threads").stdout.split()[1:] == ["pool", "10", "5"]
    assert run("pkg-config", "--modversion", "facenet-dispatch", env=environment).stdout == "0.1.0\n"
    check_faces(folder / "faces", small_picture)


# ---- The C library --------------------------------------------------------------------------------------------------------


def test_the_c_library_with_cmake_and_with_pkg_config(prefix: pathlib.Path, small_picture: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A project in C alone."""
    needs("pkg-config", "cc")
    if not WEIGHTS.exists():
        pytest.skip(f"{WEIGHTS} is not made")
    example, gallery = ROOT / "examples/c/identify.c", tmp_path / "gallery.db"
    folder = build_consumer("c", tmp_path / "cmake", f"-DCMAKE_PREFIX_PATH={prefix}", f"-DEXAMPLE={example}", "-DCMAKE_C_FLAGS=-Wall -Wextra -Werror")
    (pc,), (library,) = prefix.rglob("facenet-c.pc"), prefix.rglob("libfacenet.so.0")
    plain = tmp_path / "prefix"   # without the space
    plain.symlink_to(prefix)
    flags = run("pkg-config", "--cflags", "--libs", "facenet-c", env={"PKG_CONFIG_PATH": str(plain / pc.parent.relative_to(prefix))}).stdout.split()
    run("cc", example, *flags, f"-Wl,-rpath,{library.parent}", "-o", tmp_path / "identify", log="c")
    for program, first in ((folder / "identify", "added\n"), (tmp_path / "identify", "is there already\n")):
        assert run(program, WEIGHTS, DETECTOR, gallery, small_picture, "Somebody").stdout.startswith(first)
    assert not (library.stat().st_mode & 0o111)
    for isa in usable() if dispatched() else []:   # one library, each ISA
        assert "Somebody" in run(tmp_path / "identify", WEIGHTS, DETECTOR, gallery, small_picture, env={"FACENET_FORCE_ISA": isa}).stdout
    if dispatched():
        refused = run(tmp_path / "identify", WEIGHTS, DETECTOR, gallery, small_picture, status=2, env={"FACENET_FORCE_ISA": "mmx"})
        assert "mmx: FACENET_FORCE_ISA names no instruction set of this build" in refused.stderr


@only_dispatched
def test_the_c_library_on_an_old_cpu(small_picture: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Its own code is for any CPU: on one without AVX it takes SSE4.2, and on one without that it says so."""
    needs("qemu-x86_64", "cc")
    (tmp_path / "find.c").write_text('''
#include <facenet/facenet.h>
#include <stdio.h>

int main(int argc, char **argv) {
  facenet_error error = FACENET_ERROR_INIT;
  facenet_detector *detector = NULL;
  facenet_image *image = NULL;
  facenet_picture pixels;
  facenet_face faces[9];
  size_t found = 0;
  char isa[32] = "";
  if (argc != 3 || facenet_isa(isa, sizeof isa, &error) || facenet_detector_load(argv[1], NULL, &detector, &error) ||
      facenet_image_read(argv[2], &image, &error) || facenet_image_pixels(image, &pixels, &error) ||
      facenet_detect(detector, &pixels, faces, 9, &found, &error)) {
    char text[FACENET_MESSAGE_SIZE];
    facenet_error_message(&error, text, sizeof text);
    return fprintf(stderr, "%s\\n", text), 2;
  }
  return printf("%s %d\\n", isa, (int)found) < 0;
}
''')
    run("cc", f"-I{ROOT / 'include'}", tmp_path / "find.c", BUILD / "libfacenet.so.0", f"-Wl,-rpath,{BUILD}", "-o", tmp_path / "find")
    assert run("qemu-x86_64", "-cpu", "Nehalem", tmp_path / "find", DETECTOR, small_picture).stdout == "sse4 1\n"
    assert "SSE4.2: this CPU lacks it" in run("qemu-x86_64", "-cpu", "core2duo", tmp_path / "find", DETECTOR, small_picture, status=2).stderr


RECORDED = ROOT / "tests/abi/libfacenet.abi"


def abidw(library: pathlib.Path, headers: pathlib.Path, out: pathlib.Path) -> None:
    """The command of docs/abi.md."""
    told = re.search(r"^abidw .*?(?<!\\)$", (ROOT / "docs/abi.md").read_text(), re.MULTILINE | re.DOTALL)[0].replace("\\\n", " ").split()
    places = {"include/facenet": str(headers), "tests/abi/libfacenet.abi": str(out), "build/package/libfacenet.so.0": str(library)}
    assert set(places) < set(told)
    run(*(places.get(word, word) for word in told))


def header_library(folder: pathlib.Path, header: str) -> pathlib.Path:
    """A library of functions that do nothing, with the interface of a header."""
    (folder / "facenet").mkdir(parents=True)
    (folder / "facenet/facenet.h").write_text(header)
    bodies = [f"{result} {name}({parameters}) {{ {'' if result == 'void' else 'return 0;'} }}\n"
              for name, (result, parameters) in c_header.functions().items()]
    (folder / "interface.c").write_text('#include "facenet/facenet.h"\n' + "".join(bodies))
    run("cc", "-g", "-w", "-shared", "-fPIC", f"-I{folder}", f"-Wl,--version-script={ROOT / 'src/c/facenet.map'}", folder / "interface.c", "-o",
        folder / "libfacenet.so.0")
    return folder / "libfacenet.so.0"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the recorded interface is that of x86-64")
def test_the_abi_is_the_recorded_one(tmp_path: pathlib.Path) -> None:
    needs("abidw", "abidiff")
    abidw(BUILD / "libfacenet.so.0", ROOT / "include/facenet", tmp_path / "now.abi")
    told = run("abidiff", RECORDED, tmp_path / "now.abi", status=None, log="abi")
    assert told.returncode == 0, f"{told.stdout}\nThe interface has changed. Where docs/abi.md allows that, record it as it says there."
    assert len((tmp_path / "now.abi").read_text()) < 100_000
    # What is not allowed is seen: a member that grows, a function that goes.
    header = c_header.HEADER.read_text()
    as_it_is, changed = header_library(tmp_path / "as_it_is", header), header.replace("int32_t batch; ", "int64_t batch; ")
    assert changed != header
    for library in (as_it_is, header_library(tmp_path / "changed", changed)):
        abidw(library, library.parent / "facenet", library.with_suffix(".abi"))
    told = run("abidiff", as_it_is.with_suffix(".abi"), tmp_path / "changed/libfacenet.so.abi", status=None)
    assert told.returncode != 0 and "batch" in told.stdout
    fewer = tmp_path / "fewer.abi"
    fewer.write_text(re.sub(r" *<elf-symbol name='facenet_embed' .*\n", "", RECORDED.read_text()))
    assert run("abidiff", RECORDED, fewer, status=None).returncode != 0


# ---- Two ISAs in one program --------------------------------------------------------------------------------------------


def global_symbols(path: pathlib.Path) -> set[str]:
    listing = run("nm", "--defined-only", "--extern-only", "-f", "posix", path).stdout
    return {line.split()[0] for line in listing.splitlines() if len(line.split()) > 2}


@only_dispatched
def test_two_isas(prefix: pathlib.Path, small_picture: pathlib.Path, tmp_path: pathlib.Path) -> None:
    needs("qemu-x86_64")
    folder = build_consumer("two_isas", tmp_path, f"-DCMAKE_PREFIX_PATH={prefix}", "-DCMAKE_BUILD_TYPE=Release",
                            "-DCMAKE_CXX_FLAGS_RELEASE=-O1")
    avx2, sse2 = (next(folder.rglob(f"unit_{isa}.dir/unit.cpp.o")) for isa in ("avx2", "sse2"))
    shared = global_symbols(avx2) & global_symbols(sse2)
    assert shared <= {"DW.ref.__gxx_personality_v0"}, "of these functions the linker keeps one copy"
    old = run("qemu-x86_64", "-cpu", "core2duo", folder / "two_isas", DETECTOR, small_picture, "sse2", log="two_isas")
    assert old.stdout == "sse2 1\n"
    if "avx2" in usable():
        both = run(folder / "two_isas", DETECTOR, small_picture, "avx2", "sse2", log="two_isas")
        assert both.stdout == "avx2 1\nsse2 1\n"


@only_dispatched
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("object_file", "symbol"), [
    ("src/dispatch/facenet_dispatch_{}.o", "facenet_dispatch_table_{}"),
    ("tools/facenet_command_{}.o", "facenet_command_{}"),
])
def test_an_isa_shows_one_symbol(isa: str, object_file: str, symbol: str) -> None:
    assert global_symbols(BUILD / object_file.format(isa)) == {symbol.format(isa)}


@only_dispatched
def test_no_code_of_an_isa_runs_before_main() -> None:
    """A constructor of a global object would, on a CPU that nobody has asked yet."""
    units = [path for isa in ISAS for path in BUILD.rglob(f"facenet_*_{isa}.dir/**/*.o")]
    assert len(units) > 3 * 10
    with_constructors = [path.name for path in units if "init_array" in run("readelf", "-SW", path).stdout]
    assert not with_constructors, "compile these for any CPU: see `baseline` in tools/CMakeLists.txt"


# ---- The command ----------------------------------------------------------------------------------------------------------


def detected(*command: object, picture: pathlib.Path, env: dict[str, str] | None = None) -> str:
    return run(*command, "detect", "--json", "--detector", DETECTOR, picture, env=env).stdout


@only_dispatched
def test_the_command_takes_the_widest_isa() -> None:
    assert f"({usable()[-1]}, " in run(COMMAND, "--version").stdout
    for isa in usable():
        assert f"({isa}, " in run(COMMAND, "--version", env={"FACENET_FORCE_ISA": isa}).stdout


@only_dispatched
@pytest.mark.skipif(not FACE_API.is_dir(), reason=f"{FACE_API} is not there: tools/bootstrap.sh gets it where npm is")
def test_embeddings_in_integers_have_the_same_bits_on_every_isa(tmp_path: pathlib.Path) -> None:
    """20 pictures, the trained network: as text every digit of every float. In floats the ISAs differ, so the text can show it."""
    weights, random = tmp_path / "int8.safetensors", np.random.default_rng(20)
    done = run_tool("convert_weights.py", "--face-api", FACE_API, "-o", weights, "--dtype", "i8", "--calibrate", "default")
    assert done.returncode == 0, done.stderr
    files = [tmp_path / f"{i}.png" for i in range(20)]
    for file in files:
        Image.fromarray(pictures.structured(random)).save(file)
    call = [COMMAND, "embed", "--aligned", "--json", "--threads", 1, "--weights", weights]
    floats, integers = ({isa: run(*call, "--arithmetic", arithmetic, *files, env={"FACENET_FORCE_ISA": isa}).stdout for isa in usable()}
                        for arithmetic in ("float", "int8"))
    want = integers[usable()[0]]
    assert [len(json.loads(line)["embedding"]) for line in want.splitlines()] == [128] * 20
    assert all(text == want for text in integers.values()), "an ISA has bits of its own"
    assert len(set(floats.values())) > 1 or len(usable()) < 2
    for file, line in list(zip(files, want.splitlines()))[:2]:  # and the definition's in NumPy
        embedding, _ = integer_arithmetic.simulate(weights, np.asarray(Image.open(file).resize((150, 150), Image.Resampling.BILINEAR)))
        assert np.array(json.loads(line)["embedding"], np.float32).tobytes() == embedding.tobytes()


@only_dispatched
def test_the_command_on_an_old_cpu(small_picture: pathlib.Path) -> None:
    needs("qemu-x86_64")
    nehalem = ("qemu-x86_64", "-cpu", "Nehalem", COMMAND)
    assert "(sse4, " in run(*nehalem, "--version").stdout
    here = detected(COMMAND, picture=small_picture, env={"FACENET_FORCE_ISA": "sse4"})
    assert len(json.loads(here)["faces"]) == 1
    assert detected(*nehalem, picture=small_picture) == here, "one ISA, one result, to the bit"


@only_dispatched
@pytest.mark.parametrize(("cpu", "isa", "parts"), [
    ("Nehalem", "avx2", ["AVX: this CPU lacks it, and FACENET_FORCE_ISA needs it"]),
    ("Nehalem", "avx512", ["AVX: this CPU lacks it"]),
    ("max", "avxvnni", ["AVX-VNNI: this CPU lacks it, and FACENET_FORCE_ISA needs it"]),
    ("max", "avx512vnni", ["AVX-512F: this CPU lacks it, and FACENET_FORCE_ISA needs it"]),
    ("Nehalem", "neon", ["neon: FACENET_FORCE_ISA names no instruction set", " or ".join(", ".join(ISAS).rsplit(", ", 1))]),
    ("core2duo", "", ["SSE4.2: this CPU lacks it", "compile for this CPU"]),
])
def test_a_cpu_that_will_not_do(cpu: str, isa: str, parts: list[str]) -> None:
    needs("qemu-x86_64")
    if isa in ("avx2", "avxvnni", "avx512", "avx512vnni") and isa not in ISAS:
        pytest.skip(f"the package is built without {isa}: tools/test.sh --long")
    refused = run("qemu-x86_64", "-cpu", cpu, COMMAND, "--version", status=2, env={"FACENET_FORCE_ISA": isa})
    assert refused.stdout == "" and refused.stderr.startswith("facenet: ") and refused.stderr.count("\n") == 1
    assert all(part in refused.stderr for part in parts)


def test_the_command_gets_a_row_in_the_table_of_constrained_builds() -> None:
    """Of tools/constrained_builds.py. Its time is told, not judged."""
    if not WEIGHTS.exists():
        pytest.skip(f"{WEIGHTS} is not made")
    timed = json.loads(run(COMMAND, "bench", "--json", "--weights", WEIGHTS, "--threads", 1, "--seconds", 1).stdout)
    row = {"configuration": "the packaged command", "built": "g++ c++17, " + " + ".join(ISAS) if dispatched() else "g++ c++17",
           "ran": "yes: " + ", ".join(usable()) if dispatched() else "yes", "size_kb": COMMAND.stat().st_size // 1000,
           "ms": timed["median_ms"], "note": "all sub-commands"}
    assert timed["runs"] > 0
    table = ROOT / "build/constrained_builds"
    table.mkdir(exist_ok=True)
    (table / "packaged-command.json").write_text(json.dumps(row))


# ---- Manual page and completions ------------------------------------------------------------------------------------------


def help_of(*command: str) -> str:
    return run(COMMAND, *command, "--help").stdout


def options_in(text: str) -> set[str]:
    """The options that a --help or a manual page lists, each at the beginning of its line."""
    return {name for line in text.splitlines() if re.match(r"\s+-", line)
            for name in re.findall(r"(?:(?<=[\s,])|^)--?[a-z0-9][\w-]*", line.strip().split("  ")[0])}


def commands() -> list[str]:
    section = help_of().split("Subcommands:\n", 1)[1]
    return re.findall(r"^  (\w+) ", section.split("\n\n", 1)[0], re.MULTILINE)


def test_help_can_be_read_by_these_tests() -> None:
    assert {"detect", "embed", "verify"} <= set(commands())
    assert {"-h", "--help", "--select", "-d", "--detector", "--max-faces"} <= options_in(help_of("detect"))


def test_pages_that_help_names_are_installed(prefix: pathlib.Path) -> None:
    """And no link in one of them leads to a page that is not."""
    folder = prefix / "share/doc/facenet"
    helps = "".join(help_of(*words) for words in ([], *([c] for c in commands()))) + run(COMMAND, "--generate", "man").stdout
    named = set(re.findall(r"\bdocs/[\w/-]+\.\w+", helps.replace("\\", "")))
    assert "docs/galleries.md" in named
    assert not [page for page in named if not (folder / page).is_file()]
    for page in (folder / "docs").glob("*.md"):
        links = re.findall(r"\]\(([^)#\s:]+)\)", page.read_text())
        assert not [link for link in links if not (page.parent / link).exists()], page.name


def test_manual_page(prefix: pathlib.Path) -> None:
    needs("man")
    (page,) = prefix.rglob("facenet.1*")
    shown = run("man", "--warnings", "-l", page, env={"MANWIDTH": "120", "LC_ALL": "C.UTF-8", "MAN_KEEP_FORMATTING": ""})
    assert shown.stderr == ""
    assert not shown.stdout.startswith("\n\n\n") and "\\f" not in shown.stdout
    for command in commands():
        text = re.split(r"\n   (?=\w+\n)|\n(?=[A-Z])", shown.stdout)
        (section,) = [part for part in text if part.startswith(command + "\n")]
        assert options_in(section) == options_in(help_of(command)), command
        assert f"facenet {command} " in section


def complete_bash(prefix: pathlib.Path, *words: str) -> set[str]:
    (script,) = prefix.rglob("bash-completion/completions/facenet")
    text = (f'source "{script}"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _facenet; printf "%s\\n" "${{COMPREPLY[@]}}"')
    return set(run("bash", "-uc", text, "bash", "facenet", *words, cwd=ROOT).stdout.split())


def complete_fish(prefix: pathlib.Path, *words: str) -> set[str]:
    (script,) = prefix.rglob("facenet.fish")
    line = " ".join(("facenet", *words))
    done = run("fish", "--no-config", "-c", f"source '{script}'; complete -C '{line}'", cwd=ROOT, env={"HOME": str(LOGS)})
    return {row.split("\t")[0] for row in done.stdout.splitlines()}


@pytest.mark.parametrize(("shell", "complete"), [("bash", complete_bash), ("fish", complete_fish)])
def test_completion(shell: str, complete, prefix: pathlib.Path) -> None:
    needs(shell)
    assert set(commands()) <= complete(prefix, "")
    assert complete(prefix, "ver") == {"verify"}
    for command in commands():
        assert options_in(help_of(command)) - {"-h"} <= complete(prefix, command, "--") | complete(prefix, command, "-"), command
    assert complete(prefix, "detect", "--select", "") == {"largest", "probability", "largest_over_threshold", "centre_weighted"}
    assert complete(prefix, "align", "--crop", "f") == {"five_point"}
    assert complete(prefix, "embed", "--weights", "LICEN") == {"LICENSE"}
    assert complete(prefix, "detect", "LICEN") == {"LICENSE"}
    assert complete(prefix, "embed", "--threads", "LICEN") <= {""}


def test_zsh_completion(prefix: pathlib.Path) -> None:
    """_arguments is given stand-ins that print what they were told: zsh itself completes in a terminal only."""
    needs("zsh")
    (script,) = prefix.rglob("_facenet")
    run("zsh", "-n", script)
    text = f'''_arguments() {{ print -rl -- "$@"; [[ $1 == -C ]] && {{ state=rest; line=($chosen); }}; return 0 }}
compdef() {{ :; }}
source "{script}"
for chosen in {" ".join(commands())}; do print "== $chosen"; _facenet; done'''
    told = run("zsh", "-f", "-c", text).stdout
    for part in told.split("== ")[1:]:
        command = part.split("\n", 1)[0]
        of_command = part.split("*:: :->rest\n", 1)[1]
        specs = set(re.findall(r"^\([^)]*\)(--?[\w-]+)\[", of_command, re.MULTILINE))
        assert specs == options_in(help_of(command)), command
    assert "--select[" in told and ":(largest probability largest_over_threshold centre_weighted)" in told


def test_generated_is_not_in_help_and_names_its_kinds() -> None:
    assert "--generate" not in help_of()
    refused = run(COMMAND, "--generate", "html", status=2)
    assert "'html' is none of man, complete-bash, complete-zsh, complete-fish" in refused.stderr


# ---- .deb and .tar.gz -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    needs("dpkg-deb", "dpkg-shlibdeps")
    folder = tmp_path_factory.mktemp("packages")
    run("cpack", "--config", BUILD / "CPackConfig.cmake", "-B", folder)
    return folder


EXPECTED = {
    "command": {"bin/facenet", "bin/facenet-convert-weights", "share/man/man1/facenet.1.gz", "share/facenet/convert_weights.py",
                "share/bash-completion/completions/facenet", "share/zsh/vendor-completions/_facenet",
                "share/fish/vendor_completions.d/facenet.fish", "lib/systemd/system/facenet.service", "lib/systemd/system/facenet.socket", "share/doc/facenet/copyright", "share/doc/facenet/facenet.spdx.json"},
    "runtime": {"lib/libfacenet.so.0", "lib/libfacenet.so.0.1.0", "share/doc/libfacenet0/copyright"},
    "development": {"include/facenet/facenet.h", "lib/libfacenet.so", "lib/pkgconfig/facenet-c.pc", "include/facenet/facenet.hpp", "include/facenet/dispatch.hpp", "include/facenet/third_party/xsimd/xsimd.hpp",
                    "lib/libfacenet-dispatch.a", "lib/pkgconfig/facenet.pc", "lib/cmake/facenet/facenetConfig.cmake",
                    "share/doc/libfacenet-dev/copyright"},
}
UNWANTED = re.compile(r"__pycache__|\.py[co]$|\.safetensors$|/tests?/|doctest|benchmark")


@pytest.mark.parametrize(("component", "deb", "tar"), [
    ("command", "facenet_*.deb", "facenet-0.1.0-*.tar.gz"),
    ("development", "libfacenet-dev_*.deb", "facenet-dev-*.tar.gz"),
    ("runtime", "libfacenet0_*.deb", "libfacenet-0.1.0-*.tar.gz"),
])
def test_contents(component: str, deb: str, tar: str, packages: pathlib.Path) -> None:
    (deb_file,), (tar_file,) = packages.glob(deb), packages.glob(tar)
    listing = run("dpkg-deb", "-c", deb_file).stdout
    in_deb = {line.split(None, 5)[5].split(" -> ")[0].removeprefix("./usr/") for line in listing.splitlines()}
    with tarfile.open(tar_file) as archive:
        in_tar = {name.partition("/")[2] for name in archive.getnames()}
    for name, files in (("deb", in_deb), ("tar", in_tar)):
        (LOGS / f"{component}.{name}.txt").write_text("\n".join(sorted(files)) + "\n")
        flat = {re.sub("^lib/[a-z0-9_]+-linux-gnu/", "lib/", file) for file in files}
        assert EXPECTED[component] <= flat, EXPECTED[component] - flat
        assert not [file for file in files if UNWANTED.search(file)]


def test_deb_installs_and_runs(packages: pathlib.Path, small_picture: pathlib.Path, tmp_path: pathlib.Path) -> None:
    root = tmp_path / "root"
    (root / "var/lib/dpkg/updates").mkdir(parents=True)
    (root / "var/lib/dpkg/info").mkdir()
    (root / "var/lib/dpkg/status").touch()
    (root / "var/lib/dpkg/available").touch()
    fake = ("fakeroot",) if os.geteuid() != 0 and shutil.which("fakeroot") else ()
    run(*fake, "dpkg", f"--root={root}", "--force-depends", "--force-not-root", "--install", *packages.glob("*.deb"), log="deb")
    assert "install ok installed" in run("dpkg-query", f"--root={root}", "--show", "-f", "${Status}\n", "facenet").stdout
    command = root / "usr/bin/facenet"
    assert run(command, "--version").stdout == run(COMMAND, "--version").stdout
    assert json.loads(detected(command, picture=small_picture))["faces"]
    converter = root / "usr/bin/facenet-convert-weights"
    shown = run(ROOT / ".venv/bin/python", converter, "--help").stdout
    page = gzip.decompress((root / "usr/share/man/man1/facenet-convert-weights.1.gz").read_bytes()).decode()
    page = re.sub(r"\\f[BIR]", "", page).replace("\\-", "-")
    names = r"(?<![\w-])--?[a-z][\w-]*"
    listed = shown.split("\noptions:")[1].split("\nexamples:")[0]
    assert set(re.findall(names, listed)) == set(re.findall(names, page.split(".SH OPTIONS")[1]))
    bare = run("/usr/bin/python3", "-E", "-s", converter, "--help", status=2)
    assert "facenet_pytorch" in bare.stderr and "install them" in bare.stderr
    depends = run("dpkg-query", f"--root={root}", "--show", "-f", "${Depends}", "facenet").stdout
    assert {"libc6", "libstdc++6", "libheif1", "libseccomp2", "libtiff6"} <= set(re.findall(r"[\w+.-]+", depends))
    (library,) = root.rglob("libfacenet.so.0")
    assert ctypes.CDLL(str(library)).facenet_wipe is not None
    assert run("dpkg-query", f"--root={root}", "--show", "-f", "${Depends}", "libfacenet-dev").stdout == "libfacenet0 (= 0.1.0-1)"
    assert "libsqlite3-0" in run("dpkg-query", f"--root={root}", "--show", "-f", "${Depends}", "libfacenet0").stdout
    run(*fake, "dpkg", f"--root={root}", "--force-not-root", "--purge", "facenet", "libfacenet-dev", "libfacenet0", log="deb")
    assert not (root / "usr/bin/facenet").exists() and not (root / "usr/include/facenet").exists()


def test_lintian(packages: pathlib.Path) -> None:
    needs("lintian")
    # Not for Debian's archive: nobody reported the packaging as a bug there.
    suppressed = "initial-upload-closes-no-bugs"
    told = run("lintian", "--allow-root", "--suppress-tags", suppressed, *packages.glob("*.deb"), status=None, log="lintian").stdout
    assert not [line for line in told.splitlines() if line.startswith(("E:", "W:"))], told


# ---- What is inside ---------------------------------------------------------------------------------------------------------


def test_sbom(prefix: pathlib.Path) -> None:
    from spdx_tools.spdx.parser.parse_anything import parse_file
    from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

    document = parse_file(str(prefix / "share/doc/facenet/facenet.spdx.json"))
    assert not [message.validation_message for message in validate_full_spdx_document(document)]
    versions = {package.name: package.version for package in document.packages}
    assert {"facenet", "xsimd", "stb-image", "CLI11", "nlohmann-json"} <= set(versions)
    assert "unknown" not in versions.values()
    linked = run("ldd", COMMAND).stdout
    assert ("libsqlite3" in linked) == ("sqlite" in versions) and ("libgomp" in linked) == ("OpenMP-runtime" in versions)
    assert ("libcurl" in linked) == ("curl" in versions)
    assert "Expat" not in versions or "libexpat" in linked
    stated = (prefix / "share/doc/facenet/copyright").read_text()
    decoder = COMMAND.with_name("facenet-decode")
    decoders = run("ldd", decoder).stdout if decoder.exists() else ""
    for library in ("libseccomp", "libheif", "libwebp", "libtiff", "libjxl"):
        assert (library in decoders) == (library in versions) and library not in linked
    contained = {r.related_spdx_element_id.removeprefix("SPDXRef-") for r in document.relationships if r.relationship_type.name == "CONTAINS"}
    assert contained >= {"xsimd", "stb-image", "CLI11", "nlohmann-json"}
    for name in contained:
        assert re.search(rf"^Files: {name.replace('-', '[-_]')}$", stated, re.MULTILINE), f"{name} is not in packaging/copyright"


# ---- Conan and vcpkg, as far as they go without their servers ------------------------------------------------------------------


def test_conan(tmp_path: pathlib.Path) -> None:
    conan = ROOT / ".venv/bin/conan"
    if not conan.exists():
        pytest.skip("conan is not in .venv")
    environment = {"CONAN_HOME": str(tmp_path)}
    run(conan, "profile", "detect", env=environment)
    stb = next((path for path in ("/usr/include/stb", "/usr/include") if pathlib.Path(path, "stb_image.h").exists()), None)
    for name, version, headers, pattern in (("xsimd", "14.1.0", ROOT / ".deps/include", "xsimd/*"),
                                            ("stb", "cci.20230920", stb, "stb_image.h")):
        run(conan, "create", CONSUMERS / "conan/dependency.py", "--name", name, "--version", version, "--no-remote",
            env=environment | {"HEADERS": str(headers), "PATTERN": pattern}, log="conan")
    shutil.copytree(ROOT / "packaging/conan/test_package", tmp_path / "test_package")   # Conan builds in it
    made = run(conan, "create", ROOT / "packaging/conan", "--no-remote", "-tf", tmp_path / "test_package", env=environment, log="conan")
    assert re.search(r"facenet 0\.1\.0, \w+: 5", made.stdout + made.stderr)


def test_vcpkg_port(tmp_path: pathlib.Path) -> None:
    """The port's own script, with vcpkg's functions played by tests/consumers/vcpkg/run_port.cmake."""
    manifest = json.loads((ROOT / "packaging/vcpkg/facenet/vcpkg.json").read_text())
    assert manifest["version"] == re.search(r"project\(facenet VERSION ([\d.]+)", (ROOT / "CMakeLists.txt").read_text())[1]
    xsimd = tmp_path / "xsimd"
    xsimd.mkdir()
    shutil.copytree(ROOT / ".deps/include/xsimd", xsimd / "include/xsimd")
    (xsimd / "xsimdConfig.cmake").write_text(
        'add_library(xsimd INTERFACE IMPORTED)\ntarget_include_directories(xsimd INTERFACE "${CMAKE_CURRENT_LIST_DIR}/include")\n'
        "set(xsimd_VERSION 14.1.0)\n")
    (xsimd / "xsimdConfigVersion.cmake").write_text("set(PACKAGE_VERSION 14.1.0)\nset(PACKAGE_VERSION_COMPATIBLE TRUE)\n")
    run("cmake", f"-DPORT={ROOT / 'packaging/vcpkg/facenet'}", f"-DOUT={tmp_path}", "-DFEATURES=", f"-DOPTIONS=-Dxsimd_DIR={xsimd}",
        "-P", CONSUMERS / "vcpkg/run_port.cmake", log="vcpkg")
    installed = tmp_path / "packages"
    assert not (installed / "include/facenet/third_party").exists()
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.20)\nproject(consumer LANGUAGES CXX)\nfind_package(facenet REQUIRED)\n"
        f"add_executable(threads {CONSUMERS}/find_package/threads.cpp)\ntarget_link_libraries(threads PRIVATE facenet::facenet)\n")
    run("cmake", "-S", tmp_path, "-B", tmp_path / "consumer", f"-Dfacenet_DIR={installed / 'share/facenet'}", f"-Dxsimd_DIR={xsimd}",
        log="vcpkg")
    run("cmake", "--build", tmp_path / "consumer", log="vcpkg")
    assert run(tmp_path / "consumer/threads").stdout.split()[1:] == ["pool", "10", "5"]
