"""Weights that the Python package fetches and converts, without PyTorch too."""

from __future__ import annotations

import hashlib
import os
import pathlib
import subprocess
import sys
import tempfile
import threading

import numpy as np
import pytest
import torch
from conftest import run_tool
from PIL import Image
from python_package import BUILD, BUILT, PACKAGE, needs_package, run_python, said

pytestmark = needs_package
if BUILT:
    import facenet


@pytest.fixture(scope="module")
def crop() -> np.ndarray:
    from facenet_tools import pictures

    return np.ascontiguousarray(pictures.structured(np.random.default_rng(8)))


@pytest.fixture(scope="module")
def embedder(converted):
    with facenet.Embedder(converted["f32"], threads=1) as made:
        yield made


# ---- weights that are fetched ----------------------------------------------------------------------------------------


def made_up_wheel(folder) -> None:
    """facenet-pytorch's wheel, as far as the detector is concerned, in a folder that pip takes it from."""
    import zipfile

    from facenet_tools import mtcnn

    name = "facenet_pytorch-2.6.0"
    with zipfile.ZipFile(folder / f"{name}-py3-none-any.whl", "w") as wheel:
        for network in mtcnn.NETWORKS:
            wheel.write(mtcnn.packaged() / f"{network}.pt", f"facenet_pytorch/data/{network}.pt")
        wheel.writestr(f"{name}.dist-info/METADATA", "Metadata-Version: 2.1\nName: facenet-pytorch\nVersion: 2.6.0\n")
        wheel.writestr(f"{name}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{name}.dist-info/RECORD", "")


def test_the_detector_is_fetched_once(monkeypatch, tmp_path, mtcnn_file, crop, capfd):
    from facenet import _downloads

    made_up_wheel(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    offline = said(facenet.Detector, OSError)
    assert offline.startswith("MTCNN's weights cannot be fetched") and "Without a network" in offline
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    assert "SHA-256" in said(facenet.Detector)  # it is not the known wheel
    made = tmp_path / "data/facenet/mtcnn.safetensors"
    assert not made.exists()
    (wheel,) = tmp_path.glob("*.whl")
    monkeypatch.setattr(_downloads, "_DETECTOR_SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())
    capfd.readouterr()
    assert facenet.Detector(threads=1).detect(crop) == []
    assert str(made) in capfd.readouterr().err and made.read_bytes() == mtcnn_file.read_bytes()
    wheel.unlink()
    assert facenet.Detector(threads=1).path == str(made) and capfd.readouterr().err == ""
    assert [path.name for path in made.parent.iterdir()] == [made.name]


def test_what_is_there_stays_until_there_is_better(tmp_path):
    """And its place is free of what was left half-made."""
    from facenet import _downloads

    target = tmp_path / "w.safetensors"
    target.write_text("good")

    def make(new):
        assert target.read_text() == "good" and new.parent.parent == tmp_path
        new.write_text("new")

    def refuse(path):
        raise facenet.FacenetNotFoundError(f"{path}: no weights.", "not_found")

    def full(new):
        raise OSError(28, "No space left on device")

    assert said(lambda: _downloads.made(target, make, refuse), FileNotFoundError) == f"{target}: no weights."
    assert "No space left on device" in said(lambda: _downloads.made(target, full, refuse), OSError)
    assert target.read_text() == "good" and list(tmp_path.iterdir()) == [target]
    assert _downloads.made(target, make, refuse, target.exists) == str(target) and target.read_text() == "good"
    _downloads.made(target, make, lambda path: None)
    assert target.read_text() == "new" and list(tmp_path.iterdir()) == [target]


def test_one_at_a_time_makes_a_file(tmp_path):
    """The lock's file goes with its owner, and another one may have opened it by then."""
    from facenet import _downloads

    counter = tmp_path / "counter"
    counter.write_text("0")

    def work() -> None:
        for _ in range(50):
            with _downloads._turn(counter):
                counter.write_text(str(int(counter.read_text()) + 1))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter.read_text() == "300" and list(tmp_path.iterdir()) == [counter]


def test_checkpoints_of_every_float(tmp_path):
    from facenet_tools import public_checkpoints

    values = torch.linspace(-3, 3, 12).reshape(3, 4)
    kinds = {"half": torch.float16, "bfloat16": torch.bfloat16, "float": torch.float32, "double": torch.float64}
    state = {name: values.to(kind) for name, kind in kinds.items()} | {"count": torch.tensor(3), "logits.bias": values}
    torch.save(state, tmp_path / "x.pt")
    read = public_checkpoints.arrays(str(tmp_path / "x.pt"))
    assert list(read) == list(kinds)
    for name in kinds:
        assert read[name].dtype == np.float32 and np.array_equal(read[name], state[name].float().numpy()), name
    assert list(public_checkpoints.arrays(str(tmp_path / "x.pt"), logits=True)) == [*kinds, "logits.bias"]


def test_sentences_name_the_converter_of_the_package(tmp_path, monkeypatch, capfd):
    """Who has the wheel has no tools/convert_weights.py."""
    torch.save({"x": torch.zeros(1)}, tmp_path / "x.pt")
    for call in (lambda: facenet.Embedder(tmp_path / "x.pt"), lambda: facenet.Embedder(tmp_path / "none")):
        assert "python -m facenet.convert" in said(call, Exception)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("FACENET_PRETRAINED_URL", "http://127.0.0.1:9")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/20180402-114759-vggface2.pt").write_text("not all of it")
    monkeypatch.setattr("facenet_tools.download.TRIES", 1)
    sentence = said(facenet.download, OSError)
    assert "python -m facenet.convert FILE" in sentence and "convert_weights.py" not in sentence
    assert capfd.readouterr().err.startswith("facenet: ")


@pytest.mark.slow
def test_the_known_wheel_is_pips():
    """The digest of the wheel that holds the detector is that of what pip brings."""
    from facenet import _downloads

    with tempfile.TemporaryDirectory() as folder:
        try:
            wheel = _downloads._detector_wheel(pathlib.Path(folder))  # compares it
        except facenet.FacenetOSError as error:
            pytest.skip(f"there is no network: {error}")
        assert wheel.name == "facenet_pytorch-2.6.0-py3-none-any.whl"


@pytest.mark.slow
def test_a_checkpoint_is_fetched_and_converted_without_torch(monkeypatch, tmp_path, checkpoint512, crop):
    import functools
    import http.server

    (tmp_path / "served").mkdir()
    (tmp_path / "served/20180408-102900-casia-webface.pt").symlink_to(checkpoint512)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=tmp_path / "served"))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    code = """
import sys
sys.modules["torch"] = sys.modules["facenet_pytorch"] = None  # importing them fails
import facenet, numpy as np
path = facenet.download("casia-webface")
e = facenet.Embedder(threads=1)
print(path == e.path, e.info["trained"], e.dim)
np.save(sys.argv[1], e.embed(np.load(sys.argv[2])))
try: facenet.download("imagenet")
except ValueError as error: print(error)
"""
    np.save(tmp_path / "crop.npy", crop)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("FACENET_PRETRAINED_URL", f"http://127.0.0.1:{server.server_port}")
    done = run_python(code, tmp_path / "out.npy", tmp_path / "crop.npy", cwd=tmp_path)
    server.shutdown()
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == "True False 512" and "casia-webface" in second
    Image.fromarray(crop).save(tmp_path / "crop.png")
    converted = run_tool("convert_weights.py", checkpoint512, "-o", tmp_path / "w.safetensors", "--pictures", tmp_path / "crop.png")
    assert converted.returncode == 0, converted.stderr
    with facenet.Embedder(tmp_path / "w.safetensors", threads=1) as embedder:
        assert np.abs(embedder.embed(crop) - np.load(tmp_path / "out.npy")).max() <= 1e-6  # folded elsewhere, to a rounding


# ---- programs that the package carries -------------------------------------------------------------------------------


def test_python_m_facenet_is_the_command():
    if not (BUILD / "facenet").exists():
        pytest.skip(f"{BUILD / 'facenet'} is not built")
    environment = dict(os.environ, PYTHONPATH=str(PACKAGE))
    done = subprocess.run([sys.executable, "-m", "facenet", "--version"], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0 and done.stdout.startswith(f"facenet {facenet.__version__}")
    done = subprocess.run([sys.executable, "-m", "facenet", "embed"], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 2 and done.stderr.startswith("facenet: ")


@pytest.mark.slow
def test_python_m_facenet_convert_is_the_converter():
    environment = dict(os.environ, PYTHONPATH=str(PACKAGE))
    done = subprocess.run([sys.executable, "-m", "facenet.convert", "--help"], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0 and "python -m facenet.convert my_model.pt" in done.stdout and "convert_weights.py" not in done.stdout


WITHOUT_TORCH = """
import importlib.util, runpy, sys
known = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name in ("torch", "facenet_pytorch") else known(name, *rest)
sys.argv[0] = "convert"
runpy.run_module("facenet.convert", run_name="__main__")
"""


def test_the_converter_without_torch(tmp_path, checkpoint_file, embedder, crop):
    out = tmp_path / "out.safetensors"
    done = run_python(WITHOUT_TORCH, checkpoint_file, "-o", out)
    assert done.returncode == 0 and "128 numbers" in done.stdout, done.stderr
    with facenet.Embedder(out, threads=1) as made:
        assert made.info["trained"] is False and np.abs(made.embed(crop) - embedder.embed(crop)).max() <= 1e-6
    (tmp_path / "text.pt").write_text("no checkpoint")
    for arguments, words in ((("--dtype", "i8", checkpoint_file, "-o", out), "--dtype needs torch"), (("-o", out), "give a checkpoint"),
                             ((tmp_path / "text.pt", "-o", tmp_path / "none"), "text.pt"), ((tmp_path, "-o", tmp_path / "none"), str(tmp_path))):  # fmt: skip
        done = run_python(WITHOUT_TORCH, *arguments)
        assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not (tmp_path / "none").exists()


def test_a_conversion_that_fails_keeps_what_was_there(tmp_path):
    """Also where the output is the input."""
    torch.save({"conv2d_1a.conv.weight": torch.zeros(3)}, tmp_path / "bad.pt")
    good = tmp_path / "good.safetensors"
    good.write_text("good weights")
    for out, words in ((good, "good.safetensors"), (tmp_path / "bad.pt", "the input itself")):
        before = out.read_bytes()
        done = run_python(WITHOUT_TORCH, tmp_path / "bad.pt", "-o", out)
        assert done.returncode == 2 and words in done.stderr and ".facenet-" not in done.stderr, done.stderr
        assert out.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.pt", "good.safetensors"]
