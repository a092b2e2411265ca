"""Show a person what happens and what came out: live tables, plain lines, result tables; JSON rows for programs.

It may read the records of every room below and is the only room that imports Rich.
It may not read or write the run folder, start a run, or decide anything: it turns values into text.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from rich.console import RenderableType

from gentrain.view.base import View, open_console, open_view
from gentrain.view.chain import ChainLines, ChainTable
from gentrain.view.clean import leftovers_table
from gentrain.view.doctor import doctor_tables
from gentrain.view.evaluation import evaluation_tables
from gentrain.view.init import survey_lines, survey_table
from gentrain.view.notebook import open_progress
from gentrain.view.plan import chains_table, forest_tree, plan_assumptions, plan_table
from gentrain.view.predictions import PredictionsTable, predictions_csv
from gentrain.view.report import report_tables
from gentrain.view.sweep import SweepLines, SweepTable
from gentrain.view.tables import (
    manifest_table,
    networks_table,
    results_table,
    status_table,
)
from gentrain.view.watch import watch_states

__all__ = [
    "ChainLines",
    "ChainTable",
    "PredictionsTable",
    "SweepLines",
    "SweepTable",
    "View",
    "chains_table",
    "doctor_tables",
    "evaluation_tables",
    "forest_tree",
    "leftovers_table",
    "manifest_table",
    "networks_table",
    "open_progress",
    "open_view",
    "plan_assumptions",
    "plan_table",
    "predictions_csv",
    "print_json",
    "report_tables",
    "results_table",
    "show",
    "status_table",
    "survey_lines",
    "survey_table",
    "watch_states",
]


def show(*parts: RenderableType) -> None:
    """Print tables and text on standard output."""
    console = open_console(sys.stdout)
    for part in parts:
        console.print(part)


def print_json(rows: Sequence[Mapping[str, Any]], stream: TextIO) -> None:
    """Write rows as one JSON object a line."""
    for row in rows:
        stream.write(json.dumps(row) + "\n")
    stream.flush()
