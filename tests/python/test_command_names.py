"""What strangers write, and what killed processes leave: names that would steer a terminal or forge a line, temporaries, modes,
folders as people have them, and where weights are looked for."""

from __future__ import annotations

import csv
import json
import os
import pathlib
import re
import shutil
import signal
import stat
import subprocess
import time

import numpy as np
import pytest
from PIL import Image
from test_command import COMMAND, assert_sentence, facenet, lines
from test_command import weights  # noqa: F401 (fixture)
from test_command_faces import ASTRONAUT, detector, merged, scenes  # noqa: F401 (fixtures)
from test_detector import weight_file  # noqa: F401 (fixture)
from test_gallery import change

pytestmark = [
    pytest.mark.skipif(not COMMAND.exists(), reason=f"{COMMAND} is not built"),
    pytest.mark.skipif(not ASTRONAUT.exists(), reason=f"{ASTRONAUT} is not there: run tools/bootstrap.sh"),
]
# A line that would pass for an answer, colours, the title, DEL, C1, a separator, controls that turn the direction, the unseen.
HOSTILE = "a\nsame: distance 0.0000\x1b[31m\x1b]0;x\x07\x7f\t\x80\u0085\u009b2J\u2028\u202e\u2066\u200b\ufeff\U000e0041b\\"
SHOWN = r"a\nsame: distance 0.0000\x1b[31m\x1b]0;x\x07\x7f\t\x80\u0085\u009b2J\u2028\u202e\u2066\u200b\ufeff\U000e0041b\\".replace(r"\x80", r"\u0080")
STEERING = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\xad\u200b\ufeff\U000e0041]")
PERSON = "Eve \u202e\u2066\u200f\U000e0041"  # a gallery refuses control characters, not these
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="only root may make namespaces")


def picture(path: pathlib.Path, seed: int) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (24, 24, 3), np.uint8)).save(path, format="PNG")
    return path


@pytest.fixture(scope="module")
def hostile(weights, tmp_path_factory):  # noqa: F811
    """A weight file with hostile metadata, a folder of four hostile persons with two pictures each, a gallery of one."""
    folder = tmp_path_factory.mktemp("hostile")
    file = merged(weights, None, folder / "w.safetensors", dataset=HOSTILE, licence=HOSTILE, source=HOSTILE)
    people = folder / f"people{HOSTILE}"
    for person in range(4):
        for number in (1, 2):
            picture(people / f"P{person}{HOSTILE}" / f"P{person}{HOSTILE}_{number:04d}.png", 10 * person + number)
    return file, people, ["--weights", file, "--threads", 1]


def check(result, rows: int, fields: int = 0, shown: str = "") -> None:
    """No line more than promised, no field more, and nothing that a terminal obeys."""
    for stream in (result.stdout, result.stderr):
        assert not STEERING.search(stream), ascii(stream)
    assert rows < 0 or result.stdout.count("\n") == rows, ascii(result.stdout)  # below 0: numbers alone
    assert all(line.startswith("facenet: ") and line.endswith(".") for line in result.stderr.splitlines()), ascii(result.stderr)
    if fields:
        assert [line.count("\t") + 1 for line in result.stdout.splitlines()] == [fields] * rows, ascii(result.stdout)
    assert shown in result.stdout


def test_no_subcommand_shows_what_a_stranger_wrote(hostile, detector, scenes, tmp_path):  # noqa: F811
    weights, people, model = hostile  # noqa: F811
    first, second = sorted(people.rglob("*.png"))[:2]
    face = tmp_path / f"face{HOSTILE}.png"
    shutil.copy(scenes / "one.png", face)
    bad = tmp_path / f"bad{HOSTILE}.png"
    bad.write_text("no picture")
    gallery = tmp_path / f"g{HOSTILE}"
    pairs = tmp_path / f"pairs{HOSTILE}.txt"
    names = [f"E\x1b[2J\u202e{person}" for person in range(2)]
    for person, name in enumerate(names):
        for number in (1, 2):
            picture(tmp_path / "lfw" / name / f"{name}_{number:04d}.png", 100 + 10 * person + number)
    pairs.write_text(f"2\n{names[0]}\t1\t2\n{names[1]}\t1\t2\n{names[0]}\t1\t{names[1]}\t1\n{names[0]}\t2\t{names[1]}\t3\n")
    aligned = ["--aligned", *model]
    tried = {}

    def call(name: str, *arguments: object, rows: int, fields: int = 0, shown: str = "", status: int = 0):
        result = facenet(*name.split(), *arguments)
        check(result, rows, fields, shown)
        assert result.returncode == status, result.stderr
        tried.setdefault(name, []).append(arguments)
        return result

    call("detect", *detector, face, rows=1, fields=5, shown=SHOWN)
    call("detect", *detector, "--json", face, bad, rows=2, status=2)
    (tmp_path / "in").mkdir()
    for source in (face, bad, first):
        shutil.copy(source, tmp_path / "in")
    text = call("align", *detector, tmp_path / "in", tmp_path / f"out{HOSTILE}", rows=3, fields=1, status=2).stdout
    assert "without a face: " in text and "failed: " in text and text.count(SHOWN) >= 2
    call("embed", *aligned, first, bad, rows=1, fields=3, shown=SHOWN, status=2)
    call("embed", *aligned, "--json", first, bad, rows=2, status=2)
    table = tmp_path / "x.csv"
    call("embed", *aligned, people, "--out", table, rows=0)
    with table.open(newline="") as file:  # a file for programs: RFC 4180 gives them the names as they are
        assert [row["image"] for row in csv.DictReader(file)] == sorted(map(str, people.rglob("*.png")))
    call("verify", *aligned, first, first, rows=1)
    call("verify", *aligned, first, bad, rows=0, status=2)
    call("enroll", *aligned, gallery, PERSON, first, rows=1, fields=3, shown=r"Eve \u202e\u2066\u200f")
    call("enroll", *aligned, gallery, HOSTILE, first, rows=0, status=2)
    call("enroll", *aligned, gallery, "--dir", people, rows=0, status=2)
    call("identify", *aligned, gallery, first, bad, rows=1, fields=5, shown=SHOWN, status=2)
    call("identify", *aligned, gallery, "--json", first, rows=1)
    call("gallery list", gallery, rows=1, fields=2, shown=r"Eve \u202e\u2066\u200f")
    call("gallery show", gallery, PERSON, rows=1, fields=6, shown=SHOWN)
    call("gallery show", gallery, HOSTILE, rows=0, status=2)
    dump = tmp_path / "dump.jsonl"
    call("gallery export", gallery, dump, rows=0)
    call("gallery export", gallery, rows=2)
    call("gallery import", tmp_path / "new", dump, rows=1)
    # What others put into an export: a time that is none is refused, or shown escaped.
    head, row = map(json.loads, dump.read_text().splitlines())
    (tmp_path / "evil.jsonl").write_text("\n".join(map(json.dumps, (head | {"detector": HOSTILE}, row | {"enrolled": HOSTILE}))))
    for arguments in (("gallery", "import", tmp_path / "evil", tmp_path / "evil.jsonl"), ("gallery", "show", tmp_path / "evil", PERSON),
                      ("gallery", "stats", tmp_path / "evil")):
        result = facenet(*arguments)
        check(result, result.stdout.count("\n"))
        assert result.stdout.count("\n") <= 15
    call("gallery rename", gallery, PERSON, PERSON + "2", rows=1, fields=1)
    call("gallery stats", gallery, rows=15)
    call("gallery vacuum", gallery, rows=1)
    call("gallery check", gallery, rows=1)
    call("gallery backup", gallery, tmp_path / f"copy{HOSTILE}", rows=1)
    change(gallery, "UPDATE template SET embedding = x'00'")
    call("gallery check", gallery, rows=1, fields=4, shown=SHOWN, status=1)
    call("gallery repair", gallery, rows=2, shown=SHOWN)
    call("enroll", *aligned, gallery, PERSON, second, rows=1)
    call("gallery merge", gallery, PERSON + "2", PERSON, rows=1)
    call("gallery rename", gallery, PERSON, PERSON + "2", rows=1)
    call("gallery remove", gallery, PERSON + "2", rows=1)
    page = tmp_path / "page.html"
    call("cluster", *aligned, people, "--html", page, "--threshold", 0, rows=8, fields=3, shown=SHOWN)
    assert not STEERING.search(page.read_text()) and "same: distance 0.0000" not in [x.strip() for x in page.read_text().splitlines()]
    call("cluster", *aligned, people, "--json", rows=facenet("cluster", *aligned, people, "--json").stdout.count("\n"))
    call("evaluate", *aligned, "--pairs", pairs, "--images", tmp_path / "lfw", "--html", page, rows=-1, status=2)
    assert not STEERING.search(page.read_text())
    call("calibrate", *aligned, people, "--far", 0.5, rows=1)
    call("calibrate", *aligned, people, "--far", 0.5, "-o", tmp_path / "no" / HOSTILE, rows=0, status=2)
    text = call("info", weights, rows=facenet("info", weights).stdout.count("\n")).stdout
    assert text.count(SHOWN) == 3 and sum(line.startswith("same") for line in text.splitlines()) == 0
    assert lines(call("info", "--json", weights, rows=1))[0]["licence"] == HOSTILE
    call("selftest", weights, rows=2)
    call("bench", *model, "--seconds", 0, rows=4)
    for name in ("selftest", "info"):
        call(name, tmp_path / HOSTILE, rows=0, status=2)
    call("watch", *detector, face, rows=-1, status=2)
    call("watch", *detector, tmp_path / HOSTILE, rows=0, status=2)
    call("serve", *model, *detector, "--gallery", tmp_path / "no" / HOSTILE, rows=0, status=2)
    archive = tmp_path / f"archive{HOSTILE}"
    (archive / HOSTILE).mkdir(parents=True)
    for number, source in enumerate((first, second)):
        shutil.copy(source, archive / HOSTILE / f"{number}{HOSTILE}.png")
    shutil.copy(bad, archive)
    scan = ["-g", tmp_path / f"people{HOSTILE}", *aligned, "--threshold", 0]
    call("people scan", archive, *scan, rows=2, status=2)
    call("people scan", archive, *scan, "--json", rows=1, status=2)
    (archive / bad.name).unlink()
    of = scan[:2]
    call("people list", *of, rows=2, fields=2)
    one, other = (row.split("\t")[0] for row in facenet("people", "list", *of).stdout.splitlines())
    call("people name", *of, one, PERSON, rows=1, shown=r"Eve \u202e\u2066\u200f")
    call("people name", *of, one, HOSTILE, rows=0, status=2)
    call("people show", *of, PERSON, rows=1, fields=5, shown=SHOWN)
    call("people merge", *of, other, PERSON, rows=1)
    number = facenet("people", "show", *of, PERSON).stdout.split("\t")[0]
    call("people split", *of, PERSON, number, "--to", PERSON + "2", rows=1)
    call("people not", *of, PERSON + "2", HOSTILE, rows=0, status=2)
    call("people not", *of, PERSON + "2", number, rows=1)
    call("people export", *of, tmp_path / f"x{HOSTILE}.csv", rows=0)
    call("people pages", *of, tmp_path / f"pages{HOSTILE}", rows=1, shown=SHOWN)
    for script in (tmp_path / f"pages{HOSTILE}").rglob("*.js"):
        assert not STEERING.search(script.read_text()), script
    call("tag", archive, *of, rows=1, fields=3, shown=SHOWN)
    call("tag", archive, *of, "--undo", "--json", rows=1)
    call("gallery migrate", tmp_path / f"people{HOSTILE}", *model, rows=1)
    call("weights list", rows=3, fields=5)
    call("weights get", HOSTILE, rows=0, status=2)
    call("config", rows=3, fields=3)
    # All that there are, so that a new one is not forgotten here.
    manual = facenet("--generate", "man").stdout
    there = set(re.findall(r"^\.SS (\w+)", manual, re.M)) - {"gallery", "people", "weights"}
    for name in ("gallery", "people", "weights"):
        section = facenet(name, "--help").stdout.split("Subcommands:\n")[1].split("\n\n")[0]
        there |= {f"{name} {action}" for action in re.findall(r"^  (\w+) ", section, re.M)}
    assert there == set(tried)
    # The parser's own sentences, and variables.
    for arguments in ((HOSTILE,), ("detect", "--" + HOSTILE), ("bench", "--batch", HOSTILE), ("embed", "-w", HOSTILE, HOSTILE)):
        result = facenet(*arguments)
        check(result, 0)
        assert result.returncode == 2 and result.stderr.count("\n") == 1
    for variable in ("FACENET_WEIGHTS", "FACENET_FORCE_ISA"):
        check(facenet("info", env={variable: "a\n\x1b[31mb"}), facenet("info", env={variable: "a\n\x1b[31mb"}).stdout.count("\n"))


@pytest.mark.parametrize(("raw", "shown"), [
    (b"caf\xe9", r"caf\xe9"), (b"\xed\xa0\x80", r"\xed\xa0\x80"), (b"\xc0\xaf", r"\xc0\xaf"), (b"\xf4\x90\x80\x80", r"\xf4\x90\x80\x80"),
    ("é\u200d顔👩".encode(), "é\u200d顔👩"), (b"back\\slash", r"back\\slash"), ("\u061c\u200e\u2069".encode(), r"\u061c\u200e\u2069"),
])
def test_one_spelling_for_each_name(weights, tmp_path, raw, shown):  # noqa: F811
    path = os.fsencode(tmp_path) + b"/" + raw
    result = subprocess.run([COMMAND, "embed", "--aligned", "-w", weights, path], capture_output=True, check=False)
    assert result.returncode == 2 and f"{tmp_path}/{shown}: " in result.stderr.decode()


# ---- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_folders_made_of_faces_are_their_owners_alone(weights, detector, scenes, tmp_path, umask):  # noqa: F811
    """Those above them too; what is there keeps its mode."""
    people = tmp_path / "people"
    for person in range(2):
        picture(people / f"P{person}" / "1.png", 10 * person)
    (tmp_path / "scenes" / "inner").mkdir(parents=True)
    shutil.copy(scenes / "one.png", tmp_path / "scenes" / "inner")
    (tmp_path / "there").mkdir()
    (tmp_path / "there").chmod(0o751)
    masked = {"preexec_fn": lambda: os.umask(umask)}
    one, cluster = scenes / "one.png", ["cluster", "--aligned", "-w", weights, "--cache", "none", people]
    out = tmp_path / "out"
    for call in (["detect", *detector, "--draw", f"{out}/a/d/", "--crops", out / "a" / "crops", one], ["detect", *detector, "--crops", tmp_path / "there", one],
                 [*cluster, "--copy", "--out", out / "b" / "sorted"], [*cluster, "--out", out / "linked"],
                 ["align", *detector, tmp_path / "scenes", out / "aligned"]):  # fmt: skip
        result = facenet(*call, **masked)
        assert result.returncode == 0, result.stderr
    made = {p.relative_to(out).as_posix(): stat.S_IMODE(p.stat().st_mode) for p in [out, *out.rglob("*")] if p.is_dir()}
    assert {".", "a", "a/d", "a/crops", "b", "b/sorted", "b/sorted/person_001", "linked/person_001", "aligned/inner"} <= set(made)
    assert set(made.values()) == {0o700}, made
    assert {stat.S_IMODE(p.stat().st_mode) for p in out.rglob("*") if p.is_file() and not p.is_symlink()} == {0o600}
    assert stat.S_IMODE((tmp_path / "there").stat().st_mode) == 0o751


def test_what_is_made_of_faces_is_its_owners_alone(weights, detector, scenes, tmp_path):  # noqa: F811
    """With umask 022, as nearly everywhere; what is replaced keeps its mode."""
    people = tmp_path / "people"
    for person in range(4):
        for number in (1, 2):
            picture(people / f"P{person}" / f"{number}.png", 10 * person + number)
    aligned = ["--aligned", "--weights", weights, "--cache", "none"]
    old = os.umask(0o022)
    try:
        (tmp_path / "shared.jsonl").touch(0o644)
        for name in ("x.npy", "x.csv", "x.jsonl", "shared.jsonl"):
            assert facenet("embed", *aligned, people, "-o", tmp_path / name).returncode == 0
        assert facenet("calibrate", *aligned, people, "--far", 0.5, "-o", tmp_path / "t").returncode == 0
        assert facenet("cluster", *aligned, people, "--html", tmp_path / "sheet.html").returncode == 0
        assert facenet("detect", *detector, "--draw", tmp_path / "d.png", "--crops", tmp_path / "crops", scenes / "one.png").returncode == 0
    finally:
        os.umask(old)
    made = {p.relative_to(tmp_path).as_posix(): stat.S_IMODE(p.stat().st_mode)
            for p in tmp_path.rglob("*") if p.is_file() and people not in p.parents}
    assert made.pop("shared.jsonl") == 0o644
    assert set(made) == {"x.npy", "x.index.jsonl", "x.model.json", "x.csv", "x.jsonl", "t", "sheet.html", "d.png", "crops/one_0.png"}
    assert set(made.values()) == {0o600}, made


def waiting(call: list, folder: pathlib.Path, wrapper: tuple = (), **options) -> subprocess.Popen:
    """The command, once it has begun its output in `folder` and waits for standard input."""
    process = subprocess.Popen([*wrapper, COMMAND, *map(str, call)], stdin=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        pids = [process.pid, *map(int, pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())]
        for pid in pids:
            for descriptor in pathlib.Path(f"/proc/{pid}/fd").glob("*"):
                target = os.readlink(descriptor) if descriptor.is_symlink() else ""
                if target.startswith(str(folder)) and ("(deleted)" in target or target.endswith(".tmp")):
                    process.command = pid
                    return process
        time.sleep(0.005)
    raise AssertionError(f"it has not begun: {process.poll()}")


NO_PROC = ("unshare", "-m", "sh", "-c", 'mount -t tmpfs none /proc && exec "$0" "$@"')  # files without names need it


@ROOT_ONLY
@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_process_1_of_a_container_can_be_stopped(weights, tmp_path, number, named):  # noqa: F811
    call = ["embed", "--aligned", "--threads", 1, "-w", weights, "-o", tmp_path / "x.jsonl", "-"]
    inner = NO_PROC[2:] if named else ()
    wrapper = ("unshare", "-p", "-f", *(("-m",) if named else ()), *inner)
    process = waiting(call, tmp_path, wrapper)
    os.kill(process.command, number)
    assert process.wait(30) == 128 + number and list(tmp_path.iterdir()) == []


@ROOT_ONLY
def test_what_a_killed_container_left_is_in_nobodys_way(weights, tmp_path):  # noqa: F811
    """Whatever the process's number: where files must have names until they are complete, each has one of its own."""
    call = ["embed", "--aligned", "--threads", 1, "-w", weights, "-o", tmp_path / "x.jsonl", "-"]
    killed, living = waiting(call, tmp_path, NO_PROC), waiting(call, tmp_path, NO_PROC)
    deadline = time.monotonic() + 30
    while len(left := sorted(tmp_path.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)  # the second may have taken the first's for a leftover before it was locked; then that makes another
    assert len(left) == 2 and all(len(p.name) < 40 and stat.S_IMODE(p.stat().st_mode) == 0o600 for p in left)
    killed.kill()
    killed.wait()
    (tmp_path / "x.jsonl.1.tmp").write_text("half")  # as versions before called it
    (tmp_path / "thesis.2024.tmp").write_text("a year's work")
    png = picture(tmp_path / "in" / "p.png", 1).read_bytes()
    for wrapper in (("unshare", "-p", "-f"), NO_PROC):
        assert subprocess.run([*wrapper, COMMAND, *map(str, call)], input=png, check=False).returncode == 0
        names = {p.name for p in tmp_path.iterdir()}
        assert {"x.jsonl", "thesis.2024.tmp", "in"} < names and len(names) == 4, names  # and the living one's
    living.communicate(png)
    assert living.returncode == 0 and {p.name for p in tmp_path.iterdir()} == {"x.jsonl", "thesis.2024.tmp", "in"}


def test_names_of_255_bytes(weights, detector, scenes, tmp_path):  # noqa: F811
    def longest(end: str) -> str:
        return "é" * ((255 - len(end)) // 2) + "x" * ((255 - len(end)) % 2) + end

    for end in (".npy", ".csv", ".jsonl", ".png", ".html", ""):
        assert len(os.fsencode(longest(end))) == 255
    source = tmp_path / "in" / longest("")
    source.parent.mkdir()
    shutil.copy(scenes / "one.png", source)
    shutil.copy(scenes / "one.png", source.with_name(longest(".png")))
    aligned = ["--aligned", "--weights", weights]
    for name in (longest(".csv"), longest(".jsonl"), longest("")):
        result = facenet("embed", *aligned, source, "-o", tmp_path / name)
        assert result.returncode == 0 and (tmp_path / name).stat().st_size > 1000
    many = facenet("embed", *aligned, source.parent, "-o", tmp_path / longest(".csv"))  # its cache's name would be longer
    assert many.returncode == 0 and "too long" in many.stderr
    assert facenet("detect", *detector, "--draw", tmp_path / longest(".png"), source).returncode == 0
    for folder in ("draw", "crops"):
        out = tmp_path / folder
        assert facenet("detect", *detector, f"--{folder}", out, *source.parent.iterdir()).returncode == 0
        assert sum(1 for _ in out.iterdir()) == 2 and all(name.name.endswith(".png") for name in out.iterdir())
    for _ in range(2):  # the second time they are there
        result = facenet("align", *detector, source.parent, tmp_path / "crops2")
        assert result.returncode == 0 and sum(1 for _ in (tmp_path / "crops2").iterdir()) == 2
    assert " 2 were there" in result.stdout
    long = source.parent.rename(tmp_path / longest("-in"))
    result = facenet("cluster", *aligned, long, "--out", tmp_path / "sorted", "--html", tmp_path / longest(".html"))
    assert result.returncode == 0 and "too long" in result.stderr and (tmp_path / longest(".html")).exists()


# ---- folders ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> tuple[pathlib.Path, list[str]]:
    """A folder as NAS, desktops and telephones leave it, and the pictures that people have put there."""
    root = tmp_path_factory.mktemp("photographs") / "people"
    jpeg = root / "Ada" / "IMG_1.JPG"
    picture(root / "Ada" / "1.png", 1)
    Image.fromarray(np.random.default_rng(9).integers(0, 256, (24, 24, 3), np.uint8)).save(jpeg, quality=95)
    taken = ["Ada/1.png", "Ada/IMG_1.JPG"]
    for number, name in enumerate(("Ada/no end", "Bob/x.jfif", "Bob/png called.txt", "Bob/jpeg called.heic")):
        path = root / name
        path.parent.mkdir(exist_ok=True)
        if "png" in name:
            picture(path, 30 + number)
        else:
            Image.fromarray(np.random.default_rng(30 + number).integers(0, 256, (24, 24, 3), np.uint8)).save(path, format="JPEG")
        taken.append(name)
    systems = ("@eaDir", "#recycle", "$RECYCLE.BIN", "__MACOSX", "lost+found", "Thumbs", "System Volume Information", "@tmp", "~snapshot")
    for number, system in enumerate(systems):
        picture(root / system / "t.png", 50 + number)
        if number < 2:
            picture(root / "Ada" / system / "t.png", 60 + number)
    for number, hidden in enumerate((".Trash-1000/files/t.png", ".git/t.png", "Ada/.@__thumb/t.png", "Ada/._1.png")):
        picture(root / hidden, 70 + number)
    shutil.copy(root / "Ada" / "1.png", root / "Ada" / "1.png~")
    (root / "Ada" / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    (root / "Bob" / "IMG_2.psd").write_bytes(b"8BPS\0\1" + bytes(30))
    for name in ("a.jp2", "jp2 called.jpg"):
        (root / "Bob" / name).write_bytes(b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(30))
    (root / "Bob" / "notes.txt").write_text("not a picture")
    os.mkfifo(root / "Bob" / "pipe.png")
    # Links: a person elsewhere, a single file elsewhere, the same again, round in circles, and nowhere.
    elsewhere = root.parent / "elsewhere"
    picture(elsewhere / "Cy" / "c.png", 80)
    picture(elsewhere / "single.png", 81)
    (elsewhere / "Cy" / "up").symlink_to("..")
    (root / "Cy").symlink_to(elsewhere / "Cy")
    (root / "Dee").mkdir()
    (root / "Dee" / "s.png").symlink_to(elsewhere / "single.png")
    for name, target in (("Dee/Cy again", elsewhere / "Cy"), ("Dee/round", root), ("Dee/Ada's.png", root / "Ada" / "1.png"),
                         ("Dee/nowhere", "nothing"), ("Dee/parent", root.parent)):
        (root / name).symlink_to(target)
    return root, sorted([*taken, "Cy/c.png", "Dee/s.png"])


LEFT_OUT = {"formats": {"JPEG 2000": 2, "PSD": 1}, "other_files": 2, "system": 13, "hidden": 4, "excluded": 0, "links": 6}


def test_folders_as_people_have_them(photographs, weights, detector, tmp_path):  # noqa: F811
    root, taken = photographs
    aligned = ["--aligned", "--weights", weights]
    out = tmp_path / "x.npy"
    result = facenet("embed", *aligned, root, "-o", out)
    index = [json.loads(line)["image"] for line in out.with_suffix(".index.jsonl").read_text().splitlines()]
    assert [str(pathlib.Path(name).relative_to(root)) for name in index] == taken
    assert json.loads(out.with_suffix(".model.json").read_text())["left_out"] == LEFT_OUT
    said = (f"facenet: {root}: left out: 2 JPEG 2000, 1 PSD, 2 other files, 13 system entries, 4 hidden entries, "
            "6 links to what is there already or nowhere.")
    assert result.returncode == 0 and result.stderr.splitlines()[-1] == said
    (summary,) = lines(facenet("align", "--json", *detector, root, tmp_path / "crops"))
    assert summary["left_out"] == LEFT_OUT and summary["pictures"] == len(taken)
    result = facenet("enroll", *aligned, tmp_path / "gallery", "--dir", root)
    assert said in result.stderr.splitlines() and result.stdout.count("\n") == len(taken)
    assert facenet("gallery", "list", tmp_path / "gallery").stdout == "Ada\t3\nBob\t3\nCy\t1\nDee\t1\n"
    result = facenet("cluster", *aligned, root, "--cache", "none", "--json")
    assert sorted(str(pathlib.Path(f["image"]).relative_to(root)) for g in lines(result) for f in g["faces"]) == taken
    assert said in result.stderr.splitlines()
    result = facenet("calibrate", *aligned, root, "--cache", "none", "--far", 0.5)
    assert lines(result)[0]["left_out"] == LEFT_OUT and lines(result)[0]["persons"] == 4 and said in result.stderr.splitlines()


def test_patterns_leave_out_more(photographs, weights, tmp_path):  # noqa: F811
    root, taken = photographs
    excluded = ["--exclude", "Bob", "--exclude", "Ada/IMG*", "--exclude", "s.???"]
    result = facenet("embed", "--aligned", "--weights", weights, "--json", root, *excluded)
    assert [str(pathlib.Path(row["image"]).relative_to(root)) for row in lines(result)] == ["Ada/1.png", "Ada/no end", "Cy/c.png"]
    assert "3 excluded entries" in result.stderr
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "x.jpg").write_bytes(b"8BPS\0\1" + bytes(30))
    assert_sentence(facenet("cluster", tmp_path / "only", "-w", weights), "no picture in it", "1 PSD")


# ---- where weights are looked for ------------------------------------------------------------------------------------


def test_default_files(weights, detector, scenes, tmp_path):  # noqa: F811
    def run(*call, **environment):
        env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path / "home")} | {k: str(v) for k, v in environment.items()}
        return subprocess.run([COMMAND, *map(str, call)], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)

    nothing = run("embed", "--aligned", scenes / "one.png")
    assert_sentence(nothing, "weights/facenet.safetensors", f"{tmp_path}/home/.local/share/facenet", "/usr/share/facenet", "--weights FILE")
    assert "demo.sh" not in nothing.stderr, "there is none here"
    places = [tmp_path / "home/.local/share/facenet", tmp_path / "data/facenet", tmp_path / "weights"]
    for place in places:  # each is preferred to those before
        place.mkdir(parents=True)
        (place / "facenet.safetensors").symlink_to(weights)
        (place / "mtcnn.safetensors").write_text("no detector")
        data = {"XDG_DATA_HOME": tmp_path / "data"} if place != places[0] else {}
        assert run("embed", "--aligned", scenes / "one.png", **data).returncode == 0
        assert str(place.relative_to(tmp_path)) in run("detect", scenes / "one.png", **data).stderr
        (place / "facenet.safetensors").unlink()
        (place / "facenet.safetensors").write_text("no weights")
    ignored = run("info", XDG_DATA_HOME="data")
    assert "weights/facenet.safetensors" in ignored.stderr
    # The detector: named, by its variable, beside the embedder's, in the folders.
    beside = tmp_path / "beside"
    beside.mkdir()
    shutil.copy(weights, beside / "e.safetensors")
    (beside / "mtcnn.safetensors").symlink_to(detector[1])
    assert run("embed", "-w", beside / "e.safetensors", scenes / "one.png").returncode == 0
    assert run("detect", scenes / "one.png", FACENET_DETECTOR=detector[1]).returncode == 0
    assert_sentence(run("embed", "-w", beside / "e.safetensors", scenes / "one.png", FACENET_DETECTOR="/nope"), "/nope")
    assert run("detect", *detector, scenes / "one.png", FACENET_DETECTOR="/nope").returncode == 0
