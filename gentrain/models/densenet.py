"""Build DenseNet-BC for small images: L = 6n + 4 layers in three dense blocks of n bottleneck layers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

BOTTLENECK = 4
"""Channels of the 1×1 convolution, in growth rates."""
COMPRESSION = 2


class DenseLayer(nn.Module):
    """Chains BN-ReLU-1×1 convolution to 4k and BN-ReLU-3×3 convolution to k; keeps the input beside the output.

    With `memory_efficient`, the wide input's normalisation isn't kept but computed again in the backward pass; the
    results are bitwise the same, the running statistics included.
    """

    def __init__(self, in_channels: int, growth: int, *, memory_efficient: bool) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, BOTTLENECK * growth, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(BOTTLENECK * growth)
        self.conv2 = nn.Conv2d(BOTTLENECK * growth, growth, 3, padding=1, bias=False)
        self.memory_efficient = memory_efficient

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, in_channels + growth, H, W)."""
        if self.memory_efficient and torch.is_grad_enabled() and x.requires_grad:
            out = checkpoint(
                self._bottleneck,
                x,
                use_reentrant=False,
                context_fn=lambda: (contextlib.nullcontext(), self._statistics_kept()),
            )
        else:
            out = self._bottleneck(x)
        out = self.conv2(F.relu(self.bn2(out), inplace=True))
        return torch.cat([x, out], dim=1)

    def _bottleneck(self, x: Tensor) -> Tensor:
        bottleneck: Tensor = self.conv1(F.relu(self.bn1(x), inplace=True))
        return bottleneck

    @contextlib.contextmanager
    def _statistics_kept(self) -> Iterator[None]:
        """Normalise again without counting the batch twice: copies take the place of the running statistics."""
        buffers = dict(self.bn1.named_buffers())
        for name, buffer in buffers.items():
            setattr(self.bn1, name, buffer.clone())
        try:
            yield
        finally:
            for name, buffer in buffers.items():
                setattr(self.bn1, name, buffer)


class DenseNet(nn.Module):
    """Chains a 3×3 convolution to 2k channels, three dense blocks, halving transitions, BN-ReLU, pooling, linear."""

    def __init__(self, depth: int, growth: int, *, num_classes: int, memory_efficient: bool = False) -> None:
        super().__init__()
        channels = 2 * growth
        self.conv = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        blocks: list[nn.Module] = []
        for block in range(3):
            if block:
                halved = channels // COMPRESSION
                blocks.append(
                    nn.Sequential(
                        nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, halved, 1, bias=False), nn.AvgPool2d(2)
                    )
                )
                channels = halved
            for _ in range((depth - 4) // 6):
                blocks.append(DenseLayer(channels, growth, memory_efficient=memory_efficient))
                channels += growth
        self.blocks = nn.Sequential(*blocks)
        self.bn = nn.BatchNorm2d(channels)
        self.linear = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, 3, H, W), H and W at least 4, to logits (N, num_classes)."""
        x = F.relu(self.bn(self.blocks(self.conv(x))), inplace=True)
        logits: Tensor = self.linear(x.mean(dim=(2, 3)))
        return logits
