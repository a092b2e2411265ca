"""Show a report's tables on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from gentrain.report.tables import ReportTable

STYLES = {"single": "", "ensemble": "bold", "paper": "dim", "difference": "dim", "other": ""}


def report_tables(tables: Sequence[ReportTable]) -> list[Table]:
    """Return the report's tables, each with its notes below."""
    rendered = []
    for table in tables:
        shown = Table(title=Text(table.title), title_justify="left", title_style="bold", caption_justify="left")
        shown.caption = Text("\n".join(table.notes))
        shown.add_column("", no_wrap=True)  # labels stay whole: the numbers wrap
        for column in table.columns:
            shown.add_column(column, justify="right")
        for line in table.lines():
            texts = (
                line.label,
                *(text.replace("± ", "±") for text in line.texts),
            )  # never breaks after ±
            shown.add_row(*(Text(text, style=STYLES[line.kind]) for text in texts))
        rendered.append(shown)
    return rendered
