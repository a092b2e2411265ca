"""Show a table of many rows in a fraction of the time: Rich lays out one row as wide as any, the others copy it.

Rich measures, wraps and pads cell by cell, some 50 µs each: half a second for a study of a thousand chains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

NARROWEST = 12
"""Columns that the first column keeps when it is folded."""
UNLIMITED = 10_000
MARK = 0xE000
"""First of the characters, one for each column, that mark its place in the row that Rich lays out: of private use."""


class TallTable:
    """A table that looks as `make(rows)` does. What doesn't fit is folded in the first column.

    Args:
        make: returns the table with these rows.
        rows: of texts of one line and one style; some may have fewer than others.
    """

    def __init__(self, make: Callable[[Sequence[Sequence[Text]]], Table], rows: Sequence[Sequence[Text]]) -> None:
        self._make = make
        columns = max(map(len, rows), default=0)
        self._rows = [[*row, *(Text() for _ in range(columns - len(row)))] for row in rows]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        rows = self._rows
        table, widths = self._laid_out(rows)
        excess = Measurement.get(console, options.update_width(UNLIMITED), table).maximum - options.max_width
        if excess > 0:
            width = max((row[0].cell_len for row in rows), default=0) - excess
            if width < NARROWEST:
                yield self._make(rows)
                return
            rows = [line for row in rows for line in _folded(row, width)]
            table, widths = self._laid_out(rows)
        justify = [column.justify for column in table.columns]
        for line in Segment.split_lines(console.render(table, options)):
            if not any(chr(MARK) in segment.text for segment in line):
                yield from (*line, Segment.line())
                continue
            parts = list(_between_marks(line))
            for row in rows:
                for before, cell, width, side in zip(parts, row, widths, justify, strict=False):
                    yield from before
                    space = Segment(" " * (width - cell.cell_len))
                    shown = Segment(cell.plain, console.get_style(cell.style))
                    yield from (space, shown) if side == "right" else (shown, space)
                yield from parts[-1]
                yield Segment.line()

    def _laid_out(self, rows: Sequence[Sequence[Text]]) -> tuple[Table, list[int]]:
        """Return the table with one row of marks, each as wide as its column, and the widths."""
        headers = [cell_len(str(column.header)) for column in self._make([]).columns]
        columns = zip(headers, zip(*rows, strict=True), strict=True)
        widths = [max(header, 1, *(cell.cell_len for cell in column)) for header, column in columns]
        return self._make([[Text(chr(MARK + place) * width) for place, width in enumerate(widths)]]), widths


def _between_marks(line: Iterable[Segment]) -> Iterable[list[Segment]]:
    """Yield what stands before each column's mark, and after the last one's."""
    part: list[Segment] = []
    for text, style, _ in line:
        mark = next((character for character in text if ord(character) >= MARK), None)
        if mark is None:
            part.append(Segment(text, style))
            continue
        before, _, after = text.partition(mark)
        yield [*part, Segment(before, style)]
        part = [Segment(after.lstrip(mark), style)]
    yield part


def _folded(row: Sequence[Text], width: int) -> list[list[Text]]:
    """Return the lines of a row whose first cell has lines of this width; the other cells are in the first line."""
    name, *cells = row
    first, *rest = name.divide(range(width, len(name.plain), width)) if name.cell_len > width else [name]
    return [[first, *cells], *([part, *(Text() for _ in cells)] for part in rest)]
