"""tools/convert_weights.py: what it writes, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import pathlib
import re
import stat
import tarfile

import numpy as np
import pytest
import torch
import xxhash
from conftest import assert_one_error, run_process, run_tool
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import convert_weights
from facenet_tools import activations, checkpoint, pictures, rounding, sources
from facenet_tools.cli import ToolError

KEYS = (
    "format architecture embedding_dim trained normalise width image_size channel_order scaling crop margin resize "
    "dataset source source_sha256 licence data_xxh64 header_xxh64"
).split()


def parts(path: pathlib.Path) -> tuple[bytes, dict, bytes]:
    """Header bytes, parsed header, data."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    return raw[8 : 8 + length], json.loads(raw[8 : 8 + length]), raw[8 + length :]


def model_of(state: checkpoint.StateDict, dim: int) -> torch.nn.Module:
    """The reference network in float64."""
    model = checkpoint.build_model(dim).double()
    model.load_state_dict(state, strict=False)
    return model


@pytest.fixture(scope="session")
def images() -> torch.Tensor:
    random = np.random.default_rng(5)
    return pictures.to_tensor(np.stack([pictures.structured(random) for _ in range(2)]), torch.float64)


@pytest.fixture(scope="session")
def reference(state, images) -> torch.Tensor:
    """Embeddings in float64, batch norm not folded."""
    return model_of(checkpoint.check(state, "fixture")[0], 128)(images)


def test_header_layout(converted):
    for path in converted.values():
        header, entries, data = parts(path)
        assert (8 + len(header)) % 64 == 0
        assert header.rstrip(b" ").endswith(b"}")
        metadata = entries.pop("__metadata__")
        assert list(metadata) == KEYS
        assert all(isinstance(value, str) for value in metadata.values())
        end = 0
        for entry in entries.values():
            assert entry["data_offsets"][0] == end
            end = entry["data_offsets"][1]
        assert end == len(data)


def test_tensors_are_in_network_order(converted):
    model = checkpoint.build_model(128)
    names = [layer.name for layer in checkpoint.layers(model)]
    assert len(names) == 133
    assert names[0] == "conv2d_1a" and names[-2:] == ["block8.conv2d", "last_linear"]
    for dtype, path in converted.items():
        _, entries, _ = parts(path)
        del entries["__metadata__"]
        suffixes = ("bias", "weight_scale", "weight") if dtype == "i8" else ("bias", "weight")
        expected = [f"{name}.{suffix}" for name in names for suffix in suffixes]
        assert list(entries)[: len(expected)] == expected
        assert all(name.startswith("selftest.") for name in list(entries)[len(expected) :])


def test_metadata(converted, checkpoint_file):
    _, entries, _ = parts(converted["f32"])
    metadata = entries["__metadata__"]
    assert metadata["embedding_dim"] == "128"
    assert metadata["trained"] == "false" and metadata["dataset"] == "synthetic"
    assert metadata["source"] == checkpoint_file.name
    assert metadata["source_sha256"] == hashlib.sha256(checkpoint_file.read_bytes()).hexdigest()


def test_hashes_verify(converted):
    for path in converted.values():
        header, entries, data = parts(path)
        metadata = entries["__metadata__"]
        assert re.fullmatch("[0-9a-f]{16}", metadata["data_xxh64"])
        assert xxhash.xxh64_hexdigest(data, seed=0) == metadata["data_xxh64"]
        blank = header.replace(metadata["header_xxh64"].encode(), b"0" * 16)
        assert xxhash.xxh64_hexdigest(blank, seed=0) == metadata["header_xxh64"]


def test_opens_with_the_safetensors_package(converted):
    types = {"f32": np.float32, "f16": np.float16, "i8": np.int8}
    for dtype, path in converted.items():
        with safe_open(path, "np") as file:
            assert file.metadata()["format"] == "1"
            assert file.get_tensor("conv2d_1a.weight").shape == (32, 3, 3, 3)
            assert file.get_tensor("last_linear.weight").shape == (128, 1792)
            assert file.get_tensor("repeat_2.0.branch1.1.weight").dtype == types[dtype]
            assert file.get_tensor("block8.conv2d.bias").dtype == np.float32


def test_output_is_deterministic(converted, checkpoint_file, tmp_path):
    again = tmp_path / "again.safetensors"
    assert run_tool("convert_weights.py", checkpoint_file, "-o", again).returncode == 0
    assert again.read_bytes() == converted["f32"].read_bytes()


def test_the_detector_lies_beside_the_embedder(converted, checkpoint_file, tmp_path):
    both, alone = tmp_path / "both.safetensors", tmp_path / "mtcnn.safetensors"
    assert run_tool("convert_weights.py", checkpoint_file, "-o", both, "--with-mtcnn").returncode == 0
    assert run_tool("convert_weights.py", "--mtcnn", "-o", alone).returncode == 0
    ours, embedder, detector = load_file(both), load_file(converted["f32"]), load_file(alone)
    assert set(ours) == set(embedder) | set(detector)
    for name, value in (embedder | detector).items():
        assert np.array_equal(ours[name], value), name
    assert_one_error(run_process("convert_weights.py", "--mtcnn", "--with-mtcnn", "-o", both), "--with-mtcnn")


def test_folding_is_exact_in_float64(state, images, reference):
    real, dim = checkpoint.check(state, "fixture")
    model = checkpoint.build_model(dim)
    embedding = model_of(checkpoint.unfold(checkpoint.fold(real, model), model), dim)(images)
    # float64 has 2^-53; a random network amplifies by about 1e2 over its 60 layers in sequence
    assert (embedding - reference).abs().max() < 1e-12


def test_rounding_to_float32_stays_in_the_budget(converted, images, reference):
    embedding = model_of(rounding.state_of(load_file(converted["f32"]), 128), 128)(images)
    # half of the 3e-6 that the engine may differ from PyTorch in all
    assert (embedding - reference).abs().max() < 1.5e-6


def test_float16_is_the_nearest(state, converted):
    real, dim = checkpoint.check(state, "fixture")
    halves = load_file(converted["f16"])
    for layer in checkpoint.fold(real, checkpoint.build_model(dim)):
        exact = layer.weight.numpy()
        error = np.abs(halves[f"{layer.name}.weight"].astype(np.float64) - exact)
        # half a unit in the last place: 2^-11 relative, 2^-25 absolute among subnormals
        assert (error <= np.maximum(np.abs(exact) * 2.0**-11, 2.0**-25)).all(), layer.name


def test_int8_is_within_half_a_step(state, converted):
    real, dim = checkpoint.check(state, "fixture")
    tensors = load_file(converted["i8"])
    for layer in checkpoint.fold(real, checkpoint.build_model(dim)):
        exact = layer.weight.flatten(1).numpy()
        scale = tensors[f"{layer.name}.weight_scale"].astype(np.float64)[:, None]
        steps = tensors[f"{layer.name}.weight"].reshape(exact.shape).astype(np.float64)
        assert (scale > 0).all()
        assert steps.min() >= -127
        # the scale itself is rounded to float32, which moves 127 steps by 127 * 2^-24 of one
        assert (np.abs(steps * scale - exact) <= scale * (0.5 + 127 * 2.0**-24)).all(), layer.name


def test_int8_of_a_zero_channel():
    values, scale = rounding.quantise(torch.zeros(2, 3, 1, 1, dtype=torch.float64))
    assert (scale == 1).all() and (values == 0).all()


def test_float16_overflow_is_refused_by_name():
    layer = checkpoint.Folded("conv2d_1a", torch.full((1, 1), 65520.0, dtype=torch.float64), torch.zeros(1).double())
    with pytest.raises(ToolError, match="conv2d_1a; use --dtype f32"):
        rounding.encode([layer], "f16", "big.pt")
    fits = checkpoint.Folded("conv2d_1a", torch.full((1, 1), 65519.0, dtype=torch.float64), torch.zeros(1).double())
    assert rounding.encode([fits], "f16", "big.pt")["conv2d_1a.weight"] == 65504


def golden_tensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    return {name: value for name, value in load_file(path).items() if name.startswith("selftest.")}


def test_goldens_have_the_documented_layout(converted):
    tensors = golden_tensors(converted["f32"])
    model = checkpoint.build_model(128)
    pools = {"maxpool_3a", "mixed_6a.branch2", "mixed_7a.branch3", "avgpool_1a"}
    layers = {layer.name for layer in checkpoint.layers(model)} | pools
    parts = {f"selftest.{layer}.{part}" for layer in layers for part in ("samples", "norms")}
    assert set(tensors) == parts | {"selftest.input", "selftest.embedding"}
    picture = tensors["selftest.input"]
    assert picture.shape == (160, 160, 3) and picture.dtype == np.float16
    assert (picture == picture.astype(np.uint8)).all() and np.ptp(picture) > 200
    assert tensors["selftest.conv2d_1a.samples"].shape == (64,) and tensors["selftest.conv2d_1a.norms"].shape == (32,)
    assert tensors["selftest.last_linear.norms"].shape == (128,)


def test_goldens_are_what_the_checkpoint_computes(converted, state):
    """Recomputed here by another road: the layer's own output, flattened by numpy, at places written out."""
    tensors = golden_tensors(converted["f32"])
    model = model_of(checkpoint.check(state, "fixture")[0], 128)
    outputs = {}
    for name in ("conv2d_1a", "repeat_2.3.branch1.1", "mixed_7a.branch3"):
        module = model.get_submodule(name)
        module.register_forward_hook(lambda _m, _i, out, name=name: outputs.update({name: out[0].numpy().transpose(1, 2, 0)}))
    embedding = model((torch.from_numpy(tensors["selftest.input"].astype(float)).permute(2, 0, 1)[None] - 127.5) / 128)
    for name, value in outputs.items():
        places = [j * 2654435761 % value.size for j in range(64)]
        assert len(set(places)) == 64
        np.testing.assert_array_equal(tensors[f"selftest.{name}.samples"], value.ravel()[places].astype(np.float32))
        # numpy may add in another order than torch: a few units of float64 before one rounding to float32
        norms = np.sqrt((value**2).sum(axis=(0, 1)))
        np.testing.assert_allclose(tensors[f"selftest.{name}.norms"], norms, rtol=2.0**-23)
    np.testing.assert_array_equal(tensors["selftest.embedding"], embedding[0].numpy().astype(np.float32))


@pytest.mark.parametrize("dtype", ["f16", "i8"])
def test_goldens_of_rounded_weights(converted, dtype):
    """Layers with the weights as stored, so that the engine's bound stays that of float32; the embedding is the source's."""
    exact, rounded = golden_tensors(converted["f32"]), golden_tensors(converted[dtype])
    np.testing.assert_array_equal(rounded["selftest.embedding"], exact["selftest.embedding"])
    state = rounding.state_of(load_file(converted[dtype]), 128)
    own = activations.goldens(state, state, 128, "fixed")
    for name, value in rounded.items():
        if name != "selftest.embedding":
            np.testing.assert_array_equal(value, own[name], err_msg=name)
    assert (rounded["selftest.avgpool_1a.samples"] != exact["selftest.avgpool_1a.samples"]).all()


def test_goldens_obey_the_scaling(checkpoint_file, tmp_path, converted):
    output = tmp_path / "p.safetensors"
    result = run_tool("convert_weights.py", checkpoint_file, "-o", output, "--scaling", "prewhiten")
    assert result.returncode == 0, result.stderr
    assert parts(output)[1]["__metadata__"]["scaling"] == "prewhiten"
    other, first = golden_tensors(output), golden_tensors(converted["f32"])
    np.testing.assert_array_equal(other["selftest.input"], first["selftest.input"])
    assert (other["selftest.conv2d_1a.norms"] != first["selftest.conv2d_1a.norms"]).all()


def test_prewhitening_is_that_of_facenet_py():
    picture = pictures.structured(np.random.default_rng(2)).astype(np.float64)
    constant = np.full((160, 160, 3), 9.0)
    for pixels in (picture, constant):
        expected = (pixels - pixels.mean()) / max(pixels.std(), 1 / np.sqrt(pixels.size))
        scaled = pictures.to_tensor(pixels[None].astype(np.uint8), torch.float64, "prewhiten")
        np.testing.assert_allclose(scaled[0].permute(1, 2, 0), expected, atol=1e-12)


def lines_of(result) -> dict[str, list[str]]:
    assert result.returncode == 0, result.stderr
    return {line.split()[0]: line.split() for line in result.stdout.splitlines()}


@pytest.mark.slow
def test_the_cost_of_each_type_is_reported(checkpoint_file, tmp_path):
    """On photographs where bootstrap.sh could fetch some: cosine to fp32 at least 0.9999 and 0.995."""
    result = run_tool("convert_weights.py", checkpoint_file, "-o", tmp_path / "o.safetensors", "--compare")
    lines = lines_of(result)
    assert list(lines) == ["f32", "f16", "i8"]
    for dtype, least in (("f32", 1 - 1e-6), ("f16", 0.9999), ("i8", 0.995)):
        name, _, cosine, _, genuine, _, impostor = lines[dtype]
        assert float(cosine) >= least, dtype
        assert max(abs(float(genuine)), abs(float(impostor))) < rounding.COLLAPSE
    assert abs(float(lines["i8"][6])) > abs(float(lines["f16"][6])) > 0


def test_cost_counts_pairs_and_their_changes():
    """Two pictures and their mirror images on a circle; rounding moves the second picture towards the first by 0.1 rad."""

    def at(*angles: float) -> np.ndarray:
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)

    found = rounding.cost(at(0, 1, 0, 1), at(0, 0.9, 0, 1), "i8")
    assert found.cosine == pytest.approx(np.cos(0.1))
    assert found.genuine == pytest.approx(2 * np.sin(0.05))
    nearer = 2 * np.sin(0.5) - 2 * np.sin(0.45)
    assert found.impostor == pytest.approx(-nearer) and found.nearer == pytest.approx(nearer)
    with pytest.raises(ToolError, match="x.pt: as i8 .* nearer by 0.089, at most 0.05 .*use f16 or f32"):
        rounding.refuse_collapse(found, "x.pt")
    rounding.refuse_collapse(rounding.cost(at(0, 1, 0, 1), at(0, 0.95, 0, 1), "i8"), "x.pt")


def test_a_collapsing_file_is_not_written(state, two_pictures, tmp_path):
    """One weight sixty times the others of its row leaves int8 no steps for them."""
    bad = {name: value.clone() for name, value in state.items()}
    for layer in list(checkpoint.layers(checkpoint.build_model(128)))[:30]:  # in all of them float32 would overflow, which is another sentence
        rows = bad[layer.weight].flatten(1)
        rows[:, 0] = rows.abs().amax(1) * 60
    result, output = convert_state(bad, tmp_path, "--dtype", "i8", "--pictures", *map(str, two_pictures))
    assert result.returncode == 2, result.stderr
    assert "as i8 these weights bring two different pictures nearer" in result.stderr
    assert not output.exists()


def convert_state(state: object, tmp_path: pathlib.Path, *options: str, legacy: bool = False):
    source, output = tmp_path / "in.pt", tmp_path / "out.safetensors"
    torch.save(state, source, _use_new_zipfile_serialization=not legacy)
    return run_tool("convert_weights.py", source, "-o", output, *options), output


def without_marker(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in state.items() if name != checkpoint.UNTRAINED_KEY}


def test_wrapped_prefixed_legacy_checkpoint_converts_to_the_same_data(state, converted, tmp_path):
    wrapped = {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}
    result, output = convert_state(wrapped, tmp_path, legacy=True)
    assert result.returncode == 0, result.stderr
    assert parts(output)[2] == parts(converted["f32"])[2]


def test_trained_unless_told_otherwise(state, tmp_path):
    result, output = convert_state(without_marker(state), tmp_path)
    assert result.returncode == 0, result.stderr
    metadata = parts(output)[1]["__metadata__"]
    assert (metadata["trained"], metadata["dataset"], metadata["licence"]) == ("true", "unknown", "unknown")
    options = ("--untrained", "--dataset", "mine", "--licence", "CC0")
    result, output = convert_state(without_marker(state), tmp_path, *options)
    metadata = parts(output)[1]["__metadata__"]
    assert (metadata["trained"], metadata["dataset"], metadata["licence"]) == ("false", "mine", "CC0")


def test_every_fault_is_listed(state, tmp_path):
    faulty = dict(state)
    removed = ["conv2d_2a.conv.weight", "repeat_1.0.conv2d.bias", "last_bn.running_var"]
    for name in removed:
        del faulty[name]
    faulty["conv2d_9z.conv.weight"] = torch.zeros(1)
    faulty["conv2d_1a.bn.bias"] = torch.zeros(31)
    result, output = convert_state(faulty, tmp_path)
    assert_one_error(result, "3 keys are missing, 1 unexpected, 1 of the wrong shape", "in.pt")
    listed = result.stderr.splitlines()[1:]
    assert listed == [f"  missing: {name}" for name in removed] + [
        "  unexpected: conv2d_9z.conv.weight",
        "  of the wrong shape: conv2d_1a.bn.bias is [31], not [32]",
    ]
    assert not output.exists()


def test_another_architecture_is_refused(tmp_path):
    result, _ = convert_state({"fc.weight": torch.zeros(2, 2)}, tmp_path)
    assert_one_error(result, "not a state_dict of facenet-pytorch's InceptionResnetV1", "unexpected: fc.weight")


@pytest.mark.parametrize("value, problem", [(float("nan"), "NaN or infinity"), (-1.0, "negative variance")])
def test_bad_values_are_refused(state, tmp_path, value, problem):
    bad = {**state, "conv2d_1a.bn.running_var": state["conv2d_1a.bn.running_var"].clone().fill_(value)}
    assert_one_error(convert_state(bad, tmp_path)[0], problem, "conv2d_1a.bn.running_var")


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(3), {"a": 1}])
def test_other_pickles_are_refused(tmp_path, content):
    assert_one_error(convert_state(content, tmp_path)[0], "in.pt", "state_dict")


class Hostile:
    def __reduce__(self):
        return (pathlib.Path.touch, (pathlib.Path("hostile_code_ran"),))


def test_code_in_a_pickle_does_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_one_error(convert_state({"a": Hostile()}, tmp_path)[0], "reading those may run any code", "--unsafe")
    assert not (tmp_path / "hostile_code_ran").exists()


@pytest.mark.parametrize("kept", [0, 1, 100, 100_000, -1])
def test_damaged_files_are_refused(checkpoint_file, tmp_path, kept):
    damaged = tmp_path / "damaged.pt"
    damaged.write_bytes(checkpoint_file.read_bytes()[:kept])
    with pytest.raises(ToolError, match="damaged.pt: not a readable PyTorch checkpoint"):
        checkpoint.read(str(damaged))


def test_missing_input_and_text(tmp_path):
    assert_one_error(run_tool("convert_weights.py", tmp_path / "none.pt", "-o", tmp_path / "o"), "none.pt: does not exist")
    (tmp_path / "text.pt").write_text("hello")
    assert_one_error(run_tool("convert_weights.py", tmp_path / "text.pt", "-o", tmp_path / "o"), "text.pt")


def test_unwritable_outputs(checkpoint_file, tmp_path):
    for output, part in ((tmp_path / "no" / "o", "cannot be written"), (tmp_path, "not a regular file")):
        assert_one_error(run_tool("convert_weights.py", checkpoint_file, "-o", output), str(output), part)
    assert list(tmp_path.iterdir()) == []


def test_input_is_not_overwritten(checkpoint_file):
    before = checkpoint_file.stat().st_mtime_ns
    result = run_tool("convert_weights.py", checkpoint_file, "-o", checkpoint_file)
    assert_one_error(result, "is the input itself")
    assert checkpoint_file.stat().st_mtime_ns == before


def test_output_has_ordinary_permissions(converted, tmp_path):
    (tmp_path / "plain").touch()
    assert stat.S_IMODE(converted["f32"].stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_pretrained_from_the_cache(monkeypatch, tmp_path, checkpoint_file):
    cached = tmp_path / "checkpoints" / convert_weights.PRETRAINED["casia-webface"]
    cached.parent.mkdir()
    cached.symlink_to(checkpoint_file)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    result = run_tool("convert_weights.py", "--pretrained", "casia-webface", "-o", tmp_path / "o.safetensors")
    assert result.returncode == 0, result.stderr
    metadata = parts(tmp_path / "o.safetensors")[1]["__metadata__"]
    assert metadata["dataset"] == "casia-webface" and metadata["source"] == cached.name


def test_tar_files_are_refused(tmp_path):
    with tarfile.open(tmp_path / "old.pt", "w") as archive:
        archive.add(__file__, "storages")
    assert_one_error(run_tool("convert_weights.py", tmp_path / "old.pt", "-o", tmp_path / "o"), "not a readable PyTorch checkpoint", "an ONNX file")


def test_usage_errors(tmp_path):
    assert_one_error(run_tool("convert_weights.py", "-o", tmp_path / "o"), "give either IN or --pretrained")


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["convert_weights.py", "make_checkpoint.py", "make_golden.py"])
def test_tools_run_as_programs(tool, tmp_path):
    """By their first line, whatever Python that finds."""
    shown = run_process(tool, "--help")
    assert shown.returncode == 0 and "examples:" in shown.stdout
    assert_one_error(run_process(tool, "--nonsense"), "required")


def wrong_files(folder: pathlib.Path) -> dict[str, str]:
    """Files of every kind that cannot be converted, and a part of the sentence about each."""
    files = {
        "readme.md": ("# hello\n", "not a readable PyTorch checkpoint"),
        "picture.jpg": (b"\xff\xd8\xff\xe0 JFIF", "is a JPEG picture"),
        "huge.pt": ({"last_linear.weight": torch.zeros(1).expand(10**10, 1792)}, "at most 16384 numbers"),
        "sparse.pt": ({"a": torch.zeros(3, 3).to_sparse()}, "a is sparse"),
        "meta.pt": ({"a": torch.zeros(3, device="meta")}, "a is on the meta device"),
    }
    for name, (content, _) in files.items():
        if isinstance(content, dict):
            torch.save(content, folder / name)
        else:
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    save_file({"a": np.zeros(3, np.float32)}, folder / "one.safetensors", metadata={"format": "1"})
    return {name: part for name, (_, part) in files.items()} | {"one.safetensors": "lacks architecture"}


def test_every_wrong_file_is_one_sentence(tmp_path):
    for name, part in wrong_files(tmp_path).items():
        assert_one_error(run_tool("convert_weights.py", tmp_path / name, "-o", tmp_path / "o"), name, part)
    assert_one_error(run_tool("convert_weights.py", "/dev/null", "-o", tmp_path / "o"), "not a regular file")
    assert_one_error(run_tool("convert_weights.py", "", "-o", tmp_path / "o"), "name of the input is empty")
    assert_one_error(run_tool("convert_weights.py", "x.pt", "-o", ""), "name of the output is empty")
    assert_one_error(run_tool("convert_weights.py", "x.pt", "-o", tmp_path / "no" / "o"), "there is no folder")
    assert_one_error(run_tool("convert_weights.py", "--mtcnn", tmp_path, "-o", tmp_path / "o"), "pnet.pt, rnet.pt and onet.pt")
    assert_one_error(run_tool("convert_weights.py", "x.pt", "-o", "o", "--expected-sha256", "abc"), "64 hex digits")


@pytest.mark.parametrize("kind", ["pt", "safetensors", "h5", "onnx"])
def test_mutated_files_are_one_sentence(kind, tmp_path):
    """200 mutations of a small file of each kind; about 2 s a kind. None is a whole network, so none may be converted."""
    path, random = tmp_path / f"in.{kind}", np.random.default_rng(8)
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    if kind == "pt":
        torch.save({"last_linear.weight": torch.from_numpy(array)}, path)
    elif kind == "safetensors":
        keys = dict.fromkeys(KEYS, "0") | {"format": "1", "architecture": "inception_resnet_v1", "embedding_dim": "2"}
        save_file({"last_linear.weight": array}, path, metadata=keys)
    elif kind == "h5":
        h5py = pytest.importorskip("h5py")
        with h5py.File(path, "w") as file:
            file.attrs["layer_names"] = [b"Bottleneck"]
            group = file.create_group("Bottleneck")
            group.attrs["weight_names"] = [b"kernel:0"]
            group["kernel:0"] = array
    else:
        onnx = pytest.importorskip("onnx")
        node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
        value = [onnx.helper.make_tensor_value_info(name, 1, None) for name in "xy"]
        graph = onnx.helper.make_graph([node], "g", value[:1], value[1:], [onnx.numpy_helper.from_array(array, "w")])
        path.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    whole = path.read_bytes()
    for _ in range(200):
        data = bytearray(whole)
        for place in random.integers(len(data), size=random.integers(1, 4)):
            data[place] = random.integers(256)
        path.write_bytes(data[: random.integers(1, len(data))] if random.integers(4) == 0 else data)
        try:
            sources.read(str(path))
        except ToolError as error:
            assert path.name in str(error)
        else:
            pytest.fail("it was read")
