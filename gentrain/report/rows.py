"""Hold a report's tables as data: cells, rows, the lines that are printed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from gentrain.scores.spread import Spread

DASH = "–"
INTERVAL = "  95 % interval"
Kind = Literal["single", "ensemble", "interval", "paper", "difference", "other"]


@dataclass(frozen=True)
class Cell:
    """Hold a value in its row's unit, its spread over seeds, and the paper's figure for the same thing."""

    value: float | None = None
    std: float | None = None
    n: int = 0
    """Number of seeds behind the value."""
    published: float | None = None
    partial: bool = False
    """Whether some seeds are missing."""
    interval: tuple[float, float] | None = None
    """95 % interval of the mean; None for a single seed."""

    @classmethod
    def of(cls, spread: Spread | None, *, partial: bool, published: float | None = None, scale: float = 100) -> Self:
        """Return the cell of a measure over seeds times `scale`: fractions become per cent."""
        if spread is None:
            return cls(published=published)
        interval = None if spread.interval is None else (scale * spread.interval[0], scale * spread.interval[1])
        std = None if spread.std is None else scale * spread.std
        return cls(scale * spread.mean, std, spread.n, published, partial, interval)

    @property
    def difference(self) -> float | None:
        """Return our value minus the paper's; None where either is missing."""
        return None if self.value is None or self.published is None else self.value - self.published


@dataclass(frozen=True)
class Line:
    """Hold one printed line of a table."""

    label: str
    texts: tuple[str, ...]
    kind: Kind
    series: str | None
    """Series of its process (`Group.series`)."""
    better: tuple[bool, ...] = ()
    """Of an ensemble's line, by text: whether its value is lower than the single network's."""

    def bold(self) -> Iterable[tuple[str, bool]]:
        """Yield each text, and whether it is set in bold: an ensemble's that is better than the single network."""
        yield from zip(self.texts, self.better or (False,) * len(self.texts), strict=True)


@dataclass(frozen=True)
class Row:
    """Hold one measure of a process, a cell for each column.

    Below it an interval is printed where there are several seeds, and two lines where the paper has figures.
    """

    label: str
    cells: tuple[Cell, ...]
    kind: Kind = "single"
    process: str = ""
    series: str | None = None
    digits: int = 2
    signed: bool = False
    interval: bool = True
    """Whether intervals are printed."""

    def lines(self, single: Row | None = None) -> Iterable[Line]:
        """Yield our line, its 95 % interval, the paper's figures and the difference; n where seeds are missing.

        `single` is the single network's row, with which an ensemble's is compared.
        """
        seeds = {cell.n for cell in self.cells if cell.value is not None}
        partial = any(cell.partial for cell in self.cells)
        each = partial and len(seeds) > 1
        label = f"{self.label}, n={seeds.pop()}" if partial and not each else self.label
        texts = tuple(self._ours(cell, with_n=each) for cell in self.cells)
        yield Line(label, texts, self.kind, self.series, self._better(single))
        if self.interval and any(cell.interval is not None for cell in self.cells):
            yield Line(INTERVAL, tuple(map(self._interval, self.cells)), "interval", self.series)
        if any(cell.published is not None for cell in self.cells):
            paper = tuple(_number(cell.published, self.digits) for cell in self.cells)
            yield Line("  paper", paper, "paper", self.series)
            differences = tuple(_number(cell.difference, self.digits, signed=True) for cell in self.cells)
            yield Line("  difference", differences, "difference", self.series)

    def _better(self, single: Row | None) -> tuple[bool, ...]:
        if self.kind != "ensemble" or single is None or single.process != self.process:
            return ()
        pairs = zip(self.cells, single.cells, strict=True)
        known = ((own.value, other.value) for own, other in pairs)
        return tuple(own is not None and other is not None and own < other for own, other in known)

    def _interval(self, cell: Cell) -> str:
        if cell.interval is None:
            return DASH
        return f"[{', '.join(_number(end, self.digits, signed=self.signed) for end in cell.interval)}]"

    def _ours(self, cell: Cell, *, with_n: bool) -> str:
        text = _number(cell.value, self.digits, signed=self.signed)
        if cell.std is not None:
            text += f" ± {cell.std:,.{self.digits}f}"
        return f"{text} (n={cell.n})" if with_n and cell.partial else text


@dataclass(frozen=True)
class ReportTable:
    """Hold one table of a report."""

    id: str
    title: str
    network: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = field(default=())

    def lines(self) -> list[Line]:
        """Return the printed lines."""
        lines: list[Line] = []
        single: Row | None = None
        for row in self.rows:
            single = row if row.kind == "single" else single
            lines += row.lines(single)
        return lines

    def records(self) -> Iterable[dict[str, Any]]:
        """Yield a record for each cell that has our value or a published one, for CSV and JSON."""
        for row in self.rows:
            for column, cell in zip(self.columns, row.cells, strict=True):
                if cell.value is not None or cell.published is not None:
                    yield {
                        "table": self.id,
                        "network": self.network,
                        "process": row.process,
                        "row": row.label.strip(),
                        "column": column,
                        "mean": cell.value,
                        "std": cell.std,
                        "n": cell.n,
                        "published": cell.published,
                        "difference": cell.difference,
                        "low_95": cell.interval[0] if cell.interval else None,
                        "high_95": cell.interval[1] if cell.interval else None,
                    }


RECORD_FIELDS = (
    "table", "network", "process", "row", "column", "mean", "std", "n", "published", "difference", "low_95", "high_95"
)  # fmt: skip


def _number(value: float | None, digits: int, *, signed: bool = False) -> str:
    if value is None:
        return DASH
    return f"{value:+,.{digits}f}" if signed else f"{value:,.{digits}f}"
