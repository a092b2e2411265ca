"""Sums of losses, errors and primary scores over an epoch, and the row of epochs.parquet they become."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from gentrain.data.loading.loader import Batch
from gentrain.train.losses import LossTerms
from gentrain.train.workers import Workers

EPOCHS_SCHEMA = pa.schema(
    [(name, pa.int64()) for name in ("epoch", "images")]
    + [
        (name, pa.float64())
        for name in (
            "seconds",
            "images_per_second",
            "learning_rate",
            "loss",
            "hard",
            "soft",
            "train_error",
            "primary_score",
            "test_error",
            "validation_error",
        )
    ]
)


_NO_STEP = torch.iinfo(torch.int64).max
"""Stands for "no step" on the device, where it is above every step."""


class Meter:
    """Sums over an epoch, kept on the device so that a step never waits for them."""

    NAMES = ("loss", "hard", "soft", "train_error", "primary", "count")

    def __init__(self, workers: Workers) -> None:
        self.workers = workers
        self.sums = torch.zeros(len(self.NAMES), dtype=torch.float64, device=workers.device)
        self.bad_step = torch.full((), _NO_STEP, dtype=torch.int64, device=workers.device)

    @torch.no_grad()
    def add(self, step: int, batch: Batch, logits: Tensor, terms: LossTerms) -> None:
        """Add a step's batch: logits (n, C) and the losses' local means.

        A mixed image's class is the one with the larger part.
        """
        count = len(batch.labels)
        wanted = batch.labels if batch.labels.dim() == 1 else batch.labels.argmax(dim=1)
        top = logits.float().softmax(dim=1).max(dim=1)
        self.sums += torch.stack(
            [
                terms.loss.double() * count,
                terms.hard.double() * count,
                terms.soft.double() * count,
                (top.indices != wanted).sum().double(),
                top.values.sum().double(),
                torch.full((), count, dtype=torch.float64, device=self.sums.device),  # torch.tensor waits for a GPU
            ]
        )
        here = torch.where(terms.loss.isfinite(), self.bad_step, torch.full_like(self.bad_step, step))
        self.bad_step = torch.minimum(self.bad_step, here)

    def reduce(self) -> None:
        """Sum over the workers, once at the end of the epoch."""
        self.workers.sum(self.sums)

    def first_bad_step(self) -> int | None:
        """Return the first step whose loss was not finite on any worker, None where all were."""
        step = int(self.workers.minimum(self.bad_step.clone()))
        return None if step == _NO_STEP else step

    def means(self) -> dict[str, float]:
        """Return the sums divided by the samples, and the samples themselves as `count`."""
        sums = dict(zip(self.NAMES, self.sums.tolist(), strict=True))
        count = sums.pop("count")
        return {name: value / max(count, 1) for name, value in sums.items()} | {"count": count}


def epoch_row(
    epoch: int, means: Mapping[str, float], *, images: int, seconds: float, learning_rate: float
) -> dict[str, Any]:
    """Return the row of epochs.parquet of a trained epoch, which isn't evaluated yet.

    Args:
        epoch: counted from 1.
        means: as `Meter.means` returns them.
        images: trained on, over all workers.
        seconds: of training.
        learning_rate: of the last step.
    """
    return {
        "epoch": epoch,
        "seconds": seconds,
        "images": images,
        "images_per_second": images / seconds,
        "learning_rate": learning_rate,
        "loss": means["loss"],
        "hard": means["hard"],
        "soft": means["soft"],
        "train_error": means["train_error"],
        "primary_score": means["primary"],
        "test_error": None,
        "validation_error": None,
    }
