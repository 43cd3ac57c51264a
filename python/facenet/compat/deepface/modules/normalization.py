"""deepface.modules.normalization: embeddings scaled."""

from __future__ import annotations

from typing import Any

import numpy as np

from facenet.compat.deepface.config.minmax import get_minmax_values


def normalize_embedding_minmax(model_name: str, embeddings: Any) -> Any:
    """Numbers 0…1, of a list of numbers or a list of such lists: what lies outside the model's range is cut to it."""
    least, largest = get_minmax_values(model_name)
    if largest == least:
        return embeddings
    return ((np.clip(np.asarray(embeddings, np.float64), least, largest) - least) / (largest - least)).tolist()


def normalize_embedding_l2(embeddings: Any) -> Any:
    """Unit vectors, of a list of numbers or a list of such lists."""
    array = np.asarray(embeddings, np.float64)
    length = np.linalg.norm(array, axis=-1, keepdims=True)
    return np.divide(array, length, out=array.copy(), where=length > 0).tolist()
