"""Compute the loss of a generation: logits and batch in, loss and named parts out; the loop calls any of them alike."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from gentrain.store.run import RunStore
from gentrain.study.lineage import GenerationSpec, PatriarchSpec, StudentSpec
from gentrain.study.process import AdaptiveK
from gentrain.train.compiling import compile_network
from gentrain.train.device import to_device
from gentrain.train.inference import load_teacher
from gentrain.train.losses import LossTerms, adaptive_patriarch_loss, patriarch_loss, student_loss
from gentrain.train.workers import Workers


class Task(Protocol):
    """Computes what a generation minimises."""

    def __call__(self, logits: Tensor, images: Tensor, labels: Tensor) -> LossTerms:
        """Return the loss of the logits (N, C) that the network in training gave for these images."""


class PatriarchTask:
    """Computes eq. (3): cross-entropy and score difference."""

    def __init__(self, *, eta: float, k: int) -> None:
        self.eta, self.k = eta, k

    def __call__(self, logits: Tensor, images: Tensor, labels: Tensor) -> LossTerms:
        """Return the patriarch's loss."""
        return patriarch_loss(logits, labels, eta=self.eta, k=self.k)


class AdaptivePatriarchTask:
    """Computes eq. (3) with K by sample or by class."""

    def __init__(self, *, f_a1: float, k: AdaptiveK) -> None:
        self.f_a1, self.k = f_a1, k

    def __call__(self, logits: Tensor, images: Tensor, labels: Tensor) -> LossTerms:
        """Return the patriarch's loss."""
        k = self.k
        return adaptive_patriarch_loss(logits, labels, f_a1=self.f_a1, top_p=k.top_p, by=k.by, k_max=k.k_max)


class StudentTask:
    """Computes eq. (4): cross-entropy and KL divergence from a frozen teacher, which sees the same augmented pixels."""

    def __init__(self, teacher: nn.Module, *, lam: float, temperature: float = 1.0) -> None:
        self.teacher = teacher.requires_grad_(False).eval()
        self.lam, self.temperature = lam, temperature

    def __call__(self, logits: Tensor, images: Tensor, labels: Tensor) -> LossTerms:
        """Return the student's loss; the teacher runs in eval mode, without gradient, in the caller's autocast."""
        if self.teacher.training:  # a wrapper's train() reached it
            self.teacher.eval()
        with torch.no_grad():
            teacher_logits = self.teacher(images)
        return student_loss(logits, teacher_logits, labels, lam=self.lam, temperature=self.temperature)


def build_task(spec: GenerationSpec, *, store: RunStore, image: tuple[int, int, int], workers: Workers) -> Task:
    """Return what a generation minimises, with its teacher on the worker's device.

    Args:
        spec: of a patriarch or a student.
        store: where the teacher is.
        image: shape (3, H, W) of an image.
        workers: for whom the teacher is compiled, where the study says so.

    Raises:
        GentrainError: when the teacher is missing or damaged, or can't be folded.
    """
    task = spec.task
    if isinstance(task, PatriarchSpec):
        if task.adaptive is not None:
            return AdaptivePatriarchTask(f_a1=task.adaptive.f_a1, k=task.adaptive)
        return PatriarchTask(eta=task.eta or 0.0, k=task.k or 2)
    assert isinstance(task, StudentSpec)
    dtype = torch.bfloat16 if spec.precision == "bf16" else torch.float32
    teacher = load_teacher(
        task.teachers,
        store,
        folded=task.fold_batchnorm,
        fuse_for=(torch.zeros((1, *image)), dtype) if workers.device.type == "cpu" and not spec.compile else None,
    )
    teacher = to_device(teacher, workers.device).requires_grad_(False).eval()
    if spec.compile:
        teacher = compile_network(teacher, workers.device, graphs=workers.alone)
    return StudentTask(teacher, lam=task.lam, temperature=task.temperature)
