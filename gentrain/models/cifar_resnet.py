"""Build the paper's residual networks for small images: L = 6n + 2 layers in three stages."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = (16, 32, 64)


class BasicBlock(nn.Module):
    """Adds two 3×3 convolutions to an identity shortcut, subsampled by the stride, zero-padded where channels grow."""

    def __init__(self, in_channels: int, channels: int, *, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.new_channels = channels - in_channels

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, channels, H / stride, W / stride)."""
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        shortcut = x if self.stride == 1 else x[:, :, :: self.stride, :: self.stride]
        if self.new_channels:
            shortcut = F.pad(shortcut, (0, 0, 0, 0, 0, self.new_channels))
        out += shortcut
        return F.relu(out, inplace=True)


class CifarResNet(nn.Module):
    """Chains a 3×3 convolution, three stages of n blocks, 2×2 average pooling between them, global pooling, linear.

    With `strided`, the first convolutions of stages 2 and 3 have stride 2 instead (He et al., shortcuts of option A).
    """

    def __init__(self, depth: int, *, num_classes: int, strided: bool = False) -> None:
        super().__init__()
        self.pooled = not strided
        blocks = (depth - 2) // 6
        self.conv = nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(WIDTHS[0])
        self.stages = nn.ModuleList(
            nn.Sequential(
                BasicBlock(before, width, stride=2 if strided and before != width else 1),
                *(BasicBlock(width, width) for _ in range(blocks - 1)),
            )
            for before, width in zip((WIDTHS[0], *WIDTHS), WIDTHS, strict=False)
        )
        self.linear = nn.Linear(WIDTHS[-1], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, 3, H, W), H and W at least 4, to logits (N, num_classes)."""
        x = F.relu(self.bn(self.conv(x)), inplace=True)
        for index, stage in enumerate(self.stages):
            x = stage(F.avg_pool2d(x, 2) if index and self.pooled else x)
        logits: Tensor = self.linear(x.mean(dim=(2, 3)))
        return logits
