"""Networks that a training keeps beside its model, frozen, in eval mode and in its checkpoints."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import nn

from gentrain.study.lineage import GenerationSpec
from gentrain.study.tasks import PatriarchSpec
from gentrain.train.workers import Workers


class Companions:
    """The moving average of the model's weights (`recipe.ema`), and what it was, as its teacher (PS-KD, snapshots).

    Args:
        model: in training; with its initial weights.
        spec: of the generation.
    """

    def __init__(self, model: nn.Module, spec: GenerationSpec) -> None:
        self._model, self._ema = model, spec.recipe.ema
        self.average = _frozen_copy(model) if self._ema else None
        self.period = own_teacher_period(spec)
        self.teacher = _frozen_copy(model) if self.period else None

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        """All of them, by their names in a checkpoint."""
        every = {"average": self.average, "teacher": self.teacher}
        return {name: network for name, network in every.items() if network is not None}

    @property
    def result(self) -> nn.Module:
        """The network that is the generation's result: the model, or its average."""
        return self.average if self.average is not None and self._ema and self._ema.role == "result" else self._model

    def reset(self) -> None:
        """Make all of them what the model is."""
        for network in self.networks.values():
            network.load_state_dict(self._model.state_dict())

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the average towards the model after a step: w̄ ← d·w̄ + (1-d)·w; buffers (BatchNorm's) are copied.

        It begins as the initial weights. Polyak and Juditsky (1992); with exponential weights, Tarvainen and Valpola,
        "Mean teachers are better role models" (NeurIPS 2017).
        """
        if self.average is None or self._ema is None:
            return
        for mean, value in zip(self.average.parameters(), self._model.parameters(), strict=True):
            mean.lerp_(value, 1 - self._ema.decay)
        for kept, buffer in zip(self.average.buffers(), self._model.buffers(), strict=True):
            kept.copy_(buffer)

    def after_epoch(self, epochs: int, workers: Workers) -> None:
        """Make the model its own teacher from now on, where `epochs` finished epochs end a period; on every worker."""
        if self.teacher is None or epochs % (self.period or 1):
            return
        workers.share_buffers(self._model)  # a resumed worker has rank 0's
        self.teacher.load_state_dict(self._model.state_dict())


def own_teacher_period(spec: GenerationSpec) -> int | None:
    """Return after how many epochs the model's state becomes its teacher, again and again; None where it never does."""
    if not isinstance(spec.task, PatriarchSpec) or not spec.task.teaches_itself:
        return None
    assert spec.task.loss is not None
    return 1 if spec.task.loss.name == "ps_kd" else spec.recipe.epochs // spec.recipe.cycles


def _frozen_copy(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).requires_grad_(False).eval()
