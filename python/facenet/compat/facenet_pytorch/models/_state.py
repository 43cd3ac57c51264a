"""A state_dict of InceptionResnetV1: its names and shapes, and its way into a weight file."""

from __future__ import annotations

import os
import tempfile
from typing import Any, Iterator, Mapping

import numpy as np

from facenet import _tools
from facenet._errors import error
from facenet.compat.facenet_pytorch import _backend
from facenet.compat.facenet_pytorch._backend import StateError

DIM = 512
_SOURCE = "facenet-pytorch state_dict"
_ONES = 16  # outputs that are 1 whatever the picture: from them follows what normalising divided by. 16: a panel of the kernels
COUNTER = "num_batches_tracked"  # of a batch norm, which only training uses: no state_dict needs it
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
        if name.endswith(COUNTER):
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
        value = value.detach().cpu()
        value = (value.float() if value.is_floating_point() else value).numpy()  # NumPy has no bfloat16
    try:
        value = np.asarray(value)
        return np.array(value, np.int64 if value.dtype.kind in "iu" and value.ndim == 0 else np.float32)
    except (TypeError, ValueError) as e:
        raise StateError(f"a state_dict holds what is no array of numbers ({type(value).__name__}); give tensors or arrays.") from e


def read(path: str) -> dict[str, Any]:
    """The arrays of a .pt file, or of a safetensors file that is a plain state_dict."""
    if not path.endswith(".safetensors"):
        return dict(_tools.call(_tools.module("public_checkpoints").arrays, path, True))
    try:
        return _of_safetensors(path)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as e:
        if isinstance(e, StateError):
            raise
        raise StateError(f"{path}: this is no safetensors file, or it is damaged; give the checkpoint itself.") from e
    except OSError as e:
        raise error("not_found" if isinstance(e, FileNotFoundError) else "io_error", f"{path}: cannot be read ({e.strerror}); check the path.") from e


_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "U8": "u1", "I64": "<i8"}


def _of_safetensors(path: str) -> dict[str, Any]:
    import json

    out: dict[str, Any] = {}
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > os.stat(path).st_size:
            raise ValueError(length)
        header = json.loads(file.read(length))
        start = file.tell()
        header.pop("__metadata__", None)
        if not {name for name in shapes(None) if not name.endswith(COUNTER)} <= set(header):
            raise StateError(f"{path}: a converted file has its batch norms folded and is no state_dict any more; give the checkpoint itself.")
        for name, entry in header.items():
            kind = entry["dtype"]
            if kind not in _TYPES:
                continue
            begin, end = entry["data_offsets"]
            file.seek(start + begin)
            values = np.frombuffer(file.read(end - begin), _TYPES[kind]).reshape(entry["shape"])
            if kind == "BF16":  # the upper half of a float32
                values = (values.astype(np.uint32) << 16).view(np.float32)
            out[name] = values if kind in ("U8", "I64") else values.astype(np.float32)
    return out


def embedder_of(state: Mapping[str, Any], raw: bool, make: Any) -> Any:
    """make(path) of a temporary weight file. raw: the embeddings are 512 numbers before they are normalised, and 16 ones, normalised."""
    values = {
        name: np.ascontiguousarray(value)
        for name, value in state.items()
        if not name.startswith("logits.") and not name.endswith(COUNTER)
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
