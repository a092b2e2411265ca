"""Which samples come in which batch of which worker; the numbers alone, so that a driver needs no FFCV for them."""

from __future__ import annotations

import numpy as np


def epoch_order(num_samples: int, *, seed: int, epoch: int) -> np.ndarray:
    """Return the permutation of an epoch's samples, a function of (seed, epoch) alone."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, epoch)))).permutation(num_samples)


PAIR = 2
"""Samples of an epoch's order that stay together where neighbours are mixed."""


def worker_order(
    order: np.ndarray, *, batch_size: int, rank: int, world_size: int, together: int = 1
) -> tuple[np.ndarray, bool]:
    """Return a worker's samples in order, cut from every global batch, and whether its last batch is a filler.

    `batch_size` is a multiple of `world_size` · `together`, the number of neighbours that no two workers share. Every
    worker's samples fall into the same number of batches.
    """
    full = len(order) - len(order) % batch_size
    own = order[:full].reshape(-1, world_size, batch_size // world_size)[:, rank].reshape(-1)
    tail = order[full:]
    if not len(tail):
        return own, False
    part = tail_part(tail, rank=rank, world_size=world_size, together=together)
    return np.concatenate([own, part if len(part) else order[:1]]), not len(part)


def tail_part(tail: np.ndarray, *, rank: int, world_size: int, together: int = 1) -> np.ndarray:
    """Return a worker's part of the last, smaller batch."""
    sizes = _tail_sizes(len(tail), world_size=world_size, together=together)
    start = sizes[:rank].sum()
    return tail[start : start + sizes[rank]]


def worker_parts(samples: int, *, batch_size: int, world_size: int, together: int = 1) -> frozenset[int]:
    """Return how many samples of a batch a worker may get in an epoch; 0 where the last batch has none for some.

    `batch_size` is a multiple of `world_size` · `together`.
    """
    whole, tail = divmod(samples, batch_size)
    parts = {batch_size // world_size} if whole else set()
    if tail:
        parts |= set(_tail_sizes(tail, world_size=world_size, together=together).tolist())
    return frozenset(parts)


def _tail_sizes(tail: int, *, world_size: int, together: int) -> np.ndarray:
    """Return how many of the last batch's samples each worker gets, (world_size,)."""
    groups = -(-tail // together)
    ends = np.cumsum(groups // world_size + (np.arange(world_size) < groups % world_size)) * together
    return np.diff(np.minimum(ends, tail), prepend=0)
