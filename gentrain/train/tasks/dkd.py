"""A student by decoupled distillation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gentrain.train.losses import kl_divergence
from gentrain.train.tasks.logit_standardised import standardised
from gentrain.train.tasks.other_classes import parts_of, without_label
from gentrain.train.tasks.task import StudentTask


class DKD(StudentTask):
    """Computes Zhao et al., "Decoupled Knowledge Distillation" (CVPR 2022), eq. (7).

        Lg = (1-λ)·CE(y, f_S) + λ·T²·( α·KL(b_T || b_S) + β·KL(f̂_T || f̂_S) )

    b = (f_y, 1 - f_y): the true class y against all others, f̂: scores among the others, both at temperature T. The
    source's α, β, T are 1, 8, 4, with a warm-up of 20 epochs that is left out here; α = 1, β = 1 - f_T,y would be KL.
    With `standardise` the logits are z-scores first, as in Sun et al. (CVPR 2024).
    """

    def __init__(
        self,
        teacher: nn.Module,
        *,
        lam: float,
        alpha: float = 1.0,
        beta: float = 8.0,
        temperature: float = 4.0,
        standardise: bool = False,
    ) -> None:
        super().__init__(teacher, lam=lam)
        self.alpha, self.beta, self.temperature, self.standardise = alpha, beta, temperature, standardise

    def soft(self, logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        """Return both divergences, weighted: sums over classes, means over samples."""
        pair = [logits, teacher_logits]
        pair = [(standardised(z) if self.standardise else z) / self.temperature for z in pair]
        return sum(self._of(pair, *part) for part in parts_of(labels))  # type: ignore[return-value]

    def _of(self, pair: list[Tensor], labels: Tensor, weights: Tensor | None) -> Tensor:
        others = [without_label(z, labels) for z in pair]
        binary = [
            torch.stack([z.gather(1, labels[:, None])[:, 0], o.logsumexp(dim=1)], dim=1)
            for z, o in zip(pair, others, strict=True)
        ]
        target, rest = (kl_divergence(*z, weights=weights) for z in (binary, others))
        return (self.alpha * target + self.beta * rest) * self.temperature**2
