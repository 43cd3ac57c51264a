"""`facenet embed` on whole folders: NPY, CSV and JSON lines, going on after a kill, the cache, constant memory."""

from __future__ import annotations

import csv
import json
import os
import pathlib
import shutil
import signal
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest
import xxhash
from conftest import ROOT, assert_one_error, run_tool
from PIL import Image
from recognition import make_people
from test_command import COMMAND, MEASURE, SANITIZED, assert_sentence, facenet, lines
from test_command import weights  # noqa: F401 (fixture)

pytestmark = pytest.mark.skipif(not COMMAND.exists(), reason=f"{COMMAND} is not built")
NAMES = ["a, b.png", 'quoted "x".png', "line\nfeed.png", "顔.png", ".hidden.png"]


@pytest.fixture(scope="module")
def aligned(weights):  # noqa: F811
    return ["embed", "--aligned", "--weights", weights]


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> pathlib.Path:
    """12 pictures of 3 persons, names of every kind, a hidden file and one that is no picture."""
    folder = tmp_path_factory.mktemp("bulk") / "people"
    made = make_people(folder, 3, 4)
    for name, picture in zip(NAMES, made):
        shutil.copy(picture, folder / name)
    (folder / "text.txt").write_text("no picture, and not called one")
    return folder


@pytest.fixture(scope="module")
def want(aligned, people):
    """What the command prints for each picture alone."""
    names = sorted((p for p in people.rglob("*.png") if not p.name.startswith(".")), key=lambda p: p.parts)
    return lines(facenet(*aligned, "--json", *names))


def array_of(path: pathlib.Path) -> tuple[np.ndarray, list[dict], dict]:
    index = path.with_suffix(".index.jsonl").read_text(encoding="utf-8").splitlines()
    return np.load(path), [json.loads(row) for row in index], json.loads(path.with_suffix(".model.json").read_text())


def test_an_array_with_its_index(aligned, people, want, tmp_path):
    out = tmp_path / "x.npy"
    result = facenet(*aligned, people, "--out", out)
    assert result.returncode == 0 and result.stdout == "" and "untrained" in result.stderr
    array, index, model = array_of(out)
    assert array.dtype == np.float32 and array.shape == (12 + 4, 128)
    assert np.array_equal(array, np.float32([row["embedding"] for row in want]))
    for row, single in zip(index, want, strict=True):
        assert {k: row[k] for k in ("image", "face", "box", "model")} == {k: single[k] for k in ("image", "face", "box", "model")}
    assert model["rows"] == 16 and model["dim"] == 128 and model["trained"] is False and model["normalise"] == "l2"
    assert model["model"] == want[0]["model"] and model["failed"] == [] and model["index"] == "x.index.jsonl"
    assert model["data_xxh64"] == xxhash.xxh64(array.tobytes()).hexdigest()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.index.jsonl", "x.model.json", "x.npy"]


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_threads_change_no_byte_and_no_order(aligned, people, want, tmp_path, threads):
    out = tmp_path / "x.jsonl"
    assert facenet(*aligned, people, "--out", out, "--threads", threads).returncode == 0
    assert [json.loads(row) for row in out.read_text(encoding="utf-8").splitlines()] == want


def test_csv(aligned, people, want, tmp_path):
    out = tmp_path / "x.csv"
    assert facenet(*aligned, people, "--out", out).returncode == 0
    with out.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row, single in zip(rows, want, strict=True):
        assert row["image"] == single["image"] and int(row["face"]) == 0 and row["model"] == single["model"]
        assert [float(row[k]) for k in ("x0", "y0", "x1", "y1")] == single["box"]
        assert np.array_equal(np.float32([row[f"e{i}"] for i in range(128)]), np.float32(single["embedding"]))


def test_failures_come_at_the_end_and_are_listed(aligned, people, tmp_path):
    folder = tmp_path / "some"
    shutil.copytree(people / "Person_A", folder)
    for name in ("Person_A_0000.png", "Person_A_0002x.png"):
        (folder / name).write_text("no picture")
    out = tmp_path / "x.npy"
    result = facenet(*aligned, folder, "--out", out)
    assert result.returncode == 2
    sentences = result.stderr.splitlines()
    assert "untrained" in sentences[0] and len(sentences) == 3
    assert "Person_A_0000.png" in sentences[1] and "Person_A_0002x.png" in sentences[2]
    array, index, model = array_of(out)
    assert len(array) == 4 and [pathlib.Path(name).name for name in model["failed"]] == ["Person_A_0000.png", "Person_A_0002x.png"]


def rows_in(cache: pathlib.Path) -> int:
    try:
        with sqlite3.connect(f"file:{cache}?mode=ro", uri=True) as database:
            return database.execute("SELECT count(*) FROM faces").fetchone()[0]
    except sqlite3.Error:
        return 0


@pytest.mark.slow
def test_it_goes_on_after_a_kill(aligned, tmp_path):
    folder, out, whole = tmp_path / "many", tmp_path / "x.npy", tmp_path / "whole.npy"
    folder.mkdir()
    random = np.random.default_rng(2)
    for number in range(240):
        Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / f"{number:04d}.png")
    partial = tmp_path / "x.npy.partial"
    process = subprocess.Popen([COMMAND, *map(str, aligned), folder, "--out", out], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while rows_in(partial) == 0 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was done before it could be killed"
    kept = rows_in(partial)
    assert 0 < kept < 240 and not out.exists()
    assert facenet(*aligned, folder, "--out", out).returncode == 0
    assert facenet(*aligned, folder, "--out", whole, "--cache", "none").returncode == 0
    for suffix in (".npy", ".index.jsonl"):
        assert out.with_suffix(suffix).read_bytes() == whole.with_suffix(suffix).read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["many", *(f"{n}.{s}" for n in ("whole", "x")
                                                                    for s in ("index.jsonl", "model.json", "npy"))]


def test_the_cache_goes_by_content_and_model(aligned, converted, people, tmp_path):
    cache, folder = tmp_path / "cache", tmp_path / "people"
    shutil.copytree(people, folder)
    call = [*aligned, "--json", folder, "--cache", cache]
    first = facenet(*call)
    assert first.returncode == 0 and rows_in(cache) == 12  # the others are copies
    # What is in the cache is taken: another embedding there shows.
    with sqlite3.connect(cache) as database:
        for key, data in database.execute("SELECT key, data FROM faces").fetchall():
            values = np.frombuffer(data, np.float32).copy()
            values[20:] = np.arange(values.size - 20) == 0  # of length 1, as what the embedder gives
            database.execute("UPDATE faces SET data = ? WHERE key = ?", (values.tobytes(), key))
    second = facenet(*call)
    assert all(row["embedding"][0] == 1 for row in lines(second))
    assert [row["box"] for row in lines(second)] == [row["box"] for row in lines(first)]
    # Another picture under the old name is embedded anew, and so is everything for another model or other options.
    Image.fromarray(np.full((64, 64, 3), 9, np.uint8)).save(folder / "顔.png")
    (changed,) = [row for row in lines(facenet(*call)) if row["image"].endswith("顔.png")]
    assert changed["embedding"][0] != 1 and rows_in(cache) == 13
    other = facenet("embed", "--aligned", "--json", "--weights", converted["f16"], folder, "--cache", cache)
    assert all(row["embedding"][0] != 1 for row in lines(other))
    assert all(row["embedding"][0] != 1 for row in lines(facenet(*call, "--half-weights")))
    assert rows_in(cache) > 13 + 12


def test_embeddings_in_a_cache_that_mean_nothing_are_made_again(aligned, people, tmp_path):
    cache = tmp_path / "cache"
    call = [*aligned, "--json", people, "--cache", cache]
    first = facenet(*call)
    wrong = [0.0, -0.0, 1e-40, 1e-13, np.nan, np.inf, -np.inf, 1e16]  # zeros match zeros; the rest compares as nothing
    with sqlite3.connect(cache) as database:
        rows = database.execute("SELECT key, data FROM faces").fetchall()
        assert first.returncode == 0 and len(rows) == 12
        for i, (key, data) in enumerate(rows):
            values = np.frombuffer(data, np.float32).copy()
            if i < len(wrong):
                values[20:] = wrong[i]
            elif i < len(wrong) + 2:  # one component; a box that is no number
                values[(20, 2)[i - len(wrong)]] = np.nan
            elif i == len(rows) - 1:  # of another length than what is normalised has
                values[20:] *= 0.9
            else:
                values = values[:-1]
            database.execute("UPDATE faces SET data = ? WHERE key = ?", (values.tobytes(), key))
    again = facenet(*call)
    assert again.returncode == 0 and again.stdout == first.stdout
    with sqlite3.connect(cache) as database:
        assert sorted(database.execute("SELECT key, data FROM faces")) == sorted(rows)


def test_caches_that_are_none(aligned, people, tmp_path):
    foreign = tmp_path / "foreign"
    with sqlite3.connect(foreign) as database:
        database.execute("CREATE TABLE t (x)")
    (tmp_path / "text").write_text("no database at all, " * 100)
    for file in (foreign, tmp_path / "text", tmp_path):
        before = file.read_bytes() if file.is_file() else b""
        assert_sentence(facenet(*aligned, people, "--cache", file), file)
        assert not before or file.read_bytes() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_a_full_disk(aligned, people, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small], check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        (small / "fill").write_bytes(bytes(48 << 10))
        result = facenet(*aligned, people, "--out", small / "x.csv", "--cache", "none")
        assert result.returncode == 2 and "cannot be written (No space left on device)" in result.stderr
        kept = facenet(*aligned, people, "--out", tmp_path / "x.csv", "--cache", small / "cache")
        assert kept.returncode in (0, 2) and "small/cache" in kept.stderr
        assert sorted(p.name for p in small.iterdir() if p.name != "cache") == ["fill"]
    finally:
        subprocess.run(["umount", small], check=True)


def test_mistakes(aligned, people, tmp_path):
    (tmp_path / "empty").mkdir()
    assert_sentence(facenet(*aligned, people, "--out", tmp_path / "x.parquet"), "x.parquet", "npy_to_parquet.py")
    assert_sentence(facenet(*aligned, people, "--out", tmp_path / "none" / "x.npy"), "x.npy", "cannot be written")
    assert_sentence(facenet(*aligned, tmp_path / "empty"), "empty", "no picture in it")
    assert list(tmp_path.iterdir()) == [tmp_path / "empty"]


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.skipif(SANITIZED, reason="sanitizers need memory of their own")
def test_ten_times_as_many_pictures_take_the_memory_of_few(aligned, tmp_path):
    """A name is in the list of pictures, among the files that the command may not overwrite, and in the set of those that
    are there: three strings of 60 to 90 characters with their nodes, 230 bytes each. An embedding would be 512 more.
    FACENET_LONG=1: 10,000 pictures beside 1,000."""
    few = 1000 if "FACENET_LONG" in os.environ else 300
    Image.fromarray(np.random.default_rng(3).integers(0, 256, (8, 8, 3), np.uint8)).save(tmp_path / "one.png")
    for count in (few, 10 * few):
        (tmp_path / str(count)).mkdir()
        for number in range(count):
            os.link(tmp_path / "one.png", tmp_path / str(count) / f"{number:05d}.png")

    def peak(count):
        out = tmp_path / f"{count}.npy"
        call = [COMMAND, *aligned, tmp_path / str(count), "--out", out, "--cache", "none"]
        result = subprocess.run([sys.executable, "-S", "-c", MEASURE, *map(str, call)], capture_output=True, text=True, check=True,
                                env={**os.environ, "MALLOC_ARENA_MAX": "1"})  # one heap: threads' own are as full as chance has it
        assert np.load(out, mmap_mode="r").shape == (count, 128)
        out.unlink()
        return int(result.stdout.splitlines()[-1]) * 1024

    # What a picture needs is there in every run; which pictures the threads hold at once is chance, and adds up to 1 MB.
    # So the smallest of at most three peaks is compared. 700: the strings and their nodes, the longest TMPDIR of a runner.
    peaks = {few: [], 10 * few: []}
    for _ in range(3):
        for count, seen in peaks.items():
            seen.append(peak(count))
        if min(peaks[10 * few]) - min(peaks[few]) < 9 * few * 700 + (1 << 20):  # and what the allocator rounds
            return
    pytest.fail(f"ten times as many pictures take more than their names: {peaks}")


# ---- the tools and examples that read it -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(aligned, people, tmp_path_factory) -> pathlib.Path:
    out = tmp_path_factory.mktemp("made") / "x.npy"
    assert facenet(*aligned, people, "--out", out).returncode == 0
    return out


def test_parquet(made, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    array, index, model = array_of(made)
    assert run_tool("npy_to_parquet.py", made, "-o", tmp_path / "x.parquet").returncode == 0
    table = parquet.read_table(tmp_path / "x.parquet")
    assert np.array_equal(np.float32(table["embedding"].to_pylist()), array)
    assert table["image"].to_pylist() == [row["image"] for row in index]
    assert table["box"].to_pylist() == [row["box"] for row in index] and set(table["model"].to_pylist()) == {model["model"]}
    # Files of two runs, and of two models, are not put together.
    for suffix in (".npy", ".index.jsonl", ".model.json"):
        shutil.copy(made.with_suffix(suffix), tmp_path / f"x{suffix}")
    np.save(tmp_path / "x.npy", array + 1)
    assert_one_error(run_tool("npy_to_parquet.py", tmp_path / "x.npy"), "x.npy", "two runs")
    np.save(tmp_path / "x.npy", array[1:])
    assert_one_error(run_tool("npy_to_parquet.py", tmp_path / "x.npy"), "x.npy", "two runs")
    shutil.copy(made, tmp_path / "x.npy")
    rows = (tmp_path / "x.index.jsonl").read_text(encoding="utf-8")
    (tmp_path / "x.index.jsonl").write_text(rows.replace(model["model"], "0" * 16, 1), encoding="utf-8")
    assert_one_error(run_tool("npy_to_parquet.py", tmp_path / "x.npy", "-o", tmp_path / "y"), "another model")
    assert not (tmp_path / "y").exists() and not (tmp_path / "y.tmp").exists()
    assert_one_error(run_tool("npy_to_parquet.py", tmp_path / "none.npy"), "none.model.json", "cannot be read")
    for line, part in ((b'{"image": "\xff"}', "line 2 is not UTF-8; run"), (b"[]", "line 2 is not what"), (b"{", "line 2 is not what")):
        for suffix in ("npy", "model.json", "index.jsonl"):
            shutil.copy(made.with_suffix(f".{suffix}"), tmp_path / f"z.{suffix}")
        rows = (tmp_path / "z.index.jsonl").read_bytes().splitlines()
        (tmp_path / "z.index.jsonl").write_bytes(b"\n".join([rows[0], line, *rows[2:]]) + b"\n")
        assert_one_error(run_tool("npy_to_parquet.py", tmp_path / "z.npy", "-o", tmp_path / "z"), "z.index.jsonl", part)
    (tmp_path / "z.model.json").write_bytes(b"{\n\n\xe9}")
    assert_one_error(run_tool("npy_to_parquet.py", tmp_path / "z.npy"), "z.model.json: line 3 is not UTF-8; run")
    (tmp_path / "z.model.json").write_bytes(b"[]")
    assert_one_error(run_tool("npy_to_parquet.py", tmp_path / "z.npy"), "z.model.json: is not JSON")


def test_example_of_loading(made):
    example = ROOT / "examples/python/load_embeddings.py"
    result = subprocess.run([sys.executable, example, made], capture_output=True, text=True, check=True)
    rows = [line.split("\t") for line in result.stdout.replace("line\nfeed", "line feed").splitlines()]
    array, index, model = array_of(made)
    assert len(rows) == len(array)
    apart = np.sqrt(((array[:, None].astype(np.float64) - array) ** 2).sum(2)) + np.diag(np.full(len(array), np.inf))
    for row, want_distance in zip(rows, apart.min(1)):
        assert abs(float(row[2]) - want_distance) < 1e-4
        assert row[3] == ("same" if want_distance <= model["threshold"] else "different")


def test_example_of_faiss(made):
    pytest.importorskip("faiss")
    example = ROOT / "examples/python/search_faiss.py"
    result = subprocess.run([sys.executable, example, made, made], capture_output=True, text=True, check=True)
    firsts = result.stdout.replace("line\nfeed", "line feed").splitlines()[::5]
    assert len(firsts) == 16 and all(float(line.split("\t")[2]) < 1e-3 for line in firsts)
