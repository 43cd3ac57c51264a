"""The file of a gallery: schema 1 becomes schema 2, damage is found and mended, copies are made while it is in use.

Made-up templates, imported; no weights are needed.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import threading
import time

import numpy as np
import pytest
from test_command import COMMAND, assert_sentence, facenet, lines
from test_gallery import DIM, HEAD, SUMMED, change, exported, imported, made_up, mode, row_checksum, rows

pytestmark = pytest.mark.skipif(not COMMAND.exists(), reason=f"{COMMAND} is not built")

SCHEMA_1 = """
PRAGMA application_id = 0x464e4554;
PRAGMA user_version = 1;
CREATE TABLE meta (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  model TEXT NOT NULL,
  architecture TEXT NOT NULL,
  embedding_dim INTEGER NOT NULL CHECK (embedding_dim > 0),
  trained INTEGER NOT NULL CHECK (trained IN (0, 1)),
  normalise TEXT NOT NULL,
  image_size INTEGER NOT NULL,
  crop TEXT NOT NULL,
  margin REAL NOT NULL,
  detector TEXT NOT NULL
) STRICT;
CREATE TABLE person (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL UNIQUE CHECK (name <> '')
) STRICT;
CREATE TABLE template (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  person INTEGER NOT NULL REFERENCES person ON DELETE CASCADE,
  image TEXT NOT NULL,
  sha256 TEXT NOT NULL CHECK (length(sha256) = 64),
  face INTEGER NOT NULL,
  x1 REAL NOT NULL, y1 REAL NOT NULL, x2 REAL NOT NULL, y2 REAL NOT NULL,
  score REAL NOT NULL,
  enrolled TEXT NOT NULL,
  embedding BLOB NOT NULL,
  UNIQUE (person, sha256)
) STRICT;
CREATE INDEX template_sha256 ON template (sha256);
"""
OLD = {"meta": SUMMED["meta"], "person": "id, name", "template": SUMMED["template"].replace("uuid, ", "")}
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def schema_1(path: pathlib.Path, count: int) -> pathlib.Path:
    """A gallery as version 1 of the schema made it: `count` persons with three templates, and numbers of some who were removed."""
    rng = np.random.default_rng(count)
    db = sqlite3.connect(path)
    db.executescript(SCHEMA_1)
    db.execute("INSERT INTO meta VALUES (1, '0123456789abcdef', 'x', ?, 1, 'l2', 160, 'box', 0.25, 'fedcba9876543210')", (DIM,))
    for i in range(count):
        db.execute("INSERT INTO person (id, name) VALUES (?, ?)", (2 * i + 1, f"Zoë {i} 李"))
        for k in range(3):
            box = [*rng.uniform(0, 100, 2), 100.0, -0.0]
            db.execute("INSERT INTO template VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                       (9 * i + 2 * k + 1, 2 * i + 1, f"p/{i}-{k}.jpg", rng.bytes(32).hex(), k, *box, rng.uniform(),
                        "2026-11-28T07:18:32Z", rng.normal(size=DIM).astype("<f4").tobytes()))  # fmt: skip
    db.execute("UPDATE sqlite_sequence SET seq = seq + 100")
    db.commit()
    db.close()
    path.chmod(0o600)
    return path


def content(path: pathlib.Path, tables: dict[str, str]) -> dict[str, list[tuple]]:
    return {table: rows(path, f"SELECT {columns} FROM {table} ORDER BY 1") for table, columns in tables.items()}


def assert_checksums(path: pathlib.Path) -> None:
    for table, columns in SUMMED.items():
        for *values, checksum in rows(path, f"SELECT {columns}, checksum FROM {table}"):
            assert checksum == row_checksum(*values), (table, values[0])


def checked(path: pathlib.Path) -> list[dict]:
    result = facenet("gallery", "check", "--json", path)
    assert result.returncode in (0, 1), result.stderr
    (line,) = lines(result)
    assert line["sound"] == (result.returncode == 0) == (line["damage"] == [])
    return line["damage"]


# ---- schema 1 --------------------------------------------------------------------------------------------------------


def test_schema_1_is_read_as_it_is(tmp_path):
    old = schema_1(tmp_path / "g", 7)
    before = old.read_bytes()
    (stats,) = lines(facenet("gallery", "stats", "--json", old))
    assert (stats["schema"], stats["persons"], stats["templates"], stats["integrity"]) == (1, 7, 21, "ok")
    assert [p["name"] for p in lines(facenet("gallery", "list", "--json", old))] == [f"Zoë {i} 李" for i in range(7)]
    assert [p["template"] for p in lines(facenet("gallery", "show", "--json", old, "Zoë 2 李"))] == [19, 21, 23]
    assert len(exported(old)) == 22 and not any("uuid" in line for line in exported(old))
    assert checked(old) == []
    assert facenet("gallery", "backup", old, tmp_path / "copy").returncode == 0
    assert old.read_bytes() == before and rows(tmp_path / "copy", "PRAGMA user_version") == [(1,)]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["copy", "g"]


def test_schema_1_becomes_schema_2(tmp_path):
    path = schema_1(tmp_path / "g", 7)
    before, exported_before = content(path, OLD), exported(path)
    assert facenet("gallery", "rename", path, "Zoë 3 李", "Zoë 3 李").returncode == 0
    assert rows(path, "PRAGMA user_version") == [(2,)] and mode(path) == 0o600
    assert content(path, OLD) == before
    uuids = [uuid for (uuid,) in rows(path, "SELECT uuid FROM template")]
    assert len(set(uuids)) == 21 and all(UUID.fullmatch(uuid) for uuid in uuids)
    assert rows(path, "SELECT DISTINCT named FROM person") == [(1,)]
    assert_checksums(path)
    assert checked(path) == []
    after = exported(path)
    assert [{k: v for k, v in line.items() if k != "uuid"} for line in after] == exported_before
    # Its tables are a new gallery's, its pages too, and numbers that were in use are not used again.
    assert imported(tmp_path / "new", HEAD, *made_up(np.random.default_rng(1), 1)).returncode == 0
    schema = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name"
    assert rows(path, schema) == rows(tmp_path / "new", schema)
    assert rows(path, "PRAGMA page_size") == rows(tmp_path / "new", "PRAGMA page_size") == [(8192,)]
    model = dict(after[0].items())
    assert imported(path, model, *made_up(np.random.default_rng(2), 1)).returncode == 0
    assert rows(path, "SELECT max(id) FROM person") == [(13 + 101,)]
    assert rows(path, "SELECT max(id) FROM template") == [(59 + 101,)]


def test_a_migration_that_is_killed_or_fails_leaves_schema_1(tmp_path):
    old = schema_1(tmp_path / "old", 400)
    before, done, left = content(old, OLD), 0, 0
    path = tmp_path / "g"
    shutil.copy(old, path)
    limit = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (old.stat().st_size, old.stat().st_size))}
    assert facenet("gallery", "vacuum", path, **limit).returncode == 2
    assert facenet("gallery", "stats", path).returncode == 0 and rows(path, "PRAGMA user_version") == [(1,)]
    assert content(path, OLD) == before
    began = time.monotonic()
    assert facenet("gallery", "rename", path, "Zoë 3 李", "Zoë 3 李").returncode == 0
    whole = time.monotonic() - began
    for i in range(12):
        shutil.copy(old, path)
        process = subprocess.Popen([COMMAND, "gallery", "rename", path, "Zoë 3 李", "Zoë 3 李"], stdout=subprocess.DEVNULL)
        time.sleep(whole * i / 12)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert facenet("gallery", "list", path).returncode == 0  # which undoes what is half-way
        (version,) = rows(path, "PRAGMA user_version")[0]
        left, done = left + (version == 1), done + (version == 2)
        assert content(path, OLD) == before and checked(path) == []
    assert left > 0, (left, done)


# ---- check and repair ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> pathlib.Path:
    """A gallery with a row in every table. Copy it before changing it."""
    path = tmp_path_factory.mktemp("sound") / "g"
    assert imported(path, HEAD, *made_up(np.random.default_rng(9), 40), {"name": "nobody's"}).returncode == 0
    db = sqlite3.connect(path)
    db.create_function("row_checksum", -1, row_checksum)
    picture = np.random.default_rng(3).bytes(30000)
    for table, values in (("picture", (5, picture)), ("picture", (6, b"x")), ("decision", (1, 2, 3, "is not", "2026-01-01T00:00:00Z")),
                          ("file", (1, b"a/\xff.jpg", "a" * 64, 7, 8, "s", 1, "", "2026-01-01T00:00:00Z"))):
        marks = ", ".join(f"?{i + 1}" for i in range(len(values)))
        db.execute(f"INSERT INTO {table} ({SUMMED[table]}, checksum) VALUES ({marks}, row_checksum({marks}))", values)
    db.commit()
    db.close()
    assert_checksums(path)
    assert checked(path) == []
    return path


def stored(path: pathlib.Path) -> dict[str, list[tuple]] | None:
    """All values as the tables, not their indexes, hold them; None where they cannot be read."""
    db = sqlite3.connect(path)
    db.text_factory = bytes
    try:
        return {table: db.execute(f"SELECT {columns}, checksum FROM {table} NOT INDEXED").fetchall() for table, columns in SUMMED.items()}
    except sqlite3.Error:
        return None
    finally:
        db.close()


def flipped(good: bytes, rng: np.random.Generator) -> bytes:
    """One bit of a page after the first is another. The first holds the schema."""
    bad = bytearray(good)
    bad[rng.integers(8192, len(good))] ^= 1 << rng.integers(8)
    return bytes(bad)


def test_check_finds_every_flipped_bit_of_a_row(sound, tmp_path):
    good, rng, path, want = sound.read_bytes(), np.random.default_rng(10), tmp_path / "g", stored(sound)
    changed = 0
    for _ in range(150):
        path.write_bytes(flipped(good, rng))
        now = stored(path)
        result = facenet("gallery", "check", "--json", path)
        assert result.returncode in (0, 1, 2) and "report it" not in result.stderr
        changed += now != want
        assert now == want or result.returncode != 0, "a value is another, and nothing was found"
    assert changed > 15, changed


def test_check_names_what_is_damaged(sound, tmp_path):
    path, good = tmp_path / "g", sound.read_bytes()
    (_, embedding, name, image), (picture,) = (rows(sound, "SELECT t.id, embedding, name, image FROM template t JOIN person p ON "
                                                    "p.id = person WHERE t.id = 7")[0], rows(sound, "SELECT bytes FROM picture")[0])
    for needle, table, number in ((embedding[100:120], "template", 7), (picture[20000:20020], "picture", 5)):
        bad = bytearray(good)
        bad[good.index(needle)] ^= 4
        path.write_bytes(bad)
        (damage,) = checked(path)
        assert (damage["table"], damage["id"], damage["what"]) == (table, number, "it does not fit its checksum")
        assert number != 7 or (damage["name"], damage["image"]) == (name, image)
    text = facenet("gallery", "check", path)
    assert text.returncode == 1 and text.stdout.startswith("picture 5\tit does not fit its checksum\t")
    path.write_bytes(good)
    assert facenet("gallery", "check", path).stdout == "sound\n"
    # What another program wrote has no checksum, and is taken as it is.
    db = sqlite3.connect(path)
    db.execute("UPDATE template SET checksum = NULL, image = 'other' WHERE id = 3")
    db.commit()
    assert [(d["id"], d["image"]) for d in checked(path)] == [(3, "other")]
    db.execute("DROP INDEX template_sha256")
    db.close()
    assert {d["table"] for d in checked(path)} == {"template", ""}
    assert facenet("gallery", "repair", path).returncode == 0 and checked(path) == []
    assert_checksums(path)


def whole_rows(path: pathlib.Path) -> dict[int, tuple]:
    """The templates that fit their checksums, as far as they can be read."""
    found = {}
    db = sqlite3.connect(path)
    db.text_factory = bytes
    with contextlib.suppress(sqlite3.Error):
        for row in db.execute(f"SELECT {SUMMED['template']}, checksum FROM template NOT INDEXED"):
            with contextlib.suppress(UnicodeDecodeError):
                row = tuple(v.decode() if isinstance(v, bytes) and i != 12 else v for i, v in enumerate(row))
                if row[-1] == row_checksum(*row[:-1]):
                    found[row[0]] = row
    db.close()
    return found


def test_repair_keeps_every_sound_row(sound, tmp_path):
    good, rng, path, want = sound.read_bytes(), np.random.default_rng(11), tmp_path / "g", whole_rows(sound)
    names = dict(rows(sound, "SELECT id, name FROM person"))
    repaired = lost = 0
    for i in range(40):
        bad = flipped(flipped(good, rng), rng)
        path.write_bytes(bad)
        kept = path.with_name("g.damaged")
        kept.unlink(missing_ok=True)
        before = whole_rows(path)
        result = facenet("gallery", "repair", "--json", path)
        if result.returncode == 2:  # its row of the model is hit, which cannot be guessed
            assert_sentence(result, path, "damaged")
            assert path.read_bytes() == bad and not kept.exists()
            continue
        (said,) = lines(result)
        if not said["damage"]:
            assert path.read_bytes() == bad and said["original"] == ""
            continue
        repaired += 1
        lost += len(said["lost"])
        assert kept.read_bytes()[100:] == bad[100:] and mode(path) == 0o600 and said["original"] == str(kept)
        assert checked(path) == [], i
        after = whole_rows(path)
        assert before.items() <= after.items(), i  # nothing that was whole is gone
        assert after.items() <= want.items(), i  # and nothing is made up
        assert set(want) - set(after) <= {d["id"] for d in said["lost"] if d["table"] == "template"}, said["lost"]
        for number, name in rows(path, "SELECT id, name FROM person"):
            assert name in (names.get(number), f"person {number}")
    assert repaired > 10 and lost > 2, (repaired, lost)
    assert sorted(p.name for p in tmp_path.iterdir()) in (["g"], ["g", "g.damaged"])


def test_repair_takes_a_name_from_its_index(sound, tmp_path):
    path = tmp_path / "g"
    ((name,),) = rows(sound, "SELECT name FROM person WHERE id = 4")
    bad = bytearray(sound.read_bytes())
    places = [m.start() for m in re.finditer(name.encode(), bad)]
    assert len(places) == 2, "the table's and the index's"
    for places_hit, kept in ((places[:1], name), (places[1:], name), (places, "person 4")):
        bad = bytearray(sound.read_bytes())
        for place in places_hit:
            bad[place + 9] ^= 1
        path.write_bytes(bad)
        assert checked(path) != []
        assert facenet("gallery", "repair", path).returncode == 0
        assert rows(path, "SELECT name, named FROM person WHERE id = 4") == [(kept, kept == name)]
        assert rows(path, "SELECT count(*) FROM template") == [(40,)] and checked(path) == []
        path.with_name("g.damaged").unlink()
    path.write_bytes(bad)
    path.with_name("g.damaged").write_text("somebody's")
    assert_sentence(facenet("gallery", "repair", path), "g.damaged", "move it away")
    assert path.read_bytes() == bad


def test_repair_leaves_a_sound_gallery_alone(sound, tmp_path):
    path = pathlib.Path(shutil.copy(sound, tmp_path / "g"))
    result = facenet("gallery", "repair", path)
    assert result.returncode == 0 and "sound" in result.stdout and path.read_bytes() == sound.read_bytes()
    old = schema_1(tmp_path / "old", 5)
    change(old, "UPDATE template SET embedding = x'00' WHERE id = 10")
    (said,) = lines(facenet("gallery", "repair", "--json", old))
    assert [(d["table"], d["id"]) for d in said["lost"]] == [("template", 10)] and said["templates"] == 14
    assert checked(old) == [] and rows(old, "PRAGMA user_version") == [(2,)]


# ---- backup, merge, export -------------------------------------------------------------------------------------------


def test_backup_while_somebody_writes(sound, tmp_path):
    path, done, written = pathlib.Path(shutil.copy(sound, tmp_path / "g")), threading.Event(), []

    def write() -> None:
        db = sqlite3.connect(path, isolation_level=None, timeout=60)
        db.create_function("row_checksum", -1, row_checksum)
        db.executescript("PRAGMA synchronous = OFF; PRAGMA journal_mode = PERSIST")
        while not done.is_set():
            db.execute("BEGIN IMMEDIATE")
            for k in range(2):  # always two: half of a change would be one
                name = f"written {len(written)} {k}"
                db.execute("INSERT INTO person (name) VALUES (?)", (name,))
            db.execute(f"UPDATE person SET checksum = row_checksum({SUMMED['person']}) WHERE checksum IS NULL")
            db.execute("COMMIT")
            written.append(1)
            time.sleep(0.001)
        db.close()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        while not written:
            time.sleep(0.01)
        for i in range(8):
            least = len(written)
            result = facenet("gallery", "backup", "--json", path, tmp_path / "copy")
            assert result.returncode == 0, result.stderr
            assert lines(result) == [{"backup": str(tmp_path / "copy"), "bytes": (tmp_path / "copy").stat().st_size}]
            assert mode(tmp_path / "copy") == 0o600 and checked(tmp_path / "copy") == []
            ((count,),) = rows(tmp_path / "copy", "SELECT count(*) FROM person WHERE name LIKE 'written%'")
            assert count % 2 == 0 and count >= 2 * least, i
    finally:
        done.set()
        thread.join()
    assert sorted(p.name for p in tmp_path.iterdir() if not p.name.endswith("-journal")) == ["copy", "g"]


def test_backups_that_are_refused(sound, tmp_path):
    path = pathlib.Path(shutil.copy(sound, tmp_path / "g"))
    (tmp_path / "link").symlink_to("g")
    for to, part in ((path, "its own backup"), (tmp_path / "link", "its own backup"), (tmp_path, "not a regular file"),
                     (tmp_path / "none" / "c", "cannot be made"), ("/dev/full", "not a regular file")):
        assert_sentence(facenet("gallery", "backup", path, to), part)
    (tmp_path / "c-journal").touch()
    assert_sentence(facenet("gallery", "backup", path, tmp_path / "c"), "journal")
    (tmp_path / "c").write_text("before")
    (tmp_path / "c-journal").unlink()
    limit = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (16384, 16384))}
    assert_sentence(facenet("gallery", "backup", path, tmp_path / "c", **limit), "the disk refused")
    assert (tmp_path / "c").read_text() == "before" and path.read_bytes() == sound.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c", "g", "link"]


def test_merge(tmp_path):
    path, (a, b, c) = tmp_path / "g", made_up(np.random.default_rng(1), 3)
    twice = c | {"name": a["name"], "sha256": b["sha256"], "box": [1, 1, 2, 2]}  # two faces of one picture
    assert imported(path, HEAD, a, b, c, twice).returncode == 0
    (merged,) = lines(facenet("gallery", "merge", "--json", path, a["name"], b["name"]))
    assert merged == {"name": b["name"], "was": a["name"], "moved": 1, "dropped": 1}
    assert {(t["name"], t["image"]) for t in exported(path)[1:]} == {(b["name"], a["image"]), (b["name"], b["image"]), (c["name"], c["image"])}
    assert checked(path) == [] and a["name"].encode() not in path.read_bytes()
    assert_sentence(facenet("gallery", "merge", path, "nobody", b["name"]), "nobody")
    assert_sentence(facenet("gallery", "merge", path, b["name"], b["name"]), "itself")


def test_uuids_and_bare_persons_are_carried(sound, tmp_path):
    lines_of = exported(sound)
    assert lines_of[-1] == {"name": "nobody's"} and all(UUID.fullmatch(t["uuid"]) for t in lines_of[1:-1])
    assert imported(tmp_path / "a", *lines_of).returncode == 0
    assert exported(tmp_path / "a") == lines_of
    # The same UUID twice: the second one gets a new one. An export of before has none.
    head, first, second = lines_of[:3]
    assert imported(tmp_path / "b", head, first, second | {"uuid": first["uuid"]}).returncode == 0
    (one,), (two,) = rows(tmp_path / "b", "SELECT uuid FROM template ORDER BY id")
    assert one == first["uuid"] and two not in (one, second["uuid"]) and UUID.fullmatch(two)
    assert imported(tmp_path / "c", head, {k: v for k, v in first.items() if k != "uuid"}).returncode == 0
    for bad in ("", "x", first["uuid"].upper(), 7):
        result = imported(tmp_path / "d", head, first | {"uuid": bad})
        assert bad == "" or (result.returncode == 2 and "line 2" in result.stderr and "uuid" in result.stderr), result.stderr
    result = facenet("gallery", "import", tmp_path / "c", input=(json.dumps(head) + '\n{"name": "a\\u0001"}').encode())
    assert_sentence(result, "line 2", "control character")
