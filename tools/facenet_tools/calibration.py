"""Faces to calibrate integers on: found in photographs by facenet-pytorch's MTCNN, cut out as the model wants them. A picture of
exactly the model's size is a crop already.

Who is on them: in a folder of folders each folder is a person, as with LFW; else each face is another person.
"""

from __future__ import annotations

import contextlib
import hashlib
import pathlib

import numpy as np
from facenet_pytorch import MTCNN
from PIL import Image

from facenet_tools import pictures
from facenet_tools.cli import ToolError, listed, shown
from facenet_tools.quantisation import FEWEST, Faces

DEFAULT = "default"
CERTAIN = 0.95  # MTCNN's score from which a box is a face; a handbag of the samples has 0.91
# dlib's mean face, as dlib_points() of include/facenet/align.hpp.
DLIB_POINTS = ((0.225492, 0.215990), (0.754762, 0.215990), (0.490127, 0.515625), (0.254149, 0.780233), (0.726104, 0.780233))


def paths(folder: str) -> list[pathlib.Path]:
    """The pictures of a folder and of its folders, in the order of their names."""
    if folder == DEFAULT:
        found = [pathlib.Path(path) for path in pictures.sample_paths()]
        if not found:
            raise ToolError("--calibrate default: the sample pictures are not there; run tools/bootstrap.sh, or give a folder of faces.")
        return found
    where = pathlib.Path(folder)
    if not where.is_dir():
        raise ToolError(f"{folder}: {'is not a folder' if where.exists() else 'does not exist'}; give --calibrate a folder of photographs of faces.")
    found = sorted(path for path in where.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg") and path.is_file())
    if not found:
        raise ToolError(f"{folder}: holds no .jpg or .png; give --calibrate a folder of photographs of faces.")
    return found


def digest(found: list[pathlib.Path]) -> str:
    """calibration_sha256: over the sorted SHA-256 digests of the pictures' bytes, so that names and order do not matter."""
    return hashlib.sha256(b"".join(sorted(hashlib.sha256(path.read_bytes()).digest() for path in found))).hexdigest()


def faces(folder: str, metadata: dict[str, str]) -> tuple[Faces, str]:
    """The faces as the model wants them, and the pictures' digest."""
    found = paths(folder)
    size = int(metadata["image_size"])
    crops, people = [], []
    owners = {name: number for number, name in enumerate(sorted({path.parent for path in found}))}
    labelled = len(owners) > 1
    detector = MTCNN(keep_all=True, device="cpu")
    for path in found:
        picture = pictures.open_rgb(str(path))
        aligned = picture.size == (size, size)
        made = [np.asarray(picture)] if aligned else cut(picture, detector, size, metadata["crop"], float(metadata["margin"]))
        if labelled:
            made = made[:1]  # the largest: the person that the folder is named after
        people += [owners[path.parent]] * len(made) if labelled else range(len(people), len(people) + len(made))
        crops += made
    if len(crops) < FEWEST:
        count = "1 face has" if len(crops) == 1 else f"{len(crops)} faces have"
        raise ToolError(f"{folder}: {count} been found in {listed([shown(path.name) for path in found])}, at least {FEWEST} are needed.")
    return Faces(np.stack(crops), np.array(people)), digest(found)


def cut(picture: Image.Image, detector: MTCNN, size: int, crop: str, margin: float) -> list[np.ndarray]:
    """The faces of a picture, the largest first."""
    found: tuple = (None, None, None)
    with contextlib.suppress(ValueError, RuntimeError):  # a strip that is narrower than the smallest face
        found = detector.detect(picture, landmarks=True)
    boxes, scores, landmarks = found
    if boxes is None:
        return []
    kept = [i for i in np.argsort(-np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), kind="stable") if scores[i] >= CERTAIN]
    return [chip(picture, landmarks[i], size, margin) if crop == "five_point" else box(picture, boxes[i], size, margin) for i in kept]


def box(picture: Image.Image, corners: np.ndarray, size: int, margin: float) -> np.ndarray:
    """facenet-pytorch's extract_face: `margin` output pixels around the box."""
    x1, y1, x2, y2 = corners
    wide, high = margin * (x2 - x1) / (size - margin), margin * (y2 - y1) / (size - margin)
    inside = (
        int(max(x1 - wide / 2, 0)), int(max(y1 - high / 2, 0)),
        int(min(x2 + wide / 2, picture.width)), int(min(y2 + high / 2, picture.height)),
    )  # fmt: skip
    return _resized(picture.crop(inside), size)


def chip(picture: Image.Image, landmarks: np.ndarray, size: int, padding: float) -> np.ndarray:
    """dlib's chip: the similarity that brings five landmarks nearest to its mean face with `padding` faces around it."""
    to = (np.array(DLIB_POINTS) @ (1, 1j) + padding * (1 + 1j)) * size / (2 * padding + 1)
    source = landmarks.astype(np.float64) @ (1, 1j)
    spread = source - source.mean()
    back = 1 / (np.sum(spread.conj() * (to - to.mean())) / np.sum(np.abs(spread) ** 2))  # picture pixels for one of the chip
    shrink = max(1, int(abs(back)))  # whole blocks of pixels first: four of many would be noise
    half, turn = 0.5 + 0.5j, back / shrink  # Pillow counts from pixels' corners
    shift = (source.mean() - back * to.mean() + half) / shrink - turn * half
    turned = picture.reduce(shrink).transform(
        (size, size), Image.Transform.AFFINE, (turn.real, -turn.imag, shift.real, turn.imag, turn.real, shift.imag), Image.Resampling.BILINEAR
    )
    return np.asarray(turned)


def _resized(picture: Image.Image, size: int) -> np.ndarray:
    return np.asarray(picture if picture.size == (size, size) else picture.resize((size, size), Image.Resampling.BILINEAR))
