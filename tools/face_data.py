#!/usr/bin/env python3
"""Prepares face crops (DIR/PERSON/*) for training: splits by identity, near-duplicates, labels that look wrong.

`duplicates` and `noise` read embeddings, a JSON line a picture, from the command:
  facenet embed --json --aligned crops/ > crops.jsonl
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
import shutil
import sys

import facenet_tools  # noqa: F401 (first: it picks the Python that has numpy)
import numpy as np

from facenet_tools import cli
from facenet_tools.cli import ToolError
from facenet_tools.training import data

BLOCK = 2048  # rows of distances at once


@dataclasses.dataclass(frozen=True)
class Embedded:
    """Pictures with their embeddings [N, dim]; the person is the folder's name."""

    paths: list[pathlib.Path]
    vectors: np.ndarray

    @property
    def people(self) -> np.ndarray:
        return np.array([path.parent.name for path in self.paths])


def read_embeddings(path: str) -> Embedded:
    """The command's JSON lines. Pictures without a face are left out; several faces of one are an error."""
    paths, vectors, untrained = [], [], False
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    row = json.loads(cli.decoded(line, path, "make it with `facenet embed --json --aligned DIR`.", number))
                    if not isinstance(row, dict):
                        raise ValueError("no object")
                    if "embedding" not in row:
                        continue
                    if row.get("face", 0) != 0:
                        raise ToolError(f"{path}: line {number}: {row['image']} has several faces; embed crops with --aligned.")
                    paths.append(pathlib.Path(row["image"]))
                    vectors.append(np.array(row["embedding"], np.float32))
                    if vectors[-1].ndim != 1 or not np.isfinite(vectors[-1]).all():
                        raise ValueError("an embedding is a list of finite numbers")
                    untrained |= row.get("trained") is False
                except (ValueError, KeyError, TypeError) as error:
                    raise ToolError(f"{path}: line {number} is not what `facenet embed --json` writes ({error}).") from error
    except OSError as error:
        raise ToolError(f"{path}: cannot be read ({error.strerror}); make it with `facenet embed --json --aligned DIR`.") from error
    if not paths or len({len(vector) for vector in vectors}) != 1:
        raise ToolError(f"{path}: holds no embeddings, or such of different sizes; make it with one weight file.")
    if untrained:
        print(f"face_data.py: {path}: the weights are untrained (random numbers): these distances mean nothing.", file=sys.stderr)
    return Embedded(paths, np.stack(vectors))


def distances(vectors: np.ndarray, others: np.ndarray):
    """Blocks of Euclidean distances: first row, [rows, len(others)]."""
    lengths = np.square(others).sum(1)
    for start in range(0, len(vectors), BLOCK):
        block = vectors[start : start + BLOCK]
        squared = np.square(block).sum(1)[:, None] - 2 * block @ others.T + lengths
        yield start, np.sqrt(np.maximum(squared, 0))


def split(arguments: argparse.Namespace) -> None:
    """OUT/train and OUT/test: whole people each, pictures as hard links (copies where the file system has none)."""
    root, inside = pathlib.Path(arguments.faces).resolve(), pathlib.Path(arguments.output).resolve()
    if root in (inside, *inside.parents):
        raise ToolError(f"{arguments.output}: lies in {arguments.faces}, where its folders would be people; choose another folder.")
    faces, findings = data.scan(arguments.faces)
    for line in findings.lines():
        print(f"face_data.py: {arguments.faces}: {line}", file=sys.stderr)
    out = pathlib.Path(arguments.output)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ToolError(f"{out}: is there already; choose a folder that is not, so that no split is mixed with another.")
    for name, part in zip(("train", "test"), data.split(faces, arguments.share, arguments.seed, "--share")):
        for path, label in zip(part.paths, part.labels):
            target = out / name / part.people[label] / path.name
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    os.link(path.resolve(), target)  # of a symbolic link, what it points to
                except OSError:
                    shutil.copy2(path, target)
            except OSError as error:
                raise ToolError(f"{target}: cannot be made ({error.strerror}); choose a folder that can be.") from error
        print(f"{name}\t{len(part.people)} people\t{len(part.paths)} pictures")


def duplicates(arguments: argparse.Namespace) -> None:
    """Pictures nearer than --distance to an earlier one of the list that stays."""
    found = read_embeddings(arguments.embeddings)
    people = found.people
    gone: dict[int, tuple[int, float]] = {}
    for start, block in distances(found.vectors, found.vectors):
        for row, near in enumerate(block <= arguments.distance):
            i = start + row
            if i in gone:
                continue  # what is near to it is not near to what stays
            for j in np.flatnonzero(near[i + 1 :]) + i + 1:
                if arguments.across or people[i] == people[j]:
                    gone.setdefault(int(j), (i, float(block[row, j])))
    for j, (i, distance) in sorted(gone.items()):
        row = {"image": str(found.paths[j]), "near": str(found.paths[i]), "distance": round(distance, 6)}
        print(json.dumps(row) if arguments.json else f"{found.paths[j]}\tnear {found.paths[i]}\t{distance:.4f}")
    if arguments.move_to is not None:
        for j in sorted(gone):
            target = pathlib.Path(arguments.move_to) / people[j] / found.paths[j].name
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                if target.exists():
                    raise ToolError(f"{target}: is there already; choose another folder.")
                shutil.move(found.paths[j], target)
            except OSError as error:
                raise ToolError(f"{found.paths[j]}: cannot be moved to {target} ({error.strerror}).") from error
    done = f"moved to {arguments.move_to}" if arguments.move_to else "nothing was moved"
    print(f"face_data.py: {len(gone)} of {len(found.paths)} are near-duplicates; {done}", file=sys.stderr)


def noise(arguments: argparse.Namespace) -> None:
    """Pictures that are nearer to the mean of another person's than to that of their own person's others."""
    found = read_embeddings(arguments.embeddings)
    names, labels, counts = np.unique(found.people, return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise ToolError(f"{arguments.embeddings}: has one person only; there is nobody to be taken for.")
    sums = np.zeros((len(names), found.vectors.shape[1]))
    np.add.at(sums, labels, found.vectors)
    means = (sums / counts[:, None]).astype(np.float32)
    rows = []
    for start, block in distances(found.vectors, means):
        for row, others in enumerate(block):
            i, own = start + row, labels[start + row]
            if counts[own] < 2:
                continue
            without = (sums[own] - found.vectors[i]) / (counts[own] - 1)
            mine = float(np.linalg.norm(found.vectors[i] - without))
            others[own] = np.inf
            nearest = int(others.argmin())
            if others[nearest] < mine:
                rows.append((mine - float(others[nearest]), i, mine, nearest, float(others[nearest])))
    for _gap, i, mine, nearest, theirs in sorted(rows, reverse=True):
        row = {"image": str(found.paths[i]), "person": str(names[labels[i]]), "distance": round(mine, 6),
               "nearer": str(names[nearest]), "nearer_distance": round(theirs, 6)}  # fmt: skip
        text = f"{found.paths[i]}\t{names[labels[i]]} {mine:.4f}\t{names[nearest]} {theirs:.4f}"
        print(json.dumps(row) if arguments.json else text)
    single = int((counts < 2).sum())
    print(
        f"face_data.py: {len(rows)} of {len(found.paths)} pictures sit nearer to another person; look at them, the farthest "
        f"first{f'; {single} people have one picture and were not judged' if single else ''}",
        file=sys.stderr,
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n"
        "  tools/face_data.py split crops/ sets/ --share 0.2\n"
        "  tools/face_data.py duplicates crops.jsonl --distance 0.15 --move-to duplicates/\n"
        "  tools/face_data.py noise crops.jsonl\n\n"
        "exit status: 0 done, 2 error",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("split", help="to train and test, by identity", description=split.__doc__)
    one.add_argument("faces", metavar="DIR")
    one.add_argument("output", metavar="OUT", help="a folder that is not there yet, or is empty")
    one.add_argument("--share", type=float, default=0.2, help="of the people that go to test (%(default)s)")
    one.add_argument("--seed", type=int, default=1, help="(%(default)s)")
    two = commands.add_parser("duplicates", help="pictures that are nearly the same", description=duplicates.__doc__)
    two.add_argument("embeddings", metavar="FILE.jsonl")
    two.add_argument("--distance", type=float, default=0.15, help="up to which two are one (%(default)s)")
    two.add_argument("--across", action="store_true", help="also of two people, which is a wrong label or a twin")
    two.add_argument("--move-to", metavar="FOLDER", help="move them there, to PERSON/NAME; without it they are only listed")
    three = commands.add_parser("noise", help="labels that look wrong", description=noise.__doc__)
    three.add_argument("embeddings", metavar="FILE.jsonl")
    for each in (two, three):
        each.add_argument("--json", action="store_true", help="an object a line")
    arguments = parser.parse_args()
    if arguments.command == "split" and not 0 < arguments.share < 1:
        parser.error("--share must be between 0 and 1")
    if arguments.command == "split" and not 0 <= arguments.seed < 2**32:
        parser.error("--seed must be from 0 to 2^32 - 1")
    if arguments.command == "duplicates" and not arguments.distance >= 0:
        parser.error("--distance must be 0 or more")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    {"split": split, "duplicates": duplicates, "noise": noise}[arguments.command](arguments)


if __name__ == "__main__":
    cli.run(main)
