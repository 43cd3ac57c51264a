#!/usr/bin/env python3
"""Many pictures on two local workers of Ray and of Dask, one of which is killed in the middle.

Checks that no picture is lost or doubled, that every number is to the bit what one process gives, that another run does nothing, and
that failures are listed. Then, apart from that, prints how many pictures of 1 MP one and two workers do a second.

Pictures, weights and results lie in --folder and are used again; what an engine wrote is deleted first. Needs pyarrow and psutil,
and "ray[data]" or "dask[distributed]"; python/facenet of a build folder on PYTHONPATH, or an installed package.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import io
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time
from typing import Callable

import numpy as np
import psutil
from PIL import Image
from pyarrow import parquet

ROOT = pathlib.Path(__file__).resolve().parents[2]
PORTRAIT = ROOT / ".deps/samples/astronaut.png"
FIELDS = ("path", "face", "box", "score", "landmarks", "embedding", "error")


def say(words: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {words}", flush=True)


# ---- pictures --------------------------------------------------------------------------------------------------------


def picture(number: int, size: tuple[int, int], portrait: Image.Image) -> Image.Image:
    """Smooth noise with no, one or two faces, of another size, place and brightness in each."""
    random = np.random.default_rng(number)
    small = random.integers(0, 256, (6, 8, 3), np.uint8)
    made = Image.fromarray(small).resize(size, Image.BICUBIC)
    for _ in range(int(random.choice(3, p=(0.2, 0.6, 0.2)))):
        side = int(size[1] * random.uniform(0.35, 0.75))
        face = portrait.resize((side, side), Image.BILINEAR).point([min(255, int(v * random.uniform(0.7, 1.2))) for v in range(256)] * 3)
        made.paste(face, (int(random.integers(size[0] - side)), int(random.integers(size[1] - side))))
    return made


def make_some(folder: pathlib.Path, numbers: range, size: tuple[int, int]) -> None:
    portrait = Image.open(PORTRAIT).convert("RGB").crop((120, 10, 360, 250))
    for number in numbers:
        path = folder / f"{number // 1000:03}" / f"{number:06}.jpg"
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        data = io.BytesIO()
        picture(number, size, portrait).save(data, "JPEG", quality=85)
        whole = data.getvalue()
        new = path.with_suffix(".new")
        # In a hundred one is cut short and one is no picture.
        new.write_bytes({17: whole[: len(whole) // 2], 58: b"no picture"}.get(number % 100, whole))
        new.rename(path)


def make_pictures(folder: pathlib.Path, count: int, size: tuple[int, int], processes: int) -> list[str]:
    step = max(1, count // (8 * processes))
    with concurrent.futures.ProcessPoolExecutor(processes) as pool:
        for done in [pool.submit(make_some, folder, range(i, min(i + step, count)), size) for i in range(0, count, step)]:
            done.result()
    return [str(folder / f"{i // 1000:03}" / f"{i:06}.jpg") for i in range(count)]


def make_weights(folder: pathlib.Path) -> pathlib.Path:
    """Untrained ones: what is checked does not depend on them."""
    checkpoint, weights = folder / "synthetic.pt", folder / "weights.safetensors"
    if not weights.exists():
        say("make untrained weights")
        subprocess.run([ROOT / "tools/make_checkpoint.py", "--seed", "3", "-o", checkpoint], check=True, stdout=subprocess.DEVNULL)
        subprocess.run([ROOT / "tools/convert_weights.py", checkpoint, "-o", weights], check=True, stdout=subprocess.DEVNULL)
    return weights


# ---- engines ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def ray_of(workers: int):
    """(embed, the processes that are in a part)"""
    import ray

    import facenet.ray

    ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="error", object_store_memory=200 << 20)
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        yield facenet.ray.embed, lambda: [p for p in psutil.Process().children(recursive=True) if "ray::Map(_do)" in " ".join(p.cmdline())]
    finally:
        ray.shutdown()


@contextlib.contextmanager
def dask_of(workers: int):
    import distributed

    import facenet.dask

    with distributed.LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster, distributed.Client(cluster) as client:
        client.wait_for_workers(workers)

        def embed(*arguments, **options):
            return facenet.dask.embed(*arguments, client=client, **options)

        yield embed, lambda: [psutil.Process(pid) for pid in client.run(os.getpid).values()]


ENGINES = {"ray": ray_of, "dask": dask_of}


def kill_one(output: pathlib.Path, after: int, working: Callable[[], list[psutil.Process]], killed: list[int]) -> None:
    """When so many parts are there, a worker ends without a word."""
    while not killed:
        time.sleep(0.02)
        if len(list(output.glob("part-*"))) < after:
            continue
        for process in working():
            with contextlib.suppress(psutil.NoSuchProcess):
                os.kill(process.pid, signal.SIGKILL)
                killed.append(process.pid)
                say(f"killed worker {process.pid} after {len(list(output.glob('part-*')))} parts; it was {process.name()}")
                return


def table_of(folder: pathlib.Path) -> list[dict]:
    found = [row for path in folder.glob("part-*.parquet") for row in parquet.read_table(path).to_pylist()]
    return sorted(found, key=lambda row: (row["path"], row["face"] or 0))


def check(name: str, engine, paths: list[str], output: pathlib.Path, expected: list[dict], options: dict) -> bool:
    from facenet import batches

    killed: list[int] = []
    parts = -(-len(paths) // options["part"])
    with engine(2) as (embed, working):
        threading.Thread(target=kill_one, args=(output, parts // 4, working, killed), daemon=True).start()
        began = time.perf_counter()
        run = embed(paths, output, **options)
        seconds = time.perf_counter() - began
        say(f"{name}: {run.pictures} pictures, {run.faces} faces, {run.failed} failures in {run.parts} parts, {seconds:.1f} s; unfinished: {dict(run.unfinished)}")
        before = {path: path.stat().st_mtime_ns for path in output.glob("part-*")}
        began = time.perf_counter()
        again = embed(paths, output, **options)
        seconds = time.perf_counter() - began
    idle = again == run._replace(parts_before=run.parts) and before == {path: path.stat().st_mtime_ns for path in output.glob("part-*")}
    say(f"{name}: another run {'did nothing' if idle else 'DID SOMETHING'}, {seconds:.2f} s")
    rows = table_of(output)
    held = [row["path"] for row in rows if not row["face"]]
    lost, doubled = len(set(paths) - set(held)), len(held) - len(set(held))
    different = sum(a != b for a, b in zip(rows, expected)) + abs(len(rows) - len(expected))  # floats as they are: equal to the bit
    listed = sorted((f.path, f.error) for f in batches.failures(output)) == sorted((row["path"], row["error"]) for row in expected if row["error"])
    say(f"{name}: {lost} lost, {doubled} doubled, {different} of {len(rows)} rows differ from one process's; failures {'listed' if listed else 'NOT LISTED'}")
    return bool(killed and idle and listed) and (lost, doubled, different, len(run.unfinished)) == (0, 0, 0, 0)


def throughput(name: str, engine, paths: list[str], output: pathlib.Path, options: dict) -> None:
    """Pictures a second, from the first part's end to the last's: without the start of workers."""
    rates = []
    for workers in (1, 2):
        times: list[float] = []
        shutil.rmtree(output, ignore_errors=True)
        with engine(workers) as (embed, _):
            embed(paths, output, **options, part=4, progress=lambda *_: times.append(time.perf_counter()))
        rates.append(4 * (len(times) - workers) / (times[-1] - times[workers - 1]))
    say(f"{name}: {rates[0]:.2f} pictures of 1 MP a second by one worker, {rates[1]:.2f} by two: {rates[1] / rates[0]:.2f} times as many")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--engines", default="ray,dask", help="ray,dask")
    add("--pictures", type=int, default=20_000, metavar="N", help="pictures (20000), two in a hundred damaged")
    add("--part", type=int, default=64, metavar="N", help="pictures of a part (64)")
    add("--size", default="320x240", metavar="WxH", help="of the pictures (320x240)")
    add("--throughput", type=int, default=160, metavar="N", help="pictures of 1 MP for the throughput (160; 0: it is left out)")
    add("--folder", type=pathlib.Path, default=ROOT / "build/scale", metavar="DIR", help="where all of it lies (build/scale)")
    add("--weights", type=pathlib.Path, metavar="FILE", help="the embedder's (made, untrained)")
    add("--detector", type=pathlib.Path, default=ROOT / "weights/mtcnn.safetensors", metavar="FILE", help="(weights/mtcnn.safetensors)")
    given = parser.parse_args()
    import facenet
    from facenet import batches

    folder = given.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    width, height = map(int, given.size.split("x"))
    weights = given.weights or make_weights(folder)
    options = {"detector": facenet.Detector(given.detector, threads=1), "embedder": facenet.Embedder(weights, threads=1)}
    say(f"facenet {facenet.__version__}, {facenet.isa()}, {os.cpu_count()} CPUs")
    paths = make_pictures(folder / f"pictures-{given.size}", given.pictures, (width, height), 2)
    say(f"{len(paths)} pictures of {given.size}")
    for old in ("one", *ENGINES):
        shutil.rmtree(folder / old, ignore_errors=True)
    began = time.perf_counter()
    run = batches.embed(paths, folder / "one", part=given.part, **options)
    say(f"one process: {run.faces} faces, {run.failed} failures, {time.perf_counter() - began:.1f} s")
    expected, ok = table_of(folder / "one"), True
    big = make_pictures(folder / "pictures-1200x840", given.throughput, (1200, 840), 2) if given.throughput else []
    for name in given.engines.split(","):
        ok = check(name, ENGINES[name], paths, folder / name, expected, {**options, "part": given.part}) and ok
        if big:
            throughput(name, ENGINES[name], big, folder / "throughput", options)
    say("all is well" if ok else "SOMETHING IS WRONG")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
