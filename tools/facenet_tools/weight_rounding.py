"""Rounding a convolution's weights to integers so that their errors make up for each other on what the layer reads.

Frantar, Ashkboos, Hoefler, Alistarh, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", 2023:
inputs are rounded one after the other, and what rounding one changes in the sums is taken back by those that are not rounded yet.
Here the mean of the error is no part of it, since the bias gives that back. On people whom calibration had not seen, distances of
Inception-ResNet-v1 of an eighth of the width change by 0.0060 instead of 0.0081 RMS. dlib's network gains nothing: 0.0034, 0.0032.

x86 without VNNI has an instruction that adds two products in 16 bits, and is exact where 255 * (|w0| + |w1|) fits them. So the weights
of input channels 2 j and 2 j + 1 keep to PAIR together, wherever there is an even number of channels: those of the first layer do not.
The engine looks at the weights, and multiplies others more slowly. On three sets of people, distances of Inception-ResNet-v1 of half the
width change by 0.0023, 0.0022 and 0.0024 RMS with it, by 0.0023, 0.0024 and 0.0022 without.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from facenet_tools.networks import Op

SAMPLED = 4096  # places of the layer's output that count: more than the inputs of any sum
DAMPING = 1.0  # of the mean variance: faces of calibration are few, and others differ. Below, dlib's network is worse on strangers
PAIR = 128  # the most that two weights' magnitudes may sum to
SCALES = 5  # that are tried for a channel: from one that leaves its largest weight to one that cuts no pair
BLOCK = 128  # inputs whose errors are added up before the rest hears of them: matrix products instead of outer ones


def scales(weight: Tensor) -> Tensor:
    """float64 OIHW -> float32 [O]: of each channel the scale with the least square error of nearest()."""
    largest = (weight.abs().flatten(1).amax(1) / 127).float()
    largest[largest < torch.finfo(torch.float32).tiny] = 1.0
    if weight.shape[1] % 2:
        return largest
    widest = torch.maximum((_pairs(weight).abs().sum(2).flatten(1).amax(1) / PAIR).float(), largest)
    tried = torch.stack([torch.lerp(largest, widest, share) for share in torch.linspace(0, 1, SCALES)])
    errors = torch.stack([(weight - nearest(weight, scale) * _channels(scale)).square().flatten(1).sum(1) for scale in tried])
    return tried.gather(0, errors.argmin(0, keepdim=True))[0]


def nearest(weight: Tensor, scale: Tensor) -> Tensor:
    """float64 OIHW, float32 [O] -> int8 OIHW with weight ~ scale * int8. Where a pair is too large, both are cut by the same amount."""
    x = (weight / _channels(scale)).clamp(-127, 127)
    if weight.shape[1] % 2:
        return torch.round(x).to(torch.int8)
    pairs = _pairs(x)
    values = torch.round(pairs.sign() * torch.minimum(pairs.abs(), _shares(pairs.abs(), pairs.abs().flip(2))))
    left = PAIR - values[:, :, :1].abs()
    values = torch.cat([values[:, :, :1], torch.clamp(values[:, :, 1:], -left, left)], 2)
    return values.reshape(weight.shape).to(torch.int8)


def _shares(size: Tensor, other: Tensor) -> Tensor:
    """What a weight of a pair may be, given the sizes of both: itself, or less where the pair is too large."""
    return (PAIR + size - other) / 2


def _pairs(weight: Tensor) -> Tensor:
    """OIHW -> [O, I / 2, 2, H, W]."""
    return weight.reshape(weight.shape[0], -1, 2, *weight.shape[2:])


def _channels(values: Tensor) -> Tensor:
    return values.double().reshape(-1, 1, 1, 1)


def rounded(weight: Tensor, scale: Tensor, x: Tensor, op: Op) -> Tensor:
    """weight float64 OIHW, scale float32 [O], x [N, I, H, W] -> int8 OIHW with weight ~ scale * int8."""
    left, steps = weight.flatten(1).float(), scale[:, None]
    spread, order = _spread(x, weight.shape[2:], op)
    left = left[:, order]
    other = _others(weight, order)
    # The rows of the inverse's upper factor say how later inputs stand in for an earlier one.
    stand_in = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(spread)), upper=True).float()
    values = torch.zeros_like(left)
    for first in range(0, left.shape[1], BLOCK):
        end = min(first + BLOCK, left.shape[1])
        errors = torch.zeros(len(left), end - first)
        for i in range(first, end):
            most = torch.full((len(left),), 127.0)
            if other is not None and (pair := other[i]) < i:
                most = torch.minimum(most, PAIR - values[:, pair].abs())
            elif other is not None:  # where the two are too large, this one does not take all
                share = _shares(left[:, i].abs() / steps[:, 0], left[:, pair].abs() / steps[:, 0])
                most = torch.minimum(most, share.round().clamp(min=0))
            values[:, i] = torch.clamp(torch.round(left[:, i] / steps[:, 0]), -most, most)
            errors[:, i - first] = (left[:, i] - values[:, i] * steps[:, 0]) / stand_in[i, i]
            left[:, i + 1 : end] -= torch.outer(errors[:, i - first], stand_in[i, i + 1 : end])
        left[:, end:] -= errors @ stand_in[first:end, end:]
    values[:, order] = values.clone()
    return values.reshape(weight.shape).to(torch.int8)


def _others(weight: Tensor, order: Tensor) -> list[int] | None:
    """By place in `order`, the place of the other input of the pair."""
    if weight.shape[1] % 2:
        return None
    inputs = torch.arange(weight[0].numel()).reshape(-1, 2, *weight.shape[2:]).flip(1).flatten()
    places = torch.empty_like(order)
    places[order] = torch.arange(len(order))
    return places[inputs[order]].tolist()


def _spread(x: Tensor, window: tuple[int, int], op: Op) -> tuple[Tensor, Tensor]:
    """The damped covariance of a sum's inputs, float64 [K, K], those that vary most first; and that order."""
    random, share = torch.Generator().manual_seed(0), max(1, SAMPLED // len(x))
    columns = []
    for picture in x.split(1):
        places = functional.unfold(picture, window, padding=op.pad, stride=op.stride)[0]
        columns.append(places[:, torch.randperm(places.shape[1], generator=random)[:share]])
    samples = torch.cat(columns, 1)
    samples = samples - samples.mean(1, keepdim=True)
    covariance = (samples @ samples.T / samples.shape[1]).double()
    mean = float(covariance.diagonal().mean()) or 1.0  # 0: nothing was ever seen there
    order = torch.argsort(covariance.diagonal(), descending=True, stable=True)
    return covariance[order][:, order] + DAMPING * mean * torch.eye(len(covariance), dtype=torch.float64), order
