#!/usr/bin/env python3
"""Runs facenet-pytorch in float64 on pictures and stores what the engine must reproduce.

The output is plain safetensors: input U8 [N,160,160,3]; embedding and embedding_lo F32 [N,dim], whose sum is the
float64 result; torch_f32_embedding F32 [N,dim]. With --layers also act.<op>, NHWC F32, for the first picture: the
output of every operation, named after its module. act.X.conv2d of a block is the block's output (scaled, added and
rectified), act.X.cat a concatenation, act.last_linear the value after last_bn, act.normalise the embedding.
Metadata: golden "1", images (one name a line), order (the ops in order of execution, separated by commas).
"""

from __future__ import annotations

import argparse
import pathlib

import facenet_tools  # noqa: F401 (first: it picks the Python that has torch)
import numpy as np
import torch
from facenet_pytorch import InceptionResnetV1
from facenet_pytorch.models.inception_resnet_v1 import BasicConv2d, Block8, Block17, Block35, Mixed_6a, Mixed_7a
from torch import Tensor, nn

from facenet_tools import checkpoint, cli, pictures, safetensors_writer
from facenet_tools.cli import ToolError

BATCH = 4  # float64 activations of more pictures would need memory without gaining speed


def load_model(path: str) -> InceptionResnetV1:
    """The reference network with the checkpoint's float32 weights."""
    state, dim = checkpoint.check(checkpoint.read(path), path)
    model = checkpoint.build_model(dim)
    model.load_state_dict(state, strict=False)  # check() has compared the names; strict would ask for counters
    return model


def embed(model: InceptionResnetV1, images: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    """images uint8 [N, 160, 160, 3] -> embeddings [N, dim] of the model's type."""
    batches = [pictures.to_tensor(images[start : start + BATCH], dtype) for start in range(0, len(images), BATCH)]
    return torch.cat([model(batch) for batch in batches]).numpy()


def record(model: InceptionResnetV1, image: np.ndarray) -> dict[str, Tensor]:
    """Every operation's output for one picture [160, 160, 3], in order of execution, as NHWC."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str, value: Tensor) -> None:
        outputs[name] = value.permute(0, 2, 3, 1) if value.dim() == 4 else value.reshape(1, 1, 1, -1)

    def after(module: nn.Module, name: str) -> None:
        hooks.append(module.register_forward_hook(lambda _module, _inputs, output: keep(name, output)))

    def before(module: nn.Module, name: str) -> None:
        hooks.append(module.register_forward_pre_hook(lambda _module, inputs: keep(name, inputs[0])))

    hooks: list = []
    for name, module in model.named_modules():
        if isinstance(module, (Block35, Block17, Block8)):
            before(module.conv2d, f"{name}.cat")
            after(module, f"{name}.conv2d")
        elif isinstance(module, (Mixed_6a, Mixed_7a)):
            after(module, f"{name}.cat")
        elif isinstance(module, (BasicConv2d, nn.MaxPool2d, nn.AdaptiveAvgPool2d)):
            after(module, name)
    after(model.last_bn, "last_linear")
    keep("normalise", model(pictures.to_tensor(image[None], torch.float64)))
    for hook in hooks:
        hook.remove()
    return outputs


def golden(path: str, images: dict[str, np.ndarray], with_layers: bool) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The tensors and the metadata of a golden file."""
    model = load_model(path)
    stack = np.stack(list(images.values()))
    single = embed(model, stack, torch.float32)
    model.double()
    exact = embed(model, stack, torch.float64)
    rounded = exact.astype(np.float32)
    tensors = {
        "input": stack,
        "embedding": rounded,
        "embedding_lo": (exact - rounded).astype(np.float32),
        "torch_f32_embedding": single,
    }
    metadata = {"golden": "1", "checkpoint": pathlib.Path(path).name, "images": "\n".join(images)}
    if with_layers:
        outputs = record(model, stack[0])
        metadata["order"] = ",".join(outputs)
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
