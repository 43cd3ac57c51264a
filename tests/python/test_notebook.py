"""The notebook of examples/python: its cells compile, name what there is, and run where nbclient is installed."""

from __future__ import annotations

import ast
import json
import os
import re

import pytest
from conftest import ROOT
from python_package import BUILT, PACKAGE, needs_package

if BUILT:
    import facenet
    from facenet import batches

NOTEBOOK = ROOT / "examples/python/photographs_to_search.ipynb"
SAMPLES = ROOT / ".deps/samples"


def cells(kind: str) -> list[str]:
    return ["".join(cell["source"]) for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == kind]


def test_it_is_small_and_of_no_machine():
    """Without outputs, ids of a run and paths of a machine; lines as in pages."""
    notebook, text = json.loads(NOTEBOOK.read_text()), NOTEBOOK.read_text()
    assert len(text) < 20_000 and notebook["nbformat"] == 4
    for cell in notebook["cells"]:
        assert cell.get("outputs", []) == [] and cell.get("execution_count") is None and cell["metadata"] == {}
    assert not re.search(r"""["'(\s]/\w|\w:\\|file://""", "\n".join(cells("code") + cells("markdown")))
    assert max(len(line) for cell in cells("code") + cells("markdown") for line in cell.splitlines()) <= 115
    for page in re.findall(r"docs/\w+\.md", "".join(cells("markdown"))):
        assert (ROOT / page).exists(), page


@needs_package
def test_its_cells_compile_and_name_what_there_is():
    for place, cell in enumerate(cells("code")):
        for node in ast.walk(ast.parse(cell, f"cell {place}")):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("facenet", "batches"):
                assert hasattr({"facenet": facenet, "batches": batches}[node.value.id], node.attr), node.attr


@needs_package
@pytest.mark.skipif(not SAMPLES.exists(), reason=f"{SAMPLES} is not there: run tools/bootstrap.sh")
def test_it_runs(converted, mtcnn_file, monkeypatch):
    nbformat, nbclient, _ = map(pytest.importorskip, ("nbformat", "nbclient", "ipykernel"))
    for name, value in (("PYTHONPATH", PACKAGE), ("FACENET_WEIGHTS", converted["f32"]), ("FACENET_DETECTOR", mtcnn_file), ("PHOTOGRAPHS", SAMPLES)):
        monkeypatch.setenv(name, str(value))
    notebook = nbformat.read(NOTEBOOK, 4)
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": os.getcwd()}}).execute()
    printed = ["".join(output.get("text", "") for output in cell.get("outputs", [])) for cell in notebook.cells if cell.cell_type == "code"]
    assert "astronaut.png face 0" in printed[1] and "untrained" in printed[0]
    faces = printed[1].count(": ")
    assert f"{faces} faces" in printed[4] and f"{faces} persons, {faces} templates" in printed[5] and f"of {faces} darker" in printed[6]
