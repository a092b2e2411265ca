"""Write rows of results as an HTML table, for notebooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

PERCENT = ("top1_error", "ensemble_top1_error", "weighted_top1_error", "selected_top1_error", "top5_error", "ece")
COLUMNS = {
    "chain": "chain",
    "generation": "gen",
    "network": "network",
    "top1_error": "top-1 error %",
    "ensemble_top1_error": "+ ensemble",
    "weighted_top1_error": "+ weighted",
    "selected_top1_error": "+ selected",
    "top5_error": "top-5 error %",
    "nll": "NLL",
    "ece": "calibration error %",
    "primary_measured": "primary score",
    "primary_predicted": "predicted",
    "train_seconds": "seconds",
}
"""Columns of results.parquet and their headings; one without any value is left out."""


def html_table(rows: Sequence[Mapping[str, Any]], *, title: str) -> str:
    """Return rows of results.parquet as an HTML table; errors in per cent."""
    shown = [column for column in COLUMNS if any(row.get(column) is not None for row in rows)]
    head = "".join(f"<th>{escape(COLUMNS[column])}</th>" for column in shown)
    body = "".join(f"<tr>{''.join(_cell(column, row.get(column)) for column in shown)}</tr>" for row in rows)
    return (
        f"<table><caption>{escape(title)}: {len(rows)} finished generations</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def _cell(column: str, value: Any) -> str:
    if value is None:
        return "<td>–</td>"
    if isinstance(value, float):
        decimals = 2 if column in PERCENT else 1 if column == "train_seconds" else 3
        value = f"{100 * value if column in PERCENT else value:.{decimals}f}"
    return f"<td>{escape(str(value))}</td>"
