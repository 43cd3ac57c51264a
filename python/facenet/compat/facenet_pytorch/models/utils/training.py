"""facenet_pytorch.models.utils.training: a loop over batches, and what it shows. The network here cannot be trained; yours can."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from facenet.compat.facenet_pytorch import _backend


class Logger:
    """Prints a line of losses and metrics over itself."""

    def __init__(self, mode: str, length: int, calculate_mean: bool = False) -> None:
        self.mode = mode
        self.length = length
        self.calculate_mean = calculate_mean

    def fn(self, value: Any, i: int) -> Any:
        return value / (i + 1) if self.calculate_mean else value

    def __call__(self, loss: Any, metrics: Any, i: int) -> None:
        shown = " | ".join(f"{name}: {float(self.fn(value, i)):9.4f}" for name, value in metrics.items())
        print(f"\r{self.mode} | {i + 1:5d}/{self.length:<5d}| loss: {float(self.fn(loss, i)):9.4f} | {shown}   ", end="")
        if i + 1 == self.length:
            print("")


class BatchTimer:
    """Seconds since the last call, or calls a second; for each sample or each batch."""

    def __init__(self, rate: bool = True, per_sample: bool = True) -> None:
        self.start = time.time()
        self.end: float | None = None
        self.rate = rate
        self.per_sample = per_sample

    def __call__(self, y_pred: Any, y: Any) -> Any:
        now = time.time()
        elapsed = now - self.start
        self.start = now
        if self.per_sample:
            elapsed /= len(y_pred)
        if self.rate:
            elapsed = 1 / elapsed if elapsed > 0 else float("inf")
        return np.float32(elapsed) if _backend.torch is None else _backend.torch.tensor(elapsed)


def accuracy(logits: Any, y: Any) -> Any:
    """The share of rows whose largest logit is the label's."""
    if _backend.is_tensor(logits):
        return (logits.max(1).indices == y).float().mean()
    return (np.asarray(logits).argmax(1) == np.asarray(y)).astype(np.float32).mean()


def _loose(value: Any) -> Any:
    return value.detach().cpu() if hasattr(value, "detach") else value


def pass_epoch(
    model: Any,
    loss_fn: Any,
    loader: Any,
    optimizer: Any = None,
    scheduler: Any = None,
    batch_metrics: Any = None,
    show_running: bool = True,
    device: Any = "cpu",
    writer: Any = None,
) -> Any:
    """Trains a model, or evaluates it, over a loader: (mean loss, mean of each metric)."""
    batch_metrics = {"time": BatchTimer()} if batch_metrics is None else batch_metrics
    mode = "Train" if model.training else "Valid"
    logger = Logger(mode, length=len(loader), calculate_mean=show_running)
    loss: Any = 0
    metrics: dict[str, Any] = {}
    count = 0
    for x, y in loader:
        if _backend.torch is not None:
            x, y = x.to(device), y.to(device)
        y_pred = model(x)
        loss_batch = loss_fn(y_pred, y)
        if model.training:
            loss_batch.backward()
            optimizer.step()
            optimizer.zero_grad()
        metrics_batch = {name: _loose(metric(y_pred, y)) for name, metric in batch_metrics.items()}
        for name, value in metrics_batch.items():
            metrics[name] = metrics.get(name, 0) + value
        if writer is not None and model.training:
            if writer.iteration % writer.interval == 0:
                writer.add_scalars("loss", {mode: _loose(loss_batch)}, writer.iteration)
                for name, value in metrics_batch.items():
                    writer.add_scalars(name, {mode: value}, writer.iteration)
            writer.iteration += 1
        loss_batch = _loose(loss_batch)
        loss += loss_batch
        logger(loss if show_running else loss_batch, metrics if show_running else metrics_batch, count)
        count += 1
    if count == 0:
        raise _backend.InputError("pass_epoch: the loader has no batch; give it samples.")
    if model.training and scheduler is not None:
        scheduler.step()
    loss = loss / count
    metrics = {name: value / count for name, value in metrics.items()}
    if writer is not None and not model.training:
        writer.add_scalars("loss", {mode: _loose(loss)}, writer.iteration)
        for name, value in metrics.items():
            writer.add_scalars(name, {mode: value})
    return loss, metrics


def collate_pil(x: Any) -> tuple[list[Any], list[Any]]:
    """For a DataLoader of pictures: (pictures, labels), as lists."""
    pairs = list(x)
    return [picture for picture, _ in pairs], [label for _, label in pairs]
