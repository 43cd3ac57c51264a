"""image.hpp and image_io.hpp against Pillow, PyTorch, facenet-pytorch and the generated corpus.

Set FACENET_LONG=1 for 10,000 random resizes instead of 1,000. tools/bootstrap.sh --all brings stb_image 2.28 and 2.30, with which
the corpus is decoded again.
"""

import io
import os
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from make_image_corpus import Tool, cases, chunk, encode_png, outcome, png_chunks
from PIL import Image, ImageOps

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = ROOT / os.environ.get("FACENET_BUILD", "build/release")
MANY = 10000 if os.environ.get("FACENET_LONG") else 1000


@pytest.fixture(scope="module")
def tool():
    path = next((p for p in (BUILD / "facenet_image_tool", BUILD / "tests/facenet_image_tool") if p.exists()), None)
    if path is None:
        pytest.skip(f"facenet_image_tool is not built in {BUILD}: run cmake --build, or set FACENET_BUILD")
    tool = Tool(path)
    yield tool
    tool.close()


def bits(value):
    return struct.unpack("I", struct.pack("f", value))[0]


def pixels(answer, dtype=np.uint8):
    assert not isinstance(answer, str), answer
    w, h, data = answer
    return np.frombuffer(data, dtype).reshape(h, w, 3)


def random_picture(rng):
    w, h = (int(v) for v in np.exp(rng.uniform(0, np.log(300), 2)))
    kind = rng.integers(3)
    if kind == 0:  # noise: every rounding counts
        return rng.integers(0, 256, (h, w, 3), np.uint8)
    if kind == 1:  # only 0 and 255: sums reach their limits
        return (rng.integers(0, 2, (h, w, 3)) * 255).astype(np.uint8)
    return np.broadcast_to(np.linspace(0, 255, w).astype(np.uint8)[None, :, None], (h, w, 3)).copy()


def target(rng, size):
    """A size up or down, or the same: an axis that keeps its size is skipped."""
    return size if rng.random() < 0.15 else int(np.exp(rng.uniform(0, np.log(300))))


def resize(tool, image, box, size):
    h, w, _ = image.shape
    return tool.ask(f"resize {w} {h} {' '.join(str(bits(v)) for v in box)} {size[0]} {size[1]}", image)


def test_resize_is_pillows_to_the_bit(tool):
    rng = np.random.default_rng(1)
    for _ in range(MANY):
        image = random_picture(rng)
        h, w, _ = image.shape
        size = target(rng, w), target(rng, h)
        if rng.random() < 0.5:
            box = 0.0, 0.0, float(w), float(h)
        else:
            x = np.sort(np.float32(rng.uniform(0, w, 2)))
            y = np.sort(np.float32(rng.uniform(0, h, 2)))
            box = float(x[0]), float(y[0]), float(x[1]), float(y[1])
        if box[0] == box[2] or box[1] == box[3]:
            continue
        want = np.asarray(Image.fromarray(image).resize(size, Image.BILINEAR, box))
        got = pixels(resize(tool, image, box, size))
        assert np.array_equal(got, want), f"{w}x{h} box {box} -> {size}: off by {np.abs(got.astype(int) - want).max()}"


def test_crop_then_resize_is_pillows_to_the_bit(tool):
    rng = np.random.default_rng(2)
    for _ in range(MANY):
        image = random_picture(rng)
        h, w, _ = image.shape
        x0, y0 = int(rng.integers(-40, w + 20)), int(rng.integers(-40, h + 20))
        box = x0, y0, x0 + int(rng.integers(1, w + 60)), y0 + int(rng.integers(1, h + 60))
        size = (160, 160) if rng.random() < 0.3 else (target(rng, box[2] - box[0]), target(rng, box[3] - box[1]))
        want = np.asarray(Image.fromarray(image).crop(box).resize(size, Image.BILINEAR))
        got = pixels(tool.ask(f"crop {w} {h} {' '.join(map(str, box))} {size[0]} {size[1]}", image))
        assert np.array_equal(got, want), f"{w}x{h} crop {box} -> {size}"


@pytest.mark.parametrize("shape, size", [((3, 16384), (7, 2)), ((16384, 2), (3, 11)), ((1, 1), (500, 300)),
                                         ((2, 16384), (8001, 1)), ((1500, 2000), (160, 160))])
def test_resize_of_extreme_sizes(tool, shape, size):
    image = np.random.default_rng(3).integers(250, 256, (*shape, 3), np.uint8)
    want = np.asarray(Image.fromarray(image).resize(size, Image.BILINEAR))
    box = 0.0, 0.0, float(shape[1]), float(shape[0])
    assert np.array_equal(pixels(resize(tool, image, box, size)), want)


def test_area_is_pytorchs_to_the_bit(tool):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(4)
    for i in range(MANY // 3):
        image = random_picture(rng) if i else rng.integers(0, 256, (700, 900, 3), np.uint8)
        h, w, _ = image.shape
        ow, oh = (1, 1) if i % 20 == 1 else (target(rng, w), target(rng, h))
        # The detector permutes NHWC to NCHW, so PyTorch takes its channels-last path; the other must agree.
        tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float()
        got = pixels(tool.ask(f"area {w} {h} {ow} {oh}", image), np.float32)
        for layout in (tensor, tensor.contiguous()):
            want = torch.nn.functional.interpolate(layout, (oh, ow), mode="area")[0].permute(1, 2, 0).numpy()
            assert np.array_equal(got, want), f"{w}x{h} -> {ow}x{oh}: {np.abs(got - want).max()}"


def prewhiten(x):
    """davidsandberg/facenet, facenet.py, in the words of its documentation."""
    deviation = np.maximum(np.std(x), 1.0 / np.sqrt(x.size))
    return np.multiply(np.subtract(x, np.mean(x)), 1 / deviation).astype(np.float32)


def test_standardisations(tool):
    rng = np.random.default_rng(5)
    mean = np.array([122.782, 117.001, 104.298], np.float32)
    flat = np.full((9, 5, 3), 77, np.uint8)
    for image in [flat] + [random_picture(rng) for _ in range(30)]:
        h, w, _ = image.shape
        x = image.astype(np.float32)
        f32 = np.float32
        wanted = (x - f32(127.5)) / f32(128), prewhiten(image), x / f32(255), (x - mean) / f32(255)
        for scaling, want in enumerate(wanted):
            for order in (0, 1):
                got = pixels(tool.ask(f"standardise {w} {h} {scaling} {order}", image), np.float32)
                want_now = want[..., ::-1] if order else want
                if scaling == 1:  # numpy sums the squares in another order: a last bit of the deviation may differ
                    np.testing.assert_allclose(got, want_now, rtol=1e-6, atol=1e-9)
                else:
                    assert np.array_equal(got, want_now), (scaling, order)


def test_margins_as_the_references(tool):
    extract_face = pytest.importorskip("facenet_pytorch").extract_face
    rng = np.random.default_rng(6)

    class Recorder:
        """Stands for a PIL image and remembers the box it is cropped to."""

        def __init__(self, size):
            self.size = size

        def crop(self, box):
            self.box = box
            return self

        def copy(self):
            return self

        def resize(self, size, _):
            return np.zeros((*size, 3), np.uint8)

    for _ in range(MANY):
        w, h = (int(v) for v in rng.integers(20, 4000, 2))
        box = np.float32(np.concatenate([rng.uniform(-30, (w, h)), rng.uniform(0, (w + 30, h + 30))]))
        margin, size = int(rng.integers(0, 100)), int(rng.choice([112, 160, 224]))
        image = Recorder((w, h))
        extract_face(image, [float(v) for v in box], size, margin)  # MTCNN's boxes are Python floats by then
        line = f"{' '.join(str(bits(v)) for v in box)} {margin} {size} {w} {h}"
        assert list(np.frombuffer(tool.ask(f"margin 0 {line}")[2], np.int32)) == image.box

        half, found = margin / 2, box.astype(np.float64)  # align_dataset_mtcnn.py
        low, high = np.maximum(found[:2] - half, 0), np.minimum(found[2:] + half, (w, h))
        want = np.concatenate([low, high]).astype(np.int32)
        assert list(np.frombuffer(tool.ask(f"margin 1 {line}")[2], np.int32)) == list(want)


CASES = {case.name: case for case in cases()}


@pytest.mark.parametrize("name", CASES)
def test_corpus(tool, tmp_path, name):
    path = tmp_path / "picture"
    path.write_bytes(CASES[name].data)
    passed, words = outcome(CASES[name], tool.decode(path))
    assert passed, words


def test_corpus_agrees_with_pillow():
    """The small PNG encoder of the corpus against an independent reader, where Pillow keeps all the bits."""
    checked, refused = 0, []
    for case in CASES.values():
        if case.name.startswith("png") and case.pixels is not None and "past-end" not in case.name:
            try:
                image = Image.open(io.BytesIO(case.data))
                image.load()
            except (OSError, SyntaxError, ValueError, struct.error):
                refused.append(case.name)
                continue
            if image.mode.startswith("I") or "16bit" in case.name:
                continue
            image = ImageOps.exif_transpose(image)
            if case.name == "png-long-transparency":
                continue  # Pillow 10.2 opens it, and refuses to look its colours up
            if "grey-2bit-trns" in case.name or "grey-4bit-trns" in case.name:
                continue  # Pillow 10.2 compares the scaled sample with the unscaled transparent one
            rgba = np.asarray(image.convert("RGBA")).astype(int)
            want = (rgba[..., :3] * rgba[..., 3:] + 255 * (255 - rgba[..., 3:]) + 127) // 255
            assert np.array_equal(case.pixels, want), case.name
            checked += 1
    assert checked > 110
    # libpng ignores transparency that is too short; the file that ends in a text is whole up to there.
    assert refused == ["png-cut-in-text", "png-short-transparency"]


@pytest.mark.parametrize("name", ["jpeg-rgb-baseline-420-61x47", "jpeg-rgb-progressive-444-61x47", "jpeg-restart-1"])
def test_a_part_of_the_coded_data_is_never_a_picture(tool, tmp_path, name):
    """Cut anywhere in a scan's data, and closed with an end marker: the error says how much is there."""
    path = tmp_path / "picture"
    data = CASES[name].data
    last = data.rindex(b"\xff\xda") if "progressive" in name else data.index(b"\xff\xda")
    begin = last + 2 + struct.unpack_from(">H", data, last + 2)[0]
    for length in np.random.default_rng(9).integers(begin, len(data) - 3, 60):
        path.write_bytes(data[:length] + b"\xff\xd9")
        answer = tool.decode(path)
        assert isinstance(answer, str) and re.search(r"corrupt .*only [\d,]+ of [\d,]+ (blocks|coeff)", answer), (length, answer)


def test_the_error_counts_what_is_there(tool, tmp_path):
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (320, 240), np.uint8))
    out = io.BytesIO()
    image.save(out, "JPEG", restart_marker_blocks=100)
    data = out.getvalue()
    path = tmp_path / "picture"
    path.write_bytes(data[: data.index(b"\xff\xd4")] + b"\xff\xd9")
    assert "only 500 of 1,200 blocks are there: a part of the JPEG's coded data is missing" in tool.decode(path)
    samples = np.random.default_rng(1).integers(0, 256, (1200, 3, 3))
    png = encode_png(samples, 2, 8)
    at, _, length = next(c for c in png_chunks(png) if c[1] == b"IDAT")
    rows = zlib.decompress(png[at + 8 : at + 8 + length])
    path.write_bytes(png[:at] + chunk(b"IDAT", zlib.compress(rows[:4129])) + chunk(b"IEND", b""))
    assert "only 412 of 1,200 rows are there" in tool.decode(path)


# ---- stb_image: its versions, and another copy in the same source file ------------------------------------------------

STB = {"here": None} | {path.name: path for path in sorted((ROOT / ".deps/stb").glob("2.*"))}
NEWER = [pytest.param(v, marks=[] if v in STB else pytest.mark.skip(f"no stb_image {v}: run tools/bootstrap.sh --all"))
         for v in ("2.28", "2.30")]


def compiler(version, *flags):
    other = [f"-isystem{STB[version]}"] if STB[version] else []
    return [shutil.which("g++") or "c++", "-std=c++17", f"-I{ROOT / 'include'}", *other, *flags]


def compile_source(source, version, *flags, output=None):
    target = ["-o", str(output)] if output else ["-fsyntax-only"]
    done = subprocess.run([*compiler(version, *flags), "-x", "c++", "-", *target], input=source, capture_output=True,
                          text=True, check=False)
    assert done.returncode == 0, done.stderr[:4000]
    return done


@pytest.mark.parametrize("version", ["here", *NEWER])
def test_no_macro_of_stb_image_is_left_behind(version):
    source = '#include "facenet/image_io.hpp"\n'
    macros = subprocess.run([*compiler(version, "-dM", "-E"), "-x", "c++", "-"], input=source, capture_output=True, text=True,
                            check=True).stdout
    left = re.findall(r"^#define ((?:STB|stbi|FAST_BITS|dct_)\w*)", macros, re.MULTILINE)
    assert "FACENET_VERSION" in macros and not left


# Options that would break ours, were they seen; a name that stb_image leaves behind; declarations and implementation.
OTHER_STB = """\
#include <cstdlib>
#define STB_IMAGE_IMPLEMENTATION
#define STBI_ONLY_BMP
#define STBI_NO_THREAD_LOCALS
#define STBI_MAX_DIMENSIONS 7
#define STBI_MALLOC(n) mine_malloc(n)
#define STBI_REALLOC(p, n) std::realloc(p, n)
#define STBI_FREE(p) std::free(p)
static int mine = 0;
inline void* mine_malloc(std::size_t n) { ++mine; return std::malloc(n); }
#include STB
"""
UNITY = """\
int main(int, char** path) {
  int w = 0, h = 0, n = 0;
  const unsigned char bmp[] = {'B', 'M', 58, 0, 0, 0, 0, 0, 0, 0, 54, 0, 0, 0, 40, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 24};
  unsigned char file[58] = {};
  for (unsigned i = 0; i < sizeof bmp; ++i) file[i] = bmp[i];
  file[54] = 3, file[55] = 2, file[56] = 1;
  unsigned char* theirs = stbi_load_from_memory(file, sizeof file, &w, &h, &n, 3);
  if (theirs == nullptr || theirs[0] != 1 || theirs[2] != 3 || mine == 0) return 1;
  stbi_image_free(theirs);
  const int before = mine;
  auto ours = facenet::read_image(path[1]);
  return ours.ok() && ours->width() == 61 && mine == before && STBI_MAX_DIMENSIONS == 7 ? 0 : 2;
}
"""


@pytest.mark.parametrize("order", ["before", *(pytest.param(o, marks=pytest.mark.slow) for o in ("after", "macro before"))])
@pytest.mark.parametrize("version", ["here", *(pytest.param(*v.values, marks=[*v.marks, pytest.mark.slow]) for v in NEWER)])
def test_another_stb_image_in_the_same_file(tmp_path, version, order):
    """`version` is theirs; ours is the one here."""
    theirs = f'"{STB[version]}/stb/stb_image.h"' if STB[version] else "<stb/stb_image.h>"
    other, ours = OTHER_STB.replace("STB\n", f"{theirs}\n", 1).replace("#include STB", f"#include {theirs}"), \
        '#include "facenet/image_io.hpp"\n'
    if order == "macro before":  # as when the implementation is asked for at the top of the file
        head, tail = other.rsplit("#include", 1)
        other = head + ours + "#include" + tail
        ours = ""
    source = (other + ours if order == "before" else ours + other) + UNITY
    (tmp_path / "picture.jpg").write_bytes(CASES["jpeg-rgb-baseline-420-61x47"].data)
    compile_source(source, "here", "-w", "-O0", "-fno-exceptions", output=tmp_path / "unity")
    assert subprocess.run([tmp_path / "unity", tmp_path / "picture.jpg"], check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("version", NEWER)
def test_corpus_with_newer_stb_image(tmp_path, version):
    compile_source((ROOT / "tests/image_tool.cpp").read_text(), version, "-O1", output=tmp_path / "tool")
    tool = Tool(tmp_path / "tool")
    failed = {}
    for name, case in CASES.items():
        path = tmp_path / "picture"
        path.write_bytes(case.data)
        passed, words = outcome(case, tool.decode(path))
        if not passed:
            failed[name] = words
    tool.close()
    assert not failed


SHARED = next((p for p in (ROOT.parent / "shared/cases", ROOT / "shared/cases") if (p / "odd_pictures.py").exists()), None)


@pytest.mark.slow
@pytest.mark.skipif(SHARED is None, reason="../shared/cases is not there: the corpus has pictures of the same kinds")
def test_odd_pictures_are_as_pillow_shows_them_or_an_error(tool, tmp_path):
    source = ROOT / ".deps/samples/astronaut.png"
    subprocess.run([sys.executable, SHARED / "odd_pictures.py", source, tmp_path], check=True, capture_output=True)
    files = sorted(tmp_path.iterdir())
    assert len(files) >= 90
    for path in files:
        got = tool.decode(path)
        if isinstance(got, str):
            continue
        if path.name == "no_eoi.jpg":  # whole but for its end marker, which Pillow insists on
            path = tmp_path / "plain.jpg"
        with Image.open(path) as image:
            shown = ImageOps.exif_transpose(image)
            if shown.mode.startswith("I"):
                shown = Image.fromarray((np.asarray(shown) >> 8).astype(np.uint8))
            rgba = np.asarray(shown.convert("RGBA")).astype(int)
        want = (rgba[..., :3] * rgba[..., 3:] + 255 * (255 - rgba[..., 3:]) + 127) // 255
        difference = np.abs(got.astype(int) - want)[:, :-2]
        assert difference.max() <= (6 if path.suffix == ".jpg" else 0) and difference.mean() <= 1, path.name


def test_truncation_anywhere_is_an_error(tool, tmp_path):
    path = tmp_path / "picture"
    for name in ("jpeg-rgb-baseline-420-61x47", "jpeg-rgb-progressive-444-61x47", "png-rgba-8bit-33x21-interlaced"):
        data = CASES[name].data
        for length in np.random.default_rng(8).integers(0, len(data) - 12 if name.startswith("png") else len(data) - 3, 200):
            path.write_bytes(data[:length])
            answer = tool.decode(path)
            assert isinstance(answer, str) and answer.startswith("truncated "), (name, length)


def test_files_that_are_none(tool, tmp_path):
    def error(path):
        answer = tool.decode(path)
        assert isinstance(answer, str) and str(path) in answer, answer
        return answer.split()[0]

    assert error(tmp_path / "missing.jpg") == "not_found"
    assert error(tmp_path) == "io_error"
    assert error("/dev/null") == "io_error"
    case = CASES["png-rgb-8bit-33x21"]
    named = tmp_path / "Grüße 照片 ☺.png"
    named.write_bytes(case.data)
    assert np.array_equal(tool.decode(named), case.pixels)
    if os.geteuid() != 0:
        named.chmod(0)
        assert error(named) == "io_error"
