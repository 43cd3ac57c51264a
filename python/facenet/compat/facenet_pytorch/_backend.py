"""Tensors where PyTorch is installed, NumPy arrays where it is not."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from facenet._errors import FacenetValueError

torch: Any
try:
    import torch
except ImportError:
    torch = None


class InputError(FacenetValueError, RuntimeError):
    """What cannot be embedded or searched for faces. PyTorch's convolutions raise a RuntimeError for it."""


class StateError(FacenetValueError, RuntimeError):
    """Weights that do not fit, or that nobody loaded. PyTorch raises a RuntimeError for it."""


class TrainingError(FacenetValueError, RuntimeError):
    """A gradient or a training step was asked for. PyTorch raises a RuntimeError for what carries no graph."""


class _Plain:
    """The methods of torch.nn.Module that scripts chain, where there is no PyTorch."""

    training = True

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self.forward(*arguments, **options)

    def forward(self, *arguments: Any, **options: Any) -> Any:
        raise NotImplementedError

    def train(self, mode: bool = True) -> Any:
        self.training = mode
        return self

    def eval(self) -> Any:
        return self.train(False)

    def to(self, *_: Any, **__: Any) -> Any:
        return self

    def cuda(self, device: Any = None) -> Any:
        return self.to("cuda" if device is None else device)

    def cpu(self) -> Any:
        return self

    def requires_grad_(self, requires_grad: bool = True) -> Any:
        return self


_Base: Any = _Plain if torch is None else torch.nn.Module
_warned = False


def _kind(device: Any) -> str:
    if isinstance(device, int) and not isinstance(device, bool):
        return "cuda"
    return str(device).split(":")[0]


def warn_of_device(device: Any) -> None:
    """Says once in a process that a GPU is not used."""
    global _warned
    if _kind(device) in ("cuda", "mps", "xpu") and not _warned:
        _warned = True
        print(f"facenet: the engine runs on the CPU; {device} computes nothing here.", file=sys.stderr, flush=True)


class Module(_Base):  # type: ignore[misc]
    """What MTCNN and InceptionResnetV1 share: a torch.nn.Module, where there is one, that owns no parameters."""

    device: Any

    def _set_device(self, device: Any) -> None:
        self.device = "cpu" if torch is None else torch.device("cpu")
        if device is not None:
            self.device = device
            warn_of_device(device)

    def to(self, *arguments: Any, **options: Any) -> Any:
        for value in (*arguments, *options.values()):
            if isinstance(value, str) or type(value).__name__ == "device":
                warn_of_device(value)
        return super().to(*arguments, **options)

    def cuda(self, device: Any = None) -> Any:
        warn_of_device("cuda")
        return self


def is_tensor(value: Any) -> bool:
    return torch is not None and isinstance(value, torch.Tensor)


def tensor(array: Any) -> Any:
    """The array as a tensor, where there is PyTorch."""
    array = np.ascontiguousarray(array)
    return array if torch is None else torch.from_numpy(array)


def stack(values: Any) -> Any:
    return np.stack(values) if torch is None else torch.stack(values)


_ABSENT = {"PNet", "RNet", "ONet", "detect_face", "BasicConv2d", "Block35", "Block17", "Block8", "Mixed_6a", "Mixed_7a"}


def absent(module: str, name: str) -> Any:
    """For a module's __getattr__: a sentence about what facenet-pytorch has and the engine does inside."""
    if name in _ABSENT:
        raise ImportError(f"{name}: the engine has no separate layers or stages; use MTCNN or InceptionResnetV1, or facenet-pytorch itself.")
    raise AttributeError(f"module {module!r} has no attribute {name!r}")
