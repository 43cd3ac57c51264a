"""align.hpp against facenet-pytorch's extract_face and scikit-image's SimilarityTransform."""

from __future__ import annotations

import numpy as np
import pytest
from detection import DetectTool
from facenet_pytorch.models.utils.detect_face import extract_face
from PIL import Image
from test_detector import program, weight_file  # noqa: F401 (fixtures)

ARCFACE = np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]])


@pytest.fixture(scope="module")
def tool(program, weight_file):  # noqa: F811
    tool = DetectTool(program, weight_file, threads=1)
    yield tool
    tool.close()


def umeyama(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The paper's equations 39 to 43, by singular values: nothing in common with the quotient in align.hpp."""
    s, t = source - source.mean(0), target - target.mean(0)
    u, d, vt = np.linalg.svd(t.T @ s / len(s))
    sign = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = u @ np.diag(sign) @ vt
    scale = (d * sign).sum() / s.var(0).sum()
    return np.column_stack([scale * rotation, target.mean(0) - scale * rotation @ source.mean(0)])


def faces(count: int):
    """Landmarks as faces have them: turned, scaled, shifted, each point moved by a twentieth; some mirrored."""
    rng = np.random.default_rng(2)
    for number in range(count):
        angle, size = rng.uniform(-np.pi, np.pi), np.exp(rng.uniform(np.log(20), np.log(2000)))
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        points = (ARCFACE / 112 - 0.5 + rng.normal(0, 0.05, (5, 2))) * size
        if number % 5 == 0:
            points[:, 0] *= -1
        yield (points @ turn.T + rng.uniform(-500, 3000, 2)).astype(np.float32)


def test_the_estimate_is_umeyamas(tool) -> None:
    picture = np.zeros((8, 8, 3), np.uint8)
    for points in faces(200):
        want = umeyama(points.astype(np.float64), (ARCFACE * (160 / 112)).astype(np.float32).astype(np.float64))
        _, got = tool.align(picture, points, 160)
        assert np.allclose(got, want, rtol=0, atol=1e-5)


def test_the_estimate_is_scikit_images(tool) -> None:
    transform = pytest.importorskip("skimage.transform")
    picture = np.zeros((8, 8, 3), np.uint8)
    for points in faces(200):
        want = transform.SimilarityTransform()
        assert want.estimate(points.astype(np.float64), (ARCFACE * (160 / 112)).astype(np.float32).astype(np.float64))
        _, got = tool.align(picture, points, 160)
        assert np.allclose(got, want.params[:2], rtol=0, atol=1e-5)


def sample(picture: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """Bilinear, black outside, rounded to nearest: in double, pixel by pixel of the output."""
    y, x = np.mgrid[:size, :size].astype(float)
    back = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))
    u, v = (back[row, 0] * x + back[row, 1] * y + back[row, 2] for row in (0, 1))
    u0, v0 = np.floor(u).astype(int), np.floor(v).astype(int)
    h, w, _ = picture.shape
    out = np.zeros((size, size, 3))
    for dv in (0, 1):
        for du in (0, 1):
            inside = (u0 + du >= 0) & (u0 + du < w) & (v0 + dv >= 0) & (v0 + dv < h)
            weight = (1 - abs(u - u0 - du)) * (1 - abs(v - v0 - dv)) * inside
            out += weight[..., None] * picture[np.clip(v0 + dv, 0, h - 1), np.clip(u0 + du, 0, w - 1)]
    return np.floor(out + 0.5).astype(np.uint8)


def test_a_face_of_the_output_s_size_is_sampled_bilinearly(tool) -> None:
    """Half a level where float and double round apart; also faces that reach out of the picture."""
    rng = np.random.default_rng(4)
    picture = rng.integers(0, 256, (300, 260, 3), np.uint8)
    for points in list(faces(400)):
        points = points - points.mean(0) + rng.uniform(0, 300, 2).astype(np.float32)
        face, matrix = tool.align(picture, points, 112)
        if not 0.51 < np.hypot(matrix[0, 0], matrix[1, 0]) < 4:
            continue
        difference = np.abs(face.astype(int) - sample(picture, matrix, 112))
        assert difference.max() <= 1 and (difference > 0).mean() < 0.01


def test_a_large_face_is_averaged_first(tool) -> None:
    """Noise of a face ten times the output's size becomes grey, and a ramp stays a ramp."""
    rng = np.random.default_rng(5)
    points = (ARCFACE * 10 + 40).astype(np.float32)
    noise = rng.integers(0, 256, (1200, 1200, 3), np.uint8)
    face, _ = tool.align(noise, points, 112)
    assert face[2:-2, 2:-2].std() < 74 / 10 * 1.2  # 74: deviation of one pixel; a hundred are averaged
    ramp = np.broadcast_to((np.arange(1200) / 5).astype(np.uint8)[None, :, None], (1200, 1200, 3)).copy()
    face, matrix = tool.align(ramp, points, 112)
    want = (np.arange(112) - matrix[0, 2]) / matrix[0, 0] / 5
    assert np.abs(face[50, 2:-2, 0] - want[2:-2]).max() < 1.5


def test_no_fit_is_an_error(tool) -> None:
    picture = np.zeros((8, 8, 3), np.uint8)
    for points in (np.full((5, 2), 7.0), np.full((5, 2), np.nan), np.full((5, 2), np.inf)):
        with pytest.raises(RuntimeError, match="invalid_argument"):
            tool.align(picture, points, 112)


def test_the_box_is_facenet_pytorchs(tool) -> None:
    rng = np.random.default_rng(6)
    picture = rng.integers(0, 256, (240, 320, 3), np.uint8)
    image = Image.fromarray(picture)
    for _ in range(150):
        x, y = rng.uniform(-40, 280), rng.uniform(-40, 200)
        box = np.array([x, y, x + rng.uniform(42, 200), y + rng.uniform(42, 200)], np.float32)
        margin = int(rng.choice([0, 0, 14, 44]))
        want = extract_face(image, box, 160, margin).numpy().transpose(1, 2, 0).astype(np.uint8)
        assert np.array_equal(tool.extract(picture, box, 160, margin), want), (box, margin)


@pytest.mark.parametrize("box", [(400, 10, 500, 90), (-90, 10, -5, 90), (50, 50, 50, 90), (np.nan, 0, 50, 50)])
def test_a_box_without_pixels_is_an_error(tool, box) -> None:
    with pytest.raises(RuntimeError, match="invalid_argument"):
        tool.extract(np.zeros((240, 320, 3), np.uint8), np.array(box), 160, 0)
