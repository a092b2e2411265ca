"""Compute the two losses of the paper, and what other losses share. Softmaxes are float32 whatever the logits are.

Labels are (N,), int64; of mixed images (N, C), float32: then a loss is the mix of its losses with both labels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class LossTerms(NamedTuple):
    """A loss and its two parts before weighting: scalars, means over the batch."""

    loss: Tensor
    hard: Tensor
    """Cross-entropy with the labels."""
    soft: Tensor
    """What makes a patriarch tolerant, such as the score difference, or what a student learns from its teacher."""


def patriarch_loss(logits: Tensor, labels: Tensor, *, eta: float, k: int = 5) -> LossTerms:
    """Return (1-η)·CE(y, f) + η·(f[a_1] - mean of f[a_2..a_K]), eq. (3), mean over the batch.

    The a_k are chosen from f at every call; gradients flow through the scores, not through the choice.

    Args:
        logits: (N, C), any floating dtype.
        labels: (N,), int64 in 0..C-1; or mixed, (N, C).
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


def adaptive_patriarch_loss(
    logits: Tensor, labels: Tensor, *, f_a1: float, top_p: float, by: Literal["sample", "class"], k_max: int
) -> LossTerms:
    """Return eq. (3) with another K for each sample: mean_i[(1-η_i)·CE_i + η_i·(f_i[a_1] - mean of f_i[a_2..a_{K_i}])].

    K_i is the smallest K >= 2 whose K largest scores sum to at least `top_p`, at most `k_max`:

    - by sample: of the sample's scores f_i, sorted;
    - by class: of the mean sorted scores of all samples with its true class y_i in this call, which sees one worker's
      part of the batch; where no other sample has that class, the same as by sample.

    η_i = η_{K_i}(f_a1) = (K_i-1) / (K_i·f_a1 + K_i - 1), so every sample's optimum is at f_a1 whatever its K (see
    `process.eta_for_primary`). K_i is chosen at every call, and no gradient flows through it. With the same K for
    every sample this is `patriarch_loss`.

    Args:
        logits: (N, C), any floating dtype.
        labels: (N,), int64 in 0..C-1; or mixed, (N, C).
        f_a1: the primary score aimed at, in (1/2, 1).
        top_p: the sum of scores that K classes must reach, in (0, 1).
        by: whether each sample's scores decide, or its class's mean scores.
        k_max: the largest K, 2..C.

    Raises:
        ValueError: when `k_max` is not in 2..C, or `f_a1` out of range.
    """
    if not 2 <= k_max <= logits.shape[1]:
        raise ValueError(f"k_max is {k_max}; it must be at least 2 and at most the {logits.shape[1]} classes")
    if not 1 / 2 < f_a1 < 1:
        raise ValueError(f"f_a1 is {f_a1}; with a K from 2 on it must lie above 1/2 and below 1")
    with torch.autocast(logits.device.type, enabled=False):
        logits = logits.float()
        hard = F.cross_entropy(logits, labels, reduction="none")
        top = logits.softmax(dim=1).topk(k_max, dim=1).values
        reached = top.detach().cumsum(dim=1)
        if by == "class":  # a product, as sums by scattered addition differ from run to run on a GPU
            same = (labels[:, None] == labels[None, :]).float()
            reached = same @ reached / same.sum(dim=1, keepdim=True)
        k = ((reached < top_p).sum(dim=1) + 1).clamp(2, k_max)
        ranks = torch.arange(k_max, device=logits.device)
        secondary = (ranks >= 1) & (ranks < k[:, None])
        others = (k - 1).float()
        soft = top[:, 0] - (top * secondary).sum(dim=1) / others
        eta = others / (k * f_a1 + others)
        loss = ((1 - eta) * hard + eta * soft).mean()
    return LossTerms(loss, hard.mean(), soft.mean())


def student_loss(
    logits: Tensor, teacher_logits: Tensor, labels: Tensor, *, lam: float, temperature: float = 1.0
) -> LossTerms:
    """Return (1-λ)·CE(y, f_S) + λ·KL(f_T || f_S), eq. (4): sum over classes, mean over samples.

    With temperature T the KL is between the softened distributions and scaled by T². No gradient reaches the teacher.

    Args:
        logits: the student's, (N, C), any floating dtype.
        teacher_logits: the teacher's for the same pixels, (N, C).
        labels: (N,), int64 in 0..C-1; or mixed, (N, C).
        lam: weight of the teacher, in [0, 1]; 0 is cross-entropy to the bit.
        temperature: T > 0; the paper uses 1.

    Raises:
        ValueError: when the shapes differ.
    """
    return mixed_loss(
        logits,
        teacher_logits,
        labels,
        lam=lam,
        soft=lambda student, teacher, _: kl_divergence(student, teacher, temperature=temperature),
    )


def mixed_loss(
    logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    lam: float,
    soft: Callable[[Tensor, Tensor, Tensor], Tensor],
    label_smoothing: float = 0.0,
) -> LossTerms:
    """Return (1-λ)·CE(y, f_S) + λ·soft, mean over samples. No gradient reaches the teacher.

    Args:
        logits: the student's, (N, C), any floating dtype.
        teacher_logits: the teacher's for the same pixels, (N, C).
        labels: (N,), int64 in 0..C-1; or mixed, (N, C).
        lam: weight of the teacher, in [0, 1]; 0 is cross-entropy to the bit.
        soft: of the student's and the teacher's logits in float32 and the labels: a scalar, mean over samples.
        label_smoothing: ε of the cross-entropy's labels (1-ε)·y + ε/C.

    Raises:
        ValueError: when the shapes differ.
    """
    if logits.shape != teacher_logits.shape:
        raise ValueError(f"student and teacher differ in shape: {tuple(logits.shape)}, {tuple(teacher_logits.shape)}")
    with torch.autocast(logits.device.type, enabled=False):
        logits, teacher_logits = logits.float(), teacher_logits.detach().float()
        hard = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
        taught = soft(logits, teacher_logits, labels)
        loss = hard if lam == 0 else (1 - lam) * hard + lam * taught
    return LossTerms(loss, hard, taught)


def kl_divergence(
    logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0, weights: Tensor | None = None
) -> Tensor:
    """Return KL(f_T^(1/T) || f_S^(1/T))·T²: sum over classes, mean over samples.

    Args:
        logits: the student's, (N, C), float32.
        teacher_logits: the teacher's, (N, C), float32.
        temperature: T > 0.
        weights: (N,), of the samples before their mean is taken; None for 1.
    """
    student_log = (logits / temperature).log_softmax(dim=1)
    teacher_log = (teacher_logits / temperature).log_softmax(dim=1)
    reduction = "batchmean" if weights is None else "none"
    divergence = F.kl_div(student_log, teacher_log, reduction=reduction, log_target=True)
    if weights is not None:
        divergence = (divergence.sum(dim=1) * weights).mean()
    return divergence * temperature**2
