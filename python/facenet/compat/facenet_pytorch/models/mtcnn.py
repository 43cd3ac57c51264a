"""facenet_pytorch.models.mtcnn: MTCNN."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from facenet._objects import Detector
from facenet.compat.facenet_pytorch import _backend
from facenet.compat.facenet_pytorch._backend import InputError
from facenet.compat.facenet_pytorch.models.utils.detect_face import extract_face, get_size, is_batch, pixels

_METHODS = ("probability", "largest", "largest_over_threshold", "center_weighted_size")


def _objects(values: list[Any]) -> Any:
    """numpy.array(values, dtype=object), which raises where only the first sides of arrays are equal."""
    shapes = {np.shape(value) for value in values}
    if len(shapes) == 1:
        return np.array(values, dtype=object)
    out = np.empty(len(values), dtype=object)
    out[:] = values
    return out


def _by_area(boxes: Any) -> Any:
    return np.argsort((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))[::-1]


class MTCNN(_backend.Module):
    """Finds faces and cuts them out. Arguments, results and their types are facenet-pytorch's.

    device: is accepted; the engine runs on the CPU, and says so once.
    """

    def __init__(
        self,
        image_size: int = 160,
        margin: float = 0,
        min_face_size: int = 20,
        thresholds: Any = (0.6, 0.7, 0.7),
        factor: float = 0.709,
        post_process: bool = True,
        select_largest: bool = True,
        selection_method: str | None = None,
        keep_all: bool = False,
        device: Any = None,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.margin = margin
        self.min_face_size = min_face_size
        self.thresholds = list(thresholds)
        self.factor = factor
        self.post_process = post_process
        self.select_largest = select_largest
        self.keep_all = keep_all
        self.selection_method = selection_method
        self._set_device(device)
        if not self.selection_method:
            self.selection_method = "largest" if self.select_largest else "probability"
        self._made: tuple[Any, Detector] | None = None
        self._detector()  # what is wrong with the arguments or the weights is said here

    def _detector(self) -> Detector:
        """The engine's detector, made anew where a script has set an attribute."""
        if not float(self.min_face_size).is_integer():
            raise InputError(f"min_face_size: {self.min_face_size} is no whole number of pixels; round it.")
        wanted = (int(self.min_face_size), tuple(map(float, self.thresholds)), float(self.factor))
        made = self._made
        if made is None or made[0] != wanted:
            made = wanted, Detector(min_face=wanted[0], thresholds=wanted[1], factor=wanted[2], selection="probability")
            self._made = made
        return made[1]

    def forward(self, img: Any, save_path: Any = None, return_prob: bool = False) -> Any:
        """The faces cut out, and their probabilities; None where there is no face."""
        boxes, probs, points = self.detect(img, landmarks=True)
        if not self.keep_all:
            boxes, probs, points = self.select_boxes(boxes, probs, points, img, method=self.selection_method)
        faces = self.extract(img, boxes, save_path)
        return (faces, probs) if return_prob else faces

    def detect(self, img: Any, landmarks: bool = False) -> Any:
        """Boxes [n, 4], probabilities [n] and landmarks [n, 5, 2] of a picture; of a batch, arrays of these."""
        batch = is_batch(img)
        pictures = [pixels(one) for one in (img if batch else [img])]
        if any(picture.shape != pictures[0].shape for picture in pictures):
            raise InputError("MTCNN batch processing only compatible with equal-dimension images.")
        detector = self._detector()
        boxes: list[Any] = []
        probs: list[Any] = []
        points: list[Any] = []
        for picture in pictures:
            found = detector.detect(picture)
            if not found:
                boxes.append(None)
                probs.append([None])
                points.append(None)
                continue
            box = np.array([face.box for face in found], np.float32)
            prob = np.array([face.score for face in found], np.float32)
            point = np.array([face.landmarks for face in found], np.float32)
            order = _by_area(box) if self.select_largest else np.arange(len(box))
            boxes.append(box[order])
            probs.append(prob[order])
            points.append(point[order])
        all_boxes, all_probs, all_points = _objects(boxes), _objects(probs), _objects(points)
        if not batch:
            all_boxes, all_probs, all_points = all_boxes[0], all_probs[0], all_points[0]
        return (all_boxes, all_probs, all_points) if landmarks else (all_boxes, all_probs)

    def select_boxes(
        self,
        all_boxes: Any,
        all_probs: Any,
        all_points: Any,
        imgs: Any,
        method: str | None = "probability",
        threshold: float = 0.9,
        center_weight: float = 2.0,
    ) -> Any:
        """One face of each picture, by `method`."""
        if method not in _METHODS:
            raise InputError(f'selection_method: "{method}" is none of {", ".join(_METHODS)}.')
        batch = is_batch(imgs)
        if not batch:
            imgs, all_boxes, all_probs, all_points = [imgs], [all_boxes], [all_probs], [all_points]
        chosen: list[tuple[Any, Any, Any]] = []
        for boxes, points, probs, img in zip(all_boxes, all_points, all_probs, imgs):
            if boxes is None:
                chosen.append((None, [None], None))
                continue
            boxes, probs, points = np.array(boxes), np.array(probs), np.array(points)
            if method == "largest_over_threshold":
                mask = (probs > threshold).astype(bool)
                boxes, probs, points = boxes[mask], probs[mask], points[mask]
                if len(boxes) == 0:
                    chosen.append((None, [None], None))
                    continue
            if method == "probability":
                order = np.argsort(probs)[::-1]
            elif method == "center_weighted_size":
                width, height = get_size(img)
                sizes = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
                x, y = (boxes[:, 0] + boxes[:, 2]) / 2 - width / 2, (boxes[:, 1] + boxes[:, 3]) / 2 - height / 2
                order = np.argsort(sizes - (x**2 + y**2) * center_weight)[::-1]
            else:
                order = _by_area(boxes)
            first = order[:1]
            chosen.append((boxes[first], probs[first], points[first]))
        if not batch:
            box, prob, point = chosen[0]
            return box, prob[0], point
        boxes_of, probs_of, points_of = ([one[i] for one in chosen] for i in range(3))
        return _objects(boxes_of), _objects(probs_of), _objects(points_of)

    def extract(self, img: Any, batch_boxes: Any, save_path: Any) -> Any:
        """The boxes of each picture cut out and, with post_process, standardised."""
        batch = is_batch(img)
        if not batch:
            img, batch_boxes = [img], [batch_boxes]
        if save_path is None:
            paths: list[Any] = [None] * len(img)
        else:
            paths = [save_path] if isinstance(save_path, (str, os.PathLike)) else list(save_path)
            if len(paths) != len(img):
                raise InputError(f"save_path: there are {len(img)} pictures and {len(paths)} paths; give a path for each.")
        faces: list[Any] = []
        for picture, boxes, path in zip(img, batch_boxes, paths):
            if boxes is None:
                faces.append(None)
                continue
            source = picture if _backend.is_tensor(picture) else pixels(picture)  # converted once for all its faces
            cut: list[Any] = []
            for number, box in enumerate(boxes if self.keep_all else boxes[:1], 1):
                target = path
                if path is not None and number > 1:
                    name, extension = os.path.splitext(path)
                    target = f"{name}_{number}{extension}"
                face = extract_face(source, box, self.image_size, self.margin, target)
                cut.append(fixed_image_standardization(face) if self.post_process else face)
            faces.append(_backend.stack(cut) if self.keep_all else cut[0])
        return faces if batch else faces[0]

    def __reduce__(self) -> Any:
        """By its arguments: the weights are read again where it is unpickled."""
        arguments = (self.image_size, self.margin, self.min_face_size, self.thresholds, self.factor, self.post_process)
        return type(self), (*arguments, self.select_largest, self.selection_method, self.keep_all, self.device)


def fixed_image_standardization(image_tensor: Any) -> Any:
    """(x - 127.5) / 128"""
    return (image_tensor - 127.5) / 128.0


def prewhiten(x: Any) -> Any:
    """Mean 0 and standard deviation 1, of a tensor or an array."""
    if _backend.is_tensor(x):
        return (x - x.mean()) / x.std().clamp(min=1.0 / (float(x.numel()) ** 0.5))
    x = np.asarray(x)
    x = x if x.dtype.kind == "f" else x.astype(np.float32)
    return (x - x.mean()) / np.maximum(x.std(ddof=1), 1.0 / x.size**0.5).astype(x.dtype)


def __getattr__(name: str) -> Any:
    return _backend.absent(__name__, name)
