"""Build the paper's ResNet-18 for 224² images, whose stages are halved by max-pooling."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from gentrain.models.cifar_resnet import BasicBlock

WIDTHS = (64, 128, 256, 512)


class PooledResNet18(nn.Module):
    """Chains a 7×7/2 convolution, four stages of two basic blocks, each after 2×2 max-pooling, and a linear layer.

    Shortcuts are identities, their channels zero-padded where they grow (the paper's section 4.2).
    """

    def __init__(self, *, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, WIDTHS[0], 7, stride=2, padding=3, bias=False)
        self.bn = nn.BatchNorm2d(WIDTHS[0])
        self.stages = nn.ModuleList(
            nn.Sequential(BasicBlock(before, width), BasicBlock(width, width))
            for before, width in zip((WIDTHS[0], *WIDTHS), WIDTHS, strict=False)
        )
        self.linear = nn.Linear(WIDTHS[-1], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, 3, H, W), H and W at least 32, to logits (N, num_classes)."""
        x = F.relu(self.bn(self.conv(x)), inplace=True)
        for stage in self.stages:
            x = stage(F.max_pool2d(x, 2))
        logits: Tensor = self.linear(x.mean(dim=(2, 3)))
        return logits
