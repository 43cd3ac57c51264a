"""Starts the workers, lets them run in turn and records every time. Standard library only."""

from __future__ import annotations

import collections
import json
import os
import pathlib
import select
import statistics
import subprocess
import time

from peers import setup
from peers.setup import BUILD, PYTHON, TOOLS_PYTHON

MIN_PEAK_RATIO = 1.7   # two-thread peak over one-thread peak; below it the second core is not there
LOAD_TIMEOUT, RUN_TIMEOUT = 300.0, 120.0
SETTLE_LIMIT = 0.5     # seconds an engine's threads may go on spinning before the next engine is timed
ROUND_FACTOR = 3       # give up on a configuration after this many times the wanted rounds
RECORDED = ("version", "error", "cosine", "distance", "settings", "import_bytes", "peak_bytes")  # of a load

Config = collections.namedtuple("Config", "batch threads")  # written 8x2


class WorkerError(Exception):
    """Why an engine is out of the run."""


class Worker:
    """A process that holds one engine (or the machine's meter)."""

    def __init__(self, job: dict, python: pathlib.Path, log: pathlib.Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log = log
        with open(log, "w") as errors:
            self.process = subprocess.Popen(
                [str(python), str(pathlib.Path(__file__).with_name("worker.py"))], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=errors, bufsize=0, env=setup.peer_environment(job.get("threads")))
        self.tail = b""
        try:
            self.hello = self.ask(job, LOAD_TIMEOUT)
        except WorkerError:
            self.close()
            raise

    def ask(self, message: dict, timeout: float) -> dict:
        try:
            self.process.stdin.write(json.dumps(message).encode() + b"\n")  # unbuffered, so that close() cannot fail
        except BrokenPipeError:
            raise WorkerError(self._ended()) from None
        deadline = time.monotonic() + timeout
        while b"\n" not in self.tail:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                raise WorkerError(f"no answer in {timeout:.0f} s")
            chunk = os.read(self.process.stdout.fileno(), 1 << 16)
            if not chunk:
                raise WorkerError(self._ended())
            self.tail += chunk
        line, self.tail = self.tail.split(b"\n", 1)
        reply = json.loads(line)
        if "failed" in reply:
            raise WorkerError(" ".join(reply["failed"].split())[:200])
        return reply

    def _ended(self) -> str:
        status = self.process.wait()
        return f"its process ended (signal {-status})" if status < 0 else f"its process ended (status {status})"

    def threads_running(self) -> bool:
        for stat in pathlib.Path(f"/proc/{self.process.pid}/task").glob("*/stat"):
            try:
                state = stat.read_text().rsplit(")", 1)[1].split()[0]
            except OSError:  # a thread that has just ended
                continue
            if state == "R":
                return True
        return False

    def settle(self) -> float:
        """Waits until all its threads sleep; returns the seconds that took."""
        start = time.monotonic()
        asleep = 0
        while asleep < 2 and time.monotonic() - start < SETTLE_LIMIT:  # twice: a spinning thread may sleep between spins
            time.sleep(0.002)
            asleep = 0 if self.threads_running() else asleep + 1
        return time.monotonic() - start

    def close(self) -> None:
        self.process.stdin.close()
        self.process.stdout.close()
        try:
            self.process.wait(2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def busy_seconds() -> float:
    """CPU seconds of the whole machine that were neither idle nor waiting, stolen ones included."""
    ticks = list(map(int, pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]))
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int | str) -> float:
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Record:
    """The raw results, one JSON line each, so that an interrupted run goes on where it stopped."""

    def __init__(self, path: pathlib.Path, fingerprint: dict, fresh: bool) -> None:
        self.path = path
        self.events: list[dict] = []
        self.resumed = False
        if path.exists() and not fresh:
            self.events = self._read(fingerprint)
            self.resumed = bool(self.events)
        if not self.resumed:
            path.write_text("")
            self.add({"kind": "start", "fingerprint": fingerprint, "time": time.strftime("%Y-%m-%d %H:%M:%S")})

    def _read(self, fingerprint: dict) -> list[dict]:
        events = []
        for line in self.path.read_text().splitlines():
            try:
                events.append(json.loads(line))
            except ValueError:  # the line that was being written when the run was killed
                break
        usable = events and events[0].get("fingerprint") == fingerprint and events[-1]["kind"] != "end"
        if not usable:
            return []
        # A run killed half-way through its last line goes on after the last whole one.
        self.path.write_text("".join(json.dumps(event) + "\n" for event in events))
        return events

    def add(self, event: dict) -> None:
        self.events.append(event)
        with open(self.path, "a") as file:
            file.write(json.dumps(event) + "\n")

    def rounds(self, config: str, kept: bool = True) -> list[dict]:
        return [e for e in self.events if e["kind"] == "round" and e["config"] == config and e["kept"] == kept]


class Progress:
    """One line that is rewritten on a terminal, a line every few rounds elsewhere."""

    def __init__(self, total: int, stream) -> None:
        self.total, self.stream = total, stream
        self.start, self.done = time.monotonic(), 0
        self.terminal = stream.isatty()

    def step(self, text: str, counted: bool) -> None:
        self.done += counted
        left = (time.monotonic() - self.start) / max(self.done, 1) * (self.total - self.done)
        line = f"compare_peers: {text}, about {left / 60:.1f} min left"
        if self.terminal:
            print(f"\r\x1b[K{line}", end="", file=self.stream, flush=True)
        elif self.done % 5 == 0 or self.done == self.total:
            print(line, file=self.stream, flush=True)

    def clear(self) -> None:
        if self.terminal:
            print("\r\x1b[K", end="", file=self.stream, flush=True)


class Bench:
    """Everything one run needs; run_config() does one configuration."""

    def __init__(self, engines: list[str], model: dict, library: pathlib.Path, debian_torch: bool, record: Record,
                 visit_seconds: float, loads: int, progress: Progress) -> None:
        self.engines, self.model, self.library, self.debian_torch = engines, model, library, debian_torch
        self.record, self.visit_seconds, self.loads, self.progress = record, visit_seconds, loads, progress
        self.machine = self._start({"engine": "machine"}, "machine")

    def _start(self, job: dict, name: str) -> Worker:
        torch = job["engine"].startswith("torch") and self.debian_torch
        job = {**job, "library": str(self.library), "models": self.model["paths"], "dim": self.model["dim"], "architecture": self.model["architecture"],
               "debian_torch": self.debian_torch}
        return Worker(job, TOOLS_PYTHON if torch else PYTHON, BUILD / "log" / f"{name}.txt")

    def close(self) -> None:
        self.machine.close()

    def measure_machine(self, threads: int) -> dict:
        def ask(measure: str, count: int) -> float:
            return self.machine.ask({"measure": measure, "threads": count}, RUN_TIMEOUT)["value"]

        counts = sorted({1, 2, threads} if (os.cpu_count() or 1) > 1 else {1, threads})
        return {"peak": {str(n): ask("peak", n) for n in counts},
                "bandwidth": {str(n): ask("bandwidth", n) for n in counts}}

    def _load(self, engine: str, config: Config) -> Worker:
        """Loads the engine `loads` times, each in a new process, and keeps the last; raises WorkerError."""
        seconds = []
        for attempt in range(self.loads):
            worker = self._start({"engine": engine, "batch": config.batch, "threads": config.threads},
                                 f"{engine}-{config.batch}x{config.threads}")
            seconds.append(worker.hello["load_seconds"])
            if attempt + 1 < self.loads:
                worker.close()
        self.record.add({"kind": "load", "config": f"{config.batch}x{config.threads}", "engine": engine,
                         "seconds": seconds, **{k: worker.hello[k] for k in RECORDED if k in worker.hello}})
        return worker

    def run_config(self, config: Config, rounds: int) -> None:
        name = f"{config.batch}x{config.threads}"
        if len(self.record.rounds(name)) >= rounds:
            return
        workers: dict[str, Worker] = {}
        try:
            for engine in self.engines:
                self.progress.clear()
                setup.say(f"{name}: loading {engine}")
                try:
                    workers[engine] = self._load(engine, config)
                except WorkerError as error:
                    self._fail(name, engine, str(error))
            if workers:
                self._rounds(config, name, rounds, workers)
        finally:
            for worker in workers.values():
                worker.close()

    def _fail(self, config: str, engine: str, why: str) -> None:
        self.progress.clear()
        setup.say(f"{config}: {engine} is out: {why}")
        self.record.add({"kind": "failed", "config": config, "engine": engine, "why": why})

    def _rounds(self, config: Config, name: str, rounds: int, workers: dict[str, Worker]) -> None:
        counts = {}
        for engine, worker in list(workers.items()):
            try:
                quick = worker.ask({"count": 3}, RUN_TIMEOUT)["seconds"]
                counts[engine] = max(2, round(self.visit_seconds / statistics.median(quick)))
            except WorkerError as error:
                self._drop(name, engine, workers, str(error))
        tried = len(self.record.rounds(name)) + len(self.record.rounds(name, kept=False))
        while len(self.record.rounds(name)) < rounds and tried < ROUND_FACTOR * rounds and workers:
            tried += 1
            event = self._round(config, name, workers, counts, tried)
            self.record.add(event)
            kept, discarded = len(self.record.rounds(name)), len(self.record.rounds(name, kept=False))
            self.progress.step(f"{name}: {kept} of {rounds} rounds, {discarded} discarded", event["kept"])
        self.progress.clear()

    def _drop(self, name: str, engine: str, workers: dict[str, Worker], why: str) -> None:
        self._fail(name, engine, why)
        workers.pop(engine).close()

    def _round(self, config: Config, name: str, workers: dict[str, Worker], counts: dict, number: int) -> dict:
        pids = [w.process.pid for w in (*workers.values(), self.machine)]
        busy, own, start = busy_seconds(), sum(map(cpu_seconds, [*pids, "self"])), time.monotonic()
        machine = [self.measure_machine(config.threads)]
        seconds: dict[str, list[float]] = {engine: [] for engine in workers}
        spins: dict[str, float] = dict.fromkeys(workers, 0.0)
        peaks: dict[str, int] = {}
        order = list(workers)
        turn = number % len(order)  # each round starts elsewhere, so that no engine always follows the same one
        order = order[turn:] + order[:turn]
        for engine in order + order[::-1]:
            if engine not in workers:
                continue
            try:
                reply = workers[engine].ask({"count": counts[engine]}, RUN_TIMEOUT)
            except WorkerError as error:
                pid = workers[engine].process.pid
                self._drop(name, engine, workers, str(error))
                pids.remove(pid)
                continue
            seconds[engine] += reply["seconds"]
            peaks[engine] = reply["peak_bytes"]
            spins[engine] = max(spins[engine], workers[engine].settle())
        machine.append(self.measure_machine(config.threads))
        wall = time.monotonic() - start
        others = busy_seconds() - busy - (sum(map(cpu_seconds, [*pids, "self"])) - own)
        ratios = [m["peak"][str(config.threads)] / m["peak"]["1"] for m in machine]
        # Two threads promise a ratio of 2, four one of 4; the same share of it must be there.
        kept = config.threads == 1 or min(ratios) >= MIN_PEAK_RATIO / 2 * config.threads
        return {"kind": "round", "config": name, "kept": kept, "machine": machine, "ratio": min(ratios),
                "seconds": {e: s for e, s in seconds.items() if e in workers}, "settle": spins, "peak_bytes": peaks,
                "others_cpu": max(0.0, others / wall)}
