"""tools/amalgamate.py: one file that says what all headers say; tools/embed_weights.py: weights inside a program."""

from __future__ import annotations

import os
import pathlib
import re
import stat
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, TOOLS
from safetensors.numpy import save_file

DEPENDENCIES = [f"-isystem{ROOT / '.deps/include'}"] if (ROOT / ".deps/include").exists() else []
# Bytes. The engine alone stays below what it was held to before pictures were walked code by code; the scan of JPEG and PNG, which
# --no-images leaves out, is 75 KB; the detector took 22 KB for small levels of a pyramid made in one pass, and for reused memory.
LIMITS = {"--no-images": 425_000, None: 500_000, "--int8": 545_000}
sys.path.insert(0, str(TOOLS))
import amalgamate  # noqa: E402
import embed_weights  # noqa: E402


def tool(name: str, *arguments: object, cwd: pathlib.Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, TOOLS / name, *map(str, arguments)], capture_output=True, text=True, cwd=cwd,
                          check=False)


def run(*command: object, **keywords: object) -> subprocess.CompletedProcess:
    done = subprocess.run(list(map(str, command)), capture_output=True, check=False, **keywords)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def fails(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and all(part in done.stderr for part in parts), done.stderr


@pytest.fixture(scope="module")
def one_file(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("one") / "facenet.hpp"
    assert tool("amalgamate.py", "-o", path).returncode == 0
    return path


def headers_in(path: pathlib.Path) -> list[str]:
    return re.findall(r"^// ---- (facenet/.*)$", path.read_text(), re.MULTILINE)


def test_it_holds_every_header_and_stays_small(one_file, tmp_path):
    assert one_file.stat().st_size < LIMITS[None]
    engine = tmp_path / "engine.hpp"
    assert tool("amalgamate.py", "--no-images", "-o", engine).returncode == 0
    assert engine.stat().st_size < LIMITS["--no-images"]
    whole = tmp_path / "whole.hpp"
    assert tool("amalgamate.py", "--int8", "-o", whole).returncode == 0
    assert whole.stat().st_size < LIMITS["--int8"]
    pages = re.findall(r"^// ---- page (.*)$", whole.read_text(), re.MULTILINE)
    every = {path.relative_to(ROOT / "include").as_posix() for path in (ROOT / "include").rglob("*.hpp")}
    assert sorted(headers_in(whole) + pages) == sorted(every - {"facenet/kernels/integer_matrix.hpp"})  # AMX, which it has not
    assert "tdpbusd" not in whole.read_text()
    pages = re.findall(r"^// ---- page (.*)$", one_file.read_text(), re.MULTILINE)
    assert all("/integer_" in name for name in every - set(headers_in(one_file) + pages))
    assert "integer_tile" not in one_file.read_text()
    assert 'include "facenet/' not in one_file.read_text() and "#pragma once" not in one_file.read_text()


def test_not_beside_the_headers(one_file, tmp_path):
    for first, second, sentence in (("facenet/base/status.hpp", one_file, "include this one file or the headers, not both"),
                                    (one_file, "facenet/gallery.hpp", "the one file of tools/amalgamate.py, was included before")):
        unit = tmp_path / "both.cpp"
        unit.write_text(f'#include "{first}"\n#include "{second}"\n')
        done = subprocess.run(["g++", "-std=c++17", "-O1", f"-I{ROOT / 'include'}", *DEPENDENCIES, "-fsyntax-only", unit],
                              capture_output=True, text=True, check=False)  # fmt: skip
        errors = [line for line in done.stderr.splitlines() if "error:" in line]
        assert done.returncode != 0 and sentence in errors[0], done.stderr[:2000]
        assert len(errors) <= 2, "nothing is defined twice"


def test_the_same_bytes_from_anywhere(one_file, tmp_path):
    assert tool("amalgamate.py", "-o", "-", cwd=tmp_path).stdout == one_file.read_text()


# C++'s, operators whole: the file may leave out a space, but `> =` must not become `>=`. (`>>` may end two templates.)
TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])+\'|[\w.]+|<<=|>>=|[-+*/%&|^!=<>]=|&&|\|\||<<|::|->|\+\+|--|[^\w\s]')


@pytest.mark.parametrize("flags", [[], ["--docs"], ["--no-images"], ["--int8"]], ids=["plain", "docs", "no-images", "int8"])
def test_the_compiler_reads_the_same_as_from_the_headers(flags, tmp_path):
    """After preprocessing both are the same tokens, so every test of the headers is one of the file."""
    path = tmp_path / "one.hpp"
    assert tool("amalgamate.py", *flags, "-o", path).returncode == 0

    def tokens(source: str) -> list[str]:
        integers = [] if "--int8" in flags else ["-DFACENET_NO_INTEGER"]
        done = run("g++", "-std=c++17", "-E", "-P", *integers, f"-I{ROOT / 'include'}", *DEPENDENCIES, "-x", "c++", "-", input=source.encode())
        lines = done.stdout.decode().splitlines()
        text = " ".join(line for line in lines if not line.startswith(("#pragma push_macro", "#pragma pop_macro")))
        return TOKEN.findall(text)

    names = headers_in(path)
    assert ("facenet/image_io.hpp" in names) == ("--no-images" not in flags)
    assert tokens(f'#include "{path}"\n') == tokens("".join(f'#include "{name}"\n' for name in names))


def test_comments_go_and_what_looks_like_one_stays():
    text = 'a = "// no /* no";  // yes\n// yes\n/* yes\n   yes */\nchar c = \'"\';  // "yes\n/// doc\nb;\n\nd;\n'
    assert list(amalgamate.without_comments(text, False)) == ['a="// no /* no";', "char c='\"';", "b;", "", "d;"]
    assert list(amalgamate.without_comments("{\n    int a;\n}\n", False)) == ["{", "int a;", "}"]
    assert list(amalgamate.without_comments("template <class T, only<T> = 0>\nint a[2] = {1, 2};", False)) == ["template <class T,only<T> = 0>", "int a[2]={1,2};"]
    assert list(amalgamate.without_comments("int f() noexcept {\n  if (x) { y(); }\n}\n#define A {", False)) == ["int f() noexcept{", "if(x){ y(); }", "}", "#define A {"]
    assert TOKEN.findall("a<b> = 0") != TOKEN.findall("a<b>=0") and TOKEN.findall("a = b") == TOKEN.findall("a=b")
    assert list(amalgamate.without_comments(text, True)) == ['a="// no /* no";', "char c='\"';", "/// doc", "b;", "", "d;"]


def test_a_device_is_not_replaced_by_a_file(tmp_path):
    pipe = tmp_path / "pipe.S"   # a pipe in the place of a device, which root would lose
    os.mkfifo(pipe)
    fails(tool("amalgamate.py", "-o", pipe), "not a regular file")
    with pytest.raises(embed_weights.InputError, match="not a regular file"):
        embed_weights.write(pipe, "")
    assert stat.S_ISFIFO(pipe.stat().st_mode) and list(tmp_path.iterdir()) == [pipe]


def test_what_cannot_be_one_file_is_said(tmp_path):
    fails(tool("amalgamate.py", "-o", tmp_path / "no" / "folder.hpp"), "folder.hpp: cannot be written")
    fails(tool("amalgamate.py", "--include", tmp_path, "-o", tmp_path / "x.hpp"), "config.hpp: cannot be read")
    copy = tmp_path / "include" / "facenet"
    (copy / "base").mkdir(parents=True)
    (copy / "base" / "config.hpp").write_text('#define FACENET_VERSION "1"\n#if 1\n#include "facenet/other.hpp"\n#endif\n')
    (copy / "other.hpp").write_text("")
    (copy / "image_io.hpp").write_text("")
    fails(tool("amalgamate.py", "--include", copy.parent, "-o", tmp_path / "x.hpp"), "config.hpp: line 3", "under a condition")
    assert not (tmp_path / "x.hpp").exists()


# ---- Weights in a program ----------------------------------------------------------------------------------------------

PROGRAM = """\
#include <cstdio>
#include "facenet/weights.hpp"
extern "C" const unsigned char some[];
extern "C" const unsigned long long some_size;
int main() {
  const auto size = static_cast<std::size_t>(some_size);
  auto reader = facenet::WeightsReader::from_memory({some, size});
  if (!reader || reader->size() != 2 || reinterpret_cast<std::uintptr_t>(some) % 64 != 0) return 1;
  return std::fwrite(some, 1, size, stdout) == size ? 0 : 1;
}
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("weights") / 'so "me.safetensors'
    random = np.random.default_rng(2)
    save_file({"a": random.random((7, 3), np.float32), "b": random.random(1001, np.float32)}, path)
    return path


@pytest.mark.parametrize(("suffix", "compilers"), [(".S", ("gcc",)), (".c", ("gcc", "g++"))], ids=["incbin", "array"])
def test_the_program_holds_the_file(suffix, compilers, weights, tmp_path):
    output = tmp_path / f"some{suffix}"
    assert tool("embed_weights.py", weights, "-o", output, "--name", "some").returncode == 0
    (tmp_path / "main.cpp").write_text(PROGRAM)
    run("g++", "-std=c++17", f"-I{ROOT / 'include'}", *DEPENDENCIES, "-c", tmp_path / "main.cpp", "-o", tmp_path / "main.o")
    for compiler in compilers:
        language = ["-x", "c++"] if compiler == "g++" else []
        run(compiler, "-Wall", "-Wextra", "-Werror", *language, "-c", output, "-o", tmp_path / "some.o")
        run("g++", tmp_path / "main.o", tmp_path / "some.o", "-o", tmp_path / "program")
        assert run(tmp_path / "program").stdout == weights.read_bytes()
        assert "GNU_STACK" in (stack := run("readelf", "-lW", tmp_path / "program", text=True).stdout)
        assert "RWE" not in stack  # an assembler file that does not say otherwise would make the stack executable


def test_what_cannot_be_embedded_is_said(weights, tmp_path):
    for arguments, parts in [
        ((tmp_path / "none", "-o", tmp_path / "x.S"), ("none: cannot be read",)),
        ((__file__, "-o", tmp_path / "x.S"), ("is not a safetensors file", "tools/convert_weights.py")),
        ((weights, "-o", tmp_path / "x.o"), ("must end in .S",)),
        ((weights, "-o", tmp_path / "x.s"), ("must end in .S",)),   # no preprocessor, which the file needs
        ((weights, "-o", tmp_path / "x.S", "--name", "1x"), ("not a name in C",)),
        ((weights, "-o", tmp_path / "no" / "x.S"), ("cannot be written",)),
    ]:
        fails(tool("embed_weights.py", *arguments), *parts)
    assert list(tmp_path.iterdir()) == []
