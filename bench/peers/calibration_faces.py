#!/usr/bin/env python3
"""The faces that `convert_weights.py --calibrate default` sees, for the peers' own quantisation: float32 [N, 3, side, side],
standardised as (byte - 127.5) / 128, first all faces, then their mirror images; and the network's float64 embeddings of the faces.

Runs in the project's .venv, which has the detector that finds them.
"""

from __future__ import annotations

import pathlib
import sys

import numpy as np
import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))

from facenet_tools import calibration, quantisation, sources

from export_model import load_model

checkpoint, folder = sys.argv[1], pathlib.Path(sys.argv[2])
faces, _ = calibration.faces(calibration.DEFAULT, sources.read(checkpoint).metadata)
pixels = quantisation.with_mirrors(faces).transpose(0, 3, 1, 2).astype(np.float32)
images = np.ascontiguousarray((pixels - 127.5) / 128, dtype=np.float32)
np.save(folder / "faces.npy", images)
with torch.inference_mode():
    model = load_model(checkpoint)[0].double()
    truth = [model(torch.from_numpy(image[None]).double()).numpy() for image in images[: len(faces.people)]]
np.save(folder / "faces_reference.npy", np.concatenate(truth))
