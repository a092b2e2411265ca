"""A patriarch by squared error on probabilities."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from gentrain.train.tasks.other_classes import mean, parts_of
from gentrain.train.tasks.task import PatriarchTask


class SquaredError(PatriarchTask):
    """Computes the squared error of the scores: Brier, "Verification of Forecasts" (1950), to smoothed labels.

        L0 = Σ_k (f_k - q_k)²,    q = (1-ε)·y + ε/C

    f are the scores, y is the label as a vector of C entries. The optimum is f = q, so the primary score is
    1 - ε + ε/C, as for label smoothing, but an error's gradient fades where the scores are sure. ε = 0 is Brier's.
    """

    def __init__(self, *, epsilon: float) -> None:
        self.epsilon = epsilon

    def soft(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the squared error: sum over classes, mean over samples."""
        classes, scores = logits.shape[1], logits.softmax(dim=1)
        errors = []
        for part, weights in parts_of(labels):
            wanted = (1 - self.epsilon) * F.one_hot(part, classes).float() + self.epsilon / classes
            errors.append(mean((scores - wanted).square().sum(dim=1), weights))
        return sum(errors)  # type: ignore[return-value]

    def loss(self, hard: Tensor, soft: Tensor) -> Tensor:
        """Return the squared error alone."""
        return soft
