"""A student by normalised distillation."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from gentrain.train.tasks.other_classes import mean, parts_of, without_label
from gentrain.train.tasks.task import StudentTask


class NKD(StudentTask):
    """Computes Yang et al., "From Knowledge Distillation to Self-Knowledge Distillation" (ICCV 2023): L_NKD.

        Lg = (1-λ)·CE(y, f_S) + λ·( -T_y·log S_y - γ·τ²·Σ_{i≠y} N(T)_i·log N(S)_i )

    S and T are the scores of student and teacher, y is the true class, N the scores among the other classes at
    temperature τ. The source's γ, τ are 1.5, 1. Both parts are cross-entropies: at S = T the loss isn't 0.
    """

    def __init__(self, teacher: nn.Module, *, lam: float, gamma: float = 1.5, temperature: float = 1.0) -> None:
        super().__init__(teacher, lam=lam)
        self.gamma, self.temperature = gamma, temperature

    def soft(self, logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        """Return both cross-entropies, weighted: sums over classes, means over samples."""
        return sum(self._of(logits, teacher_logits, *part) for part in parts_of(labels))  # type: ignore[return-value]

    def _of(self, logits: Tensor, teacher_logits: Tensor, labels: Tensor, parts: Tensor | None) -> Tensor:
        weights = teacher_logits.softmax(dim=1).gather(1, labels[:, None])[:, 0]
        target = mean(weights * F.cross_entropy(logits, labels, reduction="none"), parts)
        student, teacher = (without_label(z, labels) / self.temperature for z in (logits, teacher_logits))
        rest = -mean((teacher.softmax(dim=1) * student.log_softmax(dim=1)).sum(dim=1), parts)
        return target + self.gamma * self.temperature**2 * rest
