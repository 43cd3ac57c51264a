#!/usr/bin/env python3
"""Load on `facenet serve` on loopback, with figures: minutes on a quiet machine; no part of the suite. Faults: faults.py.

  tests/serve/load.py --weights W --detector D --pictures FOLDER                  # 5 minutes of load
  tests/serve/load.py --weights W --detector D --pictures FOLDER --seconds 20
  tests/serve/load.py --weights W --detector D --templates 1000000                # how long a gallery takes to load, and a search

Closed-loop clients send pictures of a megapixel to /v1/embed, beside `facenet embed` over the same pictures. Clients are
threads of as few processes as do not get in the server's way: one.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import pathlib
import re
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence

from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Server:
    """facenet serve on a free port. `before`: words in front of the command; `messages`: where its standard error goes."""

    def __init__(self, arguments: argparse.Namespace, gallery: pathlib.Path, *more: object, before: Sequence[str] = (),
                 messages: pathlib.Path | None = None, environment: dict[str, str] | None = None):
        self.errors = messages or gallery.with_suffix(".messages")
        words = [*before, arguments.command, "serve", "--gallery", gallery, "--weights", arguments.weights, "--detector", arguments.detector,
                 "--listen", "127.0.0.1:0", "--threads", arguments.threads]
        for name, value in (("--access-log", "none"), ("--rate", "0")):
            words += [] if name in more else [name, value]
        with open(self.errors, "wb") as errors:
            self.process = subprocess.Popen(list(map(str, [*words, *more])), stdin=subprocess.DEVNULL, stderr=errors,
                                            env=os.environ | (environment or {}))
        while not (port := re.search(r"serving on http://\S+:(\d+)\.", self.errors.read_text())):
            if self.process.poll() is not None:
                sys.exit(f"{pathlib.Path(sys.argv[0]).name}: the server ended: {self.errors.read_text()}")
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

    @staticmethod
    def form(picture: bytes) -> tuple[bytes, str]:
        """A body and its type."""
        head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="p"\r\n\r\n'
        return head + picture + b"\r\n--b--\r\n", "multipart/form-data; boundary=b"

    def post(self, path: str, picture: bytes) -> tuple[int, dict]:
        body, kind = self.form(picture)
        return self.call("POST", path, body, {"Content-Type": kind})

    def get(self, path: str) -> tuple[int, dict]:
        return self.call("GET", path)

    def call(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> tuple[int, dict]:
        self.connection.request(method, path, body, headers or {})
        answer = self.connection.getresponse()
        content = answer.read()
        return answer.status, json.loads(content) if "json" in answer.headers.get("content-type", "") else {}


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


def fill(gallery: pathlib.Path, count: int) -> None:
    """Random unit vectors, three of each person."""
    import numpy as np

    database = sqlite3.connect(gallery)
    database.execute("PRAGMA synchronous = OFF")
    dim = database.execute("SELECT embedding_dim FROM meta").fetchone()[0]
    persons = -(-count // 3)
    database.executemany("INSERT INTO person (id, name) VALUES (?, ?)", ((10 + i, f"person {i}") for i in range(persons)))
    random = np.random.default_rng(1)
    for first in range(0, count, 10000):
        e = random.standard_normal((min(10000, count - first), dim), dtype=np.float32)
        e /= np.linalg.norm(e, axis=1, keepdims=True)
        rows = ((10 + (first + i) // 3, f"pictures/{first + i:07}.jpg", f"{first + i:064x}", e[i].tobytes()) for i in range(len(e)))
        database.executemany("INSERT INTO template (person, image, sha256, face, x1, y1, x2, y2, score, enrolled, embedding) "
                             "VALUES (?, ?, ?, 0, 0, 0, 9, 9, 1, '2026-11-28T07:18:32Z', ?)", rows)
    database.commit()
    database.close()


def large_gallery(arguments: argparse.Namespace, folder: pathlib.Path) -> None:
    """Loading and searching, as the difference to an empty gallery."""
    gallery, took = folder / "large.gallery", {}
    for what in ("empty", "full"):
        if what == "full":
            fill(gallery, arguments.templates)
        starts = []
        for _ in range(3):
            began = time.monotonic()
            server = Server(arguments, gallery, "--half-gallery")
            starts.append(time.monotonic() - began)
            client = Client(server.port)
            if what == "empty":
                client.call("POST", "/api/v1/recognition/subjects", b'{"subject": "Ada"}', {"Content-Type": "application/json"})
            with sqlite3.connect(gallery) as database:
                dim = database.execute("SELECT embedding_dim FROM meta").fetchone()[0]
            body = json.dumps({"embeddings": [[(-1) ** i * dim**-0.5 for i in range(dim)]]}).encode()
            searches = []
            for _ in range(20):
                began = time.monotonic()
                status, answer = client.call("POST", "/api/v1/recognition/embeddings/recognize", body, {"Content-Type": "application/json"})
                searches.append(time.monotonic() - began)
                assert status == 200, answer
            memory = server.memory()
            server.end()
        took[what] = min(starts), statistics.median(searches), memory
    start, search, memory = (full - empty for full, empty in zip(took["full"], took["empty"]))
    print(f"{arguments.templates} templates of {dim} numbers: loaded in {start:.2f} s, searched in {search * 1e3:.1f} ms by {arguments.threads} threads, "
          f"{memory / 2**20:.0f} MiB")


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
    parser.add_argument("--pictures", type=pathlib.Path, help="a folder of photographs with faces")
    parser.add_argument("--templates", type=int, default=0, help="measure a gallery of so many instead")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="facenet-load-") as name:
        folder = pathlib.Path(name)
        if arguments.templates:
            large_gallery(arguments, folder)
            return 0
        if not arguments.pictures:
            parser.error("give --pictures, or --templates")
        pictures = megapixel_pictures(arguments.pictures, folder, 24)
        good = load(arguments, pictures, folder)
    print("load.py: " + ("all within the limits" if good else "NOT within the limits"))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
