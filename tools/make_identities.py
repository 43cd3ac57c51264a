#!/usr/bin/env python3
"""Renders photographs of people who do not exist: OUT/PERSON/PERSON_0001.png, …, for the training recipe and its tests.

A person is a row of numbers (shape of the head, eyes, brows, nose, mouth, hair, skin, moles), a picture another one: pose,
light, expression, something in front of the face, background, noise. The same --seed gives the same pixels on the same
machine, and person 7 is the same whatever --people says.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import functools
import io
import multiprocessing
import pathlib

import facenet_tools  # noqa: F401 (first: it picks the Python that has torch)
import numpy as np
from PIL import Image
from tqdm import tqdm

from facenet_tools import cli, rendered_faces
from facenet_tools.cli import ToolError


def render(number: int, folder: pathlib.Path, pictures: int, seed: int) -> int:
    """One person's pictures; those that are there are left. Returns how many were made."""
    # Seeds are padded with zeros: [seed, number] is [seed, number, 0], so pictures count from 1.
    person = rendered_faces.draw(rendered_faces.PERSON, np.random.default_rng([seed, number]))
    made = 0
    for index in range(pictures):
        path = folder / f"person{number:04}" / f"person{number:04}_{index + 1:04}.png"
        if path.exists() and path.stat().st_size > 0:
            continue
        file = io.BytesIO()
        pixels = rendered_faces.picture(person, np.random.default_rng([seed, number, index + 1]))
        Image.fromarray(pixels).save(file, "png", compress_level=1)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ToolError(f"{path.parent}: cannot be made ({error.strerror}); choose a folder that can be.") from error
        cli.write_atomically(str(path), [file.getvalue()])
        made += 1
    return made


def check_seed(folder: pathlib.Path, seed: int) -> None:
    """OUT/.seed: a folder holds people of one seed, as pictures that are there are left."""
    path, text = folder / ".seed", f"{seed}\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            cli.write_atomically(str(path), [text.encode()])
        if (other := path.read_text(errors="backslashreplace")) != text:
            raise ToolError(f"{folder}: holds people of --seed {other.strip()}; give that seed, or choose another folder.")
    except OSError as error:
        raise ToolError(f"{folder}: cannot be made ({error.strerror}); choose a folder that can be.") from error


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n"
        "  tools/make_identities.py --people 300 --pictures 12 photographs/\n"
        "  build/release/facenet align --min-face 60 photographs/ crops/\n\n"
        "exit status: 0 made, 2 error; run again after a stop, it goes on where it was",
    )
    parser.add_argument("output", metavar="OUT", help="the folder, made if need be")
    parser.add_argument("--people", type=int, default=300, help="(%(default)s)")
    parser.add_argument("--pictures", type=int, default=12, help="of each (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="another seed, other people (%(default)s)")
    parser.add_argument("--jobs", type=int, default=multiprocessing.cpu_count(), help="processes (as many as CPUs)")
    arguments = parser.parse_args()
    for name, most in (("people", 10000), ("pictures", 1000), ("jobs", 256)):
        if not 1 <= getattr(arguments, name) <= most:
            parser.error(f"--{name} must be from 1 to {most}")
    if not 0 <= arguments.seed < 2**32:
        parser.error("--seed must be from 0 to 2^32 - 1")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    folder = pathlib.Path(arguments.output)
    check_seed(folder, arguments.seed)
    one = functools.partial(render, folder=folder, pictures=arguments.pictures, seed=arguments.seed)
    try:
        with concurrent.futures.ProcessPoolExecutor(arguments.jobs) as pool:
            turns = pool.map(one, range(arguments.people))
            made = sum(tqdm(turns, total=arguments.people, unit="person", disable=None))
    except concurrent.futures.process.BrokenProcessPool as error:
        raise ToolError(f"{folder}: a process was killed (too little memory?); run again, it goes on; fewer --jobs need less.") from error
    wanted = arguments.people * arguments.pictures
    print(f"{wanted} pictures of {arguments.people} people: {made} made, {wanted - made} were there")


if __name__ == "__main__":
    cli.run(main)
