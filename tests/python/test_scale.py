"""Many pictures on many workers, and searches in other engines: facenet.batches, .ray, .dask, .export, as docs/scale.md promises.

What needs Ray, Dask, FAISS, PostgreSQL or sqlite-vec is skipped where that is not installed. tests/scale/run.py is the long check,
which is run here with few pictures.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import pathlib
import pickle
import re
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image
from python_package import BUILT, PACKAGE, needs_package, run_python, said

if BUILT:
    import facenet
    from facenet import batches

PORTRAIT = ROOT / ".deps/samples/astronaut.png"
needs_portrait = pytest.mark.skipif(not PORTRAIT.exists(), reason=f"{PORTRAIT} is not there: run tools/bootstrap.sh")


def needs(*modules: str):
    absent = [name for name in modules if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(absent), reason=f"{' and '.join(absent)} cannot be imported; docs/scale.md names the packages")


@pytest.fixture(scope="module")
def engines(converted, mtcnn_file):
    with facenet.Detector(mtcnn_file, min_face=40, threads=1) as detector, facenet.Embedder(converted["f16"], threads=1) as embedder:
        yield detector, embedder


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> pathlib.Path:
    """Five faces in four files, and three that are no picture or have none."""
    folder = tmp_path_factory.mktemp("photographs")
    with Image.open(PORTRAIT) as image:
        portrait = image.convert("RGB").crop((120, 20, 360, 240))
    portrait.save(folder / "a.jpg", quality=95)
    portrait.transpose(Image.FLIP_LEFT_RIGHT).save(folder / "b.jpeg", quality=90)
    portrait.save(os.fsencode(folder) + b"/\xff.jpg", "JPEG")
    both = Image.new("RGB", (480, 220))
    both.paste(portrait, (0, 0))
    both.paste(portrait.resize((200, 183)), (260, 20))
    (folder / "more").mkdir()
    both.save(folder / "more/both.PNG")
    Image.new("RGB", (90, 80), "white").save(folder / "nobody.jpg")
    (folder / "text.jpg").write_text("no picture")
    (folder / "cut.jpg").write_bytes((folder / "a.jpg").read_bytes()[:3000])
    (folder / "notes.txt").write_text("is not listed")
    return folder


def text(path: str) -> str:
    return os.fsencode(path).decode("utf-8", "backslashreplace")


# ---- rows ------------------------------------------------------------------------------------------------------------


@needs_package
@needs_portrait
def test_rows_are_what_single_calls_give(engines, photographs):
    detector, embedder = engines
    paths = [*batches.list_pictures(photographs), str(photographs / "gone.jpg"), str(photographs)]
    found = batches.rows(paths, detector, embedder)
    assert list(dict.fromkeys(row.path for row in found)) == [text(p) for p in paths] and len(paths) == 9
    for path in paths:
        rows = [row for row in found if row.path == text(path)]
        try:
            faces = detector.detect(path)
        except facenet.FacenetError as error:
            assert rows == [batches.Row(text(path), error=str(error))]
            continue
        if not faces:
            assert rows == [batches.Row(text(path))]
            continue
        assert [(row.face, row.box, row.score, row.error) for row in rows] == [(i, f.box, f.score, None) for i, f in enumerate(faces)]
        for row, face in zip(rows, faces):
            assert np.array_equal(row.landmarks.reshape(5, 2), face.landmarks)
            assert np.array_equal(row.embedding, embedder.embed(facenet.align(path, face, embedder=embedder)))
    assert sum(row.embedding is not None for row in found) == 5 and sum(row.error is not None for row in found) == 4


@needs_package
def test_a_crop_that_the_embedder_refuses_is_one_row(engines):
    """The other faces of the batch keep their embeddings."""

    class Refuses:
        def embed(self, crops):
            if isinstance(crops, list) or crops.max() == 0:
                raise facenet.FacenetValueError("it means nothing.")
            return engines[1].embed(crops)

    light, dark = np.full((160, 160, 3), 200, np.uint8), np.zeros((160, 160, 3), np.uint8)
    found = [batches.Row(name, 0) for name in "abc"]
    batches._embed(found, [0, 1, 2], [light, dark, light], Refuses())
    assert [row.error for row in found] == [None, "it means nothing.", None]
    assert np.array_equal(found[0].embedding, engines[1].embed(light)) and found[1].embedding is None


# ---- runs ------------------------------------------------------------------------------------------------------------


def made_up(paths, detector, embedder):
    """Rows without an engine: a face for each picture, and an error for one."""
    return [
        batches.Row(text(p), error="it is bad.") if "bad" in p else
        batches.Row(text(p), 0, (0.0, 1.0, 2.0, 3.0), 0.5, np.arange(10, dtype=np.float32), np.float32([len(p), 1 / 3]))
        for p in paths
    ]  # fmt: skip


@pytest.fixture
def run_of(engines, monkeypatch, tmp_path):
    """Runs of made-up pictures into tmp_path/out; execute: who does the parts, by default this process."""
    monkeypatch.setattr(batches, "rows", made_up)
    detector, embedder = engines

    def run(names, execute=None, **options):
        options = {"detector": detector, "embedder": embedder, "part": 3} | options
        given = [tmp_path / name for name in names]
        return batches.run(execute, given, tmp_path / "out", **options) if execute else batches.embed(given, tmp_path / "out", **options)

    return run


def paths_in(folder) -> list[str]:
    """Of each row; a picture that is there twice is there twice."""
    from pyarrow import parquet

    return sorted(os.path.basename(p) for file in folder.glob("part-*.parquet") for p in parquet.read_table(file)["path"].to_pylist())


NAMES = [f"{i}.jpg" for i in range(8)]


@needs_package
@needs("pyarrow")
def test_a_run_and_the_next_ones(run_of, tmp_path):
    out, seen = tmp_path / "out", []
    assert run_of([*NAMES, "3.jpg"], progress=lambda *at: seen.append(at)) == (8, 8, 0, 3, 0, {})
    assert seen == [(1, 3), (2, 3), (3, 3)] and paths_in(out) == NAMES
    times = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert run_of(NAMES) == (8, 8, 0, 3, 3, {})
    assert {path.name: path.stat().st_mtime_ns for path in out.glob("part*")} == {n: t for n, t in times.items() if n.startswith("part")}
    more = sorted([*NAMES, "1bad.jpg", "x.jpg"])  # shifts all parts but the first
    assert run_of(more) == (10, 9, 1, 4, 3, {}) and paths_in(out) == more
    assert run_of(more, part=100) == (10, 9, 1, 4, 4, {})
    (failure,) = batches.failures(out)
    assert failure[:3] == (str(tmp_path / "1bad.jpg"), None, "it is bad.")
    (out / failure.part).unlink()  # done again
    assert run_of(more)[:5] == (10, 9, 1, 4, 3)
    assert not [path.name for path in out.iterdir() if path.name.startswith(".part")]


@needs_package
@needs("pyarrow")
def test_workers_that_end_before_their_part_does(run_of, tmp_path):
    """One leaves half a file, one says that the disk is full, one part is done twice."""
    out = tmp_path / "out"

    def execute(parts, work):
        (out / f".{parts[0].name}.half").write_bytes(b"PAR1")
        yield batches.Done(parts[1].name, "the disk is full.")
        for _ in range(2):
            yield batches.do(parts[2], work)

    first = run_of(NAMES, execute)
    assert first[:5] == (2, 2, 0, 1, 0) and "killed" in (words := list(first.unfinished.values()))[0] and words[1] == "the disk is full."
    (whole,) = out.glob("part-*")
    assert run_of(NAMES) == (8, 8, 0, 3, 1, {}) and paths_in(out) == NAMES
    whole.write_bytes(whole.read_bytes()[:-9])  # a disk has lost its end
    assert run_of(NAMES) == (8, 8, 0, 3, 2, {}) and paths_in(out) == NAMES


@needs_package
@needs("pyarrow")
def test_what_a_run_refuses(run_of, engines, tmp_path, converted):
    out = tmp_path / "out"
    run_of(NAMES)
    with facenet.Embedder(converted["f32"], threads=1) as other, facenet.Detector(engines[0].path, min_face=41) as wider:
        assert "other weights" in said(lambda: run_of(NAMES, embedder=other))
        assert "other weights" in said(lambda: run_of(NAMES, detector=wider))
        work = batches.Work(str(out), pickle.dumps(wider), pickle.dumps(other), batches._settings(*engines))
    assert "this worker" in batches.do(batches.Part("part-x", ("a",)), work).error
    with batches._alone(out):
        assert "another run" in said(lambda: run_of(NAMES), OSError)
    assert "1 or more" in said(lambda: run_of(NAMES, part=0))
    assert "no such folder" in said(lambda: batches.embed(tmp_path / "gone", out, detector=engines[0], embedder=engines[1]), OSError)
    (out / "_facenet.json").unlink()
    assert "_facenet.json" in said(lambda: run_of(NAMES))
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in said(lambda: batches.embed([], tmp_path / "file", detector=engines[0], embedder=engines[1]), OSError)


@needs_package
@needs("pyarrow")
@needs_portrait
def test_files_hold_the_rows_to_the_bit(engines, photographs, tmp_path):
    """As other readers of Parquet take them: the folder as one table."""
    from pyarrow import parquet

    detector, embedder = engines
    run = batches.embed(photographs, tmp_path / "out", detector=detector, embedder=embedder, part=3)
    assert run == (7, 5, 2, 3, 0, {}) and sorted(os.path.basename(f.path) for f in batches.failures(tmp_path / "out")) == ["cut.jpg", "text.jpg"]
    table = parquet.read_table(tmp_path / "out")
    assert table.column_names == list(batches.Row._fields)
    key = lambda row: (row["path"], row["face"] or 0)  # noqa: E731
    expected = [row._asdict() for row in batches.rows(batches.list_pictures(photographs), detector, embedder)]
    for row, other in zip(sorted(table.to_pylist(), key=key), sorted(expected, key=key), strict=True):
        for name in ("path", "face", "error"):
            assert row[name] == other[name]
        for name in ("box", "score", "landmarks", "embedding"):
            assert (row[name] is None) == (other[name] is None) and np.array_equal(np.float32(row[name]), np.float32(other[name])) or row[name] is None
    said_of = json.loads(parquet.read_metadata(next((tmp_path / "out").glob("part-*"))).metadata[b"facenet"])
    assert said_of["model"] == embedder.info["digest"] and said_of["min_face"] == 40 and said_of["detector"] == detector.digest


@needs_package
def test_packages_that_are_not_installed():
    """Each is named, with what pip is asked for; the modules are imported all the same."""
    code = """
import sys
for name in ("ray", "ray.data", "distributed", "pyarrow", "faiss", "sqlite_vec"):
    sys.modules[name] = None
import facenet.ray, facenet.dask, facenet.batches
for module in (facenet.ray, facenet.dask, facenet.batches):
    try:
        module.embed("x", "y")
    except facenet.FacenetError as error:
        assert isinstance(error, ImportError)
        print(error)
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr
    for line, words in zip(done.stdout.splitlines(), ('pip install "ray[data]"', 'pip install "dask[distributed]"', "pip install pyarrow"), strict=True):
        assert words in line


# ---- workers ---------------------------------------------------------------------------------------------------------


@needs_package
@needs_portrait
@needs("pyarrow", "psutil")
@pytest.mark.parametrize("engine", [pytest.param("ray", marks=needs("ray")), pytest.param("dask", marks=needs("distributed"))])
def test_a_killed_worker(engine, tmp_path, converted, mtcnn_file):
    """tests/scale/run.py in short: 60 pictures, two workers, one of them killed."""
    options = [f"--{name}={value}" for name, value in (("engines", engine), ("pictures", 60), ("part", 4), ("throughput", 0), ("folder", tmp_path / "s"),
                                                       ("weights", converted["f16"]), ("detector", mtcnn_file))]  # fmt: skip
    environment = dict(os.environ, PYTHONPATH=str(PACKAGE))
    done = subprocess.run([sys.executable, ROOT / "tests/scale/run.py", *options], capture_output=True, text=True, env=environment, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "killed worker" in done.stdout and "0 lost, 0 doubled, 0 of" in done.stdout
