#!/usr/bin/env python3
"""What the tests of the JavaScript package compare with: weight files, pictures, and what the native command says of them.

make_fixtures.py OUT [--command build/release/facenet] [--checkpoint build/golden/checkpoint512.pt]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import pathlib
import subprocess
import sys

import numpy as np
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONVERT = ROOT / "tools/convert_weights.py"
sys.path.append(str(ROOT / "tools"))
from facenet_tools import pictures  # noqa: E402  (the folder must be known first)


def native(command: pathlib.Path, *arguments: object) -> list[dict]:
    done = subprocess.run([command, *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode == 2:
        sys.exit(f"{command} failed: {done.stderr}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def integers(command: pathlib.Path, weights: pathlib.Path, out: pathlib.Path) -> list[str]:
    """20 face crops, integers.rgb, and the bits of their embeddings in int8 arithmetic: hexadecimal, little-endian floats."""
    if not weights.exists():
        subprocess.run([CONVERT, "--face-api", ROOT / ".deps/face-api", "--dtype", "i8", "--calibrate", "default", "--with-mtcnn", "-o", weights],
                       check=True, stdout=subprocess.DEVNULL)
    random, folder = np.random.default_rng(20), out / "integers"
    folder.mkdir(exist_ok=True)
    crops = [pictures.structured(random) for _ in range(20)]
    (out / "integers.rgb").write_bytes(b"".join(crop.tobytes() for crop in crops))
    files = [folder / f"{i}.png" for i in range(len(crops))]
    for file, crop in zip(files, crops):
        Image.fromarray(crop).save(file)
    lines = native(command, "embed", "--aligned", "--json", "--arithmetic", "int8", "--weights", weights, *files)
    return [np.array(line["embedding"], "<f4").tobytes().hex() for line in lines]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--command", type=pathlib.Path, default=ROOT / "build/release/facenet")
    parser.add_argument("--checkpoint", type=pathlib.Path, default=ROOT / "build/golden/checkpoint512.pt")
    arguments = parser.parse_args()
    out = arguments.out
    weights = out / "weights"
    weights.mkdir(parents=True, exist_ok=True)
    facenet, small = weights / "facenet_i8.safetensors", weights / "small.safetensors"
    made = [("--dtype", "i8", arguments.checkpoint, facenet), ("--dtype", "f16", "--face-api", ROOT / ".deps/face-api", small)]
    for *how, target in made:
        if not target.exists():
            subprocess.run([CONVERT, *how, "--with-mtcnn", "-o", target], check=True, stdout=subprocess.DEVNULL)

    # PNG, since browsers decode JPEG by other arithmetic than stb. Two persons, and one of them twice.
    samples = ROOT / ".deps/samples"
    photographs = {"astronaut": samples / "astronaut.png", "group": samples / "sample1.jpg", "other": samples / "sample2.jpg"}
    expected = {"sha256": {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in (facenet, small)}, "pictures": {}}
    expected["integers"] = integers(arguments.command, weights / "integers.safetensors", out)
    for name, source in photographs.items():
        if not source.exists():
            continue
        with Image.open(source) as image:
            rgb = image.convert("RGB")
        if max(rgb.size) > 640:
            rgb.thumbnail((640, 640))
        rgb.save(out / f"{name}.png")
        rgb.resize((160, 160)).save(out / f"{name}_crop.png")
        (out / f"{name}.rgb").write_bytes(rgb.tobytes())
        (out / f"{name}_crop.rgb").write_bytes(rgb.resize((160, 160)).tobytes())
        aligned = native(arguments.command, "embed", "--json", "--aligned", "--weights", facenet, out / f"{name}_crop.png")
        found = native(arguments.command, "detect", "--json", "--weights", facenet, "--detector", facenet, out / f"{name}.png")
        whole = native(arguments.command, "embed", "--json", "--weights", small, "--detector", facenet, out / f"{name}.png")
        expected["pictures"][name] = {
            "width": rgb.width,
            "height": rgb.height,
            "crop": aligned[0]["embedding"],
            "faces": found[0]["faces"],
            "small": [line["embedding"] for line in whole],
        }
    (out / "expected.json").write_text(json.dumps(expected))


if __name__ == "__main__":
    main()
