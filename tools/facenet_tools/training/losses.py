"""Losses over a batch of embeddings, and what mining chooses. The same definitions as include/facenet/triplet.hpp.

In several processes each holds its rows of the global batch. Sums of the gradients of what the functions return are the
gradient of the loss over the whole batch.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

MININGS = ("batch_all", "batch_hard", "semi_hard")
LOSSES = ("triplet", "softmax", "arcface")


def squared_distances(embeddings: Tensor) -> Tensor:
    """[N, N]. From products, which is what makes large batches cheap; unit vectors lose 3e-7 by it."""
    products = embeddings @ embeddings.T
    lengths = products.diagonal()
    return (lengths[:, None] - 2 * products + lengths[None]).clamp_min(0)


def mine(distances: Tensor, labels: Tensor, mining: str, margin: float) -> tuple[Tensor, Tensor, Tensor]:
    """Anchors, positives and negatives: row numbers, in ascending order. distances: squared, without gradient."""
    same = labels[:, None] == labels[None]
    positive = same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    if mining == "batch_hard":
        usable = torch.nonzero(positive.any(1) & ~same.all(1)).flatten()
        far = torch.where(positive, distances, torch.full_like(distances, -1)).argmax(1)
        near = torch.where(same, torch.full_like(distances, math.inf), distances).argmin(1)
        return usable, far[usable], near[usable]
    anchors, positives = torch.nonzero(positive, as_tuple=True)
    gap = distances[anchors] - distances[anchors, positives][:, None]
    wanted = ~same[anchors] & (gap <= margin)
    if mining == "semi_hard":
        wanted &= gap > 0
    pairs, negatives = torch.nonzero(wanted, as_tuple=True)
    return anchors[pairs], positives[pairs], negatives


@dataclasses.dataclass(frozen=True)
class BatchLoss:
    """`backward`: whose gradient is this process's share; `value`: the loss of the whole batch, as a number's tensor."""

    backward: Tensor
    value: Tensor
    active: float  # share of the mined triplets that have a loss; of a head: of the faces that are not yet classified right


def triplet(gathered: Tensor, labels: Tensor, mining: str, margin: float) -> BatchLoss:
    """Mean of the triplets above 0. gathered: all rows, of which only this process's carry a gradient."""
    distances = squared_distances(gathered)
    a, p, n = mine(distances.detach(), labels, mining, margin)
    losses = (distances[a, p] - distances[a, n] + margin).clamp_min(0)
    active = torch.count_nonzero(losses.detach())
    loss = losses.sum() / active.clamp_min(1)
    return BatchLoss(loss, loss.detach(), float(active) / max(1, len(a)))


class Head(nn.Module):
    """Classifies the training set's people from embeddings: for `softmax` and `arcface`.

    softmax: a linear layer on the embedding times `scale` (the embedding is a unit vector, whose logits are too flat),
    and the centre loss of Wen et al., "A Discriminative Feature Learning Approach", 2016, with learned centres.
    arcface: Deng et al., "ArcFace", 2019: s cos(angle + margin) for the right person, s cos(angle) for the others.
    """

    def __init__(self, kind: str, dim: int, people: int, margin: float, scale: float, centre_weight: float) -> None:
        super().__init__()
        self.kind, self.margin, self.scale, self.centre_weight = kind, margin, scale, centre_weight
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(people, dim)))
        if kind == "softmax":
            self.bias = nn.Parameter(torch.zeros(people))
            self.centres = nn.Parameter(functional.normalize(torch.randn(people, dim)))

    def logits(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        if self.kind == "softmax":
            return self.scale * functional.linear(embeddings, self.weight, self.bias)
        cosines = functional.linear(embeddings, functional.normalize(self.weight)).clamp(-1 + 1e-6, 1 - 1e-6)
        own = cosines.gather(1, labels[:, None])
        moved = own * math.cos(self.margin) - (1 - own**2).sqrt() * math.sin(self.margin)
        # Beyond angle + margin = pi the cosine would rise again: there a straight line goes on falling.
        moved = torch.where(own > math.cos(math.pi - self.margin), moved, own - self.margin * math.sin(self.margin))
        return self.scale * cosines.scatter(1, labels[:, None], moved)

    def forward(self, embeddings: Tensor, labels: Tensor, whole: int) -> tuple[Tensor, Tensor]:
        """Of this process's rows: the sum of losses over the size of the whole batch, and how many are classified wrong."""
        logits = self.logits(embeddings, labels)
        loss = functional.cross_entropy(logits, labels, reduction="sum") / whole
        if self.kind == "softmax":
            away = (embeddings - self.centres[labels]).square().sum()
            loss = loss + self.centre_weight / 2 * away / whole
        return loss, (logits.detach().argmax(1) != labels).sum()
