"""bench/compare_kernels.py: layers come from the network, turns, ratios by rounds, tables and the plot. Times nothing."""

from __future__ import annotations

import importlib
import json
import pathlib
import re
import subprocess
import sys
import xml.etree.ElementTree

import pytest
from conftest import ROOT

BENCH = ROOT / "bench"
NETWORK_MACS = 1_417_662_304  # models/inception_resnet_v1.hpp asserts it
LINEAR_MACS = 1792 * 512      # its last layer, which is no convolution


@pytest.fixture
def kernels(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("compare_kernels")


def layer(name: str, **other) -> dict:
    return {"name": name, "times": 2, "how": "direct", "panel": 32, "tile": 32, "integer": 0, "step": 1, "in": [8, 8, 16], "out": [8, 8, 80],
            "window": [1, 1], "stride": 1, "pad": [0, 0], "residual": 0, "relu": 1, "bytes": 0, **other}  # fmt: skip


class Scripted:
    def __init__(self, name: str, times: list[float], log: list[str]) -> None:
        self.name, self.times, self.log = name, list(times), log

    def visit(self, mode: str, milliseconds: int) -> float:
        self.log.append(self.name)
        return self.times.pop(0)


def test_rounds_go_forwards_and_backwards_and_ratios_are_of_pairs(kernels):
    log: list[str] = []
    workers = [Scripted("ours", [2, 2, 8], log), Scripted("a", [1, 3, 20], log), Scripted("b", [9, 9, 9], log)]
    times = kernels.interleave(workers, "cold", 3, 10)
    assert log == ["ours", "a", "b", "b", "a", "ours", "ours", "a", "b"]
    assert times == {"ours": [2, 2, 8], "a": [1, 3, 20], "b": [9, 9, 9]}
    compared = kernels.report.compare(times)
    assert compared["median"] == {"ours": 2, "a": 3, "b": 9} and compared["best"] == "a"
    assert compared["ratio"] == 1.5, "of 0.5, 1.5 and 2.5: our speed over that of the fastest"
    assert kernels.report.compare({"ours": [1.0]})["ratio"] is None


def made(kernels, ratio: float):
    """Two layers, one of which has `ratio` of the other library's speed and the other twice."""
    first, second = layer("narrow"), layer("residual", integer=1, residual=1, bytes=1, out=[8, 8, 64], times=1)
    seconds = {"ours": [1e-6] * 3, "onednn2": [ratio * 1e-6] * 3}
    fast = {"ours": [1e-6] * 3, "onednn2": [2e-6] * 3}
    peak = {"floats": 200.0, "bytes": 800.0, "read": 10.0}
    results = [{"layer": one, "threads": 1, "how": {}, "failed": failed, "peak": peak, "seconds": {"cold": cold, "warm": fast}}
               for one, cold, failed in ((first, seconds, {}), (second, fast, {"onednn2": "no sums"}))]
    return kernels.report.Run(titles={"ours": "ours 1", "onednn2": "oneDNN 2.6.3"}, missing={"xnnpack": "not installed: apt-get …"},
                              results=results, commit="abc1234", cpu="A CPU", rounds=3, arguments="", others=0.0)


def test_the_table_says_where_we_lose(kernels):
    text = kernels.report.markdown(made(kernels, 0.8))
    # 2 * 8 * 8 * 16 * 80 operations in 1 and 0.8 us; the peak is 200.
    assert "| narrow | 8×8×16 → 8×8×80, 1×1 | direct | 2 | 164 | 205 | 82 | **0.80** | 2.00 |" in text
    assert "| float | 1 | **0.80** | 0 of 1 | 2.00 | 1 of 1 |" in text and "| int8 | 1 | 2.00 | 1 of 1 | 2.00 | 1 of 1 |" in text
    (line,) = [line for line in text.partition("## Below 0.9")[2].splitlines() if line.startswith("| narrow")]
    assert line.split("|")[1:8] == [" narrow ", " float ", " 1 ", " cold ", " oneDNN 2.6.3 ", " 0.80 ", " 0 "]
    assert "16 of 96 columns of the panels are padding" in line and "16 products an output" in line
    assert "code of abc1234, on A CPU" in text and "- xnnpack was left out, not installed: apt-get …" in text
    assert "oneDNN 2.6.3 has no int8 residual: no sums." in text and "not to be quoted" not in text
    assert "No layer is below 0.9" in kernels.report.markdown(made(kernels, 0.95))


def test_a_busy_machine_is_named(kernels):
    run = made(kernels, 1)
    run.others = 0.5
    assert "(other processes took 0.50 of a CPU): these numbers are not to be quoted" in kernels.report.markdown(run)
    run.others = 0.0
    run.results += [{**r, "threads": 2, "peak": {**r["peak"], "floats": 330.0}} for r in run.results]
    assert "(2 threads reach 1.65 times the peak of one)" in kernels.report.markdown(run)


def test_the_network_counts_layers_by_their_occurrence(kernels):
    run = made(kernels, 0.5)
    rows = [run.results[0], {**run.results[1], "layer": layer("other", times=1)}]
    assert kernels.report.network(rows, "cold") == pytest.approx((2 * 0.5 + 1 * 2) / 3)


def test_the_plot_and_the_files(kernels, tmp_path: pathlib.Path):
    paths = kernels.report.write(made(kernels, 0.8), tmp_path)
    assert [path.name for path in paths] == ["kernels.md", "kernels.svg", "kernels.json"]
    picture = xml.etree.ElementTree.parse(paths[1])
    circles = picture.findall(".//{http://www.w3.org/2000/svg}circle")
    assert len(circles) == 4, "two layers, ours and the best"
    width, height = map(float, picture.getroot().get("viewBox").split()[2:])
    assert all(0 < float(c.get("cx")) < width and 0 < float(c.get("cy")) < height for c in circles)
    assert json.loads(paths[2].read_text())["results"][0]["layer"]["name"] == "narrow"


def test_products_with_padding_are_counted(kernels):
    tall = layer("7x1", window=[7, 1], pad=[3, 0])
    assert kernels.report.padding_share(tall) == pytest.approx(12 / 56)
    assert "21% of the products are with padding" in kernels.report.particular(tall)
    assert kernels.report.padding_share(layer("strided", window=[3, 3], stride=2, out=[3, 3, 80])) == 0
    assert "padding" not in kernels.report.particular({**tall, "how": "F(4, 7x1)", "out": [8, 8, 64]})


def test_copies_make_up_the_network(kernels):
    small, large = layer("small", times=1), layer("large", window=[9, 9], times=10)
    layers = [small, large, layer("bytes", integer=1)]
    assert kernels.copies_of(large, layers) == 11, "10.01 of them"
    assert kernels.copies_of(small, [*layers, layer("huge", window=[99, 99])]) == kernels.MOST_COPIES
    assert kernels.copies_of(layers[2], layers) == 2


def test_a_library_that_is_not_there_says_how_to_install_it(kernels, monkeypatch, tmp_path: pathlib.Path):
    for peer in kernels.PEERS:
        monkeypatch.setitem(kernels.NEEDS, peer, tmp_path / "no.h")
        with pytest.raises(kernels.Failure, match=r"not installed: .*(apt-get|pip) install"):
            kernels.build(peer)


@pytest.mark.parametrize("arguments, said", [(["--peers", "x"], "unknown: x"), (["--threads", "0"], "no list of numbers"),
                                             (["--rounds", "0"], "at least 1"), (["--layers", "("], "--layers")])  # fmt: skip
def test_calls_that_are_wrong(arguments: list[str], said: str):
    done = subprocess.run([sys.executable, BENCH / "compare_kernels.py", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and said in done.stderr


@pytest.mark.slow
def test_the_layers_are_the_networks_own(kernels, monkeypatch, tmp_path: pathlib.Path):
    """Compiles bench/kernels/ours.cpp, and lets it check one layer of each kind against the oracle."""
    monkeypatch.setattr(kernels, "BUILD", tmp_path)
    program = kernels.build("ours")
    layers = kernels.layers_of(program)
    for integer in (0, 1):
        mine = [one for one in layers if one["integer"] == integer]
        macs = sum(kernels.report.operations(one) // 2 * one["times"] for one in mine)
        assert macs == NETWORK_MACS - LINEAR_MACS
        shapes = [json.dumps({k: v for k, v in one.items() if k not in ("name", "step", "times")}) for one in mine]
        assert len(set(shapes)) == len(shapes), "each shape once"
    worker = kernels.Worker("ours", program, 1)
    try:
        for one in layers:
            if re.fullmatch(r"repeat_3\.0\.branch1\.1|repeat_2\.0\.(branch1\.1|conv2d)|block8\.conv2d", one["name"]):
                assert worker.load(one, 2)["error"] <= 1
    finally:
        worker.close()
