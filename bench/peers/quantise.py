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


if __name__ == "__main__":
    peer, model, faces, folder = sys.argv[1], *map(pathlib.Path, sys.argv[2:])
    {"openvino": openvino, "onnxruntime": onnxruntime}[peer](model, np.load(faces), folder)
