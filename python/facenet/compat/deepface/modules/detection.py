"""deepface.modules.detection: faces found, turned upright and cut out."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from facenet._errors import FacenetValueError
from facenet.compat.deepface import _backend, _opencv
from facenet.compat.deepface.commons import image_utils
from facenet.compat.deepface.modules.exceptions import FaceNotDetected, ImgNotFound, UnimplementedError


class _Region(NamedTuple):
    """In a picture's pixels. The left eye is the person's own."""

    x: int
    y: int
    w: int
    h: int
    left_eye: tuple[int, int] | None = None
    right_eye: tuple[int, int] | None = None
    confidence: float = 0.0


def refuse_anti_spoofing(anti_spoofing: Any) -> None:
    if anti_spoofing:
        raise UnimplementedError("anti_spoofing: no model that tells a face from a picture of one is here; leave it out, or use DeepFace itself.")


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
    max_faces: int | None = None,
) -> Any:
    """The faces of a picture: a list of {"face", "facial_area", "confidence"}; of a list of pictures, a list of such lists."""
    refuse_anti_spoofing(anti_spoofing)
    if isinstance(img_path, list) or (isinstance(img_path, np.ndarray) and img_path.ndim == 4):
        options = (detector_backend, enforce_detection, align, expand_percentage, grayscale, color_face, normalize_face, False, max_faces)
        return [extract_faces(one, *options) for one in img_path]
    img, name = image_utils.load_image(img_path)
    if img.ndim != 3 or img.shape[2] != 3 or not img.size:
        raise FacenetValueError(f"{name}: an array is a picture [height, width, 3] in BGR, not {list(img.shape)}.", "invalid_argument")
    height, width = img.shape[:2]
    whole = [(img, _Region(0, 0, width, height))]
    faces = whole if detector_backend == "skip" else _found(img, detector_backend, align, expand_percentage, max_faces)
    if not faces and enforce_detection:
        raise FaceNotDetected(f"Face could not be detected in {name}; give a picture of a face, or enforce_detection=False for the whole of it.", "not_found")
    out = [_described(face, region, width, height, grayscale, color_face, normalize_face) for face, region in faces or whole if face.size]
    if not out and enforce_detection:
        raise ImgNotFound(f"{name}: what was found has no pixels; give enforce_detection=False to go on without.", "not_found")
    return out


def _described(face: Any, region: _Region, width: int, height: int, grayscale: bool, color_face: str, normalize_face: bool) -> dict[str, Any]:
    if grayscale or color_face == "gray":
        face = _opencv.grey(face)
    elif color_face == "rgb":
        face = face[:, :, ::-1]
    elif color_face != "bgr":
        raise UnimplementedError(f'color_face: "{color_face}" is none of rgb, bgr and gray.', "invalid_argument")
    if normalize_face and face.max() > 1:
        face = face / 255

    def inside(eye: tuple[int, int] | None) -> tuple[int, int] | None:
        return eye if eye is not None and 0 <= eye[0] < width and 0 <= eye[1] < height else None

    x, y = max(0, region.x), max(0, region.y)
    area = {"x": x, "y": y, "w": min(width - x - 1, region.w), "h": min(height - y - 1, region.h)}
    eyes = {"left_eye": inside(region.left_eye), "right_eye": inside(region.right_eye)}
    return {"face": face, "facial_area": {**area, **eyes}, "confidence": round(float(region.confidence), 2)}


def _found(img: Any, backend: str, align: bool, expand_percentage: int, max_faces: int | None) -> list[tuple[Any, _Region]]:
    """The faces that MTCNN finds, the largest first, as DeepFace cuts them out."""
    detector = _backend.detector(backend)
    pixels = img
    if img.dtype != np.uint8:
        scale = 255 if img.max(initial=0) <= 1 else 1
        pixels = np.clip(np.rint(img * np.float64(scale)), 0, 255).astype(np.uint8)
    faces = detector.detect(pixels, channels="bgr")
    if max_faces is not None:
        faces = faces[:max_faces]
    height, width = img.shape[:2]
    # DeepFace lays half a picture of black around it where it aligns, so that a face may be cut out beyond its edge.
    above, left = (int(0.5 * height), int(0.5 * width)) if align else (0, 0)
    room = (width + 2 * left, height + 2 * above)
    out: list[tuple[Any, _Region]] = []
    for face in faces:
        x1, y1, x2, y2 = face.box
        box = (int(x1 + left), int(y1 + above), int(x2 - x1), int(y2 - y1))
        eyes = [(int(px + left), int(py + above)) for px, py in face.landmarks[:2].tolist()]
        x, y, w, h = _expanded(box, expand_percentage, room)
        cut = _upright(img, (x - left, y - above, w, h), eyes) if align else img[y : y + h, x : x + w]
        right_eye, left_eye = ((px - left, py - above) for px, py in eyes)
        out.append((cut, _Region(x - left, y - above, w, h, left_eye, right_eye, face.score)))
    return out


def _expanded(box: tuple[int, int, int, int], percentage: int, room: tuple[int, int]) -> tuple[int, int, int, int]:
    """x, y, w, h, grown about its middle, and cut to the room."""
    x, y, w, h = box
    if percentage > 0:
        wide, high = w + int(w * percentage / 100), h + int(h * percentage / 100)
        x, y = max(0, x - int((wide - w) / 2)), max(0, y - int((high - h) / 2))
        w, h = min(room[0] - x, wide), min(room[1] - y, high)
    right, bottom = min(room[0], x + w), min(room[1], y + h)
    x, y = max(0, x), max(0, y)
    return x, y, max(0, right - x), max(0, bottom - y)


def _upright(img: Any, box: tuple[int, int, int, int], eyes: list[tuple[int, int]]) -> Any:
    """The box cut out of what is around it, turned so that the eyes lie level."""
    x, y, w, h = box
    beside, over = int(0.5 * w), int(0.5 * h)
    around = np.zeros((h + 2 * over, w + 2 * beside, 3), img.dtype)
    top, left = y - over, x - beside
    rows = slice(max(0, top), max(0, min(img.shape[0], top + around.shape[0])))
    columns = slice(max(0, left), max(0, min(img.shape[1], left + around.shape[1])))
    part = img[rows, columns]
    at = rows.start - top, columns.start - left
    around[at[0] : at[0] + part.shape[0], at[1] : at[1] + part.shape[1]] = part
    right_eye, left_eye = eyes
    degrees = math.degrees(math.atan2(left_eye[1] - right_eye[1], left_eye[0] - right_eye[0]))
    x1, y1, x2, y2 = project_facial_area((beside, over, beside + w, over + h), degrees, (around.shape[0], around.shape[1]))
    if x2 <= x1 or y2 <= y1:
        return around[:0, :0]
    return around[y1:y2, x1:x2] if degrees == 0 else _opencv.rotate(around, degrees, (x1, y1, x2, y2))


def project_facial_area(facial_area: tuple[int, int, int, int], angle: float, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Where the box (x1, y1, x2, y2) is after its picture of `size` (height, width) was turned by `angle` degrees about its middle."""
    if abs(angle) % 360 == 0:
        return facial_area
    turn = math.copysign(math.radians(abs(angle) % 360), angle)
    x1, y1, x2, y2 = facial_area
    height, width = size
    x, y = (x1 + x2) / 2 - width / 2, (y1 + y2) / 2 - height / 2
    cx = x * math.cos(turn) + y * math.sin(turn) + width / 2
    cy = y * math.cos(turn) - x * math.sin(turn) + height / 2
    half_w, half_h = (x2 - x1) / 2, (y2 - y1) / 2
    return max(int(cx - half_w), 0), max(int(cy - half_h), 0), min(int(cx + half_w), width), min(int(cy + half_h), height)
