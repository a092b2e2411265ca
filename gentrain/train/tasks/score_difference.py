"""The paper's patriarch: cross-entropy and score difference, with one K or K by score."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from gentrain.train.losses import LossTerms, adaptive_patriarch_loss, patriarch_loss


class ScoreDifference:
    """Computes eq. (3) of Yang et al., "Knowledge Distillation in Generations".

        L0 = (1-η)·CE(y, f) + η·( f[a_1] - mean_{k=2..K} f[a_k] )

    f are the scores, a_k the class of the k-th largest one. The optimum is at f[a_1] = min(1, (1-η)(K-1) / (ηK)).
    """

    def __init__(self, *, eta: float, k: int) -> None:
        self.eta, self.k = eta, k

    def __call__(self, logits: Tensor, images: Tensor, labels: Tensor) -> LossTerms:
        """Return the patriarch's loss."""
        return patriarch_loss(logits, labels, eta=self.eta, k=self.k)


class AdaptiveScoreDifference:
    """Computes eq. (3) with K by sample or by class; every optimum is at `f_a1`."""

    def __init__(self, *, f_a1: float, top_p: float, by: Literal["sample", "class"], k_max: int) -> None:
        self.f_a1, self.top_p, self.by, self.k_max = f_a1, top_p, by, k_max

    def __call__(self, logits: Tensor, images: Tensor, labels: Tensor) -> LossTerms:
        """Return the patriarch's loss."""
        return adaptive_patriarch_loss(logits, labels, f_a1=self.f_a1, top_p=self.top_p, by=self.by, k_max=self.k_max)
