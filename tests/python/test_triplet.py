"""triplet.hpp, and the same definitions in tools/facenet_tools/training/losses.py, beside PyTorch's autograd and
pytorch-metric-learning's miners and loss."""

from __future__ import annotations

import os
import subprocess
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch.nn import functional

from conftest import ROOT
from facenet_tools.training import losses

TOOL = ROOT / os.environ.get("FACENET_BUILD", "build/release") / "facenet_triplet_tool"
REDUCTIONS = ("sum", "mean", "mean_active")
MARGIN = 0.2
# Float embeddings of length 1: a distance is at most 4, and a chain of 512 / width FMAs rounds it by some eps of that;
# over sums of up to 8 rows of differences the gradient of a mean stays below 1e-6, which is what the header promises.
CLOSE = 1e-6


class Answer(NamedTuple):
    distances: np.ndarray
    triplets: np.ndarray
    loss: float
    active: int
    gradient: np.ndarray


def run(embeddings: np.ndarray, labels: np.ndarray, mining: str, reduction: str = "mean_active", margin: float = MARGIN) -> Answer:
    n, dim = embeddings.shape
    head = f"{n} {dim} {losses.MININGS.index(mining)} {REDUCTIONS.index(reduction)} {margin!r}\n"
    data = head.encode() + labels.astype(np.int32).tobytes() + embeddings.astype(np.float32).tobytes()
    done = subprocess.run([TOOL], input=data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    line, _, rest = done.stdout.partition(b"\n")
    count, loss, active = line.split()
    parts = np.split(np.frombuffer(rest, np.uint8), np.cumsum([4 * n * n, 12 * int(count)]))
    assert len(parts[2]) == 4 * n * dim
    return Answer(
        parts[0].view(np.float32).reshape(n, n), parts[1].view(np.int32).reshape(-1, 3), float(loss), int(active),
        parts[2].view(np.float32).reshape(n, dim),
    )  # fmt: skip


def batch(people: int, each: int, dim: int, seed: int, spread: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors around a point for each person, in any order; one person has a single face."""
    random = np.random.default_rng(seed)
    labels = random.permutation(np.append(np.repeat(np.arange(people), each), people))
    points = random.normal(size=(people + 1, dim))[labels] * spread + random.normal(size=(len(labels), dim))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32), labels


def on_a_grid(people: int, each: int, dim: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Multiples of 1/32, whose squared distances are exact in every order of summing: ties and limits count too."""
    random = np.random.default_rng(seed)
    labels = random.permutation(np.repeat(np.arange(people), each))
    return (random.integers(-4, 5, (len(labels), dim)) / 32).astype(np.float32), labels


needs_tool = pytest.mark.skipif(not TOOL.exists(), reason=f"{TOOL.name} is not built")
SHAPES = [(8, 4, 512), (16, 4, 128), (5, 3, 37), (30, 2, 64)]


def autograd(embeddings: np.ndarray, triplets: np.ndarray, reduction: str) -> tuple[float, np.ndarray]:
    """The definition in float64."""
    x = torch.from_numpy(embeddings.astype(np.float64)).requires_grad_()
    a, p, n = (x[torch.from_numpy(triplets[:, i].astype(np.int64))] for i in range(3))
    each = ((a - p).square().sum(1) - (a - n).square().sum(1) + MARGIN).clamp_min(0)
    loss = {"sum": each.sum(), "mean": each.mean(), "mean_active": each[each > 0].mean()}[reduction]
    loss.backward()
    return float(loss), x.grad.numpy()


@needs_tool
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("mining", losses.MININGS)
def test_loss_and_gradient_are_autograds(mining: str, shape: tuple[int, int, int]) -> None:
    embeddings, labels = batch(*shape, seed=sum(shape))
    for reduction in REDUCTIONS:
        ours = run(embeddings, labels, mining, reduction)
        assert len(ours.triplets) > 0 and ours.active > 0
        loss, gradient = autograd(embeddings, ours.triplets, reduction)
        terms = ours.active if reduction == "sum" else 1  # errors add up as the losses do
        assert abs(ours.loss - loss) <= CLOSE * terms
        assert np.abs(gradient).max() > 1e-4
        assert np.abs(ours.gradient - gradient).max() <= CLOSE * terms


def their_triplets(embeddings: np.ndarray, labels: np.ndarray, mining: str, margin: float = MARGIN) -> np.ndarray:
    from pytorch_metric_learning import distances, miners

    squared = distances.LpDistance(normalize_embeddings=False, p=2, power=2)
    kinds = {"batch_all": "all", "semi_hard": "semihard"}
    if mining == "batch_hard":
        miner = miners.BatchHardMiner(distance=squared)
    else:
        miner = miners.TripletMarginMiner(margin=margin, type_of_triplets=kinds[mining], distance=squared)
    found = miner(torch.from_numpy(embeddings.astype(np.float64)), torch.from_numpy(labels))
    return np.stack([indices.numpy() for indices in found], axis=1)


def rows(triplets: np.ndarray) -> set[tuple[int, ...]]:
    return set(map(tuple, triplets.tolist()))


@needs_tool
@pytest.mark.parametrize("mining", ["batch_all", "semi_hard"])
def test_mining_is_pytorch_metric_learnings(mining: str) -> None:
    for seed, shape in enumerate([(6, 4, 24), (12, 3, 20), (3, 9, 16)]):
        embeddings, labels = on_a_grid(*shape, seed)
        squared = np.square(embeddings[:, None].astype(np.float64) - embeddings).sum(2)
        gaps = {squared[a, n] - squared[a, p] for a, p, n in their_triplets(embeddings, labels, "batch_all", 1.0)}
        margin = min(gaps, key=lambda gap: abs(gap - MARGIN))  # so gaps of exactly 0 and of exactly the margin are there
        assert 0.0 in gaps and abs(margin - MARGIN) < 0.05
        ours, theirs = run(embeddings, labels, mining, margin=margin), their_triplets(embeddings, labels, mining, margin)
        x, y = torch.from_numpy(embeddings.astype(np.float64)), torch.from_numpy(labels)
        trainers = losses.mine(losses.squared_distances(x), y, mining, margin)
        assert rows(np.stack([indices.numpy() for indices in trainers], axis=1)) == rows(theirs)
        active = sum(squared[a, p] - squared[a, n] + margin > 0 for a, p, n in theirs)  # a loss of exactly 0 is not
        assert ours.active == round(losses.triplet(x, y, mining, margin).active * len(theirs)) == active < len(theirs)
        assert 0 < len(theirs) < len(labels) ** 3 and len(ours.triplets) == len(theirs)
        assert rows(ours.triplets) == rows(theirs)
        assert (np.diff(ours.triplets @ [len(labels) ** 2, len(labels), 1]) > 0).all(), "not in ascending order"


@needs_tool
def test_batch_hard_is_pytorch_metric_learnings() -> None:
    """Which of equals it takes is nobody's promise, so these have none; a person with one face is no anchor."""
    for seed, shape in enumerate(SHAPES):
        embeddings, labels = batch(*shape, seed=seed)
        ours, theirs = run(embeddings, labels, "batch_hard").triplets, their_triplets(embeddings, labels, "batch_hard")
        assert len(ours) == shape[0] * shape[1]
        assert rows(ours) == rows(theirs)


@needs_tool
def test_loss_is_pytorch_metric_learnings() -> None:
    from pytorch_metric_learning import distances, losses as theirs, reducers

    squared = distances.LpDistance(normalize_embeddings=False, p=2, power=2)
    embeddings, labels = batch(10, 4, 96, seed=2)
    for reduction, reducer in (("mean_active", reducers.AvgNonZeroReducer()), ("mean", reducers.MeanReducer())):
        ours = run(embeddings, labels, "batch_all", reduction)
        loss = theirs.TripletMarginLoss(MARGIN, distance=squared, reducer=reducer)
        indices = tuple(torch.from_numpy(ours.triplets[:, i].astype(np.int64)) for i in range(3))
        value = loss(torch.from_numpy(embeddings.astype(np.float64)), torch.from_numpy(labels), indices)
        assert abs(ours.loss - float(value)) <= CLOSE


@pytest.mark.parametrize("mining", losses.MININGS)
def test_the_trainer_mines_and_counts_alike(mining: str) -> None:
    """losses.py, which tools/train.py uses, against pytorch-metric-learning, and where it is built triplet.hpp."""
    embeddings, labels = batch(12, 4, 64, seed=7)
    x, y = torch.from_numpy(embeddings.astype(np.float64)).requires_grad_(), torch.from_numpy(labels)
    found = losses.mine(losses.squared_distances(x).detach(), y, mining, MARGIN)
    triplets = np.stack([indices.numpy() for indices in found], axis=1)
    assert rows(triplets) == rows(their_triplets(embeddings, labels, mining))
    result = losses.triplet(x, y, mining, MARGIN)
    result.backward.backward()
    loss, gradient = autograd(embeddings, triplets, "mean_active")
    assert abs(float(result.value) - loss) <= 1e-12
    assert np.abs(x.grad.numpy() - gradient).max() <= 1e-12
    if TOOL.exists():
        ours = run(embeddings, labels, mining)
        assert rows(ours.triplets) == rows(triplets)
        assert abs(ours.active / max(1, len(ours.triplets)) - result.active) <= 1e-12


@needs_tool
def test_what_cannot_be_is_an_error() -> None:
    embeddings, labels = batch(2, 2, 8, seed=1)
    embeddings[3, 3] = np.nan
    head = f"{len(labels)} 8 0 0 0.2\n".encode()
    data = head + labels.astype(np.int32).tobytes() + embeddings.tobytes()
    done = subprocess.run([TOOL], input=data, capture_output=True, check=False)
    assert done.returncode == 1 and b"not finite" in done.stderr


# ---- The heads of the public ports -----------------------------------------------------------------------------------


def test_arcface_is_pytorch_metric_learnings() -> None:
    from pytorch_metric_learning import losses as theirs

    torch.manual_seed(3)
    head = losses.Head("arcface", 32, 7, margin=0.3, scale=16, centre_weight=0).double()
    reference = theirs.ArcFaceLoss(7, 32, margin=np.rad2deg(0.3), scale=16).double()
    reference.W.data = head.weight.data.T.clone()
    embeddings = functional.normalize(torch.randn(20, 32, dtype=torch.float64))
    labels = torch.randint(0, 7, (20,))
    ours, _wrong = head(embeddings, labels, 20)
    assert abs(float(ours) - float(reference(embeddings, labels))) <= 1e-6  # theirs clamps cosines elsewhere
    # An embedding opposite to its person: the loss goes on falling towards the right side.
    opposite = (-functional.normalize(head.weight[:1].detach())).requires_grad_()
    head(opposite, torch.tensor([0]), 1)[0].backward()
    toward = functional.normalize(head.weight[:1].detach()) + 0.1 * torch.randn(1, 32, dtype=torch.float64)
    assert float((opposite.grad * toward).sum()) < 0


def test_softmax_with_centre_loss_is_its_definition() -> None:
    torch.manual_seed(4)
    head = losses.Head("softmax", 16, 5, margin=0, scale=8, centre_weight=0.1).double()
    embeddings = functional.normalize(torch.randn(12, 16, dtype=torch.float64))
    labels = torch.randint(0, 5, (12,))
    loss, wrong = head(embeddings, labels, 12)
    logits = 8 * (embeddings @ head.weight.T + head.bias)
    centre = torch.stack([(e - head.centres[y]).square().sum() for e, y in zip(embeddings, labels)]).mean()
    assert abs(float(loss) - float(functional.cross_entropy(logits, labels) + 0.05 * centre)) <= 1e-12
    assert int(wrong) == int((logits.argmax(1) != labels).sum())
    # Two processes with half of the batch each add up to one with all of it.
    halves = [head(embeddings[s], labels[s], 12)[0] for s in (slice(0, 5), slice(5, 12))]
    assert abs(float(sum(halves)) - float(loss)) <= 1e-12
