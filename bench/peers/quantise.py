#!/usr/bin/env python3
"""Quantises an ONNX model for a peer by that peer's own tool, on the same faces as our file. Runs in .venv-peers."""

from __future__ import annotations

import pathlib
import sys

import numpy as np


def openvino(model: pathlib.Path, faces: np.ndarray, output: pathlib.Path) -> None:
    """NNCF's post-training quantisation, its default preset (which is its fastest) and bias correction."""
    import nncf
    import openvino as ov

    inputs = nncf.Dataset([face[np.newaxis] for face in faces])
    made = nncf.quantize(ov.Core().read_model(model), inputs, subset_size=len(faces))
    ov.save_model(made, output / "model.xml", compress_to_fp16=False)


def onnxruntime(model: pathlib.Path, faces: np.ndarray, output: pathlib.Path) -> None:
    """Static quantisation into QDQ form: weights int8 with a scale a channel, activations uint8."""
    from onnxruntime import quantization
    from onnxruntime.quantization import shape_inference

    class Faces(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(faces)

        def get_next(self) -> dict | None:
            face = next(self.left, None)
            return None if face is None else {"input": face[np.newaxis]}

    prepared = output / "prepared.onnx"  # batch norm folded, shapes known, as its manual wants it
    shape_inference.quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
    quantization.quantize_static(
        str(prepared), str(output / "model.onnx"), Faces(), quant_format=quantization.QuantFormat.QDQ,
        per_channel=True, weight_type=quantization.QuantType.QInt8, activation_type=quantization.QuantType.QUInt8,
    )  # fmt: skip


# ncnn's layers that have weights: the parameters that hold their number of outputs, of weights, and whether there is a
# bias; and one whose scales are copied as they are.
NCNN_WEIGHTS = {"Convolution": ("0", "6", "5"), "InnerProduct": ("0", "2", "1")}
NCNN_NORMALISE, NCNN_NORMALISE_SCALES = "Normalize", "3"
NCNN_FLOATS, NCNN_BYTES = 0, 0x000D4B38  # what stands in front of weights


class NcnnLayer:
    """A line of a .param file: kind, name, counts, names of blobs, key=value parameters."""

    def __init__(self, line: str) -> None:
        self.kind, self.name, inputs, outputs, *rest = line.split()
        ends = int(inputs), int(inputs) + int(outputs)
        self.inputs, self.outputs = rest[:ends[0]], rest[ends[0]:ends[1]]
        self.parameters = dict(part.split("=", 1) for part in rest[ends[1]:])

    def number(self, key: str) -> int:
        return int(self.parameters.get(key, "0"))

    def line(self) -> str:
        return " ".join([self.kind, self.name, str(len(self.inputs)), str(len(self.outputs)), *self.inputs, *self.outputs,
                         *(f"{key}={value}" for key, value in self.parameters.items())])


def ncnn(model: pathlib.Path, faces: np.ndarray, output: pathlib.Path) -> None:
    """Writes the files that ncnn2int8 would, which is not in the package: a scale for each channel of the weights, one
    for the activations that a layer reads (127 / largest value), and none in floats between two convolutions."""
    import ncnn as lib

    magic, counts, *lines = model.read_text().splitlines()
    layers = [NcnnLayer(line) for line in lines if line.strip()]
    weighted = [layer for layer in layers if layer.kind in NCNN_WEIGHTS]

    net = lib.Net()
    net.opt.lightmode = False  # keeps every blob
    if net.load_param(str(model)) or net.load_model(str(model.with_suffix(".bin"))):
        raise RuntimeError("ncnn cannot load the converted model")
    largest = dict.fromkeys((layer.inputs[0] for layer in weighted), 0.0)
    for face in faces:
        extractor = net.create_extractor()
        extractor.input("in0", lib.Mat(face).clone())
        for blob in largest:
            status, values = extractor.extract(blob)
            if status:
                raise RuntimeError(f"ncnn returned {status} for {blob}")
            largest[blob] = max(largest[blob], float(np.abs(np.array(values)).max()))
    readers: dict[str, list[NcnnLayer]] = {}
    for layer in layers:
        for blob in layer.inputs:
            readers.setdefault(blob, []).append(layer)

    data = memoryview(model.with_suffix(".bin").read_bytes())
    made = bytearray()

    def floats(count: int) -> np.ndarray:
        nonlocal data
        values, data = np.frombuffer(data[:4 * count], np.float32), data[4 * count:]
        return values

    for layer in layers:
        if layer.kind == NCNN_NORMALISE:
            made += floats(layer.number(NCNN_NORMALISE_SCALES)).tobytes()
        if layer not in weighted:
            continue
        outputs, weights, bias = (layer.number(key) for key in NCNN_WEIGHTS[layer.kind])
        if int(np.frombuffer(data[:4], np.uint32)[0]) != NCNN_FLOATS:
            raise RuntimeError(f"{layer.name} has weights that are not floats")
        data = data[4:]
        values = floats(weights).reshape(outputs, -1)
        scales = 127 / np.maximum(np.abs(values).max(axis=1), 1e-20)
        rounded = np.clip(np.rint(values * scales[:, np.newaxis]), -127, 127).astype(np.int8).tobytes()
        made += np.uint32(NCNN_BYTES).tobytes() + rounded + bytes(-len(rounded) % 4)
        made += floats(outputs if bias else 0).tobytes() + scales.astype(np.float32).tobytes()
        made += np.float32(127 / largest[layer.inputs[0]]).tobytes()
        layer.parameters["8"] = "1"
        after = readers.get(layer.outputs[0], [])
        if layer.kind == "Convolution" and after and all(reader.kind == "Convolution" for reader in after):
            layer.parameters["8"] = "101"  # the result is bytes
            made += np.float32(127 / largest[layer.outputs[0]]).tobytes()
    if len(data):
        raise RuntimeError(f"{len(data)} bytes of weights belong to no layer")
    (output / model.name).write_text("\n".join([magic, counts, *(layer.line() for layer in layers)]) + "\n")
    (output / model.with_suffix(".bin").name).write_bytes(made)


if __name__ == "__main__":
    peer, model, faces, folder = sys.argv[1], *map(pathlib.Path, sys.argv[2:])
    {"openvino": openvino, "onnxruntime": onnxruntime, "ncnn": ncnn}[peer](model, np.load(faces), folder)
