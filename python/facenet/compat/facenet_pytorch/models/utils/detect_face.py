"""facenet_pytorch.models.utils.detect_face: faces cut out of pictures."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from facenet import _engine, _pictures
from facenet.compat.facenet_pytorch import _backend
from facenet.compat.facenet_pytorch._backend import InputError


def is_batch(img: Any) -> bool:
    """Whether a list of pictures, or an array or tensor of four dimensions, was given."""
    if isinstance(img, (list, tuple)):
        return True
    return (isinstance(img, np.ndarray) or _backend.is_tensor(img)) and len(img.shape) == 4


def pixels(img: Any) -> Any:
    """One picture as uint8 [h, w, 3], RGB."""
    if hasattr(img, "getbands"):
        return _pictures.from_pil(img)
    if _backend.is_tensor(img):
        img = img.detach().cpu().numpy()
    elif not isinstance(img, np.ndarray):
        raise InputError(f"a picture is a PIL image, an array or a tensor [height, width, 3], not {type(img).__name__}; open files with PIL.")
    if img.ndim != 3 or img.shape[2] != 3:
        raise InputError(f"a picture is [height, width, 3], not {list(img.shape)}; move the channels to the end, and make grey ones RGB.")
    if img.dtype == np.uint8:
        return img
    if img.size and not (img.min() >= 0 and img.max() <= 255):
        raise InputError(f"a picture of {img.dtype} holds values outside 0…255; scale it to them.")
    return np.rint(img).astype(np.uint8)


def get_size(img: Any) -> Any:
    """(width, height)"""
    if isinstance(img, np.ndarray) or _backend.is_tensor(img):
        return img.shape[1::-1]
    return img.size


def _area(img: Any, box: list[int], image_size: int) -> Any:
    """A tensor's part, as facenet-pytorch shrinks it: means over areas, cut to whole numbers."""
    part = img[box[1] : box[3], box[0] : box[2]].permute(2, 0, 1).unsqueeze(0).float()
    if part.numel() == 0:
        raise InputError(f"the box {box} holds no pixel of the picture; give one that overlaps it.")
    whole = _backend.torch.nn.functional.interpolate(part, size=(image_size, image_size), mode="area")
    return whole.byte().squeeze(0).permute(1, 2, 0).cpu().numpy()


def crop_resize(img: Any, box: Any, image_size: int) -> Any:
    """The box, four whole numbers, as uint8 [image_size, image_size, 3]."""
    box = [int(side) for side in box]
    if _backend.is_tensor(img):
        return _area(img, box, image_size)
    return _engine.crop(pixels(img), (float(box[0]), float(box[1]), float(box[2]), float(box[3])), image_size, 0.0, "rgb")


def save_img(img: Any, path: Any) -> None:
    """Saves a PIL image or an array uint8 [h, w, 3], RGB."""
    if isinstance(img, np.ndarray):
        from PIL import Image  # type: ignore[import-untyped]

        img = Image.fromarray(img)
    img.save(path)


def extract_face(img: Any, box: Any, image_size: int = 160, margin: float = 0, save_path: Any = None) -> Any:
    """The box with its margin cut out: float32 [3, image_size, image_size], 0…255. The margin counts in pixels of the result."""
    if _backend.is_tensor(box):
        box = box.detach().cpu().numpy()
    margins = [margin * (box[2] - box[0]) / (image_size - margin), margin * (box[3] - box[1]) / (image_size - margin)]
    width, height = get_size(img)
    sides = [
        int(max(box[0] - margins[0] / 2, 0)),
        int(max(box[1] - margins[1] / 2, 0)),
        int(min(box[2] + margins[0] / 2, width)),
        int(min(box[3] + margins[1] / 2, height)),
    ]
    face = crop_resize(img, sides, image_size)
    if save_path is not None:
        os.makedirs(os.path.dirname(os.path.abspath(save_path)), exist_ok=True)
        save_img(face, save_path)
    return _backend.tensor(face.transpose(2, 0, 1).astype(np.float32))


def __getattr__(name: str) -> Any:
    return _backend.absent(__name__, name)
