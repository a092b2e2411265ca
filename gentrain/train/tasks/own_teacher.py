"""Patriarchs that are taught by what they were earlier in the same training: PS-KD and snapshot distillation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gentrain.train.losses import LossTerms
from gentrain.train.tasks.task import StudentTask


class OwnTeacherTask(StudentTask):
    """Base of such patriarchs: `lam` changes by epoch; without weight the teacher isn't asked."""

    def begin_epoch(self, epoch: int) -> None:
        """Set the teacher's weight in an epoch, counted from 0."""
        raise NotImplementedError

    def __call__(self, logits: Tensor, images: Tensor, labels: Tensor) -> LossTerms:
        """Return the loss, which is cross-entropy where there is no teacher yet."""
        if self.lam:
            return super().__call__(logits, images, labels)
        with torch.autocast(logits.device.type, enabled=False):
            hard = F.cross_entropy(logits.float(), labels)
        return LossTerms(hard, hard, torch.zeros_like(hard))


class PSKD(OwnTeacherTask):
    """Computes Kim et al., "Self-Knowledge Distillation with Progressive Refinement of Targets" (ICCV 2021).

        L_t = CE((1-α_t)·y + α_t·p_{t-1}, p_t),    α_t = α_T·t/T,    t = 1..T

    p_t are the scores in epoch t of T, p_{t-1} those of the network at the end of the epoch before, for the same
    pixels, in eval mode; the source's α_T is 0.8. In epoch 1 there is no epoch before: hard labels, as in the source's
    code, which takes p_{t-1} from the training steps of the epoch before, with the pixels that were seen then.
    """

    def __init__(self, teacher: nn.Module, *, epochs: int, alpha: float) -> None:
        super().__init__(teacher, lam=alpha)
        self.epochs, self.alpha = epochs, alpha

    def begin_epoch(self, epoch: int) -> None:
        """Set α_t."""
        self.lam = self.alpha * (epoch + 1) / self.epochs if epoch else 0.0

    def soft(self, logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        """Return CE(p_{t-1}, p_t): sum over classes, mean over samples."""
        return -(teacher_logits.softmax(dim=1) * logits.log_softmax(dim=1)).sum(dim=1).mean()


class Snapshot(OwnTeacherTask):
    """Computes Yang et al., "Snapshot Distillation: Teacher-Student Optimization in One Generation" (CVPR 2019).

        L = (1-w)·CE(y, f) + w·KL(f_T^(1/T) || f)

    f_T are the scores of the network at the end of the cycle before, for the same pixels; T smooths the teacher alone.
    In the first cycle there is none: cross-entropy. The learning rate falls along a cosine in each (`recipe.cycles`).
    The weight w is ours: the source weighs its two parts by constants of its own.
    """

    def __init__(self, teacher: nn.Module, *, period: int, weight: float, temperature: float) -> None:
        super().__init__(teacher, lam=weight)
        self.period, self.weight, self.temperature = period, weight, temperature

    def begin_epoch(self, epoch: int) -> None:
        """Set w from the second cycle on."""
        self.lam = self.weight if epoch >= self.period else 0.0

    def soft(self, logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        """Return the divergence: sum over classes, mean over samples."""
        smoothed = (teacher_logits / self.temperature).log_softmax(dim=1)
        return F.kl_div(logits.log_softmax(dim=1), smoothed, reduction="batchmean", log_target=True)
