"""Fixtures: one synthetic checkpoint for all tests, made with the tools themselves; and a place that is the same for everybody.

Nothing of the caller's reaches a test: environment, umask, locale, signals, current folder and home are replaced here, so that
`weights/` and a variable of the tester's cannot decide a test. A test that wants one of them sets it itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import importlib
import io
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
from typing import Callable, NamedTuple
from unittest import mock

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOLS = ROOT / "tools"
sys.path.insert(0, str(TOOLS))

# What a test may see of the caller's environment: where programs are, and what says which tests are meant.
KEPT = {"PATH", "USER", "LOGNAME", "SHELL", "TERM", "FACENET_BUILD", "FACENET_LONG", "FACENET_RECIPE", "FACENET_COMPLETE"}
KEPT_PREFIXES = ("PYTEST_", "CCACHE_")


def clean_environment() -> None:
    """Before anything reads it: this module is imported ahead of the tests, in each worker."""
    for name in list(os.environ):
        if name not in KEPT and not name.startswith(KEPT_PREFIXES):
            del os.environ[name]
    os.environ |= {"LC_ALL": "C.UTF-8", "MPLCONFIGDIR": str(ROOT / "build/matplotlib"), "PYTHONDONTWRITEBYTECODE": "1"}
    tempfile.tempdir = None  # was chosen by TMPDIR
    sys.warnoptions.clear()  # PYTHONWARNINGS and -W have been read already
    warnings.resetwarnings()
    os.umask(0o022)
    # What a shell starts with & or nohup ignores these, and so would all that a test starts and interrupts.
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


clean_environment()  # ahead of libraries that read it when they are loaded

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402

torch.set_num_threads(1)  # a worker for each core is there already; and the tools set it too


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
    config.addinivalue_line("markers", "long: takes minutes; only tools/test.sh --long runs it")


# Reasons for which tools/test.sh, which has built everything, takes no skipped test.
INCOMPLETE = ("is not built", "build/golden", "is not made")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    report = (yield).get_result()
    if "FACENET_COMPLETE" not in os.environ or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if any(part in reason for part in INCOMPLETE):
        report.outcome, report.longrepr = "failed", f"{reason}\nThis test was skipped, and should have run."


@pytest.fixture(scope="session", autouse=True)
def empty_place(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The current folder of every test and of what it starts; nothing is in it, nor in HOME."""
    place, home = tmp_path_factory.mktemp("place"), tmp_path_factory.mktemp("home")
    os.environ["HOME"] = str(home)
    os.chdir(place)
    return place


@pytest.fixture(autouse=True)
def same_for_everybody(empty_place: pathlib.Path):
    """What a test changes of the process ends with it; a file that it leaves in the current folder fails it. What tools of
    others leave in HOME (cargo, go, npm) is no fault, and goes."""
    environment = dict(os.environ)
    yield
    for path in pathlib.Path(environment["HOME"]).iterdir():
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() and not path.is_symlink() else path.unlink()
    os.environ.clear()
    os.environ |= environment
    os.umask(0o022)
    os.chdir(empty_place)
    left = sorted(path.name for path in empty_place.iterdir())
    for name in left:
        path = empty_place / name
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    assert not left, f"left in the current folder: {left}"


@functools.lru_cache(None)
def _tools_key() -> str:
    """What the tools are: another text of theirs, or another PyTorch, makes other fixtures."""
    digest = hashlib.sha256(f"{torch.__version__} {sys.version} {np.__version__}".encode())
    for path in sorted([*TOOLS.glob("*.py"), *TOOLS.glob("facenet_tools/**/*.py"), pathlib.Path(__file__)]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def made_once(name: str, make: Callable[[pathlib.Path], None]) -> pathlib.Path:
    """build/fixtures/KEY/name, a folder that make() fills: once for all workers and all runs with the same tools."""
    fixtures = ROOT / "build/fixtures"
    fixtures.mkdir(parents=True, exist_ok=True)
    with open(fixtures / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = fixtures / f"{name}.{_tools_key()}"
        if not done.exists():
            for old in fixtures.glob(f"{name}.*"):
                if old.is_dir():
                    shutil.rmtree(old)
            new = fixtures / f"{name}.new"  # one of a run that was killed was among the old
            new.mkdir()
            make(new)
            new.rename(done)
    return done


def _tool(*arguments: object) -> None:
    result = run_tool(*arguments)
    assert result.returncode == 0, result.stderr


@pytest.fixture(scope="session")
def checkpoint_file() -> pathlib.Path:
    """A 128-d checkpoint calibrated on made-up pictures, so that it needs no samples."""
    make = functools.partial(_tool, "make_checkpoint.py", "--dim", 128, "--seed", 3, "--images", "-o")
    return made_once("checkpoint", lambda folder: make(folder / "synthetic.pt")) / "synthetic.pt"


@pytest.fixture(scope="session")
def checkpoint512() -> pathlib.Path:
    """The same with 512 numbers."""
    make = functools.partial(_tool, "make_checkpoint.py", "--seed", 5, "--images", "-o")
    return made_once("checkpoint512", lambda folder: make(folder / "synthetic512.pt")) / "synthetic512.pt"


@pytest.fixture(scope="session")
def mtcnn_file() -> pathlib.Path:
    """The detector's weights, as tools/bootstrap.sh makes them for weights/."""
    make = functools.partial(_tool, "convert_weights.py", "--mtcnn", "-o")
    return made_once("mtcnn", lambda folder: make(folder / "mtcnn.safetensors")) / "mtcnn.safetensors"


@pytest.fixture(scope="session")
def state(checkpoint_file: pathlib.Path) -> dict[str, torch.Tensor]:
    return torch.load(checkpoint_file, weights_only=True)


def _save_pictures(folder: pathlib.Path) -> None:
    from facenet_tools import pictures

    random = np.random.default_rng(4)
    for name in ("a.png", "b.png"):
        Image.fromarray(pictures.structured(random)).save(folder / name)


@pytest.fixture(scope="session")
def two_pictures() -> list[pathlib.Path]:
    """Files for --pictures: the photographs that are tried without it take seconds."""
    folder = made_once("pictures", _save_pictures)
    return [folder / "a.png", folder / "b.png"]


@pytest.fixture(scope="session")
def converted(checkpoint_file: pathlib.Path, two_pictures: list[pathlib.Path]) -> dict[str, pathlib.Path]:
    """The checkpoint converted to each dtype."""

    def convert(folder: pathlib.Path) -> None:
        for dtype in ("f32", "f16", "i8"):
            output = folder / f"{dtype}.safetensors"
            _tool("convert_weights.py", checkpoint_file, "-o", output, "--dtype", dtype, "--pictures", *two_pictures)

    folder = made_once("converted", convert)
    return {dtype: folder / f"{dtype}.safetensors" for dtype in ("f32", "f16", "i8")}
