"""A state_dict of InceptionResnetV1: its names and shapes, and its way into a weight file."""

from __future__ import annotations

import os
import tempfile
from typing import Any, Iterator, Mapping

import numpy as np

from facenet import _tools
from facenet.compat.facenet_pytorch import _backend
from facenet.compat.facenet_pytorch._backend import StateError

DIM = 512
_SOURCE = "facenet-pytorch state_dict"
_ONES = 16  # outputs that are 1 whatever the picture: from them follows what normalising divided by. 16: a panel of the kernels
Shape = tuple[int, ...]


def _conv(name: str, into: int, out: int, height: int, width: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.conv.weight", (out, into, height, width)
    for part in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.bn.{part}", (out,)
    yield f"{name}.bn.num_batches_tracked", ()


def _block(name: str, width: int, branches: tuple[tuple[tuple[int, int, int], ...], ...]) -> Iterator[tuple[str, Shape]]:
    """A residual block: branches of (channels, kernel height, kernel width), and the convolution that joins them."""
    joined = 0
    for number, branch in enumerate(branches):
        into = width
        for place, (out, height, across) in enumerate(branch):
            yield from _conv(f"{name}.branch{number}" + (f".{place}" if len(branch) > 1 else ""), into, out, height, across)
            into = out
        joined += into
    yield f"{name}.conv2d.weight", (width, joined, 1, 1)
    yield f"{name}.conv2d.bias", (width,)


def _names() -> Iterator[tuple[str, Shape]]:
    into = 3
    for name, out, side in (("1a", 32, 3), ("2a", 32, 3), ("2b", 64, 3), ("3b", 80, 1), ("4a", 192, 3), ("4b", 256, 3)):
        yield from _conv(f"conv2d_{name}", into, out, side, side)
        into = out
    for i in range(5):
        yield from _block(f"repeat_1.{i}", 256, (((32, 1, 1),), ((32, 1, 1), (32, 3, 3)), ((32, 1, 1), (32, 3, 3), (32, 3, 3))))
    yield from _conv("mixed_6a.branch0", 256, 384, 3, 3)
    for place, (into, out, side) in enumerate(((256, 192, 1), (192, 192, 3), (192, 256, 3))):
        yield from _conv(f"mixed_6a.branch1.{place}", into, out, side, side)
    for i in range(10):
        yield from _block(f"repeat_2.{i}", 896, (((128, 1, 1),), ((128, 1, 1), (128, 1, 7), (128, 7, 1))))
    for branch, layers in enumerate((((256, 1), (384, 3)), ((256, 1), (256, 3)), ((256, 1), (256, 3), (256, 3)))):
        into = 896
        for place, (out, side) in enumerate(layers):
            yield from _conv(f"mixed_7a.branch{branch}.{place}", into, out, side, side)
            into = out
    for name in (*(f"repeat_3.{i}" for i in range(5)), "block8"):
        yield from _block(name, 1792, (((192, 1, 1),), ((192, 1, 1), (192, 1, 3), (192, 3, 1))))
    yield "last_linear.weight", (DIM, 1792)
    for part in ("weight", "bias", "running_mean", "running_var"):
        yield f"last_bn.{part}", (DIM,)
    yield "last_bn.num_batches_tracked", ()


def shapes(classes: int | None) -> dict[str, Shape]:
    """Every tensor of a state_dict, in its order. classes: of the logits, None where there are none."""
    out = dict(_names())
    if classes is not None:
        out |= {"logits.weight": (classes, DIM), "logits.bias": (classes,)}
    return out


def _linear(random: np.random.Generator, shape: Shape, fan_in: int) -> Any:
    bound = fan_in**-0.5
    return random.uniform(-bound, bound, shape).astype(np.float32)


def random(classes: int | None) -> dict[str, Any]:
    """A network that nobody trained, with PyTorch's initial distributions: its seed is PyTorch's generator's."""
    seed = np.random.randint(1 << 31) if _backend.torch is None else int(_backend.torch.randint(1 << 31, ()))
    generator = np.random.default_rng(seed)
    out: dict[str, Any] = {}
    fan_in = 1
    for name, shape in shapes(classes).items():
        if name.endswith("num_batches_tracked"):
            out[name] = np.zeros((), np.int64)
        elif ".bn." in name or name.startswith("last_bn."):
            out[name] = np.full(shape, name.endswith((".weight", ".running_var")), np.float32)
        else:
            fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else fan_in  # a bias follows its weight
            out[name] = _linear(generator, shape, fan_in)
    return out


def random_logits(classes: int) -> dict[str, Any]:
    """A classifier that nobody trained."""
    seed = np.random.randint(1 << 31) if _backend.torch is None else int(_backend.torch.randint(1 << 31, ()))
    generator = np.random.default_rng(seed)
    return {"logits.weight": _linear(generator, (classes, DIM), DIM), "logits.bias": _linear(generator, (classes,), DIM)}


def array(value: Any) -> Any:
    """A tensor or array of a state_dict as an array of its own."""
    if _backend.is_tensor(value):
        value = value.detach().cpu().numpy()
    value = np.asarray(value)
    return np.array(value, np.int64 if value.dtype.kind in "iu" and value.ndim == 0 else np.float32)


def read(path: str) -> dict[str, Any]:
    """The arrays of a .pt file, or of a safetensors file that is a plain state_dict."""
    if not path.endswith(".safetensors"):
        pickled, public = _tools.module("pickled"), _tools.module("public_checkpoints")
        values = dict(_tools.call(public.arrays, path))
        tree = pickled.load(path)
        values |= {name: tree[name].array() for name in ("logits.weight", "logits.bias") if name in tree}
        return values
    import json

    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        start = file.tell()
        header.pop("__metadata__", None)
        types = {"F32": np.float32, "F16": np.float16, "U8": np.uint8, "I64": np.int64}
        if not set(dict(_names())) - {name for name in dict(_names()) if name.endswith("tracked")} <= set(header):
            raise StateError(f"{path}: a converted file has its batch norms folded and is no state_dict any more; give the checkpoint itself.")
        out: dict[str, Any] = {}
        for name, entry in header.items():
            if entry["dtype"] in types:
                begin, end = entry["data_offsets"]
                file.seek(start + begin)
                out[name] = np.frombuffer(file.read(end - begin), types[entry["dtype"]]).reshape(entry["shape"])
    return out


def embedder_of(state: Mapping[str, Any], raw: bool, make: Any) -> Any:
    """make(path) of a temporary weight file. raw: the embeddings are 512 numbers before they are normalised, and 16 ones, normalised."""
    values = {
        name: np.ascontiguousarray(value)
        for name, value in state.items()
        if not name.startswith("logits.") and not name.endswith("num_batches_tracked")
    }
    if raw:
        for name, fill in (("last_linear.weight", 0), ("last_bn.weight", 1), ("last_bn.bias", 1), ("last_bn.running_mean", 0), ("last_bn.running_var", 1)):
            more = np.full((_ONES, *values[name].shape[1:]), fill, np.float32)
            values[name] = np.concatenate((values[name], more))
    with tempfile.TemporaryDirectory(prefix="facenet-") as folder:
        path = os.path.join(folder, "state_dict.safetensors")
        _tools.call(_tools.module("safetensors_writer").write, path, values, {"source": _SOURCE, "dataset": "unknown"})
        return make(path)


def before_normalising(embeddings: Any) -> Any:
    """What a raw embedder's outputs were before it normalised them: [n, 512]."""
    return embeddings[:, :DIM] / embeddings[:, DIM : DIM + 1]
