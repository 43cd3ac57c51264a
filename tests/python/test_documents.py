"""The documents: their links and files exist, their programs compile, and they keep to 100 columns."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess

import pytest
from conftest import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "bench/README.md", ROOT / "weights/README.md",
                ROOT / "examples/web/facenet/README.md"])
NARROW = sorted([ROOT / "README.md", ROOT / "HACKING.md", *ROOT.glob("docs/**/*.md")])
# Where a page's file names may begin; build/ and weights/ hold what tools make.
BASES = [ROOT / base for base in ("", "include", "include/facenet", "include/facenet/image", "tools", "tools/command",
                                  "tools/facenet_tools", "tests/python", "examples/web/facenet")]
MADE = ("build/", "weights/", ".deps/", ".venv", "dist/", "run/", "sets/", "model/", "crops/", "found/")
INCLUDES = [f"-I{ROOT / 'include'}", f"-isystem{ROOT / '.deps/include'}"]
COMPILER = [shutil.which("g++") or "c++", "-std=c++17", "-fsyntax-only", *INCLUDES, "-DFACENET_ALLOW_DEBUG", "-Wall",
            "-Wextra", "-Werror", "-x", "c++", "-"]


def name_of(page) -> str:
    return str(page.relative_to(ROOT))


def fences(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)


def without_fences(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def bad_links(page) -> list[str]:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)|^\[[^]]+\]: (\S+)", without_fences(page.read_text()), re.MULTILINE)
    targets = [a or b for a, b in links]
    return [t for t in targets if not re.match(r"[a-z]+:", t) and not (page.parent / t).exists()]


def missing_files(page) -> list[str]:
    """Names in backticks that have a folder and a suffix, but no file."""
    named = re.compile(r"`([\w.-]+(?:/[\w.-]+)+\.(?:hpp|cpp|py|sh|cmake|md|mjs|js|json))`")
    names = [n for n in named.findall(without_fences(page.read_text())) if n.endswith(".hpp") or not n.startswith(MADE)]
    return [n for n in names if not any((base / n).exists() for base in BASES)]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    assert not bad_links(page)


@pytest.mark.parametrize("page", NARROW, ids=name_of)
def test_files_that_a_page_names_exist(page):
    assert not missing_files(page)


def test_a_broken_link_and_a_missing_file_are_seen(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("[a](gone.md) [b](page.md) [c](https://x.invalid/y.md)\n[d]: lost.png\n"
                    "`plan/gone.hpp` `plan/choose.hpp`\n")
    assert bad_links(page) == ["gone.md", "lost.png"] and missing_files(page) == ["plan/gone.hpp"]


@pytest.mark.parametrize("page", NARROW, ids=name_of)
def test_lines_have_at_most_100_columns(page):
    text = page.read_text()
    if page.name == "HACKING.md":  # the table of folders is read by a test and is as wide as it must be
        text = re.sub(r"## Folders are layers.*?\n## ", "## ", text, flags=re.DOTALL)
    assert [line for line in text.splitlines() if len(line) > 100] == []


def test_the_readme_of_tools_names_each_entry_point():
    page = (ROOT / "tools/README.md").read_text()
    tools = [path.name for path in (ROOT / "tools").iterdir() if path.suffix in (".py", ".sh")]
    assert len(tools) > 10 and not [name for name in tools if f"`{name}`" not in page]


def test_the_readme_and_the_map_are_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 130
    assert len((ROOT / "HACKING.md").read_text().splitlines()) <= 160


NARROW_CPUS = {"i686-linux-gnu-g++": ("-msse2", "-mfpmath=sse"), "arm-linux-gnueabihf-g++": ()}  # size_t has 32 bits


def compile_with(compiler: str, flags: tuple[str, ...], source: str) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed (tools/bootstrap.sh --all)")
    command = [compiler, *COMPILER[1:], *flags, "-Wconversion"]
    done = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:4000]


@pytest.mark.parametrize("compiler", [COMPILER[0], *(pytest.param(name, marks=pytest.mark.slow) for name in NARROW_CPUS)])
@pytest.mark.parametrize("page", ["README.md", "docs/constrained.md"])
def test_the_programs_compile(page, compiler):
    (source,) = fences(page, "cpp")
    compile_with(compiler, NARROW_CPUS.get(compiler, ()), source)


def examples() -> dict[str, str]:
    """Of each header's docstrings, the lines after `/// Example:` that are indented."""
    found = {}
    for header in sorted((ROOT / "include/facenet").glob("*.hpp")):
        for i, block in enumerate(re.findall(r"/// Example:\n((?:///   .*\n)+)", header.read_text())):
            found[f"{header.stem}_{i}"] = re.sub(r"^///   ", "  ", block, flags=re.MULTILINE)
    return found


@pytest.mark.parametrize("compiler", [COMPILER[0], *(pytest.param(name, marks=pytest.mark.slow) for name in NARROW_CPUS)])
def test_the_headers_examples_compile(compiler):
    bodies = examples()
    assert {"detector_0", "embedder_0", "gallery_0", "image_io_0", "plan_0"} <= bodies.keys()
    source = "#include <cstdio>\n#include <vector>\n#include <facenet/facenet.hpp>\n#include <facenet/image_io.hpp>\n"
    for name, body in bodies.items():
        end = "" if body.splitlines()[-1].startswith("  return") else "  return {};\n"
        source += f"facenet::Status {name}();\nfacenet::Status {name}() {{\n{body}{end}}}\n"
    quiet = ("-Wno-unused-variable", "-Wno-unused-but-set-variable")
    compile_with(compiler, (*NARROW_CPUS.get(compiler, ()), *quiet), source)


def test_the_commands_page_reads_what_the_command_prints(tmp_path):
    """The program as it stands, with a command that prints two faces and a picture without one."""
    (source,) = fences("docs/command.md", "python")
    ast.parse(source)
    faces = [{"image": "group.jpg", "face": i, "box": [0, 0, 1, 1], "embedding": [0.6, 0.8 * i]} for i in range(2)]
    text = "\n".join(json.dumps(line) for line in [*faces, {"image": "none.jpg", "faces": 0}])
    command = tmp_path / "facenet"
    command.write_text(f"#!/bin/sh\n[ \"$1 $2\" = 'embed --json' ] || exit 2\ncat <<'E'\n{text}\nE\n")
    command.chmod(0o755)
    done = subprocess.run([shutil.which("python3"), "-c", source], env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
                          capture_output=True, text=True, check=False)
    assert done.stdout == "group.jpg 1 [0, 0, 1, 1] 0.8\n", done.stderr


def test_the_readmes_javascript_parses(tmp_path):
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    (source,) = fences("README.md", "js")
    program = tmp_path / "readme.mjs"
    program.write_text(source)
    done = subprocess.run([node, "--check", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    types = (ROOT / "examples/web/facenet/index.d.ts").read_text()
    for method in re.findall(r"(?:net|FaceNet)\.(\w+)\(", source):
        assert re.search(rf"\b{method}\(", types), f"the package has no {method}()"
