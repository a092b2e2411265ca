"""Seeds by what they are for: everything random is a function of (seed, generation, epoch, rank, sample)."""

from __future__ import annotations

import random

import numpy as np
import torch


def generation_seed(seed: int, generation: int) -> int:
    """Return the 62-bit seed of a generation's initial weights, orders and augmentation."""
    return _first_bits(np.random.SeedSequence((seed, generation)))


def epoch_seed(seed: int, generation: int, *, epoch: int, rank: int) -> int:
    """Return the 62-bit seed of what a worker's network draws while it trains an epoch (dropout).

    Epoch and rank are a spawn key: as entropy, zeros at the end are ignored, so that the first epoch of rank 0 would
    draw what the initial weights drew.
    """
    return _first_bits(np.random.SeedSequence((seed, generation), spawn_key=(epoch, rank)))


def seed_generators(seed: int) -> None:
    """Seed the global generators of torch, NumPy and Python, which networks may draw from."""
    torch.manual_seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)  # noqa: NPY002  # networks from elsewhere may use the old interface
    random.seed(seed)


def _first_bits(sequence: np.random.SeedSequence) -> int:
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(2))
