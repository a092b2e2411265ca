"""Estimate whether compiling a training saves more seconds than it costs: arithmetic over measured constants.

Only orders of magnitude count: digits are trained in seconds, CIFAR in hours, and compiling takes a minute.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from gentrain.models.registry import family

GAINS = {"cifar": 1.2, "cifar-strided": 1.2}
"""Speed compiled / eager by family, in bf16 on CPUs with AMX. Elsewhere it may be below 1 (docs/performance.md): there,
only what `gentrain doctor` has measured is compiled."""
MULTIPLY_ADDS = 26e9
"""Of the forward pass, a second and thread, while such a network is trained eagerly; backward passes included."""
COLD_SECONDS = 1.7
"""For each layer, where student and teacher are compiled for the first time on this machine."""
UNKNOWN_DEPTH = 100
"""Layers of a network whose name doesn't tell: rather too many."""
WARM_SECONDS = 6.0
"""A process imports the compiler and reads what another one has compiled."""


@dataclass(frozen=True)
class MeasuredStep:
    """Holds the seconds of a network's training step, eager and compiled, as measured on this machine."""

    eager: float
    compiled: float
    batch: int
    """Images of the step."""
    threads: int

    @classmethod
    def parse(cls, content: Mapping[str, Any] | None) -> Self | None:
        """Return the step that a note in the cache holds; None where there is none, or a damaged one."""
        names = [field.name for field in fields(cls)]
        values = [content.get(name) for name in names] if content else []
        if not values or not all(isinstance(value, int | float) and value > 0 for value in values):
            return None
        return cls(*values)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Training:
    """What decides how long a training takes, and what compiling it costs and saves."""

    network: str
    multiply_adds: int
    """Of one image's forward pass."""
    images: int
    """Of an epoch."""
    epochs: int
    precision: str
    threads: int
    """Of all workers."""
    amx: bool = False
    """Whether it is trained on CPUs that have AMX for bf16."""
    measured: MeasuredStep | None = None

    def seconds_saved(self) -> float:
        """Return the seconds that a compiled training is shorter by; 0 where no gain is known.

        More threads are taken to be faster in proportion.
        """
        images = self.images * self.epochs
        if (step := self.measured) is not None:
            return images * (step.eager - step.compiled) / step.batch * step.threads / self.threads
        kind, _ = family(self.network) or ("", 0)
        if kind not in GAINS or self.precision != "bf16" or not self.amx:
            return 0.0
        return images * self.multiply_adds / (MULTIPLY_ADDS * self.threads) * (1 - 1 / GAINS[kind])

    def seconds_of_compiling(self, *, cold: bool) -> float:
        """Return what compiling costs: with a `cold` cache, or read from a warm one."""
        _, depth = family(self.network) or ("", UNKNOWN_DEPTH)
        return WARM_SECONDS + (COLD_SECONDS * depth if cold else 0.0)

    def pays(self, *, cold: bool) -> bool:
        """Return whether compiling saves more seconds than it costs."""
        return self.seconds_saved() > self.seconds_of_compiling(cold=cold)
