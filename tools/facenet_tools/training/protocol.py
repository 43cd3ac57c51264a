"""Verification by pairs: the protocol of LFW, as `facenet evaluate` follows it.

Pairs are in ten folds, half of each genuine. A fold's accuracy uses the threshold that is best on the other nine, of
davidsandberg/facenet's (squared distances from 0 to 4 by 0.01).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from facenet_tools.cli import ToolError

FOLDS = 10
THRESHOLDS = np.arange(400) * 0.01


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
    """In each fold `each` genuine and as many impostor pairs, or as many as the fold with the fewest has; none twice.

    People are not shared between folds where there are 2 for each (LFW's rule): a threshold learned on a person's
    pictures would be tested on them.
    """
    random = np.random.default_rng([seed, len(labels)])
    people = random.permutation(np.unique(labels))
    folds: dict[bool, list[np.ndarray]] = {True: [], False: []}  # of each kind: rows of two pictures
    if len(people) >= 2 * FOLDS:
        for group in np.array_split(people, FOLDS):
            for kind, found in _candidates(np.flatnonzero(np.isin(labels, group)), labels).items():
                folds[kind].append(random.permutation(found))
    else:
        for kind, found in _candidates(np.arange(len(labels)), labels).items():
            folds[kind] = np.array_split(random.permutation(found), FOLDS)
    count = min(each, *(len(found) for kind in folds.values() for found in kind))
    if count == 0:
        raise ToolError(
            f"{len(people)} people with {len(labels)} pictures held out are too few for {FOLDS} folds of pairs; hold out more, "
            "or nobody (--validation-share 0)."
        )
    parts = [(found[:count], kind, fold) for fold in range(FOLDS) for kind in (True, False) for found in [folds[kind][fold]]]
    rows = np.concatenate([part[0] for part in parts])
    same = np.repeat([part[1] for part in parts], count)
    return Pairs(rows[:, 0], rows[:, 1], same, np.repeat([part[2] for part in parts], count))


def _candidates(own: np.ndarray, labels: np.ndarray) -> dict[bool, np.ndarray]:
    a, b = np.triu_indices(len(own), 1)
    rows = np.stack([own[a], own[b]], axis=1)
    genuine = labels[rows[:, 0]] == labels[rows[:, 1]]
    return {True: rows[genuine], False: rows[~genuine]}


def best_threshold(squared: np.ndarray, same: np.ndarray, thresholds: np.ndarray = THRESHOLDS) -> float:
    """The smallest of those with which accepting squared < threshold is right most often."""
    genuine, impostors = np.sort(squared[same]), np.sort(squared[~same])
    right = np.searchsorted(genuine, thresholds) + len(impostors) - np.searchsorted(impostors, thresholds)
    return float(thresholds[np.argmax(right)])


def roc(distances: np.ndarray, same: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true accept rates for every threshold, from none accepted to all."""
    order = np.argsort(distances, kind="stable")
    last = np.concatenate([np.diff(distances[order]) > 0, [True]])  # equal distances are accepted together
    true, false = np.cumsum(same[order])[last], np.cumsum(~same[order])[last]
    return np.concatenate([[0], false / max(1, (~same).sum())]), np.concatenate([[0], true / max(1, same.sum())])


def evaluate(embeddings: np.ndarray, pairs: Pairs, own_thresholds: bool = False) -> Score:
    difference = embeddings[pairs.first].astype(np.float64) - embeddings[pairs.second]
    return score(np.sqrt(np.square(difference).sum(1)), pairs, own_thresholds)


def score(distances: np.ndarray, pairs: Pairs, own_thresholds: bool = False) -> Score:
    """own_thresholds: each pair's distance instead of the protocol's steps."""
    squared = np.square(distances)
    steps = np.unique(squared) if own_thresholds else THRESHOLDS
    accuracies, thresholds = [], []
    for number in range(FOLDS):
        held_out = pairs.fold == number
        threshold = best_threshold(squared[~held_out], pairs.same[~held_out], steps)
        accuracies.append(np.mean((squared[held_out] < threshold) == pairs.same[held_out]))
        thresholds.append(np.sqrt(threshold))
    fpr, tpr = roc(distances, pairs.same)
    auc = float(np.sum(np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2))
    at = int(np.argmin(np.abs(fpr - (1 - tpr))))
    eer = float((fpr[at] + 1 - tpr[at]) / 2)
    tar = float(tpr[fpr <= 0.01].max())
    return Score(float(np.mean(accuracies)), float(np.std(accuracies)), auc, eer, tar, float(np.mean(thresholds)), fpr, tpr)
