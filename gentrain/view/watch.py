"""Show the state of studies again and again, with the learning curves of their generations."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TextIO

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gentrain.view.base import open_console
from gentrain.view.tables import STATES, percent, status_table

if TYPE_CHECKING:
    from gentrain.results.curves import Curve
    from gentrain.results.status import StudyStatus

SECONDS = 2.0
"""Between two pictures."""
BLOCKS = "▁▂▃▄▅▆▇█"
WIDTH = 40
"""Characters of a curve; one of fewer epochs has one for each."""
MOST_CURVES = 24
"""Curves that a picture has; those of chains that are trained now come first."""
OVER = {"done", "failed", "stopped", "saturated"}
"""States of a generation that nothing more happens to."""


def watch_states(
    read: Callable[[], Sequence[tuple[StudyStatus, Mapping[str, Sequence[Curve]]]]],
    stream: TextIO,
    *,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Show what `read` returns until every generation of every study is over, or Ctrl-C.

    A terminal's picture is redrawn in place; elsewhere each that differs from the one before is printed.
    """
    console = open_console(stream)
    shown = ""
    with Live(console=console, auto_refresh=False) as live:
        try:
            while True:
                states = read()
                picture = Group(*(part for state in states for part in _parts(*state)))
                if console.is_terminal:
                    live.update(picture, refresh=True)
                elif (text := _plain(console.width, picture)) != shown:
                    stream.write(text)
                    stream.flush()
                    shown = text
                if all(cell.state in OVER for status, _ in states for own in status.chains.values() for cell in own):
                    return
                pause(SECONDS)
        except KeyboardInterrupt:
            return


def _plain(width: int, picture: RenderableType) -> str:
    import io

    console = open_console(sink := io.StringIO())
    console.width = width
    console.print(picture)
    return sink.getvalue()


def _parts(status: StudyStatus, curves: Mapping[str, Sequence[Curve]]) -> Iterable[RenderableType]:
    yield status_table(status)
    busy = sorted(curves, key=lambda name: all(cell.state != "running" for cell in status.chains[name]))
    left = MOST_CURVES
    for name in busy:
        if (own := curves[name][-left:]) and left:
            yield curves_table(name, own, epochs=status.epochs)
            left -= len(own)


def curves_table(chain: str, curves: Sequence[Curve], *, epochs: int) -> Table:
    """Return a chain's learning curves, a row for each generation, all on one scale from 0 to the largest error."""
    top = max(error for curve in curves for error in curve.errors)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), title=chain, title_justify="left", show_header=False)
    for curve in curves:
        table.add_row(
            f"M({curve.cell.generation})",
            Text(sparkline(curve.errors, top=top), style=STATES[curve.cell.state]),
            Text(percent(curve.errors[-1]), justify="right"),
            f"epoch {len(curve.errors)}/{epochs}",
        )
    return table


def sparkline(values: Sequence[float], *, top: float, width: int = WIDTH) -> str:
    """Return values from 0 to `top` as a line of blocks; of more than `width` the last of each equal part."""
    ends = [max(1, round(len(values) * (part + 1) / width)) for part in range(width)] if len(values) > width else None
    chosen = [values[end - 1] for end in ends] if ends else values
    return "".join(BLOCKS[round((len(BLOCKS) - 1) * value / top) if top > 0 else 0] for value in chosen)
