"""facenet.h by itself: it compiles as C and as C++, says what everything is for, and is what the library's map exports."""

from __future__ import annotations

import pathlib
import re
import shutil
import subprocess

import c_header
import pytest
from conftest import ROOT


def run(*arguments: object) -> None:
    compiler = shutil.which("gcc") or shutil.which("cc")
    assert compiler is not None, "tools/bootstrap.sh installs one"
    done = subprocess.run([compiler, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_function_has_a_docstring() -> None:
    documented = re.findall(r"/\*\*((?:(?!\*/).)*)\*/\s*FACENET_API\s+[\w *]+?\b(facenet_\w+)\(", c_header.HEADER.read_text(), re.DOTALL)
    assert {name for _, name in documented} == set(c_header.functions())
    assert all(len(text.split()) > 5 for text, _ in documented)


@pytest.mark.parametrize("language", [["-std=c99"], ["-std=c17"], ["-x", "c++", "-std=c++98", "-Wno-long-long"], ["-x", "c++", "-std=c++20"]])
def test_the_header_compiles(language: list[str], tmp_path: pathlib.Path) -> None:
    macros = re.findall(r"#define (FACENET_\w+)_INIT", c_header.HEADER.read_text())
    assert len(macros) == 10
    (tmp_path / "unit.c").write_text('#include "facenet/facenet.h"\n#include "facenet/facenet.h"\n' + "".join(
        f"void f{i}(void);\nvoid f{i}(void) {{ {name.lower()} made = {name}_INIT; (void)made; }}\n" for i, name in enumerate(macros)))
    run(*language, "-Wall", "-Wextra", "-Wpedantic", "-Werror", f"-I{ROOT / 'include'}", "-c", tmp_path / "unit.c", "-o",
        tmp_path / "unit.o")


def test_the_map_exports_what_the_header_declares() -> None:
    """And names it in order, so that a merge keeps both sides."""
    listed = re.findall(r"^  (facenet_\w+);$", (ROOT / "src/c/facenet.map").read_text(), re.MULTILINE)
    assert listed == sorted(c_header.functions())


def test_structures_have_no_hidden_gaps() -> None:
    """A gap would be bytes that nobody sets, and that a later version cannot tell from a member."""
    for name, kind in c_header.structures().items():
        end = 0
        for member, _ in kind._fields_:
            assert getattr(kind, member).offset == end, f"a gap before {name}.{member}"
            end += getattr(kind, member).size


def test_a_structure_that_grows_begins_with_its_size_and_has_an_initialiser() -> None:
    text, fixed = c_header.code(), {"facenet_picture", "facenet_face", "facenet_match"}   # they come in arrays
    for name, kind in c_header.structures().items():
        first = kind._fields_[0][0]
        assert (first == "struct_size") != (name in fixed), name
        assert (f"#define {name.upper()}_INIT" in text) == (first == "struct_size"), name
