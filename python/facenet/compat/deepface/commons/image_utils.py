"""deepface.commons.image_utils: whatever holds a picture becomes an array in BGR."""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import importlib
import io
import os
from typing import Any, Iterator

import numpy as np

from facenet import _pictures
from facenet._errors import FacenetError, FacenetOSError, FacenetValueError
from facenet.compat.deepface.modules.exceptions import DataTypeError, ImgNotFound

IMAGE_EXTS = {".jpg", ".jpeg", ".png"}
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
_LARGEST = 64 << 20  # bytes that a URL may bring
_SECONDS = 60


def yield_images(path: str) -> Iterator[str]:
    """The JPEGs and PNGs in a folder and those below it, known by their names and first bytes."""
    for root, _, files in os.walk(path):
        for name in files:
            if os.path.splitext(name)[1].lower() in IMAGE_EXTS:
                whole = os.path.join(root, name)
                with open(whole, "rb") as file:
                    if file.read(8).startswith(_MAGIC):
                        yield whole


def list_images(path: str) -> list[str]:
    return list(yield_images(path))


def find_image_hash(file_path: str) -> str:
    """SHA-1 of a file's size and times: another one where the file was replaced."""
    stat = os.stat(file_path)
    return hashlib.sha1(f"{stat.st_size}-{stat.st_ctime}-{stat.st_mtime}".encode()).hexdigest()


def _bgr(source: Any) -> Any:
    return np.ascontiguousarray(_pictures.read_image(source)[..., ::-1])


def load_image(img: Any) -> tuple[Any, str]:
    """The picture, uint8 [h, w, 3] in BGR, and what it is called. An array is taken as it is."""
    if isinstance(img, np.ndarray):
        return img, "numpy array"
    if callable(getattr(img, "read", None)):
        return _from_file_object(img), "io object"
    if isinstance(img, os.PathLike):
        img = os.fspath(img)
    if not isinstance(img, str):
        raise DataTypeError(f"img is a path, a URL, a base64 text, an array in BGR or an open file, not {type(img).__name__}.", "invalid_argument")
    if img.startswith("data:image/"):
        return _from_base64(img), "base64 encoded string"
    if img.lower().startswith(("http://", "https://")):
        return _from_url(img), img
    if not os.path.isfile(img):
        raise ImgNotFound(f"{img}: there is no such file.", "not_found")
    return _bgr(img), img


def _from_file_object(file: Any) -> Any:
    if isinstance(file, io.StringIO):
        raise DataTypeError("img is an io.StringIO, which holds no bytes; open the file in binary mode.", "invalid_argument")
    with contextlib.suppress(AttributeError, TypeError, io.UnsupportedOperation):  # then it is read from where it is
        file.seek(0)
    return _bgr(file.read())


def _from_base64(text: str) -> Any:
    head, comma, data = text.partition(",")
    if not comma:
        raise FacenetValueError(f"img begins with {head[:30]} and has no comma; give \"data:image/jpeg;base64,\" and the file's bytes in base64.", "invalid_argument")
    try:
        file = base64.b64decode(data)
    except binascii.Error as e:
        raise FacenetValueError(f"img is no base64 ({e}).", "invalid_argument") from e
    if not file.startswith(_MAGIC):
        raise DataTypeError("img holds neither a JPEG nor a PNG.", "unsupported")
    return _bgr(file)


def _from_url(url: str) -> Any:
    requests: Any = importlib.import_module("requests")
    try:
        with requests.get(url, stream=True, timeout=_SECONDS) as response:
            response.raise_for_status()
            file = bytearray()
            for block in response.iter_content(1 << 16):
                file += block
                if len(file) > _LARGEST:
                    raise FacenetValueError(f"{url}: it has more than {_LARGEST >> 20} MiB.", "limit_exceeded")
    except FacenetError:
        raise
    except OSError as e:  # requests' errors are these
        raise FacenetOSError(f"{url}: cannot be fetched ({type(e).__name__}). Without a network, give a file's path.", "io_error") from e
    return _bgr(bytes(file))
