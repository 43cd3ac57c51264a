"""What a run looks like: loss, learning rate and accuracy over steps, and the best epoch's ROC, as PNG."""

from __future__ import annotations

import csv
import io
import pathlib

import numpy as np

from facenet_tools import cli
from facenet_tools.cli import ToolError
from facenet_tools.training.protocol import Score


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The columns of a CSV file of numbers."""
    remedy = "train.py writes it; remove it, or take the run's folder as it was."
    rows = list(csv.DictReader(io.StringIO(cli.decoded(path.read_bytes(), path, remedy), newline="")))
    names = rows[0].keys() if rows else []
    numbers = {name: [] for name in names}
    for line, row in enumerate(rows, 2):
        for name in names:
            try:
                numbers[name].append(float(row[name]))
            except (TypeError, ValueError) as error:
                raise ToolError(f"{path}: line {line}: {name} is no number; {remedy}") from error
    return {name: np.array(column) for name, column in numbers.items()}


def figure(width: float, height: float, columns: int, rows: int = 1):
    """matplotlib without a window; its axes flat."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    canvas, axes = pyplot.subplots(rows, columns, figsize=(width, height), layout="constrained", squeeze=False)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    return canvas, list(axes.flat)


def save(canvas, path: pathlib.Path) -> None:
    from matplotlib import pyplot

    canvas.savefig(path, dpi=110, metadata={"Software": None})  # the same bytes from the same numbers
    pyplot.close(canvas)


def _smooth(values: np.ndarray) -> np.ndarray:
    window = max(1, len(values) // 40)
    padded = np.concatenate([np.full(window - 1, values[0]), values])
    return np.convolve(padded, np.ones(window) / window, "valid")


def draw(folder: pathlib.Path, margin: float | None, best: Score | None) -> None:
    """FOLDER/curves.png from its steps.csv and epochs.csv. margin: the triplet loss's, where a collapsed loss stays."""
    steps, epochs = read(folder / "steps.csv"), read(folder / "epochs.csv")
    if not steps:
        return
    canvas, (loss, distances, accuracy, curve) = figure(15, 3.6, 4)
    loss.plot(steps["step"], steps["loss"], alpha=0.3, linewidth=0.8)
    loss.plot(steps["step"], _smooth(steps["loss"]), color="C0")
    if margin is not None:
        loss.axhline(margin, color="C3", linestyle=":", label="margin: the loss of collapsed embeddings")
        loss.legend(loc="lower left", fontsize=7)
    loss.set(title="loss", xlabel="step", ylim=(0, None))
    for name, label in (("genuine", "of one person"), ("impostor", "of two people")):
        distances.plot(steps["step"], _smooth(steps[name]), label=label)
    distances.set(title="mean distance in a batch", xlabel="step", ylim=(0, None))
    distances.legend(fontsize=8)
    if epochs:
        accuracy.plot(epochs["step"], epochs["accuracy"], marker="o", label="accuracy, 10 folds")
        accuracy.plot(epochs["step"], epochs["auc"], marker="o", label="AUC")
        accuracy.legend(fontsize=8, loc="lower right")
    accuracy.set(title="people held out", xlabel="step", ylim=(0.45, 1.01))
    if best is not None:
        curve.plot(best.fpr, best.tpr)
        curve.set_title(f"ROC, AUC {best.auc:.4f}")
    curve.plot([0, 1], [0, 1], color="grey", linestyle=":")
    curve.set(xlabel="impostors accepted", ylabel="genuine accepted")
    save(canvas, folder / "curves.png")
