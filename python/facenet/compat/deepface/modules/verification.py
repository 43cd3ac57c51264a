"""deepface.modules.verification: distances, thresholds, confidences."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np

from facenet._errors import FacenetValueError
from facenet.compat.deepface import _backend
from facenet.compat.deepface.config.confidence import confidences
from facenet.compat.deepface.config.threshold import thresholds
from facenet.compat.deepface.modules.detection import extract_faces, refuse_anti_spoofing
from facenet.compat.deepface.modules.exceptions import DataTypeError, DimensionMismatchError, InvalidEmbeddingsShapeError
from facenet.compat.deepface.modules.representation import represent

METRICS = ("cosine", "euclidean", "euclidean_l2", "angular")


def check_metric(distance_metric: Any, threshold: Any) -> None:
    if not isinstance(distance_metric, str):
        if threshold is None:
            raise FacenetValueError("distance_metric is a function of yours: give its threshold too.", "invalid_argument")
    elif distance_metric not in METRICS:
        raise FacenetValueError(f'distance_metric: "{distance_metric}" is none of {", ".join(METRICS)}.', "invalid_argument")


def verify(
    img1_path: Any,
    img2_path: Any,
    model_name: str = "VGG-Face",
    detector_backend: str = "opencv",
    distance_metric: Any = "cosine",
    enforce_detection: bool = True,
    align: bool = True,
    expand_percentage: int = 0,
    normalization: str = "base",
    silent: bool = False,
    threshold: float | None = None,
    anti_spoofing: bool = False,
) -> dict[str, Any]:
    """Whether two pictures show one person: of all pairs of their faces, the nearest. A list of numbers is an embedding."""
    check_metric(distance_metric, threshold)
    began = time.time()
    model = _backend.model(model_name)
    refuse_anti_spoofing(anti_spoofing)

    def faces_of(picture: Any, number: int) -> list[tuple[Any, dict[str, Any]]]:
        if isinstance(picture, list):
            nowhere = dict.fromkeys(("x", "y", "w", "h", "left_eye", "right_eye"))
            return [(_given(picture, number, model_name, model.output_shape), nowhere)]
        try:
            faces = extract_faces(picture, detector_backend, enforce_detection, align, expand_percentage, color_face="bgr")
            if not faces:
                return []
            found = [represent(face["face"], model_name, detector_backend="skip", normalization=normalization)[0]["embedding"] for face in faces]
        except ValueError as e:
            raise FacenetValueError(f"Exception while processing img{number}_path: {e}", getattr(e, "code", "invalid_argument")) from e
        return [(embedding, face["facial_area"]) for embedding, face in zip(found, faces)]

    first, second = faces_of(img1_path, 1), faces_of(img2_path, 2)
    nearest = math.inf
    areas: tuple[Any, Any] = (dict.fromkeys(("x", "y", "w", "h", "left_eye", "right_eye")),) * 2
    for one, area in first:
        for other, other_area in second:
            distance = float(find_distance(one, other, distance_metric))
            if distance < nearest:
                nearest, areas = distance, (area, other_area)
    limit = find_threshold(model_name, distance_metric) if threshold is None else threshold
    verified = nearest <= limit
    return {
        "verified": verified,
        "distance": nearest,
        "threshold": limit,
        "confidence": find_confidence(nearest, model_name, verified, distance_metric),
        "model": model_name,
        "detector_backend": detector_backend,
        "similarity_metric": distance_metric,
        "facial_areas": {"img1": areas[0], "img2": areas[1]},
        "time": round(time.time() - began, 2),
    }


def _given(embedding: list[Any], number: int, model_name: str, dim: int) -> list[Any]:
    if not all(isinstance(value, (float, int)) for value in embedding):
        raise DataTypeError(f"img{number}_path is a list, and so an embedding, but not all of it are numbers.", "invalid_argument")
    if len(embedding) != dim:
        raise DimensionMismatchError(f"img{number}_path is an embedding of {len(embedding)} numbers, and {model_name} has {dim}.", "invalid_argument")
    return embedding


# ---- distances: of two vectors [d], a number; of [n, d] and [m, d], [m, n]


def l2_normalize(x: Any, axis: int | None = None, epsilon: float = 1e-10) -> Any:
    x = np.asarray(x)
    return x / (np.linalg.norm(x, axis=axis, keepdims=True) + epsilon)


def _pair(a: Any, b: Any, kind: type[FacenetValueError] = FacenetValueError) -> tuple[Any, Any]:
    a, b = np.asarray(a), np.asarray(b)
    if a.ndim != b.ndim or a.ndim not in (1, 2):
        raise kind(f"embeddings are both [dim] or both [n, dim], not {list(a.shape)} and {list(b.shape)}.", "invalid_argument")
    return a, b


def _cosine(a: Any, b: Any) -> Any:
    if a.ndim == 1:
        return np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b))
    return l2_normalize(b, axis=1) @ l2_normalize(a, axis=1).T


def find_cosine_distance(source_representation: Any, test_representation: Any) -> Any:
    """1 - cosine"""
    return 1 - _cosine(*_pair(source_representation, test_representation, InvalidEmbeddingsShapeError))


def find_angular_distance(source_representation: Any, test_representation: Any) -> Any:
    """The angle, as a share of half a turn."""
    return np.arccos(np.clip(_cosine(*_pair(source_representation, test_representation)), -1.0, 1.0)) / np.pi


def find_euclidean_distance(source_representation: Any, test_representation: Any) -> Any:
    a, b = _pair(source_representation, test_representation)
    return np.linalg.norm(a - b) if a.ndim == 1 else np.linalg.norm(a[None] - b[:, None], axis=2)


def find_distance(alpha_embedding: Any, beta_embedding: Any, distance_metric: Any = "cosine") -> Any:
    """By a metric's name, rounded to six decimals; or what a function of the caller's says."""
    a, b = np.asarray(alpha_embedding), np.asarray(beta_embedding)
    if not isinstance(distance_metric, str):
        return distance_metric(a, b)
    a, b = _pair(a, b)
    check_metric(distance_metric, None)
    if distance_metric == "euclidean_l2":
        axis = None if a.ndim == 1 else 1
        a, b = l2_normalize(a, axis), l2_normalize(b, axis)
    distance = {"cosine": find_cosine_distance, "angular": find_angular_distance}.get(distance_metric, find_euclidean_distance)
    return np.round(distance(a, b), 6)


def find_threshold(model_name: str, distance_metric: Any = "cosine") -> float:
    """The largest distance that DeepFace takes for one person's; 0 for a function of the caller's."""
    if not isinstance(distance_metric, str):
        return 0.0
    if model_name not in thresholds:
        raise FacenetValueError(f'model_name: "{model_name}" is not here; give Facenet or Facenet512.', "unsupported")
    check_metric(distance_metric, None)
    return thresholds[model_name][distance_metric]


def find_confidence(distance: float, model_name: str, verified: bool, distance_metric: Any = "cosine") -> float:
    """51…100 for one person's faces, 0…49 for two persons', the nearer to 100 and 0 the surer."""
    if distance <= 0:
        return 100.0 if verified else 0.0
    numbers = confidences.get(model_name, {}).get(distance_metric) if isinstance(distance_metric, str) else None
    if numbers is None:
        return 51 if verified else 49
    if numbers["normalizer"] > 1:
        distance /= numbers["normalizer"]
    z = numbers["w"] * distance + numbers["b"]
    likely = 100 / (1 + math.exp(-z)) if z > -700 else 0.0
    if verified:
        least, most = numbers["denorm_min_true"], numbers["denorm_max_true"]
        low, high, bounds = max(51.0, least), 100.0, (51, 100)
    else:
        least, most = numbers["denorm_min_false"], numbers["denorm_max_false"]
        low, high, bounds = 0.0, float(min(49, int(most))), (0, 49)
    spread = (likely - least) / (most - least) * (high - low) + low
    return round(min(max(spread, bounds[0]), bounds[1]), 2)
