"""deepface.modules.modeling: models, each loaded once."""

from __future__ import annotations

from typing import Any

from facenet.compat.deepface import _backend
from facenet.compat.deepface.modules.exceptions import UnimplementedError


def build_model(task: str, model_name: str) -> Any:
    if task == "facial_recognition":
        return _backend.model(model_name)
    if task == "face_detector":
        return _backend.detector(model_name)
    raise UnimplementedError(f'task: "{task}" is not here; give facial_recognition or face_detector.')
