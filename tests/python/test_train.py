"""tools/train.py and what it stands on: data, evaluation, resuming, several processes, collapse; the circle from rendered
photographs to the engine's evaluation is in test_recipe.py."""

from __future__ import annotations

import csv
import dataclasses
import errno
import fcntl
import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time

import convert_weights
import make_image_corpus
import numpy as np
import pytest
import torch
from PIL import Image

from conftest import TOOLS, assert_one_error, run_tool
from facenet_tools import checkpoint, onnx_files, pictures, sources, thresholds
from facenet_tools.cli import ToolError
from facenet_tools.training import data, loop, losses, parallel, protocol

# The narrowest network: a step with 12 pictures takes 0.15 s.
SMALL = ("--width", "0.0625", "--dim", "16", "--people", "4", "--pictures", "3", "--steps", "4", "--threads", "1")


@pytest.fixture(scope="session")
def crops(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """8 people with 5 pictures each: one made-up picture a person, with noise and shifts."""
    root = tmp_path_factory.mktemp("crops")
    for person in range(8):
        random = np.random.default_rng(person)
        face = pictures.structured(random).astype(np.int64)
        (root / f"p{person}").mkdir()
        for number in range(1, 6):
            moved = np.roll(face, random.integers(-9, 10, 2), axis=(0, 1)) + random.integers(-25, 26, face.shape)
            Image.fromarray(np.clip(moved, 0, 255).astype(np.uint8)).save(root / f"p{person}" / f"p{person}_{number:04}.png")
    return root


def train(crops: pathlib.Path, run: pathlib.Path, *options: object):
    return run_tool("train.py", crops, "-o", run, *SMALL, *options)


def logged(run: pathlib.Path, column: str = "loss") -> list[float]:
    with open(run / "steps.csv", newline="") as file:
        return [float(row[column]) for row in csv.DictReader(file)]


def same_state(one: pathlib.Path, other: pathlib.Path) -> bool:
    """Every tensor and number of two checkpoints, to the bit."""

    def equal(a, b) -> bool:
        if isinstance(a, torch.Tensor):
            return torch.equal(a, b)
        if isinstance(a, np.ndarray):
            return np.array_equal(a, b)
        if isinstance(a, dict):
            return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
        if isinstance(a, (list, tuple)):
            return len(a) == len(b) and all(map(equal, a, b))
        return a == b

    return equal(torch.load(one), torch.load(other))


# ---- Data ------------------------------------------------------------------------------------------------------------


def test_bad_data_is_listed_before_training_starts(crops: pathlib.Path, tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "faces"
    shutil.copytree(crops, folder)
    (folder / "p0" / "broken.png").write_bytes(b"no picture")
    cut = (folder / "p1" / "p1_0001.png").read_bytes()
    (folder / "p1" / "cut.png").write_bytes(cut[: len(cut) // 2])
    shutil.copy(folder / "p2" / "p2_0001.png", folder / "p2" / "again.png")
    shutil.copy(folder / "p3" / "p3_0001.png", folder / "p4" / "foreign.png")
    with Image.open(folder / "p7" / "p7_0001.png") as picture:  # the same pixels in other bytes
        picture.save(folder / "p7" / "recoded.png", compress_level=0)
    (folder / "alone").mkdir()
    shutil.copy(crops / "p5" / "p5_0002.png", folder / "alone")  # also p5's: neither stays
    (folder / "empty").mkdir()
    Image.new("RGB", (50, 60), (9, 8, 7)).save(folder / "p6" / "other_size.png")
    (folder / "p6" / "notes.txt").write_text("no picture, and no error")
    result = train(folder, tmp_path / "run", "--epochs", 1, "--validation-share", 0)
    assert result.returncode == 0, result.stderr
    listed = (tmp_path / "run" / "findings.txt").read_text()
    for line in (
        "unreadable, left out: p0/broken.png", "unreadable, left out: p1/cut.png",
        "left out once: p2/p2_0001.png equals again.png", "left out once: p7/recoded.png equals p7_0001.png", "both left out: p4/foreign.png equals p3/p3_0001.png",
        "both left out: p5/p5_0002.png equals alone/p5_0002.png", "people with fewer than 2 pictures, left out: alone (0)",
        "left out: empty (0)", "1 files of other kinds are left out: .txt", "1 pictures are not 160x160 and are resized",
    ):  # fmt: skip
        assert line in listed and line in result.stderr, line
    assert "39 pictures of 8 people" in result.stderr


@pytest.mark.parametrize(("options", "parts"), [
    (("--people", 30), ("people to train on, and a batch wants 30", "lower --people")),
    (("--width", 0.3), ("--width must be a multiple of 1/16",)),
    (("--pictures", 1), ("there is no triplet",)),
    (("--rate", "nan"), ("--rate must be from",)),
    (("--freeze", "repeat_1"), ("--freeze would keep random weights", "--from CHECKPOINT")),
    (("--loss", "softmax", "--margin", 0.1), ("--margin is for --loss triplet and arcface",)),
    (("--loss", "arcface", "--margin", 3.2), ("from 0 to 3.14",)),
    (("--scale", 8), ("--scale is for --loss softmax and arcface",)),
    (("--threads", 1024), ("--threads must be from 0 to 256",)),
    (("-o", ""), ("the name of RUN is empty",)),
    (("--people", 5, "--validation-share", 0.9), ("cannot be split", "another --validation-share")),
    (("--from", "nothing.pt"), ("nothing.pt: does not exist",)),
    (("--validate", "nowhere"), ("nowhere: is not a folder",)),
])  # fmt: skip
def test_wrong_calls_name_the_remedy(options, parts, crops: pathlib.Path, tmp_path: pathlib.Path) -> None:
    assert_one_error(train(crops, tmp_path / "run", *options), *parts)


def test_wrong_folders_name_the_remedy(crops: pathlib.Path, tmp_path: pathlib.Path) -> None:
    assert_one_error(train(crops, tmp_path / "run", "--validate", f"{crops}/../{crops.name}"), "is the folder that is trained on")
    assert_one_error(train(crops / "p0", tmp_path / "run"), "holds pictures and no folders, as one person's own does")
    (tmp_path / "empty").mkdir()
    assert_one_error(train(tmp_path / "empty", tmp_path / "run"), "empty: holds no folders; give the folder that holds")


def test_files_that_are_no_pictures_are_listed(crops: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A bomb, another kind under a PNG's name, a pipe, a name that is not UTF-8, one with a line feed, a folder that cannot be read."""
    folder = tmp_path / "faces"
    shutil.copytree(crops, folder)
    wide = make_image_corpus.chunk(b"IHDR", struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0))
    (folder / "p0" / "bomb.png").write_bytes(make_image_corpus.PNG_SIGNATURE + wide + make_image_corpus.chunk(b"IDAT", b""))
    Image.new("RGB", (160, 160)).save(folder / "p0" / "other.png", "bmp")
    os.mkfifo(folder / "p0" / "pipe.png")
    (folder / "p0" / "one.gif").write_bytes(b"")
    odd = folder / os.fsdecode(b"q\xff\n")
    shutil.copytree(crops / "p7", odd)
    shutil.rmtree(folder / "p7")
    faces, findings = data.scan(str(folder))
    assert [line.split(" (")[0].split(": ")[1] for line in findings.lines() if "unreadable" in line] == [
        f"p0/{name}.png" for name in ("bomb", "other", "pipe")
    ]
    assert "1 files of other kinds are left out: .gif" in findings.lines() and len(faces.people) == 8
    shutil.copy(odd / "p7_0001.png", odd / "again.png")
    result = train(folder, tmp_path / "run", "--epochs", 1, "--validation-share", 0)
    assert result.returncode == 0, result.stderr
    assert r"left out once: q\udcff\n/p7_0001.png equals again.png" in (tmp_path / "run" / "findings.txt").read_text()
    if os.geteuid() != 0:
        odd.chmod(0)
        assert any("Permission denied" in line for line in data.scan(str(folder))[1].lines())


def test_pixels_are_the_engines(tmp_path: pathlib.Path) -> None:
    """decode() on the corpus that image_io.hpp passes: 16 bits, orientation, alpha over white."""
    checked, refused = 0, set()
    for case in make_image_corpus.png_cases():
        # Pillow compares the transparent colour at another depth in these, and refuses an index after the palette's end.
        if case.pixels is None or "past-end" in case.name or (re.search("(2|4|16)bit-trns", case.name) and "palette" not in case.name):
            continue
        path = tmp_path / "picture.png"
        path.write_bytes(case.data)
        want = Image.fromarray(case.pixels).resize((160, 160), Image.Resampling.BILINEAR)
        try:
            got = data.decode(path)[0]
        except (OSError, ValueError):
            refused.add(case.name)
            continue
        assert np.array_equal(got, want), case.name
        checked += 1
    assert checked > 80
    # Pillow refuses these, which libpng shows and the engine too.
    assert refused == {"png-cut-in-text", "png-short-transparency", "png-long-transparency"}
    plain = pictures.structured(np.random.default_rng(0))
    Image.fromarray(plain).save(tmp_path / "plain.png")
    assert np.array_equal(data.decode(tmp_path / "plain.png")[0], plain)


def test_splits_keep_people_whole(crops: pathlib.Path) -> None:
    faces, findings = data.scan(str(crops))
    assert not findings.lines() and len(faces.paths) == 40
    first, second = (data.split(faces, 0.25, seed, "--share") for seed in (1, 2))
    for part, other in (first, second):
        assert len(part.people) == 6 and len(other.people) == 2 and not set(part.people) & set(other.people)
        assert all(path.parent.name == part.people[label] for path, label in zip(part.paths, part.labels))
    assert first[1].people != second[1].people


@pytest.mark.parametrize(("counts", "people", "pictures"), [
    ((5,) * 8, 4, 3), ((1, 2, 3, 4, 5, 30), 3, 4), ((2, 40, 2), 2, 4), ((7, 7), 2, 2), (tuple(range(2, 40)), 16, 4), ((3, 3, 3), 2, 8),
])  # fmt: skip
def test_a_pass_shows_every_picture(counts, people: int, pictures: int) -> None:
    """In the fewest steps, P people in each and K pictures of each; another pass has another order; nothing has a state."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    passes = data.Passes(labels, people, pictures, seed=5)
    groups = [-(-count // pictures) for count in counts]
    assert passes.steps == max(*groups, -(-sum(groups) // people))
    for number in (0, 1):
        batches = [passes.batch(step) for step in range(number * passes.steps, (number + 1) * passes.steps)]
        for batch in batches:
            rows = labels[batch].reshape(people, pictures)
            assert (rows == rows[:, :1]).all() and len(set(rows[:, 0].tolist())) == people
            for person in batch.reshape(people, pictures):  # none twice where there are enough
                assert len(set(person.tolist())) == min(pictures, counts[labels[person[0]]])
        assert set(np.concatenate(batches).tolist()) == set(range(len(labels))), "pictures were never shown"
    later = data.Passes(labels, people, pictures, seed=5).batch(passes.steps + 1)  # as a run that goes on there
    assert (later == passes.batch(passes.steps + 1)).all()
    others = [data.Passes(labels, people, pictures, seed).batch(0).tolist() for seed in (5, 6)]
    assert len(labels) < 6 or (others[0] != others[1] and passes.batch(passes.steps).tolist() != others[0])


def test_an_epoch_is_a_pass(crops: pathlib.Path, tmp_path: pathlib.Path, monkeypatch) -> None:
    shown, batch = {}, data.Passes.batch
    monkeypatch.setattr(loop.Trainer, "settle_norms", lambda _self: None)
    monkeypatch.setattr(data.Passes, "batch", lambda self, step: shown.setdefault(step, batch(self, step)))
    small = SMALL[: SMALL.index("--steps")]
    result = run_tool("train.py", crops, "-o", tmp_path / "run", *small, "--threads", 1, "--epochs", 1, "--validation-share", 0)
    assert result.returncode == 0, result.stderr
    assert "1 epochs of 4 steps of 12, every picture in 4" in result.stderr  # 8 people of 2 groups, 4 a step
    assert len(np.unique(np.concatenate([shown[step] for step in range(4)]))) == 40


def test_a_scan_is_remembered_and_done_in_threads(crops: pathlib.Path, tmp_path: pathlib.Path, monkeypatch) -> None:
    folder, file = tmp_path / "faces", tmp_path / "pictures.json"
    shutil.copytree(crops, folder)
    (folder / "p0" / "broken.png").write_bytes(b"no picture")
    monkeypatch.setattr(data.Looks, "RACY_S", -10)
    threads, look = set(), data.look

    def watched(path: pathlib.Path) -> data.Look:
        threads.add(threading.get_ident())
        time.sleep(0.001)
        return look(path)

    monkeypatch.setattr(data, "look", watched)

    def scanned() -> tuple[str, list[str], int]:
        looks = data.Looks(file, threads=3)
        faces, findings = data.scan(str(folder), looks)
        looks.save()
        return faces.digest(), findings.lines(), len(looks.read)

    plain = data.scan(str(folder))
    first, again = scanned(), scanned()
    assert len(threads) > 1 and threading.get_ident() not in threads
    assert (plain[0].digest(), plain[1].lines()) == first[:2] == again[:2]
    assert first[2] == 41 and again[2] == 1  # what could not be read is tried again
    changed = folder / "p1" / "p1_0001.png"
    times = changed.stat()
    changed.write_bytes(changed.read_bytes()[::-1])  # as long as before, and as old
    os.utime(changed, ns=(times.st_atime_ns, times.st_mtime_ns))
    other = scanned()
    assert other[2] == 2 and other[:2] != first[:2] and any("p1/p1_0001.png" in line for line in other[1])
    for broken in (b"", b"[" * 60000, b'{"format": "facenet-looks", "version": 1, "files": 5}', b'{"format": "facenet-looks", "version": 1, "files": {"x": [1]}}'):
        file.write_bytes(broken)
        assert scanned()[:2] == other[:2]
    monkeypatch.setattr(data.Looks, "RACY_S", 1e6)  # all are too new to be remembered
    file.unlink()
    scanned()
    assert scanned()[2] == 41


def test_folders_of_systems_are_nobody(crops: pathlib.Path, tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "faces"
    shutil.copytree(crops, folder)
    for name in ("@Recycle", "@eaDir", "$RECYCLE.BIN", "lost+found", "p3/@eaDir"):
        shutil.copytree(crops / "p0", folder / name)
    faces, findings = data.scan(str(folder))
    assert faces.people == [f"p{i}" for i in range(8)] and len(faces.paths) == 40
    assert findings.lines() == ["5 folders of systems are left out: $RECYCLE.BIN, @Recycle, @eaDir, lost+found, p3/@eaDir"]


def test_pictures_that_are_trained_on_do_not_validate(crops: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Byte for byte, in another file format's bytes, and mirrored: each is named, and its person takes no part."""
    trained, held_out = tmp_path / "trained", tmp_path / "held_out"
    for person in range(8):
        target = trained / f"p{person}" if person < 4 else held_out / f"q{person}"
        shutil.copytree(crops / f"p{person}", target)
    shutil.copy(trained / "p0" / "p0_0002.png", held_out / "q4" / "copy.png")
    with Image.open(trained / "p1" / "p1_0003.png") as picture:
        picture.save(held_out / "q5" / "again.png", compress_level=0)
        picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(held_out / "q5" / "mirrored.png")
    assert (held_out / "q5" / "again.png").read_bytes() != (trained / "p1" / "p1_0003.png").read_bytes()
    run = tmp_path / "run"
    result = train(trained, run, "--validate", held_out, "--epochs", 1)
    assert result.returncode == 0, result.stderr
    for line in ("q4/copy.png equals p0/p0_0002.png", "q5/again.png equals p1/p1_0003.png", "q5/mirrored.png equals p1/p1_0003.png",
                 "3 pictures held out are trained on too; the 2 people whose they are take no part"):  # fmt: skip
        assert line in (run / "findings.txt").read_text() and line in result.stderr, line
    assert "20 pictures of 4 people, held out: 10 of 2" in result.stderr
    shutil.copy(trained / "p2" / "p2_0001.png", held_out / "q6")
    refused = train(trained, tmp_path / "other", "--validate", held_out, "--epochs", 1)
    assert_one_error(refused, "q6/p2_0001.png equals p2/p2_0001.png", "1 are left; there must be 2", "Hold out people who are not in")


def test_a_mirrored_copy_under_another_name_does_not_validate(crops: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Where FACES itself is split: the two pictures are not equal, so scan() keeps both."""
    folder = tmp_path / "faces"
    shutil.copytree(crops, folder)
    faces, others = data.split(data.scan(str(folder))[0], 0.5, 1, "--share")
    with Image.open(faces.paths[0]) as picture:
        picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / others.people[0] / "mirrored.png")
    result = train(folder, tmp_path / "run", "--epochs", 1, "--validation-share", 0.5)
    assert result.returncode == 0, result.stderr
    assert f"{others.people[0]}/mirrored.png equals {faces.people[0]}/{faces.paths[0].name}" in result.stderr
    assert "held out: 15 of 3" in result.stderr


def test_pixels_are_scaled_to_the_bit() -> None:
    """Each value of a byte, by the definition in double; the batch of the loader is made so, and not in the main thread."""
    every = np.arange(256, dtype=np.uint8)
    stack = np.stack([np.stack([every, every[::-1], np.roll(every, 7)], axis=-1).reshape(16, 16, 3)] * 2)
    wide = torch.from_numpy(stack).permute(0, 3, 1, 2).double()
    means = torch.tensor(pictures.MEANS, dtype=torch.float64).reshape(3, 1, 1)
    wanted = {"fixed": (wide - 127.5) / 128, "unit": wide / 255, "mean_255": (wide - means) / 255}
    for dtype in (torch.float32, torch.float64):
        for scaling, want in wanted.items():
            got = pictures.to_tensor(stack, dtype, scaling)
            assert got.dtype == dtype and got.shape == want.shape and got.stride() == want.stride()
            assert torch.equal(got, want.to(dtype)), (scaling, dtype)


def test_batches_are_made_in_threads(crops: pathlib.Path, monkeypatch) -> None:
    faces, _findings = data.scan(str(crops))
    makers, scaled = set(), data.scaled
    monkeypatch.setattr(data, "scaled", lambda *arguments: makers.add(threading.get_ident()) or scaled(*arguments))
    for dtype in (torch.float32, torch.float64):
        loader = data.Loader(faces, dtype)
        plan = lambda step: (np.array([step, 7, 11, 39]), (1, step))  # noqa: E731
        for step in (3, 4):  # the second was made ahead
            got, labels = loader.batch(plan, step, range(1, 3), 0.7)
            want = np.stack([
                data.augment(data.decode(faces.paths[i])[0], np.random.default_rng([1, step, place + 1]), 0.7)
                for place, i in ((1, 7), (2, 11))
            ])  # fmt: skip
            assert torch.equal(got, pictures.to_tensor(want, dtype)) and labels.tolist() == faces.labels[[step, 7, 11, 39]].tolist()
        parts = list(loader.plain([np.array([5, 6]), np.array([7])]))
        want = pictures.to_tensor(np.stack([data.decode(faces.paths[i])[0] for i in (5, 6, 7)]), dtype)
        assert [len(part) for part in parts] == [2, 1] and torch.equal(torch.cat(parts), want)
    assert makers and threading.get_ident() not in makers


def test_augmentation_moves_pixels_and_is_a_function_of_its_key() -> None:
    picture = pictures.structured(np.random.default_rng(1))
    assert data.augment(picture, np.random.default_rng(1), 0) is picture
    one, again, other = (data.augment(picture, np.random.default_rng(seed), 1) for seed in (1, 1, 2))
    assert one.shape == picture.shape and one.dtype == np.uint8
    assert (one == again).all() and (one != other).mean() > 0.5


def test_augmentation_mirrors_half_and_shifts_by_a_twentieth() -> None:
    """A disc in the middle, of a colour that light, contrast and the erased patch do not have; turns and sizes leave its centre."""
    picture = pictures.structured(np.random.default_rng(3))
    mirrored = [np.abs(other - picture.astype(int)).mean() for other in (picture, picture[:, ::-1].astype(int))]
    draws = [data.augment(picture, np.random.default_rng(seed), 0.01).astype(int) for seed in range(100)]
    flips = sum(np.abs(draw - picture[:, ::-1]).mean() < np.abs(draw - picture).mean() for draw in draws)
    assert mirrored[1] > 10 and 30 <= flips <= 70  # 4 deviations of 100 tosses
    y, x = np.mgrid[0:160, 0:160]
    disc = np.full((160, 160, 3), 90, np.uint8)
    disc[(y - 79.5) ** 2 + (x - 79.5) ** 2 <= 64] = (140, 90, 90)
    moved = []
    for seed in range(150):
        shown = data.augment(disc, np.random.default_rng(seed), 1).astype(int)
        red = (shown[..., 0] - shown[..., 2]).clip(0)
        if red.sum() > 0.6 * 50 * 200:  # contrast and size take up to 0.75 * 0.85; less is under the patch
            moved.append([(red * x).sum() / red.sum() - 79.5, (red * y).sum() / red.sum() - 79.5])
    moved = np.array(moved)
    assert len(moved) > 80
    assert (np.abs(moved).max(0) <= 0.05 * 160 * 1.08 / 0.92 + 0.5).all() and (np.ptp(moved, axis=0) >= 12).all()


# ---- Evaluation ------------------------------------------------------------------------------------------------------


def test_scores_are_scikit_learns_and_the_folds_are_lfws() -> None:
    from sklearn import metrics

    random = np.random.default_rng(2)
    labels = np.repeat(np.arange(30), 6)
    centres = random.normal(size=(30, 8))
    vectors = centres[labels] + 0.9 * random.normal(size=(180, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    pairs = protocol.make_pairs(labels, 20, seed=3)
    assert len(pairs.same) == 400 and pairs.same.sum() == 200
    assert ((labels[pairs.first] == labels[pairs.second]) == pairs.same).all()
    assert len({tuple(sorted(pair)) for pair in zip(pairs.first.tolist(), pairs.second.tolist())}) == 400
    for fold in range(10):
        people = {labels[i] for side in (pairs.first, pairs.second) for i in side[pairs.fold == fold]}
        assert people and not people & {labels[i] for side in (pairs.first, pairs.second) for i in side[pairs.fold != fold]}
    score = protocol.evaluate(vectors, pairs)
    squared = np.square(vectors[pairs.first] - vectors[pairs.second]).sum(1)
    assert abs(score.auc - metrics.roc_auc_score(pairs.same, -squared)) <= 1e-12
    fpr, tpr, _limits = metrics.roc_curve(pairs.same, -squared, drop_intermediate=False)
    assert np.allclose(score.fpr, fpr, atol=1e-12) and np.allclose(score.tpr, tpr, atol=1e-12)
    accuracies = []
    for fold in range(10):  # the definition, a threshold after the other
        rest = pairs.fold != fold
        right = [((squared[rest] < t) == pairs.same[rest]).mean() for t in np.arange(0, 4, 0.01)]
        accuracies.append(((squared[~rest] < 0.01 * np.argmax(right)) == pairs.same[~rest]).mean())
    assert abs(score.accuracy - np.mean(accuracies)) <= 1e-12
    assert 0.6 < score.accuracy < 0.99


def test_few_people_share_folds_and_too_few_are_an_error() -> None:
    pairs = protocol.make_pairs(np.repeat(np.arange(4), 6), 60, seed=1)
    assert len(pairs.same) == 2 * 10 * 6  # 60 genuine pairs, a tenth of them in each fold
    with pytest.raises(ToolError, match="too few for 10 folds"):
        protocol.make_pairs(np.repeat(np.arange(2), 3), 60, seed=1)


def test_baselines_find_a_threshold_among_distances_below_the_protocols_step() -> None:
    """As those of random weights are: the protocol takes all for one person, though AUC is 1."""
    labels = np.repeat(np.arange(20), 4)
    vectors = np.eye(20)[labels] * 1e-3 + np.random.default_rng(1).normal(size=(80, 20)) * 1e-5
    pairs = protocol.make_pairs(labels, 6, seed=1)
    assert protocol.evaluate(vectors, pairs).accuracy == 0.5
    own = protocol.evaluate(vectors, pairs, own_thresholds=True)
    assert own.auc == 1.0 and own.accuracy >= 0.95  # just above the largest genuine one of the other folds


# ---- Schedules, freezing, collapse -------------------------------------------------------------------------------------


def options(**changes) -> loop.Options:
    values = dict(
        dim=16, width=0.0625, start="", freeze="", loss="triplet", mining="semi_hard", margin=0.2, scale=16.0,
        centre_weight=0.1, people=4, pictures=3, epochs=10, steps=10, rate=1.0, schedule="cosine", warmup=10, decay=0.0,
        decay_all=False, optimiser="adamw", dropout=0.0, augment=1.0, keep="best", precision="single", seed=1, data="",
    )  # fmt: skip
    return loop.Options(**{**values, **changes})


def test_schedules() -> None:
    cosine, falls = options(), options(schedule="step", warmup=0)
    assert [loop.rate_at(step, cosine) for step in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert [loop.rate_at(step, cosine) for step in (10, 55, 99)] == pytest.approx([1.0, 0.5, 0.0003], abs=1e-4)
    assert [loop.rate_at(step, falls) for step in (0, 59, 60, 84, 85)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])


@pytest.mark.slow
def test_frozen_stages_stay_to_the_bit(crops: pathlib.Path, tmp_path: pathlib.Path) -> None:
    first = train(crops, tmp_path / "first", "--epochs", 1)
    assert first.returncode == 0, first.stderr
    start = tmp_path / "first" / "best.pt"
    tuned = train(crops, tmp_path / "tuned", "--epochs", 1, "--from", start, "--freeze", "repeat_2", "--rate", 1e-3)
    assert tuned.returncode == 0, tuned.stderr
    before, after = torch.load(start), torch.load(tmp_path / "tuned" / "best.pt")
    stages = [name for name, _child in checkpoint.build_model(16, width=0.0625).named_children()]
    frozen = set(stages[: stages.index("repeat_2") + 1])
    for name, value in before.items():
        if name.split(".")[0] in frozen and not name.endswith("num_batches_tracked"):  # which converting drops
            assert torch.equal(value, after[name]), f"{name} was trained"
    assert not torch.equal(before["last_linear.weight"], after["last_linear.weight"])
    wrong = train(crops, tmp_path / "wrong", "--from", start, "--dim", 32)
    assert_one_error(wrong, "has --dim 16 --width 0.0625")
    assert_one_error(train(crops, tmp_path / "wrong", "--from", tmp_path / "first" / "last.pt"), "give best.pt of that folder")
    for stage, part in (("stem", "stages of this network are conv2d_1a"), ("dropout", "stages of this"), ("last_bn", "nothing to train")):
        assert_one_error(train(crops, tmp_path / "wrong", "--from", start, "--freeze", stage), part)


def test_networks_that_cannot_be_tuned_are_refused(crops: pathlib.Path, tmp_path: pathlib.Path, monkeypatch) -> None:
    """Folded batch norms, under any name; other pixels than training feeds."""
    first = train(crops, tmp_path / "first", "--epochs", 1, "--validation-share", 0)
    assert first.returncode == 0, first.stderr
    start, converted, back = tmp_path / "first" / "best.pt", tmp_path / "converted.safetensors", tmp_path / "back.pt"
    for call in ((start, "-o", converted), (converted, "-o", back, "--to", "pt")):
        done = run_tool("convert_weights.py", *call)
        assert done.returncode == 0, done.stderr
    for path in (converted, back):
        assert_one_error(train(crops, tmp_path / "run", "--from", path), "batch norms are folded", "give the checkpoint it was made from")
    read = sources.read
    monkeypatch.setattr(sources, "read", lambda path: read(path, scaling="prewhiten"))
    assert_one_error(train(crops, tmp_path / "run", "--from", start), "scaling prewhiten")


@pytest.mark.slow
def test_which_epoch_is_kept(crops: pathlib.Path, tmp_path: pathlib.Path, monkeypatch) -> None:
    """The second of three epochs is called the best: one keeps it, the other the last."""
    kept = {}
    for keep in ("best", "last"):
        scores = iter([0.5, 0.9, 0.7])
        empty = np.zeros(0)
        monkeypatch.setattr(loop.Trainer, "validate", lambda _self, scores=scores: protocol.Score(next(scores), 0, 0.5, 0.5, 0, 1, empty, empty))
        monkeypatch.setattr(loop.Trainer, "baselines", lambda _self: {})
        run = tmp_path / keep
        result = train(crops, run, "--epochs", 3, "--steps", 1, "--keep", keep)
        assert result.returncode == 0, result.stderr
        assert result.stdout.startswith(f"{keep}: accuracy 0.{'9' if keep == 'best' else '7'}")
        measured, score = json.loads((run / "best.json").read_text()), 0.9 if keep == "best" else 0.7
        assert measured["checkpoint_sha256"] == hashlib.sha256((run / "best.pt").read_bytes()).hexdigest()
        assert (measured["threshold"], measured["accuracy"]) == (1, score)
        pairs = len((run / "pairs.txt").read_text().splitlines()) - 1
        assert measured["threshold_source"] == f"train.py on {pairs} pairs of 2 people held out, accuracy {score:.4f}"
        kept[keep] = torch.load(run / "best.pt")["last_linear.weight"], torch.load(run / "last.pt")["model"]["last_linear.weight"]
    assert torch.equal(*kept["last"]) and not torch.equal(*kept["best"])


def test_collapse_is_seen_and_explained() -> None:
    watch = loop.CollapseWatch(0.2)
    for _ in range(200):  # far apart, every other batch: nothing to say
        watch.see(0.2, 1.3)
        watch.see(0.01, 0.05)
    with pytest.raises(loop.Collapsed, match="have collapsed.*0.2000, and the margin 0.2.*batch_hard"):
        for _ in range(2 * watch.STEPS):  # jumping, so never below 0.1 for long
            watch.see(0.2, 0.04)
            watch.see(0.2, 0.2)
    random = np.random.default_rng(1).normal(size=(20, 16))
    watch.see_held_out(random / 1000)  # what random weights give
    for broken, what in ((np.ones((20, 16)) + random * 1e-7, "held out are equal"), (random / 0, "overflowed")):
        with pytest.raises(loop.Collapsed, match=what), np.errstate(divide="ignore"):
            watch.see_held_out(broken)
    for loss, impostor in ((float("nan"), 1), (0.0, float("nan")), (float("inf"), 1)):
        with pytest.raises(loop.Collapsed, match="overflowed"):
            loop.CollapseWatch(None).see(loss, impostor)


@pytest.mark.slow
@pytest.mark.parametrize("mining", losses.MININGS)
def test_overflow_ends_a_run_under_every_mining(mining: str, crops: pathlib.Path, tmp_path: pathlib.Path, monkeypatch) -> None:
    """A weight becomes NaN in the second step: the third one's embeddings show it, or what is to be saved after the second."""
    step = loop.Trainer.train_step

    def broken(trainer):
        row = step(trainer)
        if trainer.step == 2:
            trainer.model.last_linear.weight.data[0, 0] = float("nan")
        return row

    monkeypatch.setattr(loop.Trainer, "train_step", broken)
    for steps, every in ((4, 4), (4, 2), (2, 2)):
        run = tmp_path / f"{steps}_{every}"
        result = train(crops, run, "--mining", mining, "--steps", steps, "--save-every", every, "--epochs", 1,
                       "--validation-share", 0)  # fmt: skip
        assert result.returncode == 1 and "numbers have overflowed" in result.stderr, result.stderr
        assert not (run / "best.pt").exists() and not (run / "last.pt").exists() and (run / "curves.png").exists()


@pytest.mark.slow
def test_a_run_that_collapses_ends_with_status_1(crops: pathlib.Path, tmp_path: pathlib.Path, monkeypatch) -> None:
    """A network whose last batch norm only shifts: all faces are one point, and stay so."""
    built = checkpoint.build_model

    def shifting(*arguments, **keywords):
        model = built(*arguments, **keywords)
        torch.nn.init.zeros_(model.last_bn.weight)
        torch.nn.init.ones_(model.last_bn.bias)
        return model

    monkeypatch.setattr(checkpoint, "build_model", shifting)
    result = train(crops, tmp_path / "run", "--mining", "batch_hard", "--epochs", 12, "--rate", 1e-9, "--validation-share", 0)
    assert result.returncode == 1
    assert (tmp_path / "run" / "curves.png").exists()
    assert "embeddings have collapsed" in result.stderr and "the loss is 0.2000" in result.stderr


# ---- Kills -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["triplet", pytest.param("arcface", marks=pytest.mark.long)])
def test_resumes_to_the_bit_after_sigkill(loss: str, crops: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Killed between a checkpoint and the next, with steps logged that the checkpoint does not know."""
    call = ("--epochs", 4, "--loss", loss, "--save-every", 3, "--dropout", 0.3, "--mining", "batch_all")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert train(crops, whole, *call).returncode == 0
    command = [sys.executable, TOOLS / "train.py", crops, "-o", killed, *SMALL, *call]
    process = subprocess.Popen([str(part) for part in command], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not (killed / "last.pt").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    reached = torch.load(killed / "last.pt")["step"]
    assert 3 <= reached < 16, "the run was over before the kill"
    refused = train(crops, killed, *call)
    assert_one_error(refused, "add --resume")
    assert_one_error(train(crops, killed, *call, "--resume", "--rate", 1), "was begun with rate 0.002, now 1.0")
    resumed = train(crops, killed, *call, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert f"going on from step {reached}" in resumed.stderr
    for name in ("steps.csv", "epochs.csv", "roc.csv", "pairs.txt", "best.json"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    assert same_state(killed / "last.pt", whole / "last.pt")
    assert same_state(killed / "best.pt", whole / "best.pt")


@pytest.mark.slow
def test_what_is_resumed_is_ours_and_of_the_same_pictures(crops: pathlib.Path, tmp_path: pathlib.Path) -> None:
    folder, run = tmp_path / "faces", tmp_path / "run"
    shutil.copytree(crops, folder)
    call = ("--epochs", 1, "--loss", "arcface", "--validation-share", 0.3)
    assert train(folder, run, *call).returncode == 0
    (run / f".last.pt.{os.getpid()}.tmp").write_bytes(b"left by a kill")
    resumed = train(folder, run, *call, "--resume")  # a finished one
    assert resumed.returncode == 0 and resumed.stdout.startswith("best: accuracy"), resumed.stderr
    assert not list(run.glob(".*.tmp"))
    with open(run / ".lock") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert_one_error(train(folder, run, *call, "--resume"), "another train.py is at work there")
    (folder / "p0").rename(folder / "other")
    assert_one_error(train(folder, run, *call, "--resume"), "was begun with other pictures or people")
    shutil.rmtree(folder / "other")
    assert_one_error(train(folder, run, *call, "--resume"), "was begun with other pictures or people")
    for foreign, part in (({"model": {}}, "is not what this train.py writes"), (pathlib.PurePosixPath("x"), "cannot be read")):
        torch.save(foreign, run / "last.pt")  # the second is an object, which weights_only does not make
        assert_one_error(train(folder, run, *call, "--resume"), part)


def test_a_full_disk_is_a_sentence(crops: pathlib.Path, tmp_path: pathlib.Path, monkeypatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(loop.os, "fsync", lambda descriptor: full(descriptor) if (tmp_path / "run" / "roc.csv").exists() else None)
    assert_one_error(train(crops, tmp_path / "run", "--epochs", 1), "cannot be written (No space left on device)")


def test_pairs_want_each_number_once(tmp_path: pathlib.Path) -> None:
    names = ["a/a_0001.png", "a/a_0002.png", "b/b_0001.png", "b/b_0002.png"]
    pairs = protocol.Pairs(np.array([0]), np.array([1]), np.array([True]), np.array([0]))
    for last, fine in (("b/b_0002.png", True), ("b/b_0001.jpg", False), ("b/b_2.png", False)):
        faces = data.Faces(["a", "b"], [tmp_path / name for name in [*names[:3], last]], np.array([0, 0, 1, 1]), [b""] * 4)
        assert loop.write_pairs(tmp_path / "pairs.txt", pairs, faces) == fine


# ---- Several processes -------------------------------------------------------------------------------------------------

# float64: two processes add in another order than one, so numbers differ by some 1e-16, which 132 layers and their
# batch norms amplify by about a hundredfold a step (AdamW divides small gradients by their own size).
SAME_CURVE = 1e-6


# PyTorch 1.13 on Python 3.11 cannot read its own defaults of these two; a rank that is not there leaves all as they are.
LAUNCH = ("--redirects", "9:1", "--tee", "9:1")


def torchrun(crops: pathlib.Path, run: pathlib.Path, *call: object, processes: int = 2, restarts: int = 0) -> subprocess.Popen:
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", processes,
        "--max_restarts", restarts, "--monitor_interval", "0.2", *LAUNCH, TOOLS / "train.py", crops, "-o", run, *SMALL, *call,
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([str(part) for part in command], env=environment, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("loss", losses.LOSSES)
def test_two_processes_train_as_one(loss: str, crops: pathlib.Path, tmp_path: pathlib.Path) -> None:
    call = ("--epochs", 2, "--precision", "double", "--loss", loss, "--mining", "batch_all", "--warmup", 0)
    assert train(crops, tmp_path / "one", *call).returncode == 0
    process = torchrun(crops, tmp_path / "two", *call)
    errors = process.communicate()[1]
    assert process.returncode == 0, errors
    one, two = logged(tmp_path / "one"), logged(tmp_path / "two")
    assert len(one) == len(two) == 8
    difference = np.abs(np.array(one) / two - 1)
    print(f"{loss}: losses of one and of two processes differ by {difference.max():.1e}")
    assert difference[0] <= 1e-12 and difference.max() <= SAME_CURVE
    assert np.ptp(one) > 1e-3, "nothing was trained"
    states = [torch.load(tmp_path / name / "last.pt")["model"] for name in ("one", "two")]
    assert states[0].keys() == states[1].keys()  # a checkpoint of one goes on with two, and back
    running = "conv2d_1a.bn.running_var"
    assert torch.allclose(states[0][running], states[1][running], rtol=1e-6)


@pytest.mark.long
@pytest.mark.slow
def test_a_killed_worker_is_resumed(crops: pathlib.Path, tmp_path: pathlib.Path) -> None:
    call = ("--epochs", 4, "--save-every", 2, "--resume")
    whole = torchrun(crops, tmp_path / "whole", *call)
    assert whole.wait() == 0
    run = tmp_path / "killed"
    process = torchrun(crops, run, *call, restarts=1)
    deadline = time.monotonic() + 300
    while not (run / "last.pt").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    workers = [child for child in children if b"train.py" in pathlib.Path(f"/proc/{child}/cmdline").read_bytes()]
    assert len(workers) == 2
    os.kill(int(workers[1]), signal.SIGKILL)
    errors = process.communicate()[1]
    assert process.returncode == 0, errors
    assert "going on from step" in errors
    assert (run / "steps.csv").read_bytes() == (tmp_path / "whole" / "steps.csv").read_bytes()


def test_a_shared_batch_norm_is_torchs() -> None:
    """One process's group: values, gradients and running statistics of our batch norm and of torch's."""
    torch.manual_seed(0)
    for original, shape in ((torch.nn.BatchNorm2d(5), (6, 5, 3, 4)), (torch.nn.BatchNorm1d(5), (6, 5))):
        torch.nn.init.normal_(original.weight)
        torch.nn.init.normal_(original.bias)
        original = original.double()
        ours = parallel.BatchNorm(original, parallel.Group("cpu")).double()
        x = torch.randn(shape, dtype=torch.float64)
        results = []
        for norm in (original, ours):
            inputs = x.clone().requires_grad_()
            out = norm(inputs)
            (out.square() * torch.arange(6.0, dtype=torch.float64).view(-1, *[1] * (len(shape) - 1))).sum().backward()
            results.append([out, inputs.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var])
        for theirs, mine in zip(*results):
            assert torch.allclose(theirs, mine, rtol=1e-12, atol=1e-12)
        assert torch.equal(original.eval()(x), ours.eval()(x))


def test_a_shared_batch_norm_takes_half_precision() -> None:
    """Statistics in float32: those of bfloat16 (8 bits) would be off by 2^-9 of a mean of 10, and gloo cannot sum it."""
    torch.manual_seed(0)
    x = (torch.randn(64, 3, 4, 4) + 10).bfloat16()
    ours, wide = (parallel.BatchNorm(torch.nn.BatchNorm2d(3), parallel.Group("cpu")) for _ in range(2))
    half, single = ours(x), wide(x.float())
    assert half.dtype == torch.bfloat16 and torch.equal(half, single.bfloat16())
    assert torch.equal(ours.running_mean, wide.running_mean) and torch.equal(ours.running_var, wide.running_var)


@pytest.mark.slow
def test_two_processes_in_half_precision(crops: pathlib.Path, tmp_path: pathlib.Path) -> None:
    process = torchrun(crops, tmp_path / "run", "--epochs", 1, "--precision", "mixed", "--steps", 2)
    errors = process.communicate()[1]
    assert process.returncode == 0, errors
    assert len(logged(tmp_path / "run")) == 2 and all(np.isfinite(logged(tmp_path / "run")))


# ---- One step --------------------------------------------------------------------------------------------------------


def trainer_of(crops: pathlib.Path, folder: pathlib.Path, **changes) -> loop.Trainer:
    faces, _findings = data.scan(str(crops))
    folder.mkdir(exist_ok=True)
    return loop.Trainer(options(**changes), None, faces, None, folder, parallel.Group("cpu"), "cpu")


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "mining", "margin"), [
    ("triplet", "batch_all", 0.4), ("triplet", "batch_hard", 0.3), ("triplet", "semi_hard", 0.1), ("arcface", "semi_hard", 0.2),
    ("softmax", "semi_hard", 0.0),
])  # fmt: skip
def test_steps_are_those_of_a_loop_written_by_hand(
    loss: str, mining: str, margin: float, crops: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Three steps in double: the batch, its augmentation, the loss with its options, SGD at the scheduled rate."""
    changes = dict(loss=loss, mining=mining, margin=margin, scale=9.0, centre_weight=0.7, rate=0.02, warmup=2, steps=3, epochs=1,
                   optimiser="sgd", decay=0.01, precision="double", augment=0.8)  # fmt: skip
    trainer = trainer_of(crops, tmp_path / "run", **changes)
    o, faces = trainer.options, trainer.loader.faces
    model = checkpoint.build_model(o.dim, width=o.width).double().requires_grad_(True).train()
    model.load_state_dict(trainer.model.state_dict())
    model.dropout.p = 0.0
    modules = [model]
    if loss != "triplet":
        head = losses.Head(loss, o.dim, len(faces.people), margin, 9.0, 0.7).double()
        head.load_state_dict(trainer.head.state_dict())
        modules.append(head)
    parameters = [p for module in modules for p in module.parameters()]
    velocity = [torch.zeros_like(p) for p in parameters]
    batches = []
    for step in range(3):
        row = trainer.train_step()
        chosen = data.Passes(faces.labels, o.people, o.pictures, o.seed).batch(step)
        batches.append(chosen.tolist())
        pixels = np.stack([
            data.augment(data.decode(faces.paths[i])[0], np.random.default_rng([o.seed, step, place + 1]), 0.8)
            for place, i in enumerate(chosen)
        ])  # fmt: skip
        embeddings, labels = model((torch.from_numpy(pixels).permute(0, 3, 1, 2).double() - 127.5) / 128), torch.from_numpy(faces.labels[chosen])
        if loss == "triplet":
            value = losses.triplet(embeddings, labels, mining, margin).backward
        else:
            value = head(embeddings, labels, o.batch)[0]
        rate = (0.01, 0.02, 0.02)[step]
        with torch.no_grad():
            for p, v, gradient in zip(parameters, velocity, torch.autograd.grad(value, parameters)):
                v.mul_(0.9).add_(gradient + 0.01 * p * (p.dim() > 1))  # no decay of batch norms and biases
                p.sub_(rate * v)
        assert row["rate"] == pytest.approx(rate) and row["loss"] == pytest.approx(float(value), abs=1e-12)
    assert batches[0] != batches[1] != batches[2]
    for p, q in zip(parameters, trainer.parameters):
        assert torch.allclose(p, q, rtol=0, atol=1e-12)  # the same operations in another order, some 1e-16 each


def test_validation_uses_running_statistics_and_leaves_them(crops: pathlib.Path, tmp_path: pathlib.Path) -> None:
    trainer = trainer_of(crops, tmp_path / "run")
    trainer.train_step()
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    vectors = trainer.embed(trainer.loader)
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())
    model = checkpoint.build_model(16, width=0.0625)
    model.load_state_dict(before)
    for i in (0, 17):  # one by one, which only running statistics allow; float32's rounding through 132 layers
        pixels = pictures.to_tensor(data.decode(trainer.loader.faces.paths[i])[0][None], torch.float32)
        assert np.abs(model(pixels).numpy()[0] - vectors[i]).max() <= 1e-5
    trainer.held_out_loader = trainer.loader
    torch.nn.init.zeros_(trainer.model.last_linear.weight)
    with pytest.raises(loop.Collapsed, match="held out are equal"):
        trainer.validate()


def test_decay_is_for_weights_alone(crops: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """AdamW's first step with and without it, from the same numbers: p - rate * decay * p, and what else differs is rounding."""
    after = {}
    for decay, every in ((0.0, False), (0.5, False), (0.5, True)):
        trainer = trainer_of(crops, tmp_path / "run", loss="softmax", rate=0.01, warmup=0, decay=decay, decay_all=every, precision="double")
        with torch.no_grad():  # a bias of zero would not show it
            for p in trainer.parameters:
                p.add_(0.25)
        before = [p.detach().clone() for p in trainer.parameters]
        trainer.train_step()
        after[decay, every] = [p.detach() for p in trainer.parameters]
    names = [name for module in (trainer.model, trainer.head) for name, _p in module.named_parameters()]
    kinds = set()
    for name, start, none, some, all_of_it in zip(names, before, *after.values()):
        plain = name.endswith("bias") or ".bn." in name or "last_bn." in name
        kinds.add(plain)
        fallen = start * 0.01 * 0.5
        assert torch.allclose(none - some, fallen * (not plain), rtol=0, atol=1e-12), name
        assert torch.allclose(none - all_of_it, fallen, rtol=0, atol=1e-12), name
    assert kinds == {True, False} and trainer.optimiser.param_groups[0]["weight_decay"] == 0.5


def test_statistics_are_taken_anew_before_validation(crops: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Those of the first and the last batch norm in best.pt are the pictures' own under its weights, as a whole pass without
    augmentation shows them; after 4 steps a moving average still is two thirds of what it began with."""
    trainer = trainer_of(crops, tmp_path / "run", epochs=1, steps=4, loss="arcface", dropout=0.5, augment=1.0, warmup=0, rate=0.01)
    trainer.run(4)
    state = torch.load(tmp_path / "run" / "best.pt")
    model = checkpoint.build_model(16, width=0.0625)
    model.load_state_dict(state)
    inputs: dict[str, list[torch.Tensor]] = {"conv2d_1a.bn": [], "last_bn": []}
    for name, seen in inputs.items():
        model.get_submodule(name).register_forward_hook(lambda _module, given, _out, seen=seen: seen.append(given[0].double()))
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.train()
    faces = trainer.loader.faces
    for step in range(trainer.passes.steps):
        stack = np.stack([data.decode(faces.paths[i])[0] for i in trainer.passes.batch(step)])
        model(pictures.to_tensor(stack, torch.float32))
    for name, seen in inputs.items():
        batches = [each.transpose(0, 1).flatten(1) for each in seen]
        mean = torch.stack([each.mean(1) for each in batches])
        variance = torch.stack([each.var(1) for each in batches]).mean(0) + mean.var(0, unbiased=False)
        assert torch.allclose(state[f"{name}.running_mean"].double(), mean.mean(0), rtol=1e-4, atol=1e-5), name
        assert torch.allclose(state[f"{name}.running_var"].double(), variance, rtol=1e-3, atol=1e-7), name
    assert int(state["last_bn.num_batches_tracked"]) == 4
    assert all(m.momentum == 0.1 for m in trainer.model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm))


def test_statistics_do_not_touch_training_nor_frozen_stages(crops: pathlib.Path, tmp_path: pathlib.Path) -> None:
    one, other = (trainer_of(crops, tmp_path / name, freeze="conv2d_2b", warmup=0, rate=0.01) for name in ("one", "other"))
    one.train_step(), other.train_step()
    frozen = {name: value.clone() for name, value in one.model.state_dict().items() if name.startswith(("conv2d_1a", "conv2d_2a", "conv2d_2b"))}
    moving = one.model.last_bn.running_var.clone()
    one.settle_norms()
    assert all(torch.equal(one.model.state_dict()[name], value) for name, value in frozen.items())
    assert not torch.equal(one.model.last_bn.running_var, moving)
    assert one.train_step() == other.train_step()
    for p, q in zip(one.parameters, other.parameters):
        assert torch.equal(p, q)


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "precision"), [("softmax", "single"), ("triplet", "mixed")])
def test_other_losses_and_half_precision_run(loss: str, precision: str, crops: pathlib.Path, tmp_path: pathlib.Path) -> None:
    run = tmp_path / "run"
    result = train(crops, run, "--epochs", 1, "--loss", loss, "--precision", precision, "--optimiser", "sgd", "--schedule", "step",
                   "--tensorboard")  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert all(np.isfinite(logged(run)))
    if precision == "mixed":
        assert train(crops, tmp_path / "single", "--epochs", 1, "--optimiser", "sgd", "--schedule", "step").returncode == 0
        assert logged(run, "genuine")[0] != logged(tmp_path / "single", "genuine")[0]
    assert Image.open(run / "curves.png").size[0] > 1000
    assert list((run / "tensorboard").glob("events.*"))


# ---- The threshold -----------------------------------------------------------------------------------------------------


def test_the_converter_carries_the_measured_threshold(tmp_path: pathlib.Path) -> None:
    """From best.json beside the checkpoint it was measured with, from a file that carries one, or from the user; from files of
    `facenet calibrate` in test_recipe.py."""
    path, beside = tmp_path / "best.pt", tmp_path / "best.json"
    torch.save(checkpoint.build_model(16, width=0.0625).state_dict(), path)
    source = sources.read(str(path))
    row = {"format": "facenet-trained", "version": 1, "checkpoint_sha256": source.digest, "threshold": 0.8299999999, "threshold_source": "a test"}

    def carried(option: str | None = None, of: sources.Source = source, **changes) -> tuple[str | None, str | None]:
        beside.write_text(json.dumps({**row, **changes}))
        details = convert_weights.metadata(of, threshold=thresholds.choose(option, str(path), of.digest))
        return details.get("threshold"), details.get("threshold_source")

    assert carried() == ("0.829999999", "a test")  # rounded down
    assert carried(str(beside)) == ("0.829999999", "a test")
    assert carried("0.83") == ("0.83", thresholds.USER) and carried("2")[0] == "2" and carried("1.10")[0] == "1.1"
    assert carried(checkpoint_sha256="0" * 64) == carried(format="other") == carried(threshold=0) == (None, None)
    for text in ("{" * 5000, "[1]", "", "[" * 60000):
        beside.write_text(text)
        assert thresholds.choose(None, str(path), source.digest) is None
    kept = dataclasses.replace(source, metadata={**source.metadata, "threshold": "0.7", "threshold_source": "before"})
    assert carried(of=kept, format="other") == ("0.7", "before") and carried("0.9", of=kept)[0] == "0.9"
    assert "threshold" not in convert_weights.metadata(kept, untrained=True)
    assert {"threshold", "threshold_source"} <= set(onnx_files.KEPT)
    for key, value in (("threshold", "3"), ("threshold", "1e0"), ("threshold", ""), ("threshold_source", "")):
        with pytest.raises(ToolError, match="makes no sense"):
            sources.check_values({key: value}, "x.onnx")
    assert_one_error(run_tool("convert_weights.py", path, "-o", tmp_path / "out.safetensors", "--threshold", "2.01"), "is no distance")
    for wrong, part in (*((text, "is no distance") for text in ("0", "nan", "-1", "inf", "1e-12")), (str(tmp_path / "none"), "neither a number"),
                        (str(path), "line 1 is not UTF-8"), (str(tmp_path), "is no file of")):  # fmt: skip
        with pytest.raises(ToolError, match=part):
            carried(wrong)
    file = tmp_path / "people.threshold"
    row = {"format": "facenet-threshold", "version": 1, "metric": "euclidean", "model": "0" * 16, "threshold": 0.7512345}
    for change, part in (({"model": None}, "does not say with which model"), ({"metric": "cosine"}, "no threshold file of Euclidean"),
                         ({"threshold": 2.5}, "is no distance"), ({"threshold": True}, "is no distance"), ({"version": 2}, "no threshold file"),
                         ({"format": "facenet-trained"}, "another checkpoint")):  # fmt: skip
        file.write_text(json.dumps({**row, **change}))
        with pytest.raises(ToolError, match=part):
            thresholds.choose(str(file), str(path), source.digest)
