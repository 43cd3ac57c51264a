"""What DeepFace asks of OpenCV: its bilinear resize, its bicubic rotation and its grey, which this does without OpenCV."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

_STEPS = 32  # a rotation's places are rounded to 1/32 of a pixel
_A = -0.75  # of OpenCV's cubic


def _taps(size: int, new: int) -> tuple[Any, Any, Any]:
    """The two places that each of `new` pixels is between, and how near it is to the second."""
    at = ((np.arange(new) + 0.5) * (size / new) - 0.5).astype(np.float32)
    first = np.floor(at).astype(np.int64)
    share = at - first.astype(np.float32)
    share[(first < 0) | (first >= size - 1)] = 0
    first = np.clip(first, 0, size - 1)
    return first, np.minimum(first + 1, size - 1), share


def resize(image: Any, width: int, height: int) -> Any:
    """Bilinear with half-pixel centres, and no filter where it shrinks. [h, w, c] of uint8 or floats."""
    left, right, x = _taps(image.shape[1], width)
    top, bottom, y = _taps(image.shape[0], height)
    x, y = x[None, :, None], y[:, None, None]
    if image.dtype == np.uint8:  # in OpenCV's fixed point
        across, down = np.rint(x * 2048).astype(np.int32), np.rint(y * 2048).astype(np.int32)
        rows = image[:, left] * (2048 - across) + image[:, right] * across
        return ((((rows[top] >> 4) * (2048 - down) >> 16) + ((rows[bottom] >> 4) * down >> 16) + 2) >> 2).astype(np.uint8)
    rows = image[:, left] * (1 - x) + image[:, right] * x
    return (rows[top] * (1 - y) + rows[bottom] * y).astype(image.dtype)


def _cubic() -> Any:
    """[32, 4]: the weights of four pixels for each place between the middle two."""
    x = np.arange(_STEPS) / _STEPS
    near = [((_A + 2) * t - (_A + 3)) * t * t + 1 for t in (x, 1 - x)]
    first = ((_A * (x + 1) - 5 * _A) * (x + 1) + 8 * _A) * (x + 1) - 4 * _A
    return np.stack([first, *near, 1 - first - near[0] - near[1]], axis=1).astype(np.float32)


_CUBIC = _cubic()


def rotate(image: Any, degrees: float, box: tuple[int, int, int, int]) -> Any:
    """The pixels of box (x1, y1, x2, y2) of the image rotated about its middle, bicubic, black where there is none."""
    height, width = image.shape[:2]
    cx, cy = width // 2, height // 2
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = np.arange(box[0], box[2]), np.arange(box[1], box[3])[:, None]
    # Where a pixel comes from: turned back about the middle. 1024ths, as OpenCV adds them.
    from_x = np.rint(cos * x * 1024).astype(np.int64) + np.rint((-sin * y + (1 - cos) * cx + sin * cy) * 1024).astype(np.int64) + 16 >> 5
    from_y = np.rint(sin * x * 1024).astype(np.int64) + np.rint((cos * y - sin * cx + (1 - cos) * cy) * 1024).astype(np.int64) + 16 >> 5
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
    across = [np.clip((from_x >> 5) + i + 1, 0, width + 3) for i in range(4)]
    floats = np.float64 if image.dtype == np.float64 else np.float32
    weights = _CUBIC[from_x & 31].astype(floats)
    out: Any = np.zeros((*from_x.shape, image.shape[2]), floats)
    for j in range(4):
        row = np.clip((from_y >> 5) + j + 1, 0, height + 3)
        line: Any = sum(padded[row, across[i]] * weights[..., i, None] for i in range(4))
        out = out + line * _CUBIC[from_y & 31, j].astype(floats)[..., None]
    return np.clip(np.rint(out), 0, 255).astype(np.uint8) if image.dtype == np.uint8 else out.astype(image.dtype)


def grey(image: Any) -> Any:
    """[h, w] of BGR."""
    if image.dtype == np.uint8:
        b, g, r = (image[..., i].astype(np.int32) for i in range(3))
        return ((b * 3735 + g * 19235 + r * 9798 + (1 << 14)) >> 15).astype(np.uint8)
    return (image @ np.array([0.114, 0.587, 0.299])).astype(image.dtype)
