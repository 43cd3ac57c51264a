"""deepface.config.threshold: the distance up to which two faces count as one person's."""

from __future__ import annotations

thresholds: dict[str, dict[str, float]] = {
    "Facenet": {"cosine": 0.40, "euclidean": 10, "euclidean_l2": 0.80, "angular": 0.33},
    "Facenet512": {"cosine": 0.30, "euclidean": 23.56, "euclidean_l2": 1.04, "angular": 0.35},
}
