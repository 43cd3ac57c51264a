"""dlib's 128-d face ResNet as the npm package @vladmandic/face-api ships it: TensorFlow.js weights, uint8 in part.

Source of names, sizes and arithmetic: src/faceRecognitionNet/ of face-api 1.7.15. There each convolution has a bias and
after it a factor and a shift for each channel, which are folded here.
"""

from __future__ import annotations

import hashlib
import json
import math
import pathlib
from typing import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from facenet_tools import activations, checkpoint, pictures, rounding
from facenet_tools.cli import ToolError, few

MANIFEST = "face_recognition_model-weights_manifest.json"
Weights = dict[str, np.ndarray]

METADATA = {
    "format": "1",
    "architecture": "dlib_resnet",
    "embedding_dim": "128",
    "trained": "true",
    "normalise": "none",
    "width": "1",
    "image_size": "150",
    "channel_order": "rgb",
    "scaling": "mean_255",
    "crop": "five_point",
    "margin": "0.25",  # dlib's padding: a quarter of the mean face's box on each side
    "resize": "bilinear",
}
DATASET = "face_scrub+vgg+scraped"
LICENCE = "CC0 (davisking/dlib-models); quantised in face-api, MIT"

# Inputs and outputs of each block's convolutions; a block that halves the picture is marked.
_BLOCKS = [
    *((f"conv32_{i}", 32, 32) for i in (1, 2, 3)),
    ("conv64_down", 32, 64),
    *((f"conv64_{i}", 64, 64) for i in (1, 2, 3)),
    ("conv128_down", 64, 128),
    *((f"conv128_{i}", 128, 128) for i in (1, 2)),
    ("conv256_down", 128, 256),
    *((f"conv256_{i}", 256, 256) for i in (1, 2)),
    ("conv256_down_out", 256, 256),
]


def convolutions() -> Iterator[tuple[str, int, int, int]]:
    """Name, input channels, output channels, side of the window, in network order."""
    yield "conv32_down", 3, 32, 7
    for name, before, after in _BLOCKS:
        yield f"{name}/conv1", before, after, 3
        yield f"{name}/conv2", after, after, 3


def read(folder: str | pathlib.Path) -> tuple[Weights, str, str]:
    """face-api's tensors in float32, the SHA-256 of the manifest and the data after it, and what to call the source.

    folder: the package, or its model/.
    """
    root = pathlib.Path(folder)
    model = root / "model" if (root / "model" / MANIFEST).is_file() else root
    text = _bytes(model / MANIFEST)
    digest = hashlib.sha256(text)
    weights: Weights = {}
    try:
        for group in json.loads(text):
            # Only names beside the manifest: a path in it must not lead elsewhere.
            data = b"".join(_bytes(model / pathlib.PurePath(path).name) for path in group["paths"])
            digest.update(data)
            _decode(group["weights"], data, weights)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ToolError(
            f"{model / MANIFEST}: not a TensorFlow.js manifest ({type(error).__name__}: {error}); unpack the package again."
        ) from error
    _check(weights, model)
    return weights, digest.hexdigest(), _source(model)


def fold(weights: Weights) -> list[checkpoint.Folded]:
    """In network order: w' = w * factor, b' = bias * factor + shift, in float64; OIHW."""
    folded = []
    for name, *_ in convolutions():
        filters, bias, factor, shift = (
            torch.from_numpy(weights[f"{name}/{part}"]).double()
            for part in ("conv/filters", "conv/bias", "scale/weights", "scale/biases")
        )
        oihw = filters.permute(3, 2, 0, 1) * factor.reshape(-1, 1, 1, 1)
        folded.append(checkpoint.Folded(name.replace("/", "."), oihw.contiguous(), bias * factor + shift))
    linear = torch.from_numpy(weights["fc"]).double().T.contiguous()
    folded.append(checkpoint.Folded("fc", linear, torch.zeros(linear.shape[0], dtype=torch.float64)))
    return folded


def goldens(weights: Weights, stored: list[checkpoint.Folded] | None = None, path: str = "") -> dict[str, np.ndarray]:
    """selftest.*, as activations.goldens makes them for the other networks: layers with the weights as stored where those
    are rounded, the embedding always with face-api's."""
    size = int(METADATA["image_size"])
    picture, other = (activations.golden_picture(activations.SEED + i)[:size, :size] for i in (0, 1))
    source = fold(weights)
    outputs = record(stored or source, picture)
    activations.refuse_constant(outputs, record(stored or source, other), path)
    return activations.packed(picture, outputs, record(source, picture)["fc"])


def decoded(tensors: Weights) -> list[checkpoint.Folded]:
    """The layers of a file, as the engine computes with them."""
    names = [*(name.replace("/", ".") for name, *_ in convolutions()), "fc"]
    return [rounding.decode(tensors, name) for name in names]


def cost(weights: Weights, tensors: Weights, dtype: str, paths: list[str]) -> rounding.Cost:
    """What these tensors do to embeddings of pictures, beside face-api's own weights."""
    size = int(METADATA["image_size"])
    x = pictures.to_tensor(rounding.mirrored(paths)[:, :size, :size], torch.float64, METADATA["scaling"])
    source = fold(weights)
    exact = forward({layer.name: layer for layer in source}, x).numpy()
    rounded = forward({layer.name: rounding.decode(tensors, layer.name) for layer in source}, x).numpy()
    return rounding.cost(exact, rounded, dtype)


def record(folded: list[checkpoint.Folded], picture: np.ndarray) -> dict[str, Tensor]:
    """Every layer's output in float64 for one picture [150, 150, 3], in order of execution, as NHWC."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str, x: Tensor) -> Tensor:
        outputs[name] = x.permute(0, 2, 3, 1) if x.dim() == 4 else x.reshape(1, 1, 1, -1)
        return x

    forward({layer.name: layer for layer in folded}, pictures.to_tensor(picture[None], torch.float64, METADATA["scaling"]), keep)
    return outputs


def forward(
    layers: dict[str, checkpoint.Folded], x: Tensor, keep: Callable[[str, Tensor], Tensor] = lambda name, x: x
) -> Tensor:
    """The network on standardised pictures [n, 3, 150, 150]: embeddings [n, 128]. keep(name, output) sees each layer's."""

    def conv(name: str, x: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
        return functional.conv2d(x, layers[name].weight, layers[name].bias, stride, padding)

    x = keep("conv32_down", functional.relu(conv("conv32_down", x, stride=2)))
    x = keep("pool", functional.max_pool2d(x, 3, 2))
    for name, before, after in _BLOCKS:
        down = "_down" in name
        y = conv(f"{name}.conv1", x, stride=2 if down else 1, padding=0 if down else 1)
        y = conv(f"{name}.conv2", keep(f"{name}.conv1", functional.relu(y)), padding=1)
        if down:  # zeros for the channels that the shortcut lacks, and for the row and column that y lacks
            x = functional.pad(functional.avg_pool2d(x, 2, 2), (0, 0, 0, 0, 0, after - before))
            x = keep(f"{name}.pool", x)
            y = functional.pad(y, (0, x.shape[3] - y.shape[3], 0, x.shape[2] - y.shape[2]))
        x = keep(f"{name}.conv2", functional.relu(x + y))
    x = keep("mean", x.mean((2, 3)))
    return keep("fc", functional.linear(x, layers["fc"].weight))


def metadata(source: str, digest: str, licence: str | None = None, dataset: str | None = None) -> dict[str, str]:
    """Every key the engine asks for, except the hashes, which the writer adds."""
    return {
        **METADATA,
        "dataset": dataset or DATASET,
        "source": source,
        "source_sha256": digest,
        "licence": licence or LICENCE,
    }


def _bytes(path: pathlib.Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ToolError(
            f"{path}: cannot be read ({error.strerror}); give the folder of the npm package @vladmandic/face-api."
        ) from error


def _decode(entries: list[dict], data: bytes, weights: Weights) -> None:
    """As TensorFlow.js decodes them: value * scale + min in double, rounded once to float32."""
    at = 0
    for entry in entries:
        count, quantised = math.prod(entry["shape"]), entry.get("quantization")
        stored = np.dtype(quantised["dtype"] if quantised else entry["dtype"]).newbyteorder("<")
        values = np.frombuffer(data, stored, count, at)
        at += values.nbytes
        if quantised:
            values = values.astype(np.float64) * quantised["scale"] + quantised["min"]
        with np.errstate(over="ignore"):  # infinity is refused later, with the tensor's name
            weights[entry["name"]] = values.astype(np.float32).reshape(entry["shape"])
    if at != len(data):
        raise ValueError(f"{len(data)} bytes of data, {at} described")


def _check(weights: Weights, model: pathlib.Path) -> None:
    expected: dict[str, tuple[int, ...]] = {"fc": (256, 128)}
    for name, before, after, side in convolutions():
        expected[f"{name}/conv/filters"] = (side, side, before, after)
        expected |= {f"{name}/{part}": (after,) for part in ("conv/bias", "scale/weights", "scale/biases")}
    faults = [f"missing: {name}" for name in expected if name not in weights]
    faults += [f"unexpected: {name}" for name in weights if name not in expected]
    faults += [
        f"of the wrong shape: {name} is {list(weights[name].shape)}, not {list(shape)}"
        for name, shape in expected.items()
        if name in weights and weights[name].shape != shape
    ]
    faults += [f"with NaN or infinity: {name}" for name, value in weights.items() if not np.isfinite(value).all()]
    if faults:
        details = "".join(f"\n  {fault}" for fault in few(faults))
        raise ToolError(f"{model}: not face-api's face_recognition_model; give the package's own:{details}")


def _source(model: pathlib.Path) -> str:
    try:
        version = f" {json.loads((model.parent / 'package.json').read_text())['version']}"
    except (OSError, ValueError, KeyError):
        version = ""
    return f"@vladmandic/face-api{version}: face_recognition_model"
