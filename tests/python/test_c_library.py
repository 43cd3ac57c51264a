"""libfacenet.so.0: the C interface through ctypes and through compiled C programs, beside the command.

FACENET_BUILD chooses the build to test (build/release).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import pathlib
import re
import resource
import shutil
import sqlite3
import subprocess
import threading
import time
from ctypes import byref
from typing import Iterator

import c_header
import numpy as np
import pytest
from conftest import ROOT, made_once, run_tool
from PIL import Image

from facenet_tools import pictures

BUILD = ROOT / os.environ.get("FACENET_BUILD", "build/release")
LIBRARY = BUILD / "libfacenet.so.0"
COMMAND = BUILD / "facenet"
ASTRONAUT = ROOT / ".deps/samples/astronaut.png"
FACE_API = ROOT / ".deps/face-api"
C_FLAGS = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O1", f"-I{ROOT / 'include'}"]

# The library takes 20 s to build, more than the quick suite has left; test_c_header.py is part of that.
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not LIBRARY.exists(), reason=f"{LIBRARY} is not built")]


@pytest.fixture(scope="module")
def lib() -> c_header.Library:
    return c_header.Library(LIBRARY)


class Problem(Exception):
    def __init__(self, code: str, sentence: str, place: str, offset: int) -> None:
        super().__init__(f"{code}: {place}: {sentence}")
        self.code, self.sentence, self.place, self.offset = code, sentence, place, offset


def call(lib: c_header.Library, function: str, *arguments: object) -> None:
    """Calls with an error as the last argument; what goes wrong is a Problem."""
    error = lib.make("error")
    code = getattr(lib, function)(*arguments, byref(error))
    assert code == error.code
    if code != 0:
        raise Problem(lib.name_of(code), error.sentence.decode(), error.place.decode(), error.offset)
    assert error.sentence == b"" and error.offset == -1


def made(lib: c_header.Library, function: str, *arguments: object) -> ctypes.c_void_p:
    """The handle that a function makes, whose place is the argument `...`."""
    handle = ctypes.c_void_p()
    call(lib, function, *(byref(handle) if a is ... else a for a in arguments))
    assert handle.value
    return handle


def picture(lib: c_header.Library, pixels: np.ndarray, kind: str = "RGB") -> ctypes.Structure:
    """A view of a contiguous array, which must outlive it."""
    return lib.make("picture", pixels=pixels.ctypes.data, size=pixels.nbytes, width=pixels.shape[1], height=pixels.shape[0],
                    format=getattr(lib, kind))


def embed(lib: c_header.Library, embedder: ctypes.c_void_p, *arrays: np.ndarray, kind: str = "RGB") -> np.ndarray:
    views = (lib.structures["facenet_picture"] * len(arrays))(*(picture(lib, a, kind) for a in arrays))
    out = np.full((len(arrays), 128), np.nan, np.float32)
    call(lib, "embed", embedder, views, len(arrays), out.ctypes.data, out.size)
    return out


def pixels_of(lib: c_header.Library, image: ctypes.c_void_p) -> np.ndarray:
    view = lib.make("picture")
    call(lib, "image_pixels", image, byref(view))
    assert view.format == lib.RGB and view.stride == 3 * view.width and view.size == view.stride * view.height
    return np.ctypeslib.as_array(ctypes.cast(view.pixels, ctypes.POINTER(ctypes.c_uint8)), (view.height, view.width, 3)).copy()


@pytest.fixture(scope="module")
def weights(converted: dict[str, pathlib.Path]) -> pathlib.Path:
    return converted["f32"]


@pytest.fixture(scope="module")
def embedder(lib: c_header.Library, weights: pathlib.Path) -> Iterator[ctypes.c_void_p]:
    handle = made(lib, "embedder_load", str(weights).encode(), None, ...)
    yield handle
    assert lib.embedder_free(handle) == 0


@pytest.fixture(scope="module")
def detector(lib: c_header.Library, mtcnn_file: pathlib.Path) -> Iterator[ctypes.c_void_p]:
    handle = made(lib, "detector_load", str(mtcnn_file).encode(), None, ...)
    yield handle
    assert lib.detector_free(handle) == 0


@pytest.fixture(scope="module")
def crops() -> list[np.ndarray]:
    """Pictures of the model's size and of others."""
    random = np.random.default_rng(8)
    first = [pictures.structured(random) for _ in range(3)]
    return [*first, np.ascontiguousarray(first[0][:100, :120]), random.integers(0, 256, (231, 170, 3), dtype=np.uint8)]


@pytest.fixture(scope="module")
def alone(lib: c_header.Library, embedder: ctypes.c_void_p, crops: list[np.ndarray]) -> np.ndarray:
    """Their embeddings, each by itself."""
    return np.concatenate([embed(lib, embedder, crop) for crop in crops])


def facenet(*arguments: object) -> list[dict]:
    """The objects that the command prints."""
    if not COMMAND.exists():
        pytest.skip(f"{COMMAND} is not built")
    done = subprocess.run([COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode in (0, 1), done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def compiled(source: str | pathlib.Path, folder: pathlib.Path, *flags: str) -> pathlib.Path:
    """A C program beside its library."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler is installed")
    program = folder / "program"
    if isinstance(source, str):
        (folder / "program.c").write_text(source)
        source = folder / "program.c"
    done = subprocess.run([compiler, *C_FLAGS, *flags, source, "-o", program, LIBRARY, "-ldl", f"-Wl,-rpath,{BUILD}"],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return program


def run(*command: object, status: int = 0, env: dict[str, str] | None = None, cwd: pathlib.Path | None = None) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=300,
                          env=dict(os.environ) | (env or {}), cwd=cwd)
    assert done.returncode == status, f"{done.returncode}: {done.stdout}\n{done.stderr}"
    return done.stdout


# ---- The symbols and the structures -------------------------------------------------------------------------------------------


def test_exports_are_the_headers_functions() -> None:
    declared = set(c_header.functions())
    nodes = {node: re.findall(r"^  (facenet_\w+);$", body, re.MULTILINE)
             for node, body in re.findall(r"^(FACENET_[\d.]+) \{(.*?)^\}", (ROOT / "src/c/facenet.map").read_text(), re.MULTILINE | re.DOTALL)}
    listed = run("nm", "-D", "--defined-only", LIBRARY).splitlines()
    exported = {line.split()[2] for line in listed if line.split()[1] != "A"}
    assert exported == {f"{name}@@{node}" for node, names in nodes.items() for name in names}
    assert {name.split("@@")[0] for name in exported} == declared
    versions = {line.split()[2] for line in listed if line.split()[1] == "A"}
    assert versions == set(nodes) != set()
    assert len(declared) > 40 and "SONAME" in (dynamic := run("readelf", "-dW", LIBRARY))
    assert "[libfacenet.so.0]" in dynamic and "NODELETE" not in dynamic and "TEXTREL" not in dynamic
    unique = [line for line in run("nm", LIBRARY).splitlines() if line.split()[-2] == "u"]
    assert not unique, "symbols of a whole process keep a library from being unloaded"


def test_structures_have_no_hidden_gaps_and_these_sizes(lib: c_header.Library, tmp_path: pathlib.Path) -> None:
    """The C compiler's sizes are those that ctypes computes, and the last member ends the structure."""
    names = list(lib.structures)
    program = compiled('#include <stdio.h>\n#include "facenet/facenet.h"\nint main(void) {\n' + "".join(
        f'  printf("{name} %zu\\n", sizeof({name}));\n' for name in names) + "  return 0;\n}\n", tmp_path)
    sizes = {line.split()[0]: int(line.split()[1]) for line in run(program).splitlines()}
    for name, kind in lib.structures.items():
        assert ctypes.sizeof(kind) == sizes[name]
        end = 0
        for member, _ in kind._fields_:
            assert getattr(kind, member).offset == end, f"a gap before {name}.{member}, whose bytes nobody sets"
            end += getattr(kind, member).size
        assert end == sizes[name], f"a gap at the end of {name}"


def test_the_example_of_the_header(weights: pathlib.Path, mtcnn_file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    top = c_header.HEADER.read_text().split("*/", 1)[0]
    source = "\n".join(line[5:] for line in top.splitlines() if line.startswith(" *   ") or line == " *")
    source = "#include <facenet" + source.split("#include <facenet", 1)[1]
    program = compiled(source.split("\n}\n\n")[0] + "\n}\n\n" + source.split("\n}\n\n", 1)[1].split("\n}\n")[0] + "\n}\n", tmp_path)
    assert run(program, weights, mtcnn_file, ASTRONAUT, ASTRONAUT) == "0.0000 same\n"
    done = subprocess.run([program, "absent", mtcnn_file, ASTRONAUT, ASTRONAUT], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "") and done.stderr.startswith("absent: ")


def test_version_isa_and_codes(lib: c_header.Library) -> None:
    version = re.search(r"project\(facenet VERSION ([\d.]+)", (ROOT / "CMakeLists.txt").read_text())[1]
    assert lib.version().decode() == version
    isa = ctypes.create_string_buffer(32)
    call(lib, "isa", isa, 32)
    assert isa.value
    with pytest.raises(Problem, match="too small"):
        call(lib, "isa", isa, 2)
    codes = {lib.name_of(value): value for value in range(12)}
    assert codes == {name: getattr(lib, name.upper()) for name in codes} and len(codes) == 12
    assert lib.name_of(12) == lib.name_of(-1) == "unknown"


# ---- Pictures, faces, embeddings: the command's results --------------------------------------------------------------------


def test_detect_crop_embed_as_the_command(lib: c_header.Library, embedder: ctypes.c_void_p, detector: ctypes.c_void_p,
                                          weights: pathlib.Path, mtcnn_file: pathlib.Path) -> None:
    """A photograph's faces and their embeddings, to the bit."""
    told = facenet("embed", "--json", "--weights", weights, "--detector", mtcnn_file, ASTRONAUT)
    image = made(lib, "image_read", str(ASTRONAUT).encode(), ...)
    photograph = pixels_of(lib, image)
    assert np.array_equal(photograph, np.asarray(Image.open(ASTRONAUT).convert("RGB")))
    view, found = lib.make("picture"), ctypes.c_size_t()
    call(lib, "image_pixels", image, byref(view))
    faces = (lib.structures["facenet_face"] * 10)()
    call(lib, "detect", detector, byref(view), faces, 10, byref(found))
    assert found.value == len(told) >= 1
    for face, line in zip(faces, told):
        assert np.array_equal(np.float32(line["box"]), face.box)
        crop = made(lib, "crop_face", embedder, byref(view), byref(face), ...)
        embedding = embed(lib, embedder, pixels_of(lib, crop))
        assert np.array_equal(np.float32(line["embedding"]), embedding[0])
        assert lib.image_free(crop) == 0
    (line,) = facenet("detect", "--json", "--detector", mtcnn_file, ASTRONAUT)
    assert np.array_equal(np.float32(line["faces"][0]["landmarks"]), np.array(faces[0].landmarks))
    assert np.float32(line["faces"][0]["score"]) == np.float32(faces[0].score)
    digest = ctypes.create_string_buffer(17)
    call(lib, "detector_digest", detector, digest, 17)
    assert re.fullmatch(rb"[0-9a-f]{16}", digest.value)

    # Less room than faces: the number, and the faces again without a search.
    with pytest.raises(Problem) as none:
        call(lib, "detect", detector, byref(view), None, 0, byref(found))
    assert none.value.code == "invalid_argument" and found.value == len(told)
    again = (lib.structures["facenet_face"] * 10)()
    call(lib, "detector_faces", detector, again, 10, byref(found))
    assert bytes(again[0]) == bytes(faces[0])
    assert lib.image_free(image) == 0


def test_embeddings_are_the_commands(lib: c_header.Library, weights: pathlib.Path, crops: list[np.ndarray], alone: np.ndarray,
                                     tmp_path: pathlib.Path) -> None:
    """Of face crops, whatever their size; and by any number of threads and in any batch."""
    files = [tmp_path / f"{i}.png" for i in range(len(crops))]
    for crop, file in zip(crops, files):
        Image.fromarray(crop).save(file)
    told = facenet("embed", "--aligned", "--json", "--weights", weights, *files)
    assert np.array_equal(np.float32([line["embedding"] for line in told]), alone)
    options = lib.make("embedder_options", threads=2, batch=3)
    data = weights.read_bytes()
    batched = made(lib, "embedder_load_memory", data, len(data), byref(options), ...)
    assert np.array_equal(embed(lib, batched, *crops), alone)
    fork = made(lib, "embedder_fork", batched, None, ...)
    assert lib.embedder_free(batched) == 0
    assert np.array_equal(embed(lib, fork, *crops), alone)
    assert lib.embedder_free(fork) == 0


def test_formats_and_strides(lib: c_header.Library, embedder: ctypes.c_void_p, crops: list[np.ndarray], alone: np.ndarray) -> None:
    rgb, opaque = crops[0], np.full((*crops[0].shape[:2], 1), 255, np.uint8)
    assert np.array_equal(embed(lib, embedder, np.ascontiguousarray(rgb[..., ::-1]), kind="BGR")[0], alone[0])
    assert np.array_equal(embed(lib, embedder, np.concatenate([rgb, opaque], 2), kind="RGBA")[0], alone[0])
    assert np.array_equal(embed(lib, embedder, np.concatenate([rgb[..., ::-1], opaque], 2), kind="BGRA")[0], alone[0])
    grey = np.ascontiguousarray(rgb[..., 0])
    assert np.array_equal(embed(lib, embedder, grey, kind="GREY"), embed(lib, embedder, np.repeat(grey[..., None], 3, 2)))
    clear = np.concatenate([rgb, opaque * 0], 2)
    assert np.array_equal(embed(lib, embedder, clear, kind="RGBA"), embed(lib, embedder, np.full_like(rgb, 255)))
    wide = np.zeros((rgb.shape[0], rgb.shape[1] + 7, 3), np.uint8)
    wide[:, :rgb.shape[1]] = rgb
    view = picture(lib, wide)
    view.width, view.stride, view.size = rgb.shape[1], wide.strides[0], wide.nbytes - 21   # the last row ends at its last pixel
    out = np.empty(128, np.float32)
    call(lib, "embed", embedder, byref(view), 1, out.ctypes.data, 128)
    assert np.array_equal(out, alone[0])
    view.size -= 1
    with pytest.raises(Problem, match=r"size is below"):
        call(lib, "embed", embedder, byref(view), 1, out.ctypes.data, 128)


def test_floats_nhwc(lib: c_header.Library, embedder: ctypes.c_void_p, crops: list[np.ndarray], alone: np.ndarray) -> None:
    """Standardised by hand, as the file says: within what a fused standardisation rounds."""
    info = lib.make("model_info")
    call(lib, "embedder_info", embedder, byref(info))
    assert (info.embedding_dim, info.image_size, info.trained, info.bgr) == (128, 160, 0, 0)
    assert info.architecture == b"inception_resnet_v1" and info.scaling == b"fixed" and info.normalise == b"l2" and info.crop == b"box"
    pixels = ((np.stack(crops[:2]).astype(np.float32) - 127.5) / 128).astype(np.float32)
    out = np.empty((2, 128), np.float32)
    call(lib, "embed_nhwc", embedder, pixels.ctypes.data, pixels.size, out.ctypes.data, out.size)
    assert np.abs(out - alone[:2]).max() <= 3e-6
    with pytest.raises(Problem, match="whole pictures"):
        call(lib, "embed_nhwc", embedder, pixels.ctypes.data, pixels.size - 1, out.ctypes.data, out.size)


def test_info_is_the_commands(lib: c_header.Library, embedder: ctypes.c_void_p, weights: pathlib.Path) -> None:
    info = lib.make("model_info")
    call(lib, "embedder_info", embedder, byref(info))
    (told,) = facenet("info", "--json", weights)
    assert told["architecture"] == info.architecture.decode() and told["embedding_dim"] == info.embedding_dim
    assert told["digest" if "digest" in told else "model"] == info.digest.decode()


def test_kinds_of_weights(lib: c_header.Library, converted: dict[str, pathlib.Path], crops: list[np.ndarray], alone: np.ndarray) -> None:
    data = converted["i8"].read_bytes()
    kept = ctypes.create_string_buffer(data, len(data))
    options = lib.make("embedder_options", weights=lib.WEIGHTS_INT8)
    small = made(lib, "embedder_load_memory", kept, len(data), byref(options), ...)
    ctypes.memset(kept, 0, len(data))   # the library has its own copy
    from_file = made(lib, "embedder_load", str(converted["i8"]).encode(), byref(options), ...)
    assert np.array_equal(embed(lib, small, *crops), embed(lib, from_file, *crops))
    options = lib.make("embedder_options", weights=lib.WEIGHTS_HALF)
    half = made(lib, "embedder_load", str(converted["f32"]).encode(), byref(options), ...)
    difference = np.abs(embed(lib, half, *crops) - alone).max()
    assert 0 < difference < 0.01
    for handle in (small, from_file, half):
        assert lib.embedder_free(handle) == 0
    options = lib.make("embedder_options", arithmetic=lib.ARITHMETIC_INT8)
    with pytest.raises(Problem, match="no scales for integer arithmetic"):
        made(lib, "embedder_load", str(converted["f32"]).encode(), byref(options), ...)


def calibrate(folder: pathlib.Path) -> None:
    """dlib's network in integers: it is calibrated in a tenth of the time."""
    (folder / "pictures").mkdir()
    for i in range(4):
        Image.fromarray(pictures.structured(np.random.default_rng(i))).resize((150, 150)).save(folder / f"pictures/{i}.png")
    done = run_tool("convert_weights.py", "--face-api", FACE_API, "-o", folder / "integers.safetensors", "--dtype", "i8", "--calibrate",
                    folder / "pictures")
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not FACE_API.is_dir(), reason=f"{FACE_API} is not there: tools/bootstrap.sh gets it where npm is")
def test_integer_arithmetic_is_the_commands(lib: c_header.Library, crops: list[np.ndarray], tmp_path: pathlib.Path) -> None:
    integers, file = made_once("c_integers", calibrate) / "integers.safetensors", tmp_path / "crop.png"
    Image.fromarray(crops[0]).save(file)
    options = lib.make("embedder_options", arithmetic=lib.ARITHMETIC_INT8)
    handle = made(lib, "embedder_load", str(integers).encode(), byref(options), ...)
    (told,) = facenet("embed", "--aligned", "--json", "--weights", integers, "--arithmetic", "int8", file)
    assert np.array_equal(np.float32(told["embedding"]), embed(lib, handle, crops[0])[0])
    floats = np.zeros((150, 150, 3), np.float32)
    out = np.empty(128, np.float32)
    with pytest.raises(Problem) as refused:
        call(lib, "embed_nhwc", handle, floats.ctypes.data, floats.size, out.ctypes.data, 128)
    assert refused.value.code == "unsupported"
    assert lib.embedder_free(handle) == 0


def test_crops(lib: c_header.Library) -> None:
    photograph = np.asarray(Image.open(ASTRONAUT).convert("RGB"))
    box = (ctypes.c_float * 4)(150.0, 80.0, 290.0, 230.0)
    crop = made(lib, "crop_box", byref(picture(lib, photograph)), box, 160, 0, ...)
    want = Image.fromarray(photograph).crop((150, 80, 290, 230)).resize((160, 160), Image.Resampling.BILINEAR)
    assert np.array_equal(pixels_of(lib, crop), np.asarray(want))
    # InsightFace's own places at their own size: nothing moves.
    points = (ctypes.c_float * 10)(38.2946, 51.6963, 73.5318, 51.5014, 56.0252, 71.7366, 41.5493, 92.3655, 70.7299, 92.2041)
    small = np.ascontiguousarray(photograph[100:212, 150:262])
    aligned = made(lib, "align", byref(picture(lib, small)), points, 112, ...)
    assert np.abs(pixels_of(lib, aligned).astype(int) - small).max() <= 1
    for handle in (crop, aligned):
        assert lib.image_free(handle) == 0


def test_pictures_from_memory(lib: c_header.Library) -> None:
    data = ASTRONAUT.read_bytes()
    image = made(lib, "image_decode", data, len(data), ...)
    assert np.array_equal(pixels_of(lib, image), np.asarray(Image.open(ASTRONAUT).convert("RGB")))
    assert lib.image_free(image) == 0
    with pytest.raises(Problem) as cut:
        made(lib, "image_decode", data, len(data) // 2, ...)
    assert cut.value.code == "truncated"
    with pytest.raises(Problem) as absent:
        made(lib, "image_read", b"absent.png", ...)
    assert absent.value.code == "not_found" and absent.value.place == "absent.png"


# ---- Errors -----------------------------------------------------------------------------------------------------------------


def test_a_damaged_file_is_named_with_its_byte(lib: c_header.Library, weights: pathlib.Path, tmp_path: pathlib.Path) -> None:
    data = weights.read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(data[:100])
    with pytest.raises(Problem) as cut:
        made(lib, "embedder_load", str(tmp_path / "cut.safetensors").encode(), None, ...)
    assert cut.value.code == "truncated" and cut.value.place.endswith("cut.safetensors") and cut.value.offset == 100
    error, text = lib.make("error"), ctypes.create_string_buffer(1024)
    handle = ctypes.c_void_p(1)
    assert lib.embedder_load(str(tmp_path / "cut.safetensors").encode(), None, byref(handle), byref(error)) == lib.TRUNCATED
    assert handle.value is None, "no handle was made"
    length = lib.error_message(byref(error), text, 1024)
    message = f"{tmp_path}/cut.safetensors: {error.sentence.decode()} (byte 100)"
    assert (text.value.decode(), length) == (message, len(message))
    assert lib.error_message(byref(error), text, 8) == length and text.value == message.encode()[:7]
    assert lib.error_message(byref(error), None, 0) == length and lib.error_message(None, text, 1024) == 0 and text.value == b""
    assert lib.embedder_load(str(tmp_path / "cut.safetensors").encode(), None, byref(handle), None) == lib.TRUNCATED


MAY_BE_NULL = {"options", "added", "id", "templates", "clusters", "user", "error"}
MAY_BE_NULL_IN = {"facenet_gallery_add": {"detector"}, "facenet_gallery_search": {"embedder"}, "facenet_gallery_identify": {"embedder"},
                  "facenet_gallery_templates": {"name"}}


def test_null_and_freed_arguments_are_errors(lib: c_header.Library, embedder: ctypes.c_void_p, detector: ctypes.c_void_p,
                                             weights: pathlib.Path, mtcnn_file: pathlib.Path) -> None:
    """Each function is called rightly, then with each pointer null in turn, with everything null, and with handles that are none."""
    freed = made(lib, "embedder_load", str(weights).encode(), None, ...)
    assert lib.embedder_free(freed) == 0 and lib.embedder_free(freed) == lib.INVALID_ARGUMENT
    data, detecting, png = weights.read_bytes(), mtcnn_file.read_bytes(), ASTRONAUT.read_bytes()
    pixels, floats, out = np.zeros((160, 160, 3), np.uint8), np.zeros((160, 160, 3), np.float32), np.ones(128, np.float32)
    view, face = picture(lib, pixels), lib.make("face")
    face.box[:], face.landmarks[1][:], face.landmarks[4][:] = [10, 10, 60, 60], [9, 0], [9, 9]
    floats[0] = 1
    person = lib.make("template", name=b"A", embedding=out.ctypes.data, embedding_size=128)
    image, cancel = made(lib, "image_decode", png, len(png), ...), made(lib, "cancel_make", ...)
    gallery, handle = made(lib, "gallery_make", None, ...), ctypes.c_void_p()
    found, number, text = ctypes.c_size_t(), ctypes.c_double(), ctypes.create_string_buffer(80)
    faces, matches = (lib.structures["facenet_face"] * 9)(), (lib.structures["facenet_match"] * 2)()
    distances, same = (ctypes.c_double * 10)(*range(10)), bytes([0, 1] * 5)
    visit = ctypes.CFUNCTYPE(ctypes.c_int32)(lambda: 1)
    new = byref(handle)
    right: dict[str, list[object]] = {
        "isa": [text, 80], "sha256": [b"x", 1, text, 80], "cancel_make": [new], "cancel_set": [cancel, 0],
        "image_decode": [png, len(png), new], "image_read": [str(ASTRONAUT).encode(), new], "image_pixels": [image, byref(lib.make("picture"))],
        "detector_load": [str(mtcnn_file).encode(), None, new], "detector_load_memory": [detecting, len(detecting), None, new],
        "detector_fork": [detector, None, new], "detector_digest": [detector, text, 80],
        "detect": [detector, byref(view), faces, 9, byref(found)], "detector_faces": [detector, faces, 9, byref(found)],
        "embedder_load": [str(weights).encode(), None, new], "embedder_load_memory": [data, len(data), None, new],
        "embedder_fork": [embedder, None, new], "embedder_info": [embedder, byref(lib.make("model_info"))],
        "embed": [embedder, byref(view), 1, out.ctypes.data, 128],
        "embed_nhwc": [embedder, floats.ctypes.data, floats.size, out.ctypes.data, 128],
        "crop_face": [embedder, byref(view), byref(face), new],
        "crop_box": [byref(view), (ctypes.c_float * 4)(0, 0, 9, 9), 160, 0, new],
        "align": [byref(view), (ctypes.c_float * 10)(*range(9), 20), 160, new],
        "distance": [1, out.ctypes.data, out.ctypes.data, 128, byref(number)],
        "similarity": [out.ctypes.data, out.ctypes.data, 128, byref(number)],
        "gallery_open": [b"gallery.db", 3, None, new], "gallery_make": [None, new],
        "gallery_add": [gallery, embedder, detector, byref(person), None, None], "gallery_get_info": [gallery, byref(lib.make("gallery_info"))],
        "gallery_persons": [gallery, visit, None], "gallery_templates": [gallery, b"A", visit, None],
        "gallery_search": [gallery, embedder, out.ctypes.data, 128, 2, matches, 2, byref(found), 1],
        "gallery_identify": [gallery, embedder, out.ctypes.data, 128, 2, 1.0, matches, 2, byref(found), 1],
        "gallery_rename": [gallery, b"A", b"A"], "gallery_remove_template": [gallery, 1], "gallery_remove_person": [gallery, b"A", None],
        "cluster": [out.ctypes.data, 128, 128, None, (ctypes.c_int32 * 1)(), 1, None],
        "evaluate": [distances, same, 10, None, byref(lib.make("evaluation"))],
        "choose_threshold": [distances, 10, 0.5, byref(number)],
    }
    declared = {name: parameters.split(", ")[:-1] for name, (result, parameters) in c_header.functions().items()
                if result == "facenet_code" and not name.endswith("_free")}
    assert {f"facenet_{name}" for name in right} == set(declared)
    seen, error = 0, lib.make("error")
    for short, arguments in right.items():
        parameters = declared[f"facenet_{short}"]
        if short == "gallery_remove_person":
            call(lib, "gallery_add", gallery, embedder, detector, byref(person), None, None)
        call(lib, short, *arguments)
        if handle.value:
            free = next(f for f in ("embedder_free", "detector_free", "image_free", "gallery_free", "cancel_free") if getattr(lib, f)(handle) == 0)
            assert free
            handle.value = None
        for i, parameter in enumerate(parameters):
            words = re.findall(r"\w+", parameter.split("[")[0])
            if ("*" in parameter or "[" in parameter or "visit" in words[-1]) and words[-1] not in MAY_BE_NULL | MAY_BE_NULL_IN.get(f"facenet_{short}", set()):
                call_with = [*arguments[:i], None, *arguments[i + 1:]]
                assert getattr(lib, short)(*call_with, byref(error)) == lib.INVALID_ARGUMENT, f"{short}: {parameter} null"
                assert error.place.decode() == words[-1], f"{short}: {parameter} null"
                assert error.sentence in (b"this argument is null", b"this handle is null"), f"{short}: {parameter} null"
                seen += 1
            if re.match(r"facenet_(embedder|detector|image|gallery|cancel)\* \w+$", parameter):
                for wrong in (freed, ctypes.c_void_p(0xdeadbeef), ctypes.c_void_p(8), ctypes.c_void_p(2**64 - 1)):
                    assert getattr(lib, short)(*arguments[:i], wrong, *arguments[i + 1:], byref(error)) == lib.INVALID_ARGUMENT, short
                    assert "freed" in error.sentence.decode()
        zeros = [0 if re.match(r"(size_t|int32_t|uint64_t|double) ", p) else None for p in parameters]
        if short != "gallery_make":
            assert getattr(lib, short)(*zeros, byref(error)) == lib.INVALID_ARGUMENT, short
    assert seen > 70
    pathlib.Path("gallery.db").unlink(missing_ok=True)
    for free in ("embedder_free", "detector_free", "image_free", "gallery_free", "cancel_free"):
        assert getattr(lib, free)(None) == 0
        assert getattr(lib, free)(freed) == lib.INVALID_ARGUMENT
    assert lib.detector_free(embedder) == lib.INVALID_ARGUMENT, "it is another kind of handle"
    assert (lib.image_free(image), lib.cancel_free(cancel), lib.gallery_free(gallery)) == (0, 0, 0)


@pytest.mark.parametrize(("structure", "members", "part"), [
    ("embedder_options", {"threads": -1}, "threads"),
    ("embedder_options", {"threads": 257}, "threads"),
    ("embedder_options", {"batch": 1025}, "batch"),
    ("embedder_options", {"arithmetic": 3}, "arithmetic"),
    ("embedder_options", {"weights": 4}, "weights"),
    ("embedder_options", {"reserved": 1}, "reserved"),
    ("embedder_options", {"cancel": 77}, "freed"),
    ("embedder_options", {"struct_size": 0}, "struct_size"),
    ("embedder_options", {"struct_size": 1 << 20}, "struct_size"),
    ("detector_options", {"threads": -1}, "threads"),
    ("detector_options", {"min_face": -1}, "min_face"),
    ("detector_options", {"factor": 1.0}, "factor"),
    ("detector_options", {"selection": 5}, "selection"),
    ("gallery_options", {"metric": 3}, "metric"),
    ("gallery_options", {"threads": 257}, "threads"),
    ("cluster_options", {"algorithm": 4}, "algorithm"),
    ("cluster_options", {"threshold": -1.0}, "threshold"),
    ("cluster_options", {"min_samples": -1, "algorithm": 2}, "min_samples"),
    ("evaluate_options", {"folds": 1}, "folds"),
    ("evaluate_options", {"folds": 7}, "fewer pairs"),
    ("evaluate_options", {"far": 1.0, "folds": 2}, "far"),
])
def test_wrong_options(lib: c_header.Library, structure: str, members: dict, part: str, weights: pathlib.Path,
                       mtcnn_file: pathlib.Path) -> None:
    options = byref(lib.make(structure, **members))
    array = np.eye(6, 8, dtype=np.float32)
    with pytest.raises(Problem) as wrong:
        if structure == "embedder_options":
            made(lib, "embedder_load", str(weights).encode(), options, ...)
        elif structure == "detector_options":
            made(lib, "detector_load", str(mtcnn_file).encode(), options, ...)
        elif structure == "gallery_options":
            made(lib, "gallery_make", options, ...)
        elif structure == "cluster_options":
            call(lib, "cluster", array.ctypes.data, array.size, 8, options, (ctypes.c_int32 * 6)(), 6, None)
        else:
            distances, same = (ctypes.c_double * 6)(.1, .2, .3, 1, 2, 3), bytes([1, 1, 1, 0, 0, 0])
            call(lib, "evaluate", distances, same, 6, options, byref(lib.make("evaluation")))
    assert wrong.value.code == "invalid_argument" and part in f"{wrong.value.place} {wrong.value.sentence}"


def test_no_handle_is_left_after_an_error(lib: c_header.Library) -> None:
    """Whatever is wrong, also the error structure itself."""
    makers = {name: parameters.split(", ") for name, (_, parameters) in c_header.functions().items() if re.search(r"facenet_\w+\*\*", parameters)}
    assert len(makers) == 14
    for name, parameters in makers.items():
        values = [{"size_t": 0, "int32_t": 9}.get(parameter.split()[0]) for parameter in parameters]
        (at,) = (i for i, parameter in enumerate(parameters) if "**" in parameter)
        for size in (0, 4, ctypes.sizeof(lib.structures["facenet_error"]), 1 << 20):
            if size > 4 and size < 1 << 20 and name in ("facenet_cancel_make", "facenet_gallery_make"):
                continue   # nothing is wrong
            handle = ctypes.c_void_p(0x77)
            values[at], values[-1] = byref(handle), byref(lib.make("error", struct_size=size))
            assert getattr(lib, name.removeprefix("facenet_"))(*values) == lib.INVALID_ARGUMENT, name
            assert handle.value is None, f"{name}: {size}"


def test_structures_of_older_and_newer_versions(lib: c_header.Library, embedder: ctypes.c_void_p, weights: pathlib.Path) -> None:
    """Older: shorter, with anything after it. Newer: longer, and only if what is new is 0."""
    kind = lib.structures["facenet_embedder_options"]
    older = lib.make("embedder_options", struct_size=kind.batch.offset, threads=1, batch=-7, reserved=9, arithmetic=55)
    handle = made(lib, "embedder_load", str(weights).encode(), byref(older), ...)
    assert lib.embedder_free(handle) == 0
    newer = (ctypes.c_char * (ctypes.sizeof(kind) + 16)).from_buffer_copy(bytes(lib.make("embedder_options")) + bytes(16))
    ctypes.cast(newer, ctypes.POINTER(ctypes.c_uint32))[0] = len(newer)
    handle = made(lib, "embedder_load", str(weights).encode(), newer, ...)
    assert lib.embedder_free(handle) == 0
    newer[-1] = 1
    with pytest.raises(Problem) as unknown:
        made(lib, "embedder_load", str(weights).encode(), newer, ...)
    assert unknown.value.code == "unsupported" and "newer facenet" in unknown.value.sentence

    whole = lib.make("model_info")
    call(lib, "embedder_info", embedder, byref(whole))
    info = lib.make("model_info", struct_size=12, trained=77)
    call(lib, "embedder_info", embedder, byref(info))
    assert (info.embedding_dim, info.image_size, info.trained, info.struct_size) == (128, 160, 77, 12)
    longer = (ctypes.c_char * (ctypes.sizeof(whole) + 8))(*([b"\xff"] * (ctypes.sizeof(whole) + 8)))
    ctypes.cast(longer, ctypes.POINTER(ctypes.c_uint32))[0] = len(longer)
    call(lib, "embedder_info", embedder, longer)
    assert longer.raw[4:-8] == bytes(whole)[4:] and longer.raw[-8:] == bytes(8)

    # An error of an older program: the text is cut and ends; one of a newer gets zeros.
    short = lib.make("error", struct_size=24)
    assert lib.embedder_load(b"absent", None, byref(ctypes.c_void_p()), byref(short)) == lib.NOT_FOUND
    assert short.code == lib.NOT_FOUND and len(short.sentence) == 7 and short.place == b""
    assert lib.embedder_load(b"absent", None, byref(ctypes.c_void_p()), byref(lib.make("error", struct_size=0))) == lib.INVALID_ARGUMENT


# ---- Threads, fork, unloading --------------------------------------------------------------------------------------------------


def test_two_threads_with_one_handle_and_with_two(lib: c_header.Library, embedder: ctypes.c_void_p, detector: ctypes.c_void_p,
                                                  crops: list[np.ndarray], alone: np.ndarray) -> None:
    fork, failures = made(lib, "embedder_fork", embedder, None, ...), []
    photograph = np.asarray(Image.open(ASTRONAUT).convert("RGB"))

    def work(handle: ctypes.c_void_p, shift: int) -> None:
        for i in range(6):
            which = (i + shift) % len(crops)
            if not np.array_equal(embed(lib, handle, crops[which])[0], alone[which]):
                failures.append(which)

    def look() -> None:
        found = ctypes.c_size_t()
        faces = (lib.structures["facenet_face"] * 9)()
        call(lib, "detect", detector, byref(picture(lib, photograph)), faces, 9, byref(found))
        if found.value != 1:
            failures.append("faces")

    threads = [threading.Thread(target=work, args=(handle, shift)) for shift, handle in enumerate((embedder, embedder, fork))]
    threads += [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert lib.embedder_free(fork) == 0


def test_a_handle_is_freed_while_it_works(lib: c_header.Library, weights: pathlib.Path, crops: list[np.ndarray], alone: np.ndarray) -> None:
    """The call that runs ends well; later ones are errors."""
    handle, results = made(lib, "embedder_load", str(weights).encode(), None, ...), []

    def work() -> None:
        with contextlib.suppress(Problem):
            for _ in range(1000):
                results.append(embed(lib, handle, crops[0])[0])

    thread = threading.Thread(target=work)
    thread.start()
    while not results:
        time.sleep(0.001)
    assert lib.embedder_free(handle) == 0
    thread.join()
    assert 0 < len(results) < 1000 and all(np.array_equal(result, alone[0]) for result in results)


def test_cancelling_from_another_thread(lib: c_header.Library, weights: pathlib.Path, mtcnn_file: pathlib.Path,
                                        crops: list[np.ndarray]) -> None:
    cancel = made(lib, "cancel_make", ...)
    options = lib.make("embedder_options", cancel=cancel.value, threads=1)
    handle = made(lib, "embedder_load", str(weights).encode(), byref(options), ...)
    thread = threading.Timer(0.05, lambda: call(lib, "cancel_set", cancel, 1))
    thread.start()
    began = time.monotonic()
    with pytest.raises(Problem) as cancelled:
        embed(lib, handle, *(crops[:1] * 20000))   # minutes
    assert cancelled.value.code == "cancelled" and time.monotonic() - began < 60
    thread.join()
    fork = made(lib, "embedder_fork", handle, byref(options), ...)
    find = made(lib, "detector_load", str(mtcnn_file).encode(), byref(lib.make("detector_options", cancel=cancel.value)), ...)
    found, faces = ctypes.c_size_t(), (lib.structures["facenet_face"] * 9)()
    labels = (ctypes.c_int32 * 2)()
    same = np.ones((2, 8), np.float32)
    clustering = byref(lib.make("cluster_options", cancel=cancel.value))
    for action in (lambda: embed(lib, fork, crops[0]),
                   lambda: call(lib, "detect", find, byref(picture(lib, crops[0])), faces, 9, byref(found)),
                   lambda: call(lib, "cluster", same.ctypes.data, same.size, 8, clustering, labels, 2, None)):
        call(lib, "cancel_set", cancel, 1)
        with pytest.raises(Problem) as cancelled:
            action()
        assert cancelled.value.code == "cancelled"
        call(lib, "cancel_set", cancel, 0)
        action()
    assert lib.cancel_free(cancel) == 0   # those that use it keep it
    embed(lib, handle, crops[0])
    assert (lib.embedder_free(handle), lib.embedder_free(fork), lib.detector_free(find)) == (0, 0, 0)


def test_progress(lib: c_header.Library, weights: pathlib.Path, crops: list[np.ndarray], alone: np.ndarray) -> None:
    calls, codes, last = [], [], 99

    @ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64)
    def progress(user: int, done: int, total: int) -> int:
        calls.append((user, done, total))
        codes.append(lib.embedder_info(handle, byref(lib.make("model_info")), None))
        return int(done < last)

    options = lib.make("embedder_options", batch=2, progress=ctypes.cast(progress, ctypes.c_void_p), progress_user=7)
    handle = made(lib, "embedder_load", str(weights).encode(), byref(options), ...)
    assert np.array_equal(embed(lib, handle, *crops), alone)
    assert calls == [(7, 2, 5), (7, 4, 5), (7, 5, 5)]
    assert codes == [lib.INVALID_ARGUMENT] * 3, "it may not call with its own handle"
    calls.clear()
    last = 4
    with pytest.raises(Problem) as ended:
        embed(lib, handle, *crops)
    assert ended.value.code == "cancelled" and calls == [(7, 2, 5), (7, 4, 5)]
    assert lib.embedder_free(handle) == 0


def test_a_child_uses_what_its_parent_made(lib: c_header.Library, weights: pathlib.Path, mtcnn_file: pathlib.Path, tmp_path: pathlib.Path,
                                           crops: list[np.ndarray], alone: np.ndarray) -> None:
    """Also where another thread of the parent's was in the middle of a call. In a program: pytest's workers have threads."""
    crops[0].tofile(tmp_path / "crop.rgb")
    alone[0].tofile(tmp_path / "embedding.f32")
    program = compiled(r'''
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "facenet/facenet.h"

static facenet_embedder *embedder;
static facenet_detector *detector;
static facenet_gallery *gallery;
static facenet_picture crop = {NULL, 160 * 160 * 3, 160, 160, 0, FACENET_RGB, 0};
static uint8_t pixels[160 * 160 * 3];
static float first[128];
static volatile int stop;

static int check(const char *what, facenet_code code, const facenet_error *error) {
  char text[FACENET_MESSAGE_SIZE];
  if (code == FACENET_OK) return 0;
  facenet_error_message(error, text, sizeof text);
  fprintf(stderr, "%s: %s\n", what, text);
  return 1;
}

static int try_all(const char *who) {
  facenet_error error = FACENET_ERROR_INIT;
  facenet_gallery_info info = FACENET_GALLERY_INFO_INIT;
  facenet_face faces[4];
  float embedding[128];
  size_t found;
  if (check(who, facenet_embed(embedder, &crop, 1, embedding, 128, &error), &error)) return 1;
  if (memcmp(embedding, first, sizeof first) != 0) return fprintf(stderr, "%s: other bits\n", who), 1;
  if (check(who, facenet_detect(detector, &crop, faces, 4, &found, &error), &error)) return 1;
  if (check(who, facenet_gallery_get_info(gallery, &info, &error), &error)) return 1;
  return info.templates == 1 ? 0 : (fprintf(stderr, "%s: %d templates\n", who, (int)info.templates), 1);
}

static void *work(void *nothing) {
  float embedding[128];
  facenet_face faces[4];
  size_t found;
  (void)nothing;
  while (!stop) {
    facenet_embed(embedder, &crop, 1, embedding, 128, NULL);
    facenet_detect(detector, &crop, faces, 4, &found, NULL);
  }
  return NULL;
}

int main(int argc, char **argv) {
  facenet_error error = FACENET_ERROR_INIT;
  facenet_embedder_options options = FACENET_EMBEDDER_OPTIONS_INIT;
  facenet_detector_options looking = FACENET_DETECTOR_OPTIONS_INIT;
  facenet_template face = FACENET_TEMPLATE_INIT;
  pthread_t thread;
  FILE *file = fopen(argv[3], "rb");
  int i, failed = 0;
  if (argc != 6 || file == NULL || fread(pixels, 1, sizeof pixels, file) != sizeof pixels) return 3;
  fclose(file);
  file = fopen(argv[5], "rb");
  if (file == NULL || fread(first, 1, sizeof first, file) != sizeof first) return 3;
  fclose(file);
  crop.pixels = pixels;
  options.threads = looking.threads = 2;
  if (check("load", facenet_embedder_load(argv[1], &options, &embedder, &error), &error)) return 1;
  if (check("load", facenet_detector_load(argv[2], &looking, &detector, &error), &error)) return 1;
  if (check("open", facenet_gallery_open(argv[4], FACENET_GALLERY_CREATE, NULL, &gallery, &error), &error)) return 1;
  face.name = "A";
  face.embedding = first;
  face.embedding_size = 128;
  if (check("add", facenet_gallery_add(gallery, embedder, NULL, &face, NULL, NULL, &error), &error)) return 1;
  pthread_create(&thread, NULL, work, NULL);
  for (i = 0; i < 5; ++i) {
    const struct timespec pause = {0, 7000000};
    int status = 0;
    pid_t child;
    nanosleep(&pause, NULL);
    child = fork();
    if (child == 0) {
      alarm(120);
      failed = try_all("child");
      failed |= facenet_embedder_free(embedder) | facenet_detector_free(detector) | facenet_gallery_free(gallery);
      exit(failed);
    }
    waitpid(child, &status, 0);
    if (status != 0) fprintf(stderr, "child %d: status %x\n", i, status), failed = 1;
  }
  stop = 1;
  pthread_join(thread, NULL);
  failed |= try_all("parent");
  failed |= facenet_embedder_free(embedder) | facenet_detector_free(detector) | facenet_gallery_free(gallery);
  return failed;
}
''', tmp_path, "-pthread")
    run(program, weights, mtcnn_file, tmp_path / "crop.rgb", tmp_path / "gallery.db", tmp_path / "embedding.f32")


FORK_PROGRAM = r'''
#define _DEFAULT_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "facenet/facenet.h"

static facenet_embedder *embedder;
static facenet_gallery *file, *memory;
static const char *path;
static volatile int inside, stop;

#define MUST(condition) \
  do { if (!(condition)) { fprintf(stderr, "line %d: %s [%s]\n", __LINE__, #condition, error.sentence); _exit(1); } } while (0)

static facenet_error error = FACENET_ERROR_INIT;

static void add(facenet_gallery *gallery, const char *name, float first) {
  facenet_template face = FACENET_TEMPLATE_INIT;
  float embedding[128] = {0};
  embedding[0] = first, embedding[1] = 1;
  face.name = name, face.embedding = embedding, face.embedding_size = 128;
  MUST(facenet_gallery_add(gallery, embedder, NULL, &face, NULL, NULL, &error) == FACENET_OK);
}

static int32_t count(void *user, uint64_t id, const char *name, uint64_t templates) {
  (void)id, (void)name;
  *(uint64_t *)user += templates;
  return 1;
}

/* 0: the gallery says how many templates there are; 1: it is refused with this sentence. */
static int refused(facenet_gallery *gallery, const char *sentence) {
  facenet_gallery_info info = FACENET_GALLERY_INFO_INIT;
  uint64_t templates = 0;
  facenet_code code = facenet_gallery_persons(gallery, count, &templates, &error);
  MUST(code == FACENET_OK || code == FACENET_INVALID_ARGUMENT);
  MUST(code == FACENET_OK ? templates > 0 : strstr(error.sentence, sentence) != NULL);
  MUST(facenet_gallery_get_info(gallery, &info, &error) == code);
  return code != FACENET_OK;
}

static int open_refused(void) {
  facenet_gallery *own = NULL;
  facenet_code code = facenet_gallery_open(path, FACENET_GALLERY_CHANGE, NULL, &own, &error);
  MUST(code == FACENET_OK || code == FACENET_INVALID_ARGUMENT);
  if (code != FACENET_OK) {
    MUST(strstr(error.sentence, "exec") != NULL);
    return 1;
  }
  MUST(!refused(own, ""));
  add(own, "child", (float)getpid());
  MUST(facenet_gallery_free(own) == FACENET_OK);
  return 0;
}

static int32_t linger(void *user, const facenet_template *face) {
  (void)user, (void)face;
  inside = 1;
  while (!stop) usleep(1000);
  return 0;
}

static void *visit(void *gallery) {
  facenet_gallery_templates(gallery, NULL, linger, NULL, NULL);
  return NULL;
}

static void *change(void *unused) {
  while (!stop) {
    add(file, "parent", 1);
    MUST(facenet_gallery_remove_person(file, "parent", NULL, &error) == FACENET_OK);
  }
  return unused;
}

static void children(int number, void (*child)(void)) {
  while (number-- > 0) {
    int status = 0;
    pid_t it;
    usleep(3000);
    it = fork();
    if (it == 0) {
      alarm(120);
      child();
      _exit(0);
    }
    waitpid(it, &status, 0);
    if (status != 0) fprintf(stderr, "a child ended with %x\n", status), exit(1);
  }
}

static void while_it_visits(facenet_gallery *gallery, void (*child)(void)) {
  pthread_t thread;
  inside = stop = 0;
  pthread_create(&thread, NULL, visit, gallery);
  while (!inside) usleep(1000);
  children(2, child);
  stop = 1;
  pthread_join(thread, NULL);
}

/* Each call says it, not the first alone; what nobody used may be used. */
static void memory_was_used(void) {
  int i;
  for (i = 0; i < 3; ++i) MUST(refused(memory, "open another one here"));
  MUST(!refused(file, "") && !open_refused());
  MUST(facenet_gallery_free(memory) == FACENET_OK && facenet_gallery_free(file) == FACENET_OK);
}

static void file_was_used(void) {
  int i;
  for (i = 0; i < 3; ++i) MUST(refused(file, "open another one here") && open_refused());
  MUST(!refused(memory, ""));
}

static void file_was_changed(void) {
  MUST(!open_refused());
  refused(file, "open another one here");
}

static int32_t fork_here(void *user, const facenet_template *face) {
  int status = 0;
  pid_t child = fork();
  (void)face;
  if (child == 0) {
    MUST(refused(user, "a callback must not"));
    _exit(0);
  }
  waitpid(child, &status, 0);
  inside = status == 0 ? 2 : 3;
  return 1;
}

int main(int argc, char **argv) {
  pthread_t thread;
  if (argc != 3) return 3;
  path = argv[2];
  MUST(facenet_embedder_load(argv[1], NULL, &embedder, &error) == FACENET_OK);
  MUST(facenet_gallery_open(path, FACENET_GALLERY_CREATE, NULL, &file, &error) == FACENET_OK);
  MUST(facenet_gallery_make(NULL, &memory, &error) == FACENET_OK);
  add(file, "A", 5), add(memory, "A", 5);
  while_it_visits(memory, memory_was_used);
  while_it_visits(file, file_was_used);
  inside = stop = 0;
  MUST(facenet_gallery_templates(memory, NULL, fork_here, memory, &error) == FACENET_OK && inside == 2);
  pthread_create(&thread, NULL, change, NULL);
  children(12, file_was_changed);
  stop = 1;
  pthread_join(thread, NULL);
  MUST(!refused(file, "") && !refused(memory, ""));
  return facenet_gallery_free(file) | facenet_gallery_free(memory) | facenet_embedder_free(embedder);
}
'''


def test_a_child_and_the_galleries_of_its_parent(weights: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """What another thread used at the fork is refused in every call; where that was SQLite no file is opened."""
    run(compiled(FORK_PROGRAM, tmp_path, "-pthread"), weights, tmp_path / "gallery.db")


def test_a_progress_callback_searches_what_another_thread_changes(lib: c_header.Library, weights: pathlib.Path, crops: list[np.ndarray],
                                                                  alone: np.ndarray) -> None:
    """A call that held the gallery while it waits for the embedder would wait for this callback, and this for that."""
    gallery, found = Gallery(lib, None, None), []

    @ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64)
    def progress(user: int, done: int, total: int) -> int:
        adding.start()
        time.sleep(0.3)   # until it waits for the embedder
        found.append(gallery.find(alone[0], 1))
        return 1

    options = lib.make("embedder_options", progress=ctypes.cast(progress, ctypes.c_void_p))
    handle = made(lib, "embedder_load", str(weights).encode(), byref(options), ...)
    changing = Gallery.__new__(Gallery)
    changing.lib, changing.embedder, changing.handle = lib, handle, gallery.handle
    adding = threading.Thread(target=lambda: changing.add("A", alone[0]), daemon=True)
    embedding = threading.Thread(target=lambda: embed(lib, handle, crops[0]), daemon=True)
    embedding.start()
    embedding.join(60)
    adding.join(60)
    assert found == [[[]]] and not adding.is_alive() and gallery.persons() == {"A": 1}
    gallery.close()
    assert lib.embedder_free(handle) == 0


def test_it_can_be_unloaded(mtcnn_file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Loaded, used with threads and unloaded, again and again; nothing of it stays in the process."""
    program = compiled(r'''
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "facenet/facenet.h"

static uint8_t pixels[160 * 160 * 3];

static int mapped(void) {
  char line[4096];
  int found = 0;
  FILE *maps = fopen("/proc/self/maps", "r");
  while (maps != NULL && fgets(line, sizeof line, maps) != NULL) found += strstr(line, "libfacenet") != NULL;
  if (maps != NULL) fclose(maps);
  return found;
}

int main(int argc, char **argv) {
  int i;
  for (i = 0; i < 8; ++i) {
    facenet_picture crop = {NULL, sizeof pixels, 160, 160, 0, FACENET_RGB, 0};
    facenet_detector_options options = FACENET_DETECTOR_OPTIONS_INIT;
    facenet_detector *detector = NULL;
    facenet_face faces[4];
    size_t found;
    facenet_code (*load)(const char *, const facenet_detector_options *, facenet_detector **, facenet_error *);
    facenet_code (*detect)(facenet_detector *, const facenet_picture *, facenet_face *, size_t, size_t *, facenet_error *);
    facenet_code (*free_it)(facenet_detector *);
    void *library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    if (argc != 3 || library == NULL) return fprintf(stderr, "%s\n", dlerror()), 1;
    *(void **)&load = dlsym(library, "facenet_detector_load");
    *(void **)&detect = dlsym(library, "facenet_detect");
    *(void **)&free_it = dlsym(library, "facenet_detector_free");
    options.threads = 2;
    crop.pixels = pixels;
    memset(pixels, i * 9, sizeof pixels / 2);
    if (i % 3 != 2) {
      if (load(argv[2], &options, &detector, NULL) || detect(detector, &crop, faces, 4, &found, NULL)) return 2;
      if (free_it(detector)) return 3;
    }
    if (mapped() == 0) return 4;
    if (dlclose(library) != 0) return fprintf(stderr, "%s\n", dlerror()), 5;
    if (mapped() != 0) return 6;
    if (i % 4 == 0) usleep(20000);
  }
  return 0;
}
'''.replace("#include <dlfcn.h>", "#define _DEFAULT_SOURCE\n#include <dlfcn.h>"), tmp_path, "-Wno-pedantic", "-Wl,--as-needed")
    run(program, LIBRARY, mtcnn_file)


# ---- Distances, galleries, clustering, evaluation -------------------------------------------------------------------------------


def test_distances(lib: c_header.Library) -> None:
    a, b = np.random.default_rng(3).standard_normal((2, 128)).astype(np.float32)
    result = ctypes.c_double()
    call(lib, "distance", lib.EUCLIDEAN, a.ctypes.data, b.ctypes.data, 128, byref(result))
    assert result.value == pytest.approx(np.linalg.norm(a.astype(float) - b), rel=1e-14)
    cosine = float(a.astype(float) @ b / np.linalg.norm(a.astype(float)) / np.linalg.norm(b.astype(float)))
    call(lib, "distance", lib.COSINE, a.ctypes.data, b.ctypes.data, 128, byref(result))
    assert result.value == pytest.approx(1 - cosine, rel=1e-12)
    call(lib, "similarity", a.ctypes.data, b.ctypes.data, 128, byref(result))
    assert result.value == pytest.approx(cosine, rel=1e-12)
    call(lib, "distance", lib.EUCLIDEAN, a.ctypes.data, a.ctypes.data, 128, byref(result))
    assert result.value == 0
    a[5] = np.nan
    with pytest.raises(Problem, match="not a number"):
        call(lib, "similarity", a.ctypes.data, b.ctypes.data, 128, byref(result))


def sha256(lib: c_header.Library, data: bytes) -> bytes:
    out = ctypes.create_string_buffer(65)
    call(lib, "sha256", data, len(data), out, 65)
    return out.value


class Gallery:
    """A handle, with what is asked of it as Python's values."""

    def __init__(self, lib: c_header.Library, embedder: ctypes.c_void_p, path: pathlib.Path | None, mode: str = "CREATE", **options: int) -> None:
        self.lib, self.embedder = lib, embedder
        given = byref(lib.make("gallery_options", **options))
        self.handle = made(lib, "gallery_make", given, ...) if path is None else \
            made(lib, "gallery_open", str(path).encode(), getattr(lib, f"GALLERY_{mode}"), given, ...)

    def add(self, name: str, embedding: np.ndarray, **members: object) -> tuple[int, int]:
        embedding = np.ascontiguousarray(embedding, np.float32)
        face = self.lib.make("template", name=name.encode(), embedding=embedding.ctypes.data, embedding_size=embedding.size)
        for member, value in members.items():
            if member == "box":
                face.box[:] = value
            else:
                setattr(face, member, value)
        number, added = ctypes.c_uint64(), ctypes.c_int32()
        call(self.lib, "gallery_add", self.handle, self.embedder, None, byref(face), byref(number), byref(added))
        return number.value, added.value

    def persons(self) -> dict[str, int]:
        found: dict[str, int] = {}

        @ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_char_p, ctypes.c_uint64)
        def visit(user: int, number: int, name: bytes, templates: int) -> int:
            found[name.decode()] = templates
            return 1

        call(self.lib, "gallery_persons", self.handle, visit, None)
        return found

    def templates(self, name: str | None = None, most: int = 1 << 30) -> list[tuple]:
        found: list[tuple] = []

        @ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p)
        def visit(user: int, at: int) -> int:
            face = self.lib.structures["facenet_template"].from_address(at)
            values = np.ctypeslib.as_array(ctypes.cast(face.embedding, ctypes.POINTER(ctypes.c_float)), (face.embedding_size,)).copy()
            found.append((face.id, face.name.decode(), face.image.decode(), face.sha256.decode(), list(face.box), values))
            return int(len(found) < most)

        call(self.lib, "gallery_templates", self.handle, name.encode() if name else None, visit, None)
        return found

    def find(self, queries: np.ndarray, k: int, threshold: float | None = None) -> list[list[tuple]]:
        queries = np.ascontiguousarray(np.atleast_2d(queries), np.float32)
        matches = (self.lib.structures["facenet_match"] * (len(queries) * k))()
        found = (ctypes.c_size_t * len(queries))()
        more = [] if threshold is None else [ctypes.c_double(threshold)]
        call(self.lib, "gallery_search" if threshold is None else "gallery_identify", self.handle, self.embedder, queries.ctypes.data,
             queries.size, k, *more, matches, len(matches), found, len(queries))
        return [[(m.id, m.name.decode(), m.distance, m.similarity) for m in matches[q * k:q * k + found[q]]] for q in range(len(queries))]

    def info(self) -> ctypes.Structure:
        info = self.lib.make("gallery_info")
        call(self.lib, "gallery_get_info", self.handle, byref(info))
        return info

    def close(self) -> None:
        assert self.lib.gallery_free(self.handle) == 0


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_gallery(lib: c_header.Library, embedder: ctypes.c_void_p, kind: str, tmp_path: pathlib.Path) -> None:
    random = np.random.default_rng(12)
    faces = random.standard_normal((40, 128)).astype(np.float32)
    faces /= np.linalg.norm(faces, axis=1, keepdims=True)
    gallery = Gallery(lib, embedder, tmp_path / "gallery.db" if kind == "file" else None)
    assert gallery.persons() == {} and gallery.templates() == [] and gallery.find(faces[0], 3) == [[]] and gallery.info().embedding_dim == 0
    names = [f"Person {i % 10}" for i in range(40)]
    ids = [gallery.add(name, face, image=f"{i}.png".encode(), box=[i, 1, 2, 3]) for i, (name, face) in enumerate(zip(names, faces))]
    assert ids == [(i + 1, lib.ADDED) for i in range(40)]
    assert gallery.add("Person 3", faces[3]) == (4, lib.ALREADY_THERE)
    assert gallery.add("Zoë", faces[3], box=[3, 1, 2, 3]) == (0, lib.ANOTHER_PERSON)
    assert gallery.persons() == {f"Person {i}": 4 for i in range(10)}
    listed = gallery.templates("Person 7")
    assert [entry[:3] for entry in listed] == [(i + 1, "Person 7", f"{i}.png") for i in (7, 17, 27, 37)]
    assert all(np.array_equal(entry[5], faces[entry[0] - 1]) for entry in listed) and listed[0][4] == [7, 1, 2, 3]
    assert listed[0][3] == sha256(lib, faces[7].tobytes()).decode()
    assert len(gallery.templates(most=5)) == 5

    # Searches are those of numpy in double.
    queries = (faces[:6] + 0.05 * random.standard_normal((6, 128))).astype(np.float32)
    true = np.linalg.norm(queries.astype(float)[:, None] - faces, axis=2)
    for q, matches in enumerate(gallery.find(queries, 5)):
        order = np.argsort(true[q], kind="stable")[:5]
        assert [m[0] - 1 for m in matches] == list(order) and np.allclose([m[2] for m in matches], true[q][order], rtol=1e-12)
        assert [m[1] for m in matches] == [names[i] for i in order]
    for q, matches in enumerate(gallery.find(queries, 3, threshold=1.3)):
        best = {name: min(true[q][i] for i in range(40) if names[i] == name) for name in set(names)}
        want = sorted((distance, name) for name, distance in best.items() if distance <= 1.3)[:3]
        assert [m[1] for m in matches] == [name for _, name in want]
    assert gallery.find(-queries, 3, threshold=0.2) == [[]] * 6
    with pytest.raises(Problem, match="is not 64 hex digits"):
        gallery.add("Zoë", queries[0], sha256=b"AB" * 32)
    everything = gallery.find(queries[:1], 1000)[0]
    assert len(everything) == 40

    # What changes is found at once.
    assert gallery.add("Zoë", queries[0])[0] == 41
    assert gallery.find(queries[0], 1)[0][0][:3] == (41, "Zoë", 0.0)
    call(lib, "gallery_rename", gallery.handle, "Zoë".encode(), b"Zoe")
    assert gallery.find(queries[0], 1)[0][0][1] == "Zoe"
    call(lib, "gallery_remove_template", gallery.handle, 41)
    assert "Zoe" not in gallery.persons() and gallery.find(queries[0], 1)[0][0][0] == 1
    removed = ctypes.c_uint64()
    call(lib, "gallery_remove_person", gallery.handle, b"Person 0", byref(removed))
    assert removed.value == 4 and gallery.find(queries[0], 1)[0][0][1] != "Person 0"
    assert gallery.add("Person 0", faces[0])[0] == 42, "no number comes twice"
    info = gallery.info()
    assert (info.embedding_dim, info.persons, info.templates, info.image_size, info.detector) == (128, 10, 37, 160, b"")

    for action, code, part in (
        (lambda: call(lib, "gallery_remove_person", gallery.handle, b"Nobody", None), "not_found", "nobody in it is called 'Nobody'"),
        (lambda: call(lib, "gallery_remove_template", gallery.handle, 999), "not_found", "no template 999"),
        (lambda: call(lib, "gallery_rename", gallery.handle, b"Person 1", b"Person 2"), "invalid_argument", "already"),
        (lambda: call(lib, "gallery_rename", gallery.handle, b"Person 1", b"a\nb"), "invalid_argument", "control character"),
        (lambda: gallery.templates("Nobody"), "not_found", "Nobody"),
        (lambda: gallery.add("", faces[0]), "invalid_argument", "is empty"),
        (lambda: gallery.add("X" * 256, faces[0]), "invalid_argument", "255 bytes"),
        (lambda: gallery.add("X", faces[0] * 0), "invalid_argument", "zero"),
        (lambda: gallery.add("X", faces[0] * np.nan), "invalid_argument", "not finite"),
        (lambda: gallery.add("X", faces[0][:9]), "invalid_argument", "another length"),
        (lambda: gallery.add("X", faces[1], sha256=b"12"), "invalid_argument", "sha256"),
        (lambda: gallery.add("X", faces[1], enrolled=b"yesterday"), "invalid_argument", "enrolled"),
        (lambda: gallery.find(faces[0][:9], 1), "invalid_argument", "whole embeddings"),
        (lambda: gallery.find(faces[0], 1, threshold=-1.0), "invalid_argument", "threshold"),
    ):
        with pytest.raises(Problem) as problem:
            action()
        assert problem.value.code == code and part in problem.value.sentence

    # The model stays when nobody is left.
    for name in list(gallery.persons()):
        call(lib, "gallery_remove_person", gallery.handle, name.encode(), None)
    info = gallery.info()
    assert (info.embedding_dim, info.persons, info.templates) == (128, 0, 0) and len(info.digest) == 16 and info.architecture
    assert gallery.find(queries[:2], 3) == [[], []]
    assert gallery.add("Person 0", faces[0])[0] == 43
    gallery.close()


def embeddings(count: int, seed: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 128)).astype(np.float32)


def test_a_gallery_that_could_not_be_opened_again(lib: c_header.Library, embedder: ctypes.c_void_p, tmp_path: pathlib.Path) -> None:
    """It says so in each call, and goes on when the file is right."""
    path = tmp_path / "gallery.db"
    gallery = Gallery(lib, embedder, path)
    path.write_text("something else, of another program, that is no database")
    for _ in range(3):
        with pytest.raises(Problem) as other:
            gallery.persons()
        assert other.value.code == "io_error" and other.value.place == str(path)
    path.unlink()
    assert gallery.persons() == {}
    assert gallery.add("A", embeddings(1)[0]) == (1, lib.ADDED)
    gallery.close()


def test_a_gallery_file_is_replaced_while_it_is_open(lib: c_header.Library, embedder: ctypes.c_void_p, tmp_path: pathlib.Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    path, other, faces = tmp_path / "gallery.db", tmp_path / "other.db", embeddings(3)
    monkeypatch.chdir(tmp_path)
    gallery = Gallery(lib, embedder, pathlib.Path("gallery.db"))
    gallery.add("A", faces[0])
    monkeypatch.chdir("/")
    reader = Gallery(lib, embedder, path, "READ")
    second = Gallery(lib, embedder, other)
    second.add("B", faces[1])
    for one in (gallery, reader):
        assert one.find(faces[0], 1)[0][0][1] == "A"
    second.close()
    os.replace(other, path)
    for one in (gallery, reader):
        assert [m[1] for m in one.find(faces[0], 5)[0]] == ["B"] and one.persons() == {"B": 1}
    assert gallery.add("C", faces[2])[1] == lib.ADDED and reader.persons() == {"B": 1, "C": 1}

    # One that is gone, and comes again.
    path.rename(other)
    for _ in range(2):
        with pytest.raises(Problem) as gone:
            reader.persons()
        assert gone.value.code == "not_found" and gone.value.place == str(path)
        assert gallery.persons() == {} and gallery.find(faces[0], 1) == [[]]
    other.rename(path)
    assert reader.persons() == gallery.persons() == {"B": 1, "C": 1}

    # The journal beside the new file is that one's.
    shutil.copy(path, other)
    os.replace(other, path)
    journal = pathlib.Path(f"{path}-journal")
    journal.write_bytes(b"of a change that another process makes")
    gallery.close()
    assert journal.read_bytes() == b"of a change that another process makes"
    journal.unlink()
    reader.close()


def test_a_change_whose_traces_stay_is_told_as_made(lib: c_header.Library, embedder: ctypes.c_void_p, tmp_path: pathlib.Path) -> None:
    """A file may not grow: the change has room in its journal, and rewriting the whole file has not."""
    first, faces, removed = tmp_path / "first.db", embeddings(100), ctypes.c_uint64(99)
    gallery = Gallery(lib, embedder, first)
    for i, face in enumerate(faces):
        gallery.add(f"P{i}", face)
    gallery.close()
    for name, *arguments in (("rename", b"P1", b"Q1"), ("remove_template", 2), ("remove_person", b"P1", byref(removed))):
        path = shutil.copy(first, tmp_path / f"{name}.db")
        gallery = Gallery(lib, embedder, path)
        assert gallery.find(faces[1], 1)[0][0][1] == "P1"
        with no_larger_files(path.stat().st_size):
            for code in ("io_error", "not_found"):
                with pytest.raises(Problem) as told:
                    call(lib, f"gallery_{name}", gallery.handle, *arguments)
                assert told.value.code == code and told.value.place == str(path)
                assert told.value.sentence.startswith("the change was made, but traces") == (code == "io_error")
                assert name != "remove_person" or removed.value == (code == "io_error")
        assert "P1" not in gallery.persons() and gallery.find(faces[1], 1)[0][0][1] != "P1"
        gallery.close()
    if COMMAND.exists():
        for action, said in ((["rename", first, "P1", "Q1"], "the change was made"), (["remove", first, "P2"], "the change was made"),
                             (["vacuum", first], "File too large")):
            path = action[1] = shutil.copy(first, tmp_path / f"command-{action[0]}.db")
            with no_larger_files(path.stat().st_size):
                done = subprocess.run([COMMAND, "gallery", *action], capture_output=True, text=True, check=False)
            assert done.returncode == 2 and said in done.stderr and ("the change was made" in done.stderr) == (action[0] != "vacuum")


@contextlib.contextmanager
def no_larger_files(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))   # Python ignores the signal
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_visit_ends_where_the_callback_ends_it(lib: c_header.Library, embedder: ctypes.c_void_p, tmp_path: pathlib.Path) -> None:
    """What comes after is not read, so a damaged template there is no error."""
    path = tmp_path / "gallery.db"
    gallery = Gallery(lib, embedder, path)
    for i, face in enumerate(embeddings(3)):
        gallery.add(f"P{i}", face)
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE template SET embedding = x'00' WHERE id = 2")
        database.commit()
    assert len(gallery.templates(most=1)) == 1
    with pytest.raises(Problem, match="template 2 is damaged"):
        gallery.templates(most=2)
    gallery.close()


def test_a_search_sees_one_state_of_the_file(lib: c_header.Library, embedder: ctypes.c_void_p, tmp_path: pathlib.Path) -> None:
    """Somebody adds persons with their first templates, each in the very moment when no reader has the file locked: no template is
    found without its person's name."""
    path, faces, ends = tmp_path / "gallery.db", embeddings(700), []
    gallery = Gallery(lib, embedder, path)
    gallery.add("first", faces[0])

    def write() -> None:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as database:

            def insist(statement: str) -> None:
                while True:
                    with contextlib.suppress(sqlite3.OperationalError):   # it is locked
                        database.execute(statement)
                        return

            def insert(i: int) -> None:
                person = database.execute("INSERT INTO person (name) VALUES (?)", (f"P{i}",)).lastrowid
                database.execute("INSERT INTO template (person, image, sha256, face, x1, y1, x2, y2, score, enrolled, embedding) "
                                 "VALUES (?, '-', ?, 0, 0, 0, 0, 0, 0, '2026-11-28T07:18:32Z', ?)",
                                 (person, f"{i:064x}", faces[i].tobytes()))

            database.execute("PRAGMA synchronous = OFF")
            for i in range(1, len(faces)):
                if i == 1 or i >= 500:
                    insist("BEGIN IMMEDIATE")
                insert(i)
                if i >= 499:
                    insist("COMMIT")
                    time.sleep(0.005)
        ends.append(True)

    thread = threading.Thread(target=write)
    thread.start()
    while not ends:
        (matches,) = gallery.find(faces[0], len(faces))
        assert all(match[1] for match in matches), "a match without a name"
        assert thread.is_alive() or ends
    thread.join()
    assert len(gallery.find(faces[0], 1000)[0]) == len(faces)
    gallery.close()


NO_MEMORY_PROGRAM = r'''
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "facenet/facenet.h"

extern void *__libc_malloc(size_t), *__libc_realloc(void *, size_t);
static long left = -1;   /* allocations until one fails, or all do; -1: none does */
static int all;

static int fails(void) {
  if (left < 0) return 0;
  if (left > 0) return --left, 0;
  if (!all) left = -1;
  return 1;
}
void *malloc(size_t size) { return fails() ? NULL : __libc_malloc(size); }
void *realloc(void *memory, size_t size) { return fails() ? NULL : __libc_realloc(memory, size); }

static facenet_error error = FACENET_ERROR_INIT, ignored = FACENET_ERROR_INIT;
static facenet_embedder *embedder;
static facenet_gallery *gallery;
static int count, failures, late;

#define MUST(condition) \
  do { if (!(condition)) { fprintf(stderr, "line %d: %s [%d: %s]\n", __LINE__, #condition, (int)error.code, error.sentence); exit(1); } } while (0)

static facenet_code add(const char *name, const float *embedding, uint64_t *id) {
  facenet_template face = FACENET_TEMPLATE_INIT;
  face.name = name, face.embedding = embedding, face.embedding_size = 128;
  return facenet_gallery_add(gallery, embedder, NULL, &face, id, NULL, &error);
}

static int templates(void) {
  facenet_gallery_info info = FACENET_GALLERY_INFO_INIT;
  facenet_code code = facenet_gallery_get_info(gallery, &info, &ignored);
  if (code != FACENET_OK) fprintf(stderr, "info: %s\n", ignored.sentence), exit(1);
  return (int)info.templates;
}

static void is_found(const float *embedding, uint64_t id) {
  static facenet_match match;
  size_t found = 0;
  MUST(facenet_gallery_search(gallery, NULL, embedding, 128, 1, &match, 1, &found, 1, &error) == FACENET_OK);
  MUST(found == 1 && (match.id == id) == (id != 0) && match.name[0] != 0);
}

/* Whether the call came as far as the allocation that fails. */
static int tell(facenet_code code) {
  const int reached = all ? left == 0 : left < 0;
  left = -1;
  failures += code != FACENET_OK;
  late += reached && code == FACENET_OK;
  MUST(code == FACENET_OK || (reached && (code == FACENET_OUT_OF_MEMORY || code == FACENET_IO_ERROR)));
  return reached;
}

int main(int argc, char **argv) {
  facenet_gallery_options options = FACENET_GALLERY_OPTIONS_INIT;
  static float embedding[128];
  long n;
  int on;
  options.threads = 1;
  if (argc < 2) return 3;
  MUST(facenet_embedder_load(argv[1], NULL, &embedder, &error) == FACENET_OK);
  if (argc == 3) MUST(facenet_gallery_open(argv[2], FACENET_GALLERY_CREATE, &options, &gallery, &error) == FACENET_OK);
  if (argc == 2) MUST(facenet_gallery_make(&options, &gallery, &error) == FACENET_OK);
  for (all = 0; all < 2; ++all)
    for (n = 0, on = 1; on; n += 1 + n / 20) {
      char name[40];
      uint64_t id = 0;
      facenet_code code;
      sprintf(name, "Somebody with a name that is long, %d %ld", all, n);
      embedding[0] = (float)(3 * n + 1), embedding[1] = (float)(all + 1);
      if (count > 0) is_found(embedding, 0);
      left = n;
      code = add(name, embedding, &id);
      on = tell(code);
      count += code == FACENET_OK;
      MUST(templates() == count);
      if (code == FACENET_OK) is_found(embedding, id);
    }
  MUST(failures > 10 && late > 0);
  for (all = 0; all < 2; ++all)
    for (n = 0, on = 1; on; n += 1 + n / 20) {
      uint64_t removed = 9;
      facenet_code code;
      embedding[0] = (float)-(n + 1);
      code = add("Q", embedding, NULL);
      count += code == FACENET_OK;
      MUST(templates() == count);
      left = n;
      code = facenet_gallery_remove_person(gallery, "Q", &removed, &error);
      on = tell(code);
      MUST(code != FACENET_OK || removed > 0);   /* more where the last removal failed */
      MUST((code != FACENET_OK && removed > 0) == (strncmp(error.sentence, "the change was made", 19) == 0));
      count -= (int)removed;
      MUST(templates() == count);
    }
  return facenet_gallery_free(gallery) | facenet_embedder_free(embedder);
}
'''


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_no_memory_is_left_for_a_gallery(kind: str, weights: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Each allocation of a change fails in turn, then all from each on: an error means that nothing was changed, or says what was."""
    program = compiled(NO_MEMORY_PROGRAM, tmp_path)
    run(program, weights, *([tmp_path / "gallery.db"] if kind == "file" else []))


def test_a_gallery_in_memory_grows_evenly(lib: c_header.Library, embedder: ctypes.c_void_p) -> None:
    """The last templates take no longer than the first ones; where each was moved for each it was 50 times as long."""
    gallery, faces, seconds = Gallery(lib, embedder, None), embeddings(16000), []
    for first in range(0, len(faces), 1000):
        began = time.process_time()
        for face in faces[first:first + 1000]:
            gallery.add("A", face)
        seconds.append(time.process_time() - began)
    assert min(seconds[-4:]) < 5 * min(seconds[:4])
    gallery.close()


def test_a_gallery_is_shared_with_the_command(lib: c_header.Library, embedder: ctypes.c_void_p, weights: pathlib.Path,
                                              crops: list[np.ndarray], alone: np.ndarray, tmp_path: pathlib.Path) -> None:
    """The command lists what the library added, and the other way round; each sees the other's changes while it is open."""
    path, files = tmp_path / "gallery.db", [tmp_path / f"{i}.png" for i in range(3)]
    for crop, file in zip(crops, files):
        Image.fromarray(crop).save(file)
    gallery = Gallery(lib, embedder, path)
    assert gallery.add("Ada", alone[0], image=str(files[0]).encode(), sha256=sha256(lib, files[0].read_bytes()))[1] == lib.ADDED
    (person,) = facenet("gallery", "list", "--json", path)
    assert (person["name"], person["templates"]) == ("Ada", 1)
    enroll = ["enroll", "--json", "--weights", weights, "--aligned", path]
    facenet(*enroll, "Ada", files[0])   # is there already: one picture, one digest
    facenet(*enroll, "Grace", files[1])
    assert gallery.persons() == {"Ada": 1, "Grace": 1}
    assert gallery.find(alone[1], 1, threshold=0.1)[0][0][1:3] == ("Grace", 0.0), "one model, one set of bits"
    reader = Gallery(lib, embedder, path, "READ")
    call(lib, "gallery_remove_person", gallery.handle, b"Grace", None)
    assert reader.persons() == {"Ada": 1} and reader.find(alone[1], 5, threshold=0.1) == [[]]
    with pytest.raises(Problem, match="FACENET_GALLERY_READ"):
        reader.add("Grace", alone[1])
    with pytest.raises(Problem) as absent:
        Gallery(lib, embedder, tmp_path / "absent.db", "CHANGE")
    assert absent.value.code == "not_found" and absent.value.place == str(tmp_path / "absent.db")
    with pytest.raises(Problem) as other:
        Gallery(lib, embedder, ASTRONAUT, "READ")
    assert other.value.code == "io_error" and other.value.place == str(ASTRONAUT) and not other.value.sentence.endswith(".")
    gallery.close()
    reader.close()
    assert alone[1].tobytes() not in path.read_bytes()


def test_an_embedder_of_another_model_is_refused(lib: c_header.Library, embedder: ctypes.c_void_p, converted: dict[str, pathlib.Path],
                                                 alone: np.ndarray) -> None:
    gallery = Gallery(lib, embedder, None)
    gallery.add("A", alone[0])
    gallery.embedder = made(lib, "embedder_load", str(converted["i8"]).encode(), None, ...)   # other weights, another digest
    for action in (lambda: gallery.add("B", alone[1]), lambda: gallery.find(alone[1], 1)):
        with pytest.raises(Problem) as other:
            action()
        assert other.value.code == "weights_mismatch" and "another model" in other.value.sentence
    assert lib.embedder_free(gallery.embedder) == 0
    gallery.close()


def test_cluster(lib: c_header.Library) -> None:
    """Well separated persons: each algorithm finds them, DBSCAN calls a face alone noise; and scikit-learn says the same."""
    random = np.random.default_rng(1)
    centres = random.standard_normal((6, 32)) * 3
    faces = np.concatenate([centres[np.arange(30) % 6] + 0.1 * random.standard_normal((30, 32)), 50 * np.ones((1, 32))]).astype(np.float32)
    labels, clusters = (ctypes.c_int32 * 31)(), ctypes.c_size_t()
    for algorithm, alone in ((lib.CHINESE_WHISPERS, 6), (lib.DBSCAN, -1), (lib.AVERAGE_LINK, 6)):
        options = lib.make("cluster_options", algorithm=algorithm, threshold=2.0, threads=2)
        call(lib, "cluster", faces.ctypes.data, faces.size, 32, byref(options), labels, 31, byref(clusters))
        assert list(labels) == [*(i % 6 for i in range(30)), alone] and clusters.value == 6 + (alone == 6)
    with pytest.raises(Problem, match="no multiple of their dimension"):
        call(lib, "cluster", faces.ctypes.data, faces.size - 1, 32, None, labels, 31, None)
    with pytest.raises(Problem):
        call(lib, "cluster", faces.ctypes.data, faces.size, 32, None, labels, 30, None)


def test_evaluate(lib: c_header.Library) -> None:
    """Against scikit-learn's ROC, and folds counted by hand."""
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(6)
    same = np.arange(2000) % 2 == 0
    distances = np.where(same, random.normal(0.8, 0.2, 2000), random.normal(1.3, 0.15, 2000)).clip(0)
    options = lib.make("evaluate_options", far=0.01, replicates=50, seed=3)
    got = lib.make("evaluation")
    flags = same.astype(np.uint8)
    call(lib, "evaluate", distances.ctypes.data, flags.ctypes.data, 2000, byref(options), byref(got))
    far, tar, _ = metrics.roc_curve(same, -distances)
    assert got.auc == pytest.approx(metrics.roc_auc_score(same, -distances), abs=1e-12)
    assert got.tar == tar[far <= 0.01].max() and got.measurable == 1 and got.far == 0.01
    assert got.eer == pytest.approx(np.interp(0, far - (1 - tar), far), abs=2e-3)
    assert (got.genuine, got.impostors) == (1000, 1000) and 0.9 < got.accuracy < 1
    for value, interval in ((got.auc, got.auc_interval), (got.eer, got.eer_interval), (got.tar, got.tar_interval)):
        assert interval[0] < value < interval[1]
    impostors, threshold = np.sort(distances[~same]), ctypes.c_double()
    call(lib, "choose_threshold", impostors.ctypes.data, 1000, ctypes.c_double(0.01), byref(threshold))
    assert impostors[9] < threshold.value < impostors[10]
    with pytest.raises(Problem) as few:
        call(lib, "choose_threshold", impostors.ctypes.data, 1000, ctypes.c_double(0.001), byref(threshold))
    assert few.value.code == "limit_exceeded"


def test_distances_that_are_none(lib: c_header.Library) -> None:
    same, threshold = bytes([1, 0] * 20), ctypes.c_double()
    for value, what in ((-0.1, "distance 7 is below 0"), (np.nan, "distance 7 is not a number"), (np.inf, "distance 7 is infinite")):
        distances = np.linspace(0, 2, 40)
        distances[7] = value
        with pytest.raises(Problem, match=what) as wrong:
            call(lib, "evaluate", distances.ctypes.data, same, 40, None, byref(lib.make("evaluation")))
        assert (wrong.value.code, wrong.value.place) == ("invalid_argument", "distances")
        with pytest.raises(Problem, match=what) as wrong:
            call(lib, "choose_threshold", distances.ctypes.data, 40, ctypes.c_double(0.5), byref(threshold))
        assert (wrong.value.code, wrong.value.place) == ("invalid_argument", "impostors")
    distances = np.linspace(0, 2, 40)
    with pytest.raises(Problem, match="flag 4 is neither 0 nor 1"):
        call(lib, "evaluate", distances.ctypes.data, bytes([1, 0, 1, 0, 2, *same[5:]]), 40, None, byref(lib.make("evaluation")))


@pytest.mark.parametrize("algorithm", ["CHINESE_WHISPERS", "DBSCAN", "AVERAGE_LINK"])
def test_clustering_is_cancelled_on_its_way(lib: c_header.Library, algorithm: str) -> None:
    """It takes less than half of the time that it would take."""
    count, cancel = 6000 if algorithm == "AVERAGE_LINK" else 24000, made(lib, "cancel_make", ...)
    faces = embeddings(count)
    options = lib.make("cluster_options", algorithm=getattr(lib, algorithm), cancel=cancel.value, threads=1, threshold=15.0)
    labels = (ctypes.c_int32 * count)()
    arguments = [faces.ctypes.data, faces.size, 128, byref(options), labels, count, None]
    began = time.process_time()
    call(lib, "cluster", *arguments)
    whole = time.process_time() - began
    thread, began = threading.Timer(0.1 * whole, lambda: call(lib, "cancel_set", cancel, 1)), time.process_time()
    thread.start()
    with pytest.raises(Problem) as cancelled:
        call(lib, "cluster", *arguments)
    assert cancelled.value.code == "cancelled" and time.process_time() - began < 0.5 * whole
    thread.join()
    assert lib.cancel_free(cancel) == 0


def test_wipe(lib: c_header.Library) -> None:
    secret = ctypes.create_string_buffer(b"secret", 16)
    lib.wipe(secret, 3)
    assert secret.raw == b"\0\0\0ret" + bytes(10)
    lib.wipe(None, 5)


# ---- Examples ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def portraits(tmp_path_factory: pytest.TempPathFactory) -> list[pathlib.Path]:
    """The portrait, and the same a little darker."""
    darker = tmp_path_factory.mktemp("portraits") / "darker.png"
    Image.open(ASTRONAUT).convert("RGB").point(lambda value: value * 3 // 4).save(darker)
    return [ASTRONAUT, darker]


@pytest.fixture(scope="module")
def expected(lib: c_header.Library, embedder: ctypes.c_void_p, detector: ctypes.c_void_p, portraits: list[pathlib.Path]) -> str:
    """What an example prints: the distance between the two."""
    embeddings = []
    for path in portraits:
        image, view, found = made(lib, "image_read", str(path).encode(), ...), lib.make("picture"), ctypes.c_size_t()
        call(lib, "image_pixels", image, byref(view))
        faces = (lib.structures["facenet_face"] * 9)()
        call(lib, "detect", detector, byref(view), faces, 9, byref(found))
        crop = made(lib, "crop_face", embedder, byref(view), byref(faces[0]), ...)
        embeddings.append(embed(lib, embedder, pixels_of(lib, crop))[0])
        assert (lib.image_free(image), lib.image_free(crop)) == (0, 0)
    distance = np.linalg.norm(embeddings[0].astype(float) - embeddings[1])
    assert distance > 0.001
    return f"{distance:.4f}\n"


def environment_of(folder: pathlib.Path) -> dict[str, str]:
    """Where pkg-config and compilers of other languages find the library of this build, and their own things."""
    libraries, headers = folder / "lib", folder / "include/facenet"
    libraries.mkdir(parents=True)
    headers.mkdir(parents=True)
    shutil.copy(c_header.HEADER, headers)
    for name in ("libfacenet.so", "libfacenet.so.0"):
        (libraries / name).symlink_to(LIBRARY)
    text = (ROOT / "cmake/facenet-c.pc.in").read_text()
    for name, value in {"PC_UP": "..", "CMAKE_INSTALL_INCLUDEDIR": "include", "CMAKE_INSTALL_LIBDIR": "lib", "PROJECT_VERSION": "0"}.items():
        text = text.replace(f"@{name}@", value)
    (libraries / "facenet-c.pc").write_text(text)
    found = {"PKG_CONFIG_PATH": str(libraries), "LD_LIBRARY_PATH": str(libraries), "GOCACHE": str(ROOT / "build/go"), "GOFLAGS": "-mod=mod",
             "GOPROXY": "off", "GOTOOLCHAIN": "local", "CARGO_HOME": str(folder / "cargo"), "CARGO_NET_OFFLINE": "true"}
    cargo = shutil.which("cargo")
    rustup = pathlib.Path(cargo).parents[2] / ".rustup" if cargo else folder   # rustup's cargo looks for it in HOME, which a test has not
    if rustup.is_dir():
        found["RUSTUP_HOME"] = str(rustup)
    return {**found, "HOME": str(folder)}  # both leave files there, and a test's home is to stay empty


def needs(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (tools/bootstrap.sh --all)")


def check_example(command: list[object], env: dict[str, str], weights: pathlib.Path, detector: pathlib.Path, portraits: list[pathlib.Path],
                  expected: str) -> None:
    assert run(*command, weights, detector, *portraits, env=env) == expected
    done = subprocess.run([*map(str, command), "absent.safetensors", detector, *portraits], capture_output=True, text=True, check=False,
                          env=dict(os.environ) | env)
    assert done.returncode == 2 and "absent.safetensors: " in done.stderr and done.stdout == ""


def test_the_example_in_ctypes(weights: pathlib.Path, mtcnn_file: pathlib.Path, portraits: list[pathlib.Path], expected: str) -> None:
    example = ROOT / "examples/ctypes/verify.py"
    check_example(["/usr/bin/python3", "-I", example], {"FACENET_LIBRARY": str(LIBRARY)}, weights, mtcnn_file, portraits, expected)


def test_the_example_in_c(weights: pathlib.Path, mtcnn_file: pathlib.Path, portraits: list[pathlib.Path], expected: str,
                          tmp_path: pathlib.Path) -> None:
    program, gallery = compiled(ROOT / "examples/c/identify.c", tmp_path, "-Wno-conversion"), tmp_path / "gallery.db"
    assert re.fullmatch(r"(\d+ ){4}unknown\n", run(program, weights, mtcnn_file, gallery, portraits[0]))
    assert re.fullmatch(r"added\n(\d+ ){4}Eileen 0.0000\n", run(program, weights, mtcnn_file, gallery, portraits[0], "Eileen"))
    line = run(program, weights, mtcnn_file, gallery, portraits[1])
    assert re.fullmatch(rf"(\d+ ){{4}}Eileen {re.escape(expected)}", line)
    assert [person["name"] for person in facenet("gallery", "list", "--json", gallery)] == ["Eileen"]


def test_the_example_in_rust(weights: pathlib.Path, mtcnn_file: pathlib.Path, portraits: list[pathlib.Path], expected: str,
                             tmp_path: pathlib.Path) -> None:
    needs("cargo")
    environment = environment_of(tmp_path / "prefix") | {"CARGO_TARGET_DIR": str(tmp_path / "target"), "RUSTFLAGS": "-D warnings",
                                                         "FACENET_LIB_DIR": str(tmp_path / "prefix/lib")}
    shutil.copytree(ROOT / "examples/rust", tmp_path / "rust")
    run("cargo", "build", "--offline", "--quiet", "--manifest-path", tmp_path / "rust/Cargo.toml", env=environment)
    check_example([tmp_path / "target/debug/verify"], environment, weights, mtcnn_file, portraits, expected)


def test_the_example_in_go(weights: pathlib.Path, mtcnn_file: pathlib.Path, portraits: list[pathlib.Path], expected: str,
                           tmp_path: pathlib.Path) -> None:
    needs("go", "pkg-config")
    environment = environment_of(tmp_path / "prefix")
    shutil.copytree(ROOT / "examples/go", tmp_path / "go")
    run("go", "build", "-o", tmp_path / "verify", ".", env=environment, cwd=tmp_path / "go")
    check_example([tmp_path / "verify"], environment, weights, mtcnn_file, portraits, expected)
