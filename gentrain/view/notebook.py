"""Show a run that Python code has started: in a notebook's cell, on a terminal, or as lines elsewhere."""

from __future__ import annotations

import io
import sys
import time
from collections import deque
from html import escape
from typing import Any, TextIO

from rich.console import Console

from gentrain.errors import printable
from gentrain.events import Event, Note
from gentrain.view.base import LinesView, TableView, View, open_view

WIDTH = 120
"""Of the table in a notebook's cell, in characters."""
SECONDS = 0.25
"""Between two pictures of it."""
MOST_NOTES = 6
"""Newest lines that stand above it."""


class NotebookView(View):
    """Redraws a table view in one place of a notebook's output.

    Args:
        table: the view that draws it.
    """

    def __init__(self, table: type[TableView]) -> None:
        from IPython.display import HTML, display

        super().__init__(io.StringIO())
        self._html = HTML
        self._table = table(io.StringIO())  # never entered: its own live display doesn't run
        self._notes: deque[str] = deque(maxlen=MOST_NOTES)
        self._drawn = time.monotonic()
        self._handle: Any = display(HTML(""), display_id=True)

    def __exit__(self, *error: object) -> None:
        self._draw()
        super().__exit__(*error)

    def _take(self, event: Event) -> None:
        self._table(event)
        if isinstance(event, Note):
            self._notes.append(printable(event.text))
        if time.monotonic() - self._drawn >= SECONDS:
            self._draw()

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        page = Console(
            file=io.StringIO(),
            record=True,
            width=WIDTH,
            markup=False,
            emoji=False,
            highlight=False,
            force_jupyter=False,
        )
        page.print(self._table.picture())
        picture = page.export_html(inline_styles=True, code_format="<pre>{code}</pre>")
        notes = "".join(f"<div>{escape(note)}</div>" for note in self._notes)
        self._handle.update(self._html(notes + picture))


def open_progress(lines: type[LinesView], table: type[TableView], *, stream: TextIO) -> View:
    """Return the view for a run that Python code has started.

    Args:
        lines: shows events where there is neither a terminal nor a notebook.
        table: shows events elsewhere.
        stream: where lines and the terminal's table go.
    """
    return NotebookView(table) if in_notebook() else open_view(lines, table, as_json=False, stream=stream)


def in_notebook() -> bool:
    """Return whether this process is a notebook's kernel; IPython on a terminal isn't one."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return getattr(shell, "kernel", None) is not None
