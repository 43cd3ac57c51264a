"""tools/make_report.py: what the page says, that it needs nothing from outside, and bad input."""

from __future__ import annotations

import base64
import html.parser
import io
import json
import math
import pathlib
import re

import numpy as np
import pytest
from conftest import assert_one_error, run_tool
from PIL import Image

import make_report

NAME = "a <b>&\" ünï 顔.png"


class Page(html.parser.HTMLParser):
    """The text and the tags; every tag must be closed."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(source)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.text += data

    def all(self, tag: str, **wanted: str) -> list[dict[str, str]]:
        return [a for t, a in self.tags if t == tag and all(a.get(k) == v for k, v in wanted.items())]


class Made:
    """Pictures, crops, and the command's lines about them, with known numbers."""

    def __init__(self, folder: pathlib.Path, faces: tuple[int, ...], trained: bool = False) -> None:
        rng = np.random.default_rng(1)
        self.folder, self.detected, self.embedded = folder, [], []
        for number, count in enumerate(faces):
            picture = folder / (NAME if number == 0 else f"{number}.png")
            Image.fromarray(rng.integers(0, 256, (120, 200, 3), np.uint8)).save(picture)
            found = []
            for face in range(count):
                crop = folder / f"crop{number}_{face}.png"
                Image.fromarray(rng.integers(0, 256, (160, 160, 3), np.uint8)).save(crop)
                found.append({"box": [10.0 + 50 * face, 30, 50.0 + 50 * face, 90], "score": 0.9 + face / 100,
                              "landmarks": [[20 + 50 * face, 40]] * 5, "crop": str(crop)})
                vector = rng.normal(size=8)
                self.embedded.append({"image": str(crop), "face": 0, "embedding": list(vector / np.linalg.norm(vector)),
                                      "model": "0123456789abcdef", "trained": trained})
            self.detected.append({"image": str(picture), "faces": found})

    def run(self, *extra: object):
        for name, data in (("faces", self.detected), ("embeddings", self.embedded)):
            (self.folder / name).write_text("".join(json.dumps(line) + "\n" for line in data), encoding="utf-8")
        result = run_tool("make_report.py", "--faces", self.folder / "faces", "--embeddings", self.folder / "embeddings",
                          "-o", self.folder / "report.html", *extra)
        return result

    def page(self, *extra: object) -> Page:
        result = self.run(*extra)
        assert result.returncode == 0, result.stderr
        self.stdout = result.stdout
        self.source = (self.folder / "report.html").read_text(encoding="utf-8")
        return Page(self.source)


def decode(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.split("base64,")[1])))


def test_the_page_holds_everything(tmp_path):
    made = Made(tmp_path, (2, 0, 1))
    page = made.page()
    # Nothing from outside: no script, no link, and each address is a data URI.
    assert not page.all("script") and not page.all("link") and "@import" not in made.source
    uris = re.findall(r"url\(([^)]*)\)", made.source) + [a["src"] for a in page.all("img")]
    assert len(uris) == 3 + 3 and all(uri.startswith("data:image/") for uri in uris)
    assert "http" not in made.source
    assert [decode(uri).size for uri in uris] == [(160, 160)] * 3 + [(200, 120)] * 3
    assert decode(uris[0]).tobytes() == Image.open(tmp_path / "crop0_0.png").tobytes()
    assert "3 faces in 3 pictures" in page.text and NAME in page.text and "no face" in page.text
    assert not page.all("b", id="") and "<b>&" not in made.source  # the name is text, no mark-up


def test_boxes_lie_where_the_faces_are(tmp_path):
    page = Made(tmp_path, (2,)).page()
    boxes = page.all("span", **{"class": "box"})
    assert boxes[0]["style"] == "left:5.000%;top:25.000%;width:20.000%;height:50.000%"
    assert boxes[1]["style"] == "left:30.000%;top:25.000%;width:20.000%;height:50.000%"
    assert len(page.all("span", **{"class": "dot"})) == 10


def test_distances_are_the_embeddings(tmp_path):
    made = Made(tmp_path, (3, 2))
    page = made.page()
    labels, vectors = "ABCDE", [line["embedding"] for line in made.embedded]
    cells = {a["title"]: a["style"] for a in page.all("td") if "style" in a}
    assert len(cells) == 20
    distances = {(a, b): math.dist(vectors[i], vectors[k]) for i, a in enumerate(labels) for k, b in enumerate(labels)}
    for (a, b), distance in distances.items():
        assert a == b or f"{a} to {b}: {distance:.4f}" in cells
    # Lightness follows the distance.
    light = {}
    for title, style in cells.items():
        rgb = tuple(bytes.fromhex(re.search("background:#(.{6})", style)[1]))
        light[float(title.split(": ")[1])] = make_report.luminance(rgb)
        ink = re.search(r"color:#(...)$", style)[1]
        contrast = (1.05 if ink == "fff" else make_report.luminance(rgb) + 0.05) / (
            make_report.luminance(rgb) + 0.05 if ink == "fff" else 0.05)
        assert contrast >= 4.5  # WCAG AA
    assert [light[d] for d in sorted(light)] == sorted(light.values()) and len(light) == 10
    row = made.stdout.splitlines()[3]
    assert row.split()[0] == "A" and [float(v) for v in row.split()[-5:]] == [round(distances["A", b], 3) for b in labels]
    for label in labels:
        near = min((d, b) for (a, b), d in distances.items() if a == label and b != a)
        assert f"nearest: {near[1]}, {near[0]:.2f}" in page.text


@pytest.mark.parametrize("trained", [True, False])
def test_it_says_whether_the_weights_are_trained(tmp_path, trained):
    made = Made(tmp_path, (2,), trained)
    page = made.page()
    assert ("The weights are trained." in page.text) == trained != ("The weights are untrained." in page.text)
    for threshold in ("1.1", "0.6"):
        there = f"less than {threshold} apart" in made.page("--threshold", threshold).text
        assert there == (f"less than {threshold} apart" in made.stdout) == trained
    assert ("UNTRAINED" in made.stdout) != trained and "0123456789abcdef" in page.text


def test_times(tmp_path):
    made = Made(tmp_path, (1,))
    assert "Time" not in made.page().text
    bench = {"threads": 2, "runs": 325, "min_ms": 5.2, "median_ms": 5.53, "gflops": 512.6, "peak_gflops": 545.2, "isa": "avx512"}
    (tmp_path / "bench").write_text(json.dumps(bench))
    page = made.page("--bench", tmp_path / "bench", "--detect-seconds", "0.214")
    for part in ("0.21 s", "5.5 ms", "median of 325, 2 threads, avx512", "513 GFLOP/s", "of 545 at most", "nothing to compare"):
        assert part in page.text
    assert "time per face: 5.5 ms (median of 325, minimum 5.2 ms), 2 thread(s), avx512" in made.stdout


def test_many_faces(tmp_path):
    made = Made(tmp_path, (4,) * 16)
    page = made.page()
    assert "The first 60 of 64 faces" in page.text and len(page.all("td", **{"class": "self"})) == 60
    assert "64 faces: the distances are in the report." in made.stdout
    assert [make_report.label_of(i) for i in (0, 25, 26, 51, 52, 701, 702)] == ["A", "Z", "AA", "AZ", "BA", "ZZ", "AAA"]


def test_equal_faces_have_a_colour_too(tmp_path):
    made = Made(tmp_path, (2,))
    made.embedded[1]["embedding"] = made.embedded[0]["embedding"]
    assert "A to B: 0.0000" in [a.get("title") for a in made.page().all("td")]


def test_large_and_turned_pictures_are_made_small_and_upright(tmp_path):
    made = Made(tmp_path, (1,))
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    exif[0x010F] = "the camera's maker"
    big = tmp_path / "big.jpg"
    Image.new("RGB", (3000, 2000), (200, 30, 30)).save(big, exif=exif)
    made.detected[0]["image"] = str(big)
    page = made.page()
    (image,) = page.all("img")
    shown = decode(image["src"])
    assert (image["width"], image["height"]) == ("2000", "3000") and shown.size == (1067, 1600) and not shown.getexif()


def test_bad_input(tmp_path):
    made = Made(tmp_path, (2,))
    assert made.run().returncode == 0
    good = (tmp_path / "report.html").read_bytes()
    pathlib.Path(made.detected[0]["faces"][1]["crop"]).unlink()
    assert_one_error(made.run(), "crop0_1.png", "cannot be read")
    del made.embedded[1]
    assert_one_error(made.run(), "embeddings: has no line for", "crop0_1.png")
    del made.detected[0]["faces"][1], made.detected[0]["faces"][0]["box"]
    assert_one_error(made.run(), "lacks 'box'")
    made.detected[0]["faces"] = []
    assert_one_error(made.run(), "no picture has a face")
    made.detected = [{"image": str(tmp_path / "missing.png"), "faces": []}]
    assert_one_error(made.run(), "missing.png")
    assert (tmp_path / "report.html").read_bytes() == good
    (tmp_path / "text").write_text("not json\n")
    assert_one_error(run_tool("make_report.py", "--faces", tmp_path / "text", "--embeddings", tmp_path / "text", "-o",
                              tmp_path / "x"), "text: is not JSON")
    assert_one_error(run_tool("make_report.py", "--faces", tmp_path / "none", "--embeddings", tmp_path / "none", "-o",
                              tmp_path / "x"), "none: cannot be read")
    whole = Made(tmp_path, (2,))
    for out in ("/dev/full", tmp_path / "no folder" / "x"):
        assert_one_error(whole.run("-o", out), str(out))


def test_embeddings_of_two_models_are_not_mixed(tmp_path):
    made = Made(tmp_path, (1, 1))
    made.embedded[1]["model"] = "fedcba9876543210"
    assert_one_error(made.run(), "embeddings of 2 models (0123456789abcdef, fedcba9876543210)", "one weight file")
    assert not (tmp_path / "report.html").exists()


def test_verify_identify_and_cluster(tmp_path):
    made = Made(tmp_path, (3,), trained=True)
    crops = [face["crop"] for face in made.detected[0]["faces"]]
    said = tmp_path / "said"
    said.mkdir()

    def write(name: str, *objects: dict) -> None:
        (said / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in objects))

    write("verify", {"distance": 0.25, "threshold": 0.6, "same": True})
    match = {"name": "face <A>", "distance": 0.125}
    write("identify", {"image": crops[0], "matches": [match], "threshold": 0.6}, {"image": crops[2], "matches": [], "threshold": 0.6})
    cluster = {"algorithm": "chinese_whispers", "threshold": 0.6}
    write("cluster", {"faces": [{"image": crops[1]}, {"image": crops[0]}], **cluster}, {"faces": [{"image": crops[2]}], **cluster})
    page = made.page("--recognition", said)
    for part in ("the same person", "distance 0.250, threshold 0.6", "face <A>", "unknown", "2 persons by chinese whispers", "Once only"):
        assert part in page.text
    assert "<A>" not in made.source and not page.all("script")
    for part in ("verify    A and B: the same person", "identify  A: face <A> (0.125)", "identify  C: unknown", "cluster   A B; alone: C"):
        assert part in made.stdout
    # The lines of pictures that failed, or have no face, change nothing.
    before, failed, faceless = made.source, {"image": "bad.png", "error": "bad.png: no picture."}, {"image": "none.png", "faces": []}
    for name in ("verify", "identify", "cluster"):
        with (said / f"{name}.jsonl").open("a") as file:
            file.write(json.dumps(failed) + "\n" + json.dumps(faceless) + "\n")
    made.detected.insert(0, failed)
    made.embedded += [failed, faceless]
    made.page("--recognition", said)
    assert made.source == before
    assert "Verify" not in Made(tmp_path, (3,)).page().text
    write("cluster", {"faces": [{"image": "elsewhere.png"}], **cluster})
    assert_one_error(made.run("--recognition", said), "said: a line lacks", "elsewhere.png")
