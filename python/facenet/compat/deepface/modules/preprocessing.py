"""deepface.modules.preprocessing: a face becomes what the network takes."""

from __future__ import annotations

from typing import Any

import numpy as np

from facenet.compat.deepface import _opencv
from facenet.compat.deepface.modules.exceptions import UnimplementedError

# In the order of a picture's channels, BGR, as DeepFace subtracts them.
_MEANS = {"VGGFace": (93.5940, 104.7624, 129.1863), "VGGFace2": (91.4953, 103.8827, 131.0912)}
NORMALIZATIONS = ("base", "raw", "Facenet", "Facenet2018", "VGGFace", "VGGFace2", "ArcFace")


def normalize_input(img: Any, normalization: str = "base") -> Any:
    """Numbers 0…1 as they are (base), or as another network's authors want them."""
    if normalization not in NORMALIZATIONS:
        raise UnimplementedError(f'normalization: "{normalization}" is none of {", ".join(NORMALIZATIONS)}.', "invalid_argument")
    if normalization == "base":
        return img
    img = img * 255
    if normalization == "Facenet":
        return (img - img.mean()) / max(img.std(), 1 / img.size**0.5)
    if normalization == "Facenet2018":
        return img / 127.5 - 1
    if normalization == "ArcFace":
        return (img - 127.5) / 128
    return img - np.array(_MEANS[normalization], img.dtype) if normalization in _MEANS else img


def resize_image(img: Any, target_size: tuple[int, int]) -> Any:
    """float32 [1, h, w, 3], 0…1: the whole picture in the target (height, width), with black beside it."""
    height, width = img.shape[:2]
    factor = min(target_size[0] / height, target_size[1] / width)
    across, down = int(width * factor), int(height * factor)
    if across < 1 or down < 1:
        raise UnimplementedError(f"a picture of {width} × {height} pixels is too narrow to be scaled to {target_size[1]} × {target_size[0]}.", "invalid_argument")
    img = _opencv.resize(img, across, down)
    above, left = (target_size[0] - down) // 2, (target_size[1] - across) // 2
    img = np.pad(img, ((above, target_size[0] - down - above), (left, target_size[1] - across - left), (0, 0)))
    img = img.astype(np.float32)[None]
    return img / np.float32(255) if img.max() > 1 else img
