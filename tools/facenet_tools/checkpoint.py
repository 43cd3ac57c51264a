"""facenet-pytorch checkpoints, and those of Inception-ResNet-v2 with timm's names: the network's layers, reading a
state_dict strictly, folding batch norm.

Source of names and shapes: facenet_pytorch/models/inception_resnet_v1.py of facenet-pytorch 2.6.0.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import pathlib
import re
import warnings
from typing import Callable, Iterable, Iterator

import numpy as np
import torch
from facenet_pytorch import InceptionResnetV1
from facenet_pytorch.models.inception_resnet_v1 import BasicConv2d
from torch import nn

from facenet_tools import inception_resnet_v2, pickled, states
from facenet_tools.cli import ToolError, few, listed, shown

V1, V2 = "inception_resnet_v1", "inception_resnet_v2"
LARGEST_DIM = 16384  # the engine's: max_embedding_dim in base/tensor.hpp
UNTRAINED_KEY = "facenet_untrained"
StateDict = dict[str, torch.Tensor]

KINDS = (
    "a facenet-pytorch .pt, a safetensors file of its state_dict, a TensorFlow checkpoint or frozen graph of "
    "davidsandberg, a Keras .h5 of DeepFace, or an ONNX file exported from facenet-pytorch"
)
_OWNERS = {V1: "facenet-pytorch's InceptionResnetV1", V2: "Inception-ResNet-v2 with timm's names"}
_IGNORED = re.compile(r"logits\.|.*num_batches_tracked$")
_NORM_PARTS = ("weight", "bias", "running_mean", "running_var")
THRESHOLD = ("threshold", "threshold_source")  # metadata that training may have measured


@dataclasses.dataclass(frozen=True)
class Layer:
    """One convolution or the final linear layer; norm is the prefix of its batch norm, if it has one."""

    name: str
    weight: str
    bias: str | None = None
    norm: str | None = None
    eps: float = 0.0


@dataclasses.dataclass(frozen=True)
class Folded:
    """float64: weight [O, I, kh, kw] or [O, I], bias [O]."""

    name: str
    weight: torch.Tensor
    bias: torch.Tensor


@contextlib.contextmanager
def _without_initial_values() -> Iterator[None]:
    """Convolutions draw random numbers when they are made: 0.3 s a network, for nothing where they are loaded next."""
    kinds = (nn.Conv2d, nn.Linear)
    saved = [kind.reset_parameters for kind in kinds]
    try:
        for kind in kinds:
            kind.reset_parameters = lambda self: None
        yield
    finally:
        for kind, method in zip(kinds, saved):
            kind.reset_parameters = method


def empty_model(dim: int = 512, architecture: str = V1, width: float = 1) -> nn.Module:
    """build_model() whose weights are to be loaded, or never used."""
    with _without_initial_values():
        return build_model(dim, architecture, width)


def build_model(dim: int = 512, architecture: str = V1, width: float = 1) -> nn.Module:
    """The reference network in eval mode, with dim outputs and `width` times the channels in every layer before."""
    model = inception_resnet_v2.InceptionResnetV2(dim) if architecture == V2 else InceptionResnetV1()
    if width != 1:
        _scale_channels(model, width)
    inputs = model.last_linear.in_features
    if (round(inputs * width), dim) != (inputs, model.last_linear.out_features):
        model.last_linear = nn.Linear(round(inputs * width), dim, bias=False)
        model.last_bn = nn.BatchNorm1d(dim, eps=model.last_bn.eps)
    return model.eval().requires_grad_(False)


def model_of(state: StateDict, dim: int) -> nn.Module:
    """The reference network that a checked state_dict belongs to, with its weights."""
    model = empty_model(dim, architecture_of(state), width_of(state))
    model.load_state_dict(state, strict=False)  # check() has compared the names; strict would ask for counters
    return model


def width_of(state: StateDict) -> float:
    """Channels of the first layer over the published 32."""
    first = state.get("conv2d_1a.conv.weight")
    width = first.shape[0] / 32 if first is not None and first.dim() == 4 else 1.0
    return width if is_width(width) else 1.0  # the wrong shapes are listed then


def is_width(width: float) -> bool:
    """Sixteenths: every layer's channels are a multiple of 16, so that none is rounded."""
    return 1 / 16 <= width <= 4 and (16 * width).is_integer()


def _scale_channels(model: nn.Module, width: float) -> None:
    def scaled(channels: int) -> int:
        return channels if channels == 3 else round(channels * width)

    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Conv2d):
                options = {"stride": child.stride, "padding": child.padding, "bias": child.bias is not None}
                channels = scaled(child.in_channels), scaled(child.out_channels)
                setattr(module, name, nn.Conv2d(*channels, child.kernel_size, **options))
            elif isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.BatchNorm2d(scaled(child.num_features), child.eps, child.momentum))


def layers(model: nn.Module) -> Iterator[Layer]:
    """The convolutions (132 or 244) and the linear layer in network order (the modules are registered in that order)."""
    for name, module in model.named_modules():
        if isinstance(module, BasicConv2d):
            yield Layer(name, f"{name}.conv.weight", norm=f"{name}.bn", eps=module.bn.eps)
        elif isinstance(module, nn.Conv2d) and name.endswith(".conv2d"):
            yield Layer(name, f"{name}.weight", bias=f"{name}.bias")
        elif name == "last_linear":
            yield Layer(name, f"{name}.weight", norm="last_bn", eps=model.last_bn.eps)


def fold(state: StateDict, model: nn.Module) -> Iterator[Folded]:
    """Batch norm folded in float64: w' = w * gamma / sqrt(var + eps), b' = beta - mean * gamma / sqrt(var + eps)."""
    for layer in layers(model):
        weight = state[layer.weight].double()
        if layer.norm is None:
            yield Folded(layer.name, weight, state[layer.bias].double())
            continue
        gamma, beta, mean, var = (
            state[f"{layer.norm}.{part}"].double() for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = gamma / torch.sqrt(var + layer.eps)
        yield Folded(layer.name, weight * scale.reshape(-1, *[1] * (weight.dim() - 1)), beta - mean * scale)


def identity_norm(layer: Layer, bias: torch.Tensor) -> StateDict:
    """A batch norm that only adds: gamma 1, mean 0, variance 1 - eps. For weights that have theirs folded in.

    0.999f + 0.001 is 1 in float32 and 1 + 1.3e-8 in double, so folding again returns the float32 weights to the bit.
    """
    ones = torch.ones_like(bias)
    parts = {"weight": ones, "bias": bias, "running_mean": ones * 0, "running_var": ones * (1 - layer.eps)}
    return {f"{layer.norm}.{part}": value for part, value in parts.items()}


def has_folded_norms(state: StateDict, model: nn.Module) -> bool:
    """Whether any is an identity_norm. Trained so, their statistics jump to the batch's, and the network is lost."""
    norms = [(f"{layer.norm}.running_var", 1 - layer.eps) for layer in layers(model) if layer.norm is not None]
    return any(torch.equal(state[name], torch.full_like(state[name], variance)) for name, variance in norms)


def unfold(folded: Iterable[Folded], model: nn.Module) -> StateDict:
    """The state_dict of a network with these weights: the way back from fold()."""
    state: StateDict = {}
    for layer, part in zip(layers(model), folded):
        state[layer.weight] = part.weight
        state |= {layer.bias: part.bias} if layer.norm is None else identity_norm(layer, part.bias)
    return state


@dataclasses.dataclass(frozen=True)
class Chosen:
    """A state_dict as it lay in a checkpoint, and what else the checkpoint says of it."""

    state: StateDict
    metadata: dict[str, str]  # threshold and threshold_source, where it has both as text
    note: str = ""


def read(path: str, unsafe: bool = False) -> StateDict:
    """The state_dict in a .pt file of either serialisation; see read_chosen."""
    return read_chosen(path, unsafe).state


def read_chosen(path: str, unsafe: bool = False, averaged: bool = False, entry: str | None = None) -> Chosen:
    """Reads a .pt file of either serialisation; nothing in it is run (pickled.py). The network's weights are found below any
    names (state_dict, model, ...) and after any prefix; without any, the state_dict is whatever has the most tensors.

    unsafe: where that cannot be, PyTorch unpickles the file, which may run any code it holds.
    averaged, entry: which weights are meant where there are several.
    """
    if not pathlib.Path(path).is_file():
        problem = "is not a file" if pathlib.Path(path).exists() else "does not exist"
        raise ToolError(f"{path}: {problem}; give a facenet-pytorch .pt checkpoint.")
    try:
        tree = pickled.load(path)
        if isinstance(tree, dict) and {"numbers", "model", "optimiser"} <= tree.keys():
            raise ToolError(f"{path}: is what train.py --resume goes on from; give best.pt of that folder.")
        return choose(tree, path, averaged, entry)
    except OSError as error:
        raise ToolError(f"{path}: cannot be read ({error.strerror or error}); check its permissions.") from error
    except pickled.Unreadable as error:
        raise ToolError(
            f"{path}: not a readable PyTorch checkpoint of tensors ({error}); if it should be one, download or save it again, else give {KINDS}."
        ) from error
    except pickled.Program as error:
        if unsafe and "TorchScript" in str(error):
            return choose(_run(path, torch.jit.load), path, averaged, entry)
        remedy = ", or add --unsafe if you trust its maker as you trust a program" if "TorchScript" in str(error) else ""
        raise ToolError(f"{path}: is {error}, whose weights lie inside a program; where it was made, save model.state_dict(){remedy}.") from error
    except (pickled.Code, _OnlyObjects) as error:
        if unsafe:
            return choose(_run(path, torch.load), path, averaged, entry)
        raise ToolError(
            f"{path}: holds Python objects ({error}) and not only tensors, and reading those may run any code; where "
            "it was made, save model.state_dict(), or add --unsafe if you trust its maker as you trust a program."
        ) from error


class _OnlyObjects(Exception):
    """Where weights should be there are Python objects; the text names them."""


def choose(tree: object, path: str, averaged: bool = False, entry: str | None = None) -> Chosen:
    """The network's weights in what a checkpoint holds, as tensors."""
    marked = any(name.endswith(inception_resnet_v2.MARK) for name in states.largest(tree))
    found = states.find(tree, _names(V2 if marked else V1))
    chosen, note = states.choose(found, path, averaged, entry)
    values = states.largest(tree) if chosen is None else chosen.values
    wanted = _names(V2 if marked else V1) if chosen is not None else set()
    state: StateDict = {}
    for name, value in values.items():
        if states.is_tensor(value):
            state[name] = _tensor(value, name, path)
        elif name in wanted:
            if isinstance(value, (pickled.Object, pickled.Name)):
                raise _OnlyObjects(shown(value.name))
            raise ToolError(f"{path}: {shown(name)} is {type(value).__name__}, not a tensor; save model.state_dict().")
    if not state:
        names = states.objects(tree)
        if names:
            raise _OnlyObjects(listed([shown(name) for name in names]))
        what = "an array" if states.is_tensor(tree) else type(tree).__name__
        raise ToolError(f"{path}: holds {what}, not a state_dict; save model.state_dict().")
    if chosen is not None and UNTRAINED_KEY not in state and isinstance(tree, dict) and any(UNTRAINED_KEY in str(key) for key in _all_names(tree)):
        state[UNTRAINED_KEY] = torch.tensor(0)
    return Chosen(state, _said(tree), note)


def _all_names(tree: dict) -> Iterator[str]:
    for key, value in tree.items():
        yield key
        if isinstance(value, dict):
            yield from value


def _said(tree: object) -> dict[str, str]:
    """What training wrote beside the weights. Both keys as text: another program's `threshold` may mean anything."""
    pair = {key: tree.get(key) for key in THRESHOLD} if isinstance(tree, dict) else {}
    return pair if pair and all(isinstance(value, str) for value in pair.values()) else {}


def _tensor(value: object, name: str, path: str) -> torch.Tensor:
    value = pickled.plain(value)
    if isinstance(value, torch.Tensor):
        return value.detach()
    if isinstance(value, pickled.OddTensor):
        raise ToolError(f"{path}: {shown(name)} is {value.kind}, not a plain tensor of numbers; {value.remedy}.")
    return torch.from_numpy(value.array())


def _run(path: str, load: Callable) -> object:
    """With --unsafe: whatever code the file holds is run."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about sources of classes that have changed
            loaded = load(path, map_location="cpu")
    except Exception as error:  # anything the file's code raises
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")[:200]
        raise ToolError(f"{path}: PyTorch cannot load it ({reason}); where it was made, save model.state_dict().") from error
    return loaded.state_dict() if isinstance(loaded, nn.Module) else _with_states(loaded)


def _with_states(tree: object, depth: int = 4) -> object:
    if isinstance(tree, nn.Module):
        return tree.state_dict()
    if isinstance(tree, np.ndarray):  # of the types that there are no tensors of, it stays an array, and is named
        with contextlib.suppress(TypeError):
            return torch.from_numpy(tree.astype(tree.dtype.newbyteorder("=")))
    return {key: _with_states(value, depth - 1) for key, value in tree.items()} if isinstance(tree, dict) and depth else tree


@functools.cache
def _names(architecture: str) -> set[str]:
    """Of the network's entries, without the counters."""
    if architecture == V2:
        return {name for name in empty_model(512, V2).state_dict() if not _IGNORED.match(name)}
    from facenet_tools import davidsandberg  # which imports this module, and has the names without building a network

    names: set[str] = set()
    for layer, _, norm in davidsandberg.layers():
        names |= {f"{layer}.weight"} | ({f"{norm}.{part}" for part in _NORM_PARTS} if norm else {f"{layer}.bias"})
    return names


def serialise(state: StateDict, legacy: bool = False) -> bytes:
    """A .pt file. The zip form is a pure function of the state; the old one stores memory addresses as keys."""
    buffer = io.BytesIO()
    torch.save(state, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def architecture_of(state: StateDict) -> str:
    """Which of the two networks a state_dict is meant for."""
    marked = any(key.endswith(inception_resnet_v2.MARK) for key in state)
    return V2 if marked else V1


def check(state: StateDict, path: str, averaged: bool = False, entry: str | None = None) -> tuple[StateDict, int]:
    """Returns the network's own entries and the embedding size; fails with a sentence and the first faults of each kind.

    logits.*, num_batches_tracked and a prefix before all names are handled; the marker of make_checkpoint.py is dropped.
    """
    real = {name: value for name, value in choose(state, path, averaged, entry).state.items() if name != UNTRAINED_KEY and not _IGNORED.match(name)}
    _check_kinds(real, path)
    linear = real.get("last_linear.weight")
    dim = linear.shape[0] if linear is not None and linear.dim() == 2 and linear.shape[0] else 512
    architecture = architecture_of(real)
    expected = _shapes(dim, architecture, width_of(real))
    _check_names(real, expected, path, architecture)
    _check_values(real, path)
    return real, dim


@functools.lru_cache(8)
def _shapes(dim: int, architecture: str, width: float) -> dict[str, tuple[int, ...]]:
    """Of every entry that counts."""
    return {k: tuple(v.shape) for k, v in empty_model(dim, architecture, width).state_dict().items() if not _IGNORED.match(k)}


def _check_kinds(real: StateDict, path: str) -> None:
    """Before a model is built for them: tensors that hold their numbers, and an embedding the engine can take."""
    for name, value in real.items():
        kind = "on the meta device" if value.is_meta else "sparse" if value.layout != torch.strided else None
        kind = "quantised" if value.is_quantized else "nested" if value.is_nested else kind
        if kind is not None:
            raise ToolError(f"{path}: {name} is {kind}, not a plain tensor of numbers; save the state_dict of a dense model.")
    linear = real.get("last_linear.weight")
    if linear is not None and linear.dim() == 2 and linear.shape[0] > LARGEST_DIM:
        raise ToolError(
            f"{path}: last_linear.weight has {linear.shape[0]} outputs, an embedding has at most {LARGEST_DIM} numbers; "
            "give a FaceNet checkpoint."
        )


def is_untrained(state: StateDict) -> bool:
    """True when make_checkpoint.py made it."""
    return any(key == UNTRAINED_KEY or key.endswith(f".{UNTRAINED_KEY}") for key in state)


def _check_names(real: StateDict, expected: dict[str, tuple[int, ...]], path: str, architecture: str) -> None:
    missing = [name for name in expected if name not in real]
    unexpected = [name for name in real if name not in expected]
    wrong = [
        f"{name} is {list(real[name].shape)}, not {list(shape)}"
        for name, shape in expected.items()
        if name in real and tuple(real[name].shape) != shape
    ]
    if not (missing or unexpected or wrong):
        return
    lists = (("missing", missing), ("unexpected", unexpected), ("of the wrong shape", wrong))
    details = "".join(f"\n  {what}: {name}" for what, names in lists for name in few(names))
    raise ToolError(
        f"{path}: not a state_dict of {_OWNERS[architecture]} ({len(missing)} keys are missing, "
        f"{len(unexpected)} unexpected, {len(wrong)} of the wrong shape); give one, or remove what is extra:{details}"
    )


def _check_values(real: StateDict, path: str) -> None:
    integers = [name for name, value in real.items() if not value.is_floating_point()]
    broken = [name for name, value in real.items() if name not in integers and not torch.isfinite(value).all()]
    negative = [name for name, value in real.items() if name.endswith("running_var") and (value < 0).any()]
    lists = (("not floating point", integers), ("with NaN or infinity", broken), ("with negative variance", negative))
    for what, names in lists:
        if names:
            raise ToolError(f"{path}: {what}: {listed(names)}; this checkpoint is damaged, save it again.")
