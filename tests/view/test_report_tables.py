"""Test a report's tables on a terminal of 80 columns: no number and no process is cut."""

import pytest

from gentrain.report.rows import Cell, ReportTable, Row
from gentrain.view import show
from gentrain.view.report import report_tables

LONG = (
    "D(0.6,0.6,confidence_penalty,dkd-beta2.0)",
    "D(0.6,0.6,label_smoothing,dist) − D(0.6,0.6,mse,dkd-beta2.0), n=3",
)
CELL = Cell(101.25, 10.5, 3, None, interval=(-75.25, 127.75))


@pytest.mark.parametrize("label", [*LONG, "D(0.6,0.6)"])
@pytest.mark.parametrize("generations", [1, 4, 6])
def test_nothing_is_cut(label, generations, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    rows = (Row("D(0.6,0.6)", (CELL,) * generations), Row(label, (CELL,) * generations))
    show(*report_tables([ReportTable("t", "t", "n", tuple("abcdef"[:generations]), rows)]))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines)
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│")]
    first, second = ("".join(row[place] for row in cells) for place in (0, 1))
    assert label.replace(" ", "") in first.replace(" ", "")
    assert second.replace(" ", "") == "101.25±10.50-75.25to127.75" * 2
