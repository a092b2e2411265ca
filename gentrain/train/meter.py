"""What an epoch is summed up to: losses, error, primary score; a row of epochs.parquet."""

from __future__ import annotations

import pyarrow as pa
import torch
import torch.distributed as dist
from torch import Tensor

from gentrain.data.loading.loader import Batch
from gentrain.train.losses import LossTerms

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


class Meter:
    """Sums over an epoch, kept on the device so that a step never waits for them."""

    NAMES = ("loss", "hard", "soft", "train_error", "primary", "count")

    def __init__(self, *, world_size: int, device: torch.device) -> None:
        self.world_size = world_size
        self.sums = torch.zeros(len(self.NAMES), dtype=torch.float64, device=device)
        self.bad_step = torch.full((), torch.iinfo(torch.int64).max, dtype=torch.int64, device=device)

    @torch.no_grad()
    def add(self, step: int, batch: Batch, logits: Tensor, terms: LossTerms) -> None:
        """Add a step's batch: logits (n, C) and the losses' local means; a filler counts for nothing."""
        if batch.filler:
            return
        count = batch.labels.numel()
        top = logits.float().softmax(dim=1).max(dim=1)
        self.sums += torch.stack(
            [
                terms.loss.double() * count,
                terms.hard.double() * count,
                terms.soft.double() * count,
                (top.indices != batch.labels).sum().double(),
                top.values.sum().double(),
                torch.full((), count, dtype=torch.float64, device=self.sums.device),  # torch.tensor waits for a GPU
            ]
        )
        here = torch.where(terms.loss.isfinite(), self.bad_step, torch.full_like(self.bad_step, step))
        self.bad_step = torch.minimum(self.bad_step, here)

    def reduce(self) -> None:
        """Sum over the workers, once at the end of the epoch."""
        if self.world_size > 1:
            dist.all_reduce(self.sums)

    def first_bad_step(self) -> int | None:
        """Return the first step whose loss was not finite on any worker."""
        found = self.bad_step.clone()
        if self.world_size > 1:
            dist.all_reduce(found, op=dist.ReduceOp.MIN)
        return None if int(found) == torch.iinfo(torch.int64).max else int(found)

    def means(self) -> dict[str, float]:
        """Return the sums divided by the samples, and the samples themselves as `count`."""
        sums = dict(zip(self.NAMES, self.sums.tolist(), strict=True))
        count = sums.pop("count")
        return {name: value / max(count, 1) for name, value in sums.items()} | {"count": count}
