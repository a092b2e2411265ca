"""Show a report's tables on a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from gentrain.report.rows import ReportTable

STYLES = {"single": "", "ensemble": "", "interval": "dim", "paper": "dim", "difference": "dim", "other": ""}
LONGEST_LABEL, BROKEN_LABEL = 40, 30
"""Most characters of labels that stay on one line; where one is longer, all are broken after so many at most."""


def report_tables(tables: Sequence[ReportTable]) -> list[Table]:
    """Return the report's tables, each with its notes below."""
    rendered = []
    for table in tables:
        shown = Table(title=Text(table.title), title_justify="left", title_style="bold", caption_justify="left")
        shown.caption = Text("\n".join(table.notes))
        shown.add_column("", no_wrap=True)  # labels stay whole: the numbers wrap
        for column in table.columns:
            shown.add_column(column, justify="right", overflow="fold")
        long = max((len(line.label) for line in table.lines()), default=0) > LONGEST_LABEL
        for line in table.lines():
            style = STYLES[line.kind]
            cells = [Text(_narrow(text), style="bold" if bold else style) for text, bold in line.bold()]
            shown.add_row(
                Text(_broken(line.label) if long else line.label, style=style), *cells
            )  # ± without a space: a line never breaks after it
        rendered.append(shown)
    return rendered


def _narrow(text: str) -> str:
    """Return a cell's text with places to break it where columns are narrow: 28.30 ±0.41, and 27.28 to 29.32."""
    return text.strip("[]").replace(", ", " to ").replace("± ", "±")


def _broken(label: str) -> str:
    """Return a label in lines that end after a comma or at a space."""
    marked = label.lstrip().replace(",", ",\v")
    margin = label[: len(label) - len(label.lstrip())]
    lines = textwrap.wrap(
        marked,
        BROKEN_LABEL,
        expand_tabs=False,
        replace_whitespace=False,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(margin + line.replace("\v", "") for line in lines)
