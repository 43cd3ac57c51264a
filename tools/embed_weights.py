#!/usr/bin/env python3
"""Makes a weight file part of a program: as an assembler file that takes the bytes in (.incbin), or as a C array.

Link the result and declare, in C or C++ (extern "C"):
  extern const unsigned char NAME[];             the file, at a multiple of 64 bytes
  extern const unsigned long long NAME_size;     its bytes
"""

from __future__ import annotations

import argparse
import os
import pathlib
import re
import sys

EXAMPLES = """\
examples:
  tools/embed_weights.py weights.safetensors -o weights.S    GCC, Clang, zig: no time to compile; keep the file in its place
  tools/embed_weights.py mtcnn.safetensors -o mtcnn.c        any compiler; 4 bytes of source and 0.1 us a byte

exit status: 0 the file is written, 2 error
"""
ASSEMBLER = """\
// {source}, {size} bytes, by tools/embed_weights.py.
#define JOIN2(a, b) a##b
#define JOIN(a, b) JOIN2(a, b)
#define SYMBOL(name) JOIN(__USER_LABEL_PREFIX__, name)
#if defined(__APPLE__)
  .const
#elif defined(_WIN32)
  .section .rdata, "dr"
#else
  .section .rodata
#endif
  .globl SYMBOL({name})
  .globl SYMBOL({name}_size)
  .balign 64
SYMBOL({name}):
  .incbin "{path}"
  .balign 8
SYMBOL({name}_size):
  .quad {size}
#if defined(__ELF__)
  .section .note.GNU-stack, "", %progbits
#endif
"""
ARRAY = """\
// {source}, {size} bytes, by tools/embed_weights.py.
#ifdef __cplusplus
extern "C" {{
extern const unsigned char {name}[{size}];
extern const unsigned long long {name}_size;
#define ALIGNED alignas(64)
#else
#define ALIGNED _Alignas(64)
#endif
ALIGNED const unsigned char {name}[{size}] = {{
{bytes}}};
const unsigned long long {name}_size = {size};
#ifdef __cplusplus
}}
#endif
"""


class InputError(Exception):
    """A sentence for the user: the file, the place and the remedy."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("weights", type=pathlib.Path, metavar="IN", help="a file of tools/convert_weights.py")
    add("-o", "--output", type=pathlib.Path, required=True, metavar="OUT", help="OUT.S: assembler, through the preprocessor; OUT.c, OUT.cpp: an array")
    add("--name", default="facenet_weights", help="the array's name (facenet_weights)")
    return parser.parse_args()


def check(weights: pathlib.Path, name: str) -> bytes:
    if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
        raise InputError(f"--name {name}: this is not a name in C; use letters, digits and underscores.")
    try:
        data = weights.read_bytes()
    except OSError as error:
        raise InputError(f"{weights}: cannot be read ({error.strerror}); check the path.") from error
    if len(data) < 10 or int.from_bytes(data[:8], "little") > len(data) - 8 or data[8:9] != b"{":
        raise InputError(f"{weights}: this is not a safetensors file; make one with tools/convert_weights.py.")
    return data


def text_for(output: pathlib.Path, weights: pathlib.Path, name: str) -> str:
    data = check(weights, name)
    facts = {"source": weights.name.replace("\n", " "), "size": len(data), "name": name}
    if output.suffix == ".S":
        path = str(weights.resolve()).replace("\\", "\\\\").replace('"', '\\"')
        return ASSEMBLER.format(path=path, **facts)
    if output.suffix in (".c", ".cc", ".cpp", ".cxx"):
        rows = (data[i : i + 32] for i in range(0, len(data), 32))
        return ARRAY.format(bytes="".join(",".join(map(str, row)) + ",\n" for row in rows), **facts)
    raise InputError(f"{output}: the name must end in .S for assembler, or in .c or .cpp for an array.")


def write(target: pathlib.Path, text: str) -> None:
    if target.exists() and not target.is_file():   # renaming over a device would take it from everybody
        raise InputError(f"{target}: this is not a regular file; choose another output name.")
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(text.encode("utf-8", "surrogateescape"))
        os.replace(temporary, target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(f"{target}: cannot be written ({error.strerror}); choose a folder that can be.") from error


def main() -> None:
    arguments = parse_arguments()
    try:
        write(arguments.output, text_for(arguments.output, arguments.weights, arguments.name))
    except InputError as error:
        print(f"embed_weights.py: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
