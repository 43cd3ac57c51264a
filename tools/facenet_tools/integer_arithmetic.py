"""What the engine computes from a weight file of format 2, to the bit: convolutions in integers, the rest in float32 in one order.

All floats are float32, and each operation is rounded to nearest, ties to even. Nothing is fused: a product is rounded before
it is added. Where a sum has an order, the order is part of the definition.

**Tensors.** Each operation has a float32 output. What an integer convolution reads is its bytes, with `input_scale` and so
`inverse` = 1 / input_scale of the convolutions that read it (one division, rounded):
    q = nearest_even(min(max(x, 0) * inverse, 255))
Rounding is monotone. So the bytes of a max pool are the max pool of bytes, and the bytes of a concatenation are those of its
parts: whoever needs only the bytes keeps only them. A residual's trunk is never what bytes stand for: it is the float32 output of
the layer (a convolution, pool or concatenation) before it is rounded to bytes. The picture is bytes already: q is the pixel.

**An integer convolution.** sum = the exact sum of q * weight in 32 bits; padding is q = 0.
    scale[o] = weight_scale[o] * input_scale        (F32[1]; weight_scale[o] alone where input_scale is F32[Cin], which the
                                                    weights hold then)
    scale[o] = scale[o] * factor, bias[o] = bias[o] * factor        (only in a residual: 0.17, 0.10 or 0.20 as float32)
    x = float(sum) * scale[o] + bias[o]             (float(sum) is rounded: sums pass 2^24)
    x = trunk + x                                   (only in a residual)
    x = max(x, 0)                                   (unless the layer has no ReLU)
The first layer reads the picture's bytes, of which x = (q - mean[c]) * input_scale: before all else its bias becomes, in double and
in the order of the colours, bias - sum over c of mean[c] * input_scale * weight_scale[o] * (the sum of w[o][c] over the window), and
is rounded to float32. The file's bias is the float network's, so that the same file runs in float.

**Max pool**: the largest of the window inside the picture.
**Average pool**, of a window or of the whole picture: s = 0; for the window's pixels inside the picture in row-major order
s = s + x; then s * (1 / count), where 1 / count is one division, rounded. Channels that the shortcut lacks (dlib's) are 0.
**Linear layer**: s = 0; for k = 0, 1, ... in order s = s + w[o][k] * x[k]; then s + bias[o].
**L2**: kernels/pool.hpp's, in double: the sum of squares in order (a product of two float32 is exact in double, so fusing it
changes nothing), norm = sqrt(sum), scale = 1 / max(norm, 1e-12), y = float32(x * scale).

A layer of `float_layers` is a float32 convolution in any order: its bits are not defined.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Iterable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from facenet_tools import checkpoint, networks, pictures
from facenet_tools.cli import ToolError
from facenet_tools.networks import Op

EXACT = 1 << 24  # sums up to here are exact in float32, in any order
LEAST = 2.0**-100  # in magnitude, of scales and biases that are not 0: kernels/integer_gemm.hpp
PIXELS = {"fixed": (128.0, (127.5,) * 3), "unit": (255.0, (0.0,) * 3), "mean_255": (255.0, pictures.MEANS)}  # (x - mean) / divisor
MAX_DEPTH = (2**31 - 1) // (255 * 127)  # products whose sum fits 32 bits


@dataclasses.dataclass(frozen=True)
class IntegerLayer:
    """A convolution as a file of format 2 holds it: x ~ input_scale * q, w ~ weight_scale[o] * weight."""

    weight: Tensor  # int8 OIHW
    weight_scale: Tensor  # float32 [O]
    bias: Tensor  # float32 [O]
    input_scale: Tensor  # float32 [1] or [Cin]
    means: tuple[float, ...] | None = None  # of the picture's colours, where the layer reads it

    def scale(self, factor: float) -> Tensor:
        """Of a sum; a number for each channel [O]."""
        scale = self.weight_scale * self.input_scale if len(self.input_scale) == 1 else self.weight_scale
        return scale if factor == 1 else scale * torch.tensor(factor)


    def bias_of_bytes(self) -> Tensor:
        """The bias where q stands for the picture's bytes, less the colours' means."""
        bias = self.bias.double()
        for colour, mean in enumerate(self.means or ()):
            sums = self.weight[:, colour].double().sum((1, 2))
            bias = bias - mean * self.input_scale.double() * self.weight_scale.double() * sums
        return bias.float()


def to_bytes(x: Tensor, input_scale: Tensor) -> Tensor:
    """float32 -> whole numbers of 0 ... 255, as float32."""
    inverse = _channels(torch.ones(1) / input_scale)
    return torch.round(torch.clamp_max(functional.relu(x) * inverse, 255))


def exact_sums(q: Tensor, weight: Tensor, stride: int, pad: tuple[int, int]) -> Tensor:
    """The integer sums, each rounded to float32 once; q holds bytes as floats. As many input channels at a time as float32 sums
    exactly in any order: several times faster than float64."""
    w = weight.float()
    most = 255 * w.abs().sum((2, 3), dtype=torch.float64).amax(0)  # that an input channel adds to a sum
    group = torch.floor(torch.cumsum(most, 0) / (EXACT - most.max()))
    sizes = torch.unique_consecutive(group, return_counts=True)[1].tolist()
    parts = [functional.conv2d(a, b, None, stride, pad) for a, b in zip(q.split(sizes, 1), w.split(sizes, 1))]
    return parts[0] if len(parts) == 1 else sum(part.double() for part in parts).float()


def convolve(op: Op, layer: IntegerLayer, q: Tensor, trunk: Tensor | None) -> Tensor:
    """The float32 output of an integer convolution of bytes."""
    bias = layer.bias_of_bytes() if op.factor == 1 else layer.bias_of_bytes() * torch.tensor(op.factor)
    x = exact_sums(q, layer.weight, op.stride, op.pad) * _channels(layer.scale(op.factor))
    return networks.finish(op, x + _channels(bias), trunk)


def average(op: Op, x: Tensor) -> Tensor:
    """The sum in row-major order, times 1 / count. Adding the zeros around the picture changes nothing."""
    window = x.shape[2:] if op.kind == "global_avg_pool" else (op.window, op.window)
    ones = torch.ones_like(x[:1, :1])
    x, ones = (functional.pad(t, (op.pad[1], op.pad[1], op.pad[0], op.pad[0])) for t in (x, ones))
    rows, columns = ((size - side) // op.stride + 1 for size, side in zip(x.shape[2:], window))
    total, count = torch.zeros(1), torch.zeros(1)
    for y in range(window[0]):
        for left in range(window[1]):
            place = (..., slice(y, y + (rows - 1) * op.stride + 1, op.stride), slice(left, left + (columns - 1) * op.stride + 1, op.stride))
            total, count = total + x[place], count + ones[place]
    return total * (torch.ones(1) / count)


def linear(layer: checkpoint.Folded, x: Tensor) -> Tensor:
    """[N, K, 1, 1] -> [N, O], one product after the other."""
    weight, rows = layer.weight.float(), x.permute(0, 2, 3, 1).flatten(1)
    products = (weight[None] * rows[:, None]).numpy()
    return torch.from_numpy(np.cumsum(products, axis=2, dtype=np.float32)[..., -1].copy()) + layer.bias.float()


def normalised(embeddings: np.ndarray) -> np.ndarray:
    """float32 [N, dim] -> unit vectors, each sum of squares in order and in double."""
    x = embeddings.astype(np.float64)
    norm = np.sqrt(np.cumsum(x * x, axis=1)[:, -1:])
    return (x * (1.0 / np.maximum(norm, 1e-12))).astype(np.float32)


def in_integers(layers: networks.Layers, integers: dict[str, IntegerLayer], scaling: str) -> networks.Each:
    """The definition above for the layers in `integers`, float32 convolutions for the others. The picture is bytes."""

    def each(op: Op, inputs: list[Tensor], trunk: Tensor | None) -> Tensor:
        if op.kind == "concat":
            return torch.cat(inputs, 1)
        if op.kind == "conv":
            layer = integers.get(op.name)
            if op.inputs[0] == networks.PICTURE:
                x = inputs[0] if layer else pictures.to_tensor(inputs[0].permute(0, 2, 3, 1).byte().numpy(), torch.float32, scaling)
            else:
                x = to_bytes(inputs[0], layer.input_scale) if layer else inputs[0]
            return convolve(op, layer, x, trunk) if layer else networks.convolve(op, layers[op.name], x, trunk)
        if op.kind == "linear":
            return linear(layers[op.name], inputs[0])
        return networks.pool(op, inputs[0]) if op.kind == "max_pool" else average(op, inputs[0])

    return each


def start(crops: np.ndarray) -> dict[str, Tensor]:
    """uint8 [N, H, W, 3] -> the picture's tensor, bytes as float32 [N, 3, H, W]."""
    return {networks.PICTURE: torch.from_numpy(np.ascontiguousarray(crops)).permute(0, 3, 1, 2).float()}


def embed(
    network: networks.Network, layers: networks.Layers, integers: dict[str, IntegerLayer], crops: np.ndarray, scaling: str, normalise: str
) -> np.ndarray:
    """Embeddings float32 [N, dim] of uint8 crops [N, H, W, 3]."""
    rows = []
    for at in range(0, len(crops), 4):  # activations of more pictures leave the cache
        values = networks.run(network.ops, start(crops[at : at + 4]), in_integers(layers, integers, scaling))
        rows.append(values[network.ops[-1].name].numpy())
    embeddings = np.concatenate(rows)
    return normalised(embeddings) if normalise == "l2" else embeddings


def simulate(path: str | pathlib.Path, picture: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """What the engine must make of a picture, uint8 [size, size, 3] in the file's channel order: the embedding, float32 [dim], and the
    bytes of every tensor that an integer convolution reads, uint8 [h, w, c], by the name of the operation that writes it."""
    metadata, layers, integers = read(path)
    network = networks.of(metadata["architecture"], str(path))
    scales = {op.inputs[0]: integers[op.name].input_scale for op in network.convolutions() if op.name in integers}
    values = networks.run(network.ops, start(picture[None]), in_integers(layers, integers, metadata["scaling"]), scales.__contains__)
    embedding = values[network.ops[-1].name].numpy()
    activations = {
        name: (values[name] if name == networks.PICTURE else to_bytes(values[name], scale))[0].permute(1, 2, 0).byte().numpy()
        for name, scale in scales.items()
    }
    return (normalised(embedding) if metadata["normalise"] == "l2" else embedding)[0], activations


def read(path: str | pathlib.Path) -> tuple[dict[str, str], networks.Layers, dict[str, IntegerLayer]]:
    """A file of format 2: metadata, the layers in float, those in integers."""
    import safetensors

    with safetensors.safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        if metadata.get("format") != "2" or metadata.get("arithmetic") != "int8":
            raise ToolError(f"{path}: is no file for integer arithmetic; make one with convert_weights.py --dtype i8 --calibrate.")
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    layers: networks.Layers = {}
    integers: dict[str, IntegerLayer] = {}
    for op in networks.of(metadata["architecture"], str(path)).ops:
        if op.kind not in ("conv", "linear"):
            continue
        name = op.name
        weight, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
        if f"{name}.input_scale" in tensors:
            means = PIXELS[metadata["scaling"]][1] if op.inputs[0] == networks.PICTURE else None
            integers[name] = IntegerLayer(weight, tensors[f"{name}.weight_scale"], bias, tensors[f"{name}.input_scale"], means)
        else:
            layers[name] = checkpoint.Folded(name, weight, bias)
    return metadata, layers, integers


def stored(layers: Iterable[str], integers: dict[str, IntegerLayer], floats: networks.Layers) -> dict[str, np.ndarray]:
    """The tensors of a file in the order of `layers`; of each bias, scales and weight, as the engine streams them."""
    tensors: dict[str, np.ndarray] = {}
    for name in layers:
        layer = integers.get(name)
        if layer is None:
            tensors[f"{name}.bias"] = floats[name].bias.float().numpy()
            tensors[f"{name}.weight"] = floats[name].weight.float().numpy()
            continue
        tensors[f"{name}.bias"] = layer.bias.numpy()
        tensors[f"{name}.input_scale"] = layer.input_scale.numpy()
        tensors[f"{name}.weight_scale"] = layer.weight_scale.numpy()
        tensors[f"{name}.weight"] = layer.weight.numpy()
    return tensors


def _channels(values: Tensor) -> Tensor:
    return values.reshape(-1, 1, 1)
