"""`facenet watch`: a portrait that comes into a made video and goes again, through every kind of source and to every receiver.

dlib's network (trained, quick) and pictures of 320x240. tests/watch/measure.py measures precision and recall.
"""

from __future__ import annotations

import http.server
import io
import json
import pathlib
import shutil
import signal
import socket
import subprocess
import threading
import time

import numpy as np
import pytest
from conftest import ROOT, run_tool
from PIL import Image
from test_command import COMMAND, assert_sentence, facenet, lines
from test_command_faces import ASTRONAUT, detector, scenes  # noqa: F401 (fixtures)
from test_command_json import SCHEMA, validator
from test_detector import weight_file  # noqa: F401 (fixture)

FACE_API = ROOT / ".deps/face-api"
pytestmark = [
    pytest.mark.skipif(not COMMAND.exists(), reason=f"{COMMAND} is not built"),
    pytest.mark.skipif(not ASTRONAUT.exists(), reason=f"{ASTRONAUT} is not there: run tools/bootstrap.sh"),
    pytest.mark.skipif(not FACE_API.exists(), reason=f"{FACE_API} is not there: run tools/bootstrap.sh"),
]
SIZE = (320, 240)
STRANGER = ROOT / ".deps/samples/sample1.jpg"
HAS_URLS = b"libcurl" in subprocess.run(["ldd", COMMAND], capture_output=True).stdout if COMMAND.exists() else False
needs_urls = pytest.mark.skipif(not HAS_URLS, reason="this command was built without libcurl")


def jpeg(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "jpeg", quality=92)
    return file.getvalue()


@pytest.fixture(scope="module")
def network(tmp_path_factory, detector) -> list[object]:  # noqa: F811
    path = tmp_path_factory.mktemp("dlib") / "dlib.safetensors"
    result = run_tool("convert_weights.py", "--face-api", FACE_API, "-o", path)
    assert result.returncode == 0, result.stderr
    return ["--weights", path, "--threads", 1, *detector]


@pytest.fixture(scope="module")
def frames(scenes) -> list[Image.Image]:  # noqa: F811
    """Nobody, then a face that walks to the right for 12 frames, then nobody for long."""
    face = Image.open(scenes / "one.png").convert("RGB").resize((150, 165), Image.Resampling.BICUBIC)
    made = []
    for i in range(40):
        picture = Image.new("RGB", SIZE, (90, 110, 130))
        if 4 <= i < 16:
            picture.paste(face, (10 + 12 * (i - 4), 40))
        made.append(picture)
    return made


@pytest.fixture(scope="module")
def video(frames) -> bytes:
    return b"".join(map(jpeg, frames))


@pytest.fixture(scope="module")
def gallery(network, scenes, tmp_path_factory) -> pathlib.Path:  # noqa: F811
    path = tmp_path_factory.mktemp("gallery") / "staff.gallery"
    result = facenet("enroll", *network, path, "Eileen Collins", scenes / "one.png")
    assert result.returncode == 0, result.stderr
    return path


def events(result: subprocess.CompletedProcess[str]) -> list[dict]:
    assert result.returncode == 0, result.stderr
    found = lines(result)
    for line in found:
        validator("watch").validate(line)
    return found


def kinds(found: list[dict]) -> list[str]:
    return [event["event"] for event in found]


VISIT = ["arrival", "decision", "leaving", "end"]
CLOCK = ["--input-fps", 10, "--leave", 1]


def test_one_decision_a_visit(network, gallery, video):
    found = events(facenet("watch", "--json", *network, *CLOCK, "--gallery", gallery, "-", input=video))
    assert kinds(found) == VISIT
    arrival, decision, leaving, end = found
    assert arrival["visit"] == decision["visit"] == leaving["visit"]
    assert (arrival["frame"], arrival["at_ms"], arrival["arrived_ms"]) == (5, 500, 400) and "name" not in arrival
    assert decision["known"] and decision["name"] == leaving["name"] == "Eileen Collins"
    assert 3 <= decision["votes"] == decision["of"] and decision["frame"] < 12 and decision["distance"] < decision["threshold"]
    assert leaving["frame"] == 15 and leaving["frames"] == 12 and 4 <= leaving["best_frame"] <= 15 and 0.05 < leaving["quality"] <= 1
    x1, y1, x2, y2 = leaving["box"]
    assert 142 < x1 < x2 < 320 and 40 < y1 < y2 < 205
    assert (end["frames"], end["visits"], end["dropped"], end["damaged"], end["faces"]) == (40, 1, 0, 0, 12)
    assert end["embedded"] == 3 and end["ms"]["detect"] > 0
    schema = validator("watch")
    for line in found[:3]:
        for key in set(line) - {"threshold_source", "distance"}:
            assert not schema.is_valid({k: v for k, v in line.items() if k != key}), key
    assert SCHEMA["$defs"]["watch"]


def test_text(network, gallery, video):
    result = facenet("watch", *network, *CLOCK, "--gallery", gallery, "-", input=video)
    rows = [row.split("\t") for row in result.stdout.splitlines()]
    assert [row[3] for row in rows] == VISIT[:3] and [row[4] for row in rows] == ["", "Eileen Collins", "Eileen Collins"]
    assert "40 frames, 1 visits" in result.stderr


def test_a_stranger_and_no_gallery(network, gallery, video, tmp_path):
    strict = events(facenet("watch", "--json", *network, *CLOCK, "--gallery", gallery, "--threshold", 0.01, "-", input=video))
    assert kinds(strict) == VISIT and not strict[1]["known"] and strict[2]["name"] == "unknown" and strict[1]["votes"] == 0
    votes = events(facenet("watch", "--json", *network, *CLOCK, "--gallery", gallery, "--votes", 50, "--each-face", "-", input=video))
    assert not next(e for e in votes if e["event"] == "decision")["known"]  # so many frames agree nowhere
    faces = [e for e in votes if e["event"] == "face"]
    assert faces and all(e["matches"][0]["name"] == "Eileen Collins" for e in faces)
    alone = events(facenet("watch", "--json", *network, *CLOCK, "-", input=video))
    assert kinds(alone) == ["arrival", "leaving", "end"] and alone[1]["name"] == "unknown" and alone[2]["embedded"] == 0
    nobody = facenet("watch", *network, "-", input=jpeg(Image.new("RGB", SIZE)))
    assert nobody.returncode == 1 and nobody.stdout == ""


def test_files_and_raw_pixels(network, gallery, video, frames, tmp_path):
    (tmp_path / "v.mjpeg").write_bytes(video)
    call = ["watch", "--json", *network, *CLOCK, "--gallery", gallery]
    wanted = [e | {"visit": "", "source": "", "time": "", "ms": 0} for e in events(facenet(*call, tmp_path / "v.mjpeg"))]
    assert kinds(wanted) == VISIT
    decoded = [Image.open(io.BytesIO(jpeg(f))).convert("RGB") for f in frames]
    raw = b"".join(f.tobytes() for f in decoded)
    found = events(facenet(*call, "--rawvideo", "320x240:rgb24", "-", input=raw))
    # stb_image decodes other pixels than Pillow, by 1 or 2 of 255.
    assert [(e["event"], e["frame"], e.get("name")) for e in found[:3]] == [(e["event"], e["frame"], e.get("name")) for e in wanted[:3]]
    bgr = b"".join(np.asarray(f)[:, :, ::-1].tobytes() for f in decoded)
    again = events(facenet(*call, "--rawvideo", "320x240:bgr24", "-", input=bgr))
    assert [e["box"] for e in again[:3]] == [e["box"] for e in found[:3]]
    cut = facenet(*call, "--rawvideo", "320x240:rgb24", "-", input=raw[:-100])
    assert lines(cut)[-1]["damaged"] == 1 and "within a frame" in cut.stderr


def test_damage_in_the_stream(network, gallery, frames):
    parts = list(map(jpeg, frames))
    parts[8] = parts[8][: len(parts[8]) // 2]
    parts[10] = b"no picture"
    result = facenet("watch", "--json", *network, *CLOCK, "--gallery", gallery, "-", input=b"".join(parts))
    found = events(result)
    assert kinds(found) == VISIT and found[1]["known"] and found[-1]["frames"] == 38 and found[-1]["damaged"] == 1
    none = facenet("watch", *network, "-", input=b"text" * 100)
    assert_sentence(none, "standard input", "no JPEG file")


def test_what_cannot_be_watched(network, tmp_path):
    assert_sentence(facenet("watch", *network, tmp_path / "none"), "none", "there is no such")
    assert_sentence(facenet("watch", *network, "rtsp://user:secret@camera/1"), "rtsp://camera/1", "ffmpeg")
    assert_sentence(facenet("watch", *network, "-", "-"), "only once")
    for options in (["--rawvideo", "320x240"], ["--rawvideo", "321x240:nv12"], ["--webhook", "ftp://x"], ["--exec-arg", "x"],
                    ["--threshold", "1"], ["--each-face"], ["--votes", "0"], ["--leave", "0"]):  # fmt: skip
        assert_sentence(facenet("watch", *options, "-"), "facenet watch --help")
    assert_sentence(facenet("watch", *network, "--gallery", tmp_path / "g", "-"), "g")


class Running:
    """The command while it runs, and the events that it has printed."""

    def __init__(self, *arguments: object, **options: object) -> None:
        self.process = subprocess.Popen([str(word) for word in (COMMAND, "watch", "--json", *arguments)], stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True, **options)  # fmt: skip
        self.events: list[dict] = []
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.events.append(json.loads(line))

    def wait_for(self, kind: str, count: int = 1, seconds: float = 60) -> dict:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            found = [e for e in self.events if e["event"] == kind]
            if len(found) >= count:
                return found[count - 1]
            assert self.process.poll() is None, self.process.stderr.read()
            time.sleep(0.02)
        raise AssertionError(f"no {kind}: {self.events}")

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        self.process.send_signal(number)
        told = self.process.stderr.read()
        status = self.process.wait(timeout=60)
        self.thread.join(timeout=10)
        return status, told


def test_a_folder_that_fills(network, gallery, frames, tmp_path):
    folder = tmp_path / "uploads"
    folder.mkdir()
    (folder / "old.jpg").write_bytes(jpeg(frames[6]))  # was there before
    watch = Running(*network, "--leave", 600, "--gallery", gallery, folder)
    time.sleep(1.5)  # until it watches; a file that comes earlier is not seen, and the next ones are
    for i, frame in enumerate(frames[4:15]):
        if i % 2:  # by its name, or by its end
            (tmp_path / "part").write_bytes(jpeg(frame))
            (tmp_path / "part").rename(folder / f"{i:02}.jpg")
        else:
            (folder / f"{i:02}.PNG").write_bytes(jpeg(frame))
        (folder / f"{i:02}.txt").write_text("no picture")
        time.sleep(0.03)
    decision = watch.wait_for("decision")
    assert decision["name"] == "Eileen Collins" and decision["image"].endswith((".jpg", ".PNG"))
    status, _ = watch.end()
    assert status == 0 and kinds(watch.events) == VISIT
    assert watch.events[-1]["frames"] <= 11


def test_existing_pictures_of_a_folder(network, gallery, frames, tmp_path):
    for i in range(4, 9):
        (tmp_path / f"{i}.jpg").write_bytes(jpeg(frames[i]))
    watch = Running(*network, "--gallery", gallery, "--existing", tmp_path)
    assert watch.wait_for("arrival")["image"] == "5.jpg"
    assert watch.end(signal.SIGINT)[0] == 0 and 2 <= watch.events[-1]["frames"] <= 5  # in time or not


def test_the_gallery_is_read_again(network, frames, scenes, tmp_path):  # noqa: F811
    db, other = tmp_path / "g", tmp_path / "other.png"
    Image.open(STRANGER).crop((750, 340, 1120, 740)).save(other)
    assert facenet("enroll", *network, db, "A", other).returncode == 0
    watch = Running(*network, "--leave", 600, "--gallery", db, "--most-votes", 1000, "-", stdin=subprocess.PIPE)
    stream = watch.process.stdin.buffer
    picture = jpeg(frames[8])

    def feed(seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and "decision" not in kinds(watch.events):
            stream.write(picture)
            stream.flush()
            time.sleep(0.05)

    feed(1)
    assert facenet("enroll", *network, db, "B", scenes / "one.png").returncode == 0
    feed(30)
    assert watch.wait_for("decision")["name"] == "B"
    stream.close()
    assert "was read again" in watch.process.stderr.read() and watch.process.wait(timeout=60) == 0


# ---- HTTP -------------------------------------------------------------------------------------------------------------


class Camera(http.server.BaseHTTPRequestHandler):
    """/mjpeg: the video in two connections, for who has the password, and then silence; /jpg: a snapshot; POST /hook: 500 at first."""

    def do_GET(self) -> None:
        server = self.server
        if self.path.startswith("/mjpeg") and not self.headers.get("Authorization"):
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="camera"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        server.asked.append((self.path, self.headers.get("Authorization")))
        if self.path.startswith("/jpg"):
            server.ports.add(self.client_address[1])
            body = server.pictures[min(len(server.asked) - 1, len(server.pictures) - 1)]
            self.send_response(200)
            self.send_header("Content-Type", "image/jpeg")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        if len(server.asked) > 2:
            self.send_error(503)
            return
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        half = len(server.pictures) // 2
        for body in server.pictures[:half] if len(server.asked) == 1 else server.pictures[half:]:
            self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(body) + body + b"\r\n")
            time.sleep(0.1)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posted.append((self.headers["Content-Type"], json.loads(body)))
        self.send_response(500 if len(self.server.posted) == 1 else 204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class KeepsConnections(Camera):
    protocol_version = "HTTP/1.1"


@pytest.fixture
def camera(frames):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    server.asked, server.posted, server.ports, server.pictures = [], [], set(), [jpeg(f) for f in frames[4:16]]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()


@needs_urls
def test_a_camera_that_reconnects_and_a_webhook(network, gallery, camera):
    port = camera.server_address[1]
    watch = Running(*network, "--leave", 600, "--fps", 30, "--gallery", gallery, "--webhook", f"http://127.0.0.1:{port}/hook",
                    f"http://user:secret@127.0.0.1:{port}/mjpeg?token=secret")  # fmt: skip
    assert watch.wait_for("decision")["name"] == "Eileen Collins"
    until = time.monotonic() + 30
    while (len(camera.asked) < 3 or len(camera.posted) < 3) and time.monotonic() < until:
        time.sleep(0.05)
    status, told = watch.end()
    assert status == 0 and "trying again in 1 s" in told and "HTTP status 503; trying again in 2 s" in told
    assert "secret" not in told + json.dumps(watch.events) and watch.events[0]["source"] == f"http://127.0.0.1:{port}/mjpeg"
    assert camera.asked[0] == ("/mjpeg?token=secret", "Basic dXNlcjpzZWNyZXQ=")
    assert watch.events[-1]["frames"] + watch.events[-1]["dropped"] + watch.events[-1]["left_out"] == 12
    # The first POST failed and was tried again; all are there at the end, in order.
    posted = [body for kind, body in camera.posted if kind == "application/json"]
    assert kinds(posted) == ["arrival", "arrival", "decision", "leaving"] and posted[1:] == watch.events[:3]


@needs_urls
def test_snapshots_come_over_one_connection(network, gallery, camera):
    camera.RequestHandlerClass = KeepsConnections
    watch = Running(*network, "--fps", 20, "--leave", 600, "--gallery", gallery, f"http://127.0.0.1:{camera.server_address[1]}/jpg")
    assert watch.wait_for("decision")["known"]
    assert watch.end()[0] == 0 and len(camera.asked) >= 3 and len(camera.ports) == 1


# ---- programs ---------------------------------------------------------------------------------------------------------


def test_a_program_for_each_event(network, gallery, video, tmp_path):
    program = tmp_path / "on event"
    program.write_text('#!/bin/sh\n{ echo "$1|$2|$FACENET_EVENT|$FACENET_NAME|$FACENET_KNOWN"; cat; } >"$1/$FACENET_EVENT"\necho to stderr\n')
    program.chmod(0o700)
    result = facenet("watch", "--json", *network, *CLOCK, "--gallery", gallery, "--exec", program, "--exec-arg", tmp_path, "--exec-arg", "$HOME;*",
                     "-", input=video)  # fmt: skip
    found = events(result)
    assert kinds(found) == VISIT and result.stderr.count("to stderr") == 3
    for event in found[:3]:
        first, text = (tmp_path / event["event"]).read_text().splitlines()
        name, known = (event["name"], "1") if event["event"] != "arrival" else ("", "0")
        assert first == f"{tmp_path}|$HOME;*|{event['event']}|{name}|{known}" and json.loads(text) == event
    no_shell = facenet("watch", "--json", *network, *CLOCK, "--exec", "echo hi; touch made", "-", input=video)
    assert kinds(events(no_shell))[-1] == "end" and "cannot be started" in no_shell.stderr and not pathlib.Path("made").exists()


@pytest.mark.skipif(not all(map(shutil.which, ("mosquitto", "mosquitto_pub", "mosquitto_sub"))), reason="mosquitto is not installed")
def test_mqtt(network, gallery, video, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    broker = subprocess.Popen(["mosquitto", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    listener = None
    try:
        until = time.monotonic() + 20
        while subprocess.run(["mosquitto_pub", "-p", str(port), "-t", "x", "-n"], stderr=subprocess.DEVNULL).returncode:
            assert time.monotonic() < until
            time.sleep(0.1)
        listener = subprocess.Popen(["mosquitto_sub", "-p", str(port), "-t", "door/faces", "-C", "4", "-W", "60"], stdout=subprocess.PIPE)
        time.sleep(0.5)
        watch = subprocess.Popen([str(w) for w in (COMMAND, "watch", "--json", *network, *CLOCK, "--gallery", gallery, "-")],
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
        publish = subprocess.Popen(["mosquitto_pub", "-p", str(port), "-t", "door/faces", "-l"], stdin=watch.stdout)
        watch.stdout.close()
        watch.stdin.write(video)
        watch.stdin.close()
        assert publish.wait(timeout=60) == 0 and watch.wait(timeout=60) == 0
        assert kinds([json.loads(line) for line in listener.communicate(timeout=60)[0].splitlines()]) == VISIT
    finally:
        for process in (broker, listener):
            if process is not None:
                process.terminate()
                process.wait()


# ---- what goes with it ------------------------------------------------------------------------------------------------


def test_a_second_picture_on_standard_input_is_not_dropped_in_silence(network, gallery, scenes):  # noqa: F811
    one = jpeg(Image.open(scenes / "one.png").convert("RGB"))
    png = (scenes / "one.png").read_bytes()
    mpf = one[:2] + b"\xff\xe2\x00\x08MPF\x00II"[:10] + one[2:]  # a telephone's: its second picture belongs to the first
    for data, said in ((one + one, True), (png + one, True), (one, False), (one + b"\0" * 50, False), (mpf + one, False), (png, False)):
        for call in (["identify", *network, gallery, "-"], ["detect", *network[4:], "-"]):
            result = facenet(*call, input=data)
            assert result.returncode == 0 and ("only the first is looked at" in result.stderr) == said, (call, result.stderr)
            assert len(result.stdout.splitlines()) == 1


@pytest.mark.long
@pytest.mark.slow
def test_memory_stays_flat(network, gallery, frames, tmp_path):
    """100,000 frames of 160x120 with a visit every 40: what a visit leaves behind would show."""
    pictures = [jpeg(f.resize((160, 120))) for f in frames]
    watch = Running(*network, *CLOCK, "--gallery", gallery, "--min-face", 40, "-", stdin=subprocess.PIPE)
    stream, resident = watch.process.stdin.buffer, []
    for turn in range(2500):
        for picture in pictures:
            stream.write(picture)
        if turn % 500 == 499:
            status = pathlib.Path(f"/proc/{watch.process.pid}/status").read_text()
            resident.append(int(status.split("VmRSS:")[1].split()[0]))
    stream.close()
    assert watch.process.wait(timeout=600) == 0
    assert watch.wait_for("end")["frames"] == 100000 and len([e for e in watch.events if e["event"] == "leaving"]) >= 2000
    assert resident[-1] - resident[0] < 2048, resident  # KiB
