"""Choose the samples that are held out of a set: a part of each class, by a fixed seed."""

from __future__ import annotations

import numpy as np

from gentrain.errors import DataError

SPLIT_SEED = 20181  # fixed: a held-out part is a property of the dataset, not of a study's seed


def held_out(labels: np.ndarray, fraction: float, *, setting: str) -> np.ndarray:
    """Return which samples (N,) are held out: `fraction` of each class, at least one and not all.

    Args:
        labels: of the samples, (N,).
        fraction: to hold out.
        setting: that asks for it, for the error.

    Raises:
        DataError: when a class has one sample only.
    """
    generator = np.random.Generator(np.random.PCG64(SPLIT_SEED))
    held: list[np.ndarray] = []
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        if len(own) < 2:
            raise DataError(f"{setting}: class number {label} has only {len(own)} training image")
        count = min(len(own) - 1, max(1, round(fraction * len(own))))
        held.append(generator.permutation(own)[:count])
    chosen = np.zeros(len(labels), dtype=bool)
    chosen[np.concatenate(held)] = True
    return chosen
