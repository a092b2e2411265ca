"""Follow a sweep by its events: the state of each distinct training, and the time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from gentrain.events import (
    CapacityChanged,
    ChainSaturated,
    Compiling,
    EpochDone,
    Event,
    FinishedBefore,
    GenerationDone,
    GenerationQueued,
    GenerationStarted,
    GenerationWaiting,
    InChain,
    SweepStarted,
)
from gentrain.results.units import duration

_OF_TRAININGS = GenerationWaiting | GenerationQueued | Compiling | GenerationStarted | EpochDone | GenerationDone
"""Events that change a training's state."""
AT_WORK = ("starting", "compiling", "running")
"""States of a training that has devices."""


@dataclass
class _Training:
    """Hold the state of one distinct generation, which several chains may share."""

    state: str = "waiting"
    epochs: int = 1
    epoch: int = 0
    begun: float | None = None
    """When its workers were requested, on `SweepState.clock`; None where another process trains it."""
    from_epoch: int = 0
    error: float | None = None


@dataclass
class SweepState:
    """Follow a sweep by its events; views and metrics read it."""

    name: str = ""
    epochs: int = 1
    runs: str = ""
    chains: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    trainings: dict[str, _Training] = field(default_factory=dict)
    ensembles: dict[tuple[str, int], float] = field(default_factory=dict)
    ended: dict[str, int] = field(default_factory=dict)
    """Last generation of each saturated chain."""
    queued: dict[str, int] = field(default_factory=dict)
    """Generation that each waiting chain waits for."""
    slots: int | None = None
    walls: list[float] = field(default_factory=list)
    """Seconds that whole generations of the usual epochs took in this run, start and evaluation included."""
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self.started = self.clock()

    def update(self, event: Event) -> None:
        """Apply an event."""
        if isinstance(event, SweepStarted):
            self.name, self.epochs, self.runs, self.chains = event.name, event.epochs, event.runs, event.chains
            self.trainings = {
                key: _Training(epochs=event.epochs_by_key.get(key, event.epochs))
                for keys in event.chains.values()
                for key in keys
            }
        elif isinstance(event, FinishedBefore):
            for key, error in event.errors.items():
                self.trainings[key].state, self.trainings[key].error = "done", error
        elif isinstance(event, CapacityChanged):
            self.slots = event.slots
        elif isinstance(event, InChain):
            self._in_chain(event.chain, event.event)

    def _in_chain(self, chain: str, event: Event) -> None:
        if isinstance(event, ChainSaturated):
            self.ended[chain] = event.generation
        if not isinstance(event, _OF_TRAININGS):
            return
        training = self.trainings[self.chains[chain][event.generation]]
        self.queued.pop(chain, None)
        if isinstance(event, GenerationWaiting):
            self.queued[chain] = event.generation
        elif isinstance(event, GenerationQueued):
            training.state, training.begun = "starting", self.clock()
        elif isinstance(event, Compiling):
            training.state = "compiling"
        elif isinstance(event, GenerationStarted):
            training.state, training.epoch, training.from_epoch = "running", event.epoch, event.epoch
        elif isinstance(event, EpochDone):
            training.state, training.epoch = "running", event.row["epoch"]
        elif isinstance(event, GenerationDone):
            if training.begun is not None and training.state != "done":
                part = (training.epochs - training.from_epoch) / self.epochs
                self.walls.append((self.clock() - training.begun) / max(1e-9, part))
            training.state, training.error = "done", event.row["top1_error"]
            if (ensemble := event.row["ensemble_top1_error"]) is not None:
                self.ensembles[chain, event.generation] = ensemble

    def count(self, *states: str) -> int:
        """Return the number of distinct trainings in the given states."""
        return sum(training.state in states for training in self.trainings.values())

    def seconds_left(self) -> float | None:
        """Return the seconds left, estimated from the generations trained in this run; None before the first one.

        The larger of the longest chain's remaining time and all remaining work divided by the devices.
        """
        if not self.walls or not self.slots:
            return None
        wall = sum(self.walls) / len(self.walls)
        left = {k: (t.epochs - t.epoch) / self.epochs for k, t in self.trainings.items() if t.state != "done"}
        wanted = {name: keys[: self.ended.get(name, len(keys)) + 1] for name, keys in self.chains.items()}
        longest = max((sum(left.get(key, 0.0) for key in keys) for keys in wanted.values()), default=0.0)
        shared = sum(left.get(key, 0.0) for key in {key for keys in wanted.values() for key in keys}) / self.slots
        return wall * max(longest, shared)

    def headline(self) -> str:
        """Return the sweep's progress in one line."""
        running = self.count(*AT_WORK)
        devices = f" of {self.slots} that fit" if self.slots else ""
        return (
            f"{self.count('done')} of {len(self.trainings)} trainings done, {running} running{devices}, "
            f"{duration(self.clock() - self.started)} elapsed, time left: {duration(self.seconds_left())}"
        )
