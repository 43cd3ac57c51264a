"""facenet.compat.deepface beside DeepFace itself, in a venv that has it (pip install deepface==0.0.103 xxhash werkzeug):

    PYTHONPATH=build/release/python VENV/bin/python deepface_reference.py FOLDER

DeepFace's network and detector are replaced by the engine's (its weights cannot be fetched here), so that everything around them is
compared: keys, types, dtypes, shapes, exceptions, boxes, crops, distances. FOLDER holds many.png, one.png, blank.png and db/. Prints a
JSON list: one object a call, {"call", "problem"}, with problem null where both agree.
"""

from __future__ import annotations

import base64
import contextlib
import inspect
import io
import json
import os
import sys
import warnings

import numpy as np

FOLDER = sys.argv[1]
os.environ["DEEPFACE_HOME"] = FOLDER
os.environ.setdefault("DEEPFACE_LOG_LEVEL", "50")
warnings.simplefilter("ignore")

import cv2  # noqa: E402
from deepface import DeepFace as theirs  # noqa: E402
from deepface.models.Detector import FacialAreaRegion  # noqa: E402
from deepface.models.FacialRecognition import FacialRecognition  # noqa: E402
from deepface.modules import modeling  # noqa: E402
from deepface.modules import verification as their_verification  # noqa: E402

from facenet.compat.deepface import DeepFace as ours  # noqa: E402
from facenet.compat.deepface import _backend  # noqa: E402
from facenet.compat.deepface.modules import verification as our_verification  # noqa: E402


class Network(FacialRecognition):
    def __init__(self, name):
        self.model_name, self.made = name, _backend.model(name)
        self.input_shape, self.output_shape = (160, 160), self.made.output_shape

    def forward(self, img):
        return self.made.forward(img)


class Faces:
    """The engine's MTCNN on the picture without the border that DeepFace lays around it where it aligns."""

    def detect_faces(self, img):
        rows, columns = np.flatnonzero(img.any(axis=(1, 2))), np.flatnonzero(img.any(axis=(0, 2)))
        if not len(rows):
            return []
        top, left = rows[0], columns[0]
        found = _backend.detector("mtcnn").detect(np.ascontiguousarray(img[top : rows[-1] + 1, left : columns[-1] + 1]), channels="bgr")
        out = []
        for face in found:
            x1, y1, x2, y2 = face.box
            eyes = [(int(x + left), int(y + top)) for x, y in face.landmarks[:2].tolist()]
            out.append(FacialAreaRegion(int(x1 + left), int(y1 + top), int(x2 - x1), int(y2 - y1), eyes[1], eyes[0], face.score))
        return out


with contextlib.suppress(Exception):
    modeling.build_model("facial_recognition", "nothing")  # makes cached_models
for name in ("Facenet", "Facenet512"):
    modeling.cached_models["facial_recognition"][name] = Network(name)
for name in ("mtcnn", "fastmtcnn", "opencv"):
    modeling.cached_models["face_detector"][name] = Faces()

# This package turns a face as OpenCV 4 does, by 1/32 of a pixel; OpenCV 5 by exact places. Of 255 levels at edges that is 1, and 3.
EXACT_PLACES = int(cv2.__version__.split(".")[0]) > 4
PIXEL = (3.1 if EXACT_PLACES else 1.1) / 255
VECTOR = 0.03 if EXACT_PLACES else 0.003  # of an embedding's length
LOOSE = {"distance": VECTOR / 3, "confidence": 1.0, "time": 60.0, "face": PIXEL}


def differ(got, want, key="", exact=False):
    """What differs, or None."""
    if type(got) is not type(want) and not (isinstance(got, Exception) and isinstance(want, Exception)):
        return f"{key}: {type(got).__name__}, and {type(want).__name__} there"
    if isinstance(want, Exception):
        names = {base.__name__ for base in type(got).__mro__}
        return None if type(want).__name__ in names else f"{type(got).__name__}, and {type(want).__name__} there: {got} / {want}"
    if isinstance(want, dict):
        if list(got) != list(want) and not key.startswith("rows"):
            return f"{key}: keys {list(got)}, and {list(want)} there"
        if set(got) != set(want):
            return f"{key}: keys {sorted(got)}, and {sorted(want)} there"
        return next(filter(None, (differ(got[k], want[k], k, exact) for k in want)), None)
    if type(want).__name__ == "DataFrame":
        if list(got.columns) != list(want.columns):
            return f"columns {list(got.columns)}, and {list(want.columns)} there"
        if [str(t) for t in got.dtypes] != [str(t) for t in want.dtypes] or got.shape != want.shape:
            return f"dtypes {list(got.dtypes)} {got.shape}, and {list(want.dtypes)} {want.shape} there"
        return next(filter(None, (differ(got[c].tolist(), want[c].tolist(), c, exact) for c in want.columns)), None)
    if isinstance(want, np.ndarray):
        if got.dtype != want.dtype or got.shape != want.shape:
            return f"{key}: {got.dtype}{got.shape}, and {want.dtype}{want.shape} there"
        off = np.abs(got.astype(float) - want).max(initial=0)
        return None if off <= LOOSE.get(key, 0) * max(1.0, float(np.ptp(want)) if want.size else 0) else f"{key}: off by {off}"
    if key == "embedding" and len(got) == len(want) and {type(v) for v in (*got, *want)} == {float}:
        off = np.linalg.norm(np.subtract(got, want)) / np.linalg.norm(want)
        return None if off <= VECTOR else f"embedding: off by {off} of its length"
    if isinstance(want, (list, tuple)):
        if len(got) != len(want):
            return f"{key}: {len(got)} items, and {len(want)} there"
        return next(filter(None, (differ(g, w, key or "rows", exact) for g, w in zip(got, want))), None)
    if isinstance(want, (float, np.floating)):
        bound = 1e-9 if exact else LOOSE.get(key, 0)
        return None if got == want or abs(got - want) <= bound * max(1, abs(want)) else f"{key}: {got}, and {want} there"
    return None if got == want else f"{key}: {got}, and {want} there"


def farthest(p, q):
    return np.abs(p - q).max()


def path(name):
    return os.path.join(FOLDER, name)


one, many, blank = (cv2.imread(path(f"{name}.png")) for name in ("one", "many", "blank"))
with open(path("one.png"), "rb") as file:
    png = file.read()
text = "data:image/png;base64," + base64.b64encode(png).decode()
crop = np.ascontiguousarray(one[20:170, 30:180])  # square: of others DeepFace exchanges w and h
random = np.random.default_rng(1)
a, b = random.normal(size=(3, 512)), random.normal(size=(4, 512))
F, F5 = {"model_name": "Facenet", "detector_backend": "mtcnn"}, {"model_name": "Facenet512", "detector_backend": "mtcnn"}
skip = {"detector_backend": "skip"}

CALLS = {
    "represent": lambda d: d.represent(path("one.png"), **F5),
    "represent, 128": lambda d: d.represent(path("one.png"), **F),
    "represent an array": lambda d: d.represent(one, **F5),
    "represent base64": lambda d: d.represent(text, **F),
    "represent an open file": lambda d: d.represent(io.BytesIO(png), **F),
    "represent many faces": lambda d: d.represent(many, **F),
    "represent a list": lambda d: d.represent([one, many], **F),
    "represent a list of one": lambda d: d.represent([one], **F),
    "represent 4-d": lambda d: d.represent(np.stack([one, one]), **F),
    "represent max_faces": lambda d: d.represent(many, max_faces=1, **F),
    "represent return_face": lambda d: d.represent(crop, return_face=True, model_name="Facenet", **skip),
    "represent l2": lambda d: d.represent(crop, l2_normalize=True, model_name="Facenet", **skip),
    "represent minmax": lambda d: d.represent(crop, minmax_normalize=True, model_name="Facenet512", **skip),
    "represent floats": lambda d: d.represent(crop / 255, model_name="Facenet512", **skip),
    "represent blank": lambda d: d.represent(blank, **F),
    "represent blank, not enforced": lambda d: d.represent(blank + np.uint8(9), enforce_detection=False, **F),
    "represent a model that is not there": lambda d: d.represent(one, model_name="NoNet"),
    "represent nothing": lambda d: d.represent(path("gone.png"), **F),
    "represent a number": lambda d: d.represent(3, **F),
    "represent a list of nothing": lambda d: d.represent([], **F),
    **{f"represent {n}": lambda d, n=n: d.represent(crop, normalization=n, return_face=True, model_name="Facenet", **skip)
       for n in ("raw", "Facenet", "Facenet2018", "VGGFace", "VGGFace2", "ArcFace", "none")},
    "extract_faces": lambda d: d.extract_faces(path("one.png"), "mtcnn"),
    "extract_faces many": lambda d: d.extract_faces(many, "mtcnn"),
    "extract_faces not aligned": lambda d: d.extract_faces(many, "mtcnn", align=False),
    "extract_faces expanded": lambda d: d.extract_faces(many, "mtcnn", expand_percentage=30),
    "extract_faces expanded, not aligned": lambda d: d.extract_faces(one, "mtcnn", align=False, expand_percentage=50),
    "extract_faces negative": lambda d: d.extract_faces(one, "mtcnn", expand_percentage=-5),
    "extract_faces near the edge": lambda d: d.extract_faces(one[30:, 40:], "mtcnn"),
    "extract_faces grey": lambda d: d.extract_faces(one, "mtcnn", color_face="gray"),
    "extract_faces grayscale": lambda d: d.extract_faces(one, "mtcnn", grayscale=True),
    "extract_faces bgr": lambda d: d.extract_faces(one, "mtcnn", color_face="bgr", normalize_face=False),
    "extract_faces colour": lambda d: d.extract_faces(one, "mtcnn", color_face="cmyk"),
    "extract_faces a list": lambda d: d.extract_faces([path("one.png"), one], "mtcnn"),
    "extract_faces skip": lambda d: d.extract_faces(one, "skip"),
    "extract_faces blank": lambda d: d.extract_faces(blank, "mtcnn"),
    "extract_faces blank, not enforced": lambda d: d.extract_faces(blank, "mtcnn", enforce_detection=False),
    "extract_faces grey array": lambda d: d.extract_faces(one[..., 0], "mtcnn"),
    "extract_faces backend": lambda d: d.extract_faces(one, "nothing"),
    "verify": lambda d: d.verify(one, many, **F5),
    **{f"verify {m}": lambda d, m=m: d.verify(path("one.png"), one[:, ::-1], distance_metric=m, **F)
       for m in ("cosine", "euclidean", "euclidean_l2", "angular")},
    "verify itself": lambda d: d.verify(one, one, **F),
    "verify threshold": lambda d: d.verify(one, many, threshold=0.01, **F),
    "verify threshold 0": lambda d: d.verify(one, many, threshold=0, **F),
    "verify a function": lambda d: d.verify(one, many, threshold=9.0, distance_metric=farthest, **F),
    "verify a function without": lambda d: d.verify(one, many, distance_metric=lambda p, q: 1, **F),
    "verify a metric": lambda d: d.verify(one, many, distance_metric="manhattan", **F),
    "verify blank": lambda d: d.verify(one, blank, **F),
    "verify blank, not enforced": lambda d: d.verify(one, blank + np.uint8(9), enforce_detection=False, **F),
    "verify nothing": lambda d: d.verify(one, path("gone.png"), **F),
    "verify embeddings": lambda d: d.verify(a[0].tolist(), b[0].tolist(), silent=True, **F5),
    "verify embeddings of another": lambda d: d.verify(a[0].tolist(), b[0].tolist(), silent=True, **F),
    "verify texts": lambda d: d.verify(["x"], one, **F),
    "verify skip": lambda d: d.verify(crop, one, model_name="Facenet", **skip),
    "find": lambda d: d.find(one, path("db"), silent=True, **F5),
    "find again": lambda d: d.find(one, path("db"), silent=True, **F5),
    "find many": lambda d: d.find(many, path("db"), silent=True, similarity_search=True, **F),
    "find k": lambda d: d.find(many, path("db"), silent=True, similarity_search=True, k=1, **F),
    "find threshold": lambda d: d.find(many, path("db"), silent=True, threshold=1e-9, **F),
    "find euclidean": lambda d: d.find(one, path("db"), silent=True, distance_metric="euclidean", **F),
    "find dict": lambda d: d.find(many, path("db"), silent=True, return_type="dict", **F),
    "find list": lambda d: d.find(many, path("db"), silent=True, return_type="list", **F),
    "find without refreshing": lambda d: d.find(one, path("db"), silent=True, refresh_database=False, **F),
    "find skip": lambda d: d.find(crop, path("db"), silent=True, model_name="Facenet", **skip),
    "find nowhere": lambda d: d.find(one, path("gone"), silent=True, **F),
    "find in an empty folder": lambda d: d.find(one, path("empty"), silent=True, **F),
    "find blank": lambda d: d.find(blank, path("db"), silent=True, **F),
    "find a format": lambda d: d.find(one, path("db"), silent=True, datastore_format="csv", **F),
}

EXACT = {
    **{f"distance {m}": lambda v, m=m: v.find_distance(a[0], b[0], m) for m in ("cosine", "euclidean", "euclidean_l2", "angular")},
    **{f"distances {m}": lambda v, m=m: v.find_distance(a, b, m) for m in ("cosine", "euclidean", "euclidean_l2", "angular")},
    "distance of lists": lambda v: v.find_distance(a[0].tolist(), b[0].tolist()),
    "distance of shapes": lambda v: v.find_distance(a[0], b),
    "distance metric": lambda v: v.find_distance(a[0], b[0], "x"),
    "cosine of shapes": lambda v: v.find_cosine_distance(a[0], b),
    "threshold of a metric": lambda v: v.find_threshold("Facenet", "x"),
    "thresholds": lambda v: [v.find_threshold(n, m) for n in ("Facenet", "Facenet512") for m in ("cosine", "euclidean", "euclidean_l2", "angular")],
    "confidences": lambda v: [
        v.find_confidence(d, n, s, m) for n in ("Facenet", "Facenet512") for m in ("cosine", "euclidean", "euclidean_l2", "angular", "x")
        for s in (True, False) for d in (-1.0, 0.0, 1e-3, 0.1, 0.29, 0.4, 0.8, 1.2, 9.0, 23.0, 60.0, 1e6)
    ],
    "unit": lambda v: v.l2_normalize(a, axis=1),
}  # fmt: skip


def outcome(call, package):
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return call(package)
    except Exception as e:
        return e


results = []
for name, call in CALLS.items():
    results.append({"call": name, "problem": differ(outcome(call, ours), outcome(call, theirs))})
for name, call in EXACT.items():
    results.append({"call": name, "problem": differ(outcome(call, our_verification), outcome(call, their_verification), exact=True)})
for name in ("represent", "verify", "find", "extract_faces", "build_model"):
    got, want = (
        [(p.name, p.default) for p in inspect.signature(getattr(package, name)).parameters.values()] for package in (ours, theirs)
    )
    results.append({"call": f"signature of {name}", "problem": None if got == want else f"{got}, and {want} there"})
print(json.dumps(results))
