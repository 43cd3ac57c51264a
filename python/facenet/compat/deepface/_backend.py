"""The engine behind DeepFace's names: one detector for all backends, and each model's embeddings before they are normalised."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pathlib
import sys
import tempfile
import threading
import warnings
from typing import Any, Iterator

import numpy as np

from facenet import _files, _tools
from facenet._errors import FacenetValueError
from facenet._objects import Detector, Embedder
from facenet.compat.deepface.modules.exceptions import UnimplementedError, WeightsNotFound

# Model: (numbers of an embedding, the name of its file in DeepFace's folder, the variable that names another).
MODELS = {
    "Facenet": (128, "facenet_weights", "FACENET_DEEPFACE_FACENET"),
    "Facenet512": (512, "facenet512_weights", "FACENET_DEEPFACE_FACENET512"),
}
SIDE = 160
_ONES = 16  # outputs that are 1 whatever the picture, of a plain state_dict: from them follows what normalising divided by
_MTCNN = ("mtcnn", "fastmtcnn")
_DETECTORS = {
    *_MTCNN, "opencv", "ssd", "dlib", "retinaface", "mediapipe", "yunet", "centerface",
    "yolov8", *(f"yolov{version}{size}" for version in (8, 11, 12) for size in "nsml"),
}  # fmt: skip

_lock = threading.RLock()
_models: dict[str, Model] = {}
_detector: tuple[str, Detector] | None = None
_warned = False


# ---- faces


def detector(backend: str) -> Detector:
    """MTCNN, whatever the backend's name; says so once where it is another's."""
    global _detector, _warned
    if backend not in _DETECTORS:
        raise UnimplementedError(f'detector_backend: "{backend}" is not known; give mtcnn, another of DeepFace\'s names, or skip.')
    if backend not in _MTCNN:
        if sys.modules["facenet.compat.deepface"].strict:
            raise UnimplementedError(f'detector_backend: there is no "{backend}" here; give mtcnn or skip, or leave strict off to have MTCNN in its place.')
        if not _warned:
            _warned = True
            warnings.warn(f'detector_backend="{backend}": MTCNN finds the faces, whatever the backend; give mtcnn to say so.', UserWarning, stacklevel=_outside())
    with _lock:
        path = _files.detector_file(None)
        if _detector is None or _detector[0] != path:
            _detector = path, Detector(path)
        return _detector[1]


def _outside() -> int:
    """How far up the first caller outside of this package is."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("facenet.compat.deepface"):
        level, frame = level + 1, frame.f_back
    return level


# ---- models


class Model:
    """A model as DeepFace's code has it: model_name, input_shape, output_shape, forward()."""

    def __init__(self, name: str, path: str) -> None:
        self.model_name = {"Facenet": "FaceNet-128d", "Facenet512": "FaceNet-512d"}[name]
        self.input_shape = (SIDE, SIDE)
        self.output_shape = MODELS[name][0]
        self.path = path
        found = 0
        with contextlib.suppress(OSError, ValueError):  # the engine says what is wrong with the file
            found = _dim(path, os.stat(path).st_mtime_ns)
        self._check(name, "inception_resnet_v1", found or self.output_shape)
        with _lengths_kept(path) as raw:
            self.model = Embedder(raw)
        self._extra = self.model.dim - self.output_shape
        self._check(name, str(self.model.info["architecture"]), self.model.dim - (self._extra and _ONES))

    def _check(self, name: str, architecture: str, dim: int) -> None:
        if architecture != "inception_resnet_v1" or dim != self.output_shape:
            wanted, variable = f"inception_resnet_v1 with {self.output_shape} numbers", MODELS[name][2]
            raise FacenetValueError(f"{self.path}: {name} is {wanted}, and this is {architecture} with {dim}; set {variable}.", "unsupported")

    def embeddings(self, pictures: Any) -> Any:
        """float32 [n, dim], not normalised, of float32 [n, 160, 160, 3] as they are."""
        out = self.model.embed_nhwc(np.ascontiguousarray(pictures, np.float32))
        return out[:, : self.output_shape] / out[:, self.output_shape :][:, :1] if self._extra else out

    def forward(self, img: Any) -> Any:
        """A list of numbers of one picture [160, 160, 3] or [1, 160, 160, 3]; of [n, 160, 160, 3], a list of lists."""
        img = np.asarray(img)
        if img.ndim == 3:
            img = img[None]
        if img.ndim != 4 or img.shape[1:] != (SIDE, SIDE, 3):
            raise FacenetValueError(f"img is [n, {SIDE}, {SIDE}, 3], not {list(img.shape)}.", "invalid_argument")
        found: list[list[float]] = self.embeddings(img).tolist()
        return found[0] if len(found) == 1 else found

    @property
    def digest(self) -> str:
        return str(self.model.info["digest"])


def model(name: str) -> Model:
    if name not in MODELS:
        raise UnimplementedError(f'model_name: "{name}" is not here, and it is DeepFace\'s default; give Facenet or Facenet512.' if name == "VGG-Face"
                                 else f'model_name: "{name}" is not here; give Facenet or Facenet512.')  # fmt: skip
    with _lock:
        path = _weights(name)
        made = _models.get(name)
        if made is None or made.path != path:
            made = _models[name] = Model(name, path)
        return made


def home() -> str:
    """Where DeepFace keeps its weights."""
    return os.path.join(os.environ.get("DEEPFACE_HOME") or os.path.expanduser("~"), ".deepface", "weights")


def _weights(name: str) -> str:
    """The variable's file, else DeepFace's converted one in its folder or in the package's, else what Embedder() takes where its
    dimension fits."""
    dim, stem, variable = MODELS[name]
    if os.environ.get(variable):
        return os.environ[variable]
    folders = [home(), *_files.folders()]
    for folder in folders:
        path = os.path.join(folder, f"{stem}.safetensors")
        if os.path.exists(path):
            return path
    with contextlib.suppress(OSError, ValueError):
        path = _files.embedder_file(None)
        if _dim(path, os.stat(path).st_mtime_ns) == dim:
            return path
    remedy = f"Set {variable}, or put {stem}.safetensors into one of them."
    if os.path.exists(os.path.join(home(), f"{stem}.h5")):
        remedy = f"Convert DeepFace's own: python -m facenet.convert {os.path.join(home(), stem)}.h5 -o {os.path.join(home(), stem)}.safetensors."
    elif name == "Facenet512":
        remedy += ' facenet.download("vggface2") brings the weights that DeepFace has.'
    raise WeightsNotFound(f"{name}: there are no weights with {dim} numbers in {', '.join(folders)}. {remedy}", "not_found")


def _header(path: str) -> tuple[dict[str, Any], int]:
    """A safetensors file's header, and where its data begins."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > 1 << 20:
            raise FacenetValueError(f"{path}: this is no weight file.", "corrupt")
        return json.loads(file.read(length)), 8 + length


@functools.lru_cache(8)
def _dim(path: str, _changed: int) -> int:
    header, _ = _header(path)
    return int(next((entry["shape"][0] for name, entry in header.items() if name.endswith("last_linear.weight")), 0))


@contextlib.contextmanager
def _lengths_kept(path: str) -> Iterator[str]:
    """The weight file as one whose embeddings keep their lengths. A converted file says what is done to them at its end. A plain
    state_dict does not, and gets outputs that are 1."""
    try:
        header, start = _header(path)
        details = header.get("__metadata__", {})
        converted = details.get("format") in ("1", "2")
        if (not converted and not any(name.endswith("last_bn.bias") for name in header)) or details.get("normalise") == "none":
            yield path  # nothing to change, or the engine says what is wrong with it
            return
    except (OSError, ValueError, AttributeError):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="facenet-") as folder:
        target = os.path.join(folder, "weights.safetensors")
        if converted:
            _without_normalising(path, header, start, target)
        else:
            _with_ones(path, header, start, target)
        yield target


def _without_normalising(path: str, header: dict[str, Any], start: int, target: str) -> None:
    writer = _tools.module("safetensors_writer")
    details = {key: value for key, value in header.pop("__metadata__").items() if not key.startswith("threshold")}
    details |= {"normalise": "none", "header_xxh64": writer.HASH_BLANK}
    text = json.dumps({"__metadata__": details, **header}, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-(8 + len(text)) % 64)
    text = text.replace(f'"header_xxh64":"{writer.HASH_BLANK}"'.encode(), f'"header_xxh64":"{writer.xxh64(text)}"'.encode(), 1)
    with open(path, "rb") as file, open(target, "wb") as out:
        file.seek(start)
        out.write(len(text).to_bytes(8, "little") + text)
        while block := file.read(4 << 20):
            out.write(block)


def _with_ones(path: str, header: dict[str, Any], start: int, target: str) -> None:
    raw = np.memmap(path, np.uint8, "r")
    types = {"F32": np.float32, "F16": np.float16, "U8": np.uint8, "I8": np.int8}
    ones = {"last_linear.weight": 0, "last_bn.weight": 1, "last_bn.bias": 1, "last_bn.running_mean": 0, "last_bn.running_var": 1}
    values: dict[str, Any] = {}
    for name, entry in header.items():
        if name == "__metadata__" or name.startswith(("logits.", "module.logits.")) or entry["dtype"] not in types:
            continue
        begin, end = entry["data_offsets"]
        array = raw[start + begin : start + end].view(types[entry["dtype"]]).reshape(entry["shape"])
        last = name.removeprefix("module.")
        if last in ones:
            array = np.concatenate((array, np.full((_ONES, *array.shape[1:]), ones[last], array.dtype)))
        values[name] = array
    _tools.call(_tools.module("safetensors_writer").write, target, values, {"source": pathlib.Path(path).name, "dataset": "unknown"})
