"""Fixtures: one synthetic checkpoint a run, made with the tools themselves."""

from __future__ import annotations

import contextlib
import importlib
import io
import pathlib
import subprocess
import sys
from typing import NamedTuple
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOLS = ROOT / "tools"
sys.path.insert(0, str(TOOLS))


class Result(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def run_tool(tool: str, *arguments: object) -> Result:
    """Runs tools/<tool> in this process: importing torch anew takes longer than most of the calls."""
    from facenet_tools import cli

    main = importlib.import_module(tool.removesuffix(".py")).main
    stdout, stderr, status = io.StringIO(), io.StringIO(), 0
    argv = [str(TOOLS / tool), *map(str, arguments)]
    with mock.patch("sys.argv", argv), contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        try:
            cli.run(main)
        except SystemExit as end:
            status = end.code or 0
    return Result(status, stdout.getvalue(), stderr.getvalue())


def run_process(tool: str, *arguments: object) -> Result:
    """Runs tools/<tool> as a user does, by its first line."""
    done = subprocess.run([TOOLS / tool, *map(str, arguments)], capture_output=True, text=True, check=False)
    return Result(done.returncode, done.stdout, done.stderr)


def assert_one_error(result: Result, *parts: str) -> None:
    """Exit status 2, nothing on stdout, no traceback, and each part named."""
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    for part in parts:
        assert part in result.stderr


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes most of a minute; only tools/test.sh --all runs it")


@pytest.fixture(scope="session")
def checkpoint_file(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A 128-d checkpoint calibrated on made-up pictures, so that it needs no samples."""
    path = tmp_path_factory.mktemp("checkpoint") / "synthetic.pt"
    result = run_tool("make_checkpoint.py", "--dim", 128, "--seed", 3, "-o", path, "--images")
    assert result.returncode == 0, result.stderr
    return path


@pytest.fixture(scope="session")
def state(checkpoint_file: pathlib.Path) -> dict[str, torch.Tensor]:
    return torch.load(checkpoint_file, weights_only=True)


@pytest.fixture(scope="session")
def two_pictures(tmp_path_factory: pytest.TempPathFactory) -> list[pathlib.Path]:
    """Files for --pictures: the photographs that are tried without it take seconds."""
    from facenet_tools import pictures

    random, folder = np.random.default_rng(4), tmp_path_factory.mktemp("pictures")
    paths = [folder / "a.png", folder / "b.png"]
    for path in paths:
        Image.fromarray(pictures.structured(random)).save(path)
    return paths


@pytest.fixture(scope="session")
def converted(
    checkpoint_file: pathlib.Path, two_pictures: list[pathlib.Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, pathlib.Path]:
    """The checkpoint converted to each dtype."""
    folder = tmp_path_factory.mktemp("converted")
    files = {dtype: folder / f"{dtype}.safetensors" for dtype in ("f32", "f16", "i8")}
    for dtype, path in files.items():
        options = ("--dtype", dtype, "--pictures", *two_pictures)
        result = run_tool("convert_weights.py", checkpoint_file, "-o", path, *options)
        assert result.returncode == 0, result.stderr
    return files
