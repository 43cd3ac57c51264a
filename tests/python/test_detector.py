"""The detector against facenet-pytorch's MTCNN on the same pixels. FACENET_LONG=1 takes 200 generated pictures."""

from __future__ import annotations

import os
import pathlib

import numpy as np
import pytest

from detection import NOTHING, ROOT, DetectTool, generated, open_picture, photographs, reference

MTCNN = pytest.importorskip("facenet_pytorch", reason="facenet-pytorch is not installed").MTCNN
TOOL = ROOT / os.environ.get("FACENET_BUILD", "build/release") / "facenet_detect_tool"
WEIGHTS = ROOT / "weights/mtcnn.safetensors"
PICTURES = 200 if os.environ.get("FACENET_LONG") else 30


@pytest.fixture(scope="module")
def tool():
    for path in (TOOL, WEIGHTS):
        if not path.exists():
            pytest.skip(f"{path.name} is not there: run tools/test.sh")
    detector = DetectTool(TOOL, WEIGHTS, threads=2)
    yield detector
    detector.close()


@pytest.fixture(scope="module")
def mtcnn():
    return MTCNN(keep_all=True, device="cpu")


def assert_same(got, want) -> None:
    """As DESIGN asks: the same faces, boxes and landmarks within 0.05 px, scores within 1e-4. The order is the reference's."""
    assert len(got.boxes) == len(want.boxes)
    np.testing.assert_allclose(got.boxes, want.boxes, rtol=0, atol=0.05)
    np.testing.assert_allclose(got.landmarks, want.landmarks, rtol=0, atol=0.05)
    np.testing.assert_allclose(got.scores, want.scores, rtol=0, atol=1e-4)


@pytest.mark.parametrize("path", photographs(), ids=lambda p: p.stem)
def test_photographs(tool, mtcnn, path: pathlib.Path) -> None:
    picture = open_picture(path)
    assert_same(tool.detect(picture), reference(mtcnn, picture))


def test_generated(tool, mtcnn) -> None:
    compared = 0
    for name, picture in generated(PICTURES, seed=7):
        got = tool.detect(picture)
        try:
            want = reference(mtcnn, picture)
        except Exception:  # the reference's known fault: a picture thinner than the smallest face raises
            want = NOTHING
            assert min(picture.shape[:2]) < 20, name
        try:
            assert_same(got, want)
        except AssertionError as error:
            raise AssertionError(name) from error
        compared += 1
    assert compared == PICTURES


def test_threads_give_the_same_bits(tool) -> None:
    picture = open_picture(photographs()[0])
    single = DetectTool(TOOL, WEIGHTS, threads=1)
    for a, b in zip(tool.detect(picture), single.detect(picture)):
        assert np.array_equal(a, b)
    single.close()
