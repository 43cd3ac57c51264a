"""facenet-pytorch's public checkpoints: where they are, and fetching them into PyTorch's cache. Needs no PyTorch."""

from __future__ import annotations

import os
import pathlib
import sys

import numpy as np

from facenet_tools import cli, pickled
from facenet_tools import download as transfer
from facenet_tools.cli import ToolError

# Names and addresses as in facenet_pytorch/models/inception_resnet_v1.py, load_weights(), which itself
# unpickles what it downloads without weights_only.
RELEASE = "https://github.com/timesler/facenet-pytorch/releases/download/v2.2.9/"
PRETRAINED = {"vggface2": "20180402-114759-vggface2.pt", "casia-webface": "20180408-102900-casia-webface.pt"}
DIGESTS = {"vggface2": "281cebca8662831adb987a874bdcb36e73f5b1c6dc5ee5878f305e985625d99b"}  # those weights/README.md knows
SIZES = {"vggface2": 111_898_327}
FLOATS = {"f8", "f4", "f2", "bf16"}  # of pickled.Tensor.kind


def download(name: str, limit_s: float | None = None) -> str:
    """The path of a public checkpoint in torch's cache, where facenet-pytorch keeps it too; fetched when it is not there whole."""
    path = pathlib.Path(torch_home(), "checkpoints", PRETRAINED[name])
    wanted = transfer.Wanted(os.environ.get("FACENET_PRETRAINED_URL", RELEASE).rstrip("/") + "/" + path.name, SIZES.get(name), DIGESTS.get(name))
    problem = _fault(path, wanted) if path.exists() else ""
    if problem is None:
        return str(path)
    if problem:
        print(f"{cli.program()}: {path}: {problem}; it is downloaded again.", file=sys.stderr)
        part = path.with_name(path.name + ".part")
        if wanted.size is not None and path.stat().st_size < wanted.size and not path.is_symlink() and not part.exists():
            os.replace(path, part)  # its beginning may be right; the digest will tell
    try:
        transfer.fetch(wanted, path, limit_s)
    except ToolError as error:
        dataset = "" if cli.PROGRAM else f" --dataset {name}"  # without PyTorch the package's converter has no such option
        remedy = f"Or fetch it on a machine with a network and give the file: convert_weights.py FILE{dataset} -o OUT."
        raise ToolError(f"{str(error).rstrip('.')}. {remedy}") from error
    if wanted.sha256 is None and (problem := _fault(path, wanted)) is not None:
        path.unlink()
        raise ToolError(f"{path.name}: {problem}, and is removed; try again.")
    return str(path)


def _fault(path: pathlib.Path, wanted: transfer.Wanted) -> str | None:
    """Why a file is not the checkpoint; None: it is, as far as one can tell."""
    size = path.stat().st_size
    if wanted.size is not None and size != wanted.size:
        return f"has {size:,} bytes, the checkpoint has {wanted.size:,}"
    if wanted.sha256 is not None:
        return None if cli.sha256_of([path]) == wanted.sha256 else "has another SHA-256 than the checkpoint"
    try:
        arrays(str(path))
    except ToolError:
        return "is no readable checkpoint, maybe cut short"
    return None


def arrays(path: str, logits: bool = False) -> dict[str, np.ndarray]:
    """The float tensors of a state_dict as float32, whatever their size there is; as a plain safetensors file may hold them. logits:
    the classifier's too."""
    try:
        tree = pickled.load(path)
        state = tree if isinstance(tree, dict) else {}
        kept = {name: value for name, value in state.items() if isinstance(value, pickled.Tensor) and value.kind in FLOATS}
        wanted = {name: value for name, value in kept.items() if logits or not name.startswith("logits.")}
        with np.errstate(over="ignore"):  # what is too large for float32 is infinite, which the engine refuses
            values = {name: value.array().astype(np.float32, copy=False) for name, value in wanted.items()}
    except (pickled.Unreadable, pickled.Code, pickled.Program, OSError) as error:
        raise ToolError(f"{path}: not a readable PyTorch checkpoint of tensors ({error}); download or save it again.") from error
    if not values:
        raise ToolError(f"{path}: holds no state_dict; save model.state_dict().")
    if "facenet_untrained" in state:  # tools/make_checkpoint.py's mark
        values["facenet_untrained"] = np.zeros(1, np.uint8)
    return values


def torch_home() -> str:
    """As torch.hub has it."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return os.path.expanduser(os.environ.get("TORCH_HOME", os.path.join(cache, "torch")))
