#!/usr/bin/env python3
"""Counts the instructions of each step of the network and compares them with the recorded ones: noise cannot trip it.

Builds build/release/bench/instruction_counter and runs it under callgrind: one image, one thread, AVX2 whatever the CPU.
That takes a minute and gives the same counts every time. bench/instructions.json holds the recorded ones.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

from facenet_tools import cli  # noqa: E402 (the line above is where it is found)
from facenet_tools.cli import ToolError  # noqa: E402

RECORD = ROOT / "bench/instructions.json"
CHANGELOG = ROOT / "CHANGELOG.md"
COUNTER = ROOT / "build/release/bench/instruction_counter"
TOLERANCE = 0.02
NEEDED = {"avx2", "fma", "f16c"}  # valgrind hands these instructions to the CPU
EXAMPLES = """\
examples:
  bench/count_instructions.py                                              compares
  bench/count_instructions.py --record --reason "Winograd's input transform loads each pixel once."

exit status: 0 within 2 % of the record (or recorded), 1 changed, 2 error, 77 not comparable here: another compiler
than the recorded one, no valgrind, no AVX2
"""


class NotComparable(Exception):
    """Why the counts cannot be compared here."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="make today's counts the recorded ones")
    parser.add_argument("--reason", help="with --record: why they change, one sentence; it goes into CHANGELOG.md")
    arguments = parser.parse_args()
    if arguments.record != bool(arguments.reason and arguments.reason.strip()):
        parser.error("--record and a --reason that says something go together")
    return arguments


# ---- Counting --------------------------------------------------------------------------------------------------------


def cpu_flags() -> set[str]:
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text()
    except OSError:
        return set()
    return set(" ".join(re.findall(r"^flags\s*:(.*)$", text, re.MULTILINE)).split())


def need_machine() -> None:
    if shutil.which("valgrind") is None:
        raise NotComparable("valgrind is not installed: tools/bootstrap.sh --all installs it")
    if missing := NEEDED - cpu_flags():
        raise NotComparable(f"this CPU lacks {', '.join(sorted(missing))}, which valgrind does not emulate")


def run(*command: object) -> str:
    try:
        done = subprocess.run([*map(str, command)], cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError as error:
        raise ToolError(f"{command[0]}: {error.strerror}; tools/bootstrap.sh --all installs what is needed.") from error
    if done.returncode != 0:
        last = (done.stderr or done.stdout).strip().splitlines()[-5:]
        raise ToolError(f"{' '.join(map(str, command))} failed (status {done.returncode}): " + "\n".join(last))
    return done.stdout


def build() -> str:
    """Builds the counter; what it was built with."""
    run("cmake", "--preset", "release")
    run("cmake", "--build", "--preset", "release", "--target", COUNTER.name)
    return run(COUNTER, "--version").strip()


def read_dumps(folder: pathlib.Path) -> dict[str, int]:
    """Each step's name and instructions, in order, from the files that callgrind numbers."""
    counts = {}
    for path in sorted(folder.glob("out.*"), key=lambda path: int(path.suffix[1:])):
        text = path.read_text()
        step = re.search(r"^desc: Trigger: Client Request: (.+)$", text, re.MULTILINE)
        total = re.search(r"^summary: (\d+)$", text, re.MULTILINE)
        if step is not None and total is not None:
            if step[1] in counts:
                raise ToolError(f"two steps are called {step[1]}: a count could hide behind the other.")
            counts[step[1]] = int(total[1])
    if not counts:
        raise ToolError("callgrind wrote no counts; run build/release/bench/instruction_counter under it by hand.")
    return counts


def count() -> dict[str, int]:
    print("count_instructions: under callgrind, about a minute", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        # The dynamic linker's work would count in the first step that calls a function of the C library.
        run("env", "LD_BIND_NOW=1", "valgrind", "--tool=callgrind", "--instr-atstart=no",
            f"--callgrind-out-file={folder}/out", COUNTER)
        return read_dumps(pathlib.Path(folder))


# ---- Comparing -------------------------------------------------------------------------------------------------------


def changes(recorded: dict[str, int], counted: dict[str, int]) -> list[str]:
    """A line for each step that is new, gone, or more than TOLERANCE away from its record."""
    lines = []
    for name in [*recorded, *(name for name in counted if name not in recorded)]:
        if name not in counted:
            lines.append(f"{name}: recorded with {recorded[name]:,} instructions, and no step of the plan any more")
        elif name not in recorded:
            lines.append(f"{name}: a step that is not recorded, {counted[name]:,} instructions")
        elif abs(counted[name] - recorded[name]) > TOLERANCE * recorded[name]:
            change = counted[name] / recorded[name] - 1
            lines.append(f"{name}: {recorded[name]:,} -> {counted[name]:,} instructions ({change:+.1%})")
    return lines


def need_same_tools(record: dict, built_with: str) -> None:
    if record["built_with"] != built_with:
        raise NotComparable(f"the record is of {record['built_with']}, and this is {built_with}: other instructions")


# ---- The record and its reasons --------------------------------------------------------------------------------------


def read_record() -> dict:
    try:
        record = json.loads(RECORD.read_text())
        sum(record["instructions"].values())
        record["built_with"]
    except OSError as error:
        raise ToolError(f"{RECORD}: {error.strerror}; make it with --record.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ToolError(f"{RECORD} is not a record of this script; restore it, or make it anew with --record.") from error
    return record


def entry_of(record: dict) -> str:
    """How a CHANGELOG line about this record begins; its total tells it from all other records."""
    return f"- Instruction counts recorded ({sum(record['instructions'].values()):,} an image, {record['built_with']}): "


def has_reason(record: dict, changelog: str) -> bool:
    return any(line.startswith(entry_of(record)) and len(line) > len(entry_of(record)) for line in changelog.splitlines())


def with_entry(changelog: str, entry: str) -> str:
    """The text with a line more at the end of its first section, which must be the unreleased one."""
    head, *sections = re.split(r"(?m)^(?=## )", changelog)
    if not sections or "unreleased" not in sections[0].splitlines()[0]:
        raise ToolError(f"{CHANGELOG}: the first section is not the unreleased one; begin it and try again.")
    return head + sections[0].rstrip("\n") + f"\n{entry}\n" + "".join("\n" + section for section in sections[1:])


def make_record(built_with: str, counted: dict[str, int], reason: str) -> None:
    record = {"built_with": built_with, "instructions": counted}
    text = json.dumps(record, indent=1) + "\n"
    if RECORD.exists() and RECORD.read_text() == text:
        raise ToolError("the counts are the recorded ones to the instruction; there is nothing to record.")
    changelog = with_entry(CHANGELOG.read_text(), entry_of(record) + " ".join(reason.split()))
    cli.write_atomically(str(RECORD), [text.encode()])
    cli.write_atomically(str(CHANGELOG), [changelog.encode()])
    print(f"recorded {len(counted)} steps, {sum(counted.values()):,} instructions; CHANGELOG.md has the reason")


def main() -> None:
    arguments = parse_arguments()
    try:
        need_machine()
        built_with = build()
        if arguments.record:
            return make_record(built_with, count(), arguments.reason)
        record = read_record()
        need_same_tools(record, built_with)
    except NotComparable as why:
        print(f"count_instructions: not comparable here: {why}.", file=sys.stderr)
        sys.exit(77)
    counted = count()
    found = changes(record["instructions"], counted)
    if not has_reason(record, CHANGELOG.read_text()):
        found.append(f"{RECORD.name} was changed without a reason in CHANGELOG.md: use --record --reason")
    print("\n".join(found) or f"{len(counted)} steps, {sum(counted.values()):,} instructions: each within "
                             f"{TOLERANCE:.0%} of its record")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    cli.run(main)
