"""A table of many rows looks the same whether Rich renders cell by cell or column by column."""

import io
import random

import pytest
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from gentrain.results.status import GenerationStatus, StudyStatus
from gentrain.view import status_table, tables
from gentrain.view.tall import TallTable


def many_chains():
    draw, chains = random.Random(0), {}
    for seed in range(120):
        name = f"D(0.6,0.{seed % 10})-resnet{draw.choice([8, 20, 110])}-s{seed}"
        states = [draw.choice(["done", "waiting", "failed", "running"]) for _ in range(6 if seed % 7 else 3)]
        chains[name] = tuple(GenerationStatus(g, "0" * 16, state, 3, 0.25) for g, state in enumerate(states))
    return StudyStatus("many", 100, chains, {"D(0.6,0.1)-resnet8-s1": "no [memory]"})


@pytest.mark.parametrize("width", [40, 80, 114, 119, 140])
def test_many_rows_look_as_few_do(monkeypatch, width):
    shown = []
    for many in (100, 10**9):
        monkeypatch.setattr(tables, "MANY_ROWS", many)
        table = status_table(many_chains())
        assert isinstance(table, TallTable) == (many == 100)
        console = Console(file=io.StringIO(), width=width, highlight=False, soft_wrap=True, markup=False)
        console.print(table)
        shown.append(console.file.getvalue())
    assert shown[0] == shown[1]
    assert shown[0].count("│ D(") == 120


def test_one_row_is_laid_out_for_all_and_cells_keep_their_colours():
    rows, laid_out = [[Text(f"D-s{seed}"), Text("failed", style="red")] for seed in range(200)], []

    def make(shown):
        laid_out.append(len(shown))
        table = Table("chain", Column("Gen #0", justify="right"))
        for row in shown:
            table.add_row(*row)
        return table

    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system="standard")
    console.print(TallTable(make, rows))
    assert max(laid_out) == 1
    assert console.file.getvalue().count("\x1b[31mfailed\x1b[0m") == 200
