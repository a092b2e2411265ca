"""Tables of results, states and costs on narrow and wide terminals."""

import io

import pytest
from rich.console import Console

from gentrain import api
from gentrain.results.status import GenerationStatus, StudyStatus
from gentrain.train.predicting import Prediction
from gentrain.view import PredictionsTable, plan_table, results_table, status_table

NAME = "D(0.6,0.6)-resnet20-s0"
ROW = {
    "chain": NAME, "top1_error": 0.3123, "top5_error": 0.1023, "nll": 1.234, "ece": 0.0345,
    "ensemble_top1_error": 0.2987, "ensemble_top5_error": 0.0987, "ensemble_nll": 1.123, "ensemble_ece": 0.0123,
    "primary_measured": 0.603, "primary_predicted": 0.6, "train_seconds": 5025.0,
}  # fmt: skip


def results():
    return results_table([ROW | {"generation": generation} for generation in range(6)])


def status():
    states = ("done", "done", "running", "waiting", "waiting", "waiting")
    cells = tuple(GenerationStatus(g, "0" * 16, state, 12, 0.3123) for g, state in enumerate(states))
    return status_table(StudyStatus("five-groups", 164, {NAME: cells}, {}))


def plan(small, tmp_path):
    return plan_table(api.plan(small(), runs=str(tmp_path), price=2.5), name="small")


@pytest.mark.parametrize("width", [40, 80, 120])
def test_no_table_is_wider_than_the_terminal_and_at_80_columns_nothing_is_cut(small, tmp_path, width):
    for table in (results(), status(), plan(small, tmp_path)):
        console = Console(file=io.StringIO(), width=width, highlight=False, soft_wrap=True, markup=False)
        console.print(table)
        text = console.file.getvalue()
        if width >= 80 or table.title != status().title:  # six generations side by side need 60 columns
            assert max(map(len, text.splitlines())) <= width, text
        assert width < 80 or "…" not in text, text


@pytest.mark.parametrize(("width", "shown"), [(120, 5), (80, 4), (60, 2), (40, 1)])
def test_predictions_show_as_many_classes_as_fit(width, shown):
    classes = ("road", "bicycle", "maple", "sunflower", "apple")
    rows = [Prediction("/photos/road/057.png", classes, (0.7798, 0.1604, 0.04, 0.0094, 0.0077))]
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(PredictionsTable(rows))
    text = console.file.getvalue()
    assert sum(name in text for name in ("road 77", *classes[1:])) == shown
    assert all(len(line) <= width for line in text.splitlines())
    assert len(text.splitlines()) == 2
