"""The paper's student: KL divergence from the teacher."""

from __future__ import annotations

from torch import Tensor, nn

from gentrain.train.losses import kl_divergence
from gentrain.train.tasks.task import StudentTask


class KL(StudentTask):
    """Computes eq. (4) of Yang et al., "Knowledge Distillation in Generations"; with T > 1 Hinton et al. (2015).

        Lg = (1-λ)·CE(y, f_S) + λ·T²·KL(f_T^(1/T) || f_S^(1/T))

    f_S and f_T are the scores of student and teacher, T is the temperature (the paper: 1).
    """

    def __init__(self, teacher: nn.Module, *, lam: float, temperature: float = 1.0) -> None:
        super().__init__(teacher, lam=lam)
        self.temperature = temperature

    def soft(self, logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        """Return the divergence: sum over classes, mean over samples."""
        return kl_divergence(logits, teacher_logits, temperature=self.temperature)
