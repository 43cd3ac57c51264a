"""The storage types of weights, and what each costs: embeddings of pictures beside those of the unrounded weights."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from facenet_tools import activations, checkpoint, pictures
from facenet_tools.cli import ToolError, listed

DTYPES = ("f32", "f16", "i8")
COLLAPSE = 0.05  # two different pictures nearer than unrounded weights say by more than this: no such file is written


def quantise(weight: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """weight [O, ...] -> int8 of the same shape and float32 scales [O], symmetric: weight ~ int8 * scale.

    Error: at most half a scale for each weight. A channel of zeros gets scale 1, since scales must be positive.
    """
    rows = weight.reshape(weight.shape[0], -1)
    scale = (rows.abs().amax(dim=1) / 127).float()
    scale[scale < torch.finfo(torch.float32).tiny] = 1.0
    values = torch.round(rows / scale.double()[:, None]).clamp(-127, 127)
    return values.reshape(weight.shape).to(torch.int8).numpy(), scale.numpy()


def encode(folded: list[checkpoint.Folded], dtype: str, path: str) -> dict[str, np.ndarray]:
    """Tensors in network order; in each layer bias, scale (int8 only), weight, as the engine streams them."""
    tensors: dict[str, np.ndarray] = {}
    overflowing: list[str] = []
    for layer in folded:
        tensors[f"{layer.name}.bias"] = layer.bias.float().numpy()
        if dtype == "i8":
            values, tensors[f"{layer.name}.weight_scale"] = quantise(layer.weight)
            tensors[f"{layer.name}.weight"] = values
        else:
            with np.errstate(over="ignore"):  # refused below, with the layer's name
                # float64 -> float16 directly: a detour over float32 would round twice
                tensors[f"{layer.name}.weight"] = layer.weight.numpy().astype({"f16": "f2", "f32": "f4"}[dtype])
        if not all(np.isfinite(tensors[f"{layer.name}.{part}"]).all() for part in ("bias", "weight")):
            overflowing.append(layer.name)
    if overflowing:
        remedy = "use --dtype f32" if dtype == "f16" else "check the batch norm statistics there"
        raise ToolError(f"{path}: too large for {dtype} after folding: {listed(overflowing)}; {remedy}.")
    return tensors


def state_of(
    tensors: dict[str, np.ndarray], dim: int, architecture: str = checkpoint.V1, width: float = 1
) -> checkpoint.StateDict:
    """The way back from encode(), exact: float64 weights as the engine computes with them, batch norms that only add."""
    model = checkpoint.empty_model(dim, architecture, width)
    return checkpoint.unfold([decode(tensors, layer.name) for layer in checkpoint.layers(model)], model)


def decode(tensors: dict[str, np.ndarray], name: str) -> checkpoint.Folded:
    weight = torch.from_numpy(tensors[f"{name}.weight"].astype(np.float64))
    if f"{name}.weight_scale" in tensors:
        scale = torch.from_numpy(tensors[f"{name}.weight_scale"].astype(np.float64))
        weight = weight * scale.reshape(-1, *[1] * (weight.dim() - 1))
    return checkpoint.Folded(name, weight, torch.from_numpy(tensors[f"{name}.bias"].astype(np.float64)))


@dataclasses.dataclass(frozen=True)
class Cost:
    """What rounding the weights does to embeddings; distances are Euclidean, changes rounded minus unrounded."""

    dtype: str
    cosine: float  # the least, over all pictures
    genuine: float  # the change farthest from 0 between a picture and its mirror image
    impostor: float  # and between two different pictures
    nearer: float  # by how much two different pictures come nearer, at most

    def line(self) -> str:
        return f"{self.dtype:4}  cosine {self.cosine:.7f}  genuine {self.genuine:+.5f}  impostor {self.impostor:+.5f}"


def cost(exact: np.ndarray, rounded: np.ndarray, dtype: str) -> Cost:
    """Embeddings [2 N, dim] of N pictures, then of their mirror images, by unrounded and by rounded weights."""
    cosines = np.sum(exact * rounded, axis=1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(rounded, axis=1)
    change = _distances(rounded) - _distances(exact)
    count = len(exact) // 2
    one, other = np.triu_indices(2 * count, 1)
    genuine = other - one == count
    mirrored, different = change[one[genuine], other[genuine]], change[one[~genuine], other[~genuine]]
    return Cost(dtype, float(cosines.min()), _largest(mirrored), _largest(different), float(-different.min(initial=0)))


def measure(
    state: checkpoint.StateDict, dim: int, scaling: str, encoded: dict[str, dict[str, np.ndarray]], paths: list[str]
) -> list[Cost]:
    """The cost of each of the encodings, on the pictures given or, without, on made-up ones."""
    stack = mirrored(paths)
    architecture, width = checkpoint.architecture_of(state), checkpoint.width_of(state)
    model = checkpoint.model_of(state, dim)
    exact = activations.embed(model, stack, torch.float32, scaling).astype(np.float64)
    costs = []
    for dtype, tensors in encoded.items():
        model.load_state_dict(state_of(tensors, dim, architecture, width), strict=False)
        rounded = activations.embed(model, stack, torch.float32, scaling).astype(np.float64)
        costs.append(cost(exact, rounded, dtype))
    return costs


def refuse_collapse(found: Cost, path: str) -> None:
    if not found.nearer <= COLLAPSE:
        raise ToolError(
            f"{path}: as {found.dtype} these weights bring two different pictures nearer by {found.nearer:.3f}, at most "
            f"{COLLAPSE} is allowed: people would be confused; use {'f16 or ' if found.dtype == 'i8' else ''}f32."
        )


def mirrored(paths: list[str]) -> np.ndarray:
    """The pictures, made-up ones where none are given, and after them their mirror images."""
    random = np.random.default_rng(0)
    stack = [pictures.centre_square(path) for path in paths] or [pictures.structured(random) for _ in range(4)]
    return np.concatenate([stack, np.stack(stack)[:, :, ::-1]])


def _distances(embeddings: np.ndarray) -> np.ndarray:
    return np.linalg.norm(embeddings[:, None] - embeddings[None], axis=2)


def _largest(changes: np.ndarray) -> float:
    return float(changes[np.abs(changes).argmax()]) if len(changes) else 0.0
