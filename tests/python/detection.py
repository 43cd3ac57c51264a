"""The detector and its reference side by side: facenet_detect_tool, facenet-pytorch's MTCNN, and pictures for both."""

from __future__ import annotations

import pathlib
import subprocess
from typing import Iterator, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps

ROOT = pathlib.Path(__file__).resolve().parents[2]
SAMPLES = ROOT / ".deps" / "samples"
PHOTOS = ROOT.parent / "shared" / "photos"


class Found(NamedTuple):
    boxes: np.ndarray  # [n, 4]
    scores: np.ndarray  # [n]
    landmarks: np.ndarray  # [n, 5, 2]


NOTHING = Found(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros((0, 5, 2), np.float32))


class DetectTool:
    """facenet_detect_tool with one set of options."""

    def __init__(self, path: pathlib.Path, weights: pathlib.Path, threads: int = 1, **options: object) -> None:
        arguments = [str(path), str(weights), str(threads), *(f"{name}={value}" for name, value in options.items())]
        self.process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def _ask(self, request: str, picture: np.ndarray, numbers: np.ndarray | None = None) -> list[str]:
        behind = b"" if numbers is None else np.asarray(numbers, np.float32).tobytes()
        self.process.stdin.write(request.encode() + b"\n" + picture.tobytes() + behind)
        self.process.stdin.flush()
        words = self.process.stdout.readline().decode().split(" ")
        if words[0] != "ok":
            raise RuntimeError(" ".join(words).strip() or "facenet_detect_tool has ended")
        return words

    def _read(self, count: int, dtype: type) -> np.ndarray:
        return np.frombuffer(self.process.stdout.read(count * np.dtype(dtype).itemsize), dtype)

    def detect(self, picture: np.ndarray) -> Found:
        h, w, _ = picture.shape
        count = int(self._ask(f"detect {w} {h}", picture)[1])
        faces = self._read(15 * count, np.float32).reshape(count, 15)
        return Found(faces[:, :4], faces[:, 4], faces[:, 5:].reshape(count, 5, 2))

    def seconds(self, picture: np.ndarray, times: int) -> np.ndarray:
        """How long each of `times` detections took."""
        h, w, _ = picture.shape
        return self._read(int(self._ask(f"repeat {w} {h} {times}", picture)[1]), np.float64)

    def extract(self, picture: np.ndarray, box: np.ndarray, size: int, margin: int) -> np.ndarray:
        """extract_face: [size, size, 3]."""
        h, w, _ = picture.shape
        count = int(self._ask(f"extract {w} {h} {size} {margin}", picture, box)[1])
        return self._read(count, np.uint8).reshape(size, size, 3)

    def align(self, picture: np.ndarray, landmarks: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
        """align_face to ArcFace's places: [size, size, 3], and the matrix [2, 3]."""
        h, w, _ = picture.shape
        count = int(self._ask(f"align {w} {h} {size}", picture, landmarks)[1])
        face = self._read(count, np.uint8).reshape(size, size, 3)
        a, b, tx, ty = self._read(4, np.float64)
        return face, np.array([[a, -b, tx], [b, a, ty]])


def reference(mtcnn, picture: np.ndarray) -> Found:
    """MTCNN.detect on the same pixels; raises what it raises."""
    boxes, scores, landmarks = mtcnn.detect(picture, landmarks=True)
    if boxes is None:
        return NOTHING
    return Found(np.asarray(boxes, np.float32), np.asarray(scores, np.float32), np.asarray(landmarks, np.float32))


def same(got: Found, want: Found) -> bool:
    """The same faces in the same order: boxes and landmarks within 0.05 px, scores within 1e-4."""
    return len(got.scores) == len(want.scores) and all(
        np.allclose(g, w, rtol=0, atol=tolerance) for g, w, tolerance in zip(got, want, (0.05, 1e-4, 0.05))
    )


def undecided(mtcnn, picture: np.ndarray, tries: int = 16) -> bool:
    """Whether the reference's answer changes when its networks' outputs move by 5e-7, eight float32 steps at 1.

    Two engines sum in different orders, and their outputs differ by as much. Where two boxes of one face have scores
    that near to each other, which of them survives says nothing about either engine.
    """
    want = reference(mtcnn, picture)
    generator = torch.Generator().manual_seed(1)

    def shake(_module, _inputs, outputs):
        return tuple(x * (1 + 5e-7 * (2 * torch.rand(x.shape, generator=generator) - 1)) for x in outputs)

    hooks = [network.register_forward_hook(shake) for network in (mtcnn.pnet, mtcnn.rnet, mtcnn.onet)]
    try:
        return not all(same(reference(mtcnn, picture), want) for _ in range(tries))
    finally:
        for hook in hooks:
            hook.remove()


def open_picture(path: pathlib.Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def photographs() -> list[pathlib.Path]:
    """Those that are there: the samples that bootstrap fetches, and the project's shared photographs."""
    return sorted(p for folder in (SAMPLES, PHOTOS) if folder.is_dir() for p in folder.iterdir()
                  if p.suffix in (".jpg", ".png"))


def generated(count: int, seed: int, longest: int = 700) -> Iterator[tuple[str, np.ndarray]]:
    """Pictures made of the photographs: crops, scales and mirrors of them, noise, blanks and thin strips."""
    rng = np.random.default_rng(seed)
    kinds = ("astronaut", "sample", "group", "portrait")
    sources = [open_picture(path) for path in photographs() if path.stem.startswith(kinds)]
    for number in range(count):
        kind = "photo" if number % 10 < 7 else ("noise", "blank", "strip")[number % 10 - 7]
        source = sources[rng.integers(len(sources))]
        if kind == "noise":
            size = rng.integers(20, 200, 2)
            smooth = int(rng.integers(1, 9))
            small = rng.integers(0, 256, (*(size // smooth + 1), 3), np.uint8)
            picture = np.asarray(Image.fromarray(small).resize((int(size[1]), int(size[0])), Image.BICUBIC))
        elif kind == "blank":
            picture = np.full((*rng.integers(1, 300, 2), 3), rng.integers(0, 256, 3), np.uint8)
        elif kind == "strip":  # thinner than a face
            thin, long = int(rng.integers(1, 24)), int(rng.integers(20, 500))
            at = int(rng.integers(0, source.shape[0] - thin))
            picture = source[at:at + thin, :long]
            if rng.random() < 0.5:
                picture = picture.transpose(1, 0, 2)
        else:
            h, w, _ = source.shape
            ch, cw = int(h * rng.uniform(0.2, 1)), int(w * rng.uniform(0.2, 1))
            y, x = int(rng.integers(0, h - ch + 1)), int(rng.integers(0, w - cw + 1))
            picture = source[y:y + ch, x:x + cw]
            scale = longest / max(picture.shape) * rng.uniform(0.15, 1)
            size = max(1, round(cw * scale)), max(1, round(ch * scale))
            picture = np.asarray(Image.fromarray(picture).resize(size, Image.BICUBIC))
            if rng.random() < 0.5:
                picture = picture[:, ::-1]
            if rng.random() < 0.2:
                picture = picture[::-1]
        yield f"{number}:{kind}:{picture.shape[1]}x{picture.shape[0]}", np.ascontiguousarray(picture)
