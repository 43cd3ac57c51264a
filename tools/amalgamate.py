#!/usr/bin/env python3
"""Joins the engine's headers into one file that needs no other but xsimd's and, for pictures, stb_image.h.

Comments stay behind, so that it is under 400 KB; --docs takes those along that explain the use (///). The same headers
give the same bytes. Include the file instead of facenet/facenet.hpp, never beside it.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import re
import sys
from typing import Iterator

ROOT = pathlib.Path(__file__).resolve().parents[1]
EXAMPLES = """\
examples:
  tools/amalgamate.py -o facenet.hpp              everything, pictures included: stb_image.h must be found
  tools/amalgamate.py --no-images -o facenet.hpp  embeds pixels that somebody else has decoded

exit status: 0 the file is written, 2 error
"""
IMAGES = "image_io"
OURS = re.compile(r'^\s*#\s*include\s+"facenet/([\w/]+)\.hpp"')
SYSTEM = re.compile(r"^\s*#\s*include\s+<.*>")
# A string or character literal, or a comment; in C++ nothing else may hold what looks like one.
LITERAL_OR_COMMENT = re.compile(r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'|//[^\n]*|/\*.*?\*/', re.DOTALL)


class InputError(Exception):
    """A sentence for the user: the file, the place and the remedy."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("-o", "--output", required=True, metavar="OUT", help="the file; - is standard output")
    add("--no-images", action="store_true", help="leave decoding of JPEG and PNG out, and so stb_image.h")
    add("--docs", action="store_true", help="keep the comments that explain the use")
    add("--include", type=pathlib.Path, default=ROOT / "include", metavar="DIR", help="where facenet/*.hpp are")
    return parser.parse_args()


def read(include: pathlib.Path, name: str) -> str:
    path = include / "facenet" / f"{name}.hpp"
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); run this from a complete checkout.") from error


def in_order(include: pathlib.Path, images: bool) -> list[str]:
    """Every header after those that it includes; the decoder last, since what only it needs goes with it."""
    names = sorted(path.relative_to(include / "facenet").with_suffix("").as_posix()
                   for path in (include / "facenet").rglob("*.hpp"))
    if IMAGES not in names:
        raise InputError(f"{include}: there is no facenet/{IMAGES}.hpp; give the folder that holds facenet/ to --include.")
    needs = {name: [match[1] for line in read(include, name).splitlines() if (match := OURS.match(line))] for name in names}
    order: list[str] = []

    def visit(name: str) -> None:
        if name in order:
            return
        for lower in needs[name]:
            visit(lower)
        order.append(name)

    only_images = {name for name in needs[IMAGES]
                   if not any(name in needs[other] for other in names if other != IMAGES)} | {IMAGES}
    for name in names:
        if name not in only_images:
            visit(name)
    if images:
        visit(IMAGES)
    return order


def without_comments(text: str, keep_docs: bool) -> Iterator[str]:
    """The lines of a header, less comments; a line that held nothing else is gone."""
    doc = re.compile(r"^\s*///")

    def blank(match: re.Match[str]) -> str:
        found = match[0]
        if not found.startswith(("//", "/*")) or (keep_docs and found.startswith("///")):
            return found
        return "\n".join(["\0"] * (found.count("\n") + 1))

    for line in LITERAL_OR_COMMENT.sub(blank, text).splitlines():
        bare = line.replace("\0", "").rstrip()
        if bare or "\0" not in line:
            yield bare if doc.match(bare) or "\0" in line else line.rstrip()


def body(include: pathlib.Path, name: str, seen: set[str], keep_docs: bool) -> Iterator[str]:
    """A header without its guard, the includes of ours, and unconditional ones that have been there before."""
    depth = 0
    for number, line in enumerate(without_comments(read(include, name), keep_docs), 1):
        directive = line.lstrip()
        if directive.startswith("#if"):
            depth += 1
        elif directive.startswith("#endif"):
            depth -= 1
        if OURS.match(line):
            if depth:
                raise InputError(f"facenet/{name}.hpp: line {number} includes {line.strip()} under a condition, which one "
                                 "file cannot; include it always.")
            continue
        if directive == "#pragma once":
            continue
        if depth == 0 and SYSTEM.match(line):
            if line in seen:
                continue
            seen.add(line)
        yield line


def amalgamate(include: pathlib.Path, images: bool, keep_docs: bool) -> str:
    version = re.search(r'#define FACENET_VERSION "([^"]+)"', read(include, "config"))
    if version is None:
        raise InputError(f"{include}/facenet/config.hpp: there is no FACENET_VERSION; run this from a complete checkout.")
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8").splitlines()
    copyright_line = next((line for line in licence if line.startswith("Copyright")), "")
    lines = [f"// facenet {version[1]}, all headers in one, made by tools/amalgamate.py. MIT licence. {copyright_line}".rstrip(),
             "// Needs xsimd (not with FACENET_SCALAR)" + (" and stb_image.h." if images else "; decodes no pictures."),
             "// Switches, the same in every source file of a program: FACENET_SCALAR (no SIMD), FACENET_PARALLEL_SERIAL (no",
             "// threads), FACENET_PARALLEL_POOL (std::thread even with OpenMP), FACENET_NO_STDIO (no files), FACENET_MALLOC(bytes)",
             "// and FACENET_FREE(pointer).",
             "#if defined(FACENET_VERSION_MAJOR) && !defined(FACENET_ONE_FILE_HPP)",
             "#error \"facenet: include this one file or the headers, not both\"", "#endif",
             "#ifndef FACENET_ONE_FILE_HPP", "#define FACENET_ONE_FILE_HPP"]
    seen: set[str] = set()
    for name in in_order(include, images):
        lines += ["", f"// ---- facenet/{name}.hpp", *body(include, name, seen, keep_docs)]
    lines += ["", "#endif  // FACENET_ONE_FILE_HPP", ""]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines))


def write(path: str, text: str) -> None:
    if path == "-":
        sys.stdout.write(text)
        return
    target = pathlib.Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose a folder that can be.") from error


def main() -> None:
    arguments = parse_arguments()
    try:
        write(arguments.output, amalgamate(arguments.include, not arguments.no_images, arguments.docs))
    except InputError as error:
        print(f"amalgamate.py: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
