"""Searches embeddings of `facenet embed --out X.npy` with FAISS: the five nearest faces of each query.

    pip install faiss-cpu
    python search_faiss.py faces.npy queries.npy
"""

import json
import pathlib
import sys

import faiss
import numpy as np


def load(name):
    path = pathlib.Path(name)
    rows = [json.loads(line) for line in path.with_suffix(".index.jsonl").open(encoding="utf-8")]
    return np.load(path), rows, json.loads(path.with_suffix(".model.json").read_text(encoding="utf-8"))


faces, names, model = load(sys.argv[1])
queries, query_names, query_model = load(sys.argv[2])
if model["model"] != query_model["model"]:
    sys.exit(f"embeddings of {model['model']} and {query_model['model']} are not comparable: embed both with one weight file")
index = faiss.IndexFlatL2(model["dim"])
index.add(faces)
squared, found = index.search(queries, min(5, len(faces)))  # FAISS gives squared distances
for name, distances, numbers in zip(query_names, np.sqrt(squared), found):
    for distance, number in zip(distances, numbers):
        same = "same" if distance <= model["threshold"] else "different"
        print(f"{name['image']} {name['face']}\t{names[number]['image']} {names[number]['face']}\t{distance:.4f}\t{same}")
