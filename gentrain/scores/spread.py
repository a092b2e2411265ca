"""Statistics over seeds: mean, standard deviation, 95 % interval, and paired differences (docs/statistics.md)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from scipy.special import stdtrit

LEVEL = 0.95
"""Confidence level of every interval."""


@dataclass(frozen=True)
class Spread:
    """Hold one measure for several seeds."""

    values: Mapping[int, float]
    """The measure by seed; at least one entry."""

    @property
    def n(self) -> int:
        """Return the number of seeds."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """Return the mean over seeds."""
        return statistics.fmean(self.values.values())

    @property
    def std(self) -> float | None:
        """Return the sample standard deviation (divisor n - 1) over seeds; None for a single seed."""
        return statistics.stdev(self.values.values()) if self.n > 1 else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Return the 95 % interval of the mean, mean ± t·std/√n; None for a single seed.

        t is the 97.5 % quantile of Student's distribution with n - 1 degrees of freedom (Student 1908): the interval
        is exact where the measure is normally distributed over seeds.
        """
        if self.std is None:
            return None
        half = float(stdtrit(self.n - 1, (1 + LEVEL) / 2)) * self.std / math.sqrt(self.n)
        return self.mean - half, self.mean + half


def paired_difference(spread: Spread | None, other: Spread | None) -> Spread | None:
    """Return `spread` minus `other`, seed by seed over the seeds that both have; None where there is none.

    Its interval is that of the paired t-test: what a seed does to both sides cancels.
    """
    if spread is None or other is None:
        return None
    both = {seed: value - other.values[seed] for seed, value in spread.values.items() if seed in other.values}
    return Spread(both) if both else None


def unpaired_seeds(spread: Spread | None, other: Spread | None) -> tuple[int, ...]:
    """Return the seeds, sorted, that only one of the two has: `paired_difference` leaves them out."""
    seeds = [set(side.values) if side else set() for side in (spread, other)]
    return tuple(sorted(seeds[0] ^ seeds[1]))
