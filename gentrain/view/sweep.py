"""Show a running sweep: a grid of chains × generations on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TextIO

from rich.table import Table
from rich.text import Text

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
    Note,
    SweepStarted,
)
from gentrain.results.units import duration
from gentrain.view.base import LinesView, TableView, widest_fitting
from gentrain.view.chain import compiling_line, done_line, saturated_line, waiting_line
from gentrain.view.tables import STATES, percent

SUMMARY_SECONDS = 30.0
_OF_TRAININGS = GenerationWaiting | GenerationQueued | Compiling | GenerationStarted | EpochDone | GenerationDone
"""Events that change a training's state."""
HEADER_LINES = 8
_AT_WORK = ("starting", "compiling", "running")
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
    """Follow a sweep by its events; both views read it."""

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
        running = self.count(*_AT_WORK)
        devices = f" of {self.slots} that fit" if self.slots else ""
        return (
            f"{self.count('done')} of {len(self.trainings)} trainings done, {running} running{devices}, "
            f"{duration(self.clock() - self.started)} elapsed, time left: {duration(self.seconds_left())}"
        )


class SweepLines(LinesView):
    """Print a line for every finished generation, and the sweep's progress every `SUMMARY_SECONDS`."""

    def __init__(self, stream: TextIO, *, after: TextIO | None = None) -> None:
        super().__init__(stream, after=after)
        self._sweep = SweepState()
        self._summarised = time.monotonic()

    def _line(self, event: Event) -> str | None:
        self._sweep.update(event)
        if isinstance(event, InChain):
            if text := self._of_chain(event.event):
                return f"{event.chain}: {text}"
            if isinstance(event.event, ChainSaturated):
                return saturated_line(event.event)
            if time.monotonic() - self._summarised > SUMMARY_SECONDS:
                self._summarised = time.monotonic()
                return self._sweep.headline()
        return super()._line(event)

    @staticmethod
    def _of_chain(event: Event) -> str | None:
        """Return the line of an event of one chain, which begins with the chain's name."""
        if isinstance(event, GenerationDone):
            return done_line(event)
        if isinstance(event, Compiling):
            return compiling_line(event)
        if isinstance(event, GenerationStarted) and event.epoch:
            return f"generation {event.generation} resumes after epoch {event.epoch}"
        if isinstance(event, GenerationWaiting) and event.holder:
            return waiting_line(event)
        return None


class SweepTable(TableView):
    """Show a table with a row for each chain; a low terminal shows running chains first, a narrow one no ensembles."""

    def __init__(self, stream: TextIO, *, after: TextIO | None = None) -> None:
        self._sweep = SweepState()
        super().__init__(stream, after=after)

    def _take(self, event: Event) -> None:
        self._sweep.update(event)
        if isinstance(event, InChain) and isinstance(event.event, GenerationWaiting) and event.event.holder:
            event = Note(f"{event.chain}: {waiting_line(event.event)}")
        super()._take(event)

    def _render(self) -> Table | Text:
        if not self._sweep.chains:
            return Text("preparing …", style="dim")
        return widest_fitting(self.console, (self._table(ensembles=both) for both in (True, False)))

    def _table(self, *, ensembles: bool) -> Table:
        sweep = self._sweep
        table = Table(
            title=f"{sweep.name}\n{sweep.headline()}",
            title_justify="left",
            title_style="bold",
            caption_justify="left",
            box=None,
            pad_edge=False,
            padding=(0, 2, 0, 0),
        )
        table.add_column("chain", no_wrap=True)
        for generation in range(max(len(keys) for keys in sweep.chains.values())):
            width = 15 if ensembles and generation else 6  # of 12.34% (12.34%), so that the layout doesn't change
            table.add_column(f"Gen #{generation}", justify="right", no_wrap=True, min_width=width)
        room = max(4, self.console.height - HEADER_LINES)
        shown = sorted(sweep.chains, key=self._activity)[:room] if len(sweep.chains) > room else list(sweep.chains)
        for chain in shown:
            table.add_row(chain, *self._cells(chain, ensembles=ensembles))
        hidden = len(sweep.chains) - len(shown)
        table.caption = (
            f"test error{' (of the ensemble)' * ensembles}{f'; {hidden} more chains' if hidden else ''}; {sweep.runs}"
        )
        return table

    def _activity(self, chain: str) -> int:
        """Return a chain's place in the order running, waiting, finished."""
        states = {self._sweep.trainings[key].state for key in self._sweep.chains[chain]}
        return 0 if states & set(_AT_WORK) else 1 if "waiting" in states else 2

    def _cells(self, chain: str, *, ensembles: bool) -> Iterable[Text]:
        sweep = self._sweep
        for generation, key in enumerate(sweep.chains[chain]):
            training = sweep.trainings[key]
            state = training.state
            if generation > sweep.ended.get(chain, generation):
                state, text = "waiting", "saturated"
            elif state == "done":
                ensemble = sweep.ensembles.get((chain, generation)) if ensembles else None
                text = percent(training.error) + (f" ({percent(ensemble)})" if ensemble is not None else "")
            elif state == "running":
                text = f"{training.epoch}/{training.epochs}"
            elif state in ("starting", "compiling"):
                text = state
            else:
                text = "queued" if sweep.queued.get(chain) == generation else "·"
            yield Text(text, style=STATES[state])
