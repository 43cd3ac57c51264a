#!/usr/bin/env python3
"""What integer arithmetic costs on people whom calibration did not see: cosines and distances beside float's, as a table.

Ranges and biases come from the sample faces, as with convert_weights.py --calibrate default. Then the same network embeds
  rendered   people who do not exist (make_identities.py), two pictures of each
  people     photographs of other people: --people FOLDER, or ../shared/photos where it is there
  samples    the faces of sample4 to sample6, with ranges from astronaut to sample3 alone; who looks like one of those is left out
The arithmetic is facenet_tools/integer_arithmetic.py's, which the engine equals to the bit. A face's mirror image counts in the
cosine, and in its pair with the face.
"""

from __future__ import annotations

import argparse
import functools
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import facenet_tools  # noqa: E402, F401 (first: it picks the Python that has torch)
import numpy as np  # noqa: E402
import torch  # noqa: E402
from facenet_pytorch import MTCNN  # noqa: E402
from PIL import Image  # noqa: E402

import make_checkpoint  # noqa: E402
from facenet_tools import calibration, checkpoint, cli, face_api, pictures, quantisation, rendered_faces, sources  # noqa: E402
from facenet_tools.quantisation import Change, Faces, Model  # noqa: E402

FACE_API = ROOT / ".deps" / "face-api"
PHOTOS = ROOT.parent / "shared" / "photos"
VERDICTS = 0.003  # share of pairs that may change sides of the threshold
ALIKE = 0.6  # a distance of dlib's network up to which two faces may be one person's
FIRST_HALF = ("astronaut.png", "sample1.jpg", "sample2.jpg", "sample3.jpg")
MADE = {  # arguments of make_checkpoint.make_state
    "v1": {"dim": 512, "seed": 1},
    "v1-128": {"dim": 128, "seed": 7},
    "v1-half": {"dim": 512, "seed": 1, "width": 0.5},
    "v2": {"dim": 512, "seed": 1, "architecture": checkpoint.V2},
}


def load(name: str) -> tuple[Model, dict[str, str], float]:
    """A model, its metadata, and the distance up to which two faces are one person's."""
    if name == "dlib":
        weights, digest, source = face_api.read(FACE_API)
        details, threshold, folded = face_api.metadata(source, digest), 0.6, face_api.fold(weights)
    else:
        state = make_checkpoint.make_state(paths=pictures.sample_paths(), **MADE[name]) if name in MADE else None
        source = sources.read(name) if state is None else sources.from_state(state, name, "")
        details = {"architecture": source.architecture, "normalise": "l2", "trained": str(source.trained).lower(), **source.metadata}
        threshold, folded = 1.1, checkpoint.fold(source.state, checkpoint.model_of(source.state, source.dim))
    model = Model(details["architecture"], {layer.name: layer for layer in folded}, details["scaling"], details["normalise"])
    return model, details, float(details.get("threshold", threshold))


@functools.lru_cache(None)
def cut(paths: tuple[str, ...], size: int, crop: str, margin: float) -> tuple[np.ndarray, tuple[str, ...]]:
    """The faces of pictures, and the file that each is in."""
    detector = MTCNN(keep_all=True, device="cpu")
    found = [(face, pathlib.Path(path).name) for path in paths for face in calibration.cut(pictures.open_rgb(path), detector, size, crop, margin)]
    return np.stack([face for face, _ in found]), tuple(name for _, name in found)


@functools.lru_cache(None)
def rendered(people: int, size: int, crop: str, margin: float) -> tuple[np.ndarray, np.ndarray]:
    detector, crops, owners = MTCNN(keep_all=True, device="cpu"), [], []
    for number in range(people):
        person = rendered_faces.draw(rendered_faces.PERSON, np.random.default_rng([5, number]))
        for index in (1, 2):
            picture = Image.fromarray(rendered_faces.picture(person, np.random.default_rng([5, number, index])))
            found = calibration.cut(picture, detector, size, crop, margin)[:1]
            crops += found
            owners += [number] * len(found)
    return np.stack(crops), np.array(owners)


def alike(faces: list[str], others: list[str]) -> np.ndarray:
    """Whether each of the faces, pictures' paths, may be of somebody who is on the others."""
    model, details, _ = load("dlib")
    chips = [cut(tuple(paths), 150, "five_point", 0.25)[0] for paths in (faces, others)]
    one, other = (model.embed(stack, {}) for stack in chips)
    return (np.linalg.norm(one[:, None] - other[None], axis=2) <= ALIKE).any(1)


def sets(details: dict[str, str], arguments: argparse.Namespace) -> list[tuple[str, Faces, Faces, str]]:
    """Name, faces of calibration, faces to measure on, and who they are."""
    how = (int(details["image_size"]), details["crop"], float(details["margin"]))
    samples = pictures.sample_paths()
    crops, _ = cut(tuple(samples), *how)
    known = Faces(crops, np.arange(len(crops)))
    made, owners = rendered(arguments.rendered, *how)
    found = [("rendered", known, Faces(made, owners), f"{len(set(owners))} people of make_identities.py")]
    folder = arguments.people or (PHOTOS if PHOTOS.is_dir() else None)
    if folder is not None:
        faces, names = cut(tuple(str(path) for path in calibration.paths(str(folder)) if not path.name.startswith("aligned")), *how)
        found.append(("people", known, Faces(faces, np.arange(len(faces))), f"faces of {', '.join(dict.fromkeys(names))}"))
    if (FACE_API / "model").is_dir():
        halves = [[path for path in samples if (pathlib.Path(path).name in FIRST_HALF) == first] for first in (True, False)]
        seen, strangers = (cut(tuple(half), *how)[0] for half in halves)
        left = ~alike(halves[1], halves[0])
        note = f"sample4 to sample6 without {np.count_nonzero(~left)} who are like a face of astronaut to sample3"
        found.append(("samples", Faces(seen, np.arange(len(seen))), Faces(strangers[left], np.flatnonzero(left)), note))
    return found


def measure(model: Model, known: Faces, strangers: Faces, threshold: float) -> Change:
    seen = quantisation.ranges(model.network, model.layers, known.crops, model.scaling)
    kept = quantisation.must_stay_float(model.network, model.scaling)
    integers = quantisation.integers_of(model, seen, known, kept, "")
    crops = quantisation.with_mirrors(strangers)
    return quantisation.change(model.embed(crops, {}), model.embed(crops, integers), strangers.people, threshold)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog="exit status: 0 every bound holds, 1 one does not, 2 error"
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"dlib, {', '.join(MADE)}, or a checkpoint (dlib v1 v1-128 v2)")
    parser.add_argument("--people", metavar="FOLDER", help="photographs of people who are not on the samples")
    parser.add_argument("--rendered", type=int, default=20, metavar="N", help="rendered people (%(default)s)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    if not pictures.sample_paths():
        raise cli.ToolError("the sample pictures are not there; run tools/bootstrap.sh.")
    print("| model | on | faces | worst cosine | distances, RMS | worst | nearer | farther | verdicts that change | |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    failed, who = False, {}
    for name in arguments.models or ["dlib", "v1", "v1-128", "v2"]:
        model, details, threshold = load(name)
        changed = pairs = 0
        for on, known, strangers, note in sets(details, arguments):
            found, count = measure(model, known, strangers, threshold), len(strangers.people)
            ok = quantisation.holds(found, details["trained"] == "true")
            changed, pairs, who[on], failed = changed + found.verdicts * (count * (count + 1) // 2), pairs + count * (count + 1) // 2, note, failed or not ok
            print(f"| {name} | {on} | {count} | {found.cosine:.6f} | {found.rms:.5f} | {found.worst:.5f} | {found.nearer:.5f} | {found.farther:.5f} "
                  f"| {found.verdicts:.2%} | {'' if ok else 'misses its bound'} |", flush=True)  # fmt: skip
        ok = changed / pairs <= VERDICTS
        failed = failed or not ok
        print(f"| {name} | all | | | | | | | {changed:.0f} of {pairs}: {changed / pairs:.2%} | {'' if ok else 'misses its bound'} |", flush=True)
    print("\n" + "\n".join(f"{on}: {note}" for on, note in who.items()))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    cli.run(main)
