"""Files for integer arithmetic (format 2): what they hold, what they compute to the bit, what they cost, and what is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
import subprocess

import numpy as np
import pytest
import torch
from conftest import ROOT, assert_one_error, made_once, run_tool
from PIL import Image
from safetensors.numpy import load_file

import make_checkpoint
from facenet_tools import (
    calibration,
    checkpoint,
    face_api,
    integer_arithmetic,
    networks,
    pictures,
    quantisation,
    rounding,
    safetensors_writer,
    sources,
    weight_rounding,
)
from facenet_tools.cli import ToolError
from facenet_tools.quantisation import Faces, Model

FACE_API = ROOT / ".deps/face-api"
needs_face_api = pytest.mark.skipif(
    not (FACE_API / "model").is_dir(), reason=f"{FACE_API} is not there: tools/bootstrap.sh gets it where npm is"
)
needs_samples = pytest.mark.skipif(not pictures.sample_paths(), reason="the samples are not there: tools/bootstrap.sh gets them")


def metadata_of(path: pathlib.Path) -> dict[str, str]:
    raw = path.read_bytes()
    return json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]


def state_of(architecture: str, width: float) -> checkpoint.StateDict:
    state = make_checkpoint.make_state(128, 3, [], architecture, width)
    return {name: value for name, value in state.items() if name != checkpoint.UNTRAINED_KEY}


def model_of(architecture: str, width: float, scaling: str = "fixed") -> Model:
    state = checkpoint.check(state_of(architecture, width), "made")[0]
    return Model(architecture, {layer.name: layer for layer in checkpoint.fold(state, checkpoint.model_of(state, 128))}, scaling, "l2")


@pytest.fixture(scope="module")
def narrow() -> Model:
    """Inception-ResNet-v1 of a sixteenth of the width: what a test needs of it takes milliseconds."""
    return model_of(checkpoint.V1, 1 / 16)


def crops(count: int, seed: int = 8) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.stack([pictures.structured(random) for _ in range(count)])


def faces_of(stack: np.ndarray) -> Faces:
    return Faces(stack, np.arange(len(stack)))


@pytest.fixture(scope="module")
def made() -> pathlib.Path:
    """A folder with in.pt, an eighth of the width, eight crops in faces/, and two.safetensors, calibrated on them; out.txt."""

    def make(folder: pathlib.Path) -> None:
        (folder / "faces").mkdir()
        for i, crop in enumerate(crops(8)):
            Image.fromarray(crop).save(folder / "faces" / f"{i}.png")
        torch.save(make_checkpoint.make_state(128, 3, [], checkpoint.V1, 1 / 8), folder / "in.pt")
        result = convert(folder, folder / "two.safetensors")
        assert result.returncode == 0, result.stderr
        (folder / "out.txt").write_text(result.stdout)

    return made_once("integers", make)


def convert(folder: pathlib.Path, output: pathlib.Path, *options: object):
    return run_tool("convert_weights.py", folder / "in.pt", "-o", output, "--dtype", "i8", "--calibrate", folder / "faces", *options)


# ---- The file --------------------------------------------------------------------------------------------------------


def test_the_metadata_has_the_keys_of_format_2(made):
    metadata = metadata_of(made / "two.safetensors")
    digests = sorted(hashlib.sha256(path.read_bytes()).digest() for path in (made / "faces").iterdir())
    assert metadata["format"] == "2" and metadata["arithmetic"] == "int8" and "float_layers" not in metadata
    assert metadata["calibration_sha256"] == hashlib.sha256(b"".join(digests)).hexdigest()
    assert {"architecture", "embedding_dim", "trained", "width", "source_sha256", "header_xxh64", "data_xxh64"} < metadata.keys()


def test_each_convolution_has_its_scales(made):
    tensors = load_file(made / "two.safetensors")
    for op in networks.inception_resnet_v1().convolutions():
        weight, scale = tensors[f"{op.name}.weight"], tensors[f"{op.name}.weight_scale"]
        assert weight.dtype == np.int8 and weight.min() >= -127 and (np.abs(weight.reshape(len(weight), -1).astype(int)).max(1) > 60).all()
        assert tensors[f"{op.name}.input_scale"].shape == (1,) and tensors[f"{op.name}.input_scale"].dtype == np.float32
        assert scale.dtype == tensors[f"{op.name}.bias"].dtype == np.float32 and scale.shape == (len(weight),)
        assert f"{op.name}.input_zero" not in tensors
    assert tensors["conv2d_1a.input_scale"] == 1 / 128
    assert tensors["last_linear.weight"].dtype == np.float32 and "last_linear.input_scale" not in tensors


def test_two_weights_that_x86_adds_in_16_bits_fit_them(made):
    tensors = load_file(made / "two.safetensors")
    for op in networks.inception_resnet_v1().convolutions():
        weight = tensors[f"{op.name}.weight"].astype(int)
        if op.inputs[0] != networks.PICTURE:
            pairs = np.abs(weight[:, ::2]) + np.abs(weight[:, 1::2])
            assert 110 < pairs.max() <= 128, op.name  # 255 * 128 < 2^15


def test_a_pair_that_is_too_large_is_cut_and_others_are_not():
    weight = torch.tensor([[127.0, 100, 127, 1, -90, -40, 3, 127, -127, 2, 64, -64]], dtype=torch.float64).reshape(1, 12, 1, 1)
    whole = weight_rounding.nearest(weight, torch.ones(1)).flatten().tolist()
    assert whole == [78, 50, 127, 1, -89, -39, 2, 126, -126, 2, 64, -64]
    odd = weight_rounding.nearest(weight[:, :11], torch.ones(1)).flatten().tolist()
    assert odd == weight.flatten()[:11].tolist()  # no pairs: the first layer's colours


def test_the_scale_of_a_channel_is_the_best_of_those_between_its_weight_and_its_pair():
    random = torch.Generator().manual_seed(0)
    weight = torch.randn(8, 64, 3, 3, generator=random, dtype=torch.float64)
    weight[:4, :2, 0, 0] = 6  # one pair of the largest: to cut it is cheaper than coarser steps for all
    scale, largest = weight_rounding.scales(weight), weight.abs().flatten(1).amax(1) / 127

    def error(scale: torch.Tensor) -> torch.Tensor:
        return (weight - weight_rounding.nearest(weight, scale) * scale.double().reshape(-1, 1, 1, 1)).square().flatten(1).sum(1)

    assert (scale >= largest.float()).all() and (error(scale) <= error(largest.float()) + 1e-12).all()
    assert (error(scale) <= error(1.5 * largest.float())).all()


@pytest.mark.parametrize("architecture", networks.OF)
def test_who_reads_one_tensor_has_one_scale_and_a_pool_passes_its_own_on(architecture):
    network = networks.of(architecture)
    same = quantisation.groups(network)
    for op in network.ops:
        if op.kind in ("concat", "max_pool"):
            assert {same[name] for name in op.inputs} == {same[op.name]}
    assert same["conv2d_1a"] != same["conv2d_2a"] if "conv2d_1a" in same else same["conv32_down"] == same["pool"]


def test_the_inputs_of_integer_convolutions_are_bytes():
    of = lambda architecture, scaling: quantisation.must_stay_float(networks.of(architecture), scaling)  # noqa: E731
    assert of("inception_resnet_v1", "fixed") == of("inception_resnet_v1", "unit") == of("dlib_resnet", "mean_255") == []
    assert of("inception_resnet_v1", "prewhiten") == ["conv2d_1a"]
    assert of("inception_resnet_v2", "fixed") == ["conv2d_7b"]


def test_goldens_are_of_the_weights_as_stored(made):
    """The file's biases are the float network's. The embedding is the checkpoint's own."""
    tensors = load_file(made / "two.safetensors")
    _, layers, integers = integer_arithmetic.read(made / "two.safetensors")
    picture = tensors["selftest.input"].astype(np.uint8)
    floats = {name: checkpoint.Folded(name, layer.weight.double() * layer.weight_scale.double().reshape(-1, 1, 1, 1), layer.bias.double())
              for name, layer in integers.items()}  # fmt: skip
    x = {networks.PICTURE: pictures.to_tensor(picture[None], torch.float64)}
    values = networks.run(networks.inception_resnet_v1().ops, x, networks.in_float(layers | floats), lambda name: True)
    for name in ("conv2d_1a", "mixed_6a.branch2", "block8.conv2d", "last_linear"):
        norms = np.sqrt((values[name].reshape(values[name].shape[1], -1).numpy() ** 2).sum(1))
        # Goldens come from batch norms that only add, which multiply by 1 + 1.3e-8: 80 layers one after the other.
        np.testing.assert_allclose(tensors[f"selftest.{name}.norms"], norms, atol=80 * 1.3e-8 * 4 * norms.max(), err_msg=name)
    state = torch.load(made / "in.pt")
    own = checkpoint.model_of(checkpoint.check(state, "in.pt")[0], 128).double()(pictures.to_tensor(picture[None], torch.float64))
    np.testing.assert_array_equal(tensors["selftest.embedding"], own[0].float().numpy())


# ---- The arithmetic --------------------------------------------------------------------------------------------------


def numpy_embedding(path: pathlib.Path, picture: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The definition of facenet_tools/integer_arithmetic.py once more, in numpy alone, NHWC, and by plain loops."""
    t, f = load_file(path), np.float32
    network = networks.of(metadata_of(path)["architecture"])
    values: dict[str, np.ndarray] = {}
    read: dict[str, np.ndarray] = {}

    def bytes_of(name: str, scale: np.ndarray) -> np.ndarray:
        if name == networks.PICTURE:
            read[name] = picture
        else:
            scaled = np.maximum(values[name], f(0)) * (f(1) / scale)
            read[name] = np.rint(np.minimum(scaled, f(255))).astype(np.uint8)
        return read[name].astype(np.int64)

    for op in network.ops:
        x = values.get(op.inputs[0])
        if op.kind == "conv":
            w, step = t[f"{op.name}.weight"].astype(np.int64), t[f"{op.name}.input_scale"]
            q = np.pad(bytes_of(op.inputs[0], step), ((op.pad[0],) * 2, (op.pad[1],) * 2, (0, 0)))
            rows, columns = ((size - side) // op.stride + 1 for size, side in zip(q.shape, w.shape[2:]))
            total = np.zeros((rows, columns, len(w)), np.int64)
            for y in range(w.shape[2]):
                for left in range(w.shape[3]):
                    window = q[y : y + (rows - 1) * op.stride + 1 : op.stride, left : left + (columns - 1) * op.stride + 1 : op.stride]
                    total += window @ w[:, :, y, left].T
            scale, bias = t[f"{op.name}.weight_scale"] * step, t[f"{op.name}.bias"]
            if op.inputs[0] == networks.PICTURE:  # of bytes: less the colours' means
                bias = bias.astype(np.float64)
                for colour, mean in enumerate(integer_arithmetic.PIXELS[metadata_of(path)["scaling"]][1]):
                    sums = w[:, colour].sum((1, 2)).astype(np.float64)
                    bias = bias - mean * step.astype(np.float64) * t[f"{op.name}.weight_scale"].astype(np.float64) * sums
                bias = bias.astype(f)
            if op.factor != 1:
                scale, bias = scale * f(op.factor), bias * f(op.factor)
            assert scale.dtype == bias.dtype == np.float32
            out = total.astype(np.int32).astype(f) * scale + bias
            if op.skip:
                trunk = values[op.skip]
                whole = np.zeros([max(a, b) for a, b in zip(trunk.shape, out.shape)], f)
                grown = whole.copy()
                whole[: trunk.shape[0], : trunk.shape[1], : trunk.shape[2]] = trunk
                grown[: out.shape[0], : out.shape[1], : out.shape[2]] = out
                out = whole + grown
            values[op.name] = np.maximum(out, f(0)) if op.relu else out
        elif op.kind == "concat":
            values[op.name] = np.concatenate([values[name] for name in op.inputs], axis=2)
        elif op.kind == "linear":
            w, sums = t[f"{op.name}.weight"], np.zeros(len(t[f"{op.name}.weight"]), f)
            for k in range(w.shape[1]):
                sums = sums + w[:, k] * x.reshape(-1)[k]
            values[op.name] = sums + t[f"{op.name}.bias"]
        else:
            window = op.window or x.shape[0]
            places = range(-op.pad[0], x.shape[0] + op.pad[0] - window + 1, op.stride)
            values[op.name] = np.stack([np.stack([numpy_pool(op.kind, x, y, left, window) for left in places]) for y in places])
    embedding = values[network.ops[-1].name]
    if metadata_of(path)["normalise"] == "l2":
        total = 0.0
        for number in embedding.astype(np.float64):
            total += number * number
        embedding = (embedding.astype(np.float64) * (1.0 / max(np.sqrt(total), 1e-12))).astype(f)
    return embedding, read


def numpy_pool(kind: str, x: np.ndarray, top: int, left: int, window: int) -> np.ndarray:
    inside = x[max(top, 0) : top + window, max(left, 0) : left + window].reshape(-1, x.shape[2])
    if kind == "max_pool":
        return inside.max(0)
    total = np.zeros(x.shape[2], np.float32)
    for pixel in inside:
        total = total + pixel
    return total * (np.float32(1) / np.float32(len(inside)))


@pytest.mark.parametrize("what", ["made", pytest.param("dlib", marks=[needs_face_api, pytest.mark.slow])])
def test_the_simulation_equals_another_to_the_bit(what, made, tmp_path):
    path = made / "two.safetensors"
    if what == "dlib":
        path = write_dlib(tmp_path / "dlib.safetensors")
    size = int(metadata_of(path)["image_size"])
    for picture in (crops(1, 3)[0], np.random.default_rng(1).integers(0, 256, (160, 160, 3), dtype=np.uint8)):
        embedding, activations = integer_arithmetic.simulate(path, picture[:size, :size])
        want, read = numpy_embedding(path, picture[:size, :size])
        assert activations.keys() == read.keys()
        for name, value in read.items():
            np.testing.assert_array_equal(activations[name], value, err_msg=name)
        np.testing.assert_array_equal(embedding.view(np.int32), want.view(np.int32))


COMMAND = ROOT / os.environ.get("FACENET_BUILD", "build/release") / "facenet"


@pytest.mark.skipif(not COMMAND.exists(), reason=f"{COMMAND} is not built")
def test_the_engine_equals_the_simulation_to_the_bit(made, tmp_path):
    """Of v1 in every digit; and float arithmetic of the same file is the checkpoint's within what rounding weights costs."""
    path, stack = made / "two.safetensors", np.concatenate([crops(2, 5), np.full((1, 160, 160, 3), 255, np.uint8)])
    files = [tmp_path / f"{i}.png" for i in range(len(stack))]
    for file, crop in zip(files, stack):
        Image.fromarray(crop).save(file)

    def embed(*options: str) -> np.ndarray:
        call = [COMMAND, "embed", "--aligned", "--json", "-w", path, *options, *files]
        done = subprocess.run(list(map(str, call)), capture_output=True, text=True, check=True)
        return np.array([json.loads(line)["embedding"] for line in done.stdout.splitlines()], np.float32)

    integers = embed("--arithmetic", "int8")
    want = np.stack([integer_arithmetic.simulate(path, crop)[0] for crop in stack])
    np.testing.assert_array_equal(integers.view(np.int32), want.view(np.int32))
    assert ((embed() * integers).sum(1) > 0.99).all()


def write_dlib(path: pathlib.Path) -> pathlib.Path:
    """On made-up pictures, to be quick."""
    weights, digest, source = face_api.read(FACE_API)
    layers = {layer.name: layer for layer in face_api.fold(weights)}
    details = face_api.metadata(source, digest)
    model = Model("dlib_resnet", layers, details["scaling"], details["normalise"])
    faces = faces_of(crops(4)[:, :150, :150])
    seen = quantisation.ranges(model.network, layers, faces.crops, model.scaling)
    integers = quantisation.quantise(model.network, layers, seen, model.scaling, [], "made")
    tensors = integer_arithmetic.stored(layers, integers, layers) | face_api.goldens(weights)
    safetensors_writer.write(str(path), tensors, details | {"format": "2", "arithmetic": "int8", "calibration_sha256": "0" * 64}, hashes=True)
    return path


def test_sums_are_exact_beyond_what_float32_holds():
    """The largest sums that there are: 2,880 products of 255 * 127, some with an odd end."""
    random = np.random.default_rng(0)
    weight = torch.full((4, 320, 3, 3), 127, dtype=torch.int8)
    weight[1], weight[2] = -127, torch.from_numpy(random.integers(-127, 128, (320, 3, 3), dtype=np.int8))
    q = torch.from_numpy(random.integers(0, 256, (1, 320, 5, 5)))
    q[..., 1:4, 1:4] = 255
    want = torch.zeros(4, 3, 3, dtype=torch.int64)
    for y in range(3):
        for x in range(3):
            want[:, y, x] = (q[0, :, y : y + 3, x : x + 3] * weight.long()).sum((1, 2, 3))
    assert int(want.abs().max()) > 5 * integer_arithmetic.EXACT
    assert torch.equal(integer_arithmetic.exact_sums(q.float(), weight, 1, (0, 0))[0], want.float())


@pytest.mark.parametrize("scaling", ["fixed", "unit", "mean_255"])
def test_the_first_layer_reads_the_pictures_bytes(narrow, scaling):
    """Its weights on scaled pixels, in float64, and on bytes: float32's rounding of a sum of 27 terms, and of the bias."""
    stack = np.concatenate([crops(1), np.zeros((1, 160, 160, 3), np.uint8), np.full((1, 160, 160, 3), 255, np.uint8)])
    op, layer = narrow.network.ops[0], narrow.layers["conv2d_1a"]
    made = quantisation.quantise(networks.inception_resnet_v1(), narrow.layers, dict.fromkeys(quantisation.groups(narrow.network), 1.0), scaling, [], "")
    exact = dataclasses.replace(layer, weight=made[op.name].weight.double() * made[op.name].weight_scale.double().reshape(-1, 1, 1, 1))
    want = networks.convolve(op, exact, pictures.to_tensor(stack, torch.float64, scaling), None)
    have = integer_arithmetic.convolve(op, made[op.name], integer_arithmetic.start(stack)[networks.PICTURE], None)
    bound = 4 * 2.0**-24 * (exact.weight.abs().sum((1, 2, 3)) * 3 + layer.bias.abs()).max()
    assert (have - want).abs().max() <= bound


@pytest.mark.parametrize("architecture, width", [(checkpoint.V1, 1 / 16), pytest.param(checkpoint.V2, 1 / 16, marks=pytest.mark.slow)])
def test_the_networks_are_the_references(architecture, width):
    model, x = model_of(architecture, width), pictures.to_tensor(crops(1), torch.float64)
    values = networks.run(model.network.ops, {networks.PICTURE: x}, networks.in_float(model.layers))
    state = checkpoint.check(state_of(architecture, width), "made")[0]
    want = checkpoint.model_of(state, 128).double()(x)
    assert (torch.nn.functional.normalize(values["last_linear"], dim=1) - want).abs().max() < 1e-12
    assert [op.name for op in model.network.ops if op.kind in ("conv", "linear")] == list(model.layers)


@needs_face_api
def test_dlibs_network_is_face_apis():
    layers = {layer.name: layer for layer in face_api.fold(face_api.read(FACE_API)[0])}
    x = pictures.to_tensor(crops(1)[:, :150, :150], torch.float64, "mean_255")
    values = networks.run(networks.dlib_resnet().ops, {networks.PICTURE: x}, networks.in_float(layers))
    assert (values["fc"] - face_api.forward(layers, x)).abs().max() < 1e-12


# ---- What it costs ---------------------------------------------------------------------------------------------------


def test_what_it_costs_is_reported_and_small(made):
    """The bounds of a made network on pictures that calibration had not seen, at an eighth of the width: the cosine's is twice that
    of the full network, as its sums have an eighth of the terms that rounding averages out over, and distances' likewise."""
    lines = (made / "out.txt").read_text().splitlines()
    assert sum("RMS" in line for line in lines) == quantisation.NAMED + 2
    assert "the worst layer is conv2d_" in lines[quantisation.NAMED]
    assert lines[-2].startswith("8 faces of calibration") and lines[-1].startswith("faces held out")
    metadata, layers, integers = integer_arithmetic.read(made / "two.safetensors")
    model = Model(metadata["architecture"], layers, "fixed", "l2")
    state = torch.load(made / "in.pt")
    own = {layer.name: layer for layer in checkpoint.fold(state, checkpoint.model_of(checkpoint.check(state, "")[0], 128))}
    strangers = faces_of(crops(12, seed=21))
    exact = dataclasses.replace(model, layers=own).embed(quantisation.with_mirrors(strangers), {})
    found = quantisation.change(exact, model.embed(quantisation.with_mirrors(strangers), integers), strangers.people)
    assert found.cosine >= 0.996 and found.rms <= 0.012 and found.worst <= 0.05, found


def test_mended_biases_lessen_the_error(narrow):
    faces, strangers = faces_of(crops(8)), faces_of(crops(8, seed=33))
    seen = quantisation.ranges(narrow.network, narrow.layers, faces.crops, "fixed")
    plain = quantisation.quantise(narrow.network, narrow.layers, seen, "fixed", [], "")
    exact = narrow.embed(quantisation.with_mirrors(strangers), {})

    def cosine(integers: dict) -> float:
        return quantisation.change(exact, narrow.embed(quantisation.with_mirrors(strangers), integers), strangers.people).cosine

    assert 1 - cosine(quantisation.mended(narrow, plain, faces, "")) < 0.9 * (1 - cosine(plain))


def on_a_circle(*angles: float) -> np.ndarray:
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def test_changes_count_pairs_once_and_tell_people_apart():
    """Faces 0 and 1 are one person's, 2 is another's; integers move face 1 from 0 by 0.1 rad, towards 2. Of the mirror images only
    the pairs with their faces count."""
    before, after = on_a_circle(0, 0.1, 1, 0, 0.1, 1), on_a_circle(0, 0.2, 1, 0, 0.1, 1)
    found = quantisation.change(before, after, np.array([7, 7, 9]), threshold=0.15)
    chord = lambda angle: 2 * np.sin(angle / 2)  # noqa: E731
    assert found.cosine == pytest.approx(np.cos(0.1))
    assert found.nearer == pytest.approx(chord(0.9) - chord(0.8))
    assert found.farther == found.worst == pytest.approx(chord(0.1))  # of face 1 and its mirror image, which are equal before
    assert found.rms == pytest.approx(np.sqrt((found.nearer**2 + (chord(0.2) - chord(0.1)) ** 2 + chord(0.1) ** 2) / 6))
    assert found.verdicts == pytest.approx(1 / 6)


@pytest.mark.parametrize("angle, people", [(0.94, [0, 1, 2, 3]), (1.06, [0, 0, 2, 3])])
def test_different_faces_nearer_or_a_persons_farther_is_refused(angle, people):
    before, people = on_a_circle(0, 1, 2.5, 4, 0, 1, 2.5, 4), np.array(people)
    refused = quantisation.change(before, on_a_circle(0, angle, 2.5, 4, 0, angle, 2.5, 4), people)
    with pytest.raises(ToolError, match="x.pt: integers bring .* at most 0.05 is allowed.*--float-layers auto"):
        quantisation.refuse_collapse(refused, "x.pt")
    milder = quantisation.change(before, on_a_circle(0, (1 + angle) / 2, 2.5, 4, 0, (1 + angle) / 2, 2.5, 4), people)
    quantisation.refuse_collapse(milder, "x.pt")


# Two of the layers, and what writes their input.
ROUGH = {"conv2d_2b": "conv2d_2a", "repeat_2.3.branch1.1": "repeat_2.3.branch1.0"}


@pytest.fixture(scope="module")
def rough(narrow) -> Model:
    """Weights of a channel that is always 0 leave int8 no steps for the others: they are three hundred times as large."""
    layers = dict(narrow.layers)
    for name, before in ROUGH.items():
        weight, bias = layers[name].weight.clone(), layers[before].bias.clone()
        weight[:, 0], bias[0] = 300 * weight.abs().flatten(1).amax(1).reshape(-1, 1, 1), -1e6
        layers[name] = dataclasses.replace(layers[name], weight=weight)
        layers[before] = dataclasses.replace(layers[before], bias=bias)
    return dataclasses.replace(narrow, layers=layers)


@pytest.mark.slow
def test_auto_keeps_the_worst_layers_in_float(rough):
    faces = faces_of(crops(6))
    auto = quantisation.make(rough, faces, "auto", False, "x.pt")
    assert quantisation.holds(auto.total, False), auto.total
    assert "conv2d_2b" in auto.float_layers and len(auto.float_layers) <= 8
    assert auto.integers.keys() == {op.name for op in rough.network.convolutions()} - set(auto.float_layers)
    assert any(line.startswith("the worst layer is ") for line in auto.lines) and any(line.startswith("kept in float: ") for line in auto.lines)
    all_in_integers = quantisation.make(rough, faces, None, False, "x.pt")
    assert all_in_integers.float_layers == [] and not quantisation.holds(all_in_integers.total, False)


def test_layers_are_kept_in_float_by_name(made, tmp_path):
    output = tmp_path / "o.safetensors"
    result = convert(made, output, "--float-layers", "repeat_1.2.conv2d,conv2d_2a")
    assert result.returncode == 0, result.stderr
    assert metadata_of(output)["float_layers"] == "conv2d_2a,repeat_1.2.conv2d"
    tensors = load_file(output)
    for name in ("conv2d_2a", "repeat_1.2.conv2d"):
        assert tensors[f"{name}.weight"].dtype == np.float32
        assert f"{name}.input_scale" not in tensors and f"{name}.weight_scale" not in tensors
    assert tensors["conv2d_2b.weight"].dtype == np.int8


def test_a_file_that_confuses_people_is_not_written(made, tmp_path):
    """One weight two hundred times the others of its row, in a third of the layers."""
    state = torch.load(made / "in.pt")
    for layer in list(checkpoint.layers(checkpoint.build_model(128, width=1 / 8)))[:40]:
        rows = state[layer.weight].flatten(1)
        rows[:, 0] = rows.abs().amax(1) * 60
    torch.save(state, tmp_path / "in.pt")
    (tmp_path / "faces").symlink_to(made / "faces")
    result = convert(tmp_path, tmp_path / "o.safetensors")
    assert result.returncode == 2 and "integers bring two different faces nearer by" in result.stderr
    assert not (tmp_path / "o.safetensors").exists()


# ---- Calibration -----------------------------------------------------------------------------------------------------

BOX = {"image_size": "160", "crop": "box", "margin": "0"}


def test_folders_are_people_and_crops_are_taken_as_they_are(tmp_path):
    stack = crops(4)
    for i, name in enumerate(("a/1.png", "a/2.png", "b/1.png", "c/1.PNG")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(stack[i]).save(tmp_path / name)
    (tmp_path / "a" / "notes.txt").write_text("not a picture")
    faces, digest = calibration.faces(str(tmp_path), BOX)
    np.testing.assert_array_equal(faces.crops, stack)
    assert faces.people.tolist() == [0, 0, 1, 2] and len(digest) == 64
    (tmp_path / "c" / "1.PNG").rename(tmp_path / "c" / "another.png")
    assert calibration.faces(str(tmp_path), BOX)[1] == digest


def test_a_box_is_cut_as_facenet_pytorch_cuts_it(tmp_path):
    from facenet_pytorch import extract_face

    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8))
    for corners in ((40.3, 50.7, 180.2, 240.9), (-5.0, 200.0, 90.0, 320.0)):
        for margin in (0, 32):
            want = extract_face(picture, np.array(corners), 160, margin).permute(1, 2, 0).numpy()
            np.testing.assert_array_equal(calibration.box(picture, np.array(corners), 160, margin), want)


def test_a_chip_brings_the_landmarks_to_dlibs_places():
    picture = Image.fromarray(crops(1)[0][:150, :150])
    places = (np.array(calibration.DLIB_POINTS) + 0.25) * 150 / 1.5
    turned = np.stack([places[:, 1], 149 - places[:, 0]], axis=1)  # as np.rot90 moves pixels
    doubled = picture.resize((300, 300), Image.Resampling.NEAREST)
    for other, landmarks in ((picture, places), (Image.fromarray(np.rot90(np.asarray(picture))), turned), (doubled, 2 * places + 0.5)):
        chip = calibration.chip(other, landmarks, 150, 0.25)
        assert np.abs(chip.astype(int) - np.asarray(picture)).max() <= 1  # Pillow cuts off what follows the point


@needs_samples
@pytest.mark.slow
def test_the_samples_have_faces():
    assert len(calibration.faces("default", BOX)[0].crops) == 21


def test_what_cannot_be_calibrated_on_is_named(tmp_path, made):
    with pytest.raises(ToolError, match="nowhere: does not exist; give --calibrate a folder"):
        calibration.faces(str(tmp_path / "nowhere"), BOX)
    with pytest.raises(ToolError, match="holds no .jpg or .png"):
        calibration.faces(str(tmp_path), BOX)
    Image.fromarray(np.zeros((200, 200, 3), np.uint8)).save(tmp_path / "black.png")
    Image.fromarray(crops(1)[0]).save(tmp_path / "one.png")
    with pytest.raises(ToolError, match="1 face has been found in black.png, one.png, at least 4 are needed"):
        calibration.faces(str(tmp_path), BOX)


@pytest.mark.parametrize("options, part", [
    (["--calibrate", "default"], "--calibrate needs --dtype i8"),
    (["--dtype", "i8", "--float-layers", "auto"], "--float-layers needs --calibrate"),
    (["--dtype", "i8", "--calibrate", "default", "--pictures", "x.png"], "does not take --pictures"),
    (["--dtype", "i8", "--calibrate", "nowhere"], "nowhere: does not exist"),
])  # fmt: skip
def test_options_that_do_not_go_together(options, part, made, tmp_path):
    assert_one_error(run_tool("convert_weights.py", made / "in.pt", "-o", tmp_path / "o.safetensors", *options), part)


def test_an_unknown_layer_is_named(made, tmp_path):
    result = convert(made, tmp_path / "o.safetensors", "--float-layers", "conv2d_2a,conv9\x1b")
    assert_one_error(result, "--float-layers: no convolution of inception_resnet_v1 is named conv9\\x1b", "conv2d_1a is one")


def test_there_is_no_way_back(made, tmp_path):
    result = run_tool("convert_weights.py", made / "two.safetensors", "--to", "pt", "-o", tmp_path / "o.pt")
    assert_one_error(result, "two.safetensors: is a converted file for integer arithmetic, and there is no way back")
    with pytest.raises(ToolError, match="no way back"):
        sources.read(str(made / "two.safetensors"))


def test_scales_keep_clear_of_denormals(narrow):
    """Weights next to nothing are 0; those beyond float32 are refused."""
    seen = dict.fromkeys(quantisation.groups(narrow.network), 1e-20)
    small = dataclasses.replace(narrow.layers["conv2d_2a"], weight=narrow.layers["conv2d_2a"].weight * 1e-20)
    layers = narrow.layers | {"conv2d_2a": small}
    made = quantisation.quantise(narrow.network, layers, seen, "fixed", [], "x.pt")["conv2d_2a"]
    assert not made.weight.any() and (made.scale(1) >= integer_arithmetic.LEAST).all()
    large = dataclasses.replace(small, weight=small.weight * 1e62)
    with pytest.raises(ToolError, match="x.pt: scales or biases are too large or too small for integers: conv2d_2a"):
        quantisation.quantise(narrow.network, layers | {"conv2d_2a": large}, dict.fromkeys(seen, 1.0), "fixed", [], "x.pt")


def test_minus_128_is_not_written(tmp_path, made):
    tensors = load_file(made / "two.safetensors")
    tensors["conv2d_2a.weight"][0, 0, 0, 0] = -128
    with pytest.raises(ToolError, match="conv2d_2a.weight has a weight of -128"):
        safetensors_writer.write(str(tmp_path / "o.safetensors"), tensors, metadata_of(made / "two.safetensors"), hashes=True)


def test_rounding_has_no_minus_128():
    assert rounding.quantise(torch.tensor([[-1.0, 0.5]], dtype=torch.float64))[0].tolist() == [[-127, 64]]
