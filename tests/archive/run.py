#!/usr/bin/env python3
"""An archive of many pictures through `facenet people`: rate, memory, kills, and a second run. Takes an hour with 100,000.

tests/archive/run.py [--pictures 100000] [--kills 2] [--weights FILE --detector FILE] [--keep FOLDER]
tests/archive/run.py --identities [--faces 50000]       sorts generated identities in ten increments and at once

Pictures of 320 pixels are made from the sample photographs: cut, mirrored, brightened, and each another file. The rate is
compared with decoding, detecting and embedding alone (`facenet embed` of a part, whose output goes nowhere). Prints one
JSON object; exit status 1 where a promise of docs/archive.md is broken.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
COMMAND = ROOT / "build/release/facenet"
SAMPLES = ROOT / ".deps/samples"
SIDE = 320


def make(folder: pathlib.Path, count: int) -> None:
    """Those that are there are left."""
    from PIL import Image, ImageEnhance, ImageOps

    sources = [ImageOps.exif_transpose(Image.open(path)).convert("RGB") for path in sorted(SAMPLES.iterdir()) if path.suffix in (".jpg", ".png")]
    for number in range(count):
        path = folder / f"{number // 1000:03}" / f"{number:06}.jpg"
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        chance = random.Random(number)
        source = sources[number % len(sources)]
        side = min(source.size) * chance.uniform(0.5, 1)
        x, y = chance.uniform(0, source.width - side), chance.uniform(0, source.height - side)
        picture = source.resize((SIDE, SIDE), Image.Resampling.BILINEAR, (x, y, x + side, y + side))
        if chance.random() < 0.5:
            picture = ImageOps.mirror(picture)
        ImageEnhance.Brightness(picture).enhance(chance.uniform(0.7, 1.3)).save(path, quality=85)


def peak_mib(process: subprocess.Popen) -> float:
    """Of its life so far."""
    try:
        status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    except (OSError, IndexError):
        return 0


def run(call: list[str], kill_after: float | None = None) -> tuple[dict | None, float, list[tuple[float, float]]]:
    """The summary (None: killed), seconds, and the memory's curve: seconds and MiB."""
    began, curve = time.monotonic(), []
    with tempfile.TemporaryFile() as out, subprocess.Popen(call, stdout=out) as process:
        while process.poll() is None:
            time.sleep(0.2)
            seconds = time.monotonic() - began
            if not curve or seconds - curve[-1][0] >= 30 or seconds < 10:
                curve.append((round(seconds, 1), round(peak_mib(process), 1)))
            if kill_after is not None and seconds >= kill_after:
                process.send_signal(signal.SIGKILL)
                process.wait()
                return None, seconds, curve
        out.seek(0)
        lines = out.read().decode().splitlines()
        if process.returncode not in (0, 1):
            sys.exit(f"{' '.join(call)}: exit status {process.returncode}")
        return json.loads(lines[-1]) if lines else {}, time.monotonic() - began, curve


def identities(faces: int) -> int:
    tool = ROOT / "build/release/facenet_growing_tool"
    worst = 0
    for seed in (1, 2, 3):
        line = subprocess.run([tool, str(faces), "10", "128", str(seed)], capture_output=True, text=True, check=True).stdout
        print(line.strip(), flush=True)
        found = json.loads(line)
        worst |= found["f1_of_at_once"] < 0.99 or found["truth_grown"] < found["truth_at_once"] - 0.01
    return int(worst)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--weights", default=str(ROOT / "weights/facenet.safetensors"))
    parser.add_argument("--detector", default=str(ROOT / "weights/mtcnn.safetensors"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--keep", type=pathlib.Path, help="where pictures are made, and kept for the next time")
    parser.add_argument("--identities", action="store_true")
    parser.add_argument("--faces", type=int, default=50_000)
    options = parser.parse_args()
    if options.identities:
        return identities(options.faces)
    with tempfile.TemporaryDirectory() as temporary:
        place = pathlib.Path(temporary)
        photos = (options.keep or place) / "photos"
        make(photos, options.pictures)
        network = ["--weights", options.weights, "--detector", options.detector, "-t", str(options.threads)]
        part = max(1, min(20, options.pictures // 50))  # thousands of pictures, or a fiftieth
        few = [str(p) for p in sorted(photos.iterdir())[:part]]
        count = sum(1 for folder in few for _ in pathlib.Path(folder).iterdir())
        _, alone_s, _ = run([str(COMMAND), "embed", "--quiet", "--json", "--cache", "none", *few, *network])
        people = [str(COMMAND), "people", str(photos), "-g", str(place / "g"), "--json", "--quiet", *network]
        alone = count / alone_s
        total_s, curves = 0.0, []
        for kill in range(options.kills):
            _, seconds, curve = run(people, kill_after=(kill + 1) * options.pictures / alone / (options.kills + 3))
            total_s += seconds
            curves.append(curve)
            checked = subprocess.run([COMMAND, "gallery", "check", place / "g"], capture_output=True, text=True, check=False)
            assert checked.returncode == 0, checked.stdout + checked.stderr
        found, seconds, curve = run(people)
        total_s += seconds
        curves.append(curve)
        again, again_s, _ = run(people)
        rate = options.pictures / total_s
        result = {"pictures": options.pictures, "faces": found["faces"], "persons": found["persons"], "seconds": round(total_s, 1),
                  "rate": round(rate, 1), "rate_alone": round(alone, 1), "share": round(rate / alone, 3), "kills": options.kills,
                  "second_run_s": round(again_s, 1), "unchanged": again["unchanged"],
                  "peak_mib": max(mib for one in curves for _, mib in one), "memory": curves}  # fmt: skip
        print(json.dumps(result))
        broken = again["unchanged"] != options.pictures or again["new_faces"] != 0 or found["failed"]
        return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
