"""What the doctor found, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from gentrain.doctor import Diagnosis


def doctor_tables(found: Diagnosis) -> list[Table | Text]:
    """Return what there is, what to mend, and which precision is faster here."""
    table = Table(title="this machine", title_justify="left", title_style="bold", show_header=False)
    table.add_column("")
    table.add_column("", overflow="fold")
    for check in found.checks:
        told = check.found if check.good else f"{check.found}: {check.remedy}"
        table.add_row(
            Text(check.name, style="" if check.good else "red"), Text(told, style="" if check.good else "red")
        )
    shown: list[Table | Text] = [table]
    for network, seconds in found.seconds.items():
        fast, *slower = sorted(seconds, key=seconds.__getitem__)
        others = ", ".join(f"{p} {1000 * seconds[p]:,.0f} ms ({seconds[p] / seconds[fast]:.1f} ×)" for p in slower)
        told = (
            f"{network}: {fast} is faster here, {1000 * seconds[fast]:,.0f} ms a step, {others}; "
            f"the study says {found.precision}"
        )
        shown.append(Text(told, style="" if fast == found.precision else "yellow"))
    verdict = "fit for this study" if found.healthy else "not fit for this study: mend what is red"
    return [*shown, Text(verdict, style="green" if found.healthy else "red")]
