"""Show what nothing in a run folder needs any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from gentrain.errors import printable
from gentrain.results.units import size

if TYPE_CHECKING:
    from gentrain.running.clean import Leftovers


def leftovers_table(leftovers: Leftovers, *, runs: str, root: str) -> Table:
    """Return a row for each thing that nothing needs, with its size, and the sum.

    Args:
        leftovers: to show.
        runs: the run folder as a person named it.
        root: its path, which the paths begin with.
    """
    table = Table(title=f"nothing needs any more, in {printable(runs)}", title_justify="left", title_style="bold")
    table.add_column("kind")
    table.add_column("path", overflow="fold")
    table.add_column("size", justify="right", no_wrap=True)
    for item in leftovers.items:
        table.add_row(item.kind, Text(printable(item.path.removeprefix(f"{root}/"))), size(item.bytes))
    table.add_section()
    table.add_row("all", "", size(leftovers.bytes), style="bold")
    return table
