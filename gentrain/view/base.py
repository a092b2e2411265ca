"""Provide what all views share: their own stream, one event at a time, a restored terminal at the end."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable
from typing import Self, TextIO

from rich.console import Console, RenderableType
from rich.live import Live
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from gentrain.errors import printable
from gentrain.events import Event, Note


def open_console(stream: TextIO) -> Console:
    """Return a console that shows texts as they are: names of classes and folders are no markup and no emoji codes."""
    return Console(file=stream, highlight=False, soft_wrap=True, markup=False, emoji=False)


class View:
    """Show events; a context manager, so that the terminal is restored even after an error.

    With `after`, leaving the context closes `stream`, and `console` writes to `after` from then on.
    """

    def __init__(self, stream: TextIO, *, after: TextIO | None = None) -> None:
        self.console = open_console(stream)
        self._stream, self._after = stream, after
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._after is not None:
            self._stream.close()
            self.console = open_console(self._after)

    def __call__(self, event: Event) -> None:
        """Show an event; safe to call from any thread."""
        with self._lock:
            self._take(event)

    def _take(self, event: Event) -> None:
        raise NotImplementedError


class LinesView(View):
    """Show events as plain lines, for logs, pipes and CI."""

    def _take(self, event: Event) -> None:
        if text := self._line(event):
            self.console.print(Text(printable(text)))

    def _line(self, event: Event) -> str | None:
        """Return the event's line; None where it gets none."""
        if isinstance(event, Note):
            return f"warning: {event.text}" if event.level == "warning" else event.text
        return None


class TableView(View):
    """Show events as a table that is redrawn in place, with notes scrolling above it."""

    def __init__(self, stream: TextIO, *, after: TextIO | None = None) -> None:
        super().__init__(stream, after=after)
        self._live = Live(
            console=self.console,
            refresh_per_second=4,
            get_renderable=self._render,
            transient=True,
            redirect_stdout=False,  # what Ray prints goes to ray.log
            redirect_stderr=False,
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()
        super().__exit__(*error)

    def _take(self, event: Event) -> None:
        if isinstance(event, Note):
            style = "yellow" if event.level == "warning" else "dim"
            self.console.print(Text(printable(event.text), style=style))

    def picture(self) -> RenderableType:
        """Return what the table shows now."""
        return self._render()

    def _render(self) -> RenderableType:
        raise NotImplementedError


def widest_fitting(console: Console, tables: Iterable[Table]) -> Table:
    """Return the first table that fits the console's width, or the last; `tables` go from wide to narrow."""
    unbounded = console.options.update(width=10_000)  # a measurement is never wider than its options
    for table in tables:
        if Measurement.get(console, unbounded, table).maximum <= console.width:
            break
    return table


class QuietView(View):
    """Show no event; `console` still shows results."""

    def _take(self, event: Event) -> None:
        pass


def open_view(
    lines: type[LinesView],
    table: type[TableView],
    *,
    as_json: bool,
    quiet: bool = False,
    stream: TextIO | None = None,
) -> View:
    """Return the view for standard output: a table on a terminal, else plain lines; with `as_json`, lines on stderr.

    With `quiet` it shows no event.

    The view writes to a copy of the stream's descriptor, because standard output itself is redirected to ray.log
    while Ray runs.
    """
    stream = stream or (sys.stderr if as_json else sys.stdout)
    if quiet:
        return QuietView(stream)
    try:
        descriptor = os.dup(stream.fileno())
        copy = open(descriptor, "w", encoding="utf-8", errors="backslashreplace", buffering=1)  # noqa: SIM115
    except (OSError, ValueError):  # a stream without a descriptor, in tests and notebooks
        return lines(stream)
    kind = table if not as_json and stream.isatty() else lines
    return kind(copy, after=stream)
