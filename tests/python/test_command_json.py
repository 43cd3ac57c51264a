"""What the command prints with --json: docs/schema/facenet-command-1.json over every sub-command, failures included; and --quiet,
the help's width and the names of a gallery's actions."""

from __future__ import annotations

import contextlib
import copy
import fcntl
import http.client
import json
import os
import pathlib
import pty
import re
import shutil
import sqlite3
import struct
import subprocess
import termios

import jsonschema
import numpy as np
import pytest
from conftest import ROOT
from PIL import Image
from test_command import COMMAND, UNTRAINED, assert_sentence, facenet, lines
from test_command import weights  # noqa: F401 (fixture)
from test_command_faces import ASTRONAUT, scenes  # noqa: F401 (fixture)
from test_detector import weight_file  # noqa: F401 (fixture)

FACE = {"box", "score", "landmarks", "quality", "quality_parts"}
SCHEMA = json.loads((ROOT / "docs/schema/facenet-command-1.json").read_text(encoding="utf-8"))
pytestmark = [
    pytest.mark.skipif(not COMMAND.exists(), reason=f"{COMMAND} is not built"),
    pytest.mark.skipif(not ASTRONAUT.exists(), reason=f"{ASTRONAUT} is not there: run tools/bootstrap.sh"),
]


def validator(name: str) -> jsonschema.Draft202012Validator:
    """For a line of one command."""
    return jsonschema.Draft202012Validator({key: SCHEMA[key] for key in ("$schema", "$defs")} | {"$ref": f"#/$defs/{name}"})


def check(name: str, line: dict) -> None:
    """The line is one of the command's; without any of its keys, or with one more, it is not, save for the few that may be absent."""
    schema = validator(name)
    schema.validate(line)
    free = name == "info" and "error" not in line  # a file's metadata may have any names
    assert free or not schema.is_valid(line | {"another": 1}), line
    optional = {"threshold_source", "layers", "plan", "detector", "error", "file", "threshold"} if name in ("info", "bench") else {
        "threshold_source", "crop", "ignored", "duplicates", "same_name", "uuid"}  # no gallery of schema 1 has a uuid
    for key in line:
        without = {k: v for k, v in line.items() if k != key}
        may = key in optional or free or (name == "detect" and {"error", "faces"} < set(line))
        assert may or not schema.is_valid(without), (name, key)
        assert not schema.is_valid(line | {key: {"no": "such"}}), (name, key)


# One thread in each: other tests run beside these.


@pytest.fixture(scope="module")
def aligned(weights):  # noqa: F811
    return ["--aligned", "--weights", weights, "--threads", 1]


@pytest.fixture(scope="module")
def detector(weight_file):  # noqa: F811
    return ["--detector", weight_file, "--threads", 1]


@pytest.fixture(scope="module")
def network(weights, detector):  # noqa: F811
    return ["--weights", weights, *detector]


@pytest.fixture(scope="module")
def inputs(scenes, tmp_path_factory):  # noqa: F811
    """A picture with one face, one with three, one with none, and a file that is no picture."""
    bad = tmp_path_factory.mktemp("inputs") / "bad.png"
    bad.write_text("no picture")
    return scenes / "one.png", scenes / "three.png", scenes / "none.png", bad


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> pathlib.Path:
    """Four persons, two pictures each, as LFW has them."""
    folder, rng = tmp_path_factory.mktemp("json") / "people", np.random.default_rng(3)
    for person in "ABCD":
        (folder / person).mkdir(parents=True)
        for number in (1, 2):
            Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8)).save(folder / person / f"{person}_{number:04d}.png")
    return folder


def call(name: str, *arguments: object, status: int = 0) -> list[dict]:
    """Its lines, each checked."""
    result = facenet(*name.split(), "--json", *arguments)
    assert result.returncode == status, result.stderr
    for line in lines(result):
        check(name, line)
    for line in lines(result):
        if "error" in line:
            assert f"facenet: {line['error']}\n" in result.stderr, "one sentence, on stderr and in the line"
    return lines(result)


def test_pictures(inputs, detector, network, aligned, tmp_path):
    """One object for each picture, whatever became of it; the same face in every command."""
    one, three, none, bad = map(str, inputs)
    found = call("detect", *detector, "--crops", tmp_path, *inputs, status=2)
    assert [line["image"] for line in found] == [one, three, none, bad]
    assert [len(line.get("faces", "x")) for line in found[:3]] == [1, 3, 0] and set(found[3]) == {"image", "error"}
    faces = {line["image"]: [{k: face[k] for k in sorted(face) if k != "crop"} for face in line["faces"]] for line in found[:3]}
    assert [set(face) for face in faces[three]] == [FACE] * 3

    def of(line: dict) -> dict:
        return {k: line[k] for k in sorted(FACE)}

    embedded = call("embed", *network, *inputs, status=2)
    assert [(line["image"], line.get("face")) for line in embedded] == [(one, 0), (three, 0), (three, 1), (three, 2), (none, None), (bad, None)]
    assert [of(line) for line in embedded[:4]] == faces[one] + faces[three]
    assert embedded[4] == {"image": none, "faces": []} and embedded[5] == found[3]
    out = tmp_path / "out.jsonl"
    assert facenet("embed", *network, *inputs, "--out", out).returncode == 2
    assert [json.loads(line) for line in out.read_text().splitlines()] == embedded

    crop = tmp_path / "one_0.png"
    (line,) = call("embed", *aligned, crop)
    assert line["box"] == [0, 0, 160, 160] and not {"score", "landmarks", "quality"} & set(line), "nothing is invented"

    (pair,) = call("verify", *network, "--threshold", 1000, three, one)
    assert [(face["image"], of(face)) for face in pair["faces"]] == [(three, faces[three][0]), (one, faces[one][0])]
    call("verify", *aligned, crop, crop)
    assert call("verify", *network, none, one, status=1) == [{"image": none, "faces": []}]
    assert call("verify", *network, none, bad, status=2) == [{"image": none, "faces": []}, found[3]]

    db = tmp_path / "db"
    enrolled = call("enroll", *network, db, "Eve", *inputs, status=2)
    assert [line["image"] for line in enrolled] == [one, three, none, bad] and {line["name"] for line in enrolled} == {"Eve"}
    assert of(enrolled[0]) == faces[one][0] and "3 faces" in enrolled[1]["error"] and enrolled[2]["faces"] == []
    assert enrolled[3]["error"] == found[3]["error"]
    (there,) = call("enroll", *network, db, "Eve", one)
    assert not there["enrolled"] and there["template"] == enrolled[0]["template"]
    (other,) = call("enroll", *network, db, "Mallory", one, status=2)
    assert "'Eve'" in other["error"]

    who = call("identify", *network, db, *inputs, status=2)
    assert [(line["image"], line.get("face")) for line in who] == [(line["image"], line.get("face")) for line in embedded]
    assert [of(line) for line in who[:4]] == faces[one] + faces[three] and who[4:] == embedded[4:]
    assert who[0]["matches"][0]["name"] == "Eve"
    assert call("identify", *network, "--threshold", 0, db, none, status=1) == [{"image": none, "faces": []}]


def test_what_cannot_be_written_is_in_the_line(inputs, detector, tmp_path):
    one = inputs[0]
    (tmp_path / "one_0.png").mkdir()
    (line,) = call("detect", *detector, "--crops", tmp_path, one, status=2)
    assert "one_0.png" in line["error"] and [set(face) for face in line["faces"]] == [FACE]


def test_folders(inputs, people, detector, network, aligned, tmp_path):
    one, _, none, bad = inputs
    folder = tmp_path / "in"
    folder.mkdir()
    for source in (one, none, bad):
        shutil.copy(source, folder)
    (summary,) = call("align", *detector, folder, tmp_path / "out", status=2)
    failure = summary["errors"][0]
    assert [failure["image"]] == summary["failed"] == [str(folder / "bad.png")]
    groups = call("cluster", *network, folder, "--cache", "none", status=2)
    assert groups[1:] == [{"image": str(folder / "none.png"), "faces": []}, failure]
    (face,) = groups[0]["faces"]
    assert set(face) == {"image", "face", *FACE}
    call("cluster", *aligned, people, "--cache", "none")

    out = tmp_path / "x.npy"
    assert facenet("embed", *network, folder, "--out", out).returncode == 2
    (row,) = map(json.loads, out.with_suffix(".index.jsonl").read_text().splitlines())
    check("embed index", row)
    check("embed model", json.loads(out.with_suffix(".model.json").read_text()))

    pairs = tmp_path / "pairs.txt"
    pairs.write_text("2\t1\nA\t1\t2\nA\t1\tB\t1\nB\t1\t2\nC\t1\tD\t1\n")
    copied = tmp_path / "people"
    shutil.copytree(people, copied)
    images = ["--images", copied, "--cache", "none"]
    (measured,) = call("evaluate", *aligned, "--pairs", pairs, *images)
    assert measured["errors"] == []
    (copied / "D" / "D_0001.png").write_text("no picture")
    (measured,) = call("evaluate", *aligned, "--pairs", pairs, *images, status=2)
    assert [pathlib.Path(e["image"]).name for e in measured["errors"]] == ["D_0001.png"]
    call("calibrate", *aligned, people, "--far", 0.5, "--cache", "none")
    wide = tmp_path / "wide"
    for number, name in enumerate("ABCDEF"):  # six persons for 1 in 2
        shutil.copytree(people / "ABCD"[number % 4], wide / name)
        for file in (wide / name).iterdir():
            Image.fromarray(np.asarray(Image.open(file)) ^ np.uint8(number)).save(file)
    (measured,) = call("calibrate", *aligned, wide, "--gallery-size", 2, "--fpir", 0.5, "--cache", "none")
    file = tmp_path / "wide.threshold"
    file.write_text(json.dumps(measured))
    assert facenet("enroll", *aligned, tmp_path / "wide.gallery", "--dir", wide).returncode == 0
    (line,) = call("identify", *aligned, "--threshold", file, tmp_path / "wide.gallery", wide / "A" / "A_0001.png")
    assert line["gallery_size"] == 6 and line["fpir"] > measured["fpir"]

    os.makedirs(os.fsencode(people.parent / "odd") + b"/\xff")
    shutil.copy(people / "A" / "A_0001.png", os.fsencode(people.parent / "odd") + b"/\xff/x.png")
    shutil.copytree(people / "B", people.parent / "odd" / "B")
    odd = call("enroll", *aligned, tmp_path / "db", "--dir", people.parent / "odd", status=2)
    assert ["error" in line for line in odd] == [True, False, False]


def test_galleries(people, aligned, tmp_path):
    db, new = tmp_path / "db", tmp_path / "new"
    assert len(call("enroll", *aligned, db, "--dir", people)) == 8
    call("identify", *aligned, db, people / "A" / "A_0001.png")
    assert len(call("gallery list", db)) == 4 and len(call("gallery show", db, "A")) == 2
    dump = tmp_path / "dump"
    dump.write_text("".join(json.dumps(line) + "\n" for line in call("gallery export", db)))
    call("gallery import", new, dump)
    for arguments in (["rename", new, "A", "Z"], ["merge", new, "B", "C"], ["stats", new], ["remove", new, "Z"], ["vacuum", new],
                      ["backup", new, tmp_path / "copy"], ["check", new], ["repair", new]):
        call(f"gallery {arguments[0]}", *arguments[1:])
    db = sqlite3.connect(new)
    db.execute("UPDATE template SET face = 7 WHERE id = 3")
    db.commit()
    db.close()
    assert not call("gallery check", new, status=1)[0]["sound"]
    assert call("gallery repair", new)[0]["lost"]


def test_weight_files(weights, detector, state, tmp_path):  # noqa: F811
    from safetensors.torch import save_file

    plain = tmp_path / "plain.safetensors"
    save_file({k: v.contiguous() for k, v in state.items()}, plain, metadata={"format": "pt", "error": "x", "layers": "y", "plan": "z"})
    for arguments in ([weights], ["--plan", weights], [detector[1]], [plain]):
        (line,) = call("info", *arguments)
        assert line["file"] == str(arguments[-1]) and "error" not in line
    missing = tmp_path / "missing"
    for name, file in (("info", missing), ("selftest", missing), ("selftest", detector[1])):
        (line,) = call(name, file, status=2)
        assert set(line) == {"file", "error"} and line["file"] == str(file)
    call("selftest", weights)
    call("bench", "--weights", weights, "--threads", 1, "--seconds", 0, "--layers")
    call("bench", "--weights", weights, "--threads", 1, "--seconds", 0)


def test_bench_of_a_picture(network, scenes, tmp_path):  # noqa: F811
    """The parts make up the whole, and the second picture is decoded where the first was."""
    photo = tmp_path / "photo.jpg"
    with Image.open(scenes / "three.png") as picture:
        picture.resize((1600, 1200)).save(photo, quality=90)
    (timed,) = call("bench", *network, "--seconds", 0, "--picture", photo)
    assert (timed["image"], timed["width"], timed["height"], timed["threads"]) == (str(photo), 1600, 1200, 1)
    assert timed["faces"] >= 3 and timed["runs"] == 3
    parts = {part["name"]: part for part in timed["parts"]}
    assert list(parts) == ["decode", "pyramid", "pnet", "rnet", "onet", "crop", "embed"]
    assert all(part["median_ms"] > 0 and part["cpu_ms"] > 0 for part in parts.values())
    assert 0.7 * timed["median_ms"] < sum(part["median_ms"] for part in parts.values()) < 1.3 * timed["median_ms"]
    assert parts["decode"]["allocated_bytes"] < 1600 * 1200, "the file and its copy, not the pixels"
    assert all(parts[name]["allocated_bytes"] == 0 for name in ("pyramid", "pnet", "rnet", "onet", "embed"))
    few = call("bench", *network, "--seconds", 0, "--min-face", "25%", "--picture", photo)[0]["parts"]
    assert few[2]["cpu_ms"] < parts["pnet"]["cpu_ms"] / 4
    text = facenet("bench", *network, "--seconds", 0, "--picture", photo).stdout
    assert "1600 x 1200 pixels" in text and "page faults" in text and "pyramid" in text
    failed = facenet("bench", *network, "--picture", tmp_path / "none.jpg")
    assert failed.returncode == 2 and failed.stdout == "" and "none.jpg" in failed.stderr


def test_a_camera_and_the_service(scenes, network, tmp_path):  # noqa: F811
    with Image.open(scenes / "one.png") as picture:
        picture.convert("RGB").resize((200, 220)).save(tmp_path / "one.jpg", quality=92)
    video = tmp_path / "video.mjpeg"
    video.write_bytes((tmp_path / "one.jpg").read_bytes() * 3)
    assert [line["event"] for line in call("watch", *network, "--input-fps", 10, video)] == ["arrival", "leaving", "end"]

    words = ["serve", "--json", *network, "--gallery", tmp_path / "db", "--listen", "127.0.0.1:0"]
    with subprocess.Popen([COMMAND, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            port = next(found[1] for line in process.stderr if (found := re.search(r"serving on http://127\.0\.0\.1:(\d+)", line)))
            for path, status in (("/health", 200), ("/none", 404)):
                with contextlib.closing(http.client.HTTPConnection("127.0.0.1", int(port), timeout=60)) as connection:
                    connection.request("GET", path)
                    assert connection.getresponse().status == status
        finally:
            process.terminate()
            logged = [json.loads(line) for line in process.communicate(timeout=60)[0].splitlines()]
    assert process.returncode == 0 and [line["status"] for line in logged] == [200, 404]
    for line in logged:
        check("serve", line)


def test_an_archive(people, aligned, weights, tmp_path, monkeypatch):  # noqa: F811
    folder, db = tmp_path / "photos", tmp_path / "g"
    shutil.copytree(people, folder)
    (folder / "bad.png").write_text("no picture")
    (found,) = call("people scan", folder, "-g", db, *aligned, "--threshold", 0.01, status=2)
    assert [error["image"] for error in found["errors"]] == found["failed"] == [str(folder / "bad.png")]
    (folder / "bad.png").unlink()
    (found,) = call("people scan", folder, "-g", db, *aligned, "--threshold", 0.01)
    assert found["persons"] == 8 and found["unchanged"] == 8
    persons = [line["name"] for line in call("people list", "-g", db)]
    call("people name", "-g", db, persons[0], "Ada")
    call("people merge", "-g", db, persons[1], "Ada")
    rows = call("people show", "-g", db, "Ada")
    assert [row["decided"] for row in rows] == [False, True]
    call("people split", "-g", db, "Ada", rows[0]["template"])
    call("people not", "-g", db, "Ada", rows[1]["template"])
    call("people name", "-g", db, persons[2], "Eve")
    assert len(call("people export", "-g", db, "--format", "jsonl")) == 8
    call("people pages", "-g", db, tmp_path / "pages")
    (line,) = call("tag", folder, "-g", db)
    assert line["names"] == ["Eve"] and line["change"] == "made"
    (line,) = call("tag", folder, "-g", db, "--undo", "--dry-run")
    assert line["change"] == "removed" and not line["written"]
    (line,) = call("gallery migrate", db, *aligned[1:])
    assert line["complete"] and line["embedded"] == 0
    monkeypatch.setenv("FACENET_CONFIG", str(tmp_path / "config"))
    (tmp_path / "config").write_text("threads = 1\n[people]\nmargin = 0.1\n")
    (line,) = call("config")
    assert [s["option"] for s in line["settings"]] == ["threads", "margin"]
    assert [line["name"] for line in call("weights list")] == ["vggface2", "casia-webface", "small"]


ACTIONS = ("gallery", "people", "weights")


def test_the_schema_knows_every_command():
    """And the tests above call each of them."""
    every = set(re.findall(r"^\.SS (\w+)", facenet("--generate", "man").stdout, re.M)) - set(ACTIONS)
    for command in ACTIONS:
        section = facenet(command, "--help").stdout.split("Subcommands:\n")[1].split("\n\n")[0]
        every |= {f"{command} {a}" for a in re.findall(r"^  (\w+) ", section, re.M)}
    assert {entry["$ref"].removeprefix("#/$defs/") for entry in SCHEMA["anyOf"]} == every and every <= set(SCHEMA["$defs"])
    assert SCHEMA["$id"] == "urn:facenet:command:1"
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    source = pathlib.Path(__file__).read_text(encoding="utf-8")
    every.remove("weights get")  # test_config.py has a server for it
    assert all(f'call("{name}"' in source or f'["{name.removeprefix("gallery ")}", ' in source for name in every)


# ---- --quiet, help and actions ---------------------------------------------------------------------------------------


def test_quiet_leaves_errors(inputs, people, network, aligned, detector, tmp_path):
    one, three, none, bad = inputs
    loud = facenet("embed", *network, one, none)
    assert UNTRAINED in loud.stderr and "no face was found" in loud.stderr
    for before, after in (([], ["--quiet"]), (["-q"], []), (["--quiet"], [])):
        quiet = facenet(*before, "embed", *after, *network, one, none)
        assert quiet.stderr == "" and quiet.stdout == loud.stdout and quiet.returncode == 0
    folder = tmp_path / "in"
    shutil.copytree(people, folder)
    (folder / "notes.txt").write_text("left out")
    shutil.copy(folder / "A" / "A_0001.png", folder / "B" / "again.png")
    for call_, status in ((["detect", *detector, none], 1), (["verify", *network, none, one], 1), (["verify", *network, three, three], 0),
                          (["align", *detector, folder, tmp_path / "out"], 1), (["enroll", *aligned, tmp_path / "g", "--dir", folder], 2),
                          (["identify", *network, "--threshold", 0, tmp_path / "g", none], 1),
                          (["cluster", *aligned, folder, "--cache", "none"], 0),
                          (["calibrate", *aligned, folder, "--far", 0.5, "--cache", "none"], 0)):
        said, quiet = facenet(*call_), facenet("-q", *call_)
        assert said.returncode == quiet.returncode == status, (call_, said.stderr)
        errors = [line for line in said.stderr.splitlines() if "already, so it cannot be" in line]
        assert said.stderr and quiet.stderr.splitlines() == errors, call_
    failed = facenet("embed", "-q", *network, one, bad)
    assert failed.returncode == 2 and failed.stderr.count("\n") == 1 and str(bad) in failed.stderr
    assert_sentence(facenet("gallery", "-q", "list", tmp_path / "none"), "none")


def on_a_terminal(arguments: list, columns: int = 80, **environment: str) -> tuple[str, str]:
    """What it writes to a terminal of this width, on stdout and on stderr."""
    texts, pipes = [], []
    for _ in range(2):
        parent, child = pty.openpty()
        fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        pipes.append((parent, child))
    process = subprocess.Popen([COMMAND, *map(str, arguments)], stdout=pipes[0][1], stderr=pipes[1][1], env=dict(os.environ) | environment)
    for parent, child in pipes:
        os.close(child)
        text = b""
        try:
            while chunk := os.read(parent, 4096):
                text += chunk
        except OSError:  # the other end is closed
            pass
        os.close(parent)
        texts.append(text.decode().replace("\r\n", "\n"))
    process.wait()
    return texts[0], texts[1]


def test_no_bar_when_quiet(people, aligned):
    pictures = sorted(people.rglob("*.png"))
    assert "8/8" in on_a_terminal(["embed", *aligned, *pictures])[1]
    assert on_a_terminal(["embed", "--quiet", *aligned, *pictures])[1] == ""


def test_help_is_as_wide_as_the_terminal():
    names = re.findall(r"^\.SS (\w+)", facenet("--generate", "man").stdout, re.MULTILINE)
    assert {"detect", "bench"} < set(names)
    commands = [[], *([name] for name in names), ["gallery", "remove"]]
    for command in commands:
        texts = {width: facenet(*command, "--help", env={"COLUMNS": str(width)}).stdout for width in (40, 60, 80, 132)}
        for width, text in texts.items():
            assert max(map(len, text.splitlines())) <= width, (command, width)
        assert texts[80] == facenet(*command, "--help").stdout, "80 where nothing says otherwise"
        # The same words at each width, and the examples are still commands: a backslash goes on.
        plain = {re.sub(r"[\s\\()]+", " ", text) for text in texts.values()}
        assert len(plain) == 1, command
        joined = [re.sub(r" \\\n\s+", " ", text) for text in texts.values()]
        for line in texts[132].splitlines():
            if line.startswith("  facenet "):
                assert all(re.split(" {3,}", line.strip())[0] in text for text in joined), line
    assert on_a_terminal(["embed", "--help"], 66)[0] == facenet("embed", "--help", env={"COLUMNS": "66"}).stdout
    assert on_a_terminal(["embed", "--help"], 66, COLUMNS="90")[0] == facenet("embed", "--help", env={"COLUMNS": "90"}).stdout
    for nonsense in ("", "x", "-5", "0"):
        assert facenet("--help", env={"COLUMNS": nonsense}).stdout == facenet("--help").stdout
    assert max(map(len, facenet("--help", env={"COLUMNS": "1"}).stdout.splitlines())) <= 40


def test_a_galleries_actions_are_named():
    every = "list, show, rename, merge, remove, export, import, check, repair, backup, migrate, stats and vacuum"
    for words in (["gallery", "lst"], ["gallery", "--json", "lst"], ["-q", "gallery", "lst", "--help"], ["help", "gallery", "lst"]):
        assert_sentence(facenet(*words), "'lst'", "did you mean list?", every, "facenet gallery --help")
    for words in (["gallery", "frobnicate"], ["gallery"], ["gallery", "--json"]):
        assert_sentence(facenet(*words), every.replace(" and ", " or "), "facenet gallery --help")


def test_a_line_of_no_command_is_refused():
    """The schema as a whole too."""
    whole = jsonschema.Draft202012Validator(SCHEMA)
    face = {"box": [0, 0, 1, 1], "score": 0.5, "landmarks": [[0, 0]] * 5, "quality": 0.5,
            "quality_parts": {"size": 1, "sharpness": 1, "pose": 1, "score": 0.5}}
    good = {"image": "a", "faces": [face]}
    assert not whole.is_valid({"image": "a", "faces": [{k: v for k, v in face.items() if k != "quality"}]})
    assert whole.is_valid(good) and whole.is_valid({"image": "a", "error": "a: no."})
    for change in ({"image": 1}, {"faces": [{"box": [0, 0, 1]}]}, {"error": 5}, {"quality": 1}):
        assert not whole.is_valid(copy.deepcopy(good) | change), change
