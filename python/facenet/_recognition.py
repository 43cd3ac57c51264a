"""Galleries, clusters, error rates and thresholds."""

from __future__ import annotations

import builtins
import hashlib
import os
from typing import TYPE_CHECKING, Any, Literal, Mapping, NamedTuple

from facenet import _engine, _files
from facenet._errors import error
from facenet._objects import Detector, Embedder, Face

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float32]


class Person(NamedTuple):
    name: str
    templates: int


class Template(NamedTuple):
    """A face that stands for a person."""

    id: int
    name: str
    image: str
    sha256: str
    face: int
    box: tuple[float, float, float, float]
    score: float
    enrolled: str  # UTC, such as 2026-11-28T07:18:32Z


class Match(NamedTuple):
    """A person whose template is near a query."""

    name: str
    distance: float
    similarity: float
    template: int
    image: str


class Added(NamedTuple):
    template: int
    new: bool  # False: this person has a template of the same picture already


class Gallery:
    """Persons and the templates that identify them, in the command's SQLite files (docs/galleries.md).

    mode: "create" (made with the first template), "change" (must be there) or "read". One object serves one thread after
    the other; processes take turns. Each call sees the file as it is then: also one that another process has made or
    replaced. A process that was forked opens the file anew.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, mode: Literal["create", "change", "read"] = "create", threads: int = 0
    ) -> None:
        if mode not in ("create", "change", "read"):
            raise error("invalid_argument", f'mode: "{mode}" is not known: give "create", "change" or "read".')
        self.path, self._mode, self._threads = _files.absolute(path), mode, threads
        if not hasattr(_engine, "Gallery"):
            raise error("unsupported", "this build of facenet has no galleries: install SQLite's headers and build it again.")
        self._cpp = _engine.Gallery(os.fsencode(self.path), mode)

    def add(
        self,
        name: str,
        embedding: Floats,
        *,
        embedder: Embedder,
        picture: str | os.PathLike[str] | None = None,
        face: Face | None = None,
        number: int = 0,
        detector: Detector | None = None,
    ) -> Added:
        """Adds a template of a person's, on the disk when this returns.

        embedder: whose embedding it is; a gallery takes one model's. picture: the file it was made from, by whose SHA-256
        the same picture is known again; without one the embedding's own. face, number, detector: what was found, the
        how-many-th face of the picture it was, and by which detector; a crop has none.
        """
        self._may_change()
        if picture is None:
            image, digest = "array", hashlib.sha256(_bytes_of(embedding)).hexdigest()
        else:
            _files.absolute(picture)  # whether it is a name at all
            digest = _files.sha256_of(picture)
            image = os.fsencode(picture).decode("utf-8", "replace")
        box, score = (face.box, face.score) if face is not None else ((0.0, 0.0, 0.0, 0.0), 0.0)
        outcome, template, owner = self._cpp.add(
            dict(embedder.info), detector.digest if detector else "", _person(name), embedding, image, digest, number, box, score
        )
        if outcome == "another_person":
            raise error("gallery", f"{image}: this face is enrolled as '{owner}' already, so it cannot be '{name}'; remove one of them.")
        return Added(template, outcome == "yes")

    def remove(self, *names: str) -> int:
        """Removes persons with all they have, without a trace in the file; returns how many templates went."""
        self._may_change()
        return self._cpp.remove([_person(name) for name in names])

    def remove_templates(self, *ids: int) -> builtins.list[str]:
        """Removes templates; a person without any goes too. Returns the names of the persons that went."""
        self._may_change()
        return self._cpp.remove_templates([*ids])

    def rename(self, old: str, new: str) -> None:
        self._may_change()
        self._cpp.rename(_person(old), _person(new))

    def list(self) -> builtins.list[Person]:
        """All persons, in the order in which they were added."""
        return [Person(*p) for p in self._cpp.persons()]

    def templates(self, *names: str) -> builtins.list[Template]:
        """The templates of these persons, in the order of the names, and of one person in the order in which they were added."""
        return [Template(*t) for t in self._cpp.templates_of([_person(name) for name in names])]

    def search(self, queries: Floats, k: int = 1, threshold: float = float("inf")) -> Any:
        """The k nearest persons within `threshold` of a query, float32 [dim]: a list of Match, nearest first, empty for a
        stranger. Of queries float32 [n, dim]: a list of such lists. Exact; sees what other processes have written."""
        found = self._cpp.search(queries, k, min(threshold, 1e300), self._threads)
        lists = [[Match(*m) for m in of_one] for of_one in found]
        return lists if getattr(queries, "ndim", 2) == 2 else lists[0]

    @property
    def model(self) -> Mapping[str, Any] | None:
        """What the embeddings were made with; None for a gallery that is still to be made."""
        return self._cpp.model()

    def __len__(self) -> int:
        """Persons."""
        return len(self._cpp.persons())

    def __contains__(self, name: object) -> bool:
        return any(person == name for person, _ in self._cpp.persons())

    def close(self) -> None:
        self._cpp.close()

    @property
    def closed(self) -> bool:
        return self._cpp.closed

    def _may_change(self) -> None:
        if self._mode == "read" and not self.closed:
            raise error("gallery", f'{self.path}: this gallery is open for reading; open it with mode="change" to change it.')

    def __enter__(self) -> Gallery:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _opened, (self.path, self._mode, self._threads)

    def __repr__(self) -> str:
        return f"<facenet.Gallery {self.path!r}{': closed' if self.closed else ''}>"


def _bytes_of(embedding: Any) -> bytes:
    try:
        return memoryview(embedding).tobytes()
    except TypeError as e:
        raise error("invalid_argument", f"embedding: an object of the type {type(embedding).__name__} is no array: give a NumPy array.") from e


def _person(name: str) -> str:
    """A name that can be written as UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError as e:
        raise error("gallery", f"{name!r} is no person's name: it is not UTF-8; decode it rightly.") from e
    return name


def _opened(path: str, mode: Literal["create", "change", "read"], threads: int) -> Gallery:
    return Gallery(path, mode=mode, threads=threads)


def cluster(
    embeddings: Floats,
    threshold: float = 1.1,
    *,
    method: Literal["whispers", "dbscan", "average"] = "whispers",
    metric: Literal["euclidean", "cosine"] = "euclidean",
    threads: int = 0,
    min_samples: int = 2,
    iterations: int = 20,
    seed: int = 0,
) -> NDArray[np.int32]:
    """A label for each of float32 [n, dim]: faces of one person have one. dbscan gives -1 to those without neighbours.

    threshold: the distance up to which two faces are neighbours, which depends on the model: Embedder.info["threshold"].
    """
    return _engine.cluster(embeddings, threshold, method, metric, threads, min_samples, iterations, seed)


def _doubles(values: ArrayLike, name: str) -> Any:
    import numpy as np

    try:
        return np.ascontiguousarray(values, dtype=np.float64)
    except ValueError as e:
        raise error("invalid_argument", f"{name}: these are no numbers ({e}); give an array of distances.") from e


def _pairs(distances: ArrayLike, same: ArrayLike) -> tuple[Any, Any]:
    import numpy as np

    d, s = _doubles(distances, "distances"), np.asarray(same)
    if s.dtype != np.bool_ and not (np.issubdtype(s.dtype, np.integer) and np.isin(s, (0, 1)).all()):
        raise error("invalid_argument", "same: give True or False for each pair.")
    return d, np.ascontiguousarray(s, dtype=np.uint8)


def evaluate(
    distances: ArrayLike,
    same: ArrayLike,
    *,
    far: float = 0.001,
    threshold: float | None = None,
    folds: int = 0,
    bootstrap: int = 0,
    seed: int = 0,
) -> dict[str, Any]:
    """Error rates of pairs: auc, eer, tar at `far`, roc as [n, 3] of false and true accept rate and threshold.

    distances, same: of each pair, and whether it is one person's. threshold: also the rates at this distance
    (at_threshold). folds: also LFW's accuracy, over so many runs of the pairs. bootstrap: also 95% intervals, from so many
    resamples.
    """
    d, s = _pairs(distances, same)
    out = _engine.evaluate(d, s, far, threshold, bootstrap, seed)
    if folds:
        out["accuracy"] = _engine.accuracy(d, s, folds)
    return out


class Calibration(NamedTuple):
    threshold: float
    far: float
    accepted: int
    impostors: int


def calibrate(impostor_distances: ArrayLike, far: float) -> Calibration:
    """The largest threshold at which at most far * n of n pairs of two persons' are accepted. At least 3 / far pairs."""
    return Calibration(**_engine.calibrate(_doubles(impostor_distances, "impostor_distances"), far))


__all__ = ["Added", "Calibration", "Gallery", "Match", "Person", "Template", "calibrate", "cluster", "evaluate"]
