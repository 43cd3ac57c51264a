"""include/facenet/facenet.h as ctypes: its structures, constants and functions, read from the header itself."""

from __future__ import annotations

import ctypes
import pathlib
import re

from conftest import ROOT

HEADER = ROOT / "include/facenet/facenet.h"
SCALARS = {
    "uint8_t": ctypes.c_uint8, "int32_t": ctypes.c_int32, "uint32_t": ctypes.c_uint32, "int64_t": ctypes.c_int64,
    "uint64_t": ctypes.c_uint64, "size_t": ctypes.c_size_t, "float": ctypes.c_float, "double": ctypes.c_double,
    "char": ctypes.c_char, "facenet_code": ctypes.c_int32,
}


def code() -> str:
    """The header without comments."""
    return re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.DOTALL)


def constants() -> dict[str, int]:
    text = code()
    found = {name: int(value) for body in re.findall(r"\benum \{(.*?)\}", text, re.DOTALL)
             for name, value in re.findall(r"(FACENET_\w+) = (\d+)", body)}
    return found | {name: int(value) for name, value in re.findall(r"#define (FACENET_\w+) (\d+)\n", text)}


def functions() -> dict[str, tuple[str, str]]:
    """Name: what it returns, and its parameters."""
    return {name: (result.strip(), " ".join(parameters.split()))
            for result, name, parameters in re.findall(r"FACENET_API\s+([\w *]+?)\s*\b(facenet_\w+)\((.*?)\);", code(), re.DOTALL)}


def structures() -> dict[str, type[ctypes.Structure]]:
    made = {}
    for name, body in re.findall(r"typedef struct (facenet_\w+) \{(.*?)\} \1;", code(), re.DOTALL):
        fields = []
        for line in body.split(";"):
            if not line.strip():
                continue
            words, members = re.match(r"\s*((?:const )?\w+\*?)\s+(.*)", line.strip(), re.DOTALL).groups()
            word = words.replace("const ", "")
            if word.endswith("*"):
                kind = ctypes.c_char_p if word == "char*" else ctypes.c_void_p
            else:
                kind = SCALARS.get(word, ctypes.c_void_p)  # a function pointer
            for member in members.split(","):
                member_name, *sizes = re.findall(r"\w+", member)
                of = kind
                for size in reversed(sizes):
                    of = of * int(size)
                fields.append((member_name, of))
        made[name] = type(name, (ctypes.Structure,), {"_fields_": fields})
    return made


class Library:
    """The functions with the types of the header; `STRUCTURE(**members)` has its struct_size set."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path, self.constants, self.structures = path, constants(), structures()
        self.so = ctypes.CDLL(str(path))
        for name, (result, parameters) in functions().items():
            function = getattr(self.so, name)
            function.restype = {"const char*": ctypes.c_char_p, "size_t": ctypes.c_size_t, "void": None}.get(result, ctypes.c_int32)
            function.argtypes = [] if parameters == "void" else [self._type(p) for p in parameters.split(", ")]
            setattr(self, name.removeprefix("facenet_"), function)
        for name, value in self.constants.items():
            setattr(self, name.removeprefix("FACENET_"), value)

    def _type(self, parameter: str) -> object:
        """Pointers to results are passed by byref() or as addresses, so they are void*."""
        if "*" in parameter or "[" in parameter:
            return ctypes.c_char_p if re.match(r"const char\*", parameter) else ctypes.c_void_p
        word = parameter.replace("const ", "").split()[0]
        return SCALARS.get(word, ctypes.c_void_p)

    def make(self, structure: str, **members: object) -> ctypes.Structure:
        kind = self.structures[f"facenet_{structure}"]
        made = kind()
        if "struct_size" in dict(kind._fields_):
            made.struct_size = ctypes.sizeof(kind)
        for name, value in members.items():
            setattr(made, name, value)
        return made

    def name_of(self, code: int) -> str:
        return self.code_name(code).decode()
