#!/usr/bin/env python3
"""What the Python package costs beside C++: a call, a batch, an import, two threads, memory. Minima of interleaved runs.

Reads build/release (target facenet_python, and the command). Exit status 0 whatever the numbers are: a busy machine makes them.
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

import numpy as np  # noqa: E402

import facenet  # noqa: E402


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default=str(ROOT / "build/golden/weights512.safetensors"), help="an embedder in float")
    parser.add_argument("--int8", help="one that was calibrated, for its memory")
    parser.add_argument("--detector", default=str(ROOT / "weights/mtcnn.safetensors"))
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(f"facenet {facenet.__version__}, {facenet.isa()}, Python {sys.version.split()[0]}")
    print(f"import facenet          {imports(10):8.3f} s    (goal 0.15)")
    print(f"a call                  {call_overhead(options.detector) * 1e6:8.1f} us   (goal 15)")
    package, command = batches(options.weights, options.rounds)
    print(f"a picture of 32         {package * 1e3:8.3f} ms   the command {command * 1e3:.3f} ms: {package / command:.3f} times (goal 1.03)")
    print(f"two threads             {two_threads(options.weights, options.rounds):8.2f} times one (goal 1.7)")
    print(f"memory, float           {memory(options.weights, 'float'):8.1f} MB   (goal 145)")
    if options.int8:
        print(f"memory, int8            {memory(options.int8, 'int8'):8.1f} MB   (goal 70)")


if __name__ == "__main__":
    main()
