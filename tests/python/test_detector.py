"""The detector and its weight file against facenet-pytorch 2.6 on the same pixels.

Set FACENET_LONG=1 for 200 generated pictures instead of 40.
"""

from __future__ import annotations

import json
import os
import pathlib
import platform
import struct
import subprocess

import numpy as np
import pytest
import torch
from conftest import assert_one_error, run_tool
from detection import NOTHING, ROOT, DetectTool, generated, open_picture, photographs, reference, same, undecided
from facenet_pytorch import MTCNN
from PIL import Image

from facenet_tools import mtcnn as weights

BUILD = ROOT / os.environ.get("FACENET_BUILD", "build/release")
PICTURES = 200 if os.environ.get("FACENET_LONG") else 40
PHOTOGRAPHS = photographs()


@pytest.fixture(scope="module")
def program() -> pathlib.Path:
    path = BUILD / "facenet_detect_tool"
    if not path.exists():
        pytest.skip(f"facenet_detect_tool is not built in {BUILD}: run cmake --build, or set FACENET_BUILD")
    return path


@pytest.fixture(scope="module")
def weight_file(mtcnn_file: pathlib.Path) -> pathlib.Path:
    return mtcnn_file


@pytest.fixture(scope="module")
def tool(program: pathlib.Path, weight_file: pathlib.Path):
    tool = DetectTool(program, weight_file, threads=2)
    yield tool
    tool.close()


@pytest.fixture(scope="module")
def mtcnn() -> MTCNN:
    return MTCNN(keep_all=True)


# ---- Parity --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not PHOTOGRAPHS, reason="there are no photographs: run tools/bootstrap.sh")
@pytest.mark.parametrize("path", PHOTOGRAPHS, ids=lambda path: path.stem)
def test_photographs_have_the_references_faces(tool, mtcnn, path) -> None:
    picture = open_picture(path)
    want = reference(mtcnn, picture)
    assert len(want.scores) > 0
    assert same(tool.detect(picture), want)


@pytest.mark.skipif(not PHOTOGRAPHS, reason="there are no photographs: run tools/bootstrap.sh")
def test_generated_pictures_have_the_references_faces(tool, mtcnn) -> None:
    faces, ties = 0, []
    for name, picture in generated(PICTURES, seed=7):
        got = tool.detect(picture)
        if min(picture.shape[:2]) * 12 / 20 < 12:  # thinner than a face: the reference raises, we find nothing
            with pytest.raises(RuntimeError):
                reference(mtcnn, picture)
            assert same(got, NOTHING), name
            continue
        want = reference(mtcnn, picture)
        faces += len(want.scores)
        if not same(got, want):
            assert undecided(mtcnn, picture), name
            ties.append(name)
    assert faces > PICTURES / 2
    assert len(ties) <= max(1, PICTURES // 100), ties


@pytest.mark.slow
@pytest.mark.parametrize("options", [
    {"min_face_size": 60, "factor": 0.8}, {"thresholds": [0.5, 0.8, 0.9]}, {"thresholds": [0.9, 0.5, 0.5]},
    {"min_face_size": 11},
], ids=["pyramid", "stricter", "looser", "enlarged"])
def test_options_mean_the_same(program, weight_file, options) -> None:
    ours = {f"threshold{i}": value for i, value in enumerate(options.get("thresholds", []))}
    ours |= {"min_face": options.get("min_face_size", 20), "factor": options.get("factor", 0.709)}
    tool, mtcnn = DetectTool(program, weight_file, 1, **ours), MTCNN(keep_all=True, **options)
    for name, picture in generated(10, seed=3):
        if name.split(":")[1] == "photo" and min(picture.shape[:2]) > ours["min_face"]:
            assert same(tool.detect(picture), reference(mtcnn, picture)), name
    tool.close()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "method"), enumerate(
    ["largest", "probability", "largest_over_threshold", "center_weighted_size"]))
def test_selection_is_the_references(program, weight_file, mtcnn, number, method) -> None:
    first = DetectTool(program, weight_file, 1, selection=number, max_faces=1)
    for path in PHOTOGRAPHS:
        if path.stem not in ("sample1", "sample4", "sample5", "group"):
            continue
        picture = Image.fromarray(open_picture(path))
        boxes, scores, points = mtcnn.detect(picture, landmarks=True)
        box, _, _ = mtcnn.select_boxes(boxes, scores, points, picture, method=method)
        got = first.detect(np.asarray(picture))
        assert np.allclose(got.boxes, np.asarray(box, np.float32), rtol=0, atol=0.05), path.name
    first.close()


# ---- What must not depend on anything -------------------------------------------------------------------------------


def test_threads_and_earlier_pictures_change_no_bit(program, weight_file, tool) -> None:
    """Three threads, whose tiles and batches are others, and a detector that has seen other pictures before."""
    three = DetectTool(program, weight_file, threads=3)
    for name, picture in generated(8, seed=5):
        assert all(np.array_equal(a, b) for a, b in zip(three.detect(picture), tool.detect(picture))), name
    three.close()


FUSED = r"""
#include <cstdio>
#include "facenet/detector/boxes.hpp"
using namespace facenet;
unsigned state = 1;
float random(float low, float high) {
  state = state * 1664525u + 1013904223u;
  return low + detail::rounded_product(high - low, static_cast<float>(state >> 8) * 0x1p-24f);
}
int main() {
  for (int i = 0; i < 20000; ++i) {
    const float x = random(-30, 2000), y = random(-30, 2000);
    const float offset[4] = {random(-.5, .5), random(-.5, .5), random(-.5, .5), random(-.5, .5)};
    const Box b{x, y, x + random(10, 400), y + random(10, 400)};
    const Box r = detail::regress(b, offset, static_cast<float>(i % 2)), s = detail::square(r);
    const float numbers[] = {r.x0, r.y0, r.x1, r.y1, s.x0, s.y0, s.x1, s.y1, detail::overlap_union(b, r),
                             detail::overlap_least(b, r), detail::area(b, 1)};
    std::fwrite(numbers, sizeof(float), sizeof numbers / sizeof *numbers, stdout);
    const float plain = b.x0 + offset[0] * (b.x1 - b.x0);  // what a compiler may fuse
    std::fwrite(&plain, sizeof plain, 1, stdout);
  }
}
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the flags are for x86")
def test_no_compiler_fuses_the_box_arithmetic(tmp_path) -> None:
    """GCC's default is -ffp-contract=fast: a product and a sum become one rounding wherever the CPU has FMA."""
    include = [f"-I{ROOT / 'include'}", f"-I{ROOT / '.deps/include'}"]
    numbers = []
    for flags in (["-ffp-contract=off"], ["-mavx2", "-mfma", "-ffp-contract=fast"]):
        program = tmp_path / "boxes"
        compiler = ["g++", "-std=c++17", "-O2", *flags, *include, "-x", "c++", "-", "-o", program]
        subprocess.run(compiler, input=FUSED, text=True, check=True)
        output = subprocess.run([program], capture_output=True, check=True).stdout
        numbers.append(np.frombuffer(output, np.uint32).reshape(20000, 12))
    assert np.array_equal(numbers[0][:, :11], numbers[1][:, :11])
    assert not np.array_equal(numbers[0][:, 11], numbers[1][:, 11]), "the flags fuse nothing: no test"


@pytest.mark.skipif(not PHOTOGRAPHS or platform.system() != "Linux", reason="needs photographs and /proc")
def test_memory_is_small_and_flat(program, weight_file) -> None:
    """A photograph and noise of 12 megapixels, 37 MB each, then many other pictures."""
    if "asan" in str(BUILD) or "tsan" in str(BUILD):
        pytest.skip("a sanitizer's own memory is larger")

    def peak_mb() -> float:
        lines = pathlib.Path(f"/proc/{tool.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024

    tool = DetectTool(program, weight_file, threads=2)
    photograph = Image.fromarray(open_picture(PHOTOGRAPHS[1])).resize((4032, 3024), Image.BICUBIC)
    tool.detect(np.asarray(photograph))
    tool.detect(np.random.default_rng(0).integers(0, 256, (3024, 4032, 3), np.uint8))
    first = peak_mb()
    assert first <= 150
    for _, picture in generated(200 if os.environ.get("FACENET_LONG") else 30, seed=11):
        tool.detect(picture)
    assert peak_mb() <= first + 1
    tool.close()


# ---- Where the reference raises --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (11, 300), (300, 19), (19, 19)])
def test_a_picture_thinner_than_a_face_has_none(tool, mtcnn, size) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    with pytest.raises(RuntimeError):
        reference(mtcnn, picture)
    assert same(tool.detect(picture), NOTHING)


@pytest.mark.skipif(not PHOTOGRAPHS, reason="there are no photographs: run tools/bootstrap.sh")
def test_candidates_without_pixels_are_dropped(program, weight_file) -> None:
    """Thresholds of 0 let every window through, also those that regression moves outside of the picture.

    The reference then has fewer crops than boxes and stops at a mask of the wrong size.
    """
    path = next(path for path in PHOTOGRAPHS if path.stem == "astronaut")
    picture = np.ascontiguousarray(open_picture(path)[40:130, 160:290])
    loose = MTCNN(keep_all=True, thresholds=[0.0, 0.0, 0.7])
    tool = DetectTool(program, weight_file, 2, threshold0=0, threshold1=0)
    got = tool.detect(picture)
    try:
        want = reference(loose, picture)
    except (IndexError, RuntimeError):
        assert len(got.scores) >= 1
    else:
        assert same(got, want)
    tool.close()


# ---- The weight file -------------------------------------------------------------------------------------------------


def header_of(path: pathlib.Path) -> dict:
    data = path.read_bytes()
    return json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])


def test_the_file_says_what_it_is(weight_file) -> None:
    header = header_of(weight_file)
    metadata = header.pop("__metadata__")
    assert metadata["architecture"] == "mtcnn" and metadata["trained"] == "true" and metadata["embedding_dim"] == "0"
    assert "WIDER FACE" in metadata["licence"] and "rnet.pt" in metadata["source"]
    assert header["mtcnn.pnet.conv1.slope"]["shape"] == [10]
    assert header["mtcnn.rnet.dense4.weight"]["shape"] == [128, 64, 3, 3]
    assert header["mtcnn.onet.dense5.weight"]["shape"] == [256, 128, 3, 3]
    assert header["mtcnn.onet.dense6_3.weight"]["shape"] == [10, 256, 1, 1]


def test_dense_layers_become_convolutions() -> None:
    """The reordered weights over the picture give what the reference's linear layer gives over its (W, H, C) row."""
    states, _ = weights.read(weights.packaged())
    for network, name, channels in (("rnet", "dense4", 64), ("onet", "dense5", 128)):
        picture = torch.randn(2, channels, 3, 3, dtype=torch.float64)
        linear = torch.from_numpy(states[network][f"{name}.weight"]).double()
        convolution = torch.from_numpy(weights.tensors(states)[f"mtcnn.{network}.{name}.weight"]).double()
        want = picture.permute(0, 3, 2, 1).reshape(2, -1) @ linear.T
        got = torch.nn.functional.conv2d(picture, convolution).flatten(1)
        assert torch.allclose(got, want, rtol=1e-12, atol=1e-12)


def copy_weights(folder: pathlib.Path, change: str = "") -> pathlib.Path:
    """The package's three files in `folder`, O-Net's spoiled."""
    for network in weights.NETWORKS:
        state = dict(torch.load(weights.packaged() / f"{network}.pt", weights_only=True))
        if network == "onet" and change == "missing":
            del state["prelu3.weight"]
        if network == "onet" and change == "shape":
            state["dense5.weight"] = state["dense5.weight"][:, :-1]
        if network == "onet" and change == "nan":
            state["conv1.bias"][0] = float("nan")
        torch.save(state, folder / f"{network}.pt")
    return folder


def test_a_folder_gives_the_same_tensors(weight_file, tmp_path) -> None:
    out = tmp_path / "copy.safetensors"
    assert run_tool("convert_weights.py", "--mtcnn", copy_weights(tmp_path), "-o", out).returncode == 0
    ours, theirs = header_of(out), header_of(weight_file)
    assert ours.pop("__metadata__")["data_xxh64"] == theirs.pop("__metadata__")["data_xxh64"]
    assert ours == theirs


@pytest.mark.parametrize(("change", "part"), [
    ("missing", "missing: prelu3.weight"), ("shape", "dense5.weight is [256, 1151], not [256, 1152]"),
    ("nan", "NaN or infinity: conv1.bias"),
])
def test_other_weights_are_refused(tmp_path, change, part) -> None:
    folder = copy_weights(tmp_path, change)
    result = run_tool("convert_weights.py", "--mtcnn", folder, "-o", tmp_path / "out.safetensors")
    assert_one_error(result, "onet.pt", part)
    assert not (tmp_path / "out.safetensors").exists()


def test_options_of_embedders_are_refused(tmp_path) -> None:
    assert run_tool("convert_weights.py", "--mtcnn", "-o", tmp_path / "x", "--dtype", "i8").returncode == 2
    result = run_tool("convert_weights.py", "--mtcnn", tmp_path / "nowhere", "-o", tmp_path / "x")
    assert_one_error(result, "pnet.pt", "not there")
