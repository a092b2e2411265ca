"""A chain as it happens: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self, TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gentrain.events import (
    ChainStarted,
    EpochDone,
    Event,
    GenerationDone,
    GenerationQueued,
    GenerationStarted,
    Note,
    Progress,
)
from gentrain.view.tables import duration, percent


@dataclass
class _Line:
    """One generation in the live view."""

    target: float
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
class _Board:
    """The state of a chain as its events tell it; both views read it."""

    chain: str = ""
    runs: str = ""
    epochs: int = 1
    lines: list[_Line] = field(default_factory=list)

    def update(self, event: Event) -> None:
        if isinstance(event, ChainStarted):
            self.chain, self.runs, self.epochs = event.chain, event.runs, event.epochs
            self.lines = [_Line(target) for target in event.targets]
        elif isinstance(event, GenerationQueued):
            self.lines[event.generation].state = "starting"
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
            line.state, line.epoch, line.images = "reused" if event.reused else "done", self.epochs, 0
            line.error, line.ensemble_error = row["top1_error"], row["ensemble_top1_error"]
            line.primary, line.seconds = row["primary_measured"], row["train_seconds"]

    def seconds_left(self) -> float | None:
        """Return training seconds that are left, from the epochs seen so far; None while none was seen."""
        seen = [s for line in self.lines for s in line.epoch_seconds[-5:]]
        if not seen:
            return None
        left = sum(self.epochs - line.epoch - line.images / line.total_images for line in self.lines)
        return max(0.0, left * sum(seen) / len(seen))


class View:
    """Shows events; a context manager, so that the terminal is whole again whatever happens.

    `stream` is closed at the end where `after` is given, to which `console` writes from then on.
    """

    def __init__(self, stream: TextIO, *, after: TextIO | None = None) -> None:
        self.console = Console(file=stream, highlight=False, soft_wrap=True)
        self._stream, self._after = stream, after
        self._board = _Board()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._after is not None:
            self._stream.close()
            self.console = Console(file=self._after, highlight=False, soft_wrap=True)

    def __call__(self, event: Event) -> None:
        """Take an event, from any thread."""
        with self._lock:
            self._board.update(event)
            self._show(event)

    def _show(self, event: Event) -> None:
        raise NotImplementedError


class PlainView(View):
    """A line for every epoch and every finished generation: for logs, pipes and CI."""

    def _show(self, event: Event) -> None:
        if text := self._line(event):
            self.console.print(Text(text))

    def _line(self, event: Event) -> str | None:
        board = self._board
        if isinstance(event, Note):
            return f"warning: {event.text}" if event.level == "warning" else event.text
        if isinstance(event, ChainStarted):
            return f"{event.chain}: {len(event.keys)} generations of {event.epochs} epochs; results in {event.runs}"
        if isinstance(event, GenerationStarted):
            resumed = f", going on after epoch {event.epoch}" if event.epoch else ""
            return f"generation {event.generation} ({event.key}){resumed}"
        if isinstance(event, EpochDone):
            row, left = event.row, board.seconds_left()
            parts = [
                f"generation {event.generation} epoch {row['epoch']}/{board.epochs}",
                f"loss {row['loss']:.4f} = hard {row['hard']:.4f}, soft {row['soft']:.4f}",
                f"primary {row['primary_score']:.3f} (target {board.lines[event.generation].target:.3f})",
                f"error: train {percent(row['train_error'])} test {percent(row['test_error'])}",
                f"{row['images_per_second']:,.0f} images/s",
                f"{duration(left)} left",
            ]
            return "  ".join(parts)
        if isinstance(event, GenerationDone):
            row = event.row
            ensemble = row["ensemble_top1_error"]
            told = f"{row['chain']}: " if row["chain"] != board.chain else ""
            told += f"generation {event.generation} {'found finished' if event.reused else 'done'}: "
            told += f"test error {percent(row['top1_error'])}"
            return told + (f", ensemble {percent(ensemble)}" if ensemble is not None else "")
        return None


class LiveView(View):
    """A table that is redrawn in place, one line a generation."""

    def __init__(self, stream: TextIO, *, after: TextIO | None = None) -> None:
        super().__init__(stream, after=after)
        self._live = Live(console=self.console, refresh_per_second=4, get_renderable=self._render, transient=True)
        self._started = time.monotonic()

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()
        super().__exit__(*error)

    def _show(self, event: Event) -> None:
        if isinstance(event, Note):
            style = "yellow" if event.level == "warning" else "dim"
            self.console.print(Text(event.text, style=style))

    def _render(self) -> Table | Text:
        board = self._board
        if not board.lines:
            return Text("getting ready …", style="dim")
        left = board.seconds_left()
        clock = f"{duration(time.monotonic() - self._started)} so far"
        table = Table(
            title=f"{board.chain}  ·  {clock}, {duration(left)} of training left",
            title_justify="left",
            title_style="bold",
            caption=board.runs,
            caption_justify="left",
            box=None,
            pad_edge=False,
            padding=(0, 2, 0, 0),
        )
        for name in ("gen", "state", "epoch", "", "images/s", "loss = hard, soft", "primary → target"):
            table.add_column(name, no_wrap=True)
        for name in ("train err", "test err", "ensemble"):
            table.add_column(name, justify="right", no_wrap=True)
        for generation, line in enumerate(board.lines):
            table.add_row(*self._cells(generation, line), style="dim" if line.state == "waiting" else "")
        return table

    def _cells(self, generation: int, line: _Line) -> Iterable[str | Text]:
        fraction = (line.epoch + line.images / line.total_images) / self._board.epochs
        colours = {"starting": "yellow", "running": "cyan", "done": "green", "reused": "green", "waiting": "dim"}
        filled = int(fraction * 20)
        yield str(generation)
        yield Text(line.state, style=colours[line.state])
        yield f"{line.epoch}/{self._board.epochs}"
        yield Text("━" * filled, style=colours[line.state]) + Text("━" * (20 - filled), style="bright_black")
        yield f"{line.speed:,.0f}" if line.speed else "–"
        yield "{:.3f} = {:.3f}, {:.3f}".format(*line.loss) if line.loss else "–"
        yield f"{f'{line.primary:.3f}' if line.primary is not None else '–'} → {line.target:.3f}"
        yield percent(line.train_error)
        yield percent(line.error)
        yield percent(line.ensemble_error)


def open_view(*, as_json: bool, live: bool = True, stream: TextIO | None = None) -> View:
    """Return the view that suits standard output; with `as_json`, plain lines on standard error.

    The view writes to a copy of the stream's descriptor, so that what Ray prints can be sent elsewhere meanwhile.
    """
    stream = stream or (sys.stderr if as_json else sys.stdout)
    try:
        copy = open(os.dup(stream.fileno()), "w", encoding="utf-8", buffering=1, closefd=True)  # noqa: SIM115
    except (OSError, ValueError):  # a stream without a descriptor, in tests and notebooks
        return PlainView(stream)
    kind = LiveView if live and not as_json and stream.isatty() else PlainView
    return kind(copy, after=stream)
