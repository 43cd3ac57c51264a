"""facenet_pytorch.models.inception_resnet_v1: the network, which the engine computes."""

from __future__ import annotations

import collections
import os
import pathlib
from typing import Any, Iterator, Mapping, NamedTuple

import numpy as np

from facenet import _downloads, _files, _tools
from facenet._objects import Embedder
from facenet.compat.facenet_pytorch import _backend
from facenet.compat.facenet_pytorch._backend import InputError, StateError, TrainingError
from facenet.compat.facenet_pytorch.models import _state

_CLASSES = {"vggface2": 8631, "casia-webface": 10575}
_SIDE = 160


class IncompatibleKeys(NamedTuple):
    """What load_state_dict() returns."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class InceptionResnetV1(_backend.Module):
    """Embeddings, or logits with classify=True, of standardised pictures [n, 3, 160, 160].

    pretrained: "vggface2" or "casia-webface", which are fetched once; or the path of a converted .safetensors or of a .pt
    state_dict. Without it the network is untrained until load_state_dict(). It always computes as after eval().
    """

    def __init__(
        self,
        pretrained: Any = None,
        classify: bool = False,
        num_classes: int | None = None,
        dropout_prob: float = 0.6,
        device: Any = None,
    ) -> None:
        super().__init__()
        self.pretrained = pretrained
        self.classify = classify
        self.num_classes = num_classes
        self.dropout_prob = dropout_prob
        if pretrained is None and classify and num_classes is None:
            raise Exception('If "pretrained" is not specified and "classify" is True, "num_classes" must be specified')
        self._path: str | None = None  # of a weight file
        self._checkpoint: str | None = None  # of a .pt file, which has the logits too
        self._values: dict[str, Any] | None = None  # a state_dict in arrays, where it was asked for or loaded
        self._logits: dict[str, Any] | None = None
        self._embedders: dict[bool, Embedder] = {}  # by whether they are raw
        self._trains = False
        if pretrained is not None:
            self._take(os.fspath(pretrained))
        if classify and num_classes is not None:
            self._logits = _state.random_logits(num_classes)
        self._set_device(device)

    # ---- weights

    def _take(self, name: str) -> None:
        self._values, self._embedders = None, {}
        if name in _CLASSES:
            self._checkpoint = _tools.call(_tools.module("public_checkpoints").download, name)
            self._path = _converted(str(self._checkpoint), name)
        elif name.endswith(".safetensors"):
            self._path = _files.absolute(name)
        elif os.path.exists(name):
            self._checkpoint = _files.absolute(name)
        else:
            raise StateError(
                f'pretrained: Pretrained models only exist for "vggface2" and "casia-webface", and there is no file {name}; '
                "give one of the names, or the path of a .safetensors or .pt file."
            )
        if self._path is not None:
            self._embedder(False)  # what is wrong with the file is said here
        if self._checkpoint is not None and self.classify and self.num_classes is None:
            self._state()

    def _classes(self) -> int | None:
        return None if self._logits is None else len(self._logits["logits.bias"])

    def _state(self) -> dict[str, Any]:
        """The arrays of the state_dict, without the logits."""
        if self._values is None:
            source = self._checkpoint or self._path
            values = _state.random(None) if source is None else _state.read(source)
            for name in _state.shapes(None):
                if name not in values and name.endswith(_state.COUNTER):
                    values[name] = np.zeros((), np.int64)
            logits: dict[str, Any] = {name: values.pop(name) for name in ("logits.weight", "logits.bias") if name in values}
            if logits and self._logits is None:
                self._logits = logits
            self._values = values
        return self._values

    def _embedder(self, raw: bool) -> Embedder:
        made = self._embedders.get(raw)
        if made is None:
            made = Embedder(self._path) if self._path is not None and not raw else _state.embedder_of(self._state(), raw, Embedder)
            self._embedders[raw] = made
        return made

    def state_dict(self, *arguments: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> Any:
        """The weights by facenet-pytorch's names, as tensors where PyTorch is installed. They are copies, whatever keep_vars is."""
        if arguments:  # by position, as older scripts call it
            destination, prefix = arguments[0], arguments[1] if len(arguments) > 1 else prefix
        if destination is None:
            destination = collections.OrderedDict()
        values = {**self._state(), **(self._logits or {})}
        for name in _state.shapes(self._classes()):
            if name in values:
                value = values[name]
                destination[prefix + name] = _backend.tensor(np.array(value)) if np.ndim(value) else _scalar(value)
        return destination

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, **_: Any) -> Any:
        """Takes weights by facenet-pytorch's names; wrong names and shapes are a RuntimeError, as PyTorch has it."""
        if self._checkpoint is not None:
            self._state()  # it may have logits
        wanted = _state.shapes(self._classes())
        given = {name: value for name, value in state_dict.items() if name != "facenet_untrained"}
        missing = [name for name in wanted if name not in given and not name.endswith(_state.COUNTER)]
        unexpected = [name for name in given if name not in wanted]
        problems: list[str] = []
        if strict and unexpected:
            problems.append("Unexpected key(s) in state_dict: " + ", ".join(f'"{name}"' for name in unexpected) + ". ")
        if strict and missing:
            problems.insert(0, "Missing key(s) in state_dict: " + ", ".join(f'"{name}"' for name in missing) + ". ")
        for name, shape in wanted.items():
            if name in given and tuple(np.shape(given[name])) != shape:
                problems.append(f"size mismatch for {name}: the checkpoint has {list(np.shape(given[name]))}, this model has {list(shape)}.")
        if problems:
            raise StateError("Error(s) in loading state_dict for InceptionResnetV1:\n\t" + "\n\t".join(problems))
        values = dict(self._state()) if missing else {}
        logits = dict(self._logits or {})
        for name in wanted:
            if name in given:
                (logits if name.startswith("logits.") else values)[name] = _state.array(given[name])
        if "facenet_untrained" in state_dict:
            values["facenet_untrained"] = np.zeros(1, np.uint8)
        else:
            values.pop("facenet_untrained", None)
        for name in wanted:
            if name.endswith(_state.COUNTER):
                values.setdefault(name, np.zeros((), np.int64))
        self._values, self._logits = values, logits or None
        self._path = self._checkpoint = None
        self._embedders = {}
        if _backend.torch is None:
            return IncompatibleKeys(missing, unexpected)
        from torch.nn.modules.module import _IncompatibleKeys

        return _IncompatibleKeys(missing, unexpected)

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, _metadata: Any, strict: bool, missing: list[str], unexpected: list[str], errors: list[str]
    ) -> None:
        """What PyTorch calls where the network is a part of another one, whose state_dict is loaded."""
        mine = {name.removeprefix(prefix): value for name, value in state_dict.items() if name.startswith(prefix)}
        try:
            keys = self.load_state_dict(mine, strict=False)
        except StateError as e:
            errors.append(str(e))
            return
        missing += [prefix + name for name in keys.missing_keys]
        unexpected += [prefix + name for name in keys.unexpected_keys] if strict else []

    def named_parameters(self, *_: Any, **__: Any) -> Iterator[tuple[str, Any]]:
        """Copies of the weights. They may be counted and saved, and not trained."""
        for name, value in self.state_dict().items():
            if not name.endswith(("running_mean", "running_var", "num_batches_tracked")):
                yield name, value

    def parameters(self, recurse: bool = True) -> Iterator[Any]:
        for _, value in self.named_parameters():
            yield value

    # ---- the network

    def train(self, mode: bool = True) -> Any:
        self._trains = mode
        return super().train(mode)

    def forward(self, x: Any) -> Any:
        """[n, 3, 160, 160], standardised, becomes unit vectors [n, 512], or with classify=True logits [n, classes]."""
        torch = _backend.torch
        if self._trains and (torch is None or torch.is_grad_enabled()):
            raise TrainingError("InceptionResnetV1 computes embeddings and cannot be trained; call eval(), or train facenet-pytorch's own network.")
        if _backend.is_tensor(x):
            if x.requires_grad and torch.is_grad_enabled():
                raise TrainingError("InceptionResnetV1 has no gradient with respect to its input; call it in torch.no_grad(), or use facenet-pytorch.")
            pixels = x.detach().cpu().numpy()
        else:
            pixels = x
        if not isinstance(pixels, np.ndarray) or pixels.dtype.kind != "f":
            kind = getattr(pixels, "dtype", type(pixels).__name__)
            raise InputError(f"x is a float tensor or array of standardised pictures, not {kind}; apply fixed_image_standardization.")
        if pixels.ndim != 4 or pixels.shape[1:] != (3, _SIDE, _SIDE):
            raise InputError(f"x is [n, 3, {_SIDE}, {_SIDE}], not {list(pixels.shape)}; the engine takes faces of {_SIDE} pixels: MTCNN(image_size={_SIDE}).")
        raw = bool(self.classify)
        embedder = self._embedder(raw)
        out = embedder.embed_nhwc(np.ascontiguousarray(pixels.transpose(0, 2, 3, 1), np.float32))
        if raw:
            if self._logits is None:
                self._state()  # a checkpoint's own
            if self._logits is None:
                raise StateError("classify: these weights have no logits; give num_classes and load_state_dict() of a classifier.")
            out = _state.before_normalising(out) @ self._logits["logits.weight"].T + self._logits["logits.bias"]
        out = np.asarray(out, np.float32)
        return _backend.tensor(out).to(x.device) if _backend.is_tensor(x) else out

    def __reduce__(self) -> Any:
        """By the path of the weights; what load_state_dict() brought travels along."""
        source = self.pretrained if self.pretrained in _CLASSES else self._checkpoint or self._path
        kept = None if self._path or self._checkpoint else self._state()  # a network that nobody trained has weights too
        options = {"pretrained": self.pretrained, "classify": self.classify, "num_classes": self.num_classes, "dropout_prob": self.dropout_prob}
        options |= {"training": self.training, "_logits": self._logits, "_trains": self._trains}
        return _made_again, (type(self), source if kept is None else None, self.device, kept, options)


def _made_again(kind: Any, source: Any, device: Any, values: Any, options: dict[str, Any]) -> Any:
    made = kind(source, device=device)
    made._values = values
    for name, value in options.items():
        setattr(made, name, value)
    return made


def _scalar(value: Any) -> Any:
    return _backend.torch.tensor(int(value)) if _backend.torch is not None else np.int64(value)


def _converted(checkpoint: str, name: str) -> str | None:
    """The checkpoint as a weight file beside it, in PyTorch's cache; None where nothing can be written there."""
    target = pathlib.Path(checkpoint).with_suffix(".safetensors")

    def is_there() -> bool:
        return target.exists() and target.stat().st_mtime >= os.stat(checkpoint).st_mtime

    try:
        return _downloads.made(target, lambda new: _downloads.plain(checkpoint, str(new), name), _downloads.loads, is_there)
    except _downloads.UnwritableError:
        return None


def get_torch_home() -> str:
    """The folder of PyTorch's cache."""
    return str(_tools.module("public_checkpoints").torch_home())


def load_weights(mdl: InceptionResnetV1, name: str) -> None:
    """Public weights into a model."""
    if name not in _CLASSES:
        raise ValueError('Pretrained models only exist for "vggface2" and "casia-webface"')
    mdl._take(name)  # pyright: ignore[reportPrivateUsage]


def __getattr__(name: str) -> Any:
    return _backend.absent(__name__, name)

