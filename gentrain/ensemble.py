"""The running ensemble of a chain."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def running_ensemble(probabilities: ArrayLike) -> NDArray[np.float64]:
    """Return the mean of M(0)..M(g) for every g: stacked probabilities (G+1, N, C) -> (G+1, N, C), float64.

    The patriarch is included. Entry 0 is the patriarch alone, which is no ensemble.
    """
    stacked = np.asarray(probabilities, dtype=np.float64)
    members = np.arange(1, len(stacked) + 1).reshape(-1, *[1] * (stacked.ndim - 1))
    mean: NDArray[np.float64] = np.cumsum(stacked, axis=0) / members
    return mean
