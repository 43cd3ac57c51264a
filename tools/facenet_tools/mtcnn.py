"""MTCNN's three networks, as facenet-pytorch 2.6.0 ships them, in the engine's layout.

Source of names and shapes: facenet_pytorch/models/mtcnn.py. There a dense layer reads the picture flattened in
(W, H, C) order; here it is a convolution over the whole picture. PReLU's slopes lie beside their convolution.
Needs neither PyTorch nor the package: the Python package of the engine makes the detector's weights with it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import pathlib

import numpy as np

from facenet_tools import pickled
from facenet_tools.cli import ToolError, few

StateDict = dict[str, np.ndarray]

# Each layer's weight, as the package declares it; a bias for each, and a PReLU after each but the heads ("_").
NETWORKS: dict[str, dict[str, tuple[int, ...]]] = {
    "pnet": {"conv1": (10, 3, 3, 3), "conv2": (16, 10, 3, 3), "conv3": (32, 16, 3, 3), "conv4_1": (2, 32, 1, 1), "conv4_2": (4, 32, 1, 1)},
    "rnet": {
        "conv1": (28, 3, 3, 3), "conv2": (48, 28, 3, 3), "conv3": (64, 48, 2, 2), "dense4": (128, 576), "dense5_1": (2, 128), "dense5_2": (4, 128),
    },
    "onet": {
        "conv1": (32, 3, 3, 3), "conv2": (64, 32, 3, 3), "conv3": (64, 64, 3, 3), "conv4": (128, 64, 2, 2), "dense5": (256, 1152),
        "dense6_1": (2, 256), "dense6_2": (4, 256), "dense6_3": (10, 256),
    },
}  # fmt: skip

# Channels and side of the picture that each network's first dense layer flattens.
_FLATTENED = {"rnet": (64, 3), "onet": (128, 3)}

# The same arithmetic as the embedder's "fixed": (x - 127.5) * 0.0078125.
_METADATA = {
    "format": "1",
    "architecture": "mtcnn",
    "embedding_dim": "0",
    "trained": "true",
    "normalise": "none",
    "width": "1",
    "image_size": "12",  # P-Net's window
    "channel_order": "rgb",
    "scaling": "fixed",
    "crop": "box",
    "margin": "0",
    "resize": "area",
}
DATASET = "wider_face+celeba"
LICENCE = "MIT (shipped inside facenet-pytorch); training data WIDER FACE and CelebA: research terms"


def packaged() -> pathlib.Path:
    """The folder of the installed package's weights."""
    package = importlib.util.find_spec("facenet_pytorch")
    return pathlib.Path(package.origin).parent / "data"


def packaged_source() -> str:
    return f"facenet-pytorch {importlib.metadata.version('facenet-pytorch')}"


def read(folder: str | pathlib.Path) -> tuple[dict[str, StateDict], str]:
    """The three state_dicts of a folder, and the SHA-256 of the files one after the other: pnet, rnet, onet."""
    absent = [f"{network}.pt" for network in NETWORKS if not (pathlib.Path(folder) / f"{network}.pt").is_file()]
    if absent:
        raise ToolError(f"{folder}: not there: {', '.join(absent)}; give a folder with pnet.pt, rnet.pt and onet.pt.")
    digest = hashlib.sha256()
    states: dict[str, StateDict] = {}
    for network in NETWORKS:
        path = pathlib.Path(folder) / f"{network}.pt"
        states[network] = _state(path)
        digest.update(path.read_bytes())
        _check(states[network], network, path)
    return states, digest.hexdigest()


def tensors(states: dict[str, StateDict]) -> dict[str, np.ndarray]:
    """Everything under "mtcnn.<network>.", in network order; in each layer bias, slope, weight (OIHW)."""
    out: dict[str, np.ndarray] = {}
    for network, state in states.items():
        for layer in [name.removesuffix(".bias") for name in state if name.endswith(".bias")]:
            name = f"mtcnn.{network}.{layer}"
            out[f"{name}.bias"] = state[f"{layer}.bias"]
            slope = f"prelu{layer[-1]}.weight"  # prelu4 belongs to conv4 or dense4; conv4_1 and dense5_2 are heads
            if "_" not in layer and slope in state:
                out[f"{name}.slope"] = state[slope]
            out[f"{name}.weight"] = _oihw(state[f"{layer}.weight"], network, "_" in layer)
    return out


def metadata(source: str, digest: str, licence: str | None, dataset: str | None) -> dict[str, str]:
    """Every key the engine asks for, except the hashes, which the writer adds."""
    return {
        **_METADATA,
        "dataset": dataset or DATASET,
        "source": f"{source}: pnet.pt, rnet.pt, onet.pt",
        "source_sha256": digest,
        "licence": licence or LICENCE,
    }


def _oihw(weight: np.ndarray, network: str, head: bool) -> np.ndarray:
    if weight.ndim == 4:
        return weight
    if head:
        return weight[:, :, None, None]
    channels, side = _FLATTENED[network]
    return weight.reshape(-1, side, side, channels).transpose(0, 3, 2, 1)  # O W H C -> O C H W


def _state(path: pathlib.Path) -> StateDict:
    try:
        tree = pickled.load(str(path))
        if isinstance(tree, dict):
            return {name: value.array() for name, value in tree.items() if isinstance(value, pickled.Tensor)}
    except OSError as error:
        raise ToolError(f"{path}: cannot be read ({error.strerror or error}); check its permissions.") from error
    except (pickled.Unreadable, pickled.Code, pickled.Program) as error:
        raise ToolError(f"{path}: not a readable PyTorch checkpoint of tensors ({error}); give facenet-pytorch's own file.") from error
    raise ToolError(f"{path}: holds {type(tree).__name__}, not a state_dict; give facenet-pytorch's own file.")


def _check(state: StateDict, network: str, path: pathlib.Path) -> None:
    expected: dict[str, tuple[int, ...]] = {}
    for layer, shape in NETWORKS[network].items():
        expected |= {f"{layer}.weight": shape, f"{layer}.bias": shape[:1]}
        if "_" not in layer:
            expected[f"prelu{layer[-1]}.weight"] = shape[:1]
    faults = [f"missing: {name}" for name in expected if name not in state]
    faults += [f"unexpected: {name}" for name in state if name not in expected]
    faults += [
        f"of the wrong shape: {name} is {list(state[name].shape)}, not {list(shape)}"
        for name, shape in expected.items()
        if name in state and tuple(state[name].shape) != shape
    ]
    faults += [f"not float32: {name}" for name, value in state.items() if value.dtype != np.float32]
    faults += [f"with NaN or infinity: {name}" for name, value in state.items() if not np.isfinite(value).all()]
    if faults:
        details = "".join(f"\n  {fault}" for fault in few(faults))
        raise ToolError(f"{path}: not the {network} of facenet-pytorch's MTCNN; give its own file:{details}")
