"""Where weights are looked for: as the command does."""

from __future__ import annotations

import os

from facenet._errors import error


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
    named = os.fspath(path) if path is not None else os.environ.get("FACENET_WEIGHTS")
    if named:
        return named
    found = _found("facenet.safetensors")
    if found is None:
        raise error(
            "not_found",
            f"no weights: there is no facenet.safetensors in {', '.join(folders())}; "
            'call facenet.download("vggface2"), set FACENET_WEIGHTS, or give a path.',
        )
    return found


def detector_file(path: str | os.PathLike[str] | None) -> str:
    """`path`, else $FACENET_DETECTOR, else what is beside the embedder's, else mtcnn.safetensors of the folders; where none is, it
    is fetched."""
    named = os.fspath(path) if path is not None else os.environ.get("FACENET_DETECTOR")
    if named:
        return named
    embedder = os.environ.get("FACENET_WEIGHTS") or _found("facenet.safetensors")
    beside = os.path.join(os.path.dirname(embedder), "mtcnn.safetensors") if embedder else ""
    found = beside if os.path.exists(beside) else _found("mtcnn.safetensors")
    if found is None:
        from facenet import _downloads

        return _downloads.detector()
    return found
