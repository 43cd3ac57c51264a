"""deepface.DeepFace: what people call."""

from __future__ import annotations

from typing import Any

from facenet.compat.deepface.modules import modeling
from facenet.compat.deepface.modules.detection import extract_faces as _extract_faces
from facenet.compat.deepface.modules.recognition import find
from facenet.compat.deepface.modules.representation import represent
from facenet.compat.deepface.modules.verification import verify

__all__ = ["build_model", "extract_faces", "find", "represent", "verify"]


def extract_faces(
    img_path: Any,
    detector_backend: str = "opencv",
    enforce_detection: bool = True,
    align: bool = True,
    expand_percentage: int = 0,
    grayscale: bool = False,
    color_face: str = "rgb",
    normalize_face: bool = True,
    anti_spoofing: bool = False,
) -> Any:
    """The faces of a picture: a list of {"face", "facial_area", "confidence"}; of a list of pictures, a list of such lists."""
    return _extract_faces(
        img_path, detector_backend, enforce_detection, align, expand_percentage, grayscale, color_face, normalize_face, anti_spoofing
    )


def build_model(model_name: str, task: str = "facial_recognition") -> Any:
    """The model, loaded once for the process."""
    return modeling.build_model(task, model_name)


_ABSENT = ("analyze", "stream", "detectFace", "register", "search", "identify", "build_index", "cli")


def __getattr__(name: str) -> Any:
    if name in _ABSENT:
        raise AttributeError(f"DeepFace.{name} is not in facenet.compat.deepface, which has {', '.join(__all__)}; use DeepFace itself for it.")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
