"""The command on photographs: detect, align, and embed and verify with faces looked for.

The photograph is the public-domain portrait that bootstrap fetches; pictures with several faces are made of it.
"""

from __future__ import annotations

import json
import math
import os
import pathlib
import pty
import resource
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from detection import SAMPLES, Found, open_picture, reference, same
from facenet_pytorch import MTCNN
from PIL import Image
from safetensors import safe_open
from test_align import umeyama
from test_command import COMMAND, MEASURE, SANITIZED, UNTRAINED, assert_sentence, facenet, lines
from test_command import weights, weights512  # noqa: F401 (fixtures)
from test_detector import weight_file  # noqa: F401 (fixtures)

from facenet_tools import pictures, safetensors_writer

ASTRONAUT = SAMPLES / "astronaut.png"
# The eyes' middles, the nose's tip and the mouth's corners in dlib's mean face.
DLIB = np.array([[0.225492, 0.215990], [0.754762, 0.215990], [0.490127, 0.515625], [0.254149, 0.780233],
                 [0.726104, 0.780233]])
ADVICE = "; a smaller --min-face, --rotations retry or lower --thresholds may find some"
LINE = (0, 230, 118)  # the colour of boxes
SHARE = 33  # pixels of min_face: 12.5% of the 260 of three.png
pytestmark = [
    pytest.mark.skipif(not COMMAND.exists(), reason=f"{COMMAND} is not built"),
    pytest.mark.skipif(not ASTRONAUT.exists(), reason=f"{ASTRONAUT} is not there: run tools/bootstrap.sh"),
]


@pytest.fixture(scope="module")
def detector(weight_file):  # noqa: F811
    return ["--detector", weight_file]


@pytest.fixture(scope="module")
def network(weights, detector):  # noqa: F811
    return ["--weights", weights, *detector]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> pathlib.Path:
    """one.png, three.png with faces of three sizes (the largest is not the one in the middle), and none.png without any."""
    folder = tmp_path_factory.mktemp("scenes")
    face = Image.fromarray(open_picture(ASTRONAUT)).crop((130, 0, 330, 220))
    face.save(folder / "one.png")
    three = Image.new("RGB", (620, 260), (90, 110, 130))
    for x, side in ((10, 1.1), (245, 0.8), (450, 0.6)):
        three.paste(face.resize((round(200 * side), round(220 * side)), Image.Resampling.BICUBIC), (x, 10))
    three.save(folder / "three.png")
    Image.fromarray(pictures.structured(np.random.default_rng(5))).save(folder / "none.png")
    return folder


def faces_of(result: subprocess.CompletedProcess[str]) -> Found:
    """What detect --json printed for one picture."""
    (picture,) = lines(result)
    faces = picture["faces"]
    assert all(list(face)[:4] == ["box", "score", "landmarks", "quality"] for face in faces)
    return Found(np.float32([face["box"] for face in faces]).reshape(-1, 4), np.float32([f["score"] for f in faces]),
                 np.float32([face["landmarks"] for face in faces]).reshape(-1, 5, 2))


def pixels(path: pathlib.Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.format == "PNG" and picture.mode == "RGB"
        return np.asarray(picture)


# ---- detect ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "meaning"), [
    ([], {}),
    (["--min-face", 60, "--factor", "0.8"], {"min_face_size": 60, "factor": 0.8}),
    (["--min-face", "12.5%"], {"min_face_size": SHARE}),
    (["--thresholds", "0.5,0.8,0.9"], {"thresholds": [0.5, 0.8, 0.9]}),
    (["--select", "probability"], {"select_largest": False}),
])
def test_detect_finds_the_references_faces(detector, scenes, options, meaning):
    result = facenet("detect", "--json", *detector, *options, scenes / "three.png")
    assert result.returncode == 0 and result.stderr == ""
    assert list(lines(result)[0]) == ["image", "faces"] and lines(result)[0]["image"] == str(scenes / "three.png")
    want = reference(MTCNN(keep_all=True, **meaning), open_picture(scenes / "three.png"))
    assert len(want.scores) == 3 and same(faces_of(result), want)


def test_detect_as_text_has_the_same_numbers(detector, scenes):
    found = faces_of(facenet("detect", "--json", *detector, scenes / "three.png"))
    rows = [row.split("\t") for row in facenet("detect", *detector, scenes / "three.png").stdout.splitlines()]
    assert [row[:2] for row in rows] == [[str(scenes / "three.png"), str(i)] for i in range(3)]
    for row, box, score, landmarks in zip(rows, *found):
        assert abs(float(row[2]) - score) < 1e-4
        assert np.allclose(np.float32(row[3].split()), box, rtol=0, atol=0.051)
        assert np.allclose(np.float32(row[4].split()), landmarks.ravel(), rtol=0, atol=0.051)


def test_fewer_faces(detector, scenes):
    three = faces_of(facenet("detect", "--json", *detector, scenes / "three.png"))
    sizes = (three.boxes[:, 2:] - three.boxes[:, :2]).prod(1)
    assert list(sizes) == sorted(sizes, reverse=True)
    two = faces_of(facenet("detect", "--json", *detector, "--max-faces", 2, scenes / "three.png"))
    assert np.array_equal(two.boxes, three.boxes[:2])
    centre = faces_of(facenet("detect", "--json", *detector, "--max-faces", 1, "--select", "centre_weighted",
                              scenes / "three.png"))
    middles = three.boxes.reshape(-1, 2, 2).mean(1)
    nearest = np.argmin(np.linalg.norm(middles - (310, 130), axis=1))
    assert nearest != 0 and np.array_equal(centre.boxes[0], three.boxes[nearest])


def test_a_picture_without_a_face(detector, scenes, tmp_path):
    none, one = scenes / "none.png", scenes / "one.png"
    alone = facenet("detect", "--json", *detector, none)
    assert alone.returncode == 1 and lines(alone) == [{"image": str(none), "faces": []}] and alone.stderr == ""
    text = facenet("detect", *detector, none)
    assert text.returncode == 1 and text.stdout == "" and text.stderr == f"facenet: {none}: no face was found{ADVICE}.\n"
    mixed = facenet("detect", "--json", *detector, none, one)
    assert mixed.returncode == 0 and [len(picture["faces"]) for picture in lines(mixed)] == [0, 1]
    (tmp_path / "text.jpg").write_text("no picture")
    broken = facenet("detect", "--json", *detector, tmp_path / "text.jpg", one)
    assert broken.returncode == 2 and [p["image"] for p in lines(broken)] == [str(tmp_path / "text.jpg"), str(one)]
    assert broken.stderr == f"facenet: {lines(broken)[0]['error']}\n"
    assert broken.stderr.count("\n") == 1 and "text.jpg" in broken.stderr
    assert facenet("detect", *detector, tmp_path / "text.jpg", none).returncode == 2
    strip = tmp_path / "strip.png"
    Image.new("RGB", (500, 3)).save(strip)
    assert facenet("detect", *detector, strip).returncode == 1


def test_standard_input_and_names_of_every_kind(detector, scenes, tmp_path):
    (piped,) = lines(facenet("detect", "--json", *detector, "-", "--crops", tmp_path,
                             input=(scenes / "one.png").read_bytes()))
    (named,) = lines(facenet("detect", "--json", *detector, scenes / "one.png"))
    crop = piped["faces"][0].pop("crop")
    assert piped == named | {"image": "-"} and crop == str(tmp_path / "stdin_0.png")
    for name in ("gesicht-äß.png", "顔.v2.png", "a b\tc.png", ".hidden", "-x.png"):
        shutil.copy(scenes / "one.png", tmp_path / name)
        result = facenet("detect", "--json", *detector, "--crops", tmp_path / "顔", tmp_path / name)
        (face,) = lines(result)[0]["faces"]
        assert face["crop"] == str(tmp_path / "顔" / (name.removesuffix(".png") + "_0.png"))
        assert pixels(pathlib.Path(face["crop"])).shape == (160, 160, 3)


def test_crops_are_facenet_pytorchs_and_what_embed_sees(network, detector, scenes, tmp_path):
    result = facenet("detect", "--json", *network, "--crops", tmp_path / "new" / "crops", scenes / "three.png")
    assert result.returncode == 0 and result.stderr == ""
    embedded = lines(facenet("embed", "--json", *network, scenes / "three.png"))
    assert [face["face"] for face in embedded] == [0, 1, 2]
    picture = Image.open(scenes / "three.png")
    for number, (face, embedding) in enumerate(zip(lines(result)[0]["faces"], embedded)):
        assert face["crop"] == str(tmp_path / "new" / "crops" / f"three_{number}.png")
        box = [int(max(v, 0)) for v in face["box"][:2]] + [int(min(v, end)) for v, end in zip(face["box"][2:], picture.size)]
        want = picture.crop(box).resize((160, 160), Image.Resampling.BILINEAR)
        assert np.array_equal(pixels(pathlib.Path(face["crop"])), np.asarray(want))
        assert embedding["box"] == face["box"]
        (aligned,) = lines(facenet("embed", "--json", "--aligned", *network[:2], face["crop"]))
        assert aligned["embedding"] == embedding["embedding"]


def test_drawing(detector, scenes, tmp_path):
    out = tmp_path / "drawn.png"
    result = facenet("detect", "--json", *detector, "--draw", out, scenes / "three.png")
    assert result.returncode == 0
    before, after = pixels(scenes / "three.png"), pixels(out)
    assert before.shape == after.shape
    untouched = np.ones(before.shape[:2], bool)
    for face in lines(result)[0]["faces"]:
        x0, y0, x1, y1 = (round(v) for v in face["box"])
        middle_x, middle_y = (x0 + x1) // 2, (y0 + y1) // 2
        for x, y in ((x0, middle_y), (x1 - 1, middle_y), (middle_x, y1 - 1)):
            assert tuple(after[y, x]) == LINE
        for x, y in face["landmarks"]:
            assert not np.array_equal(after[round(y), round(x)], before[round(y), round(x)])
        untouched[max(0, y0 - 20):y1 + 3, max(0, x0 - 3):x1 + 100] = False  # the label may be wider than the box
    assert untouched.sum() > 50000 and np.array_equal(before[untouched], after[untouched])
    # A picture without a face is drawn too: as it is.
    assert facenet("detect", *detector, "--draw", out, scenes / "none.png").returncode == 1
    assert np.array_equal(pixels(out), pixels(scenes / "none.png"))


def test_several_pictures_are_drawn_into_a_folder(detector, scenes, tmp_path):
    (tmp_path / "other").mkdir()
    shutil.copy(scenes / "none.png", tmp_path / "other" / "one.png")
    result = facenet("detect", *detector, "--draw", tmp_path / "a" / "b", scenes / "one.png", scenes / "three.png",
                     tmp_path / "other" / "one.png")
    assert result.returncode == 0
    assert sorted(p.name for p in (tmp_path / "a" / "b").iterdir()) == ["one-2.png", "one.png", "three.png"]
    assert facenet("detect", *detector, "--draw", f"{tmp_path}/c/", scenes / "one.png").returncode == 0
    assert (tmp_path / "c" / "one.png").exists()


def test_a_detectors_file_does_not_say_how_to_crop(detector, scenes, tmp_path):
    for call in (("detect", "--crops", tmp_path, scenes / "one.png"), ("align", scenes, tmp_path / "out")):
        assert_sentence(facenet(*call, *detector, "--weights", detector[1]), detector[1], "detector's weights", "--detector")
    assert not list(tmp_path.iterdir())


def test_outputs_that_cannot_be_written(detector, scenes, tmp_path):
    (tmp_path / "file").touch()
    one = scenes / "one.png"
    for out in ("/dev/full", tmp_path / "no folder" / "x.png", tmp_path / "file" / "x.png"):
        assert_sentence(facenet("detect", *detector, "--draw", out, one), out)
    for out in (tmp_path / "file", tmp_path / "file" / "x", "/proc/x"):
        assert_sentence(facenet("detect", *detector, "--crops", out, one), out)
        assert_sentence(facenet("detect", *detector, "--draw", out, one, one), out)
    # A limit on the size of files stands for a full disk; the old file stays, and nothing half-written.
    out = tmp_path / "drawn.png"
    out.write_text("old")
    limited = facenet("detect", "--json", *detector, "--draw", out, "--crops", tmp_path / "crops", one,
                      preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)))
    assert limited.returncode == 2 and len(lines(limited)) == 1
    assert limited.stderr.count("cannot be written (File too large)") == 2
    assert out.read_text() == "old" and sorted(p.name for p in tmp_path.iterdir()) == ["crops", "drawn.png", "file"]
    assert list((tmp_path / "crops").iterdir()) == []
    with open("/dev/full", "wb") as full:
        result = facenet("detect", *detector, one, stdout=full)
    assert result.returncode == 2 and "standard output cannot be written" in result.stderr


@pytest.mark.parametrize(("arguments", "parts"), [
    (["--min-face", "0", "x"], ["--min-face", "'0'", "1 to 16384", "5%"]),
    (["--min-face", "0%", "x"], ["--min-face", "'0%'", "0.1% to 100%"]),
    (["--min-face", "101%", "x"], ["--min-face", "'101%'"]),
    (["--min-face", "20.5", "x"], ["--min-face", "'20.5'"]),
    (["--min-face", "5%%", "x"], ["--min-face", "'5%%'"]),
    (["--min-face", "0x20", "x"], ["--min-face", "'0x20'"]),
    (["--min-face", "1e2", "x"], ["--min-face", "'1e2'"]),
    (["--min-face", "nan%", "x"], ["--min-face", "'nan%'"]),
    (["--factor", "1", "x"], ["--factor", "'1'", "0.99"]),
    (["--thresholds", "0.6,0.7", "x"], ["--thresholds", "0.6,0.7,0.7"]),
    (["--thresholds", "0.6,0.7,1.1", "x"], ["--thresholds", "0 to 1"]),
    (["--thresholds", "0.6,0.7,nan", "x"], ["--thresholds"]),
    (["--thresholds", "0.6,0.7,0.7,", "x"], ["--thresholds"]),
    (["--select", "biggest", "x"], ["--select", "'biggest'", "largest, probability"]),
    (["--max-faces", "0", "x"], ["--max-faces"]),
    (["--crop", "circle", "x"], ["--crop", "box, five_point"]),
    (["--margin", "-1", "x"], ["--margin"]),
    (["--crops", "d", "--crop", "box", "--margin", "0.25", "x"], ["--margin", "five_point"]),
    (["--crops", "d", "--crop", "box", "--margin", "160", "--size", "160", "x"], ["--margin"]),
    ([], ["no picture was named", "--files-from"]),
])
def test_bad_options(arguments, parts):
    assert_sentence(facenet("detect", *arguments), *parts)


def test_detectors_that_are_not_there_or_nothing(weights, detector, scenes, tmp_path):  # noqa: F811
    (tmp_path / "text").write_text("this is not a weight file, but long enough to be one")
    data = detector[1].read_bytes()
    (tmp_path / "cut").write_bytes(data[:-100])
    (tmp_path / "flipped").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    one = scenes / "one.png"
    for name in ("missing", "text", "cut", "flipped", "."):
        path = tmp_path / name
        for call in (["detect", one], ["embed", "-w", weights, one], ["verify", "-w", weights, one, one],
                     ["align", scenes, tmp_path / "out"]):
            assert_sentence(facenet(*call, "--detector", path), path)
        assert not (tmp_path / "out").exists()
    assert_sentence(facenet("detect", "--detector", weights, one), weights, "this file holds no detector")
    assert_sentence(facenet("detect", "--detector", tmp_path / "missing", one), "no such file", "--mtcnn", "--detector")
    # --aligned needs none.
    assert facenet("embed", "--aligned", "-w", weights, "-d", tmp_path / "missing", one).returncode == 0


def merged(embedder: pathlib.Path, other: pathlib.Path | None, path: pathlib.Path, **metadata: str) -> pathlib.Path:
    """The tensors of two weight files with the first one's metadata, some of it changed."""
    tensors, said = {}, {}
    for source in (embedder, other):
        if source is not None:
            with safe_open(source, framework="np") as file:
                tensors |= {name: file.get_tensor(name) for name in file.keys()}
                said = file.metadata() if source == embedder else said
    said = {k: v for k, v in said.items() if k not in ("data_xxh64", "header_xxh64")}
    safetensors_writer.write(str(path), tensors, said | metadata, hashes=True)
    return path


def test_a_detector_beside_the_embedder(weights, detector, network, scenes, tmp_path):  # noqa: F811
    both = merged(weights, detector[1], tmp_path / "both.safetensors")
    call = [COMMAND, "embed", "--json", "--weights", both, scenes / "one.png"]
    here = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, check=False)  # no default file there
    assert here.returncode == 0, here.stderr
    (want,) = lines(facenet("embed", "--json", *network, scenes / "one.png"))
    (got,) = lines(here)
    assert got["embedding"] == want["embedding"] and got["box"] == want["box"]
    alone = subprocess.run([COMMAND, "detect", scenes / "one.png"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert_sentence(alone, "weights/mtcnn.safetensors", "--detector FILE")
    assert "bootstrap.sh" not in alone.stderr, "there is none here"


def test_the_weight_file_says_how_faces_are_cut_out(weights, detector, scenes, tmp_path):  # noqa: F811
    five = merged(weights, None, tmp_path / "five.safetensors", crop="five_point", margin="0.25")
    (face,) = lines(facenet("embed", "--json", "--weights", five, *detector, scenes / "one.png"))
    embeddings = {}
    for name, options in {"file": ["--weights", five], "options": ["--crop", "five_point", "--margin", "0.25"],
                          "default": ["--crop", "five_point"], "box": ["--weights", weights],
                          "wider": ["--weights", weights, "--margin", "40"]}.items():
        crops = tmp_path / name
        assert facenet("detect", *detector, *options, "--crops", crops, scenes / "one.png").returncode == 0
        (aligned,) = lines(facenet("embed", "--json", "--aligned", "--weights", weights, crops / "one_0.png"))
        embeddings[name] = aligned["embedding"]
    assert embeddings["file"] == embeddings["options"] == embeddings["default"] == face["embedding"]
    assert math.dist(embeddings["box"], face["embedding"]) > 0.01
    assert math.dist(embeddings["box"], embeddings["wider"]) > 0.01
    # Five points: landmarks brought to dlib's places, here by singular values and Pillow's own transformation.
    result = facenet("detect", "--json", *detector, "--crops", tmp_path / "big", "--crop", "five_point", "--size", 320,
                     scenes / "one.png")
    to_source = np.linalg.inv(np.vstack([umeyama(faces_of(result).landmarks[0], (DLIB + 0.25) * 320 / 1.5), [0, 0, 1]]))
    shift = 0.5 - to_source[:2, :2].sum(1) / 2  # Pillow counts from a pixel's corner
    coefficients = np.column_stack([to_source[:2, :2], to_source[:2, 2] + shift]).ravel()
    with Image.open(scenes / "one.png") as picture:
        want = picture.transform((320, 320), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)
    difference = np.abs(pixels(tmp_path / "big" / "one_0.png").astype(int) - np.asarray(want))
    assert np.mean(difference <= 2) > 0.98  # not at the picture's edges, which Pillow does not blend into black


# ---- embed and verify ------------------------------------------------------------------------------------------------


def test_embed_gives_every_face(network, scenes):
    result = facenet("embed", "--json", *network, scenes / "three.png", scenes / "none.png", scenes / "one.png")
    assert result.returncode == 0
    faces = [line for line in lines(result) if "face" in line]
    assert [line for line in lines(result) if "face" not in line] == [{"image": str(scenes / "none.png"), "faces": []}]
    assert [(pathlib.Path(f["image"]).name, f["face"]) for f in faces] == [
        ("three.png", 0), ("three.png", 1), ("three.png", 2), ("one.png", 0)]
    assert all(list(f)[:9] == ["image", "face", "box", "score", "landmarks", "quality", "quality_parts", "embedding", "model"] for f in faces)
    assert f"{scenes / 'none.png'}: no face was found" in result.stderr and UNTRAINED in result.stderr
    (first,) = lines(facenet("embed", "--json", *network, "--max-faces", 1, scenes / "three.png"))
    assert first == faces[0]
    text = [line.split("\t") for line in facenet("embed", *network, scenes / "three.png").stdout.splitlines()]
    assert [row[1] for row in text] == ["0", "1", "2"]
    assert np.array_equal(np.float32(text[2][2].split()), np.float32(faces[2]["embedding"]))


def test_embed_without_a_face(network, scenes, tmp_path):
    none = facenet("embed", "--json", *network, scenes / "none.png")
    assert none.returncode == 1 and lines(none) == [{"image": str(scenes / "none.png"), "faces": []}] and none.stderr.count("\n") == 1
    (tmp_path / "empty.png").touch()
    assert facenet("embed", *network, scenes / "none.png", tmp_path / "empty.png").returncode == 2
    out = tmp_path / "faces.jsonl"
    assert facenet("embed", *network, "--out", out, scenes / "none.png").returncode == 1
    assert json.loads(out.read_text()) == {"image": str(scenes / "none.png"), "faces": []}


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_do_not_change_a_bit(network, scenes, threads):
    call = ["embed", "--json", *network, scenes / "three.png", "--threads"]
    assert facenet(*call, threads).stdout == facenet(*call, 2).stdout != ""


def test_verify_compares_the_selected_face(network, scenes):
    three, one = scenes / "three.png", scenes / "one.png"
    same_face = facenet("verify", "--json", *network, one, one)
    assert lines(same_face)[0]["distance"] == 0 and "faces were found" not in same_face.stderr
    embeddings = [face["embedding"] for face in lines(facenet("embed", "--json", *network, three))]
    (single,) = lines(facenet("embed", "--json", *network, one))
    for options in ([], ["--max-faces", 1]):
        result = facenet("verify", "--json", *network, *options, three, one)
        assert math.isclose(lines(result)[0]["distance"], math.dist(embeddings[0], single["embedding"]), abs_tol=1e-5)
        assert (f"{three}: 3 faces were found" in result.stderr) == (options == [])
    assert facenet("verify", *network, three, three).stderr.count("3 faces were found") == 2


def test_verify_takes_the_face_of_the_selection(network, scenes):
    three, one = scenes / "three.png", scenes / "one.png"
    (single,) = lines(facenet("embed", "--json", *network, one))
    distances = set()
    for word in ("largest", "probability", "centre_weighted"):
        first = lines(facenet("embed", "--json", *network, "--select", word, three))[0]
        (answer,) = lines(facenet("verify", "--json", *network, "--select", word, three, one))
        assert math.isclose(answer["distance"], math.dist(first["embedding"], single["embedding"]), abs_tol=1e-5)
        distances.add(answer["distance"])
    assert len(distances) > 1


def test_verify_without_a_face(network, scenes, tmp_path):
    none, one = scenes / "none.png", scenes / "one.png"
    for pair in ((one, none), (none, one), (none, none)):
        result = facenet("verify", "--json", *network, *pair)
        assert result.returncode == 1 and lines(result) == [{"image": str(none), "faces": []}] * pair.count(none)
        assert result.stderr.count("no face was found") == pair.count(none)
        assert facenet("verify", *network, *pair).stdout == ""
    assert facenet("verify", *network, none, tmp_path / "missing.png").returncode == 2


@pytest.mark.skipif(SANITIZED, reason="sanitizers need memory of their own")
def test_embed_with_a_detector_takes_at_most_150_mb(weights512, detector, scenes):  # noqa: F811
    call = [COMMAND, "embed", "--weights", weights512, *detector, scenes / "three.png"]
    result = subprocess.run([sys.executable, "-S", "-c", MEASURE, *map(str, call)], capture_output=True,
                            text=True, check=True)
    assert int(result.stdout.splitlines()[-1]) * 1024 <= 150e6


# ---- align -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def tree(scenes, tmp_path) -> pathlib.Path:
    """Photographs of three people, and what else lies in folders of photographs."""
    root = tmp_path / "photos"
    for name, scene in {
        "Ann Á/1.png": "one", "Ann Á/2.png": "three", "顔/портрет.png": "one", "Cy/x.jpg": "one", "Cy/x.png": "three",
        "Cy/deep/er/y.JPEG": "one", "Cy/none.png": "none", "top.png": "one",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        with Image.open(scenes / f"{scene}.png") as picture:
            picture.save(root / name, quality=95) if name.lower().endswith(("jpg", "jpeg")) else picture.save(root / name)
    (root / "Cy" / "notes.txt").write_text("not a picture, and not called one")
    (root / ".thumbs").mkdir()
    shutil.copy(scenes / "one.png", root / ".thumbs" / "t.png")
    (root / "Cy" / "._x.jpg").write_bytes(b"\0\5\26\7")
    (root / "Cy" / "round").symlink_to(root)
    return root


CROPS = ["Ann Á/1.png", "Ann Á/2.png", "Cy/deep/er/y.png", "Cy/x.jpg.png", "Cy/x.png.png", "top.png", "顔/портрет.png"]


def files(folder: pathlib.Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir())


def test_align_keeps_the_tree(detector, tree, scenes, tmp_path):
    out = tmp_path / "new" / "crops"
    result = facenet("align", "--json", *detector, tree, out)
    left_out = "1 other file, 2 hidden entries, 1 link to what is there already or nowhere"
    assert result.returncode == 0 and result.stderr == f"facenet: {tree}: left out: {left_out}.\n"
    (summary,) = lines(result)
    assert summary == {
        "pictures": 8, "written": 7, "there": 0, "without_face": [str(tree / "Cy/none.png")], "failed": [], "errors": [], "left": 0,
        "left_out": {"formats": {}, "other_files": 1, "system": 0, "hidden": 2, "excluded": 0, "links": 1},
        "crop": {"kind": "box", "size": 160, "margin": 0.0},
    }
    assert files(out) == CROPS
    # The crop is what detect cuts out for the first face.
    assert facenet("detect", *detector, "--crops", tmp_path / "d", scenes / "three.png").returncode == 0
    assert np.array_equal(pixels(out / "Ann Á/2.png"), pixels(tmp_path / "d" / "three_0.png"))
    three = tmp_path / "threads"
    assert facenet("align", *detector, "--threads", 3, f"{tree}/", f"{three}/").returncode == 0
    assert {n: (three / n).read_bytes() for n in CROPS} == {n: (out / n).read_bytes() for n in CROPS}
    text = facenet("align", *detector, tree, tmp_path / "text").stdout.splitlines()
    assert text[0].startswith("8 pictures: 7 crops written (box, 160 pixels, margin 0), 0 were there, 1 without a face, 0")
    assert text[1:] == [f"without a face: {tree / 'Cy/none.png'}"]


def test_align_options(detector, tree, scenes, tmp_path):
    out = tmp_path / "out"
    options = ["--select", "centre_weighted", "--margin", 32, "--size", 182, "--crop", "box"]
    assert facenet("align", *detector, *options, tree, out).returncode == 0
    assert facenet("detect", *detector, *options, "--crops", tmp_path / "d", scenes / "three.png").returncode == 0
    assert pixels(out / "Ann Á/2.png").shape == (182, 182, 3)
    assert np.array_equal(pixels(out / "Ann Á/2.png"), pixels(tmp_path / "d" / "three_0.png"))
    nothing = facenet("align", *detector, "--min-face", 400, tree, tmp_path / "nothing")
    assert nothing.returncode == 1 and nothing.stdout.startswith("8 pictures: 0 crops written")
    assert files(tmp_path / "nothing") == []


def test_align_goes_on_where_it_was(detector, tree, tmp_path):
    out = tmp_path / "out"
    assert facenet("align", *detector, tree, out).returncode == 0
    (out / "Cy/x.jpg.png").unlink()
    kept = out / "top.png"
    kept.write_text("mine")  # whatever has the name is left alone
    leftover = out / "Cy" / "x.jpg.png.4194304.tmp"  # as a killed process leaves it
    leftover.write_text("half")
    (out / "Cy" / "other.tmp").write_text("not ours")
    result = facenet("align", "--json", *detector, tree, out)
    assert result.returncode == 0
    assert (lines(result)[0]["written"], lines(result)[0]["there"]) == (1, 6)
    assert kept.read_text() == "mine" and not leftover.exists() and (out / "Cy" / "other.tmp").exists()
    assert pixels(out / "Cy/x.jpg.png").shape == (160, 160, 3)
    # Crops inside the pictures' folder are not taken for pictures the next time.
    for _ in range(2):
        assert facenet("align", "--json", *detector, tree, tree / "crops").returncode == 0
    assert files(tree / "crops") == CROPS


def test_align_can_be_killed(detector, tree, tmp_path):
    for copy in range(120):
        shutil.copy(tree / "top.png", tree / "Cy" / f"copy{copy}.png")
    out = tmp_path / "out"
    process = subprocess.Popen([COMMAND, "align", *detector, tree, out], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None and len(list(out.rglob("*.png"))) < 5:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    some = list(out.rglob("*.png"))
    assert 5 <= len(some) < 127, "it was not killed half-way"
    assert all(pixels(p).shape == (160, 160, 3) for p in some)
    (summary,) = lines(facenet("align", "--json", *detector, tree, out))
    assert (summary["written"], summary["there"]) == (127 - len(some), len(some))
    assert all(pixels(p).shape == (160, 160, 3) for p in out.rglob("*") if not p.is_dir())


def test_align_reports_broken_pictures_and_does_the_rest(detector, tree, tmp_path):
    png = (tree / "top.png").read_bytes()
    for name, data in {"empty.jpg": b"", "text.png": b"text", "half.png": png[: len(png) // 2]}.items():
        (tree / "顔" / name).write_bytes(data)
    (tree / "gone.jpg").symlink_to("nowhere")
    result = facenet("align", "--json", *detector, tree, tmp_path / "out")
    assert result.returncode == 2
    (summary,) = lines(result)
    broken = [str(tree / name) for name in ("gone.jpg", "顔/empty.jpg", "顔/half.png", "顔/text.png")]
    assert summary["failed"] == broken and summary["written"] == 7
    assert sorted(line.split(": ")[1] for line in result.stderr.splitlines() if "left out" not in line) == broken
    assert files(tmp_path / "out") == CROPS
    text = facenet("align", *detector, tree, tmp_path / "out")
    assert text.returncode == 2 and [f"failed: {name}" in text.stdout for name in broken] == [True] * 4


def test_align_mistakes(detector, tree, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "nothing").mkdir()
    for call, part in (([tmp_path / "missing", tmp_path / "o"], tmp_path / "missing"), ([tmp_path / "file", "o"], "file"),
                       ([tmp_path / "nothing", tmp_path / "o"], "no picture in it"), ([tree, tmp_path / "file"], "file"),
                       ([tree, "/proc/x"], "/proc/x"), ([tree, tree], "among the pictures"), ([tree], "OUT is required"),
                       ([tree, tmp_path / "o", "--margin", "0.5"], "--margin")):
        assert_sentence(facenet("align", *call, *detector), part)


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="only root may mount a small disk")
def test_align_on_a_full_disk(detector, tree, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", disk], check=False, capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    try:
        result = facenet("align", "--json", "--threads", 1, *detector, tree, disk / "out")
        assert result.returncode == 2 and "No space left on device" in result.stderr
        assert [line for line in result.stderr.splitlines() if "left out" not in line] == result.stderr.splitlines()[:1]
        (summary,) = lines(result)
        assert summary["written"] >= 1 and summary["left"] >= 1 and len(summary["failed"]) == 1
        written = [p for p in (disk / "out").rglob("*") if not p.is_dir()]
        assert len(written) == summary["written"] and all(pixels(p).shape == (160, 160, 3) for p in written)
    finally:
        subprocess.run(["umount", disk], check=True)


def test_the_bar_has_rate_and_time_left(detector, tree, tmp_path):
    call = [COMMAND, "align", *detector, tree, tmp_path / "out"]
    parent, child = pty.openpty()
    process = subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=child)
    os.close(child)
    seen = b""
    try:
        while chunk := os.read(parent, 4096):
            seen += chunk
    except OSError:  # the terminal's other end is closed
        pass
    os.close(parent)
    assert process.wait() == 0
    assert b"8/8" in seen and b"/s" in seen and b"0:00:00 left" in seen
    assert b"[#" not in seen.rpartition(b"\r\x1b[K")[2]  # the last bar is gone; a note of what was left out may follow


def test_json_is_json_whatever_the_names(detector, tree, tmp_path):
    raw = os.fsencode(tree) + b"/\xff\n\x1b.png"
    shutil.copy(tree / "Cy" / "none.png", raw)
    result = facenet("align", "--json", *detector, tree, tmp_path / "out")
    assert result.returncode == 0 and json.loads(result.stdout)["without_face"][1].endswith("/\ufffd\n\x1b.png")


def test_leftovers_of_others_stay(detector, scenes, tmp_path):
    """Only NAME.PID.tmp of a crop that this run makes is ours; a pipe of such a name neither blocks nor goes."""
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    out.mkdir()
    shutil.copy(scenes / "one.png", photos / "one.png")
    (out / "thesis.2024.tmp").write_text("a year's work")
    (out / "one.png.4194304.tmp").write_text("half")
    os.mkfifo(out / "one.png.4194303.tmp")
    assert facenet("align", *detector, photos, out, timeout=60).returncode == 0
    assert files(out) == ["one.png", "one.png.4194303.tmp", "thesis.2024.tmp"]
    assert_sentence(facenet("align", *detector, "--size", 96, photos, out), "160x160", "another folder")


def test_outputs_do_not_replace_inputs_or_each_other(network, detector, scenes, tmp_path):
    for name in ("a.png", "a_0.png"):
        shutil.copy(scenes / "one.png", tmp_path / name)
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    a, b, out = tmp_path / "a.png", tmp_path / "a_0.png", tmp_path / "x"
    for call in (["detect", *detector, "--draw", f"{tmp_path}/", a], ["detect", *detector, "--crops", tmp_path, a, b],
                 ["embed", *network, "--aligned", "-o", a, a], ["detect", *detector, "--draw", a, a]):
        assert_sentence(facenet(*call), "would replace this input")
    assert_sentence(facenet("detect", *detector, "--draw", out, "--crops", out, a, b), "two outputs would get this name")
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_info_of_a_detector(detector, scenes):
    (info,) = lines(facenet("info", "--json", detector[1]))
    assert (info["architecture"], info["parameters"], len(info["layers"])) == ("mtcnn", 495850, 19)
    assert "parameters       495850" in facenet("info", detector[1]).stdout
    for call in (["selftest", detector[1]], ["bench", "-w", detector[1]], ["embed", "-w", detector[1], scenes / "one.png"]):
        assert_sentence(facenet(*call), detector[1], "this is a face detector")
    assert_sentence(facenet("detect", "-w", "/nope", scenes / "one.png"), "/nope")
    escaped = facenet("detect", *detector, scenes / "one.png").stdout.count("\t")
    strange = scenes / "a\tb\n\x1b\u009b.png"
    shutil.copy(scenes / "one.png", strange)
    row = facenet("detect", *detector, strange).stdout
    strange.unlink()
    assert row.count("\n") == 1 and row.count("\t") == escaped and r"a\tb\n\x1b\u009b.png" in row


def begun(pid: int, folder: pathlib.Path) -> bool:
    """Whether the process has a file open in the folder, one without a name included."""
    try:
        return any(os.readlink(d).startswith(str(folder)) for d in pathlib.Path(f"/proc/{pid}/fd").iterdir())
    except FileNotFoundError:  # closed meanwhile
        return False


def test_a_signal_removes_what_is_half_written(detector, weights, scenes, tmp_path):  # noqa: F811
    pipe, out = tmp_path / "pipe", tmp_path / "x.jsonl"
    os.mkfifo(pipe)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        call = [COMMAND, "embed", "--aligned", "-w", weights, "-o", out, "-"]
        # It waits for a picture. A run in the background ignores SIGINT, one under nohup SIGHUP, and so would the command.
        process = subprocess.Popen(
            call, stdin=subprocess.PIPE, preexec_fn=lambda number=number: signal.signal(number, signal.SIG_DFL)
        )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not begun(process.pid, tmp_path):
            time.sleep(0.01)
        process.send_signal(number)
        process.communicate(timeout=60)
        assert process.returncode == -number and [p.name for p in tmp_path.iterdir()] == ["pipe"]
