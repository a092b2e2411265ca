"""Show a report's tables on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from gentrain.report.rows import ReportTable

STYLES = {"single": "", "ensemble": "", "interval": "dim", "paper": "dim", "difference": "dim", "other": ""}
LONGEST_LABEL = 40
"""Most characters of labels that are not wrapped."""


def report_tables(tables: Sequence[ReportTable]) -> list[Table]:
    """Return the report's tables, each with its notes below."""
    rendered = []
    for table in tables:
        shown = Table(title=Text(table.title), title_justify="left", title_style="bold", caption_justify="left")
        shown.caption = Text("\n".join(table.notes))
        lines = table.lines()
        whole = max((len(line.label) for line in lines), default=0) <= LONGEST_LABEL
        shown.add_column("", no_wrap=whole)  # labels stay whole: the numbers wrap
        for column in table.columns:
            shown.add_column(column, justify="right")
        for line in lines:
            style = STYLES[line.kind]
            cells = [Text(text.replace("± ", "±"), style="bold" if bold else style) for text, bold in line.bold()]
            shown.add_row(Text(line.label, style=style), *cells)  # ± without a space: a line never breaks after it
        rendered.append(shown)
    return rendered
