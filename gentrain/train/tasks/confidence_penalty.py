"""A patriarch that is penalised for confident scores."""

from __future__ import annotations

from torch import Tensor

from gentrain.train.tasks.task import PatriarchTask


class ConfidencePenalty(PatriarchTask):
    """Computes cross-entropy minus entropy, of Pereyra et al., "Regularizing Neural Networks by Penalizing Confident
    Output Distributions" (ICLR workshop 2017), section 3.

        L0 = CE(y, f) - β·H(f),    H(f) = -Σ_k f_k·log f_k

    f are the scores of C classes. At the optimum the others share 1 - p equally, so p minimises
    -log p + β·(p·log p + (1-p)·log((1-p)/(C-1))); its derivative is 0 at β = 1 / (p·log(p(C-1)/(1-p))).
    β = 0 is cross-entropy to the bit.
    """  # noqa: D205

    def __init__(self, *, beta: float) -> None:
        self.beta = beta

    def soft(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return -H(f): sum over classes, mean over samples."""
        scores = logits.log_softmax(dim=1)
        return (scores.exp() * scores).sum(dim=1).mean()

    def loss(self, hard: Tensor, soft: Tensor) -> Tensor:
        """Return hard + β·soft."""
        return hard if self.beta == 0 else hard + self.beta * soft
