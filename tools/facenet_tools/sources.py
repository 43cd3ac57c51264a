"""Where weights come from: recognises a file by its content and reads it into facenet-pytorch's names."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import sys

import numpy as np
import torch

from facenet_tools import checkpoint, cli, keras_files, onnx_files, rounding, safetensors_writer, strangers, tensorflow_files
from facenet_tools.checkpoint import StateDict
from facenet_tools.cli import ToolError

# What facenet-pytorch does between a picture and the network: MTCNN crops the box without margin, Pillow resizes
# it bilinearly, fixed_image_standardization computes (x - 127.5) / 128.
FACENET_PYTORCH = {
    "image_size": "160",
    "channel_order": "rgb",
    "scaling": "fixed",
    "crop": "box",
    "margin": "0",
    "resize": "pillow_bilinear",
}

# davidsandberg's names of his models are the moments they were trained at; copies keep them in their file names.
_TRAINED_ON = {
    "20170214-092102": "casia-webface",
    "20170216-091149": "ms-celeb-1m",
    "20170511-185253": "casia-webface",
    "20170512-110547": "ms-celeb-1m",
    "20180402-114759": "vggface2",
    "20180408-102900": "casia-webface",
    "facenet_weights.h5": "ms-celeb-1m",
    "facenet512_weights.h5": "vggface2",
}

# What metadata of format 1 must look like where it comes from a stranger's file; the engine would refuse the rest.
_VALUES = {
    "trained": "true|false",
    "width": r"[0-9]{1,2}(\.[0-9]{1,6})?",
    "image_size": "[1-9][0-9]{0,3}",
    "channel_order": "rgb|bgr",
    "scaling": "fixed|prewhiten|unit|mean_255",
    "crop": "box|five_point",
    "margin": r"[0-9]{1,6}(\.[0-9]{1,6})?",
    "resize": ".{1,100}",
    "dataset": ".{1,400}",
    "licence": ".{1,400}",
    "threshold": r"[0-2](\.[0-9]{1,12})?",
    "threshold_source": ".{1,400}",
}


@dataclasses.dataclass(frozen=True)
class Source:
    """A checkpoint in facenet-pytorch's names, and what its kind says about preprocessing and training."""

    path: str
    digest: str
    state: StateDict
    dim: int
    trained: bool
    metadata: dict[str, str]  # keys of format 1; preprocessing always, the rest where the file knows it

    @property
    def architecture(self) -> str:
        return checkpoint.architecture_of(self.state)

    @property
    def width(self) -> float:
        return checkpoint.width_of(self.state)

    @property
    def converted(self) -> bool:
        """Written by convert_weights.py: batch norm is folded and the weights may be rounded."""
        return "format" in self.metadata


def recognise(path: str) -> str:
    """What a path holds: pytorch, safetensors, tensorflow, graph, keras or onnx. A ToolError about everything else."""
    if path == "":
        raise ToolError("the name of the input is empty; give IN.")
    where = pathlib.Path(path)
    if tensorflow_files.checkpoint_prefix(path) is not None:
        return "tensorflow"
    if not where.is_file():
        if where.is_dir():
            raise ToolError(f"{path}: {strangers.folder(where)}; give {checkpoint.KINDS}.")
        raise ToolError(f"{path}: {'is not a regular file' if where.exists() else 'does not exist'}; give {checkpoint.KINDS}.")
    try:
        with open(path, "rb") as file:
            start = file.read(512)
    except OSError as error:
        raise ToolError(f"{path}: cannot be read ({error.strerror}); check its permissions.") from error
    if start == b"":
        raise ToolError(f"{path}: is empty; copy or download it again.")
    # Before the magic numbers: the length of its header may look like any of two bytes.
    if start[8:9] == b"{" and 2 <= int.from_bytes(start[:8], "little") <= 1 << 20:
        return "safetensors"
    stranger = strangers.file(path, start)
    if stranger is not None:
        raise ToolError(f"{path}: no checkpoint; this is {stranger}. Give {checkpoint.KINDS}.")
    if start.startswith(keras_files.MAGIC):
        return "keras"
    if start[:3] == b"\x08\x01\x12":
        raise ToolError(f"{path}: this is a TensorFlow SavedModel; give its checkpoint or a frozen graph.")
    # Protobufs: field 1 is a GraphDef's first node, which begins with its name, or a ModelProto's ir_version.
    if start[:1] == b"\x0a" and b"\x0a" in start[2:6]:
        return "graph"
    if start[:1] == b"\x08" and b"\x03" <= start[1:2] < b"\x20":
        return "onnx"
    return "pytorch"  # of which nothing but unpickling tells more


def located(path: str) -> str:
    """The file that is meant by a folder as Hugging Face's hub gives them; else the path itself."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        inside = pathlib.Path(path) / name
        if path and inside.is_file() and tensorflow_files.checkpoint_prefix(path) is None:
            return str(inside)
    return path


def read(
    path: str,
    scaling: str | None = None,
    unsafe: bool = False,
    expected_sha256: str | None = None,
    averaged: bool = False,
    entry: str | None = None,
) -> Source:
    """Reads and checks a checkpoint of any kind. scaling: what the user knows better than the kind does.
    expected_sha256: refuse another file, before anything of it is parsed. averaged, entry: which weights, where there are several."""
    path = located(path)
    kind = recognise(path)
    if kind == "tensorflow":
        path = tensorflow_files.checkpoint_prefix(path)
    files = {"tensorflow": tensorflow_files.parts, "onnx": onnx_files.parts}.get(kind, lambda path: [pathlib.Path(path)])
    digest = cli.sha256_of(files(path))
    if expected_sha256 not in (None, digest):
        raise ToolError(f"{path}: its SHA-256 is {digest}, not the expected one: this is another file, or a forged one.")
    if (averaged or entry is not None) and kind not in ("pytorch", "safetensors"):
        raise ToolError(f"{path}: --ema and --entry choose among the weights in a .pt or safetensors file; this has one network.")
    details = {}
    if kind == "tensorflow":
        state = tensorflow_files.read_checkpoint(path)
    elif kind == "graph":
        state = tensorflow_files.read_graph(path)
    elif kind == "keras":
        state = keras_files.read(path)
    elif kind == "onnx":
        state, details = onnx_files.read(path)
    else:
        state, details, note = _read_named(path, kind, unsafe, averaged, entry)
        if note:
            print(f"convert_weights.py: {path}: {note}.", file=sys.stderr)
    check_values(details, path)
    source = from_state(state, path, digest, details)
    if kind in ("tensorflow", "graph", "keras"):
        source.metadata.update(_davidsandberg(source.dim, kind))
    if scaling is not None:
        stated = source.metadata["scaling"] if "scaling" in details or kind in ("tensorflow", "graph", "keras") else scaling
        if stated != scaling:
            said = "the file itself says" if "scaling" in details else f"a model of this kind with {source.dim} dimensions was trained with"
            print(f"convert_weights.py: {path}: {said} scaling {stated}; --scaling {scaling} is obeyed.", file=sys.stderr)
        source.metadata["scaling"] = scaling
    return source


def _read_named(path: str, kind: str, unsafe: bool, averaged: bool, entry: str | None) -> tuple[StateDict, dict[str, str], str]:
    """A state_dict whose tensors have names; metadata; what to tell about the choice."""
    if kind == "pytorch":
        chosen = checkpoint.read_chosen(path, unsafe, averaged, entry)
        return chosen.state, chosen.metadata, chosen.note
    tensors, metadata = _read_safetensors(path)
    if metadata.get("format") == "1":
        if averaged or entry is not None:
            raise ToolError(f"{path}: is a converted file and holds one network; leave out --ema and --entry.")
        return tensors, metadata, ""
    chosen = checkpoint.choose(tensors, path, averaged, entry)
    said = {key: metadata[key] for key in checkpoint.THRESHOLD if key in metadata}
    return chosen.state, said if len(said) == len(checkpoint.THRESHOLD) else {}, chosen.note


def check_values(metadata: dict[str, str], path: str) -> None:
    for key, value in metadata.items():
        if key in _VALUES and not re.fullmatch(_VALUES[key], value):
            raise ToolError(f"{path}: its metadata says {key} = {value[:40]!r}, which makes no sense; export it again.")


def from_state(state: StateDict, path: str, digest: str, known: dict[str, str] | None = None) -> Source:
    """A checked state_dict in facenet-pytorch's names; what is not known about it is facenet-pytorch's habit."""
    known = known or {}
    trained = known.get("trained") != "false" and not checkpoint.is_untrained(state)
    real, dim = checkpoint.check(state, path)
    dataset = _dataset(path) if trained else "synthetic"
    return Source(path, digest, real, dim, trained, {**FACENET_PYTORCH, "dataset": dataset, **known})


def _dataset(path: str) -> str:
    names = "/".join(pathlib.Path(path).absolute().parts[-2:])  # the file's, and its folder's
    return next((dataset for known, dataset in _TRAINED_ON.items() if known in names), "unknown")


def _davidsandberg(dim: int, kind: str) -> dict[str, str]:
    """His models of 2017 have 128 dimensions and saw prewhitened pictures, those of 2018 have 512 and fixed scaling.

    His evaluation on LFW keeps 32 pixels of the source around the box: 32 of the output's, for a box of 128. DeepFace
    keeps none.
    """
    return {"scaling": "prewhiten" if dim == 128 else "fixed", "margin": "0" if kind == "keras" else "32"}


def _read_safetensors(path: str) -> tuple[StateDict, dict[str, str]]:
    """A plain state_dict, or a converted file: its weights with batch norms that only add, and its metadata."""
    import safetensors
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
        with safetensors.safe_open(path, "np") as file:
            metadata = file.metadata() or {}
    except Exception as error:  # SafetensorError; what torch says of shapes and of types that it does not have
        raise ToolError(f"{path}: not a readable safetensors file ({error}); copy or download it again.") from error
    if metadata.get("format") == "2" and "arithmetic" in metadata:
        raise ToolError(f"{path}: is a converted file for integer arithmetic, and there is no way back from it; convert what it came from.")
    if metadata.get("format") != "1":
        return tensors, {key: value for key, value in metadata.items() if key in checkpoint.THRESHOLD}
    return _unfolded({name: value.float().numpy() if value.dtype == torch.bfloat16 else value.numpy() for name, value in tensors.items()},
                     metadata, path), metadata


def _unfolded(arrays: dict[str, np.ndarray], metadata: dict[str, str], path: str) -> StateDict:
    keys = ("architecture", "embedding_dim", *FACENET_PYTORCH, "trained", "data_xxh64", "header_xxh64")
    missing = [key for key in keys if key not in metadata]
    if missing:
        raise ToolError(f"{path}: its metadata has format 1 but lacks {', '.join(missing)}; convert its source again.")
    if metadata["architecture"] != checkpoint.V1:
        raise ToolError(f"{path}: holds {metadata['architecture']}, not inception_resnet_v1; there is no way back for it.")
    raw = pathlib.Path(path).read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    # As it stands in the file: the sum was taken with its own digits blank.
    blank = raw[8:start].replace(metadata["header_xxh64"].encode(), safetensors_writer.HASH_BLANK.encode(), 1)
    for part, data, key in (("header", blank, "header_xxh64"), ("data", raw[start:], "data_xxh64")):
        if safetensors_writer.xxh64(data) != metadata[key]:
            raise ToolError(f"{path}: the {part}'s XXH64 does not agree: the file is damaged, copy or convert it again.")
    check_values(metadata, path)
    dim = metadata["embedding_dim"]
    if not re.fullmatch("[1-9][0-9]{0,4}", dim) or int(dim) > checkpoint.LARGEST_DIM:
        raise ToolError(f"{path}: its metadata says embedding_dim = {dim[:40]!r}, which makes no sense; convert its source again.")
    width = float(metadata["width"])
    if not checkpoint.is_width(width):
        raise ToolError(f"{path}: its metadata says width = {metadata['width']}, which makes no sense; convert its source again.")
    model = checkpoint.empty_model(int(dim), width=width)
    names = [f"{layer.name}.{part}" for layer in checkpoint.layers(model) for part in ("weight", "bias")]
    absent = [name for name in names if name not in arrays]
    shapes = {f"{layer.name}.{part}": shape for layer in checkpoint.layers(model) for part, shape in _shapes(layer, model)}
    wrong = [name for name in shapes if name in arrays and arrays[name].shape != shapes[name]]
    if absent or wrong:
        problem = f"lacks {', '.join(absent[:5])}" if absent else f"has another shape at {', '.join(wrong[:5])}"
        raise ToolError(f"{path}: {problem}, which its architecture needs; convert its source again.")
    return rounding.state_of(arrays, int(dim), width=width)


def _shapes(layer: checkpoint.Layer, model: torch.nn.Module) -> list[tuple[str, tuple[int, ...]]]:
    weight = tuple(model.get_parameter(layer.weight).shape)
    return [("weight", weight), ("bias", weight[:1]), ("weight_scale", weight[:1])]
