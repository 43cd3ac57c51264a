#!/usr/bin/env python3
"""Times searches beside faiss-cpu and DBSCAN beside scikit-learn, interleaved in one run at equal threads, checks that the answers
agree, measures a large gallery's memory, and writes one table (bench/results/search.md with --write-docs).

The first run installs both into .venv-peers.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import os
import pathlib
import statistics
import subprocess
import sys
import time

from peers import setup
from peers.setup import PYTHON, ROOT, SetupError

DIM, K = 512, 10
EXAMPLES = """\
examples:
  bench/compare_search.py                         everything: some 3 minutes
  chrt -f 50 bench/compare_search.py              on a machine that others use too
  bench/compare_search.py --only search --templates 20000 --rounds 20

exit status: 0 the table is written, 1 an answer was wrong, 2 error
"""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--only", choices=("search", "dbscan", "memory"), help="one part instead of all")
    add("--templates", type=int, default=100_000, metavar="N", help="templates to search (100000)")
    add("--faces", type=int, default=20_000, metavar="N", help="faces to cluster (20000)")
    add("--rounds", type=int, default=40, metavar="N", help="rounds of searches (40); of DBSCAN a tenth")
    add("--threads", default="1,2", metavar="T,…", help="numbers of threads (1,2)")
    add("--write-docs", action="store_true", help="also write bench/results/search.md")
    add("--fill", type=int, metavar="N", help=argparse.SUPPRESS)  # the child that measures memory
    return parser.parse_args()


class Engine:
    def __init__(self) -> None:
        setup.LIBRARY_TARGET = "facenet_search_api"
        self.library = ctypes.CDLL(str(setup.build_library(None)))
        self.library.fns_gallery.restype = ctypes.c_void_p

    def gallery(self, half: bool, threads: int) -> ctypes.c_void_p:
        return ctypes.c_void_p(self.library.fns_gallery(DIM, int(half), threads))

    def add(self, gallery, e) -> None:
        if self.library.fns_add(gallery, ctypes.c_void_p(e.ctypes.data), len(e)):
            raise SetupError("the gallery refused a template.")

    def search(self, gallery, queries):
        import numpy as np

        ids, distances = np.empty((len(queries), K), np.int64), np.empty((len(queries), K))
        pointers = [ctypes.c_void_p(a.ctypes.data) for a in (queries, ids, distances)]
        self.library.fns_search(gallery, pointers[0], len(queries), K, pointers[1], pointers[2])
        return ids, distances

    def dbscan(self, e, eps: float, min_samples: int, threads: int):
        import numpy as np

        labels = np.empty(len(e), np.int32)
        if self.library.fns_dbscan(ctypes.c_void_p(e.ctypes.data), len(e), DIM, ctypes.c_double(eps), min_samples, threads,
                                   ctypes.c_void_p(labels.ctypes.data)):
            raise SetupError("clustering failed.")
        return labels


def faces(n: int, persons: int, seed: int, spread: float = 1.0):
    """Unit vectors around `persons` centres: with spread 1 two of a person are 1.0 apart, strangers 1.41."""
    import numpy as np

    rng = np.random.default_rng(seed)
    centre = rng.standard_normal((persons, DIM), np.float32)
    e = centre[rng.integers(persons, size=n)] + np.float32(spread) * rng.standard_normal((n, DIM), np.float32)
    return e / np.linalg.norm(e, axis=1, keepdims=True)


def interleave(runs: dict, rounds: int) -> dict:
    """Seconds of each, one after the other in each round, the order turned round in every second one."""
    seconds = {name: [] for name in runs}
    for run in runs.values():
        run()
    for r in range(rounds):
        for name in list(runs) if r % 2 == 0 else reversed(list(runs)):
            time.sleep(0.01)  # the other's OpenMP threads go to sleep
            start = time.perf_counter()
            runs[name]()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(ours: list, theirs: list) -> str:
    """The median of paired ratios and its 95% interval by order statistics (the sign test's)."""
    values = sorted(a / b for a, b in zip(ours, theirs))
    n = len(values)
    low = max(0, math.floor((n - 1.96 * math.sqrt(n)) / 2))
    return f"{statistics.median(values):.3f} [{values[low]:.3f}, {values[n - 1 - low]:.3f}]"


def wrong_answers(e, queries, got, want) -> int:
    """Queries where faiss has a template at least 1e-6 nearer than ours at that place: its distances are float sums."""
    import numpy as np

    (ids, distances), theirs = got, want

    def exact(q, i):
        return np.sqrt(((queries[q].astype(np.float64) - e[i]) ** 2).sum(axis=1))

    bad = 0
    for q in range(len(queries)):
        own = exact(q, ids[q])
        bad += bool(np.abs(own - distances[q]).max() > 1e-12 or (own > exact(q, theirs[q]) + 1e-6).any())
    return bad


def compare_search(engine: Engine, options: argparse.Namespace, threads: list[int]) -> tuple[list[str], int]:
    import faiss
    from threadpoolctl import threadpool_limits

    e, queries = faces(options.templates, options.templates // 10, 1), faces(32, 32, 2)
    queries[:16] = faces(options.templates, options.templates // 10, 1)[:16] * 0.7 + queries[:16] * 0.3
    index = faiss.IndexFlatIP(DIM)
    index.add(e)
    faiss.cvar.distance_compute_blas_threshold = 1000  # BLAS for 32 queries, not for 1: its fastest for both
    lines, wrong = [], 0
    for count in threads:
        faiss.omp_set_num_threads(count)
        with threadpool_limits(count):
            for n in (1, 32):
                q = queries[:n].copy()
                galleries = {"f32": engine.gallery(False, count), "f16": engine.gallery(True, count)}
                for gallery in galleries.values():
                    engine.add(gallery, e)
                wrong += wrong_answers(e, q, engine.search(galleries["f32"], q), index.search(q, K)[1])
                runs = {"faiss": lambda: index.search(q, K),
                        **{name: lambda g=g: engine.search(g, q) for name, g in galleries.items()}}
                seconds = interleave(runs, options.rounds)
                ms = {name: f"{1e3 * statistics.median(s):.2f}" for name, s in seconds.items()}
                lines.append(f"| {n} | {count} | {ms['faiss']} | {ms['f32']} | {ratio(seconds['f32'], seconds['faiss'])} | "
                             f"{ms['f16']} | {ratio(seconds['f16'], seconds['faiss'])} |")
                print(lines[-1], file=sys.stderr)
                for gallery in galleries.values():
                    engine.library.fns_free(gallery)
    head = [f"Top {K} of {options.templates:,} × {DIM}, milliseconds (medians of {options.rounds} interleaved rounds), and the paired ratio to "
            f"faiss-cpu {faiss.__version__}'s IndexFlatIP with its 95% interval. faiss is tuned: BLAS for 32 queries and the kernel that "
            f"fits the CPU (OPENBLAS_CORETYPE), both of which its wheel gets wrong by default. {wrong} answers were farther than faiss's.", "",
            "| queries | threads | faiss | f32 | ratio | f16 | ratio |", "|---|---|---|---|---|---|---|"]
    return head + lines, wrong


def compare_dbscan(engine: Engine, options: argparse.Namespace, threads: list[int]) -> tuple[list[str], int]:
    import sklearn
    from sklearn.cluster import DBSCAN
    from threadpoolctl import threadpool_limits

    e, eps, least = faces(options.faces, options.faces // 10, 3), 1.15, 3
    rounds, lines, wrong = max(3, options.rounds // 10), [], 0
    for count in threads:
        with threadpool_limits(count):
            model = DBSCAN(eps=eps, min_samples=least, metric="euclidean", n_jobs=count)
            labels = {}
            runs = {"sklearn": lambda: labels.update(sklearn=model.fit(e).labels_),
                    "facenet": lambda: labels.update(facenet=engine.dbscan(e, eps, least, count))}
            seconds = interleave(runs, rounds)
        differ = int((labels["sklearn"] != labels["facenet"]).sum())
        wrong += differ
        lines.append(f"| {count} | {statistics.median(seconds['sklearn']):.2f} | {statistics.median(seconds['facenet']):.3f} | "
                     f"{ratio(seconds['sklearn'], seconds['facenet'])} | {differ} | {labels['facenet'].max() + 1} |")
        print(lines[-1], file=sys.stderr)
    return [f"DBSCAN of {options.faces:,} × {DIM} faces, seconds (medians of {rounds} interleaved rounds), and how many times faster than "
            f"scikit-learn {sklearn.__version__} (metric euclidean, n_jobs = threads).", "",
            "| threads | scikit-learn | facenet | times faster | labels that differ | clusters |", "|---|---|---|---|---|---|", *lines], wrong


def peak_bytes() -> int:
    """The most memory that was resident. getrusage's number is also the parent's, from before exec."""
    return 1024 * int(pathlib.Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])


def fill(n: int) -> None:
    """In a process of its own: adds n templates in halves, searches once, prints peaks of memory before and after."""
    import numpy as np

    engine = Engine()
    gallery = engine.gallery(True, 1)
    batch = faces(10_000, 1000, 4)
    before = peak_bytes()
    for _ in range(0, n, len(batch)):
        engine.add(gallery, batch)
    engine.search(gallery, np.ascontiguousarray(batch[:1]))
    print(f"{peak_bytes()} {before}")


def measure_memory() -> list[str]:
    n = 1_000_000
    peak, before = map(int, subprocess.run([sys.executable, __file__, "--fill", str(n)], check=True, capture_output=True,
                                           text=True).stdout.split())
    return [f"{n:,} × {DIM} templates in halves, added one by one without reserve(), and a search: {peak / 1e9:.3f} GB at the peak of "
            f"resident memory, {before / 1e9:.3f} of them Python's before; the halves alone are {n * DIM * 2 / 1e9:.3f}."]


def newest_known_core() -> dict[str, str]:
    """faiss-cpu brings an OpenBLAS of 2021, which takes a newer CPU for a Pentium 4 (7 times slower) unless told otherwise."""
    flags = pathlib.Path("/proc/cpuinfo").read_text().split("flags", 1)[-1].split("\n", 1)[0].split()
    core = "SkylakeX" if "avx512bw" in flags else "Haswell" if "avx2" in flags and "fma" in flags else None
    return {"OPENBLAS_CORETYPE": core} if core else {}


def run(options: argparse.Namespace) -> int:
    setup.make_venv()
    problem = setup.install("search")
    if problem:
        raise SetupError(f"{problem}; see build/peers/log/.")
    if pathlib.Path(sys.prefix).resolve() != setup.VENV.resolve():  # and without what slows or steers a BLAS here
        os.execve(PYTHON, [str(PYTHON), *sys.argv], {**setup.peer_environment(), **newest_known_core()})
    if options.fill:
        fill(options.fill)
        return 0
    threads = [int(t) for t in options.threads.split(",")]
    engine, parts, wrong = Engine(), [], 0
    if options.only in (None, "search"):
        lines, bad = compare_search(engine, options, threads)
        parts, wrong = parts + [lines], wrong + bad
    if options.only in (None, "dbscan"):
        lines, bad = compare_dbscan(engine, options, threads)
        parts, wrong = parts + [lines], wrong + bad
    if options.only in (None, "memory"):
        parts.append(measure_memory())
    from peers import report

    text = "\n\n".join(["# Searching and clustering", f"Written by `bench/compare_search.py` on {report.cpu_name()}.",
                        *("\n".join(lines) for lines in parts)]) + "\n"
    print(text, end="")
    if options.write_docs:
        (ROOT / "bench" / "results" / "search.md").write_text(text)
    return 1 if wrong else 0


def main() -> None:
    try:
        sys.exit(run(parse_arguments()))
    except (SetupError, OSError) as error:
        print(f"compare_search: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
