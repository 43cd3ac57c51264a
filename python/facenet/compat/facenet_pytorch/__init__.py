"""facenet-pytorch 2.6.0's interface on this engine: import this in place of facenet_pytorch. docs/compat.md lists the differences."""

from __future__ import annotations

from typing import Any

from facenet.compat.facenet_pytorch.models.inception_resnet_v1 import InceptionResnetV1
from facenet.compat.facenet_pytorch.models.mtcnn import MTCNN, fixed_image_standardization, prewhiten
from facenet.compat.facenet_pytorch.models.utils import training
from facenet.compat.facenet_pytorch.models.utils.detect_face import extract_face

__all__ = ["MTCNN", "InceptionResnetV1", "extract_face", "fixed_image_standardization", "prewhiten", "training"]


def __getattr__(name: str) -> Any:
    from facenet.compat.facenet_pytorch import _backend

    return _backend.absent(__name__, name)
