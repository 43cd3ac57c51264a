"""Reading the .h5 files that DeepFace ships, and any whole model or weights that Keras 1 or 2 saved in that layout."""

from __future__ import annotations

import pathlib

import numpy as np

from facenet_tools import davidsandberg
from facenet_tools.checkpoint import StateDict
from facenet_tools.cli import ToolError

MOST_EXPANSION = 16  # compressed weights shrink by a tenth
MAGIC = b"\x89HDF\r\n\x1a\n"


def read(path: str) -> StateDict:
    return davidsandberg.from_keras(_variables(path), path)


def _variables(path: str) -> dict[str, np.ndarray]:
    """Each variable as "layer/variable"."""
    try:
        import h5py
    except ImportError as error:
        raise ToolError(f"{path}: reading Keras' files needs h5py; run: .venv/bin/python -m pip install h5py") from error
    try:
        with h5py.File(path, "r") as file:
            root = file.get("model_weights", file)  # there in whole models, not in weights alone
            layers = [_text(name) for name in root.attrs.get("layer_names", ())]
            if not layers:
                raise ToolError(
                    f"{path}: it lists no layers as Keras 1 and 2 do; save it with Keras 2: model.save_weights('x.h5')."
                )
            out, room = {}, MOST_EXPANSION * pathlib.Path(path).stat().st_size + (1 << 20)
            for layer in layers:
                for name in map(_text, root[layer].attrs["weight_names"]):
                    variable = name.split("/")[-1].split(":")[0]
                    room -= root[layer][name].nbytes  # an array may be declared of any size and hold nothing
                    if room < 0:
                        raise ToolError(f"{path}: declares arrays much larger than the file; download it again.")
                    out[f"{layer}/{variable}"] = root[layer][name][()]
            return out
    except ToolError:
        raise
    except Exception as error:  # h5py hands on whatever a damaged file makes of HDF5, numpy and the codecs of names
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")[:200]
        raise ToolError(f"{path}: not a readable HDF5 file of Keras ({reason}); download it again.") from error


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)
