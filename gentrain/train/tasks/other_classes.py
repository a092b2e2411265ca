"""Logits of the classes that aren't a sample's label, and the two labels of an image that was mixed."""

from __future__ import annotations

import torch
from torch import Tensor


def without_label(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the logits (N, C-1) of the other classes, in their order."""
    places = torch.arange(logits.shape[1] - 1, device=logits.device)
    return logits.gather(1, places + (places >= labels[:, None]))


def parts_of(labels: Tensor) -> list[tuple[Tensor, Tensor | None]]:
    """Return each sample's label with no weight; of mixed labels (N, C) the first and the second, with their weights.

    A loss of mixed labels is the mix of the losses of both: Σ_j w_j·L(y_j), by sample.
    """
    if labels.dim() == 1:
        return [(labels, None)]
    weights, classes = labels.topk(2, dim=1)
    return [(classes[:, j], weights[:, j]) for j in range(2)]


def mean(values: Tensor, weights: Tensor | None) -> Tensor:
    """Return the mean over samples of (N,) values times weights."""
    return values.mean() if weights is None else (values * weights).mean()
