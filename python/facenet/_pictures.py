"""Whatever holds a picture becomes an array uint8 [height, width, 3]."""

from __future__ import annotations

import importlib
import io
import os
from typing import TYPE_CHECKING, Any, cast

from facenet import _engine, _files
from facenet._errors import FacenetError, error

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]


def read_image(source: str | os.PathLike[str] | bytes | bytearray | memoryview) -> Pixels:
    """The picture of a path, or in bytes, as upright RGB: uint8 [height, width, 3].

    JPEG and PNG are the engine's. What Pillow knows is read through it where it is installed, and HEIC and AVIF through
    pillow-heif: these decoders run in this process, so they are for pictures that you trust.
    """
    try:
        if isinstance(source, (bytes, bytearray, memoryview)):
            return _engine.decode_image(source)
        return _engine.read_image(os.fsencode(_files.absolute(source)))
    except FacenetError as e:
        if e.code != "unsupported":
            raise
        picture = _by_pillow(source, e)
        if picture is None:
            raise
        return picture


# What Pillow may open, beside JPEG and PNG: formats of photographs.
_FOREIGN = ("WEBP", "TIFF", "GIF", "BMP", "DIB", "HEIF", "AVIF", "JXL", "MPO")
_MOST_PIXELS, _MOST_SIDE = 64 << 20, 16384


def _by_pillow(source: str | os.PathLike[str] | bytes | bytearray | memoryview, refusal: FacenetError) -> Pixels | None:
    """None where the engine's own sentence is the one to show: no such library, or it does not know the file either."""
    try:
        Image: Any = importlib.import_module("PIL.Image")
        ImageOps: Any = importlib.import_module("PIL.ImageOps")
    except ImportError:
        return None
    for plug_in in ("pillow_heif", "pillow_jxl"):
        try:
            module = importlib.import_module(plug_in)
        except ImportError:
            continue
        for name in ("register_heif_opener", "register_avif_opener"):
            if hasattr(module, name):
                getattr(module, name)()
    Image.init()
    file: Any
    if isinstance(source, (bytes, bytearray, memoryview)):
        file, name = io.BytesIO(source), "the picture"
    else:
        file, name = _files.absolute(source), os.fspath(source)
    try:
        with Image.open(file, formats=[f for f in _FOREIGN if f in Image.OPEN]) as image:
            width, height = image.size
            if width * height > _MOST_PIXELS or max(width, height) > _MOST_SIDE:
                raise error("limit_exceeded", f"{name}: the picture has over 64 M pixels, or over {_MOST_SIDE} in one direction: make it smaller first.")
            image.load()
            return from_pil(ImageOps.exif_transpose(image))
    except importlib.import_module("PIL").UnidentifiedImageError:
        return None
    except FacenetError:
        raise
    except (Image.DecompressionBombError, MemoryError) as e:
        raise error("limit_exceeded", f"{name}: the picture is too large: make it smaller first ({e}).") from e
    except Exception as e:  # plug-ins raise what they like
        why = " ".join(str(e).split())
        raise error("corrupt", f"{name}: the picture cannot be read through Pillow ({why}): get the file again from where it came.") from refusal


def pixels(picture: Any, channels: str) -> tuple[Any, str]:
    """The array and the order of its channels. Files and PIL images are RGB whatever `channels` says of arrays."""
    _engine.check_channels(channels)
    if isinstance(picture, (str, bytes, bytearray, os.PathLike)):
        return read_image(cast("str | bytes", picture)), "rgb"
    if hasattr(picture, "getbands") and hasattr(picture, "convert"):
        return from_pil(picture), "rgb"
    if hasattr(picture, "__dlpack__") and not hasattr(picture, "__array_interface__"):  # a tensor of PyTorch's
        import numpy as np

        try:
            return np.asarray(picture), channels
        except (TypeError, RuntimeError) as e:  # it carries a gradient, or lies on a GPU
            raise error("invalid_argument", "a tensor of this kind is no array: give tensor.detach().cpu().") from e
    return picture, channels


def from_pil(image: Any) -> Pixels:
    """As read_image() takes files: what is transparent is over white. The image is taken as upright."""
    try:
        return _from_pil(image)
    except OSError as e:  # Pillow reads the file at the last moment
        if isinstance(e, FacenetError):
            raise
        raise error("corrupt", f"a PIL image cannot be read ({e}); load the file again.") from e


def _from_pil(image: Any) -> Pixels:
    import numpy as np

    if "A" in image.getbands() or "transparency" in getattr(image, "info", {}):
        rgba = np.asarray(image.convert("RGBA"), dtype=np.uint16)
        alpha = rgba[..., 3:]
        over_white: Pixels = ((rgba[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
        return over_white
    if image.mode in ("I", "F", "I;16", "I;16L", "I;16B"):  # PIL clips these at 255
        raise error("unsupported", f'a PIL image of the mode "{image.mode}" has no bytes: scale it to 0…255 and convert it to "RGB".')
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
