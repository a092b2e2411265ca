"""Build a generation's task from its spec: a loss of the table, or a class of the user's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from gentrain.errors import GentrainError, cut
from gentrain.store.run import RunStore
from gentrain.study.lineage import GenerationSpec
from gentrain.study.losses import import_class
from gentrain.study.tasks import LossSpec, PatriarchSpec, StudentSpec
from gentrain.train.compiling import ConstantNetwork, compile_network
from gentrain.train.device import to_device
from gentrain.train.inference import load_teacher
from gentrain.train.losses import LossTerms
from gentrain.train.tasks.confidence_penalty import ConfidencePenalty
from gentrain.train.tasks.dist import DIST
from gentrain.train.tasks.dkd import DKD
from gentrain.train.tasks.kl import KL
from gentrain.train.tasks.label_smoothing import LabelSmoothing
from gentrain.train.tasks.logit_standardised import LogitStandardised
from gentrain.train.tasks.mse import SquaredError
from gentrain.train.tasks.nkd import NKD
from gentrain.train.tasks.own_teacher import PSKD, Snapshot
from gentrain.train.tasks.score_difference import AdaptiveScoreDifference, ScoreDifference
from gentrain.train.tasks.task import StudentTask, Task
from gentrain.train.workers import Workers

PATRIARCHS: Mapping[str, Callable[..., Task]] = {
    "label_smoothing": LabelSmoothing,
    "confidence_penalty": ConfidencePenalty,
    "mse": SquaredError,
}
"""Each is called with its knob."""
STUDENTS: Mapping[str, Callable[..., Task]] = {
    "logit_standardised": LogitStandardised,
    "dkd": DKD,
    "dist": DIST,
    "nkd": NKD,
}
"""Each is called with the teacher, `lam` and its settings."""


def build_task(
    spec: GenerationSpec,
    *,
    store: RunStore,
    image: tuple[int, int, int],
    workers: Workers,
    compiled: bool,
    itself: nn.Module | None = None,
) -> Task:
    """Return what a generation minimises, with its teacher on the worker's device.

    Args:
        spec: of a patriarch or a student.
        store: where the teacher is.
        image: shape (3, H, W) of an image.
        workers: on whose device the teacher computes.
        compiled: whether the teacher is compiled.
        itself: what the network was, where that is its teacher.

    Raises:
        GentrainError: when the teacher is missing or damaged, or can't be folded, or a class of the user's own fails.
    """
    task = spec.task
    if isinstance(task, PatriarchSpec) and itself is not None:
        return _own_teacher(
            task, spec, compile_network(itself, workers.device, graphs=workers.alone) if compiled else itself
        )
    if isinstance(task, PatriarchSpec):
        return _patriarch(task, spec, image=image, device=workers.device)
    assert isinstance(task, StudentSpec)
    dtype = torch.bfloat16 if spec.precision == "bf16" else torch.float32
    teacher = load_teacher(
        task.teachers,
        store,
        folded=task.fold_batchnorm,
        fuse_for=(torch.zeros((1, *image)), dtype) if workers.device.type == "cpu" and not compiled else None,
    )
    teacher = to_device(teacher, workers.device).requires_grad_(False).eval()
    if compiled:
        compiler = ConstantNetwork if task.fold_batchnorm else compile_network
        teacher = compiler(teacher, workers.device, graphs=workers.alone)
    if task.loss is None:
        student: Task = KL(teacher, lam=task.lam, temperature=task.temperature)
    else:
        batch = _zeros(spec, image=image, device=workers.device)
        student = _named(task.loss, STUDENTS, teacher, lam=task.lam, spec=spec, batch=batch)
    if isinstance(student, StudentTask):
        student.label_smoothing = spec.recipe.label_smoothing
    elif spec.recipe.label_smoothing:
        name = task.loss.name if task.loss else ""
        raise GentrainError(f"recipe.label_smoothing is for students that inherit StudentTask; {name} doesn't")
    return student


def _patriarch(task: PatriarchSpec, spec: GenerationSpec, *, image: tuple[int, int, int], device: torch.device) -> Task:
    if task.loss is not None:
        return _named(task.loss, PATRIARCHS, spec=spec, batch=_zeros(spec, image=image, device=device))
    if task.adaptive is not None:
        k = task.adaptive
        return AdaptiveScoreDifference(f_a1=k.f_a1, top_p=k.top_p, by=k.by, k_max=k.k_max)
    return ScoreDifference(eta=task.eta or 0.0, k=task.k or 2)


def _own_teacher(task: PatriarchSpec, spec: GenerationSpec, teacher: nn.Module) -> Task:
    assert task.loss is not None
    settings: dict[str, Any] = dict(task.loss.settings)
    if task.loss.name == "ps_kd":
        return PSKD(teacher, epochs=spec.recipe.epochs, **settings)
    return Snapshot(teacher, period=spec.recipe.epochs // spec.recipe.cycles, **settings)


def _zeros(spec: GenerationSpec, *, image: tuple[int, int, int], device: torch.device) -> tuple[torch.Tensor, ...]:
    """Return logits, images and labels of a batch of two blank images; mixed labels where the recipe mixes."""
    labels = torch.zeros(2, dtype=torch.int64, device=device)
    if spec.recipe.mixes:
        labels = torch.full((2, spec.num_classes), 1 / spec.num_classes, device=device)
    logits = torch.zeros((2, spec.num_classes), device=device, requires_grad=True)
    return logits, torch.zeros((2, *image), device=device), labels


def _named(
    loss: LossSpec,
    known: Mapping[str, Callable[..., Task]],
    *arguments: Any,
    spec: GenerationSpec,
    batch: tuple[torch.Tensor, ...],
    **keywords: Any,
) -> Task:
    """Return the task of a name; a class of the user's own is tried on a batch of blank images.

    Raises:
        GentrainError: when that class fails, or returns no loss.
    """
    if loss.name in known:
        return known[loss.name](*arguments, **keywords, **dict(loss.settings))
    role = spec.task.kind
    try:
        task: Task = import_class(loss.name)(*arguments, **keywords, **dict(loss.settings))
        terms = task(*batch)
    except Exception as error:  # a class of the user's own raises whatever it likes
        mixed = " with mixed labels (2, C)" if spec.recipe.mixes else ""
        reason = f"{type(error).__name__}: {cut(str(error))}"
        raise GentrainError(
            f"process.{role}: {loss.name} fails on a batch of two blank images{mixed}: {reason}"
        ) from error
    if not isinstance(terms, LossTerms) or any(getattr(term, "shape", None) != () for term in terms):
        raise GentrainError(
            f"process.{role}: {loss.name} must return LossTerms(loss, hard, soft), three scalars; it returned "
            f"{cut(type(terms).__name__)}"
        )
    return task
