"""Checkpoints of every kind: converted, their embeddings equal the framework's they come from, on the same pixels."""

from __future__ import annotations

import hashlib
import importlib
import pathlib
import subprocess
import sys
from typing import NamedTuple

import numpy as np
import pytest
import torch
from conftest import ROOT, assert_one_error, run_tool
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from facenet_tools import activations, checkpoint, davidsandberg, pictures, sources, tensorflow_files
from facenet_tools.cli import ToolError

# The bound between PyTorch's float64 and whatever else computes on the same pixels, here the framework's float32.
SAME = 3e-6

_has_tensorflow = pytest.mark.skipif(
    tensorflow_files.python() is None, reason="no TensorFlow: tools/bootstrap.sh --tensorflow installs it"
)


def needs_tensorflow(test):
    """Its graphs take half a minute each to build."""
    return pytest.mark.slow(_has_tensorflow(test))


class Made(NamedTuple):
    """A folder of checkpoints, and the embeddings their framework computed."""

    folder: pathlib.Path
    embeddings: np.ndarray


@pytest.fixture(scope="session")
def stack() -> np.ndarray:
    random = np.random.default_rng(6)
    return np.stack([pictures.structured(random) for _ in range(2)])


@pytest.fixture(scope="session")
def state512(checkpoint512) -> checkpoint.StateDict:
    return checkpoint.check(checkpoint.read(str(checkpoint512)), "fixture")[0]


@pytest.fixture(scope="session")
def state128(state) -> checkpoint.StateDict:
    return checkpoint.check(state, "fixture")[0]


def embed_converted(path: pathlib.Path, stack: np.ndarray) -> np.ndarray:
    """What a converted file computes in float64, by its own statement of the scaling."""
    with safe_open(path, "np") as file:
        metadata = file.metadata()
    source = sources.read(str(path))
    model = checkpoint.build_model(int(metadata["embedding_dim"])).double()
    model.load_state_dict(source.state, strict=False)
    return activations.embed(model, stack, torch.float64, metadata["scaling"])


def convert(path: pathlib.Path, folder: pathlib.Path, *options: str) -> tuple[pathlib.Path, dict[str, str]]:
    output = folder / "converted.safetensors"
    result = run_tool("convert_weights.py", path, "-o", output, *options)
    assert result.returncode == 0, result.stderr
    with safe_open(output, "np") as file:
        return output, file.metadata()


def without_gamma(state: checkpoint.StateDict) -> checkpoint.StateDict:
    """The same network with every gamma 1, as davidsandberg's has it: gamma moves into the weights and the mean."""
    out = dict(state)
    for layer in checkpoint.layers(checkpoint.build_model()):
        if layer.norm is None:
            continue
        gamma = state[f"{layer.norm}.weight"]
        out[layer.weight] = state[layer.weight] * gamma.reshape(-1, *[1] * (state[layer.weight].dim() - 1))
        out[f"{layer.norm}.running_mean"] = state[f"{layer.norm}.running_mean"] * gamma
        out[f"{layer.norm}.weight"] = torch.ones_like(gamma)
    return out


def variables(state: checkpoint.StateDict, keras: bool) -> dict[str, np.ndarray]:
    """By TensorFlow's or Keras' names, written down here once more than in the importer only where they differ."""
    out = {}
    for layer, scope, norm in davidsandberg.layers():
        weight = state[f"{layer}.weight"]
        weight = weight.permute(2, 3, 1, 0) if weight.dim() == 4 else weight.T  # H W I O; in, out
        at = deepface_layer(scope) if keras else f"InceptionResnetV1/{scope}"
        out[f"{at}/{'kernel' if keras else 'weights'}"] = weight.numpy()
        if not norm:
            out[f"{at}/{'bias' if keras else 'biases'}"] = state[f"{layer}.bias"].numpy()
            continue
        at += "_BatchNorm" if keras else "/BatchNorm"
        for theirs, ours in (("beta", "bias"), ("moving_mean", "running_mean"), ("moving_variance", "running_var")):
            out[f"{at}/{theirs}"] = state[f"{norm}.{ours}"].numpy()
    return out


def deepface_layer(scope: str) -> str:
    """As DeepFace spells it: the second branch of Block17 and Block8 has the block's number, but for Block8_6."""
    name = davidsandberg.keras_layer(scope)
    parts = name.split("_")
    if parts[0] in ("Block17", "Block8") and parts[2:4] == ["Branch", "1"] and name[:8] != "Block8_6":
        parts[3] = parts[1]
    return "_".join(parts)


def run_reference(framework: str, numbers: dict[str, np.ndarray], inputs: torch.Tensor, out: pathlib.Path) -> Made:
    np.savez(out / "weights.npz", **numbers)
    np.save(out / "pictures.npy", inputs.permute(0, 2, 3, 1).contiguous().numpy())
    script = ROOT / "tests" / "python" / "tensorflow_reference.py"
    command = [tensorflow_files.python(), script, framework, out / "weights.npz", out / "pictures.npy", out]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0 and "ModuleNotFoundError" in done.stderr:
        pytest.skip(f"TensorFlow is there, but not all of tools/requirements-tensorflow.txt: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return Made(out, np.load(out / "embeddings.npy"))


@pytest.fixture(scope="session")
def facenet512(state512, stack, tmp_path_factory) -> Made:
    """A 2018 model: 512 dimensions, fixed scaling."""
    inputs = pictures.to_tensor(stack, torch.float32, "fixed")
    out = tmp_path_factory.mktemp("20180402-114759")
    return run_reference("facenet", variables(without_gamma(state512), keras=False), inputs, out)


@pytest.fixture(scope="session")
def facenet128(state128, stack, tmp_path_factory) -> Made:
    """A 2017 model: 128 dimensions, prewhitened."""
    inputs = pictures.to_tensor(stack, torch.float32, "prewhiten")
    out = tmp_path_factory.mktemp("facenet128")
    return run_reference("facenet", variables(without_gamma(state128), keras=False), inputs, out)


@pytest.fixture(scope="session", params=[128, 512])
def deepface(request, state128, state512, stack, tmp_path_factory) -> Made:
    state, scaling = {128: (state128, "prewhiten"), 512: (state512, "fixed")}[request.param]
    inputs = pictures.to_tensor(stack, torch.float32, scaling)
    out = tmp_path_factory.mktemp(f"deepface{request.param}")
    return run_reference("deepface", variables(without_gamma(state), keras=True), inputs, out)


def assert_equal(path: pathlib.Path, stack: np.ndarray, embeddings: np.ndarray, kind: str) -> None:
    """pytest -rP shows the figures."""
    error = np.abs(embed_converted(path, stack) - embeddings).max()
    print(f"{kind}: {error:.2e}")
    assert error <= SAME


@needs_tensorflow
def test_tensorflow_checkpoint_of_2018(facenet512, stack, tmp_path):
    output, metadata = convert(facenet512.folder, tmp_path)
    assert_equal(output, stack, facenet512.embeddings, "TensorFlow checkpoint, 512-d")
    wanted = {"embedding_dim": "512", "scaling": "fixed", "margin": "32", "crop": "box", "dataset": "vggface2"}
    assert {key: metadata[key] for key in wanted} == wanted


@needs_tensorflow
def test_tensorflow_checkpoint_of_2017(facenet128, stack, tmp_path):
    output, metadata = convert(facenet128.folder / "model-test.ckpt-7.meta", tmp_path)
    assert_equal(output, stack, facenet128.embeddings, "TensorFlow checkpoint, 128-d")
    assert (metadata["embedding_dim"], metadata["scaling"], metadata["margin"]) == ("128", "prewhiten", "32")


@needs_tensorflow
@pytest.mark.parametrize("name", ["facenet512", "facenet128"])
def test_frozen_graph(name, stack, tmp_path, request):
    made = request.getfixturevalue(name)
    output, metadata = convert(made.folder / "frozen.pb", tmp_path)
    kind = f"TensorFlow frozen graph, {metadata['embedding_dim']}-d"
    assert_equal(output, stack, made.embeddings, kind)


@needs_tensorflow
@pytest.mark.parametrize("name", ["weights.h5", "model.h5"])
def test_keras(name, deepface, stack, tmp_path):
    output, metadata = convert(deepface.folder / name, tmp_path)
    dim = metadata["embedding_dim"]
    assert_equal(output, stack, deepface.embeddings, f"Keras {name}, {dim}-d")
    assert (metadata["scaling"], metadata["margin"]) == ({"128": "prewhiten", "512": "fixed"}[dim], "0")


def test_training_leftovers_are_ignored_and_strangers_are_not(state128):
    numbers = variables(without_gamma(state128), keras=False)
    for name in ("Logits/weights", "InceptionResnetV1/Bottleneck/weights/Adam_1", "global_step"):
        numbers[name] = np.zeros(3, np.float32)
    davidsandberg.from_tensorflow(numbers, "model", strict=True)
    numbers["InceptionResnetV1/Conv2d_9z/weights"] = np.zeros(3, np.float32)
    davidsandberg.from_tensorflow(numbers, "model", strict=False)
    with pytest.raises(ToolError, match="does not have: InceptionResnetV1/Conv2d_9z/weights"):
        davidsandberg.from_tensorflow(numbers, "model", strict=True)
    del numbers["InceptionResnetV1/Repeat_1/block17_3/Branch_1/Conv2d_0b_1x7/BatchNorm/moving_mean"]
    with pytest.raises(ToolError, match="needs variables that are not there: Repeat_1/block17_3/Branch_1/Conv2d_0b_1x7"):
        davidsandberg.from_tensorflow(numbers, "model", strict=False)


def test_the_bottleneck_of_early_2017(state128):
    numbers = variables(without_gamma(state128), keras=False)
    early = {name.replace("InceptionResnetV1/Bottleneck/", "Bottleneck/"): value for name, value in numbers.items()}
    assert early.keys() != numbers.keys()
    new, old = (davidsandberg.from_tensorflow(n, "model", strict=True) for n in (numbers, early))
    assert all(torch.equal(old[name], value) for name, value in new.items())


def test_another_network_of_tensorflow_is_refused():
    with pytest.raises(ToolError, match="its scopes are InceptionResnetV2; only davidsandberg's Inception-ResNet-v1"):
        davidsandberg.from_tensorflow({"InceptionResnetV2/Conv2d_1a_3x3/weights": np.zeros(1)}, "model", strict=True)


def test_gamma_is_used_where_a_checkpoint_has_one(state128):
    numbers = variables(state128, keras=False)
    for _, scope, norm in davidsandberg.layers():
        if norm:
            numbers[f"InceptionResnetV1/{scope}/BatchNorm/gamma"] = state128[f"{norm}.weight"].numpy()
    read = davidsandberg.from_tensorflow(numbers, "model", strict=True)
    assert all(torch.equal(read[name], value) for name, value in state128.items() if "num_batches" not in name)


def test_without_tensorflow_the_remedy_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(tensorflow_files, "python", lambda: None)
    (tmp_path / "frozen.pb").write_bytes(b"\x0a\x07\x0a\x05input")
    result = run_tool("convert_weights.py", tmp_path / "frozen.pb", "-o", tmp_path / "o")
    assert_one_error(result, "frozen.pb", "tools/bootstrap.sh --tensorflow")


@pytest.mark.parametrize("package, content", [("h5py", b"\x89HDF\r\n\x1a\n"), ("onnx", b"\x08\x08\x12\x07pytorch")])
def test_without_an_optional_package_the_remedy_is_named(monkeypatch, tmp_path, package, content):
    monkeypatch.setitem(sys.modules, package, None)  # import then fails
    (tmp_path / "input").write_bytes(content)
    result = run_tool("convert_weights.py", tmp_path / "input", "-o", tmp_path / "o")
    assert_one_error(result, "input", f"run: .venv/bin/python -m pip install {package}")


@needs_tensorflow
def test_damaged_tensorflow_files(facenet128, tmp_path):
    whole = (facenet128.folder / "frozen.pb").read_bytes()
    (tmp_path / "cut.pb").write_bytes(whole[: len(whole) // 2])
    assert_one_error(run_tool("convert_weights.py", tmp_path / "cut.pb", "-o", tmp_path / "o"), "cut.pb", "TensorFlow cannot")
    index = (facenet128.folder / "model-test.ckpt-7.index").read_bytes()
    (tmp_path / "model-test.ckpt-7.index").write_bytes(index)
    result = run_tool("convert_weights.py", tmp_path, "-o", tmp_path / "o")
    assert_one_error(result, "model-test.ckpt-7.data-00000-of-00001 is not beside it")
    (tmp_path / "model-test.ckpt-7.data-00000-of-00001").write_bytes(b"short")
    assert_one_error(run_tool("convert_weights.py", tmp_path, "-o", tmp_path / "o"), "TensorFlow cannot read this checkpoint")


def test_the_checkpoint_with_most_steps_is_taken(tmp_path):
    for steps in (9, 10, 100):
        (tmp_path / f"model-x.ckpt-{steps}.index").touch()
    assert tensorflow_files.checkpoint_prefix(str(tmp_path)) == str(tmp_path / "model-x.ckpt-100")
    assert tensorflow_files.checkpoint_prefix(str(tmp_path / "model-x.ckpt-9.meta")) == str(tmp_path / "model-x.ckpt-9")
    assert tensorflow_files.checkpoint_prefix(str(tmp_path / "model-x.ckpt-11")) is None


# A folder with nothing, TensorFlow's other format, HDF5 without layers: each is told apart and has its own remedy.
@pytest.mark.parametrize(
    "content, parts",
    [
        (None, ("holds no TensorFlow checkpoint", "give a facenet-pytorch .pt")),
        (b"\x08\x01\x12\x00", ("SavedModel", "frozen graph")),
        (b"\x89HDF\r\n\x1a\n" + b"\x00" * 64, ("not a readable HDF5 file",)),
        (b"\x08\x08\x12\x07pytorch" + b"\xff" * 20, ("not a readable ONNX file",)),
        (b"\x40\x00\x00\x00\x00\x00\x00\x00{" + b"x" * 80, ("not a readable safetensors file",)),
        (b"\x08", ("not a readable PyTorch checkpoint",)),
        (b"hello", ("not a readable PyTorch checkpoint",)),
    ],
)
def test_what_cannot_be_read_says_why(tmp_path, content, parts):
    path = tmp_path / "input"
    path.mkdir() if content is None else path.write_bytes(content)
    assert_one_error(run_tool("convert_weights.py", path, "-o", tmp_path / "o"), "input", *parts)


@pytest.fixture(scope="session")
def whole_model(state128, tmp_path_factory) -> pathlib.Path:
    """torch.save(model), as many tutorials do."""
    model = checkpoint.build_model(128)
    model.load_state_dict(state128, strict=False)
    path = tmp_path_factory.mktemp("whole") / "whole.pt"
    torch.save(model, path)
    return path


@pytest.fixture(scope="session")
def torch128(state128, stack) -> np.ndarray:
    """facenet-pytorch's own embeddings, float32."""
    model = checkpoint.build_model(128)
    model.load_state_dict(state128, strict=False)
    return activations.embed(model, stack, torch.float32)


def test_whole_model(whole_model, stack, torch128, tmp_path):
    """Its class is not run, and need not be there."""
    output, _ = convert(whole_model, tmp_path)
    assert_equal(output, stack, torch128, "facenet-pytorch .pt, whole model")


def test_state_dict(converted, stack, torch128):
    assert_equal(converted["f32"], stack, torch128, "facenet-pytorch .pt, state_dict")


def test_safetensors_state_dict(state, stack, torch128, tmp_path):
    path = tmp_path / "plain.safetensors"
    save_file({name: value.contiguous() for name, value in state.items()}, path, metadata={"format": "pt"})
    output, metadata = convert(path, tmp_path)
    assert_equal(output, stack, torch128, "safetensors state_dict")
    assert metadata["trained"] == "false"


@pytest.fixture(scope="session")
def onnx():
    pytest.importorskip("onnx.reference", reason="no onnx: tools/bootstrap.sh installs it")
    return importlib.import_module("onnx")


@pytest.fixture(scope="session")
def exported(onnx, checkpoint_file, tmp_path_factory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    result = run_tool("convert_weights.py", checkpoint_file, "--to", "onnx", "-o", path)
    assert result.returncode == 0, result.stderr
    return path


def onnx_embeddings(onnx, path: pathlib.Path, stack: np.ndarray) -> np.ndarray:
    """By the package's own evaluator in numpy; a picture at a time, since users export for one."""
    evaluator = onnx.reference.ReferenceEvaluator(onnx.load(path))
    inputs = pictures.to_tensor(stack, torch.float32).numpy()
    return np.concatenate([evaluator.run(None, {evaluator.input_names[0]: picture[None]})[0] for picture in inputs])


def test_onnx_with_folded_norms(onnx, exported, stack, tmp_path):
    output, metadata = convert(exported, tmp_path)
    assert_equal(output, stack, onnx_embeddings(onnx, exported, stack), "ONNX, batch norms folded")
    assert metadata["trained"] == "false" and metadata["dataset"] == "synthetic"


@pytest.mark.slow
def test_onnx_as_users_export_it(onnx, state128, stack, tmp_path):
    """Batch norms kept, names as they are, no metadata of ours."""
    model = checkpoint.build_model(128)
    model.load_state_dict(state128, strict=False)
    path = tmp_path / "kept.onnx"
    torch.onnx.export(model, torch.zeros(1, 3, 160, 160), path, training=torch.onnx.TrainingMode.PRESERVE)
    output, metadata = convert(path, tmp_path)
    assert_equal(output, stack, onnx_embeddings(onnx, path, stack), "ONNX, batch norms kept")
    assert metadata["trained"] == "true" and metadata["dataset"] == "unknown"


@pytest.mark.parametrize("change", ["scale", "branches", "epsilon", "layers"])
def test_another_onnx_graph_is_refused(onnx, exported, tmp_path, change):
    model = onnx.load(exported)
    nodes = model.graph.node
    if change == "scale":  # a residual's 0.17
        constant = next(n for n in nodes if n.op_type == "Mul").input[1]
        maker = next(n for n in nodes if constant in n.output)
        maker.attribute[0].t.CopyFrom(onnx.numpy_helper.from_array(np.float32(0.2)))
    elif change == "branches":  # of one shape, in another order
        first = next(n for n in nodes if n.op_type == "Concat" and len(n.input) == 3)
        first.input[0], first.input[1] = first.input[1], first.input[0]
    elif change == "epsilon":
        norm = next(n for n in nodes if n.op_type == "BatchNormalization")
        next(a for a in norm.attribute if a.name == "epsilon").f = 1e-5
    else:
        nodes.remove(next(n for n in nodes if n.op_type == "Conv"))
    onnx.save(model, tmp_path / "other.onnx")
    parts = {"epsilon": "batch norm of last_linear has epsilon 1e-05", "layers": "132 convolutions and matrix products"}
    result = run_tool("convert_weights.py", tmp_path / "other.onnx", "-o", tmp_path / "o")
    assert_one_error(result, "other.onnx", parts.get(change, "computes something else"))


def weights(path: pathlib.Path) -> dict[str, torch.Tensor]:
    return {name: value for name, value in load_file(path).items() if not name.startswith("selftest.")}


@pytest.mark.slow
@pytest.mark.parametrize("kind, dtype", [("pt", "f32"), ("pt", "f16"), ("onnx", "f32")])
def test_there_and_back_returns_every_bit(kind, dtype, converted, two_pictures, tmp_path, request):
    if kind == "onnx":
        request.getfixturevalue("onnx")
    back = tmp_path / f"back.{kind}"
    result = run_tool("convert_weights.py", converted[dtype], "--to", kind, "-o", back)
    assert result.returncode == 0, result.stderr
    again, metadata = convert(back, tmp_path, "--dtype", dtype, "--pictures", *two_pictures)
    first, second = weights(converted[dtype]), weights(again)
    assert list(first) == list(second)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert metadata["trained"] == "false"


def test_int8_comes_back_within_float32(converted, stack, tmp_path):
    back = tmp_path / "back.pt"
    assert run_tool("convert_weights.py", converted["i8"], "--to", "pt", "-o", back).returncode == 0
    model = checkpoint.build_model(128)
    model.load_state_dict(checkpoint.check(checkpoint.read(str(back)), "back")[0], strict=False)
    error = np.abs(activations.embed(model, stack, torch.float32) - embed_converted(converted["i8"], stack)).max()
    assert error <= SAME


@pytest.mark.slow
def test_an_exported_state_dict_loads_in_facenet_pytorch(state512, tmp_path):
    """As its users load one: strict but for the counters and the classifier, which a converted file does not have."""
    from facenet_pytorch import InceptionResnetV1

    torch.save(state512, tmp_path / "in.pt")
    assert run_tool("convert_weights.py", tmp_path / "in.pt", "--to", "pt", "-o", tmp_path / "out.pt").returncode == 0
    missing, unexpected = InceptionResnetV1().load_state_dict(torch.load(tmp_path / "out.pt"), strict=False)
    assert unexpected == [] and all(name.endswith("num_batches_tracked") or "logits" in name for name in missing)


@pytest.mark.slow
def test_preprocessing_survives_onnx_and_a_state_dict_says_what_it_loses(onnx, checkpoint_file, tmp_path):
    options = ("--scaling", "prewhiten", "--licence", "CC0")
    result = run_tool("convert_weights.py", checkpoint_file, "--to", "onnx", "-o", tmp_path / "m.onnx", *options)
    assert result.returncode == 0 and result.stderr == ""
    _, metadata = convert(tmp_path / "m.onnx", tmp_path)
    assert (metadata["scaling"], metadata["licence"]) == ("prewhiten", "CC0")
    result = run_tool("convert_weights.py", checkpoint_file, "--to", "pt", "-o", tmp_path / "m.pt", *options)
    assert result.returncode == 0 and "add --scaling prewhiten" in result.stderr


def test_converted_files_are_not_converted_again(converted, tmp_path):
    result = run_tool("convert_weights.py", converted["f32"], "-o", tmp_path / "o")
    assert_one_error(result, "is converted already", "--to pt or --to onnx")
    damaged = bytearray(converted["f32"].read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / "damaged.safetensors").write_bytes(damaged)
    result = run_tool("convert_weights.py", tmp_path / "damaged.safetensors", "--to", "pt", "-o", tmp_path / "o")
    assert_one_error(result, "damaged.safetensors", "XXH64 does not agree")


def test_another_sha256_is_refused_before_anything_is_parsed(checkpoint_file, whole_model, tmp_path, monkeypatch):
    digest = hashlib.sha256(checkpoint_file.read_bytes()).hexdigest()
    _, metadata = convert(checkpoint_file, tmp_path, "--expected-sha256", digest)
    assert metadata["source_sha256"] == digest
    monkeypatch.setattr(checkpoint, "read_chosen", lambda *_: pytest.fail("the file was parsed"))
    result = run_tool("convert_weights.py", whole_model, "-o", tmp_path / "o", "--unsafe", "--expected-sha256", digest)
    assert_one_error(result, "whole.pt", "not the expected one")


def test_the_name_of_a_public_model_tells_its_data_set(state512, tmp_path):
    folder = tmp_path / "20180408-102900"
    folder.mkdir()
    torch.save(state512, folder / "model.pt")
    assert convert(folder / "model.pt", tmp_path)[1]["dataset"] == "casia-webface"
