#!/usr/bin/env python3
"""Load and faults of `facenet serve` on loopback, with figures. Minutes on a quiet machine; no part of the suite.

  tests/serve/load.py --weights W --detector D --pictures FOLDER                  # both parts, 5 minutes of load
  tests/serve/load.py --weights W --detector D --pictures FOLDER --seconds 20 --kills 2

Part 1: closed-loop clients send pictures of a megapixel to /v1/embed, beside `facenet embed` over the same pictures.
Part 2: four writers enroll while readers identify; the server is killed; every enrolment that was acknowledged is there.
Clients are threads of as few processes as do not get in the server's way: one.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import io
import json
import os
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Server:
    """facenet serve on a free port."""

    def __init__(self, arguments: argparse.Namespace, gallery: pathlib.Path):
        self.errors = gallery.with_suffix(".messages")
        words = [arguments.command, "serve", "--gallery", gallery, "--weights", arguments.weights, "--detector", arguments.detector,
                 "--listen", "127.0.0.1:0", "--access-log", "none", "--rate", "0", "--threads", arguments.threads]
        with open(self.errors, "wb") as errors:
            self.process = subprocess.Popen(list(map(str, words)), stdin=subprocess.DEVNULL, stderr=errors)
        while not (port := re.search(r"serving on http://\S+:(\d+)\.", self.errors.read_text())):
            if self.process.poll() is not None:
                sys.exit(f"load.py: the server ended: {self.errors.read_text()}")
            time.sleep(0.02)
        self.port = int(port[1])

    def memory(self) -> int:
        """Resident, in bytes."""
        return int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{self.process.pid}/status").read_text())[1]) * 1024

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


class Client:
    """A connection that is kept, as clients in a loop have one."""

    def __init__(self, port: int):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def post(self, path: str, picture: bytes) -> tuple[int, dict]:
        body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="p"\r\n\r\n' + picture + b"\r\n--b--\r\n"
        self.connection.request("POST", path, body, {"Content-Type": "multipart/form-data; boundary=b"})
        return self.answer()

    def get(self, path: str) -> tuple[int, dict]:
        self.connection.request("GET", path)
        return self.answer()

    def answer(self) -> tuple[int, dict]:
        answer = self.connection.getresponse()
        return answer.status, json.loads(answer.read() or b"{}")


def megapixel_pictures(folder: pathlib.Path, into: pathlib.Path, count: int) -> list[pathlib.Path]:
    """The folder's photographs at 1,000,000 pixels, as JPEG; again, mirrored and a little smaller, until there are enough."""
    sources = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not sources:
        sys.exit(f"load.py: {folder} holds no pictures.")
    made = []
    for number in range(count):
        with Image.open(sources[number % len(sources)]) as opened:
            picture = opened.convert("RGB")
        scale = (1e6 / (picture.width * picture.height)) ** 0.5
        picture = picture.resize((round(picture.width * scale), round(picture.height * scale)))
        if number // len(sources) % 2:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        made.append(into / f"{number:04d}.jpg")
        picture.save(made[-1], quality=90 - number // len(sources))
    return made


def command_throughput(arguments: argparse.Namespace, pictures: list[pathlib.Path], seconds: float) -> float:
    """Pictures a second of `facenet embed`, without what it takes to load the weights."""
    words = [arguments.command, "embed", "--weights", arguments.weights, "--detector", arguments.detector, "--threads", arguments.threads, "--quiet"]

    def run(names: list[pathlib.Path]) -> float:
        began = time.monotonic()
        subprocess.run(list(map(str, [*words, *names])), stdout=subprocess.DEVNULL, check=False)
        return time.monotonic() - began

    loading = run(pictures[:1])
    once = max(run(pictures) - loading, 1e-3)
    many = pictures * max(1, round(seconds / once))
    return len(many) / (run(many) - loading)


def load(arguments: argparse.Namespace, pictures: list[pathlib.Path], folder: pathlib.Path) -> bool:
    bodies = [path.read_bytes() for path in pictures]
    before = command_throughput(arguments, pictures, min(60, arguments.seconds / 4))
    server = Server(arguments, folder / "load.gallery")
    latencies: list[float] = []
    errors: list[str] = []
    memory: list[int] = []
    end = time.monotonic() + arguments.seconds

    def loop(number: int) -> None:
        client, at = Client(server.port), number
        while time.monotonic() < end:
            began = time.monotonic()
            try:
                status, answer = client.post("/v1/embed", bodies[at % len(bodies)])
                if status != 200:
                    errors.append(f"{status} {answer}")
            except OSError as e:
                errors.append(repr(e))
                client = Client(server.port)
            latencies.append(time.monotonic() - began)
            at += arguments.clients

    threads = [threading.Thread(target=loop, args=(i,)) for i in range(arguments.clients)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        time.sleep(0.5)
        memory.append(server.memory())
    took = time.monotonic() - began
    ended = server.end()
    after = command_throughput(arguments, pictures, min(60, arguments.seconds / 4))
    command = (before + after) / 2
    throughput, latencies = len(latencies) / took, sorted(latencies)
    p99 = latencies[int(len(latencies) * 0.99)]
    limit = 1.5 * arguments.clients / throughput
    warm = memory[len(memory) // 5:] or memory
    growth = statistics.mean(warm[-len(warm) // 4:]) / statistics.mean(warm[:max(1, len(warm) // 4)]) - 1
    print(f"load: {arguments.clients} clients, {took:.0f} s, {len(latencies)} pictures, {len(errors)} errors {errors[:3]}")
    print(f"  throughput {throughput:.2f}/s, facenet embed {before:.2f} and {after:.2f}/s: {throughput / command:.2f} of it (limit 0.80)")
    print(f"  p50 {latencies[len(latencies) // 2] * 1e3:.0f} ms, p99 {p99 * 1e3:.0f} ms (limit {limit * 1e3:.0f}), longest {latencies[-1] * 1e3:.0f} ms")
    print(f"  memory {min(memory) / 2**20:.0f} to {max(memory) / 2**20:.0f} MiB, last quarter against first {growth:+.1%} (limit +5%)")
    return not errors and ended == 0 and throughput >= 0.8 * command and p99 <= limit and growth < 0.05


def kills(arguments: argparse.Namespace, pictures: list[pathlib.Path], folder: pathlib.Path) -> bool:
    """Persons are enrolled until the server is killed in the middle; then it is started again, and asked for them."""
    bodies = one_face_pictures(arguments, pictures, folder)
    gallery, acknowledged, lost, wrong = folder / "kill.gallery", set(), [], []
    for turn in range(arguments.kills):
        server, stop = Server(arguments, gallery), threading.Event()

        def write(number: int, turn: int = turn, server: Server = server, stop: threading.Event = stop) -> None:
            client, count = Client(server.port), 0
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError):  # it is killed
                while not stop.is_set():
                    name = f"turn {turn} writer {number} person {count}"
                    status, answer = client.post(f"/api/v1/recognition/faces?subject={urllib.parse.quote(name)}", bodies[count % len(bodies)])
                    if status == 201:
                        acknowledged.add(name)
                    else:
                        wrong.append(f"enrolment: {status} {answer}")
                    count += 1

        def read(number: int, server: Server = server, stop: threading.Event = stop) -> None:
            client, count = Client(server.port), number
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
                while not stop.is_set():
                    status, answer = client.post("/api/v1/recognition/recognize", bodies[count % len(bodies)])
                    if status != 200 or not answer["result"]:
                        wrong.append(f"recognition: {status} {answer}")
                    count += 1

        threads = [threading.Thread(target=write, args=(i,)) for i in range(4)] + [threading.Thread(target=read, args=(i,)) for i in range(32)]
        for thread in threads:
            thread.start()
        time.sleep(arguments.kill_seconds * (0.5 + turn % 3 / 2))
        server.end(signal.SIGKILL)
        stop.set()
        for thread in threads:
            thread.join()
        server = Server(arguments, gallery)
        status, answer = Client(server.port).get("/api/v1/recognition/subjects/")
        there = set(answer["subjects"])
        lost += sorted(acknowledged - there)
        if server.end() != 0:
            wrong.append("the server did not end well")
    check = subprocess.run([arguments.command, "gallery", "check", gallery], capture_output=True, text=True)
    print(f"kills: {arguments.kills} times, {len(acknowledged)} enrolments were acknowledged, {len(lost)} of them lost {lost[:3]}")
    print(f"  {len(wrong)} wrong answers {wrong[:3]}; gallery check: {check.stdout.strip() or check.stderr.strip()}")
    return bool(acknowledged) and not lost and not wrong and check.returncode == 0


def one_face_pictures(arguments: argparse.Namespace, pictures: list[pathlib.Path], folder: pathlib.Path) -> list[bytes]:
    """Crops with exactly one face: of what `facenet align` cuts out, on a larger canvas."""
    words = [arguments.command, "detect", "--json", "--detector", arguments.detector, *pictures]
    found = [json.loads(line) for line in subprocess.run(list(map(str, words)), capture_output=True, text=True).stdout.splitlines()]
    made = []
    for picture in found:
        if len(picture.get("faces", [])) != 1:
            continue
        x0, y0, x1, y1 = picture["faces"][0]["box"]
        side = max(x1 - x0, y1 - y0)
        with Image.open(picture["image"]) as opened:
            crop = opened.convert("RGB").crop((round(x0 - side / 2), round(y0 - side / 2), round(x1 + side / 2), round(y1 + side / 2)))
        data = io.BytesIO()
        crop.resize((240, 240)).save(data, "JPEG", quality=92)
        made.append(data.getvalue())
        (folder / f"crop{len(made)}.jpg").write_bytes(data.getvalue())
    names = sorted(folder.glob("crop*.jpg"))
    words = [arguments.command, "detect", "--json", "--detector", arguments.detector, *names]
    lines = [json.loads(line) for line in subprocess.run(list(map(str, words)), capture_output=True, text=True).stdout.splitlines()]
    good = [pathlib.Path(line["image"]).read_bytes() for line in lines if len(line.get("faces", [])) == 1]
    if not good:
        sys.exit("load.py: none of the pictures has exactly one face; give others.")
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--command", type=pathlib.Path, default=ROOT / "build/release/facenet")
    parser.add_argument("--weights", type=pathlib.Path, required=True)
    parser.add_argument("--detector", type=pathlib.Path, required=True)
    parser.add_argument("--pictures", type=pathlib.Path, required=True, help="a folder of photographs with faces")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--kills", type=int, default=6, help="0: leave part 2 out")
    parser.add_argument("--kill-seconds", type=float, default=5, help="half of it to one and a half pass before a kill")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="facenet-load-") as name:
        folder = pathlib.Path(name)
        pictures = megapixel_pictures(arguments.pictures, folder, 24)
        good = arguments.seconds <= 0 or load(arguments, pictures, folder)
        good = (arguments.kills == 0 or kills(arguments, pictures, folder)) and good
    print("load.py: " + ("all within the limits" if good else "NOT within the limits"))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
