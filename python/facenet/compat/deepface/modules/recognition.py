"""deepface.modules.recognition: a face looked for in a folder of pictures."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import tempfile
from typing import Any

import numpy as np

from facenet._errors import FacenetValueError
from facenet.compat.deepface import _backend
from facenet.compat.deepface.commons import image_utils
from facenet.compat.deepface.modules import verification
from facenet.compat.deepface.modules.detection import extract_faces, refuse_anti_spoofing
from facenet.compat.deepface.modules.exceptions import EmptyDatasource, PathNotFound, UnimplementedError
from facenet.compat.deepface.modules.representation import represent

_TARGET = ("target_x", "target_y", "target_w", "target_h")
_SOURCE = ("source_x", "source_y", "source_w", "source_h")
_NAMES = ("identity", "hash")


class _Datastore:
    """What the faces of a folder's pictures are, one row a face; a picture without one has a row without an embedding."""

    def __init__(self, path: str, dim: int) -> None:
        self.path, self.dim = path, dim
        self.identity: list[str] = []
        self.hash: list[str] = []
        self.target: list[tuple[int, ...]] = []
        self.embedding: list[Any] = []

    def add(self, identity: str, digest: str, area: dict[str, Any] | None, embedding: Any) -> None:
        self.identity.append(identity)
        self.hash.append(digest)
        self.target.append(tuple(area[side] for side in "xywh") if area else (0, 0, 0, 0))
        self.embedding.append(embedding)

    def without(self, names: set[str]) -> _Datastore:
        kept = _Datastore(self.path, self.dim)
        for identity, digest, target, embedding in zip(self.identity, self.hash, self.target, self.embedding):
            if identity not in names:
                kept.add(identity, digest, dict(zip("xywh", target)), embedding)
        return kept

    def read(self) -> bool:
        """What the file has; False where there is none that can be read."""
        try:
            with np.load(self.path, allow_pickle=False) as file:
                names, digests, target, embeddings, found = (file[name] for name in ("identity", "hash", "target", "embedding", "has_embedding"))
                if embeddings.shape != (len(names), self.dim) or target.shape != (len(names), 4):
                    return False
                for row in zip(names.tolist(), digests.tolist(), target.tolist(), embeddings, found.tolist()):
                    self.add(row[0], row[1], dict(zip("xywh", row[2])), row[3] if row[4] else None)
        except (OSError, ValueError, KeyError, EOFError):
            return False
        return True

    def write(self) -> None:
        """Whole, or not at all: a folder that cannot be written to has no file, and is embedded each time."""
        rows = np.zeros((len(self.identity), self.dim))
        for row, embedding in zip(rows, self.embedding):
            if embedding is not None:
                row[:] = embedding
        found = np.array([embedding is not None for embedding in self.embedding], bool)
        target = np.array(self.target, np.int64).reshape(-1, 4)
        try:
            with tempfile.NamedTemporaryFile(dir=os.path.dirname(self.path) or ".", prefix=".facenet-", suffix=".npz", delete=False) as file:
                try:
                    np.savez(file, identity=np.array(self.identity, str), hash=np.array(self.hash, str), target=target, embedding=rows, has_embedding=found)
                    file.close()
                    os.replace(file.name, self.path)
                except BaseException:
                    os.unlink(file.name)
                    raise
        except OSError as e:
            print(f"facenet: {self.path}: cannot be written ({e.strerror}); the folder is embedded again next time.", file=sys.stderr)


def _pandas(return_type: str | None) -> Any:
    """pandas, where DataFrames are wanted."""
    if return_type not in (None, "pandas", "dict"):
        raise FacenetValueError(f'return_type: "{return_type}" is neither "pandas" nor "dict".', "invalid_argument")
    if return_type == "dict" or (return_type is None and importlib.util.find_spec("pandas") is None):
        return None
    try:
        return importlib.import_module("pandas")
    except ImportError as e:
        raise ImportError('return_type: "pandas" needs pandas: run pip install pandas, or give "dict".') from e


def find(
    img_path: Any,
    db_path: str,
    model_name: str = "VGG-Face",
    distance_metric: Any = "cosine",
    enforce_detection: bool = True,
    detector_backend: str = "opencv",
    align: bool = True,
    similarity_search: bool = False,
    k: int | None = None,
    expand_percentage: int = 0,
    threshold: float | None = None,
    normalization: str = "base",
    silent: bool = False,
    refresh_database: bool = True,
    anti_spoofing: bool = False,
    datastore_format: str = "npz",
    return_type: str | None = None,
) -> Any:
    """For each face of a picture, the faces of a folder's pictures within the threshold, the nearest first: a list of DataFrames, or
    of lists of dictionaries where there is no pandas. Embeddings are kept in a file in that folder."""
    pandas = _pandas(return_type)
    verification.check_metric(distance_metric, threshold)
    if datastore_format != "npz":
        kind = UnimplementedError if datastore_format in ("feather", "parquet") else FacenetValueError
        raise kind(f'datastore_format: "{datastore_format}" is not here; give npz.', "unsupported")
    model = _backend.model(model_name)
    refuse_anti_spoofing(anti_spoofing)
    db_path = os.fspath(db_path)
    if db_path.startswith(("s3://", "ftp://")):
        raise UnimplementedError(f"{db_path}: only folders of this machine are searched; copy the pictures into one.")
    if not os.path.isdir(db_path):
        raise PathNotFound(f"{db_path}: there is no such folder.", "not_found")
    picture, _ = image_utils.load_image(img_path)  # what is wrong with it is said before a folder is embedded
    if isinstance(img_path, (str, os.PathLike)) and os.path.exists(img_path):
        picture = img_path  # whose name a sentence may need; a stream and a URL are read once
    options: dict[str, Any] = {
        "detector_backend": detector_backend,
        "enforce_detection": enforce_detection,
        "align": align,
        "expand_percentage": expand_percentage,
        "color_face": "bgr",
    }
    way = ["aligned" if align else "unaligned", "normalization", normalization, "expand", str(expand_percentage), model.digest[:8]]
    if detector_backend != "skip":
        way += [_backend.detector(detector_backend).digest[:8]]
    stem = "_".join(["facenet", model_name, "skip" if detector_backend == "skip" else "mtcnn", *way]).lower()
    store = _Datastore(os.path.join(db_path, f"{stem}.npz"), model.output_shape)
    known = store.read()
    if refresh_database:
        store = _refreshed(store, db_path, model_name, normalization, silent, options)
    elif not known or not store.identity:
        raise EmptyDatasource(f"{store.path}: nothing is in it; search with refresh_database=True once.", "not_found")
    faces = extract_faces(picture, **options)
    limit = verification.find_threshold(model_name, distance_metric) if threshold is None else threshold
    queries = [represent(face["face"], model_name, detector_backend="skip", normalization=normalization)[0]["embedding"] for face in faces]
    if pandas is None:
        return _as_dicts(store, faces, queries, model_name, distance_metric, limit, similarity_search, k)
    return [
        _as_frame(pandas, store, face["facial_area"], query, model_name, distance_metric, limit, similarity_search, k)
        for face, query in zip(faces, queries)
    ]


def _refreshed(store: _Datastore, db_path: str, model_name: str, normalization: str, silent: bool, options: dict[str, Any]) -> _Datastore:
    """The store with what is in the folder now."""
    hashes = {path: image_utils.find_image_hash(path) for path in sorted(image_utils.yield_images(db_path))}
    if not hashes:
        raise EmptyDatasource(f"{db_path}: there is no JPEG and no PNG in it.", "not_found")
    stale = {identity for identity, digest in zip(store.identity, store.hash) if hashes.get(identity) != digest}
    fresh = store.without(stale) if stale else store
    new = [path for path in hashes if path not in set(fresh.identity)]
    if new and not silent:
        print(f"facenet: embedding {len(new)} pictures of {db_path}.", file=sys.stderr, flush=True)
    for path in new:
        try:
            faces = extract_faces(path, **options)
        except ValueError as e:
            if not silent:
                print(f"facenet: {path} is left out: {e}", file=sys.stderr, flush=True)
            faces = []
        if not faces:
            fresh.add(path, hashes[path], None, None)
        for face in faces:
            embedding = represent(face["face"], model_name, detector_backend="skip", normalization=normalization)[0]["embedding"]
            fresh.add(path, hashes[path], face["facial_area"], embedding)
    if new or stale:
        fresh.write()
    return fresh


def _as_frame(pandas: Any, store: _Datastore, area: Any, query: Any, model_name: str, metric: Any, limit: float, every: bool, k: int | None) -> Any:
    target = np.array(store.target, np.int64).reshape(-1, 4)
    frame = pandas.DataFrame({"identity": store.identity, "hash": store.hash, **{name: target[:, i] for i, name in enumerate(_TARGET)}})
    frame["threshold"] = limit
    for name, side in zip(_SOURCE, "xywh"):
        frame[name] = area[side]
    distances = [float("inf") if known is None else float(verification.find_distance(known, query, metric)) for known in store.embedding]
    frame["distance"] = distances
    frame["confidence"] = [
        0.0 if known is None else verification.find_confidence(distance, model_name, distance <= limit, metric)
        for known, distance in zip(store.embedding, distances)
    ]
    if not every:
        frame = frame[frame["distance"] <= frame["threshold"]]
    frame = frame.sort_values(by=["distance"], ascending=True).reset_index(drop=True)
    return frame.head(k) if k is not None and len(frame) > k else frame


def _as_dicts(store: _Datastore, faces: Any, queries: Any, model_name: str, metric: Any, limit: float, every: bool, k: int | None) -> Any:
    """A function of the caller's is called once, with [n, dim] and [m, dim], and gives [m, n]."""
    found = np.array([embedding is not None for embedding in store.embedding])
    rows = np.array([np.zeros(store.dim) if embedding is None else embedding for embedding in store.embedding])
    limit = np.inf if every else limit
    distances = np.array(verification.find_distance(rows, np.array(queries), metric), np.float64)
    distances[:, ~found] = np.inf
    target = np.array(store.target, np.int64).reshape(-1, 4)
    names, digests = np.array(store.identity, str), np.array(store.hash, str)
    out: list[list[dict[str, Any]]] = []
    for face, of_one in zip(faces, distances):
        order = [i for i in np.argsort(of_one) if of_one[i] <= limit][:k]
        out.append([
            {
                "identity": names[i],
                "hash": digests[i],
                **{name: target[i, j] for j, name in enumerate(_TARGET)},
                **{name: np.int64(face["facial_area"][side]) for name, side in zip(_SOURCE, "xywh")},
                "threshold": np.asarray(limit)[()],
                "distance": of_one[i],
                "confidence": verification.find_confidence(float(of_one[i]), model_name, bool(of_one[i] <= limit), metric),
            }
            for i in order
        ])  # fmt: skip
    return out
