"""bench/compare_peers.py: its engines are known everywhere, and the table of --int8 says what it should. Times nothing."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

BENCH = ROOT / "bench"
sys.path.insert(0, str(BENCH))

from peers import measure, report, setup, worker  # noqa: E402

MODEL = {"name": "x.pt", "architecture": "inception_resnet_v1", "sha256": "0" * 64, "dim": 2, "side": 160, "opset": 17, "macs": 1e9}
SECONDS = {"facenet": 0.009, "facenet-int8": 0.002, "openvino": 0.014, "openvino-int8": 0.004}


@pytest.mark.parametrize("engine", [*setup.OURS, *setup.PEERS, *setup.INT8_PEERS])
def test_every_engine_has_a_title_a_worker_and_what_it_needs(engine: str) -> None:
    assert engine in report.TITLES
    assert worker.ENGINES[engine].rounded == engine.endswith("-int8")
    assert engine in setup.OURS or all(group in setup.REQUIREMENTS for group in setup.groups_of(engine))


def events(rounds: int) -> list[dict]:
    loads = [{"kind": "load", "config": "1x1", "engine": engine, "seconds": [0.1], "version": "1", "error": 1e-7, "settings": "s",
              "import_bytes": 1, "peak_bytes": 2, **({"cosine": 0.9991, "distance": 0.0123} if engine.endswith("-int8") else {})}
             for engine in SECONDS]  # fmt: skip
    machine = {"peak": {"1": 250.0}, "bandwidth": {"1": 40.0}}
    each = {"kind": "round", "config": "1x1", "kept": True, "machine": [machine], "others_cpu": 0.0}
    return [{"kind": "start", "time": ""}, *loads,
            *({**each, "seconds": {e: [s * (1 + 0.1 * i)] * 2 for e, s in SECONDS.items()}, "settle": dict.fromkeys(SECONDS, 0.004),
               "peak_bytes": dict.fromkeys(SECONDS, 2)} for i in range(rounds))]  # fmt: skip


def table(int8: bool) -> report.Table:
    engines = [engine for engine in SECONDS if int8 or not engine.endswith("-int8")]
    return report.Table(events(3), engines, [measure.Config(1, 1)], MODEL, 3, {}, {}, int8)


def test_the_table_of_int8() -> None:
    made = table(int8=True)
    (line,) = made.summary()
    assert line["fastest"] == "OpenVINO int8" and line["facenet-int8"]["paired"]["median"] == pytest.approx(0.5)
    text = report.markdown(made)
    assert "| facenet int8 | 1 | 1 | 2.20 | OpenVINO int8 4.40 | 0.500 | 0.500 [0.500, 0.500] | 0.90 met (8 of 10 peers absent) |" in text
    assert "| 1 | 1 | 2.20 | 9.90 | 0.222 [0.222, 0.222] | 4.50 | 3.0 met |" in text
    assert "cosine 0.99910, distance 0.0123" in text and "1.0e-07" in text


def test_the_table_of_floats_does_not_speak_of_int8() -> None:
    made = table(int8=False)
    assert made.summary()[0]["facenet"]["target"] == 0.80
    assert "int8" not in report.markdown(made)


def test_errors_of_int8_are_over_all_faces_whatever_the_batch(tmp_path: pathlib.Path) -> None:
    class Doubles(worker.Engine):
        """Embeds a picture as its first two numbers; the last picture's is wrong by a right angle."""

        def run(self) -> None:
            flat = self.images.reshape(len(self.images), -1)[:, :2]
            self.made = np.where(flat[:, :1] == 3, flat[:, ::-1] * (-1, 1), flat)

        def output(self) -> np.ndarray:
            return self.made

    pictures = np.array([[1, 0], [0, 1], [3, 0]], np.float32).reshape(3, 2, 1, 1)
    np.save(tmp_path / "faces.npy", np.concatenate([pictures, -pictures]))  # after the faces their mirror images
    np.save(tmp_path / "faces_reference.npy", pictures.reshape(3, 2).astype(np.float64))
    np.save(tmp_path / "images.npy", 2 * pictures)
    paths = {name: str(tmp_path / f"{name}.npy") for name in ("faces", "faces_reference", "images")}
    for batch in (1, 2, 3):
        engine = Doubles()
        engine.images = pictures[:batch].copy()
        found = worker.rounding(engine, {"models": paths, "batch": batch})
        assert found["cosine"] == pytest.approx(0) and found["distance"] == pytest.approx(np.sqrt(10) - 2)
        assert np.array_equal(engine.images, 2 * pictures[:batch])


@pytest.mark.parametrize("arguments, said", [(["--peers", "openvino-int8"], "needs --int8"), (["--int8", "--checkpoint", "."], "dlib")])
def test_what_does_not_fit_int8_is_refused(arguments: list[str], said: str) -> None:
    done = subprocess.run([sys.executable, BENCH / "compare_peers.py", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and said in done.stderr
