#!/usr/bin/env python3
"""Converts a facenet-pytorch checkpoint to the engine's weight file: safetensors, batch norm folded in float64."""

from __future__ import annotations

import argparse
import hashlib
import http.client
import os
import pathlib
import socket
import sys

import facenet_tools  # noqa: F401 (first: it picks the Python that has torch)
import numpy as np
import torch
from facenet_pytorch.models.inception_resnet_v1 import get_torch_home
from facenet_pytorch.models.utils.download import download_url_to_file

from facenet_tools import checkpoint, cli, mtcnn, safetensors_writer
from facenet_tools.cli import ToolError

# Names and addresses as in facenet_pytorch/models/inception_resnet_v1.py, load_weights(), which itself
# unpickles what it downloads without weights_only.
RELEASE = "https://github.com/timesler/facenet-pytorch/releases/download/v2.2.9/"
PRETRAINED = {"vggface2": "20180402-114759-vggface2.pt", "casia-webface": "20180408-102900-casia-webface.pt"}
DOWNLOAD_TIMEOUT_S = 20

LICENCES = {
    "vggface2": "not stated for the weights; code MIT; training data VGGFace2: research terms",
    "casia-webface": "not stated for the weights; code MIT; training data CASIA-WebFace: research terms",
    "synthetic": "MIT; random numbers, no training data",
    "unknown": "unknown",
}

# What facenet-pytorch does between a picture and the network: MTCNN crops the box without margin, Pillow resizes
# it bilinearly, fixed_image_standardization computes (x - 127.5) / 128.
PREPROCESSING = {
    "width": "1",
    "image_size": "160",
    "channel_order": "rgb",
    "scaling": "fixed",
    "crop": "box",
    "margin": "0",
    "resize": "pillow_bilinear",
}


def quantise(weight: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """weight [O, ...] -> int8 of the same shape and float32 scales [O], symmetric: weight ~ int8 * scale.

    Error: at most half a scale for each weight. A channel of zeros gets scale 1, since scales must be positive.
    """
    rows = weight.reshape(weight.shape[0], -1)
    scale = (rows.abs().amax(dim=1) / 127).float()
    scale[scale < torch.finfo(torch.float32).tiny] = 1.0
    values = torch.round(rows / scale.double()[:, None]).clamp(-127, 127)
    return values.reshape(weight.shape).to(torch.int8).numpy(), scale.numpy()


def encode(folded: list[checkpoint.Folded], dtype: str, path: str) -> dict[str, np.ndarray]:
    """Tensors in network order; in each layer bias, scale (int8 only), weight, as the engine streams them."""
    tensors: dict[str, np.ndarray] = {}
    overflowing: list[str] = []
    for layer in folded:
        tensors[f"{layer.name}.bias"] = layer.bias.float().numpy()
        if dtype == "i8":
            values, tensors[f"{layer.name}.weight_scale"] = quantise(layer.weight)
            tensors[f"{layer.name}.weight"] = values
        else:
            with np.errstate(over="ignore"):  # refused below, with the layer's name
                # float64 -> float16 directly: a detour over float32 would round twice
                tensors[f"{layer.name}.weight"] = layer.weight.numpy().astype({"f16": "f2", "f32": "f4"}[dtype])
        if not all(np.isfinite(tensors[f"{layer.name}.{part}"]).all() for part in ("bias", "weight")):
            overflowing.append(layer.name)
    if overflowing:
        remedy = "use --dtype f32" if dtype == "f16" else "check the batch norm statistics there"
        raise ToolError(f"{path}: too large for {dtype} after folding: {', '.join(overflowing)}; {remedy}.")
    return tensors


def metadata(dim: int, source: str, digest: str, dataset: str, licence: str | None, trained: bool) -> dict[str, str]:
    """Every key the engine asks for, except the hashes, which the writer adds."""
    return {
        "format": "1",
        "architecture": "inception_resnet_v1",
        "embedding_dim": str(dim),
        "trained": "true" if trained else "false",
        "normalise": "l2",
        **PREPROCESSING,
        "dataset": dataset,
        "source": source,
        "source_sha256": digest,
        "licence": licence or LICENCES.get(dataset, LICENCES["unknown"]),
    }


def convert(
    state: checkpoint.StateDict,
    source: str,
    digest: str,
    output: str,
    dtype: str = "f32",
    dataset: str | None = None,
    licence: str | None = None,
    untrained: bool = False,
) -> None:
    """Checks a state_dict, folds it and writes the weight file. source is shown in errors; its last part is stored."""
    synthetic = checkpoint.is_untrained(state)
    dataset = dataset or ("synthetic" if synthetic else "unknown")
    real, dim = checkpoint.check(state, source)
    folded = list(checkpoint.fold(real, checkpoint.build_model(dim)))
    tensors = encode(folded, dtype, source)
    name = pathlib.Path(source).name
    trained = not (synthetic or untrained)
    safetensors_writer.write(output, tensors, metadata(dim, name, digest, dataset, licence, trained), hashes=True)


def convert_mtcnn(folder: str | None, output: str, dataset: str | None = None, licence: str | None = None) -> None:
    """Writes the detector's weight file from a folder with pnet.pt, rnet.pt and onet.pt, or the installed package's."""
    states, digest = mtcnn.read(folder or mtcnn.packaged())
    source = pathlib.Path(folder).name if folder else mtcnn.packaged_source()
    details = mtcnn.metadata(source, digest, licence, dataset)
    safetensors_writer.write(output, mtcnn.tensors(states), details, hashes=True)


def download(name: str) -> str:
    """The path of a public checkpoint in torch's cache, downloaded by facenet-pytorch when it is not there."""
    folder = os.path.join(get_torch_home(), "checkpoints")
    path = os.path.join(folder, PRETRAINED[name])
    if os.path.exists(path):
        return path
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_S)
    try:
        os.makedirs(folder, exist_ok=True)
        download_url_to_file(RELEASE + PRETRAINED[name], path, progress=sys.stderr.isatty())
    except (OSError, http.client.HTTPException) as error:  # URLError and timeouts are OSErrors
        reason = getattr(error, "reason", error)
        raise ToolError(
            f"{PRETRAINED[name]}: cannot be downloaded ({reason}); fetch it on a machine with a network "
            f"and give the file: convert_weights.py FILE --dataset {name} -o OUT."
        ) from error
    return path


def sha256_of(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n"
        "  tools/convert_weights.py --pretrained vggface2 -o weights/facenet.safetensors\n"
        "  tools/convert_weights.py my_model.pt -o weights/mine.safetensors --dtype f16\n"
        "  tools/convert_weights.py --mtcnn -o weights/mtcnn.safetensors\n\n"
        "exit status: 0 written, 2 error",
    )
    parser.add_argument("input", nargs="?", metavar="IN", help="a facenet-pytorch state_dict (.pt), old or zip format")
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="the .safetensors file to write")
    parser.add_argument("--pretrained", choices=sorted(PRETRAINED), help="download a public checkpoint instead of IN")
    parser.add_argument(
        "--mtcnn",
        action="store_true",
        help="the detector: IN is a folder with pnet.pt, rnet.pt and onet.pt, without IN facenet-pytorch's own",
    )
    parser.add_argument("--dtype", choices=("f32", "f16", "i8"), default="f32", help="type of the weights (%(default)s)")
    parser.add_argument("--dataset", help="what it was trained on, for the metadata")
    parser.add_argument("--licence", help="the licence of the weights, for the metadata")
    parser.add_argument("--untrained", action="store_true", help="mark the weights as untrained: distances mean nothing")
    arguments = parser.parse_args()
    if arguments.mtcnn:
        if arguments.pretrained is not None or arguments.dtype != "f32" or arguments.untrained:
            parser.error("--mtcnn takes neither --pretrained nor --dtype nor --untrained")
    elif (arguments.input is None) == (arguments.pretrained is None):
        parser.error("give either IN or --pretrained")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    if arguments.mtcnn:
        convert_mtcnn(arguments.input, arguments.output, arguments.dataset, arguments.licence)
        return
    source = arguments.input if arguments.pretrained is None else download(arguments.pretrained)
    state = checkpoint.read(source)
    if os.path.exists(arguments.output) and os.path.samefile(source, arguments.output):
        raise ToolError(f"{arguments.output}: is the input itself; choose another output name.")
    convert(
        state,
        source,
        sha256_of(source),
        arguments.output,
        arguments.dtype,
        arguments.dataset or arguments.pretrained,
        arguments.licence,
        arguments.untrained,
    )


if __name__ == "__main__":
    cli.run(main)
