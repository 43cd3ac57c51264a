"""Reads what torch.save wrote, zip or the older stream, and plain pickles, without running anything and without PyTorch.

Pickles are programs. pickletools decodes their instructions; the machine below carries them out, and makes tensors, numbers,
strings and containers only. Whatever else a pickle asks for becomes an `Object` that holds what it was given.
Tensors are read from the file when `Tensor.array` is called, so that names and shapes can be looked at first.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import math
import mmap
import pathlib
import pickletools
import sys
import zipfile
from typing import Any, BinaryIO, Callable

import numpy as np

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
# Inception-ResNet-v1 with Adam's state needs 150,000 instructions and 0.5 MB; a machine's time and memory grow with them.
MOST_INSTRUCTIONS = 2_000_000
MOST_PICKLE_BYTES = 64 << 20
MOST_EXPANSION = 16  # a zip archive may not unpack to more than this times its size: float weights shrink by a tenth
MOST_DIMENSIONS = 8

# Names of torch's element types, by their storage class or dtype. bfloat16 and float8 become float32, which holds them exactly.
_TYPES = {
    "Double": "f8", "Float": "f4", "Half": "f2", "BFloat16": "bf16", "Long": "i8", "Int": "i4", "Short": "i2", "Char": "i1",
    "Byte": "u1", "Bool": "?", "ComplexDouble": "c16", "ComplexFloat": "c8", "float64": "f8", "float32": "f4", "float16": "f2",
    "bfloat16": "bf16", "int64": "i8", "int32": "i4", "int16": "i2", "int8": "i1", "uint8": "u1", "uint16": "u2", "uint32": "u4",
    "uint64": "u8", "bool": "?", "complex128": "c16", "complex64": "c8", "double": "f8", "float": "f4", "half": "f2", "long": "i8",
    "float8_e4m3fn": "float8_e4m3fn", "float8_e5m2": "float8_e5m2",
}  # fmt: skip

# What a checkpoint never calls, and what an attack does. Nothing is called in any case; the file is refused because of its maker.
_CODE = {
    "io", "_io", "os", "posix", "nt", "sys", "subprocess", "shutil", "socket", "runpy", "importlib", "pty", "commands", "code", "codeop", "webbrowser",
    "ctypes", "multiprocessing", "threading", "asyncio", "http", "urllib", "requests", "pip", "timeit", "pdb", "bdb", "cProfile", "profile",
    "pickle", "_pickle", "marshal", "builtins", "__builtin__", "operator", "_operator", "tempfile", "signal",
}  # fmt: skip
_HARMLESS_BUILTINS = {
    "set", "frozenset", "list", "dict", "tuple", "int", "float", "str", "bytes", "bytearray", "bool", "complex", "object", "slice", "range",
    "long", "unicode", "type", "NoneType", "Ellipsis", "NotImplemented", "reversed",
}  # fmt: skip


class Unreadable(Exception):
    """The file is damaged, or is no such file; the text says what was found."""


class Code(Exception):
    """The file asks for a call that only a program needs; the text names it."""


class Program(Exception):
    """TorchScript or an exported program: weights in the middle of code; the text names the kind."""


@dataclasses.dataclass(frozen=True, eq=False)
class Object:
    """What is none of the kinds we make: its name, what it was called with, and what it was filled with."""

    name: str
    arguments: tuple = ()
    state: list = dataclasses.field(default_factory=list)
    items: list = dataclasses.field(default_factory=list)

    def attributes(self) -> dict[str, Any]:
        """Its __dict__, where it has one."""
        parts = itertools.chain.from_iterable(s if isinstance(s, tuple) else (s,) for s in self.state)
        return {key: value for part in parts if isinstance(part, dict) for key, value in part.items() if isinstance(key, str)}


@dataclasses.dataclass(frozen=True, eq=False)
class Name:
    """A class or function that the pickle names."""

    name: str


@dataclasses.dataclass(frozen=True, eq=False)
class Storage:
    """Elements in the file; `read` returns their bytes."""

    kind: str  # of _TYPES' values, or "raw" for bytes of any type
    count: int
    read: Callable[[], memoryview | bytes]
    little: bool = True
    key: str = ""
    _made: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def elements(self, kind: str) -> np.ndarray:
        """All of it in this machine's order of bytes, made once: any number of tensors may share a storage."""
        if kind not in self._made:
            stored = {"bf16": "u2", "float8_e4m3fn": "u1", "float8_e5m2": "u1"}.get(kind, kind)
            dtype = np.dtype(stored).newbyteorder("<" if self.little else ">")
            size = self.count if self.kind == "raw" else self.count * _item_size(self.kind)
            flat = np.frombuffer(self.read(), dtype, size // dtype.itemsize).astype(dtype.newbyteorder("="))  # a copy
            if kind == "bf16":
                flat = (flat.astype(np.uint32) << 16).view(np.float32)
            elif kind.startswith("float8"):
                try:
                    import ml_dtypes
                except ImportError as error:
                    raise Unreadable("float8 needs the package ml_dtypes; or save it as float16") from error
                flat = flat.view(getattr(ml_dtypes, kind)).astype(np.float32)
            self._made[kind] = flat
        return self._made[kind]


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor:
    storage: Storage
    kind: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # both in elements

    def same(self, other: Tensor) -> bool:
        return (self.storage.key, self.kind, self.offset, self.shape, self.strides) == (
            other.storage.key, other.kind, other.offset, other.shape, other.strides)  # fmt: skip

    def array(self) -> np.ndarray:
        """Its numbers; a view into its storage's, so that an expanded tensor takes no memory."""
        count = math.prod(self.shape)
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides)) if count else self.offset - 1
        size = self.storage.count if self.storage.kind == "raw" else self.storage.count * _item_size(self.storage.kind)
        if (last + 1) * _item_size(self.kind) > size:
            raise Unreadable("a tensor reaches beyond its storage")
        flat = self.storage.elements(self.kind)
        return np.lib.stride_tricks.as_strided(flat[self.offset :], self.shape, [s * flat.itemsize for s in self.strides])


@dataclasses.dataclass(frozen=True, eq=False)
class OddTensor:
    """A tensor that is no plain array of numbers: sparse, quantised, on the meta device; or an array of what is no number."""

    kind: str
    remedy: str = "save the state_dict of a dense model"


def load(path: str) -> Any:
    """Everything in the file, tensors not yet read. Raises Unreadable, Code, Program, OSError."""
    try:
        with open(path, "rb") as file:
            # A legacy stream may hold the bytes of a zip archive, so the first bytes decide, not the last.
            if file.read(4) == b"PK\x03\x04":
                return _load_zip(path)
            return _load_file(file)
    except (Unreadable, Code, Program, OSError, MemoryError):
        raise
    except Exception as error:  # pickletools and zipfile raise anything on damaged input
        raise Unreadable(_first_line(error)) from error


def plain(value: Any) -> Any:
    """What a value stands for: numpy's arrays are filled after they are made."""
    return value.made if isinstance(value, _Array) else value


def state_of_module(module: Object) -> dict[str, Any] | None:
    """The state_dict of a pickled torch.nn.Module, from its attributes alone; None: it is none. A loop in it ends the walk."""
    if not _is_module(module):
        return None
    state: dict[str, Any] = {}
    todo, seen = [("", module)], {id(module)}
    while todo:
        prefix, current = todo.pop(0)
        attributes = current.attributes()
        for kind in ("_parameters", "_buffers"):
            values = attributes.get(kind)
            passing = attributes.get("_non_persistent_buffers_set") or ()
            for name, value in values.items() if isinstance(values, dict) else ():
                if isinstance(name, str) and value is not None and not (isinstance(passing, (set, frozenset)) and name in passing):
                    state[prefix + name] = value
        children = attributes["_modules"]
        for name, child in children.items() if isinstance(children, dict) else ():
            if isinstance(name, str) and isinstance(child, Object) and _is_module(child) and id(child) not in seen:
                seen.add(id(child))
                todo.append((f"{prefix}{name}.", child))
    return state


def _is_module(value: object) -> bool:
    return isinstance(value, Object) and {"_parameters", "_buffers", "_modules"} <= value.attributes().keys()


# ---- The two containers ----------------------------------------------------------------------------------------------------------


def _load_zip(path: str) -> Any:
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise Unreadable("a zip archive that is cut short or damaged") from error
    infos = {info.filename: info for info in archive.infolist()}
    roots = [name.removesuffix("data.pkl") for name in infos if name == "data.pkl" or name.endswith("/data.pkl")]
    if not roots:
        if any(name.endswith(("serialized_exported_program.json", "/models/model.json")) for name in infos):
            raise Program("a program of torch.export")
        raise Unreadable("a zip archive without data.pkl")
    if len(roots) > 1:
        raise Unreadable("a zip archive with several data.pkl")
    root = roots[0]
    if f"{root}constants.pkl" in infos or any(name.startswith(f"{root}code/") for name in infos):
        raise Program("TorchScript")
    whole = pathlib.Path(path).stat().st_size
    if sum(info.file_size for info in infos.values()) > MOST_EXPANSION * whole + (1 << 20):
        raise Unreadable("a zip archive that unpacks to much more than its size")

    def member(name: str, most: int) -> bytes:
        info = infos.get(root + name)
        if info is None:
            raise Unreadable(f"a zip archive without {name}")
        if info.flag_bits & 1:
            raise Unreadable("an encrypted zip archive")
        if info.file_size > most:
            raise Unreadable(f"{name} is larger than it may be")
        try:
            with archive.open(info) as file:
                data = file.read(info.file_size + 1)  # the checksum is compared at the end
        except Exception as error:
            raise Unreadable(f"{name}: {_first_line(error)}") from error
        if len(data) != info.file_size:
            raise Unreadable(f"{name} ends early")
        return data

    order = member("byteorder", 16).strip() if f"{root}byteorder" in infos else b"little"
    if order not in (b"little", b"big"):
        raise Unreadable("an unknown order of bytes")
    storages: dict[str, Storage] = {}

    def persistent(what: tuple) -> Storage:
        tag, kind, key, _location, count = what[:5]
        if tag != "storage" or not isinstance(key, str) or not _is_count(count):
            raise Unreadable("a storage without kind, name and size")
        kind = _storage_kind(kind)
        if key not in storages:
            size = count * _item_size(kind)

            def read() -> bytes:
                data = member(f"data/{key}", whole * MOST_EXPANSION + (1 << 20))
                if len(data) < size:
                    raise Unreadable(f"data/{key} has {len(data)} bytes, {size} are described")
                return data

            storages[key] = Storage(kind, count, _once(read), order == b"little", key)
        return storages[key]

    return _Machine(io.BytesIO(member("data.pkl", MOST_PICKLE_BYTES)), persistent).run()


def _load_file(file: BinaryIO) -> Any:
    if file.seek(0, io.SEEK_END) == 0:
        raise Unreadable("an empty file")
    view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return _load_stream(view, memoryview(view))


def _load_bytes(data: object) -> Any:
    """torch.storage._load_from_bytes: in a plain pickle each storage is a stream of torch.save in itself."""
    data = _expect(data, bytes)
    return _load_stream(io.BytesIO(data), memoryview(data))


def _load_stream(view: mmap.mmap | io.BytesIO, whole: memoryview) -> Any:
    """torch's stream: magic number, protocol, system, the object, the storages' names, then the storages. Or one plain pickle.

    Storages are little-endian there on every machine (THPStorage_writeFileRaw)."""
    wanted: dict[str, list] = {}  # name -> kind, count, bytes
    views: dict[tuple, Storage] = {}

    def persistent(what: tuple) -> object:
        if what[0] == "module":
            return what[1]
        tag, kind, key, _location, count = what[:5]
        if tag != "storage" or not isinstance(key, str) or not _is_count(count):
            raise Unreadable("a storage without kind, name and size")
        kind = _storage_kind(kind)
        entry = wanted.setdefault(key, [kind, count, None])
        part = what[5] if len(what) > 5 and isinstance(what[5], tuple) else None
        start, size = (part[1], part[2]) if part else (0, count)
        if not _is_count(start) or not _is_count(size) or start + size > entry[1]:
            raise Unreadable("a view reaches beyond its storage")
        if (key, start, size) not in views:
            item = _item_size(kind)

            def read() -> memoryview:
                if entry[2] is None:
                    raise Unreadable(f"storage {key} is not in the file")
                return entry[2][start * item : (start + size) * item]

            views[key, start, size] = Storage(kind, size, read, True, f"{id(wanted)} {key} {start}")
        return views[key, start, size]

    def part() -> Any:
        return _Machine(view, persistent).run()

    first = part()
    if first != LEGACY_MAGIC:
        if isinstance(first, (int, str, bytes, float, bool, type(None))):
            raise Unreadable("a pickle of one value")
        return first
    if part() != _PROTOCOL:
        raise Unreadable("an unknown version of torch.save's stream")
    part()  # what machine it was written on
    loaded, keys = part(), part()
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise Unreadable("the list of storages is missing")
    at = view.tell()
    for key in keys:
        entry = wanted.get(key)
        count = int.from_bytes(whole[at : at + 8], "little")
        if entry is None or len(whole) < at + 8 or count != entry[1]:
            raise Unreadable("storages and their list do not agree, or the file ends early")
        size = count * _item_size(entry[0])
        if len(whole) < at + 8 + size:
            raise Unreadable("the file ends early")
        entry[2] = whole[at + 8 : at + 8 + size]
        at += 8 + size
    return loaded


def _once(read: Callable[[], bytes]) -> Callable[[], bytes]:
    kept: list[bytes] = []

    def call() -> bytes:
        if not kept:
            kept.append(read())
        return kept[0]

    return call


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 48


def _storage_kind(kind: object) -> str:
    name = kind.name.rsplit(".", 1)[-1] if isinstance(kind, Name) else ""
    if name in ("UntypedStorage", "_UntypedStorage"):
        return "raw"
    try:
        return _TYPES[name.removesuffix("Storage")]
    except KeyError:
        return f"unknown {name}"


def _item_size(kind: str) -> int:
    special = {"raw": 1, "bf16": 2, "float8_e4m3fn": 1, "float8_e5m2": 1}
    return 1 if kind.startswith("unknown") else special.get(kind) or np.dtype(kind).itemsize


# ---- The machine -----------------------------------------------------------------------------------------------------------------

_MARK = object()


class _Machine:
    """Carries out one pickle. Its stack, memo and results never hold anything that can be called."""

    def __init__(self, source, persistent: Callable[[tuple], object]) -> None:
        self.source, self.persistent = source, persistent
        self.stack: list = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(self.source), 1):
            if count > MOST_INSTRUCTIONS:
                raise Unreadable("a pickle of too many instructions")
            if opcode.name == "STOP":
                break
            method = _INSTRUCTIONS.get(opcode.name)
            if method is None:
                raise Unreadable(f"the pickle instruction {opcode.name}")
            method(self, argument)
        return self.pop()

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise Unreadable("a pickle whose stack does not fit")
        return value

    def pop_mark(self) -> list:
        for place in range(len(self.stack) - 1, -1, -1):
            if self.stack[place] is _MARK:
                items = self.stack[place + 1 :]
                del self.stack[place:]
                return items
        raise Unreadable("a pickle whose stack does not fit")

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def remember(self, key: int) -> None:
        if not self.stack or self.stack[-1] is _MARK:
            raise Unreadable("a pickle whose stack does not fit")
        self.memo[key] = self.stack[-1]

    def append(self, items: list) -> None:
        target = self.stack[-1]
        (target.items if isinstance(target, Object) else _expect(target, list)).extend(items)

    def set_items(self, items: list) -> None:
        target = self.stack[-1]
        pairs = list(zip(items[::2], items[1::2]))
        if isinstance(target, Object):
            target.items.extend(pairs)
            return
        _expect(target, dict)
        for key, value in pairs:
            target[_key(key)] = value

    def add_items(self, items: list) -> None:
        target = self.stack[-1]
        if isinstance(target, Object):
            target.items.extend(items)
        else:
            _expect(target, set).update(map(_key, items))

    def reduce(self) -> None:
        arguments, function = _expect(self.pop(), tuple), self.pop()
        self.push(_call(function, arguments))

    def new_object(self, with_keywords: bool = False) -> None:
        keywords = self.pop() if with_keywords else None
        arguments, kind = _expect(self.pop(), tuple), self.pop()
        self.push(_call(kind, arguments) if not keywords else Object(_expect(kind, Name).name, arguments))

    def build(self) -> None:
        state, target = self.pop(), self.stack[-1]
        if isinstance(target, (_Array, _DType)):
            target.fill(state)
        elif isinstance(target, Object):
            target.state.append(state)
        # the attributes of containers and tensors, such as a state_dict's _metadata, mean nothing here

    def name(self, text: str) -> None:
        module, _, name = text.partition(" ")
        self.push(_named(module, name))

    def stack_name(self) -> None:
        name, module = self.pop(), self.pop()
        self.push(_named(_expect(module, str), _expect(name, str)))

    def instance(self, text: str) -> None:
        arguments = tuple(self.pop_mark())
        self.name(text)
        self.push(_call(self.pop(), arguments))

    def old_object(self) -> None:
        kind, *arguments = self.pop_mark()
        self.push(_call(kind, tuple(arguments)))

    def persistent_id(self) -> None:
        what = _expect(self.pop(), tuple)
        if len(what) < 2:
            raise Unreadable("a storage without kind, name and size")
        self.push(self.persistent(what))


def _expect(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise Unreadable(f"a pickle with {type(value).__name__} where {kind.__name__} belongs")
    return value


def _key(value: Any) -> Any:
    """Of a dictionary. Deeply nested tuples would overflow the stack when they are hashed; nobody looks those up."""
    simple = (str, int, float, bool, bytes, type(None), Object, Name)
    if isinstance(value, simple) or (isinstance(value, tuple) and all(isinstance(v, simple) for v in value)):
        return value
    return Object("a key")


def _instructions() -> dict[str, Callable[[_Machine, Any], None]]:
    table: dict[str, Callable[[_Machine, Any], None]] = {}
    for name in ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES",
                 "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "FLOAT",
                 "BINFLOAT"):  # fmt: skip
        table[name] = lambda m, a: m.push(a)
    for name, value in (("NONE", None), ("NEWTRUE", True), ("NEWFALSE", False), ("EMPTY_TUPLE", ()), ("MARK", _MARK)):
        table[name] = lambda m, a, value=value: m.push(value)
    for name, kind in (("EMPTY_LIST", list), ("EMPTY_DICT", dict), ("EMPTY_SET", set)):
        table[name] = lambda m, a, kind=kind: m.push(kind())
    for name in ("PUT", "BINPUT", "LONG_BINPUT"):
        table[name] = lambda m, a: m.remember(a)
    for name in ("GET", "BINGET", "LONG_BINGET"):
        table[name] = lambda m, a: m.push(m.memo[a])
    for count in (1, 2, 3):
        table[f"TUPLE{count}"] = lambda m, a, count=count: m.push(tuple(reversed([m.pop() for _ in range(count)])))

    def fill(m: _Machine, made: Any, fill: Callable[[list], None], items: list) -> None:
        m.push(made)
        fill(items)

    return table | {
        "PROTO": lambda m, a: None,
        "FRAME": lambda m, a: None,
        "MEMOIZE": lambda m, a: m.remember(len(m.memo)),
        "POP": lambda m, a: m.stack.pop(),
        "POP_MARK": lambda m, a: m.pop_mark(),
        "DUP": lambda m, a: m.push(m.stack[-1]),
        "TUPLE": lambda m, a: m.push(tuple(m.pop_mark())),
        "LIST": lambda m, a: m.push(m.pop_mark()),
        "DICT": lambda m, a: (lambda items: fill(m, {}, m.set_items, items))(m.pop_mark()),
        "FROZENSET": lambda m, a: m.push(frozenset(map(_key, m.pop_mark()))),
        "APPEND": lambda m, a: m.append([m.pop()]),
        "APPENDS": lambda m, a: m.append(m.pop_mark()),
        "SETITEM": lambda m, a: m.set_items([m.pop(), m.pop()][::-1]),
        "SETITEMS": lambda m, a: m.set_items(m.pop_mark()),
        "ADDITEMS": lambda m, a: m.add_items(m.pop_mark()),
        "GLOBAL": _Machine.name,
        "STACK_GLOBAL": lambda m, a: m.stack_name(),
        "REDUCE": lambda m, a: m.reduce(),
        "BUILD": lambda m, a: m.build(),
        "INST": _Machine.instance,
        "OBJ": lambda m, a: m.old_object(),
        "NEWOBJ": lambda m, a: m.new_object(),
        "NEWOBJ_EX": lambda m, a: m.new_object(True),
        "BINPERSID": lambda m, a: m.persistent_id(),
    }


_INSTRUCTIONS = _instructions()


# ---- What names mean -------------------------------------------------------------------------------------------------------------


def _named(module: str, name: str) -> Name:
    return Name(f"{module}.{name}")


def _call(function: Any, arguments: tuple) -> Any:
    name = _expect(function, Name).name
    known = _KNOWN.get(name)
    if known is not None:
        try:
            return known(*arguments)
        except TypeError as error:
            raise Unreadable(f"{name} with other arguments than it takes") from error
    module, _, last = name.partition(".")
    if module in _CODE and not (module in ("builtins", "__builtin__") and last in _HARMLESS_BUILTINS):
        raise Code(name)
    return Object(name, arguments)


def _tensor(storage: Storage, offset: int, shape: tuple, strides: tuple, *_rest: object, kind: str | None = None) -> Tensor:
    if not isinstance(storage, Storage):
        raise Unreadable("a tensor without storage")
    kind = storage.kind if kind is None else kind
    counts = isinstance(shape, tuple) and isinstance(strides, tuple) and all(map(_is_count, (offset, *shape, *strides)))
    if not counts or len(shape) != len(strides) or len(shape) > MOST_DIMENSIONS or math.prod(shape) >= 1 << 60:
        raise Unreadable("a tensor whose shape makes no sense")
    if kind.startswith("unknown") or kind in ("raw", "u2", "u4", "u8"):  # PyTorch 1.13 has none of these
        return _of_type(kind)
    return Tensor(storage, kind, offset, shape, strides)


def _typed_tensor(storage: Storage, offset: int, shape: tuple, strides: tuple, _grad: object, _hooks: object, dtype: Name, *_rest: object) -> Tensor:
    name = _expect(dtype, Name).name.removeprefix("torch.")
    return _tensor(storage, offset, shape, strides, kind=_TYPES.get(name, f"unknown {name}"))


def _from_type(function: Name, _kind: object, arguments: tuple, _state: object = None) -> Any:
    return _call(function, _expect(arguments, tuple))


def _ordered(pairs: object = (), *_rest: object) -> dict:
    if isinstance(pairs, dict):
        return dict(pairs)
    return {_key(key): value for key, value in _expect(pairs, (list, tuple))}  # Python 2's: a list of pairs


def _encode(text: str, codec: str = "latin1", *_rest: object) -> bytes:
    return _expect(text, str).encode("latin1" if codec not in ("utf-8", "utf8", "ascii") else codec)


class _DType:
    """numpy.dtype('f4', ...), of which only plain numbers become anything."""

    def __init__(self, code: object = "", *_rest: object) -> None:
        self.code, self.little = code if isinstance(code, str) else "", sys.byteorder == "little"

    def fill(self, state: object) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">"):
            self.little = state[1] == "<"

    @property
    def kind(self) -> str:
        """One of PyTorch's, which has no long doubles; or "unknown" and numpy's name of it."""
        try:
            kind = np.dtype(self.code)
        except TypeError:
            return f"unknown {self.code[:40]}"
        short = "?" if kind.kind == "b" else kind.str[1:]
        return short if short in _TYPES.values() else f"unknown {kind.name}"


class _Array:
    """numpy's arrays: made empty, then filled with (version, shape, dtype, Fortran order, bytes)."""

    def __init__(self, *_arguments: object) -> None:
        self.made: Tensor | OddTensor = OddTensor("an array that was never filled")

    def fill(self, state: object) -> None:
        if isinstance(state, tuple) and len(state) == 5:
            _, shape, dtype, fortran, data = state
            self.made = _numpy(data, dtype, shape, bool(fortran))


def _of_type(kind: str) -> OddTensor:
    """What PyTorch 1.13 has no type for."""
    name = kind.removeprefix("unknown ") if kind.startswith("unknown") else "bytes" if kind == "raw" else np.dtype(kind).name
    return OddTensor(f"of the type {name}", "save it as float32")


def _scalar(dtype: object, data: object = b"", *_rest: object) -> Any:
    """numpy's numbers: those of a plain type become Python's, as the epoch and the loss beside weights are."""
    number = _numpy(data, dtype, (), False)
    return number.array().item() if isinstance(number, Tensor) else Object("numpy.scalar", (dtype, data))


def _numpy(data: object, dtype: object, shape: object, fortran: bool) -> Tensor | OddTensor:
    kind = dtype.kind if isinstance(dtype, _DType) else "unknown object"
    if kind.startswith("unknown") or not isinstance(data, (bytes, bytearray, str)):
        return _of_type(kind if kind.startswith("unknown") else "unknown object")
    raw = data.encode("latin1") if isinstance(data, str) else bytes(data)  # Python 2 wrote its bytes as text
    size = _item_size(kind)
    if not isinstance(shape, tuple) or not all(map(_is_count, shape)):
        raise Unreadable("an array whose shape makes no sense")
    ordered = shape if fortran else shape[::-1]
    steps = tuple(itertools.accumulate(ordered, lambda a, b: a * b, initial=1))[:-1]
    storage = Storage(kind, len(raw) // size, lambda: raw, dtype.little, f"numpy {id(raw)}")
    return _tensor(storage, 0, shape, steps if fortran else steps[::-1])


def _from_buffer(data: object, dtype: object, shape: object, order: object = "C", *_rest: object) -> Tensor | OddTensor:
    return _numpy(data, dtype, shape, order == "F")


def _odd(kind: str) -> Callable[..., OddTensor]:
    return lambda *_arguments: OddTensor(kind)


def _first(value: Any = None, *_rest: object) -> Any:
    return value


_KNOWN: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._utils._rebuild_device_tensor_from_numpy": _first,
    "torch.nn.parameter.Parameter": _first,
    "torch.nn.parameter.Buffer": _first,
    "torch._tensor._rebuild_from_type": _from_type,
    "torch._tensor._rebuild_from_type_v2": _from_type,
    "torch._utils._rebuild_sparse_tensor": _odd("sparse"),
    "torch._utils._rebuild_sparse_csr_tensor": _odd("sparse"),
    "torch._utils._rebuild_qtensor": _odd("quantised"),
    "torch._utils._rebuild_meta_tensor_no_storage": _odd("on the meta device"),
    "torch._utils._rebuild_nested_tensor": _odd("nested"),
    "torch.storage._load_from_bytes": _load_bytes,
    "torch.Size": lambda sizes=(): tuple(_expect(sizes, (tuple, list))),
    "collections.OrderedDict": _ordered,
    "collections.defaultdict": lambda *_arguments: {},
    "collections.Counter": _ordered,
    "_codecs.encode": _encode,
    **{f"{module}.set": lambda items=(): set(map(_key, _expect(items, (list, tuple)))) for module in ("builtins", "__builtin__")},
    **{f"{module}.frozenset": lambda items=(): frozenset(map(_key, _expect(items, (list, tuple)))) for module in ("builtins", "__builtin__")},
    "numpy.dtype": _DType,
    **{f"numpy.{core}.multiarray._reconstruct": _Array for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _from_buffer for core in ("core", "_core")},
}


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")[:200] or type(error).__name__
