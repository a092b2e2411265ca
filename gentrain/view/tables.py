"""Show results, prepared data, networks, plans, states and evaluations as tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from gentrain.errors import printable
from gentrain.results.units import duration
from gentrain.scores.metrics import TOP5_CLASSES
from gentrain.view.tall import TallTable

if TYPE_CHECKING:
    from gentrain.data.prepare.manifest import Manifest
    from gentrain.results.status import GenerationStatus, StudyStatus

MANY_ROWS = 100


def results_table(rows: Sequence[Mapping[str, Any]], *, classes: int | None = None) -> Table:
    """Return a chain's results as in the paper's tables: a column for each generation, single network and ensemble.

    Args:
        rows: of results.parquet.
        classes: of the data; of few, top-5 errors are left out.
    """
    table = Table(title=rows[0]["chain"], title_justify="left", title_style="bold")
    table.add_column("")
    for row in rows:
        table.add_column(f"Gen #{row['generation']}", justify="right")
    for name, column, show in (
        ("top-1 error %", "top1_error", bare_percent),
        ("top-5 error %", "top5_error", bare_percent),
        ("NLL", "nll", three),
        ("calibration error %", "ece", bare_percent),
    ):
        if column == "top5_error" and classes is not None and classes < TOP5_CLASSES:
            continue
        table.add_row(name, *(show(row[column]) for row in rows))
        table.add_row("  + ensemble", *(_beside(row, column, show) for row in rows))
        for kind in ("weighted", "selected"):  # on the held-out split, where there is one
            values = [row.get(f"{kind}_{column}") for row in rows]
            if any(value is not None for value in values):
                table.add_row(f"  + {kind}", *map(show, values))
    table.add_section()
    if any(row.get("ensemble_weights") for row in rows):
        table.add_row("weights of the ensemble", *(_weights(row["ensemble_weights"]) for row in rows))
        table.add_row("generations selected", *(_generations(row["selected_generations"]) for row in rows))
        table.add_section()
    table.add_row("primary score, training", *(three(row["primary_measured"]) for row in rows))
    table.add_row("  predicted", *(three(row["primary_predicted"]) for row in rows))
    table.add_row("training time", *(duration(row["train_seconds"]) for row in rows))
    return table


def _beside(row: Mapping[str, Any], column: str, show: Callable[[float | None], str]) -> Text:
    """Return an ensemble's value, in bold where it is better than the single network's."""
    value = row[f"ensemble_{column}"]
    return Text(show(value), style="bold" if value is not None and value < row[column] else "")


def manifest_table(manifest: Manifest, *, folder: str) -> Table:
    """Return the contents of a prepared dataset."""
    table = Table(title=f"{manifest.source}: {folder}", title_justify="left", title_style="bold", show_header=False)
    table.add_column("")
    table.add_column("", overflow="fold")
    shown = printable(", ".join(manifest.classes[:8])) + (" …" if len(manifest.classes) > 8 else "")
    table.add_row("classes", f"{len(manifest.classes)} ({shown})")
    if manifest.groups:
        shown = printable(", ".join(manifest.groups[:5])) + (" …" if len(manifest.groups) > 5 else "")
        table.add_row("groups", f"{len(manifest.groups)} ({shown})")
    for name, info in manifest.splits.items():
        table.add_row(name, f"{info.count:,} images, {info.bytes / 1e6:,.1f} MB, sha256 {info.sha256[:16]}…")
    table.add_row("pixels", f"{manifest.height} × {manifest.width}")
    table.add_row(
        "mean, std", "  ".join(f"{m:.4f} ± {s:.4f}" for m, s in zip(manifest.mean, manifest.std, strict=True))
    )
    duplicates = [f"{n} within {name}" for name, n in manifest.duplicates.within.items()]
    duplicates += [f"{n} across {name}" for name, n in manifest.duplicates.across.items()]
    table.add_row("exact duplicates", ", ".join(duplicates))
    table.add_row("skipped", f"{len(manifest.skipped)} broken images")
    table.add_row("fingerprint", f"{manifest.fingerprint[:16]}…")
    return table


def networks_table(rows: Sequence[Mapping[str, Any]], *, classes: int) -> Table:
    """Return networks with their parameters and multiply-adds."""
    table = Table(title=f"for {classes:,} classes", title_justify="left", title_style="bold")
    table.add_column("network", no_wrap=True)
    for name in ("parameters", "multiply-adds per image, millions", "pixels"):
        table.add_column(name, justify="right")
    for row in rows:
        adds, side = row["multiply_adds"] / 1e6, row["size"]
        table.add_row(Text(row["network"]), f"{row['parameters']:,}", f"{adds:,.1f}", f"{side} × {side}")
    return table


def status_table(status: StudyStatus) -> Table | TallTable:
    """Return a study's state: a row for each chain, a column for each generation."""
    cells = [cell for chain in status.chains.values() for cell in chain]
    counts = {state: sum(cell.state == state for cell in cells) for state in STATES}
    summary = ", ".join([count(len(cells), "generation"), *(f"{n} {state}" for state, n in counts.items() if n)])
    failures = "".join(f"\n{name}: {reason}" for name, reason in status.failures.items())

    def make(rows: Sequence[Sequence[Text]]) -> Table:
        table = Table(
            title=f"{status.name}: {summary}", title_justify="left", title_style="bold", caption_justify="left"
        )
        table.add_column("chain", overflow="fold")
        for generation in range(max((len(chain) for chain in status.chains.values()), default=0)):
            table.add_column(f"Gen #{generation}", justify="right")
        for row in rows:
            table.add_row(*row)
        table.caption = Text(f"numbers: top-1 error of finished generations{failures}")
        return table

    rows = [
        [Text(name), *(_cell(cell, epochs=status.epochs) for cell in chain)] for name, chain in status.chains.items()
    ]
    return make(rows) if len(rows) < MANY_ROWS else TallTable(make, rows)


STATES = {
    "failed": "red",
    "stopped": "dim",
    "saturated": "dim",
    "starting": "yellow",
    "compiling": "yellow",
    "done": "green",
    "running": "cyan",
    "interrupted": "yellow",
    "waiting": "dim",
    "damaged": "red",
}


def _cell(cell: GenerationStatus, *, epochs: int) -> Text:
    shown = percent(cell.top1_error) if cell.state == "done" else cell.state
    if cell.state in ("running", "interrupted"):
        shown += f" {cell.epoch}/{cell.epochs or epochs}"
    return Text(shown, style=STATES[cell.state])


def percent(value: float | None) -> str:
    """Return a fraction as a percentage; a dash for None."""
    return "–" if value is None else f"{100 * value:.2f}%"


def bare_percent(value: float | None) -> str:
    """Return a fraction as a percentage without the sign; a dash for None."""
    return "–" if value is None else f"{100 * value:.2f}"


def three(value: float | None) -> str:
    """Return a score with three decimals; a dash for None."""
    return "–" if value is None else f"{value:.3f}"


def _weights(values: Sequence[float] | None) -> str:
    return "\n".join(f"{value:.2f}" for value in values) if values else "–"


def _generations(values: Sequence[int] | None) -> str:
    return ", ".join(map(str, values)) if values else "–"


def count(number: float, noun: str) -> str:
    """Return a number with its noun, such as 2 devices."""
    return f"{number:g} {noun}" if number == 1 else f"{number:,g} {noun}s"
