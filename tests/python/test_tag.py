"""`facenet tag`: sidecars as exiftool reads them, beside whatever other programs wrote, and taken out again to the byte."""

from __future__ import annotations

import json
import pathlib
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image
from test_command import COMMAND, assert_sentence, facenet, lines
from test_command import weights  # noqa: F401 (fixture)

pytestmark = pytest.mark.skipif(not COMMAND.exists(), reason=f"{COMMAND} is not built")
NAME = "Zoë <O'Neill> & \"Co\""


class Album:
    """Face crops, each a person of its own; `name` names the person of a picture."""

    def __init__(self, folder: pathlib.Path, weights: pathlib.Path) -> None:  # noqa: F811
        self.folder, self.gallery = folder / "photos", folder / "g"
        self.folder.mkdir()
        self.options = ["--aligned", "-w", weights, "-t", 1, "--threshold", 0]

    def picture(self, name: str, seed: int, orientation: int = 0, size: tuple[int, int] = (60, 40)) -> pathlib.Path:
        pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
        exif = Image.Exif()
        if orientation:
            exif[0x0112] = orientation
        Image.fromarray(pixels).save(self.folder / name, exif=exif, quality=90)
        return self.folder / name

    def scan(self) -> None:
        result = facenet("people", self.folder, "-g", self.gallery, *self.options)
        assert result.returncode == 0, result.stderr

    def name(self, path: pathlib.Path, name: str) -> None:
        rows = lines(facenet("people", "export", "-g", self.gallery, "--format", "jsonl"))
        (who,) = {row["name"] for row in rows if row["file"] == str(path)}
        result = facenet("people", "name", "-g", self.gallery, who, name)
        assert result.returncode == 0, result.stderr

    def tag(self, *more: object, status: int = 0) -> list[dict]:
        result = facenet("tag", self.folder, "-g", self.gallery, "--json", *more)
        assert result.returncode == status, result.stderr
        return lines(result)


@pytest.fixture
def album(tmp_path, weights):  # noqa: F811
    return Album(tmp_path, weights)


def exiftool(path: pathlib.Path) -> dict:
    if shutil.which("exiftool") is None:
        pytest.skip("exiftool is not installed: run tools/bootstrap.sh --all")
    done = subprocess.run(["exiftool", "-j", "-struct", "-n", "-XMP:all", path], capture_output=True, text=True, check=True)
    assert not done.stderr.strip(), done.stderr
    (read,) = json.loads(done.stdout)
    assert "Warning" not in read and "Error" not in read, read
    return read


def put(album: Album, orientation: int = 0) -> pathlib.Path:
    path = album.picture("a.jpg", 1, orientation)
    album.picture("b.jpg", 2)
    album.scan()
    album.name(path, NAME)
    return path


def test_exiftool_reads_regions_and_names(album):
    path = put(album)
    before = path.read_bytes()
    assert [line["change"] for line in album.tag("--dry-run")] == ["made"]
    assert not list(album.folder.glob("*.xmp"))
    (line,) = album.tag()
    assert line == {"image": str(path), "sidecar": f"{path}.xmp", "names": [NAME], "change": "made", "written": True}
    read = exiftool(path.with_name("a.jpg.xmp"))
    assert read["RegionInfo"]["AppliedToDimensions"] == {"W": 60, "H": 40, "Unit": "pixel"}
    (region,) = read["RegionInfo"]["RegionList"]
    assert region["Name"] == NAME and region["Type"] == "Face"
    assert {k: v for k, v in region["Area"].items() if k != "Unit"} == pytest.approx({"X": 0.5, "Y": 0.5, "W": 1, "H": 1}, abs=1e-6)
    assert read["Subject"] == [NAME] and read["TagsList"] == [f"People/{NAME}"] and read["HierarchicalSubject"] == [f"People|{NAME}"]
    assert album.tag() == []  # nothing is left to do
    album_names = [p.name for p in album.folder.iterdir()]
    assert sorted(album_names) == ["a.jpg", "a.jpg.xmp", "b.jpg"] and path.read_bytes() == before
    assert facenet("people", "name", "-g", album.gallery, NAME, "Ada").returncode == 0
    assert [line["change"] for line in album.tag()] == ["changed"]
    assert exiftool(path.with_name("a.jpg.xmp"))["Subject"] == ["Ada"]
    assert [line["change"] for line in album.tag("--undo")] == ["removed"]
    assert not list(album.folder.glob("*.xmp")) and album.tag("--undo") == []


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_region_is_of_the_stored_picture_whatever_its_orientation(album, orientation):
    """A box of the upright picture, painted into it and stored turned: the region is where the paint is."""
    import sqlite3

    path = put(album, orientation)
    upright = (60, 40) if orientation < 5 else (40, 60)
    box = (5, 4, 17, 28)
    db = sqlite3.connect(album.gallery)
    db.execute("UPDATE template SET x1 = ?, y1 = ?, x2 = ?, y2 = ?, checksum = NULL", box)
    db.commit()
    db.close()
    mark = np.zeros((upright[1], upright[0]), np.uint8)
    mark[box[1] : box[3], box[0] : box[2]] = 255
    undo = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]  # what stores an upright picture so: Image.Transpose
    stored = Image.fromarray(mark) if undo is None else Image.fromarray(mark).transpose(undo)
    assert stored.size == (60, 40)
    ys, xs = np.nonzero(np.asarray(stored))
    album.tag()
    read = exiftool(path.with_name("a.jpg.xmp"))["RegionInfo"]
    area = read["RegionList"][0]["Area"]
    assert (read["AppliedToDimensions"]["W"], read["AppliedToDimensions"]["H"]) == (60, 40)
    want = {"X": (xs.min() + xs.max() + 1) / 120, "Y": (ys.min() + ys.max() + 1) / 80,
            "W": (xs.max() + 1 - xs.min()) / 60, "H": (ys.max() + 1 - ys.min()) / 40}  # fmt: skip
    assert {k: area[k] for k in want} == pytest.approx(want, abs=1e-5)


def test_what_others_wrote_stays_to_the_byte(album):
    path = put(album)
    sidecar = path.with_name("a.jpg.xmp")
    if shutil.which("exiftool") is None:
        pytest.skip("exiftool is not installed: run tools/bootstrap.sh --all")
    region = "{AppliedToDimensions={W=60,H=40,Unit=pixel},RegionList=[{Name=Bob,Type=Face,Area={X=0.1,Y=0.1,W=0.1,H=0.1,Unit=normalized}}]}"
    subprocess.run(["exiftool", "-q", "-XMP-dc:Subject=beach", "-XMP-dc:Title=A < B & é", "-XMP:Rating=4", f"-RegionInfo={region}",
                    "-XMP-digiKam:TagsList=Places/Sea", sidecar], check=True)  # fmt: skip
    others = sidecar.read_bytes()
    (line,) = album.tag()
    assert line["change"] == "changed"
    read = exiftool(sidecar)
    assert [r["Name"] for r in read["RegionInfo"]["RegionList"]] == ["Bob", NAME]
    assert read["Subject"] == ["beach", NAME] and read["TagsList"] == ["Places/Sea", f"People/{NAME}"]
    assert read["Title"] == "A < B & é" and read["Rating"] == 4
    assert album.tag() == []
    assert [line["change"] for line in album.tag("--undo")] == ["changed"]
    assert sidecar.read_bytes() == others
    # Rewritten by another program in between: ours goes, and nothing else.
    album.tag()
    subprocess.run(["exiftool", "-q", "-overwrite_original", "-XMP:Rating=5", sidecar], check=True)
    album.tag("--undo")
    read = exiftool(sidecar)
    assert read["Rating"] == 5 and [r["Name"] for r in read["RegionInfo"]["RegionList"]] == ["Bob"]
    assert "<facenet:" not in sidecar.read_text() and NAME not in str(read)


def test_a_region_of_another_program_wins(album):
    path = put(album)
    sidecar = path.with_name("a.jpg.xmp")
    region = "{AppliedToDimensions={W=60,H=40,Unit=pixel},RegionList=[{Name=Bob,Type=Face,Area={X=0.5,Y=0.5,W=0.9,H=0.9,Unit=normalized}}]}"
    if shutil.which("exiftool") is None:
        pytest.skip("exiftool is not installed: run tools/bootstrap.sh --all")
    subprocess.run(["exiftool", "-q", f"-RegionInfo={region}", sidecar], check=True)
    others = sidecar.read_bytes()
    assert album.tag() == [] and sidecar.read_bytes() == others


@pytest.mark.parametrize(("text", "part"), [
    ("", "no element found"), ("no xml", "line 1"), ("<a>", "line 1"), ("<a/>", "no XMP in it"),
    ('<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "document type"), ("<a>" * 5000 + "</a>" * 5000, "nested too deep"),
    ('<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"/>', "no XMP in it"),
    ('<x xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><r:RDF><r:Description xmlns:m="http://www.metadataworkinggroup.com/'
     'schemas/regions/"><m:Regions/></r:Description></r:RDF></x>', "not known here"),
])  # fmt: skip
def test_a_sidecar_that_cannot_be_changed_is_left_and_named(album, text, part):
    path = put(album)
    sidecar = path.with_name("a.jpg.xmp")
    sidecar.write_text(text)
    if text == "":
        assert [line["change"] for line in album.tag()] == ["made"]  # an empty file is no sidecar yet
        return
    result = facenet("tag", album.folder, "-g", album.gallery)
    assert result.returncode == 2 and part in result.stderr and str(sidecar) in result.stderr
    assert sidecar.read_text() == text


def test_names_of_sidecars(album):
    path = put(album)
    album.picture("a.png", 3)
    album.scan()
    album.name(album.folder / "a.png", "Eve")
    result = facenet("tag", album.folder, "-g", album.gallery, "--sidecar", "stem")
    assert result.returncode == 2 and "another picture has this sidecar" in result.stderr
    assert path.with_suffix(".xmp").exists()
    assert {pathlib.Path(line["sidecar"]).name for line in album.tag()} == {"a.jpg.xmp", "a.png.xmp"}
    assert_sentence(facenet("tag", album.folder / "none", "-g", album.gallery), "not a folder")
    (album.folder.parent / "else").mkdir()
    assert facenet("tag", album.folder.parent / "else", "-g", album.gallery).returncode == 1
