"""Many pictures on many workers, and searches in other engines: facenet.batches, .ray, .dask, .export, as docs/scale.md promises.

What needs Ray, Dask, FAISS, PostgreSQL or sqlite-vec is skipped where that is not installed. tests/scale/run.py is the long check,
which is run here with few pictures.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import pathlib
import pickle
import re
import shutil
import sqlite3
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


def rows_in(folder) -> list[dict]:
    from pyarrow import parquet

    found = [row for file in folder.glob("part-*.parquet") for row in parquet.read_table(file).to_pylist()]
    return sorted(found, key=lambda row: (row["path"], row["face"] or 0))


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
def test_a_picture_that_ends_each_worker(run_of, tmp_path, monkeypatch):
    """Its part is given up after some tries, and is listed. The next run tries again."""

    def rows(paths, detector, embedder):
        if any("7" in p for p in paths):
            raise SystemExit  # stands for a signal
        return made_up(paths, detector, embedder)

    def execute(parts, work):
        for part in parts:
            for _ in range(9):  # an engine tries for ever
                with contextlib.suppress(SystemExit):
                    yield batches.do(part, work)
                    break

    monkeypatch.setattr(batches, "rows", rows)
    for before in (0, 2):
        run = run_of(NAMES, execute, retries=1)
        assert run[:5] == (6, 6, 0, 2, before) and "killed 2 times" in "".join(run.unfinished.values()) and len(run.unfinished) == 1
    monkeypatch.setattr(batches, "rows", made_up)
    assert run_of(NAMES, execute) == (8, 8, 0, 3, 2, {}) and not list((tmp_path / "out").glob(".part*"))


@needs_package
@needs("pyarrow")
def test_what_a_run_refuses(run_of, engines, tmp_path, converted):
    out = tmp_path / "out"
    run_of(NAMES)
    with facenet.Embedder(converted["f32"], threads=1) as other, facenet.Detector(engines[0].path, min_face=41) as wider:
        assert "other weights" in said(lambda: run_of(NAMES, embedder=other))
        assert "other weights" in said(lambda: run_of(NAMES, detector=wider))
        work = batches.Work(str(out), pickle.dumps(wider), pickle.dumps(other), batches._settings(*engines), 9)
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
    expected = [row._asdict() for row in batches.rows(batches.list_pictures(photographs), detector, embedder)]
    for row, other in zip(rows_in(tmp_path / "out"), sorted(expected, key=lambda row: (row["path"], row["face"] or 0)), strict=True):
        for name in ("path", "face", "error"):
            assert row[name] == other[name]
        for name in ("box", "score", "landmarks", "embedding"):
            assert row[name] is other[name] is None or np.array_equal(np.float32(row[name]), np.float32(other[name]))
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


@needs_package
def test_the_page_names_what_there_is():
    import facenet.dask
    import facenet.export
    import facenet.ray

    page = (ROOT / "docs/scale.md").read_text()
    named = set(re.findall(r"facenet\.(ray|dask|batches|export)\.(\w+)", page)) | {("export", name) for name in re.findall(r"export\.(\w+)\(", page)}
    assert len(named) >= 7 and not [(m, name) for m, name in named if not hasattr(getattr(facenet, m), name)]
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        compile(block, "docs/scale.md", "exec")


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


@needs_package
@needs_portrait
@needs("pyspark", "pyarrow", "pandas")
@pytest.mark.skipif(shutil.which("java") is None, reason="there is no Java")
def test_sparks_rows_are_one_processs(photographs, converted, mtcnn_file, tmp_path):
    own = tmp_path / "photographs"  # Spark takes UTF-8 alone
    shutil.copytree(photographs, own, ignore=lambda _, names: [name for name in names if not name.isascii()])
    paths = {"PYTHONPATH": str(PACKAGE), "FACENET_WEIGHTS": str(converted["f16"]), "FACENET_DETECTOR": str(mtcnn_file),
             "PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_DIRS": str(tmp_path), "PYTHONWARNINGS": "ignore"}  # fmt: skip
    call = [sys.executable, ROOT / "examples/python/spark_embed.py", own, tmp_path / "spark"]
    done = subprocess.run(call, capture_output=True, text=True, cwd=tmp_path, env=dict(os.environ, **paths), timeout=300, check=False)
    assert done.returncode == 0 and "4 faces in" in done.stdout, done.stdout + done.stderr[-4000:]
    batches.embed(own, tmp_path / "one", detector=mtcnn_file, embedder=converted["f16"])
    assert rows_in(tmp_path / "spark") == rows_in(tmp_path / "one")


# ---- other engines ---------------------------------------------------------------------------------------------------

DIM, COUNT = 128, 2000
needs_galleries = pytest.mark.skipif(not (BUILT and hasattr(facenet._engine, "Gallery")), reason="this build has no galleries")


def faces(count: int, seed: int) -> np.ndarray:
    """Four of a person, on the unit sphere; queries of another seed are of the same persons."""
    centres = np.random.default_rng(1).normal(size=(COUNT // 4, DIM))
    e = centres[np.arange(count) % len(centres)] + np.random.default_rng(seed).normal(size=(count, DIM)) * 0.7
    return (e / np.linalg.norm(e, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def gallery(tmp_path_factory) -> facenet.Gallery:
    """2,000 templates, whose ids are not their places. One is added by the package, the others as docs/galleries.md allows."""

    class MadeUp:
        info = {"digest": "0123456789abcdef", "architecture": "inception_resnet_v1", "normalise": "l2", "crop": "box", "embedding_dim": DIM,
                "input_size": 160, "margin": 0.0, "trained": False}  # fmt: skip

    path, embeddings = tmp_path_factory.mktemp("gallery") / "g", faces(COUNT, 2)
    made = facenet.Gallery(path)
    made.add("person 0", embeddings[0], embedder=MadeUp())
    db = sqlite3.connect(path)
    db.execute("PRAGMA foreign_keys = ON")
    columns = "face, x1, y1, x2, y2, score, enrolled"
    row = db.execute(f"SELECT {columns} FROM template").fetchone()
    for i in range(1, COUNT):
        person = i % (COUNT // 4)
        db.execute("INSERT OR IGNORE INTO person (id, name) VALUES (?, ?)", (person + 1, f"person {person}"))
        values = (3 * i + 5, person + 1, f"é{i}.jpg", f"{i:064}", *row, embeddings[i].tobytes())
        db.execute(f"INSERT INTO template (id, person, image, sha256, {columns}, embedding) VALUES ({','.join('?' * 12)})", values)
    db.commit()
    db.close()
    return made


@needs_package
@needs_galleries
def test_what_is_exported(gallery, tmp_path):
    from facenet import export

    found = export.read(gallery)
    assert np.array_equal(found.embeddings, faces(COUNT, 2)) and found.model == "0123456789abcdef"
    assert found.labels[7] == (26, "person 7", "é7.jpg", 0) and len(found.labels) == COUNT
    assert export.read(gallery.path).labels == found.labels
    assert "no templates" in said(lambda: export.read(facenet.Gallery(tmp_path / "empty")), OSError)
    assert "no such file" in said(lambda: export.read(tmp_path / "none"), FileNotFoundError)
    assert "none" in said(lambda: facenet.export.read(tmp_path / "none.npy"), OSError)
    (tmp_path / "text").write_text("no gallery")
    said(lambda: export.read(tmp_path / "text"), OSError)

    np.save(tmp_path / "x.npy", found.embeddings[:3])
    assert export.read(tmp_path / "x.npy").labels[2] == (2, None, None, None)
    lines = [json.dumps({"image": f"{i}.jpg", "face": i, "box": None, "model": "a"}) for i in range(3)]
    (tmp_path / "x.index.jsonl").write_text("\n".join(lines))
    assert export.read(tmp_path / "x.npy").labels[2] == (2, None, "2.jpg", 2) and export.read(tmp_path / "x.npy").model == "a"
    (tmp_path / "x.index.jsonl").write_text("\n".join(lines[:2]))
    assert "2 lines for 3" in said(lambda: export.read(tmp_path / "x.npy"))
    (tmp_path / "x.index.jsonl").write_text("\n".join([*lines[:2], lines[2].replace('"a"', '"b"')]))
    assert "2 models" in said(lambda: export.read(tmp_path / "x.npy"))
    for bad, words in ((found.embeddings[0], "[n, dim]"), (found.embeddings.astype(float), "float64"), (found.embeddings * np.float32(np.inf), "finite")):
        np.save(tmp_path / "y.npy", bad)
        with np.errstate(invalid="ignore"):
            assert words in said(lambda: export.read(tmp_path / "y.npy"))
    (tmp_path / "z.npy").write_text("no array")
    assert "z.npy" in said(lambda: export.read(tmp_path / "z.npy"))


@needs_package
@needs("pyarrow")
def test_parquet_is_exported(run_of, tmp_path):
    from facenet import export

    run_of(["a.jpg", "bad.jpg", "c.jpg"], part=1)
    found = export.read(tmp_path / "out")
    assert sorted(label[2] for label in found.labels) == [str(tmp_path / "a.jpg"), str(tmp_path / "c.jpg")]
    assert [label[:2] for label in found.labels] == [(0, None), (1, None)] and found.embeddings.shape == (2, 2)
    assert np.array_equal(found.embeddings[:, 1], np.float32([1 / 3, 1 / 3])) and found.model
    (tmp_path / "x.parquet").write_text("no table")
    assert "x.parquet" in said(lambda: export.read(tmp_path / "x.parquet"))
    (tmp_path / "none").mkdir()
    assert "no embedding" in said(lambda: export.read(tmp_path / "none"))


@pytest.fixture(scope="module")
def nearest(gallery):
    """100 queries, and the template that our exact search finds for each."""
    queries = faces(100, 3)
    return queries, [matches[0] for matches in gallery.search(queries)]


@needs_package
@needs_galleries
@needs("faiss")
def test_faiss_finds_the_same(gallery, nearest, tmp_path):
    import faiss

    from facenet import export

    templates, (queries, expected) = export.read(gallery), nearest
    export.to_faiss(templates, tmp_path / "flat")
    squared, ids = faiss.read_index(str(tmp_path / "flat")).search(queries, 1)
    assert ids[:, 0].tolist() == [match.template for match in expected]
    assert np.allclose(np.sqrt(squared[:, 0]), [match.distance for match in expected], atol=1e-3)  # eps of a float, under a root
    names = [json.loads(line) for line in (tmp_path / "flat.jsonl").read_text().splitlines()]
    assert names[7] == {"id": 26, "name": "person 7", "image": "é7.jpg", "face": 0, "model": "0123456789abcdef"}
    assert (tmp_path / "flat").stat().st_mode & 0o77 == 0
    export.to_faiss(templates, tmp_path / "hnsw", "HNSW32")
    _, ids = faiss.read_index(str(tmp_path / "hnsw")).search(queries, 1)
    assert np.mean(ids[:, 0] == [match.template for match in expected]) >= 0.95  # it is approximate
    export.to_faiss(templates, tmp_path / "ivf", "IVF16,Flat")  # has to be trained
    assert "IVF" in said(lambda: export.to_faiss(templates, tmp_path / "no", "IVFx,Nonsense"))
    assert str(tmp_path / "absent/x") in said(lambda: export.to_faiss(templates, tmp_path / "absent/x"), OSError)
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in said(lambda: export.to_faiss(templates, tmp_path / "pipe"), OSError)
    assert (tmp_path / "pipe").is_fifo()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["flat", "flat.jsonl", "hnsw", "hnsw.jsonl", "ivf", "ivf.jsonl"]


@needs_package
@needs_galleries
@needs("sqlite_vec")
def test_sqlite_vec_finds_the_same(gallery, nearest, tmp_path):
    import sqlite_vec

    from facenet import export

    export.to_sqlite_vec(export.read(gallery), tmp_path / "vec.db")
    db = sqlite3.connect(tmp_path / "vec.db")
    db.enable_load_extension(True)
    sqlite_vec.load(db)
    query = "SELECT id, distance, name FROM face_vec JOIN face USING (id) WHERE embedding MATCH ? AND k = 1"
    for embedding, match in zip(*nearest):
        found, distance, name = db.execute(query, (embedding.tobytes(),)).fetchone()
        assert (found, name) == (match.template, match.name) and distance == pytest.approx(match.distance, abs=1e-5)


@needs_package
@needs_galleries
@needs("pgserver", "psycopg")
def test_pgvector_finds_the_same(gallery, nearest, tmp_path):
    import pgserver
    import psycopg

    from facenet import export

    server = pgserver.get_server(tmp_path / "data")
    try:
        address, templates, (queries, expected) = server.get_uri(), export.read(gallery), nearest
        export.to_postgres(templates, address)
        assert "already exists" in said(lambda: export.to_postgres(templates, address), OSError)
        assert "2000" in said(lambda: export.to_postgres(templates._replace(embeddings=np.zeros((1, 2001), np.float32)), address))
        with psycopg.connect(address) as db:
            stored = db.execute("SELECT embedding::text, id, name, image, model FROM face ORDER BY id").fetchall()
            assert np.array_equal(np.float32([json.loads(row[0]) for row in stored]), templates.embeddings)
            assert stored[7][1:] == (26, "person 7", "é7.jpg", "0123456789abcdef")
            query = "SELECT id, embedding <-> %s::vector FROM face ORDER BY 2 LIMIT 1"
            answers = {}
            for exact in ("off", "on"):  # whether it may use the index
                db.execute(f"SET enable_indexscan = {exact}")
                answers[exact] = [db.execute(query, (json.dumps(q.tolist()),)).fetchone() for q in queries]
            plan = str(db.execute("EXPLAIN " + query, (json.dumps(queries[0].tolist()),)).fetchall())
        assert [a[0] for a in answers["off"]] == [match.template for match in expected]
        assert np.allclose([a[1] for a in answers["off"]], [match.distance for match in expected], atol=1e-5)
        assert "Index Scan" in plan and np.mean([a == b for a, b in zip(answers["on"], answers["off"])]) >= 0.95  # it is approximate
    finally:
        server.cleanup()


@needs_package
@needs_galleries
@needs("pgserver", "psycopg")
def test_the_example_with_pgvector(gallery):
    call = [sys.executable, ROOT / "examples/python/search_pgvector.py", gallery.path]
    done = subprocess.run(call, capture_output=True, text=True, env=dict(os.environ, PYTHONPATH=str(PACKAGE)), timeout=120, check=False)
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert done.returncode == 0 and len(lines) == 5 * COUNT, done.stderr
    first = [line for line in lines if line[0].startswith("person 7 ")]
    assert len(first) == 20 and sum(line[1].startswith("person 7 ") for line in first) >= 10  # the three others of each are near


@needs_package
@needs_galleries
def test_the_export_as_a_program(gallery, tmp_path):
    """Where the engine's package is absent it says so."""
    environment = dict(os.environ, PYTHONPATH=str(PACKAGE))
    call = [sys.executable, "-m", "facenet.export", gallery.path, "--faiss", tmp_path / "out"]
    done = subprocess.run(call, capture_output=True, text=True, env=environment, check=False)
    if importlib.util.find_spec("faiss"):
        assert done.stdout == "2000 embeddings of 128 numbers\n" and (tmp_path / "out.jsonl").exists()
    else:
        assert done.returncode == 2 and "pip install faiss-cpu" in done.stderr and "Traceback" not in done.stderr
