"""Yield the batches of one worker: one global order for any number of workers, nothing dropped or repeated."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gentrain.data.loading.beton import BetonReader
from gentrain.data.loading.crops import SeededResizedCrop, center_crop
from gentrain.data.loading.order import epoch_order, tail_part, worker_order
from gentrain.study.sections import ImagesConfig


@dataclass(frozen=True)
class Batch:
    """Holds one worker's part of a global batch, on its device."""

    images: Tensor
    """(n, 3, H, W), uint8, channels last in memory."""
    labels: Tensor
    """(n,), int64; (n, C), float32, of images that were mixed."""
    indices: Tensor
    """(n,), int64: each sample's place in its split."""
    global_size: int
    """Samples in the global batch, over all workers."""
    filler: bool = False
    """Whether this worker has no sample in this global batch: the batch holds one of another, to be left out."""


class Loader:
    """Reads a split epoch by epoch.

    Training (`shuffle`): the order is a function of (seed, epoch); each worker takes its slice of every global batch,
    of the last, smaller one too. A worker that the last batch has no sample for gets a filler, so that all workers
    take the same number of steps. Evaluation: in the split's own order, each worker a contiguous part, no fillers.

    Images of any size (`images`) are cut to `size` pixels while they are read: at random parts to train, which are
    a function of (seed, epoch, sample), the middle otherwise.

    So many neighbours of the order as `together` says stay in one worker's part of a batch.
    """

    def __init__(
        self,
        path: Path,
        *,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        shuffle: bool,
        threads: int = 1,
        device: torch.device | None = None,
        images: ImagesConfig | None = None,
        size: int = 0,
        together: int = 1,
    ) -> None:
        self._crop: SeededResizedCrop | None = None
        if images is not None and shuffle:
            self._crop = SeededResizedCrop(size, scale=images.scale, ratio=images.ratio, seed=seed)
        decoder = self._crop or (center_crop(size, part=images.center) if images is not None else None)
        per_worker = math.ceil(batch_size / world_size)
        self._reader = BetonReader(path, batch_size=per_worker, threads=threads, decoder=decoder)
        self._batch_size, self._rank, self._world_size = batch_size, rank, world_size
        self._seed, self._shuffle, self._together = seed, shuffle, together
        self._device = device or torch.device("cpu")
        self.num_samples = self._reader.num_samples

    def __len__(self) -> int:
        """Return the global batches of an epoch."""
        return math.ceil(self.num_samples / self._batch_size)

    @property
    def sizes(self) -> list[int]:
        """Return how many images this worker's training batches have: the last may have fewer, or none."""
        full, tail = divmod(self.num_samples, self._batch_size)
        last = tail_part(np.arange(tail), rank=self._rank, world_size=self._world_size, together=self._together)
        own = len(last)
        return [self._batch_size // self._world_size] * bool(full) + [own] * bool(tail)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield this worker's batches of an epoch."""
        if not self._shuffle:
            order = np.array_split(np.arange(self.num_samples), self._world_size)[self._rank]
            yield from self._batches(order, filler=False)
            return
        if self._crop is not None:
            self._crop.set_epoch(epoch)
        order, filler = worker_order(
            epoch_order(self.num_samples, seed=self._seed, epoch=epoch),
            batch_size=self._batch_size,
            rank=self._rank,
            world_size=self._world_size,
            together=self._together,
        )
        yield from self._batches(order, filler=filler)

    def _batches(self, order: np.ndarray, *, filler: bool) -> Iterator[Batch]:
        steps = len(self)
        read = self._reader.read(order)
        moved = _copied(read) if self._device.type == "cpu" else _moved_ahead(read, self._device)
        for step, (images, labels, indices) in enumerate(moved):
            rest = self.num_samples - step * self._batch_size
            yield Batch(
                images=images,
                labels=labels,
                indices=indices,
                global_size=min(self._batch_size, rest),
                filler=filler and step == steps - 1,
            )


_Tensors = tuple[Tensor, Tensor, Tensor]
"""Images, labels and indices of a batch; the images are FFCV's reused buffer until they are copied."""


def _copied(batches: Iterator[_Tensors]) -> Iterator[_Tensors]:
    for images, labels, indices in batches:
        yield images.clone(), labels, indices


def _moved_ahead(batches: Iterator[_Tensors], device: torch.device) -> Iterator[_Tensors]:
    """Yield the batches on a GPU, each copied on a second stream while the step before it is computed.

    FFCV's buffer is copied to pinned memory at once; torch's allocator keeps that until the copy to the GPU is over.
    The computing stream waits for the batch's own copy only, and its memory isn't used again before it is done with it.
    """
    side = torch.cuda.Stream(device)
    ahead: tuple[_Tensors, torch.cuda.Event] | None = None
    for images, labels, indices in batches:
        with torch.cuda.stream(side):
            moved = (
                images.pin_memory().to(device, non_blocking=True),
                labels.pin_memory().to(device, non_blocking=True),
                indices.pin_memory().to(device, non_blocking=True),
            )
            copied = side.record_event()
        if ahead is not None:
            yield _arrived(*ahead)
        ahead = moved, copied
    if ahead is not None:
        yield _arrived(*ahead)


def _arrived(batch: _Tensors, copied: torch.cuda.Event) -> _Tensors:
    """Make the current stream wait for the batch's copy, and tell the allocator that this stream uses it."""
    stream = torch.cuda.current_stream(batch[0].device)
    stream.wait_event(copied)
    for tensor in batch:
        tensor.record_stream(stream)
    return batch
