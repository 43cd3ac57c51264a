"""DeepFace 0.0.103's interface on this engine, for Facenet and Facenet512: import this in place of deepface. docs/compat.md of the
sources says what differs."""

from __future__ import annotations

import os

__version__ = "0.0.103"

# True: a detector_backend that MTCNN would stand in for is refused. $FACENET_DEEPFACE_STRICT sets it too.
strict = os.environ.get("FACENET_DEEPFACE_STRICT", "0") not in ("", "0")

from facenet.compat.deepface import DeepFace as DeepFace  # noqa: E402
