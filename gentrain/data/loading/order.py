"""Which samples come in which batch of which worker; the numbers alone, so that a driver needs no FFCV for them."""

from __future__ import annotations

import numpy as np


def epoch_order(num_samples: int, *, seed: int, epoch: int) -> np.ndarray:
    """Return the permutation of an epoch's samples, a function of (seed, epoch) alone."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, epoch)))).permutation(num_samples)


def worker_order(order: np.ndarray, *, batch_size: int, rank: int, world_size: int) -> tuple[np.ndarray, bool]:
    """Return a worker's samples in order, cut from every global batch, and whether its last batch is a filler.

    `batch_size` is a multiple of `world_size`. Every worker's samples fall into the same number of batches.
    """
    full = len(order) - len(order) % batch_size
    own = order[:full].reshape(-1, world_size, batch_size // world_size)[:, rank].reshape(-1)
    tail = order[full:]
    if not len(tail):
        return own, False
    part = np.array_split(tail, world_size)[rank]
    return np.concatenate([own, part if len(part) else order[:1]]), not len(part)


def worker_parts(samples: int, *, batch_size: int, world_size: int) -> frozenset[int]:
    """Return how many samples of a batch a worker may get in an epoch; 0 where the last batch has none for some.

    `batch_size` is a multiple of `world_size`.
    """
    whole, tail = divmod(samples, batch_size)
    parts = {batch_size // world_size} if whole else set()
    if tail:
        parts |= {tail // world_size, -(-tail // world_size)}
    return frozenset(parts)
