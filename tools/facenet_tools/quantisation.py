"""Quantising a network for integer arithmetic: ranges of its tensors on faces, the layers of a file of format 2, what they cost.

Weights have a scale for each output, activations one for a tensor. Its range is the largest value seen and HEADROOM: percentiles
clip what identities live on. Each layer's bias gives back the mean of the error that rounding makes. Change of distances, RMS / worst,
and worst cosine, on faces that calibration (21 faces and their mirror images) had not seen:

                                            dlib's, trained             Inception-ResNet-v1 of half the width, made
    the largest value                       0.0041  0.0159  0.99944     0.0042  0.0104  0.99919
    with headroom                           0.0035  0.0098  0.99983     0.0041  0.0091  0.99920
    with headroom and mended biases         0.0032  0.0095  0.99987     0.0032  0.0081  0.99940
    and weights rounded so that errors make up for each other: weight_rounding.py has the figures
    channels equalised by square roots      0.0074  0.0232  0.99870     0.0031  0.0077  0.99918    not kept: it clips strangers
    a scale a channel                       0.0254  0.0596  0.99480     0.0036  0.0090  0.99884    not kept
"""

from __future__ import annotations

import dataclasses
from typing import Collection

import numpy as np
import torch
from torch import Tensor

from facenet_tools import checkpoint, integer_arithmetic, networks, pictures, weight_rounding
from facenet_tools.cli import ToolError, listed, shown
from facenet_tools.integer_arithmetic import IntegerLayer
from facenet_tools.networks import Layers, Network

PIXELS = integer_arithmetic.PIXELS
LEAST_STEP = 2.0**-80  # of a sum: a channel whose weights make less is 0, so that scales stay above integer_arithmetic.LEAST
MOST = {"cosine": 0.998, "rms": 0.006, "worst": 0.03}  # what --float-layers auto goes for; a trained model keeps 0.999
HEADROOM = 1.05  # of ranges: strangers' values go beyond those seen. 1.0 is worse with dlib's network, 1.2 with all others
NEARER = FARTHER = 0.05  # different faces nearer, or a person's faces farther apart, by more: no such file is written
MENDED = 32  # faces, and their mirror images, for the biases: all are in memory at once
REPORTED, NAMED = 4, 5  # faces for the report of single layers, a run of the network for each of up to 244; how many are named
FEWEST = 4  # faces that say something about distances
AUTO = "auto"


@dataclasses.dataclass(frozen=True)
class Faces:
    """uint8 crops [N, size, size, 3] and who is on each. Mirror images are no faces of their own."""

    crops: np.ndarray
    people: np.ndarray  # [N], a number each

    @property
    def mirrored(self) -> np.ndarray:
        return self.crops[:, :, ::-1]


# ---- Ranges ----------------------------------------------------------------------------------------------------------


def groups(network: Network) -> dict[str, str]:
    """By tensor, the one that stands for all with the same scale: the parts of a concatenation, and a pool's input and output."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.get(name, name) != name:
            name = parent[name]
        return name

    for op in network.ops:
        if op.kind in ("concat", "max_pool"):
            for name in op.inputs:
                parent[root(name)] = root(op.name)
    return {op.name: root(op.name) for op in network.ops}


def ranges(network: Network, layers: Layers, crops: np.ndarray, scaling: str) -> dict[str, float]:
    """The largest value of each tensor over the crops and their mirror images, in float32."""
    found: dict[str, float] = {}
    plain = networks.in_float(layers)

    def each(op: networks.Op, inputs: list[Tensor], trunk: Tensor | None) -> Tensor:
        out = plain(op, inputs, trunk)
        found[op.name] = max(found.get(op.name, 0.0), float(out.max()))
        return out

    for stack in (crops, crops[:, :, ::-1]):
        for at in range(0, len(stack), 4):
            x = pictures.to_tensor(np.ascontiguousarray(stack[at : at + 4]), torch.float32, scaling)
            networks.run(network.ops, {networks.PICTURE: x}, each)
    return found


# ---- Layers ----------------------------------------------------------------------------------------------------------


def must_stay_float(network: Network, scaling: str) -> list[str]:
    """Convolutions whose input is no byte: a picture whose scale is its own, a trunk without ReLU."""
    relu = {op.name: op.relu for op in network.ops}
    return [
        op.name
        for op in network.convolutions()
        if (op.inputs[0] == networks.PICTURE and scaling not in PIXELS) or not relu.get(op.inputs[0], True)
    ]


def quantise(
    network: Network, layers: Layers, seen: dict[str, float], scaling: str, float_layers: Collection[str], path: str
) -> dict[str, IntegerLayer]:
    """Every convolution but float_layers, with input scales from the ranges."""
    same, largest = groups(network), {}
    for name, value in seen.items():
        largest[same[name]] = max(largest.get(same[name], 0.0), value)
    made: dict[str, IntegerLayer] = {}
    for op in network.convolutions():
        if op.name in float_layers:
            continue
        if op.inputs[0] == networks.PICTURE:
            step = torch.tensor([1 / PIXELS[scaling][0]])
        else:
            step = torch.tensor([HEADROOM * (largest[same[op.inputs[0]]] or 1.0) / 255])  # 1: nothing was ever seen there
        means = PIXELS[scaling][1] if op.inputs[0] == networks.PICTURE else None
        made[op.name] = _layer(op, layers[op.name], step, means)
    _check(made, path)
    return made


def _layer(op: networks.Op, layer: checkpoint.Folded, step: Tensor, means: tuple[float, ...] | None) -> IntegerLayer:
    weight = layer.weight.clone()
    rows = weight.abs().flatten(1).amax(1) / 127
    weight[rows * float(step) * min(op.factor, 1) < LEAST_STEP] = 0
    scale = weight_rounding.scales(weight)
    bias = torch.where(layer.bias.abs() < LEAST_STEP, 0.0, layer.bias).float()
    return IntegerLayer(weight_rounding.nearest(weight, scale), scale, bias, step, means)


def mended(model: Model, integers: dict[str, IntegerLayer], faces: Faces, path: str) -> dict[str, IntegerLayer]:
    """The same with weights whose errors make up for each other (weight_rounding.py) and biases that give back the mean error of each
    channel, layer after layer: after layers that are mended already."""
    crops = with_mirrors(Faces(faces.crops[:MENDED], faces.people[:MENDED]))
    made = dict(integers)
    plain = integer_arithmetic.in_integers(model.layers, {}, model.scaling)
    rounding_too = integer_arithmetic.in_integers(model.layers, made, model.scaling)

    def each(op: networks.Op, inputs: list[Tensor], trunk: Tensor | None) -> Tensor:
        """Tensors hold what floats make of the crops, and after it what integers do."""
        exact, rounded = ([x[half] for x in inputs] for half in (slice(None, len(crops)), slice(len(crops), None)))
        if op.name not in integers:
            trunks = (None, None) if trunk is None else trunk.split(len(crops))
            return torch.cat([plain(op, exact, trunks[0]), rounding_too(op, rounded, trunks[1])])
        layer, pixels = made[op.name], op.inputs[0] == networks.PICTURE
        q = rounded[0] if pixels else integer_arithmetic.to_bytes(rounded[0], layer.input_scale)
        weight = weight_rounding.rounded(model.layers[op.name].weight, layer.weight_scale, q, op)
        made[op.name] = dataclasses.replace(layer, weight=weight)
        bare = dataclasses.replace(op, relu=False, skip=None)
        want, have = plain(bare, exact, None), rounding_too(bare, rounded, None)
        want = want * op.factor  # which only a residual's output has got
        error = (have - want).mean((0, 2, 3), keepdim=True)
        bias = made[op.name].bias - error.flatten() / op.factor
        made[op.name] = dataclasses.replace(made[op.name], bias=torch.where(bias.abs() < LEAST_STEP, 0.0, bias))
        return networks.finish(op, torch.cat([want, have - error]), trunk)

    start = integer_arithmetic.start(crops)
    networks.run(model.network.ops, {name: torch.cat([x, x]) for name, x in start.items()}, each)
    _check(made, path)
    return made


def _check(made: dict[str, IntegerLayer], path: str) -> None:
    """What the kernels ask for."""
    broken = [
        name
        for name, layer in made.items()
        for numbers in (layer.scale(1), layer.bias, layer.input_scale)
        if not bool(torch.isfinite(numbers).all()) or bool(((numbers != 0) & (numbers.abs() < integer_arithmetic.LEAST)).any())
    ]
    if broken:
        raise ToolError(f"{path}: scales or biases are too large or too small for integers: {listed(broken)}; check the batch norms there.")
    deep = [name for name, layer in made.items() if layer.weight[0].numel() > integer_arithmetic.MAX_DEPTH]
    if deep:
        raise ToolError(f"{path}: {listed(deep)}: sums of more than {integer_arithmetic.MAX_DEPTH} products may leave 32 bits; use --float-layers.")


def restored(layers: Layers, integers: dict[str, IntegerLayer]) -> list[checkpoint.Folded]:
    """The float network of the weights as a file holds them, for golden activations."""
    made = []
    for name, layer in layers.items():
        weight, bias = layer.weight.float().double(), layer.bias.float().double()
        if name in integers:
            weight = integers[name].weight.double() * integers[name].weight_scale.double().reshape(-1, 1, 1, 1)
            bias = integers[name].bias.double()
        made.append(checkpoint.Folded(name, weight, bias))
    return made


# ---- What it costs ---------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Change:
    """What integers do to embeddings and to the distances of all pairs of faces, and of each face and its mirror image."""

    cosine: float  # the least
    rms: float
    worst: float  # in magnitude
    nearer: float  # different people, at most
    farther: float  # one person's faces, at most
    verdicts: float  # share of pairs on another side of the threshold

    def line(self) -> str:
        return (
            f"cosine {self.cosine:.6f}  distances {self.rms:.5f} RMS, {self.worst:.5f} at most  "
            f"different faces {self.nearer:.5f} nearer, a person's {self.farther:.5f} farther"
        )


def change(exact: np.ndarray, rounded: np.ndarray, people: np.ndarray, threshold: float = 0.0) -> Change:
    """Embeddings [2 N, dim] of N faces and, after them, of their mirror images; people [N]. The mirror images count in the cosine
    and in their pairs with their faces alone."""
    exact, rounded = exact.astype(np.float64), rounded.astype(np.float64)
    cosines = np.sum(exact * rounded, 1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(rounded, axis=1)
    count = len(people)
    one, other = np.triu_indices(count, 1)
    same = np.concatenate([people[one] == people[other], np.ones(count, bool)])
    one, other = np.concatenate([one, np.arange(count)]), np.concatenate([other, count + np.arange(count)])
    before, after = (np.linalg.norm(e[one] - e[other], axis=1) for e in (exact, rounded))
    moved = after - before
    return Change(
        float(cosines.min()),
        float(np.sqrt(np.mean(moved**2))),
        float(np.abs(moved).max()),
        float(np.max(-moved[~same], initial=0.0)),
        float(np.max(moved[same], initial=0.0)),
        float(np.mean((before <= threshold) != (after <= threshold))),
    )


@dataclasses.dataclass(frozen=True)
class Model:
    """A folded network and what to do around it."""

    architecture: str
    layers: Layers
    scaling: str
    normalise: str

    @property
    def network(self) -> Network:
        return networks.of(self.architecture)

    def embed(self, crops: np.ndarray, integers: dict[str, IntegerLayer]) -> np.ndarray:
        """In float32 without integer layers."""
        return integer_arithmetic.embed(self.network, self.layers, integers, crops, self.scaling, self.normalise)


def with_mirrors(faces: Faces) -> np.ndarray:
    return np.concatenate([faces.crops, faces.mirrored])


def each_alone(model: Model, integers: dict[str, IntegerLayer], faces: Faces) -> dict[str, Change]:
    """The change that each integer layer makes alone, over the first REPORTED faces."""
    crops = with_mirrors(Faces(faces.crops[:REPORTED], faces.people[:REPORTED]))
    ops, people = model.network.ops, faces.people[:REPORTED]
    exact = networks.run(ops, integer_arithmetic.start(crops), integer_arithmetic.in_integers(model.layers, {}, model.scaling), lambda name: True)
    last, found = ops[-1].name, {}

    def finished(values: Tensor) -> np.ndarray:
        return integer_arithmetic.normalised(values.numpy()) if model.normalise == "l2" else values.numpy()

    for at, op in enumerate(ops):
        if op.name in integers:
            alone = integer_arithmetic.in_integers(model.layers, {op.name: integers[op.name]}, model.scaling)
            found[op.name] = change(finished(exact[last]), finished(networks.run(ops[at:], exact, alone)[last]), people)
    return found


def allowed(trained: bool) -> dict[str, float]:
    return {**MOST, "cosine": 0.999} if trained else MOST


def holds(found: Change, trained: bool) -> bool:
    most = allowed(trained)
    return found.cosine >= most["cosine"] and found.rms <= most["rms"] and found.worst <= most["worst"] and not _collapse(found)


def _collapse(found: Change) -> bool:
    return not (found.nearer <= NEARER and found.farther <= FARTHER)


def refuse_collapse(found: Change, path: str) -> None:
    if _collapse(found):
        raise ToolError(
            f"{path}: integers bring two different faces nearer by {found.nearer:.3f}, or one person's faces farther apart by "
            f"{found.farther:.3f}; at most {NEARER} is allowed, or people would be confused. Try --float-layers auto, or leave out --calibrate."
        )


def choose_float(model: Model, seen: dict[str, float], faces: Faces, alone: dict[str, Change], trained: bool, path: str) -> list[str]:
    """Those that cost most alone, twice as many at each try, until the bounds hold on the faces."""
    exact, forced = model.embed(with_mirrors(faces), {}), must_stay_float(model.network, model.scaling)
    order, count = sorted(alone, key=lambda name: -alone[name].rms), 0
    while count < len(order):
        integers = integers_of(model, seen, faces, [*forced, *order[:count]], path)
        if holds(change(exact, model.embed(with_mirrors(faces), integers), faces.people), trained):
            break
        count = max(1, 2 * count)
    return order[:count]


def integers_of(model: Model, seen: dict[str, float], faces: Faces, kept: Collection[str], path: str) -> dict[str, IntegerLayer]:
    return mended(model, quantise(model.network, model.layers, seen, model.scaling, kept, path), faces, path)


def _kept(model: Model, wanted: str | None, path: str) -> list[str]:
    """What --float-layers names, and what must stay float; in network order."""
    names = [op.name for op in model.network.convolutions()]
    named = [] if wanted in (None, AUTO) else [name.strip() for name in wanted.split(",")]
    unknown = [name for name in named if name not in names]
    if unknown:
        raise ToolError(f"{path}: --float-layers: no convolution of {model.architecture} is named {listed([shown(name) for name in unknown])}; {names[0]} is one.")
    forced = must_stay_float(model.network, model.scaling)
    return [name for name in names if name in named or name in forced]


@dataclasses.dataclass(frozen=True)
class Quantised:
    """A network in integers; `lines` say what that costs."""

    integers: dict[str, IntegerLayer]
    float_layers: list[str]
    total: Change  # on the faces of calibration
    lines: list[str]

    def metadata(self, digest: str) -> dict[str, str]:
        kept = {"float_layers": ",".join(self.float_layers)} if self.float_layers else {}
        return {"format": "2", "arithmetic": "int8", "calibration_sha256": digest, **kept}


def make(model: Model, faces: Faces, wanted: str | None, trained: bool, path: str, every_layer: bool = False) -> Quantised:
    """wanted: names of layers to keep in float, comma-separated, or "auto"."""
    seen, kept = ranges(model.network, model.layers, faces.crops, model.scaling), _kept(model, wanted, path)
    integers = integers_of(model, seen, faces, kept, path)
    alone = each_alone(model, integers, faces)
    if wanted == AUTO:
        chosen = choose_float(model, seen, faces, alone, trained, path)
        kept = [op.name for op in model.network.convolutions() if op.name in chosen or op.name in kept]
        integers = integers_of(model, seen, faces, kept, path)
    total = change(model.embed(with_mirrors(faces), {}), model.embed(with_mirrors(faces), integers), faces.people)
    worst = sorted(alone, key=lambda name: -alone[name].rms)
    lines = [f"{name:24} {alone[name].line()}" for name in (alone if every_layer else worst[:NAMED])]
    lines += [f"the worst layer is {worst[0]}"] if worst else []
    lines += [f"kept in float: {', '.join(kept)}"] if kept else []
    lines.append(f"{len(faces.people)} faces of calibration  {total.line()}")
    if (held := _held_out(model, faces, kept, path)) is not None:
        lines.append(f"faces held out, calibrated on the others  {held.line()}")
    return Quantised(integers, kept, total, lines)


def _held_out(model: Model, faces: Faces, kept: list[str], path: str) -> Change | None:
    """What it costs on every second person, with ranges and biases from the others: the file itself is made from all."""
    odd = np.unique(faces.people, return_inverse=True)[1] % 2 == 1
    if min(odd.sum(), (~odd).sum()) < FEWEST:
        return None
    known, strangers = (Faces(faces.crops[part], faces.people[part]) for part in (~odd, odd))
    integers = integers_of(model, ranges(model.network, model.layers, known.crops, model.scaling), known, kept, path)
    return change(model.embed(with_mirrors(strangers), {}), model.embed(with_mirrors(strangers), integers), strangers.people)
