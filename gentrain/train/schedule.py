"""Compute the learning rate as a pure function of the step, so that a checkpoint needn't store it."""

from __future__ import annotations

from collections.abc import Sequence


def learning_rate(
    *, step: int, steps_per_epoch: int, base: float, milestones: Sequence[int], decay: float, warmup_epochs: int = 0
) -> float:
    """Return the learning rate of a step, counted from 0 over the whole training.

    It is multiplied by `decay` once as many epochs as each milestone are finished. During the first `warmup_epochs`
    it rises linearly, step by step; the last warm-up step has the full rate.
    """
    epoch = step // steps_per_epoch
    rate = base * decay ** sum(epoch >= milestone for milestone in milestones)
    warmup_steps = warmup_epochs * steps_per_epoch
    return rate * (step + 1) / warmup_steps if step < warmup_steps else rate
