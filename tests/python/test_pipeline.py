"""bench/compare_pipeline.py: turns, ratios by rounds, and a peer that fails is a row with its reason. Times nothing."""

from __future__ import annotations

import importlib
import pathlib
import subprocess
import sys

import pytest
from conftest import ROOT

BENCH = ROOT / "bench"


@pytest.fixture
def pipeline(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(BENCH))
    module = importlib.import_module("compare_pipeline")
    monkeypatch.setattr(module, "BUILD", tmp_path)
    return module


class Scripted:
    """An engine whose times are known; None fails."""

    def __init__(self, name: str, times: list[float | None], log: list[str], failure: type[Exception]) -> None:
        self.name, self.times, self.log, self.failure = name, list(times), log, failure

    def visit(self, path: pathlib.Path) -> tuple[float, int]:
        self.log.append(self.name)
        seconds = self.times.pop(0)
        if seconds is None:
            raise self.failure("out of fuel")
        return seconds, 7


def test_ratios_are_medians_of_pairs(pipeline):
    log, failed = [], {}
    engines = [Scripted("facenet", [1, 2, 4], log, pipeline.Failure), Scripted("slow", [3, 8, 8], log, pipeline.Failure),
               Scripted("broken", [5, None], log, pipeline.Failure)]
    rows = pipeline.measure(engines, pathlib.Path("x.jpg"), 3, failed)
    assert rows == [("facenet", 2, 1, 7), ("slow", 8, 3, 7), ("broken", None, None, "out of fuel")]
    assert failed == {"broken": "out of fuel"}
    assert log == ["facenet", "slow", "broken", "slow", "broken", "facenet", "facenet", "slow"], "each round begins elsewhere"


def test_a_peer_answers_or_says_why(pipeline):
    code = ("import json, sys\nprint(json.dumps({'ready': True}), flush=True)\n"
            "for i, line in enumerate(sys.stdin):\n    if i == 2: sys.exit('no more')\n"
            "    print(json.dumps({'seconds': i + 1.5, 'faces': len(line.strip())}), flush=True)\n")
    peer = pipeline.Peer("counted", [sys.executable, "-c", code], 1)
    try:
        assert peer.visit(pathlib.Path("abc")) == (2.5, 3), "the second of two runs"
        with pytest.raises(pipeline.Failure, match="no more"):
            peer.visit(pathlib.Path("abc"))
    finally:
        peer.close()


def test_every_peer_has_a_worker(pipeline):
    worker = (BENCH / "pipeline" / "worker.py").read_text()
    assert all(f'"{name}"' in worker for name in pipeline.PEERS if name != "face-api")
    help_text = subprocess.run([sys.executable, BENCH / "compare_pipeline.py", "--help"], capture_output=True, text=True, check=True).stdout
    assert all(name in " ".join(help_text.split()) for name in pipeline.PEERS)
    unknown = subprocess.run([sys.executable, BENCH / "compare_pipeline.py", "--peers", "x"], capture_output=True, text=True, check=False)
    assert unknown.returncode == 2 and "unknown: x" in unknown.stderr
