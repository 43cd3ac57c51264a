"""facenet-compat SCRIPT [ARGUMENT…]: runs a script unchanged, with facenet_pytorch and deepface replaced by this package."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import os
import runpy
import sys
from typing import Any

_USAGE = """Usage: facenet-compat SCRIPT [ARGUMENT]...
       facenet-compat -m MODULE [ARGUMENT]...

Runs a Python script or module unchanged. Where it imports facenet_pytorch or deepface, it gets
facenet.compat.facenet_pytorch or facenet.compat.deepface, whether these are installed or not.

Example:
  facenet-compat recognise.py --camera 0
"""
_OURS = "facenet.compat.facenet_pytorch"
_MODULES = ("", ".models", ".models.mtcnn", ".models.inception_resnet_v1", ".models.utils", ".models.utils.detect_face", ".models.utils.training")
_DEEPFACE = ("", ".DeepFace", ".commons", ".commons.image_utils", ".config", ".config.confidence", ".config.minmax", ".config.threshold",
             ".modules", *(f".modules.{name}" for name in ("detection", "exceptions", "modeling", "normalization", "preprocessing",
                                                           "recognition", "representation", "verification")))  # fmt: skip


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds this package's module where a script imports another package's."""

    def __init__(self) -> None:
        self.modules = {f"facenet_pytorch{name}": _OURS + name for name in _MODULES}
        self.modules |= {f"deepface{name}": f"facenet.compat.deepface{name}" for name in _DEEPFACE}
        self.specs: dict[str, Any] = {}

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        return importlib.util.spec_from_loader(fullname, self) if fullname in self.modules else None

    def create_module(self, spec: Any) -> Any:
        module = importlib.import_module(self.modules[spec.name])
        self.specs[spec.name] = module.__spec__
        return module

    def exec_module(self, module: Any) -> None:
        """Has been executed already; gets its own specification back."""
        module.__spec__ = self.specs[module.__spec__.name]


def install() -> None:
    """From now on `import facenet_pytorch` and `import deepface` of this process mean this package's."""
    sys.meta_path.insert(0, _Finder())


def _fail(message: str) -> None:
    print(f"facenet-compat: {message}", file=sys.stderr)
    sys.exit(2)


def main() -> None:
    arguments = sys.argv[1:]
    if arguments[:1] in (["-h"], ["--help"]):
        print(_USAGE, end="")
        return
    module = arguments[:1] == ["-m"]
    arguments = arguments[module:]
    if not arguments:
        _fail("give a script, or -m and a module; --help shows how.")
    if not module and arguments[0].startswith("-"):
        _fail(f"there is no option {arguments[0]}; --help shows what there is.")
    if not module and not os.path.exists(arguments[0]):
        _fail(f"{arguments[0]}: there is no such script; give the path of a Python file.")
    install()
    sys.argv = arguments
    if module:
        sys.path.insert(0, os.getcwd())
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    else:
        sys.path.insert(0, os.path.dirname(os.path.abspath(arguments[0])))
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main()
