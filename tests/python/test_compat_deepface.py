"""facenet.compat.deepface: DeepFace's calls on the engine, with made checkpoints and MTCNN's real weights.

Numbers that DeepFace measured are written down here once more. deepface_reference.py compares 97 calls with DeepFace itself, where a
venv has it. The migration pages' own calls run in test_migrating.py.
"""

from __future__ import annotations

import base64
import http.server
import io
import json
import os
import pathlib
import pickle
import shutil
import subprocess
import sys
import threading
import types
import warnings

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

BUILD = ROOT / os.environ.get("FACENET_BUILD", "build/release")
PACKAGE = BUILD / "python"
BUILT = bool(list(PACKAGE.glob("facenet/_engine*.so")))
SAMPLES = ROOT / ".deps/samples"
pytestmark = [
    pytest.mark.skipif(not BUILT, reason=f"{PACKAGE} is not built"),
    pytest.mark.skipif(not (SAMPLES / "sample1.jpg").exists(), reason=f"{SAMPLES} is not there: run tools/bootstrap.sh"),
]
if BUILT:
    sys.path.insert(0, str(PACKAGE))
    import facenet
    from facenet import _downloads
    from facenet.compat import deepface
    from facenet.compat.deepface import DeepFace, _backend, _opencv
    from facenet.compat.deepface.commons import image_utils
    from facenet.compat.deepface.modules import detection, exceptions, preprocessing, recognition, verification

ENVS = [path for path in (ROOT / ".venv-deepface/bin/python", ROOT / "build/venv-deepface/bin/python") if path.exists()]
F = {"model_name": "Facenet", "detector_backend": "mtcnn"}
SKIP = {"model_name": "Facenet", "detector_backend": "skip"}
AREA = ["x", "y", "w", "h", "left_eye", "right_eye"]


@pytest.fixture(scope="module")
def plain512(checkpoint512, tmp_path_factory):
    path = tmp_path_factory.mktemp("plain") / "plain.safetensors"
    _downloads.plain(str(checkpoint512), str(path))
    return path


@pytest.fixture(autouse=True)
def weights(monkeypatch, converted, plain512, mtcnn_file):
    monkeypatch.setenv("FACENET_DETECTOR", str(mtcnn_file))
    monkeypatch.setenv("FACENET_DEEPFACE_FACENET", str(converted["f32"]))
    monkeypatch.setenv("FACENET_DEEPFACE_FACENET512", str(plain512))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    """one.png: a face. many.png: three. blank.png: none. db/: the first two, the second once more in a folder, and files to ignore."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "db/sub").mkdir(parents=True)
    with Image.open(SAMPLES / "astronaut.png") as image:
        one = image.convert("RGB").crop((120, 20, 360, 240))
    with Image.open(SAMPLES / "sample1.jpg") as image:
        many = image.convert("RGB").resize((image.width // 2, image.height // 2), Image.BILINEAR)
    one.save(folder / "one.png")
    many.save(folder / "many.png")
    blank = Image.new("RGB", (60, 50), (9, 9, 9))
    blank.save(folder / "blank.png")
    one.save(folder / "db/one.png")
    one.transpose(Image.FLIP_LEFT_RIGHT).save(folder / "db/sub/mirrored.PNG")
    blank.save(folder / "db/blank.png")
    (folder / "db/text.png").write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def one(folder):
    return image_utils.load_image(str(folder / "one.png"))[0]


@pytest.fixture(scope="module")
def crop(one):
    return np.ascontiguousarray(one[20:170, 30:180])


def refused(call, kind, *words):
    with pytest.raises(kind) as caught:
        call()
    assert isinstance(caught.value, facenet.FacenetError) and str(caught.value).endswith("."), caught.value
    assert all(word in str(caught.value) for word in words), caught.value
    return caught.value


# ---- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "metric", "threshold"), [
    ("Facenet", "cosine", 0.40), ("Facenet", "euclidean", 10), ("Facenet", "euclidean_l2", 0.80), ("Facenet", "angular", 0.33),
    ("Facenet512", "cosine", 0.30), ("Facenet512", "euclidean", 23.56), ("Facenet512", "euclidean_l2", 1.04), ("Facenet512", "angular", 0.35),
])  # fmt: skip
def test_thresholds(model, metric, threshold):
    got = verification.find_threshold(model, metric)
    assert got == threshold and type(got) is type(threshold)


def test_distances():
    a, b = np.array([3.0, 4.0, 0.0]), np.array([0.0, 4.0, 3.0])
    assert verification.find_distance(a, b, "cosine") == 0.36 and verification.find_distance(a, b) == 0.36
    assert verification.find_distance(a, b, "euclidean") == 4.242641
    assert verification.find_distance(a, b, "euclidean_l2") == round(0.72**0.5, 6)
    assert verification.find_distance(a.tolist(), b.tolist(), "angular") == round(np.arccos(0.64) / np.pi, 6)
    rows, queries = np.stack([a, b]), np.stack([a, b, a + b])
    for metric in verification.METRICS:
        matrix = verification.find_distance(rows, queries, metric)
        assert matrix.shape == (3, 2)
        assert np.allclose(matrix, [[verification.find_distance(r, q, metric) for r in rows] for q in queries], atol=1e-5)  # an angle of 0 is off by the root of a rounding error
    assert verification.find_distance(a, b, lambda p, q: float(p @ q)) == 16
    assert verification.find_threshold("Facenet", lambda p, q: 0) == 0
    refused(lambda: verification.find_distance(a, rows), ValueError, "[3] and [2, 3]")
    refused(lambda: verification.find_cosine_distance(a, rows), exceptions.InvalidEmbeddingsShapeError)
    refused(lambda: verification.find_distance(a, b, "manhattan"), ValueError, "euclidean_l2")
    refused(lambda: verification.find_threshold("ArcFace", "cosine"), ValueError, "Facenet512")


@pytest.mark.parametrize(("distance", "model", "verified", "metric", "confidence"), [
    (0.0, "Facenet", True, "cosine", 100.0), (0.0, "Facenet", False, "cosine", 0.0), (0.5, "Facenet", True, "manhattan", 51),
    (0.1, "Facenet512", True, "cosine", 97.07), (0.29, "Facenet512", True, "cosine", 51.79), (0.6, "Facenet512", False, "cosine", 14.98),
    (1e6, "Facenet512", False, "euclidean", 0), (9.9, "Facenet", True, "euclidean", 51), (0.2, "Facenet", True, "angular", 76.47),
])  # fmt: skip
def test_confidences(distance, model, verified, metric, confidence):
    assert verification.find_confidence(distance, model, verified, metric) == pytest.approx(confidence, abs=0.005)


def test_what_opencv_would_do():
    random = np.random.default_rng(2)
    picture = random.integers(0, 256, (31, 41, 3), dtype=np.uint8)
    assert np.array_equal(_opencv.resize(picture, 41, 31), picture)
    even = picture[:30, :40].astype(np.float64)
    assert np.allclose(_opencv.resize(even, 20, 15), even.reshape(15, 2, 20, 2, 3).mean(axis=(1, 3)), atol=1e-4)
    floats = _opencv.resize(even, 67, 51)
    assert floats.dtype == np.float64 and np.abs(_opencv.resize(picture[:30, :40], 67, 51) - floats).max() <= 1.01  # 11 bits of weights
    assert _opencv.resize(picture.astype(np.float32), 7, 9).dtype == np.float32
    assert np.array_equal(_opencv.rotate(picture, 0, (0, 0, 41, 31)), picture)
    square = picture[:, 5:36]
    assert np.array_equal(_opencv.rotate(square, 90, (0, 0, 31, 31)), np.rot90(square))
    assert np.array_equal(_opencv.rotate(square, -30, (4, 6, 20, 30)), _opencv.rotate(square, -30, (0, 0, 31, 31))[6:30, 4:20])
    turned = _opencv.rotate(np.full((31, 31, 3), 200, np.uint8), 45, (0, 0, 31, 31))
    assert (turned[15, 15] == 200).all() and (turned[0, 0] == 0).all()
    assert _opencv.grey(np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)).tolist() == [[29, 150, 76]]


@pytest.mark.parametrize(("name", "first", "last"), [
    ("base", 0, 1), ("raw", 0, 255), ("Facenet2018", -1, 1), ("ArcFace", -127.5 / 128, 127.5 / 128),
    ("VGGFace", -93.5940, 255 - 129.1863), ("VGGFace2", -91.4953, 255 - 131.0912),
])  # fmt: skip
def test_normalizations(name, first, last):
    img = np.linspace(0, 1, 12, dtype=np.float32).reshape(1, 2, 2, 3)
    out = preprocessing.normalize_input(img, name).ravel()
    assert out.dtype == np.float32 and out[0] == pytest.approx(first, abs=1e-4) and out[-1] == pytest.approx(last, abs=1e-4)
    assert img.max() == 1


def test_prewhitening_and_padding():
    img = preprocessing.resize_image(np.full((10, 40, 3), 200, np.uint8), (160, 160))
    assert img.shape == (1, 160, 160, 3) and img.dtype == np.float32
    assert (img[0, :60] == 0).all() and (img[0, 100:] == 0).all() and np.allclose(img[0, 60:100], 200 / 255)
    out = preprocessing.normalize_input(img, "Facenet")
    assert abs(out.mean()) < 1e-4 and out.std() == pytest.approx(1, abs=1e-4)
    refused(lambda: preprocessing.normalize_input(img, "x"), ValueError, "VGGFace2")
    refused(lambda: preprocessing.resize_image(np.zeros((2000, 2, 3), np.uint8), (160, 160)), ValueError, "narrow")


# ---- embeddings ------------------------------------------------------------------------------------------------------


def test_embeddings_keep_their_length(converted, plain512):
    """They point where the engine's unit vectors do."""
    x = np.random.default_rng(5).uniform(0, 1, (2, 160, 160, 3)).astype(np.float32)
    for name, dim, path in (("Facenet", 128, converted["f32"]), ("Facenet512", 512, plain512)):
        model = DeepFace.build_model(name, "facial_recognition")
        assert (model.model_name, model.input_shape, model.output_shape) == (f"FaceNet-{dim}d", (160, 160), dim)
        assert model is DeepFace.build_model(name)
        got = np.array(model.forward(x))
        with facenet.Embedder(path, threads=1) as embedder:
            unit = embedder.embed_nhwc(x)
        lengths = np.linalg.norm(got, axis=1, keepdims=True)
        assert got.shape == (2, dim) and lengths.min() > 2 and np.abs(got / lengths - unit).max() <= 1e-6
        assert model.forward(x[0]) == model.forward(x[:1]) == got[0].tolist()  # the same bits in any batch
        refused(lambda: model.forward(np.zeros((1, 112, 112, 3))), ValueError, "160")


@pytest.mark.slow
def test_embeddings_are_the_references(checkpoint512):
    """Before they are normalised, in float64. 3e-6 of their length, as for unit vectors, and as much for what the ones tell."""
    import torch
    from facenet_pytorch import InceptionResnetV1

    x = np.random.default_rng(5).uniform(0, 1, (2, 160, 160, 3)).astype(np.float32)
    network, state = InceptionResnetV1().eval().double(), torch.load(checkpoint512)
    network.load_state_dict({k: v.double() for k, v in state.items() if k != "facenet_untrained" and not k.startswith("logits")}, strict=False)
    kept = []
    network.last_bn.register_forward_hook(lambda *call: kept.append(call[2].numpy()))
    with torch.no_grad():
        network(torch.from_numpy(x).double().permute(0, 3, 1, 2))
    got = np.array(DeepFace.build_model("Facenet512").forward(x))
    assert np.abs(got - kept[0]).max() <= 2 * 3e-6 * np.linalg.norm(kept[0], axis=1).max()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["f16", "i8"])
def test_other_storage(kind, converted, monkeypatch, crop):
    want = np.array(DeepFace.represent(crop, **SKIP)[0]["embedding"])
    monkeypatch.setenv("FACENET_DEEPFACE_FACENET", str(converted[kind]))
    got = np.array(DeepFace.represent(crop, **SKIP)[0]["embedding"])
    assert 0 < np.linalg.norm(got - want) < 0.1 * np.linalg.norm(want)


def test_represent(folder, one, crop):
    (face,) = DeepFace.represent(str(folder / "one.png"), **F)
    assert list(face) == ["embedding", "facial_area", "face_confidence"] and list(face["facial_area"]) == AREA
    assert len(face["embedding"]) == 128 and {type(v) for v in face["embedding"]} == {float}
    assert face["face_confidence"] == 1.0 and all(type(face["facial_area"][side]) is int for side in "xywh")
    (left, _), (right, _) = face["facial_area"]["left_eye"], face["facial_area"]["right_eye"]
    assert left > right  # the person's own
    with open(folder / "one.png", "rb") as file:
        text = "data:image/png;base64," + base64.b64encode(file.read()).decode()
        for same in (one, folder / "one.png", text, file):
            assert DeepFace.represent(same, **F) == [face]
    assert DeepFace.represent([one], **F) == [face]
    both = DeepFace.represent([one, str(folder / "many.png")], **F)
    assert [len(faces) for faces in both] == [1, 3] and both[0] == [face]
    assert DeepFace.represent(np.stack([one, one]), **F) == [[face]] * 2
    largest = DeepFace.represent(str(folder / "many.png"), max_faces=1, **F)
    assert largest == [max(both[1], key=lambda f: f["facial_area"]["w"] * f["facial_area"]["h"])]

    (whole,) = DeepFace.represent(crop, return_face=True, **SKIP)
    assert whole["facial_area"] == {"x": 0, "y": 0, "w": 150, "h": 150} and whole["face_confidence"] == 0
    assert whole["face"].shape == (160, 160, 3) and whole["face"].dtype == np.float32 and whole["face"].max() <= 1
    exact = np.array(DeepFace.build_model("Facenet").forward(whole["face"]))
    assert whole["embedding"] == exact.tolist()
    assert np.allclose(DeepFace.represent(crop, l2_normalize=True, **SKIP)[0]["embedding"], exact / np.linalg.norm(exact))
    minmax = np.array(DeepFace.represent(crop, minmax_normalize=True, **SKIP)[0]["embedding"])
    assert np.allclose(minmax, (np.clip(exact, -3.541942596435547, 3.247769594192505) + 3.541942596435547) / 6.789712190628052)
    assert np.abs(np.array(DeepFace.represent(crop / 255, **SKIP)[0]["embedding"]) - exact).max() < 0.05 * np.linalg.norm(exact)  # not rounded
    assert DeepFace.represent(one[20:90, 30:180], **SKIP)[0]["facial_area"] == {"x": 0, "y": 0, "w": 150, "h": 70}
    assert DeepFace.represent(crop, normalization="Facenet", **SKIP)[0]["embedding"] != whole["embedding"]


def test_the_network_sees_bgr(crop):
    (face,) = DeepFace.represent(crop, return_face=True, **SKIP)
    assert np.abs(face["face"] - _opencv.resize(crop / 255, 160, 160)).max() <= 1.1 / 255


# ---- faces -----------------------------------------------------------------------------------------------------------


def test_extract_faces(folder, one):
    (face,) = DeepFace.extract_faces(one, "mtcnn")
    (found,) = facenet.Detector().detect(one, channels="bgr")
    assert list(face) == ["face", "facial_area", "confidence"] and face["confidence"] == round(found.score, 2)
    area = face["facial_area"]
    assert (area["x"], area["y"]) == tuple(int(v) for v in found.box[:2])
    assert (area["w"], area["h"]) == (int(found.box[2] - found.box[0]), int(found.box[3] - found.box[1]))
    assert (area["right_eye"], area["left_eye"]) == tuple(tuple(int(v) for v in eye) for eye in found.landmarks[:2])
    assert face["face"].shape == (area["h"], area["w"], 3) or abs(face["face"].shape[0] - area["h"]) <= 1
    assert face["face"].dtype == np.float64 and 0 <= face["face"].min() and face["face"].max() <= 1

    (raw,) = DeepFace.extract_faces(one, "mtcnn", align=False, color_face="bgr", normalize_face=False)
    x, y, w, h = (raw["facial_area"][side] for side in "xywh")
    assert np.array_equal(raw["face"], one[y : y + h, x : x + w])
    (rgb,) = DeepFace.extract_faces(str(folder / "one.png"), "mtcnn", align=False)
    assert np.array_equal(rgb["face"], raw["face"][..., ::-1] / 255)
    (wide,) = DeepFace.extract_faces(one, "mtcnn", align=False, expand_percentage=20)
    assert wide["facial_area"]["w"] == w + int(w * 0.2) and wide["facial_area"]["x"] == x - int(int(w * 0.2) / 2)
    for grey in (DeepFace.extract_faces(one, "mtcnn", grayscale=True), DeepFace.extract_faces(one, "mtcnn", color_face="gray")):
        assert grey[0]["face"].shape == face["face"].shape[:2]
    refused(lambda: DeepFace.extract_faces(one, "mtcnn", color_face="cmyk"), exceptions.UnimplementedError, "rgb")

    many = DeepFace.extract_faces(str(folder / "many.png"), "mtcnn")
    assert len(many) == 3
    blank = np.full((40, 50, 3), 7, np.uint8)
    assert [len(faces) for faces in DeepFace.extract_faces([one, blank], "mtcnn", enforce_detection=False)] == [1, 1]
    (nothing,) = DeepFace.extract_faces(blank, "mtcnn", enforce_detection=False)
    assert nothing["confidence"] == 0 and nothing["face"].shape == (40, 50, 3)
    assert nothing["facial_area"] == {"x": 0, "y": 0, "w": 49, "h": 39, "left_eye": None, "right_eye": None}
    refused(lambda: DeepFace.extract_faces(blank, "mtcnn"), exceptions.FaceNotDetected, "enforce_detection")
    assert np.array_equal(DeepFace.extract_faces(one, "skip")[0]["face"], one[..., ::-1] / 255)
    assert DeepFace.extract_faces(one / 255, "mtcnn")[0]["facial_area"] == area


def test_a_face_is_turned_upright(one):
    """A picture turned by 20 degrees: the crops are nearly the same, and more so than without."""
    turned = _opencv.rotate(one, 20, (0, 0, one.shape[1], one.shape[0]))

    def eyes_tilt(align):
        (face,) = detection.extract_faces(turned, "mtcnn", align=align, color_face="bgr", normalize_face=False)
        (found,) = facenet.Detector().detect(np.ascontiguousarray(np.pad(face["face"], ((30, 30), (30, 30), (0, 0)))), channels="bgr")
        (x1, y1), (x2, y2) = found.landmarks[:2].tolist()
        return abs(np.degrees(np.arctan2(y2 - y1, x2 - x1)))

    assert eyes_tilt(True) < 4 and eyes_tilt(False) > 10
    assert detection.project_facial_area((10, 20, 50, 60), 0, (80, 60)) == (10, 20, 50, 60)
    assert detection.project_facial_area((10, 20, 50, 60), 90, (80, 60)) == (10, 20, 50, 60)  # about its own middle
    assert detection.project_facial_area((0, 0, 20, 20), 90, (100, 100)) == (0, 80, 20, 100)


def test_backends(one, monkeypatch):
    monkeypatch.setattr(_backend, "_warned", False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        DeepFace.extract_faces(one, "mtcnn")
        DeepFace.extract_faces(one, "skip")
        assert not caught
        faces = DeepFace.extract_faces(one)
        DeepFace.extract_faces(one, "retinaface")
        DeepFace.represent(one, "Facenet", detector_backend="yolov11n")
    assert [str(w.message).split(":")[0] for w in caught] == ['detector_backend="opencv"']
    assert caught[0].filename == __file__ and caught[0].category is UserWarning
    assert faces[0]["facial_area"] == DeepFace.extract_faces(one, "fastmtcnn")[0]["facial_area"]
    refused(lambda: DeepFace.extract_faces(one, "nothing"), exceptions.UnimplementedError, "mtcnn")
    monkeypatch.setattr(deepface, "strict", True)
    refused(lambda: DeepFace.extract_faces(one), exceptions.UnimplementedError, "opencv", "strict")
    assert DeepFace.extract_faces(one, "mtcnn") and DeepFace.extract_faces(one, "skip")


# ---- verify ----------------------------------------------------------------------------------------------------------


def test_verify(folder, one):
    keys = ["verified", "distance", "threshold", "confidence", "model", "detector_backend", "similarity_metric", "facial_areas", "time"]
    same = DeepFace.verify(one, str(folder / "one.png"), **F)
    assert list(same) == keys and same["verified"] is True and abs(same["distance"]) < 1e-6 and same["threshold"] == 0.4
    assert same["confidence"] == 100 and same["model"] == "Facenet" and same["detector_backend"] == "mtcnn"
    assert list(same["facial_areas"]) == ["img1", "img2"] and list(same["facial_areas"]["img1"]) == AREA
    assert {type(same[key]) for key in ("distance", "confidence", "time")} == {float}

    (a,), many = DeepFace.represent(one, **F), DeepFace.represent(str(folder / "many.png"), **F)
    for metric in ("cosine", "euclidean"):
        result = DeepFace.verify(one, str(folder / "many.png"), distance_metric=metric, threshold=0, **F)
        distances = [verification.find_distance(a["embedding"], b["embedding"], metric) for b in many]
        assert result["distance"] == pytest.approx(min(distances), abs=2e-3 * max(1, min(distances))), metric
        assert result["facial_areas"]["img2"] == many[int(np.argmin(distances))]["facial_area"]
        assert result["verified"] is False and result["threshold"] == 0 and result["similarity_metric"] == metric


def test_verify_embeddings():
    random = np.random.default_rng(4)
    a, b = random.normal(size=(2, 512)).tolist()
    result = DeepFace.verify(a, b, model_name="Facenet512")
    assert result["distance"] == verification.find_distance(a, b) and result["facial_areas"]["img1"] == dict.fromkeys(AREA)
    assert DeepFace.verify(a, b, "Facenet512", distance_metric=lambda p, q: 0.25, threshold=0.25)["confidence"] == 51
    refused(lambda: DeepFace.verify(a, b, **F), exceptions.DimensionMismatchError, "512", "128")
    refused(lambda: DeepFace.verify([*a[1:], "x"], b, model_name="Facenet512"), exceptions.DataTypeError)
    refused(lambda: DeepFace.verify(a, b, "Facenet512", distance_metric=lambda p, q: 0), ValueError, "threshold")
    refused(lambda: DeepFace.verify(a, b, "Facenet512", distance_metric="x"), ValueError, "cosine")


def test_refusals(one, folder):
    gone = str(folder / "gone.png")
    for call in (DeepFace.represent, DeepFace.extract_faces):
        refused(lambda: call(gone, **(F if call is DeepFace.represent else {"detector_backend": "mtcnn"})), exceptions.ImgNotFound, gone)
    blank = np.zeros((40, 50, 3), np.uint8)
    error = refused(lambda: DeepFace.verify(one, blank, **F), ValueError, "img2_path", "enforce_detection")
    assert isinstance(error.__cause__, exceptions.FaceNotDetected)
    refused(lambda: DeepFace.verify(gone, one, **F), ValueError, "img1_path", gone)
    for model in ("VGG-Face", "ArcFace", "facenet"):
        refused(lambda: DeepFace.represent(one, model_name=model), exceptions.UnimplementedError, model, "Facenet512")
    refused(lambda: DeepFace.represent(one), exceptions.UnimplementedError, "default")
    for call in (lambda: DeepFace.represent(one, anti_spoofing=True, **F), lambda: DeepFace.extract_faces(one, "mtcnn", anti_spoofing=True),
                 lambda: DeepFace.verify(one, one, anti_spoofing=True, **F), lambda: DeepFace.find(one, str(folder), anti_spoofing=True, **F)):  # fmt: skip
        refused(call, exceptions.UnimplementedError, "anti_spoofing")
    for picture in (3, None, b"bytes"):
        refused(lambda: DeepFace.represent(picture, **F), exceptions.DataTypeError)
    for array in (one[..., 0], one[..., :2], np.zeros((40, 50, 4), np.uint8), np.zeros((0, 5, 3), np.uint8)):
        refused(lambda: DeepFace.represent(array, **F), ValueError, "BGR")
        refused(lambda: DeepFace.represent(array, **SKIP), ValueError, "BGR")
    refused(lambda: DeepFace.represent([], **F), ValueError)
    refused(lambda: DeepFace.represent(str(folder / "db/text.png"), **F), ValueError, "text.png")
    refused(lambda: DeepFace.represent(io.BytesIO(b"no picture"), **F), ValueError)
    refused(lambda: DeepFace.represent(io.StringIO("text"), **F), exceptions.DataTypeError, "binary")
    refused(lambda: DeepFace.represent("data:image/png;base64", **F), ValueError, "comma")
    refused(lambda: DeepFace.represent("data:image/png;base64,QUJD", **F), exceptions.DataTypeError, "PNG")
    refused(lambda: DeepFace.represent("data:image/png;base64,A", **F), ValueError, "base64")
    refused(lambda: DeepFace.build_model("Age", "facial_attribute"), exceptions.UnimplementedError, "face_detector")
    error = pickle.loads(pickle.dumps(error.__cause__))
    assert isinstance(error, exceptions.FaceNotDetected) and error.code == "not_found"
    with pytest.raises(AttributeError, match="use DeepFace itself"):
        DeepFace.analyze(one)
    assert not hasattr(DeepFace, "stream") and not hasattr(DeepFace, "x")


def test_urls(folder, one):
    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        picture, name = image_utils.load_image(f"{url}/one.png")
        assert np.array_equal(picture, one) and name == f"{url}/one.png"
        refused(lambda: image_utils.load_image(f"{url}/gone.png"), facenet.FacenetOSError, "gone.png")
        server.shutdown()
    refused(lambda: image_utils.load_image(f"{url}/one.png"), facenet.FacenetOSError, "Without a network")


# ---- find ------------------------------------------------------------------------------------------------------------

ROW = ["identity", "hash", "target_x", "target_y", "target_w", "target_h", "threshold", "source_x", "source_y", "source_w", "source_h",
       "distance", "confidence"]  # fmt: skip


@pytest.fixture
def db(folder, tmp_path):
    shutil.copytree(folder / "db", tmp_path / "db")
    return tmp_path / "db"


def test_find(folder, one, db, capfd):
    call = {"db_path": str(db), "return_type": "dict", **F}
    (rows,) = DeepFace.find(one, threshold=5.0, **call)
    assert [os.path.basename(row["identity"]) for row in rows] == ["one.png", "mirrored.PNG"]
    assert set(rows[0]) == set(ROW) and abs(rows[0]["distance"]) < 1e-6 and rows[0]["threshold"] == 5 and rows[0]["confidence"] == 100
    assert [rows[0][f"target_{side}"] for side in "xywh"] == [rows[0][f"source_{side}"] for side in "xywh"]
    assert rows[0]["hash"] == image_utils.find_image_hash(rows[0]["identity"])
    said = capfd.readouterr().err
    assert "embedding 3 pictures" in said and "blank.png is left out" in said
    (cache,) = db.glob("*.npz")
    assert cache.name.startswith("facenet_facenet_mtcnn_aligned_normalization_base_expand_0_")

    written = cache.stat().st_mtime_ns
    assert DeepFace.find(one, threshold=5.0, **call) == [rows] and not capfd.readouterr().err and cache.stat().st_mtime_ns == written
    assert [len(found) for found in DeepFace.find(str(folder / "many.png"), similarity_search=True, k=1, **call)] == [1, 1, 1]
    assert DeepFace.find(one, threshold=-1, **call) == [[]]
    assert DeepFace.find(one, refresh_database=False, threshold=5.0, **call) == [rows]
    with open(folder / "one.png", "rb") as file:  # a stream that is read once
        stream = types.SimpleNamespace(read=file.read)
        assert DeepFace.find(stream, refresh_database=False, threshold=5.0, **call) == [rows]

    (db / "sub/mirrored.PNG").unlink()  # what changed is seen; what did not is not embedded again
    shutil.copy(db / "one.png", db / "new.jpeg")
    with Image.open(db / "blank.png") as image:
        image.resize((90, 90)).save(db / "one.png")
    (rows,) = DeepFace.find(one, silent=True, **call)
    assert [os.path.basename(row["identity"]) for row in rows] == ["new.jpeg"] and not capfd.readouterr().err

    cache.write_bytes(b"damaged")
    assert len(DeepFace.find(one, silent=True, **call)[0]) == 1
    refused(lambda: DeepFace.find(one, refresh_database=False, align=False, **call), exceptions.EmptyDatasource)
    refused(lambda: DeepFace.find(one, **{**call, "db_path": str(db / "gone")}), exceptions.PathNotFound)
    refused(lambda: DeepFace.find(one, **{**call, "db_path": "s3://bucket"}), exceptions.UnimplementedError)
    refused(lambda: DeepFace.find(np.zeros((40, 40, 3), np.uint8), **call), exceptions.FaceNotDetected)
    refused(lambda: DeepFace.find(str(db / "none.png"), **call), exceptions.ImgNotFound)
    refused(lambda: DeepFace.find(one, datastore_format="feather", **call), exceptions.UnimplementedError, "npz")
    refused(lambda: DeepFace.find(one, **{**call, "return_type": "list"}), ValueError, "pandas")
    (db / "empty").mkdir()
    refused(lambda: DeepFace.find(one, **{**call, "db_path": str(db / "empty")}), exceptions.EmptyDatasource)


def test_find_where_nothing_can_be_written(one, db, monkeypatch, capfd):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    assert len(DeepFace.find(one, str(db), silent=True, threshold=5.0, return_type="dict", **F)[0]) == 2
    assert "No space left" in capfd.readouterr().err and not list(db.glob("*.npz")) and not list(db.glob(".facenet*"))


class Frame:
    """As much of pandas as find() uses."""

    def __init__(self, columns):
        self.columns = {name: np.asarray(values) for name, values in columns.items()}

    def __len__(self):
        return len(self.columns["identity"])

    def __setitem__(self, name, values):
        self.columns[name] = np.full(len(self), values) if np.isscalar(values) else np.asarray(values)

    def __getitem__(self, key):
        return self.columns[key] if isinstance(key, str) else Frame({name: values[key] for name, values in self.columns.items()})

    def sort_values(self, by, ascending):
        assert ascending
        return self[np.argsort(self.columns[by[0]])]

    def reset_index(self, drop):
        return self if drop else None

    def head(self, k):
        return self[np.arange(k)]


def test_find_gives_frames_where_there_is_pandas(one, db, monkeypatch):
    """With a stand-in, so that it runs without pandas; deepface_reference.py has the real one."""
    monkeypatch.setattr(recognition, "_pandas", lambda return_type: types.SimpleNamespace(DataFrame=Frame))
    (frame,) = DeepFace.find(one, str(db), silent=True, threshold=5.0, **F)
    assert list(frame.columns) == ROW and len(frame) == 2 and frame["threshold"].tolist() == [5.0, 5.0]
    (frame,) = DeepFace.find(one, str(db), silent=True, similarity_search=True, **F)
    assert len(frame) == 3 and frame["distance"][-1] == np.inf and frame["confidence"][-1] == 0
    assert len(DeepFace.find(one, str(db), silent=True, similarity_search=True, k=1, **F)[0]) == 1


def test_pandas_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        recognition._pandas("pandas")
    assert recognition._pandas("dict") is None


# ---- weights ---------------------------------------------------------------------------------------------------------


def test_where_weights_are_found(monkeypatch, tmp_path, converted, plain512):
    for name in ("FACENET_DEEPFACE_FACENET", "FACENET_DEEPFACE_FACENET512"):
        monkeypatch.delenv(name)
    error = refused(lambda: DeepFace.build_model("Facenet"), ValueError, "128", "FACENET_DEEPFACE_FACENET", "facenet_weights.safetensors")
    assert isinstance(error, FileNotFoundError) and isinstance(pickle.loads(pickle.dumps(error)), FileNotFoundError)
    refused(lambda: DeepFace.build_model("Facenet512"), ValueError, 'download("vggface2")')
    monkeypatch.setenv("FACENET_WEIGHTS", str(converted["f32"]))  # of 128 numbers
    assert _backend._weights("Facenet") == str(converted["f32"])
    refused(lambda: DeepFace.build_model("Facenet512"), FileNotFoundError)
    monkeypatch.setenv("FACENET_WEIGHTS", str(plain512))
    assert _backend._weights("Facenet512") == str(plain512)
    monkeypatch.setenv("DEEPFACE_HOME", str(tmp_path))
    folder = tmp_path / ".deepface/weights"
    folder.mkdir(parents=True)
    (folder / "facenet_weights.h5").write_bytes(b"")
    refused(lambda: DeepFace.build_model("Facenet"), ValueError, "python -m facenet.convert", "facenet_weights.h5")
    (folder / "facenet_weights.safetensors").symlink_to(converted["f16"])
    assert _backend._weights("Facenet") == str(folder / "facenet_weights.safetensors")
    monkeypatch.setenv("FACENET_DEEPFACE_FACENET", str(plain512))
    refused(lambda: DeepFace.build_model("Facenet"), ValueError, "128", "512", str(plain512))
    monkeypatch.setenv("FACENET_DEEPFACE_FACENET", str(tmp_path / "gone"))
    refused(lambda: DeepFace.build_model("Facenet"), FileNotFoundError, "gone")
    (tmp_path / "text").write_text("no weights, as anybody can see")
    monkeypatch.setenv("FACENET_DEEPFACE_FACENET", str(tmp_path / "text"))
    refused(lambda: DeepFace.build_model("Facenet"), ValueError, "text")


# ---- scripts ---------------------------------------------------------------------------------------------------------

SCRIPT = """
import sys
import deepface
from deepface import DeepFace
from deepface.DeepFace import verify
from deepface.modules import verification
from deepface.modules.exceptions import FaceNotDetected
from deepface.commons import image_utils
assert "cv2" not in sys.modules and "tensorflow" not in sys.modules and "pandas" not in sys.modules and "torch" not in sys.modules
objs = DeepFace.represent(img_path=sys.argv[1], model_name="Facenet", detector_backend="opencv")
print(DeepFace.verify is verify, len(objs[0]["embedding"]), deepface.__version__, verification.find_threshold("Facenet512", "cosine"))
try:
    DeepFace.represent(sys.argv[2], "Facenet")
except FaceNotDetected as e:
    print(type(e).__module__)
"""


def test_a_script_runs_unchanged(tmp_path, folder):
    (tmp_path / "script.py").write_text(SCRIPT)
    call = [sys.executable, "-m", "facenet.compat", tmp_path / "script.py", folder / "one.png", folder / "blank.png"]
    environment = dict(os.environ, PYTHONPATH=str(PACKAGE))
    done = subprocess.run([*map(str, call)], capture_output=True, text=True, timeout=120, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["True 128 0.0.103 0.3", "facenet.compat.deepface.modules.exceptions"]
    assert done.stderr.count("UserWarning") == 1
    done = subprocess.run([*map(str, call)], capture_output=True, text=True, timeout=120, check=False, env={**environment, "FACENET_DEEPFACE_STRICT": "1"})
    assert done.returncode != 0 and "UnimplementedError" in done.stderr and "strict" in done.stderr


def test_the_deep_paths_are_those_that_the_runner_replaces():
    from facenet.compat.__main__ import _DEEPFACE

    base = pathlib.Path(deepface.__file__).parent
    there = {"." + str(path.relative_to(base).with_suffix("")).replace("/", ".").removesuffix(".__init__") for path in base.rglob("*.py")}
    assert {name for name in there if not name.startswith("._")} == set(_DEEPFACE) - {""}


@pytest.mark.slow
@pytest.mark.parametrize("python", ENVS or [pytest.param(None, marks=pytest.mark.skip(reason="no venv has DeepFace: bench/compare_pipeline.py makes one"))])
def test_beside_deepface_itself(python, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "pictures")
    (tmp_path / "pictures/empty").mkdir()
    call = [python, ROOT / "tests/python/deepface_reference.py", tmp_path / "pictures"]
    environment = dict(os.environ, PYTHONPATH=str(PACKAGE))
    done = subprocess.run([*map(str, call)], capture_output=True, text=True, timeout=600, env=environment, check=False)
    if "ModuleNotFoundError" in done.stderr:
        pytest.skip(done.stderr.splitlines()[-1])
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout.splitlines()[-1])
    assert len(results) > 90 and not [result for result in results if result["problem"]]
