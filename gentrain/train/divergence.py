"""A training that leaves the finite numbers: seen on all workers at once, and said in one line with what to change."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

from gentrain.errors import DivergedError
from gentrain.study.lineage import GenerationSpec
from gentrain.train.workers import Workers

MAX_ROLLBACKS = 3
ROLLBACK_FACTOR = 0.5
"""Of the learning rate, at each rollback."""


def check_weights(model: nn.Module, spec: GenerationSpec, epoch: int, *, workers: Workers) -> None:
    """Raise DivergedError on every worker when a weight or buffer of one of them isn't finite after an epoch."""
    tensors = model.state_dict()
    finite = workers.minimum(torch.stack([tensor.isfinite().all() for tensor in tensors.values()]).long())
    bad = next((name for name, good in zip(tensors, finite.tolist(), strict=True) if not good), None)
    if bad is not None:
        raise diverged(spec, epoch, f"after its last step: {bad} is not finite")


def check_predictions(errors: Mapping[str, float], spec: GenerationSpec, epoch: int) -> None:
    """Raise DivergedError where an error of `Evaluator.errors` is of predictions that aren't finite.

    They are sums over the workers, so that all raise it.
    """
    bad = next((name for name, error in errors.items() if math.isnan(error)), None)
    if bad is not None:
        split = bad.removesuffix("_error")
        raise diverged(spec, epoch, f"after its last step: predictions of the {split} split are not finite")


def diverged(spec: GenerationSpec, epoch: int, reason: str) -> DivergedError:
    """Return the error of a training that left the finite numbers in an epoch, counted from 0."""
    recipe = spec.recipe
    tried = f" after {MAX_ROLLBACKS} rollbacks" if recipe.on_divergence == "rollback" else ""
    kept = f"the checkpoint after epoch {epoch} stays" if epoch else "no epoch was finished"
    remedies = ["lower recipe.learning_rate", "add recipe.warmup_epochs"]
    remedies.append("set recipe.clip_gradients: 1" if recipe.clip_gradients is None else "lower recipe.clip_gradients")
    if recipe.on_divergence == "stop":
        remedies.append("set recipe.on_divergence: rollback")
    if spec.precision != "fp32":
        remedies.append("use precision: fp32")
    return DivergedError(
        f"generation {spec.generation} ({spec.key}), epoch {epoch + 1}, {reason}{tried}; {kept}. Remedies: "
        f"{', '.join(remedies[:-1])}, or {remedies[-1]}",
        reason=reason,
    )
