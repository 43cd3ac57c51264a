#!/usr/bin/env python3
"""Makes an untrained checkpoint with facenet-pytorch's layout: random numbers, calibrated so that every layer works.

Distances between its embeddings mean nothing about identity. It exists to test and time the engine: gamma has both
signs, beta, means and biases are not zero and variances span six decades, so a swapped or ignored term is seen.
"""

from __future__ import annotations

import argparse
import hashlib
import pathlib

import facenet_tools  # noqa: F401 (first: it picks the Python that has torch)
import numpy as np
import torch
from facenet_pytorch.models.inception_resnet_v1 import BasicConv2d, Block8, Block17, Block35
from torch import Tensor, nn

import convert_weights
from facenet_tools import checkpoint, cli, pictures, sources

CLASSES = 16  # logits.* is there because real checkpoints carry it; its size is free
PICTURES = 24  # last_bn sees one value a picture, so fewer would make its statistics noise
VARIANCE_DECADES = (-4.0, 2.0)
NEGATIVE_SHARE = 0.25

# A random network with batch norm amplifies rounding errors. The four numbers below keep PyTorch's own float32
# embedding within 0.9e-6 of float64 (seeds 1-3, 512-d and 128-d; photographs, noise, constants, checkerboards);
# with 0, 0, 0.25 and 0.2 it was 1.6e-6, over half of the engine's budget.
BETA_MEAN = 0.4  # about 65 % alive after ReLU: cutting half of a signal loses more of its variance than of its error
TRUNK_PULL = 0.15  # share of the trunk's mean that each block's bias takes away, or ReLU makes it all mean
RESIDUAL_SHARE = 0.15  # deviation of what a block adds over that of its trunk
EMBEDDING_SPREAD = 2.0  # last_bn's beta: a part all embeddings share; distances of photographs become 0.4 to 0.8


class Calibrator:
    """Draws the numbers of each layer when the pictures reach it, scaled to what arrives there.

    A convolution's rows are scaled until its output has the variance drawn for that channel; batch norm then
    gets that variance and nearly that mean.
    """

    def __init__(self, model: nn.Module, seed: int) -> None:
        self.random = torch.Generator().manual_seed(seed)
        self.hooks = []
        for module in model.modules():
            if isinstance(module, BasicConv2d):
                self._after(module.conv, self._normalised(module.bn, BETA_MEAN, 0.2))
            elif isinstance(module, (Block35, Block17, Block8)):
                self._after(module.conv2d, self._residual(module))
        self._after(model.last_linear, self._normalised(model.last_bn, 0.0, EMBEDDING_SPREAD))

    def run(self, model: nn.Module, images: Tensor) -> None:
        """images: float32 [N, 3, 160, 160]."""
        model(images)
        for hook in self.hooks:
            hook.remove()

    def _after(self, module: nn.Module, adjust) -> None:
        module.weight.copy_(self.normal(*module.weight.shape))
        if module.bias is not None:
            module.bias.zero_()
        self.hooks.append(module.register_forward_hook(adjust))

    def _normalised(self, norm: nn.Module, shift: float, spread: float):
        def adjust(module: nn.Module, _inputs: tuple, output: Tensor) -> Tensor:
            mean, deviation = channel_statistics(output)
            count = len(mean)
            low, high = VARIANCE_DECADES
            variance = 10 ** (low + (high - low) * self._uniform(count))
            factor = variance.sqrt() / deviation
            sign = torch.where(self._uniform(count) < NEGATIVE_SHARE, -1.0, 1.0)
            norm.weight.copy_(sign * (0.5 + self._uniform(count)))
            norm.bias.copy_(shift + spread * self.normal(count))
            norm.running_mean.copy_(mean * factor + 0.2 * variance.sqrt() * self.normal(count))
            norm.running_var.copy_(variance)
            norm.num_batches_tracked.fill_(1)
            return scale_rows(module, factor, output)

        return adjust

    def _residual(self, block: nn.Module):
        trunk: list[Tensor] = []
        self.hooks.append(block.register_forward_pre_hook(lambda _block, inputs: trunk.append(inputs[0])))

        def adjust(module: nn.Module, _inputs: tuple, output: Tensor) -> Tensor:
            mean, deviation = channel_statistics(output)
            trunk_mean, trunk_deviation = channel_statistics(trunk.pop())
            target = RESIDUAL_SHARE * trunk_deviation.mean() / block.scale
            factor = target / deviation
            # The last block has no ReLU after it: centred features leave nothing for last_bn to cancel.
            pull = 1.0 if getattr(block, "noReLU", False) else TRUNK_PULL
            drift = 0.3 * target * self.normal(len(mean)) - pull * trunk_mean / block.scale
            module.bias.copy_(drift - mean * factor)
            return scale_rows(module, factor, output) + module.bias.reshape(-1, 1, 1)

        return adjust

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.random, dtype=torch.float64)

    def _uniform(self, count: int) -> Tensor:
        return torch.rand(count, generator=self.random, dtype=torch.float64)


def channel_statistics(output: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel of [N, C, ...], in float64."""
    channels = output.double().transpose(0, 1).flatten(1)
    # The floor keeps a channel that no picture excites from getting infinite weights.
    return channels.mean(1), channels.std(1, unbiased=False).clamp_min(1e-6)


def scale_rows(module: nn.Module, factor: Tensor, output: Tensor) -> Tensor:
    """Multiplies each output channel's weights by its factor and returns the output that gives."""
    module.weight.mul_(factor.reshape(-1, *[1] * (module.weight.dim() - 1)))
    return output * factor.float().reshape(-1, *[1] * (output.dim() - 2))


def calibration_pictures(paths: list[str], seed: int) -> np.ndarray:
    """uint8 [PICTURES, 160, 160, 3]: random squares of the photographs, or made-up pictures when there are none."""
    random = np.random.default_rng(seed)
    if not paths:
        return np.stack([pictures.structured(random) for _ in range(PICTURES)])
    share = -(-PICTURES // len(paths))
    crops = [crop for path in paths for crop in pictures.random_squares(path, share, random)]
    return np.stack(crops)


def make_state(
    dim: int, seed: int, paths: list[str], architecture: str = checkpoint.V1, width: float = 1
) -> checkpoint.StateDict:
    """A whole state_dict: the network's keys in its order, then the marker that says untrained."""
    torch.set_num_threads(1)  # the order of float32 sums, and so the bytes, must not depend on the cores
    with torch.no_grad():
        model = checkpoint.build_model(dim, architecture, width)
        model.logits = nn.Linear(dim, CLASSES)
        calibrator = Calibrator(model, seed)
        calibrator.run(model, pictures.to_tensor(calibration_pictures(paths, seed), torch.float32))
        model.logits.weight.copy_(0.05 * calibrator.normal(CLASSES, dim))
        model.logits.bias.zero_()
        state = {name: value.clone() for name, value in model.state_dict().items()}
    state[checkpoint.UNTRAINED_KEY] = torch.tensor(seed)
    return state


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n"
        "  tools/make_checkpoint.py -o weights/facenet.safetensors\n"
        "  tools/make_checkpoint.py --dim 128 --seed 7 -o weights/test128.pt\n"
        "  tools/make_checkpoint.py --architecture inception_resnet_v2 -o weights/v2.safetensors\n\n"
        "exit status: 0 written, 2 error",
    )
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help=".pt, or .safetensors (converted as well)")
    parser.add_argument("--dim", type=int, choices=(128, 512), default=512, help="embedding size (%(default)s)")
    parser.add_argument(
        "--architecture", choices=(checkpoint.V1, checkpoint.V2), default=checkpoint.V1, help="(%(default)s)"
    )
    parser.add_argument("--width", type=float, default=1.0, help="channels over the published ones, in sixteenths (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="same seed, same bytes on the same machine (%(default)s)")
    parser.add_argument("--legacy", action="store_true", help="write .pt in PyTorch's old serialisation")
    parser.add_argument(
        "--images", nargs="*", metavar="IMAGE", help="pictures to calibrate on; none: made-up ones (.deps/samples)"
    )
    arguments = parser.parse_args()
    if pathlib.Path(arguments.output).suffix not in (".pt", ".safetensors"):
        parser.error("OUT must end in .pt or .safetensors")
    if not checkpoint.is_width(arguments.width):
        parser.error("--width must be a multiple of 1/16 from 0.0625 to 4, so that every layer has whole channels")
    if not 0 <= arguments.seed < 2**63:
        parser.error("--seed must be from 0 to 2^63 - 1")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    paths = pictures.sample_paths() if arguments.images is None else arguments.images
    state = make_state(arguments.dim, arguments.seed, paths, arguments.architecture, arguments.width)
    data = checkpoint.serialise(state, arguments.legacy)
    if arguments.output.endswith(".pt"):
        cli.write_atomically(arguments.output, [data])
        return
    kind = "" if arguments.architecture == checkpoint.V1 else f"{arguments.architecture}-"
    kind += "" if arguments.width == 1 else f"width{arguments.width:g}-"
    name = f"synthetic-{kind}{arguments.dim}-seed{arguments.seed}.pt"
    source = sources.from_state(state, name, hashlib.sha256(data).hexdigest())
    convert_weights.convert(source, arguments.output, convert_weights.metadata(source))


if __name__ == "__main__":
    cli.run(main)
