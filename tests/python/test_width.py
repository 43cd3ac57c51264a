"""A network of another width: its checkpoint, its weight file, the ways back, and the engine's own check of it."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess

import pytest
import safetensors
import torch
from safetensors.torch import save_file

from conftest import ROOT, assert_one_error, run_tool
from facenet_tools import checkpoint

FACENET = ROOT / os.environ.get("FACENET_BUILD", "build/release") / "facenet"
WIDTH = 1 / 8


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("narrow") / "narrow.pt"
    result = run_tool("make_checkpoint.py", "--width", WIDTH, "--dim", 128, "--images", "-o", path)
    assert result.returncode == 0, result.stderr
    return path


def engine(*arguments: object) -> dict:
    done = subprocess.run([FACENET, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_channel_is_scaled_and_nothing_else(narrow: pathlib.Path) -> None:
    state, whole = torch.load(narrow), checkpoint.build_model(128).state_dict()
    for name, value in whole.items():
        if name.startswith("logits") or value.dim() == 0:
            continue
        embedding = name.startswith(("last_linear", "last_bn"))
        want = [size if (axis == 0 and embedding) or size == 3 or axis > 1 else int(size * WIDTH)
                for axis, size in enumerate(value.shape)]  # fmt: skip
        assert list(state[name].shape) == want, name


@pytest.mark.slow
@pytest.mark.skipif(not FACENET.exists(), reason="the command is not built")
def test_the_engine_computes_it(narrow: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Converted, and through each way back; and the plain state_dict, whose width the engine reads off its first layer."""
    for name, back in (("direct", None), ("pt", "pt"), ("onnx", "onnx")):
        source = narrow
        if back is not None:
            source = tmp_path / f"back.{back}"
            assert run_tool("convert_weights.py", narrow, "--to", back, "-o", source).returncode == 0
        target = tmp_path / f"{name}.safetensors"
        result = run_tool("convert_weights.py", source, "-o", target)
        assert result.returncode == 0, result.stderr
        with safetensors.safe_open(target, "np") as file:
            assert file.metadata()["width"] == "0.125"
        assert engine("selftest", "--json", target)["passed"] is True
    state = {name: value for name, value in torch.load(narrow).items() if value.dim() > 0}
    save_file(state, tmp_path / "plain.safetensors")
    assert engine("info", "--json", tmp_path / "plain.safetensors")["parameters"] == engine("info", "--json", target)["parameters"]


def test_widths_that_would_round_are_refused(tmp_path: pathlib.Path) -> None:
    for width in (0.3, 0, 5, "nan"):
        result = run_tool("make_checkpoint.py", "--width", width, "-o", tmp_path / "x.pt")
        assert_one_error(result, "--width must be a multiple of 1/16")


def test_a_layer_of_another_width_is_named(narrow: pathlib.Path, tmp_path: pathlib.Path) -> None:
    state = torch.load(narrow)
    state["conv2d_4a.conv.weight"] = torch.zeros(192, 10, 3, 3)
    torch.save(state, tmp_path / "mixed.pt")
    result = run_tool("convert_weights.py", tmp_path / "mixed.pt", "-o", tmp_path / "x.safetensors")
    assert_one_error(result, "conv2d_4a.conv.weight is [192, 10, 3, 3], not [24, 10, 3, 3]")
