"""FaceNet on a CPU: find faces, embed them, compare them. docs/python.md of the sources has the guide."""

from __future__ import annotations

import atexit

from facenet import _engine
from facenet._downloads import download
from facenet._errors import (
    FacenetError,
    FacenetGalleryError,
    FacenetMemoryError,
    FacenetNotFoundError,
    FacenetOSError,
    FacenetValueError,
)
from facenet._objects import Detector, Embedder, Face, align, distance, similarity
from facenet._pictures import read_image
from facenet._recognition import (
    Added,
    Calibration,
    Gallery,
    Match,
    Person,
    Template,
    calibrate,
    cluster,
    evaluate,
)

__all__ = [
    "Added",
    "Calibration",
    "Detector",
    "Embedder",
    "Face",
    "FacenetError",
    "FacenetGalleryError",
    "FacenetMemoryError",
    "FacenetNotFoundError",
    "FacenetOSError",
    "FacenetValueError",
    "Gallery",
    "Match",
    "Person",
    "Template",
    "__version__",
    "align",
    "calibrate",
    "cluster",
    "distance",
    "download",
    "evaluate",
    "isa",
    "read_image",
    "similarity",
]

__version__: str = _engine.version


def isa() -> str:
    """The instruction set that was chosen for this CPU, such as "avx2"; $FACENET_FORCE_ISA overrules it."""
    return _engine.isa()


atexit.register(_engine.keep_threads_away)
