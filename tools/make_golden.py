#!/usr/bin/env python3
"""Runs facenet-pytorch in float64 on pictures and stores what the engine must reproduce.

The output is plain safetensors: input U8 [N,160,160,3]; embedding and embedding_lo F32 [N,dim], whose sum is the
float64 result; torch_f32_embedding F32 [N,dim]. With --layers also act.<op>, NHWC F32, for the first picture: the
output of every operation, named after its module, in order of execution. act.X.conv2d of a block is the block's output (scaled, added and
rectified), act.X.cat a concatenation, act.last_linear the value after last_bn, act.normalise the embedding.
Metadata: golden "1", images (one name a line).
"""

from __future__ import annotations

import argparse
import pathlib

import facenet_tools  # noqa: F401 (first: it picks the Python that has torch)
import numpy as np
import torch
from torch import nn

from facenet_tools import activations, checkpoint, cli, pictures, safetensors_writer
from facenet_tools.cli import ToolError


def load_model(path: str) -> nn.Module:
    """The reference network with the checkpoint's float32 weights."""
    state, dim = checkpoint.check(checkpoint.read(path), path)
    return checkpoint.model_of(state, dim)


def golden(path: str, images: dict[str, np.ndarray], with_layers: bool) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The tensors and the metadata of a golden file."""
    model = load_model(path)
    stack = np.stack(list(images.values()))
    single = activations.embed(model, stack, torch.float32)
    model.double()
    exact = activations.embed(model, stack, torch.float64)
    rounded = exact.astype(np.float32)
    tensors = {
        "input": stack,
        "embedding": rounded,
        "embedding_lo": (exact - rounded).astype(np.float32),
        "torch_f32_embedding": single,
    }
    metadata = {"golden": "1", "checkpoint": pathlib.Path(path).name, "images": "\n".join(images)}
    if with_layers:
        outputs = activations.record(model, stack[0])
        tensors |= {f"act.{name}": value.float().numpy() for name, value in outputs.items()}
    return tensors, metadata


def gather(paths: list[str], generated: bool) -> dict[str, np.ndarray]:
    """Pictures by name: centre squares of the files, then the generated ones."""
    images: dict[str, np.ndarray] = {}
    for path in paths:
        name = pathlib.Path(path).name
        if name in images:
            raise ToolError(f"{path}: another picture is called {name} too; rename one.")
        images[name] = pictures.centre_square(path)
    if generated:
        images |= pictures.generated()
    if not images:
        raise ToolError("there are no pictures; give --images, --generated or both.")
    return images


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n"
        "  tools/make_golden.py weights/test512.pt -o build/golden512.safetensors --generated\n"
        "  tools/make_golden.py weights/test128.pt -o layers.safetensors --layers --images face.jpg\n\n"
        "exit status: 0 written, 2 error",
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT.pt")
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="the .safetensors file to write")
    parser.add_argument("--images", nargs="*", metavar="IMAGE", help="photographs (those in .deps/samples)")
    parser.add_argument("--generated", action="store_true", help="add noise, constant and extreme pictures")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--embeddings-only", action="store_true", help="no activations (the default)")
    mode.add_argument("--layers", action="store_true", help="add every operation's output for the first picture")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    paths = pictures.sample_paths() if arguments.images is None else arguments.images
    with torch.no_grad():
        tensors, metadata = golden(arguments.checkpoint, gather(paths, arguments.generated), arguments.layers)
    safetensors_writer.write(arguments.output, tensors, metadata)


if __name__ == "__main__":
    cli.run(main)
