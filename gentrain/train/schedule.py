"""Compute the learning rate as a pure function of the step, so that a checkpoint needn't store it."""

from __future__ import annotations

import math
from collections.abc import Sequence


def learning_rate(
    *,
    step: int,
    steps_per_epoch: int,
    base: float,
    milestones: Sequence[int],
    decay: float,
    warmup_epochs: int = 0,
    cosine_epochs: int | None = None,
    cycles: int = 1,
) -> float:
    """Return the learning rate of a step, counted from 0 over the whole training.

    It is multiplied by `decay` once as many epochs as each milestone are finished. During the first `warmup_epochs`
    it rises linearly, step by step; the last warm-up step has the full rate.

    With `cosine_epochs`, the epochs of the training, milestones play no part: after the warm-up the rate falls step by
    step as base·(1 + cos(π·t))/2, where t goes from 0 to 1 (Loshchilov and Hutter, ICLR 2017, eq. (5), to 0). Of
    several `cycles`, which divide the epochs, each begins at the full rate and ends at 0.
    """
    warmup_steps = warmup_epochs * steps_per_epoch
    if cosine_epochs is not None and step >= warmup_steps:
        length = cosine_epochs // cycles * steps_per_epoch
        begin = step // length * length
        start = max(begin, warmup_steps)
        part = (step - start) / (begin + length - start)
        return base * (1 + math.cos(math.pi * part)) / 2
    epoch, milestones = step // steps_per_epoch, milestones if cosine_epochs is None else ()
    rate = base * decay ** sum(epoch >= milestone for milestone in milestones)
    return rate * (step + 1) / warmup_steps if step < warmup_steps else rate
