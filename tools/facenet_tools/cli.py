"""How every tool fails: one sentence on stderr and exit status 2."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import signal
import sys
from typing import Callable


_CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f]")  # but the line feed, which lists have


class ToolError(Exception):
    """A sentence for the user: the file, the place and the remedy."""


def shown(name: str) -> str:
    """A file's name for a message or a list: what would break the line, or is not UTF-8, as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in name)


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
        print(f"{name}: {_CONTROL.sub('?', str(error))}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _stop(number: int, _frame: object) -> None:
    """As Ctrl-C does: by way of an exception, so that half-written files are removed on the way out."""
    sys.exit(128 + number)


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


def write_atomically(path: str, chunks: list[bytes]) -> None:
    """Writes a file beside its final name, syncs and renames it, so that no reader ever sees half of it."""
    target = pathlib.Path(path)
    check_output(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "xb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
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
