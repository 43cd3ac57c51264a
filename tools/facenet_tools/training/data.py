"""A folder for each person: what is in it, what is wrong with it, and batches of P people with K pictures each.

No generator has a state: all that is random at a step comes from (seed, step), so a run that goes on after a kill draws
what the uninterrupted one would have drawn, and each process of several draws the whole batch alike and takes its part.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import os
import pathlib

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from facenet_tools.cli import ToolError, shown
from facenet_tools.pictures import SIZE

SUFFIXES = (".png", ".jpg", ".jpeg")
PER_PERSON = 2  # pictures, or there is no positive
CACHE_BYTES = 2 << 30


@dataclasses.dataclass
class Findings:
    """What will not be trained on, and why; paths are relative to the folder."""

    unreadable: list[str] = dataclasses.field(default_factory=list)
    duplicates: list[str] = dataclasses.field(default_factory=list)  # "B equals A", of one person: B is left out
    conflicts: list[str] = dataclasses.field(default_factory=list)  # of two people: both are left out
    single: list[str] = dataclasses.field(default_factory=list)  # people with fewer than PER_PERSON pictures
    resized: int = 0  # of another size than the network's: trained on, resized
    other: list[str] = dataclasses.field(default_factory=list)  # suffixes of files that are no JPEG and no PNG

    def lines(self) -> list[str]:
        kinds = (
            ("unreadable, left out", self.unreadable),
            ("the same picture twice, left out once", self.duplicates),
            ("the same picture under two names, both left out", self.conflicts),
            (f"people with fewer than {PER_PERSON} pictures, left out", self.single),
        )
        found = [f"{what}: {shown(name)}" for what, names in kinds for name in names]
        if self.other:
            suffixes = ", ".join(sorted(set(map(shown, self.other))))
            found.append(f"{len(self.other)} files of other kinds are left out: {suffixes}")
        return found + ([f"{self.resized} pictures are not {SIZE}x{SIZE} and are resized"] if self.resized else [])


@dataclasses.dataclass(frozen=True)
class Faces:
    """Pictures of people: labels[i] is the place in `people` of the person on paths[i]."""

    people: list[str]
    paths: list[pathlib.Path]
    labels: np.ndarray
    contents: list[bytes]  # the files' SHA-256

    def digest(self) -> str:
        """Of the people, the pictures' names and what is in them; not of where the folder is."""
        rows = [(path.parent.name, path.name, content.hex()) for path, content in zip(self.paths, self.contents)]
        return hashlib.sha256(os.fsencode("".join("/".join(row) + "\0" for row in rows))).hexdigest()

    def only(self, chosen: list[int]) -> Faces:
        """The same with some of the people."""
        place = {person: new for new, person in enumerate(chosen)}
        kept = [i for i, label in enumerate(self.labels) if label in place]
        labels = np.array([place[self.labels[i]] for i in kept], dtype=np.int64)
        people = [self.people[person] for person in chosen]
        return Faces(people, [self.paths[i] for i in kept], labels, [self.contents[i] for i in kept])


def decode(path: pathlib.Path) -> tuple[np.ndarray, bool]:
    """uint8 [SIZE, SIZE, 3], and whether it had to be resized. The pixels that image_io.hpp gives the engine: upright, of
    16 bits the high byte, transparent ones over white."""
    with Image.open(path, formats=("PNG", "JPEG")) as picture:
        picture.load()
        if picture.getexif().get(0x0112, 1) != 1:
            picture = ImageOps.exif_transpose(picture)
        if picture.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip at 255
            picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
        if picture.mode in ("RGBA", "LA") or "transparency" in picture.info:
            pixels = np.asarray(picture.convert("RGBA")).astype(np.int64)
            colour, alpha = pixels[..., :3], pixels[..., 3:]
            picture = Image.fromarray(((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8))
        picture = picture.convert("RGB")
        resized = picture.size != (SIZE, SIZE)
        if resized:
            picture = picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        return np.asarray(picture), resized


def scan(folder: str) -> tuple[Faces, Findings]:
    """Reads and checks every picture of FOLDER/PERSON/*.{png,jpg,jpeg}; what cannot be used is listed, not used."""
    root = pathlib.Path(folder)
    if not root.is_dir():
        raise ToolError(f"{folder}: is not a folder; give one that holds a folder of face crops for each person.")
    try:
        entries = sorted(entry for entry in root.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise ToolError(f"{folder}: cannot be read ({error.strerror}); check its permissions.") from error
    folders = [entry for entry in entries if entry.is_dir()]
    if not folders:
        pictures = any(entry.suffix.lower() in SUFFIXES for entry in entries)
        held = "pictures and no folders, as one person's own does" if pictures else "no folders"
        raise ToolError(f"{folder}: holds {held}; give the folder that holds a folder of face crops for each person.")
    findings, seen = Findings(), {}
    by_person: dict[str, list[pathlib.Path]] = {}
    conflicting: set[pathlib.Path] = set()
    digests: dict[pathlib.Path, bytes] = {}
    for person in tqdm(folders, desc=folder, unit="person", leave=False, disable=None):
        kept = by_person.setdefault(person.name, [])
        try:
            files = sorted(path for path in person.iterdir() if not path.name.startswith("."))
        except OSError as error:
            findings.unreadable.append(f"{person.name} ({error.strerror})")
            continue
        findings.other += [path.suffix or path.name for path in files if path.suffix.lower() not in SUFFIXES]
        for path in (path for path in files if path.suffix.lower() in SUFFIXES):
            name = str(path.relative_to(root))
            try:
                if not path.is_file():  # a pipe would be waited for
                    raise ValueError
                digests[path] = digest = hashlib.sha256(path.read_bytes()).digest()
                findings.resized += decode(path)[1]
            except Exception as error:  # Pillow raises anything on a damaged file
                reason = getattr(error, "strerror", None) or "not a picture that can be decoded"
                findings.unreadable.append(f"{name} ({reason})")
                continue
            first = seen.setdefault(digest, path)
            if first is path:
                kept.append(path)
            elif first.parent == person:
                findings.duplicates.append(f"{name} equals {first.name}")
            else:
                findings.conflicts.append(f"{name} equals {first.relative_to(root)}")
                conflicting.add(first)
    people, paths, labels = [], [], []
    for person, found in by_person.items():
        kept = [path for path in found if path not in conflicting]
        if len(kept) < PER_PERSON:
            findings.single.append(f"{person} ({len(kept)})")
            continue
        labels += [len(people)] * len(kept)
        people.append(person)
        paths += kept
    return Faces(people, paths, np.array(labels, dtype=np.int64), [digests[path] for path in paths]), findings


def split(faces: Faces, share: float, seed: int, option: str) -> tuple[Faces, Faces]:
    """By identity: nobody of the second part is in the first. At least 2 people each, or it is an error. option: what
    gives the share, for the message."""
    count = len(faces.people)
    held_out = round(share * count)
    if held_out < 2 or count - held_out < 2:
        raise ToolError(
            f"{count} people with {PER_PERSON} pictures or more cannot be split {1 - share:g} to {share:g}, with 2 on each side; "
            f"add people, or give another {option}."
        )
    order = np.random.default_rng([seed, count]).permutation(count)
    return faces.only(sorted(order[held_out:].tolist())), faces.only(sorted(order[:held_out].tolist()))


def choose(labels: np.ndarray, people: int, pictures: int, random: np.random.Generator) -> np.ndarray:
    """P x K: indices of `pictures` of each of `people`; of one who has fewer some come twice."""
    chosen = random.choice(labels.max() + 1, people, replace=False)
    parts = []
    for person in chosen:
        own = np.flatnonzero(labels == person)
        parts.append(random.choice(own, pictures, replace=len(own) < pictures))
    return np.concatenate(parts)


def augment(picture: np.ndarray, random: np.random.Generator, strength: float) -> np.ndarray:
    """Mirrored or not; shifted, scaled and turned a little; brighter or darker, more or less contrast; a patch erased.

    strength 1: 5 % of the side, 8 % of the size, 6 degrees, 25 % of brightness and contrast; 0 leaves it as it is.
    """
    if strength == 0:
        return picture
    if random.random() < 0.5:
        picture = picture[:, ::-1]
    size, angle = 1 + 0.08 * strength * random.uniform(-1, 1), np.deg2rad(6 * strength) * random.uniform(-1, 1)
    shift, middle = 0.05 * SIZE * strength * random.uniform(-1, 1, 2), (SIZE - 1) / 2
    cos, sin = np.cos(angle) / size, np.sin(angle) / size
    across = (cos, sin, middle + shift[0] - (cos + sin) * middle)
    down = (-sin, cos, middle + shift[1] - (cos - sin) * middle)
    moved = Image.fromarray(np.ascontiguousarray(picture)).transform(
        (SIZE, SIZE), Image.Transform.AFFINE, (*across, *down), Image.Resampling.BILINEAR
    )
    contrast, light = 1 + 0.25 * strength * random.uniform(-1, 1), 32 * strength * random.uniform(-1, 1)
    pixels = np.asarray(moved, np.float32)
    pixels = (pixels - 127.5) * contrast + 127.5 + light
    if random.random() < 0.25 * strength:
        side = random.integers(SIZE // 10, SIZE // 3, 2)
        at = random.integers(0, SIZE - side)
        pixels[at[0] : at[0] + side[0], at[1] : at[1] + side[1]] = random.uniform(0, 255)
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


class Loader:
    """Decodes pictures, and keeps them while they fit CACHE_BYTES; the next batch is made while the network computes."""

    def __init__(self, faces: Faces, threads: int = 2) -> None:
        self.faces = faces
        self._cache: dict[int, np.ndarray] = {}
        self._room = CACHE_BYTES // (SIZE * SIZE * 3)
        self._pool = concurrent.futures.ThreadPoolExecutor(threads)
        self._ahead: tuple[tuple, list[concurrent.futures.Future]] | None = None

    def picture(self, index: int) -> np.ndarray:
        found = self._cache.get(index)
        if found is None:
            try:
                found = decode(self.faces.paths[index])[0]
            except Exception as error:  # as in scan()
                raise ToolError(f"{self.faces.paths[index]}: could be read before training and cannot now ({error}).") from error
            if len(self._cache) < self._room:
                self._cache[index] = found
        return found

    def _start(self, indices: np.ndarray, rows: range, key: tuple[int, int], strength: float) -> list:
        def one(row: int) -> np.ndarray:
            return augment(self.picture(int(indices[row])), np.random.default_rng([*key, row + 1]), strength)

        return [self._pool.submit(one, row) for row in rows]

    def batch(self, plan, step: int, rows: range, strength: float) -> tuple[np.ndarray, np.ndarray]:
        """uint8 [len(rows), SIZE, SIZE, 3] of rows of the global batch of a step, and the labels of the whole batch.
        plan(step): the indices of that batch and its key."""
        ahead, self._ahead = self._ahead, None
        indices, key = plan(step)
        started = ahead[1] if ahead is not None and ahead[0] == (step, rows) else self._start(indices, rows, key, strength)
        pixels = np.stack([future.result() for future in started])
        self._ahead = ((step + 1, rows), self._start(plan(step + 1)[0], rows, plan(step + 1)[1], strength))
        return pixels, self.faces.labels[indices]
