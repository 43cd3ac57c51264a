"""Where weights are looked for: as the command does."""

from __future__ import annotations

import hashlib
import os

from facenet._errors import error


def absolute(path: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> str:
    """The path as it is meant now: the current folder may be another one later."""
    name = os.fsdecode(path)
    if "\0" in name:
        raise error("invalid_argument", f"{name!r} is no file's name: it has a byte 0; take it out.")
    try:
        return os.path.abspath(name) if name else name
    except FileNotFoundError as e:
        raise error("not_found", f"{name}: the current folder is gone; give a path that begins with /.") from e


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Of a file, which may be longer than the memory."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except FileNotFoundError as e:
        raise error("not_found", f"{os.fspath(path)}: there is no such file; check the path.") from e
    except OSError as e:
        raise error("io_error", f"{os.fspath(path)}: the file cannot be read ({e.strerror}); check its permissions.") from e
    return digest.hexdigest()


def folders() -> list[str]:
    """Folders of weights, the first first."""
    data, home = os.environ.get("XDG_DATA_HOME", ""), os.environ.get("HOME", "")
    places = ["weights"]
    if data.startswith("/"):  # XDG: a relative one is ignored
        places.append(f"{data}/facenet")
    elif home:
        places.append(f"{home}/.local/share/facenet")
    return [*places, "/usr/share/facenet"]


def _found(name: str) -> str | None:
    return next((path for path in (f"{folder}/{name}" for folder in folders()) if os.path.exists(path)), None)


def embedder_file(path: str | os.PathLike[str] | None) -> str:
    """`path`, else $FACENET_WEIGHTS, else facenet.safetensors of the folders."""
    named = path if path is not None else os.environ.get("FACENET_WEIGHTS")
    if named:
        return absolute(named)
    found = _found("facenet.safetensors")
    if found is None:
        raise error(
            "not_found",
            f"no weights: there is no facenet.safetensors in {', '.join(folders())}; "
            'call facenet.download("vggface2"), set FACENET_WEIGHTS, or give a path.',
        )
    return absolute(found)


def detector_file(path: str | os.PathLike[str] | None) -> str:
    """`path`, else $FACENET_DETECTOR, else what is beside the embedder's, else mtcnn.safetensors of the folders; where none is, it
    is fetched."""
    named = path if path is not None else os.environ.get("FACENET_DETECTOR")
    if named:
        return absolute(named)
    embedder = os.environ.get("FACENET_WEIGHTS") or _found("facenet.safetensors")
    beside = os.path.join(os.path.dirname(embedder), "mtcnn.safetensors") if embedder else ""
    found = beside if os.path.exists(beside) else _found("mtcnn.safetensors")
    if found is None:
        from facenet import _downloads

        return _downloads.detector()
    return absolute(found)
