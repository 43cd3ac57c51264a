"""Pictures for calibration and for golden files: uint8 RGB arrays of [160, 160, 3]."""

from __future__ import annotations

import pathlib

import numpy as np
import torch
from PIL import Image, ImageOps

from facenet_tools.cli import ToolError

SIZE = 160
MEANS = (122.782, 117.001, 104.298)  # of scaling mean_255, RGB
SAMPLES = pathlib.Path(__file__).resolve().parents[2] / ".deps" / "samples"


def sample_paths() -> list[str]:
    """The photographs bootstrap.sh fetched, in a fixed order; empty when it could not."""
    return sorted(str(path) for path in SAMPLES.glob("*.*") if path.suffix in (".png", ".jpg"))


def open_rgb(path: str) -> Image.Image:
    """Decodes a picture, applies its EXIF orientation and converts it to RGB."""
    try:
        with Image.open(path) as picture:
            return ImageOps.exif_transpose(picture).convert("RGB")
    except (OSError, SyntaxError) as error:  # Pillow raises SyntaxError on some damaged PNGs
        reason = getattr(error, "strerror", None) or "not a picture Pillow can decode"
        raise ToolError(f"{path}: cannot be read ({reason}); give a JPEG or PNG.") from error


def centre_square(path: str) -> np.ndarray:
    """The largest centred square (offsets rounded down), resized by Pillow's antialiased bilinear filter."""
    picture = open_rgb(path)
    side = min(picture.size)
    return _resized(picture, (picture.width - side) // 2, (picture.height - side) // 2, side)


def random_squares(path: str, count: int, random: np.random.Generator) -> list[np.ndarray]:
    """Squares of a quarter to the whole of the short side, anywhere in the picture."""
    picture = open_rgb(path)
    squares = []
    for _ in range(count):
        side = max(1, round(min(picture.size) * random.uniform(0.25, 1.0)))
        left = random.integers(picture.width - side + 1)
        top = random.integers(picture.height - side + 1)
        squares.append(_resized(picture, int(left), int(top), side))
    return squares


def structured(random: np.random.Generator) -> np.ndarray:
    """A made-up picture with what photographs have: smooth shading, edges and fine texture."""
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    picture = np.empty((SIZE, SIZE, 3))
    for channel in range(3):
        wave = 2 * np.pi * (random.uniform(-2, 2) * x + random.uniform(-2, 2) * y + random.uniform())
        picture[..., channel] = random.uniform(60, 200) + 50 * np.sin(wave)
    for _ in range(12):
        centre, radius = random.uniform(0, 1, 2), random.uniform(0.03, 0.3, 2)
        inside = ((x - centre[0]) / radius[0]) ** 2 + ((y - centre[1]) / radius[1]) ** 2 < 1
        picture[inside] = 0.3 * picture[inside] + 0.7 * random.uniform(0, 255, 3)
    picture += random.normal(0, 6, picture.shape)
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def generated(seed: int = 0) -> dict[str, np.ndarray]:
    """Pictures no camera takes: noise, constants and checkerboards of extremes."""
    rows, columns = np.indices((SIZE, SIZE))
    pictures = {"noise": np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)}
    for level in (0, 127, 255):
        pictures[f"constant_{level}"] = np.full((SIZE, SIZE, 3), level, np.uint8)
    for cell in (1, 8):
        board = ((rows // cell + columns // cell) % 2 * 255).astype(np.uint8)
        pictures[f"checkerboard_{cell}"] = np.repeat(board[..., None], 3, axis=2)
    return pictures


def scaled(pixels: np.ndarray, dtype: np.dtype, scaling: str = "fixed") -> np.ndarray:
    """uint8 [..., H, W, 3] -> [..., 3, H, W], "fixed" or "unit" as in to_tensor(), in one thread. (x - 127.5) / 128 is exact
    in float32, and of the 256 values of x / 255 each is what rounding the double gives."""
    values = pixels.astype(dtype)
    if scaling == "fixed":
        values -= 127.5
    values /= {"fixed": 128, "unit": 255}[scaling]
    return np.moveaxis(values, -1, -3)


def to_tensor(pictures: np.ndarray, dtype: torch.dtype, scaling: str = "fixed") -> torch.Tensor:
    """uint8 NHWC -> NCHW, scaled as the metadata key says. "fixed" is (x - 127.5) / 128, which float32 holds exactly;
    "prewhiten" is facenet.py's, by the mean and deviation of each picture; "mean_255" is face-api's."""
    if scaling in ("fixed", "unit"):
        return torch.from_numpy(scaled(pictures, np.dtype(str(dtype).removeprefix("torch.")), scaling))
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).double()
    if scaling == "prewhiten":
        deviation, mean = torch.std_mean(pixels, dim=(1, 2, 3), unbiased=False, keepdim=True)
        pixels = (pixels - mean) / deviation.clamp_min(pixels[0].numel() ** -0.5)
    else:
        pixels = (pixels - torch.tensor({"mean_255": MEANS}[scaling], dtype=torch.float64).reshape(3, 1, 1)) / 255
    return pixels.to(dtype)


def _resized(picture: Image.Image, left: int, top: int, side: int) -> np.ndarray:
    square = picture.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((SIZE, SIZE), Image.Resampling.BILINEAR))
