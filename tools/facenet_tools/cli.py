"""How every tool fails: one sentence on stderr and exit status 2."""

from __future__ import annotations

import contextlib
import os
import pathlib
import sys
from typing import Callable


class ToolError(Exception):
    """A sentence for the user: the file, the place and the remedy."""


def run(main: Callable[[], None]) -> None:
    """Calls main and exits: 0 when it returns, 2 with its sentence when it fails, 130 on Ctrl-C."""
    name = pathlib.Path(sys.argv[0]).name
    try:
        main()
    except ToolError as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def write_atomically(path: str, chunks: list[bytes]) -> None:
    """Writes a file beside its final name, syncs and renames it, so that no reader ever sees half of it."""
    target = pathlib.Path(path)
    if target.exists() and not target.is_file():
        raise ToolError(f"{path}: this is not a regular file; choose another output name.")
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
