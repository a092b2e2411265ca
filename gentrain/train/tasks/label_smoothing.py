"""A patriarch by label smoothing."""

from __future__ import annotations

from torch import Tensor

from gentrain.train.tasks.task import PatriarchTask


class LabelSmoothing(PatriarchTask):
    """Computes the cross-entropy with smoothed labels, of Szegedy et al. (CVPR 2016), section 7.

        L0 = CE(q, f) = (1-ε)·CE(y, f) + ε·mean_k(-log f_k),    q = (1-ε)·y + ε/C

    f are the scores, y is the label as a vector of C entries. The optimum is f = q, so the primary score is
    1 - ε + ε/C; the source's ε is 0.1. ε = 0 is cross-entropy to the bit.
    """

    def __init__(self, *, epsilon: float) -> None:
        self.epsilon = epsilon

    def soft(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy with uniform labels, mean over classes and samples."""
        return -logits.log_softmax(dim=1).mean()

    def loss(self, hard: Tensor, soft: Tensor) -> Tensor:
        """Return (1-ε)·hard + ε·soft."""
        return hard if self.epsilon == 0 else (1 - self.epsilon) * hard + self.epsilon * soft
