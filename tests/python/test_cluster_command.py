"""`facenet cluster`: groups equal to scikit-learn's on the command's own embeddings, folders, the contact sheet."""

from __future__ import annotations

import pathlib
import shutil
import signal
import stat
import subprocess
import time

import numpy as np
import pytest
from recognition import distances, make_people
from test_command import COMMAND, DETECTOR, UNTRAINED, assert_sentence, facenet, lines
from test_command import weights  # noqa: F401 (fixture)
from test_report import Page, decode

pytestmark = pytest.mark.skipif(not COMMAND.exists(), reason=f"{COMMAND} is not built")
PERSONS, EACH = 6, 4


class People:
    def __init__(self, folder: pathlib.Path, weights) -> None:  # noqa: F811
        self.folder = folder / "images"
        self.files = make_people(self.folder, PERSONS, EACH)
        out = folder / "x.npy"
        assert facenet("embed", "--aligned", "--weights", weights, self.folder, "--out", out, "--cache", "none").returncode == 0
        self.embeddings = np.load(out)
        apart = np.sort(distances(self.embeddings)[np.triu_indices(len(self.files), 1)])
        # Midway between two distances, so that no rounding decides; so low that some faces stay alone.
        self.threshold = float(apart[20] + apart[21]) / 2
        self.call = ["cluster", self.folder, "--aligned", "--weights", weights, "--threshold", self.threshold]

    def groups(self, result) -> set[tuple[int, frozenset[int]]]:
        order = {str(path): i for i, path in enumerate(self.files)}
        return {(line["cluster"] == -1, frozenset(order[face["image"]] for face in line["faces"])) for line in lines(result)}


@pytest.fixture(scope="module")
def people(tmp_path_factory, weights):  # noqa: F811
    return People(tmp_path_factory.mktemp("people"), weights)


def wanted(labels: np.ndarray) -> set[tuple[int, frozenset[int]]]:
    return {(label == -1, frozenset(np.flatnonzero(labels == label).tolist())) for label in set(labels.tolist())}


@pytest.mark.slow
def test_groups_are_scikit_learns(people):
    cluster = pytest.importorskip("sklearn.cluster")
    embeddings = people.embeddings.astype(np.float64)
    for min_samples in (2, 3):
        result = facenet(*people.call, "--json", "--algorithm", "dbscan", "--min-samples", min_samples)
        assert result.returncode == 0 and UNTRAINED in result.stderr
        want = wanted(cluster.DBSCAN(eps=people.threshold, min_samples=min_samples).fit_predict(embeddings))
        assert people.groups(result) == want and any(noise for noise, _ in want)
    average = cluster.AgglomerativeClustering(n_clusters=None, linkage="average", distance_threshold=people.threshold)
    want = wanted(average.fit_predict(embeddings))
    assert people.groups(facenet(*people.call, "--json", "--algorithm", "average")) == want and len(want) > 3


def test_chinese_whispers_and_the_order_of_groups(people):
    result = facenet(*people.call, "--json")
    got = lines(result)
    sizes = [line["size"] for line in got]
    assert sizes == sorted(sizes, reverse=True) and sum(sizes) == PERSONS * EACH and [g["cluster"] for g in got] == list(range(len(got)))
    near = distances(people.embeddings) <= people.threshold
    for _, group in people.groups(result):  # nobody without neighbours is in a group, and each group hangs together
        members = sorted(group)
        assert len(members) == 1 or near[np.ix_(members, members)].sum(1).min() >= 2
    assert {line["algorithm"] for line in got} == {"chinese_whispers"} and set(got[0]["faces"][0]) == {"image", "face", "box"}
    rows = facenet(*people.call).stdout.splitlines()
    assert [int(row.split("\t")[1]) for row in rows] == sizes
    assert facenet(*people.call, "--json", "--threads", 3).stdout == result.stdout


@pytest.mark.parametrize("copy", [False, True])
def test_a_folder_for_each_person(people, tmp_path, copy):
    out = tmp_path / "sorted"
    result = facenet(*people.call, "--json", "--algorithm", "dbscan", "--out", out, *(["--copy"] if copy else []))
    assert result.returncode == 0
    got = lines(result)
    assert sorted(p.name for p in out.iterdir()) == sorted(
        "noise" if g["cluster"] == -1 else f"person_{g['cluster'] + 1:03d}" for g in got)
    for group in got:
        folder = out / ("noise" if group["cluster"] == -1 else f"person_{group['cluster'] + 1:03d}")
        placed = sorted(p.read_bytes() for p in folder.iterdir())
        assert placed == sorted(pathlib.Path(face["image"]).read_bytes() for face in group["faces"])
        assert all(p.is_symlink() != copy for p in folder.iterdir())
        assert not copy or {p.stat().st_mode & 0o777 for p in folder.iterdir()} == {0o600}
    assert_sentence(facenet(*people.call, "--out", out), "sorted", "not an empty folder")


def begun(call: list, folder: pathlib.Path) -> subprocess.Popen:
    """The command, stopped when it has begun its folder in `folder` and embeds with a second thread."""
    process = subprocess.Popen([COMMAND, *map(str, call), "--threads", "2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while len(list(pathlib.Path(f"/proc/{process.pid}/task").iterdir())) == 1:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.001)
    assert len(list(folder.glob(".facenet-*.tmp"))) == 1
    process.send_signal(signal.SIGSTOP)
    return process


@pytest.mark.parametrize("there", [False, True])
def test_two_runs_into_one_folder(people, tmp_path, there):
    """The second says at once that there is a first one; a killed one is in nobody's way."""
    out = tmp_path / "sorted"
    if there:
        out.mkdir(mode=0o750)
    place = out if there else tmp_path
    call = [*people.call, "--out", f"{out}/"]
    for end in (signal.SIGKILL, signal.SIGINT, signal.SIGCONT):
        first = begun(call, place)
        assert_sentence(facenet(*call), "sorted: another run of facenet is making this folder now", "wait until that has ended")
        first.send_signal(end)
        first.send_signal(signal.SIGCONT)
        _, told = first.communicate(timeout=60)
        if end == signal.SIGINT:  # unless it was there already, when it was stopped
            assert first.returncode == -signal.SIGINT and not list(place.iterdir())
    assert first.returncode == 0, told
    assert stat.S_IMODE(out.stat().st_mode) == (0o750 if there else 0o700)
    assert [p.name for p in tmp_path.iterdir()] == ["sorted"] and sorted(p.name for p in out.iterdir())[0] == "person_001"
    assert_sentence(facenet(*call), "sorted: this is there already and not an empty folder")


@pytest.mark.parametrize("there", [False, True])
def test_a_folder_that_somebody_fills_meanwhile(people, tmp_path, there):
    out = tmp_path / "sorted"
    if there:
        out.mkdir()
    run = begun([*people.call, "--out", out], out if there else tmp_path)
    (out / "person_001").mkdir(parents=True)
    (out / "person_001" / "mine").touch()
    run.send_signal(signal.SIGCONT)
    _, told = run.communicate(timeout=60)
    assert run.returncode == 2 and "sorted: something else was put there while this run worked" in told
    assert [p.name for p in tmp_path.rglob("*")] == ["sorted", "person_001", "mine"]


def test_the_folder_may_lie_among_the_pictures(people, tmp_path):
    """What is being filled is no picture, and nothing that was left out."""
    shutil.copytree(people.folder, tmp_path / "in")
    call = ["cluster", tmp_path / "in", *people.call[2:], "--cache", "none", "--copy", "--out", tmp_path / "in" / "sorted"]
    for _ in range(2):
        result = facenet(*call)
        assert result.returncode == 0 and "left out" not in result.stderr
        shutil.rmtree(tmp_path / "in" / "sorted")
        (tmp_path / "in" / "sorted").mkdir()


def test_two_pictures_of_one_name(people, weights, tmp_path):  # noqa: F811
    for name in "ab":
        (tmp_path / "in" / name).mkdir(parents=True)
        (tmp_path / "in" / name / "x.png").write_bytes(people.files[0].read_bytes())
    result = facenet("cluster", tmp_path / "in", "--aligned", "--weights", weights, "--out", tmp_path / "out", "--cache", "none")
    assert result.returncode == 0
    assert sorted(p.name for p in (tmp_path / "out" / "person_001").iterdir()) == ["x-2.png", "x.png"]
    assert not (tmp_path / "in.embeddings").exists()


def test_the_contact_sheet(people, tmp_path):
    html = tmp_path / "sheet.html"
    result = facenet(*people.call, "--json", "--html", html)
    source = html.read_text(encoding="utf-8")
    assert "<script" not in source and "http" not in source and "untrained" in source
    images = [image["src"] for image in Page(source).all("img")]
    assert len(images) == PERSONS * EACH and all(decode(uri).size == (160, 160) for uri in images)
    assert f"{len(lines(result))} persons" in source


def test_mistakes(people, weights, tmp_path):  # noqa: F811
    (tmp_path / "empty").mkdir()
    assert_sentence(facenet("cluster", tmp_path / "empty", "--weights", weights), "no picture in it")
    assert_sentence(facenet("cluster", tmp_path / "none", "--weights", weights), "not a folder")
    assert_sentence(facenet(*people.call, "--algorithm", "k-means"), "'k-means'")
    make_people(tmp_path / "faceless", 1, 2)
    nobody = facenet("cluster", tmp_path / "faceless", "--weights", weights, "--detector", DETECTOR)
    assert nobody.returncode == 1 and nobody.stdout == "" and "no face was found" in nobody.stderr
