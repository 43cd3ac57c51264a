#!/usr/bin/env python3
"""Precision and recall of `facenet watch` on a video whose truth is known: rendered people walk through, some are in the gallery.

Three lanes of an 800x720 picture at 10 frames a second. A visit is a person who walks for 12 frames, turns the head and changes the
expression meanwhile, and in two visits of five is hidden in part meanwhile. Light differs from visit to visit. The threshold
comes from `facenet calibrate --gallery-size … --fpir …` over pictures of those who are enrolled and of others who never come, so
nothing is known of the strangers.

  tests/watch/measure.py --weights FILE --detector FILE WORK      about 10 minutes of two cores, most of it for rendering

WORK keeps what was rendered; a second call goes on. Prints the table of docs/watch.md.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import functools
import io
import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import facenet_tools  # noqa: E402, F401 (first: it picks the Python that has torch)
import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

from facenet_tools import rendered_faces  # noqa: E402

WIDTH, HEIGHT, FPS = 800, 720, 10
LANES, LANE_HEIGHT = 3, 240
POSES, FRAMES_A_POSE, GAP = 4, 3, 8  # a visit's renderings, frames for which each is shown, frames until the lane's next visit
# A camera at a door: its light and its lens do not change as much as those of photographs from everywhere.
CAMERA = {
    **rendered_faces.VIEW, "yaw": (-0.5, 0.5), "pitch": (-0.2, 0.2), "roll": (-0.12, 0.12), "light_x": (-0.6, 0.6), "light_y": (0.0, 0.7),
    "ambient": (0.35, 0.6), "warmth": (-0.12, 0.12), "exposure": (0.8, 1.2), "blur": (0.0, 0.8), "noise": (1.0, 5.0), "saturation": (0.8, 1.2),
}  # fmt: skip
ENROLLED = {**CAMERA, "yaw": (-0.3, 0.3), "pitch": (-0.12, 0.12)}
MOVING = ("yaw", "pitch", "roll", "mouth_open", "gaze", "smile")  # from pose to pose; the others are the visit's


def person(number: int, seed: int) -> dict[str, float]:
    return rendered_faces.draw(rendered_faces.PERSON, np.random.default_rng([seed, number]))


def render_enrolled(number: int, folder: pathlib.Path, pictures: int, seed: int) -> None:
    for index in range(pictures):
        path = folder / f"person{number:04}" / f"{index}.png"
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng([seed, number, 1, index])
        view = rendered_faces.draw(ENROLLED, random)
        pixels = rendered_faces.photograph(person(number, seed), view, rendered_faces.background(random), random, occluded=False)
        Image.fromarray(pixels).save(path.with_suffix(".part"), "png")
        path.with_suffix(".part").rename(path)


def render_visit(visit: int, number: int, folder: pathlib.Path, seed: int) -> None:
    """The poses of a visit, [POSES, SIDE, SIDE, 3]."""
    path = folder / f"{visit:04}.npy"
    if path.exists():
        return
    random = np.random.default_rng([seed, number, 2, visit])
    base, first, last = (rendered_faces.draw(CAMERA, random) for _ in range(3))
    behind, hidden = rendered_faces.background(random), int(random.integers(0, POSES - 1)) if random.random() < 0.4 else POSES
    poses = []
    for pose in range(POSES):
        share = pose / (POSES - 1)
        view = base | {name: (1 - share) * first[name] + share * last[name] for name in MOVING} | {"left": 0.0, "top": 0.0}
        clothes = np.random.default_rng([seed, number, 3, visit, pose // 2])
        poses.append(rendered_faces.photograph(person(number, seed), view, behind, clothes, occluded=hidden <= pose < hidden + 2))
    with open(path.with_suffix(".part"), "wb") as file:
        np.save(file, np.stack(poses))
    path.with_suffix(".part").rename(path)


def plan(visits: int, known: int, strangers: int, seed: int) -> list[int]:
    """Who comes, visit after visit; numbers from `known` on are strangers', each of whom comes once."""
    random = np.random.default_rng([seed, 4])
    who = [int(n) for n in np.resize(random.permutation(known), visits - strangers)] + list(range(known, known + strangers))
    return [who[i] for i in random.permutation(visits)]


def walks(who: list[int], seed: int) -> list[dict]:
    """Of each visit: person, first frame, lane, and where its tile is in each frame (left, side)."""
    made = []
    for visit, number in enumerate(who):
        random = np.random.default_rng([seed, 5, visit])
        lane, turn, frames = visit % LANES, visit // LANES, POSES * FRAMES_A_POSE
        side = np.linspace(*sorted(random.uniform(0.75, 1.0, 2)), frames) * LANE_HEIGHT  # they come nearer
        speed = random.uniform(10, 45) * random.choice([-1, 1])
        room = WIDTH - LANE_HEIGHT
        start = random.uniform(max(0, -speed * (frames - 1)), min(room, room - speed * (frames - 1)))
        # Lanes are out of step, so that one, two or three people are seen at a time.
        made.append({"person": number, "first": turn * (frames + GAP) + 9 * lane, "lane": lane,
                     "left": (start + speed * np.arange(frames)).tolist(), "side": side.tolist()})  # fmt: skip
    return made


def write_video(walk: list[dict], folder: pathlib.Path, out: pathlib.Path, seed: int) -> int:
    """Motion JPEG, one file behind the other. Returns how many frames it has."""
    frames = max(w["first"] for w in walk) + POSES * FRAMES_A_POSE + GAP
    by_frame = collections.defaultdict(list)
    for visit, w in enumerate(walk):
        for i in range(POSES * FRAMES_A_POSE):
            by_frame[w["first"] + i].append((visit, i))
    random = np.random.default_rng([seed, 6])
    wall = Image.fromarray(random.integers(60, 190, (4, 6, 3), dtype=np.uint8)).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    load = functools.lru_cache(maxsize=12)(lambda visit: np.load(folder / f"{visit:04}.npy"))
    with open(out.with_suffix(".part"), "wb") as file:
        for frame in range(frames):
            picture = wall.copy()
            for visit, i in by_frame[frame]:
                w = walk[visit]
                side = round(w["side"][i])
                tile = Image.fromarray(load(visit)[i // FRAMES_A_POSE]).resize((side, side), Image.Resampling.BILINEAR)
                picture.paste(tile, (round(w["left"][i]), w["lane"] * LANE_HEIGHT + LANE_HEIGHT - side))
            noisy = np.asarray(picture, np.int16) + random.integers(-3, 4, (HEIGHT, WIDTH, 1), dtype=np.int16)
            encoded = io.BytesIO()
            Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(encoded, "jpeg", quality=90)
            file.write(encoded.getvalue())
    out.with_suffix(".part").rename(out)
    return frames


def whose(walk: list[dict], frame: int, box: list[float]) -> int | None:
    """The visit whose tile holds the middle of a box."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    for visit, w in enumerate(walk):
        i = frame - w["first"]
        if 0 <= i < len(w["left"]) and int(y // LANE_HEIGHT) == w["lane"] and 0 <= x - w["left"][i] <= w["side"][i]:
            return visit
    return None


def score(names: dict[int, set[str]], walk: list[dict], known: int, half: int | None = None) -> dict[str, float]:
    """A visit is right where it got its person's name and no other. `half`: of visits of persons with even or odd numbers."""
    chosen = {v for v, w in enumerate(walk) if half is None or w["person"] % 2 == half}
    named = right = 0
    for visit in chosen & names.keys():
        truth = walk[visit]["person"]
        named += bool(names[visit])
        right += truth < known and names[visit] == {f"person{truth:04}"}
    of_known = sum(walk[v]["person"] < known for v in chosen)
    strangers = [v for v in chosen if walk[v]["person"] >= known]
    return {"precision": right / max(named, 1), "recall": right / of_known, "named": named, "right": right,
            "strangers named": sum(bool(names.get(v)) for v in strangers)}  # fmt: skip


def losses(decisions: dict[int, list[dict]], walk: list[dict], known: int, votes: int) -> dict[str, int]:
    """Why visits of the known were not named."""
    found = collections.Counter()
    for visit, w in enumerate(walk):
        mine = decisions.get(visit, [])
        if w["person"] >= known or any(d["known"] for d in mine):
            continue
        looked_up, named = max((d["of"] for d in mine), default=0), max((d["votes"] for d in mine), default=0)
        found["no track of their own" if not mine else f"fewer than {votes} frames looked up" if looked_up < votes else
              "no frame near enough" if named == 0 else "near enough at first, not in all"] += 1  # fmt: skip
    return found


def run(command: list[object]) -> str:
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, text=True)
    if done.returncode > 1:
        raise SystemExit(f"measure: {command[1]} failed with status {done.returncode}; the message above says why.")
    return done.stdout


def watch(facenet: str, models: list[object], video: pathlib.Path, *options: object) -> list[dict]:
    text = run([facenet, "watch", "--json", *models, "--input-fps", FPS, *options, video])
    return [json.loads(line) for line in text.splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("--facenet", default=ROOT / "build/release/facenet")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--detector", default=ROOT / "weights/mtcnn.safetensors")
    parser.add_argument("--visits", type=int, default=240)
    parser.add_argument("--known", type=int, default=60)
    parser.add_argument("--strangers", type=int, default=80)
    parser.add_argument("--pictures", type=int, default=5, help="enrolled of each person")
    parser.add_argument("--others", type=int, default=100, help="persons beside, for the threshold: an FPIR of 2e-2 needs 150")
    parser.add_argument("--fpir", default="2e-2", help="strangers' faces that may be given a name, one picture by itself")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--watch", action="append", default=[], help="an option of facenet watch, such as --watch=--margin=0.02")
    o = parser.parse_args()

    people, everybody, poses, video = (o.work / name for name in ("people", "everybody", "visits", "video.mjpeg"))
    for folder in (poses, everybody):
        folder.mkdir(parents=True, exist_ok=True)
    who = plan(o.visits, o.known, o.strangers, o.seed)
    walk = walks(who, o.seed)
    with concurrent.futures.ProcessPoolExecutor(o.jobs) as pool:
        jobs = [pool.submit(render_enrolled, n, people, o.pictures, o.seed) for n in range(o.known)]
        beside = o.known + o.strangers
        jobs += [pool.submit(render_enrolled, n, everybody, 3, o.seed) for n in range(beside, beside + o.others)]
        jobs += [pool.submit(render_visit, visit, n, poses, o.seed) for visit, n in enumerate(who)]
        for job in jobs:
            job.result()
    if not video.exists():
        write_video(walk, poses, video, o.seed)

    models = ["--weights", o.weights, "--detector", o.detector, "--threads", 1]
    gallery, threshold = o.work / "people.gallery", o.work / "people.threshold"
    for file in (gallery, threshold):
        file.unlink(missing_ok=True)
    run([o.facenet, "enroll", *models, gallery, "--dir", people])
    for folder in people.iterdir():
        if not (everybody / folder.name).exists():
            (everybody / folder.name).symlink_to(folder.resolve())
    run([o.facenet, "calibrate", *models, "--gallery-size", o.known, "--fpir", o.fpir, "--out", threshold, everybody])
    options = ["--gallery", gallery, "--threshold", threshold, *o.watch]

    decided, decisions, ms = collections.defaultdict(set), collections.defaultdict(list), []
    events = watch(o.facenet, models, video, *options)
    for event in events:
        visit = whose(walk, event["frame"], event["box"]) if event["event"] == "decision" else None
        if visit is not None:
            decided[visit] |= {event["name"]} if event["known"] else set()
            decisions[visit].append(event)
            if event["known"]:
                ms.append(event["at_ms"] - event["arrived_ms"])
    stages = events[-1]["ms"]

    # Without consensus: what each frame's nearest person within the threshold is, as a service says it picture for picture.
    each, first = collections.defaultdict(set), {}
    frames = right_frames = known_frames = 0
    for event in watch(o.facenet, models, video, *options, "--each-face", "--votes", 100, "--most-votes", 1000):
        visit = whose(walk, event["frame"], event["box"]) if event["event"] == "face" else None
        if visit is None:
            continue
        match = event["matches"][0] if event["matches"] else None
        name = {match["name"]} if match and match["distance"] <= event["threshold"] else set()
        known_frames += walk[visit]["person"] < o.known
        frames += bool(name)
        right_frames += name == {f"person{walk[visit]['person']:04}"}
        each[visit] |= name
        first.setdefault(visit, name)

    rows = {
        "one decision a visit": score(decided, walk, o.known),
        "of persons with even numbers": score(decided, walk, o.known, 0),
        "of persons with odd numbers": score(decided, walk, o.known, 1),
        "the first good frame decides": score(first, walk, o.known),
        "every frame reports": score(each, walk, o.known),
    }
    print(f"{len(walk)} visits, {o.strangers} of them strangers'; {o.known} persons known by {o.pictures} pictures each")
    print("\n| | precision | recall | visits named | strangers named |\n|---|---|---|---|---|")
    for name, row in rows.items():
        print(f"| {name} | {row['precision']:.3f} | {row['recall']:.3f} | {row['named']} | {row['strangers named']} |")
    print(f"| of single frames | {right_frames / max(frames, 1):.3f} | {right_frames / max(known_frames, 1):.3f} | | |")
    print("\nknown and not named: " + "; ".join(f"{count} {why}" for why, count in losses(decisions, walk, o.known, 3).items()))
    print(f"\nfrom arrival to name: median {np.median(ms):.0f} ms, 95% within {np.percentile(ms, 95):.0f} ms of the video's time")
    print("ms a frame: " + ", ".join(f"{name} {value:.1f}" for name, value in stages.items()))


if __name__ == "__main__":
    main()
