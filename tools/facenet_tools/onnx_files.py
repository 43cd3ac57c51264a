"""ONNX as torch.onnx.export writes facenet-pytorch's network, there and back.

The exporter folds most batch norms into their convolutions and gives the results names of its own, so layers are
known by the order of execution. What was read is then run beside the file itself, which finds any mistake.
"""

from __future__ import annotations

import io
import warnings

import numpy as np
import torch

from facenet_tools import checkpoint
from facenet_tools.checkpoint import StateDict
from facenet_tools.cli import ToolError

# Both sides compute in float32: 1.2e-6 is what PyTorch itself is off from float64, and numpy sums in another order.
SAME = 1e-5
PREFIX = "facenet."  # of our own metadata, and the keys of format 1 that still hold for the file
KEPT = ("trained", "width", "image_size", "channel_order", "scaling", "crop", "margin", "resize", "dataset", "licence")
_OPSET = 14


def _import_onnx(path: str):
    try:
        import onnx
        import onnx.reference
    except ImportError as error:
        raise ToolError(f"{path}: ONNX files need the package onnx; run: .venv/bin/python -m pip install onnx") from error
    return onnx


def read(path: str) -> tuple[StateDict, dict[str, str]]:
    """The state_dict (batch norm as the file has it: folded or not), and the metadata if this tool wrote the file."""
    onnx = _import_onnx(path)
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf raises DecodeError, which is no subclass of anything useful
        raise ToolError(f"{path}: not a readable ONNX file ({_first_line(error)}); export it again.") from error
    try:
        state = _Graph(onnx, model.graph, path).state()
    except ToolError:
        raise
    except Exception as error:  # a node without inputs, an initialiser shorter than its shape, a type numpy lacks
        raise ToolError(f"{path}: its graph is damaged ({_first_line(error)}); export it again.") from error
    real, dim = checkpoint.check(state, path)
    _compare(onnx, model, real, dim, path)
    ours = {p.key.removeprefix(PREFIX): p.value for p in model.metadata_props if p.key.startswith(PREFIX)}
    return real, {key: ours[key] for key in KEPT if key in ours}


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")[:200] or type(error).__name__


def write(state: StateDict, dim: int, metadata: dict[str, str], path: str) -> bytes:
    """The network with these weights; input [N, 3, 160, 160] scaled as the metadata says, output [N, dim]."""
    onnx = _import_onnx(path)
    network = checkpoint.build_model(dim, checkpoint.architecture_of(state))
    network.load_state_dict(state, strict=False)
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

    def state(self) -> StateDict:
        nodes = [node for node in self.graph.node if node.op_type in ("Conv", "MatMul", "Gemm")]
        model = checkpoint.build_model()
        layers = list(checkpoint.layers(model))
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

    def _tensor(self, name: str) -> torch.Tensor:
        """An initialiser's value; equal ones are stored once and reached through Identity, or turned by Transpose."""
        if name in self.initialisers:
            tensor = self.initialisers[name]
            if tensor.data_location == self.onnx.TensorProto.EXTERNAL:
                raise ToolError(f"{self.path}: {name} is kept in another file; save the model as one file.")
            return torch.from_numpy(np.array(self.onnx.numpy_helper.to_array(tensor)))
        maker = self.makers.get(name)
        if maker is not None and maker.op_type in ("Identity", "Transpose"):
            value = self._tensor(maker.input[0])
            return value.T if maker.op_type == "Transpose" else value
        raise ToolError(f"{self.path}: {name} is computed, not stored; export the network in evaluation mode.")

    @staticmethod
    def _attribute(node, name: str, default: float) -> float:
        return next((a.f or a.i for a in node.attribute if a.name == name), default)


def _compare(onnx, model, state: StateDict, dim: int, path: str) -> None:
    """Runs the file and what was read from it on one input of noise."""
    inputs = [i for i in model.graph.input if i.name not in {t.name for t in model.graph.initializer}]
    if len(inputs) != 1:
        raise ToolError(f"{path}: the graph has {len(inputs)} inputs, not one picture; export the embedder alone.")
    picture = torch.rand(1, 3, 160, 160, generator=torch.Generator().manual_seed(0)) * 2 - 1
    network = checkpoint.build_model(dim)
    network.load_state_dict(state, strict=False)
    ours = network(picture).numpy()
    try:
        theirs = onnx.reference.ReferenceEvaluator(model).run(None, {inputs[0].name: picture.numpy()})[0]
    except Exception as error:  # what an operator of numpy raises when the graph does not fit together
        raise ToolError(f"{path}: the graph does not run ({_first_line(error)}); export it again.") from error
    theirs = np.asarray(theirs)
    error = np.abs(theirs - ours).max() if theirs.shape == ours.shape else np.inf
    if not error <= SAME:
        raise ToolError(
            f"{path}: the graph computes something else than Inception-ResNet-v1 with its weights (embeddings differ "
            f"by {error:.1e}); only a network exported from facenet-pytorch, layers in its order, can be converted."
        )
