"""`facenet people`: an archive that grows, moves and changes; what people said of its faces; runs that are killed or meet."""

from __future__ import annotations

import csv
import io
import json
import os
import pathlib
import shutil
import signal
import sqlite3
import subprocess
import time

import numpy as np
import pytest
from PIL import Image
from recognition import distances, make_people
from test_command import COMMAND, ROOT, assert_sentence, facenet, lines
from test_command import weights, weights512  # noqa: F401 (fixtures)
from test_command_faces import detector, scenes  # noqa: F401 (fixtures)
from test_detector import weight_file  # noqa: F401 (fixture)

pytestmark = pytest.mark.skipif(not COMMAND.exists(), reason=f"{COMMAND} is not built")
PERSONS, EACH = 6, 4


class Archive:
    """A folder of made-up people's crops, and its gallery; all pictures wait in `stock` until add() brings them."""

    def __init__(self, folder: pathlib.Path, stock: pathlib.Path, weights: pathlib.Path, threshold: float) -> None:  # noqa: F811
        self.folder, self.stock, self.gallery = folder / "photos", stock, folder / "g"
        self.folder.mkdir()
        self.options = ["--aligned", "--weights", weights, "--threads", 2, "--threshold", threshold]

    def add(self, *names: str) -> None:
        for name in names:
            target = self.folder / name
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(self.stock / name, target)
            self.age(target)

    def age(self, path: pathlib.Path) -> None:
        """So long ago that its time tells whether it changed."""
        os.utime(path, ns=(time.time_ns() - 10**11, time.time_ns() - 10**11))

    def scan(self, *more: object, status: int = 0) -> dict:
        result = facenet("people", self.folder, "-g", self.gallery, "--json", *self.options, *more)
        assert result.returncode == status, result.stderr
        return lines(result)[0]

    def people(self, action: str, *arguments: object, status: int = 0):
        result = facenet("people", action, "-g", self.gallery, "--json", *arguments)
        assert result.returncode == status, result.stderr
        return lines(result)

    def persons(self) -> dict[str, str]:
        """Whose face is in each file."""
        return {str(pathlib.Path(row["file"]).relative_to(self.folder)): row["name"] for row in self.rows()}

    def rows(self) -> list[dict]:
        return self.people("export", "--format", "jsonl")


@pytest.fixture(scope="module")
def stock(tmp_path_factory, weights):  # noqa: F811
    folder = tmp_path_factory.mktemp("stock")
    files = make_people(folder / "images", PERSONS, EACH, noise=15)
    out = folder / "x.npy"
    assert facenet("embed", "--aligned", "--weights", weights, folder / "images", "--out", out, "--cache", "none").returncode == 0
    e = np.load(out)
    person = np.array([path.parent.name for path in sorted(files)])
    same, apart = person[:, None] == person[None], distances(e)
    # Every person but the loud ones (make_people) in one piece: above what most of one person's are apart.
    quiet = np.array([ord(name[-1]) % 4 != 0 for name in person])
    inside = apart[same & quiet[:, None] & quiet[None] & ~np.eye(len(e), dtype=bool)].max()
    between = apart[~same].min()
    assert inside < between
    names = [str(path.relative_to(folder / "images")) for path in sorted(files)]
    return folder / "images", names, float(min(inside * 1.05, (inside + between) / 2))


@pytest.fixture
def archive(tmp_path, stock, weights):  # noqa: F811
    return Archive(tmp_path, stock[0], weights, stock[2])


def test_only_what_is_new_is_looked_at_and_numbers_stay(archive, stock):
    names = stock[1]
    first, rest = names[::2], names[1::2]
    archive.add(*first)
    found = archive.scan()
    assert (found["pictures"], found["new"], found["unchanged"], found["new_faces"]) == (len(first), len(first), 0, len(first))
    before = archive.persons()
    assert all(name.startswith("person ") for name in before.values())
    again = archive.scan()
    assert (again["unchanged"], again["new"], again["new_faces"]) == (len(first), 0, 0)
    archive.add(*rest)
    found = archive.scan()
    assert (found["unchanged"], found["new"], found["faces"]) == (len(first), len(rest), len(names))
    after = archive.persons()
    kept = [after[name] == person for name, person in before.items()]
    assert np.mean(kept) >= 0.9
    quiet = [name for name in names if ord(name.split("/")[0][-1]) % 4 != 0]
    for a in quiet:  # one number for each person, of all their pictures
        for b in quiet:
            assert (after[a] == after[b]) == (a.split("/")[0] == b.split("/")[0]), (a, b)


def test_all_at_once_is_the_same_for_any_number_of_threads(archive, stock, tmp_path):
    archive.add(*stock[1])
    archive.scan("--threads", 1)
    one = archive.persons()
    archive.gallery = tmp_path / "other"
    archive.scan("--threads", 3)
    assert archive.persons() == one


@pytest.mark.parametrize("threads", [1, 2])  # one has the engine lent to it
def test_moved_copied_touched_and_changed_files(archive, stock, threads):
    archive.options[archive.options.index("--threads") + 1] = threads
    names = [name for name in stock[1] if not name.startswith("Person_D")]
    archive.add(*names)
    archive.scan()
    before = archive.persons()
    (archive.folder / "Person_A").rename(archive.folder / "2003")  # moved
    shutil.copyfile(archive.folder / names[4], archive.folder / "copy.png")  # copied
    os.utime(archive.folder / names[5])  # touched
    found = archive.scan()
    assert (found["new"], found["changed"], found["new_faces"], found["gone"]) == (0, 0, 0, 0)
    assert found["moved"] == EACH + 1 and found["faces"] == len(names)
    after = archive.persons()
    for name, person in before.items():
        assert after[name.replace("Person_A/", "2003/")] == person
    assert after["copy.png"] == before[names[4]]
    # Another picture under an old name: the old face goes, a face that is the same stays the same row.
    changed = archive.folder / names[-1]
    ids = {row["uuid"] for row in archive.rows() if row["file"] == str(changed)}
    with Image.open(changed) as picture:
        picture.save(changed, compress_level=0)  # other bytes, the same pixels
    archive.age(changed)
    found = archive.scan()
    assert (found["changed"], found["faces"]) == (1, len(names))
    assert {row["uuid"] for row in archive.rows() if row["file"] == str(changed)} == ids
    shutil.copyfile(archive.stock / "Person_D/Person_D_0001.png", changed)
    found = archive.scan()
    assert (found["changed"], found["faces"]) == (1, len(names))
    assert {row["uuid"] for row in archive.rows() if row["file"] == str(changed)}.isdisjoint(ids)


def test_pictures_that_are_gone_are_kept_until_prune(archive, stock):
    archive.add(*stock[1])
    archive.scan()
    gone = archive.folder / stock[1][0]
    gone.unlink()
    found = archive.scan()
    assert (found["gone"], found["pruned_faces"], found["faces"]) == (1, 0, len(stock[1]))
    found = archive.scan("--prune")
    assert (found["gone"], found["pruned_faces"], found["faces"]) == (1, 1, len(stock[1]) - 1)
    assert archive.scan()["gone"] == 0


def test_what_people_say_is_never_overridden(archive, stock):
    names = [name for name in stock[1] if ord(name.split("/")[0][-1]) % 4 != 0]
    later = [name for name in names if name.endswith("4.png")]
    archive.add(*(name for name in names if name not in later))
    archive.scan()
    persons = archive.persons()
    a, b = persons["Person_A/Person_A_0001.png"], persons["Person_B/Person_B_0001.png"]
    c, e = persons["Person_C/Person_C_0001.png"], persons["Person_E/Person_E_0001.png"]
    assert archive.people("name", a, "Ada") == [{"name": "Ada", "was": a}]
    assert archive.people("merge", b, c)[0]["faces"] == EACH - 1
    split = archive.people("split", e, archive.folder / "Person_E/Person_E_0001.png")[0]["name"]
    refused = archive.folder / "Person_A/Person_A_0002.png"
    owner = archive.people("not", "Ada", refused)[0]["names"]
    assert len(owner) == 1 and owner[0] not in (a, "Ada")
    for more in ([], later[:2], later[2:]):
        archive.add(*more)
        archive.scan()
        now = archive.persons()
        assert now["Person_A/Person_A_0001.png"] == "Ada" and now["Person_A/Person_A_0003.png"] == "Ada"
        assert now["Person_A/Person_A_0002.png"] != "Ada"
        assert {now[f"Person_{who}/Person_{who}_000{i}.png"] for who in "BC" for i in (1, 2, 3)} == {c}
        assert now["Person_E/Person_E_0001.png"] == split
        assert {now[f"Person_E/Person_E_000{i}.png"] for i in (2, 3)} == {e}
    assert now["Person_A/Person_A_0004.png"] == "Ada"  # a new face joins whom it is near to
    # By the number of a face, onto a person who is there; what was said last counts.
    number = next(row["template"] for row in archive.people("show", "Ada") if row["image"].endswith("A_0003.png"))
    archive.people("split", "Ada", number, "--to", c)
    archive.scan()
    assert archive.persons()["Person_A/Person_A_0003.png"] == c
    named = {row["name"]: row["named"] for row in archive.people("list")}
    assert named["Ada"] is True and named[c] is False
    assert facenet("gallery", "check", archive.gallery).stdout == "sound\n"
    for call, part in ((["merge", "Ada", c], "other way round"), (["merge", c, c], "itself"), (["name", c, "Ada"], "already"),
                       (["name", c, "x\ny"], "control"), (["not", "Ada", number], "is not a face of"),
                       (["not", "Ada", archive.folder / "none.png"], "no face of 'Ada'"), (["split", "nobody", 1], "nobody in it"),
                       (["split", split, archive.folder / "Person_E/Person_E_0001.png"], "every face")):  # fmt: skip
        assert_sentence(facenet("people", call[0], "-g", archive.gallery, *call[1:]), part)


def test_faces_of_one_picture_are_never_one_persons(weights, detector, scenes, tmp_path):  # noqa: F811
    """three.png shows one face three times."""
    (tmp_path / "in").mkdir()
    shutil.copy(scenes / "three.png", tmp_path / "in")
    shutil.copy(scenes / "none.png", tmp_path / "in")
    call = ["people", tmp_path / "in", "--weights", weights, *detector, "--threshold", 2, "--min-score", 0.5, "--json"]
    found = lines(facenet(*call, "-g", tmp_path / "g"))[0]
    assert (found["faces"], found["persons"], found["without_face"]) == (3, 3, 1)
    names = [row["name"] for row in lines(facenet("people", "list", "-g", tmp_path / "g", "--json"))]
    assert_sentence(facenet("people", "merge", "-g", tmp_path / "g", *names[:2]), "both are in one picture", "--collages")
    found = lines(facenet(*call, "-g", tmp_path / "h", "--collages"))[0]
    assert (found["faces"], found["persons"]) == (3, 1)
    # Other settings look at it again, and find the same rows.
    before = {row["uuid"] for row in lines(facenet("people", "export", "-g", tmp_path / "h", "--format", "jsonl"))}
    found = lines(facenet(*call, "-g", tmp_path / "h", "--collages", "--min-face", 30))[0]
    assert found["changed"] == 2 and found["faces"] == 3
    assert {row["uuid"] for row in lines(facenet("people", "export", "-g", tmp_path / "h", "--format", "jsonl"))} == before


def test_pictures_that_fail_are_named_each_time(archive, stock):
    archive.add(*stock[1][:3])
    (archive.folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno picture")
    for _ in range(2):
        result = facenet("people", archive.folder, "-g", archive.gallery, *archive.options)
        assert result.returncode == 2 and "broken.png: " in result.stderr and "1 failed" in result.stdout
    (archive.folder / "broken.png").unlink()
    archive.scan()
    empty = archive.folder.parent / "empty"
    empty.mkdir()
    assert_sentence(facenet("people", empty, "-g", archive.folder.parent / "none", *archive.options), "there is no picture in it that is read")
    assert not (archive.folder.parent / "none").exists()
    assert_sentence(facenet("people", "-g", archive.gallery, *archive.options), "--files-from")


def test_a_list_of_files(archive, stock, tmp_path):
    archive.add(*stock[1][:4])
    odd = archive.folder / "line\nfeed.png"
    shutil.copyfile(archive.stock / stock[1][5], odd)
    (tmp_path / "list").write_bytes(b"\0".join(os.fsencode(p) for p in (odd, archive.folder / stock[1][0])) + b"\0")
    call = ["people", "scan", "-g", archive.gallery, "--json", *archive.options, "--files-from"]
    assert lines(facenet(*call, tmp_path / "list", "-0"))[0]["new"] == 2
    result = facenet(*call, "-", input=f"{archive.folder / stock[1][1]}\n\n".encode())
    assert lines(result)[0]["new"] == 1
    assert_sentence(facenet(*call, tmp_path / "nothing"), "cannot be read")
    assert facenet("people", archive.folder, "-g", archive.gallery, "-0", *archive.options).returncode == 2


def test_killed_at_any_moment_it_goes_on_where_it_was(archive, stock, tmp_path):
    many = archive.folder
    for copy in range(3):  # other bytes, and other faces each time
        for name in stock[1]:
            with Image.open(archive.stock / name) as picture:
                shifted = Image.fromarray(np.roll(np.asarray(picture), copy, axis=1))
                shifted.save(many / f"{copy}-{pathlib.Path(name).name}", compress_level=1)
    call = [COMMAND, "people", many, "-g", archive.gallery, *archive.options, "-t", 1]
    for delay in (0.3, 1.0, 3.5):
        process = subprocess.Popen(list(map(str, call)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if archive.gallery.exists() and archive.gallery.stat().st_size:
            assert facenet("gallery", "check", archive.gallery).returncode == 0
    found = archive.scan()
    assert found["pictures"] == found["faces"] == 3 * len(stock[1])
    assert len({row["sha256"] for row in archive.rows()}) == found["faces"]
    assert archive.scan()["new_faces"] == 0


def test_two_runs_at_once_lose_nothing(archive, stock):
    archive.add(*stock[1])
    call = list(map(str, [COMMAND, "people", archive.folder, "-g", archive.gallery, "--json", *archive.options, "-t", 1]))
    runs = [subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for run in runs:
        out, err = run.communicate(timeout=120)
        assert run.returncode == 0, err
        assert json.loads(out)["pictures"] == len(stock[1])
    assert len(archive.rows()) == len(stock[1]) == len(archive.persons())


def test_a_gallery_of_another_model_or_a_full_disk_is_refused(archive, stock, tmp_path):
    archive.add(*stock[1][:4])
    archive.scan()
    with sqlite3.connect(archive.gallery) as db:
        db.execute("UPDATE meta SET model = '0123456789abcdef', checksum = NULL")
    db.close()
    assert_sentence(facenet("people", archive.folder, "-g", archive.gallery, *archive.options), "another model")
    if os.geteuid() == 0 and shutil.which("unshare"):
        script = f'mount -t tmpfs -o size=60k none {tmp_path}/small && exec "$0" "$@"'
        (tmp_path / "small").mkdir()
        call = ["unshare", "-m", "sh", "-c", script, COMMAND, "people", archive.folder, "-g", tmp_path / "small/g", *archive.options]
        archive.add(*stock[1])
        result = subprocess.run(list(map(str, call)), capture_output=True, text=True, check=False)
        assert result.returncode == 2 and "disk" in result.stderr, result.stderr


def test_lines_for_other_programs(archive, stock):
    archive.add(*stock[1][:6])
    archive.scan()
    persons = archive.persons()
    archive.people("name", persons[stock[1][0]], 'Ada, "the" Countess')
    text = facenet("people", "export", "-g", archive.gallery).stdout
    rows = list(csv.DictReader(io.StringIO(text)))
    assert {(row["file"], row["name"]) for row in rows} == {(str(archive.folder / f), n) for f, n in archive.persons().items()}
    assert {row["named"] for row in rows if row["name"].startswith("Ada")} == {"1"}


def test_pages_to_look_at(archive, stock, tmp_path):
    archive.add(*stock[1])
    archive.scan()
    hostile = "</script><img src=x onerror=alert(1)>\u202e"
    archive.people("name", archive.persons()[stock[1][0]], hostile)
    out = tmp_path / "pages"
    result = facenet("people", "pages", "-g", archive.gallery, out, "--json")
    assert result.returncode == 0, result.stderr
    made = lines(result)[0]
    assert made["thumbnails"] == made["faces"] == len(stock[1]) and made["without_picture"] == 0
    people = json.loads((out / "people.js").read_text().removeprefix("facenetPeople(").removesuffix(");\n"))
    assert sum(p[3] for p in people) == len(stock[1]) and people[0][2] == 1 and people[0][1] == hostile.replace("\u202e", r"\u202e")
    for number, _, _, count, cover in people:
        faces = json.loads((out / f"p/{number}-0.js").read_text().removeprefix(f"facenetFaces({number},0,").removesuffix(");\n"))
        assert len(faces) == count and cover in {face[0] for face in faces}
        for uuid, _, link in faces:
            with Image.open(out / f"t/{uuid[:2]}/{uuid}.jpg") as thumb:
                assert max(thumb.size) == 128
            assert (out / link).exists()
    archive.people("name", hostile, "Ada")
    gone = archive.folder / stock[1][0]
    gone.unlink()
    archive.scan("--prune")
    again = lines(facenet("people", "pages", "-g", archive.gallery, out, "--json"))[0]
    assert again["thumbnails"] == 0 and len(list(out.glob("t/*/*.jpg"))) == len(stock[1]) - 1
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").touch()
    assert_sentence(facenet("people", "pages", "-g", archive.gallery, tmp_path / "other"), "something else")


def test_a_gallery_for_another_model(archive, stock, weights512, tmp_path):  # noqa: F811
    """Numbers, names and decisions stay; a picture that is gone stops it, a kill loses nothing."""
    archive.add(*stock[1][:8])
    archive.scan()
    who = archive.persons()[stock[1][0]]
    archive.people("name", who, "Ada")
    archive.people("not", "Ada", archive.folder / stock[1][1])
    before = {row["uuid"]: (row["name"], row["box"]) for row in archive.rows()}
    call = ["gallery", "migrate", archive.gallery, "--json", "--weights", weights512, "--threads", 2]
    hidden = archive.folder / stock[1][3]
    hidden.rename(tmp_path / "hidden")
    stopped = facenet(*call)
    assert stopped.returncode == 2 and "--drop-missing" in stopped.stderr
    (line,) = lines(stopped)
    assert (line["embedded"], line["missing"], line["complete"]) == (7, 1, False)
    assert archive.scan()["gone"] == 1  # the old model's rows are all there
    (tmp_path / "hidden").rename(hidden)
    done = facenet(*call)
    assert done.returncode == 0, done.stderr
    (line,) = lines(done)
    assert (line["embedded"], line["missing"], line["complete"]) == (1, 0, True)  # seven had been done
    assert {row["uuid"]: (row["name"], row["box"]) for row in archive.rows()} == before
    assert facenet("gallery", "check", archive.gallery).stdout == "sound\n"
    assert sorted(path.name for path in archive.gallery.parent.glob("g*")) == ["g", "g-journal"][:1]
    archive.options[archive.options.index("--weights") + 1] = weights512
    assert archive.scan("--threshold", 0.01)["faces"] == 8 and archive.persons()[stock[1][1]] != "Ada"
    out = tmp_path / "x.jsonl"  # equal to what the new model makes of the pictures
    assert facenet("embed", "--aligned", "-w", weights512, archive.folder, "--out", out, "--cache", "none").returncode == 0
    fresh = {row["image"]: row["embedding"] for row in map(json.loads, out.read_text().splitlines())}
    for row in map(json.loads, facenet("gallery", "export", archive.gallery).stdout.splitlines()[1:]):
        assert np.array_equal(np.float32(row["embedding"]), np.float32(fresh[row["image"]]))
    assert lines(facenet(*call))[0]["embedded"] == 0  # it is of this model already


@pytest.mark.slow
def test_ten_increments_find_what_all_at_once_find():
    """tests/archive/run.py --identities has 50,000 faces."""
    tool = COMMAND.parent / "facenet_growing_tool"
    if not tool.exists():
        pytest.skip(f"{tool} is not built")
    found = json.loads(subprocess.run([tool, "6000", "10", "128", "4"], capture_output=True, text=True, check=True).stdout)
    assert found["f1_of_at_once"] >= 0.99 and found["f1_of_whispers"] >= 0.99, found
    assert found["truth_grown"] >= found["truth_at_once"] - 0.01 and found["truth_grown"] >= found["truth_whispers"] - 0.01, found


@pytest.mark.long
def test_pages_in_a_browser(tmp_path):
    """From the disk, at two widths, to the end, with nothing from elsewhere; tests/archive/pages.py has 50,000 faces and times."""
    if not (ROOT / "build/web/node_modules/playwright-core").exists() or shutil.which("chromium") is None:
        pytest.skip("needs Chromium and playwright-core: run tools/bootstrap.sh --all")
    call = [ROOT / "tests/archive/pages.py", "--faces", "2500", "--keep", tmp_path]
    done = subprocess.run([ROOT / ".venv/bin/python", *call], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr  # 1: a time, which other tests may have taken
    views = json.loads(done.stdout)["views"]
    assert [view["view"] for view in views] == ["desktop people", "desktop person", "phone people", "phone person"]
    assert all(view["errors"] == [] and 0 < view["cells"] < 400 for view in views), views
