"""ONNX as torch.onnx.export writes facenet-pytorch's network, there and back.

The exporter folds most batch norms into their convolutions and gives the results names of its own, so layers are
known by the order of execution. What was read is then run beside the file itself, which finds any mistake.
"""

from __future__ import annotations

import functools
import io
import math
import pathlib
import sys
import warnings
from typing import Iterator

import numpy as np
import torch
from torch.nn import functional

from facenet_tools import checkpoint
from facenet_tools.checkpoint import StateDict
from facenet_tools.cli import ToolError, listed, shown

# Both sides compute in float32: 1.2e-6 is what PyTorch itself is off from float64, and numpy sums in another order.
SAME = 1e-5
PREFIX = "facenet."  # of our own metadata, and the keys of format 1 that still hold for the file
KEPT = ("trained", "width", "image_size", "channel_order", "scaling", "crop", "margin", "resize", "dataset", "licence", *checkpoint.THRESHOLD)
SIDE = 160
MOST_PICTURES = 64
MOST_BYTES = 1 << 30  # of one tensor; FaceNet's largest have 1.4 MB
_OPSET = 14

# What exporters make of the network in opsets 7 to 22. None of them loops, branches or calls anything.
_OPERATORS = set(
    "Conv BatchNormalization Relu MaxPool AveragePool GlobalAveragePool ReduceMean Concat Mul Add Sum Sub Div Flatten Reshape Shape Size Gather "
    "Unsqueeze Squeeze Slice MatMul Gemm ReduceL2 ReduceSum ReduceSumSquare LpNormalization Sqrt Pow Abs Max Min Clip Expand Constant "
    "ConstantOfShape Identity Transpose Cast CastLike Dropout Pad Where Equal Softmax LogSoftmax".split()
)


def _import_onnx(path: str):
    try:
        import onnx
        import onnx.reference
    except ImportError as error:
        raise ToolError(f"{path}: ONNX files need the package onnx; run: .venv/bin/python -m pip install onnx") from error
    return onnx


def parts(path: str) -> list[pathlib.Path]:
    """The file and those beside it that hold its tensors, in the order in which their SHA-256 is taken."""
    onnx = _import_onnx(path)
    model = _parse(onnx, path)
    where = pathlib.Path(path)
    names = dict.fromkeys(_location(onnx, tensor, path) for tensor in _external(onnx, model))
    absent = [name for name in names if not (where.parent / name).is_file()]
    if absent:
        raise ToolError(f"{path}: its weights are in {listed([shown(name) for name in absent])}, not beside it; copy that too, or export one file.")
    return [where, *(where.parent / name for name in names)]


def read(path: str) -> tuple[StateDict, dict[str, str]]:
    """The state_dict (batch norm as the file has it: folded or not), and the metadata if this tool wrote the file."""
    onnx = _import_onnx(path)
    model = _parse(onnx, path)
    try:
        _load_external(onnx, model, path)
        _look(model, path)
        _to_float32(onnx, model)
        graph = _Graph(onnx, model.graph, path)
        state = graph.state()
    except ToolError:
        raise
    except Exception as error:  # a node without inputs, an initialiser shorter than its shape, a type numpy lacks
        raise ToolError(f"{path}: its graph is damaged ({_first_line(error)}); export it again.") from error
    real, dim = checkpoint.check(state, path)
    _compare(onnx, model, real, dim, graph.features, path)
    ours = {p.key.removeprefix(PREFIX): p.value for p in model.metadata_props if p.key.startswith(PREFIX)}
    return real, {key: ours[key] for key in KEPT if key in ours}


def _parse(onnx, path: str):
    try:
        return onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf raises DecodeError, which is no subclass of anything useful
        raise ToolError(f"{path}: not a readable ONNX file ({_first_line(error)}); export it again.") from error


def _tensors(model) -> Iterator:
    yield from model.graph.initializer
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t


def _external(onnx, model) -> list:
    return [tensor for tensor in _tensors(model) if tensor.data_location == onnx.TensorProto.EXTERNAL]


def _location(onnx, tensor, path: str) -> str:
    """The name of the file that holds a tensor, which must lie in the same folder."""
    name = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
    if name in ("", ".", "..") or "\0" in name or pathlib.PurePosixPath(name).name != name or pathlib.PureWindowsPath(name).name != name:
        raise ToolError(f"{path}: {shown(tensor.name)} is kept in the file {shown(name)!r}, not one beside it; export the network as one file.")
    return name


def _load_external(onnx, model, path: str) -> None:
    """Takes in the tensors that are kept beside the file, each of the size its shape says: many may point to the same large file."""
    folder = pathlib.Path(path).parent
    for tensor in _external(onnx, model):
        name = _location(onnx, tensor, path)
        given = {entry.key: entry.value for entry in tensor.external_data}
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        size, start = math.prod(tensor.dims) * dtype.itemsize, int(given.get("offset", 0))
        if int(given.get("length", size)) != size or start < 0 or not 0 <= size <= MOST_BYTES:
            raise ToolError(f"{path}: {shown(tensor.name)} has another size in {shown(name)} than its shape says; export the network again.")
        with open(folder / name, "rb") as file:
            file.seek(start)
            tensor.raw_data = file.read(size)
        if len(tensor.raw_data) != size:
            raise ToolError(f"{path}: {shown(name)} ends before {shown(tensor.name)} does; copy it again.")
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]


def _look(model, path: str) -> None:
    """What can be said of a graph without running it."""
    inputs = _inputs(model, path)
    dims = [dim.dim_value for dim in inputs[0].type.tensor_type.shape.dim]  # 0: any
    if len(dims) == 4 and dims[3] == 3 and dims[1] != 3:
        raise ToolError(f"{path}: takes pictures as rows x columns x 3; only a network exported from facenet-pytorch (3 x 160 x 160) can be converted.")
    if len(dims) == 4 and (dims[1] not in (0, 3) or any(side not in (0, SIDE) for side in dims[2:])):
        shape = " x ".join(str(dim or "any") for dim in dims[1:])
        raise ToolError(f"{path}: takes pictures of {shape}, FaceNet's have 3 x {SIDE} x {SIDE}; export it with torch.zeros(1, 3, {SIDE}, {SIDE}).")
    if len(dims) == 4 and dims[0] > MOST_PICTURES:
        raise ToolError(f"{path}: takes {dims[0]} pictures at once; export it with torch.zeros(1, 3, {SIDE}, {SIDE}).")
    strange = sorted({shown(node.op_type) for node in model.graph.node if node.op_type not in _OPERATORS or node.domain not in ("", "ai.onnx")})
    if strange:
        raise ToolError(f"{path}: has operators that FaceNet does not need ({listed(strange)}); export the embedder alone from facenet-pytorch.")
    for node in model.graph.node:
        training = any(a.name == "training_mode" and a.i for a in node.attribute) or len([name for name in node.output if name]) > 1
        if node.op_type == "BatchNormalization" and training:
            raise ToolError(f"{path}: its batch norms are in training mode; call model.eval() and export it again.")


def _inputs(model, path: str) -> list:
    inputs = [i for i in model.graph.input if i.name not in {t.name for t in model.graph.initializer}]
    if len(inputs) != 1:
        raise ToolError(f"{path}: the graph has {len(inputs)} inputs, not one picture; export the embedder alone.")
    return inputs


def _to_float32(onnx, model) -> None:
    """A graph in half or double precision becomes one in float32 with the same weights, so that it can be compared closely."""
    proto = onnx.TensorProto
    others = {proto.FLOAT16, proto.BFLOAT16, proto.DOUBLE}
    for tensor in _tensors(model):
        if tensor.data_type in others:
            value = onnx.numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i in others:
                attribute.i = proto.FLOAT
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        if value.type.tensor_type.elem_type in others:
            value.type.tensor_type.elem_type = proto.FLOAT


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")[:200] or type(error).__name__


def write(state: StateDict, dim: int, metadata: dict[str, str], path: str) -> bytes:
    """The network with these weights; input [N, 3, 160, 160] scaled as the metadata says, output [N, dim]."""
    onnx = _import_onnx(path)
    network = checkpoint.model_of(state, dim)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "shape inference of prim::Constant is missing", about its own constants
        torch.onnx.export(
            network,
            torch.zeros(1, 3, 160, 160),
            buffer,
            opset_version=_OPSET,
            input_names=["input"],
            output_names=["embedding"],
            dynamic_axes={"input": {0: "n"}, "embedding": {0: "n"}},
        )
    model = onnx.load_model_from_string(buffer.getvalue())
    onnx.helper.set_model_props(model, {PREFIX + key: value for key, value in metadata.items()})
    return model.SerializeToString()


class _Graph:
    """Looks up the weights of an exported graph."""

    def __init__(self, onnx, graph, path: str) -> None:
        self.onnx, self.graph, self.path = onnx, graph, path
        self.initialisers = {tensor.name: tensor for tensor in graph.initializer}
        self.makers = {output: node for node in graph.node for output in node.output}
        self.norms = {node.input[0]: node for node in graph.node if node.op_type == "BatchNormalization"}
        self.features: str | None = None  # what a classifier reads, where the graph has one

    def state(self) -> StateDict:
        nodes = [node for node in self.graph.node if node.op_type in ("Conv", "MatMul", "Gemm")]
        model = checkpoint.empty_model()
        layers = list(checkpoint.layers(model))
        if len(nodes) == len(layers) + 1 and nodes[-1].op_type != "Conv" and nodes[-1].input:
            self.features = nodes.pop().input[0]  # the classifier of classify=True, which no embedding needs
        if len(nodes) != len(layers):
            raise ToolError(
                f"{self.path}: {len(nodes)} convolutions and matrix products, Inception-ResNet-v1 has {len(layers)}; "
                "only a network exported from facenet-pytorch can be converted."
            )
        state: StateDict = {}
        for layer, node in zip(layers, nodes):
            state |= self._layer(layer, node)
        return state

    def _layer(self, layer: checkpoint.Layer, node) -> StateDict:
        if len(node.input) < 2 or not node.output:
            raise ToolError(f"{self.path}: a {node.op_type} has no weights; export the network again.")
        weight = self._tensor(node.input[1])
        if node.op_type == "MatMul" or (node.op_type == "Gemm" and not self._attribute(node, "transB", 0)):
            weight = weight.T
        bias = self._tensor(node.input[2]) if len(node.input) > 2 else torch.zeros(len(weight), dtype=weight.dtype)
        if layer.norm is None:
            return {layer.weight: weight, layer.bias: bias}
        norm = self.norms.get(node.output[0])
        if norm is None:
            return {layer.weight: weight, **checkpoint.identity_norm(layer, bias)}
        eps = self._attribute(norm, "epsilon", 1e-5)
        if abs(eps - layer.eps) > 1e-6 * layer.eps:
            raise ToolError(f"{self.path}: the batch norm of {layer.name} has epsilon {eps:g}, not {layer.eps:g}.")
        if bias.any():
            raise ToolError(f"{self.path}: {layer.name} has a bias and a batch norm; facenet-pytorch's has no such.")
        parts = ("weight", "bias", "running_mean", "running_var")
        return {layer.weight: weight} | {
            f"{layer.norm}.{part}": self._tensor(name) for part, name in zip(parts, norm.input[1:])
        }

    def _tensor(self, name: str, depth: int = 0) -> torch.Tensor:
        """An initialiser's value; equal ones are stored once and reached through Identity, or turned by Transpose."""
        if name in self.initialisers:
            return torch.from_numpy(np.array(self.onnx.numpy_helper.to_array(self.initialisers[name])))
        maker = self.makers.get(name)
        if maker is not None and maker.op_type == "Constant":
            return torch.from_numpy(np.array(self.onnx.numpy_helper.to_array(next(a.t for a in maker.attribute if a.name == "value"))))
        if maker is not None and maker.op_type in ("Identity", "Transpose", "Cast") and depth < 8:
            value = self._tensor(maker.input[0], depth + 1)
            return value.T if maker.op_type == "Transpose" else value
        raise ToolError(f"{self.path}: {name} is computed, not stored; export the network in evaluation mode.")

    @staticmethod
    def _attribute(node, name: str, default: float) -> float:
        return next((a.f or a.i for a in node.attribute if a.name == name), default)


def _compare(onnx, model, state: StateDict, dim: int, features: str | None, path: str) -> None:
    """Runs the file and what was read from it on noise. features: what its classifier reads, compared before normalisation."""
    (value,) = _inputs(model, path)
    batch = next((dim.dim_value for dim in value.type.tensor_type.shape.dim), 0) or 1
    picture = torch.rand(batch, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    network = checkpoint.model_of(state, dim)
    raw: list[np.ndarray] = []
    network.last_bn.register_forward_hook(lambda _module, _inputs, output: raw.append(output.numpy()))
    ours = network(picture).numpy()
    try:
        evaluator = onnx.reference.ReferenceEvaluator(model, new_ops=_operators())
        theirs = evaluator.run(None if features is None else [features], {value.name: picture.numpy()})
    except Exception as error:  # what an operator of numpy raises when the graph does not fit together
        raise ToolError(f"{path}: the graph does not run ({_first_line(error)}); export it again.") from error
    arrays = [np.asarray(their) for their in theirs]
    length = np.linalg.norm(raw[0], axis=1, keepdims=True)
    plain = min((_difference(array, raw[0], length) for array in arrays), default=np.inf)
    error = plain if features is not None else min((_difference(array, ours) for array in arrays), default=np.inf)
    if features is None and not error <= SAME and plain <= SAME:
        print(f"convert_weights.py: {path}: the graph ends before embeddings are normalised; the converted network normalises them.", file=sys.stderr)
        return
    if not error <= SAME:
        raise ToolError(
            f"{path}: the graph computes something else than Inception-ResNet-v1 with its weights (embeddings differ "
            f"by {error:.1e}); only a network exported from facenet-pytorch, layers in its order, can be converted."
        )


def _difference(theirs: np.ndarray, ours: np.ndarray, length: np.ndarray | float = 1.0) -> float:
    with np.errstate(all="ignore"):
        return float((np.abs(theirs - ours) / length).max()) if theirs.shape == ours.shape else np.inf


@functools.cache
def _operators() -> list[type]:
    """Ours, where the package's take seconds (Conv, MaxPool), or normalise with the picture's own statistics in opsets 9 to 13 (BatchNormalization)."""
    from onnx.reference.op_run import OpRun

    class Conv(OpRun):
        op_domain = ""

        def _run(self, x, w, b=None, auto_pad=None, dilations=None, group=None, kernel_shape=None, pads=None, strides=None):
            if auto_pad not in (None, "NOTSET") or x.ndim != 4:
                raise ToolError("a convolution with automatic padding, as FaceNet has none")
            top, left, bottom, right = pads or (0, 0, 0, 0)
            padded = functional.pad(torch.from_numpy(np.array(x)), (left, right, top, bottom))
            bias = None if b is None else torch.from_numpy(np.array(b))
            return (functional.conv2d(padded, torch.from_numpy(np.array(w)), bias, strides or 1, 0, dilations or 1, group or 1).numpy(),)

    class MaxPool(OpRun):
        op_domain = ""

        def _run(self, x, auto_pad=None, ceil_mode=None, dilations=None, kernel_shape=None, pads=None, storage_order=None, strides=None):
            if auto_pad not in (None, "NOTSET") or x.ndim != 4 or ceil_mode or storage_order or any(pads or ()) or any(d != 1 for d in dilations or ()):
                raise ToolError("a pooling layer with padding, as FaceNet has none")
            return (functional.max_pool2d(torch.from_numpy(np.array(x)), kernel_shape, strides or 1).numpy(),)

    class BatchNormalization(OpRun):
        op_domain = ""

        def _run(self, x, scale, bias, mean, var, epsilon=None, **_attributes):
            shape = (1, -1) + (1,) * (x.ndim - 2)
            factor = scale / np.sqrt(var + np.float32(1e-5 if epsilon is None else epsilon))
            return (((x - mean.reshape(shape)) * factor.reshape(shape) + bias.reshape(shape)).astype(x.dtype),)

    return [Conv, MaxPool, BatchNormalization]
