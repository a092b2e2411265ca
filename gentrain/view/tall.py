"""Show a table of many rows in a fraction of the time: all cells of a column as one text, a line or more for each row.

Rich measures, wraps and pads cell by cell, some 50 µs each: half a second for a study of a thousand chains.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

NARROWEST = 12
"""Columns that the first column keeps when it is folded."""
UNLIMITED = 10_000


class TallTable:
    """A table that looks as `make(rows)` does. What doesn't fit is folded in the first column.

    Args:
        make: returns the table with these rows.
        rows: of texts of one line; some may have fewer than others.
    """

    def __init__(self, make: Callable[[Sequence[Sequence[Text]]], Table], rows: Sequence[Sequence[Text]]) -> None:
        self._make = make
        columns = max(map(len, rows), default=0)
        self._rows = [[*row, *(Text() for _ in range(columns - len(row)))] for row in rows]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self._fitting(console, options)

    def _fitting(self, console: Console, options: ConsoleOptions) -> RenderableType:
        table = self._make([_joined(self._rows)])
        excess = Measurement.get(console, options.update_width(UNLIMITED), table).maximum - options.max_width
        if excess <= 0:
            return table
        width = max((row[0].cell_len for row in self._rows), default=0) - excess
        if width < NARROWEST:
            return self._make(self._rows)
        return self._make([_joined([_folded(row, width) for row in self._rows])])


def _joined(rows: Sequence[Sequence[Text]]) -> list[Text]:
    return [Text("\n").join(column) for column in zip(*rows, strict=True)]


def _folded(row: Sequence[Text], width: int) -> list[Text]:
    """Return a row's cells, the first in lines of this width, the others followed by as many empty lines."""
    name, *cells = row
    lines = math.ceil(name.cell_len / width)
    if lines < 2:
        return list(row)
    folded = Text("\n").join(name.divide(range(width, len(name.plain), width)))
    return [folded, *(Text("\n" * (lines - 1)).join([cell, Text()]) for cell in cells)]
