"""The command as one file (preset `static`): built, and run where there is nothing but it, weights and pictures."""

from __future__ import annotations

import contextlib
import json
import pathlib
import shutil
import socket
import subprocess
import time

import pytest
from conftest import ROOT
from rest_service import Service, multipart
from test_command import COMMAND, facenet
from test_command import weights  # noqa: F401 (fixture)
from test_command_faces import ASTRONAUT, detector, network, scenes  # noqa: F401 (fixtures)
from test_detector import weight_file  # noqa: F401 (fixture)

LARGEST = 12_000_000  # bytes, which docs/service.md promises
pytestmark = [
    pytest.mark.long,
    pytest.mark.slow,
    pytest.mark.skipif(not COMMAND.exists(), reason=f"{COMMAND} is not built"),
    pytest.mark.skipif(not ASTRONAUT.exists(), reason=f"{ASTRONAUT} is not there: run tools/bootstrap.sh"),
]


@pytest.fixture(scope="module")
def one_file() -> pathlib.Path:
    for words in (["--preset", "static"], ["--build", "--preset", "static"]):
        done = subprocess.run(["cmake", *words], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return ROOT / "build/static/facenet"


@pytest.fixture
def empty(one_file, weights, weight_file, scenes, tmp_path) -> pathlib.Path:  # noqa: F811
    """A file system of these files."""
    root = tmp_path / "root"
    root.mkdir()
    for path, name in ((one_file, "facenet"), (weights, "weights"), (weight_file, "detector"), (scenes / "three.png", "three.png")):
        shutil.copy(path, root / name)
    return root


def inside(root: pathlib.Path, *words: object) -> list[str]:
    """As root of a namespace of users, so that anybody may test it."""
    return ["unshare", "--user", "--map-root-user", f"--root={root}", "--wd=/", "/facenet", *map(str, words)]


def run(root: pathlib.Path, *words: object, **environment: str) -> str:
    done = subprocess.run(inside(root, *words), capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


NETWORK = ("--weights", "/weights", "--detector", "/detector")


def test_it_is_one_small_file(one_file):
    assert one_file.stat().st_size <= LARGEST
    for file in (one_file, one_file.with_name("facenet-unpacked")):
        said = subprocess.run(["readelf", "--wide", "--program-headers", file], capture_output=True, text=True, check=True).stdout
        assert "LOAD" in said and "INTERP" not in said and "DYNAMIC" not in said


def test_it_embeds_where_there_is_nothing_else(empty, network, scenes):  # noqa: F811
    expected = [json.loads(line) for line in facenet("embed", "--json", *network, scenes / "three.png").stdout.splitlines()]
    for forced in ({}, {"FACENET_FORCE_ISA": "sse4"}, {"FACENET_FORCE_ISA": "avx2"}):
        said = [json.loads(line) for line in run(empty, "embed", "--json", *NETWORK, "/three.png", **forced).splitlines()]
        assert len(said) == len(expected) == 3
        for one, other in zip(said, expected):
            assert one["embedding"] == pytest.approx(other["embedding"], abs=1e-5)
    assert run(empty, "--version").startswith("facenet ")


def test_it_serves_where_there_is_nothing_else(empty, scenes):  # noqa: F811
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(inside(empty, "serve", *NETWORK, "--listen", f"127.0.0.1:{port}", "--gallery", "/staff.gallery"), env={})
    try:
        service = Service(f"127.0.0.1:{port}", process)
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                assert service.call("GET", "/health", key=None).status == 200
                break
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        body, kind = multipart([("file", "one.png", (scenes / "one.png").read_bytes())])
        assert service.call("POST", "/api/v1/recognition/faces", body, content_type=kind, key=None, subject="Ada").status == 201
        found = service.call("POST", "/api/v1/recognition/recognize", body, content_type=kind, key=None).json["result"]
        assert found[0]["subjects"][0]["subject"] == "Ada"
        assert (empty / "staff.gallery").exists()
    finally:
        process.terminate()
        assert process.wait(60) == 0
