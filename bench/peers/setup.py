"""Installs the peers and converts the checkpoint for each. Standard library only: it makes the venv it would need.

Every step leaves its result under a final name only when it is complete, so a killed run goes on where it was.
A step that fails is a reason in the table, not the end of the run.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv-peers"
PYTHON = VENV / "bin" / "python"
TOOLS_PYTHON = ROOT / ".venv" / "bin" / "python"
BUILD = ROOT / "build" / "peers"
LIBRARY_TARGET = "facenet_peer_api"

# Tested versions; where one does not install (another Python), the newest that does is taken and the table names it.
REQUIREMENTS = {
    "report": ["numpy==2.4.6", "matplotlib==3.11.2", "packaging==26.3"],
    "onnxruntime": ["onnxruntime==1.32.0"],
    "openvino": ["openvino==2026.4.1"],
    "onnxruntime-int8": ["onnx==1.23.2"],  # the quantisers; what they make runs without them
    "openvino-int8": ["nncf==3.4.0"],
    "ncnn": ["ncnn==1.0.20261020"],
    "mnn": ["MNN==3.6.1"],
    "opencv": ["opencv-python-headless==5.0.0.93"],
    "torch": ["torch==2.15.0", "requests==2.34.2", "tqdm==4.70.1"],
    "search": ["numpy==2.4.6", "faiss-cpu==1.15.1", "scikit-learn==1.9.1", "threadpoolctl==3.8.0"],  # compare_search.py
}
# Without their dependencies: pnnx's program is complete in itself and asks for torch, facenet-pytorch pins an old torch.
BARE = {"ncnn": ["pnnx==20261020"], "torch": ["facenet-pytorch==2.6.0"]}
DISTRIBUTION = {"onnxruntime": "onnxruntime", "openvino": "openvino", "ncnn": "ncnn", "mnn": "MNN",
                "opencv": "opencv-python-headless", "torch": "torch"}
TORCH_DISK_BYTES = 12e9  # PyPI's torch for x86-64 Linux brings CUDA: 3 GB of wheels, 5.4 GB unpacked

PEERS = ("onnxruntime", "openvino", "ncnn", "mnn", "opencv", "torch-channels-last", "torch")
OURS = ("facenet", "facenet-half", "facenet-int8")
# With --int8: what the three fastest in floats make of int8, too.
INT8_PEERS = (*PEERS, "openvino-int8", "onnxruntime-int8", "ncnn-int8")


class SetupError(Exception):
    """A sentence for the user."""


def say(text: str) -> None:
    print(f"compare_peers: {text}", file=sys.stderr, flush=True)


def peer_environment(threads: int | None = None) -> dict[str, str]:
    """The environment of every peer's process: nothing of ours that slows or steers a BLAS or OpenMP."""
    steering = ("OPENBLAS_", "OMP_", "GOMP_", "KMP_", "MKL_", "PYTHONPATH", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(steering)}
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    return environment


def package_of(peer: str) -> str:
    return "torch" if peer.startswith("torch") else peer.removesuffix("-int8")


def groups_of(peer: str) -> list[str]:
    """The groups of REQUIREMENTS that a peer needs."""
    return [group for group in (package_of(peer), peer) if group in REQUIREMENTS]


def run_logged(command: list[str], name: str, cwd: pathlib.Path = ROOT, environment: dict | None = None) -> str | None:
    """Runs a command with its output in build/peers/log/NAME.txt; returns why it failed, or None."""
    log = BUILD / "log" / f"{name}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with open(log, "w") as file:
        try:
            status = subprocess.run(command, cwd=cwd, env=environment or peer_environment(), stdin=subprocess.DEVNULL,
                                    stdout=file, stderr=subprocess.STDOUT).returncode
        except OSError as error:
            return f"{error.strerror}: {pathlib.Path(command[0]).name}"
    if status == 0:
        say(f"{name}: {time.monotonic() - start:.1f} s")
        return None
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    telling = [line for line in lines if re.search(r"error", line, re.IGNORECASE)] or lines or ["no output"]
    return f"{name} failed (status {status}): {telling[-1][:160]}"


# ---- the venv

def make_venv() -> None:
    if PYTHON.exists() and (VENV / ".gitignore").exists():
        return
    base = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable
    shutil.rmtree(VENV, ignore_errors=True)
    problem = run_logged([base, "-m", "venv", str(VENV)], "create .venv-peers")
    if problem:
        raise SetupError(f"{problem}; on Debian, install python3-venv.")
    (VENV / ".gitignore").write_text("*\n")  # the venv hides itself from git


def installed_versions() -> dict[str, str]:
    """Distribution names in lower case with - for _."""
    found = {}
    for info in importlib.metadata.distributions(path=[str(p) for p in VENV.glob("lib/python3*/site-packages")]):
        name = info.metadata["Name"]
        if name:
            found[re.sub(r"[-_.]+", "-", name).lower()] = info.version
    return found


def pip_install(requirements: list[str], name: str, *flags: str) -> str | None:
    command = [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", *flags]
    problem = run_logged([*command, *requirements], name)
    if problem:
        unpinned = [requirement.split("==")[0] for requirement in requirements]
        say(f"{problem}; trying the newest versions")
        problem = run_logged([*command, *unpinned], name)
    return problem


def install(group: str) -> str | None:
    """Installs a group unless all of it is there (in whatever version); returns why it failed, or None."""
    have = installed_versions()

    def absent(requirements: list[str]) -> list[str]:
        return [r for r in requirements if re.sub(r"[-_.]+", "-", r.split("==")[0]).lower() not in have]

    wanted, bare = absent(REQUIREMENTS[group]), absent(BARE.get(group, []))
    problem = None
    if wanted:
        say(f"installing {' '.join(wanted)}" + (" (5.4 GB with the CUDA parts it insists on)" if group == "torch" else ""))
        problem = pip_install(wanted, f"install {group}", *(["--no-cache-dir"] if group == "torch" else []))
    if bare and not problem:
        problem = pip_install(bare, f"install {group} tools", "--no-deps")
    return problem


def use_debian_torch(choice: str) -> bool:
    if choice != "auto":
        return choice == "debian"
    return "torch" not in installed_versions() and shutil.disk_usage(ROOT).free < TORCH_DISK_BYTES


def install_peers(peers: list[str], torch: str) -> tuple[dict[str, str], bool]:
    """Returns why peers cannot run (by name), and whether torch is Debian's."""
    failed: dict[str, str] = {}
    debian = use_debian_torch(torch)
    for group in dict.fromkeys(group for peer in peers if peer not in OURS for group in groups_of(peer)):
        if group == "torch" and debian:
            continue
        problem = install(group)
        if problem and group == "torch" and torch == "auto":
            say(f"{problem}; using Debian's PyTorch")
            debian = True
        elif problem:
            failed.update({peer: problem for peer in peers if group in groups_of(peer)})
    return failed, debian


def installed_bytes(peer: str, debian_torch: bool, library: pathlib.Path) -> int | None:
    """Files of the peer and of what it requires; numpy, which only the Python binding needs, is left out for all."""
    if peer in OURS:
        files = [*(ROOT / "include" / "facenet").rglob("*.hpp"), library]
        return sum(file.stat().st_size for file in files)
    if package_of(peer) == "torch" and debian_torch:
        query = subprocess.run(["dpkg-query", "-W", "-f", "${Installed-Size}\n", "python3-torch", "libtorch1.13"],
                               capture_output=True, text=True)
        return sum(map(int, query.stdout.split())) * 1024 or None
    from packaging.requirements import Requirement  # of .venv-peers, where this runs

    seen: set[tuple[str, tuple[str, ...]]] = set()

    def size(name: str, extras: tuple[str, ...] = ()) -> int:
        key = re.sub(r"[-_.]+", "-", name).lower()
        if (key, extras) in seen or key == "numpy":
            return 0
        counted = any(key == other for other, _ in seen)
        seen.add((key, extras))
        try:
            info = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            return 0
        files = [] if counted else [pathlib.Path(info.locate_file(file)) for file in info.files or []]
        total = sum(file.stat().st_size for file in files if file.is_file())
        for requirement in map(Requirement, info.requires or []):
            if requirement.marker is None or any(requirement.marker.evaluate({"extra": e}) for e in ("", *extras)):
                total += size(requirement.name, tuple(sorted(requirement.extras)))
        return total

    return size(DISTRIBUTION[package_of(peer)]) or None


# ---- the models

def sha256(path: pathlib.Path) -> str:
    """Of a file, or of the files of face-api's network in a folder."""
    digest = hashlib.sha256()
    for part in sorted(path.rglob("face_recognition_model*")) if path.is_dir() else [path]:
        with open(part, "rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
    return digest.hexdigest()


def ensure_tools_venv() -> None:
    check = [str(TOOLS_PYTHON), "-c", "import torch, facenet_pytorch"]
    if TOOLS_PYTHON.exists() and subprocess.run(check, capture_output=True).returncode == 0:
        return
    say("making the project's .venv (tools/bootstrap.sh)")
    if subprocess.run([str(ROOT / "tools" / "bootstrap.sh")], cwd=ROOT).returncode:
        raise SetupError("tools/bootstrap.sh failed, and exporting the checkpoint needs its .venv; see its output above.")


def find_checkpoint(given: str | None) -> pathlib.Path:
    path = pathlib.Path(given) if given else ROOT / "weights" / "test512.pt"
    if path.is_file() or (path / "model" / "face_recognition_model-weights_manifest.json").is_file():
        return path
    if given:
        raise SetupError(f"{given}: there is no such file; give a state_dict (.pt), or the folder of face-api "
                         "(.deps/face-api).")
    say("making weights/test512.pt, an untrained checkpoint")
    problem = run_logged([str(TOOLS_PYTHON), "tools/make_checkpoint.py", "-o", str(path)], "make checkpoint")
    if problem:
        raise SetupError(f"{problem}; see build/peers/log/.")
    return path


def atomically(folder: pathlib.Path, names: list[str], step) -> str | None:
    """step(temporary folder) makes the named files; they move into the folder together once all are there."""
    if all((folder / name).exists() for name in names):
        return None
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".part-") as temporary:
        work = pathlib.Path(temporary)
        problem = step(work)
        if problem:
            return problem
        lacking = [name for name in names if not (work / name).exists()]
        if lacking:
            return f"the converter wrote no {', '.join(lacking)}"
        for name in names:
            os.replace(work / name, folder / name)
    return None


def export(checkpoint: pathlib.Path, folder: pathlib.Path, batches: list[int]) -> None:
    script = ROOT / "bench" / "peers" / "export_model.py"
    names = ["state.pt", "model.pt", "model.onnx", *(f"model_{b}.onnx" for b in batches), "images.npy", "reference.npy",
             "info.json"]
    problem = atomically(folder, names, lambda work: run_logged(
        [str(TOOLS_PYTHON), str(script), str(checkpoint.resolve()), str(work), "--batches", *map(str, batches)],
        "export model"))
    if problem:
        raise SetupError(f"{problem}; see build/peers/log/.")


def to_ncnn(folder: pathlib.Path, side: int) -> str | None:
    programs = list(VENV.glob("lib/python3*/site-packages/pnnx/pnnx"))
    if not programs:
        return "pnnx, ncnn's converter, has no program in its package"

    def convert(work: pathlib.Path) -> str | None:
        os.symlink(folder / "model.pt", work / "model.pt")
        return run_logged([str(programs[0]), "model.pt", f"inputshape=[1,3,{side},{side}]", "fp16=0"], "convert to ncnn", work)

    return atomically(folder, ["model.ncnn.param", "model.ncnn.bin"], convert)


def to_mnn(folder: pathlib.Path, side: int) -> str | None:
    # Not the mnnconvert command: that one runs `pip install` of a logging package into whatever Python is first on PATH.
    code = ("import sys, MNN, _tools; "
            "_tools.mnnconvert(['mnnconvert', '-f', 'ONNX', '--modelFile', sys.argv[1], '--MNNModel', sys.argv[2], "
            "'--bizCode', 'facenet'])")
    return atomically(folder, ["model.mnn"], lambda work: run_logged(
        [str(PYTHON), "-c", code, str(folder / "model.onnx"), str(work / "model.mnn")], "convert to MNN"))


def to_ours(folder: pathlib.Path, checkpoint: pathlib.Path) -> str | None:
    # --untrained only marks the copy in the cache: nobody compares faces with it.
    option = "--face-api" if checkpoint.is_dir() else "--untrained"
    return atomically(folder, ["model.safetensors"], lambda work: run_logged(
        [str(TOOLS_PYTHON), "tools/convert_weights.py", str(checkpoint.resolve()), "-o", str(work / "model.safetensors"),
         option], "convert to facenet"))


def quantisers() -> str:
    """Of all that decides what int8 files hold, besides the peers' versions and the checkpoint: another tool makes other files."""
    files = [*(ROOT / "tools").glob("convert_weights.py"), *(ROOT / "tools" / "facenet_tools").glob("*.py"),
             *(ROOT / "bench" / "peers").glob("*faces.py"), *(ROOT / "bench" / "peers").glob("quantise.py"),
             *(ROOT / ".deps" / "samples").glob("*.*")]
    return hashlib.sha256("".join(sha256(file) for file in sorted(files)).encode()).hexdigest()[:16]


def to_our_int8(folder: pathlib.Path, checkpoint: pathlib.Path) -> str | None:
    return atomically(folder, ["facenet.safetensors"], lambda work: run_logged(
        [str(TOOLS_PYTHON), "tools/convert_weights.py", str(checkpoint.resolve()), "-o", str(work / "facenet.safetensors"),
         "--untrained", "--dtype", "i8", "--calibrate", "default"], "convert to facenet int8"))


def calibration_faces(folder: pathlib.Path, checkpoint: pathlib.Path) -> str | None:
    """What all quantise from, and what their errors are of."""
    script = ROOT / "bench" / "peers" / "calibration_faces.py"
    return atomically(folder, ["faces.npy", "faces_reference.npy"], lambda work: run_logged(
        [str(TOOLS_PYTHON), str(script), str(checkpoint.resolve()), str(work)], "calibration faces"))


def quantise(peer: str, model: pathlib.Path, folder: pathlib.Path, files: list[str]) -> str | None:
    """The peer's own quantiser on the faces that our tool calibrates on."""
    scripts = ROOT / "bench" / "peers"
    return atomically(folder, files, lambda work: run_logged(
        [str(PYTHON), str(scripts / "quantise.py"), package_of(peer), str(model), str(folder / "faces.npy"), str(work)],
        f"quantise for {peer}"))


def convert(checkpoint: pathlib.Path, peers: list[str], batches: list[int], failed: dict[str, str]) -> dict:
    """Converts for every peer that may still run; adds to `failed`. Returns the paths the workers need and the dim."""
    digest = sha256(checkpoint)
    # The pictures are as many as the largest batch, so the batches are part of the key.
    folder = BUILD / f"{digest[:16]}-{'-'.join(map(str, batches))}"
    export(checkpoint, folder, batches)
    info = json.loads((folder / "info.json").read_text())
    problem = to_ours(folder, checkpoint)  # without our rows too: it says how much work a picture is
    if problem:
        raise SetupError(f"{problem}; see build/peers/log/.")
    int8 = f"int8-{quantisers()}"
    steps = {
        "ncnn": lambda: to_ncnn(folder, info["side"]),
        "mnn": lambda: to_mnn(folder, info["side"]),
        "facenet-int8": lambda: to_our_int8(folder / int8, checkpoint),
        "openvino-int8": lambda: quantise("openvino-int8", folder / "model.onnx", folder / int8, ["model.xml", "model.bin"]),
        "onnxruntime-int8": lambda: quantise("onnxruntime-int8", folder / "model.onnx", folder / int8, ["model.onnx"]),
        "ncnn-int8": lambda: to_ncnn(folder, info["side"]) or quantise(
            "ncnn-int8", folder / "model.ncnn.param", folder / int8, ["model.ncnn.param", "model.ncnn.bin"]),
    }
    problem_of_faces = calibration_faces(folder / int8, checkpoint) if any(peer.endswith("-int8") for peer in peers) else None
    for peer in peers:
        if peer in steps and peer not in failed:
            problem = (problem_of_faces if peer.endswith("-int8") else None) or steps[peer]()
            if problem:
                failed[peer] = problem
    models = {"onnx": "model.onnx", "ncnn_param": "model.ncnn.param", "ncnn_bin": "model.ncnn.bin", "mnn": "model.mnn",
              "state": "state.pt", "torchscript": "model.pt", "safetensors": "model.safetensors", "images": "images.npy",
              "reference": "reference.npy", "facenet_int8": f"{int8}/facenet.safetensors", "openvino_int8": f"{int8}/model.xml",
              "onnxruntime_int8": f"{int8}/model.onnx", "ncnn_int8_param": f"{int8}/model.ncnn.param",
              "ncnn_int8_bin": f"{int8}/model.ncnn.bin", "faces": f"{int8}/faces.npy",
              "faces_reference": f"{int8}/faces_reference.npy", **{f"onnx_{b}": f"model_{b}.onnx" for b in batches}}
    return {"sha256": digest, "name": checkpoint.name, "architecture": info["architecture"], "dim": info["dim"],
            "side": info["side"], "opset": info["opset"],
            "paths": {name: str(folder / file) for name, file in models.items()}}


# ---- our own library

def build_library(given: str | None) -> pathlib.Path:
    """Builds (or finds) the library with our engine and the machine's peak."""
    if given:
        path = pathlib.Path(given).resolve()
        if not path.is_file():
            raise SetupError(f"{given}: there is no such library.")
        return path
    jobs = str(os.cpu_count() or 1)
    for name, command in (("configure", ["cmake", "--preset", "release"]),
                          ("build library", ["cmake", "--build", str(ROOT / "build" / "release"), "--target",
                                             LIBRARY_TARGET, "-j", jobs])):
        problem = run_logged(command, name, environment=dict(os.environ))
        if problem:
            raise SetupError(f"{problem}; see build/peers/log/, or give a built one with --library.")
    found = sorted((ROOT / "build" / "release").rglob(f"lib{LIBRARY_TARGET}.so"))
    if not found:
        raise SetupError(f"the build made no lib{LIBRARY_TARGET}.so under build/release.")
    return found[0]
