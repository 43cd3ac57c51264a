"""What the Python tools share: reading checkpoints, writing weight files, pictures.

Importing it from an interpreter without PyTorch starts the calling tool again with the project's .venv.
"""

import importlib.util
import os
import pathlib
import sys

_NEEDED = ("torch", "facenet_pytorch", "xxhash", "PIL", "numpy")
_VENV = pathlib.Path(__file__).resolve().parents[2] / ".venv"


def _use_venv() -> None:
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if not missing:
        return
    python = _VENV / "bin" / "python"
    if not python.exists() or pathlib.Path(sys.prefix) == _VENV:
        names = ", ".join(missing)
        bootstrap = _VENV.parent / "tools" / "bootstrap.sh"   # not beside an installed tool
        remedy = "run tools/bootstrap.sh" if bootstrap.exists() else "install them for it, for instance with pip"
        print(f"{pathlib.Path(sys.argv[0]).name}: this Python lacks {names}; {remedy}.", file=sys.stderr)
        sys.exit(2)
    os.execv(python, [str(python), *sys.argv])


_use_venv()
