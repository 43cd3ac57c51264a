"""Made-up persons for the tests of whole folders: pictures of one differ by noise, those of two in everything."""

from __future__ import annotations

import pathlib

import numpy as np
from PIL import Image

from facenet_tools import pictures


def make_people(folder: pathlib.Path, persons: int, each: int, noise: float = 40.0, seed: int = 11) -> list[pathlib.Path]:
    """LFW's layout: NAME/NAME_0001.png. Every fourth person's pictures differ much more, so that distances overlap."""
    random, made = np.random.default_rng(seed), []
    for person in range(persons):
        name, base = f"Person_{chr(65 + person)}", pictures.structured(random).astype(np.float64)
        (folder / name).mkdir(parents=True)
        for number in range(each):
            strength = noise * (4 if person % 4 == 3 else 1)
            picture = base + random.normal(0, strength, base.shape) + random.uniform(-strength, strength)
            made.append(folder / name / f"{name}_{number + 1:04d}.png")
            Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).resize((64, 64)).save(made[-1])
    return made


def distances(embeddings: np.ndarray) -> np.ndarray:
    """Euclidean, of each to each, in float64."""
    e = embeddings.astype(np.float64)
    return np.sqrt(((e[:, None] - e[None]) ** 2).sum(2))
