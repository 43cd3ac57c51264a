#!/usr/bin/env python3
"""Faults of `facenet serve` on loopback, with figures: the table of docs/service.md. Some 10 minutes; no part of the suite.

  tests/serve/faults.py --weights W --detector D --pictures FOLDER
  tests/serve/faults.py --weights W --detector D --pictures FOLDER --only kills --kills 100

Of the pictures those count that show exactly one face. `disk` mounts a small tmpfs, so it needs root; `clock` needs
libfaketime, and for the second half a kernel with time namespaces. What cannot be tried is said, and fails.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import http.client
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

from load import Client, Server, ROOT, megapixel_pictures, one_face_pictures

GONE = (OSError, http.client.HTTPException, ValueError)
FAKETIME = pathlib.Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")


class Failed(Exception):
    """What a fault did that it must not."""


def require(holds: object, what: object) -> None:
    if not holds:
        raise Failed(str(what))


class Faults:
    def __init__(self, arguments: argparse.Namespace, folder: pathlib.Path, faces: list[bytes]):
        self.arguments, self.folder, self.faces = arguments, folder, faces
        self.random = random.Random(arguments.seed)
        self.servers: list[Server] = []

    def server(self, gallery: pathlib.Path, *words: object, **how) -> Server:
        self.servers.append(Server(self.arguments, gallery, *words, **how))
        return self.servers[-1]

    def run(self, fault: str) -> str:
        try:
            return getattr(self, fault)()
        finally:
            for server in self.servers:
                if server.process.poll() is None:
                    server.end(signal.SIGKILL)
            self.servers.clear()

    def check(self, gallery: pathlib.Path) -> None:
        done = subprocess.run([self.arguments.command, "gallery", "check", gallery], capture_output=True, text=True)
        require(done.returncode == 0, done.stdout + done.stderr)

    def enroll(self, client: Client, name: str, face: int) -> tuple[int, dict]:
        """With the name in a comment of the JPEG: the same file under two names is refused."""
        jpeg, text = self.faces[face % len(self.faces)], name.encode()
        comment = b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text
        return client.post(f"/api/v1/recognition/faces?subject={urllib.parse.quote(name)}", jpeg[:2] + comment + jpeg[2:])

    @staticmethod
    def subjects(client: Client) -> set[str]:
        status, answer = client.get("/api/v1/recognition/subjects/")
        require(status == 200, answer)
        return set(answer["subjects"])

    # ---- each returns what was done and seen ---------------------------------------------------------------------------

    def kills(self) -> str:
        """Four writers and 32 readers, and SIGKILL at a random moment. Then everybody who was acknowledged is there. A reader
        sees the gallery before or after an enrolment: whose face was acknowledged before the question is found, under one of
        the names that were sent with that face."""
        gallery = self.folder / "kills.gallery"
        acknowledged: dict[str, int] = {}  # name: face
        sent: dict[int, set[str]] = {face: set() for face in range(len(self.faces))}
        wrong: list[str] = []
        read = 0
        times: list[float] = []
        for turn in range(self.arguments.kills):
            server, stop = self.server(gallery), threading.Event()

            def write(number: int, turn: int = turn, server: Server = server, stop: threading.Event = stop) -> None:
                client, count = Client(server.port), number
                with contextlib.suppress(*GONE):  # it is killed
                    while not stop.is_set():
                        name, face = f"turn {turn} writer {number} person {count}", count % len(self.faces)
                        sent[face].add(name)
                        status, answer = self.enroll(client, name, face)
                        if status == 201:
                            acknowledged[name] = face
                        else:
                            wrong.append(f"enrolment: {status} {answer}")
                        count += 1

            def look(number: int, server: Server = server, stop: threading.Event = stop) -> None:
                nonlocal read
                client, face = Client(server.port), number % len(self.faces)
                with contextlib.suppress(*GONE):
                    while not stop.is_set():
                        known = face in set(acknowledged.copy().values())
                        status, answer = client.post("/api/v1/recognition/recognize", self.faces[face])
                        best = answer["result"][0]["subjects"] if status == 200 else None
                        if best is None or (known and not (best and best[0]["similarity"] > 0.99 and best[0]["subject"] in sent[face])):
                            wrong.append(f"recognition of face {face}, known {known}: {status} {answer}")
                        read += 1

            threads = [threading.Thread(target=write, args=(i,)) for i in range(4)] + [threading.Thread(target=look, args=(i,)) for i in range(32)]
            for thread in threads:
                thread.start()
            wait = self.random.uniform(0, 0.3) if turn % 4 == 3 else self.random.uniform(0.3, self.arguments.kill_seconds)
            times.append(wait)
            time.sleep(wait)
            server.end(signal.SIGKILL)
            stop.set()
            for thread in threads:
                thread.join()
            server = self.server(gallery)
            lost = set(acknowledged) - self.subjects(Client(server.port))
            require(not lost, f"kill {turn}: lost {sorted(lost)[:3]}")
            require(server.end() == 0, "the server did not end well")
        require(acknowledged and read, "nothing was written or read")
        require(not wrong, f"{len(wrong)} wrong answers: {wrong[:2]}")
        self.check(gallery)
        return (f"{self.arguments.kills} times SIGKILL, {min(times):.2f} to {max(times):.1f} s after the start, 4 writers, 32 readers: "
                f"{len(acknowledged)} acknowledged enrolments, none lost; {read} recognitions, each of the state before or after")

    def disk(self) -> str:
        require(os.geteuid() == 0, "only root may mount a tmpfs")
        place = self.folder / "small"
        place.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], check=True)
        try:
            gallery, ballast = place / "full.gallery", place / "ballast"
            server = self.server(gallery, messages=self.folder / "full.messages")
            client, acknowledged, count = Client(server.port), [], 0
            ballast.write_bytes(bytes(1 << 19))
            fills = 0
            for _ in range(2):
                while True:
                    name = f"person {count}"
                    status, answer = self.enroll(client, name, count)
                    count += 1
                    if status != 201:
                        break
                    acknowledged.append(name)
                    require(count < 5000, "the disk does not become full")
                require(status == 507 and "full" in answer["message"] and "/" not in answer["message"], (status, answer))
                fills += 1
                status, answer = client.post("/api/v1/recognition/recognize", self.faces[0])
                require(status == 200 and answer["result"][0]["subjects"], (status, answer))
                require(self.subjects(client) == set(acknowledged), "another list than what was acknowledged")
                ballast.unlink(missing_ok=True)
            require(server.end(signal.SIGKILL) == -signal.SIGKILL, "it had ended")
            server = self.server(gallery, messages=self.folder / "full.messages")
            require(self.subjects(Client(server.port)) == set(acknowledged), "another list after the start")
            require(server.end() == 0, "the server did not end well")
            self.check(gallery)
            return (f"tmpfs of 1 MiB, full {fills} times: 507, searching goes on, enrolling too when there is room; "
                    f"{len(acknowledged)} enrolments acknowledged, all there after SIGKILL on the full disk")
        finally:
            for server in self.servers:
                if server.process.poll() is None:
                    server.end(signal.SIGKILL)
            subprocess.run(["umount", place], check=True)

    def replaced(self) -> str:
        """By another gallery of the model, by renaming, as a restored copy is put in place."""
        gallery, copy = self.folder / "replaced.gallery", self.folder / "copy.gallery"
        server = self.server(gallery)
        client = Client(server.port)
        require(self.enroll(client, "Ada", 0)[0] == 201, "no enrolment")
        subprocess.run([self.arguments.command, "gallery", "backup", gallery, copy], check=True, stdout=subprocess.DEVNULL)
        stop, wrong, counts = threading.Event(), [], {"read": 0, "written": 0, "refused": 0}

        def look(number: int) -> None:
            mine = Client(server.port)
            while not stop.is_set():
                status, answer = mine.post("/api/v1/recognition/recognize", self.faces[0])
                if status != 200 or answer["result"][0]["subjects"][0]["similarity"] < 0.99:
                    wrong.append(f"{status} {answer}")
                counts["read"] += 1

        def write() -> None:
            mine, count = Client(server.port), 0
            while not stop.is_set():
                status, answer = self.enroll(mine, f"person {count}", count)
                if status == 201:
                    counts["written"] += 1
                elif status == 503:
                    counts["refused"] += 1
                    time.sleep(0.05)
                else:
                    wrong.append(f"{status} {answer}")
                count += 1

        threads = [threading.Thread(target=look, args=(i,)) for i in range(8)] + [threading.Thread(target=write)]
        for thread in threads:
            thread.start()
        turns = 10
        for _ in range(turns):
            time.sleep(self.random.uniform(0.5, 1.5))
            new = self.folder / "new.gallery"
            shutil.copy(copy, new)
            new.rename(gallery)
        stop.set()
        for thread in threads:
            thread.join()
        time.sleep(2.5)  # until the last one is read
        require(not wrong, f"{len(wrong)} wrong answers: {wrong[:2]}")
        require(self.enroll(client, "Eve", 1)[0] == 201, "no enrolment into the new file")
        require({"Ada", "Eve"} <= self.subjects(client), "the new file's persons are not there")
        gallery.unlink()
        status, answer = self.enroll(client, "Lost", 1)
        require(status == 503, (status, answer))
        require(client.post("/api/v1/recognition/recognize", self.faces[0])[0] == 200, "what was in memory is not searched")
        copy.rename(gallery)
        time.sleep(2.5)
        require(self.subjects(client) == {"Ada"}, "the file that came back is not served")
        require(server.end() == 0, "the server did not end well")
        self.check(gallery)
        return (f"{turns} times by renaming while 8 readers and a writer went on, then removed and put back: {counts['read']} recognitions without an "
                f"error, {counts['written']} enrolments, {counts['refused']} refused with 503 until the new file was read")

    def gone(self) -> str:
        server = self.server(self.folder / "gone.gallery")
        descriptors = lambda: len(os.listdir(f"/proc/{server.process.pid}/fd"))  # noqa: E731
        client = Client(server.port)
        for face in range(20):
            client.post("/v1/embed", self.faces[face % len(self.faces)])
        before, memory = descriptors(), server.memory()
        stop, wrong, answered = threading.Event(), [], 0

        def well(number: int) -> None:
            nonlocal answered
            mine = Client(server.port)
            while not stop.is_set():
                status, answer = mine.post("/v1/embed", self.faces[number % len(self.faces)])
                answered += 1
                if status != 200:
                    wrong.append(f"{status} {answer}")

        threads = [threading.Thread(target=well, args=(i,)) for i in range(2)]
        for thread in threads:
            thread.start()
        for number in range(self.arguments.gone):
            body, kind = Client.form(self.faces[number % len(self.faces)])
            request = f"POST /v1/embed HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
            whole = self.random.random() < 0.2
            with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection, contextlib.suppress(ConnectionError):
                connection.sendall(request[: len(request) if whole else self.random.randrange(len(request))])
                if self.random.random() < 0.5:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset
        time.sleep(3)
        stop.set()
        for thread in threads:
            thread.join()
        end = time.monotonic() + 60
        while descriptors() > before and time.monotonic() < end:
            time.sleep(0.2)
        require(descriptors() <= before, f"{descriptors()} descriptors, {before} before")
        require(not wrong, wrong[:2])
        grown = (server.memory() - memory) / 2**20
        require(grown < 32, f"memory grew by {grown:.0f} MiB")
        require(server.end() == 0, "the server did not end well")
        return (f"{self.arguments.gone} connections that were closed or reset at a random byte of the request, a fifth after all of it: "
                f"{answered} other requests without an error; no descriptor left, memory {grown:+.1f} MiB")

    def clock(self) -> str:
        require(FAKETIME.exists(), f"{FAKETIME} is not there (Debian's faketime)")
        stamp = self.folder / "clock"

        def jump(seconds: int) -> None:
            new = stamp.with_suffix(".new")
            new.write_text(f"{seconds:+d}\n")
            new.rename(stamp)

        jump(0)
        environment = {"LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(stamp), "FAKETIME_NO_CACHE": "1", "DONT_FAKE_MONOTONIC": "1"}
        log = self.folder / "clock.log"
        server = self.server(self.folder / "clock.gallery", "--rate", 100, "--access-log", log, environment=environment)
        client, idle = Client(server.port), Client(server.port)
        require(idle.get("/health")[0] == 200, "no answer")
        jumps, asked = (0, 86400, -86400, 365 * 86400, -3600, 0), 0
        for number, seconds in enumerate(jumps):
            jump(seconds)
            time.sleep(0.2)
            for face in range(5):
                status, answer = client.post("/v1/embed", self.faces[face % len(self.faces)])
                require(status == 200, (seconds, status, answer))
                asked += 1
            require(self.enroll(client, f"person {number}", number)[0] == 201, f"no enrolment after {seconds}")
            require(idle.get("/health")[0] == 200, f"the idle connection was closed after {seconds}")  # http.client does not reconnect by itself here
        require(server.end() == 0, "the server did not end well")
        years = {json.loads(line)["time"][:4] for line in log.read_text().splitlines()}
        require(len(years) == 2, f"the log's clock did not jump: {years}")
        self.check(self.folder / "clock.gallery")
        said = f"CLOCK_REALTIME by a day, two days back, a year on and back: {asked} requests and an idle connection without an error"
        words = ["unshare", "--time", "--fork", "--kill-child", "--monotonic", str(10**9), "--boottime", str(10**9)]
        require(subprocess.run([*words, "true"]).returncode == 0, "unshare --time does not work here")
        server = self.server(self.folder / "clock.gallery", before=words)
        require(Client(server.port).post("/v1/embed", self.faces[0])[0] == 200, "no answer 30 years after the boot")
        require(len(self.subjects(Client(server.port))) == len(jumps), "a person is missing")
        server.end(signal.SIGKILL)
        return said + "; started where CLOCK_MONOTONIC says 30 years: the same"

    def idle(self) -> str:
        count = 10000
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = count + 500
        require(hard >= wanted or os.geteuid() == 0, f"this process may open only {hard} files")
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), max(hard, wanted)))
        server = self.server(self.folder / "idle.gallery")
        client = Client(server.port)
        took = lambda: statistics.median(self.seconds(lambda: client.post("/v1/embed", self.faces[0])) for _ in range(30))  # noqa: E731
        alone, before = took(), server.memory()
        held = []
        try:
            for number in range(count):
                held.append(socket.create_connection(("127.0.0.1", server.port), timeout=20))
                if number % 10 == 0:  # one in ten has asked before
                    held[-1].sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
                    require(held[-1].recv(1000).startswith(b"HTTP/1.1 200"), "an idle connection got no answer")
            with_them, grown = took(), server.memory() - before
            time.sleep(10)
            held[0].sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            require(held[0].recv(1000).startswith(b"HTTP/1.1 200"), "an idle connection was closed too early")
        finally:
            for connection in held:
                connection.close()
        require(grown < count * 6000, f"{grown / count:.0f} bytes a connection")
        require(with_them < 1.5 * alone + 0.01, f"a picture took {with_them:.3f} s, {alone:.3f} alone")
        require(server.end() == 0, "the server did not end well")
        return f"{count:,} idle connections: {grown / count / 1000:.1f} kB each; a picture took {with_them / alone:.2f} times as long as before"

    @staticmethod
    def seconds(action) -> float:
        began = time.monotonic()
        require(action()[0] == 200, "no answer")
        return time.monotonic() - began

    def two(self) -> str:
        gallery = self.folder / "two.gallery"
        servers = [self.server(gallery, messages=self.folder / f"two.{i}.messages") for i in range(2)]
        end = time.monotonic() + self.arguments.two_seconds

        def write(number: int) -> list[str]:
            client, done = Client(servers[number % 2].port), []
            while time.monotonic() < end:
                name = f"writer {number} person {len(done)}"
                status, answer = self.enroll(client, name, len(done))
                require(status == 201, (status, answer))
                done.append(name)
            return done

        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            acknowledged = {name for future in [pool.submit(write, i) for i in range(4)] for name in future.result()}
        time.sleep(2.5)  # each looks at the file once a second
        for server in servers:
            require(self.subjects(Client(server.port)) == acknowledged, "one server does not see what the other enrolled")
        client = Client(servers[0].port)
        require(client.call("DELETE", "/api/v1/recognition/subjects/" + urllib.parse.quote(sorted(acknowledged)[0]))[0] == 200, "nobody was removed")
        time.sleep(2.5)
        require(self.subjects(Client(servers[1].port)) == acknowledged - {sorted(acknowledged)[0]}, "one does not see what the other removed")
        for server in servers:
            require(server.end() == 0, "a server did not end well")
        self.check(gallery)
        return f"two servers with two writers each, {self.arguments.two_seconds:.0f} s: {len(acknowledged)} enrolments, all seen by both within 2.5 s, and a removal"

    def memory(self) -> str:
        server = self.server(self.folder / "memory.gallery")
        end, count, wrong = time.monotonic() + self.arguments.memory_seconds, 0, []
        samples: list[int] = []

        def loop(number: int) -> None:
            nonlocal count
            client, at = Client(server.port), number
            while time.monotonic() < end:
                name = f"person {number} {at % 50}"
                answers = [client.post("/v1/embed", self.faces[at % len(self.faces)]), self.enroll(client, name, at), client.get("/metrics")]
                if at % 50 == 49:
                    answers += [client.call("DELETE", f"/api/v1/recognition/subjects/{urllib.parse.quote(f'person {number} {i}')}") for i in range(0, 49, 7)]
                wrong.extend(a for a in answers if a[0] not in (200, 201, 404))
                count += len(answers)
                at += 1

        threads = [threading.Thread(target=loop, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            time.sleep(0.25)
            samples.append(server.memory())
        require(not wrong, wrong[:2])
        require(server.end() == 0, "the server did not end well")
        warm = samples[len(samples) // 5:]
        first, last = statistics.mean(warm[: len(warm) // 4]), statistics.mean(warm[-len(warm) // 4:])
        require(last < 1.05 * first, f"memory grew from {first / 2**20:.1f} to {last / 2**20:.1f} MiB")
        return f"{count} requests in {self.arguments.memory_seconds:.0f} s, of which a third enrol: {first / 2**20:.1f} MiB at first, {last / 2**20:.1f} at last"


FAULTS = {
    "kills": "killed while it writes", "disk": "disk full", "replaced": "gallery replaced", "gone": "clients that go", "clock": "clock jumps",
    "idle": "idle connections", "two": "two servers, one gallery", "memory": "memory",
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--command", type=pathlib.Path, default=ROOT / "build/release/facenet")
    parser.add_argument("--weights", type=pathlib.Path, required=True)
    parser.add_argument("--detector", type=pathlib.Path, required=True)
    parser.add_argument("--pictures", type=pathlib.Path, required=True, help="a folder of photographs with faces")
    parser.add_argument("--only", action="append", choices=FAULTS, help="this fault alone; again for more")
    parser.add_argument("--kills", type=int, default=24)
    parser.add_argument("--kill-seconds", type=float, default=4, help="at most so long until a kill")
    parser.add_argument("--gone", type=int, default=2000, help="clients that go")
    parser.add_argument("--two-seconds", type=float, default=15)
    parser.add_argument("--memory-seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory(prefix="facenet-faults-") as name:
        folder = pathlib.Path(name)
        faces = one_face_pictures(arguments, megapixel_pictures(arguments.pictures, folder, 24), folder)
        faults = Faults(arguments, folder, faces)
        print("| fault | what was done and seen |\n|---|---|", flush=True)
        for fault in arguments.only or FAULTS:
            try:
                print(f"| {FAULTS[fault]} | {faults.run(fault)} |", flush=True)
            except Failed as e:
                failed = True
                print(f"| {FAULTS[fault]} | FAILED: {e} |", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
