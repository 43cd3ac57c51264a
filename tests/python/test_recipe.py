"""The circle of training: rendered photographs, the command's crops, training, the converter, the engine's own evaluation."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import signal
import subprocess

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import ROOT, TOOLS, assert_one_error, run_tool
from facenet_tools import checkpoint, pictures, rendered_faces
from facenet_tools.training import data, protocol

FACENET = ROOT / os.environ.get("FACENET_BUILD", "build/release") / "facenet"
DETECTOR = ROOT / "build/golden/mtcnn.safetensors"
ENOUGH = (0.95, 0.98)  # accuracy and AUC of people held out; 0.970 and 0.997 were measured (docs/training)
TOO_EASY = {"raw pixels": 0.70, "before training": 0.75}

needs_command = pytest.mark.skipif(
    not (FACENET.exists() and DETECTOR.exists()), reason="the command is not built, or build/golden not made"
)


def recipe(folder: pathlib.Path, *options: str) -> str:
    done = subprocess.run([TOOLS / "train_demo.sh", folder, *options], capture_output=True, text=True, check=False,
                          env={**os.environ, "FACENET": str(FACENET), "DETECTOR": str(DETECTOR)})  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def read_pairs(folder: pathlib.Path) -> tuple[list[tuple[str, str, bool, int]], int]:
    lines = [line.split("\t") for line in (folder / "run" / "pairs.txt").read_text().splitlines()]
    folds, each = map(int, lines[0])
    rows = []
    for number, fields in enumerate(lines[1:]):
        a, b = (fields[0], fields[1]), (fields[-2] if len(fields) == 4 else fields[0], fields[-1])
        paths = [str(folder / "sets" / "test" / name / f"{name}_{int(index):04}.png") for name, index in (a, b)]
        rows.append((*paths, len(fields) == 3, number // (2 * each)))
    assert len(rows) == folds * 2 * each
    return rows, folds


def pytorch_score(folder: pathlib.Path) -> tuple[protocol.Score, dict[str, np.ndarray]]:
    """The checkpoint's embeddings of the test's pictures in float64, scored by the tools' own protocol."""
    state, dim = checkpoint.check(checkpoint.read(str(folder / "run" / "best.pt")), "best.pt")
    model = checkpoint.model_of(state, dim).double()
    rows, _folds = read_pairs(folder)
    paths = sorted({path for row in rows for path in row[:2]})
    vectors = {}
    with torch.no_grad():
        for start in range(0, len(paths), 16):
            part = paths[start : start + 16]
            stack = np.stack([data.decode(pathlib.Path(path))[0] for path in part])
            vectors |= dict(zip(part, model(pictures.to_tensor(stack, torch.float64)).numpy()))
    place = {path: i for i, path in enumerate(paths)}
    columns = [np.array([place[row[side]] for row in rows]) for side in (0, 1)]
    pairs = protocol.Pairs(*columns, np.array([row[2] for row in rows]), np.array([row[3] for row in rows]))
    return protocol.evaluate(np.stack([vectors[path] for path in paths]), pairs), vectors


def engine_agrees(folder: pathlib.Path) -> dict:
    """What the command measured on the converted file against PyTorch on the checkpoint."""
    score, vectors = pytorch_score(folder)
    measured = json.loads((folder / "evaluation.json").read_text())
    assert measured["evaluated"] == measured["pairs"] == len(read_pairs(folder)[0])
    assert measured["trained"] is True
    # Embeddings differ by up to 3e-6, so a pair may change sides only where its distance is at a threshold: none here.
    assert measured["accuracy"]["mean"] == pytest.approx(score.accuracy, abs=1e-6)
    assert measured["auc"]["value"] == pytest.approx(score.auc, abs=1e-5)
    some = sorted(vectors)[:6]
    done = subprocess.run([FACENET, "embed", "--json", "--aligned", "-w", folder / "faces.safetensors", *some],
                          capture_output=True, text=True, check=True)  # fmt: skip
    for line in done.stdout.splitlines():
        row = json.loads(line)
        assert np.abs(np.array(row["embedding"]) - vectors[row["image"]]).max() <= 3e-6
    return measured


@pytest.mark.long
@pytest.mark.slow
@needs_command
def test_short_recipe(tmp_path: pathlib.Path) -> None:
    """Each step with the narrowest network; it learns little in a minute, but the engine computes what PyTorch does."""
    said = recipe(tmp_path, "--short")
    assert "raw pixels: accuracy" in said and "before training: accuracy" in said
    engine_agrees(tmp_path)
    assert (tmp_path / "evaluation.html").stat().st_size > 10000
    assert (tmp_path / "run" / "curves.png").exists()
    best = json.loads((tmp_path / "run" / "best.json").read_text())
    about = json.loads(subprocess.run([FACENET, "info", "--json", tmp_path / "faces.safetensors"], capture_output=True, text=True, check=True).stdout)
    assert about["threshold"] == pytest.approx(best["threshold"], abs=1e-6) and about["threshold_source"] == best["threshold_source"]
    measured = json.loads((tmp_path / "evaluation.json").read_text())["at_threshold"]  # without --threshold
    assert measured["threshold"] == about["threshold"] and measured["threshold_source"].startswith("train.py on ")
    losses = np.loadtxt(tmp_path / "run" / "steps.csv", delimiter=",", skiprows=1)[:, 3]
    assert losses[-5:].mean() < losses[:5].mean()


@pytest.mark.skipif("FACENET_RECIPE" not in os.environ, reason="a quarter of an hour; FACENET_RECIPE=FOLDER runs it there")
def test_recipe_reaches_what_it_promises() -> None:
    folder = pathlib.Path(os.environ["FACENET_RECIPE"])
    said = recipe(folder)
    measured = engine_agrees(folder)
    assert measured["accuracy"]["mean"] >= ENOUGH[0] and measured["auc"]["value"] >= ENOUGH[1]
    for what, most in TOO_EASY.items():
        line = next((line for line in said.splitlines() if f"{what}: accuracy" in line), None)
        if line is not None:  # not said again when a finished run is taken up
            assert float(line.split("accuracy ")[1].split("+")[0]) <= most, line


# ---- The rendered people -----------------------------------------------------------------------------------------------


def test_people_do_not_depend_on_how_many_there_are(tmp_path: pathlib.Path) -> None:
    few = run_tool("make_identities.py", tmp_path / "few", "--people", 1, "--pictures", 2, "--jobs", 1)
    many = run_tool("make_identities.py", tmp_path / "many", "--people", 2, "--pictures", 3, "--jobs", 2)
    assert few.returncode == many.returncode == 0, few.stderr + many.stderr
    assert few.stdout == "2 pictures of 1 people: 2 made, 0 were there\n"
    for path in (tmp_path / "few").rglob("*.png"):
        assert path.read_bytes() == (tmp_path / "many" / path.relative_to(tmp_path / "few")).read_bytes()
    again = run_tool("make_identities.py", tmp_path / "many", "--people", 2, "--pictures", 3, "--jobs", 1)
    assert again.stdout == "6 pictures of 2 people: 0 made, 6 were there\n"
    assert run_tool("make_identities.py", tmp_path, "--people", 0).returncode == 2
    call = ("make_identities.py", tmp_path / "few", "--people", 1, "--pictures", 2, "--jobs", 1)
    assert_one_error(run_tool(*call, "--seed", 2), "holds people of --seed 1; give that seed")
    first = sorted((tmp_path / "few").rglob("*.png"))[0]
    first.write_bytes(b"")  # as a full disk leaves it
    assert run_tool(*call).stdout == "2 pictures of 1 people: 1 made, 1 were there\n" and first.stat().st_size > 0


def test_a_killed_renderer_is_an_error(tmp_path: pathlib.Path, monkeypatch) -> None:
    """As by the system, out of memory: it must not wait for ever for that person."""
    monkeypatch.setattr(rendered_faces, "picture", lambda *_arguments: os.kill(os.getpid(), signal.SIGKILL))
    result = run_tool("make_identities.py", tmp_path / "out", "--people", 2, "--pictures", 1, "--jobs", 2)
    assert_one_error(result, "a process was killed", "run again, it goes on")


def test_a_picture_shows_the_person_and_not_only_the_view() -> None:
    """The same view of another person, and another view of the same one, both change the picture; each number counts."""
    person = rendered_faces.draw(rendered_faces.PERSON, np.random.default_rng(1))
    shown = rendered_faces.picture(person, np.random.default_rng(5))
    assert shown.shape == (rendered_faces.SIDE, rendered_faces.SIDE, 3) and shown.std() > 20
    assert (shown == rendered_faces.picture(person, np.random.default_rng(5))).all()
    assert (shown != rendered_faces.picture(person, np.random.default_rng(6))).mean() > 0.5
    view = rendered_faces.draw(rendered_faces.VIEW, np.random.default_rng(5))
    base = rendered_faces.head(person, view)
    for name, (low, high) in rendered_faces.PERSON.items():
        other = rendered_faces.head({**person, name: low if person[name] > (low + high) / 2 else high}, view)
        moved = np.abs(other.points - base.points).max() + np.abs(other.colours - base.colours).max()
        assert moved > 1e-3, f"{name} changes nothing"


# ---- Face data ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def embedded(tmp_path: pathlib.Path) -> pathlib.Path:
    """10 people with 4 pictures; one lies with another person, one is there twice, nearly the same."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(10, 16))
    rows = []
    for person in range(10):
        for number in range(4):
            vector = centres[3 if (person, number) == (7, 2) else person] + 0.2 * random.normal(size=16)
            if (person, number) == (5, 3):
                vector = np.array(rows[-1]["embedding"]) + 1e-3
            else:
                vector = vector / np.linalg.norm(vector)
            image = tmp_path / "crops" / f"p{person}" / f"{number}.png"
            image.parent.mkdir(parents=True, exist_ok=True)
            image.write_bytes(b"picture")
            rows.append({"image": str(image), "face": 0, "embedding": vector.tolist(), "trained": True})
    path = tmp_path / "crops.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_label_noise_is_found(embedded: pathlib.Path) -> None:
    result = run_tool("face_data.py", "noise", embedded, "--json")
    assert result.returncode == 0, result.stderr
    (found,) = map(json.loads, result.stdout.splitlines())
    assert found["image"].endswith("p7/2.png") and found["person"] == "p7" and found["nearer"] == "p3"
    assert found["nearer_distance"] < found["distance"]
    assert "1 of 40 pictures" in result.stderr


def test_near_duplicates_are_listed_and_moved(embedded: pathlib.Path, tmp_path: pathlib.Path) -> None:
    listed = run_tool("face_data.py", "duplicates", embedded, "--json")
    (found,) = map(json.loads, listed.stdout.splitlines())
    assert found["image"].endswith("p5/3.png") and found["near"].endswith("p5/2.png")
    assert found["distance"] == pytest.approx(4e-3, abs=1e-3) and "nothing was moved" in listed.stderr
    moved = run_tool("face_data.py", "duplicates", embedded, "--move-to", tmp_path / "gone")
    assert moved.returncode == 0 and (tmp_path / "gone" / "p5" / "3.png").exists()
    assert not pathlib.Path(found["image"]).exists()


def test_face_data_names_what_is_wrong(tmp_path: pathlib.Path, embedded: pathlib.Path) -> None:
    rows = [json.loads(line) for line in embedded.read_text().splitlines()]
    for text, part in (
        ("", "holds no embeddings"), ("{", "line 1 is not what"), (json.dumps({**rows[0], "face": 1}), "line 1: "),
        ("5", "line 1 is not what"), ("[]", "line 1 is not what"), ("h\xe4h", "line 1 is not UTF-8"),
        *((json.dumps({**rows[0], "embedding": wrong}), "a list of finite numbers") for wrong in ([[1.0]], 1.0, [float("nan"), 1.0])),
        (json.dumps(rows[0]) + "\n" + json.dumps({**rows[1], "embedding": [1.0]}), "different sizes"),
    ):  # fmt: skip
        broken = tmp_path / "broken.jsonl"
        broken.write_text(text, encoding="latin-1")
        result = run_tool("face_data.py", "noise", broken)
        assert result.returncode == 2 and part in result.stderr, result.stderr
    untrained = tmp_path / "untrained.jsonl"
    untrained.write_text("".join(json.dumps({**row, "trained": False}) + "\n" for row in rows))
    assert "these distances mean nothing" in run_tool("face_data.py", "noise", untrained).stderr
    assert run_tool("face_data.py", "duplicates", tmp_path / "none.jsonl").returncode == 2


def test_split_keeps_people_whole(tmp_path: pathlib.Path) -> None:
    for person in range(6):
        (tmp_path / "crops" / f"p{person}").mkdir(parents=True)
        for number in range(3):
            picture = pictures.structured(np.random.default_rng([person, number + 1]))
            Image.fromarray(picture).save(tmp_path / "crops" / f"p{person}" / f"{number}.png")
    call = ("face_data.py", "split", tmp_path / "crops", tmp_path / "sets", "--share", 0.34)
    result = run_tool(*call)
    assert result.stdout == "train\t4 people\t12 pictures\ntest\t2 people\t6 pictures\n", result.stderr
    names = [{folder.name for folder in (tmp_path / "sets" / part).iterdir()} for part in ("train", "test")]
    assert not names[0] & names[1] and names[0] | names[1] == {f"p{person}" for person in range(6)}
    assert run_tool(*call).returncode == 2  # not into a folder that holds a split
    assert_one_error(run_tool(*call[:3], tmp_path / "other", "--share", 0.05), "cannot be split", "give another --share")
    assert_one_error(run_tool(*call[:3], tmp_path / "crops" / "sets"), "where its folders would be people")
    linked = tmp_path / "linked"  # a farm of relative symbolic links, as data sets are shared out
    for path in sorted((tmp_path / "crops").glob("*/*.png")):
        link = linked / path.relative_to(tmp_path / "crops")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(path, link.parent))
    assert run_tool("face_data.py", "split", linked, tmp_path / "deep" / "sets", "--share", 0.34).returncode == 0
    parts = list((tmp_path / "deep").rglob("*.png"))
    assert len(parts) == 18 and all(path.is_file() and not path.is_symlink() for path in parts)


# ---- The threshold in the weight file ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The narrowest network with a threshold that lies between its distances, a text that a terminal would obey as its source,
    and five face crops: three of one person, with noise, and two others."""
    if not FACENET.exists():
        pytest.skip("the command is not built")
    folder = tmp_path_factory.mktemp("measured")
    torch.manual_seed(3)
    model = checkpoint.build_model(16, width=0.0625)
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = None
    faces = [pictures.structured(np.random.default_rng(seed)) for seed in range(3)]
    noise = np.random.default_rng(9).integers(-6, 7, (2, *faces[0].shape))
    crops = [faces[0], *(np.clip(faces[0] + each, 0, 255).astype(np.uint8) for each in noise), faces[1], faces[2]]
    with torch.no_grad():  # statistics of these pictures, so that their embeddings lie apart
        model.train()(pictures.to_tensor(np.stack(crops), torch.float32))
        vectors = model.eval()(pictures.to_tensor(np.stack(crops), torch.float32)).double().numpy()
    apart = np.linalg.norm(vectors[:, None] - vectors[None], axis=2)
    inner, outer = apart[:3, :3].max(), min(apart[:3, 3:].min(), apart[3, 4])
    assert inner + 0.05 < outer < 1.1, "1.1 would not take all for one person"
    torch.save(model.state_dict(), folder / "best.pt")
    row = {"format": "facenet-trained", "version": 1, "threshold": round((inner + outer) / 2, 4), "threshold_source": "a test\x1b[31m",
           "checkpoint_sha256": hashlib.sha256((folder / "best.pt").read_bytes()).hexdigest()}  # fmt: skip
    (folder / "best.json").write_text(json.dumps(row))
    result = run_tool("convert_weights.py", folder / "best.pt", "-o", folder / "net.safetensors")
    assert result.returncode == 0, result.stderr
    (folder / "crops").mkdir()
    for number, crop in enumerate(crops):
        Image.fromarray(crop).save(folder / "crops" / f"{number}.png")
    return folder


def facenet(folder: pathlib.Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in (FACENET, *arguments)], capture_output=True, text=True, check=False,
                          env={**os.environ, "FACENET_WEIGHTS": str(folder / "net.safetensors")})  # fmt: skip


def test_every_command_takes_the_measured_threshold(measured: pathlib.Path, tmp_path: pathlib.Path) -> None:
    value = json.loads((measured / "best.json").read_text())["threshold"]
    source, shown = "a test\x1b[31m", r"a test\x1b[31m"
    crops = [measured / "crops" / f"{number}.png" for number in range(5)]
    told = facenet(measured, "info", "--json", measured / "net.safetensors")
    about = json.loads(told.stdout)
    assert about["threshold"] == pytest.approx(value, abs=1e-6) and about["threshold_source"] == source
    text = facenet(measured, "info", measured / "net.safetensors").stdout
    assert f"threshold        {value}, measured by {shown}\n" in text and "\x1b" not in text
    for other, same in ((crops[1], True), (crops[3], False)):
        answer = facenet(measured, "verify", "--aligned", crops[0], other)
        assert answer.returncode == (0 if same else 1), answer.stderr
        assert f"(Euclidean, threshold {value:.4g}, measured by {shown}), similarity" in answer.stdout
        row = json.loads(facenet(measured, "verify", "--aligned", "--json", crops[0], other).stdout)
        assert row["same"] is same and row["threshold_source"] == source and row["threshold"] == pytest.approx(value, abs=1e-6)
    given = facenet(measured, "verify", "--aligned", "--threshold", 1.2, crops[0], crops[3])
    assert given.returncode == 0 and "measured" not in given.stdout
    row = json.loads(facenet(measured, "verify", "--aligned", "--json", "--threshold", 1.2, crops[0], crops[3]).stdout)
    assert "threshold_source" not in row
    rows = facenet(measured, "cluster", "--aligned", "--json", "--cache", "none", measured / "crops").stdout.splitlines()
    assert [json.loads(row)["size"] for row in rows] == [3, 1, 1] and json.loads(rows[0])["threshold_source"] == source
    gallery = tmp_path / "people.gallery"
    assert facenet(measured, "enroll", "--aligned", gallery, "anna", crops[0]).returncode == 0
    found = facenet(measured, "identify", "--aligned", "--json", gallery, crops[2], crops[4])
    names = [[match["name"] for match in json.loads(row)["matches"]] for row in found.stdout.splitlines()]
    assert names == [["anna"], []] and json.loads(found.stdout.splitlines()[0])["threshold_source"] == source


def test_a_threshold_of_calibrate_is_for_its_model_alone(measured: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The digest that the converter computes is the engine's."""
    digest = json.loads(facenet(measured, "info", "--json", measured / "net.safetensors").stdout)["digest"]
    file, out = tmp_path / "people.threshold", tmp_path / "net.safetensors"
    row = {"format": "facenet-threshold", "version": 1, "model": digest, "metric": "euclidean", "threshold": 0.5, "far_target": 0.01}
    file.write_text(json.dumps(row))
    done = run_tool("convert_weights.py", measured / "best.pt", "-o", out, "--threshold", file)
    assert done.returncode == 0, done.stderr
    about = json.loads(facenet(measured, "info", "--json", out).stdout)
    assert (about["threshold"], about["threshold_source"], about["digest"]) == (0.5, "facenet calibrate at FAR 0.01", digest)
    assert facenet(measured, "verify", "--aligned", "-w", out, "--threshold", file, *([measured / "crops" / "0.png"] * 2)).returncode == 0
    other = run_tool("convert_weights.py", measured / "best.pt", "-o", out, "--threshold", file, "--dtype", "f16")
    assert other.returncode == 2 and f"measured with another model ({digest})" in other.stderr
