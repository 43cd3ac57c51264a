#!/usr/bin/env python3
"""What the Python package costs beside C++, and how fast it is beside others: a table of one run, with the goals.

Minima of interleaved runs: a call, a batch, an import, two threads, memory; of a photograph with faces the medians of
rounds in which the package, facenet-pytorch (of .venv) and DeepFace take turns, each in a process with as many CPUs.
Needs build/release (targets facenet_python_all and facenet_command). The first run makes weights (build/pipeline; some
minutes) and .venv-deepface (1.7 GB: `--setup-only` does both and stops; `--peers ""` needs no DeepFace).
Exit status 0 whatever the numbers are: a busy machine makes them.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
BUILD = ROOT / "build/release"
sys.path.insert(0, str(BUILD / "python"))

import compare_pipeline  # noqa: E402
import numpy as np  # noqa: E402

import facenet  # noqa: E402

GROUP = ROOT.parent / "shared/photos/group.jpg"
PEER_GOALS = {"facenet-pytorch": 8, "deepface": 15}


def least(call, times: int) -> float:
    """Seconds of the quickest of some calls."""
    best = float("inf")
    for _ in range(times):
        began = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - began)
    return best


def median(call, times: int) -> float:
    def one() -> float:
        began = time.perf_counter()
        call()
        return time.perf_counter() - began

    return float(np.median([one() for _ in range(times)]))


def call_overhead(detector: str) -> float:
    """Of a picture in which no window of 12 pixels fits, C++ computes nothing: the call is all there is."""
    finder, tiny = facenet.Detector(detector, threads=1), np.zeros((11, 11, 3), np.uint8)
    finder.detect(tiny)
    return median(lambda: finder.detect(tiny), 2000)


def batches(weights: str, rounds: int) -> tuple[float, float]:
    """Seconds a picture of 32 crops on one thread: the package's, and those of `facenet bench`."""
    pictures = np.random.default_rng(1).integers(0, 256, (32, 160, 160, 3), np.uint8)
    package, command = float("inf"), float("inf")
    with facenet.Embedder(weights, threads=1, batch=32) as embedder:
        embedder.embed(pictures)
        for _ in range(rounds):
            package = min(package, least(lambda: embedder.embed(pictures), 2) / 32)
            call = [BUILD / "facenet", "bench", "--json", "--weights", weights, "--threads", "1", "--batch", "32", "--seconds", "2"]
            done = subprocess.run(call, capture_output=True, text=True, check=True)
            command = min(command, json.loads(done.stdout.splitlines()[-1])["min_ms"] / 1e3)
    return package, command


def two_threads(weights: str, rounds: int) -> float:
    """How many times as many pictures two Python threads embed with one object as one thread does."""
    crop, best = np.zeros((160, 160, 3), np.uint8), 0.0
    with facenet.Embedder(weights, threads=1) as embedder:

        def work() -> None:
            for _ in range(20):
                embedder.embed(crop)

        def together(n: int) -> float:
            threads = [threading.Thread(target=work) for _ in range(n)]
            began = time.perf_counter()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            return time.perf_counter() - began

        together(2)
        one, two = float("inf"), float("inf")
        for _ in range(rounds):
            one, two = min(one, together(1)), min(two, together(2))
        best = 2 * one / two
    return best


def of_a_new_process(code: str, *arguments: str) -> str:
    environment = dict(os.environ, PYTHONPATH=str(BUILD / "python"))
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True, env=environment).stdout


def imports(times: int) -> float:
    code = "import time; t = time.perf_counter(); import facenet; print(time.perf_counter() - t)"
    return min(float(of_a_new_process(code)) for _ in range(times))


def memory(weights: str, arithmetic: str) -> float:
    """Megabytes that a process had at most which loads weights and embeds one crop."""
    code = """
import sys, facenet, numpy as np
facenet.Embedder(sys.argv[1], arithmetic=sys.argv[2], batch=1).embed(np.zeros((160, 160, 3), np.uint8))
print(next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1000)
"""
    return float(of_a_new_process(code, weights, arithmetic))


def photographs(peers: list[str], models: dict[str, str], picture: pathlib.Path, threads: int, rounds: int) -> list[tuple]:
    """(engine, median seconds from the file to the embeddings, median of its time / ours, faces), ours first."""
    failed: dict[str, str] = {}
    detector = pathlib.Path(models["detector"])
    running = [compare_pipeline.start("facenet-python", threads, models, detector)]
    try:
        for name in peers:
            try:
                running.append(compare_pipeline.start(name, threads, models, detector))
            except compare_pipeline.Failure as why:
                failed[name] = str(why)
        rows = compare_pipeline.measure(running, picture, rounds, failed)
    finally:
        for engine in running:
            engine.close()
    return rows + [(name, None, None, why) for name, why in failed.items() if name not in {row[0] for row in rows}]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", help="an embedder in float (made: the network with random numbers)")
    parser.add_argument("--int8", help="one that was calibrated, for its memory (made)")
    parser.add_argument("--detector", default=str(ROOT / "weights/mtcnn.safetensors"))
    parser.add_argument("--picture", type=pathlib.Path, help="a photograph with faces (the group of ../shared/photos, else one made)")
    parser.add_argument("--peers", default=",".join(PEER_GOALS), metavar="A,B", help="(facenet-pytorch,deepface)")
    parser.add_argument("--threads", type=int, default=1, help="of each in the comparison with peers (1)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--setup-only", action="store_true", help="install and convert, then stop")
    options = parser.parse_args()
    options.peers = [name for name in options.peers.split(",") if name]
    if unknown := set(options.peers) - set(PEER_GOALS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(PEER_GOALS)}")
    return options


def row(what: str, value: float, unit: str, goal: str, met: bool, note: str = "") -> None:
    print(f"| {what} | {value:.3g} {unit} | {goal} | {'yes' if met else 'no'} | {note} |", flush=True)


def main() -> None:
    options = parse_arguments()
    failed: dict[str, str] = {}
    compare_pipeline.set_up(options.peers, failed)
    models = compare_pipeline.make_models([], failed) | {"package": str(BUILD / "python"), "detector": options.detector}
    picture = options.picture or (GROUP if GROUP.exists() else compare_pipeline.make_pictures()[1])
    if options.setup_only:
        return
    weights, int8 = options.weights or models["float"], options.int8 or models["int8"]
    models["float"] = weights
    print(f"facenet {facenet.__version__}, {facenet.isa()}, Python {sys.version.split()[0]}, NumPy {np.__version__}\n")
    print("| what | measured | goal | met | |\n|---|---:|---:|---|---|")
    seconds = imports(10)
    row("import facenet", seconds * 1e3, "ms", "150", seconds <= 0.15)
    seconds = call_overhead(options.detector)
    row("a call", seconds * 1e6, "us", "15", seconds <= 15e-6)
    package, command = batches(weights, options.rounds)
    note = f"{package * 1e3:.2f} ms a picture, the command {command * 1e3:.2f}"
    row("32 pictures, one thread, beside the command", package / command, "times", "1.03", package <= 1.03 * command, note)
    gain = two_threads(weights, options.rounds)
    row("two Python threads beside one", gain, "times", "1.7", gain >= 1.7)
    for arithmetic, file, most in (("float", weights, 145), ("int8", int8, 70)):
        megabytes = memory(file, arithmetic)
        row(f"memory, {arithmetic}, batch=1", megabytes, "MB", str(most), megabytes <= most)
    peers = [name for name in options.peers if name not in failed]
    rows = photographs(peers, models, picture, options.threads, options.rounds)
    (_, ours, _, faces), *others = rows
    for name, theirs, ratio, found in others:
        what = f"{picture.name} to embeddings, {name} beside facenet, threads: {options.threads}"
        if theirs is None:
            print(f"| {what} | | {PEER_GOALS[name]} | no | {found} |")
            continue
        note = f"{theirs * 1e3:.0f} ms ({found} faces), facenet {ours * 1e3:.0f} ms ({faces})"
        row(what, ratio, "times", str(PEER_GOALS[name]), ratio >= PEER_GOALS[name], note)
    for name, why in failed.items():
        print(f"| {name} | | {PEER_GOALS[name]} | no | {why} |")


if __name__ == "__main__":
    main()
