"""A student that learns the teacher's relations between classes and between samples."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from gentrain.train.tasks.task import StudentTask


def unlikeness(one: Tensor, other: Tensor) -> Tensor:
    """Return 1 - Pearson's correlation of two matrices' rows, mean over rows."""
    one, other = (matrix - matrix.mean(dim=1, keepdim=True) for matrix in (one, other))
    return 1 - F.cosine_similarity(one, other, dim=1).mean()


class DIST(StudentTask):
    """Computes Huang et al., "Knowledge Distillation from A Stronger Teacher" (NeurIPS 2022): L_inter and L_intra.

        Lg = (1-λ)·CE(y, f_S) + λ·τ²·( β·mean_i(1 - ρ(S_i, T_i)) + γ·mean_c(1 - ρ(S_·c, T_·c)) )

    S and T are the scores (N, C) of student and teacher at temperature τ, ρ is Pearson's correlation, of a sample's
    scores (inter-class) and of a class's scores over a worker's part of the batch (intra-class). The source's code has
    β = γ = τ = 1; on CIFAR-100 the paper takes β = γ = 2, τ = 4.
    """

    def __init__(
        self, teacher: nn.Module, *, lam: float, beta: float = 1.0, gamma: float = 1.0, temperature: float = 1.0
    ) -> None:
        super().__init__(teacher, lam=lam)
        self.beta, self.gamma, self.temperature = beta, gamma, temperature

    def soft(self, logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        """Return both relations' unlikeness, weighted; means over samples and classes."""
        student, teacher = ((z / self.temperature).softmax(dim=1) for z in (logits, teacher_logits))
        inter, intra = unlikeness(student, teacher), unlikeness(student.T, teacher.T)
        return (self.beta * inter + self.gamma * intra) * self.temperature**2
