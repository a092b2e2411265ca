"""Define what every tracker implements: the sink of a run's events, one call for each epoch and generation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

Values = Mapping[str, float]


@dataclass(frozen=True)
class Training:
    """Identify one generation of one chain, as a tracker lists it."""

    study: str
    chain: str
    generation: int
    key: str
    """Of the generation in the run folder: the hash of all that determines it."""
    teachers: tuple[str, ...] = ()
    """Names of those of the chain that teach it; none of a patriarch."""
    settings: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """The chain's own, by their dotted names."""

    @property
    def name(self) -> str:
        """Return the name of its run."""
        return run_name(self.chain, self.generation)


def run_name(chain: str, generation: int) -> str:
    """Return what the run of a generation is called, such as "D(0.6,0.5)-resnet20-s0-g2"."""
    return f"{chain}-g{generation}"


class Sink(Protocol):
    """Writes to one tracker.

    All calls but the constructor's come from one thread, one after the other, each epoch and each end of a training
    once. They may be slow, and may raise anything: the tracker then gets nothing more in this run. Epochs of several
    trainings are mixed, and those of one training needn't be in order.
    """

    destination: str
    """Where it writes to: what was written there isn't written again."""

    def epoch(self, training: Training, epoch: int, values: Values) -> None:
        """Write an epoch, counted from 1, of a training that is new to the tracker, or not."""

    def done(self, training: Training, epoch: int, values: Values) -> None:
        """Write the scores of a finished training and end its run; `epoch` is its last."""

    def close(self) -> None:
        """Write what is left, and end what is open."""
