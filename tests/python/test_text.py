"""Text that strangers write and the tools read: what is not UTF-8 is an error that names file, line and remedy."""

from __future__ import annotations

import pathlib

import pytest
from conftest import assert_one_error, run_tool

from facenet_tools import cli, thresholds
from facenet_tools.cli import ToolError
from facenet_tools.training import curves, loop

LATIN1 = '{"image": "a"}\n{"image": "\u00e9"}\n'.encode("latin-1")
UTF16 = '{"image": "a"}\n'.encode("utf-16")
BAD = ((LATIN1, "line 2 is not UTF-8; "), (UTF16, "line 1 is not UTF-8 (it looks like UTF-16); "))
COLUMNS = ("step", "loss")


@pytest.fixture(params=BAD, ids=["latin1", "utf16"])
def bad(request, tmp_path) -> tuple[pathlib.Path, str]:
    path, (data, part) = tmp_path / "file", request.param
    path.write_bytes(data)
    return path, f"file: {part}"


def test_a_mark_of_the_order_of_bytes_is_no_text(tmp_path):
    assert cli.decoded("\ufeffa\u00e9".encode(), "x", "r") == "a\u00e9"


def test_lines_of_the_command(bad, tmp_path):
    path, part = bad
    report = run_tool("make_report.py", "--faces", path, "--embeddings", path, "-o", tmp_path / "x")
    assert_one_error(report, part, "give the command's --json output")
    assert_one_error(run_tool("face_data.py", "noise", path), part if "UTF-16" not in part else "file: line 1 is not UTF-8", "make it with `facenet embed")


def test_threshold_files(tmp_path):
    for data, line in ((LATIN1, 2), (b"\xff", 1)):
        (tmp_path / "t").write_bytes(data)
        with pytest.raises(ToolError, match=f"t: line {line} is not UTF-8; give a file"):
            thresholds.choose(str(tmp_path / "t"), "x.pt", "")
    (tmp_path / "x.json").write_bytes(LATIN1)  # beside a checkpoint, and another program's
    assert thresholds.choose(None, str(tmp_path / "x.pt"), "") is None


def test_logs_of_a_run(bad, tmp_path):
    path, part = bad
    for read in (curves.read, lambda file: loop._Log(file, COLUMNS, 1)):
        with pytest.raises(ToolError) as error:
            read(path)
        assert part in str(error.value) and "remove it" in str(error.value)
    path.write_text("step,loss\n1,2\n2,x\n")
    with pytest.raises(ToolError, match="file: line 3: loss is no number; train.py writes it"):
        curves.read(path)
    path.write_text("step,loss\n1,2\n\u00b2,3\n")
    loop._Log(path, COLUMNS, 5)
    assert path.read_text() == "step,loss\n1,2\n"


def test_the_seed_of_a_folder(tmp_path):
    (tmp_path / ".seed").write_bytes(b"\xff\x1b[31m\n")
    result = run_tool("make_identities.py", "--people", 1, "--pictures", 1, tmp_path)
    assert_one_error(result, "holds people of --seed ")
    assert "\x1b" not in result.stderr
