"""The converter's modules, which the package carries in _converter/ as they are in the sources' tools/."""

from __future__ import annotations

import importlib
import os
import sys
import types
from typing import Any

from facenet._errors import FacenetError, error

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_converter")


def module(name: str) -> Any:
    """facenet_tools.NAME. Its package's own page looks for PyTorch first, which these modules do without."""
    if "facenet_tools" not in sys.modules:
        package = types.ModuleType("facenet_tools")
        package.__path__ = [os.path.join(FOLDER, "facenet_tools")]
        sys.modules["facenet_tools"] = package
    try:
        return importlib.import_module(f"facenet_tools.{name}")
    except ImportError as e:
        raise error("unsupported", f"this needs the package {e.name}: run pip install {e.name}.") from e


def call(function: Any, *arguments: Any) -> Any:
    """Calls a function of theirs; what they refuse is a FacenetError."""
    cli = module("cli")
    before, cli.PROGRAM = cli.PROGRAM, "facenet"  # what it says on stderr is ours
    try:
        return function(*arguments)
    except FacenetError:
        raise
    except cli.ToolError as e:
        raise error("io_error", cli.as_called(str(e))) from e
    finally:
        cli.PROGRAM = before
