"""What goes wrong, as exceptions: each also of the built-in kind that a caller would catch."""

from __future__ import annotations

import importlib
from typing import Any


class FacenetError(Exception):
    """A sentence that says what is wrong, where, and what to do. `code`: the engine's word for it."""

    code: str

    def __init__(self, message: str, code: str = "unsupported") -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (str(self), self.code)

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class FacenetValueError(FacenetError, ValueError):
    """What was given is never accepted, damaged, too large, or of another kind."""


class FacenetOSError(FacenetError, OSError):
    """A file could not be opened, read or written."""


class FacenetNotFoundError(FacenetOSError, FileNotFoundError):
    """A file that must be there is not."""


class FacenetMemoryError(FacenetError, MemoryError):
    """There was not enough memory."""


class FacenetGalleryError(FacenetError, OSError, ValueError):
    """A gallery's file cannot be read or changed, or does not hold what was asked for."""


_CLASSES: dict[str, type[FacenetError]] = {
    "invalid_argument": FacenetValueError,
    "truncated": FacenetValueError,
    "corrupt": FacenetValueError,
    "unsupported": FacenetValueError,
    "limit_exceeded": FacenetValueError,
    "weights_mismatch": FacenetValueError,
    "io_error": FacenetOSError,
    "not_found": FacenetNotFoundError,
    "out_of_memory": FacenetMemoryError,
    "gallery": FacenetGalleryError,
}


def error(code: str, message: str) -> FacenetError:
    """The exception for a code of the engine. Its sentences name the converter by its place in the sources."""
    return _CLASSES.get(code, FacenetError)(message.replace("tools/convert_weights.py", "python -m facenet.convert"), code)


class MissingPackageError(FacenetValueError, ImportError):
    """A package that only a part of this one needs is not installed."""


def needed(module: str, install: str = "") -> Any:
    """A module of another package's, whose types are not known here. install: what pip is asked for."""
    try:
        return importlib.import_module(module)
    except ImportError as e:
        raise MissingPackageError(f"this needs {module}, which cannot be imported ({e}): run pip install {install or module}.") from e
