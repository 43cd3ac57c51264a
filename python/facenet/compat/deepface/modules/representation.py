"""deepface.modules.representation: embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np

from facenet._errors import FacenetValueError
from facenet.compat.deepface import _backend
from facenet.compat.deepface.commons import image_utils
from facenet.compat.deepface.modules import preprocessing
from facenet.compat.deepface.modules.detection import extract_faces, refuse_anti_spoofing
from facenet.compat.deepface.modules.normalization import normalize_embedding_l2, normalize_embedding_minmax


def represent(
    img_path: Any,
    model_name: str = "VGG-Face",
    enforce_detection: bool = True,
    detector_backend: str = "opencv",
    align: bool = True,
    expand_percentage: int = 0,
    normalization: str = "base",
    anti_spoofing: bool = False,
    max_faces: int | None = None,
    l2_normalize: bool = False,
    minmax_normalize: bool = False,
    return_face: bool = False,
) -> Any:
    """Of a picture, a list of {"embedding", "facial_area", "face_confidence"}, one for each face; of more pictures, a list of these."""
    model = _backend.model(model_name)
    refuse_anti_spoofing(anti_spoofing)
    pictures = list(img_path) if isinstance(img_path, list) or (isinstance(img_path, np.ndarray) and img_path.ndim == 4) else [img_path]
    inputs: list[Any] = []
    owners: list[int] = []
    described: list[dict[str, Any]] = []
    for number, picture in enumerate(pictures):
        if detector_backend == "skip":
            faces = [_whole(picture)]
        else:
            faces = extract_faces(picture, detector_backend, enforce_detection, align, expand_percentage, max_faces=max_faces, color_face="bgr")
        if max_faces is not None and max_faces < len(faces):
            faces = sorted(faces, key=lambda face: face["facial_area"]["w"] * face["facial_area"]["h"], reverse=True)[:max_faces]
        for face in faces:
            resized = preprocessing.resize_image(face["face"], model.input_shape)
            inputs.append(preprocessing.normalize_input(resized, normalization))
            owners.append(number)
            described.append({"facial_area": face["facial_area"], "face_confidence": face["confidence"]})
    if not inputs:
        raise FacenetValueError("there is no face to represent in what was given.", "invalid_argument")
    batch = np.concatenate(inputs)
    embeddings: Any = model.embeddings(batch).tolist()
    if minmax_normalize:
        embeddings = normalize_embedding_minmax(model_name, embeddings)
    if l2_normalize:
        embeddings = normalize_embedding_l2(embeddings)
    out: list[list[dict[str, Any]]] = [[] for _ in pictures]
    for number, embedding, details, pixels in zip(owners, embeddings, described, batch):
        out[number].append({"embedding": embedding, **details, **({"face": pixels} if return_face else {})})
    return out[0] if len(pictures) == 1 else out


def _whole(picture: Any) -> dict[str, Any]:
    """A picture that is a face already, in BGR."""
    img, name = image_utils.load_image(picture)
    if img.ndim != 3 or img.shape[2] != 3 or not img.size:
        raise FacenetValueError(f"{name}: an array is a picture [height, width, 3] in BGR, not {list(img.shape)}.", "invalid_argument")
    return {"face": img, "facial_area": {"x": 0, "y": 0, "w": img.shape[1], "h": img.shape[0]}, "confidence": 0}
