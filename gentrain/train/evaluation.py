"""A network in training, evaluated over all workers: each image of a split counts once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from gentrain.data.loading.loader import Batch, Loader
from gentrain.errors import GentrainError
from gentrain.train.inference import predict
from gentrain.train.splits import Splits
from gentrain.train.workers import Workers


@dataclass(frozen=True)
class Evaluator:
    """Evaluates a network as it is, without augmentation and in eval mode; every worker must call the same methods."""

    model: nn.Module
    splits: Splits
    workers: Workers
    precision: str

    def errors(self) -> dict[str, float]:
        """Return the top-1 error on each held-out split, as columns of epochs.parquet: `test_error` and so on."""
        return {f"{split}_error": self.error(split) for split in self.splits.held_out}

    def error(self, split: str) -> float:
        """Return the top-1 error over a whole split, NaN where a probability isn't finite."""
        self.workers.share_buffers(self.model)
        loader = self.splits.loader(split)
        counts = torch.zeros(2, dtype=torch.int64, device=self.workers.device)
        for batch, probabilities in self._predict(loader):
            counts[0] += (probabilities.argmax(dim=1) != batch.labels).sum()
            counts[1] += (~probabilities.isfinite()).sum()
        wrong, bad = self.workers.sum(counts).tolist()
        return math.nan if bad else float(wrong) / loader.num_samples

    def predictions(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Return (probabilities (N, C) float32, labels (N,)) of a split in its own order, whole on every worker."""
        self.workers.share_buffers(self.model)
        own = [
            (batch.indices.cpu().numpy(), batch.labels.cpu().numpy(), probabilities.cpu().numpy())
            for batch, probabilities in self._predict(self.splits.loader(split))
        ]
        parts = [part for worker in self.workers.gather(own) for part in worker]
        indices, labels, probabilities = (np.concatenate(column) for column in zip(*parts, strict=True))
        if not np.array_equal(np.sort(indices), np.arange(self.splits.manifest.splits[split].count)):
            raise GentrainError(f"{split}: evaluation didn't see every image exactly once; this is a bug of gentrain")
        order = np.argsort(indices)
        return probabilities[order], labels[order]

    def train_primary(self) -> float:
        """Return the mean largest softmax score on the training set."""
        loader = self.splits.ordered("train")
        total = torch.zeros((), dtype=torch.float64, device=self.workers.device)
        for _, probabilities in self._predict(loader):
            total += probabilities.max(dim=1).values.double().sum()
        return float(self.workers.sum(total)) / loader.num_samples

    def _predict(self, loader: Loader) -> Iterator[tuple[Batch, Tensor]]:
        """Yield this worker's batches with their probabilities."""
        return predict(
            self.model, loader, manifest=self.splits.manifest, device=self.workers.device, precision=self.precision
        )
