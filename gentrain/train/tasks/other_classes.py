"""Logits of the classes that aren't a sample's label."""

from __future__ import annotations

import torch
from torch import Tensor


def without_label(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the logits (N, C-1) of the other classes, in their order."""
    places = torch.arange(logits.shape[1] - 1, device=logits.device)
    return logits.gather(1, places + (places >= labels[:, None]))
