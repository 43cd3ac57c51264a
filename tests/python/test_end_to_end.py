"""From a photograph's file to embeddings: the command against PIL, facenet-pytorch's MTCNN and InceptionResnetV1.

From PNG both sides have the same pixels. From JPEG they have not: stb_image and libjpeg round differently. So the chain
after the decoder is compared on our decoder's pixels, and what the decoder changes is printed for itself.
"""

from __future__ import annotations

import functools
import pathlib
from typing import NamedTuple

import numpy as np
import pytest
import torch
from conftest import ROOT
from detection import open_picture, photographs
from facenet_pytorch import MTCNN
from make_image_corpus import Tool
from PIL import Image
from test_command import BUILD, COMMAND, facenet, lines

import make_golden

CHECKPOINT = ROOT / "build/golden/checkpoint512.pt"
WEIGHTS = ROOT / "build/golden/weights512.safetensors"
DETECTOR = ROOT / "build/golden/mtcnn.safetensors"
PICTURES = [path for path in photographs() if not path.stem.startswith("aligned")]
JPEGS = [path for path in PICTURES if path.suffix == ".jpg"]

pytestmark = [
    pytest.mark.skipif(not COMMAND.exists(), reason=f"{COMMAND} is not built"),
    pytest.mark.skipif(not CHECKPOINT.exists() or not WEIGHTS.exists(), reason="tools/test.sh makes build/golden"),
    pytest.mark.skipif(not DETECTOR.exists(), reason="tools/test.sh makes build/golden"),
    pytest.mark.skipif(not PICTURES, reason="there are no photographs: run tools/bootstrap.sh"),
]


class Faces(NamedTuple):
    boxes: np.ndarray  # [n, 4]
    embeddings: np.ndarray  # [n, 512]


class Reference:
    """The chain in Python, as facenet-pytorch's README has it: detect, extract, embed."""

    def __init__(self) -> None:
        self.mtcnn = MTCNN(keep_all=True)
        self.model = make_golden.load_model(str(CHECKPOINT)).double()
        self.of_file = functools.lru_cache(None)(lambda path: self(open_picture(path)))  # two tests ask for it

    def __call__(self, pixels: np.ndarray) -> Faces:
        picture = Image.fromarray(pixels)
        boxes, _ = self.mtcnn.detect(picture)
        crops = self.mtcnn.extract(picture, boxes, None)
        with torch.no_grad():
            return Faces(np.float32(boxes.astype(np.float64)), self.model(crops.double()).numpy())


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference()


@pytest.fixture(scope="module")
def decoder():
    path = BUILD / "facenet_image_tool"
    if not path.exists():
        pytest.skip(f"facenet_image_tool is not built in {BUILD}")
    tool = Tool(path)
    yield tool
    tool.close()


def command(path: pathlib.Path) -> Faces:
    result = facenet("embed", "--json", "--weights", WEIGHTS, "--detector", DETECTOR, path)
    assert result.returncode == 0, result.stderr
    faces = lines(result)
    return Faces(np.float32([face["box"] for face in faces]), np.float64([face["embedding"] for face in faces]))


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def assert_equal(got: Faces, want: Faces) -> None:
    """The same faces in the same order, cosine at least 0.9999; where the boxes hold the same whole pixels the crops
    are equal to the bit, and docs/parity.md's allowance for an embedding holds."""
    assert len(got.boxes) == len(want.boxes) > 0
    assert np.allclose(got.boxes, want.boxes, rtol=0, atol=0.05)
    assert cosines(got.embeddings, want.embeddings).min() >= 0.9999
    same_pixels = (got.boxes.astype(int) == want.boxes.astype(int)).all(1)
    assert same_pixels.mean() >= 0.5
    assert np.abs(got.embeddings - want.embeddings)[same_pixels].max() <= 3e-6


@pytest.mark.slow
@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.stem)
def test_from_png(reference, path, tmp_path):
    Image.fromarray(open_picture(path)).save(tmp_path / "photo.png", compress_level=1)
    assert_equal(command(tmp_path / "photo.png"), reference.of_file(path))


def nearest(faces: Faces, box: np.ndarray) -> int:
    return int(np.abs(faces.boxes - box).sum(1).argmin())


@pytest.mark.slow
@pytest.mark.skipif(not JPEGS, reason="there are no photographs in JPEG")
def test_from_jpeg_the_rest_is_the_decoders(reference, decoder, capsys):
    report = []
    for path in JPEGS:
        ours = decoder.decode(path)
        on_our_pixels = reference(ours)
        assert_equal(command(path), on_our_pixels)
        on_their_pixels = reference.of_file(path)
        pairs = [nearest(on_their_pixels, box) for box in on_our_pixels.boxes]
        cosine = cosines(on_our_pixels.embeddings, on_their_pixels.embeddings[pairs])
        same_crop = (on_our_pixels.boxes.astype(int) == on_their_pixels.boxes[pairs].astype(int)).all(1)
        shares = [f"{chosen.sum()} face{'s' if chosen.sum() > 1 else ''} {what}: cosine {cosine[chosen].min():.6f} or more"
                  for chosen, what in ((same_crop, "cut at the same pixels"), (~same_crop, "cut elsewhere")) if chosen.any()]
        levels = np.abs(ours.astype(int) - open_picture(path)).mean()
        report.append(f"  {path.name:15} {levels:.3f} levels; {'; '.join(shares)}")
    with capsys.disabled():
        print("\nThe JPEG decoder's share, stb_image against libjpeg, all else equal (a box may end a pixel elsewhere):",
              *report, sep="\n")
