#!/usr/bin/env python3
"""Joins the engine's headers into one file that needs no other but xsimd's and, for pictures, stb_image.h.

Comments, indentation, empty lines and spaces in lists and assignments stay behind, so that it is under 500 KB, and under 425 with --no-images;
--docs takes those comments along that explain the use (///). The same headers give the same bytes. Include the file instead of
facenet/facenet.hpp, never beside it.
"""

from __future__ import annotations

import argparse
import dataclasses
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
MACROS = re.compile(r'^\s*#\s*include\s+"facenet/base/macros_(?:push|pop)\.inc"')  # once for the whole file
SYSTEM = re.compile(r"^\s*#\s*include\s+<.*>")
# A string or character literal, or a comment; in C++ nothing else may hold what looks like one.
# In lists, around assignments and before blocks: 6% of the file. Behind an operator they stay: `> =` is not `>=`.
SPACES = re.compile(r", |(?<=[\w\])}]) = |(?:(?<=\bif)|(?<=\bfor)|(?<=\bwhile)) (?=\()|(?:(?<=\))|(?<=\bnoexcept)|(?<=\breturn)|(?<=\belse)) (?=\{)|(?<=}) (?=else\b)")
LITERAL_OR_COMMENT = re.compile(r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'|//[^\n]*|/\*.*?\*/', re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Options:
    images: bool
    docs: bool
    int8: bool


class InputError(Exception):
    """A sentence for the user: the file, the place and the remedy."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("-o", "--output", required=True, metavar="OUT", help="the file; - is standard output")
    add("--no-images", action="store_true", help="leave decoding of JPEG and PNG out, and so stb_image.h")
    add("--int8", action="store_true", help="with integer arithmetic: 50 KB more")
    add("--docs", action="store_true", help="keep the comments that explain the use")
    add("--include", type=pathlib.Path, default=ROOT / "include", metavar="DIR", help="where facenet/*.hpp are")
    return parser.parse_args()


def read(include: pathlib.Path, name: str, kind: str = "hpp") -> str:
    path = include / "facenet" / f"{name}.{kind}"
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); run this from a complete checkout.") from error


def page_of(line: str, name: str) -> str | None:
    """What a header includes of the folder beside it: perhaps under a condition, where it is then put in."""
    match = OURS.match(line)
    return match[1] if match and match[1].startswith(f"{name}/") and line.lstrip().startswith("#  ") else None


def in_order(include: pathlib.Path, images: bool) -> list[str]:
    """Every header after those that it includes; the decoder last, since what only it needs goes with it. Pages are no headers."""
    names = sorted(path.relative_to(include / "facenet").with_suffix("").as_posix()
                   for path in (include / "facenet").rglob("*.hpp"))
    if IMAGES not in names:
        raise InputError(f"{include}: there is no facenet/{IMAGES}.hpp; give the folder that holds facenet/ to --include.")
    needs = {name: [match[1] for line in read(include, name).splitlines() if (match := OURS.match(line))] for name in names}
    for name in names:
        for page in {page for line in read(include, name).splitlines() if (page := page_of(line, name))}:
            needs[name].remove(page)
            needs[name] += [lower for lower in needs.pop(page, []) if lower not in needs[name]]
    names = [name for name in names if name in needs]
    order: list[str] = []

    def visit(name: str) -> None:
        if name in order:
            return
        for lower in needs[name]:
            visit(lower)
        order.append(name)

    only_images, before = {IMAGES}, set()
    while only_images != before:  # what only the decoder needs, and what only that needs
        before = set(only_images)
        only_images |= {name for name in names if (users := {other for other in names if name in needs[other]})
                        and users <= before}
    for name in names:
        if name not in only_images:
            visit(name)
    if images:
        visit(IMAGES)
    return order


def dense(code: str) -> str:
    return SPACES.sub(lambda match: match[0].strip(), code)


def without_comments(text: str, keep_docs: bool) -> Iterator[str]:
    """The lines of a header, less comments; a line that held nothing else is gone."""
    doc = re.compile(r"^\s*///")

    def blank(match: re.Match[str]) -> str:
        found = match[0]
        if not found.startswith(("//", "/*")) or (keep_docs and found.startswith("///")):
            return found
        return "\n".join(["\0"] * (found.count("\n") + 1))

    parts, end = [], 0
    for match in LITERAL_OR_COMMENT.finditer(text):
        parts += [dense(text[end:match.start()]), blank(match)]
        end = match.end()
    for line in "".join([*parts, dense(text[end:])]).splitlines():
        bare = line.replace("\0", "").rstrip()
        if bare or "\0" not in line:
            yield (bare if doc.match(bare) or "\0" in line else line.rstrip()).lstrip(" ")


def resolved(lines: Iterator[str], known: dict[str, bool]) -> Iterator[str]:
    """The lines that are left where these macros are known to be set, or not to be, without the directives that ask."""
    open_ifs: list[bool | None] = []  # of those that ask: whether the lines stay; of others: None
    for line in lines:
        directive = re.sub(r"#\s*", "#", line.lstrip())
        if directive.startswith("#if"):
            asks = re.fullmatch(r"#if (!?)defined\((\w+)\)", directive.rstrip())
            open_ifs.append(known[asks[2]] != bool(asks[1]) if asks and asks[2] in known else None)
            if open_ifs[-1] is not None:
                continue
        elif open_ifs and directive.startswith(("#else", "#endif")) and open_ifs[-1] is not None:
            if directive.startswith("#else"):
                open_ifs[-1] = not open_ifs[-1]
            else:
                open_ifs.pop()
            continue
        elif directive.startswith("#endif"):
            open_ifs.pop()
        elif directive.startswith("#define") and directive.split()[1] in known and not known[directive.split()[1]]:
            continue
        if False not in open_ifs:
            yield line


def known_macros(options: Options) -> dict[str, bool]:
    """AMX is for servers, the relaxed dot and two switches are for our modules, which compile the headers: 12 KB less."""
    return {"FACENET_AMX": False, "FACENET_HAS_AMX": False, "FACENET_RELAXED_DOT": False,
            "FACENET_NO_WINOGRAD": False, "FACENET_NO_INT8_WEIGHTS": False, **({} if options.int8 else {"FACENET_NO_INTEGER": True})}


def body(include: pathlib.Path, name: str, seen: set[str], options: Options) -> Iterator[str]:
    """A header without its guard, the includes of ours, and unconditional ones that have been there before."""
    depth = 0
    lines = without_comments(read(include, name), options.docs)
    for number, line in enumerate(resolved(lines, known_macros(options)), 1):
        directive = line.lstrip()
        if directive.startswith("#if"):
            depth += 1
        elif directive.startswith("#endif"):
            depth -= 1
        if MACROS.match(line):
            continue
        if depth and (page := page_of(line, name)):
            yield f"// ---- page facenet/{page}.hpp"
            yield from body(include, page, set(), options)
            continue
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


def amalgamate(include: pathlib.Path, options: Options) -> str:
    version = re.search(r'#define FACENET_VERSION "([^"]+)"', read(include, "base/config"))
    if version is None:
        raise InputError(f"{include}/facenet/base/config.hpp: there is no FACENET_VERSION; run this from a complete checkout.")
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8").splitlines()
    copyright_line = next((line for line in licence if line.startswith("Copyright")), "")
    seen: set[str] = set()
    headers: list[str] = []
    for name in in_order(include, options.images):
        lines = list(body(include, name, seen, options))
        if "integer_" in name and not any(lines):  # all of it stayed behind
            continue
        headers += ["", f"// ---- facenet/{name}.hpp", *lines]
    push, pop = (list(without_comments(read(include, f"base/macros_{way}", "inc"), options.docs)) for way in ("push", "pop"))
    lines = [f"// facenet {version[1]}, all headers in one, made by tools/amalgamate.py. MIT licence. {copyright_line}".rstrip(),
             "// Needs xsimd (not with FACENET_SCALAR)" + (" and stb_image.h." if options.images else "; decodes no pictures."),
             "// Switches, the same in every source file of a program: FACENET_SCALAR (no SIMD), FACENET_PARALLEL_SERIAL (no",
             "// threads), FACENET_PARALLEL_POOL (std::thread even with OpenMP), FACENET_NO_STDIO (no files), FACENET_MALLOC(bytes)",
             "// and FACENET_FREE(pointer).",
             "#if defined(FACENET_VERSION_MAJOR) && !defined(FACENET_ONE_FILE_HPP)",
             "#error \"facenet: include this one file or the headers, not both\"",
             "#elif !defined(FACENET_ONE_FILE_HPP)", "#define FACENET_ONE_FILE_HPP",
             *([] if options.int8 else ["#if !defined(FACENET_NO_INTEGER)", "#define FACENET_NO_INTEGER", "#endif"]),
             *push, *headers, "", *pop, "#endif  // FACENET_ONE_FILE_HPP", ""]
    return re.sub(r"\n{2,}", "\n", "\n".join(lines))


def write(path: str, text: str) -> None:
    if path == "-":
        sys.stdout.write(text)
        return
    target = pathlib.Path(path)
    if target.exists() and not target.is_file():   # renaming over /dev/null would take it from everybody
        raise InputError(f"{path}: this is not a regular file; choose another output name.")
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
        options = Options(images=not arguments.no_images, docs=arguments.docs, int8=arguments.int8)
        write(arguments.output, amalgamate(arguments.include, options))
    except InputError as error:
        print(f"amalgamate.py: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
