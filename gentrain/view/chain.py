"""Show a running chain: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Literal, TextIO

from rich.table import Table
from rich.text import Text

from gentrain.events import (
    ChainSaturated,
    ChainStarted,
    Compiling,
    EpochDone,
    Event,
    GenerationDone,
    GenerationQueued,
    GenerationStarted,
    GenerationWaiting,
    Note,
    Progress,
    TargetsKnown,
)
from gentrain.results.units import duration
from gentrain.view.base import LinesView, TableView, widest_fitting
from gentrain.view.tables import percent, three


@dataclass
class _GenerationState:
    """Hold what the live view shows of one generation."""

    target: float | None
    epochs: int = 1
    state: str = "waiting"
    epoch: int = 0
    images: int = 0
    total_images: int = 1
    speed: float | None = None
    loss: tuple[float, float, float] | None = None
    primary: float | None = None
    train_error: float | None = None
    error: float | None = None
    ensemble_error: float | None = None
    seconds: float = 0.0
    epoch_seconds: list[float] = field(default_factory=list)


@dataclass
class ChainState:
    """Follow a chain by its events; both views read it."""

    name: str = ""
    runs: str = ""
    lines: list[_GenerationState] = field(default_factory=list)

    def update(self, event: Event) -> None:
        """Apply an event."""
        if isinstance(event, ChainStarted):
            self.name, self.runs = event.chain, event.runs
            epochs = event.epochs_by_generation or (event.epochs,) * len(event.targets)
            self.lines = [_GenerationState(*of) for of in zip(event.targets, epochs, strict=True)]
        elif isinstance(event, TargetsKnown):
            for line, target in zip(self.lines, event.targets, strict=True):
                line.target = target
        elif isinstance(event, GenerationWaiting):
            self.lines[event.generation].state = "waiting"
        elif isinstance(event, GenerationQueued):
            self.lines[event.generation].state = "starting"
        elif isinstance(event, Compiling):
            self.lines[event.generation].state = "compiling"
        elif isinstance(event, GenerationStarted):
            line = self.lines[event.generation]
            line.state, line.epoch = "running", event.epoch
        elif isinstance(event, Progress):
            line = self.lines[event.generation]
            line.state, line.epoch = "running", event.epoch - 1
            line.images, line.total_images, line.speed = event.images, event.total_images, event.images_per_second
            line.loss, line.primary = (event.loss, event.hard, event.soft), event.primary
            line.train_error = event.train_error
        elif isinstance(event, EpochDone):
            row, line = event.row, self.lines[event.generation]
            line.state, line.epoch, line.images = "running", row["epoch"], 0
            line.speed, line.loss = row["images_per_second"], (row["loss"], row["hard"], row["soft"])
            line.primary, line.train_error = row["primary_score"], row["train_error"]
            line.error = row["test_error"] if row["test_error"] is not None else line.error
            line.epoch_seconds.append(row["seconds"])
        elif isinstance(event, GenerationDone) and self.lines:
            row, line = event.row, self.lines[event.generation]
            line.state, line.epoch, line.images = "reused" if event.reused else "done", line.epochs, 0
            line.error, line.ensemble_error = row["top1_error"], row["ensemble_top1_error"]
            line.primary, line.seconds = row["primary_measured"], row["train_seconds"]

    def seconds_left(self) -> float | None:
        """Return the training seconds left, estimated from recent epochs; None before the first epoch ends."""
        seen = [s for line in self.lines for s in line.epoch_seconds[-5:]]
        if not seen:
            return None
        left = sum(line.epochs - line.epoch - line.images / line.total_images for line in self.lines)
        return max(0.0, left * sum(seen) / len(seen))


class ChainLines(LinesView):
    """Print a line for every epoch and every finished generation."""

    def __init__(self, stream: TextIO, *, after: TextIO | None = None) -> None:
        super().__init__(stream, after=after)
        self._state = ChainState()

    def _line(self, event: Event) -> str | None:
        self._state.update(event)
        match event:
            case ChainStarted():
                epochs = ", ".join(map(str, event.epochs_by_generation or (event.epochs,)))
                text = f"{event.chain}: {len(event.keys)} generations of {epochs} epochs; results in {event.runs}"
            case GenerationWaiting():
                text = waiting_line(event)
            case ChainSaturated():
                text = saturated_line(event)
            case Compiling():
                text = compiling_line(event)
            case GenerationStarted():
                resumed = f": resuming after epoch {event.epoch}" if event.epoch else ""
                text = f"generation {event.generation} ({event.key}){resumed}"
            case EpochDone():
                text = self._epoch(event)
            case GenerationDone():
                text = done_line(event)
            case _:
                return super()._line(event)
        return text

    def _epoch(self, event: EpochDone) -> str:
        row, chain = event.row, self._state
        parts = [
            f"generation {event.generation} epoch {row['epoch']}/{chain.lines[event.generation].epochs}",
            f"loss {row['loss']:.4f} = hard {row['hard']:.4f}, soft {row['soft']:.4f}",
            f"primary {row['primary_score']:.3f} (target {three(chain.lines[event.generation].target)})",
            f"error: train {percent(row['train_error'])} test {percent(row['test_error'])}",
            f"{row['images_per_second']:,.0f} images/s",
            f"{duration(chain.seconds_left())} left",
        ]
        return "  ".join(parts)


def done_line(event: GenerationDone) -> str:
    """Return the line for a finished generation."""
    row, state = event.row, "reused" if event.reused else "done"
    line = f"generation {event.generation} {state}: test error {percent(row['top1_error'])}"
    ensemble = row["ensemble_top1_error"]
    return line if ensemble is None else f"{line}, ensemble {percent(ensemble)}"


def waiting_line(event: GenerationWaiting) -> str:
    """Return the line for a generation that another process trains."""
    holder = event.holder or "another process"
    return f"generation {event.generation} ({event.key}) is being trained by {holder}: waiting"


def compiling_line(event: Compiling) -> str:
    """Return the line for a generation whose network is compiled before it is trained."""
    return f"generation {event.generation} ({event.key}): compiling (once on this machine)"


def saturated_line(event: ChainSaturated) -> str:
    """Return the line for a chain that stops early."""
    return f"{event.chain} stops after generation {event.generation}: its held-out error no longer improves (patience)"


COLUMNS = {
    "gen": 3,
    "state": 9,
    "epoch": 7,
    "": 20,
    "images/s": 8,
    "loss = hard, soft": 20,
    "primary→target": 13,
    "train err": 7,
    "test err": 7,
    "ensemble": 7,
}
"""The live table's columns and least widths, those of full cells, so that the table doesn't change its layout."""
NUMBERS = ("train err", "test err", "ensemble")
LEAST_IMPORTANT = ("", "loss = hard, soft", "images/s", "train err", "primary→target", "ensemble", "test err")
OMITTED = tuple(LEAST_IMPORTANT[:count] for count in range(len(LEAST_IMPORTANT) + 1))
"""Columns to leave out, from wide to narrow terminals; generation, state and epoch always stay."""


class ChainTable(TableView):
    """Show a table with a row for each generation; a narrow terminal gets fewer columns."""

    def __init__(self, stream: TextIO, *, after: TextIO | None = None) -> None:
        self._state = ChainState()
        self._started = time.monotonic()
        super().__init__(stream, after=after)

    def _take(self, event: Event) -> None:
        self._state.update(event)
        if isinstance(event, GenerationWaiting):
            event = Note(waiting_line(event))
        elif isinstance(event, Compiling):
            event = Note(compiling_line(event))
        super()._take(event)

    def _render(self) -> Table | Text:
        if not self._state.lines:
            return Text("preparing …", style="dim")
        return widest_fitting(self.console, (self._table(omitted) for omitted in OMITTED))

    def _table(self, omitted: Collection[str]) -> Table:
        chain = self._state
        elapsed, left = time.monotonic() - self._started, chain.seconds_left()
        table = Table(
            title=f"{chain.name}\n{duration(elapsed)} elapsed, training time left: {duration(left)}",
            title_justify="left",
            title_style="bold",
            caption=chain.runs,
            caption_justify="left",
            box=None,
            pad_edge=False,
            padding=(0, 2, 0, 0),
        )
        shown = [column for column in COLUMNS if column not in omitted]
        for column in shown:
            justify: Literal["left", "right"] = "right" if column in NUMBERS else "left"
            table.add_column(column, justify=justify, no_wrap=True, min_width=COLUMNS[column])
        for generation, line in enumerate(chain.lines):
            cells = dict(zip(COLUMNS, self._cells(generation, line), strict=True))
            table.add_row(*(cells[column] for column in shown), style="dim" if line.state == "waiting" else "")
        return table

    def _cells(self, generation: int, line: _GenerationState) -> Iterable[str | Text]:
        fraction = (line.epoch + line.images / line.total_images) / line.epochs
        colours = {
            "starting": "yellow",
            "compiling": "yellow",
            "running": "cyan",
            "done": "green",
            "reused": "green",
            "waiting": "dim",
        }
        filled = int(fraction * 20)
        yield str(generation)
        yield Text(line.state, style=colours[line.state])
        yield f"{line.epoch}/{line.epochs}"
        yield Text("━" * filled, style=colours[line.state]) + Text("━" * (20 - filled), style="bright_black")
        yield f"{line.speed:,.0f}" if line.speed else "–"
        yield "{:.3f} = {:.3f}, {:.3f}".format(*line.loss) if line.loss else "–"
        yield f"{three(line.primary)} → {three(line.target)}"
        yield percent(line.train_error)
        yield percent(line.error)
        yield percent(line.ensemble_error)
