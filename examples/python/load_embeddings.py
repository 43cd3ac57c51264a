"""Reads what `facenet embed photographs/ --out faces.npy` wrote, and prints the nearest other face of each.

    python load_embeddings.py faces.npy
"""

import json
import pathlib
import sys

import numpy as np

path = pathlib.Path(sys.argv[1])
faces = np.load(path)  # float32, a row a face
rows = [json.loads(line) for line in path.with_suffix(".index.jsonl").open(encoding="utf-8")]  # image, face, box, score, landmarks, model
model = json.loads(path.with_suffix(".model.json").read_text(encoding="utf-8"))
assert len(faces) == len(rows) == model["rows"]

# Euclidean distances by |a|² + |b|² - 2ab: embeddings of dlib's network are not of length 1.
squares = (faces.astype(np.float64) ** 2).sum(1)
distances = np.sqrt(np.maximum(squares[:, None] + squares - 2 * faces.astype(np.float64) @ faces.T.astype(np.float64), 0))
np.fill_diagonal(distances, np.inf)
for row, distance, nearest in zip(rows, distances.min(1), distances.argmin(1)):
    other = rows[nearest]
    same = "same" if distance <= model["threshold"] else "different"
    print(f"{row['image']} {row['face']}\t{other['image']} {other['face']}\t{distance:.4f}\t{same}")
