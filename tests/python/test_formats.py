"""Pictures as people have them: every format, turned every way, and what happens to those that are damaged or hostile.

The makers are other people's libraries: Pillow, pillow-heif, pillow-jxl-plugin, tifffile.
"""

from __future__ import annotations

import importlib
import io
import json
import pathlib
import random
import re
import struct
import subprocess
import time
import zlib

import numpy as np
import pytest
from detection import PHOTOS, SAMPLES, open_picture
from PIL import Image, ImageCms, ImageOps, PngImagePlugin
from python_package import needs_package
from test_command import COMMAND, SANITIZED, assert_sentence, facenet, lines
from test_command import weights  # noqa: F401 (fixtures)
from test_detector import weight_file  # noqa: F401 (fixtures)

pillow_heif = pytest.importorskip("pillow_heif")
tifffile = pytest.importorskip("tifffile")
pytest.importorskip("pillow_jxl")
pillow_heif.register_heif_opener()
pillow_heif.register_avif_opener()

ASTRONAUT = SAMPLES / "astronaut.png"
BUILT = subprocess.run([COMMAND, "--version"], capture_output=True, text=True, check=False).stdout if COMMAND.exists() else ""
FOREIGN = "WebP (" in BUILT
pytestmark = [
    pytest.mark.skipif(not COMMAND.exists(), reason=f"{COMMAND} is not built"),
    pytest.mark.skipif(not FOREIGN, reason="the command was built without the decoders of formats/"),
    pytest.mark.skipif(not ASTRONAUT.exists(), reason=f"{ASTRONAUT} is not there: run tools/bootstrap.sh"),
]


@pytest.fixture(scope="module")
def detector(weight_file):  # noqa: F811
    return ["--detector", weight_file]


@pytest.fixture(scope="module")
def scene() -> Image.Image:
    """A face to the left of the middle, so that no turn of it is like another."""
    face = Image.fromarray(open_picture(ASTRONAUT)).crop((130, 0, 330, 220))
    whole = Image.new("RGB", (310, 260), (90, 110, 130))
    whole.paste(face, (10, 20))
    return whole


@pytest.fixture(scope="module")
def expected(scene, detector, tmp_path_factory):
    path = tmp_path_factory.mktemp("expected") / "scene.png"
    scene.save(path)
    return detect(detector, path)[0]


def detect(detector, *paths, options=()) -> list[list[dict]]:
    result = facenet("detect", "--json", *detector, *options, *paths)
    assert result.returncode == 0, result.stderr
    return [picture["faces"] for picture in lines(result)]


def near(a: dict, b: dict, pixels: float) -> bool:
    return max(abs(x - y) for x, y in zip(a["box"], b["box"])) <= pixels


# ---- makers ----------------------------------------------------------------------------------------------------------


def by_pillow(kind: str, **options):
    def make(image: Image.Image, exif: bytes = b"") -> bytes:
        file = io.BytesIO()
        image.save(file, kind, **options, **({"exif": exif} if exif else {}))
        return file.getvalue()

    return make


def make_dng(image: Image.Image, orientation: int = 1) -> bytes:
    """As a camera writes it: a thumbnail in front, the sensor's values and a JPEG preview in directories below it."""
    preview = by_pillow("JPEG", quality=95)(image)
    sensor = np.zeros((64, 64), np.uint16)  # below 22 LibRaw takes it for no sensor

    def entry(tag: int, kind: int, count: int, value: int) -> bytes:
        if kind == 3 and count == 1:
            return struct.pack("<HHIHH", tag, kind, count, value, 0)
        return struct.pack("<HHII", tag, kind, count, value)

    texts = b"Example\0Camera\0\0"
    at = 8
    blob = bytearray(b"II*\0" + struct.pack("<I", 0))
    thumbnail = bytes(8 * 8 * 3)
    places = {}
    for name, data in (("texts", texts), ("thumbnail", thumbnail), ("sensor", sensor.tobytes()), ("preview", preview)):
        blob += bytes(-len(blob) % 4)
        places[name] = len(blob)
        blob += data
    blob += bytes(-len(blob) % 4)

    def directory(entries: list[bytes]) -> int:
        place = len(blob)
        blob.extend(struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4))
        blob.extend(bytes(-len(blob) % 4))
        return place

    raw = directory([entry(254, 4, 1, 0), entry(256, 4, 1, 64), entry(257, 4, 1, 64), entry(258, 3, 1, 16), entry(259, 3, 1, 1),
                     entry(262, 3, 1, 32803), entry(273, 4, 1, places["sensor"]), entry(277, 3, 1, 1), entry(278, 4, 1, 64),
                     entry(279, 4, 1, sensor.nbytes), struct.pack("<HHIHH", 33421, 3, 2, 2, 2), struct.pack("<HHI4B", 33422, 1, 4, 0, 1, 1, 2)])
    small = directory([entry(254, 4, 1, 1), entry(256, 4, 1, image.width), entry(257, 4, 1, image.height), entry(258, 3, 1, 8),
                       entry(259, 3, 1, 7), entry(262, 3, 1, 6), entry(273, 4, 1, places["preview"]), entry(277, 3, 1, 3),
                       entry(278, 4, 1, image.height), entry(279, 4, 1, len(preview))])
    sub = len(blob)
    blob.extend(struct.pack("<II", raw, small))
    first = directory([entry(254, 4, 1, 1), entry(256, 4, 1, 8), entry(257, 4, 1, 8), entry(258, 3, 1, 8), entry(259, 3, 1, 1),
                       entry(262, 3, 1, 2), entry(271, 2, 8, places["texts"]), entry(272, 2, 7, places["texts"] + 8),
                       entry(273, 4, 1, places["thumbnail"]), entry(274, 3, 1, orientation), entry(277, 3, 1, 3), entry(278, 4, 1, 8),
                       entry(279, 4, 1, 192), entry(330, 4, 2, sub), struct.pack("<HHI4B", 50706, 1, 4, 1, 4, 0, 0)])
    struct.pack_into("<I", blob, 4, first)
    assert at == 8
    return bytes(blob)


MAKERS = {
    "webp": (by_pillow("WEBP", quality=92), "WebP"),
    "heic": (by_pillow("HEIF", quality=92), "HEIC"),
    "avif": (by_pillow("AVIF", quality=92), "AVIF"),
    "tif": (by_pillow("TIFF", compression="tiff_lzw"), "TIFF"),
    "gif": (by_pillow("GIF"), "GIF"),
    "bmp": (by_pillow("BMP"), "BMP"),
    "jxl": (by_pillow("JXL", quality=92), "JPEG XL"),
    "dng": (make_dng, "camera raw"),
}
LOSSLESS = {
    "webp": by_pillow("WEBP", lossless=True),
    "tif": by_pillow("TIFF"),
    "deflate.tif": by_pillow("TIFF", compression="tiff_adobe_deflate"),
    "packbits.tif": by_pillow("TIFF", compression="packbits"),
    "tiled.tif": lambda image: in_tiff(np.asarray(image), tile=(64, 64)),
    "planar.tif": lambda image: in_tiff(np.asarray(image).transpose(2, 0, 1), planarconfig="separate"),
    "big.tif": lambda image: in_tiff(np.asarray(image), bigtiff=True),
    "motorola.tif": lambda image: in_tiff(np.asarray(image), byteorder=">", rowsperstrip=7),
    "sixteen.tif": lambda image: in_tiff(np.asarray(image).astype(np.uint16) * 257),
    "bmp": by_pillow("BMP"),
    "jxl": by_pillow("JXL", lossless=True),
}


def in_tiff(array: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    options = {"photometric": "rgb", **options}
    with tifffile.TiffWriter(file, bigtiff=options.pop("bigtiff", False), byteorder=options.pop("byteorder", None)) as writer:
        writer.write(array, **options)
    return file.getvalue()


def written(folder: pathlib.Path, name: str, data: bytes) -> pathlib.Path:
    path = folder / name
    path.write_bytes(data)
    return path


# ---- every format ----------------------------------------------------------------------------------------------------


def test_version_lists_what_is_built_in():
    listed = BUILT.splitlines()[1]
    assert listed.startswith("pictures: JPEG")
    for name in ("PNG", "WebP (libwebp ", "HEIC (libheif ", "AVIF (libheif ", "TIFF (libtiff ", "GIF (giflib ", "BMP (stb_image", "JPEG XL (libjxl ",
                 "camera raw (LibRaw "):
        assert name in listed


@pytest.mark.parametrize("end", MAKERS)
def test_a_face_is_found_in_every_format(scene, expected, detector, tmp_path, end):
    make, _ = MAKERS[end]
    path = written(tmp_path, f"scene.{end}", make(scene))
    (faces,) = detect(detector, path)
    assert len(faces) == len(expected) == 1 and near(faces[0], expected[0], 6)


@pytest.mark.parametrize("end", LOSSLESS)
def test_lossless_formats_have_the_same_bits(scene, expected, detector, tmp_path, end):
    (faces,) = detect(detector, written(tmp_path, f"scene.{end}", LOSSLESS[end](scene)))
    assert faces == expected


def test_grey_palettes_and_what_is_transparent(scene, detector, tmp_path):
    """Each as a PNG of the same pixels is, which the headers read."""
    grey, palette = scene.convert("L"), scene.quantize(64)
    alpha = scene.copy()
    alpha.putalpha(Image.linear_gradient("L").resize(scene.size))
    pairs = []
    for name, image, kind, options in (("grey", grey, "TIFF", {}), ("grey", grey, "BMP", {}), ("palette", palette, "TIFF", {}), ("palette", palette, "BMP", {}),
                                       ("palette", palette, "GIF", {}), ("alpha", alpha, "WEBP", {"lossless": True, "exact": True}), ("one", grey.convert("1"), "TIFF", {}),
                                       ("one", grey.convert("1"), "TIFF", {"compression": "group4"})):
        same = written(tmp_path, f"{name}.png", by_pillow("PNG")(image))
        pairs.append((same, written(tmp_path, f"{name}{len(pairs)}.{kind.lower()}", by_pillow(kind, **options)(image))))
    for same, other in pairs:
        a, b = detect_or_none(detector, same), detect_or_none(detector, other)
        assert a == b, other.name


def detect_or_none(detector, path) -> list[dict]:
    result = facenet("detect", "--json", *detector, path)
    assert result.returncode in (0, 1), result.stderr
    return lines(result)[0]["faces"]


def test_the_first_frame_counts(scene, expected, detector, tmp_path):
    none = Image.new("RGB", scene.size, (200, 10, 10))
    for name, kind, options in (("a.gif", "GIF", {}), ("a.webp", "WEBP", {"lossless": True}), ("a.tif", "TIFF", {})):
        file = io.BytesIO()
        scene.save(file, kind, save_all=True, append_images=[none], **options)
        (faces,) = detect(detector, written(tmp_path, name, file.getvalue()))
        assert len(faces) == 1 and near(faces[0], expected[0], 6), name


def test_mpo_and_ultra_hdr_are_jpegs(scene, expected, detector, tmp_path):
    """A second picture, of depth or of brightness, lies after the first."""
    file = io.BytesIO()
    scene.save(file, "MPO", save_all=True, append_images=[Image.new("RGB", (64, 64))], quality=95)
    mpo = file.getvalue()
    assert b"MPF\0" in mpo
    (faces,) = detect(detector, written(tmp_path, "a.mpo", mpo))
    assert near(faces[0], expected[0], 6)
    gain = by_pillow("JPEG")(Image.new("L", (64, 64), 128))
    note = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:hdrgm='http://ns.adobe.com/hdr-gain-map/1.0/' hdrgm:Version='1.0'/>"
    plain = by_pillow("JPEG", quality=95)(scene)
    ultra = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(note) + 2) + note + plain[2:] + gain
    result = facenet("detect", "--json", *detector, written(tmp_path, "ultra.jpg", ultra))
    assert result.returncode == 0 and near(lines(result)[0]["faces"][0], expected[0], 6)


def test_names_tell_nothing(scene, expected, detector, tmp_path):
    wrong = {"a.jpg": "heic", "b.heic": "webp", "c.png": "tif", "d": "jxl", "e.tif": "dng", "f.gif": "avif", "g.txt": "bmp"}
    paths = [written(tmp_path, name, MAKERS[kind][0](scene)) for name, kind in wrong.items()]
    for faces in detect(detector, *paths):
        assert len(faces) == 1 and near(faces[0], expected[0], 6)
    text = written(tmp_path, "h.heic", b"I am no picture at all, but a text.")
    assert_sentence(facenet("detect", *detector, text), "h.heic", "neither a JPEG nor a PNG")


def test_standard_input_and_the_service_read_them(scene, expected, detector, tmp_path):
    for end, (make, _) in MAKERS.items():
        done = subprocess.run([COMMAND, "detect", "--json", *map(str, detector), "-"], input=make(scene), capture_output=True, check=False)
        assert done.returncode == 0 and near(json.loads(done.stdout)["faces"][0], expected[0], 6), end


def test_folders_have_them_all(scene, detector, tmp_path):
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    for end, (make, _) in MAKERS.items():
        written(photographs, f"{end}.{end}", make(scene))
    written(photographs, "layers.psd", b"8BPS\0\1" + bytes(30))
    result = facenet("align", "--json", *detector, photographs, tmp_path / "crops")
    (summary,) = lines(result)
    assert summary["pictures"] == summary["written"] == len(MAKERS) and summary["left_out"]["formats"] == {"PSD": 1}


# ---- orientation -----------------------------------------------------------------------------------------------------

# What must be done to the upright picture so that a viewer that obeys the number shows it upright.
UNDO = {1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270}


def stored(image: Image.Image, orientation: int) -> Image.Image:
    return image if UNDO[orientation] is None else image.transpose(UNDO[orientation])


def exif_of(orientation: int, order: str = "<", kind: int = 3, again: int = 0, head: bytes = b"Exif\0\0") -> bytes:
    """EXIF with one entry, or with a second one of the same tag, which counts as in Pillow."""
    size = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}[kind]

    def entry(value: int) -> bytes:
        number = struct.pack(order + size, value)
        return struct.pack(order + "HHI", 0x0112, kind, 1) + number + bytes(4 - len(number))

    entries = [entry(orientation)] if not again else [entry(again), entry(orientation)]
    mark = b"II" if order == "<" else b"MM"
    return head + mark + struct.pack(order + "HIH", 42, 8, len(entries)) + b"".join(entries) + bytes(4)


def in_png(image: Image.Image, exif: bytes, place: str) -> bytes:
    info = PngImagePlugin.PngInfo()
    if place == "profile":
        lines_ = "\n".join(exif.hex()[i : i + 72] for i in range(0, len(exif.hex()), 72))
        info.add_text("Raw profile type exif", f"\nexif\n{len(exif):8}\n{lines_}\n", zip=True)
        return by_pillow("PNG", pnginfo=info)(image)
    return by_pillow("PNG")(image, exif)


@pytest.mark.parametrize("orientation", UNDO)
def test_orientation_from_every_place(scene, expected, detector, tmp_path, orientation):
    turned = stored(scene, orientation)
    exif = exif_of(orientation)
    files = {
        "eXIf.png": in_png(turned, exif, "eXIf"),
        "profile.png": in_png(turned, exif, "profile"),
        "exif.webp": LOSSLESS["webp"](turned, exif),
        "plain.webp": LOSSLESS["webp"](turned, exif_of(orientation, head=b"")),
        "tag.tif": in_tiff(np.asarray(turned), extratags=[(274, 3, 1, orientation, True)]),
        "motorola.tif": in_tiff(np.asarray(turned), byteorder=">", extratags=[(274, 3, 1, orientation, True)]),
        "tiled.tif": in_tiff(np.asarray(turned), tile=(64, 64), extratags=[(274, 3, 1, orientation, True)]),
    }
    paths = [written(tmp_path, name, data) for name, data in files.items()]
    for path, faces in zip(paths, detect(detector, *paths)):
        assert faces == expected, path.name
    lossy = {
        "little.jpg": by_pillow("JPEG", quality=95)(turned, exif),
        "big.jpg": by_pillow("JPEG", quality=95)(turned, exif_of(orientation, ">")),
        "long.jpg": by_pillow("JPEG", quality=95)(turned, exif_of(orientation, ">", 4)),
        "again.jpg": by_pillow("JPEG", quality=95)(turned, exif_of(orientation, again=1 + orientation % 8)),
    }
    if orientation in (1, 3, 6, 8):
        lossy["raw.dng"] = make_dng(turned, orientation)
    paths = [written(tmp_path, name, data) for name, data in lossy.items()]
    for path, faces in zip(paths, detect(detector, *paths)):
        assert len(faces) == 1 and near(faces[0], expected[0], 8), path.name


@pytest.mark.parametrize("orientation", UNDO)
def test_a_heic_is_turned_once(scene, expected, detector, tmp_path, orientation):
    """pillow-heif writes the turn as irot and imir, and EXIF that says it again, as telephones do."""
    data = by_pillow("HEIF", quality=95)(stored(scene, orientation), exif_of(orientation))
    assert orientation == 1 or b"irot" in data or b"imir" in data
    (faces,) = detect(detector, written(tmp_path, "a.heic", data))
    assert len(faces) == 1 and near(faces[0], expected[0], 8)


def test_exif_alone_turns_no_avif(scene, expected, detector, tmp_path):
    """ISO/IEC 23008-12: what is not in irot or imir is not done."""
    data = by_pillow("AVIF", quality=95)(scene, exif_of(6))
    assert b"irot" not in data and b"Exif" in data
    (faces,) = detect(detector, written(tmp_path, "a.avif", data))
    assert len(faces) == 1 and near(faces[0], expected[0], 8)


# ---- damaged, hostile, too large -------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", MAKERS)
def test_half_a_picture_is_an_error(scene, detector, tmp_path, end):
    make, name = MAKERS[end]
    whole = make(scene)
    for percent in (10, 30, 60, 90):
        data = whole[: len(whole) * percent // 100]
        result = facenet("detect", "--json", *detector, written(tmp_path, f"{percent}.{end}", data))
        assert result.returncode == 2 and f"{percent}.{end}: " in result.stderr, (percent, result.stderr, result.stdout)
        assert name in result.stderr or "TIFF" in result.stderr, result.stderr
        assert re.search("truncated|damaged|not read|no preview", result.stderr), result.stderr
        assert lines(result)[0]["error"]


@pytest.mark.parametrize("end", MAKERS)
def test_hostile_bytes_cost_one_picture(scene, expected, detector, tmp_path, end):
    """Bytes are changed at random, in front more often; a good picture comes last."""
    make, _ = MAKERS[end]
    whole = make(scene)
    rng = random.Random(end)
    paths = []
    for number in range(24):
        data = bytearray(whole)
        for _ in range(rng.choice((1, 3, 30))):
            place = rng.randrange(len(data) if rng.random() < 0.5 else min(400, len(data)))
            data[place] = rng.choice((0, 255, rng.randrange(256)))
        paths.append(written(tmp_path, f"{number}.{end}", bytes(data)))
    good = written(tmp_path, "good.png", by_pillow("PNG")(scene))
    result = facenet("detect", "--json", *detector, *paths, good)
    got = lines(result)
    assert len(got) == len(paths) + 1 and got[-1]["faces"] == expected
    failed = [row for row in got if "error" in row]
    assert result.returncode == (2 if failed else 0)
    for row in failed:
        assert re.search(r"[:;] \w+.*\.$", row["error"]) and pathlib.Path(row["image"]).name in row["error"]


def bombs() -> dict[str, tuple[bytes, str]]:
    """Small files that say they are large, and what is said of them."""
    small = Image.new("RGB", (16, 16))
    bmp = bytearray(by_pillow("BMP")(small))
    struct.pack_into("<ii", bmp, 18, 60000, 60000)
    png = bytearray(by_pillow("PNG")(small))
    struct.pack_into(">II", png, 16, 20000, 16000)
    struct.pack_into(">I", png, 29, zlib.crc32(png[12:29]))
    gif = bytearray(by_pillow("GIF")(small))
    struct.pack_into("<HH", gif, 6, 65535, 65535)
    tif = bytearray(in_tiff(np.zeros((16, 16, 3), np.uint8), byteorder="<"))
    for tag in (256, 257):
        at = tif.index(struct.pack("<H", tag), 8)
        struct.pack_into("<HHII", tif, at, tag, 4, 1, 65000)
    return {
        "bomb.bmp": (bytes(bmp), "300 M pixels"),
        "bomb.gif": (bytes(gif), "300 M pixels"),
        "bomb.tif": (bytes(tif), "300 M pixels"),
        "bomb.png": (bytes(png), "300 M pixels"),
    }


@pytest.mark.skipif(SANITIZED, reason="sanitizers need memory of their own")
def test_bombs(detector, tmp_path):
    for name, (data, said) in bombs().items():
        began = time.monotonic()
        result = facenet("detect", *detector, written(tmp_path, name, data))
        assert_sentence(result, name, said)
        assert time.monotonic() - began < 20


def test_a_format_that_is_never_read(detector, tmp_path):
    assert_sentence(facenet("detect", *detector, written(tmp_path, "a.psd", b"8BPS\0\1" + bytes(30))), "a.psd", "PSD", "convert it")


# ---- on its side -----------------------------------------------------------------------------------------------------


def overlap(a: list[float], b: list[float]) -> float:
    both = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def turned_back(box: list[float], angle: int, width: int, height: int) -> list[float]:
    """The box of a picture that was turned clockwise by `angle`, in the one before; its size is given."""
    x0, y0, x1, y1 = box
    return {0: box, 90: [y0, height - x1, y1, height - x0], 180: [width - x1, height - y1, width - x0, height - y0],
            270: [width - y1, x0, width - y0, x1]}[angle]


@pytest.mark.parametrize("mode", ["retry", "all"])
@pytest.mark.parametrize("angle", [90, 180, 270])
def test_turned_pictures_have_the_same_faces(scene, expected, detector, tmp_path, mode, angle):
    path = tmp_path / "turned.png"
    scene.rotate(-angle, expand=True).save(path)
    assert not [f for f in detect_or_none(detector, path) if f["score"] > 0.995]
    (faces,) = detect(detector, path, options=["--rotations", mode, "--crops", tmp_path / "crops", "--draw", tmp_path / "drawn.png"])
    assert len(faces) == 1 and faces[0]["score"] == expected[0]["score"] and faces[0]["quality"] == expected[0]["quality"]
    assert np.allclose(turned_back(faces[0]["box"], angle, *scene.size), expected[0]["box"], atol=1e-3)
    # The crop is what the embedder sees: upright.
    scene.save(tmp_path / "upright.png")
    detect(detector, tmp_path / "upright.png", options=["--crops", tmp_path / "crops"])
    assert (tmp_path / "crops/turned_0.png").read_bytes() == (tmp_path / "crops/upright_0.png").read_bytes()
    (written_,) = lines(facenet("align", "--json", *detector, "--rotations", mode, tmp_path, tmp_path / "aligned", "--exclude", "crops", "--exclude", "drawn.png"))
    assert written_["written"] == 2
    assert (tmp_path / "aligned/turned.png").read_bytes() == (tmp_path / "aligned/upright.png").read_bytes()


def test_a_page_shows_turned_faces_upright(scene, detector, weights, tmp_path):  # noqa: F811
    """evaluate, calibrate and cluster cut faces out again for their pages."""
    people = tmp_path / "people"
    people.mkdir()
    for angle in (0, 90):
        scene.rotate(-angle, expand=True).save(people / f"{angle}.png")
    page = tmp_path / "page.html"
    result = facenet("cluster", "--weights", weights, *detector, "--rotations", "retry", people, "--html", page, "--cache", "none", "--threshold", "2")
    assert result.returncode == 0, result.stderr
    images = re.findall(r'src="(data:image/[^"]+)"', page.read_text())
    assert len(images) == 2 and images[0] == images[1]


def photographs() -> list[pathlib.Path]:
    return sorted([*PHOTOS.glob("*.jpg"), *PHOTOS.glob("*.png")])


@pytest.mark.slow
@pytest.mark.skipif(not PHOTOS.is_dir(), reason="../shared/photos is not there")
@pytest.mark.parametrize("mode", ["retry", "all"])
def test_the_photographs_turned(detector, tmp_path, mode):
    """All faces that are found upright but one at the most."""
    wanted = detect(detector, *photographs(), options=["--rotations", "off"])
    assert sum(map(len, wanted)) == 18
    for angle in (90, 180, 270):
        paths, sizes = [], []
        for photograph in photographs():
            with Image.open(photograph) as image:
                upright = ImageOps.exif_transpose(image).convert("RGB")
            sizes.append(upright.size)
            paths.append(tmp_path / f"{photograph.stem}.png")
            upright.rotate(-angle, expand=True).save(paths[-1], compress_level=1)
        got = detect(detector, *paths, options=["--rotations", mode])
        again = sum(any(overlap(turned_back(g["box"], angle, *size), w["box"]) > 0.5 for g in found) for found, want, size in zip(got, wanted, sizes) for w in want)
        assert again >= 17, (mode, angle)
        assert sum(map(len, got)) <= 18 + 2


def test_no_face_says_what_to_try(detector, tmp_path):
    Image.new("RGB", (99, 99)).save(tmp_path / "none.png")
    said = facenet("detect", *detector, tmp_path / "none.png").stderr
    assert "--min-face" in said and "--rotations retry" in said and "--thresholds" in said
    assert "--rotations" not in facenet("detect", *detector, "--rotations", "retry", tmp_path / "none.png").stderr


# ---- large -----------------------------------------------------------------------------------------------------------


def tiled(face: Image.Image, width: int, height: int) -> Image.Image:
    whole = Image.new("RGB", (width, height), (90, 110, 130))
    side = min(width, height) * 3 // 4
    whole.paste(face.resize((side, side * face.height // face.width), Image.Resampling.BICUBIC).crop((0, 0, side, side)), (width // 8, height // 8))
    return whole


@pytest.mark.parametrize("end", ["jpg", "progressive.jpg", "png", "tif", "webp"])
def test_a_picture_larger_than_its_memory_is_shrunk(scene, detector, tmp_path, end):
    """Boxes are told in the picture's own pixels, and differ by less than a hundredth of the face."""
    makers = {"jpg": by_pillow("JPEG", quality=85), "progressive.jpg": by_pillow("JPEG", quality=85, progressive=True), "png": by_pillow("PNG", compress_level=1),
              "tif": by_pillow("TIFF", compression="tiff_lzw"), "webp": by_pillow("WEBP", quality=80, method=0)}
    large = tiled(scene.crop((10, 20, 210, 240)), 5000, 4000)
    path = written(tmp_path, f"large.{end}", makers[end](large))
    options = ["--min-face", "500"]
    (whole,) = detect(detector, path, options=options)
    (shrunk,) = detect(detector, path, options=[*options, "--memory", "64M"])
    assert len(whole) == len(shrunk) == 1 and whole != shrunk
    side = whole[0]["box"][2] - whole[0]["box"][0]
    assert near(whole[0], shrunk[0], 0.05 * side)


@pytest.mark.skipif(SANITIZED, reason="sanitizers need memory of their own")
def test_what_does_not_fit_says_so(scene, detector, tmp_path):
    path = written(tmp_path, "large.jxl", by_pillow("JXL", effort=1)(tiled(scene, 5000, 4000)))
    assert_sentence(facenet("detect", *detector, "--memory", "64M", path), "large.jxl", "JPEG XL", "--memory")


def test_memory_is_a_size(detector, tmp_path):
    for wrong in ("5", "-1G", "10M", "1T", "two"):
        assert_sentence(facenet("detect", *detector, f"--memory={wrong}", tmp_path / "x.png"), "memory")


# ---- Python ----------------------------------------------------------------------------------------------------------


@needs_package
def test_python_asks_pillow(scene, tmp_path):
    read_image = importlib.import_module("facenet").read_image
    upright = np.asarray(scene)
    for name, data in {"a.webp": LOSSLESS["webp"](stored(scene, 6), exif_of(6)), "a.tif": LOSSLESS["tif"](scene), "a.bmp": LOSSLESS["bmp"](scene)}.items():
        path = written(tmp_path, name, data)
        assert np.array_equal(read_image(path), upright) and np.array_equal(read_image(data), upright), name
    heic = read_image(written(tmp_path, "a.heic", by_pillow("HEIF", quality=95)(stored(scene, 6), exif_of(6))))
    assert heic.shape == upright.shape and np.abs(heic.astype(int) - upright).mean() < 4
    with pytest.raises(ValueError, match=r"a\.bmp: .*again"):
        read_image(written(tmp_path, "a.bmp", LOSSLESS["bmp"](scene)[:20000]))
    with pytest.raises(ValueError, match="neither a JPEG nor a PNG"):
        read_image(written(tmp_path, "text.webp", b"a text"))


# ---- colour ----------------------------------------------------------------------------------------------------------


def display_p3() -> bytes:
    """A matrix profile (ICC.1:2001) with the primaries of P3, adapted to D50, and a gamma of 2.2."""

    def number(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    columns = {"rXYZ": (0.51512, 0.2412, -0.00105), "gXYZ": (0.29198, 0.69225, 0.04189), "bXYZ": (0.1571, 0.06657, 0.78407), "wtpt": (0.9642, 1.0, 0.82491)}
    tags = {name: b"XYZ \0\0\0\0" + b"".join(map(number, values)) for name, values in columns.items()}
    tags |= {name: b"curv\0\0\0\0" + struct.pack(">IH", 1, round(2.2 * 256)) for name in ("rTRC", "gTRC", "bTRC")}
    tags["desc"] = b"desc\0\0\0\0" + struct.pack(">I", 3) + b"P3\0" + bytes(4 + 4 + 2 + 1 + 67)
    tags["cprt"] = b"text\0\0\0\0none\0"
    begin, table, data = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, value in tags.items():
        padded = value + bytes(-len(value) % 4)
        table += name.encode() + struct.pack(">II", begin + len(data), len(value))
        data += padded
    white = b"".join(map(number, columns["wtpt"]))
    head = struct.pack(">I4sI4s4s4s", begin + len(data), b"none", 0x02100000, b"mntr", b"RGB ", b"XYZ ") + bytes(12) + b"acsp" + bytes(28) + white + bytes(48)
    return head + table + data


@pytest.mark.parametrize(("end", "tolerance"), [("png", 2), ("tif", 2), ("webp", 2), ("jpg", 3), ("heic", 4)])
def test_colours_become_srgb_where_that_is_asked_for(scene, detector, tmp_path, end, tolerance):
    profile = display_p3()
    p3 = ImageCms.profileToProfile(scene, ImageCms.createProfile("sRGB"), ImageCms.ImageCmsProfile(io.BytesIO(profile)), renderingIntent=1)
    makers = {"png": ("PNG", {}), "tif": ("TIFF", {}), "webp": ("WEBP", {"lossless": True}), "jpg": ("JPEG", {"quality": 98, "subsampling": 0}), "heic": ("HEIF", {"quality": 98})}
    kind, options = makers[end]
    scene.save(tmp_path / "srgb.png")
    p3.save(tmp_path / f"p3.{end}", kind, icc_profile=profile, **options)
    shown = {}
    for name, word in (("srgb.png", "srgb"), (f"p3.{end}", "srgb"), (f"p3.{end}", "ignore"), (f"p3.{end}", "auto")):
        drawn = tmp_path / "drawn.png"
        result = facenet("detect", *detector, "--colour", word, "--thresholds", "1,1,1", "--draw", drawn, tmp_path / name)
        assert result.returncode == 1, result.stderr
        with Image.open(drawn) as image:
            shown[name, word] = np.asarray(image).astype(int)
    want = shown["srgb.png", "srgb"]
    assert np.array_equal(want, np.asarray(scene))
    assert np.abs(shown[f"p3.{end}", "srgb"] - want).mean() < tolerance
    assert np.abs(shown[f"p3.{end}", "ignore"] - want).max() > 20
    same = "ignore" if end in ("png", "jpg") else "srgb"  # as the headers read those two
    assert np.array_equal(shown[f"p3.{end}", "auto"], shown[f"p3.{end}", same])


def test_a_profile_that_is_none_changes_nothing(scene, expected, detector, tmp_path):
    for number, profile in enumerate((b"no profile", display_p3()[:200], bytes(1000))):
        data = by_pillow("TIFF", icc_profile=profile)(scene)
        (faces,) = detect(detector, written(tmp_path, f"{number}.tif", data), options=["--colour", "srgb"])
        assert faces == expected
