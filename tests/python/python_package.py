"""What the tests of the Python package share: the package as the build folder has it, its errors, and a Python of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from types import MappingProxyType

import numpy as np
import pytest
from conftest import ROOT

BUILD = ROOT / os.environ.get("FACENET_BUILD", "build/release")
PACKAGE = BUILD / "python"
BUILT = bool(list(PACKAGE.glob("facenet/_engine*.so")))
needs_package = pytest.mark.skipif(not BUILT, reason=f"{PACKAGE} is not built")
if BUILT:
    sys.path.insert(0, str(PACKAGE))
    import facenet


def said(call, kind=ValueError) -> str:
    """The sentence of the error that `call` raises, which is a FacenetError and of that kind."""
    with pytest.raises(facenet.FacenetError) as caught:
        call()
    assert isinstance(caught.value, kind) and caught.value.code
    assert str(caught.value).endswith(".")
    return str(caught.value)


def run_python(code: str, *arguments: object, **options) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ, PYTHONPATH=str(PACKAGE))
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, timeout=120, env=environment, **options
    )


class MadeUp:
    """Stands for an embedder where a gallery asks what its embeddings were made with: four numbers, and no weights."""

    info = MappingProxyType({
        "digest": "0123456789abcdef", "architecture": "inception_resnet_v1", "normalise": "l2", "crop": "box", "embedding_dim": 4,
        "input_size": 160, "margin": 0.0, "trained": False,
    })  # fmt: skip


def axis(i: int) -> np.ndarray:
    """The embedding of a person who is like nobody else: up to four of them."""
    return np.eye(4, dtype=np.float32)[i]
