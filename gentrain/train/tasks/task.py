"""What every task is, and the two bases that built-in tasks and tasks of your own inherit."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gentrain.train.losses import LossTerms, mixed_loss


class Task(Protocol):
    """Computes what a generation minimises."""

    def __call__(self, logits: Tensor, images: Tensor, labels: Tensor) -> LossTerms:
        """Return the loss of the logits (N, C) that the network in training gave for these images.

        Labels are (N,), int64; of images that were mixed (`recipe.mixup`, `recipe.cutmix`) (N, C), float32.
        """


class PatriarchTask:
    """Base of patriarchs: a subclass's `soft` makes the network tolerant, its `loss` weighs it with cross-entropy."""

    def __call__(self, logits: Tensor, images: Tensor, labels: Tensor) -> LossTerms:
        """Return the patriarch's loss, computed in float32."""
        with torch.autocast(logits.device.type, enabled=False):
            logits = logits.float()
            hard, soft = F.cross_entropy(logits, labels), self.soft(logits, labels)
            return LossTerms(self.loss(hard, soft), hard, soft)

    def soft(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the tolerant part of float32 logits (N, C) and labels (N,): a scalar, mean over samples."""
        raise NotImplementedError

    def loss(self, hard: Tensor, soft: Tensor) -> Tensor:
        """Return what is minimised, of the cross-entropy and the tolerant part: scalars."""
        raise NotImplementedError


class StudentTask:
    """Base of students: (1-λ)·CE(y, f_S) + λ·soft, where a subclass's `soft` compares student and teacher.

    The teacher is frozen and sees the same augmented pixels; λ = 0 is cross-entropy to the bit.
    """

    label_smoothing = 0.0
    """ε of the cross-entropy's labels (`recipe.label_smoothing`)."""

    def __init__(self, teacher: nn.Module, *, lam: float) -> None:
        self.teacher = teacher.requires_grad_(False).eval()
        self.lam = lam

    def __call__(self, logits: Tensor, images: Tensor, labels: Tensor) -> LossTerms:
        """Return the student's loss; the teacher runs in eval mode, without gradient, in the caller's autocast."""
        if self.teacher.training:  # a wrapper's train() reached it
            self.teacher.eval()
        with torch.no_grad():
            teacher_logits = self.teacher(images)
        return mixed_loss(
            logits, teacher_logits, labels, lam=self.lam, soft=self.soft, label_smoothing=self.label_smoothing
        )

    def soft(self, logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        """Return the part that teaches, of both float32 logits (N, C) and labels (N,): a scalar, mean over samples."""
        raise NotImplementedError
