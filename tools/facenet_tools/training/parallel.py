"""Several processes that train as one: rows of the batch are shared out, all else is as with one process.

torch's own DistributedDataParallel averages gradients and keeps each process's batch norm to itself, which is another
training than that of one process. Here sums are exchanged: batch statistics, embeddings, gradients.
"""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from torch import Tensor, nn


def share_of_cpus() -> int:
    """This process's share of the machine's CPUs, 1 at least. torch's own default may be 1 where there are more."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cpus // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


class Group:
    """This process's place among those that torchrun started; alone without torchrun."""

    def __init__(self, device: str) -> None:
        self.size, self.rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
        if self.size > 1:
            if device == "cuda":  # which is then this process's own
                torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
            dist.init_process_group("nccl" if device == "cuda" else "gloo")

    def rows(self, whole: int) -> range:
        """This process's part of a batch."""
        return range(self.rank * whole // self.size, (self.rank + 1) * whole // self.size)

    def gather(self, embeddings: Tensor) -> Tensor:
        """All rows in order; only this process's carry a gradient."""
        if self.size == 1:
            return embeddings
        parts = [torch.empty_like(embeddings) for _ in range(self.size)]
        dist.all_gather(parts, embeddings.detach().contiguous())
        parts[self.rank] = embeddings
        return torch.cat(parts)

    def sum(self, value: Tensor) -> Tensor:
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def sum_gradients(self, parameters: list[nn.Parameter]) -> None:
        """One exchange for all of them."""
        if self.size == 1:
            return
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        flat = self.sum(torch.cat([gradient.flatten() for gradient in gradients]))
        for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters])):
            parameter.grad = part.view_as(parameter).clone()

    def wait(self) -> None:
        if self.size > 1:
            dist.barrier()

    def close(self) -> None:
        if self.size > 1:
            dist.destroy_process_group()


class _BatchNorm(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) with the statistics of all processes' rows; x: [N, C, ...]."""

    @staticmethod
    def forward(context, x: Tensor, eps: float, group: Group) -> tuple[Tensor, Tensor, Tensor]:
        axes = [0, *range(2, x.dim())]
        shape = [1, -1] + [1] * (x.dim() - 2)
        count = group.sum(x.new_tensor([x.numel() / x.shape[1]]))
        mean = group.sum(x.sum(axes)) / count
        # In two passes, as torch does: the mean of squares minus the squared mean would cancel.
        variance = group.sum((x - mean.view(shape)).square().sum(axes)) / count
        deviation = (variance + eps).rsqrt()
        out = (x - mean.view(shape)) * deviation.view(shape)
        context.save_for_backward(out, deviation, count)
        context.group, context.axes, context.shape = group, axes, shape
        unbiased = variance * count / (count - 1)
        context.mark_non_differentiable(mean, unbiased)
        return out, mean, unbiased

    @staticmethod
    def backward(context, gradient: Tensor, _mean: Tensor, _variance: Tensor) -> tuple[Tensor, None, None]:
        out, deviation, count = context.saved_tensors
        both = torch.stack([gradient.sum(context.axes), (gradient * out).sum(context.axes)])
        of_mean, of_product = (part.view(context.shape) for part in context.group.sum(both) / count)
        return (gradient - of_mean - out * of_product) * deviation.view(context.shape), None, None


class BatchNorm(nn.modules.batchnorm._BatchNorm):
    """A batch norm over all processes' rows, on any backend; torch.nn.SyncBatchNorm needs CUDA."""

    def __init__(self, original: nn.modules.batchnorm._BatchNorm, group: Group) -> None:
        super().__init__(original.num_features, original.eps, original.momentum)
        self.load_state_dict(original.state_dict())
        self.group = group

    def _check_input_dim(self, _input: Tensor) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        # Half precision is too coarse for statistics, and gloo has no bfloat16.
        out, mean, variance = _BatchNorm.apply(x.to(torch.promote_types(x.dtype, torch.float32)), self.eps, self.group)
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_(variance.to(self.running_var.dtype), self.momentum)
        shape = [1, -1] + [1] * (x.dim() - 2)
        return (out * self.weight.view(shape) + self.bias.view(shape)).to(x.dtype)


def share_batch_norms(module: nn.Module, group: Group) -> None:
    """Replaces the batch norms where there are several processes."""
    if group.size == 1:
        return
    for name, child in module.named_children():
        if isinstance(child, (nn.BatchNorm1d, nn.BatchNorm2d)):
            setattr(module, name, BatchNorm(child, group))
        else:
            share_batch_norms(child, group)
