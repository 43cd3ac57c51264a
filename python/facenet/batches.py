"""From pictures to Parquet, a part at a time: what facenet.ray and facenet.dask share, and the same in one process.

The pictures are cut into parts. A part becomes one file, which is named after its pictures and appears whole. So a part that is
done twice, since its worker was killed, is the same file; and a run that finds the file has nothing to do there.
docs/scale.md of the sources has the guide.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import pathlib
import pickle
import uuid
from typing import TYPE_CHECKING, Any, Callable, Generator, Iterable, Iterator, Mapping, NamedTuple, Sequence

from facenet import _files
from facenet._errors import FacenetError, error, needed
from facenet._objects import Detector, Embedder, Face, Progress, align
from facenet._pictures import read_image

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

Pictures = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
SUFFIXES = (".jpg", ".jpeg", ".png")
PART = 256  # pictures: half a minute of one CPU, which is what a killed worker loses
_CROPS = 32  # are embedded together; more would only take memory
_SETTINGS, _LOCK = "_facenet.json", ".facenet-lock"  # readers of a folder of Parquet files pass over both


class Row(NamedTuple):
    """A face; or a picture that has none, or could not be read. A picture without a face has one row."""

    path: str
    face: int | None = None  # its number in the picture, the largest is 0; None: no face
    box: tuple[float, float, float, float] | None = None  # x1, y1, x2, y2 in pixels
    score: float | None = None
    landmarks: Any = None  # float32 [10]: x and y of five points
    embedding: Any = None  # float32 [dim]
    error: str | None = None  # why there is no face or no embedding


class Part(NamedTuple):
    """Pictures that become one file."""

    name: str
    paths: tuple[str, ...]


class Work(NamedTuple):
    """What a worker must know beside the part."""

    output: str
    detector: bytes  # pickled: the path of its weights and its options
    embedder: bytes
    settings: str  # JSON: what decides the rows
    tries: int  # of a part, whose worker may be killed


class Done(NamedTuple):
    """What a worker says of a part. error: why there is no file; None: there is one."""

    name: str
    error: str | None


class Run(NamedTuple):
    """What a folder holds after a run."""

    pictures: int
    faces: int
    failed: int  # rows with an error: failures() lists them
    parts: int
    parts_before: int  # of them there were so many when the run began
    unfinished: Mapping[str, str]  # part: why it has no file. The next run does it again


class Failure(NamedTuple):
    path: str
    face: int | None
    error: str
    part: str  # the file


Execute = Callable[[Sequence[Part], Work], Iterable[Done]]


# ---- a part ----------------------------------------------------------------------------------------------------------


def rows(paths: Iterable[str | os.PathLike[str]], detector: Detector, embedder: Embedder) -> list[Row]:
    """The faces of pictures, in order. Nothing that is wrong with a picture ends it: the engine's sentence is in the row."""
    found: list[Row] = []
    places: list[int] = []
    crops: list[Pixels] = []
    for path in paths:
        name = _text(os.fspath(path))
        try:
            picture = read_image(path)
            faces = detector.detect(picture)
        except FacenetError as e:
            found.append(Row(name, error=str(e)))
            continue
        for number, face in enumerate(faces):
            try:
                crops.append(align(picture, face, embedder=embedder))
                places.append(len(found))
                found.append(_row(name, number, face))
            except FacenetError as e:
                found.append(_row(name, number, face)._replace(error=str(e)))
        if not faces:
            found.append(Row(name))
        if len(crops) >= _CROPS:
            _embed(found, places, crops, embedder)
    _embed(found, places, crops, embedder)
    return found


def _row(path: str, number: int, face: Face) -> Row:
    return Row(path, number, face.box, face.score, face.landmarks.ravel())


def _embed(found: list[Row], places: list[int], crops: list[Pixels], embedder: Embedder) -> None:
    """Completes the rows at `places`; an embedding does not depend on what is computed beside it."""
    try:
        for place, embedding in zip(places, embedder.embed(crops)):
            found[place] = found[place]._replace(embedding=embedding)
    except FacenetError:  # of one crop, which is to be found
        for place, crop in zip(places, crops):
            try:
                found[place] = found[place]._replace(embedding=embedder.embed(crop))
            except FacenetError as e:
                found[place] = found[place]._replace(error=str(e))
    places.clear()
    crops.clear()


def _text(path: str) -> str:
    """A file's name may be no UTF-8, a string of Parquet's is."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


@functools.lru_cache(maxsize=4)
def _loaded(pickled: bytes) -> Any:
    """Once for each process: loading weights takes longer than a face."""
    return pickle.loads(pickled)


def do(part: Part, work: Work) -> Done:
    """Makes the part's file, unless it is there. Raises nothing that the engine or the disk may cause."""
    target = pathlib.Path(work.output) / part.name
    try:
        if _counts(target) is not None:
            return Done(part.name, None)
        begun = target.with_name(f".{target.name}.begun")  # a byte for each try that had no end
        with open(begun, "ab") as file:
            file.write(b".")
            if file.tell() > work.tries:
                return Done(part.name, f"its worker was killed {work.tries} times at it: there is too little memory for one of its pictures.")
        detector, embedder = _loaded(work.detector), _loaded(work.embedder)
        settings = _settings(detector, embedder)
        if settings != work.settings:
            raise error("weights_mismatch", f"{embedder.path}: this worker has other weights than the one that began; give it the same file.")
        _write(rows(part.paths, detector, embedder), len(part.paths), target, settings)
        begun.unlink(missing_ok=True)
    except (FacenetError, OSError, MemoryError) as e:
        return Done(part.name, str(e) or type(e).__name__)
    return Done(part.name, None)


def _write(found: list[Row], pictures: int, target: pathlib.Path, settings: str) -> None:
    """A Parquet file, on the disk before it has its name."""
    parquet, pa = _parquet(), needed("pyarrow")
    floats = pa.list_(pa.float32())
    fields = [("path", pa.string()), ("face", pa.int32()), ("box", floats), ("score", pa.float32()), ("landmarks", floats), ("embedding", floats),
              ("error", pa.string())]  # fmt: skip
    counts = {"pictures": pictures, "faces": sum(row.embedding is not None for row in found), "failed": sum(row.error is not None for row in found)}
    schema = pa.schema(fields, metadata={"facenet": json.dumps({**json.loads(settings), **counts})})
    columns = [pa.array(list(column), kind) for column, (_, kind) in zip(zip(*found), fields)]
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")  # another worker may be at the same part
    try:
        with open(temporary, "wb") as file:
            parquet.write_table(pa.Table.from_arrays(columns, schema=schema), file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _parquet() -> Any:
    return needed("pyarrow.parquet", "pyarrow")


def _counts(part: pathlib.Path) -> dict[str, int] | None:
    """What a part's file holds; None where there is none, or one that a disk has damaged."""
    try:
        found = _parquet().read_metadata(part).metadata[b"facenet"]
        return {name: int(json.loads(found)[name]) for name in ("pictures", "faces", "failed")}
    except (OSError, ValueError, KeyError, TypeError):  # pyarrow's errors are ValueErrors
        return None


# ---- a run -----------------------------------------------------------------------------------------------------------


def _settings(detector: Detector, embedder: Embedder) -> str:
    """What decides the rows: weights and options, but not threads, batches or paths."""
    searches, embeds = (dict(thing.__reduce__()[1][2]) for thing in (detector, embedder))
    options = {name: searches[name] for name in ("min_face", "thresholds", "factor", "max_faces", "selection")}
    return json.dumps(
        {
            "format": 1,
            "model": embedder.info["digest"],
            "dim": embedder.dim,
            "threshold": embedder.info["threshold"],
            "arithmetic": embeds["arithmetic"],
            "detector": detector.digest,
            **options,
        }
    )


def list_pictures(pictures: Pictures) -> list[str]:
    """Absolute paths, each once: of a folder and its sub-folders what ends in .jpg, .jpeg or .png, sorted; else what is given."""
    if not isinstance(pictures, (str, os.PathLike)):
        return list(dict.fromkeys(_files.absolute(path) for path in pictures))
    folder = _files.absolute(pictures)
    if not os.path.isdir(folder):
        raise error("not_found", f"{folder}: there is no such folder; give a folder of pictures, or a list of their paths.")

    def refuse(e: OSError) -> None:
        raise error("io_error", f"{e.filename}: the folder cannot be read ({e.strerror}); check its permissions.") from e

    found = [os.path.join(place, name) for place, _, names in os.walk(folder, onerror=refuse) for name in names]
    return sorted(path for path in found if path.lower().endswith(SUFFIXES))


def _cut(paths: Sequence[str], part: int) -> list[Part]:
    """Parts of `part` pictures. The same pictures have the same name, whichever run cuts them."""
    parts: list[Part] = []
    for first in range(0, len(paths), part):
        some = tuple(paths[first : first + part])
        digest = hashlib.sha256(b"\0".join(os.fsencode(path) for path in some)).hexdigest()[:32]
        parts.append(Part(f"part-{digest}.parquet", some))
    return parts


def _plan(paths: Sequence[str], part: int, output: pathlib.Path) -> list[Part]:
    """All parts, finished ones too. Pictures that a part of another list holds are left out: the list has grown, or `part` is
    another number."""
    parts = _cut(paths, part)
    others = {path.name for path in output.glob("part-*.parquet")} - {p.name for p in parts}
    done: set[str] = set()
    for name in others:
        if _counts(output / name) is not None:
            done.update(_parquet().read_table(output / name, columns=["path"])["path"].to_pylist())
    if not done:
        return parts
    finished = [p for p in parts if _counts(output / p.name) is not None]
    held = {path for p in finished for path in p.paths}
    return finished + _cut([path for path in paths if path not in held and _text(path) not in done], part)


@contextlib.contextmanager
def _alone(output: pathlib.Path) -> Generator[None, None, None]:
    """One run at a time writes into a folder. The lock ends with its process."""
    import fcntl

    with open(output / _LOCK, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise error("io_error", f"{output}: another run is writing into this folder; wait for its end, or give another one.") from e
        yield


def _same_settings(output: pathlib.Path, settings: str) -> None:
    path = output / _SETTINGS
    if path.exists():
        if path.read_text() != settings:
            raise error("weights_mismatch", f"{output}: was begun with other weights or options, whose embeddings are not comparable; "
                        "give the same ones, or another folder.")  # fmt: skip
        return
    if any(output.glob("part-*.parquet")):
        raise error("invalid_argument", f"{output}: holds parts without their {_SETTINGS}; give another folder.")
    new = output / f".{_SETTINGS}.{uuid.uuid4().hex}"
    new.write_text(settings)
    os.replace(new, path)


def run(
    execute: Execute,
    pictures: Pictures,
    output: str | os.PathLike[str],
    *,
    detector: Detector | str | os.PathLike[str] | None = None,
    embedder: Embedder | str | os.PathLike[str] | None = None,
    part: int = PART,
    retries: int = 3,
    progress: Progress | None = None,
) -> Run:
    """What facenet.ray and facenet.dask call. execute: does parts somewhere, and says so of each."""
    _parquet()
    if part < 1:
        raise error("invalid_argument", f"part: {part} pictures are no part; give 1 or more.")
    finder = detector if isinstance(detector, Detector) else Detector(detector, threads=1)
    network = embedder if isinstance(embedder, Embedder) else Embedder(embedder, threads=1)
    folder, paths = pathlib.Path(_files.absolute(output)), list_pictures(pictures)
    work = Work(str(folder), pickle.dumps(finder), pickle.dumps(network), _settings(finder, network), retries + 1)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(folder):
            _same_settings(folder, work.settings)
            return _finish(folder, _plan(paths, part, folder), work, execute, progress)
    except FacenetError:  # some are OSErrors too
        raise
    except OSError as e:
        raise error("io_error", f"{e.filename or folder}: cannot be read or written ({e.strerror or e}); free space, or give another folder.") from e


def _finish(folder: pathlib.Path, parts: list[Part], work: Work, execute: Execute, progress: Progress | None) -> Run:
    missing = [p for p in parts if _counts(folder / p.name) is None]
    _tidy(folder)
    said: dict[str, str | None] = {}
    for done in execute(missing, work) if missing else ():
        said[done.name] = done.error
        if progress is not None:
            progress(len(parts) - len(missing) + len(said), len(parts))
    _tidy(folder)
    counts = {path.name: _counts(path) for path in sorted(folder.glob("part-*.parquet"))}
    whole = [c for c in counts.values() if c is not None]
    lost = "its worker ended without a word: it was killed, or there was too little memory."
    unfinished = {p.name: said.get(p.name) or lost for p in parts if counts.get(p.name) is None}
    pictures, faces, failed = (sum(c[name] for c in whole) for name in ("pictures", "faces", "failed"))
    before = len(whole) - sum(p.name not in unfinished for p in missing)
    return Run(pictures, faces, failed, len(whole), before, unfinished)


def _tidy(folder: pathlib.Path) -> None:
    """Takes away what killed workers have left."""
    for left in folder.glob(".part-*"):
        left.unlink(missing_ok=True)


def embed(
    pictures: Pictures,
    output: str | os.PathLike[str],
    *,
    detector: Detector | str | os.PathLike[str] | None = None,
    embedder: Embedder | str | os.PathLike[str] | None = None,
    part: int = PART,
    progress: Progress | None = None,
) -> Run:
    """All faces of the pictures as Parquet files in the folder `output`, by this process alone.

    pictures: a folder, or paths. detector, embedder: objects, or paths of weights; None: those that Detector() and Embedder()
    find, with one thread. part: pictures of a file. progress: called with (parts done, all).
    """

    def execute(parts: Sequence[Part], work: Work) -> Iterator[Done]:
        return (do(p, work) for p in parts)

    return run(execute, pictures, output, detector=detector, embedder=embedder, part=part, progress=progress)


def failures(output: str | os.PathLike[str]) -> list[Failure]:
    """The rows with an error. A part whose file is deleted is done again by the next run."""
    parquet, found = _parquet(), list[Failure]()
    for path in sorted(pathlib.Path(output).glob("part-*.parquet")):
        counts = _counts(path)
        if counts is not None and counts["failed"]:
            table = parquet.read_table(path, columns=["path", "face", "error"], filters=[("error", "!=", "")])
            found.extend(Failure(row["path"], row["face"], row["error"], path.name) for row in table.to_pylist())
    return found


__all__ = ["Done", "Failure", "Part", "Row", "Run", "Work", "do", "embed", "failures", "list_pictures", "rows", "run"]
