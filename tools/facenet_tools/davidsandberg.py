"""The names davidsandberg's code and DeepFace give to the layers that facenet-pytorch calls conv2d_1a ... last_linear.

Sources of names and shapes: src/models/inception_resnet_v1.py in facenet 1.0.5 (scopes of TensorFlow), and
deepface/models/facial_recognition/tf/Facenet.py in deepface 0.0.103 (layers of Keras, the scopes joined by "_").
"""

from __future__ import annotations

import re
from typing import Iterator

import numpy as np
import torch

from facenet_tools.checkpoint import StateDict
from facenet_tools.cli import ToolError, listed

_STEM = ("1a_3x3", "2a_3x3", "2b_3x3", "3b_1x1", "4a_3x3", "4b_3x3")

# The convolutions of each branch, in order; what follows "Conv2d_". Pooling branches have none.
_BRANCHES = {
    "block35": (("1x1",), ("0a_1x1", "0b_3x3"), ("0a_1x1", "0b_3x3", "0c_3x3")),
    "mixed_6a": (("1a_3x3",), ("0a_1x1", "0b_3x3", "1a_3x3")),
    "block17": (("1x1",), ("0a_1x1", "0b_1x7", "0c_7x1")),
    "mixed_7a": (("0a_1x1", "1a_3x3"), ("0a_1x1", "1a_3x3"), ("0a_1x1", "0b_3x3", "1a_3x3")),
    "block8": (("1x1",), ("0a_1x1", "0b_1x3", "0c_3x1")),
}

# facenet-pytorch's prefix, the scope, the kind of block.
_BLOCKS = (
    *((f"repeat_1.{i}", f"Repeat/block35_{i + 1}", "block35") for i in range(5)),
    ("mixed_6a", "Mixed_6a", "mixed_6a"),
    *((f"repeat_2.{i}", f"Repeat_1/block17_{i + 1}", "block17") for i in range(10)),
    ("mixed_7a", "Mixed_7a", "mixed_7a"),
    *((f"repeat_3.{i}", f"Repeat_2/block8_{i + 1}", "block8") for i in range(5)),
    ("block8", "Block8", "block8"),
)

_NORM = {"bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}

# Under the network's scope, but only training reads them.
_SLOTS = re.compile(r".*/(Adam|Adagrad|Adadelta|RMSProp|Momentum)(_\d+)?$|.*/ExponentialMovingAverage$")
_SCOPE = "InceptionResnetV1/"

# From its second block on, DeepFace numbers the second branch like the block: Block17_9_Branch_9_Conv2d_0a_1x1.
_KERAS_BRANCH = re.compile(r"^(Block(?:17|8)_\d+_Branch)_[1-9]\d*_")


def layers() -> Iterator[tuple[str, str, str]]:
    """facenet-pytorch's layer, the scope below InceptionResnetV1, and the prefix of its batch norm ("" without one)."""
    for name in _STEM:
        layer = f"conv2d_{name[:2]}"
        yield f"{layer}.conv", f"Conv2d_{name}", f"{layer}.bn"
    for prefix, scope, kind in _BLOCKS:
        for b, branch in enumerate(_BRANCHES[kind]):
            for i, convolution in enumerate(branch):
                layer = f"{prefix}.branch{b}" + (f".{i}" if len(branch) > 1 else "")
                yield f"{layer}.conv", f"{scope}/Branch_{b}/Conv2d_{convolution}", f"{layer}.bn"
        if kind.startswith("block"):
            yield f"{prefix}.conv2d", f"{scope}/Conv2d_1x1", ""
    yield "last_linear", "Bottleneck", "last_bn"


def keras_layer(scope: str) -> str:
    """Repeat_1/block17_2/Branch_1/Conv2d_0a_1x1 -> Block17_2_Branch_1_Conv2d_0a_1x1; the lone Block8 is Block8_6."""
    name = re.sub(r"^Repeat(_\d)?/block", "Block", scope)
    return re.sub("^Block8/", "Block8_6/", name).replace("/", "_")


def from_tensorflow(variables: dict[str, np.ndarray], path: str, strict: bool) -> StateDict:
    """Variables by name, as a checkpoint or a frozen graph has them. strict: one of the network's that is not known
    is an error (a graph holds other constants too)."""
    if not any(name.startswith(_SCOPE) for name in variables):
        others = sorted({name.split("/")[0] for name in variables if "/" in name})
        raise ToolError(
            f"{path}: nothing in it begins with {_SCOPE}, its scopes are {', '.join(others[:8]) or 'none'}; "
            "only davidsandberg's Inception-ResNet-v1 can be converted."
        )
    # Until May 2017 the bottleneck stood beside the network's scope, as "Bottleneck/weights".
    ours = {name: value for name, value in variables.items() if name.startswith((_SCOPE, "Bottleneck/"))}
    wanted = {name.removeprefix(_SCOPE): value for name, value in ours.items()}
    state = _state(wanted, {scope: scope for _, scope, _ in layers()}, "weights", "biases", "BatchNorm/", path)
    extra = [_SCOPE + name for name in wanted if not _SLOTS.match(name)]
    if strict and extra:
        raise ToolError(f"{path}: variables that Inception-ResNet-v1 does not have: {listed(extra)}.")
    return state


def from_keras(variables: dict[str, np.ndarray], path: str) -> StateDict:
    """Variables as "layer/variable"."""
    wanted: dict[str, np.ndarray] = {}
    for name, value in variables.items():
        known = _KERAS_BRANCH.sub(r"\1_1_", name).replace("_BatchNorm/", "/BatchNorm/")
        if known in wanted:
            raise ToolError(f"{path}: {name} is there twice; save the weights again.")
        wanted[known] = value
    names = {scope: keras_layer(scope) for _, scope, _ in layers()}
    state = _state(wanted, names, "kernel", "bias", "BatchNorm/", path)
    if wanted:
        raise ToolError(f"{path}: variables that DeepFace's FaceNet does not have: {listed(list(wanted))}.")
    return state


def _state(
    wanted: dict[str, np.ndarray], names: dict[str, str], weight: str, bias: str, norm: str, path: str
) -> StateDict:
    """Takes the network's variables out of `wanted`; what stays is not the network's."""
    state: StateDict = {}
    missing: list[str] = []

    def take(key: str, name: str) -> None:
        if name in wanted:
            state[key] = torch.from_numpy(np.array(wanted.pop(name)))
        else:
            missing.append(name)

    for layer, scope, batch_norm in layers():
        at = names[scope]
        take(f"{layer}.weight", f"{at}/{weight}")
        if not batch_norm:
            take(f"{layer}.bias", f"{at}/{bias}")
            continue
        for part, theirs in _NORM.items():
            take(f"{batch_norm}.{part}", f"{at}/{norm}{theirs}")
        # Neither code trains gamma: slim's default and Keras' scale=False leave it out.
        gamma = wanted.pop(f"{at}/{norm}gamma", None)
        beta = state.get(f"{batch_norm}.bias")
        if gamma is not None:
            state[f"{batch_norm}.weight"] = torch.from_numpy(np.array(gamma))
        elif beta is not None:
            state[f"{batch_norm}.weight"] = torch.ones_like(beta)
    if missing:
        raise ToolError(f"{path}: Inception-ResNet-v1 needs variables that are not there: {listed(missing)}.")
    for key, value in state.items():
        if value.dim() == 4:
            state[key] = value.permute(3, 2, 0, 1)  # H W I O -> O I H W
        elif value.dim() == 2:
            state[key] = value.T  # in, out -> out, in
    return state
