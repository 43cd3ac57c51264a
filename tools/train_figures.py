#!/usr/bin/env python3
"""Draws the pictures of docs/training/README.md: what each mining chooses, what collapse looks like, the rendered people.

The first two are computed with the trainer's own losses: on points of a circle, and on a small network that sees points
of 24 people, each dimension half noise.
"""

from __future__ import annotations

import argparse
import pathlib

import facenet_tools  # noqa: F401 (first: it picks the Python that has torch)
import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from facenet_tools import cli, rendered_faces
from facenet_tools.training import curves, losses

MARGIN = 0.2
TITLES = {
    "batch_all": "batch_all: every negative within the margin",
    "batch_hard": "batch_hard: farthest positive, nearest negative",
    "semi_hard": "semi_hard: beyond the positive, within the margin",
}


def mining(folder: pathlib.Path) -> None:
    """One anchor on a circle of embeddings, its positives, and the negatives that each mining pairs with them."""
    random = np.random.default_rng(4)
    labels = torch.from_numpy(np.repeat(np.arange(4), 5))
    angles = np.array([1.4, 0.9, 1.9, 0.3])[labels] + 0.28 * random.normal(size=20)
    points = torch.from_numpy(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    distances = losses.squared_distances(points)
    anchor = 0
    canvas, axes = curves.figure(15, 4.6, 3)
    for axis, (kind, title) in zip(axes, TITLES.items()):
        a, p, n = losses.mine(distances, labels, kind, MARGIN)
        chosen = [(int(q), int(r)) for who, q, r in zip(a, p, n) if who == anchor]
        axis.scatter(*points.T, c=[f"C{label}" for label in labels], s=30, zorder=3)
        for positive, negative in chosen:
            axis.plot(*points[[anchor, positive]].T, color="C0", linewidth=1)
            axis.plot(*points[[anchor, negative]].T, color="C3", linewidth=0.8, linestyle="--")
        axis.scatter(*points[anchor], s=160, facecolors="none", edgecolors="black", zorder=4)
        own = "1 triplet" if len(chosen) == 1 else f"{len(chosen)} triplets"
        axis.set(title=title, xlabel=f"the ringed anchor: {own}; the whole batch: {len(a)}", aspect="equal")
    curves.save(canvas, folder / "mining.png")


def learn(kind: str, rate: float, steps: int = 400) -> dict[str, list[float]]:
    """Loss and mean distances while a small network learns 24 people from noisy points."""
    torch.manual_seed(2)
    people = torch.randn(24, 32)
    network = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 16))
    optimiser = torch.optim.Adam(network.parameters(), rate)
    history: dict[str, list[float]] = {"loss": [], "genuine": [], "impostor": []}
    for _step in range(steps):
        labels = torch.randperm(24)[:12].repeat_interleave(4)
        embeddings = functional.normalize(network(people[labels] + 1.5 * torch.randn(48, 32)))
        found = losses.triplet(embeddings, labels, kind, MARGIN)
        optimiser.zero_grad()
        found.backward.backward()
        optimiser.step()
        squared = losses.squared_distances(embeddings.detach())
        same = labels[:, None] == labels[None]
        history["loss"].append(float(found.value))
        history["genuine"].append(float(squared.sqrt()[same & ~torch.eye(48, dtype=torch.bool)].mean()))
        history["impostor"].append(float(squared.sqrt()[~same].mean()))
    return history


def collapse(folder: pathlib.Path) -> None:
    """The same network and data, batch_hard from random weights and semi_hard."""
    canvas, axes = curves.figure(13, 3.8, 2)
    for color, (kind, rate) in zip(("C3", "C0"), (("batch_hard", 1e-2), ("semi_hard", 1e-2))):
        history = learn(kind, rate)
        axes[0].plot(history["loss"], color=color, label=kind)
        axes[1].plot(history["impostor"], color=color, label=f"{kind}: of two people")
        axes[1].plot(history["genuine"], color=color, linestyle=":", label=f"{kind}: of one person")
    axes[0].axhline(MARGIN, color="grey", linestyle=":", label="the margin")
    axes[0].set(title="loss", xlabel="step", ylim=(0, None))
    axes[1].set(title="mean distance", xlabel="step", ylim=(0, None))
    for axis in axes:
        axis.legend(fontsize=8, loc="center right")
    curves.save(canvas, folder / "collapse.png")


def people(folder: pathlib.Path) -> None:
    """Five people in eight pictures each, at a third of their size."""
    rows = []
    for number in range(5):
        person = rendered_faces.draw(rendered_faces.PERSON, np.random.default_rng([1, number]))
        row = [rendered_faces.picture(person, np.random.default_rng([1, number, index])) for index in range(1, 9)]
        rows.append(np.concatenate(row, axis=1))
    sheet = Image.fromarray(np.concatenate(rows)).reduce(2)
    sheet.quantize(128).save(folder / "people.png", optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     epilog="example:\n  tools/train_figures.py -o docs/training/")  # fmt: skip
    parser.add_argument("-o", "--output", required=True, metavar="FOLDER", help="for mining.png, collapse.png and people.png")
    folder = pathlib.Path(parser.parse_args().output)
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for draw in (mining, collapse, people):
        draw(folder)


if __name__ == "__main__":
    cli.run(main)
