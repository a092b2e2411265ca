"""Show the result of `gentrain doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from gentrain.doctor import Diagnosis


def doctor_tables(diagnosis: Diagnosis) -> list[Table | Text]:
    """Return the table of checks with remedies, the timings of each network, and the verdict."""
    table = Table(title="this machine", title_justify="left", title_style="bold", show_header=False)
    table.add_column("")
    table.add_column("", overflow="fold")
    for check in diagnosis.checks:
        text, style = (check.result, "") if check.good else (f"{check.result}: {check.remedy}", "red")
        table.add_row(Text(check.name, style=style), Text(text, style=style))
    shown: list[Table | Text] = [table]
    for network, seconds in diagnosis.seconds.items():
        fast, *slower = sorted(seconds, key=seconds.__getitem__)
        others = ", ".join(f"{p} {1000 * seconds[p]:,.0f} ms ({seconds[p] / seconds[fast]:.1f} ×)" for p in slower)
        text = (
            f"{network}: {fast} is faster here, {1000 * seconds[fast]:,.0f} ms a step, {others}; "
            f"the study says {diagnosis.precision}"
        )
        shown.append(Text(text, style="" if fast == diagnosis.precision else "yellow"))
    if diagnosis.healthy:
        return [*shown, Text("fit for this study", style="green")]
    failed = ", ".join(check.name for check in diagnosis.checks if not check.good)
    return [*shown, Text(f"not fit for this study: {failed}; see the remedies above", style="red")]
