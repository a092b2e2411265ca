"""The two losses of the paper. Softmaxes are float32 whatever the precision of the logits."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class LossTerms(NamedTuple):
    """A loss and its two parts before weighting: scalars, means over the batch."""

    loss: Tensor
    hard: Tensor
    """Cross-entropy with the labels."""
    soft: Tensor
    """Score difference (patriarch) or KL divergence from the teacher (student)."""


def patriarch_loss(logits: Tensor, labels: Tensor, *, eta: float, k: int = 5) -> LossTerms:
    """Return (1-η)·CE(y, f) + η·(f[a_1] - mean of f[a_2..a_K]), eq. (3), mean over the batch.

    The a_k are found anew from f at every call; gradients flow through the scores, not through their choice.

    Args:
        logits: (N, C), any floating dtype.
        labels: (N,), int64 in 0..C-1.
        eta: weight of the score difference, in [0, 1]; 0 is cross-entropy to the bit.
        k: classes in the score difference, 2..C.

    Raises:
        ValueError: when k is not in 2..C.
    """
    if not 2 <= k <= logits.shape[1]:
        raise ValueError(f"k is {k}; it must be at least 2 and at most the {logits.shape[1]} classes")
    with torch.autocast(logits.device.type, enabled=False):
        logits = logits.float()
        hard = F.cross_entropy(logits, labels)
        top = logits.softmax(dim=1).topk(k, dim=1).values
        soft = (top[:, 0] - top[:, 1:].mean(dim=1)).mean()
        loss = hard if eta == 0 else (1 - eta) * hard + eta * soft
    return LossTerms(loss, hard, soft)


def student_loss(
    logits: Tensor, teacher_logits: Tensor, labels: Tensor, *, lam: float, temperature: float = 1.0
) -> LossTerms:
    """Return (1-λ)·CE(y, f_S) + λ·KL(f_T || f_S), eq. (4): sum over classes, mean over samples.

    With temperature T the KL is between the softened distributions and scaled by T². No gradient reaches the teacher.

    Args:
        logits: the student's, (N, C), any floating dtype.
        teacher_logits: the teacher's for the same pixels, (N, C).
        labels: (N,), int64 in 0..C-1.
        lam: weight of the teacher, in [0, 1]; 0 is cross-entropy to the bit.
        temperature: T > 0; the paper uses 1.

    Raises:
        ValueError: when the shapes differ.
    """
    if logits.shape != teacher_logits.shape:
        raise ValueError(f"student and teacher differ in shape: {tuple(logits.shape)}, {tuple(teacher_logits.shape)}")
    with torch.autocast(logits.device.type, enabled=False):
        logits, teacher_logits = logits.float(), teacher_logits.detach().float()
        hard = F.cross_entropy(logits, labels)
        student_log = (logits / temperature).log_softmax(dim=1)
        teacher_log = (teacher_logits / temperature).log_softmax(dim=1)
        soft = F.kl_div(student_log, teacher_log, reduction="batchmean", log_target=True) * temperature**2
        loss = hard if lam == 0 else (1 - lam) * hard + lam * soft
    return LossTerms(loss, hard, soft)
