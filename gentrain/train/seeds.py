"""Seeds by what they are for: everything random is a function of (seed, generation, epoch, rank, sample)."""

from __future__ import annotations

import numpy as np


def seed_of(*parts: int) -> int:
    """Return an independent 62-bit seed for a tuple such as (seed, generation, epoch, rank)."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(2))
