"""python -m facenet.convert: the converter of checkpoints, tools/convert_weights.py of the sources.

With PyTorch and facenet-pytorch it is all of that. Without them it takes a facenet-pytorch state_dict (IN -o OUT) or makes the
detector's weights (--mtcnn -o OUT): the state_dict is written as it is, and the engine folds its batch norms when it is loaded.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import pathlib
import shutil
import sys
from typing import Any

from facenet import _downloads, _tools
from facenet._errors import FacenetError, error
from facenet._objects import Detector, Embedder

_NEEDED = ("torch", "facenet_pytorch", "PIL")


def _without_torch(missing: list[str]) -> None:
    names = ", ".join(missing)
    parser = argparse.ArgumentParser(
        prog="python -m facenet.convert",
        description=f"Converts weights without PyTorch; with {names} installed there are more options.",
    )
    parser.add_argument("input", nargs="?", metavar="IN", help="a facenet-pytorch state_dict (.pt)")
    parser.add_argument("-o", "--output", required=True, metavar="OUT")
    parser.add_argument("--mtcnn", action="store_true", help="the detector's weights, fetched if they are not here")
    options, others = parser.parse_known_args()
    if others:
        parser.error(f"{others[0]} needs {names}; install them with pip.")
    if options.mtcnn == (options.input is not None):
        parser.error("give a checkpoint, or --mtcnn.")
    _tools.call(_tools.module("cli").check_output, options.output)
    output, remedy = pathlib.Path(options.output), "choose another folder"
    if options.mtcnn:
        source = _downloads.detector()
        if not output.exists() or not os.path.samefile(source, output):
            _downloads.made(output, lambda new: shutil.copyfile(source, new), Detector, remedy=remedy)
        return
    if output.exists() and os.path.exists(options.input) and os.path.samefile(options.input, output):
        raise error("invalid_argument", f"{output}: is the input itself; choose another output name.")
    _downloads.made(output, lambda new: _downloads.plain(options.input, str(new)), _downloads.loads, remedy=remedy)
    with Embedder(output, threads=1) as made:
        print(f"{output}: {made.info['architecture']}, {made.dim} numbers; the state_dict as it is, without PyTorch.")


def main() -> None:
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        try:
            return _without_torch(missing)
        except (FacenetError, OSError) as e:
            print(f"facenet.convert: {e}", file=sys.stderr)
            sys.exit(2)
    sys.path.insert(0, _tools.FOLDER)
    sys.argv[0] = "python -m facenet.convert"  # which its help and its sentences name
    converter: Any = importlib.import_module("convert_weights")
    cli: Any = importlib.import_module("facenet_tools.cli")
    cli.PROGRAM = "facenet.convert"
    cli.run(converter.main)


if __name__ == "__main__":
    main()
