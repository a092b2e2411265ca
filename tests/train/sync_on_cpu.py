"""SyncBatchNorm on CPUs, for tests: torch's own exchange between workers, with its CUDA kernels written in Python."""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.modules import _functions


def install():
    """Replace the kernels and the checks of the device, in this process."""
    torch.batch_norm_stats = stats
    torch.batch_norm_gather_stats_with_counts = gather_stats
    torch.batch_norm_elemt = normalise
    torch.batch_norm_backward_reduce = backward_reduce
    torch.batch_norm_backward_elemt = backward_normalise
    nn.SyncBatchNorm.forward = forward
    nn.parallel.DistributedDataParallel._passing_sync_batchnorm_handle = lambda *_: None


def forward(self, images):
    """Do what nn.SyncBatchNorm.forward does on a GPU."""
    if not self.training:
        return F.batch_norm(images, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
    self.num_batches_tracked.add_(1)
    group = dist.group.WORLD
    return _functions.SyncBatchNorm.apply(
        images, self.weight, self.bias, self.running_mean, self.running_var, self.eps, self.momentum, group,
        dist.get_world_size(group),
    )  # fmt: skip


def others(values):
    """Return the dimensions of images (n, C, …) or features (n, C) that statistics are taken over."""
    return [dimension for dimension in range(values.dim()) if dimension != 1]


def by_channel(values, like):
    return values.view(1, -1, *[1] * (like.dim() - 2))


def stats(values, eps):
    return values.mean(others(values)), (values.var(others(values), unbiased=False) + eps).rsqrt()


def gather_stats(_, means, inverses, running_mean, running_var, momentum, eps, counts):
    weights = (counts / counts.sum())[:, None]
    mean = (weights * means).sum(0)
    variance = (weights * (inverses**-2 - eps + (means - mean) ** 2)).sum(0)
    unbiased = variance * counts.sum() / (counts.sum() - 1)
    running_mean.lerp_(mean, momentum)
    running_var.lerp_(unbiased, momentum)
    return mean, (variance + eps).rsqrt()


def normalise(values, weight, bias, mean, inverse, eps):
    mean, scale, bias = (by_channel(channel, values) for channel in (mean, inverse * weight, bias))
    return (values - mean) * scale + bias


def backward_reduce(gradient, values, mean, inverse, weight, *wanted):
    total = gradient.sum(others(values))
    product = (gradient * (values - by_channel(mean, values))).sum(others(values))
    return total, product, product * inverse, total


def backward_normalise(gradient, values, mean, inverse, weight, total, product, counts):
    count = counts.sum()
    mean, slope, total, scale = (
        by_channel(channel, values) for channel in (mean, inverse**2 * product / count, total / count, inverse * weight)
    )
    return (gradient - total - (values - mean) * slope) * scale
