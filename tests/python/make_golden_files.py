#!/usr/bin/env python3
"""make_golden_files.py FOLDER PICTURE...: what tests of both languages compare with, for both embedding sizes D:

  checkpointD.pt             facenet-pytorch's layout
  weightsD.safetensors       converted; weights512_f16 and weights512_i8 with smaller weights
  goldenD.safetensors        float64 embeddings of the photographs and of generated pictures
  layersD.safetensors        every operation's float64 output for the first photograph
  mtcnn.safetensors          the detector's weights, so that no test depends on what lies in weights/

tools/test.sh runs it. PyTorch is loaded once; two processes share the work.
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import pathlib
import sys

from conftest import run_tool

import convert_weights  # noqa: F401 (with what it imports: the processes inherit it)
import make_checkpoint  # noqa: F401
import make_golden  # noqa: F401


def tool(*arguments: object) -> None:
    result = run_tool(*arguments)
    print(result.stdout + result.stderr, end="", flush=True)
    if result.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, arguments[:4]))} … failed, see above.")


def whole_size(folder: pathlib.Path, dim: int, pictures: list[str]) -> None:
    checkpoint = folder / f"checkpoint{dim}.pt"
    tool("make_checkpoint.py", "--dim", dim, "-o", checkpoint)
    tool("convert_weights.py", checkpoint, "-o", folder / f"weights{dim}.safetensors")
    tool("make_golden.py", checkpoint, "-o", folder / f"golden{dim}.safetensors", "--generated", "--images", *pictures)
    tool("make_golden.py", checkpoint, "-o", folder / f"layers{dim}.safetensors", "--layers", "--images", pictures[0])


def smaller(folder: pathlib.Path, dtype: str) -> None:
    tool("convert_weights.py", folder / "checkpoint512.pt", "-o", folder / f"weights512_{dtype}.safetensors", "--dtype", dtype)


def main() -> None:
    folder, photographs = pathlib.Path(sys.argv[1]).resolve(), [str(pathlib.Path(name).resolve()) for name in sys.argv[2:]]
    folder.mkdir(parents=True)
    tool("convert_weights.py", "--mtcnn", "-o", folder / "mtcnn.safetensors")
    with concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
        for phase in (
            [pool.submit(whole_size, folder, dim, photographs) for dim in (512, 128)],
            [pool.submit(smaller, folder, dtype) for dtype in ("f16", "i8")],
        ):
            for task in phase:
                task.result()


if __name__ == "__main__":
    main()
