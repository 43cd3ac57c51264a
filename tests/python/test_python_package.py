"""The Python package, as docs/python.md promises it: what the build folder has of it (target facenet_python)."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image
from python_package import BUILD, BUILT, PACKAGE, needs_package, run_python, said

pytestmark = needs_package
if BUILT:
    import facenet

ASTRONAUT = ROOT / ".deps/samples/astronaut.png"
needs_portrait = pytest.mark.skipif(not ASTRONAUT.exists(), reason=f"{ASTRONAUT} is not there: run tools/bootstrap.sh")


@pytest.fixture(scope="session")
def embedder(converted):
    with facenet.Embedder(converted["f32"], threads=1) as made:
        yield made


@pytest.fixture(scope="session")
def detector(mtcnn_file):
    with facenet.Detector(mtcnn_file, threads=1) as made:
        yield made


@pytest.fixture
def crop() -> np.ndarray:
    from facenet_tools import pictures

    return np.ascontiguousarray(pictures.structured(np.random.default_rng(8)))


# ---- embeddings ------------------------------------------------------------------------------------------------------


def test_every_way_to_give_a_crop_is_the_same_picture(embedder, crop, tmp_path):
    expected = embedder.embed(crop)
    assert expected.shape == (128,) and expected.dtype == np.float32 and abs(np.linalg.norm(expected) - 1) < 1e-6
    Image.fromarray(crop).save(tmp_path / "crop.png")
    read_only, wide = crop.copy(), np.zeros((160, 200, 3), np.uint8)
    read_only.flags.writeable = False
    wide[:, 20:180] = crop
    bgr = np.ascontiguousarray(crop[..., ::-1])
    ways = {
        "read-only": read_only,
        "rows with gaps": wide[:, 20:180],
        "bottom up": np.ascontiguousarray(crop[::-1])[::-1],
        "mirrored twice": np.ascontiguousarray(crop[:, ::-1])[:, ::-1],
        "BGR turned round": bgr[..., ::-1],
        "Fortran's order": np.asfortranarray(crop),
        "CHW turned round": np.ascontiguousarray(crop.transpose(2, 0, 1)).transpose(1, 2, 0),
        "memoryview": memoryview(crop),
        "path": tmp_path / "crop.png",
        "name": str(tmp_path / "crop.png"),
        "bytes": (tmp_path / "crop.png").read_bytes(),
        "PIL": Image.fromarray(crop),
        "PIL with alpha": Image.fromarray(np.dstack([crop, np.full((160, 160), 255, np.uint8)])),
    }
    for name, way in ways.items():
        assert np.array_equal(embedder.embed(way), expected), name
    assert np.array_equal(embedder.embed(bgr, channels="bgr"), expected)
    assert not np.array_equal(embedder.embed(bgr), expected)  # nothing guesses
    assert np.array_equal(embedder.embed(list(ways.values())), np.stack([expected] * len(ways)))
    assert np.array_equal(embedder.embed([bgr, tmp_path / "crop.png"], channels="bgr"), np.stack([expected] * 2))
    assert np.array_equal(embedder.embed(np.stack([crop] * 3)), np.stack([expected] * 3))
    assert np.array_equal(embedder.embed(np.stack([wide] * 2)[:, :, 20:180]), np.stack([expected] * 2))


def test_it_is_the_reference(embedder, crop, state):
    """Against PyTorch in float64, within the 3e-6 that every build keeps."""
    import torch
    from facenet_pytorch import InceptionResnetV1

    network = InceptionResnetV1(pretrained=None).eval().double()
    network.last_linear = torch.nn.Linear(1792, 128, bias=False).double()
    network.last_bn = torch.nn.BatchNorm1d(128, eps=0.001).eval().double()
    network.load_state_dict({k: v.double() for k, v in state.items() if not k.startswith("logits")}, strict=False)
    x = (torch.from_numpy(crop).double() - 127.5) / 128
    with torch.no_grad():
        expected = network(x.permute(2, 0, 1)[None])[0].numpy()
    assert np.abs(embedder.embed(crop) - expected).max() <= 3e-6
    assert np.abs(embedder.embed_nhwc(x.float().numpy()[None])[0] - expected).max() <= 3e-6


def test_arrays_that_are_no_picture(embedder, detector, crop):
    for array, words in (
        (crop.astype(np.float32), "float32"),
        (crop.astype(np.int64), "int64"),
        (crop[..., 0], "[160, 160]"),
        (crop[..., :2], "[160, 160, 2]"),
        (np.zeros((160, 160, 4), np.uint8), "[160, 160, 4]"),
        (np.zeros((3, 160, 160), np.uint8), "[3, 160, 160]"),
        (np.zeros((0, 160, 3), np.uint8), "[0, 160, 3]"),
        (np.zeros((1, 20000, 3), np.uint8), "16384"),
        (3, "int"),
        (None, "NoneType"),
    ):
        for call in (embedder.embed, detector.detect):
            assert words in said(lambda: call(array))
    assert "one picture" in said(lambda: detector.detect(np.stack([crop] * 2)))
    picture = Image.fromarray(crop)
    for given in (crop, picture, [crop], [picture], []):
        assert "bgr" in said(lambda: embedder.embed(given, channels="BGR"))
    for given in (crop, picture):
        assert "bgr" in said(lambda: detector.detect(given, channels="BGR"))
        assert "bgr" in said(lambda: facenet.align(given, (0, 0, 9, 9), channels="BGR"))
    assert "picture 1" in said(lambda: embedder.embed([crop, np.stack([crop] * 2)]))
    assert embedder.embed([]).shape == (0, 128) and embedder.embed(np.zeros((0, 160, 160, 3), np.uint8)).shape == (0, 128)


def test_floats_that_are_no_pixels(embedder, crop):
    x = np.zeros((2, 160, 160, 3), np.float32)
    assert embedder.embed_nhwc(x).shape == (2, 128) and embedder.embed_nhwc(x[:0]).shape == (0, 128)
    x[1, 5, 5, 1] = np.nan
    assert "not finite" in said(lambda: embedder.embed_nhwc(x))
    assert "float64" in said(lambda: embedder.embed_nhwc(x.astype(float)))
    assert "[2, 3, 160, 160]" in said(lambda: embedder.embed_nhwc(np.zeros((2, 3, 160, 160), np.float32)))
    assert "ascontiguousarray" in said(lambda: embedder.embed_nhwc(x[:, ::-1]))


def test_distances(embedder, crop):
    a, b = embedder.embed([crop, crop[:, ::-1]])
    assert facenet.distance(a, a) == 0 and facenet.similarity(a, a) == 1
    assert facenet.distance(a, b) == pytest.approx(np.linalg.norm(a.astype(float) - b), rel=1e-12)
    assert facenet.similarity(a, b) == pytest.approx(a.astype(float) @ b, rel=1e-6)
    assert "128 and 127" in said(lambda: facenet.distance(a, b[1:]))
    assert "not a number" in said(lambda: facenet.distance(a, np.full(128, np.nan, np.float32)))
    assert "zero" in said(lambda: facenet.similarity(a, np.zeros(128, np.float32)))
    assert "float64" in said(lambda: facenet.distance(a, b.astype(float)))


# ---- faces -----------------------------------------------------------------------------------------------------------


@needs_portrait
def test_faces_are_those_of_the_reference(detector, embedder):
    from facenet_pytorch import MTCNN, extract_face

    picture = facenet.read_image(ASTRONAUT)
    assert np.array_equal(picture, np.asarray(Image.open(ASTRONAUT).convert("RGB")))
    (face,) = detector.detect(picture)
    boxes, scores, points = MTCNN(keep_all=True).detect(picture, landmarks=True)
    assert np.abs(np.float32(face.box) - boxes[0]).max() < 0.05 and face.landmarks.shape == (5, 2)
    assert np.abs(face.landmarks - points[0]).max() < 0.05 and face.score == pytest.approx(scores[0], abs=1e-4)
    crop = facenet.align(picture, face)
    assert np.array_equal(crop, extract_face(Image.fromarray(picture), np.array(face.box), 160, 0).numpy().transpose(1, 2, 0).astype(np.uint8))
    assert np.array_equal(facenet.align(picture, face, embedder=embedder), crop)
    assert np.array_equal(facenet.align(picture, face.box), crop)
    bgr = np.ascontiguousarray(picture[..., ::-1])
    assert np.array_equal(facenet.align(bgr, face, channels="bgr"), crop)  # comes out as RGB
    assert np.array_equal(detector.detect(bgr, channels="bgr")[0].box, face.box)
    assert facenet.align(picture, face, size=96, margin=10).shape == (96, 96, 3)
    for call in (lambda: facenet.align(picture, face, size=0), lambda: facenet.align(picture, face, margin=160),
                 lambda: facenet.align(picture, face.box[:3]), lambda: facenet.align(picture, (900, 900, 950, 950))):  # fmt: skip
        said(call)
    again = pickle.loads(pickle.dumps(face))
    assert again.box == face.box and np.array_equal(again.landmarks, face.landmarks)


def test_files_that_are_no_picture(embedder, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    for path, kind in ((tmp_path, OSError), (tmp_path / "absent.png", FileNotFoundError), (tmp_path / "text.png", ValueError)):
        for call in (facenet.read_image, embedder.embed):
            assert str(path) in said(lambda: call(path), kind)
    said(lambda: facenet.read_image(b""))
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    assert "byte 0" in said(lambda: facenet.read_image(f"{tmp_path}/a.png\0.jpg"))
    os.rename(tmp_path / "a.png", os.fsencode(tmp_path) + b"/\xff.png")
    assert facenet.read_image(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")).shape == (9, 9, 3)
    long = str(tmp_path / ("é" * 100 + "/") / ("x" + "é" * 100)) + "/é" * 100  # cut short in the sentence, in half a character
    for more in ("", "x"):
        said(lambda: facenet.read_image(long + more), OSError)
    assert "mode" in said(lambda: embedder.embed(Image.new("I", (160, 160))))
    Image.effect_noise((160, 160), 50).convert("RGB").save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:9000])
    assert "truncated" in said(lambda: embedder.embed(Image.open(tmp_path / "cut.png")))
    torch = pytest.importorskip("torch")
    assert "detach" in said(lambda: embedder.embed(torch.zeros((160, 160, 3), requires_grad=True)))


# ---- objects ---------------------------------------------------------------------------------------------------------


def test_what_an_embedder_says(embedder, converted):
    assert embedder.dim == embedder.info["embedding_dim"] == 128 and embedder.input_size == 160
    assert embedder.info["architecture"] == "inception_resnet_v1" and embedder.info["trained"] is False
    assert embedder.info["threshold"] == 1.1 and len(embedder.info["digest"]) == 16
    with pytest.raises(TypeError):
        embedder.info["trained"] = True
    for options, words in (({"threads": 0}, "threads"), ({"threads": 999}, "threads"), ({"batch": 0}, "batch"),
                           ({"arithmetic": "int4"}, "int8"), ({"arithmetic": "int8"}, "calibrate")):  # fmt: skip
        assert words in said(lambda: facenet.Embedder(converted["f32"], **options))


def test_closed_objects(converted, mtcnn_file, crop):
    with facenet.Embedder(converted["f32"], threads=1) as embedder, facenet.Detector(mtcnn_file, threads=1) as detector:
        assert not embedder.closed
    embedder.close()  # again
    for call in (lambda: embedder.embed(crop), lambda: detector.detect(crop), lambda: pickle.dumps(embedder),
                 lambda: facenet.align(crop, (0, 0, 9, 9), embedder=embedder), embedder.__enter__):  # fmt: skip
        assert "closed" in said(call)
    assert embedder.closed and "closed" in repr(embedder) and embedder.dim == 128


def test_pickled_by_path(embedder, detector, crop):
    again = pickle.loads(pickle.dumps(embedder))
    assert np.array_equal(again.embed(crop), embedder.embed(crop)) and again.threads == 1
    assert len(pickle.dumps(embedder)) < 500
    assert pickle.loads(pickle.dumps(detector)).detect(crop) == detector.detect(crop) == []
    with pytest.raises(ValueError) as caught:
        embedder.embed(3)
    error = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(error, facenet.FacenetValueError) and error.code == "invalid_argument"


def test_errors_keep_their_class():
    """In a pickle, and on the way out of a process of a pool."""
    import concurrent.futures
    import multiprocessing

    from facenet._downloads import UnwritableError

    for kind in (facenet.FacenetGalleryError, facenet.FacenetNotFoundError, UnwritableError):
        error = pickle.loads(pickle.dumps(kind("no.", "io_error")))
        assert type(error) is kind and error.code == "io_error" and str(error) == "no."
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        assert type(pool.submit(_unwritable).exception()) is UnwritableError


def _unwritable() -> None:
    from facenet._downloads import UnwritableError

    raise UnwritableError("no.", "io_error")


def test_weights_that_vanish(converted, tmp_path, crop):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(converted["f16"].read_bytes())
    embedder = facenet.Embedder(path, threads=1)
    kept, before = pickle.dumps(embedder), embedder.embed(crop)
    path.unlink()
    assert np.array_equal(embedder.embed(crop), before)
    assert str(path) in said(lambda: pickle.loads(kept), FileNotFoundError)
    path.write_bytes(converted["f16"].read_bytes()[:5000])
    assert str(path) in said(lambda: pickle.loads(kept))


def test_default_files(monkeypatch, tmp_path, converted, mtcnn_file, crop):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert "weights" in said(facenet.Embedder, FileNotFoundError)
    data = tmp_path / "data/facenet"
    data.mkdir(parents=True)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/facenet.safetensors").symlink_to(converted["f32"])
    relative = facenet.Embedder(threads=1)
    monkeypatch.chdir(data)  # later
    assert pickle.loads(pickle.dumps(relative)).path == relative.path == str(tmp_path / "weights/facenet.safetensors")
    (data / "facenet.safetensors").symlink_to(converted["f32"])
    (data / "mtcnn.safetensors").symlink_to(mtcnn_file)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert facenet.Embedder(threads=1).path == str(data / "facenet.safetensors")
    assert facenet.Detector(threads=1).detect(crop) == []
    monkeypatch.setenv("FACENET_WEIGHTS", str(converted["f16"]))
    assert facenet.Embedder(threads=1).path == str(converted["f16"])
    monkeypatch.setenv("FACENET_DETECTOR", str(tmp_path / "none"))
    assert str(tmp_path / "none") in said(facenet.Detector, FileNotFoundError)


# ---- recognition -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def three_people(embedder) -> dict[str, np.ndarray]:
    from facenet_tools import pictures

    rng = np.random.default_rng(5)
    return {name: embedder.embed([pictures.structured(rng) for _ in range(2)]) for name in ("Ada", "Zoë", "李小龍")}


def test_clusters(three_people):
    faces = np.concatenate([[e[0], e[0]] for e in three_people.values()])
    for method in ("whispers", "dbscan", "average"):
        assert facenet.cluster(faces, 1e-3, method=method).tolist() == [0, 0, 1, 1, 2, 2], method
    assert facenet.cluster(faces[:0]).shape == (0,)
    assert "k-means" in said(lambda: facenet.cluster(faces, method="k-means"))
    assert "threshold" in said(lambda: facenet.cluster(faces, float("nan")))
    assert "zero" in said(lambda: facenet.cluster(faces * 0))


def test_error_rates():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(2)
    same = rng.integers(0, 2, 4000).astype(bool)
    distances = np.where(same, rng.normal(0.7, 0.2, 4000), rng.normal(1.3, 0.2, 4000)).clip(0)
    report = facenet.evaluate(distances, same, far=0.01, threshold=1.0, folds=10, bootstrap=20)
    assert report["auc"] == pytest.approx(metrics.roc_auc_score(same, -distances), abs=1e-12)
    fpr, tpr, _ = metrics.roc_curve(same, -distances)
    assert np.allclose(report["roc"][:, :2], np.stack([fpr, tpr], 1))
    assert report["tar"] == pytest.approx(tpr[fpr <= 0.01].max(), abs=1e-12)
    assert report["at_threshold"]["far"] == pytest.approx((distances[~same] <= 1).mean())
    assert report["accuracy"]["mean"] == pytest.approx(((distances < 1) == same).mean(), abs=0.01)
    assert report["auc_interval"][0] < report["auc"] < report["auc_interval"][1]
    chosen = facenet.calibrate(distances[~same], 0.01)
    assert (distances[~same] <= chosen.threshold).sum() == chosen.accepted <= 0.01 * chosen.impostors
    assert "too few" in said(lambda: facenet.calibrate(distances[:50], 0.01))
    assert "True or False" in said(lambda: facenet.evaluate([0.1, 0.2], [0, 2]))
    assert "no pair" in said(lambda: facenet.evaluate([0.1, 0.2], [True, True]))
    assert "finite" in said(lambda: facenet.evaluate([0.1, float("nan")], [True, False]))
    assert "no numbers" in said(lambda: facenet.evaluate(["x", "y"], [True, False]))
    assert "no numbers" in said(lambda: facenet.calibrate(["x"], 0.01))


# ---- threads, processes and signals ----------------------------------------------------------------------------------


def test_many_threads_use_one_object(converted, detector, crop):
    with facenet.Embedder(converted["f32"], threads=1) as shared:
        expected, right = shared.embed(crop), []

        def work() -> None:
            for _ in range(3):
                right.append(np.array_equal(shared.embed(crop), expected) and detector.detect(crop) == [])

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert right == [True] * 18  # an error ends its thread alone


def test_closing_while_another_thread_embeds(converted, crop):
    """The call that another thread is in ends first, and the next one is refused."""
    shared, done, begun = facenet.Embedder(converted["f32"], threads=1), [], threading.Event()
    expected, many = shared.embed(crop), np.stack([crop] * 16)

    def work() -> None:
        begun.set()
        done.append(shared.embed(many))
        done.append(said(lambda: shared.embed(crop)))

    thread = threading.Thread(target=work)
    thread.start()
    begun.wait()
    time.sleep(0.02)  # it is in the engine by now, for some 200 ms
    shared.close()
    assert shared.closed and done == []
    thread.join()
    assert len(done) == 2 and np.array_equal(done[0], np.stack([expected] * 16)) and "closed" in done[1]


def turns_of_another_thread(call) -> int:
    """How often another thread comes to its turn while the call lasts."""
    turns, stop = [0], threading.Event()

    def count() -> None:
        while not stop.is_set():
            turns[0] += 1
            time.sleep(0.001)

    thread = threading.Thread(target=count)
    thread.start()
    time.sleep(0.01)
    before = turns[0]
    call()
    counted = turns[0] - before
    stop.set()
    thread.join()
    return counted


def test_the_lock_is_free_during_a_call(embedder, crop):
    """Another thread counts on while one call takes some 50 ms or more."""
    from facenet import _engine

    rng = np.random.default_rng(1)
    distances = rng.random(1_000_000)
    same = (rng.random(1_000_000) < 0.5).astype(np.uint8)
    for call in (
        lambda: embedder.embed(np.stack([crop] * 8)),
        lambda: _engine.accuracy(distances, same, 10),
        lambda: _engine.calibrate(distances, 0.01),
    ):
        assert turns_of_another_thread(call) > 5


NO_ROOM = """
import resource, sys, threading, time
import numpy as np, facenet
from facenet import _errors
embedder = facenet.Embedder(sys.argv[1], threads=1, batch=128)
crop = np.zeros((160, 160, 3), np.uint8)
made, sentences = _errors.error, []
def slow(code, message):
    time.sleep(0.3)  # other threads have the lock
    return made(code, message)
_errors.error = slow
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (60 << 20), -1))
def work(pictures):
    try:
        embedder.embed(pictures)
    except facenet.FacenetMemoryError as error:
        sentences.append(str(error))
first = threading.Thread(target=work, args=(np.zeros((24, 160, 160, 3), np.uint8),))
first.start()
time.sleep(0.1)
others = [threading.Thread(target=work, args=(crop,)) for _ in range(3)]
for thread in others:
    thread.start()
for thread in (first, *others):
    thread.join()
print(len(sentences) > 0)
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one CPU has one workspace")
def test_an_error_of_one_thread_does_not_stop_the_others(converted):
    """There is no memory for a second workspace; the error runs Python, which lets other threads run, which want one too."""
    done = run_python(NO_ROOM, converted["f32"])
    assert done.returncode == 0 and done.stdout == "True\n", (done.stdout, done.stderr)


INTERRUPTED = """
import os, signal, sys, threading, time
import numpy as np, facenet
what = facenet.Embedder(sys.argv[1], threads=1) if sys.argv[3] == "embed" else facenet.Detector(sys.argv[2], threads=1, min_face=12)
call = what.embed if sys.argv[3] == "embed" else what.detect
picture = np.random.default_rng(1).integers(0, 256, (400, 160, 160, 3) if sys.argv[3] == "embed" else (6000, 6000, 3), np.uint8)
if sys.argv[4] == "fork":  # another thread has the object's first engine
    small = picture[:4] if sys.argv[3] == "embed" else picture[:600, :600]
    def work():
        while True:
            call(small)
    threading.Thread(target=work, daemon=True).start()
    time.sleep(0.05)
sent = []
def interrupt():
    time.sleep(0.3)
    sent.append(time.perf_counter())
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt).start()
try:
    call(picture)
    print("it ended")
except KeyboardInterrupt:
    print(time.perf_counter() - sent[0])
# A handler that returns: the call goes on, and gives what it would have given.
signal.signal(signal.SIGINT, lambda *_: print("handled"))
small = picture[:12] if sys.argv[3] == "embed" else picture[:1200, :1200]
threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
result = call(small)
print(len(result))
"""


@pytest.mark.parametrize(("what", "engine"), [("embed", "first"), ("embed", "fork"), ("detect", "fork")])
def test_ctrl_c_ends_a_call(what, engine, converted, mtcnn_file):
    done = run_python(INTERRUPTED, converted["f32"], mtcnn_file, what, engine)
    assert done.returncode == 0, done.stderr
    seconds, handled, count = done.stdout.split()
    assert float(seconds) < 0.1 and handled == "handled" and (what == "detect" or int(count) == 12)


INTERRUPTED_CLUSTERING = """
import os, signal, threading, time
import numpy as np, facenet
embeddings = np.random.default_rng(1).normal(size=(40000, 256)).astype(np.float32)
sent = []
def interrupt():
    time.sleep(0.7)  # the neighbours' 200 MB are there by then
    sent.append(time.perf_counter())
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt).start()
try:
    facenet.cluster(embeddings, 0.5, threads=1)
    print("it ended")
except KeyboardInterrupt:
    print(time.perf_counter() - sent[0])
"""


def test_ctrl_c_ends_clustering():
    done = run_python(INTERRUPTED_CLUSTERING)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 0.1


FORKED_IN_A_CALL = """
import os, signal, sys, threading, time
import numpy as np, facenet
embedder = facenet.Embedder(sys.argv[1], threads=1)
pictures = np.zeros((300, 160, 160, 3), np.uint8)
def fork():
    time.sleep(0.1)
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        os.kill(os.getpid(), signal.SIGINT)
        return
    signal.signal(signal.SIGALRM, lambda *_: os._exit(1))
    sent = time.perf_counter() + 0.3
    threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    try:
        embedder.embed(pictures)
        print("it ended", flush=True)
    except KeyboardInterrupt:
        print(time.perf_counter() - sent < 0.5, flush=True)
    os._exit(0)
threading.Thread(target=fork).start()
try:
    embedder.embed(pictures)
    print("it ended")
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_in_a_process_that_was_forked_during_a_call(converted):
    done = run_python(FORKED_IN_A_CALL, converted["f32"])
    assert done.returncode == 0 and done.stdout.splitlines() == ["True", "interrupted"], (done.stdout, done.stderr)


FORKED = """
import os, sys, multiprocessing
import numpy as np, facenet
crop = np.random.default_rng(1).integers(0, 256, (160, 160, 3), np.uint8)
embedder = facenet.Embedder(sys.argv[1], threads=2)
expected = embedder.embed(crop)
def work(n):
    return bool(np.array_equal(embedder.embed(crop), expected))
def given(e):
    return e.embed(crop).tobytes() == expected.tobytes()
if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(2) as pool:
        print(pool.map(work, range(3)), pool.map(given, [embedder]))
"""


def test_forked_processes(converted):
    done = run_python(FORKED, converted["f32"])
    assert done.returncode == 0 and done.stdout.strip() == "[True, True, True] [True]", done.stderr


@pytest.mark.slow
def test_spawned_processes(converted, tmp_path):
    script = tmp_path / "spawned.py"
    script.write_text(FORKED.replace('"fork"', '"spawn"').replace("Pool(2)", "Pool(1)").replace("pool.map(work, range(3)), ", ""))
    environment = dict(os.environ, PYTHONPATH=str(PACKAGE))
    done = subprocess.run([sys.executable, script, converted["f32"]], capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0 and done.stdout.strip() == "[True]", done.stderr


ENDING = """
import sys, threading, time
import numpy as np, facenet
embedder = facenet.Embedder(sys.argv[1], threads=1)
pictures = np.zeros((16, 160, 160, 3), np.uint8)
def work():
    while True:
        embedder.embed(pictures)
for _ in range(2):
    threading.Thread(target=work, daemon=True).start()
time.sleep(float(sys.argv[2]))
print("main ends")
"""


@pytest.mark.parametrize("seconds", [0.05, 0.2])
def test_the_interpreter_ends_while_threads_embed(seconds, converted):
    done = run_python(ENDING, converted["f32"], seconds)
    assert (done.returncode, done.stdout, done.stderr) == (0, "main ends\n", "")


def test_sub_interpreters_are_refused():
    code = """
import _xxsubinterpreters as sub, facenet
try:
    sub.run_string(sub.create(), "import facenet")
except sub.RunFailedError as error:
    print(error)
"""
    done = run_python(code)
    if "No module named '_xxsubinterpreters'" in done.stderr:
        pytest.skip("this Python has no such module")
    assert done.returncode == 0 and "ImportError" in done.stdout and "main interpreter" in done.stdout, done


def test_importing_is_quick_and_quiet():
    code = "import sys, time; t = time.perf_counter(); import facenet; print(time.perf_counter() - t, 'numpy' in sys.modules)"
    done = run_python(code)
    seconds, numpy = done.stdout.split()
    assert float(seconds) < 0.5 and numpy == "False" and done.stderr == ""


def test_progress(embedder, crop):
    seen = []
    embedder.embed([crop] * 34, progress=lambda *at: seen.append(at))
    assert seen == [(32, 34), (34, 34)]
    with pytest.raises(ZeroDivisionError):
        embedder.embed([crop] * 2, progress=lambda *_: 1 / 0)


@pytest.mark.slow
def test_memory_stays_flat(converted, mtcnn_file):
    """10^5 objects: arrays, faces, errors, and some embedders and detectors."""
    code = """
import resource, sys
import numpy as np, facenet
path = sys.argv[1]
crop = np.zeros((16, 16, 3), np.uint8)
png = open(sys.argv[3], "rb").read()
def some(n):
    for i in range(n):
        for _ in range(400):
            facenet.Face((0, 0, 1, 1), 0.5, None)
            facenet.align(crop, (0, 0, 9, 9), size=8)
            facenet.read_image(png)
            try: facenet.align(crop, (50, 50, 60, 60))
            except ValueError: pass
        if i % 5 == 0:
            with facenet.Embedder(path, threads=2): pass
            facenet.Detector(sys.argv[2], threads=2).detect(crop)
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() >> 20
some(6)
before = resident()
some(60)
print(resident() - before)
"""
    import tempfile

    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        Image.new("RGB", (8, 8)).save(file, "PNG")
        file.flush()
        done = run_python(code, converted["f16"], mtcnn_file, file.name)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) <= 16


@needs_portrait
def test_the_readmes_program(converted, mtcnn_file, tmp_path):
    """As it stands, on two faces: the portrait and its mirror image side by side."""
    (source,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    portrait = Image.open(ASTRONAUT).convert("RGB")
    both = Image.new("RGB", (2 * portrait.width, portrait.height))
    both.paste(portrait, (0, 0))
    both.paste(portrait.transpose(Image.FLIP_LEFT_RIGHT), (portrait.width, 0))
    both.save(tmp_path / "group.jpg", quality=95)
    environment = dict(os.environ, PYTHONPATH=str(PACKAGE), FACENET_WEIGHTS=str(converted["f32"]), FACENET_DETECTOR=str(mtcnn_file))
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert re.fullmatch(r"\(.*\) 0\.\d+\n", done.stdout), done.stdout + done.stderr


# ---- types, and the package as it is shipped -------------------------------------------------------------------------

USER = """
import numpy as np
from numpy.typing import NDArray

import facenet

with facenet.Embedder("w.safetensors", threads=1) as embedder, facenet.Detector() as detector:
    picture: NDArray[np.uint8] = facenet.read_image("a.jpg")
    for face in detector.detect(picture):
        crop = facenet.align(picture, face, embedder=embedder)
        embedding: NDArray[np.float32] = embedder.embed(crop)
        score: float = face.score + facenet.distance(embedding, embedding)
        print(score, embedder.info["trained"])
with facenet.Gallery("g") as gallery:
    names: list[str] = [person.name for person in gallery.list()]
"""


@pytest.mark.slow
def test_types(tmp_path):
    """mypy --strict and pyright's strict mode, of the package itself and of a user's program."""
    tools = ROOT / ".venv/bin"
    (tmp_path / "user.py").write_text(USER)
    (tmp_path / "wrong.py").write_text("import facenet\n\nfacenet.Embedder(threads='2').embed(3).shape.x\nfacenet.Gallery('g', mode='w')\n")
    environment = dict(os.environ, MYPYPATH=str(ROOT / "python"))
    mypy = [tools / "mypy", "--strict", "--cache-dir", tmp_path / "cache"]
    for paths, expected in (([ROOT / "python/facenet"], 0), (["user.py"], 0), (["wrong.py"], 1)):
        done = subprocess.run([*mypy, *paths], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == expected, done.stdout + done.stderr
    assert done.stdout.count("error:") == 3
    done = subprocess.run([tools / "pyright", "-p", ROOT, "--pythonpath", tools / "python"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def made_sdist(folder) -> None:
    code = f"from scikit_build_core.build import build_sdist; build_sdist({str(folder)!r})"
    done = subprocess.run([ROOT / ".venv/bin/python", "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.long
@pytest.mark.slow
def test_the_wheel_that_an_sdist_makes(tmp_path, converted, mtcnn_file, embedder, crop):
    """An sdist is unpacked where nothing of ours is, becomes a wheel (all ISAs: 75 s on two cores), and runs in a new venv."""
    import tarfile
    import zipfile

    made_sdist(tmp_path)
    (archive,) = tmp_path.glob("facenet_engine-*.tar.gz")
    assert archive.stat().st_size < 2 << 20
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / "sources", filter="data") if hasattr(tarfile, "data_filter") else tar.extractall(tmp_path / "sources")
    (sources,) = (tmp_path / "sources").iterdir()
    assert {"LICENSE", "pyproject.toml"} <= {path.name for path in sources.iterdir()} and not (sources / "tests").exists()
    command = BUILD / "facenet"  # compiled for five ISAs it would take ten minutes
    pip = [ROOT / ".venv/bin/python", "-m", "pip", "--disable-pip-version-check"]
    settings = f"--config-settings=cmake.define.FACENET_PYTHON_COMMAND={command if command.exists() else 'OFF'}"
    done = subprocess.run([*pip, "wheel", sources, "--no-build-isolation", "--no-deps", settings, "-w", tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size < 6e6
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"facenet/py.typed", "facenet/_engine.pyi", "facenet/_converter/convert_weights.py"} <= names
    assert not any("facenet_tools/training" in name or "__pycache__" in name for name in names)
    shown = subprocess.run([ROOT / ".venv/bin/python", "-m", "auditwheel", "show", wheel], capture_output=True, text=True, check=False)
    assert shown.returncode == 0 and "manylinux_2_3" in shown.stdout, shown.stdout + shown.stderr

    subprocess.run(["/usr/bin/python3", "-m", "venv", "--system-site-packages", tmp_path / "venv"], check=True)  # numpy is Debian's
    python = tmp_path / "venv/bin/python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", wheel], check=True)
    np.save(tmp_path / "crop.npy", crop)
    code = """
import sys, facenet, numpy as np
crop = np.load(sys.argv[3])
e, d = facenet.Embedder(sys.argv[1], threads=2), facenet.Detector(sys.argv[2])
g = facenet.Gallery("g")
g.add("Ada", e.embed(crop), embedder=e)
print(facenet.__file__, g.search(e.embed(crop))[0].name, d.detect(crop), facenet.isa())
np.save("out.npy", e.embed(crop))
"""
    names = re.findall(r"^facenet_isa\((\w+)", (ROOT / "cmake/FacenetIsa.cmake").read_text(), re.MULTILINE)
    for isa in ("", "sse4"):
        done = subprocess.run(
            [python, "-c", code, converted["f32"], mtcnn_file, "crop.npy"], cwd=tmp_path, capture_output=True, text=True, check=False,
            env=dict(os.environ, FACENET_FORCE_ISA=isa),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert str(tmp_path / "venv") in done.stdout and "Ada []" in done.stdout
        assert done.stdout.split()[-1] in ([isa] if isa else names), done.stdout
        assert np.abs(np.load(tmp_path / "out.npy") - embedder.embed(crop)).max() < 1e-5
        (tmp_path / "g").unlink()
    if command.exists():
        done = subprocess.run([tmp_path / "venv/bin/facenet", "--version"], capture_output=True, text=True, check=False)
        assert done.returncode == 0 and done.stdout.startswith("facenet ")
