"""`facenet evaluate` and `calibrate`: numbers recomputed with NumPy and scikit-learn from the command's own embeddings, the report,
missing faces, threshold files."""

from __future__ import annotations

import itertools
import json
import math
import os
import pathlib
import shutil
import sqlite3

import numpy as np
import pytest
from safetensors import safe_open
from recognition import distances, make_people
from test_command import COMMAND, DETECTOR, UNTRAINED, assert_sentence, facenet, lines
from test_command import weights  # noqa: F401 (fixture)
from test_report import Page, decode

from facenet_tools import safetensors_writer

pytestmark = pytest.mark.skipif(not COMMAND.exists(), reason=f"{COMMAND} is not built")
PERSONS, EACH, FOLDS, PAIRS = 8, 4, 4, 6


class People:
    """Pictures in LFW's layout, a list of pairs, and the command's own embeddings of them."""

    def __init__(self, folder: pathlib.Path, weights) -> None:  # noqa: F811
        self.images, self.pairs_file = folder / "images", folder / "pairs.txt"
        self.files = make_people(self.images, PERSONS, EACH)
        out = folder / "x.npy"
        assert facenet("embed", "--aligned", "--weights", weights, self.images, "--out", out, "--cache", "none").returncode == 0
        self.apart = distances(np.load(out))
        random = np.random.default_rng(7)
        self.pairs, text = [], [f"{FOLDS}\t{PAIRS}"]
        for fold in range(FOLDS):
            for same in (True, False):
                for _ in range(PAIRS):
                    person, other = random.choice(PERSONS, 2, replace=False)
                    i, k = random.choice(EACH, 2, replace=False)
                    a, b = person * EACH + i, (person if same else other) * EACH + k
                    self.pairs.append((a, b, same, fold))
                    name = [self.files[x].parent.name for x in (a, b)]
                    text.append(f"{name[0]}\t{i + 1}\t{k + 1}" if same else f"{name[0]}\t{i + 1}\t{name[1]}\t{k + 1}")
        self.pairs_file.write_text("\n".join(text) + "\n")
        self.call = ["evaluate", "--pairs", self.pairs_file, "--images", self.images, "--aligned", "--weights", weights]


@pytest.fixture(scope="module")
def people(tmp_path_factory, weights):  # noqa: F811
    return People(tmp_path_factory.mktemp("people"), weights)


def accuracies(distance: np.ndarray, same: np.ndarray, fold: np.ndarray) -> tuple[list[float], list[float]]:
    """davidsandberg's protocol, written down again: squared distance < threshold, thresholds 0 to 4 by 0.01, the first best."""
    thresholds, squared = np.arange(0, 4, 0.01), distance**2
    right = (squared[None] < thresholds[:, None]) == same[None]
    accuracy, chosen = [], []
    for number in range(fold.max() + 1):
        best = np.argmax(right[:, fold != number].mean(1))
        accuracy.append(right[best, fold == number].mean())
        chosen.append(math.sqrt(thresholds[best]))
    return accuracy, chosen


def near(value: float, want: float) -> bool:
    return abs(value - want) <= 2e-7 * max(1, abs(want))  # a float's rounding


def test_the_numbers_are_scikit_learns(people):
    metrics = pytest.importorskip("sklearn.metrics")
    result = facenet(*people.call, "--json")
    assert result.returncode == 0 and UNTRAINED in result.stderr
    (got,) = lines(result)
    distance = np.array([people.apart[a, b] for a, b, _, _ in people.pairs])
    same = np.array([s for _, _, s, _ in people.pairs])
    fold = np.array([f for _, _, _, f in people.pairs])
    accuracy, chosen = accuracies(distance, same, fold)
    assert got["pairs"] == got["evaluated"] == len(same) and got["genuine"] == got["impostors"] == FOLDS * PAIRS
    assert 0.5 < np.mean(accuracy) < 1, "the made-up persons should be neither hopeless nor trivial"
    assert near(got["accuracy"]["mean"], np.mean(accuracy)) and near(got["accuracy"]["std"], np.std(accuracy))
    for given, want_accuracy, want_threshold in zip(got["accuracy"]["folds"], accuracy, chosen, strict=True):
        assert near(given["accuracy"], want_accuracy) and near(given["threshold"], want_threshold) and given["pairs"] == 2 * PAIRS
    assert near(got["auc"]["value"], metrics.roc_auc_score(same, -distance))
    low, high = got["auc"]["interval"]
    assert low <= got["auc"]["value"] <= high and low < high
    fpr, tpr, _ = metrics.roc_curve(same, -distance, drop_intermediate=False)
    for entry in got["tar"]:
        assert near(entry["tar"], tpr[fpr <= entry["far"] + 1e-12].max())
        assert entry["measurable"] == (entry["far"] * FOLDS * PAIRS >= 1) and entry["interval"][0] <= entry["tar"] <= entry["interval"][1]
    assert [entry["far"] for entry in got["tar"]] == [0.1, 0.01, 0.001, 0.0001]
    cross = np.argmax(fpr >= 1 - tpr)
    share = (1 - tpr[cross - 1] - fpr[cross - 1]) / (1 - tpr[cross - 1] - fpr[cross - 1] + fpr[cross] - 1 + tpr[cross])
    assert near(got["eer"]["rate"], fpr[cross - 1] + share * (fpr[cross] - fpr[cross - 1]))
    at = got["at_threshold"]
    assert at["false_accepts"] == (distance[~same] <= at["threshold"]).sum() and near(at["frr"], (distance[same] > at["threshold"]).mean())
    assert facenet(*people.call, "--json").stdout == result.stdout, "the bootstrap has a seed"
    text = facenet(*people.call)
    assert f"accuracy   {np.mean(accuracy):.4f}" in text.stdout and "EER" in text.stdout


def test_missing_faces_are_counted_twice_over(people, weights, tmp_path):  # noqa: F811
    images = tmp_path / "images"
    shutil.copytree(people.images, images)
    gone, broken = people.pairs[0][0], people.pairs[3][1]
    (images / people.files[gone].relative_to(people.images)).unlink()
    (images / people.files[broken].relative_to(people.images)).write_text("no picture")
    result = facenet("evaluate", "--pairs", people.pairs_file, "--images", images, "--aligned", "--weights", weights, "--json",
                     "--html", tmp_path / "x.html")
    assert result.returncode == 2 and people.files[gone].stem in result.stderr and people.files[broken].name in result.stderr
    (got,) = lines(result)
    lost = [{a, b} & {gone, broken} != set() for a, b, _, _ in people.pairs]
    assert got["pairs"] == len(people.pairs) and got["evaluated"] == len(people.pairs) - sum(lost)
    assert got["missing"]["genuine"] == sum(x and p[2] for x, p in zip(lost, people.pairs)) > 0
    assert got["missing"]["impostors"] == sum(x and not p[2] for x, p in zip(lost, people.pairs))
    assert got["missing"]["pictures_absent"] == 1 and got["missing"]["pictures_failed"] == 1
    distance = np.array([math.inf if x else people.apart[p[0], p[1]] for x, p in zip(lost, people.pairs)])
    same, fold = (np.array([p[i] for p in people.pairs]) for i in (2, 3))
    assert near(got["accuracy_missing_rejected"]["mean"], np.mean(accuracies(distance, same, fold)[0]))
    here = np.isfinite(distance)
    assert near(got["accuracy"]["mean"], np.mean(accuracies(distance[here], same[here], fold[here])[0]))
    assert f"{sum(lost)} pairs of {len(lost)} could not be compared" in Page((tmp_path / "x.html").read_text()).text


def test_pictures_without_a_face(weights, tmp_path):  # noqa: F811
    """With the detector: made-up pictures have no face, so no pair is left, and that is said."""
    make_people(tmp_path / "images", 2, 2)
    (tmp_path / "pairs.txt").write_text("1\nPerson_A\t1\t2\nPerson_A\t1\tPerson_B\t2\n")
    result = facenet("evaluate", "--pairs", tmp_path / "pairs.txt", "--images", tmp_path / "images", "--weights", weights,
                     "--detector", DETECTOR)
    assert result.returncode == 2 and "0 have both faces" in result.stderr and result.stdout == ""


def test_the_report(people, tmp_path):
    html = tmp_path / "report.html"
    result = facenet(*people.call, "--json", "--html", html)
    assert result.returncode == 0
    (got,) = lines(result)
    source = html.read_text(encoding="utf-8")
    page = Page(source)
    assert not page.all("script") and not page.all("link") and "http" not in source and "@import" not in source
    images = [image["src"] for image in page.all("img")]
    assert len(images) == 20 and all(decode(uri).size == (160, 160) for uri in images)
    for part in (f"{100 * got['accuracy']['mean']:.2f} %", f"{got['auc']['value']:.4f}", "UNTRAINED".lower(), "<path class=curve",
                 "prefers-color-scheme:dark", "viewport", f"threshold {got['at_threshold']['threshold']:.3g}"):
        assert part in source, part
    # The curve ends at (1, 1), and the worst pairs are the worst.
    threshold = got["at_threshold"]["threshold"]
    wrong = sorted(((people.apart[a, b] - threshold) * (1 if same else -1) for a, b, same, _ in people.pairs), reverse=True)
    shown = [float(part.split(",")[0]) for part in source.split("<p><strong>")[1:]]
    assert len(shown) == 10
    for value, want in zip(shown, wrong):
        assert min(abs(value - threshold - want), abs(threshold - value - want)) < 6e-4
    assert facenet(*people.call, "--html", tmp_path / "no" / "x.html").returncode == 2


def test_it_goes_on_where_it_was(people):
    cache = people.images.with_name("images.embeddings")
    assert cache.exists(), "beside the folder by default"
    with sqlite3.connect(f"file:{cache}?mode=ro", uri=True) as database:
        assert database.execute("SELECT count(*) FROM faces").fetchone()[0] >= len({x for p in people.pairs for x in p[:2]})


@pytest.mark.parametrize(("text", "parts"), [
    ("", ["empty"]), ("2\t3\nA\t1\t2\n", ["too short"]), ("x\n", ["line 1", "number"]),
    ("1\nPerson_A\t1\t2\nPerson_A\t1\n", ["line 3"]), ("1\nPerson_A\t0\t2\nPerson_A\t1\tPerson_B\t1\n", ["line 2"]),
])
def test_bad_lists(people, tmp_path, text, parts):
    (tmp_path / "pairs.txt").write_text(text)
    call = [*people.call[:2], tmp_path / "pairs.txt", *people.call[3:]]
    assert_sentence(facenet(*call), "pairs.txt", *parts)


NOT_UTF8 = [
    ("1\nP\u00e9\t1\t2\nP\u00e9\t1\tQ\t1\n".encode("latin-1"), "line 2 is not UTF-8, and no folder of "),
    ("1\nP\t1\t2\n".encode("utf-16"), "line 1 is not UTF-8 (it looks like UTF-16), and no folder of "),
]


@pytest.mark.parametrize("text, part", NOT_UTF8)
def test_lists_that_are_not_utf8(people, tmp_path, text, part):
    """A name that is not stays one where a folder has it; a mark of the order of bytes is none."""
    (tmp_path / "pairs.txt").write_bytes(text)
    call = [*people.call[:2], tmp_path / "pairs.txt", *people.call[3:]]
    assert_sentence(facenet(*call), f"pairs.txt: {part}", "save the list as UTF-8")
    (tmp_path / "pairs.txt").write_bytes(b"\xef\xbb\xbf" + people.pairs_file.read_bytes())
    assert facenet(*call).returncode == facenet(*people.call).returncode
    images = tmp_path / "images"
    for name in ("P\u00e9".encode("latin-1"), b"Q"):
        for number, picture in enumerate(sorted(people.images.rglob("*.png"))[:2], 1):
            (folder := images / os.fsdecode(name)).mkdir(parents=True, exist_ok=True)
            shutil.copy(picture, folder / f"{os.fsdecode(name)}_{number:04d}.png")
    (tmp_path / "pairs.txt").write_bytes(NOT_UTF8[0][0])
    again = ["evaluate", "--pairs", tmp_path / "pairs.txt", "--images", images, *people.call[5:]]
    result = facenet(*again, "--cache", "none")
    assert "UTF-8" not in result.stderr, result.stderr


@pytest.mark.parametrize("text, part", [(b'{\n"format": "\xff"}', "line 2 is not UTF-8; "), ('{"a": 1}'.encode("utf-16"), "line 1 is not UTF-8 (it looks like UTF-16); ")])
def test_a_threshold_file_that_is_not_utf8(people, tmp_path, text, part):
    (tmp_path / "t").write_bytes(text)
    assert_sentence(facenet(*people.call, "--threshold", tmp_path / "t"), f"t: this is no threshold file: {part}", "a file that 'facenet calibrate' wrote")


def test_mistakes(people, tmp_path):
    call = people.call
    assert_sentence(facenet(*call[:2], tmp_path / "none", *call[3:]), "none", "cannot be read")
    assert_sentence(facenet(*call[:4], tmp_path / "none", *call[5:]), "none", "not a folder")
    assert_sentence(facenet("evaluate", "--images", tmp_path), "--pairs")


# ---- calibration and threshold files ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def calibrated(people, weights, tmp_path_factory):  # noqa: F811
    file = tmp_path_factory.mktemp("calibrated") / "people.threshold"
    result = facenet("calibrate", people.images, "--aligned", "--weights", weights, "--far", "0.15", "-o", file, "--json")
    assert result.returncode == 0, result.stderr
    assert result.stdout == file.read_text() and UNTRAINED in result.stderr
    return file


def test_the_threshold_is_the_one_that_was_asked_for(people, calibrated):
    got = json.loads(calibrated.read_text())
    owner = np.arange(PERSONS * EACH) // EACH
    upper = np.triu_indices(len(owner), 1)
    apart, same = people.apart[upper], (owner[:, None] == owner)[upper]
    allowed = math.floor(0.15 * (~same).sum())
    impostors = np.sort(apart[~same])
    assert got["format"] == "facenet-threshold" and got["version"] == 1 and got["metric"] == "euclidean"
    assert got["persons"] == PERSONS and got["pictures"] == len(owner)
    assert got["impostor_pairs"] == (~same).sum() and got["genuine_pairs"] == same.sum()
    assert impostors[allowed - 1] <= got["threshold"] < impostors[allowed] and got["false_accepts"] == allowed
    assert got["false_rejects"] == (apart[same] > got["threshold"]).sum()
    assert near(got["far"], allowed / len(impostors)) and near(got["frr"], got["false_rejects"] / same.sum())
    low, high = got["far_interval"]
    assert low < got["far"] < high and high - low > 0.2, "28 pairs of persons are few"


def test_a_threshold_for_a_gallery(people, weights, tmp_path):  # noqa: F811
    """Galleries of three that can be drawn from the seven others, counted; galleries of twenty as if persons were independent."""
    call = ["calibrate", people.images, "--aligned", "--weights", weights, "--json", "--fpir", "0.4", "--gallery-size"]
    owner = np.arange(PERSONS * EACH) // EACH
    to_person = np.where(np.eye(len(owner), dtype=bool), np.inf, people.apart).reshape(len(owner), PERSONS, EACH).min(2)
    others = np.array([np.delete(row, own) for row, own in zip(to_person, owner, strict=True)])
    own = to_person[np.arange(len(owner)), owner]

    def drawn(size: int, threshold: float) -> tuple[float, float]:
        named = [(others[:, list(some)].min(1) <= threshold).mean() for some in itertools.combinations(range(PERSONS - 1), size)]
        company = itertools.combinations(range(PERSONS - 1), size - 1)
        missed = [((own > threshold) | (others[:, list(some)].min(1, initial=np.inf) < own)).mean() for some in company]
        return float(np.mean(named)), float(np.mean(missed))

    (got,) = lines(facenet(*call, 3))
    fpir, fnir = drawn(3, got["threshold"])
    assert got["fpir_method"] == "drawn galleries" and near(got["fpir"], fpir) and near(got["fnir"], fnir)
    assert fpir <= 0.4 < drawn(3, np.min(others[others > got["threshold"]]))[0], "it is the largest"
    assert got["fpir_interval"][0] < fpir < got["fpir_interval"][1] and got["gallery_size"] == 3 and "far_target" not in got
    text = facenet(*[a for a in call if a != "--json"], 3, "-o", tmp_path / "x")
    assert text.returncode == 0 and "among 3 persons (galleries drawn from these)" in text.stdout
    assert_sentence(facenet(*call, 20), "0.4 among 20 persons", f"there are {PERSONS}", "--gallery-size")
    assert_sentence(facenet(*call[:-2], "0.3", "--gallery-size", 3), "3 / rate persons", "so 10 persons")
    assert_sentence(facenet(*call[:-3], "--gallery-size", 3), "--fpir")
    assert_sentence(facenet(*call, 3, "--far", 0.2), "--far and --fpir")


def test_a_rate_that_the_pictures_cannot_support(people, weights, tmp_path):  # noqa: F811
    call = ["calibrate", people.images, "--aligned", "--weights", weights]
    assert_sentence(facenet(*call, "-o", tmp_path / "x"), "0.001", "3000 pairs", "78 persons", f"there are {PERSONS}", "--far 0.1")
    assert not (tmp_path / "x").exists()
    suggested = facenet(*call).stderr.split("--far ")[1].split(" ")[0]
    assert facenet(*call, "--far", suggested).returncode == 0
    assert_sentence(facenet(*call, "--far", "2"), "--far")
    (tmp_path / "single").mkdir()
    for number, file in enumerate(people.files[::EACH]):
        (tmp_path / "single" / str(number)).mkdir()
        shutil.copy(file, tmp_path / "single" / str(number))
    assert_sentence(facenet("calibrate", tmp_path / "single", "--aligned", "--weights", weights, "--far", "0.2"), "no person has two")
    assert_sentence(facenet("calibrate", people.images / "Person_A", "--aligned", "--weights", weights), "a folder for each person")


def test_too_few_persons_are_refused_before_the_work(people, tmp_path):
    """Not even the weights are looked at."""
    result = facenet("calibrate", people.images, "--aligned", "--weights", tmp_path / "none", "--far", "1e-3")
    assert_sentence(result, "78 persons", f"there are {PERSONS},")
    assert "none" not in result.stderr


def test_equal_pictures_are_named_and_counted_apart(people, weights, tmp_path):  # noqa: F811
    """Twice under one person: a pair with itself says nothing. Under two: one of the names is wrong."""
    images = tmp_path / "images"
    shutil.copytree(people.images, images)
    a, b = (images / f"Person_{x}" for x in "AB")
    shutil.copy(a / "Person_A_0001.png", a / "Person_A_0009.png")
    shutil.copy(a / "Person_A_0002.png", b / "Person_B_0009.png")
    call = ["calibrate", images, "--aligned", "--weights", weights, "--far", "0.15", "--cache", "none"]
    result = facenet(*call)
    (got,) = lines(result)
    assert result.returncode == 0 and (got["pictures_twice"], got["pictures_under_two_persons"]) == (1, 2)
    twice, two = (line for line in result.stderr.splitlines() if "same picture" in line)
    assert f"{a / 'Person_A_0009.png'}: " in twice and "Person_A_0001.png" in twice and "one" not in two
    assert f"{b / 'Person_B_0009.png'}: " in two and "Person_A_0002.png" in two and "under two persons" in two
    # The numbers are those of a folder without the copies and the picture that stands under two.
    for extra in (a / "Person_A_0009.png", a / "Person_A_0002.png", b / "Person_B_0009.png"):
        extra.unlink()
    (want,) = lines(facenet(*call))
    assert {k: v for k, v in got.items() if "twice" not in k and "under" not in k} == {
        k: v for k, v in want.items() if "twice" not in k and "under" not in k}
    # A list of pairs: the same, and the report says it.
    shutil.copy(a / "Person_A_0001.png", a / "Person_A_0009.png")
    shutil.copy(a / "Person_A_0003.png", b / "Person_B_0009.png")
    extra = ["Person_A\t1\t9", "Person_A\t3\t4", "Person_B\t9\tPerson_C\t1", "Person_A\t3\tPerson_B\t9"]
    plain = ["Person_A\t1\t4", "Person_B\t1\t2", "Person_C\t1\t2", "Person_A\t1\tPerson_B\t1", "Person_A\t4\tPerson_C\t2",
             "Person_B\t2\tPerson_D\t1"]
    measured = []
    for rows in (plain, [*plain, *extra]):
        rows = sorted(rows, key=lambda row: row.count("\t"))  # those of one person first
        (tmp_path / "pairs.txt").write_text(f"{len(rows) // 2}\n" + "\n".join(rows) + "\n")
        call = ["evaluate", "--pairs", tmp_path / "pairs.txt", "--images", images, "--aligned", "--weights", weights, "--cache", "none"]
        result = facenet(*call, "--json", "--html", tmp_path / "page.html")
        assert result.returncode == 0, result.stderr
        measured.append(lines(result)[0])
    want, got = measured
    assert want["equal"] == {"genuine": 0, "impostors": 0, "pictures_twice": 0, "pictures_under_two_persons": 0}
    assert got["equal"] == {"genuine": 2, "impostors": 2, "pictures_twice": 1, "pictures_under_two_persons": 2}
    assert (got["pairs"], got["evaluated"], got["missing"]["genuine"]) == (10, 6, 0)
    assert all(got[key] == want[key] for key in ("auc", "eer", "genuine", "impostors", "at_threshold"))
    assert result.stderr.count("same picture") == 2 and "4 pairs (2 of one person) left out" in (tmp_path / "page.html").read_text()


def dead(weights: pathlib.Path, path: pathlib.Path, value: float) -> pathlib.Path:  # noqa: F811
    """The file with a last layer, its batch norm folded, whose weights and biases are multiplied by `value`."""
    with safe_open(weights, framework="np") as file:
        tensors, said = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()
    for name in ("weight", "bias"):
        tensors[f"last_linear.{name}"] *= np.float32(value)
    safetensors_writer.write(str(path), tensors, {k: v for k, v in said.items() if not k.endswith("_xxh64")}, hashes=True)
    return path


@pytest.mark.parametrize("value", [0, 1e-20])
def test_an_embedding_of_nothing_is_no_answer(people, weights, tmp_path, value):  # noqa: F811
    """Zero, or shorter than l2's epsilon: it would be anybody's."""
    file = dead(weights, tmp_path / "dead.safetensors", value)
    aligned = ["--aligned", "--weights", file, "--threads", 1]
    for call in (["embed", *people.files[:1]], ["verify", *people.files[:2]], ["enroll", tmp_path / "g", "Ada", people.files[0]]):
        result = facenet(*call, *aligned)
        assert result.returncode == 2 and result.stdout == "" and "zero or too short" in result.stderr
        assert f"{people.files[0]}: " in result.stderr and "convert them again" in result.stderr
    assert not (tmp_path / "g").exists()
    few = tmp_path / "few"
    for person in "ABCD":
        shutil.copytree(people.images / f"Person_{person}", few / f"Person_{person}")
    pairs = tmp_path / "pairs.txt"
    pairs.write_text("1\nPerson_A\t1\t2\nPerson_A\t1\tPerson_B\t1\n")
    for call in (["cluster", few], ["calibrate", few, "--far", "0.5"], ["evaluate", "--pairs", pairs, "--images", few]):
        result = facenet(*call, *aligned, "--cache", "none")
        assert result.returncode == 2 and result.stdout == "" and "Person_A_0001.png: " in result.stderr and "zero or too short" in result.stderr


def test_verify_takes_the_file(people, calibrated, weights, converted, tmp_path):  # noqa: F811
    threshold = json.loads(calibrated.read_text())["threshold"]
    for a, b in itertools.islice(itertools.combinations(range(0, PERSONS * EACH, 3), 2), 12):
        result = facenet("verify", "--aligned", "--json", "--weights", weights, "--threshold", calibrated, people.files[a], people.files[b])
        (got,) = lines(result)
        assert got["threshold"] == pytest.approx(threshold, rel=1e-7) and got["same"] == (people.apart[a, b] <= threshold)
        assert result.returncode == (0 if got["same"] else 1)
    call = ["verify", "--aligned", people.files[0], people.files[1], "--threshold"]
    assert_sentence(facenet(*call, calibrated, "--weights", converted["f16"]), "people.threshold", "another model")
    good = json.loads(calibrated.read_text())
    for change, part in (({"format": "other"}, "no threshold file"), ({"version": 2}, "version 2"), ({"metric": "cosine"}, "cosine"),
                         ({"threshold": -1}, "no distance"), ({"threshold": "x"}, "damaged"), ({"model": None}, "damaged")):
        (tmp_path / "x").write_text(json.dumps(good | change))
        assert_sentence(facenet(*call, tmp_path / "x", "--weights", weights), "/x:", part)
    (tmp_path / "x").write_bytes(b"\xff\x00[")
    assert_sentence(facenet(*call, tmp_path / "x", "--weights", weights), "no threshold file")
    assert_sentence(facenet(*call, tmp_path / "none", "--weights", weights), "none")
    assert_sentence(facenet(*call, tmp_path, "--weights", weights), str(tmp_path))
