#!/usr/bin/env python3
"""Turns what `facenet embed --out X.npy` wrote into one Parquet file.

A row a face: image, face, box (4 floats), score (null where pictures were face crops), embedding (a list of float32 of fixed
length), model. The array is read in parts, so memory does not grow with it. Needs pyarrow: pip install pyarrow.
"""

from __future__ import annotations

import argparse
import itertools
import json
import pathlib

import facenet_tools  # noqa: F401 (first: it picks the Python of the tools)
import numpy as np
import xxhash

from facenet_tools import cli
from facenet_tools.cli import ToolError

PART = 8192  # rows: 16 MB of 512 floats


def read_json(path: pathlib.Path) -> dict:
    try:
        found = json.loads(cli.decoded(path.read_bytes(), path, "run 'facenet embed --out X.npy' again."))
        if not isinstance(found, dict):
            raise ValueError("no object")
        return found
    except OSError as error:
        raise ToolError(f"{path}: cannot be read ({error.strerror}); give X.npy with X.model.json and X.index.jsonl beside it.") from error
    except ValueError as error:
        raise ToolError(f"{path}: is not JSON; run 'facenet embed --out X.npy' again.") from error


def load(path: pathlib.Path) -> tuple[np.ndarray, dict, pathlib.Path]:
    """The array, mapped; what made it; the index. Refuses files that do not belong together."""
    model = read_json(path.with_suffix(".model.json"))
    try:
        array = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise ToolError(f"{path}: cannot be read ({error}); run 'facenet embed --out X.npy' again.") from error
    if array.shape != (model.get("rows"), model.get("dim")):
        raise ToolError(f"{path}: has the shape {array.shape}, but its model file says otherwise; they are of two runs: embed again.")
    digest = xxhash.xxh64()
    for at in range(0, len(array), PART):
        digest.update(np.ascontiguousarray(array[at : at + PART]))
    if digest.hexdigest() != model.get("data_xxh64"):
        raise ToolError(f"{path}: is not the array that its model file describes; they are of two runs: embed again.")
    return array, model, path.with_suffix(".index.jsonl")


def read_row(line: bytes, index: pathlib.Path, number: int) -> dict:
    text = cli.decoded(line, index, "run 'facenet embed --out X.npy' again.", number)
    try:
        row = json.loads(text)
        if {"image", "face", "box", "model"} <= row.keys():
            return row
    except (ValueError, AttributeError):
        pass
    raise ToolError(f"{index}: line {number} is not what 'facenet embed' writes; run it again.")


def write(array: np.ndarray, model: dict, index: pathlib.Path, out: str) -> None:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ToolError("pyarrow is not installed, which writes Parquet; run: pip install pyarrow") from error
    cli.check_output(out)
    floats = pyarrow.float32()
    schema = pyarrow.schema([
        ("image", pyarrow.string()), ("face", pyarrow.int32()), ("box", pyarrow.list_(floats, 4)), ("score", floats),
        ("embedding", pyarrow.list_(floats, model["dim"])), ("model", pyarrow.string()),
    ], metadata={"facenet": json.dumps(model)})
    temporary = pathlib.Path(f"{out}.tmp")
    try:
        with index.open("rb") as lines, pyarrow.parquet.ParquetWriter(temporary, schema) as writer:
            for at in range(0, len(array), PART):
                rows = [read_row(line, index, at + i) for i, line in enumerate(itertools.islice(lines, PART), 1)]
                part = np.asarray(array[at : at + PART], np.float32)
                if len(rows) != len(part):
                    raise ToolError(f"{index}: has too few lines for the array; they are of two runs: embed again.")
                if {row["model"] for row in rows} != {model["model"]}:
                    raise ToolError(f"{index}: holds rows of another model than {model['model']}, whose distances are not comparable; "
                                    "embed all pictures with one weight file.")
                columns = [pyarrow.array([row[name] for row in rows], schema.field(name).type) for name in ("image", "face", "box")]
                columns.append(pyarrow.array([row.get("score") for row in rows], floats))
                columns.append(pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(part.ravel()), model["dim"]))
                columns.append(pyarrow.array([row["model"] for row in rows]))
                writer.write_table(pyarrow.Table.from_arrays(columns, schema=schema))
        temporary.replace(out)
    except OSError as error:
        raise ToolError(f"{error.filename or out}: cannot be read or written ({error.strerror}).") from error
    finally:
        temporary.unlink(missing_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n  facenet embed photographs/ --out faces.npy\n  tools/npy_to_parquet.py faces.npy -o faces.parquet\n\n"
        "exit status: 0 written, 2 error")
    parser.add_argument("array", metavar="X.npy", help="what 'facenet embed --out X.npy' wrote, its two companions beside it")
    parser.add_argument("-o", "--output", metavar="OUT", help="the file to write (X.parquet)")
    arguments = parser.parse_args()
    path = pathlib.Path(arguments.array)
    array, model, index = load(path)
    write(array, model, index, arguments.output or str(path.with_suffix(".parquet")))


if __name__ == "__main__":
    cli.run(main)
