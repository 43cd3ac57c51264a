"""Embedder and Detector, and what goes in and comes out."""

from __future__ import annotations

import dataclasses
import os
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Callable, Mapping, Sequence, TypeVar, cast

from facenet import _engine, _files, _pictures
from facenet._errors import error

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Pixels = NDArray[np.uint8]

Progress = Callable[[int, int], object]
_T = TypeVar("_T", bound="_Closable")


@dataclasses.dataclass(frozen=True, eq=False)
class Face:
    """A face in a picture, in its pixels. The box is not cut to the picture."""

    box: tuple[float, float, float, float]  # x1, y1, x2, y2
    score: float  # 0 … 1
    landmarks: Floats  # float32 [5, 2]: left eye, right eye, nose, left and right corner of the mouth, as seen


class _Closable:
    """What Embedder and Detector share: `with`, close(), pickling by path."""

    _cpp: Any
    _made: tuple[str, dict[str, Any]]

    def close(self) -> None:
        """Frees the memory. Every later call raises FacenetError; a call that another thread is in ends first."""
        self._cpp.close()

    @property
    def closed(self) -> bool:
        return bool(self._cpp.closed)

    @property
    def path(self) -> str:
        """The weight file; absolute."""
        return self._made[0]

    @property
    def threads(self) -> int:
        """Threads of one call."""
        return int(self._cpp.threads)

    def __enter__(self: _T) -> _T:
        if self.closed:
            raise error("invalid_argument", "this object is closed: make another.")
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """By the file's path: the weights are read again where it is unpickled."""
        if self.closed:
            raise error("invalid_argument", "this object is closed: make another.")
        path, options = self._made
        return _made_again, (type(self), path, options)


def _numbers(values: Sequence[float], count: int, remedy: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(v) for v in values)
    except ValueError as e:
        raise error("invalid_argument", remedy) from e
    if len(numbers) != count:
        raise error("invalid_argument", remedy)
    return numbers


def _made_again(kind: type, path: str, options: dict[str, Any]) -> Any:
    return kind(path, **options)


class Embedder(_Closable):
    """Turns face crops into embeddings. Any number of threads may call one object: each call has its own workspace.

    path: a weight file; None: $FACENET_WEIGHTS, ./weights, the user's data folder, /usr/share/facenet.
    arithmetic: "float", or "int8" for files that were calibrated for it.
    threads: of one call; None: all CPUs that this process may use.
    batch: pictures that are computed together; memory grows with it.
    """

    _cpp: _engine.Embedder

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        arithmetic: str = "float",
        threads: int | None = None,
        batch: int = 4,
    ) -> None:
        file = _files.embedder_file(path)
        self._cpp = _engine.Embedder(os.fsencode(file), arithmetic, threads, batch)
        self._made = file, {"arithmetic": arithmetic, "threads": threads, "batch": batch}
        self._info = MappingProxyType(self._cpp.info)

    def embed(self, images: Any, *, channels: str = "rgb", progress: Progress | None = None) -> Floats:
        """The embedding of a face crop, float32 [dim]; of a list or of [n, height, width, 3], float32 [n, dim].

        A crop is an array uint8 [height, width, 3], a path, the bytes of a file or a PIL image. One of another size than
        input_size is resized whole. channels: "bgr" for OpenCV's arrays. progress: called with (done, all).
        """
        _engine.check_channels(channels)  # an empty list too
        if isinstance(images, (list, tuple)):
            return self._embed_list(cast("Sequence[Any]", images), channels, progress)
        array, order = _pictures.pixels(images, channels)
        if progress is not None and getattr(array, "ndim", 3) == 4:
            return self._embed_list(array, order, progress)
        return self._cpp.embed(array, order)

    def _embed_list(self, images: Sequence[Any], channels: str, progress: Progress | None) -> Floats:
        import numpy as np

        out = np.empty((len(images), self.dim), np.float32)
        step = max(self._cpp.batch * 4, 32)
        for first in range(0, len(images), step):
            part = images[first : first + step]
            arrays: list[Any] = []
            orders: list[str] = []
            for place, image in enumerate(part, first):
                array, order = _pictures.pixels(image, channels)
                if getattr(array, "ndim", 3) != 3:
                    raise error("invalid_argument", f"picture {place} of the list is not one picture, uint8 [height, width, 3].")
                arrays.append(array)
                orders.append(order)
            if len(set(orders)) > 1:  # arrays in BGR among files in RGB
                arrays = [array if order == "rgb" else array[..., ::-1] for array, order in zip(arrays, orders)]
                orders = ["rgb"]
            out[first : first + len(arrays)] = self._cpp.embed(arrays, orders[0])
            if progress is not None:
                progress(first + len(arrays), len(images))
        return out

    def embed_nhwc(self, pixels: Floats) -> Floats:
        """Embeds float32 [n, input_size, input_size, 3], standardised as the model wants it; float32 [n, dim]."""
        return self._cpp.embed_nhwc(pixels)

    @property
    def info(self) -> Mapping[str, Any]:
        """What the weight file says: architecture, embedding_dim, input_size, trained, threshold, digest and others."""
        return self._info

    @property
    def dim(self) -> int:
        """Numbers of an embedding."""
        return int(self._cpp.dim)

    @property
    def input_size(self) -> int:
        """Pixels of a side of the model's input."""
        return int(self._info["input_size"])

    @property
    def batch(self) -> int:
        return int(self._cpp.batch)

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{self._info['architecture']}, {self.dim} numbers"
        return f"<facenet.Embedder {self.path!r}: {state}>"


class Detector(_Closable):
    """Finds faces: MTCNN, the boxes of facenet-pytorch. Any number of threads may call one object.

    path: a weight file; None: $FACENET_DETECTOR, what is beside the embedder's file, else as for an Embedder.
    min_face: the smallest face, in pixels. thresholds: scores that candidates of the three networks must reach.
    factor: from a level of the pyramid to the next. max_faces: of those found, 0 for all, in the order of `selection`:
    "largest", "probability", "largest_over_threshold" or "centre_weighted".
    """

    _cpp: _engine.Detector

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        min_face: int = 20,
        thresholds: Sequence[float] = (0.6, 0.7, 0.7),
        factor: float = 0.709,
        threads: int | None = None,
        max_faces: int = 0,
        selection: str = "largest",
    ) -> None:
        file = _files.detector_file(path)
        scores = cast("tuple[float, float, float]", _numbers(thresholds, 3, "thresholds: give three, of P-Net, R-Net and O-Net."))
        self._cpp = _engine.Detector(os.fsencode(file), min_face, scores, factor, threads, max_faces, selection)
        self._made = (
            file,
            {
                "min_face": min_face,
                "thresholds": scores,
                "factor": factor,
                "threads": threads,
                "max_faces": max_faces,
                "selection": selection,
            },
        )

    def detect(self, image: Any, *, channels: str = "rgb") -> list[Face]:
        """The faces of a picture: an array uint8 [height, width, 3], a path, the bytes of a file or a PIL image."""
        array, order = _pictures.pixels(image, channels)
        return [Face(*found) for found in self._cpp.detect(array, order)]

    @property
    def digest(self) -> str:
        """Of the weights."""
        return str(self._cpp.digest)

    def __repr__(self) -> str:
        return f"<facenet.Detector {self.path!r}{': closed' if self.closed else ''}>"


def align(
    image: Any,
    face: Face | Sequence[float],
    size: int | None = None,
    margin: float | None = None,
    embedder: Embedder | None = None,
    *,
    channels: str = "rgb",
) -> Pixels:
    """The face cut out and resized for an embedder: uint8 [size, size, 3], RGB.

    face: of Detector.detect(), or its box alone. embedder: its weights say size, margin and kind of crop, unless they are
    given; without one the box is cut out with no margin, to 160 pixels, as facenet-pytorch does it.
    """
    array, order = _pictures.pixels(image, channels)
    landmarks = None
    if isinstance(face, Face):
        box = face.box
        landmarks = [float(v) for v in face.landmarks.ravel()]
    else:
        sides = _numbers(face, 4, "face: give a Face, or a box of four numbers x1, y1, x2, y2.")
        box = cast("tuple[float, float, float, float]", sides)
    if embedder is None:
        return _engine.crop(array, box, size, margin, order)
    return embedder._cpp.crop(array, box, landmarks, size, margin, order)  # pyright: ignore[reportPrivateUsage]


def distance(a: Floats, b: Floats) -> float:
    """The Euclidean distance of two embeddings, float32 [dim]; 0 for equal ones."""
    return _engine.distance(a, b)


def similarity(a: Floats, b: Floats) -> float:
    """The cosine of two embeddings, float32 [dim]: -1 … 1."""
    return _engine.similarity(a, b)
