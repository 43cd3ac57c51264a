"""Every call of ours in the pages about migrating runs: blocks of `python` in their order, with pictures and made weights. Blocks of
`py` are other packages' calls, which are parsed."""

from __future__ import annotations

import ast
import os
import re
import shutil
import sys
import warnings

import pytest
from conftest import ROOT, made_once, run_tool
from PIL import Image

BUILD = ROOT / os.environ.get("FACENET_BUILD", "build/release")
PACKAGE = BUILD / "python"
BUILT = bool(list(PACKAGE.glob("facenet/_engine*.so")))
SAMPLES, FACE_API = ROOT / ".deps/samples", ROOT / ".deps/face-api"
needs_pictures = [
    pytest.mark.skipif(not BUILT, reason=f"{PACKAGE} is not built"),
    pytest.mark.skipif(not (SAMPLES / "sample1.jpg").exists(), reason=f"{SAMPLES} is not there: run tools/bootstrap.sh"),
]
if BUILT:
    sys.path.insert(0, str(PACKAGE))


def blocks(page: str) -> list[tuple[str, str]]:
    """(language, text) of each block, in order."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def dlib():
    if not FACE_API.exists():
        pytest.skip(f"{FACE_API} is not there: run tools/bootstrap.sh")

    def make(folder):
        result = run_tool("convert_weights.py", "--face-api", FACE_API, "-o", folder / "dlib.safetensors")
        assert result.returncode == 0, result.stderr

    return made_once("dlib", make) / "dlib.safetensors"


@pytest.fixture
def place(tmp_path, monkeypatch, converted, mtcnn_file):
    """a.jpg and b.jpg are one person, group.jpg three, people/ has a.jpg's."""
    with Image.open(SAMPLES / "astronaut.png") as image:
        portrait = image.convert("RGB")
    portrait.crop((120, 20, 360, 240)).save(tmp_path / "a.jpg", quality=95)
    portrait.crop((100, 0, 400, 300)).resize((260, 260), Image.BILINEAR).save(tmp_path / "b.jpg", quality=80)
    with Image.open(SAMPLES / "sample1.jpg") as image:
        image.convert("RGB").resize((image.width // 2, image.height // 2), Image.BILINEAR).save(tmp_path / "group.jpg", quality=95)
    (tmp_path / "people").mkdir()
    shutil.copy(tmp_path / "a.jpg", tmp_path / "people/ada.jpg")
    monkeypatch.setenv("FACENET_DETECTOR", str(mtcnn_file))
    monkeypatch.setenv("FACENET_WEIGHTS", str(converted["f32"]))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(page: str, limits: tuple[int, int] = (0, 99)) -> dict:
    names: dict = {"__name__": "page"}
    for text in [text for language, text in blocks(page) if language == "python"][limits[0] : limits[1]]:
        exec(compile(text, page, "exec"), names)
    return names


@pytest.mark.parametrize("page", ["docs/migrating.md", "docs/migrate_deepface.md"])
def test_all_blocks_are_python(page):
    languages = [language for language, text in blocks(page) if ast.parse(text)]
    assert set(languages) == {"python", "py"} and languages.count("python") > languages.count("py")


@pytest.mark.usefixtures("place")
class TestCalls:
    pytestmark = needs_pictures

    def test_from_face_recognition(self, place, dlib):
        (place / "weights").mkdir()
        (place / "weights/dlib.safetensors").symlink_to(dlib)
        names = run("docs/migrating.md", (0, 4))
        assert names["matches"] == [True] and names["distances"][0] < 0.6  # a trained network: one person
        assert len(names["encodings"][0]) == 128 and names["landmarks"][0].shape == (5, 2) and names["embedder"].info["threshold"] == 0.6
        group = names["facenet"].read_image("group.jpg")
        others = [names["embedder"].embed(names["facenet"].align(group, f, embedder=names["embedder"])) for f in names["detector"].detect(group)]
        assert all(names["facenet"].distance(other, names["encodings"][0]) > 0.6 for other in others)

    def test_from_insightface(self, place):
        names = run("docs/migrating.md", (0, 1))
        for text in [text for language, text in blocks("docs/migrating.md") if language == "python"][4:]:
            exec(compile(text, "docs/migrating.md", "exec"), names)
        assert len(names["faces"]) == 3 == len(names["boxes"]) == len(names["points"]) == len(names["scores"]) == len(names["embeddings"])
        assert -1 <= names["similarity"] <= 1 and names["crop"].shape == (160, 160, 3) and names["best"].name == "person 0"
        distance = names["facenet"].distance(*names["embeddings"][:2])
        assert distance**2 == pytest.approx(2 - 2 * names["similarity"], abs=1e-5)
        (place / "people.gallery").unlink()

    def test_from_deepface(self, monkeypatch, checkpoint512, tmp_path):
        from facenet import _downloads
        from facenet.compat.deepface.modules import verification

        _downloads.plain(str(checkpoint512), str(tmp_path / "plain.safetensors"))
        monkeypatch.setenv("FACENET_DEEPFACE_FACENET512", str(tmp_path / "plain.safetensors"))
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # mtcnn is what it says
            names = run("docs/migrate_deepface.md")
        assert len(names["embedding"]) == 512 and names["result"]["threshold"] == 0.3 and len(names["faces"]) == 3
        (people,) = names["people"]
        assert len(people) == 1
        a, b = names["a"], names["b"]
        assert names["facenet"].distance(a, b) == pytest.approx(verification.find_distance(a, b, "euclidean_l2"), abs=2e-6)
        assert 1 - names["facenet"].similarity(a, b) == pytest.approx(verification.find_distance(a, b, "cosine"), abs=2e-6)
