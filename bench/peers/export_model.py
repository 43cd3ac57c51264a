#!/usr/bin/env python3
"""Exports a checkpoint for every peer: ONNX, TorchScript, a plain state_dict, the pictures and the float64 truth.

Runs in the project's .venv (Debian's PyTorch, which still exports opset 17 without further packages).
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
import warnings

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))

from facenet_tools import checkpoint, face_api

OPSET = 17


class DlibResnet(nn.Module):
    """dlib's face ResNet with the affine layers folded in."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        for layer in face_api.fold(face_api.read(folder)[0]):
            for part in ("weight", "bias"):
                self.register_buffer(f"{layer.name}.{part}".replace(".", "__"), getattr(layer, part).float())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        buffers = dict(self.named_buffers())
        names = {name.rsplit("__", 1)[0] for name in buffers}
        layers = {name.replace("__", "."): checkpoint.Folded(name, buffers[f"{name}__weight"], buffers[f"{name}__bias"])
                  for name in names}
        return face_api.forward(layers, x)


def load_model(path: str) -> tuple[nn.Module, str, int]:
    """The network, its architecture and the side of its pictures; path: a state_dict, or the folder of face-api."""
    if pathlib.Path(path).is_dir():
        return DlibResnet(path).eval().requires_grad_(False), "dlib_resnet", int(face_api.METADATA["image_size"])
    state, dim = checkpoint.check(checkpoint.read(path), path)
    architecture = checkpoint.architecture_of(state)
    model = checkpoint.build_model(dim, architecture)
    model.load_state_dict(state, strict=False)  # num_batches_tracked and the classifier are not in it
    return model, architecture, 160


def make_images(count: int, side: int) -> np.ndarray:
    """float32 [count, 3, side, side]: smooth shapes under noise as 8-bit pixels, standardised as (x - 127.5) / 128."""
    random = np.random.default_rng(1)
    coarse = torch.from_numpy(random.uniform(0, 255, (count, 3, 8, 8)).astype(np.float32))
    smooth = nn.functional.interpolate(coarse, size=(side, side), mode="bicubic", align_corners=False).numpy()
    pixels = np.clip(np.rint(smooth + random.normal(0, 12, smooth.shape)), 0, 255)
    return np.ascontiguousarray((pixels - 127.5) / 128, dtype=np.float32)


def export_onnx(model: nn.Module, side: int, path: pathlib.Path, batch: int | None) -> None:
    """batch None: the first dimension is named "batch" and free."""
    axes = None if batch else {"input": {0: "batch"}, "embedding": {0: "batch"}}
    torch.onnx.export(model, torch.zeros(batch or 1, 3, side, side), str(path), opset_version=OPSET,
                      input_names=["input"], output_names=["embedding"], dynamic_axes=axes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", help="a state_dict, or the folder of the npm package @vladmandic/face-api")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--batches", type=int, nargs="+", required=True)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    model, architecture, side = load_model(options.checkpoint)
    images = make_images(max(options.batches), side)
    torch.save({name: value for name, value in model.state_dict().items() if not name.startswith("logits.")},
               options.folder / "state.pt")
    torch.jit.trace(model, torch.zeros(1, 3, side, side)).save(str(options.folder / "model.pt"))
    export_onnx(model, side, options.folder / "model.onnx", None)
    for batch in options.batches:
        export_onnx(model, side, options.folder / f"model_{batch}.onnx", batch)
    np.save(options.folder / "images.npy", images)
    reference = model.double()(torch.from_numpy(images).double()).numpy()
    np.save(options.folder / "reference.npy", reference)
    (options.folder / "info.json").write_text(json.dumps({
        "architecture": architecture, "dim": reference.shape[1], "side": side, "opset": OPSET, "torch": torch.__version__}))


if __name__ == "__main__":
    main()
