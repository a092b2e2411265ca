"""Average several networks into one teacher (`process.teacher: ensemble`)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class MeanOfNetworks(nn.Module):
    """Gives log f_T of the mean softmax f_T = (f_0 + … + f_{n-1}) / n of its members: (N, 3, H, W) -> (N, C), float32.

    log f_T = logsumexp_m(log f_m) - log n, which stays finite where a mean of softmaxes would underflow. Its softmax is
    f_T; a temperature softens f_T itself (KL(f_T^(1/T) || f_S^(1/T))·T²), not its members before they are averaged.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images: Tensor) -> Tensor:
        """Return log f_T; the members are added in their order, so that every call gives the same bits."""
        logits = [member(images) for member in self.members]
        with torch.autocast(images.device.type, enabled=False):
            logs = torch.stack([member.float().log_softmax(dim=1) for member in logits])
            return logs.logsumexp(dim=0) - math.log(len(logits))


class WeightedMean(nn.Module):
    """Gives log Σ_m w_m·f_m, f_m the softmax of member m: (N, 3, H, W) -> (N, C), float32.

    Its softmax is Σ_m w_m·f_m where Σ w = 1 (see `gentrain.scores.ensembles.weighted_ensemble`).

    Args:
        members: (N, 3, H, W) -> (N, C).
        weights: of each member, positive.
    """

    log_weights: Tensor

    def __init__(self, members: Sequence[nn.Module], weights: Sequence[float]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        logs = torch.tensor([math.log(weight) for weight in weights]).view(-1, 1, 1)
        self.register_buffer("log_weights", logs, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return the log of the weighted mean."""
        logs = torch.stack([member(images).float().log_softmax(dim=1) for member in self.members])
        return (logs + self.log_weights).logsumexp(dim=0)
