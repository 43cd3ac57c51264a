#!/usr/bin/env python3
"""Exports a checkpoint for every peer: ONNX, TorchScript, a plain state_dict, the pictures and the float64 truth.

Runs in the project's .venv (Debian's PyTorch, which still exports opset 17 without further packages).
"""

from __future__ import annotations

import argparse
import json
import pathlib
import warnings

import numpy as np
import torch
from facenet_pytorch import InceptionResnetV1
from torch import nn

SIDE = 160
OPSET = 17


def load_model(checkpoint: str) -> tuple[nn.Module, dict]:
    loaded = torch.load(checkpoint, map_location="cpu")
    loaded = {name.removeprefix("module."): value for name, value in loaded.items()}
    model = InceptionResnetV1(pretrained=None, classify=False)
    dim = loaded["last_linear.weight"].shape[0]
    if dim != model.last_linear.out_features:
        model.last_linear = nn.Linear(model.last_linear.in_features, dim, bias=False)
        model.last_bn = nn.BatchNorm1d(dim, eps=model.last_bn.eps)
    # The classifier does not run; real checkpoints carry it, and so does our own with other keys of its own.
    own = model.state_dict()
    state = {name: loaded.get(name, own[name]) for name in own if not name.startswith("logits.")}
    missing = [name for name in state if name not in loaded and not name.endswith("num_batches_tracked")]
    if missing:
        raise SystemExit(f"export_model: {checkpoint} lacks {', '.join(missing)}")
    model.load_state_dict(state, strict=False)
    return model.eval().requires_grad_(False), state


def make_images(count: int) -> np.ndarray:
    """float32 [count, 3, 160, 160]: smooth shapes under noise as 8-bit pixels, standardised as (x - 127.5) / 128."""
    random = np.random.default_rng(1)
    coarse = torch.from_numpy(random.uniform(0, 255, (count, 3, 8, 8)).astype(np.float32))
    smooth = nn.functional.interpolate(coarse, size=(SIDE, SIDE), mode="bicubic", align_corners=False).numpy()
    pixels = np.clip(np.rint(smooth + random.normal(0, 12, smooth.shape)), 0, 255)
    return np.ascontiguousarray((pixels - 127.5) / 128, dtype=np.float32)


def export_onnx(model: nn.Module, path: pathlib.Path, batch: int | None) -> None:
    """batch None: the first dimension is named "batch" and free."""
    axes = None if batch else {"input": {0: "batch"}, "embedding": {0: "batch"}}
    torch.onnx.export(model, torch.zeros(batch or 1, 3, SIDE, SIDE), str(path), opset_version=OPSET,
                      input_names=["input"], output_names=["embedding"], dynamic_axes=axes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--batches", type=int, nargs="+", required=True)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    model, state = load_model(options.checkpoint)
    images = make_images(max(options.batches))
    torch.save(state, options.folder / "state.pt")
    torch.jit.trace(model, torch.zeros(1, 3, SIDE, SIDE)).save(str(options.folder / "model.pt"))
    export_onnx(model, options.folder / "model.onnx", None)
    for batch in options.batches:
        export_onnx(model, options.folder / f"model_{batch}.onnx", batch)
    np.save(options.folder / "images.npy", images)
    np.save(options.folder / "reference.npy", model.double()(torch.from_numpy(images).double()).numpy())
    dim = state["last_linear.weight"].shape[0]
    (options.folder / "info.json").write_text(json.dumps({"dim": dim, "opset": OPSET, "torch": torch.__version__}))


if __name__ == "__main__":
    main()
