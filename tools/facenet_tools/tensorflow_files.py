"""Reading davidsandberg's TensorFlow checkpoints and frozen graphs, through a Python that has TensorFlow."""

from __future__ import annotations

import glob
import importlib.util
import pathlib
import re
import subprocess
import sys
import tempfile

import numpy as np

from facenet_tools import davidsandberg
from facenet_tools.checkpoint import StateDict
from facenet_tools.cli import ToolError

VENV = pathlib.Path(__file__).resolve().parents[2] / ".venv-tensorflow"
_READER = pathlib.Path(__file__).with_name("tensorflow_reader.py")
_PART = re.compile(r"\.(index|meta|data-\d{5}-of-\d{5})$")


def python() -> str | None:
    """An interpreter that imports TensorFlow: this one, or that of .venv-tensorflow."""
    if importlib.util.find_spec("tensorflow") is not None:
        return sys.executable
    own = VENV / "bin" / "python"
    return str(own) if own.exists() else None


def checkpoint_prefix(path: str) -> str | None:
    """The path without .index of the checkpoint that is meant: by its folder, one of its files or the prefix itself.

    In a folder with several, the one with the most steps. None: there is no checkpoint there.
    """
    where = pathlib.Path(path)
    if where.is_dir():
        found = [str(file)[: -len(".index")] for file in where.glob("*.index")]
        chosen = max(found, key=_steps, default=None)
        if len(found) > 1:
            print(f"{path}: holds {len(found)} checkpoints; {pathlib.Path(chosen).name}, the latest, is taken.", file=sys.stderr)
        return chosen
    prefix = _PART.sub("", path)
    return prefix if pathlib.Path(f"{prefix}.index").is_file() else None


def parts(prefix: str) -> list[pathlib.Path]:
    """The files with a checkpoint's numbers, in the order in which their SHA-256 is taken: .index, then .data-*."""
    where = pathlib.Path(prefix)
    data = sorted(where.parent.glob(f"{glob.escape(where.name)}.data-*"))
    if not data:
        raise ToolError(f"{prefix}.index: its {where.name}.data-00000-of-00001 is not beside it; copy both.")
    return [pathlib.Path(f"{prefix}.index"), *data]


def read_checkpoint(prefix: str) -> StateDict:
    return davidsandberg.from_tensorflow(_numbers("checkpoint", prefix), prefix, strict=True)


def read_graph(path: str) -> StateDict:
    return davidsandberg.from_tensorflow(_numbers("graph", path), path, strict=False)


def _numbers(kind: str, path: str) -> dict[str, np.ndarray]:
    interpreter = python()
    if interpreter is None:
        raise ToolError(
            f"{path}: reading TensorFlow's files needs TensorFlow; run tools/bootstrap.sh --tensorflow, "
            "which puts it into .venv-tensorflow, or install tensorflow-cpu for this Python."
        )
    with tempfile.TemporaryDirectory() as folder:
        output = pathlib.Path(folder) / "numbers.npz"
        command = [interpreter, str(_READER), kind, path, str(output)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1].rstrip(".")
            raise ToolError(f"{path}: TensorFlow cannot read this {kind} ({reason}); copy or download it again.")
        with np.load(output) as arrays:
            return {name: arrays[name] for name in arrays.files}


def _steps(prefix: str) -> int:
    steps = re.search(r"-(\d+)$", prefix)
    return int(steps[1]) if steps else -1

