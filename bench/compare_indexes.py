#!/usr/bin/env python3
"""Times searches of one gallery by the engines that facenet.export writes for, each in a process of its own with one thread, and says
what share of our exact search's answers each finds. Prints a table (bench/results/indexes.md with --write-docs).

Needs python/facenet of a build folder on PYTHONPATH, psutil, and: faiss-cpu, pgserver and psycopg[binary], sqlite-vec.
A time is the processor's, so that other programs on the machine do not count; of PostgreSQL it is its own process's alone.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import shutil
import sqlite3
import statistics
import subprocess
import sys
import time
from typing import Callable, Iterator

ROOT = pathlib.Path(__file__).resolve().parents[1]
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np  # noqa: E402
import psutil  # noqa: E402

K = 10
ENGINES = ("facenet", "faiss-flat", "faiss-hnsw", "faiss-sq8", "faiss-pq", "sqlite-vec", "pgvector")
Search = Callable[[np.ndarray], list[int]]
Setting = tuple[str, Search]  # the words of a row, and the ids of the K nearest


def faces(count: int, persons: int, dim: int, seed: int) -> np.ndarray:
    """Unit vectors: two of a person are 1.0 apart, strangers 1.41. Another seed gives other pictures of the same persons."""
    centres, random = np.random.default_rng(1).standard_normal((persons, dim), np.float32), np.random.default_rng(seed)
    made = np.empty((count, dim), np.float32)
    for first in range(0, count, 1 << 16):
        part = made[first : first + (1 << 16)]
        part[:] = centres[random.integers(persons, size=len(part))] + random.standard_normal(part.shape, np.float32)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return made


# ---- engines: each makes its file, then yields its settings ----------------------------------------------------------


def facenet_of(templates, folder: pathlib.Path) -> Iterator[Setting]:
    """A gallery with a person for each template, so that the K nearest persons are the K nearest templates."""
    import facenet

    embeddings, path = templates.embeddings, folder / "gallery"

    class MadeUp:
        info = {"digest": "0123456789abcdef", "architecture": "inception_resnet_v1", "normalise": "l2", "crop": "box",
                "embedding_dim": embeddings.shape[1], "input_size": 160, "margin": 0.0, "trained": False}  # fmt: skip

    with facenet.Gallery(path, threads=1) as gallery:
        gallery.add("0", embeddings[0], embedder=MadeUp())
        db = sqlite3.connect(path)
        same = "face, x1, y1, x2, y2, score, enrolled"
        columns = f"id, person, image, sha256, {same}, embedding"
        values = db.execute(f"SELECT {same} FROM template").fetchone()
        db.executemany("INSERT INTO person (id, name) VALUES (?, ?)", ((i + 1, str(i)) for i in range(1, len(embeddings))))
        rows = ((i + 1, i + 1, str(i), f"{i:064}", *values, e.tobytes()) for i, e in enumerate(embeddings) if i)
        db.executemany(f"INSERT INTO template ({columns}) VALUES ({','.join('?' * 12)})", rows)
        db.commit()
        db.close()
        yield "facenet, exact", lambda q: [match.template - 1 for match in gallery.search(q, K)]


def faiss_of(templates, folder: pathlib.Path, spec: str, settings: tuple[int, ...]) -> Iterator[Setting]:
    import faiss

    from facenet import export

    path = folder / "index.faiss"
    export.to_faiss(templates, path, spec)
    index = faiss.read_index(str(path))
    inner = faiss.downcast_index(index.index)
    for value in settings:
        words = f"FAISS {spec}"
        if spec.startswith("HNSW"):
            inner.hnsw.efSearch, words = value, f"{words}, efSearch {value}"
        elif spec.startswith("IVF"):
            inner.nprobe, words = value, f"{words}, nprobe {value}"
        yield words, lambda q: index.search(q[None], K)[1][0].tolist()


def sqlite_of(templates, folder: pathlib.Path) -> Iterator[Setting]:
    import sqlite_vec

    from facenet import export

    export.to_sqlite_vec(templates, folder / "vec.db")
    db = sqlite3.connect(folder / "vec.db")
    db.enable_load_extension(True)
    sqlite_vec.load(db)
    query = f"SELECT id FROM face_vec WHERE embedding MATCH ? AND k = {K} ORDER BY distance"
    yield "sqlite-vec, exact", lambda q: [row[0] for row in db.execute(query, (q.tobytes(),))]


def pgvector_of(templates, folder: pathlib.Path) -> Iterator[Setting]:
    import pgserver
    import psycopg

    from facenet import export

    server = pgserver.get_server(folder / "postgres")
    try:
        with psycopg.connect(server.get_uri(), options="-c maintenance_work_mem=1GB -c max_parallel_maintenance_workers=0") as db:
            export.to_postgres(templates, db)
            db.commit()
            db.autocommit = True
            global _other
            _other = psutil.Process(db.info.backend_pid)
            query = f"SELECT id FROM face ORDER BY embedding <-> %s::vector LIMIT {K}"
            for ef in (40, 100, 200):
                db.execute(f"SET hnsw.ef_search = {ef}")
                yield f"pgvector HNSW, ef_search {ef}", lambda q: [row[0] for row in db.execute(query, (json.dumps(q.tolist()),))]
    finally:
        server.cleanup()


_other: psutil.Process | None = None  # what computes, where this process only asks


def cpu() -> float:
    """Seconds of the process that computes."""
    return sum(_other.cpu_times()[:2]) if _other else time.process_time()


def size_of(folder: pathlib.Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and "pg_wal" not in path.parts)


def one(engine: str, data: pathlib.Path, folder: pathlib.Path) -> None:
    """Prints a line of JSON for each setting; the process that the parent starts."""
    from facenet import export

    queries, count = np.load(data / "queries.npy"), len(np.load(data / "templates.npy", mmap_mode="r"))
    templates = export.read(data / "templates.npy")
    clusters = 1 << max(4, int(np.log2(4 * count**0.5)))
    settings = {
        "facenet": lambda: facenet_of(templates, folder),
        "faiss-flat": lambda: faiss_of(templates, folder, "Flat", (0,)),
        "faiss-hnsw": lambda: faiss_of(templates, folder, "HNSW32", (16, 64, 256)),
        "faiss-sq8": lambda: faiss_of(templates, folder, f"IVF{clusters},SQ8", (8, 64)),
        "faiss-pq": lambda: faiss_of(templates, folder, f"IVF{clusters},PQ{templates.embeddings.shape[1] // 8}", (8, 64)),
        "sqlite-vec": lambda: sqlite_of(templates, folder),
        "pgvector": lambda: pgvector_of(templates, folder),
    }[engine]()
    began = time.process_time()
    for place, (words, search) in enumerate(settings):
        built = time.process_time() - began + (cpu() if _other else 0)
        search(queries[0])  # reads what is not in memory yet
        answers, before = [], cpu()
        for q in queries:
            answers.append(search(q))
        ms = 1e3 * (cpu() - before) / len(queries)
        print(json.dumps({"words": words, "build_s": built if place == 0 else None, "ms": ms, "bytes": size_of(folder), "answers": answers}), flush=True)


# ---- the table -------------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--templates", type=int, default=1_000_000, metavar="N", help="templates, a tenth as many persons (1000000)")
    add("--dim", type=int, default=512, metavar="N", help="numbers of an embedding (512)")
    add("--queries", type=int, default=200, metavar="N", help="queries, one at a time (200)")
    add("--engines", default=",".join(ENGINES), help="facenet, whose answers the others' are compared with, and others")
    add("--folder", type=pathlib.Path, default=ROOT / "build/indexes", metavar="DIR", help="for all files (build/indexes)")
    add("--write-docs", action="store_true", help="also write bench/results/indexes.md")
    add("--one", metavar="ENGINE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(options.one, options.folder, options.folder / options.one)
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    persons = max(1, options.templates // 10)
    np.save(options.folder / "templates.npy", faces(options.templates, persons, options.dim, 2))
    np.save(options.folder / "queries.npy", faces(options.queries, persons, options.dim, 3))
    lines = ["| engine | CPU ms a query | of our nearest | of our 10 nearest | files, MB | CPU s to make |", "|---|---|---|---|---|---|"]
    expected: list[list[int]] = []
    for engine in options.engines.split(","):
        folder = options.folder / engine
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        call = [sys.executable, __file__, "--one", engine, "--folder", str(options.folder)]
        done = subprocess.run(call, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            lines.append(f"| {engine} | it failed | | | | |")
        for found in map(json.loads, done.stdout.splitlines()):
            answers = found["answers"]
            expected = expected or answers
            first = statistics.mean(a[:1] == b[:1] for a, b in zip(answers, expected))
            ten = statistics.mean(len(set(a) & set(b)) / len(b) for a, b in zip(answers, expected))
            built = "" if found["build_s"] is None else f"{found['build_s']:.0f}"
            lines.append(f"| {found['words']} | {found['ms']:.2f} | {first:.3f} | {ten:.3f} | {found['bytes'] / 1e6:.0f} | {built} |")
            print(lines[-1], file=sys.stderr, flush=True)
        shutil.rmtree(folder, ignore_errors=True)
    with open("/proc/cpuinfo") as file:
        cpu_name = next((line.split(": ")[1].strip() for line in file if line.startswith("model name")), "an unknown CPU")
    head = f"{options.templates:,} × {options.dim} templates of {persons:,} persons, {options.queries} queries one at a time, one thread, {cpu_name}."
    page = "\n".join(["# Indexes beside our exact search", "", "Written by `bench/compare_indexes.py`. " + head, "", *lines, ""])
    print(page)
    if options.write_docs:
        (ROOT / "bench/results/indexes.md").write_text(page)


if __name__ == "__main__":
    main()
