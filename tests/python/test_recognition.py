"""gallery.hpp, cluster.hpp and evaluate.hpp against NumPy, scikit-learn and davidsandberg's facenet package."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import types
from unittest import mock

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = ROOT / os.environ.get("FACENET_BUILD", "build/release")
SANDBERG = ROOT / ".deps" / "davidsandberg" / "facenet.py"
MATCH = np.dtype([("id", "u8"), ("person", "u8"), ("distance", "f8"), ("similarity", "f8")])
METRICS = ("euclidean", "cosine")


class Tool:
    """Runs facenet_recognition_tool and speaks its protocol (tests/recognition_tool.cpp)."""

    def __init__(self, path: pathlib.Path) -> None:
        self.process = subprocess.Popen([str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, line: str, *arrays: np.ndarray | bytes, dtype: str | np.dtype = "f8") -> np.ndarray:
        data = b"".join(a if isinstance(a, bytes) else np.ascontiguousarray(a).tobytes() for a in arrays)
        self.process.stdin.write(line.encode() + b"\n" + data)
        self.process.stdin.flush()
        answer = self.process.stdout.readline().decode()
        assert answer.startswith("ok "), f"{line}: {answer}"
        return np.frombuffer(self.process.stdout.read(int(answer.split()[1])), dtype)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


@pytest.fixture(scope="module")
def tool():
    path = BUILD / "facenet_recognition_tool"
    if not path.exists():
        pytest.skip(f"facenet_recognition_tool is not built in {BUILD}: run cmake --build, or set FACENET_BUILD")
    tool = Tool(path)
    yield tool
    tool.close()


def faces(rng: np.random.Generator, n: int, dim: int, persons: int, spread: float, unit: bool = True) -> np.ndarray:
    centre = rng.normal(size=(persons, dim))
    e = centre[rng.integers(persons, size=n)] + spread * rng.normal(size=(n, dim))
    return (e / np.linalg.norm(e, axis=1, keepdims=True) if unit else e).astype(np.float32)


def distances(a: np.ndarray, b: np.ndarray, metric: str) -> np.ndarray:
    """In double, from the definition: no a^2 + b^2 - 2ab, which loses digits."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    if metric == "euclidean":
        return np.array([np.sqrt(((row - b) ** 2).sum(axis=1)) for row in a])
    return 1 - a @ b.T / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)


# ---- Gallery -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("half", [0, 1], ids=["f32", "f16"])
@pytest.mark.parametrize("metric", [0, 1], ids=METRICS)
@pytest.mark.parametrize("persons", [0, 1], ids=["templates", "persons"])
def test_search_is_brute_force_in_double(tool, metric, half, persons) -> None:
    rng = np.random.default_rng(1)
    n, dim, queries, k = 5000, 128, 40, 10
    e = faces(rng, n, dim, 300, 0.8, unit=False)
    person = rng.integers(400, size=n).astype(np.uint64)
    q = np.concatenate([e[:20], faces(rng, queries - 20, dim, 300, 0.8, unit=False)])
    stored = e.astype(np.float16).astype(np.float32) if half else e
    want = distances(q, stored, METRICS[metric])
    threshold = float(np.quantile(want, 0.002))
    got = tool.ask(f"search {n} {dim} {metric} {half} {queries} {k} 2 {persons} {threshold!r}", e, person, q, dtype=MATCH)
    got = got.reshape(queries, k)
    for row, all_distances in zip(got, want):
        order = np.argsort(all_distances, kind="stable")
        if persons:
            order = order[np.sort(np.unique(person[order], return_index=True)[1])]
            order = order[all_distances[order] <= threshold]
        order = order[:k]
        found = row[row["id"] != np.uint64(2**64 - 1)]
        assert np.array_equal(found["id"], order)
        assert np.array_equal(found["person"], person[order])
        # Two sums of 128 products in double, in different orders: 2 * 128 * 2^-53 of what is summed (1 for a cosine).
        np.testing.assert_allclose(found["distance"], all_distances[order], rtol=3e-14, atol=3e-14 if metric else 3e-7)
    counts = (got["id"] != np.uint64(2**64 - 1)).sum(axis=1)
    assert not persons or (counts.min() < k and counts.max() > 0), "the threshold leaves nobody out, so it is not tested"


# ---- Clusters --------------------------------------------------------------------------------------------------------------


def renamed(labels: np.ndarray) -> np.ndarray:
    """Numbered by first appearance, noise kept."""
    names = {-1: -1}
    return np.array([names.setdefault(int(label), len(names) - 1) for label in labels])


CLUSTER_DATA = [  # n, dim, persons, spread, unit
    (50, 8, 5, 0.3, True), (400, 128, 30, 0.5, True), (300, 128, 30, 0.7, False), (500, 512, 60, 1.0, True),
    (800, 2, 15, 0.15, False), (400, 64, 400, 0.5, True),
]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("data", CLUSTER_DATA, ids=lambda d: f"{d[0]}x{d[1]}")
def test_dbscan_is_scikit_learns(tool, data, metric) -> None:
    cluster = pytest.importorskip("sklearn.cluster")
    n, dim, persons, spread, unit = data
    e = faces(np.random.default_rng(n + dim), n, dim, persons, spread, unit)
    all_distances = distances(e, e, metric)[np.triu_indices(n, 1)]
    for part in (0.001, 0.01, 0.05, 0.5):
        # Half-way between two distances: nobody's last bit decides. scikit-learn gets doubles, since it sums floats' cosines in float.
        at = np.partition(all_distances, [int(part * len(all_distances)), int(part * len(all_distances)) + 1])
        eps = float(at[int(part * len(at)) : int(part * len(at)) + 2].mean())
        for min_samples in (1, 2, 5):
            want = cluster.DBSCAN(eps=eps, min_samples=min_samples, metric=metric).fit(e.astype(np.float64)).labels_
            got = tool.ask(f"dbscan {n} {dim} {METRICS.index(metric)} {eps!r} {min_samples} 2", e, dtype="i4")
            assert np.array_equal(got, want), f"part {part}, min_samples {min_samples}: {(got != want).sum()} labels differ"


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("data", CLUSTER_DATA, ids=lambda d: f"{d[0]}x{d[1]}")
def test_average_link_is_scikit_learns(tool, data, metric) -> None:
    cluster = pytest.importorskip("sklearn.cluster")
    n, dim, persons, spread, unit = data
    e = faces(np.random.default_rng(n + dim), n, dim, persons, spread, unit)
    tree = cluster.AgglomerativeClustering(None, linkage="average", metric=metric, distance_threshold=0.0)
    heights = np.sort(tree.fit(e.astype(np.float64)).distances_)
    for clusters in (2, max(3, n // 20), n // 4, n // 2):
        # Cut in the middle of the widest gap nearby. Means are kept in float: one nearer than 1e-6 to the cut could fall on
        # the other side, and the gap rules that out.
        near = np.arange(max(1, n - clusters - n // 20 - 1), min(n - 1, n - clusters + n // 20))
        i = near[np.argmax(heights[near] - heights[near - 1])]
        assert heights[i] - heights[i - 1] > 1e-5 * heights[i]
        threshold = float((heights[i] + heights[i - 1]) / 2)
        model = cluster.AgglomerativeClustering(None, linkage="average", metric=metric, distance_threshold=threshold)
        want = model.fit(e.astype(np.float64)).labels_
        got = tool.ask(f"average {n} {dim} {METRICS.index(metric)} {threshold!r} 2", e, dtype="i4")
        # scikit-learn's numbers depend on its heap, so clusters are compared, not their names.
        assert np.array_equal(got, renamed(want)), f"{clusters} clusters"


def test_chinese_whispers_finds_persons(tool) -> None:
    rng = np.random.default_rng(3)
    e = faces(rng, 600, 128, 25, 0.5)
    got = tool.ask("whispers 600 128 0 1.0 50 1 2", e, dtype="i4")
    truth = renamed(distances(e, e, "euclidean").__lt__(1.0).argmax(axis=1))
    assert np.array_equal(got, truth)


# ---- Evaluation --------------------------------------------------------------------------------------------------------------


def pairs(rng: np.random.Generator, n: int, dim: int = 64) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embeddings a[i], b[i] of n pairs, and whether they are one person's: every other run of ten."""
    same = (np.arange(n) // 10 % 2 == 0).astype(np.uint8)
    a = faces(rng, n, dim, n, 1.0).astype(np.float64)
    other = faces(rng, n, dim, n, 1.0).astype(np.float64)
    b = np.where(same[:, None] == 1, a + 0.17 * rng.normal(size=a.shape), other + 0.5 * a)
    return a, b / np.linalg.norm(b, axis=1, keepdims=True), same


@pytest.mark.parametrize("digits", [15, 2, 1])
def test_roc_and_auc_are_scikit_learns(tool, digits) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    for seed, n in enumerate((2, 20, 600, 6000)):
        rng = np.random.default_rng(seed)
        same = (rng.random(n) < 0.4).astype(np.uint8)
        same[:2] = 0, 1
        d = np.abs(np.round(np.where(same == 1, 0.8, 1.3) + 0.3 * rng.normal(size=n), digits))
        for drop in (False, True):
            got = tool.ask(f"roc {n} {int(drop)}", d, same)
            curve, (auc, eer, _) = got[:-3].reshape(-1, 3), got[-3:]
            fpr, tpr, threshold = metrics.roc_curve(same, -d, drop_intermediate=drop)
            assert np.array_equal(curve[:, 0], fpr)
            assert np.array_equal(curve[:, 1], tpr)
            assert np.array_equal(-curve[:, 2], threshold)
            assert auc == pytest.approx(metrics.roc_auc_score(same, -d), abs=1e-13)  # n sums of one: n * 2^-53
        # The usual EER: where the line between the curve's points meets FRR = FAR.
        from scipy.interpolate import interp1d
        from scipy.optimize import brentq

        steps = np.r_[True, np.diff(fpr) > 0]
        if fpr[-1] > 0 and (tpr[steps] > 0).any():
            want = brentq(lambda x: 1 - x - float(interp1d(fpr, tpr)(x)), 0.0, 1.0)
            crossed = np.diff(fpr) == 0  # on a vertical line interp1d may take either end
            if not crossed.any() or abs(want - eer) < 1e-9:
                assert eer == pytest.approx(want, abs=1e-9)
        for far in (1e-1, 1e-2, 1e-3, 1e-4):
            tar, at, actual = tool.ask(f"tar {n} {far!r}", d, same)
            assert tar == max(t for f, t in zip(*metrics.roc_curve(same, -d, drop_intermediate=False)[:2]) if f <= far)
            assert actual <= far
            assert tar == np.mean(d[same == 1] <= at)


@pytest.fixture(scope="module")
def sandberg():
    """davidsandberg's facenet.py, with stand-ins for the modules that its evaluation does not use."""
    if not SANDBERG.exists():
        pytest.skip("davidsandberg's facenet.py is not there: run tools/bootstrap.sh")
    pytest.importorskip("sklearn")

    unused = ("tensorflow", "tensorflow.python", "tensorflow.python.training", "tensorflow.python.platform", "scipy.misc", "six")
    module = types.ModuleType("davidsandberg_facenet")
    with mock.patch.dict(sys.modules, {name: mock.MagicMock() for name in unused}):
        exec(compile(SANDBERG.read_text(), str(SANDBERG), "exec"), module.__dict__)
    return module


@pytest.mark.parametrize("n", [100, 605, 6000])
def test_fold_accuracies_are_davidsandbergs(tool, sandberg, n) -> None:
    a, b, same = pairs(np.random.default_rng(n), n)
    thresholds = np.arange(0, 4, 0.01)
    tpr, fpr, accuracy = sandberg.calculate_roc(thresholds, a, b, same == 1, nrof_folds=10)
    d = np.sum(np.square(np.subtract(a, b)), 1)
    got = tool.ask(f"folds {n} 10", d, same)
    folds, (mean, deviation) = got[:-2].reshape(10, 4), got[-2:]
    assert np.array_equal(folds[:, 0], accuracy)
    assert mean == pytest.approx(np.mean(accuracy), abs=1e-15)
    assert deviation == pytest.approx(np.std(accuracy), abs=1e-14)
    assert 0.6 < mean < 1, "the data are too easy or too hard to tell anything"


def test_pairs_of_a_whole_file(tool) -> None:
    rng = np.random.default_rng(9)
    lines, want = ["10\t300"], []
    for fold in range(10):
        for _ in range(300):
            i, j = (int(v) for v in rng.integers(1, 500, 2))
            lines.append(f"Person_{rng.integers(6000)}\t{i}\t{j}")
            want.append((i, j, fold, 1))
        for _ in range(300):
            i, j = (int(v) for v in rng.integers(1, 500, 2))
            lines.append(f"Person_{rng.integers(6000)}\t{i}\tNaïve_Person_{rng.integers(6000)}\t{j}")
            want.append((i, j, fold, 0))
    data = "\n".join(lines).encode()
    assert np.array_equal(tool.ask(f"pairs {len(data)}", data, dtype="i4").reshape(-1, 4), want)
