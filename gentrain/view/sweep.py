"""A sweep as it happens: chains × generations, on a terminal as a grid, elsewhere in lines."""

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
    EpochDone,
    Event,
    GenerationDone,
    GenerationQueued,
    GenerationStarted,
    GenerationWaiting,
    InChain,
    SweepStarted,
)
from gentrain.view.base import LinesView, TableView
from gentrain.view.chain import told_done
from gentrain.view.tables import STATES, duration, percent

SUMMARY_SECONDS = 30.0
HEADER_LINES = 8


@dataclass
class _Training:
    """A distinct generation, whoever trains it."""

    state: str = "waiting"
    epoch: int = 0
    begun: float | None = None
    """When it was queued here, on the board's clock."""
    from_epoch: int = 0
    error: float | None = None


@dataclass
class SweepBoard:
    """The state of a sweep as its events tell it; both views read it."""

    name: str = ""
    epochs: int = 1
    runs: str = ""
    chains: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    trainings: dict[str, _Training] = field(default_factory=dict)
    ensembles: dict[tuple[str, int], float] = field(default_factory=dict)
    ended: dict[str, int] = field(default_factory=dict)
    """Last generation of chains that have saturated."""
    queued: dict[str, int] = field(default_factory=dict)
    """Generation that a chain waits for, by chain."""
    slots: int | None = None
    walls: list[float] = field(default_factory=list)
    """Seconds that whole generations took here, with starting and evaluating."""
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self.started = self.clock()

    def update(self, event: Event) -> None:
        """Take an event in."""
        if isinstance(event, SweepStarted):
            self.name, self.epochs, self.runs, self.chains = event.name, event.epochs, event.runs, event.chains
            self.trainings = {key: _Training() for keys in event.chains.values() for key in keys}
        elif isinstance(event, CapacityChanged):
            self.slots = event.slots
        elif isinstance(event, InChain):
            self._in_chain(event.chain, event.event)

    def _in_chain(self, chain: str, event: Event) -> None:
        if isinstance(event, ChainSaturated):
            self.ended[chain] = event.generation
        if not isinstance(event, GenerationWaiting | GenerationQueued | GenerationStarted | EpochDone | GenerationDone):
            return
        training = self.trainings[self.chains[chain][event.generation]]
        self.queued.pop(chain, None)
        if isinstance(event, GenerationWaiting):
            self.queued[chain] = event.generation
        elif isinstance(event, GenerationQueued):
            training.state, training.begun = "starting", self.clock()
        elif isinstance(event, GenerationStarted):
            training.state, training.epoch, training.from_epoch = "running", event.epoch, event.epoch
        elif isinstance(event, EpochDone):
            training.state, training.epoch = "running", event.row["epoch"]
        elif isinstance(event, GenerationDone):
            if training.begun is not None and training.state != "done":
                self.walls.append((self.clock() - training.begun) / max(1e-9, 1 - training.from_epoch / self.epochs))
            training.state, training.error = "done", event.row["top1_error"]
            if (ensemble := event.row["ensemble_top1_error"]) is not None:
                self.ensembles[chain, event.generation] = ensemble

    def count(self, *states: str) -> int:
        """Return how many distinct trainings are in one of the states."""
        return sum(training.state in states for training in self.trainings.values())

    def seconds_left(self) -> float | None:
        """Return the time that is left, from the generations that were trained here; None while there is none.

        No less than the longest chain's, nor than all work shared among the devices.
        """
        if not self.walls or not self.slots:
            return None
        wall = sum(self.walls) / len(self.walls)
        left = {k: 1 - t.epoch / self.epochs for k, t in self.trainings.items() if t.state != "done"}
        wanted = {name: keys[: self.ended.get(name, len(keys)) + 1] for name, keys in self.chains.items()}
        longest = max((sum(left.get(key, 0.0) for key in keys) for keys in wanted.values()), default=0.0)
        shared = sum(left.get(key, 0.0) for key in {key for keys in wanted.values() for key in keys}) / self.slots
        return wall * max(longest, shared)

    def headline(self) -> str:
        """Return how far the sweep is, in a line."""
        running = self.count("running", "starting")
        devices = f" of {self.slots} that the devices hold" if self.slots else ""
        return (
            f"{self.count('done')} of {len(self.trainings)} trainings done, {running} running{devices}, "
            f"{duration(self.clock() - self.started)} so far, {duration(self.seconds_left())} left"
        )


class SweepLines(LinesView):
    """A line for every finished generation, and now and then how far it all is."""

    def __init__(self, stream: TextIO, *, after: TextIO | None = None) -> None:
        super().__init__(stream, after=after)
        self._board = SweepBoard()
        self._told = time.monotonic()

    def _line(self, event: Event) -> str | None:
        self._board.update(event)
        if isinstance(event, InChain):
            inner = event.event
            if isinstance(inner, GenerationDone):
                return f"{event.chain}: {told_done(inner)}"
            if isinstance(inner, GenerationStarted) and inner.epoch:
                return f"{event.chain}: generation {inner.generation} goes on after epoch {inner.epoch}"
            if isinstance(inner, ChainSaturated):
                return f"{event.chain} ends after generation {inner.generation}: its held-out error got no better"
            if time.monotonic() - self._told > SUMMARY_SECONDS:
                self._told = time.monotonic()
                return self._board.headline()
        return super()._line(event)


class SweepTable(TableView):
    """A row a chain, a column a generation; where the terminal is too low, the chains that are at work."""

    def __init__(self, stream: TextIO, *, after: TextIO | None = None) -> None:
        self._board = SweepBoard()
        super().__init__(stream, after=after)

    def _take(self, event: Event) -> None:
        self._board.update(event)
        super()._take(event)

    def _render(self) -> Table | Text:
        board = self._board
        if not board.chains:
            return Text("getting ready …", style="dim")
        table = Table(
            title=f"{board.name}  ·  {board.headline()}",
            title_justify="left",
            title_style="bold",
            caption_justify="left",
            box=None,
            pad_edge=False,
            padding=(0, 2, 0, 0),
        )
        table.add_column("chain", no_wrap=True)
        for generation in range(max(len(keys) for keys in board.chains.values())):
            table.add_column(f"Gen #{generation}", justify="right", no_wrap=True)
        room = max(4, self.console.height - HEADER_LINES)
        shown = sorted(board.chains, key=self._activity)[:room] if len(board.chains) > room else list(board.chains)
        for chain in shown:
            table.add_row(chain, *self._cells(chain))
        hidden = len(board.chains) - len(shown)
        table.caption = "error (ensemble's)" + (f"; {hidden} more chains" if hidden else "") + f"; {board.runs}"
        return table

    def _activity(self, chain: str) -> int:
        """Order chains: at work, waiting, finished."""
        states = {self._board.trainings[key].state for key in self._board.chains[chain]}
        return 0 if states & {"running", "starting"} else 1 if "waiting" in states else 2

    def _cells(self, chain: str) -> Iterable[Text]:
        board = self._board
        for generation, key in enumerate(board.chains[chain]):
            training = board.trainings[key]
            state = training.state
            if generation > board.ended.get(chain, generation):
                state, text = "waiting", "saturated"
            elif state == "done":
                ensemble = board.ensembles.get((chain, generation))
                text = percent(training.error) + (f" ({percent(ensemble)})" if ensemble is not None else "")
            elif state == "running":
                text = f"{training.epoch}/{board.epochs}"
            elif state == "starting":
                text = "starting"
            else:
                text = "queued" if board.queued.get(chain) == generation else "·"
            yield Text(text, style=STATES[state])
