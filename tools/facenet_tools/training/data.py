"""A folder for each person: what is in it, what is wrong with it, and batches of P people with K pictures each.

No generator has a state: all that is random at a step comes from (seed, step), so a run that goes on after a kill draws
what the uninterrupted one would have drawn, and each process of several draws the whole batch alike and takes its part.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import json
import os
import pathlib
import time
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image, ImageOps
from tqdm import tqdm

from facenet_tools.cli import ToolError, shown, write_atomically
from facenet_tools.pictures import SIZE, scaled

SUFFIXES = (".png", ".jpg", ".jpeg")
# What systems put into folders of pictures: nobody's.
SYSTEM_FOLDERS = (  # as tools/command/io/tree.cpp has them
    "@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@__thumb", "@tmp", "@sharebin", "~snapshot",
    "$recycle.bin", "recycler", "recycled", "system volume information", "found.000", "thumbs", "thumbnails",
    "__macosx", "network trash folder", "temporary items", "lost+found", "lost.dir",
)  # fmt: skip
PER_PERSON = 2  # pictures, or there is no positive
CACHE_BYTES = 2 << 30


@dataclasses.dataclass
class Findings:
    """What will not be trained on, and why; paths are relative to the folder."""

    unreadable: list[str] = dataclasses.field(default_factory=list)
    duplicates: list[str] = dataclasses.field(default_factory=list)  # "B equals A" (pixels), of one person: B is left out
    conflicts: list[str] = dataclasses.field(default_factory=list)  # of two people: both are left out
    single: list[str] = dataclasses.field(default_factory=list)  # people with fewer than PER_PERSON pictures
    resized: int = 0  # of another size than the network's: trained on, resized
    other: list[str] = dataclasses.field(default_factory=list)  # suffixes of files that are no JPEG and no PNG
    system: list[str] = dataclasses.field(default_factory=list)  # folders that systems make

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
        if self.system:
            found.append(f"{len(self.system)} folders of systems are left out: {', '.join(map(shown, self.system))}")
        return found + ([f"{self.resized} pictures are not {SIZE}x{SIZE} and are resized"] if self.resized else [])


@dataclasses.dataclass(frozen=True)
class Faces:
    """Pictures of people: labels[i] is the place in `people` of the person on paths[i]."""

    people: list[str]
    paths: list[pathlib.Path]
    labels: np.ndarray
    contents: list[bytes]  # the files' SHA-256
    views: list[bytes] = dataclasses.field(default_factory=list)  # of the pixels, the same for a picture and its mirror image

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
        views = [self.views[i] for i in kept] if self.views else []
        return Faces(people, [self.paths[i] for i in kept], labels, [self.contents[i] for i in kept], views)


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


@dataclasses.dataclass(frozen=True)
class Look:
    """What reading a file told: digests of its bytes and its pixels, or why it cannot be used."""

    content: str = ""  # SHA-256 of the bytes
    pixels: str = ""  # SHA-256 of what decode() gives
    view: str = ""  # the smaller one of that and the mirrored pixels': augmentation mirrors, so both are one view
    resized: bool = False
    failure: str = ""


def look(path: pathlib.Path) -> Look:
    try:
        if not path.is_file():  # a pipe would be waited for
            raise ValueError
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        pixels, resized = decode(path)
    except Exception as error:  # Pillow raises anything on a damaged file
        return Look(failure=getattr(error, "strerror", None) or "not a picture that can be decoded")
    one, other = (hashlib.sha256(np.ascontiguousarray(each)).hexdigest() for each in (pixels, pixels[:, ::-1]))
    return Look(content, one, min(one, other), resized)


class Looks:
    """look() for many files, in threads; what is known of a file is taken from FILE where size and times of change are the
    same. Pillow and hashlib let go of Python's lock while they work."""

    FORMAT, AT_ONCE = 1, 4096
    RACY_S = 2.0  # a file changed that shortly before it was read may change again without another time: not kept

    def __init__(self, file: pathlib.Path | None, threads: int | None = None) -> None:
        self.file = file
        self.read: list[pathlib.Path] = []  # what was decoded, in any order
        self._pool = concurrent.futures.ThreadPoolExecutor(threads or min(32, os.cpu_count() or 1))
        self._known: dict[str, list] = {}
        self._used: dict[str, list] = {}
        if file is not None:
            try:
                stored = json.loads(file.read_bytes())
                if stored["format"] == "facenet-looks" and stored["version"] == self.FORMAT:
                    self._known = {key: value for key, value in stored["files"].items() if self._makes_sense(value)}
            except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):  # not there, or not ours: everything is read
                pass

    @staticmethod
    def _makes_sense(value: object) -> bool:
        kinds = (list, str, str, str, bool, str)
        return isinstance(value, list) and len(value) == len(kinds) and all(map(isinstance, value, kinds))

    @staticmethod
    def _state(path: pathlib.Path) -> list[int] | None:
        try:
            found = path.stat()
        except OSError:
            return None
        return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]

    def _one(self, path: pathlib.Path) -> Look:
        key, before = str(path.absolute()), self._state(path)
        known = self._known.get(key)
        if known is not None and known[0] == before:
            self._used[key] = known
            return Look(*known[1:])
        now = time.time_ns()
        found = look(path)
        self.read.append(path)
        # A failure is not kept: a disk that could not be read may be read the next time.
        if before is not None and not found.failure and max(before[1:3]) < now - self.RACY_S * 1e9 and before == self._state(path):
            self._used[key] = [before, *dataclasses.astuple(found)]
        return found

    def of(self, paths: list[pathlib.Path]) -> Iterator[Look]:
        """In the order of the paths."""
        for start in range(0, len(paths), self.AT_ONCE):
            yield from self._pool.map(self._one, paths[start : start + self.AT_ONCE])

    def save(self) -> None:
        """What was asked for since the start; the rest is forgotten."""
        if self.file is not None:
            text = json.dumps({"format": "facenet-looks", "version": self.FORMAT, "files": self._used}, sort_keys=True)
            write_atomically(str(self.file), [text.encode()])


def scan(folder: str, looks: Looks | None = None) -> tuple[Faces, Findings]:
    """Reads and checks every picture of FOLDER/PERSON/*.{png,jpg,jpeg}; what cannot be used is listed, not used."""
    root = pathlib.Path(folder)
    if not root.is_dir():
        raise ToolError(f"{folder}: is not a folder; give one that holds a folder of face crops for each person.")
    try:
        entries = sorted(entry for entry in root.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise ToolError(f"{folder}: cannot be read ({error.strerror}); check its permissions.") from error
    findings, seen = Findings(), {}
    folders = [entry for entry in entries if entry.is_dir()]
    findings.system = [entry.name for entry in folders if entry.name.lower() in SYSTEM_FOLDERS]
    folders = [entry for entry in folders if entry.name not in findings.system]
    if not folders:
        pictures = any(entry.suffix.lower() in SUFFIXES for entry in entries)
        held = "pictures and no folders, as one person's own does" if pictures else "no folders"
        raise ToolError(f"{folder}: holds {held}; give the folder that holds a folder of face crops for each person.")
    by_person: dict[str, list[pathlib.Path]] = {}
    for person in folders:
        by_person[person.name] = []
        try:
            files = sorted(path for path in person.iterdir() if not path.name.startswith("."))
        except OSError as error:
            findings.unreadable.append(f"{person.name} ({error.strerror})")
            continue
        findings.system += [str(path.relative_to(root)) for path in files if path.name.lower() in SYSTEM_FOLDERS]
        files = [path for path in files if path.name.lower() not in SYSTEM_FOLDERS]
        findings.other += [path.suffix or path.name for path in files if path.suffix.lower() not in SUFFIXES]
        by_person[person.name] = [path for path in files if path.suffix.lower() in SUFFIXES]
    every = [path for files in by_person.values() for path in files]
    conflicting: set[pathlib.Path] = set()
    usable: dict[pathlib.Path, Look] = {}
    found = (looks or Looks(None)).of(every)
    for path, its in zip(every, tqdm(found, total=len(every), desc=folder, unit="picture", leave=False, disable=None)):
        name = str(path.relative_to(root))
        if its.failure:
            findings.unreadable.append(f"{name} ({its.failure})")
            continue
        findings.resized += its.resized
        first = seen.setdefault(its.pixels, path)
        if first is path:
            usable[path] = its
        elif first.parent == path.parent:
            findings.duplicates.append(f"{name} equals {first.name}")
        else:
            findings.conflicts.append(f"{name} equals {first.relative_to(root)}")
            conflicting.add(first)
    people, paths, labels = [], [], []
    for person, files in by_person.items():
        kept = [path for path in files if path in usable and path not in conflicting]
        if len(kept) < PER_PERSON:
            findings.single.append(f"{person} ({len(kept)})")
            continue
        labels += [len(people)] * len(kept)
        people.append(person)
        paths += kept
    contents, views = ([bytes.fromhex(getattr(usable[path], what)) for path in paths] for what in ("content", "view"))
    return Faces(people, paths, np.array(labels, dtype=np.int64), contents, views), findings


def without_trained(held_out: Faces, trained: Faces) -> tuple[Faces, list[str]]:
    """The people held out of whom no picture is trained on, and each picture that is: its pixels, mirrored or not, are those
    of a trained one. Whose picture is trained on is a trained person under any name, so all of that person goes."""
    known = dict(zip(trained.views, trained.paths))

    def named(path: pathlib.Path) -> str:
        return f"{path.parent.name}/{path.name}"

    leaks = [(label, path, known[view]) for label, path, view in zip(held_out.labels, held_out.paths, held_out.views) if view in known]
    gone = {int(label) for label, _path, _twin in leaks}
    lines = [f"held out, but trained on: {shown(named(path))} equals {shown(named(twin))}" for _label, path, twin in leaks]
    return held_out.only([person for person in range(len(held_out.people)) if person not in gone]) if gone else held_out, lines


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


def _some(own: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """`count` of them, none a second time before each was there once."""
    times = -(-count // len(own))
    return np.concatenate([random.permutation(own) for _ in range(times)])[:count]


class Passes:
    """P x K batches that show every picture: a pass is as many steps as that takes, and the next one has another order.

    A person's pictures are shuffled and cut into groups of K, the last one filled up with others of them. A batch takes a
    group each of the P people who have most left, which needs the fewest batches (the person with most groups, or all groups
    over P); where fewer than P have any left, others come again. Then the batches are shuffled. Depends on (seed, pass) alone.
    """

    def __init__(self, labels: np.ndarray, people: int, pictures: int, seed: int) -> None:
        self._own = [np.flatnonzero(labels == person) for person in range(int(labels.max()) + 1)]
        self._groups = np.array([-(-len(own) // pictures) for own in self._own])
        self.people, self.pictures, self.seed = people, pictures, seed
        self.steps = int(max(self._groups.max(), -(-self._groups.sum() // people)))
        self._made: dict[int, np.ndarray] = {}  # the one that is run and the next one, which the loader looks into

    def batch(self, step: int) -> np.ndarray:
        """The indices of a step's P * K pictures, K of a person beside each other."""
        number, at = divmod(step, self.steps)
        if number not in self._made:
            self._made = {each: batches for each, batches in self._made.items() if each in (number - 1, number + 1)}
            self._made[number] = self._make(number)
        return self._made[number][at]

    def _make(self, number: int) -> np.ndarray:
        random = np.random.default_rng([self.seed, number, 0, 1])  # of [seed, step, place], places count from 1
        groups = []
        for own in self._own:
            order, rest = random.permutation(own), -len(own) % self.pictures
            if rest > 0:
                before = order[: len(order) - len(order) % self.pictures]  # not in the last group
                order = np.concatenate([order, _some(before if len(before) else own, rest, random)])
            groups.append(order.reshape(-1, self.pictures))
        left = self._groups.copy()
        batches = np.empty((self.steps, self.people * self.pictures), np.int64)
        for batch in batches:
            rank = left + random.random(len(left))  # of those with as many left any
            chosen = np.argpartition(-rank, self.people - 1)[: self.people]
            chosen = chosen[np.argsort(-rank[chosen])]
            parts = [groups[p][left[p] - 1] if left[p] else _some(self._own[p], self.pictures, random) for p in chosen]
            left[chosen] -= left[chosen] > 0
            batch[:] = np.concatenate(parts)
        return batches[random.permutation(self.steps)]


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
    """Decodes pictures, and keeps them while they fit CACHE_BYTES; the next batch is made, up to the network's input, while
    the network computes."""

    def __init__(self, faces: Faces, dtype: torch.dtype = torch.float32, threads: int = 2) -> None:
        self.faces, self._dtype = faces, np.dtype(str(dtype).removeprefix("torch."))
        self._cache: dict[int, np.ndarray] = {}
        self._room = CACHE_BYTES // (SIZE * SIZE * 3)
        self._pool = concurrent.futures.ThreadPoolExecutor(threads)
        self._ahead: tuple[tuple, Batch] | None = None

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

    def _start(self, indices: np.ndarray, rows: range, key: tuple[int, int], strength: float) -> Batch:
        pixels = np.moveaxis(np.empty((len(rows), SIZE, SIZE, 3), self._dtype), -1, 1)  # channels last, as to_tensor()'s

        def one(row: int) -> None:
            picture = augment(self.picture(int(indices[row])), np.random.default_rng([*key, row + 1]), strength)
            pixels[row - rows.start] = scaled(picture, self._dtype)

        return Batch(pixels, [self._pool.submit(one, row) for row in rows])

    def batch(self, plan, step: int, rows: range, strength: float) -> tuple[torch.Tensor, np.ndarray]:
        """[len(rows), 3, SIZE, SIZE] of rows of the global batch of a step, and the labels of the whole batch.
        plan(step): the indices of that batch and its key."""
        ahead, self._ahead = self._ahead, None
        indices, key = plan(step)
        started = ahead[1] if ahead is not None and ahead[0] == (step, rows) else self._start(indices, rows, key, strength)
        pixels = started.wait()
        self._ahead = ((step + 1, rows), self._start(plan(step + 1)[0], rows, plan(step + 1)[1], strength))
        return pixels, self.faces.labels[indices]

    def plain(self, batches: list[np.ndarray]) -> Iterator[torch.Tensor]:
        """Pictures as they are, batch by batch; one is made ahead."""
        ahead = None
        for indices in [*batches, None]:
            started = None if indices is None else self._start(indices, range(len(indices)), (0, 0), 0)
            if ahead is not None:
                yield ahead.wait()
            ahead = started


@dataclasses.dataclass(frozen=True)
class Batch:
    """An array that threads fill."""

    pixels: np.ndarray
    rows: list[concurrent.futures.Future]

    def wait(self) -> torch.Tensor:
        for row in self.rows:
            row.result()
        return torch.from_numpy(self.pixels)
