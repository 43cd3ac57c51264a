"""The gate on instruction counts: bench/count_instructions.py and its record."""

from __future__ import annotations

import importlib.util
import json
import pathlib
import subprocess

import pytest
from conftest import ROOT

SCRIPT = ROOT / "bench/count_instructions.py"
specification = importlib.util.spec_from_file_location("count_instructions", SCRIPT)
gate = importlib.util.module_from_spec(specification)
specification.loader.exec_module(gate)

RECORDED = {"stem": 1_000_000, "block.0": 50_000, "head": 200}
CHANGES = "# Changelog\n\n## 0.2.0 (unreleased)\n\n- Something.\n\n## 0.1.0\n\n- Older.\n"


@pytest.mark.slow
def test_every_layer_takes_the_instructions_recorded_for_it() -> None:
    done = subprocess.run([SCRIPT], capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_record_has_its_reason() -> None:
    assert gate.has_reason(gate.read_record(), gate.CHANGELOG.read_text())


@pytest.mark.parametrize(("step", "count", "text"), [
    ("stem", 1_030_000, "stem: 1,000,000 -> 1,030,000 instructions (+3.0%)"),
    ("block.0", 48_500, "block.0: 50,000 -> 48,500 instructions (-3.0%)"),
    ("head", 205, "head: 200 -> 205 instructions (+2.5%)"),
])
def test_a_step_that_changed_is_named(step: str, count: int, text: str) -> None:
    assert gate.changes(RECORDED, RECORDED | {step: count}) == [text]


def test_two_percent_are_allowed() -> None:
    assert gate.changes(RECORDED, {"stem": 1_020_000, "block.0": 49_000, "head": 204}) == []


def test_a_missing_and_an_extra_step_are_named() -> None:
    counted = {"stem +1": 1_000_000, "block.0": 50_000, "head": 200}
    missing, extra = gate.changes(RECORDED, counted)
    assert missing == "stem: recorded with 1,000,000 instructions, and no step of the plan any more"
    assert extra == "stem +1: a step that is not recorded, 1,000,000 instructions"


# ---- The script, without its minute under callgrind --------------------------------------------------------------------


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path):
    """Calls main() on a record and a CHANGELOG of its own, counting RECORDED with one step changed; the exit status."""
    monkeypatch.setattr(gate, "RECORD", tmp_path / "instructions.json")
    monkeypatch.setattr(gate, "CHANGELOG", tmp_path / "CHANGELOG.md")
    monkeypatch.setattr(gate, "need_machine", lambda: None)
    gate.CHANGELOG.write_text(CHANGES)

    def run_main(*arguments: str, built_with: str = "g++ 12.2.0", **changed: int) -> int:
        monkeypatch.setattr(gate, "build", lambda: built_with)
        monkeypatch.setattr(gate, "count", lambda: RECORDED | changed)
        monkeypatch.setattr("sys.argv", [str(SCRIPT), *arguments])
        try:
            gate.cli.run(gate.main)
        except SystemExit as end:
            return end.code
        return 0

    return run_main


def test_a_record_is_made_with_its_reason_and_compared(call, capsys) -> None:
    assert call("--record", "--reason", "faster\n stem.") == 0
    assert gate.CHANGELOG.read_text() == CHANGES.replace(
        "- Something.\n", "- Something.\n- Instruction counts recorded (1,050,200 an image, g++ 12.2.0): faster stem.\n")
    assert list(json.loads(gate.RECORD.read_text())["instructions"].items()) == list(RECORDED.items())
    assert call() == 0
    capsys.readouterr()
    assert call(stem=1_030_000) == 1
    assert capsys.readouterr().out == "stem: 1,000,000 -> 1,030,000 instructions (+3.0%)\n"


def test_another_compiler_is_not_comparable(call, capsys) -> None:
    assert call("--record", "--reason", "first.") == 0
    assert call(built_with="g++ 13.1.0", stem=5) == 77
    assert "the record is of g++ 12.2.0, and this is g++ 13.1.0" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--record"], ["--record", "--reason", " "], ["--reason", "without --record"]])
def test_a_record_needs_a_reason(call, arguments) -> None:
    assert call(*arguments) == 2
    assert not gate.RECORD.exists() and gate.CHANGELOG.read_text() == CHANGES


def test_a_record_changed_by_hand_is_seen(call, capsys) -> None:
    assert call("--record", "--reason", "first.") == 0
    record = json.loads(gate.RECORD.read_text())
    record["instructions"]["stem"] += 30_000
    gate.RECORD.write_text(json.dumps(record))
    assert call(stem=1_030_000) == 1
    assert "changed without a reason" in capsys.readouterr().out


def test_nothing_new_is_not_recorded_twice(call, capsys) -> None:
    assert call("--record", "--reason", "first.") == 0
    assert call("--record", "--reason", "again.") == 2
    assert "nothing to record" in capsys.readouterr().err


def test_a_released_section_takes_no_entry(call, capsys) -> None:
    gate.CHANGELOG.write_text(CHANGES.replace(" (unreleased)", ""))
    assert call("--record", "--reason", "first.") == 2
    assert "unreleased" in capsys.readouterr().err and not gate.RECORD.exists()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"built_with": "x", "instructions": {"stem": "many"}}'])
def test_a_damaged_record_is_a_sentence(call, capsys, text: str) -> None:
    gate.RECORD.write_text(text)
    assert call() == 2
    assert "is not a record" in capsys.readouterr().err
    assert call("--record", "--reason", "the old one was damaged.") == 0


def test_dumps_are_read_in_order_and_twins_refused(tmp_path: pathlib.Path) -> None:
    def dump(number: int, name: str, count: int) -> None:
        (tmp_path / f"out.{number}").write_text(
            f"version: 1\n\ndesc: Trigger: Client Request: {name}\n\nevents: Ir\nsummary: {count}\n")

    (tmp_path / "out.1").write_text("desc: Trigger: Program termination\nsummary: 0\n")
    for number, name in ((10, "last +1"), (9, "first")):
        dump(number, name, number * 100)
    assert list(gate.read_dumps(tmp_path).items()) == [("first", 900), ("last +1", 1000)]
    dump(11, "first", 5)
    with pytest.raises(gate.ToolError, match="two steps are called first"):
        gate.read_dumps(tmp_path)
