#!/usr/bin/env python3
"""Times every distinct convolution of Inception-ResNet-v1 in this engine, in oneDNN and in XNNPACK, interleaved in one run.

The layers are the steps of the engine's own plan, in floats and in bytes. Each library is a program of bench/kernels/,
which the first run compiles and which checks its results against the tests' oracle before it is timed. A library that
is not installed is left out, and the table says how to install it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import time

from kernels import report
from peers import measure
from peers.setup import ROOT, peer_environment

BUILD = ROOT / "build" / "kernels"
VENV = BUILD / "venv"
EXAMPLES = """\
examples:
  bench/compare_kernels.py                                   everything: about 5 minutes, on an idle machine
  bench/compare_kernels.py --quick                           three short rounds: whether all is right, not how fast
  bench/compare_kernels.py --layers 'repeat_2|7a' --threads 1 --peers onednn2
  bench/compare_kernels.py --write-docs                      also bench/results/kernels.md and kernels.svg

exit status: 0 the table is written (a library that is missing or fails is named in it), 2 error
"""

COMPILE = ["-std=c++17", "-O2", "-DNDEBUG", "-march=native", "-ffp-contract=off", "-fopenmp", "-Wall", "-Wextra",
           f"-I{ROOT}/include", f"-isystem{ROOT}/.deps/include"]  # as the preset `release`
ONEDNN3 = ("python3 -m venv build/kernels/venv && build/kernels/venv/bin/pip install --no-deps onednn-cpu-gomp==2023.2.0 "
           "onednn-devel-cpu-gomp==2023.2.0")
# Name: title, source, what it is linked with, how to install it.
ENGINES = {
    "ours": ("ours", "ours.cpp", [], ""),
    "onednn2": ("oneDNN", "onednn.cpp", ["-ldnnl"], "apt-get install libdnnl-dev"),
    "onednn3": ("oneDNN", "onednn.cpp", [f"-isystem{VENV}/include", f"-L{VENV}/lib", f"-Wl,-rpath,{VENV}/lib", "-ldnnl"], ONEDNN3),
    "xnnpack": ("XNNPACK", "xnnpack.cpp", ["-lXNNPACK", "-lpthreadpool"], "apt-get install libxnnpack-dev libpthreadpool-dev"),
}
NEEDS = {"onednn2": pathlib.Path("/usr/include/oneapi/dnnl/dnnl.hpp"), "onednn3": VENV / "include/oneapi/dnnl/dnnl.hpp",
         "xnnpack": pathlib.Path("/usr/include/xnnpack.h")}
PEERS = tuple(NEEDS)
MOST_COPIES = 256  # of a layer's weights; less than 370 KB are then not cold in L2, beside arithmetic that hides them


class Failure(Exception):
    """A sentence for the user."""


def say(text: str) -> None:
    print(f"compare_kernels: {text}", file=sys.stderr, flush=True)


class Worker(measure.Worker):
    """A program of bench/kernels with one library in it."""

    def __init__(self, name: str, program: pathlib.Path, threads: int) -> None:
        self.name, self.threads, self.tail = name, threads, b""
        environment = peer_environment(threads)
        # The engine asks for huge pages itself; here glibc asks for them for everybody.
        environment["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
        self.process = subprocess.Popen([str(program), str(threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        bufsize=0, env=environment)
        self.title = f"{ENGINES[name][0]} {self.ask('hello', 60)['version']}"

    def load(self, layer: dict, copies: int) -> dict:
        numbers = [layer["integer"], layer["step"], *layer["in"], *layer["out"], *layer["window"], layer["stride"],
                   *layer["pad"], layer["residual"], layer["relu"], layer["bytes"], copies]
        return self.ask("layer " + " ".join(map(str, numbers)), 120)

    def visit(self, mode: str, milliseconds: int) -> float:
        seconds = self.ask(f"time {mode} {milliseconds}", 120)["seconds"]
        if self.threads > 1:
            self.settle()
        return seconds


def build(name: str) -> pathlib.Path:
    """The program of a library, compiled when something it is made of has changed."""
    _, source, more, install = ENGINES[name]
    if name in NEEDS and not NEEDS[name].exists():
        raise Failure(f"not installed: {install}")
    folder = ROOT / "bench" / "kernels"
    program = BUILD / name
    compiler = shlex.split(os.environ.get("CXX", "g++"))
    command = [*compiler, *COMPILE, str(folder / source), *more, "-o", str(program)]
    digest = hashlib.sha256(" ".join(command).encode())
    for path in [*sorted((ROOT / "include").rglob("*.hpp")), *sorted(folder.glob("*.?pp")), ROOT / "bench/peak.hpp",
                 ROOT / "tests/support.hpp", ROOT / "tests/reference.hpp"]:
        digest.update(path.read_bytes())
    record = program.with_suffix(".digest")
    if program.exists() and record.exists() and record.read_text() == digest.hexdigest():
        return program
    BUILD.mkdir(parents=True, exist_ok=True)
    say(f"compiling {source} for {name}")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if "error" in line] or ["no message"]
        raise Failure(f"does not compile: {errors[0]}")
    record.write_text(digest.hexdigest())
    return program


def layers_of(program: pathlib.Path) -> list[dict]:
    """The distinct convolutions, as the engine's plan has them: `ours list`."""
    listed = subprocess.run([str(program), "list"], capture_output=True, text=True, check=True).stdout
    return [json.loads(line) for line in listed.splitlines()]


def copies_of(layer: dict, layers: list[dict]) -> int:
    """Sets of the layer's weights that together are as many as the network's."""
    network = sum(report.weights(other) * other["times"] for other in layers if other["integer"] == layer["integer"])
    return max(2, min(MOST_COPIES, -(-network // report.weights(layer))))


def interleave(workers: list, mode: str, rounds: int, milliseconds: int) -> dict[str, list[float]]:
    """Every worker once a round, forwards and backwards in turns: times[name][round]."""
    times: dict[str, list[float]] = {worker.name: [] for worker in workers}
    for number in range(rounds):
        for worker in workers if number % 2 == 0 else workers[::-1]:
            times[worker.name].append(worker.visit(mode, milliseconds))
    return times


def run_layer(workers: list[Worker], layer: dict, copies: int, options: argparse.Namespace, threads: int) -> dict:
    result = {"layer": layer, "threads": threads, "how": {}, "failed": {}, "seconds": {}, "peak": workers[0].ask("peak", 60)}
    able = []
    for worker in workers:
        try:
            result["how"][worker.name] = worker.load(layer, copies)["how"]
            able.append(worker)
        except measure.WorkerError as why:
            if worker.name == "ours" or "wrong result" in str(why):
                raise Failure(f"{layer['name']}, {worker.title}: {why}") from None
            result["failed"][worker.name] = str(why)
    for mode in ("cold", "warm"):
        result["seconds"][mode] = interleave(able, mode, options.rounds, options.visit_ms)
    return result


def run(options: argparse.Namespace) -> report.Run:
    programs = {"ours": build("ours")}
    missing: dict[str, str] = {}
    for peer in options.peers:
        try:
            programs[peer] = build(peer)
        except Failure as why:
            missing[peer] = str(why)
            say(f"{peer} is left out, {why}")
    every = layers_of(programs["ours"])
    layers = [layer for layer in every if re.search(options.layers, layer["name"])]
    if not layers:
        raise Failure(f"no layer matches {options.layers}")
    made = report.Run(titles={}, missing=missing, results=[], commit=report.commit(ROOT), cpu=report.cpu_name(),
                      rounds=options.rounds, arguments=" ".join(sys.argv[1:]), others=0)
    began, busy, own = time.monotonic(), measure.busy_seconds(), measure.cpu_seconds("self")
    for threads in options.threads:
        workers = [Worker(name, program, threads) for name, program in programs.items()]
        try:
            made.titles |= {worker.name: worker.title for worker in workers}
            for number, layer in enumerate(layers):
                say(f"threads {threads}, {number + 1} of {len(layers)}: {layer['name']}{' int8' * layer['integer']}")
                made.results.append(run_layer(workers, layer, copies_of(layer, every), options, threads))
            own -= sum(measure.cpu_seconds(worker.process.pid) for worker in workers)
        finally:
            for worker in workers:
                worker.close()
    mine = measure.cpu_seconds("self") - own
    made.others = (measure.busy_seconds() - busy - mine) / (time.monotonic() - began)
    return made


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--rounds", type=int, default=10, metavar="N", help="rounds of each layer, cold and warm (10)")
    add("--threads", default="1,2", metavar="A,B", help="numbers of threads (1,2)")
    add("--peers", default=",".join(PEERS), metavar="A,B", help=f"which libraries ({','.join(PEERS)})")
    add("--layers", default="", metavar="REGEX", help="only layers whose name matches")
    add("--quick", action="store_true", help="three rounds of short visits")
    add("--write-docs", action="store_true", help="also write the table and the plot to bench/results")
    options = parser.parse_args(arguments)
    options.peers = [name for name in options.peers.split(",") if name]
    if unknown := [name for name in options.peers if name not in PEERS]:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(PEERS)}")
    cpus = len(os.sched_getaffinity(0))
    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", options.threads):
        parser.error(f"--threads: '{options.threads}' is no list of numbers above 0")
    options.threads = list(dict.fromkeys(map(int, options.threads.split(","))))
    if max(options.threads) > cpus:
        parser.error(f"--threads: this process may use {cpus} CPU{'s' * (cpus > 1)}")
    if options.rounds < 1:
        parser.error("--rounds is at least 1")
    try:
        re.compile(options.layers)
    except re.error as error:
        parser.error(f"--layers: {error}")
    options.visit_ms = 10
    if options.quick:
        options.rounds, options.visit_ms = 3, 3
    return options


def main() -> None:
    options = parse_arguments()
    try:
        made = run(options)
    except (Failure, measure.WorkerError, OSError, subprocess.CalledProcessError) as why:
        print(f"compare_kernels: {why}", file=sys.stderr)
        sys.exit(2)
    written = report.write(made, BUILD)
    print(written[0].read_text(), end="")
    for path in written:
        say(f"wrote {os.path.relpath(path)}")
        if options.write_docs and path.suffix != ".json":
            shutil.copy(path, ROOT / "bench" / "results")
            say(f"wrote bench/results/{path.name}")


if __name__ == "__main__":
    main()
