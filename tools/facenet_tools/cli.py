"""How every tool fails: one sentence on stderr and exit status 2."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import re
import signal
import sys
from typing import Callable, Iterable


_CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f]")  # but the line feed, which lists have


PROGRAM = ""  # what calls the tools, where that is no program of theirs: the Python package


def program() -> str:
    """The name in front of what is said on stderr."""
    return PROGRAM or "convert_weights.py"


def as_called(text: str) -> str:
    """A sentence with the converter as the user calls it: the package has no tools/convert_weights.py."""
    return re.sub(r"(tools/)?convert_weights\.py", "python -m facenet.convert", text) if PROGRAM else text


class ToolError(Exception):
    """A sentence for the user: the file, the place and the remedy."""


def shown(name: str) -> str:
    """A file's name for a message or a list: what would break the line, or is not UTF-8, as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in name)


def listed(names: list[str], most: int = 5) -> str:
    """The first few, and how many more there are: a network has a thousand names."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def few(names: list[str], most: int = 5) -> list[str]:
    """The same for lists of one a line."""
    return [shown(name) for name in names[:most]] + ([f"... and {len(names) - most} more"] if len(names) > most else [])


def run(main: Callable[[], None]) -> None:
    """Calls main and exits: 0 when it returns, 2 with its sentence when it fails, 130 on Ctrl-C."""
    name = pathlib.Path(sys.argv[0]).name
    for number in (signal.SIGTERM, signal.SIGHUP):
        with contextlib.suppress(ValueError):  # not in the main thread
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _stop)
    try:
        main()
    except ToolError as error:
        print(f"{name}: {_CONTROL.sub('?', as_called(str(error)))}", file=sys.stderr)
        sys.exit(2)
    except MemoryError:
        print(f"{name}: there is not enough memory for this; close other programs, or use a machine with more.", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _stop(number: int, _frame: object) -> None:
    """As Ctrl-C does: by way of an exception, so that half-written files are removed on the way out."""
    sys.exit(128 + number)


def decoded(data: bytes, path: str | pathlib.Path, remedy: str, first: int = 1) -> str:
    """The text of a file, in UTF-8, with or without a mark of its order of bytes; a ToolError that names the line where it is none.
    first: the number of the data's first line."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = first + data.count(b"\n", 0, error.start)
        other = " (it looks like UTF-16)" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        raise ToolError(f"{path}: line {line} is not UTF-8{other}; {remedy}") from error


def sha256_of(paths: Iterable[str | os.PathLike[str]]) -> str:
    """Of the files one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            with open(path, "rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        except OSError as error:
            raise ToolError(f"{path}: cannot be read ({error.strerror}); check its permissions.") from error
    return digest.hexdigest()


def check_output(path: str) -> None:
    """Refuses, before the work, an output that could not be written after it."""
    target = pathlib.Path(path)
    if path == "":
        raise ToolError("the name of the output is empty; give -o FILE.")
    if target.exists() and not target.is_file():
        raise ToolError(f"{path}: this is not a regular file; choose another output name.")
    if not target.parent.is_dir():
        raise ToolError(f"{path}: cannot be written (there is no folder {target.parent}); choose a folder that can be.")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise ToolError(f"{path}: cannot be written (Permission denied); choose a folder that can be.")


def write_atomically(path: str, chunks: list[bytes], check: Callable[[pathlib.Path], None] | None = None) -> None:
    """Writes a file beside its final name, syncs and renames it, so that no reader ever sees half of it. check: looks at what was
    written and raises a ToolError where it must not get its name."""
    target = pathlib.Path(path)
    check_output(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "xb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        if check is not None:
            check(temporary)
        os.replace(temporary, target)
        _sync_folder(target.parent)
    except OSError as error:
        raise ToolError(f"{path}: cannot be written ({error.strerror}); choose a folder that can be.") from error
    finally:
        with contextlib.suppress(OSError):  # gone after the rename; what failed before has been reported
            temporary.unlink()


def _sync_folder(folder: pathlib.Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
