"""Inception-ResNet-v2 against timm, dlib's face ResNet against face-api, and golden activations under faults.

FACENET_FACE_API: the unpacked npm package, if not .deps/face-api.
"""

from __future__ import annotations

import json
import math
import pathlib
import shutil
import subprocess

import numpy as np
import pytest
import torch
from conftest import ROOT, assert_one_error, run_tool
from PIL import Image
from safetensors.numpy import load_file
from test_command import COMMAND, PHOTOS, facenet, lines

from facenet_tools import checkpoint, face_api, inception_resnet_v2, pictures, rounding, safetensors_writer
from facenet_tools.cli import ToolError

FACE_API = ROOT / ".deps/face-api"
DETECTOR = ROOT / "build/golden/mtcnn.safetensors"

needs_command = pytest.mark.skipif(not COMMAND.exists(), reason=f"{COMMAND} is not built")
needs_face_api = pytest.mark.skipif(
    not (FACE_API / "model").is_dir(), reason=f"{FACE_API} is not there: tools/bootstrap.sh gets it where npm is"
)


# ---- Inception-ResNet-v2 ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def v2(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, pathlib.Path]:
    """A 128-d checkpoint and its weight file."""
    folder = tmp_path_factory.mktemp("v2")
    made, converted = folder / "v2.pt", folder / "v2.safetensors"
    arguments = ("--architecture", checkpoint.V2, "--dim", 128, "--seed", 5, "--images")
    assert run_tool("make_checkpoint.py", *arguments, "-o", made).returncode == 0
    result = run_tool("convert_weights.py", made, "-o", converted)
    assert result.returncode == 0, result.stderr
    return made, converted


@pytest.mark.slow
@needs_command
def test_v2_backbone_equals_timms(v2, tmp_path):
    """Our names load into timm's network, and the engine's embedding is its features' through our head."""
    timm = pytest.importorskip("timm")
    state, dim = checkpoint.check(checkpoint.read(str(v2[0])), "v2.pt")
    head = {name: state.pop(name).double() for name in list(state) if name.startswith("last_")}
    backbone = timm.create_model("inception_resnet_v2", pretrained=False, num_classes=0)
    loaded = backbone.load_state_dict(state, strict=False)
    assert not loaded.unexpected_keys
    assert all(name.endswith("num_batches_tracked") for name in loaded.missing_keys)

    names, stack = [], []
    for seed in (1, 2):
        picture = pictures.structured(np.random.default_rng(seed))
        names.append(tmp_path / f"{seed}.png")
        Image.fromarray(picture).save(names[-1])
        stack.append(picture)
    with torch.no_grad():
        features = backbone.eval().double()(pictures.to_tensor(np.stack(stack), torch.float64))
        ours = inception_resnet_v2.InceptionResnetV2(dim).eval().double()
        ours.load_state_dict(state | head, strict=False)
        want = torch.nn.functional.normalize(ours.last_bn(ours.last_linear(features)), dim=1).numpy()
        assert np.abs(ours(pictures.to_tensor(np.stack(stack), torch.float64)).numpy() - want).max() < 1e-12
    got = np.array([line["embedding"] for line in lines(facenet("embed", "--json", "--aligned", "-w", v2[1], *names))])
    assert np.abs(got - want).max() <= 3e-6  # the allowance of docs/parity.md for fp32 weights


@needs_command
def test_v2_file_describes_itself(v2):
    (info,) = lines(facenet("info", "--json", v2[1]))
    assert (info["architecture"], info["embedding_dim"], info["trained"]) == (checkpoint.V2, 128, False)
    assert info["parameters"] == 55843464 - 1537000 + 128 * 1538  # timm's, with the bottleneck for its classifier
    answer = lines(facenet("selftest", "--json", v2[1]))[0]
    assert answer["passed"] and len(answer["layers"]) == 244 + 1 + 6 + 1  # convolutions, linear, pools, embedding
    assert answer["layers"][0]["name"] == "conv2d_1a"


def test_v2_with_a_layer_missing_is_named(v2, tmp_path):
    state = checkpoint.read(str(v2[0]))
    del state["repeat_1.19.branch1.2.conv.weight"]
    torch.save(state, tmp_path / "bad.pt")
    result = run_tool("convert_weights.py", tmp_path / "bad.pt", "-o", tmp_path / "o.safetensors")
    assert_one_error(result, "Inception-ResNet-v2 with timm's names", "missing: repeat_1.19.branch1.2.conv.weight")


# ---- dlib's face ResNet ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dlib(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("dlib") / "dlib.safetensors"
    result = run_tool("convert_weights.py", "--face-api", FACE_API, "-o", path)
    assert result.returncode == 0, result.stderr
    return path


@needs_face_api
@needs_command
@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_dlib_equals_face_api(dlib, tmp_path):
    random = np.random.default_rng(0)
    crops = [np.full((150, 150, 3), level, np.uint8) for level in (0, 255)]
    crops += [random.integers(0, 256, (150, 150, 3), dtype=np.uint8), pictures.structured(random)[:150, :150]]
    names = []
    for i, crop in enumerate(crops):
        names.append(tmp_path / f"{i}.png")
        Image.fromarray(crop).save(names[-1])
    script = pathlib.Path(__file__).with_name("describe_faces.mjs")
    done = subprocess.run(
        ["node", "--no-warnings", script, FACE_API], input=b"".join(c.tobytes() for c in crops), capture_output=True, check=True
    )
    want = np.array([json.loads(line) for line in done.stdout.splitlines()])
    got = np.array([line["embedding"] for line in lines(facenet("embed", "--json", "--aligned", "-w", dlib, *names))])
    assert want.shape == got.shape == (len(crops), 128)
    # float32 against float32; embeddings are 1.2 to 1.6 long. 1.8e-6 was measured.
    assert np.abs(got - want).max() <= 1e-5


@needs_face_api
@needs_command
def test_dlib_file_describes_itself(dlib):
    (info,) = lines(facenet("info", "--json", dlib))
    expected = {"architecture": "dlib_resnet", "parameters": 5614592, "trained": True, "normalise": "none",
                "image_size": 150, "scaling": "mean_255", "crop": "five_point", "margin": 0.25}  # fmt: skip
    assert {key: info[key] for key in expected} == expected
    assert math.isclose(info["threshold"], 0.6, rel_tol=1e-6)
    answer = lines(facenet("selftest", "--json", dlib))[0]
    assert answer["passed"] and len(answer["layers"]) == 29 + 1 + 6 + 1


@needs_face_api
@needs_command
@pytest.mark.skipif(not PHOTOS.is_dir(), reason="../shared/photos is not there")
@pytest.mark.skipif(not DETECTOR.exists(), reason=f"{DETECTOR} is not there: run tools/bootstrap.sh")
def test_dlib_tells_the_people_of_the_photographs_apart(dlib):
    """Our detection, our alignment: the largest face of each portrait, and all six of the group."""
    single = sorted([*PHOTOS.glob("portrait_*.jpg"), *PHOTOS.glob("pair_*.jpg")])
    common = ("embed", "--json", "-w", dlib, "--detector", DETECTOR)
    found = lines(facenet(*common, "--max-faces", 1, *single)) + lines(facenet(*common, PHOTOS / "group.jpg"))
    assert len(found) == 6 + 6
    # pair_h_1 and pair_h_2 are one person; the faces of the group are six.
    who = [f"{pathlib.Path(face['image']).stem.rstrip('_12')} {face['face']}" for face in found]
    for i, a in enumerate(found):
        for j in range(i):
            distance = math.dist(a["embedding"], found[j]["embedding"])
            assert distance <= 0.45 if who[i] == who[j] else distance >= 0.55, (who[i], who[j], distance)
    assert sum(who[i] == who[j] for i in range(12) for j in range(i)) == 1


@needs_face_api
@pytest.mark.parametrize("dtype, least", [("f16", 0.9999), ("i8", 0.995)])
def test_dlib_in_smaller_types_says_what_it_costs(dtype, least, tmp_path):
    output = tmp_path / "o.safetensors"
    result = run_tool("convert_weights.py", "--face-api", FACE_API, "--dtype", dtype, "-o", output)
    assert result.returncode == 0, result.stderr
    name, cosine = result.stdout.split()[0], float(result.stdout.split()[2])
    assert name == dtype and least <= cosine < 1 and output.exists()
    # The check after it: embeddings of half the length bring everybody nearer.
    weights = face_api.read(FACE_API)[0]
    flat = rounding.encode(face_api.fold(weights | {"fc": weights["fc"] * np.float32(0.5)}), dtype, "x")
    with pytest.raises(ToolError, match="nearer"):
        rounding.refuse_collapse(face_api.cost(weights, flat, dtype, []), "x")


@needs_face_api
def test_damaged_packages_are_refused(tmp_path):
    output = tmp_path / "o.safetensors"

    def refused(spoil, *parts: str) -> None:
        folder = tmp_path / "package"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(FACE_API / "model", folder / "model")
        spoil(folder / "model")
        assert_one_error(run_tool("convert_weights.py", "--face-api", folder, "-o", output), *parts)
        assert not output.exists()

    def edit(change):
        def spoil(model: pathlib.Path) -> None:
            groups = json.loads((model / face_api.MANIFEST).read_text())
            change(groups[0])
            (model / face_api.MANIFEST).write_text(json.dumps(groups))

        return spoil

    data = "face_recognition_model.bin"
    refused(lambda model: (model / data).unlink(), data, "cannot be read")
    refused(lambda model: (model / data).write_bytes((model / data).read_bytes()[:-1]), "not a TensorFlow.js manifest")
    refused(lambda model: (model / data).write_bytes((model / data).read_bytes() + b"x"), "bytes of data")
    refused(lambda model: (model / face_api.MANIFEST).write_text("{"), "not a TensorFlow.js manifest")
    refused(lambda model: (model / face_api.MANIFEST).unlink(), face_api.MANIFEST, "@vladmandic/face-api")
    refused(edit(lambda g: g["weights"][0].update(name="fc2")), "missing: conv32_down/conv/filters", "unexpected: fc2")
    refused(edit(lambda g: g["weights"][0].update(shape=[7, 7, 32, 3])), "of the wrong shape: conv32_down/conv/filters")
    refused(edit(lambda g: g["weights"][0]["quantization"].update(scale=1e39)), "NaN or infinity: conv32_down/conv/filters")
    refused(edit(lambda g: g["weights"][0].pop("shape")), "not a TensorFlow.js manifest")

    def deaf(group: dict) -> None:  # the first layer gives its biases alone, and so the network one embedding
        entry = next(entry for entry in group["weights"] if entry["name"] == "conv32_down/scale/weights")
        entry["quantization"].update(scale=0, min=0)

    refused(edit(deaf), "package: gives two different pictures embeddings that are 0 apart", "check the weights from conv32_down on")
    assert_one_error(run_tool("convert_weights.py", "--face-api", "-o", output), "--face-api needs IN")
    assert_one_error(run_tool("convert_weights.py", "--face-api", FACE_API, "--untrained", "-o", output), "--untrained")


# ---- Golden activations ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def parts(converted) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The tensors of a converted 128-d file in its order, and its metadata without the hashes."""
    raw = converted["f32"].read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    details = {key: value for key, value in header.pop("__metadata__").items() if not key.endswith("_xxh64")}
    tensors = load_file(converted["f32"])
    return {name: tensors[name] for name in header}, details


@pytest.mark.slow
@needs_command
@pytest.mark.parametrize("dtype", ["f32", "f16", "i8"])
def test_selftest_passes_each_dtype(converted, dtype):
    result = facenet("selftest", "--json", converted[dtype])
    assert result.returncode == 0, result.stdout
    (answer,) = lines(result)
    assert answer["passed"] is True
    assert len(answer["layers"]) == 132 + 1 + 4 + 1
    assert [answer["layers"][i]["name"] for i in (0, 3, -2, -1)] == ["conv2d_1a", "maxpool_3a", "last_linear", "embedding"]
    assert all(0 <= layer["max_abs_error"] < 0.1 and layer["of_bound"] < 0.6 for layer in answer["layers"])
    assert "passed" in facenet("selftest", converted[dtype]).stdout


def refolded(state: checkpoint.StateDict, layer: str, eps: float) -> dict[str, np.ndarray]:
    model = checkpoint.build_model(128)
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eps = eps
    folded = {part.name: part for part in checkpoint.fold(state, model)}
    return {f"{name}.{what}": getattr(part, what).float().numpy()
            for name, part in folded.items() for what in ("weight", "bias") if layer in ("", name)}  # fmt: skip


@pytest.mark.slow
@needs_command
@pytest.mark.parametrize(
    ("fault", "layer"),
    [
        ("another training set's tensors", "conv2d_1a"),
        ("channel order", "conv2d_1a"),
        ("channel order of the weights", "conv2d_1a"),
        ("epsilon", "conv2d_1a"),
        ("epsilon of one layer", "repeat_2.4.branch1.2"),
        ("1x7 transposed", "repeat_2.3.branch1.1"),
        ("1x7 mirrored", "repeat_2.7.branch1.1"),
    ],
)
def test_selftest_names_the_layer_of_a_fault(parts, state, tmp_path, fault, layer):
    tensors, details = dict(parts[0]), dict(parts[1])
    if fault == "another training set's tensors":
        other = tmp_path / "other.safetensors"
        result = run_tool("make_checkpoint.py", "--dim", 128, "--seed", 4, "-o", other, "--images")
        assert result.returncode == 0, result.stderr
        tensors |= {name: value for name, value in load_file(other).items() if not name.startswith("selftest.")}
    elif fault == "channel order":
        details["channel_order"] = "bgr"
    elif fault == "channel order of the weights":
        tensors["conv2d_1a.weight"] = tensors["conv2d_1a.weight"][:, ::-1]
    elif fault.startswith("epsilon"):
        real, _ = checkpoint.check(state, "state")
        tensors |= refolded(real, layer if "one" in fault else "", 1e-5)
    else:
        weight = tensors[f"{layer}.weight"]
        tensors[f"{layer}.weight"] = weight.transpose(1, 0, 2, 3) if "transposed" in fault else weight[..., ::-1]
    path = tmp_path / "bad.safetensors"
    safetensors_writer.write(str(path), tensors, details, hashes=True)
    result = facenet("selftest", "--json", path)
    assert result.returncode == 1
    (answer,) = lines(result)
    assert answer["passed"] is False
    assert next(e["name"] for e in answer["layers"] if not e["of_bound"] <= 1) == layer
    text = facenet("selftest", path)
    assert text.returncode == 1 and f"FAILED: the first layer that leaves its bound is {layer}:" in text.stdout


@needs_command
def test_selftest_without_goldens_and_without_a_file(parts, state, tmp_path):
    path = tmp_path / "bare.safetensors"
    bare = {name: value for name, value in parts[0].items() if not name.startswith("selftest.")}
    safetensors_writer.write(str(path), bare, parts[1], hashes=True)
    for file, sentence in ((path, "has no golden activations"), (tmp_path / "none.safetensors", "no such file")):
        result = facenet("selftest", file)
        assert result.returncode == 2 and result.stdout == ""
        assert sentence in result.stderr and str(file) in result.stderr
