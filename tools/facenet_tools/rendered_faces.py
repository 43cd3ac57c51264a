"""Parametric faces, rendered: who it is, is a row of numbers; pose, light, expression, occlusion and background are others.

A head is a deformed ellipsoid with the coordinates x (right), y (up), z (to the viewer), whose height is 2. Its surface is
sampled on a grid of angles, coloured, turned, lit and splatted in the order of depth. Nothing of it comes from a photograph.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIDE = 240  # pixels of a picture
_OVERSAMPLING = 2  # of the splatted head, along each axis
_ROWS, _COLUMNS = 380, 360  # of the grid of angles: a head of 136 pixels, oversampled, gets no holes

# What makes a person: lengths in half heights of a head, angles in radians, the rest between 0 and 1.
PERSON = {
    "width": (0.64, 0.84), "jaw": (0.05, 0.42), "chin": (-0.04, 0.10), "cheekbones": (0.0, 0.08), "forehead": (-0.05, 0.06),
    "eye_distance": (0.25, 0.37), "eye_y": (0.02, 0.14), "eye_width": (0.10, 0.15), "eye_open": (0.35, 0.62),
    "eye_tilt": (-0.22, 0.22), "socket": (0.02, 0.08), "iris": (0.0, 1.0),
    "brow_height": (0.13, 0.21), "brow_thickness": (0.018, 0.055), "brow_slope": (-0.25, 0.25), "brow_width": (0.14, 0.21),
    "nose_y": (-0.30, -0.16), "nose_width": (0.07, 0.15), "nose_length": (0.10, 0.26), "nose_bridge": (0.035, 0.075),
    "mouth_y": (-0.60, -0.47), "mouth_width": (0.16, 0.30), "upper_lip": (0.02, 0.06), "lower_lip": (0.03, 0.08),
    "lip_colour": (0.0, 1.0), "skin": (0.0, 1.0), "hair_colour": (0.0, 1.0),
    "hairline": (0.45, 0.80), "parting": (-0.25, 0.25), "sides": (0.9, 1.6), "beard": (-0.8, 0.8), "moustache": (-0.8, 0.8),
    "mole_0_x": (-0.5, 0.5), "mole_0_y": (-0.8, 0.4), "mole_1_x": (-0.5, 0.5), "mole_1_y": (-0.8, 0.4),
}  # fmt: skip

# What makes a picture: the nuisance.
VIEW = {
    "yaw": (-0.55, 0.55), "pitch": (-0.30, 0.30), "roll": (-0.22, 0.22), "size": (56.0, 68.0),
    "left": (-12.0, 12.0), "top": (-10.0, 10.0), "light_x": (-1.3, 1.3), "light_y": (-0.6, 1.0), "ambient": (0.12, 0.6),
    "warmth": (-0.35, 0.35), "exposure": (0.55, 1.5), "mouth_open": (0.0, 0.07), "gaze": (-0.3, 0.3), "smile": (-0.02, 0.05),
    "blur": (0.0, 1.1), "noise": (1.0, 7.0), "saturation": (0.3, 1.3),
}  # fmt: skip


def draw(ranges: dict[str, tuple[float, float]], random: np.random.Generator) -> dict[str, float]:
    return {name: float(random.uniform(low, high)) for name, (low, high) in ranges.items()}


@dataclasses.dataclass(frozen=True)
class Head:
    """Points [n, 3], their normals [n, 3] and linear RGB [n, 3], before turning and lighting."""

    points: np.ndarray
    normals: np.ndarray
    colours: np.ndarray


def _bump(x: np.ndarray, y: np.ndarray, x0: float, y0: float, sx: float, sy: float) -> np.ndarray:
    return np.exp(-(((x - x0) / sx) ** 2) - ((y - y0) / sy) ** 2)


def _step(value: np.ndarray, softness: float) -> np.ndarray:
    """0 below, 1 above zero, a ramp of that width between."""
    return np.clip(value / softness + 0.5, 0, 1)


def _mix(planes: np.ndarray, colour: np.ndarray, share: np.ndarray) -> None:
    """Lays a colour over planes [3, rows, columns], in place."""
    for plane, value in zip(planes, colour):
        plane += share * (np.float32(value) - plane)


def _between(low: tuple, high: tuple, share: float) -> np.ndarray:
    return np.asarray(low, np.float32) * (1 - share) + np.asarray(high, np.float32) * share


def head(person: dict[str, float], view: dict[str, float]) -> Head:
    """The surface of a person's head, with the view's expression."""
    p, v = person, view
    phi = np.linspace(-1.5, 1.5, _ROWS, dtype=np.float32)[:, None]
    theta = np.linspace(-1.9, 1.9, _COLUMNS, dtype=np.float32)[None, :]
    y = np.sin(phi) * np.where(phi < 0, np.float32(1 + p["chin"]), np.float32(1 + p["forehead"])) + 0 * theta
    ring = (1 - np.minimum(np.abs(np.sin(phi)), 0.9999) ** 2.3) ** (1 / 2.3)
    narrow = 1 - p["jaw"] * np.clip((-0.1 - y) / 0.9, 0, 1)
    x = p["width"] * narrow * ring * np.sin(theta)
    z = 0.85 * ring * np.cos(theta)
    front = np.sqrt(np.clip(np.cos(theta), 0, 1)) + 0 * phi
    mouth = p["mouth_y"] + v["smile"] * (x / p["mouth_width"]) ** 2

    bridge = np.clip((p["eye_y"] + 0.08 - y) / (p["eye_y"] + 0.08 - p["nose_y"]), 0, 1) * _step(y - p["nose_y"] + 0.05, 0.1)
    relief = p["nose_length"] * bridge * np.exp(-((x / p["nose_bridge"] / 1.4) ** 2))
    relief += 0.5 * p["nose_length"] * _bump(x, y, 0, p["nose_y"], 0.07, 0.06)
    for side in (-1, 1):
        relief += 0.06 * _bump(x, y, side * p["nose_width"], p["nose_y"] - 0.01, 0.05, 0.05)
        relief -= p["socket"] * _bump(x, y, side * p["eye_distance"], p["eye_y"], 0.15, 0.09)
        relief += 0.035 * _bump(x, y, side * p["eye_distance"], p["eye_y"] + p["brow_height"] - 0.02, 0.16, 0.06)
        relief += p["cheekbones"] * _bump(x, y, side * 0.42, -0.12, 0.16, 0.14)
    relief += 0.05 * _bump(x, y, 0, p["mouth_y"], p["mouth_width"], 0.10) + 0.06 * _bump(x, y, 0, -0.88, 0.2, 0.12)

    planes, hair = _paint(p, v, x, y, theta + 0 * phi, front, mouth)
    thick = 0.07 * hair
    points = np.stack([x * (1 + thick), y * (1 + 0.6 * thick), z * (1 + thick) + relief * front], axis=-1).astype(np.float32)
    across, down = np.gradient(points, axis=1), np.gradient(points, axis=0)
    normals = np.cross(across, down)
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-9)
    return Head(points.reshape(-1, 3), normals.reshape(-1, 3), planes.reshape(3, -1).T)


def _paint(
    p: dict[str, float], v: dict[str, float], x: np.ndarray, y: np.ndarray, theta: np.ndarray, front: np.ndarray, mouth: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Linear RGB of the surface [3, rows, columns], and where hair is (0 ... 1)."""
    skin = _between((0.78, 0.52, 0.40), (0.22, 0.12, 0.075), p["skin"])
    hair_colour = _between((0.55, 0.38, 0.17), (0.02, 0.015, 0.012), min(1.0, 1.3 * p["hair_colour"]))
    lip_colour = skin * _between((0.85, 0.55, 0.50), (0.75, 0.28, 0.30), p["lip_colour"])
    iris = _between((0.10, 0.25, 0.45), (0.08, 0.035, 0.012), p["iris"])
    planes = np.broadcast_to(skin[:, None, None], (3, *x.shape)).copy()
    on_face = front > 0.25
    for side in (-1, 1):
        _mix(planes, skin * (1.05, 0.75, 0.72), 0.35 * _bump(x, y, side * 0.38, -0.22, 0.16, 0.14))

    # Beard and moustache: stubble to thick, around the mouth and along the jaw.
    jaw = _step(p["mouth_y"] + 0.12 - y, 0.15) * np.clip(np.abs(x) / 0.35 + np.clip(p["mouth_y"] - 0.1 - y, 0, 1) * 8, 0, 1)
    lip_top = np.exp(-(((y - p["mouth_y"] - 0.11) / 0.045) ** 2) - ((x / (1.1 * p["mouth_width"])) ** 2) ** 2)
    _mix(planes, hair_colour, np.clip(p["beard"], 0, 1) * jaw)
    _mix(planes, hair_colour, np.clip(p["moustache"], 0, 1) * lip_top)

    for mole in ("mole_0", "mole_1"):
        spot = (x - p[f"{mole}_x"]) ** 2 + (y - p[f"{mole}_y"]) ** 2
        _mix(planes, skin * 0.25, _step(0.0012 - spot, 0.0008) * on_face)

    for side in (-1, 1):
        across, up = side * x - p["eye_distance"], y - p["eye_y"]
        cos, sin = np.cos(p["eye_tilt"]), np.sin(p["eye_tilt"])
        u, w = (across * cos + up * sin) / p["eye_width"], (up * cos - across * sin) / (p["eye_width"] * p["eye_open"])
        lid = (1 - u**2) - np.abs(w)
        _mix(planes, (0.10, 0.06, 0.05), 0.75 * _step(lid + 0.35, 0.2) * (w > -0.1) * on_face)
        eye = _step(lid, 0.15) * on_face
        _mix(planes, (0.72, 0.70, 0.68), eye)
        radius = np.hypot(u - side * v["gaze"], w * p["eye_open"])
        _mix(planes, iris, eye * _step(0.45 - radius, 0.08))
        _mix(planes, (0.004, 0.004, 0.004), eye * _step(0.2 - radius, 0.06))
        along = across / p["brow_width"]
        curve = p["eye_y"] + p["brow_height"] + p["brow_slope"] * across - 0.03 * along**2
        thickness = p["brow_thickness"] * np.clip(1.1 - 0.5 * along - (along**2) ** 2, 0, 1)
        _mix(planes, 0.8 * hair_colour, 0.9 * _step(thickness - np.abs(y - curve), 0.015) * on_face)
        nostril = _bump(x, y, side * 0.6 * p["nose_width"], p["nose_y"] - 0.055, 0.032, 0.018)
        _mix(planes, skin * 0.12, np.clip(1.5 * nostril, 0, 0.9))

    u = x / p["mouth_width"]
    bow = np.clip(1 - u**2, 0, 1)
    opening = v["mouth_open"] * bow
    over, under = y - mouth - opening / 2, mouth - opening / 2 - y
    _mix(planes, lip_colour, _step(p["upper_lip"] * bow * (0.85 + 0.3 * np.abs(u)) - over, 0.012) * (over > 0) * (bow > 0))
    _mix(planes, lip_colour, _step(p["lower_lip"] * np.sqrt(bow) - under, 0.012) * (under > 0) * (bow > 0))
    inside = _step(opening / 2 + 0.009 - np.abs(y - mouth), 0.012) * (bow > 0.02)
    _mix(planes, (0.05, 0.012, 0.012), inside)

    line = p["hairline"] - 0.55 * np.clip(np.abs(theta) - 0.45, 0, 2) ** 1.5 - 0.3 * p["parting"] * np.sin(2.2 * theta)
    hair = np.maximum(_step(y - line, 0.06), _step(np.abs(theta) - p["sides"], 0.1) * _step(y + 0.25, 0.1))
    strands = 1 + 0.25 * np.sin(70 * theta + 9 * np.sin(5 * theta + 3 * y))
    _mix(planes, hair_colour, hair)
    return planes * (1 + (strands - 1) * hair), hair


def _rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    cy, sy, cp, sp, cr, sr = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return (about_z @ about_x @ about_y).astype(np.float32)


def background(random: np.random.Generator) -> Image.Image:
    """Smooth colour, then shapes of any colour, and shoulders in front of them."""
    picture = Image.fromarray(random.integers(0, 256, (2, 2, 3), dtype=np.uint8)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(picture)
    for _ in range(int(random.integers(0, 12))):
        centre, size, colour = random.uniform(0, SIDE, 2), random.uniform(8, 70, 2), tuple(random.integers(0, 256, 3).tolist())
        box = [*(centre - size), *(centre + size)]
        (pen.ellipse if random.random() < 0.5 else pen.rectangle)(box, fill=colour)
    return picture.filter(ImageFilter.GaussianBlur(float(random.uniform(0.5, 5))))


def _lit(view: dict[str, float], normals: np.ndarray, colours: np.ndarray) -> np.ndarray:
    light = np.array([view["light_x"], view["light_y"], 1.0])
    light = (light / np.linalg.norm(light)).astype(np.float32)
    warm = np.array([1 + view["warmth"], 1, 1 - view["warmth"]], np.float32)
    facing = normals @ light
    half = light + (0, 0, 1)
    shine = np.clip(normals @ (half / np.linalg.norm(half)).astype(np.float32), 0, 1) ** 20
    amount = view["ambient"] * (0.75 + 0.25 * normals[:, 1]) + (1.05 - view["ambient"]) * np.clip(facing, 0, 1)
    return view["exposure"] * warm * (colours * amount[:, None] + 0.05 * shine[:, None] * np.clip(facing, 0, 1)[:, None])


def _occluders(pen: ImageDraw.ImageDraw, random: np.random.Generator, centre: np.ndarray, size: float) -> None:
    """A hand, a scarf or a branch: something of one colour that hides a part of the face, in two pictures of five."""
    colour = tuple(random.integers(0, 256, 3).tolist())
    kind = random.random()
    if kind < 0.15:  # a blob that comes in from the side
        angle, radius = random.uniform(0, 2 * np.pi), random.uniform(0.25, 0.45) * size
        at = centre + size * random.uniform(0.75, 0.95) * np.array([0.8 * np.cos(angle), np.sin(angle)])
        pen.ellipse([*(at - radius), *(at + radius)], fill=colour)
    elif kind < 0.30:  # a bar across
        angle, offset = random.uniform(0, np.pi), random.uniform(-0.7, 0.7) * size
        along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
        ends = [tuple(centre + offset * across + reach * along) for reach in (-2 * size, 2 * size)]
        pen.line(ends, fill=colour, width=int(random.uniform(0.05, 0.16) * size))
    elif kind < 0.40:  # a cap
        pen.pieslice([centre[0] - 0.85 * size, centre[1] - 1.25 * size, centre[0] + 0.85 * size, centre[1] + 0.25 * size],
                     180, 360, fill=colour)  # fmt: skip


def picture(person: dict[str, float], random: np.random.Generator) -> np.ndarray:
    """One photograph of that person: uint8 [SIDE, SIDE, 3]."""
    view = draw(VIEW, random)
    return photograph(person, view, background(random), random)


def photograph(
    person: dict[str, float], view: dict[str, float], behind: Image.Image, random: np.random.Generator, occluded: bool = True
) -> np.ndarray:
    """The person in that view, before a background: uint8 [SIDE, SIDE, 3]. Clothes, noise and what may hide the face are random."""
    surface = head(person, view)
    rotation = _rotation(view["yaw"], view["pitch"], view["roll"])
    points, normals = surface.points @ rotation.T, surface.normals @ rotation.T
    colours = _lit(view, normals, surface.colours)

    large = SIDE * _OVERSAMPLING
    centre = np.array([SIDE / 2 + view["left"], SIDE / 2 + view["top"]])
    canvas = behind.copy()
    shoulders = ImageDraw.Draw(canvas)
    size, cloth = view["size"], tuple(random.integers(0, 256, 3).tolist())
    neck = tuple(np.clip(255 * (0.6 * view["exposure"] * surface.colours[len(surface.colours) // 8]) ** (1 / 2.2), 0, 255).astype(int).tolist())
    shoulders.rectangle([centre[0] - 0.42 * size, centre[1] + 0.5 * size, centre[0] + 0.42 * size, SIDE], fill=neck)
    shoulders.ellipse([centre[0] - 1.7 * size, centre[1] + 1.25 * size, centre[0] + 1.7 * size, centre[1] + 3.5 * size], fill=cloth)
    pixels = np.asarray(canvas.resize((large, large), Image.Resampling.BILINEAR)).copy()

    seen = normals[:, 2] > 0
    points, colours = points[seen], colours[seen]
    column = (_OVERSAMPLING * (centre[0] + size * points[:, 0])).astype(np.int64)
    row = (_OVERSAMPLING * (centre[1] - size * points[:, 1])).astype(np.int64)
    inside = (0 <= column) & (column < large - 1) & (0 <= row) & (row < large - 1)
    order = np.flatnonzero(inside)[np.argsort(points[inside, 2], kind="stable")]  # of two on one pixel the nearer is last
    shown = np.rint(255 * np.clip(colours[order], 0, 1) ** (1 / 2.2)).astype(np.uint8)
    four = np.array([0, 1, large, large + 1])  # each point is 2 x 2 pixels, so that steep places get no holes
    pixels.reshape(-1, 3)[(large * row[order] + column[order])[:, None] + four] = shown[:, None]

    photo = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BOX)
    if occluded:
        _occluders(ImageDraw.Draw(photo), random, centre, size)
    grey = np.asarray(photo, np.float32)
    grey = grey.mean(axis=2, keepdims=True) + view["saturation"] * (grey - grey.mean(axis=2, keepdims=True))
    photo = Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(view["blur"]))
    noisy = np.asarray(photo, np.float32) + random.normal(0, view["noise"], (SIDE, SIDE, 1)).astype(np.float32)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
