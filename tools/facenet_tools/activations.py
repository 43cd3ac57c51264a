"""What each operation of the network computes in float64: for golden files and for the goldens in a weight file.

The layout of the goldens is in weights/README.md; the engine's selftest computes the same places again.
"""

from __future__ import annotations

import numpy as np
import torch
from facenet_pytorch.models.inception_resnet_v1 import BasicConv2d, Block8, Block17, Block35, Mixed_6a, Mixed_7a
from torch import Tensor, nn

from facenet_tools import checkpoint, pictures
from facenet_tools.cli import ToolError

SAMPLES = 64
STRIDE = 2654435761  # a prime above any layer's size, so that the places differ; 2^32 times the golden ratio, so they spread
SHORTEST = 1e-12  # the length where normalising stops: torch.nn.functional.normalize
ROUNDING = 3e-6  # how far a number of a unit vector may be from float64's, docs/parity.md
SEED = 11
_BATCH = 4  # float64 activations of more pictures would need memory without gaining speed


def embed(model: nn.Module, images: np.ndarray, dtype: torch.dtype, scaling: str = "fixed") -> np.ndarray:
    """images uint8 [N, 160, 160, 3] -> embeddings [N, dim] of the model's type."""
    batches = [images[start : start + _BATCH] for start in range(0, len(images), _BATCH)]
    return torch.cat([model(pictures.to_tensor(batch, dtype, scaling)) for batch in batches]).numpy()


def record(model: nn.Module, image: np.ndarray, scaling: str = "fixed") -> dict[str, Tensor]:
    """Every operation's output for one picture [160, 160, 3], in order of execution, as NHWC; the model is float64."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str, value: Tensor) -> None:
        outputs[name] = value.permute(0, 2, 3, 1) if value.dim() == 4 else value.reshape(1, 1, 1, -1)

    def after(module: nn.Module, name: str) -> None:
        hooks.append(module.register_forward_hook(lambda _module, _inputs, output: keep(name, output)))

    def before(module: nn.Module, name: str) -> None:
        hooks.append(module.register_forward_pre_hook(lambda _module, inputs: keep(name, inputs[0])))

    hooks: list = []
    for name, module in model.named_modules():
        if isinstance(module, (Block35, Block17, Block8)):
            before(module.conv2d, f"{name}.cat")
            after(module, f"{name}.conv2d")
        elif isinstance(module, (Mixed_6a, Mixed_7a)):
            after(module, f"{name}.cat")
        elif isinstance(module, (BasicConv2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)):
            after(module, name)
    after(model.last_bn, "last_linear")
    keep("normalise", model(pictures.to_tensor(image[None], torch.float64, scaling)))
    for hook in hooks:
        hook.remove()
    return outputs


def places(count: int) -> np.ndarray:
    """Which values of a layer with `count` of them are stored: min(SAMPLES, count) flat NHWC indices, all different."""
    return np.arange(min(SAMPLES, count), dtype=np.uint64) * np.uint64(STRIDE) % np.uint64(count)


def goldens(state: checkpoint.StateDict, stored: checkpoint.StateDict, dim: int, scaling: str, path: str = "") -> dict[str, np.ndarray]:
    """selftest.*: one picture, and what becomes of it. The embedding is the checkpoint's own, before anything is folded
    or rounded. So are the layers of an f32 file (`stored` is `state`); those of f16 and i8 are computed with the
    weights as stored, since int8 alone moves values by up to half of a layer's typical size, and faults would hide."""
    model = checkpoint.model_of(stored, dim).double()
    picture = golden_picture()
    outputs = record(model, picture, scaling)
    embedding = outputs.pop("normalise")
    refuse_useless(outputs, path)
    refuse_constant(outputs | {"normalise": embedding}, record(model, golden_picture(SEED + 1), scaling), path)
    if stored is not state:
        model.load_state_dict(state, strict=False)
        embedding = model(pictures.to_tensor(picture[None], torch.float64, scaling))
    return packed(picture, outputs, embedding)


def refuse_useless(outputs: dict[str, Tensor], path: str) -> None:
    """A network whose layers overflow float32, or whose embedding is shorter than what can be normalised, for the golden picture."""
    largest = torch.finfo(torch.float32).max
    for name, value in outputs.items():
        if not bool((value.flatten(0, 2).norm(dim=0) <= largest).all()):  # also NaN
            raise ToolError(f"{path}: overflows: the output of {name} is too large for float32, for an ordinary picture; check the batch norms up to there.")
    if not float(outputs["last_linear"].norm()) > SHORTEST:
        raise ToolError(f"{path}: its embedding of a picture is zero, so that every face would be the same; check last_linear and last_bn.")


def refuse_constant(one: dict[str, Tensor], other: dict[str, Tensor], path: str) -> None:
    """A network that gives two different pictures one embedding. `one`, `other`: their outputs, the embedding last."""
    first, second = list(one.values())[-1].flatten(), list(other.values())[-1].flatten()
    apart = float((first - second).norm())
    if apart > 2 * ROUNDING * first.numel() ** 0.5 * float(first.norm()):  # half of it for each of the two
        return
    names = [name for name in one if not name.endswith(".cat") and name != "normalise"]
    differing = [i for i, name in enumerate(names) if not torch.equal(one[name], other[name])]
    place = names[min(differing[-1] + 1 if differing else 0, len(names) - 1)]
    raise ToolError(
        f"{path}: gives two different pictures embeddings that are {apart:.1g} apart, which is nearer than rounding can tell: every face "
        f"would be the same; check the weights from {place} on."
    )


def golden_picture(seed: int = SEED) -> np.ndarray:
    return pictures.structured(np.random.default_rng(seed))


def packed(picture: np.ndarray, outputs: dict[str, Tensor], embedding: Tensor) -> dict[str, np.ndarray]:
    """What the file stores of them: samples and norms of each layer's NHWC output."""
    tensors = {"selftest.input": picture.astype(np.float16)}  # which holds 0 ... 255 exactly
    for name, value in outputs.items():
        if name.endswith(".cat"):
            continue  # the same values as in its parts
        tensors[f"selftest.{name}.samples"] = value.flatten()[places(value.numel()).astype(np.int64)].float().numpy()
        tensors[f"selftest.{name}.norms"] = value.flatten(0, 2).norm(dim=0).float().numpy()
    tensors["selftest.embedding"] = embedding.flatten().float().numpy()
    return tensors
