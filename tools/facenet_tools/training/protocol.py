"""Verification by pairs: the protocol of LFW, as `facenet evaluate` follows it.

Pairs are in ten folds, half of each genuine. A fold's accuracy uses the threshold that is best on the other nine.
"""

from __future__ import annotations

import dataclasses

import numpy as np

FOLDS = 10


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Rows of two pictures each, whether they show one person, and in which fold they are."""

    first: np.ndarray
    second: np.ndarray
    same: np.ndarray
    fold: np.ndarray


@dataclasses.dataclass(frozen=True)
class Score:
    accuracy: float  # mean over the folds
    deviation: float  # between the folds
    auc: float
    eer: float
    tar: float  # true accepts where at most one impostor in a hundred is accepted
    threshold: float  # mean of the folds', Euclidean
    fpr: np.ndarray
    tpr: np.ndarray

    def line(self) -> str:
        return (
            f"accuracy {self.accuracy:.4f}+-{self.deviation:.4f}  AUC {self.auc:.4f}  EER {self.eer:.4f}  "
            f"TAR@FAR=0.01 {self.tar:.4f}  threshold {self.threshold:.3f}"
        )


def make_pairs(labels: np.ndarray, each: int, seed: int) -> Pairs:
    """In each fold up to `each` genuine and as many impostor pairs, none twice; people are not shared between folds where
    there are enough (LFW's rule), since a threshold learned on a person's pictures would be tested on them."""
    random = np.random.default_rng([seed, len(labels)])
    people = random.permutation(np.unique(labels))
    groups = np.array_split(people, FOLDS) if len(people) >= 2 * FOLDS else [people] * FOLDS
    taken: set[tuple[int, int]] = set()
    first, second, same, fold = [], [], [], []
    for number, group in enumerate(groups):
        own = np.flatnonzero(np.isin(labels, group))
        a, b = (own[side] for side in np.triu_indices(len(own), 1))
        genuine = labels[a] == labels[b]
        kinds = []
        for wanted in (True, False):
            candidates = random.permutation(np.flatnonzero(genuine == wanted))
            kinds.append([(int(a[i]), int(b[i])) for i in candidates if (int(a[i]), int(b[i])) not in taken])
        count = min(each, *map(len, kinds))
        for wanted, found in zip((True, False), kinds):
            taken.update(found[:count])
            first += [pair[0] for pair in found[:count]]
            second += [pair[1] for pair in found[:count]]
            same += [wanted] * count
            fold += [number] * count
    return Pairs(np.array(first), np.array(second), np.array(same), np.array(fold))


def best_threshold(distances: np.ndarray, same: np.ndarray) -> float:
    """Accepting distance <= threshold, which is right most often; in the middle between two distances, the least of equals."""
    order = np.argsort(distances, kind="stable")
    sorted_distances, sorted_same = distances[order], same[order]
    accepted_right = np.concatenate([[0], np.cumsum(sorted_same)])
    rejected_right = np.concatenate([[0], np.cumsum(~sorted_same)])
    right = accepted_right + rejected_right[-1] - rejected_right  # accepting the first k
    edge = np.concatenate([[True], sorted_distances[1:] > sorted_distances[:-1], [True]])  # equal ones go together
    cut = int(np.flatnonzero(edge)[np.argmax(right[edge])])
    low = sorted_distances[cut - 1] if cut > 0 else sorted_distances[0] - 1
    high = sorted_distances[cut] if cut < len(order) else sorted_distances[-1] + 1
    return float((low + high) / 2)


def roc(distances: np.ndarray, same: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true accept rates for every threshold, from none accepted to all."""
    order = np.argsort(distances, kind="stable")
    last = np.concatenate([np.diff(distances[order]) > 0, [True]])  # equal distances are accepted together
    true, false = np.cumsum(same[order])[last], np.cumsum(~same[order])[last]
    return np.concatenate([[0], false / max(1, (~same).sum())]), np.concatenate([[0], true / max(1, same.sum())])


def evaluate(embeddings: np.ndarray, pairs: Pairs) -> Score:
    difference = embeddings[pairs.first].astype(np.float64) - embeddings[pairs.second]
    return score(np.sqrt(np.square(difference).sum(1)), pairs)


def score(distances: np.ndarray, pairs: Pairs) -> Score:
    accuracies, thresholds = [], []
    for number in np.unique(pairs.fold):
        held_out = pairs.fold == number
        threshold = best_threshold(distances[~held_out], pairs.same[~held_out])
        accuracies.append(np.mean((distances[held_out] <= threshold) == pairs.same[held_out]))
        thresholds.append(threshold)
    fpr, tpr = roc(distances, pairs.same)
    auc = float(np.sum(np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2))
    at = int(np.argmin(np.abs(fpr - (1 - tpr))))
    eer = float((fpr[at] + 1 - tpr[at]) / 2)
    tar = float(tpr[fpr <= 0.01].max())
    return Score(float(np.mean(accuracies)), float(np.std(accuracies)), auc, eer, tar, float(np.mean(thresholds)), fpr, tpr)
