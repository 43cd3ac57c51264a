"""The networks as lists of operations, with the names of include/facenet/models/: read them side by side.

Batch norm is folded: a convolution has a weight and a bias (checkpoint.Folded), whose shape tells its channels and window.
"""

from __future__ import annotations

import dataclasses
from typing import Callable, Iterable

import torch
from torch import Tensor
from torch.nn import functional

from facenet_tools import checkpoint
from facenet_tools.cli import ToolError

PICTURE = "input"
Layers = dict[str, checkpoint.Folded]


@dataclasses.dataclass(frozen=True)
class Op:
    """kind: conv, max_pool, avg_pool, concat, global_avg_pool, linear. inputs: the names of operations."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    stride: int = 1
    pad: tuple[int, int] = (0, 0)  # rows, columns
    window: int = 0  # a pool's
    relu: bool = True
    skip: str | None = None  # conv: out = relu(skip + factor * (W x + b))
    factor: float = 1.0


class Network:
    """Operations in the order in which they run; each returns its name, as the network's declarations in C++ return a Ref."""

    def __init__(self) -> None:
        self.ops: list[Op] = []

    def _add(self, op: Op) -> str:
        self.ops.append(op)
        return op.name

    def conv(self, name: str, x: str, stride: int = 1, pad: int | tuple[int, int] = 0) -> str:
        return self._add(Op("conv", name, (x,), stride, pad if isinstance(pad, tuple) else (pad, pad)))

    def residual(self, name: str, x: str, skip: str, factor: float = 1.0, relu: bool = True, pad: int = 0) -> str:
        return self._add(Op("conv", name, (x,), pad=(pad, pad), relu=relu, skip=skip, factor=factor))

    def max_pool(self, name: str, x: str) -> str:
        return self._add(Op("max_pool", name, (x,), 2, window=3))

    def avg_pool(self, name: str, x: str, window: int, stride: int, pad: int = 0) -> str:
        return self._add(Op("avg_pool", name, (x,), stride, (pad, pad), window))

    def concat(self, name: str, *parts: str) -> str:
        return self._add(Op("concat", name, parts))

    def head(self, pool: str, linear: str, x: str) -> Network:
        x = self._add(Op("global_avg_pool", pool, (x,)))
        self._add(Op("linear", linear, (x,)))
        return self

    def convolutions(self) -> list[Op]:
        return [op for op in self.ops if op.kind == "conv"]


def inception_resnet_v1() -> Network:
    n = Network()
    x = n.conv("conv2d_1a", PICTURE, stride=2)
    x = n.conv("conv2d_2a", x)
    x = n.conv("conv2d_2b", x, pad=1)
    x = n.max_pool("maxpool_3a", x)
    x = n.conv("conv2d_3b", x)
    x = n.conv("conv2d_4a", x)
    x = n.conv("conv2d_4b", x, stride=2)
    for i in range(5):
        x = _block35(n, x, f"repeat_1.{i}")
    x = _mixed_6a(n, x)
    for i in range(10):
        x = _two_branches(n, x, f"repeat_2.{i}", 3, 0.10)
    x = _mixed_7a(n, x)
    for i in range(5):
        x = _two_branches(n, x, f"repeat_3.{i}", 1, 0.20)
    x = _two_branches(n, x, "block8", 1, 1.0, relu=False)
    return n.head("avgpool_1a", "last_linear", x)


def inception_resnet_v2() -> Network:
    n = Network()
    x = n.conv("conv2d_1a", PICTURE, stride=2)
    x = n.conv("conv2d_2a", x)
    x = n.conv("conv2d_2b", x, pad=1)
    x = n.max_pool("maxpool_3a", x)
    x = n.conv("conv2d_3b", x)
    x = n.conv("conv2d_4a", x)
    x = n.max_pool("maxpool_5a", x)
    x = _mixed_5b(n, x)
    for i in range(10):
        x = _block35(n, x, f"repeat.{i}")
    x = _mixed_6a(n, x)
    for i in range(20):
        x = _two_branches(n, x, f"repeat_1.{i}", 3, 0.10)
    x = _mixed_7a(n, x)
    for i in range(9):
        x = _two_branches(n, x, f"repeat_2.{i}", 1, 0.20)
    x = _two_branches(n, x, "block8", 1, 1.0, relu=False)
    x = n.conv("conv2d_7b", x)
    return n.head("global_pool", "last_linear", x)


def dlib_resnet() -> Network:
    n = Network()
    x = n.conv("conv32_down", PICTURE, stride=2)
    x = n.max_pool("pool", x)
    for name in ("conv32_1", "conv32_2", "conv32_3", "conv64_down", "conv64_1", "conv64_2", "conv64_3", "conv128_down",
                 "conv128_1", "conv128_2", "conv256_down", "conv256_1", "conv256_2", "conv256_down_out"):  # fmt: skip
        down = "down" in name
        y = n.conv(f"{name}.conv1", x, 2 if down else 1, 0 if down else 1)
        skip = n.avg_pool(f"{name}.pool", x, 2, 2) if down else x
        x = n.residual(f"{name}.conv2", y, skip, pad=1)
    return n.head("mean", "fc", x)


OF: dict[str, Callable[[], Network]] = {
    "inception_resnet_v1": inception_resnet_v1,
    "inception_resnet_v2": inception_resnet_v2,
    "dlib_resnet": dlib_resnet,
}


def _block35(n: Network, x: str, at: str) -> str:
    b0 = n.conv(f"{at}.branch0", x)
    b1 = n.conv(f"{at}.branch1.0", x)
    b1 = n.conv(f"{at}.branch1.1", b1, pad=1)
    b2 = n.conv(f"{at}.branch2.0", x)
    b2 = n.conv(f"{at}.branch2.1", b2, pad=1)
    b2 = n.conv(f"{at}.branch2.2", b2, pad=1)
    return n.residual(f"{at}.conv2d", n.concat(f"{at}.cat", b0, b1, b2), x, 0.17)


def _two_branches(n: Network, x: str, at: str, reach: int, factor: float, relu: bool = True) -> str:
    """Block17, whose windows reach 3 pixels to each side, and Block8: 1."""
    b0 = n.conv(f"{at}.branch0", x)
    b1 = n.conv(f"{at}.branch1.0", x)
    b1 = n.conv(f"{at}.branch1.1", b1, pad=(0, reach))
    b1 = n.conv(f"{at}.branch1.2", b1, pad=(reach, 0))
    return n.residual(f"{at}.conv2d", n.concat(f"{at}.cat", b0, b1), x, factor, relu)


def _mixed_5b(n: Network, x: str) -> str:
    at = "mixed_5b"
    b0 = n.conv(f"{at}.branch0", x)
    b1 = n.conv(f"{at}.branch1.0", x)
    b1 = n.conv(f"{at}.branch1.1", b1, pad=2)
    b2 = n.conv(f"{at}.branch2.0", x)
    b2 = n.conv(f"{at}.branch2.1", b2, pad=1)
    b2 = n.conv(f"{at}.branch2.2", b2, pad=1)
    b3 = n.avg_pool(f"{at}.branch3.0", x, 3, 1, 1)
    b3 = n.conv(f"{at}.branch3.1", b3)
    return n.concat(f"{at}.cat", b0, b1, b2, b3)


def _mixed_6a(n: Network, x: str) -> str:
    at = "mixed_6a"
    b0 = n.conv(f"{at}.branch0", x, stride=2)
    b1 = n.conv(f"{at}.branch1.0", x)
    b1 = n.conv(f"{at}.branch1.1", b1, pad=1)
    b1 = n.conv(f"{at}.branch1.2", b1, stride=2)
    b2 = n.max_pool(f"{at}.branch2", x)
    return n.concat(f"{at}.cat", b0, b1, b2)


def _mixed_7a(n: Network, x: str) -> str:
    at = "mixed_7a"
    b0 = n.conv(f"{at}.branch0.0", x)
    b0 = n.conv(f"{at}.branch0.1", b0, stride=2)
    b1 = n.conv(f"{at}.branch1.0", x)
    b1 = n.conv(f"{at}.branch1.1", b1, stride=2)
    b2 = n.conv(f"{at}.branch2.0", x)
    b2 = n.conv(f"{at}.branch2.1", b2, pad=1)
    b2 = n.conv(f"{at}.branch2.2", b2, stride=2)
    b3 = n.max_pool(f"{at}.branch3", x)
    return n.concat(f"{at}.cat", b0, b1, b2, b3)


# ---- Running one in floats -------------------------------------------------------------------------------------------


def convolve(op: Op, layer: checkpoint.Folded, x: Tensor, trunk: Tensor | None) -> Tensor:
    """A convolution's output, in the type of x."""
    y = functional.conv2d(x, layer.weight.to(x.dtype), layer.bias.to(x.dtype), op.stride, op.pad)
    return finish(op, y if trunk is None or op.factor == 1 else y * op.factor, trunk)


def finish(op: Op, y: Tensor, trunk: Tensor | None) -> Tensor:
    """The residual's sum and the ReLU. dlib's shortcut has fewer channels, and its convolutions may leave a row and a column less:
    both count as zeros."""
    if trunk is not None:
        channels, height, width = (max(a, b) for a, b in zip(y.shape[1:], trunk.shape[1:]))
        y = _grown(trunk, channels, height, width) + _grown(y, channels, height, width)
    return functional.relu(y) if op.relu else y


def pool(op: Op, x: Tensor) -> Tensor:
    if op.kind == "max_pool":
        return functional.max_pool2d(x, op.window, op.stride)
    if op.kind == "avg_pool":
        return functional.avg_pool2d(x, op.window, op.stride, op.pad, count_include_pad=False)
    return x.mean((2, 3), keepdim=True)


def linear(layer: checkpoint.Folded, x: Tensor) -> Tensor:
    return functional.linear(x.flatten(1), layer.weight.to(x.dtype), layer.bias.to(x.dtype))


Each = Callable[[Op, list[Tensor], "Tensor | None"], Tensor]


def run(ops: Iterable[Op], start: dict[str, Tensor], each: Each, keep: Callable[[str], bool] = lambda name: False) -> dict[str, Tensor]:
    """Runs operations on the outputs in `start`: each(op, inputs, trunk) makes an output. Returns the last one's, and those to keep;
    the rest is forgotten once nothing reads it."""
    ops = list(ops)
    last: dict[str, int] = {}
    for i, op in enumerate(ops):
        last |= dict.fromkeys([*op.inputs, *([op.skip] if op.skip else [])], i)
    values = dict(start)
    for i, op in enumerate(ops):
        values[op.name] = each(op, [values[name] for name in op.inputs], values[op.skip] if op.skip else None)
        for name in [name for name, end in last.items() if end == i and name in values and not keep(name)]:
            del values[name]
    return values


def in_float(layers: Layers) -> Each:
    """float arithmetic, of the type of the tensors."""

    def each(op: Op, inputs: list[Tensor], trunk: Tensor | None) -> Tensor:
        if op.kind == "conv":
            return convolve(op, layers[op.name], inputs[0], trunk)
        if op.kind == "concat":
            return torch.cat(inputs, 1)
        return linear(layers[op.name], inputs[0]) if op.kind == "linear" else pool(op, inputs[0])

    return each


def of(architecture: str, path: str = "") -> Network:
    if architecture not in OF:
        raise ToolError(f"{path}: {architecture} has no integer form; convert it without --calibrate.")
    return OF[architecture]()


def _grown(x: Tensor, channels: int, height: int, width: int) -> Tensor:
    missing = (width - x.shape[3], height - x.shape[2], channels - x.shape[1])
    return functional.pad(x, (0, missing[0], 0, missing[1], 0, missing[2])) if any(missing) else x
