"""Write rows of results, and facts by name, as HTML tables, for notebooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

PERCENT = ("top1_error", "ensemble_top1_error", "weighted_top1_error", "selected_top1_error", "top5_error", "ece")
HEADINGS = {
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
    shown = [column for column in HEADINGS if any(row.get(column) is not None for row in rows)]
    head = "".join(f"<th>{escape(HEADINGS[column])}</th>" for column in shown)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(shown_value(column, row.get(column)))}</td>' for column in shown)}</tr>"
        for row in rows
    )
    return (
        f"<table><caption>{escape(title)}: {len(rows)} finished generations</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def html_facts(facts: Mapping[str, str], *, title: str) -> str:
    """Return facts by name as an HTML table of two columns."""
    body = "".join(f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in facts.items())
    return f"<table><caption>{escape(title)}</caption><tbody>{body}</tbody></table>"


def shown_value(column: str, value: Any) -> str:
    """Return a value of results.parquet as its heading says: errors in per cent; a dash for None."""
    if isinstance(value, float):
        decimals = 2 if column in PERCENT else 1 if column == "train_seconds" else 3
        return f"{100 * value if column in PERCENT else value:.{decimals}f}"
    return "–" if value is None else str(value)
