"""Galleries on disk: enroll, identify and gallery, as `facenet enroll --help` and docs/galleries.md promise them.

dlib's network (trained, 128-d, quick) and generated pictures; what looks for faces uses the portrait that bootstrap fetches.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import sqlite3
import struct
import subprocess
import threading
import time

import numpy as np
import pytest
import xxhash
from conftest import ROOT, run_tool
from PIL import Image
from test_command import COMMAND, SANITIZED, UNTRAINED, assert_sentence, facenet, lines
from test_command import weights  # noqa: F401 (fixtures)
from test_command_faces import ASTRONAUT, detector, scenes  # noqa: F401 (fixtures)
from test_detector import weight_file  # noqa: F401 (fixtures)

from facenet_tools import pictures

FACE_API = ROOT / ".deps/face-api"
pytestmark = [
    pytest.mark.skipif(not COMMAND.exists(), reason=f"{COMMAND} is not built"),
    pytest.mark.skipif(not FACE_API.exists(), reason=f"{FACE_API} is not there: run tools/bootstrap.sh"),
]
needs_mount = pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="only root may mount a small disk")
DIM = 128
# Scripts from right to left, without case, outside of the basic plane; one name composed and decomposed, which are two.
NOT_MEASURED = "nobody measured how many strangers"
NAMES = ["Ada Lovelace", "Ирина", "李小龍", "محمد", "नमस्ते", "Zoë", "Zoe\u0308", "𝔘nicode 😀", "O'Brien; DROP TABLE person", "unknown"]


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> list[object]:
    path = tmp_path_factory.mktemp("dlib") / "dlib.safetensors"
    result = run_tool("convert_weights.py", "--face-api", FACE_API, "-o", path)
    assert result.returncode == 0, result.stderr
    return ["--weights", path, "--threads", 1]


@pytest.fixture(scope="module")
def crops(network) -> list[object]:
    return [*network, "--aligned"]


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> pathlib.Path:
    """people/NAME/N.png, three pictures each, one of them deeper."""
    folder, rng = tmp_path_factory.mktemp("people") / "people", np.random.default_rng(11)
    for name in NAMES:
        (folder / name / "more").mkdir(parents=True)
        for path in ("0.png", "1.png", "more/2.png"):
            Image.fromarray(pictures.structured(rng)).resize((60, 60)).save(folder / name / path)
    return folder


@pytest.fixture(scope="module")
def enrolled(crops, people, tmp_path_factory) -> pathlib.Path:
    """A gallery of them. Copy it before changing it."""
    path = tmp_path_factory.mktemp("enrolled") / "people.gallery"
    result = facenet("enroll", "--json", *crops, path, "--dir", people)
    assert result.returncode == 0 and "ignored" not in result.stderr, result.stderr
    assert [p["enrolled"] for p in lines(result)] == [True] * 30
    return path


@pytest.fixture
def gallery(enrolled, tmp_path) -> pathlib.Path:
    return pathlib.Path(shutil.copy(enrolled, tmp_path / "g.gallery"))


@pytest.fixture(scope="module")
def embeddings(crops, people) -> dict[str, np.ndarray]:
    """What `embed` says of each picture."""
    files = sorted(people.rglob("*.png"))
    return {p["image"]: np.float32(p["embedding"]) for p in lines(facenet("embed", "--json", *crops, *files))}


def person_of(picture: str, people: pathlib.Path) -> str:
    return pathlib.Path(picture).relative_to(people).parts[0]


def rows(path: pathlib.Path, sql: str, *values: object) -> list[tuple]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(sql, values).fetchall()
    finally:
        connection.close()


def assert_sound(path: pathlib.Path) -> None:
    """SQLite finds nothing wrong, and nobody is half there."""
    assert rows(path, "PRAGMA integrity_check") == [("ok",)] and rows(path, "PRAGMA foreign_key_check") == []
    assert rows(path, "SELECT count(*) FROM person WHERE id NOT IN (SELECT person FROM template)") == [(0,)]
    assert rows(path, "SELECT count(*) FROM template WHERE length(embedding) <> 4 * (SELECT embedding_dim FROM meta)") == [(0,)]


def exported(path: pathlib.Path) -> list[dict]:
    result = facenet("gallery", "export", path)
    assert result.returncode == 0, result.stderr
    return lines(result)


HEAD = {"format": "facenet-gallery", "version": 1, "model": "0123456789abcdef", "architecture": "x", "embedding_dim": DIM,
        "trained": True, "normalise": "l2", "image_size": 160, "crop": "box", "margin": 0, "detector": ""}


def made_up(rng: np.random.Generator, count: int) -> list[dict]:
    """Templates of `count` persons, random so that each eight bytes of them are theirs alone."""
    return [{"name": f"name-{rng.integers(1 << 60):015x}", "image": f"image-{rng.integers(1 << 60):015x}",
             "sha256": rng.bytes(32).hex(), "face": 0, "box": [0, 0, 9, 9], "score": 1, "enrolled": "2026-01-01T00:00:00Z",
             "embedding": rng.normal(0, 1, DIM).astype(np.float32).tolist()} for _ in range(count)]


def imported(path: pathlib.Path, *rows: dict, **options) -> subprocess.CompletedProcess[str]:
    return facenet("gallery", "import", path, input="\n".join(map(json.dumps, rows)).encode(), **options)


SUMMED = {  # docs/galleries.md
    "meta": "id, model, architecture, embedding_dim, trained, normalise, image_size, crop, margin, detector",
    "person": "id, name, named",
    "template": "id, uuid, person, image, sha256, face, x1, y1, x2, y2, score, enrolled, embedding",
    "picture": "template, bytes",
    "decision": "id, template, person, verdict, decided",
    "file": "id, path, sha256, bytes, modified, settings, faces, problem, looked",
}


def row_checksum(*values: object) -> int:
    """As docs/galleries.md describes it."""
    parts = b""
    for value in values:
        if isinstance(value, int):
            parts += struct.pack("<Bq", 1, value)
        elif isinstance(value, float):
            parts += struct.pack("<Bd", 2, value)
        elif value is None:
            parts += b"\5"
        else:
            data = value.encode() if isinstance(value, str) else value
            parts += struct.pack("<BQ", 3 if isinstance(value, str) else 4, len(data)) + data
    return struct.unpack("<q", struct.pack("<Q", xxhash.xxh64(parts, seed=0).intdigest()))[0]


def change(path: pathlib.Path, sql: str, *values: object) -> None:
    """As another program would, which checks nothing but knows the checksums."""
    connection = sqlite3.connect(path)
    connection.create_function("row_checksum", -1, row_checksum)
    connection.execute("PRAGMA ignore_check_constraints = ON")
    connection.execute(sql, values)
    for table in ("meta", "person", "template"):
        with contextlib.suppress(sqlite3.OperationalError):  # it has another name now, or holds text that is none
            connection.execute(f"UPDATE {table} SET checksum = row_checksum({SUMMED[table]})")
    connection.commit()
    connection.close()


def mode(path: pathlib.Path) -> int:
    return path.stat().st_mode & 0o777


# ---- what is enrolled, and who is found ------------------------------------------------------------------------------


def test_the_file_is_what_the_page_says(enrolled, embeddings, people):
    assert rows(enrolled, "PRAGMA application_id") == [(0x464E4554,)] and rows(enrolled, "PRAGMA user_version") == [(2,)]
    (meta,) = rows(enrolled, "SELECT architecture, embedding_dim, trained, normalise, image_size, crop, margin, detector FROM meta")
    assert meta == ("dlib_resnet", DIM, 1, "none", 150, "five_point", 0.25, "")
    stored = rows(enrolled, "SELECT p.name, t.image, t.embedding, t.sha256 FROM template t JOIN person p ON p.id = t.person")
    assert len(stored) == 30 and {name for name, *_ in stored} == set(NAMES)
    for name, image, embedding, _ in stored:
        assert name == person_of(image, people) and np.array_equal(np.frombuffer(embedding, "<f4"), embeddings[image])
    assert_sound(enrolled)
    assert sorted(p.name for p in enrolled.parent.iterdir()) == [enrolled.name]
    documented = sqlite3.connect(":memory:")
    documented.executescript((ROOT / "docs" / "galleries.md").read_text().split("```sql\n")[1].split("```")[0])
    columns = "SELECT m.name, c.name, c.type, c.[notnull], c.pk FROM sqlite_schema m JOIN pragma_table_info(m.name) c"
    assert documented.execute(columns).fetchall() == rows(enrolled, columns)
    keys = "SELECT m.name, i.[unique], c.name FROM sqlite_schema m JOIN pragma_index_list(m.name) i JOIN pragma_index_info(i.name) c"
    assert documented.execute(keys).fetchall() == rows(enrolled, keys)


def test_identify_finds_the_nearest_persons(crops, enrolled, embeddings, people, tmp_path):
    rng = np.random.default_rng(12)
    queries = [people / "Zoë" / "1.png"]
    for i, name in enumerate(NAMES):
        pixels = np.asarray(Image.open(people / name / "0.png"), np.float32) + rng.normal(0, 12, (60, 60, 3))
        queries.append(tmp_path / f"{i}.png")
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(queries[-1])
    vectors = {p["image"]: np.float32(p["embedding"]) for p in lines(facenet("embed", "--json", *crops, *queries))}
    for threshold, top in ((0.6, 1), (0.35, 4), (100, 10)):
        result = facenet("identify", "--json", *crops, "--threshold", threshold, "--top", top, enrolled, *queries)
        assert result.returncode == 0 and result.stderr.count("\n") == 1 and NOT_MEASURED in result.stderr
        assert [p["image"] for p in lines(result)] == [str(q) for q in queries]
        for found in lines(result):
            named = ["name"] if found["matches"] else []
            assert list(found) == ["image", "face", "box", "decision", *named, "matches", "threshold", "margin", "gallery_size",
                                   "model", "trained"]
            assert found["decision"] == ("known" if named else "unknown") and found["gallery_size"] == len(NAMES)
            assert not named or found["name"] == found["matches"][0]["name"]
            best: dict[str, tuple[float, str]] = {}
            for image, e in embeddings.items():
                d = float(np.linalg.norm(np.float64(vectors[found["image"]]) - e))
                name = person_of(image, people)
                best[name] = min(best.get(name, (np.inf, "")), (d, image))
            want = sorted((d, name, image) for name, (d, image) in best.items() if d <= threshold)[:top]
            assert [(m["name"], m["image"]) for m in found["matches"]] == [(name, image) for _, name, image in want]
            # Float32 is what --json prints.
            assert np.allclose([m["distance"] for m in found["matches"]], [d for d, *_ in want], rtol=2e-7, atol=0)
    itself = lines(facenet("identify", "--json", *crops, enrolled, queries[0]))[0]["matches"]
    assert len(itself) == 1 and itself[0]["name"] == "Zoë" and itself[0]["distance"] == 0 and itself[0]["similarity"] == 1


def test_identify_as_text_and_nobody(crops, enrolled, people, tmp_path):
    one = people / "李小龍" / "0.png"
    result = facenet("identify", *crops, enrolled, one)
    assert result.returncode == 0 and result.stdout == f"{one}\t0\t李小龍\tdistance 0.0000\tsimilarity 1.0000\n"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (150, 150, 3), np.uint8)).save(tmp_path / "noise.png")
    result = facenet("identify", "--quiet", *crops, "--threshold", 0.01, enrolled, tmp_path / "noise.png")
    assert result.returncode == 1 and result.stdout == f"{tmp_path}/noise.png\t0\tunknown\n" and result.stderr == ""
    for require, status in (("some", 0), ("every", 1)):
        call = ["identify", *crops, "--threshold", 0.01, "--require", require, enrolled]
        assert facenet(*call, one, tmp_path / "noise.png").returncode == status
        assert facenet(*call, one, one).returncode == 0 and facenet(*call, tmp_path / "noise.png").returncode == 1
    (tmp_path / "text.png").write_text("no picture")
    mixed = facenet("identify", "--json", *crops, enrolled, tmp_path / "text.png", one)
    assert mixed.returncode == 2 and ["error" in p for p in lines(mixed)] == [True, False] and "text.png" in mixed.stderr
    with open(one, "rb") as picture:
        piped = facenet("identify", *crops, enrolled, "-", stdin=picture)
    assert piped.returncode == 0 and piped.stdout.startswith("-\t0\t李小龍\t")


def test_a_threshold_file(crops, enrolled, people, tmp_path):
    (model,) = rows(enrolled, "SELECT model FROM meta")[0]
    content = {"format": "facenet-threshold", "version": 1, "model": model, "metric": "euclidean", "threshold": 0.25}
    (tmp_path / "t").write_text(json.dumps(content))
    result = facenet("identify", "--json", *crops, "--threshold", tmp_path / "t", enrolled, people / "Zoë" / "0.png")
    assert result.returncode == 0 and lines(result)[0]["threshold"] == 0.25
    (tmp_path / "t").write_text(json.dumps(content | {"model": "0" * 16}))
    assert_sentence(facenet("identify", *crops, "--threshold", tmp_path / "t", enrolled, people / "Zoë" / "0.png"), "another model")


def test_the_expected_rate_of_strangers(crops, enrolled, people, tmp_path):
    """From the file and the gallery's size: ten persons with three templates each."""
    (model,) = rows(enrolled, "SELECT model FROM meta")[0]
    plain = {"format": "facenet-threshold", "version": 1, "model": model, "metric": "euclidean", "threshold": 0.25}
    far = plain | {"far": 0.01, "far_interval": [0.001, 0.05]}
    gallery = plain | {"gallery_size": 20, "fpir": 0.02, "fpir_interval": [0.01, 0.04]}

    def said(content: dict) -> tuple[list[float] | None, str]:
        (tmp_path / "t").write_text(json.dumps(content))
        result = facenet("identify", "--json", *crops, "--threshold", tmp_path / "t", enrolled, people / "Zoë" / "0.png")
        assert result.returncode == 0
        (line,) = lines(result)
        assert line["gallery_size"] == 10
        return [line["fpir"], *line["fpir_interval"]] if "fpir" in line else None, result.stderr

    rate, words = said(plain)
    assert rate is None and NOT_MEASURED in words and "--gallery-size 10 " in words
    rate, words = said(far)
    assert np.allclose(rate, [1 - (1 - f) ** 30 for f in (0.01, 0.001, 0.05)]) and "10 persons; at this threshold at most 26% (3% to 79%)" in words
    rate, words = said(far | gallery)
    assert np.allclose(rate, [0.02, 0.01, 0.04]) and "at most 2% (1% to 4%)" in words
    rate, words = said(far | gallery | {"gallery_size": 5})
    assert np.allclose(rate, [1 - (1 - f) ** 2 for f in (0.02, 0.01, 0.04)]) and "measured for 5 persons, fewer than these" in words
    for wrong in ({"fpir": 2}, {"fpir": "x"}, {"gallery_size": 0}, {"fpir_interval": [0.5]}, {"far_interval": [0.5, 0.1]}):
        (tmp_path / "t").write_text(json.dumps(far | gallery | wrong))
        assert_sentence(facenet("identify", *crops, "--threshold", tmp_path / "t", enrolled, people / "Zoë" / "0.png"), "/t:", "damaged")


def test_nobody_is_named_where_two_are_as_near(crops, enrolled, people, embeddings, tmp_path):
    picture = people / "Zoë" / "0.png"
    query, step = embeddings[str(picture)], np.zeros(DIM, np.float32)
    step[0] = 1
    head, *there = exported(enrolled)

    def gallery(name: str, distances: dict[str, float]) -> pathlib.Path:
        rows = [there[0] | {"name": who, "sha256": f"{i:064x}", "image": who + ".png", "embedding": (query + np.float32(d) * step).tolist()}
                for i, (who, d) in enumerate(distances.items())]
        assert imported(tmp_path / name, head, *rows).returncode == 0
        return tmp_path / name

    def ask(db: pathlib.Path, *options: object) -> tuple[int, dict]:
        result = facenet("identify", "--json", *crops, *options, db, picture)
        return result.returncode, lines(result)[0]

    two = gallery("two", {"Bob": 0.125, "Ann": 0.1, "Far": 0.5})
    status, known = ask(two)
    assert status == 0 and known["decision"] == "known" and known["name"] == "Ann" and known["margin"] == 0
    status, known = ask(two, "--margin", 0.02, "--top", 3)
    assert status == 0 and [m["name"] for m in known["matches"]] == ["Ann", "Bob", "Far"] and "candidates" not in known
    # Also where the runner-up is beyond the threshold.
    for options in ([], ["--threshold", 0.11]):
        status, line = ask(two, "--margin", 0.05, *options)
        assert status == 1 and line["decision"] == "ambiguous" and line["matches"] == [] and "name" not in line
        assert [m["name"] for m in line["candidates"]] == ["Ann", "Bob"]
        assert line["reason"] == "'Ann' is nearest, and 'Bob' is at distance 0.1250, within the margin 0.05"
    text = facenet("identify", *crops, "--margin", 0.05, two, picture)
    assert text.returncode == 1 and text.stdout.startswith(f"{picture}\t0\tambiguous\t'Ann' is nearest")
    assert ask(two, "--margin", 0.05, "--threshold", 0.09)[1]["decision"] == "unknown"
    status, line = ask(gallery("tie", {"Ann": 0.1, "Bob": 0.1}))
    assert status == 1 and line["decision"] == "ambiguous" and line["reason"] == "'Ann' is nearest, and 'Bob' is as near"
    assert_sentence(facenet("identify", *crops, "--margin", "-1", two, picture), "--margin")


def test_one_face_under_two_names_is_said(crops, people, gallery, tmp_path):
    rng, before = np.random.default_rng(3), rows(gallery, "SELECT count(*) FROM template")[0][0]
    for number in range(4):
        pixels = np.asarray(Image.open(people / "Zoë" / "0.png"), np.float32) + rng.normal(0, 4, (60, 60, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(tmp_path / f"{number}.png")
    call = ["enroll", "--json", *crops, "--threshold", 0.2, gallery]
    refused = facenet("enroll", *crops, "--threshold", 0.2, "--duplicates", "refuse", gallery, "Anna", tmp_path / "0.png")
    assert_sentence(refused, "0.png", "'Zoë'", "not enrolled as 'Anna'", "--duplicates report")
    assert rows(gallery, "SELECT count(*) FROM template") == [(before,)]
    said = facenet(*call, "Anna", tmp_path / "0.png", tmp_path / "1.png")
    assert said.returncode == 0 and said.stderr.count("\n") == 2 and "'Zoë'" in said.stderr and "are the two one person?" in said.stderr
    first, second = lines(said)
    assert first["enrolled"] and first["duplicates"][0]["name"] == "Zoë" and first["duplicates"][0]["distance"] <= 0.2
    assert "Anna" not in [d["name"] for d in second["duplicates"]], "a person is no duplicate of itself"
    # What this call enrolled counts too.
    both = facenet(*call, "Beth", tmp_path / "2.png")
    assert {"Zoë", "Anna"} <= {d["name"] for d in lines(both)[0]["duplicates"]}
    quiet = facenet(*call, "--duplicates", "ignore", "Carol", tmp_path / "3.png")
    assert quiet.returncode == 0 and quiet.stderr == "" and "duplicates" not in lines(quiet)[0]
    folder = tmp_path / "folder"
    for person in "AB":
        (folder / person).mkdir(parents=True)
        shutil.copy(tmp_path / ("0.png" if person == "A" else "1.png"), folder / person)
    fresh = lines(facenet("enroll", "--json", *crops, "--threshold", 0.2, tmp_path / "fresh", "--dir", folder))
    assert "duplicates" not in fresh[0] and [d["name"] for d in fresh[1]["duplicates"]] == ["A"]


def test_enrolling_again_goes_on_where_it_was(crops, people, gallery, embeddings, tmp_path):
    before = gallery.read_bytes()
    again = facenet("enroll", "--json", *crops, gallery, "--dir", people)
    assert again.returncode == 0 and [p["enrolled"] for p in lines(again)] == [False] * 30
    assert gallery.read_bytes() == before
    # The content counts, not the name of the file; the same face cannot be two persons.
    copied = shutil.copy(people / "Zoë" / "0.png", tmp_path / "copy.png")
    assert facenet("enroll", *crops, gallery, "Zoë", copied).stdout == f"there\tZoë\t{copied}\n"
    assert_sentence(facenet("enroll", *crops, gallery, "Anna", copied), copied, "'Zoë'", "remove")
    Image.fromarray(pictures.structured(np.random.default_rng(77))).save(tmp_path / "new.png")
    text = facenet("enroll", *crops, gallery, "Zoë", copied, tmp_path / "new.png")
    assert text.returncode == 0 and text.stdout == f"there\tZoë\t{copied}\nenrolled\tZoë\t{tmp_path}/new.png\n"
    assert {p["name"]: p["templates"] for p in lines(facenet("gallery", "list", "--json", gallery))}["Zoë"] == 4
    assert_sound(gallery)


def test_the_folders_odd_ends(crops, people, tmp_path):
    root = tmp_path / "odd"
    shutil.copytree(people / "Zoë", root / "Zoë")
    shutil.copy(people / "Ирина" / "0.png", root / "alone.png")
    (root / "Zoë" / "broken.png").write_text("no picture")
    os.makedirs(os.fsencode(root) + b"/\xff\xfe")
    shutil.copy(people / "Ирина" / "1.png", os.fsencode(root) + b"/\xff\xfe/1.png")
    result = facenet("enroll", "--json", *crops, tmp_path / "g", "--dir", root)
    assert result.returncode == 2 and [p["name"] for p in lines(result) if "error" not in p] == ["Zoë"] * 3
    assert [p["name"] for p in lines(result) if "error" in p] == ["\ufffd\ufffd", "Zoë"]
    assert result.stderr.count("\n") == 3, result.stderr
    for part in ("1 picture(s) lie in no person's folder", "broken.png", "the name is not UTF-8; rename this folder"):
        assert part in result.stderr
    (tmp_path / "flat").mkdir()
    assert_sentence(facenet("enroll", *crops, tmp_path / "h", "--dir", tmp_path / "flat"), "no folder with pictures")
    assert_sentence(facenet("enroll", *crops, tmp_path / "h", "--dir", tmp_path / "none"), "this is not a folder")
    assert not (tmp_path / "h").exists()


@pytest.mark.skipif(not ASTRONAUT.exists(), reason=f"{ASTRONAUT} is not there: run tools/bootstrap.sh")
def test_pictures_with_faces(network, detector, scenes, tmp_path):  # noqa: F811
    found, db = [*network, *detector], tmp_path / "g"
    three, none, one = scenes / "three.png", scenes / "none.png", scenes / "one.png"
    assert_sentence(facenet("enroll", *found, db, "Eileen", three), three, "3 faces", "--select")
    nobody = facenet("enroll", *found, db, "Eileen", none)
    assert nobody.returncode == 1 and "no face" in nobody.stderr and not db.exists()
    assert facenet("enroll", *found, db, "Eileen", none, one).returncode == 0
    assert rows(db, "SELECT length(detector) FROM meta") == [(16,)]
    chosen = facenet("enroll", *found, "--select", "largest", db, "Eileen", three)
    assert chosen.returncode == 0 and rows(db, "SELECT count(*) FROM template") == [(2,)]
    boxes = [f["box"] for f in lines(facenet("detect", "--json", *detector, three))[0]["faces"]]
    assert rows(db, "SELECT x1, y1, x2, y2, face FROM template WHERE id = 2")[0] == (*map(float, np.float32(boxes[0])), 0)
    result = facenet("identify", "--json", *found, db, three, none)
    assert result.returncode == 0 and [p.get("face") for p in lines(result)] == [0, 1, 2, None] and "no face" in result.stderr
    assert [p["matches"][0]["name"] for p in lines(result)[:3]] == ["Eileen"] * 3 and lines(result)[3]["faces"] == []
    assert len(lines(facenet("identify", "--json", *found, "--max-faces", 1, db, three))) == 1
    assert facenet("identify", *found, db, none).returncode == 1


@pytest.mark.skipif(not ASTRONAUT.exists(), reason=f"{ASTRONAUT} is not there: run tools/bootstrap.sh")
def test_which_faces_count(network, detector, scenes, tmp_path):  # noqa: F811
    """Somebody in the background does not keep the face in front from being enrolled."""
    found, db, crowd, three = [*network, *detector], tmp_path / "g", tmp_path / "crowd.png", scenes / "three.png"
    with Image.open(scenes / "one.png") as face:
        picture = Image.new("RGB", (420, 260), (90, 110, 130))
        picture.paste(face, (10, 10))
        picture.paste(face.resize((60, 66), Image.Resampling.BICUBIC), (300, 50))
        picture.save(crowd)
    call = ["enroll", "--json", *found]
    both = lines(facenet("detect", "--json", *detector, crowd))[0]["faces"]
    assert len(both) == 2
    refused = facenet("enroll", *found, "--min-area", 0, db, "Eileen", crowd)
    assert_sentence(refused, crowd, "2 faces")
    result = facenet(*call, db, "Eileen", crowd)
    assert result.returncode == 0 and "1 of 2 faces ignored (face 1: its area is less than 0.1" in result.stderr
    (line,) = lines(result)
    assert line["box"] == both[0]["box"] and line["ignored"] == [both[1] | {"face": 1, "reason": "its area is less than 0.1 of the largest face's"}]
    for option in ("--min-score", "--min-quality"):
        result = facenet(*call, "--min-area", 0, option, 1, tmp_path / "none", "Eileen", crowd)
        assert result.returncode == 1 and f"is below 1; face 1: its {option[6:]} " in result.stderr and not (tmp_path / "none").exists()
        assert lines(result)[0]["faces"] == [] and [f["face"] for f in lines(result)[0]["ignored"]] == [0, 1]
    # One name three times in a picture is said, of each face and once to people.
    result = facenet("identify", "--json", *found, "--require", "every", db, three)
    assert result.returncode == 0 and [p["same_name"] for p in lines(result)] == [[1, 2], [0, 2], [0, 1]]
    assert result.stderr.count("never one person's") == 1 and "faces 0, 1 and 2 are all named 'Eileen'" in result.stderr
    worst, *_, best = sorted(lines(result), key=lambda p: p["quality"])
    assert worst["quality"] < best["quality"] and all(set(p["quality_parts"]) == {"size", "sharpness", "pose", "score"} for p in (worst, best))
    # A face that cannot be judged is not known; what is no face is not asked for.
    between = ["--min-quality", (worst["quality"] + best["quality"]) / 2]
    some, every = (facenet("identify", "--json", *found, *between, "--require", word, db, three) for word in ("some", "every"))
    assert (some.returncode, every.returncode) == (0, 1)
    skipped = [p for p in lines(some) if p["decision"] == "skipped"]
    assert worst["face"] in [p["face"] for p in skipped] and all("quality" in p["reason"] and p["matches"] == [] for p in skipped)
    least, *_, most = sorted(p["score"] for p in lines(result))
    assert facenet("identify", *found, "--min-score", (least + most) / 2, "--require", "every", db, three).returncode == 0
    text = facenet("identify", *found, "--min-score", 1, db, three)
    assert text.returncode == 1 and text.stdout.count("\tskipped\tits score ") == 3
    assert_sentence(facenet("identify", *network, "--aligned", "--min-score", 0.5, db, three), "--aligned")
    assert_sentence(facenet("enroll", *network, "--aligned", "--min-area", 0.5, db, "Eileen", three), "--aligned")


@pytest.mark.skipif(not ASTRONAUT.exists(), reason=f"{ASTRONAUT} is not there: run tools/bootstrap.sh")
def test_faces_of_one_picture_are_impostor_pairs(network, detector, scenes, tmp_path):  # noqa: F811
    folder = tmp_path / "people"
    for number, person in enumerate("ABCD"):
        (folder / person).mkdir(parents=True)
        with Image.open(scenes / "one.png") as face:
            for i in (0, 1):
                face.rotate(3 * number + i, fillcolor=(9, 9, 9)).save(folder / person / f"{i}.png")
    call = ["calibrate", "--json", *network, *detector, "--far", 0.5, "--cache", "none", folder]
    (before,) = lines(facenet(*call))
    shutil.copy(scenes / "three.png", folder / "A" / "2.png")
    result = facenet(*call)
    (after,) = lines(result)
    assert (before["impostor_pairs"], before["impostor_pairs_of_one_picture"]) == (24, 0)
    assert (after["impostor_pairs"], after["impostor_pairs_of_one_picture"]) == (24 + 6 + 3, 3)
    assert after["persons"] == 4


def test_untrained_weights_are_said(weights, people, tmp_path):  # noqa: F811
    call = ["--weights", weights, "--aligned", tmp_path / "g"]
    for arguments in (["enroll", *call, "Zoë"], ["identify", *call]):
        result = facenet(*arguments, people / "Zoë" / "0.png")
        assert result.returncode == 0 and UNTRAINED in result.stderr
    assert '"trained":false' in facenet("gallery", "stats", "--json", tmp_path / "g").stdout


# ---- changing and carrying -------------------------------------------------------------------------------------------


def test_list_show_rename(gallery, people):
    listed = lines(facenet("gallery", "list", "--json", gallery))
    assert sorted(p["name"] for p in listed) == sorted(NAMES) and {p["templates"] for p in listed} == {3}
    assert facenet("gallery", "list", gallery).stdout.splitlines() == [f"{p['name']}\t3" for p in listed]
    shown = lines(facenet("gallery", "show", "--json", gallery, "Ирина"))
    assert [p["image"] for p in shown] == [str(people / "Ирина" / p) for p in ("0.png", "1.png", "more/2.png")]
    assert all(p["box"] == [0, 0, 60, 60] and "embedding" not in p for p in shown)
    assert facenet("gallery", "show", gallery, "Ирина").stdout.count("\n") == 3
    assert lines(facenet("gallery", "rename", "--json", gallery, "Ирина", "Ирина П.")) == [{"name": "Ирина П.", "was": "Ирина"}]
    assert "Ирина П." in facenet("gallery", "list", gallery).stdout
    assert_sentence(facenet("gallery", "rename", gallery, "Ирина", "x"), "nobody", "'Ирина'")
    assert_sentence(facenet("gallery", "rename", gallery, "Ирина П.", "Zoë"), "'Zoë' already")
    assert_sentence(facenet("gallery", "show", gallery, "Nobody"), "nobody", "'Nobody'")
    for wrong in ("", "a\tb", "a\x1b[31m", "a\u009b31m", "x" * 256, b"\xff\xfe"):
        assert facenet("gallery", "rename", gallery, "Zoë", os.fsdecode(wrong) if isinstance(wrong, bytes) else wrong).returncode == 2
    assert len(lines(facenet("gallery", "list", "--json", gallery))) == len(NAMES)
    assert_sound(gallery)


def test_bad_names_are_refused(crops, people, tmp_path):
    for name, part in (("", "empty"), ("a\nb", "control character"), ("x" * 256, "255"), (os.fsdecode(b"\xc3\x28"), "not UTF-8")):
        assert_sentence(facenet("enroll", *crops, tmp_path / "g", name, people / "Zoë" / "0.png"), part)
    assert not (tmp_path / "g").exists()


def test_remove(gallery):
    ids = [p["template"] for p in lines(facenet("gallery", "show", "--json", gallery, "Zoë"))]
    assert lines(facenet("gallery", "remove", "--json", gallery, "--template", ids[0])) == [{"persons": [], "templates": 1}]
    both = facenet("gallery", "remove", "--json", gallery, "--template", ids[1], "--template", ids[2])
    assert lines(both) == [{"persons": ["Zoë"], "templates": 2}]
    assert lines(facenet("gallery", "remove", "--json", gallery, "محمد", "unknown")) == [{"persons": ["محمد", "unknown"], "templates": 6}]
    before = gallery.read_bytes()
    for arguments, part in ((["Ирина", "Nobody"], "'Nobody'"), (["--template", "999"], "999"), (["--template", "x"], "'x'"), ([], "--template")):
        assert_sentence(facenet("gallery", "remove", gallery, *arguments), part)
    assert gallery.read_bytes() == before
    assert {p["name"] for p in lines(facenet("gallery", "list", "--json", gallery))} == set(NAMES) - {"Zoë", "محمد", "unknown"}
    assert_sound(gallery)


KEEPER = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <unistd.h>
/* Keeps each file that is deleted, as it is then, under another name. */
int unlink(const char* path) {
  static int number;
  char kept[4096];
  snprintf(kept, sizeof kept, "%s.kept-%d-%d", path, (int)getpid(), number++);
  link(path, kept);
  return ((int (*)(const char*))dlsym(RTLD_NEXT, "unlink"))(path);
}
"""


@pytest.mark.skipif(SANITIZED, reason="the sanitizer's library must be the first one that is preloaded")
def test_nothing_is_left_of_who_was_removed(crops, tmp_path):
    (tmp_path / "keeper.c").write_text(KEEPER)
    subprocess.run(["g++", "-x", "c", "-shared", "-fPIC", "-o", tmp_path / "keeper.so", tmp_path / "keeper.c"], check=True)
    keeping = {"env": {"LD_PRELOAD": str(tmp_path / "keeper.so")}}
    rng, db = np.random.default_rng(3), tmp_path / "db" / "g"
    db.parent.mkdir()
    people = made_up(rng, 300)  # enough for pages to be rearranged
    assert imported(db, HEAD, *people, **keeping).returncode == 0

    def traces(person: dict) -> list[bytes]:
        bits = np.float32(person["embedding"]).astype("<f4").tobytes()
        return [bits[i:i + 16] for i in range(0, len(bits), 64)] + [person[key].encode() for key in ("name", "image", "sha256")]

    def held(person: dict) -> int:
        return sum(trace in content for content in contents for trace in traces(person))

    contents = [db.read_bytes()]
    assert all(held(p) >= len(traces(p)) for p in people)  # the search finds what is there
    rng.shuffle(people)
    gone, left = people[:120], people[120:]
    for kept in db.parent.glob("*.kept-*"):  # of the import, when all were there
        kept.unlink()
    for some in range(0, 120, 40):
        result = facenet("gallery", "remove", db, *[p["name"] for p in gone[some:some + 40]], **keeping)
        assert result.returncode == 0, result.stderr
    files = list(db.parent.iterdir())
    assert db in files and len(files) == 4, files  # and three journals, as they were when they were deleted
    contents = [path.read_bytes() for path in files]
    assert [held(p) for p in gone] == [0] * 120
    assert all(held(p) >= len(traces(p)) for p in left)
    assert facenet("gallery", "rename", db, left[0]["name"], "somebody else", **keeping).returncode == 0
    contents = [path.read_bytes() for path in db.parent.iterdir()]
    assert not any(left[0]["name"].encode() in content for content in contents)
    assert_sound(db)


def test_export_and_import_keep_every_bit(gallery, tmp_path):
    text = facenet("gallery", "export", gallery).stdout
    for call in ([tmp_path / "a"], [tmp_path / "b", "-"]):
        result = facenet("gallery", "import", "--json", *call, input=text.encode())
        assert result.returncode == 0 and lines(result) == [{"enrolled": 30, "there": 0}]
        assert facenet("gallery", "export", call[0]).stdout == text
    assert facenet("gallery", "export", gallery, tmp_path / "file").stdout == ""
    assert (tmp_path / "file").read_text() == text
    assert lines(facenet("gallery", "import", "--json", gallery, tmp_path / "file")) == [{"enrolled": 0, "there": 30}]
    assert rows(tmp_path / "a", "SELECT embedding FROM template ORDER BY id") == rows(gallery, "SELECT embedding FROM template ORDER BY id")
    # Floats that are easily lost: signed zero, subnormal numbers, neighbours, the largest that a search takes.
    head, first = map(json.loads, text.splitlines()[:2])
    bits = np.random.default_rng(2).integers(0, 1 << 32, DIM, np.uint32)
    largest = int(np.float32(1e15).view(np.uint32))
    bits[:6] = 0x80000000, 1, 0x807FFFFF, 0x3F800000, 0x3F800001, largest
    bits[(bits & 0x7FFFFFFF) > largest] = 7
    first["embedding"], first["sha256"] = bits.view(np.float32).tolist(), "f" * 64
    feed = json.dumps(head) + "\n" + json.dumps(first)
    assert facenet("gallery", "import", tmp_path / "c", input=feed.encode()).returncode == 0
    assert rows(tmp_path / "c", "SELECT embedding FROM template") == [(bits.astype("<u4").tobytes(),)]
    assert np.array_equal(np.float32(exported(tmp_path / "c")[1]["embedding"]).view(np.uint32), bits)


def test_imports_that_are_refused_whole(gallery, tmp_path):
    head, *templates = exported(gallery)
    other = templates[0] | {"name": "Somebody else"}
    before = gallery.read_bytes()
    for bad, part in (
        ("", "line 1: there is nothing"), ("{", "line 1: this is no JSON object"), ("{}", "no exported gallery"),
        (head | {"version": 2}, "version"), (head | {"model": "x"}, "'model'"), (head | {"embedding_dim": 1 << 30}, "'embedding_dim'"),
        (head | {"model": "0" * 16}, "another model"), (head | {"embedding_dim": 65537}, "'embedding_dim'"),
        (head | {"architecture": "a\nb"}, "'architecture' holds a control"), (head | {"architecture": "x" * 256}, "'architecture' has more"),
        (head | {"normalise": "l3"}, "'normalise'"), (head | {"crop": "\u001b[31m"}, "'crop'"), (head | {"detector": "none"}, "'detector'"),
        *(([head, templates[0], bad], part) for bad, part in (
            ("[" * 100000, "line 3: this is no JSON object"), (other, "'Somebody else' is enrolled as"),
            (other | {"embedding": [1.0]}, "'embedding' is not an array of 128"),
            (other | {"embedding": [None] * DIM}, "'embedding'"), (other | {"box": "x"}, "'box'"), (other | {"sha256": "F" * 64}, "'sha256'"),
            (other | {"name": "a\0b"}, "control character"), (other | {"name": 7}, "'name'"), (other | {"face": -1}, "'face'"),
            (json.dumps(other).replace('"embedding": [', '"embedding": [1e39,'), "line 3"),
            (other | {"embedding": [0.0] * DIM}, "line 3: its embedding is zero"), (other | {"embedding": [-1e-46] * DIM}, "line 3"),
            *((other | {"enrolled": text}, "line 3: 'enrolled'") for text in (
                "", "yesterday", "2026-02-29T00:00:00Z", "2026-13-01T00:00:00Z", "2026-01-01T24:00:00Z", "2026-01-01T00:00:00Z\n")),
            *((other | {"image": text}, "line 3: 'image'") for text in ("", "a\0b", "x" * 12289)),
            ({k: v for k, v in other.items() if k != "score"}, "'score'"))),
    ):
        feed = "\n".join(x if isinstance(x, str) else json.dumps(x) for x in (bad if isinstance(bad, list) else [bad]))
        assert_sentence(facenet("gallery", "import", gallery, input=feed.encode()), part)
        assert gallery.read_bytes() == before
    assert_sentence(facenet("gallery", "import", gallery, input=b"\xff" * (5 << 20)), "4 MiB")
    latin1 = json.dumps(other | {"name": "Ren?"}).encode().replace(b"?", b"\xe9")
    for bad, part in ((b"\n".join([json.dumps(head).encode(), latin1]), "line 2: it is not UTF-8; nothing was imported"),
                      (json.dumps(head).encode("utf-16"), "line 1: it is not UTF-8; nothing was imported")):  # fmt: skip
        assert_sentence(facenet("gallery", "import", gallery, input=bad), part)
    assert_sentence(facenet("gallery", "import", gallery, tmp_path), "folder")
    assert_sentence(facenet("gallery", "import", gallery, tmp_path / "none"), "none")
    with open("/dev/full", "wb") as full:
        assert facenet("gallery", "export", gallery, stdout=full).returncode == 2
    assert_sentence(facenet("gallery", "export", gallery, "/dev/full"), "/dev/full")
    assert gallery.read_bytes() == before


def test_stats_and_vacuum(gallery):
    (stats,) = lines(facenet("gallery", "stats", "--json", gallery))
    assert (stats["persons"], stats["templates"], stats["integrity"], stats["trained"]) == (10, 30, "ok", True)
    assert stats["bytes"] == gallery.stat().st_size
    # By another program, which leaves free pages.
    connection = sqlite3.connect(gallery)
    connection.execute("DELETE FROM template WHERE person > 2")
    connection.execute("DELETE FROM person WHERE id > 2")
    connection.commit()
    connection.close()
    (result,) = lines(facenet("gallery", "vacuum", "--json", gallery))
    assert result["bytes"] == gallery.stat().st_size < result["bytes_before"]
    assert_sound(gallery)


# ---- files that are not what they should be --------------------------------------------------------------------------


def test_files_that_are_refused_and_stay(crops, gallery, people, tmp_path, weights):  # noqa: F811
    one, good = people / "Zoë" / "0.png", gallery.read_bytes()
    connection = sqlite3.connect(tmp_path / "foreign")
    connection.executescript("CREATE TABLE t (x); INSERT INTO t VALUES (1)")
    connection.close()
    shutil.copy(gallery, tmp_path / "newer")
    connection = sqlite3.connect(tmp_path / "newer")
    connection.execute("PRAGMA user_version = 3")
    connection.close()
    shutil.copy(gallery, tmp_path / "unversioned")
    connection = sqlite3.connect(tmp_path / "unversioned")
    connection.execute("PRAGMA user_version = 0")
    connection.close()
    (tmp_path / "text").write_text("this is not a database at all, " * 20)
    (tmp_path / "cut").write_bytes(good[:len(good) // 2])
    (tmp_path / "wild").write_bytes(good[:4096] + bytes(len(good) - 4096))
    (tmp_path / "folder").mkdir()
    for name, part in (("foreign", "another program"), ("newer", "schema 3"), ("unversioned", "user_version is 0"), ("text", "not an SQLite database"),
                       ("cut", "damaged"), ("wild", "damaged"), ("folder", "not a regular file")):
        path = tmp_path / name
        before = path.read_bytes() if path.is_file() else None
        for call in (["enroll", *crops, path, "New", one], ["identify", *crops, path, one], ["gallery", "list", path],
                     ["gallery", "remove", path, "Zoë"], ["gallery", "export", path]):
            assert_sentence(facenet(*call), path, part)
        assert before is None or path.read_bytes() == before
    for call in (["identify", *crops, tmp_path / "none", one], ["gallery", "list", tmp_path / "none"]):
        assert_sentence(facenet(*call), "there is no such gallery", "enroll")
    for call in (["enroll", *crops, "-", "New", one], ["enroll", *crops, "/dev/full", "New", one],
                 ["enroll", *crops, tmp_path / "none" / "g", "New", one], ["enroll", *crops, "/proc/g", "New", one]):
        assert_sentence(facenet(*call))
    (tmp_path / "empty").touch()
    assert_sentence(facenet("identify", *crops, tmp_path / "empty", one), "empty")
    assert facenet("enroll", *crops, tmp_path / "empty", "New", one).returncode == 0
    # Another model's.
    other = ["--weights", weights, "--aligned"]
    for call in (["enroll", *other, gallery, "New", one], ["identify", *other, gallery, one]):
        assert_sentence(facenet(*call), gallery, "another model", "dlib_resnet", "inception_resnet_v1", "--weights")
    assert gallery.read_bytes() == good


def test_a_damaged_template_is_named_but_not_shown(crops, gallery, people):
    connection = sqlite3.connect(gallery)
    connection.execute("UPDATE template SET embedding = x'00112233' WHERE id = 4")
    connection.commit()
    connection.close()
    for call in (["identify", *crops, gallery, people / "Zoë" / "0.png"], ["gallery", "export", gallery]):
        result = facenet(*call)
        assert result.returncode == 2 and "template 4 is damaged" in result.stderr
    assert facenet("gallery", "remove", gallery, "--template", 4).returncode == 0
    assert facenet("identify", *crops, gallery, people / "Zoë" / "0.png").returncode == 0


@pytest.fixture
def disk(tmp_path):
    """A file system of 1 MB."""
    path = tmp_path / "disk"
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", path], check=False, capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    yield path
    subprocess.run(["umount", path], check=True)


@needs_mount
def test_a_full_disk(crops, people, gallery, disk, tmp_path):
    db = pathlib.Path(shutil.copy(gallery, disk / "g"))
    text = facenet("gallery", "export", db).stdout
    with open(disk / "filler", "wb", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(bytes(4096))
    Image.fromarray(pictures.structured(np.random.default_rng(78))).save(tmp_path / "new.png")
    for call in (["enroll", *crops, db, "New", tmp_path / "new.png"], ["enroll", *crops, disk / "h", "New", tmp_path / "new.png"],
                 ["gallery", "remove", db, "Zoë"], ["gallery", "rename", db, "Zoë", "Zo"]):
        assert_sentence(facenet(*call), "no room left")
    assert facenet("gallery", "export", db).stdout == text
    assert {p.name for p in disk.iterdir()} == {"g", "filler"}
    assert_sound(db)
    (disk / "filler").unlink()
    assert facenet("enroll", *crops, db, "New", tmp_path / "new.png").returncode == 0
    assert facenet("enroll", *crops, disk / "h", "New", tmp_path / "new.png").returncode == 0
    # A change that begins well and then finds no room.
    head, first, *_ = exported(db)
    rng = np.random.default_rng(4)
    many = [head] + [first | {"name": f"n{i}", "sha256": rng.bytes(32).hex(), "embedding": rng.normal(size=DIM).astype(np.float32).tolist()}
                     for i in range(2000)]
    text = facenet("gallery", "export", db).stdout
    assert_sentence(facenet("gallery", "import", db, input="\n".join(map(json.dumps, many)).encode()), "no room left")
    assert facenet("gallery", "export", db).stdout == text
    assert_sound(db)


@needs_mount
def test_a_read_only_folder(crops, people, gallery, disk):
    db = pathlib.Path(shutil.copy(gallery, disk / "g"))
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    one = people / "Zoë" / "0.png"
    assert facenet("identify", *crops, db, one).returncode == 0 and facenet("gallery", "list", db).returncode == 0
    for call in (["enroll", *crops, db, "New", one], ["enroll", *crops, disk / "h", "New", one], ["gallery", "remove", db, "Zoë"]):
        assert_sentence(facenet(*call), disk, "Read-only file system")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_file_and_a_folder_that_may_not_be_written(crops, people, gallery, tmp_path):
    one = people / "Zoë" / "0.png"
    gallery.chmod(0o400)
    assert facenet("identify", *crops, gallery, one).returncode == 0
    assert_sentence(facenet("gallery", "remove", gallery, "Zoë"), gallery, "Permission denied")
    gallery.chmod(0o600)
    tmp_path.chmod(0o500)
    try:
        assert facenet("identify", *crops, gallery, one).returncode == 0
        for call in (["enroll", *crops, tmp_path / "h", "New", one], ["gallery", "remove", gallery, "Zoë"]):
            assert_sentence(facenet(*call), tmp_path)
    finally:
        tmp_path.chmod(0o700)
    assert_sound(gallery)


def test_zero_and_non_finite_vectors_are_found(crops, gallery, people, tmp_path):
    nan, infinity = np.full(DIM, np.nan, "<f4"), np.float32([np.inf] + [0] * (DIM - 1))
    for vector, part in ((np.zeros(DIM, "<f4"), "zero"), (-np.zeros(DIM, "<f4"), "zero"), (nan, "not finite"), (infinity, "not finite")):
        change(gallery, "UPDATE template SET embedding = ? WHERE id = 4", vector.tobytes())
        for call in (["identify", *crops, gallery, people / "Zoë" / "0.png"], ["gallery", "export", gallery]):
            assert_sentence(facenet(*call), gallery, "template 4 is damaged", part, "remove the template")
        stats = facenet("gallery", "stats", gallery)
        assert stats.returncode == 2 and part in stats.stdout and part in stats.stderr
    # Of a model whose embeddings have length 1, 1e-13 is as good as zero.
    bad = made_up(np.random.default_rng(1), 1)[0] | {"embedding": [1e-13] * DIM}
    assert_sentence(imported(tmp_path / "l2", HEAD, bad), "line 2", "all but zero")
    assert not (tmp_path / "l2").exists()
    raw = HEAD | {"normalise": "none"}
    assert_sentence(imported(tmp_path / "l2", raw, bad), "line 2", "all but zero")
    # What a search would refuse, with the whole gallery, is not let in.
    bad |= {"embedding": [1e20] + [0] * (DIM - 1)}
    assert_sentence(imported(tmp_path / "l2", HEAD, bad), "line 2", "over 1e15")
    assert not (tmp_path / "l2").exists()


def test_what_a_strange_file_says_is_not_shown(crops, gallery, people):
    good = gallery.read_bytes()
    forged = "x\n7\tforged\t\x1b[31m"
    for sql, values, call, parts in (
        ("UPDATE template SET enrolled = ? WHERE id = 4", [forged], ["gallery", "export"], ["template 4", "'enrolled'"]),
        ("UPDATE template SET sha256 = ? WHERE id = 4", ["\n" * 64], ["gallery", "export"], ["template 4", "'sha256'"]),
        ("UPDATE template SET face = -1 WHERE id = 4", [], ["gallery", "export"], ["template 4", "'face'"]),
        ("UPDATE template SET x1 = 1e300 WHERE id = 4", [], ["gallery", "export"], ["template 4", "'box'"]),
        ("UPDATE template SET image = ? WHERE id = 4", [b"\xff".decode("latin-1") + "\0"], ["gallery", "export"], ["template 4", "'image'"]),
        ("UPDATE template SET image = CAST(x'ff' AS TEXT) WHERE id = 4", [], ["gallery", "export"], ["template 4", "'image'"]),
        ("UPDATE template SET person = 999 WHERE id = 4", [], ["gallery", "export"], ["template 4", "nobody's"]),
        ("UPDATE person SET name = ? WHERE id = 2", [forged], ["gallery", "list"], ["person 2", "control character"]),
        ("UPDATE person SET name = CAST(x'c328' AS TEXT) WHERE id = 2", [], ["gallery", "list"], ["person 2", "not UTF-8"]),
        ("UPDATE meta SET architecture = ?", [forged], ["gallery", "stats"], ["'architecture'"]),
        ("UPDATE meta SET model = 'x'", [], ["gallery", "list"], ["'model'"]),
        ("UPDATE meta SET embedding_dim = 65537", [], ["gallery", "list"], ["'embedding_dim'"]),
        ("DELETE FROM meta", [], ["gallery", "list"], ["damaged"]),
        ("ALTER TABLE template RENAME TO t", [], ["gallery", "list"], ["tables"]),
        ("ALTER TABLE template DROP COLUMN score", [], ["gallery", "list"], ["tables"]),
    ):
        change(gallery, sql, *values)
        result = facenet(*call, gallery)
        assert_sentence(result, gallery, "damaged", *parts)
        assert "forged" not in result.stderr
        gallery.write_bytes(good)
    change(gallery, "UPDATE template SET person = 999 WHERE id = 4")
    assert_sentence(facenet("identify", *crops, gallery, people / "Zoë" / "0.png"), "template 4", "nobody's")
    gallery.write_bytes(good)
    # A view that never ends, and a trigger that changes what is stored.
    change(gallery, "ALTER TABLE template RENAME TO t")
    change(gallery, "CREATE VIEW template AS WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n) SELECT * FROM n JOIN t")
    assert_sentence(facenet("gallery", "export", gallery), "tables")
    gallery.write_bytes(good)
    change(gallery, "CREATE TRIGGER g AFTER DELETE ON person BEGIN UPDATE person SET name = 'forged'; END")
    assert facenet("gallery", "remove", gallery, "Zoë").returncode == 0
    assert "forged" not in facenet("gallery", "list", gallery).stdout
    gallery.write_bytes(good)
    # A file's name may hold anything: a line of text stays one line, JSON is exact.
    name = "a\n1\tb\x1b[31m.png"
    change(gallery, "UPDATE template SET image = ? WHERE id = 4", name)
    (person,) = rows(gallery, "SELECT p.name FROM template t JOIN person p ON p.id = t.person WHERE t.id = 4")[0]
    text = facenet("gallery", "show", gallery, person).stdout
    assert text.count("\n") == 3 and "\x1b" not in text and "a\\n1\\tb" in text
    assert name in [p["image"] for p in lines(facenet("gallery", "show", "--json", gallery, person))]
    assert imported(gallery.with_name("copy"), *exported(gallery)).returncode == 0
    assert name in [t.get("image") for t in exported(gallery.with_name("copy"))]


def test_files_that_no_gallery_can_be(crops, gallery, people, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    for path, part in ((tmp_path / "pipe", "not a regular file"), ("/dev/null", "not a regular file"), (tmp_path / "a", "symbolic links"),
                       (gallery / "below", "Not a directory"), (tmp_path / ("x" * 300), "name too long")):
        for call in (["gallery", "list", path], ["gallery", "remove", path, "x"], ["enroll", *crops, path, "x", people / "Zoë" / "0.png"]):
            assert_sentence(facenet(*call), path, part)
    # A link to a file that is still to be made is one; the journal lies beside that.
    (tmp_path / "link").symlink_to("made")
    assert imported(tmp_path / "link", *exported(gallery)).returncode == 0
    assert (tmp_path / "link").is_symlink() and mode(tmp_path / "made") == 0o600 and not list(tmp_path.glob("*-journal"))


def test_flipped_bits(gallery):
    good, rng = gallery.read_bytes(), np.random.default_rng(8)
    outcomes = set()
    for _ in range(60):
        bad = bytearray(good)
        for place in rng.integers(0, len(good), rng.integers(1, 20)):
            bad[place] ^= 1 << rng.integers(8)
        gallery.write_bytes(bad[:len(bad) if rng.random() < 0.7 else rng.integers(len(bad))])
        result = facenet("gallery", "export", gallery)
        assert result.returncode in (0, 2) and "report it" not in result.stderr, result.stderr
        if result.returncode == 2:
            assert_sentence(result, gallery)  # and no half of an export on stdout
        outcomes.add(result.returncode)
    assert outcomes == {0, 2}


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_what_is_made_is_its_owners_alone(tmp_path, umask):
    people = made_up(np.random.default_rng(3), 3)
    private = {"preexec_fn": lambda: os.umask(umask)}
    assert imported(tmp_path / "g", HEAD, *people, **private).returncode == 0
    assert facenet("gallery", "export", tmp_path / "g", tmp_path / "e", **private).returncode == 0
    assert facenet("gallery", "rename", tmp_path / "g", people[0]["name"], "x", **private).returncode == 0
    assert {p.name: mode(p) for p in tmp_path.iterdir() if umask != 0o777 or p.name == "g"} == (
        {"g": 0o600} if umask == 0o777 else {"g": 0o600, "e": 0o600})


def limit_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (16384, 16384))


def test_a_first_change_that_fails_leaves_nothing(gallery, tmp_path):
    folder, people = tmp_path / "new", made_up(np.random.default_rng(4), 40)
    folder.mkdir()
    db = folder / "g"
    twice = [HEAD, people[0], people[1] | {k: people[0][k] for k in ("sha256", "box")}]
    assert_sentence(imported(db, *twice), "line 3", "is enrolled as")
    assert_sentence(imported(db, HEAD, *people, preexec_fn=limit_files), db, "the disk refused")
    assert list(folder.iterdir()) == []
    # An empty file that was there stays, and a database without tables, which a rollback may leave, counts as empty.
    connection = sqlite3.connect(folder / "bare", isolation_level=None)
    connection.executescript("BEGIN EXCLUSIVE; COMMIT;")
    connection.close()
    db.touch()
    assert (folder / "bare").stat().st_size == 4096
    for path in (db, folder / "bare"):
        assert_sentence(imported(path, *twice), "line 3", "is enrolled as")
        assert_sentence(facenet("gallery", "list", path), path, "this file is empty", "enroll")
        assert imported(path, HEAD, *people).returncode == 0
        assert_sound(path)
    assert sorted(p.name for p in folder.iterdir()) == ["bare", "g"]


# ---- several at once, and killed -------------------------------------------------------------------------------------


def start(*arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen([COMMAND, *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_two_at_once(crops, people, gallery, tmp_path):
    # Four make the same gallery together.
    parts = [NAMES[i::4] for i in range(4)]
    for i, names in enumerate(parts):
        for name in names:
            shutil.copytree(people / name, tmp_path / str(i) / name)
    running = [start("enroll", "--json", *crops, tmp_path / "together", "--dir", tmp_path / str(i)) for i in range(4)]
    for process, names in zip(running, parts):
        out, err = process.communicate()
        assert process.returncode == 0, err
        assert {json.loads(row)["name"] for row in out.splitlines()} == set(names)
    assert sorted(rows(tmp_path / "together", "SELECT name FROM person")) == sorted((n,) for n in NAMES)
    assert_sound(tmp_path / "together")
    # Somebody else is inside a change: this one waits.
    other = sqlite3.connect(gallery, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    Image.fromarray(pictures.structured(np.random.default_rng(79))).save(tmp_path / "new.png")
    waiting = start("enroll", *crops, gallery, "New", tmp_path / "new.png")
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(1)
    assert facenet("identify", *crops, gallery, people / "Zoë" / "0.png").returncode == 0  # readers need not
    other.execute("COMMIT")
    assert waiting.wait(30) == 0
    waiting.communicate()
    other.close()
    assert_sound(gallery)


def test_who_is_slow_blocks_nobody(gallery, tmp_path):
    """A reader of results that stops reading, a writer of an import that stops writing: others change the gallery meanwhile."""
    text, first = facenet("gallery", "export", gallery).stdout, NAMES[0]
    for number, (call, want) in enumerate((
        (["gallery", "export", gallery], text), (["gallery", "list", "--json", gallery], None),
        (["gallery", "show", "--json", gallery, "Zoë", "unknown"], None))):
        want = want or facenet(*call).stdout
        ours, theirs = os.pipe()
        fcntl.fcntl(ours, fcntl.F_SETPIPE_SZ, 4096)
        os.set_blocking(theirs, False)
        stuffing = b" " * 4000  # list says little
        os.write(theirs, stuffing)
        os.set_blocking(theirs, True)
        process = subprocess.Popen([COMMAND, *map(str, call)], stdout=theirs, stderr=subprocess.PIPE)
        os.close(theirs)
        time.sleep(0.3)
        assert process.poll() is None, "it was done before its reader began"
        began = time.monotonic()
        assert facenet("gallery", "rename", gallery, first, f"{NAMES[0]} {number}").returncode == 0
        first = f"{NAMES[0]} {number}"
        assert time.monotonic() - began < 8, "it waited for the reader"
        with open(ours, "rb") as reader:
            assert reader.read().removeprefix(stuffing).decode() == want  # the gallery as it was when it was read
        assert process.communicate()[1] == b"" and process.returncode == 0
    process = subprocess.Popen([COMMAND, "gallery", "import", gallery, "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    head, template = exported(gallery)[:2]
    process.stdin.write(f"{json.dumps(head)}\n{json.dumps(template | {'name': 'late', 'sha256': 'f' * 64, 'box': [1, 1, 2, 2]})}\n".encode())
    process.stdin.flush()
    time.sleep(0.3)
    began = time.monotonic()
    assert facenet("gallery", "rename", gallery, first, NAMES[0]).returncode == 0
    assert time.monotonic() - began < 8 and process.poll() is None
    assert process.communicate()[0] == b"1 template(s) enrolled, 0 were there\n"
    # Another program's journal mode: reading goes on.
    wal = sqlite3.connect(gallery)
    wal.execute("PRAGMA journal_mode = WAL")
    wal.execute("UPDATE person SET name = 'in the WAL', checksum = NULL WHERE name = 'late'")
    wal.commit()
    assert '"in the WAL"' in facenet("gallery", "export", gallery).stdout
    wal.close()


def test_a_gallery_that_is_removed_or_replaced_meanwhile(gallery):
    process = subprocess.Popen([COMMAND, "gallery", "import", gallery, "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    head, template = exported(gallery)[:2]
    process.stdin.write(f"{json.dumps(head)}\n".encode())
    process.stdin.flush()
    time.sleep(0.5)
    gallery.rename(gallery.with_name("elsewhere"))
    out, err = process.communicate(json.dumps(template | {"name": "late", "sha256": "f" * 64, "box": [1, 1, 2, 2]}).encode())
    assert process.returncode == 2 and out == b"" and b"removed or replaced" in err
    assert not gallery.exists() and rows(gallery.with_name("elsewhere"), "SELECT * FROM person WHERE name = 'late'") == []


def test_identify_while_persons_come_and_go(crops, gallery, people):
    model = exported(gallery)[0]
    more = made_up(np.random.default_rng(5), 200)
    assert imported(gallery, model, *more).returncode == 0
    done = threading.Event()

    def come_and_go() -> None:
        connection = sqlite3.connect(gallery, isolation_level=None, timeout=60)
        connection.executescript("PRAGMA synchronous = OFF; PRAGMA journal_mode = PERSIST")
        (last,) = connection.execute("SELECT max(id) FROM person").fetchone()
        while not done.is_set():
            last += 1
            connection.execute("BEGIN IMMEDIATE")
            (owner,) = connection.execute("SELECT id FROM person WHERE name LIKE 'name-%' ORDER BY random() LIMIT 1").fetchone()
            connection.execute("INSERT INTO person (id, name) VALUES (?, ?)", (last, f"name-{last}"))
            connection.execute("UPDATE template SET person = ?, checksum = NULL WHERE person = ?", (last, owner))
            connection.execute("DELETE FROM person WHERE id = ?", (owner,))
            connection.execute("COMMIT")
            time.sleep(0.001)
        connection.close()

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        for json_flag in ("--json", "--json", "--json", "--json", "--json", "--json", "--json"):
            call = ["identify", "--quiet", json_flag, *crops, "--threshold", 1000, "--top", 300, gallery, people / "Zoë" / "0.png"]
            result = facenet(*call)
            assert result.returncode == 0 and result.stderr == "", result.stderr
            assert len(lines(result)[0]["matches"]) == 210 and all(m["name"] for m in lines(result)[0]["matches"])
    finally:
        done.set()
        thread.join()


@pytest.mark.slow
def test_who_waits_too_long_says_so(gallery):
    before = gallery.read_bytes()  # before the lock: closing a file gives up all locks that the process has on it
    other = sqlite3.connect(gallery, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert_sentence(facenet("gallery", "remove", gallery, "Zoë"), gallery, "another process", "10 seconds")
    other.close()
    assert gallery.read_bytes() == before


@pytest.mark.parametrize("kills", [20, pytest.param(200, marks=[pytest.mark.slow, pytest.mark.long])])
def test_killed_at_random_moments(crops, tmp_path, kills, capsys):
    """Whoever was acknowledged is there, the file opens, and nobody is half there; each run goes on with the last one's file."""
    rng, choose, folder = np.random.default_rng(6), random.Random(7), tmp_path / "many"
    for i in range(40):
        (folder / f"person {i}").mkdir(parents=True)
        for k in range(2):
            Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8)).save(folder / f"person {i}" / f"{k}.png")
    began = time.monotonic()
    assert facenet("enroll", *crops, tmp_path / "whole", "--dir", folder).returncode == 0
    whole = time.monotonic() - began
    galleries, working, acknowledged_in_all, db, acknowledged = 0, 0, 0, tmp_path / "none", set()
    for _ in range(kills):
        if not db.exists() or len(acknowledged) == 80:
            db, acknowledged, galleries = tmp_path / f"{galleries}.gallery", set(), galleries + 1
        process = start("enroll", "--json", "--duplicates", "ignore", *crops, db, "--dir", folder)
        time.sleep(choose.uniform(0, whole))
        process.send_signal(signal.SIGKILL)
        out, err = process.communicate()
        assert err == b""
        said = [json.loads(row) for row in out.decode().splitlines(keepends=True) if row.endswith("\n")]
        working += process.returncode == -signal.SIGKILL and len(said) > 0
        acknowledged_in_all += sum(p["enrolled"] for p in said)
        acknowledged |= {(p["name"], p["image"]) for p in said}
        if not db.exists() or (db.stat().st_size == 0 and not acknowledged):
            continue
        assert {mode(p) for p in tmp_path.iterdir() if p.name.startswith(db.name)} == {0o600}
        listed = facenet("gallery", "list", db)
        if listed.returncode != 0:  # killed while the file was made: nobody was acknowledged, and the next run makes it
            assert not acknowledged
            assert_sentence(listed, db, "is empty")
            continue
        assert_sound(db)
        there = set(rows(db, "SELECT p.name, t.image FROM template t JOIN person p ON p.id = t.person"))
        assert acknowledged <= there and len(there - acknowledged) <= 1, (len(there), len(acknowledged))
        acknowledged = there
    assert working >= kills // 8, f"only {working} of {kills} were killed at work"
    # What a kill left half-way is finished by the next run.
    assert facenet("enroll", *crops, db, "--dir", folder).returncode == 0
    assert_sound(db)
    assert rows(db, "SELECT count(*) FROM template") == [(80,)]
    assert {p.name for p in tmp_path.iterdir() if p.name.startswith(db.name)} == {db.name}
    with capsys.disabled():
        print(f" [{kills} kills, {working} at work, {acknowledged_in_all} acknowledged, {galleries} galleries]", end="")


# ---- caches of embeddings --------------------------------------------------------------------------------------------


def cached(cache: pathlib.Path) -> set[tuple]:
    return set(rows(cache, "SELECT picture, most, data FROM faces"))


def test_a_cache_forgets_pictures_that_are_gone(crops, people, tmp_path):
    cache, folder = tmp_path / "c", tmp_path / "folder"
    shutil.copytree(people / "Zoë", folder / "a")
    shutil.copytree(people / "Ирина", tmp_path / "other")

    def embed(*names: object) -> None:
        result = facenet("embed", *crops, *names, "--cache", cache, "--out", tmp_path / "x.npy", preexec_fn=lambda: os.umask(0))
        assert result.returncode == 0 and result.stderr == "", result.stderr

    embed(folder)
    embed(tmp_path / "other")
    before = cached(cache)
    assert len(before) == 6 and mode(cache) == mode(tmp_path / "x.npy") == 0o600
    # Moved, copied, removed, and another picture under an old name.
    (folder / "a").rename(folder / "b")
    shutil.copy(folder / "b" / "0.png", folder / "copy.png")
    (folder / "b" / "1.png").unlink()
    shutil.copy(people / "محمد" / "0.png", folder / "b" / "more" / "2.png")
    embed(folder)
    after = cached(cache)
    assert len(after) == 5 and len(after & before) == 4
    assert rows(cache, "SELECT count(*) FROM place") == [(6,)]
    content = cache.read_bytes()
    assert [data in content for *_, data in before - after] == [False] * 2 and all(data in content for *_, data in after)
    (folder / "b" / "0.png").unlink()
    embed(folder)
    assert cached(cache) == after, "a copy is left"
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith("c")) == ["c"]
    # The file of an earlier version is a cache still, an empty one.
    change(cache, "PRAGMA user_version = 1")
    embed(folder)
    assert len(cached(cache)) == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
def test_a_cache_that_cannot_be_used_is_left_out(crops, people, tmp_path):
    cache, one = tmp_path / "c", people / "Zoë"
    assert facenet("embed", "--json", *crops, one, "--cache", cache).returncode == 0
    os.chown(cache, 12345, 12345)
    before = cache.read_bytes()
    for path, part in ((cache, "another user's"), (tmp_path / "none" / "c", "cannot be made")):
        result = facenet("embed", "--json", *crops, one, "--cache", path)
        assert result.returncode == 0 and len(lines(result)) == 3
        assert result.stderr.count("\n") == 1 and part in result.stderr and "goes on without a cache" in result.stderr
    assert cache.read_bytes() == before
    limited = facenet("embed", "--json", *crops, one, "--cache", tmp_path / "full", preexec_fn=limit_files)
    assert limited.returncode == 0 and len(lines(limited)) == 3


@pytest.mark.skipif(not ASTRONAUT.exists(), reason=f"{ASTRONAUT} is not there: run tools/bootstrap.sh")
def test_all_faces_serve_those_who_want_the_first(network, detector, scenes, tmp_path):  # noqa: F811
    names = [scenes / "three.png", scenes / "none.png", scenes / "one.png"]
    call = ["embed", "--json", *network, *detector, *names, "--cache"]
    every, first = facenet(*call, tmp_path / "none"), facenet(*call, tmp_path / "first", "--max-faces", 1)

    def faces_of(result: subprocess.CompletedProcess[str]) -> list[dict]:
        return [line for line in lines(result) if "face" in line]

    assert [len([p for p in faces_of(every) if p["image"] == str(n)]) for n in names] == [3, 0, 1]
    made = cached(tmp_path / "none")
    # One number changed in the cache shows that it is taken.
    change(tmp_path / "none", "UPDATE faces SET data = CAST(substr(data, 1, 80) || x'0000e040' || substr(data, 85) AS BLOB) WHERE data <> x''")
    again = faces_of(facenet(*call, tmp_path / "none", "--max-faces", 1))
    assert [p["embedding"][0] for p in again] == [7, 7] and [p["box"] for p in again] == [p["box"] for p in faces_of(first)]
    assert [p["embedding"][1:] for p in again] == [p["embedding"][1:] for p in faces_of(first)]
    # The other way round: of a picture with fewer faces than were asked for, all are known.
    assert {most for _, most, _ in cached(tmp_path / "first")} == {0, 1}
    assert facenet(*call, tmp_path / "first").stdout == every.stdout and cached(tmp_path / "first") == made
