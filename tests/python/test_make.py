"""tools/make_checkpoint.py and tools/make_golden.py."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from conftest import assert_one_error, run_tool
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file

from facenet_tools import checkpoint, pictures


@pytest.fixture(scope="session")
def photo(tmp_path_factory):
    """A made-up picture, wider than high, as a file."""
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    picture = pictures.structured(np.random.default_rng(8))
    Image.fromarray(picture).resize((301, 200), Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture(scope="session")
def golden(checkpoint_file, photo, tmp_path_factory):
    """A golden file with layers of the photo, and embeddings of the generated pictures too."""
    path = tmp_path_factory.mktemp("golden") / "golden.safetensors"
    result = run_tool("make_golden.py", checkpoint_file, "-o", path, "--layers", "--generated", "--images", photo)
    assert result.returncode == 0, result.stderr
    return path


def test_checkpoint_has_the_layout_of_facenet_pytorch(state):
    model = checkpoint.build_model(128)
    model.logits = torch.nn.Linear(128, 16)
    expected = {name: (tuple(value.shape), value.dtype) for name, value in model.state_dict().items()}
    expected[checkpoint.UNTRAINED_KEY] = ((), torch.int64)
    assert {name: (tuple(value.shape), value.dtype) for name, value in state.items()} == expected
    assert list(state) == list(expected)


def test_statistics_span_what_trained_ones_do(state):
    variances = torch.cat([value for name, value in state.items() if name.endswith("running_var")])
    gammas = torch.cat([value for name, value in state.items() if name.endswith("bn.weight")])
    assert 1e-4 <= variances.min() < 2e-4 and 50 < variances.max() <= 100
    assert 0.2 < (gammas < 0).double().mean() < 0.3
    for name in ("conv2d_1a.bn.bias", "conv2d_1a.bn.running_mean", "repeat_1.0.conv2d.bias", "last_bn.bias"):
        assert (state[name] != 0).all()


@pytest.mark.slow
def test_same_seed_same_bytes(checkpoint_file, tmp_path):
    again, other = tmp_path / "again.pt", tmp_path / "other.pt"
    run_tool("make_checkpoint.py", "--dim", 128, "--seed", 3, "-o", again, "--images")
    run_tool("make_checkpoint.py", "--dim", 128, "--seed", 4, "-o", other, "--images")
    assert again.read_bytes() == checkpoint_file.read_bytes()
    assert other.read_bytes() != checkpoint_file.read_bytes()


@pytest.mark.slow
def test_safetensors_and_legacy_outputs_hold_the_same_numbers(converted, tmp_path):
    direct, legacy, back = tmp_path / "d.safetensors", tmp_path / "l.pt", tmp_path / "b.safetensors"
    common = ("--dim", 128, "--seed", 3, "--images")
    assert run_tool("make_checkpoint.py", "-o", direct, *common).returncode == 0
    assert run_tool("make_checkpoint.py", "--legacy", "-o", legacy, *common).returncode == 0
    assert legacy.read_bytes()[:2] != b"PK"
    assert run_tool("convert_weights.py", legacy, "-o", back).returncode == 0
    expected = load_file(converted["f32"])
    for path in (direct, back):
        tensors = load_file(path)
        assert all((tensors[name] == value).all() for name, value in expected.items())
        with safe_open(path, "np") as file:
            assert file.metadata()["trained"] == "false"


def test_golden_tensors(golden):
    tensors = load_file(golden)
    with safe_open(golden, "np") as file:
        metadata = file.metadata()
    names = metadata["images"].split("\n")
    assert metadata["golden"] == "1"
    assert names[0] == "photo.png" and "noise" in names and "constant_127" in names
    assert tensors["input"].shape == (len(names), 160, 160, 3) and tensors["input"].dtype == np.uint8
    exact = tensors["embedding"].astype(np.float64) + tensors["embedding_lo"]
    # two float32 hold 48 bits
    assert np.abs(np.linalg.norm(exact, axis=1) - 1).max() < 1e-13
    # half of what the engine may differ, so that its own rounding has room
    assert np.abs(tensors["torch_f32_embedding"] - exact).max() < 1.5e-6
    distances = np.linalg.norm(exact[:, None] - exact[None], axis=2)
    assert distances[np.triu_indices(len(names), 1)].min() > 0.2


def test_golden_layers(golden):
    tensors = load_file(golden)
    data = golden.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])  # the file's order; safe_open sorts the names
    order = [name[4:] for name in header if name.startswith("act.")]
    # 111 convolutions with batch norm, 21 blocks, 21 + 2 concatenations, 3 + 1 pools, linear, normalisation
    assert len(order) == 111 + 21 + 23 + 4 + 2
    assert order[:4] == ["conv2d_1a", "conv2d_2a", "conv2d_2b", "maxpool_3a"]
    assert order[-5:] == ["block8.cat", "block8.conv2d", "avgpool_1a", "last_linear", "normalise"]
    shapes = {
        "conv2d_1a": (1, 79, 79, 32),
        "repeat_1.0.branch2.1": (1, 17, 17, 32),
        "repeat_1.4.conv2d": (1, 17, 17, 256),
        "mixed_6a.branch2": (1, 8, 8, 256),
        "mixed_6a.cat": (1, 8, 8, 896),
        "mixed_7a.branch3": (1, 3, 3, 896),
        "block8.conv2d": (1, 3, 3, 1792),
        "avgpool_1a": (1, 1, 1, 1792),
        "last_linear": (1, 1, 1, 128),
    }
    for name, shape in shapes.items():
        assert tensors[f"act.{name}"].shape == shape, name
    assert (tensors["act.normalise"].ravel() == tensors["embedding"][0]).all()


def test_no_activation_dies_or_explodes(golden):
    for name, value in load_file(golden).items():
        if name.startswith("act.") and name != "act.normalise":
            assert 0.3 < (value > 0).mean(), name
            assert np.abs(value).max() < 30, name


def test_golden_errors(checkpoint_file, tmp_path):
    output = tmp_path / "o"
    assert_one_error(run_tool("make_golden.py", checkpoint_file, "-o", output, "--images"), "there are no pictures")
    (tmp_path / "text.jpg").write_text("hello")
    result = run_tool("make_golden.py", checkpoint_file, "-o", output, "--images", tmp_path / "text.jpg")
    assert_one_error(result, "text.jpg: cannot be read")
    result = run_tool("make_golden.py", tmp_path / "none.pt", "-o", output, "--generated")
    assert_one_error(result, "none.pt: does not exist")


def test_checkpoint_errors(tmp_path):
    assert_one_error(run_tool("make_checkpoint.py", "-o", tmp_path / "o.bin"), "must end in .pt or .safetensors")
    result = run_tool("make_checkpoint.py", "-o", tmp_path / "o.pt", "--images", tmp_path / "none.jpg")
    assert_one_error(result, "none.jpg: cannot be read (No such file or directory)")
