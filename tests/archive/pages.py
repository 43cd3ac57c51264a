#!/usr/bin/env python3
"""The pages of `facenet people pages` with many faces in Chromium: first paint, and the longest task while scrolling.

tests/archive/pages.py [--faces 50000] [--keep FOLDER] [--playwright FOLDER]

A gallery of that many faces is made up: one person has half of them, others few. Their pictures are noise. Prints one
JSON object, and keeps screenshots in FOLDER; exit status 1 where first paint takes over a second or a task over 100 ms.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import pathlib
import random
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
COMMAND = ROOT / "build/release/facenet"
IN_PICTURE = 1000  # faces


def make_gallery(folder: pathlib.Path, faces: int) -> pathlib.Path:
    import numpy as np
    from PIL import Image

    rng, chance = np.random.default_rng(1), random.Random(1)
    gallery = folder / "g"
    if gallery.exists():
        return gallery
    lines = [{"format": "facenet-gallery", "version": 1, "model": "0123456789abcdef", "architecture": "x", "embedding_dim": 4, "trained": True,
              "normalise": "none", "image_size": 160, "crop": "box", "margin": 0.0, "detector": ""}]  # fmt: skip
    persons = ["Ada Lovelace"] * (faces // 2)
    while len(persons) < faces:
        persons += [f"Person {len(persons)}"] * min(faces - len(persons), round(1 / chance.uniform(0.01, 1)))
    for picture in range(0, faces, IN_PICTURE):
        path = folder / f"photo{picture // IN_PICTURE:03}.jpg"
        Image.fromarray(rng.integers(0, 256, (100, 160, 3), np.uint8)).resize((1600, 1000)).save(path, quality=80)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        for number in range(picture, min(picture + IN_PICTURE, faces)):
            x, y = 36 * (number % 40), 36 * (number % IN_PICTURE // 40)
            lines.append({"name": persons[number], "image": str(path), "sha256": sha256[:58] + f"{number:06}", "face": 0,
                          "box": [x, y, x + 36, y + 36], "score": 0.99, "enrolled": "2026-01-01T00:00:00Z", "embedding": [1, 2, 3, number]})  # fmt: skip
    (folder / "lines").write_text("".join(json.dumps(line) + "\n" for line in lines))
    subprocess.run([COMMAND, "gallery", "import", gallery, folder / "lines"], check=True, stdout=subprocess.PIPE)
    return gallery


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=int, default=50_000)
    parser.add_argument("--keep", type=pathlib.Path, help="where pages and screenshots stay")
    parser.add_argument("--playwright", type=pathlib.Path, default=ROOT / "build/web", help="whose node_modules has playwright-core")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.keep or pathlib.Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        gallery = make_gallery(folder, options.faces)
        made = subprocess.run([COMMAND, "people", "pages", "-g", gallery, folder / "pages", "--json"], capture_output=True, text=True, check=False)
        assert made.returncode == 0, made.stderr
        measured = subprocess.run(["node", pathlib.Path(__file__).with_name("pages.mjs"), options.playwright, folder / "pages", folder],
                                  capture_output=True, text=True, check=False)  # fmt: skip
        assert measured.returncode == 0, measured.stderr
        result = {"faces": options.faces, **json.loads(measured.stdout)}
        print(json.dumps(result))
        return int(any(view["first_paint_ms"] > 1000 or view["longest_task_ms"] > 100 or view["errors"] for view in result["views"]))


if __name__ == "__main__":
    sys.exit(main())
