"""A student that learns from standardised logits."""

from __future__ import annotations

from torch import Tensor, nn

from gentrain.train.losses import kl_divergence
from gentrain.train.tasks.task import StudentTask


def standardised(logits: Tensor) -> Tensor:
    """Return (z - mean(z)) / std(z) of each sample's logits z; std is over C - 1, as in the source's code."""
    return (logits - logits.mean(dim=1, keepdim=True)) / (1e-7 + logits.std(dim=1, keepdim=True))


class LogitStandardised(StudentTask):
    """Computes KL divergence of z-scores: Sun et al., "Logit Standardization in Knowledge Distillation" (CVPR 2024).

        Lg = (1-λ)·CE(y, f_S) + λ·τ²·KL(softmax(Z_T/τ) || softmax(Z_S/τ)),    Z = (z - mean(z)) / std(z)

    z are the logits of a sample, τ is the base temperature, 2 in the source, which weighs the two parts 0.1 and 9: the
    student need not match the teacher's shift and spread, only its relations.
    """

    def __init__(self, teacher: nn.Module, *, lam: float, temperature: float = 2.0) -> None:
        super().__init__(teacher, lam=lam)
        self.temperature = temperature

    def soft(self, logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        """Return the divergence: sum over classes, mean over samples."""
        return kl_divergence(standardised(logits), standardised(teacher_logits), temperature=self.temperature)
