"""The suite itself: nothing in weights/, the environment or the current folder changes its answers; scripts say what is missing."""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys

import pytest
from conftest import ROOT, run_tool
from test_command import BUILD, COMMAND, facenet

FACE_API = ROOT / ".deps/face-api"
# What a tester's machine may say. Each of these changes, or stops, a command that is asked as it stands.
POISON = {
    "FACENET_WEIGHTS": "/nowhere/weights.safetensors",
    "FACENET_DETECTOR": "/nowhere/mtcnn.safetensors",
    "FACENET_FORCE_ISA": "sse42",
    "FACENET_TEST_SLOW": "1",
    "OMP_NUM_THREADS": "7",
    "OMP_THREAD_LIMIT": "1",
    "OMP_DYNAMIC": "true",
    "CMAKE_BUILD_TYPE": "Debug",
    "CMAKE_GENERATOR": "Unix Makefiles",
    "CMAKE_PREFIX_PATH": "/nowhere",
    "CXXFLAGS": "-ffast-math",
    "CPLUS_INCLUDE_PATH": "/nowhere",
    "PYTHONIOENCODING": "latin-1",
    "PYTHONWARNINGS": "error",
    "PYTHONHASHSEED": "7",
    "LC_ALL": "tr_TR.ISO-8859-9",
    "LANG": "tr_TR.ISO-8859-9",
    "TMPDIR": "/nowhere",
    "HOME": "/nowhere",
    "XDG_DATA_HOME": "/nowhere",
    "XDG_CACHE_HOME": "/nowhere",
    "XDG_CONFIG_HOME": "/nowhere",
    "http_proxy": "http://127.0.0.1:1",
    "https_proxy": "http://127.0.0.1:1",
    "CDPATH": "/",
}
# Fast tests that a default of the tester's would change: whose weights and detector, how numbers and names are written.
REPRESENTATIVE = (
    "test_command.py::test_where_weights_come_from",
    "test_command.py::test_verify",
    "test_command_faces.py::test_a_detector_beside_the_embedder",
    "test_command_faces.py::test_the_weight_file_says_how_faces_are_cut_out",
    "test_suite.py::test_a_test_runs_in_an_empty_place",
)
needs_command = pytest.mark.skipif(not COMMAND.exists(), reason=f"{COMMAND} is not built")


def test_a_test_runs_in_an_empty_place(empty_place):
    assert pathlib.Path.cwd() == empty_place and not list(empty_place.iterdir())
    assert not list(pathlib.Path.home().iterdir())
    strange = {name for name in os.environ if name.startswith(("FACENET_", "OMP_", "CMAKE_", "XDG_", "TMP", "PYTHON"))}
    assert strange <= {"FACENET_BUILD", "FACENET_LONG", "FACENET_RECIPE", "FACENET_COMPLETE", "PYTHONDONTWRITEBYTECODE"}
    assert os.environ["LC_ALL"] == "C.UTF-8"
    mask = os.umask(0o022)
    assert mask == 0o022
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler  # Ctrl-C reaches what a test starts
    assert signal.getsignal(signal.SIGQUIT) == signal.SIG_DFL


def poisoned_project(folder: pathlib.Path) -> pathlib.Path:
    """This project by links, with weights of its own: as the demo leaves them where FaceNet's cannot be had, and worse."""
    project = folder / "project"
    (project / "tests").mkdir(parents=True)
    (project / "weights").mkdir()
    for path in ROOT.iterdir():
        if path.name not in ("tests", "weights", ".git"):
            (project / path.name).symlink_to(path)
    for path in (ROOT / "tests").iterdir():
        if path.name != "python":
            (project / "tests" / path.name).symlink_to(path)
    (project / "tests/python").mkdir()
    for path in (ROOT / "tests/python").glob("*.*"):
        (project / "tests/python" / path.name).write_bytes(path.read_bytes())   # no link: they ask where they lie
    (folder / "shared").symlink_to(ROOT.parent / "shared")
    result = run_tool("convert_weights.py", "--face-api", FACE_API, "-o", project / "weights/facenet.safetensors")
    assert result.returncode == 0, result.stderr
    (project / "weights/mtcnn.safetensors").write_bytes(b"no detector")
    return project


def ignore_signals() -> None:
    """As a shell does for what it starts in the background."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def outcomes(project: pathlib.Path, *tests: str) -> dict[str, str]:
    """Runs tests of a project as pytest alone would, poisoned: in the project's root, with another umask."""
    kept = {name: os.environ[name] for name in ("PATH", "FACENET_BUILD", "FACENET_COMPLETE") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not slow or slow",
         *(project / "tests/python" / test for test in tests)],
        cwd=project, env=kept | POISON, umask=0o077, capture_output=True, text=True, errors="replace", check=False,
        preexec_fn=ignore_signals,
    )  # fmt: skip
    found = dict(re.findall(r"(test_\w+\.py::\S+) (PASSED|FAILED|ERROR|SKIPPED)", done.stdout))
    assert found, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.returncode == 0, done.stdout[-6000:]
    return found


@needs_command
@pytest.mark.skipif(not FACE_API.is_dir(), reason=f"{FACE_API} is not there: tools/bootstrap.sh gets it where npm is")
def test_poisoned_weights_and_environment_change_nothing(tmp_path):
    project = poisoned_project(tmp_path)
    tests = [test for test in REPRESENTATIVE if (ROOT / "tests/python" / test.split("::")[0]).exists()]
    assert set(outcomes(project, *tests).values()) == {"PASSED"}
    # The poison is one: the command, asked as it stands in that project, takes these weights.
    told = facenet("info", "--json", project / "weights/facenet.safetensors")
    assert '"crop":"five_point"' in told.stdout.replace(" ", "")


@pytest.mark.long
@needs_command
@pytest.mark.slow
@pytest.mark.skipif(not FACE_API.is_dir(), reason=f"{FACE_API} is not there: tools/bootstrap.sh gets it where npm is")
def test_all_of_the_commands_tests_pass_poisoned(tmp_path):
    project = poisoned_project(tmp_path)
    names = ("command", "command_faces", "gallery", "cluster_command", "evaluate", "width")
    assert "FAILED" not in outcomes(project, *(f"test_{name}.py" for name in names)).values()


@pytest.mark.skipif(not (BUILD / "CTestTestfile.cmake").exists(), reason=f"{BUILD} is not built")
def test_a_poisoned_environment_reaches_no_test_of_ctest():
    done = subprocess.run(["ctest", "--show-only=json-v1"], cwd=BUILD, capture_output=True, text=True, check=True)
    tests = json.loads(done.stdout)["tests"]
    assert tests
    for test in tests:
        properties = {item["name"]: item["value"] for item in test.get("properties", [])}
        unset = {line.split("=")[0] for line in properties["ENVIRONMENT_MODIFICATION"]}
        assert {"OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "FACENET_WEIGHTS", "TMPDIR", "LC_ALL", "HOME"} <= unset, test["name"]
        assert pathlib.Path(properties["WORKING_DIRECTORY"]).resolve() == ROOT


# ---- Scripts ---------------------------------------------------------------------------------------------------------

LOCKED = "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 77 (apt-get)"


def install(tmp_path: pathlib.Path, failures: int, wait_s: int, message: str = LOCKED) -> subprocess.CompletedProcess[str]:
    """bootstrap.sh's step that installs a package, where apt-get fails with `message` that many times."""
    (tmp_path / "bin").mkdir()
    (tmp_path / ".deps").mkdir()
    apt = tmp_path / "bin/apt-get"
    apt.write_text(f"""#!/bin/sh
echo "$*" >>calls
[ "$(wc -l <calls)" -gt {failures} ] && exit 0
echo '{message}' >&2
exit 100
""")
    apt.chmod(0o755)
    (tmp_path / "bin/sudo").write_text('#!/bin/sh\nshift\nexec "$@"\n')
    (tmp_path / "bin/sudo").chmod(0o755)
    script = f'source {ROOT}/tools/bootstrap.sh; apt_wait_s={wait_s}; exec 8>&2; step "Debian packages" install_packages hello'
    return subprocess.run(["bash", "-c", script], cwd=tmp_path, env={"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"},
                          capture_output=True, text=True, check=False)  # fmt: skip


def test_bootstrap_waits_for_another_apt(tmp_path):
    done = install(tmp_path, failures=1, wait_s=20)
    assert done.returncode == 0, done.stderr
    assert "waits for another apt" in done.stderr
    calls = (tmp_path / "calls").read_text().splitlines()
    assert len(calls) == 3 and all("DPkg::Lock::Timeout=20" in call for call in calls)
    assert calls[1].endswith(" update") and calls[2].endswith(" hello")


def test_bootstrap_names_the_other_apt(tmp_path):
    done = install(tmp_path, failures=99, wait_s=1)
    assert done.returncode == 2 and "another apt or dpkg holds the lock" in done.stderr and LOCKED in done.stderr
    assert "network" not in done.stderr


def test_bootstrap_does_not_wait_where_nothing_is_locked(tmp_path):
    done = install(tmp_path, failures=99, wait_s=20, message="E: Unable to locate package hello")
    assert done.returncode == 2 and "check the network" in done.stderr and "another apt" not in done.stderr
    assert len((tmp_path / "calls").read_text().splitlines()) == 1


def run_test_sh(tmp_path: pathlib.Path, *arguments: str, **programs: str) -> subprocess.CompletedProcess[str]:
    """A copy of tools/test.sh in an empty project whose bootstrap.sh, cmake, ctest and Python are shell scripts."""
    project = tmp_path / "project"
    for folder in ("tools/facenet_tools", "tests/python", ".deps/samples", ".venv/bin", "bin", "build"):
        (project / folder).mkdir(parents=True)
    for name in ("test.sh", "steps.sh"):
        (project / "tools" / name).write_bytes((ROOT / "tools" / name).read_bytes())
    for name in ("tools/a.py", "tools/facenet_tools/a.py", "tools/requirements.txt", "tools/constraints.txt",
                 "tests/python/make_golden_files.py", ".deps/samples/a.png"):
        (project / name).write_text("")
    python = 'case "$*" in *make_golden*) mkdir -p "$2" ;; *) env >build/environment; echo "3 passed in 0.10s" ;; esac'
    said = {"tools/bootstrap.sh": "", "tools/lint.sh": "", ".venv/bin/python": python, "bin/cmake": "",
            "bin/ctest": 'echo "100% tests passed, 0 tests failed out of 3"'} | programs
    for name, text in said.items():
        (project / name).write_text(f"#!/bin/bash\n{text}\n")
        (project / name).chmod(0o755)
    return subprocess.run(["bash", project / "tools/test.sh", *arguments], cwd="/", capture_output=True, text=True, check=False,
                          umask=0o077, env=POISON | {"PATH": f"{project}/bin:{os.environ['PATH']}"})  # fmt: skip


def test_test_sh_prints_a_table_of_stages(tmp_path):
    done = run_test_sh(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 minutes" in next(line for line in done.stderr.splitlines() if line.startswith("test: "))  # at once
    for stage, budget in (("lint", 15), ("build release", 200), ("golden files", 40), ("ctest, release", 60), ("pytest, release", 150)):
        assert re.search(rf"^test: {stage} +\d+ +{budget}  ok$", done.stdout, re.M), done.stdout
    assert "3 passed in 0.10s" in done.stdout and "100% tests passed" in done.stdout  # what continuous integration reads
    assert done.stdout.endswith("everything passed\n")
    seen = dict(line.split("=", 1) for line in (tmp_path / "project/build/environment").read_text().splitlines() if "=" in line)
    assert not {name for name in POISON if name not in ("HOME", "LC_ALL")} & set(seen)
    assert seen["LC_ALL"] == "C.UTF-8" and seen["FACENET_COMPLETE"] == "1"


def test_test_sh_fails_where_a_stage_fails_or_does_not_run(tmp_path):
    done = run_test_sh(tmp_path, **{"bin/ctest": 'echo "50% tests passed, 1 tests failed out of 2"; exit 8'})
    assert done.returncode == 1 and "FAILED: ctest, release" in done.stdout
    assert re.search(r"^test: ctest, release .* FAILED$", done.stdout, re.M)
    (tmp_path / "second").mkdir()
    done = run_test_sh(tmp_path / "second", **{"bin/cmake": "exit 1"})
    assert done.returncode == 2
    assert re.search(r"^test: build release .* stopped$", done.stderr, re.M), done.stderr
    assert re.search(r"^test: pytest, release .* NOT RUN$", done.stderr, re.M)


def test_test_sh_runs_the_stages_that_are_asked_for(tmp_path):
    done = run_test_sh(tmp_path, "--only", "ctest, release", "--only", "clang-tidy")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"^test: (\w[\w, -]*?\w)  +\d+.* ok$", done.stdout, re.M) == ["ctest, release", "clang-tidy"]
    (tmp_path / "second").mkdir()
    done = run_test_sh(tmp_path / "second", "--only", "ctest")
    assert done.returncode == 2 and "there is no stage 'ctest'; stages are: lint; build release;" in done.stderr


def test_workflows_run_stages_and_presets_that_there_are():
    stages = re.search(r"^readonly ALL_STAGES=\((.*?)\)$", (ROOT / "tools/test.sh").read_text(), re.M | re.S)[1]
    quick = re.search(r"^readonly QUICK_STAGES=\((.*?)\)$", (ROOT / "tools/test.sh").read_text(), re.M)[1]
    known = set(re.findall(r'"([^"]*)"', quick + stages))
    presets = {preset["name"] for preset in json.loads((ROOT / "CMakePresets.json").read_text())["configurePresets"]}
    texts = {path.name: path.read_text() for path in (ROOT / ".github/workflows").glob("*.yml")}
    assert len(texts) >= 6
    for name, text in texts.items():
        assert set(re.findall(r'--only "?([^"\n]+?)"?(?= --|\n)', text)) <= known, name
        assert set(re.findall(r"--preset (\S+)", text)) <= presets, name
        assert {path for path in re.findall(r"tools/[a-z]+\.sh", text) if not (ROOT / path).exists()} == set(), name
    assert sum(text.count("--only") for text in texts.values()) >= 10


def test_pages_for_contributors_name_what_there_is():
    for page in ("CONTRIBUTING.md", "SECURITY.md"):
        text = (ROOT / page).read_text()
        paths = set(re.findall(r"`((?:include|src|tests|tools|bench|cmake)/[\w/.]+)(?:::\w+)?[`\s]", text))
        missing = {path for path in paths if not (ROOT / path).exists() and "NAME" not in path}
        assert len(paths) > 15 and not missing, page
        for path, test in re.findall(r"`(tests/python/\w+\.py)::(\w+)`", text):
            assert f"def {test}(" in (ROOT / path).read_text(), f"{page}: {path}::{test}"
    table = (ROOT / "SECURITY.md").read_text().split("| promise |")[1].split("\n\n")[0].splitlines()[2:]
    assert len(table) > 10 and all("`tests/" in row for row in table)  # no promise without a test


def test_a_test_that_lacks_what_test_sh_builds_fails(tmp_path):
    tests = tmp_path / "tests/python"
    tests.mkdir(parents=True)
    (tmp_path / "tools").symlink_to(ROOT / "tools")
    (tests / "conftest.py").write_bytes((ROOT / "tests/python/conftest.py").read_bytes())
    (tests / "test_it.py").write_text(
        "import pytest\n"
        "@pytest.mark.skipif(True, reason='build/release/facenet is not built')\n"
        "def test_program(): pass\n"
        "@pytest.mark.skipif(True, reason='only root may mount')\n"
        "def test_other(): pass\n"
    )
    call = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", tests / "test_it.py"]
    complete = subprocess.run(call, env={**os.environ, "FACENET_COMPLETE": "1"}, capture_output=True, text=True, check=False)
    assert complete.returncode == 1 and "1 skipped, 1 error" in complete.stdout and "should have run" in complete.stdout
    alone = {name: value for name, value in os.environ.items() if name != "FACENET_COMPLETE"}
    assert "2 skipped" in subprocess.run(call, env=alone, capture_output=True, text=True, check=False).stdout


# ---- tools/lint.sh ---------------------------------------------------------------------------------------------------

# Programs that the script itself calls; what it checks with are others.
LINT_NEEDS = ("bash", "dirname", "env", "find", "git", "grep", "mkdir", "sed", "xargs")
RUFF = ROOT / ".venv/bin/ruff"


def lint(project: pathlib.Path, *arguments: str, tools: tuple[str, ...] = (),
         **files: str) -> subprocess.CompletedProcess[str]:  # fmt: skip
    """tools/lint.sh in a project of these files, where no tool is installed but these."""
    (project / "bin").mkdir(parents=True)
    for name in ("tools/lint.sh", "tools/steps.sh", "ruff.toml", ".clang-format"):
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_bytes((ROOT / name).read_bytes())
    for name in (*LINT_NEEDS, *tools):
        (project / "bin" / name).symlink_to(shutil.which(name) or RUFF.with_name(name))
    for name, text in files.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)
    return subprocess.run([shutil.which("bash"), project / "tools/lint.sh", *arguments], env={"PATH": f"{project}/bin"},
                          capture_output=True, text=True, check=False)  # fmt: skip


def test_lint_names_the_file_and_what_is_wrong_in_it(tmp_path):
    note, home = "TO" + "DO: later", "/ho" + "me/ada"
    wrong = (("left-over notes", f"// {note}\n"), ("paths of a machine", f'const char* p = "{home}/a.jpg";\n'))
    for number, (check, text) in enumerate(wrong):
        done = lint(tmp_path / str(number), **{"include/facenet/x.hpp": text})
        assert done.returncode == 1 and f"FAILED: {check}" in done.stderr, done.stderr
        assert "include/facenet/x.hpp:1:" in done.stderr
    # Neither is one: part of a word, and of an address.
    done = lint(tmp_path / "sound", **{"a.md": f"METHODOLOGY https://host{home} ~{home}\n"})
    assert done.returncode == 0 and "nothing found" in done.stderr, done.stderr


def test_lint_without_tools_passes_and_fails_with_all(tmp_path):
    done = lint(tmp_path / "quick", **{"a.py": "import os\n"})
    assert done.returncode == 0 and "Python: skipped, ruff is not installed" in done.stderr, done.stderr
    done = lint(tmp_path / "all", "--all", **{"a.py": "import os\n"})
    assert done.returncode == 1 and "Python: skipped" in done.stderr.splitlines()[-1], done.stderr
    done = lint(tmp_path / "tidy", "--tidy", **{"a.py": ""})
    assert done.returncode == 1 and "clang-tidy: skipped" in done.stderr.splitlines()[-1], done.stderr
    assert lint(tmp_path / "wrong", "--al").returncode == 2


@pytest.mark.skipif(not RUFF.exists(), reason=f"{RUFF} is not there")
def test_lint_checks_python(tmp_path):
    done = lint(tmp_path, tools=("ruff",), **{"tools/a.py": "import os\n"})
    assert done.returncode == 1 and "tools/a.py:1:8: F401" in done.stderr, done.stderr


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck, of tools/bootstrap.sh --all")
def test_lint_checks_shell_scripts(tmp_path):
    done = lint(tmp_path, tools=("shellcheck",), **{"tools/a.sh": "#!/bin/bash\ncd $1\n"})
    assert done.returncode == 1 and "In tools/a.sh line 2" in done.stderr, done.stderr


@pytest.mark.skipif(not shutil.which("clang-format-14"), reason="clang-format-14, of tools/bootstrap.sh --all")
def test_lint_gives_layout_and_keeps_the_order_of_includes(tmp_path):
    text = '#include "b.hpp"\n#include "a.hpp"\nint  f ( );\n'
    done = lint(tmp_path, "--format", "c++", tools=("clang-format-14",), **{"include/x.hpp": text})
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "include/x.hpp").read_text() == '#include "b.hpp"\n#include "a.hpp"\nint f();\n'
